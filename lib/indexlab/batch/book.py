"""`batch.json`: what stands, kept up to date while the batch runs; and what a resumed one finds."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from indexlab.batch.stores import Store
from indexlab.batch.targets import BatchTarget
from indexlab.batch.tasks import Result, Work, folder, not_run
from indexlab.errors import InputError
from indexlab.runs import FORMAT, Json

STATUSES = ("ok", "findings", "failed", "not_run")
WAITING = "waiting for its turn"
RUNNING = "running"
LEAST_PAUSE = 1.0
"""Seconds between two writes, so that a batch of thousands is not busy with writing."""
LEAST_PAUSE_OF_PAGE = 10.0
SHARE = 50
"""Writing may take one part in so many of the time, and so may drawing the page."""


@dataclass(slots=True)
class Entry:
    """What stands of one target."""

    target: BatchTarget
    result: Result
    selected: bool = True
    wave: int = 0
    attempts: int = 0
    """Runs in this place, those of earlier batches included."""
    running: bool = False

    def document(self) -> Json:
        """Write it as a line of the matrix."""
        found = self.result.document()
        del found["mark"]
        return {
            **found,
            "target": self.target.target,
            "tags": list(self.target.tags),
            "group": self.target.group,
            "wave": self.wave,
            "attempts": self.attempts,
            "running": self.running,
        }


@dataclass(slots=True)
class Book:
    """The entries of a batch in the order of its file, and where they are kept."""

    store: Store
    work: Work
    source: str
    entries: dict[str, Entry]
    waves: list[Json] = field(default_factory=list)
    stopped: str = ""
    """Why the batch ended before its last wave."""
    interrupted: bool = False
    complete: bool = False
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    before: float = 0.0
    """Seconds that were spent on it before it was taken up."""
    _began: float = field(default_factory=time.monotonic)
    _written: float = 0.0
    _pause: float = 0.0
    _shown: float = 0.0
    _pause_of_page: float = 0.0

    def document(self) -> Json:
        """Write all that stands."""
        return {
            "stage": self.work.stage,
            "execute": self.work.execute,
            "report": self.work.report,
            "max_slowdown": self.work.max_slowdown,
            "source": self.source,
            "started": self.started.isoformat(timespec="seconds"),
            "updated": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(self.before + time.monotonic() - self._began, 3),
            "complete": self.complete,
            "interrupted": self.interrupted,
            "stopped": self.stopped,
            "waves": self.waves,
            "counts": self.counts(),
            "targets": [entry.document() for entry in self.entries.values()],
        }

    def counts(self) -> dict[str, int]:
        """Return how many of the chosen targets have which status."""
        found = Counter(entry.result.status for entry in self.chosen())
        return {status: found[status] for status in STATUSES}

    def chosen(self) -> tuple[Entry, ...]:
        """Return the entries that this batch is about, in the order of the file."""
        return tuple(entry for entry in self.entries.values() if entry.selected)

    def exit_code(self) -> int:
        """Return 4 where a target failed or was not run, 1 for findings, or 0."""
        counts = self.counts()
        if counts["failed"] or counts["not_run"]:
            return 4
        return 1 if counts["findings"] else 0

    def write(self, *, now: bool = False) -> None:
        """Write `batch.json`, if the last time is some while ago or it must be now.

        Raises:
            IncompleteError: it cannot be written.
        """
        began = time.monotonic()
        if not now and began - self._written < self._pause:
            return
        self.store.write(self.document())
        self._written = time.monotonic()
        self._pause = max(LEAST_PAUSE, SHARE * (self._written - began))

    def show(self, *, now: bool = False) -> str:
        """Write the page and its tables, under the same condition; returns where the page is.

        So that whoever looks at a batch that goes on, or that was killed, finds what stood then.

        Raises:
            IncompleteError: it cannot be written; `batch.json` stands.
        """
        from indexlab import render

        began = time.monotonic()
        if now or began - self._shown >= self._pause_of_page:
            for name, data in render.batch_files({"format": FORMAT, **self.document()}):
                self.store.put(name, data)
            self._shown = time.monotonic()
            self._pause_of_page = max(LEAST_PAUSE_OF_PAGE, SHARE * (self._shown - began))
        return f"{self.store.url}/{render.BATCH_PAGE}"


def opened(
    store: Store,
    work: Work,
    source: str,
    targets: tuple[BatchTarget, ...],
    *,
    chosen: tuple[BatchTarget, ...],
    marks: dict[str, str],
    resume: bool,
) -> Book:
    """Begin the book of a batch, or take up one; writes nothing.

    What a resumed batch need not do again is read from the runs themselves, not from `batch.json`,
    which a killed batch may have left behind the facts.

    Args:
        store: where it is kept.
        work: what is to be done.
        source: the file of targets, for its name.
        targets: all of the file.
        chosen: those of them that are to be worked on.
        marks: of the work on each target, by name.
        resume: whether a batch that is there is taken up.

    Raises:
        InputError: there is a batch and it is not to be resumed, or it is other work.
    """
    there = store.read()
    if there is not None and not resume:
        raise InputError(
            f"{store.url!r} holds batch.json already: say --resume to run what is missing or "
            "failed, or give another --out"
        )
    if there is not None:
        _check_same(there, work, store)
    runs = store.runs() if resume else {}
    results = store.results(
        {folder(t.name): runs[folder(t.name)] for t in targets if folder(t.name) in runs}
    )
    names = {target.name for target in chosen}
    entries = {}
    for target in targets:
        entry = Entry(
            target,
            not_run(target.name, WAITING),
            selected=target.name in names,
            attempts=runs.get(folder(target.name), 0),
        )
        known = results.get(folder(target.name))
        if known is not None and known["name"] == target.name:
            found = Result.of_document(known)
            if found.mark == marks[target.name]:
                entry.result = found
        if entry.selected or entry.result.status != "not_run":
            entries[target.name] = entry
    if there is None:
        return Book(store, work, source, entries)
    try:
        started, before = datetime.fromisoformat(there["started"]), float(there["seconds"])
    except (KeyError, TypeError, ValueError):
        raise InputError(
            "it does not say when it began and how long it took: give another --out",
            source=f"{store.url}/batch.json",
        ) from None
    return Book(store, work, source, entries, started=started, before=before)


def _check_same(there: Json, work: Work, store: Store) -> None:
    said = asdict(work)
    for name in ("stage", "execute"):
        if there.get(name) != said[name]:
            raise InputError(
                f"{store.url!r} holds a batch with {name} {there.get(name)!r}, not "
                f"{said[name]!r}: give another --out"
            )
