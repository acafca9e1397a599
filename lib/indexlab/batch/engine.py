"""Run a batch: hand out tasks in waves, keep the book, stop where that was asked for.

1. Check everything that can be without a target: the file, plans, workloads, `--out`.
2. Find out from the runs that are there what a resumed batch need not do.
3. For each wave, send tasks as workers get free, one at a time of a group, in their hours.
4. A target that could not be reached is tried again after a pause; nothing else is.
5. After a wave with a failure or a regression, send nothing more.
6. At an interrupt or when the scheduler is lost, send nothing more, interrupt what is being
   done, wait for its end, and write down what stands.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import FrameType

from indexlab import units
from indexlab.batch import book as books
from indexlab.batch import stores
from indexlab.batch.agenda import Agenda, Item, waves
from indexlab.batch.book import Book, Entry
from indexlab.batch.cluster import Crew, Ended, Told
from indexlab.batch.targets import Targets, select
from indexlab.batch.tasks import Result, Task, Work, attempt, not_run, task
from indexlab.errors import IncompleteError, InputError

TICK = 0.5
"""Seconds between two looks at the clock."""
BACKOFF = 2.0
"""Seconds before a target that could not be reached is tried again; twice as long each time."""
GRACE = 120.0
"""Seconds to wait for what an interrupt has to end."""
RECENT = 60.0
"""Seconds over which the throughput is counted."""
LOST = "the scheduler was lost"
INTERRUPTED = "interrupted"
BEYOND = "behind the last wave"

Pause = float | Callable[[int, int], bool]
"""Seconds between two waves, or what is asked then with the number of the next and of all; False
stops the batch."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a batch is."""

    done: int
    total: int
    failed: int
    running: int
    per_second: float
    left: float | None
    """Seconds; None where nothing is known yet."""
    waits_until: datetime | None
    """When the next target's hours begin, where nothing can be done before."""

    def __str__(self) -> str:
        parts = [f"{self.done:,} of {self.total:,} done"]
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        parts.append(f"{self.running} running")
        if self.per_second:
            parts.append(f"{self.per_second:.2g}/s")
        if self.waits_until is not None and not self.running:
            parts.append(f"waits until {self.waits_until:%H:%M}")
        elif self.left is not None:
            parts.append(f"about {units.duration(self.left)} left")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Stopping:
    """Nothing more is begun."""

    why: str
    running: int
    """How many targets are waited for."""

    def __str__(self) -> str:
        if not self.running:
            return self.why
        what = units.plural(self.running, "target")
        return f"{self.why}: waiting for {what} in work to end; Ctrl-C gives them up"


Event = Told | Ended | Progress | Stopping
Hear = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Batch:
    """What is to be done, checked; `planned` makes one."""

    book: Book
    tasks: tuple[Task, ...]
    """Of the chosen targets, without a place yet."""
    marks: tuple[int, ...]
    """How many of them are to be done at the end of each wave."""


def planned(
    targets: Targets, work: Work, out: str, *, only: str = "", wave: str = "", resume: bool = False
) -> Batch:
    """Check what is to be done, and what is there of it; writes nothing but a probe of `out`.

    Args:
        targets: from a file.
        work: what to do on each.
        out: where the batch is kept: a directory or a URL.
        only: as for `targets.select`.
        wave: as for `agenda.waves`.
        resume: whether a batch that is there is taken up.

    Raises:
        InputError: an input is not as it must be; nothing was run.
    """
    chosen = select(targets, only)
    marks = waves(wave, len(chosen))
    store = stores.opened(out)
    tasks = {target.name: task(target, work, store.url) for target in targets.targets}
    _check(targets, work)
    book = books.opened(
        store,
        work,
        Path(targets.source).name,
        targets.targets,
        chosen=chosen,
        marks={name: todo.mark for name, todo in tasks.items()},
        resume=resume,
    )
    store.prepare()
    return Batch(book, tuple(tasks[target.name] for target in chosen), marks)


def _check(targets: Targets, work: Work) -> None:
    if work.stage != "benchmark":
        return
    for target in targets.targets:
        if not target.workload.path and not target.target.startswith("demo"):
            raise InputError(
                f"a benchmark needs a workload: give {target.name!r} one, or 'workload' in "
                "'defaults'",
                source=targets.source,
            )


