"""A worker's hand: one session that is kept, and statements that are sent on it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import psycopg
from psycopg import errors

from indexlab import catalog as catalogs
from indexlab import units
from indexlab.apply import blockers, sessions
from indexlab.apply.blockers import Session
from indexlab.apply.failures import Stopped, lost, passing, told
from indexlab.apply.lock import RunnerLock
from indexlab.apply.sessions import Identity, Standing
from indexlab.apply.settings import Settings
from indexlab.apply.steps import Step
from indexlab.apply.tender import (
    TICK_SECONDS,
    WATCH_SECONDS,
    Event,
    EventKind,
    InFlight,
    Spent,
    Tender,
)
from indexlab.catalog import Catalog, Index, Unresolved
from indexlab.errors import TargetError
from indexlab.plan import CreateIndex, IndexPlan
from indexlab.target import Target

Answer = TypeVar("Answer")

RECONNECT_SECONDS = 60.0
LONGEST_PAUSE = 30.0
BRIEF_LOCK_SECONDS = 0.05
"""A lock that keeps writers out is waited for no longer: they queue behind who waits for it."""
READING_WAITS = "the catalog cannot be read: another session has locked a table; tries again"
BRIEF_PAUSE = 0.2
BRIEF_LONGEST_PAUSE = 5.0


def reading_wait(settings: Settings) -> float:
    """Return how long a look at the catalog may wait for a table's lock, in seconds."""
    return max(settings.lock_wait, BRIEF_LOCK_SECONDS)


