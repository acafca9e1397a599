"""The journal of a run: what it was about to do and what became of it, safe on the disk."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from indexlab.apply.outcomes import Outcome
from indexlab.apply.steps import Step
from indexlab.errors import IncompleteError, InputError
from indexlab.plan import CreateIndex

FORMAT = 1
UNKNOWN = "the run ended before the outcome of this step was known: the catalog decides"


class Journal:
    """Lines that are only ever appended; an intent is on the disk before anything of it is sent."""

    def __init__(self, path: Path):
        self.path = path
        self._guard = threading.Lock()
        self._new = False
        self._disk = ThreadPoolExecutor(1, "indexlab-journal")

    def begin(self, target: str, source: str, settings: str) -> None:
        """Note that a run begins; what a crash has left half written is closed first.

        It is on the disk with the first intent.
        """
        entry = {"event": "run", "target": target, "source": source, "settings": settings}
        self._append(entry, sync=False)

    def intend(self, step: Step, number: int) -> Callable[[], None]:
        """Note a step before anything of it is sent.

        Returns:
            What waits until the note is on the disk, and raises where it cannot be; to be called
            right before sending, so that the disk works while the server is asked other things.
        """
        outcome = intended(step)
        entry = {"event": "intent", "step": number, "outcome": asdict(outcome)}
        self._append(entry, sync=False)
        return self._disk.submit(self.settle).result

    def close(self, outcome: Outcome, number: int) -> None:
        """Note what became of a step.

        It is on the disk with the next intent, with `settle` or with the end; until then the catalog
        knows.
        """
        entry = {"event": "outcome", "step": number, "outcome": asdict(outcome)}
        self._append(entry, sync=False)

    def settle(self) -> None:
        """Have what was noted so far survive a loss of power."""
        try:
            with self.path.open("rb") as handle:
                os.fsync(handle.fileno())
            if self._new:
                _sync_directory(self.path.parent)
                self._new = False
        except OSError as error:
            raise self._unwritable(error) from None

    def part(self, outcome: Outcome, number: int) -> None:
        """Note what became of a part of a step that goes on."""
        self._append({"event": "part", "step": number, "outcome": asdict(outcome)})

    def end(self, *, complete: bool, interrupted: bool) -> None:
        """Note that the run has come to its end."""
        self._append({"event": "end", "complete": complete, "interrupted": interrupted})
        self._disk.shutdown(wait=False)

    def _append(self, entry: dict[str, Any], *, sync: bool = True) -> None:
        whole = {"format": FORMAT, "time": datetime.now(UTC).isoformat(), **entry}
        line = json.dumps(whole, ensure_ascii=False).encode() + b"\n"
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            with self._guard:
                self._new |= not self.path.exists()
                handle = os.open(self.path, flags, 0o600)
                try:
                    os.write(handle, line if _ends_whole(handle) else b"\n" + line)
                finally:
                    os.close(handle)
        except OSError as error:
            raise self._unwritable(error) from None
        if sync:
            self.settle()

    def _unwritable(self, error: OSError) -> IncompleteError:
        return IncompleteError(
            f"cannot write {self.path.as_posix()!r}: {error.strerror}; nothing more is begun"
        )


def intended(step: Step) -> Outcome:
    """Return what is known of a step that has begun: how it would be taken back."""
    planned = step.planned.index.sql if isinstance(step.planned, CreateIndex) else ""
    return Outcome(
        step.statement,
        step.index,
        "failed",
        error=UNKNOWN,
        definition=planned or step.definition,
        undo=step.undo,
        restores=step.restores,
        purpose=step.purpose,
        action=step.action,
        part_of=step.part_of,
    )


def _ends_whole(handle: int) -> bool:
    end = os.lseek(handle, 0, os.SEEK_END)
    return end == 0 or os.pread(handle, 1, end - 1) == b"\n"


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def target_of(path: Path) -> str:
    """Return the --target that a journal's last run worked on.

    Raises:
        InputError: it cannot be read, or holds no run.
    """
    runs = [entry for entry in _entries(path) if entry["event"] == "run"]
    if not runs:
        raise InputError("holds no run", source=path)
    return str(runs[-1]["target"])


def outcomes(path: Path, outcome: Callable[[dict[str, Any]], Outcome]) -> tuple[Outcome, ...]:
    """Read what runs did, in order; a step that was begun and not ended has failed.

    Args:
        path: of the journal; a last line that a crash has cut off is passed over.
        outcome: makes an outcome of its fields, and refuses what is none.

    Raises:
        InputError: it cannot be read, or is not as this version writes it.
    """
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    run = 0
    for entry in _entries(path):
        if entry["event"] == "run":
            run += 1
        if "outcome" not in entry:
            continue
        told, step = entry["outcome"], (run, entry["step"])
        if entry["event"] == "part":  # told before it begins and again at its end; before its step
            whole = found.pop(step, None)
            found[(*step, told["index"], told["statement"])] = told
            if whole is not None:
                found[step] = whole
        else:
            found[step] = told
    return tuple(map(outcome, found.values()))


def _entries(path: Path) -> list[dict[str, Any]]:
    try:
        # Not by splitlines(): a name may hold other characters that end a line of text.
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", source=path) from None
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # cut off by a crash; what it would have told is asked of the catalog
        if not isinstance(entry, dict) or entry.get("format") != FORMAT:
            raise InputError(f"is not of format {FORMAT}", source=path, line=number)
        entries.append(entry)
    return entries
