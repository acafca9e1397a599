"""Tend a run from the caller's thread: events, progress, budgets, and what Ctrl-C does."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

import psycopg

from indexlab import units
from indexlab.apply import blockers, sessions
from indexlab.apply.blockers import Observation, Session
from indexlab.apply.failures import Stopped
from indexlab.apply.outcomes import Outcome
from indexlab.apply.settings import Settings
from indexlab.apply.steps import Step
from indexlab.errors import TargetError
from indexlab.records import Record
from indexlab.target import Target

TICK_SECONDS = 0.1
WATCH_SECONDS = 1.0
LEAST_PERCENT = 2.0
"""Below this share of a phase its end is not guessed."""

EventKind = Literal[
    "lock", "pause", "start", "progress", "wait", "clean", "retry", "end", "analyze"
]
Spent = Literal["", "lock_wait", "max_wait"]


@dataclass(frozen=True, slots=True)
class Event(Record):
    """Something that a run tells its caller while it goes on."""

    kind: EventKind
    """`lock`: waits for another runner. `pause`: care for the server keeps a step from beginning.
    `start`: an attempt is about to begin. `progress`: how far it is. `wait`: another session builds
    the same index. `clean`: an invalid leftover is about to be dropped. `retry`: an attempt has
    failed. `end`: the step has its outcome. `analyze`: a table is about to get new statistics."""
    step: Step | None = None
    attempt: int = 0
    phase: str = ""
    """In the server's words."""
    percent: float | None = None
    """Of this phase."""
    eta: float | None = None
    """Seconds that this phase will still take, if it goes on as it began."""
    blocks_done: int = 0
    blocks_total: int = 0
    waiting_for: tuple[Session, ...] = ()
    outcome: Outcome | None = None
    detail: str = ""

    @property
    def index(self) -> str:
        """The index that it is about; empty where it is about the run."""
        if self.outcome is not None:
            return self.outcome.index
        return "" if self.step is None else self.step.index

    @property
    def lasting(self) -> bool:
        """Whether it tells more than how far something is."""
        return self.kind in ("start", "clean", "retry", "end", "analyze") or bool(self.waiting_for)

    def __str__(self) -> str:
        share = "" if self.percent is None else f"{self.percent:.0f}%"
        left = "" if self.eta is None else f"(about {units.duration(self.eta)} left)"
        waits = ", ".join(map(str, self.waiting_for))
        ended = "" if self.outcome is None else _ending(self.outcome)
        number = f"attempt {self.attempt}" if self.kind == "start" and self.attempt > 1 else ""
        kind = "" if self.kind in ("end", "progress", "analyze") else self.kind
        told = (kind, number, self.phase, share, left, self.detail, ended)
        return f"{self.index or 'apply'}: {' '.join(filter(None, told))}" + (
            f"; waits for {waits}" if waits else ""
        )


def _ending(outcome: Outcome) -> str:
    cost = f"{units.size(outcome.bytes)} " if outcome.bytes else ""
    took = f"in {units.duration(outcome.seconds)}" if outcome.seconds else ""
    told = " ".join(filter(None, (outcome.outcome, cost + took))).strip()
    return f"{told}: {outcome.error}" if outcome.error else told


@dataclass(frozen=True, slots=True, eq=False)
class InFlight:
    """The statement that a worker waits for."""

    conn: psycopg.Connection[Any]
    pid: int
    step: Step
    cleaning: bool
    attempt: int


@dataclass(slots=True)
class _Watched:
    """What was seen of a statement in flight."""

    flight: InFlight
    began: float
    seen: float
    queueing_since: float | None = None
    phase: str = ""
    phase_since: float = 0.0
    spent: Spent = ""


@dataclass(slots=True)
class _Waits:
    """What a step has waited for so far."""

    seconds: float = 0.0
    sessions: dict[int, Session] = field(default_factory=dict)


