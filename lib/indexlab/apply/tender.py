"""Tend a run from the caller's thread: events, progress, and what Ctrl-C does."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Literal

import psycopg

from indexlab.apply import sessions
from indexlab.apply.failures import Stopped
from indexlab.apply.outcomes import Outcome
from indexlab.apply.sessions import Session
from indexlab.apply.steps import Step
from indexlab.errors import TargetError
from indexlab.target import Target

TICK_SECONDS = 0.1
WATCH_SECONDS = 1.0

EventKind = Literal["lock", "start", "progress", "clean", "retry", "end", "analyze"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a run tells its caller while it goes on."""

    kind: EventKind
    """`lock`: waits for another runner. `start`: an attempt is about to begin. `progress`: how far
    it is. `clean`: an invalid leftover is about to be dropped. `retry`: an attempt has failed.
    `end`: the step has its outcome. `analyze`: a table is about to get new statistics."""
    step: Step | None = None
    attempt: int = 0
    phase: str = ""
    """In the server's words."""
    percent: float | None = None
    """Of this phase."""
    blocks_done: int = 0
    blocks_total: int = 0
    waiting_for: tuple[Session, ...] = ()
    outcome: Outcome | None = None
    detail: str = ""

    def __str__(self) -> str:
        about = self.step.index if self.step is not None else "apply"
        share = "" if self.percent is None else f"{self.percent:.0f}%"
        waits = ", ".join(map(str, self.waiting_for))
        ended = "" if self.outcome is None else f"{self.outcome.outcome} {self.outcome.error}"
        number = f"attempt {self.attempt}" if self.kind == "start" and self.attempt > 1 else ""
        told = (self.kind, number, self.phase, share, self.detail, ended.strip())
        return f"{about}: {' '.join(filter(None, told))}" + (
            f"; waits for {waits}" if waits else ""
        )


@dataclass(frozen=True, slots=True)
class InFlight:
    """The statement that the worker waits for."""

    conn: psycopg.Connection[Any]
    pid: int
    step: Step
    cleaning: bool
    attempt: int


class Tender:
    """What the caller's thread and the worker share, and the caller's side of it."""

    def __init__(self, target: Target, on_event: Callable[[Event], None]):
        self._target = target
        self._on_event = on_event
        self._told: queue.SimpleQueue[tuple[Event, threading.Event]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._abandon = threading.Event()
        self._interrupts = 0
        self._guard = threading.Lock()  # held around any use of the two below
        self._in_flight: InFlight | None = None
        self._waited_for: dict[int, Session] = {}
        self._watching = contextlib.ExitStack()
        self._watcher: psycopg.Connection[Any] | None = None
        self._next_watch = 0.0

    # The caller's thread.

    def tend(self, work: Future[Any]) -> None:
        """Return when the work has ended, whatever interrupts."""
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
                event, handled = self._told.get(timeout=TICK_SECONDS)
            except queue.Empty:
                self._watch(on_event)
                continue
            try:
                on_event(event)
            except BaseException:
                self._stop.set()  # before the worker goes on, so that nothing more is sent
                raise
            finally:
                handled.set()

    def _cancel(self) -> None:
        """Cancel the statement in flight; called until it has ended, so no race can lose it."""
        with self._guard:
            flight = self._in_flight
            if flight is None or (flight.cleaning and not self._abandon.is_set()):
                return
            with contextlib.suppress(psycopg.Error):
                flight.conn.cancel_safe(timeout=5)

    def _watch(self, on_event: Callable[[Event], None]) -> None:
        """Tell how far the statement in flight is; trouble here must not hurt the build."""
        flight = self._in_flight
        if flight is None or time.monotonic() < self._next_watch:
            return
        self._next_watch = time.monotonic() + WATCH_SECONDS
        with contextlib.suppress(psycopg.Error, TargetError):
            conn = self._watch_session()
            progress = sessions.progress(conn, flight.pid)
            waits = sessions.in_the_way(conn, flight.pid, progress.locker if progress else 0)
            with self._guard:
                if self._in_flight is not flight:
                    return
                self._waited_for |= {session.pid: session for session in waits}
            event = Event("progress", flight.step, flight.attempt, waiting_for=waits)
            if flight.cleaning:
                event = replace(event, phase="dropping the invalid leftover")
            if progress is not None:
                event = replace(
                    event,
                    phase=progress.phase,
                    percent=progress.percent,
                    blocks_done=progress.blocks_done,
                    blocks_total=progress.blocks_total,
                )
            on_event(event)

    def _watch_session(self) -> psycopg.Connection[Any]:
        if self._watcher is None or self._watcher.closed:
            self._watching.close()
            self._watcher = self._watching.enter_context(sessions.opened(self._target))
        return self._watcher

    # The worker's thread.

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
            self._in_flight = flight
            self._next_watch = 0.0

    def end(self) -> None:
        """Let it be cancelled no more."""
        with self._guard:
            self._in_flight = None

    def tell(self, event: Event) -> None:
        """Have the caller's thread handle an event before going on."""
        handled = threading.Event()
        with self._guard:
            self._waited_for |= {session.pid: session for session in event.waiting_for}
        self._told.put((event, handled))
        handled.wait()

    def forget_waits(self) -> None:
        """Begin a new list of the sessions in the way."""
        with self._guard:
            self._waited_for = {}

    def waits(self) -> tuple[str, ...]:
        """Return the sessions that were seen in the way since, in words."""
        with self._guard:
            return tuple(str(self._waited_for[pid]) for pid in sorted(self._waited_for))