def run(
    batch: Batch,
    crew: Crew,
    *,
    retries: int = 2,
    pause: Pause | None = None,
    hear: Hear = lambda _event: None,
) -> Book:
    """Work a batch off; whatever happens, the book says what stands.

    In the main thread, Ctrl-C and SIGTERM end it: what is being done is interrupted and waited
    for. A second one ends the waiting.

    Args:
        batch: from `planned`.
        crew: who works.
        retries: how often a target that cannot be reached is tried again.
        pause: between waves.
        hear: is told what happens, in this thread.

    Raises:
        InputError: another batch works in this place.
        IncompleteError: `batch.json` cannot be written, and nothing more was begun; or at the end
            its page cannot.
    """
    with batch.book.store.held(), _interrupts() as interrupts:
        return _Engine(batch, crew, retries, hear, interrupts).run(pause)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Collect the signals that are to end a batch, instead of being torn by them."""
    heard: list[int] = []

    def hear(number: int, _frame: FrameType | None) -> None:
        heard.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Engine:
    def __init__(self, batch: Batch, crew: Crew, retries: int, hear: Hear, interrupts: list[int]):
        self._batch, self._book, self._crew = batch, batch.book, crew
        self._retries, self._hear, self._interrupts = retries, hear, interrupts
        self._agenda = Agenda()
        self._running: dict[str, Item] = {}
        self._ends: deque[float] = deque(maxlen=10_000)
        self._told = 0.0
        self._stopping = ""
        self._deadline: float | None = None
        self._trouble: IncompleteError | None = None

    def run(self, pause: Pause | None) -> Book:
        book, marks = self._book, self._batch.marks
        begin = 0
        book.waves = [{"upto": mark, "done": False} for mark in marks]
        self._write(now=True)
        for number, mark in enumerate(marks):
            self._wave(number, begin, mark)
            begin = mark
            if self._stopping:
                break
            book.waves[number]["done"] = True
            book.stopped = self._why_to_stop(number, mark)
            if book.stopped or number + 1 == len(marks):
                break
            if pause is not None and not self._paused(pause, number + 2):
                book.stopped = f"stopped before wave {number + 2}"
                break
            if self._interrupts:
                self._stopping = INTERRUPTED
                break
        book.stopped = book.stopped or self._stopping
        book.interrupted = self._stopping == INTERRUPTED
        for entry in book.chosen():
            if entry.result.status == "not_run":
                entry.result = not_run(entry.target.name, book.stopped or BEYOND)
        book.complete = not book.counts()["not_run"]
        self._write(now=True)
        if self._trouble is not None:
            raise self._trouble
        book.show(now=True)
        return book

    def _why_to_stop(self, number: int, mark: int) -> str:
        """Say what in the targets up to a mark keeps the next wave from being begun."""
        if number + 1 == len(self._batch.marks):
            return ""
        reached = self._book.chosen()[:mark]
        failed = [e.target.name for e in reached if e.result.status in ("failed", "not_run")]
        slower = [e.target.name for e in reached if e.result.regressions]
        reasons = [f"{units.listed(failed)} failed"] if failed else []
        reasons += [f"{units.listed(slower)} became slower"] if slower else []
        return f"stopped after wave {number + 1}: {'; '.join(reasons)}" if reasons else ""

    def _paused(self, pause: Pause, number: int) -> bool:
        """Wait before a wave; return False if it is not to begin."""
        self._write(now=True)
        self._show(now=True)
        if not isinstance(pause, float):
            return pause(number, len(self._batch.marks))
        deadline = time.monotonic() + pause
        while not self._interrupts and (left := deadline - time.monotonic()) > 0:
            self._crew.wait(min(TICK, left))
        return True

    # One wave

    def _wave(self, number: int, begin: int, end: int) -> None:
        chosen = self._book.chosen()
        for entry, todo in list(zip(chosen, self._batch.tasks, strict=True))[begin:end]:
            entry.wave = number + 1
            if not entry.result.stands:
                entry.result = not_run(entry.target.name, books.WAITING)
                window = entry.target.window if todo.stage != "audit" else ""
                self._agenda.add(Item(todo, entry.target.group, window))
        while self._running or (self._agenda and not self._stopping):
            self._send()
            for event in self._crew.wait(TICK):
                if isinstance(event, Ended):
                    self._ended(event)
                elif event.name in self._running:
                    self._began(event)
            self._look()
            self._write()
            self._show()

    def _send(self) -> None:
        while not self._stopping and self._crew.room > 0:
            item = self._agenda.next(datetime.now().astimezone())
            if item is None:
                return
            entry = self._book.entries[item.task.name]
            entry.attempts += 1
            placed = replace(item, task=attempt(item.task, entry.attempts), tries=item.tries + 1)
            self._running[item.task.name] = placed
            self._crew.send(placed.task)

    def _began(self, told: Told) -> None:
        entry = self._book.entries[told.name]
        if not entry.running:
            entry.running = True
            entry.result = replace(entry.result, reason=books.RUNNING)
        self._hear(told)

    def _ended(self, event: Ended) -> None:
        item = self._running.pop(event.task.name, None)
        if item is None:
            return
        entry = self._book.entries[event.task.name]
        entry.running = False
        self._agenda.done(item)
        result = self._placed(event.result, event.task)
        if result.again and item.tries <= self._retries and not self._stopping:
            later = datetime.now().astimezone() + timedelta(seconds=BACKOFF * 2 ** (item.tries - 1))
            entry.result = not_run(event.task.name, f"will be tried again: {result.reason}")
            self._agenda.add(item, not_before=later)
            self._hear(Told(event.task.name, str(entry.result.reason), None))
            return
        entry.result = result
        self._ends.append(time.monotonic())
        self._hear(Ended(event.task, result))

    def _placed(self, result: Result, todo: Task) -> Result:
        """Name the run of a task that could not say so itself."""
        directory = self._book.store.directory
        if result.run is None and directory is not None and (directory / todo.run).is_dir():
            return replace(result, run=todo.run)
        return result

    # The clock

    def _look(self) -> None:
        """See to what may end a batch, and say how far it is."""
        if not self._stopping and self._interrupts:
            self._stop(INTERRUPTED)
        elif not self._stopping and self._crew.lost:
            self._stop(LOST)
        if self._stopping and self._running:
            overdue = self._deadline is not None and time.monotonic() > self._deadline
            if overdue or len(self._interrupts) > 1 or self._crew.lost:
                for todo in self._crew.give_up():
                    self._ended(Ended(todo, self._given_up(todo)))
        now = time.monotonic()
        if now - self._told >= 1:
            self._told = now
            self._hear(self._progress(now))

    def _given_up(self, todo: Task) -> Result:
        """Say of a task that is waited for no longer what is known."""
        if not self._book.entries[todo.name].running and not self._crew.lost:
            return not_run(todo.name, f"{self._stopping}: it was not heard to begin")
        reason = f"{self._stopping}: what became of it is not known; resume the batch"
        return Result(todo.name, "failed", reason, 4, mark=todo.mark)

    def _stop(self, why: str) -> None:
        self._stopping = why
        self._agenda.drain()
        self._deadline = time.monotonic() + GRACE
        self._crew.stop()
        self._hear(Stopping(why, self._in_work()))

    def _in_work(self) -> int:
        return sum(entry.running for entry in self._book.entries.values())

    def _progress(self, now: float) -> Progress:
        counts = self._book.counts()
        total = sum(counts.values())
        done = total - counts["not_run"]
        while self._ends and now - self._ends[0] > RECENT:
            self._ends.popleft()
        span = now - self._ends[0] if self._ends else 0.0
        rate = len(self._ends) / span if span > 1 else 0.0
        return Progress(
            done=done,
            total=total,
            failed=counts["failed"],
            running=self._in_work(),
            per_second=rate,
            left=(total - done) / rate if rate else None,
            waits_until=self._agenda.opens(),
        )

    def _write(self, *, now: bool = False) -> None:
        """Keep the book; where it cannot be kept, end the batch."""
        if self._trouble is not None and not now:
            return
        try:
            self._book.write(now=now)
        except IncompleteError as error:
            self._trouble = error
            if not self._stopping:
                self._stop(f"batch.json could not be written: {error}")
        else:
            self._trouble = None

    def _show(self, *, now: bool = False) -> None:
        """Keep the page; `batch.json` is what ends a batch where it cannot be kept."""
        if self._trouble is None:
            with suppress(IncompleteError):
                self._book.show(now=now)


def failures(book: Book) -> tuple[Entry, ...]:
    """Return what failed or was not run, in the order of the file; pure."""
    return tuple(e for e in book.chosen() if e.result.status in ("failed", "not_run"))
