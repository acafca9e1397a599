"""Telling the user what goes on, wherever that user is looking."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexlab import display

VARIABLE = "INDEXLAB_PROGRESS"
"""Names a file that a launching process reads: the command shows what its kernels do."""

Tell = Callable[[str, float | None], None]
"""Takes a few words and the part that is done, from 0 to 1, where it is known."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a process told."""

    text: str
    fraction: float | None

    def line(self) -> str:
        """Write it as a line of the progress file."""
        return json.dumps({"text": self.text, "fraction": self.fraction}) + "\n"

    @classmethod
    def of_line(cls, line: str) -> Step:
        """Read a line of the progress file."""
        told = json.loads(line)
        return cls(str(told["text"]), told["fraction"])


class Progress:
    """Where a lab tells what it does: the launching command, a notebook's page, or nowhere."""

    def __init__(self, tell: Tell | None = None):
        self._tell = tell or _found()

    def tell(self, text: str, fraction: float | None = None) -> None:
        """Say what is being done now."""
        self._tell(text, fraction)

    def done(self) -> None:
        """Say that it is done; a notebook's progress line disappears."""
        self._tell("", None)


def _found() -> Tell:
    path = os.environ.get(VARIABLE)
    if path:
        return _to_file(Path(path))
    if "ipykernel" in sys.modules:
        return _Page().tell
    return lambda _text, _fraction: None


def _to_file(path: Path) -> Tell:
    def tell(text: str, fraction: float | None) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(Step(text, fraction).line())

    return tell


class _Page:
    """One line on a notebook's page that changes in place."""

    def __init__(self) -> None:
        self._handle: Any = None

    def tell(self, text: str, fraction: float | None) -> None:
        from IPython.display import HTML
        from IPython.display import display as show

        if not text and self._handle is None:
            return
        bar = "" if fraction is None else f'<progress value="{fraction:.3f}"></progress> '
        line = HTML(f"{bar}{display.escape(text)}" if text else "")
        if self._handle is None:
            self._handle = show(line, display_id=True)
        else:
            self._handle.update(line)
        if not text:
            self._handle = None