class Tender:
    """What the caller's thread and the workers share, and the caller's side of it."""

    def __init__(
        self,
        target: Target,
        on_event: Callable[[Event], None],
        settings: Settings,
        *,
        session: psycopg.Connection[Any] | None = None,
    ):
        """Get ready.

        Args:
            target: the database.
            on_event: is told events in the caller's thread.
            settings: of the run.
            session: open and idle, to look from as long as it lasts; it is not closed here.
        """
        self._target = target
        self._on_event = on_event
        self._settings = settings
        self._told: queue.SimpleQueue[tuple[Event, threading.Event] | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._abandon = threading.Event()
        self._interrupts = 0
        self._guard = threading.Lock()  # held around any use of the two below
        self._watched: dict[int, _Watched] = {}
        self._waits: dict[str, _Waits] = {}
        self._watching = contextlib.ExitStack()
        self._watcher = session
        # Counted from the begin on, so that it is never more than one look a second.
        self._next_watch = time.monotonic() + min(WATCH_SECONDS, settings.lock_wait)

    # The caller's thread.

    def tend(self, work: Future[Any]) -> None:
        """Return when the work has ended, whatever interrupts."""
        work.add_done_callback(lambda _: self._told.put(None))
        with self._watching:
            try:
                self._tend(work, self._on_event)
            finally:  # an error of on_event goes on when the clean-up is done
                if not work.done():
                    self._stop.set()
                    self._tend(work, lambda _: None)

    def _tend(self, work: Future[Any], on_event: Callable[[Event], None]) -> None:
        while not work.done():
            try:
                self._tend_once(work, on_event)
            except KeyboardInterrupt:
                if self._interrupts:
                    self._abandon.set()
                self._interrupts += 1
                self._stop.set()

    def _tend_once(self, work: Future[Any], on_event: Callable[[Event], None]) -> None:
        while not work.done():
            if self._stop.is_set():
                self._cancel()
            try:
                told = self._told.get(timeout=TICK_SECONDS)
            except queue.Empty:
                self._watch(on_event)
                continue
            if told is None:
                continue
            event, handled = told
            try:
                on_event(event)
            except BaseException:
                self._stop.set()  # before the worker goes on, so that nothing more is sent
                raise
            finally:
                handled.set()

    def _cancel(self) -> None:
        """Cancel what is in flight; called until it has ended, so no race can lose it."""
        with self._guard:
            for watched in self._watched.values():
                if watched.flight.cleaning and not self._abandon.is_set():
                    continue
                with contextlib.suppress(psycopg.Error):
                    watched.flight.conn.cancel_safe(timeout=5)

    def _watch(self, on_event: Callable[[Event], None]) -> None:
        """Tell how far statements are and hold them to their budgets.

        Trouble of the watching session must not hurt a build.
        """
        with self._guard:
            pids = list(self._watched)
        if not pids or time.monotonic() < self._next_watch:
            return
        self._next_watch = time.monotonic() + WATCH_SECONDS
        events: list[Event] = []
        with contextlib.suppress(psycopg.Error, TargetError):
            conn = self._watch_session()
            seen = blockers.observe(conn, pids)
            with self._guard:
                now = time.monotonic()
                for pid, observation in seen.items():
                    watched = self._watched.get(pid)
                    if watched is not None and watched.began <= now - TICK_SECONDS / 2:
                        self._judge(watched, observation, now)
                        events.append(_event(watched, observation, now))
                        if watched.spent:
                            blockers.cancel(conn, pid)
        for event in events:
            on_event(event)

    def _judge(self, watched: _Watched, seen: Observation, now: float) -> None:
        """Count what is waited, and decide whether a budget is used up."""
        waits = self._waits.setdefault(watched.flight.step.index, _Waits())
        waits.sessions |= {session.pid: session for session in seen.blockers}
        if seen.waiting and not self._among_ourselves(seen):
            waits.seconds += now - watched.seen
        watched.seen = now
        if not seen.queueing:
            watched.queueing_since = None
        elif watched.queueing_since is None:
            new = now - watched.began < 2 * WATCH_SECONDS
            watched.queueing_since = watched.began if new else now
        if seen.phase != watched.phase:
            watched.phase, watched.phase_since = seen.phase, now
        if watched.flight.cleaning:
            return  # a limit of its own ends it
        if watched.queueing_since is not None:
            deadline = watched.queueing_since + self._settings.lock_wait
            if now >= deadline:
                watched.spent = "lock_wait"
            self._next_watch = min(self._next_watch, max(deadline, now + TICK_SECONDS))
        if seen.waiting and waits.seconds >= self._settings.max_wait:
            watched.spent = "max_wait"

    def _among_ourselves(self, seen: Observation) -> bool:
        """Return whether a build waits for another job's only, which has budgets of its own."""
        return bool(seen.blockers) and all(item.pid in self._watched for item in seen.blockers)

    def _watch_session(self) -> psycopg.Connection[Any]:
        if self._watcher is None or not sessions.idle(self._watcher):
            self._watching.close()
            self._watcher = self._watching.enter_context(sessions.opened(self._target))
        return self._watcher

    # The workers' threads.

    @property
    def stopping(self) -> bool:
        """Whether the run is to end; only cleaning up goes on."""
        return self._stop.is_set()

    @property
    def abandoning(self) -> bool:
        """Whether cleaning up is to end, too."""
        return self._abandon.is_set()

    def pause(self, seconds: float) -> None:
        """Wait, but not after Ctrl-C."""
        self._stop.wait(seconds)

    def begin(self, flight: InFlight) -> None:
        """Let a statement be watched and cancelled.

        Raises:
            Stopped: it must not be sent any more.
        """
        with self._guard:
            if (self._abandon if flight.cleaning else self._stop).is_set():
                raise Stopped("interrupted")
            now = time.monotonic()
            self._watched[flight.pid] = _Watched(flight, now, now)

    def end(self, flight: InFlight) -> Spent:
        """Let it be cancelled no more; return the budget that has ended it, if one has."""
        with self._guard:
            return self._watched.pop(flight.pid).spent

    def tell(self, event: Event) -> None:
        """Have the caller's thread handle an event before going on."""
        handled = threading.Event()
        with self._guard:
            waits = self._waits.setdefault(event.index, _Waits())
            waits.sessions |= {session.pid: session for session in event.waiting_for}
        self._told.put((event, handled))
        handled.wait()

    def waited(self, step: Step, seconds: float = 0.0) -> float:
        """Return how long a step has waited for others, after adding to it."""
        with self._guard:
            waits = self._waits.setdefault(step.index, _Waits())
            waits.seconds += seconds
            return waits.seconds

    def waits(self, step: Step) -> tuple[str, ...]:
        """Return the sessions that were seen in the way of a step, in words."""
        with self._guard:
            seen = self._waits.get(step.index, _Waits()).sessions
            return tuple(str(seen[pid]) for pid in sorted(seen))

    def forget_waits(self, step: Step) -> None:
        """Begin a new list of the sessions in the way."""
        with self._guard:
            self._waits.pop(step.index, None)


def _event(watched: _Watched, seen: Observation, now: float) -> Event:
    flight = watched.flight
    percent, spent = seen.percent, now - watched.phase_since
    sure = percent is not None and percent >= LEAST_PERCENT and spent >= WATCH_SECONDS
    return Event(
        "progress",
        flight.step,
        flight.attempt,
        phase="dropping the invalid leftover"
        if flight.cleaning
        else seen.phase or ("waiting for the lock of the table" if seen.queueing else ""),
        percent=percent,
        eta=spent * (100 - percent) / percent if sure and percent is not None else None,
        blocks_done=seen.blocks_done,
        blocks_total=seen.blocks_total,
        waiting_for=seen.blockers,
    )