class Hand:
    """Sends statements one at a time; each is watched, and may be cancelled."""

    def __init__(
        self,
        target: Target,
        settings: Settings,
        lock: RunnerLock,
        tender: Tender,
        share: Mapping[str, str],
    ):
        self._target = target
        self._settings = settings
        self._lock = lock
        self._tender = tender
        self.share = share
        """Settings of the session beside those that every run has."""
        self._stack = ExitStack()
        self._conn: psycopg.Connection[Any] | None = None
        self._who: Identity | None = None
        self._lost: Identity | None = None
        self._set: dict[str, str] = {}
        self._path: tuple[str, ...] | None = None
        self.noted: Callable[[], object] = lambda: None
        """Waits until what is about to be sent is in the journal, on the disk."""
        self.sent = False
        """Whether the last statement has gone to the server."""
        self.spent: Spent = ""
        """The budget that has ended the last statement, if one has."""

    def adopt(self, conn: psycopg.Connection[Any]) -> None:
        """Work on a session that is open already and that its owner will close."""
        self._conn, self._who = conn, sessions.identity(conn)
        sessions.search_in(conn, None)
        self._set, self._path = {}, None

    def close(self) -> None:
        """Let go of the session."""
        self._stack.close()
        self._conn = None

    def attempt(
        self,
        step: Step,
        statement: str,
        number: int,
        *,
        kind: EventKind = "start",
        cleaning: bool = False,
        lock_timeout: float = 0,
        limit: float = 0,
    ) -> Exception | None:
        """Tell the intent and run one statement; return what stopped it.

        Args:
            step: that it is for.
            statement: to run.
            number: of the attempt, from 1.
            kind: of the event that tells it.
            cleaning: whether it goes on after Ctrl-C, and has no budget but `limit`.
            lock_timeout: seconds; only for a statement that waits for no old transactions.
            limit: seconds that it may take; 0 for any.
        """
        self.sent, self.spent = False, ""
        try:
            self._lock.ensure(partial(self._wait_for_lock, step))
            self._tender.tell(Event(kind, step, number, detail=statement))
            conn, who = self._ready(lock_timeout, limit, step)
            self.noted()
            flight = InFlight(conn, who.pid, step, cleaning, number)
            self._tender.begin(flight)
            try:
                self.sent = True
                conn.execute(statement.encode())
            finally:
                self.spent = self._tender.end(flight)
        except (psycopg.Error, TargetError, Stopped) as error:
            if lost(error):
                self._let_go()
            return error
        return None

    def brief(self, step: Step, statement: str) -> Exception | None:
        """Run a statement whose lock keeps writers out; return what stopped it.

        It queues for the lock only for a moment, again and again, until `max_wait` is used up.
        """
        number = 0
        while True:
            number += 1
            failure = self.attempt(step, statement, number, lock_timeout=BRIEF_LOCK_SECONDS)
            busy = isinstance(failure, errors.LockNotAvailable | errors.DeadlockDetected)
            if not busy or self._tender.stopping:
                return failure
            pause = min(BRIEF_PAUSE * 2 ** (number // 4), BRIEF_LONGEST_PAUSE) * jitter()
            if self._tender.waited(step, pause) >= self._settings.max_wait:
                self.spent = "max_wait"
                return failure
            self._tender.pause(pause)

    def again(self, step: Step, failure: Exception, attempt: int, locked_out: int) -> bool:
        """Return whether to try again, after a pause that grows.

        Args:
            step: that has failed.
            failure: why.
            attempt: the number of attempts so far.
            locked_out: how many of them have waited too long for the table's lock.
        """
        if self._tender.stopping or self.spent == "max_wait":
            return False
        if self.spent == "lock_wait":
            pause = min(2.0 ** (locked_out - 1), LONGEST_PAUSE) * jitter()
            if self._tender.waited(step, pause) >= self._settings.max_wait:
                self.spent = "max_wait"
                return False
            why = f"the table's lock was not free for {units.duration(self._settings.lock_wait)}"
        elif attempt - locked_out > self._settings.retries or not passing(failure):
            return False
        else:
            pause = min(2.0 ** (attempt - locked_out - 1), LONGEST_PAUSE) * jitter()
            why = told(failure)
        pausing = f"{why}; tries again in {units.duration(pause)}"
        self._tender.tell(Event("retry", step, attempt, detail=pausing))
        self._tender.pause(pause)
        return not self._tender.stopping

    def why(self, step: Step, failure: Exception) -> str:
        """Say what stopped a statement; Ctrl-C and used up budgets have their own words."""
        cancelled = isinstance(failure, errors.QueryCanceled | Stopped)
        if cancelled and self._tender.stopping:
            return "interrupted"
        if self.spent:
            waits = self._tender.waits(step)
            whom = f" for {', '.join(waits)}" if waits else ""
            limit = units.duration(self._settings.max_wait)
            return f"it has waited longer than max_wait ({limit}){whom}"
        return told(failure)

    def built(self, step: Step) -> Standing | None:
        """Read what the server has just reported as built; None where it cannot be asked."""
        if self._conn is None or self._conn.closed or step.name.schema is None:
            return None
        self._path = None
        try:
            return sessions.standing(self._conn, step.name.schema, step.name.name)
        except psycopg.OperationalError:
            self._let_go()
            return None

    def look(self, step: Step) -> tuple[Index | None, bool]:
        """Read the index of a step, and whether it is as planned; waits for a lost session's end.

        Raises:
            TargetError: the server does not come back.
        """
        return self.asking(partial(found, step=step))

    def asking(self, question: Callable[[psycopg.Connection[Any]], Answer]) -> Answer:
        """Ask the server on a session of its own, as soon as it can be asked.

        Raises:
            TargetError: the server does not come back.
        """
        began = time.monotonic()
        while True:
            try:
                with sessions.opened(self._target, lock_timeout=self._reading_wait) as conn:
                    self._await_lost(conn)
                    return question(conn)
            except (psycopg.OperationalError, psycopg.InterfaceError, TargetError) as error:
                locked = isinstance(error, errors.LockNotAvailable)
                patience = self._settings.max_wait if locked else RECONNECT_SECONDS
                if time.monotonic() - began > patience or self._tender.abandoning:
                    raise TargetError(f"the server cannot be asked what stands: {error}") from None
                if locked:
                    self._tender.tell(Event("retry", detail=READING_WAITS))
            time.sleep(5 * TICK_SECONDS)

    @property
    def _reading_wait(self) -> float:
        return reading_wait(self._settings)

    def await_others(self, step: Step) -> str:
        """Wait for sessions that maintain the step's table; return why no longer, if so."""
        began = time.monotonic()
        assert step.on is not None
        schema, table = step.on.schema, step.on.name
        while True:
            holders: tuple[Session, ...] = self.asking(
                lambda conn: blockers.maintaining(conn, schema, table)
            )
            if not holders:
                return ""
            if self._tender.stopping:
                return "interrupted"
            self._tender.tell(Event("wait", step, waiting_for=holders))
            waited = self._tender.waited(step, time.monotonic() - began)
            began = time.monotonic()
            if waited >= self._settings.max_wait:
                who = ", ".join(map(str, holders))
                limit = units.duration(self._settings.max_wait)
                return f"{who} is building {step.index}, for longer than max_wait ({limit})"
            self._tender.pause(min(WATCH_SECONDS, self._settings.max_wait or TICK_SECONDS))

    def _await_lost(self, conn: psycopg.Connection[Any]) -> None:
        """Wait for the server to end the statement of a session that is lost to us."""
        if self._lost is None:
            return
        deadline = time.monotonic() + self._settings.max_wait
        while (state := sessions.state_of(conn, self._lost)) is not None:
            if state != "active" or self._tender.stopping or time.monotonic() > deadline:
                sessions.terminate(conn, self._lost)
            time.sleep(TICK_SECONDS)
        self._lost = None

    def _ready(
        self, lock_timeout: float, limit: float, step: Step
    ) -> tuple[psycopg.Connection[Any], Identity]:
        if self._conn is None or self._conn.closed:
            self.close()
            self._conn = self._stack.enter_context(sessions.opened(self._target, writing=True))
            self._who = sessions.identity(self._conn)
            self._set, self._path = {}, None
        assert self._who is not None
        wanted = sessions.wanted_settings(
            writing=True, lock_timeout=lock_timeout, statement_timeout=limit
        )
        whole = {**wanted, **self.share}
        if whole != self._set:
            sessions.settle(self._conn, whole)
            self._set = whole
        path: tuple[str, ...] | None = getattr(step.planned, "search_path", None)
        if path != self._path:
            sessions.search_in(self._conn, path)
            self._path = path
        return self._conn, self._who

    def _let_go(self) -> None:
        """Close a session that is lost, and remember it: the server may still be at work on it."""
        self._lost = self._who or self._lost
        self._who = None
        self.close()

    def _wait_for_lock(self, step: Step, holders: tuple[Session, ...]) -> None:
        if self._tender.stopping:
            raise Stopped("interrupted")
        self._tender.tell(Event("lock", step, waiting_for=holders))


def jitter() -> float:
    """Return a factor that keeps those who wait for each other from meeting again."""
    return random.uniform(0.5, 1.5)


def read(conn: psycopg.Connection[Any], plan: IndexPlan) -> Catalog:
    """Read the catalog as the session would see it that runs the plan."""
    paths = {create.search_path for create in plan.creates}
    if len(paths) == 1 and (path := paths.pop()) is not None:
        sessions.search_in(conn, path)
    return catalogs.read(conn, plan)


def found(conn: psycopg.Connection[Any], step: Step) -> tuple[Index | None, bool]:
    """Read the index under the name of a step, and whether it is as planned."""
    plan = IndexPlan((step.planned,))
    catalog = read(conn, plan)
    assert step.name.schema is not None
    index = catalog.index(step.name.schema, step.name.name)
    if index is None:
        return None, False
    as_wanted = False
    if isinstance(step.planned, CreateIndex):
        wanted = catalog.wanted(step.planned.index, step.planned.search_path)
        as_wanted = not isinstance(wanted, Unresolved) and index.equals(wanted)
    return replace(index, definition=sessions.definition_of(conn, index.oid)), as_wanted
