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


def silent(_text: str, _fraction: float | None = None) -> None:
    """Tell nobody."""


class About(str):
    """A text about one of several things that go on side by side, each with a line of its own."""

    __slots__ = ("lasting", "topic")

    topic: str
    """What it is about."""
    lasting: bool
    """Whether it must be told where lines cannot change in place."""

    def __new__(cls, topic: str, text: str, *, lasting: bool = False) -> About:
        """Make the text."""
        made = super().__new__(cls, text)
        made.topic = topic
        made.lasting = lasting
        return made


@dataclass(frozen=True, slots=True)
class Step:
    """What a process told."""

    text: str
    """May be an `About`."""
    fraction: float | None

    def line(self) -> str:
        """Write it as a line of the progress file."""
        told: dict[str, Any] = {"text": str(self.text), "fraction": self.fraction}
        if isinstance(self.text, About):
            told |= {"topic": self.text.topic, "lasting": self.text.lasting}
        return json.dumps(told) + "\n"

    @classmethod
    def of_line(cls, line: str) -> Step:
        """Read a line of the progress file."""
        told = json.loads(line)
        text = str(told["text"])
        if "topic" in told:
            text = About(str(told["topic"]), text, lasting=bool(told["lasting"]))
        return cls(text, told["fraction"])


class Lines:
    """The last text of each topic, in the order in which the topics came; the rest is one line."""

    def __init__(self) -> None:
        self._texts: dict[str, tuple[str, float | None]] = {}

    def hear(self, text: str, fraction: float | None) -> tuple[tuple[str, float | None], ...]:
        """Take a text in and return all lines; an empty text forgets them.

        An empty text about a topic forgets the line of that topic.
        """
        if not text and isinstance(text, About):
            self._texts.pop(text.topic, None)
        elif not text:
            self._texts = {}
        elif isinstance(text, About):
            self._texts.pop("", None)
            self._texts[text.topic] = str(text), fraction
        else:
            self._texts = {"": (text, fraction)}
        return tuple(self._texts.values())


class Progress:
    """Where a lab tells what it does: the launching command, a notebook's page, or nowhere."""

    def __init__(self, tell: Tell | None = None, *, veil: Callable[[Tell], Tell] | None = None):
        """Find the listener.

        Args:
            tell: the listener, if it is known.
            veil: puts something before the listener, which so hears less.
        """
        found = tell or _found()
        self._tell = found if veil is None else veil(found)

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
    return silent


def _to_file(path: Path) -> Tell:
    def tell(text: str, fraction: float | None) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(Step(text, fraction).line())

    return tell


class _Page:
    """Lines on a notebook's page that change in place."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._lines = Lines()

    def tell(self, text: str, fraction: float | None) -> None:
        from IPython.display import HTML
        from IPython.display import display as show

        lines = self._lines.hear(text, fraction)
        if not text and self._handle is None:
            return
        shown = HTML("<br>".join(_written(*line) for line in lines))
        if self._handle is None:
            self._handle = show(shown, display_id=True)
        else:
            self._handle.update(shown)
        if not text:
            self._handle = None


def _written(text: str, fraction: float | None) -> str:
    bar = "" if fraction is None else f'<progress value="{fraction:.3f}"></progress> '
    return f"{bar}{display.escape(text)}"
