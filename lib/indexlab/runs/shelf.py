"""The shelf: all runs below one directory, what each says, and which may go."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from indexlab import units
from indexlab.errors import IncompleteError, IndexlabError, InputError
from indexlab.runs import cards
from indexlab.runs.cards import Card, Timing
from indexlab.runs.directory import Run
from indexlab.runs.holding import held, is_held
from indexlab.runs.private import forget

JOURNAL = "apply.journal"
SAMPLE = ".sample"
"""Marks the sample that comes with the kit: it is no run of the user's."""
GOING = ".going-"
"""Where a run is moved to before it is deleted: what is half deleted is no run any more."""


@dataclass(frozen=True, slots=True)
class Place:
    """One run of the shelf."""

    name: str
    """Of its directory."""
    card: Card
    page: str
    """Name of its page; empty where it has none."""
    working: bool
    """Whether a process works in it now."""


@dataclass(frozen=True, slots=True)
class Stranger:
    """A directory beside the runs that is none, or that cannot be read."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Shelf:
    """All runs of one directory, the newest first, and what else lies there."""

    path: Path
    places: tuple[Place, ...]
    strangers: tuple[Stranger, ...]

    def targets(self) -> tuple[str, ...]:
        """Return the names of all targets, each once, the one that was looked at last first."""
        return tuple(dict.fromkeys(place.card.target for place in self.places))

    def trend(self, target: str) -> dict[str, tuple[tuple[Place, Timing], ...]]:
        """Return the timings of each query of a target, the oldest first."""
        found: dict[str, list[tuple[Place, Timing]]] = {}
        for place in reversed(self.places):
            for timing in place.card.timings if place.card.target == target else ():
                found.setdefault(timing.query, []).append((place, timing))
        return {query: tuple(timings) for query, timings in found.items()}


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a run when old ones go."""

    place: Place
    reason: str = ""
    """Why it stays although it is old; empty where it goes."""


def read(path: Path, *, keep: bool = False) -> Shelf:
    """Read the runs below a directory; of files, JSON only.

    Args:
        path: such as `reports`; it may be absent.
        keep: whether to write the cards that are missing, so that the next time is faster.

    Raises:
        InputError: the directory cannot be read.
    """
    places, strangers = [], []
    for name in _directories(path):
        run = Run(path / name)
        working = is_held(run.path)
        try:
            card = _card(run, keep=keep and not working)
        except IndexlabError as error:
            reason = "a run that has no result yet" if working else _reason(error, run)
            strangers.append(Stranger(name, reason))
        else:
            places.append(Place(name, card, cards.page_of(run), working))
    places.sort(key=lambda place: (place.card.started, place.name), reverse=True)
    return Shelf(path, tuple(places), tuple(strangers))


def _directories(path: Path) -> Iterator[str]:
    try:
        with os.scandir(path) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", source=path) from None
    for name in names:
        if not name.startswith(".") and not (path / name / SAMPLE).exists():
            yield name


def _card(run: Run, *, keep: bool) -> Card:
    if not keep:
        return cards.read(run)
    try:
        return cards.keep(run)
    except IncompleteError:  # somebody else's run, or a full disk: the index does without
        return cards.read(run)


def _reason(error: IndexlabError, run: Run) -> str:
    return str(error).removeprefix(f"{run.path}/").removeprefix(f"{run.path}: ")


def outdated(shelf: Shelf, last: int, *, applied: bool = False) -> tuple[Fate, ...]:
    """Say what becomes of every run but the last ones; reads only.

    A run in progress stays, and so does one that a rollback still needs.

    Args:
        shelf: all runs.
        last: how many of the newest stay.
        applied: whether those go, too, that a rollback needs.

    Raises:
        InputError: the number is negative.
    """
    if last < 0:
        raise InputError(f"--prune {last} is not a number of runs to keep")
    return tuple(
        Fate(place, _stays(shelf.path / place.name, applied=applied))
        for place in shelf.places[last:]
    )


def _stays(path: Path, *, applied: bool) -> str:
    """Say why a directory must not go; empty where it may."""
    if path.is_symlink():
        return "it is a link to another place"
    if is_held(path):
        return "it is in progress"
    if not applied and (changed := _changed(Run(path))):
        return f"rollback needs it: {changed}"
    return ""


def _changed(run: Run) -> str:
    """Say what a run did to its target that has not been taken back; empty where nothing is."""
    try:
        if run.has("rollback") and _is_done(run.read_json("rollback")):
            return ""
        if run.has("apply"):
            document = run.read_json("apply")
            done = [step for step in document["steps"] if step["undo"]]
            if document["executed"] and done:
                return f"it changed {units.plural(len(done), 'index')}"
            if document["complete"]:
                return ""
    except (IndexlabError, KeyError, TypeError):
        return "its apply.json cannot be read"
    return "it was cut off while it applied" if (run.path / JOURNAL).exists() else ""


def _is_done(rollback: dict[str, object]) -> bool:
    return bool(rollback["executed"] and rollback["complete"])


def remove(shelf: Shelf, fates: tuple[Fate, ...]) -> tuple[Place, ...]:
    """Delete the runs that may go, and return them; each is looked at again before.

    Raises:
        IncompleteError: one cannot be deleted.
    """
    gone = []
    for half in shelf.path.glob(f"{GOING}*"):  # what a crash has left of an earlier time
        shutil.rmtree(half, ignore_errors=True)
    for fate in fates:
        path = shelf.path / fate.place.name
        if fate.reason or path.is_symlink():
            continue
        try:
            with held(path):
                forget(Run(path))
                going = path.with_name(f"{GOING}{path.name}")
                path.rename(going)
            shutil.rmtree(going)
        except InputError:  # somebody began to work in it since
            continue
        except OSError as error:
            raise IncompleteError(
                f"cannot delete {path.as_posix()!r}: {error.strerror}; the runs before it are gone"
            ) from None
        gone.append(fate.place)
    return tuple(gone)
