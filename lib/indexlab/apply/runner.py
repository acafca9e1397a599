"""Run steps one after the other: the only code of the kit that changes a target's schema."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import psycopg
from psycopg import errors
from psycopg import sql as compose

from indexlab import catalog as catalogs
from indexlab.apply import sessions
from indexlab.apply.failures import Stopped, passing, told
from indexlab.apply.outcomes import UNFINISHED, Applied, Outcome
from indexlab.apply.sessions import RunnerLock, Session
from indexlab.apply.steps import Step, drop_sql, identifier
from indexlab.apply.tender import TICK_SECONDS, WATCH_SECONDS, Event, EventKind, InFlight, Tender
from indexlab.catalog import Catalog, Index, Unresolved
from indexlab.errors import InputError, TargetError
from indexlab.plan import CreateIndex, IndexPlan
from indexlab.sql import RelationName
from indexlab.target import Target

RECONNECT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run behaves; seconds are seconds, 0 is none."""

    execute: bool
    on_event: Callable[[Event], None]
    retries: int
    lock_timeout: float
    runner_wait: float
    cleanup_wait: float
    analyze: bool

    def __post_init__(self) -> None:
        for name in ("retries", "lock_timeout", "runner_wait", "cleanup_wait"):
            if (value := getattr(self, name)) < 0:
                raise InputError(f"{name} is {value!r}: it must be 0 or more")


class Runner:
    """The work of a run, done in a thread of its own."""

    def __init__(self, target: Target, settings: Settings, lock: RunnerLock, tender: Tender):
        self._target = target
        self._settings = settings
        self._lock = lock
        self._tender = tender
        self._last_pid = 0
        self._sent = False

    def work(self, steps: tuple[Step, ...]) -> Applied:
        """Run the steps until one fails, then bring the statistics up to date."""
        outcomes: list[Outcome] = []
        for step in steps:
            failed = any(item.outcome in UNFINISHED for item in outcomes)
            if self._tender.stopping or failed:
                reason = "a step before it failed" if failed else "interrupted"
                outcome = _outcome(step, "not_run", error=reason, note="")
            else:
                outcome = self._timed(step)
            outcomes.append(outcome)
            self._tender.tell(Event("end", step, outcome.attempts, outcome=outcome))
        analyzed, warnings = self._analyze(steps, outcomes)
        return Applied(
            tuple(outcomes),
            executed=True,
            interrupted=self._tender.stopping and _unfinished(outcomes, warnings),
            analyzed=analyzed,
            warnings=warnings,
        )

    def _timed(self, step: Step) -> Outcome:
        self._tender.forget_waits()
        started = time.monotonic()
        outcome = self._step(step)
        seconds = time.monotonic() - started if outcome.attempts else 0.0
        return replace(outcome, seconds=seconds, waited_for=self._tender.waits())

    def _step(self, step: Step) -> Outcome:
        try:
            match step.action:
                case "build" | "rebuild":
                    return self._build(step)
                case "drop":
                    return self._drop(step)
                case "comment":
                    return self._comment(step)
                case "wait":
                    return _outcome(step, "failed", error=self._who_builds(step), note="")
                case _:
                    return foretold(step)
        except (psycopg.OperationalError, TargetError) as error:  # the server does not come back
            reason = f"{told(error)}; whether {step.index} stands is not known, run again to see"
            facts: dict[str, Any] = {"attempts": 1, "error": reason, "note": ""}
            if step.action in ("build", "rebuild"):
                facts |= {"definition": step.statement, "undo": step.undo}
            return _outcome(step, "failed", **facts)

    def _build(self, step: Step) -> Outcome:
        if step.action == "rebuild" and (problem := self._clear(step)) is not None:
            return problem
        attempt = 0
        while True:
            attempt += 1
            failure = self._attempt(step, step.statement, attempt)
            index, as_wanted = self._look(step)
            if index is not None and index.usable and as_wanted:
                return self._stands(step, index, failure, attempt)
            words = self._why(failure) if failure is not None else _unlike(step, index)
            facts: dict[str, Any] = {"attempts": attempt, "note": "", "error": words}
            if index is not None and self._left_behind(index, failure, as_wanted=as_wanted):
                left = self._drop_leftover(step)
                if left:
                    facts |= {"error": f"{words}; {left}", "undo": step.undo}
                    return _outcome(step, "failed", **facts | {"definition": index.definition})
            elif index is not None:
                ours = {"definition": index.definition, "undo": step.undo} if not failure else {}
                return _outcome(step, "failed", **facts | ours)
            if failure is None or not self._again(step, failure, attempt):
                return _outcome(step, "failed", **facts)

    def _left_behind(self, index: Index, failure: Exception | None, *, as_wanted: bool) -> bool:
        """Return whether our attempt left it; where the name was taken, it is another's."""
        ours = self._sent and not isinstance(failure, errors.DuplicateTable)
        return ours and as_wanted and not index.usable and not index.building

    def _stands(self, step: Step, index: Index, failure: Exception | None, attempt: int) -> Outcome:
        """Report an index that is valid; somebody else's if the name was taken meanwhile."""
        facts: dict[str, Any] = {"attempts": attempt, "definition": index.definition}
        if isinstance(failure, errors.DuplicateTable):
            return _outcome(step, "exists", **facts)
        return _outcome(step, "built", bytes=index.bytes, undo=step.undo, **facts)

    def _drop(self, step: Step) -> Outcome:
        index, _ = self._look(step)
        if index is None:
            return _outcome(step, "skipped", note="it is gone already")
        if step.oid not in (0, index.oid):
            error = f"another index has taken its name since: {index.definition}"
            return _outcome(step, "failed", error=error)
        definition = index.definition
        attempt = 0
        while True:
            attempt += 1
            failure = self._attempt(step, step.statement, attempt)
            index, _ = self._look(step)
            if index is None:
                facts = {"attempts": attempt, "definition": definition, "undo": step.undo}
                return _outcome(step, "dropped", **facts)
            if failure is None or not self._again(step, failure, attempt):
                break
        error = self._why(failure) if failure is not None else "it is still there"
        if not index.usable:
            error += (
                "; it is invalid now and serves no query: run again to finish the drop, "
                "or REINDEX INDEX CONCURRENTLY to keep it"
            )
        return _outcome(step, "failed", attempts=attempt, error=error)

    def _comment(self, step: Step) -> Outcome:
        attempt = 0
        while True:
            attempt += 1
            failure = self._attempt(step, step.statement, attempt)
            if failure is None:
                return _outcome(step, "built", attempts=attempt, undo=step.undo)
            if not self._again(step, failure, attempt):
                return _outcome(step, "failed", attempts=attempt, error=self._why(failure))

    def _analyze(
        self, steps: tuple[Step, ...], outcomes: list[Outcome]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        touched = {
            step.on: step
            for step, outcome in zip(steps, outcomes, strict=True)
            if outcome.outcome == "built"
            and isinstance(step.planned, CreateIndex)
            and step.on is not None
            and (self._settings.analyze or _has_expression(step.planned))
        }
        done: list[str] = []
        warnings: list[str] = []
        for table, step in touched.items():
            failure = self._attempt(step, _analyze_sql(table), 1, kind="analyze")
            if failure is None:
                done.append(str(table))
            else:
                warnings.append(f"{table} has no new statistics, ANALYZE it: {self._why(failure)}")
        return tuple(done), tuple(warnings)

    def _attempt(
        self,
        step: Step,
        statement: str,
        attempt: int,
        *,
        kind: EventKind = "start",
        limit: float = 0,
    ) -> Exception | None:
        """Tell the intent and run one statement on a session of its own; return what stopped it."""
        cleaning = kind == "clean"
        self._sent = False
        try:
            self._lock.ensure(partial(self._wait_for_lock, step))
            self._tender.tell(Event(kind, step, attempt, detail=statement))
            with sessions.opened(
                self._target,
                writing=True,
                lock_timeout=0 if cleaning else self._settings.lock_timeout,
                statement_timeout=limit,
                search_path=getattr(step.planned, "search_path", None),
            ) as conn:
                flight = InFlight(conn, sessions.backend_pid(conn), step, cleaning, attempt)
                self._last_pid = flight.pid
                self._tender.begin(flight)
                try:
                    self._sent = True
                    conn.execute(statement.encode())
                finally:
                    self._tender.end()
        except (psycopg.Error, TargetError, Stopped) as error:
            return error
        return None

    def _wait_for_lock(self, step: Step, holders: tuple[Session, ...]) -> None:
        if self._tender.stopping:
            raise Stopped("interrupted")
        self._tender.tell(Event("lock", step, waiting_for=holders))

    def _why(self, failure: Exception) -> str:
        """Say what stopped a statement; Ctrl-C has its own word."""
        cancelled = isinstance(failure, errors.QueryCanceled | Stopped)
        return "interrupted" if cancelled and self._tender.stopping else told(failure)

    def _again(self, step: Step, failure: Exception, attempt: int) -> bool:
        """Return whether to try again, after a pause that grows."""
        if self._tender.stopping or attempt > self._settings.retries or not passing(failure):
            return False
        self._tender.tell(Event("retry", step, attempt, detail=told(failure)))
        self._tender.pause(min(2.0 ** (attempt - 1), 30.0))
        return not self._tender.stopping

    def _look(self, step: Step) -> tuple[Index | None, bool]:
        """Read the index of a step, and whether it is as planned; waits for a lost session's end.

        Raises:
            TargetError: the server does not come back.
        """
        deadline = time.monotonic() + RECONNECT_SECONDS
        while True:
            try:
                with sessions.opened(self._target) as conn:
                    self._await_lost(conn)
                    return _found(conn, step)
            except (psycopg.Error, TargetError) as error:
                if time.monotonic() > deadline or self._tender.abandoning:
                    raise TargetError(f"the server cannot be asked what stands: {error}") from None
            time.sleep(5 * TICK_SECONDS)

    def _await_lost(self, conn: psycopg.Connection[Any]) -> None:
        """Wait for the server to end the statement of a session that is lost to us."""
        while sessions.alive(conn, self._last_pid):
            if self._tender.stopping:
                sessions.terminate(conn, self._last_pid)
            time.sleep(TICK_SECONDS)

    def _clear(self, step: Step) -> Outcome | None:
        """Drop the leftover of an earlier run; return why not, if so.

        A build by another role cannot be seen in the progress report, but its lock can: the
        drop would wait for that build to end, and then drop a good index.
        """
        failed = {"note": "", "definition": step.definition}
        with sessions.opened(self._target) as conn:
            assert step.on is not None
            while holders := sessions.maintaining(conn, step.on.schema, step.on.name):
                if self._tender.stopping:
                    return _outcome(step, "not_run", error="interrupted", **failed)
                self._tender.tell(
                    Event("progress", step, phase="waits to clean", waiting_for=holders)
                )
                self._tender.pause(WATCH_SECONDS)
            index, as_wanted = _found(conn, step)
        if index is None:
            return None
        if index.usable and as_wanted:
            return _outcome(step, "exists", definition=index.definition, note="")
        if index.building or not as_wanted:
            return _outcome(step, "failed", error=self._who_builds(step), **failed)
        left = self._drop_leftover(step)
        return _outcome(step, "failed", attempts=1, error=left, **failed) if left else None

    def _drop_leftover(self, step: Step) -> str:
        """Drop an invalid index that is ours to drop; return what is left, if anything is."""
        limit = max(self._settings.cleanup_wait, 0.001)
        failure = None
        for attempt in range(1, self._settings.retries + 2):
            statement = drop_sql(step.name, if_exists=True)
            failure = self._attempt(step, statement, attempt, kind="clean", limit=limit)
            index, _ = self._look(step)
            if index is None:
                return ""
            if failure is None or not passing(failure):
                break
        why = f" ({told(failure)})" if failure is not None else ""
        waits = ", ".join(self._tender.waits())
        after = f" once these have ended: {waits}" if waits else ""
        return (
            f"the invalid index {step.index} is left, because it could not be dropped{why}: "
            f"run again, or {drop_sql(step.name)},{after or ' later'}"
        )

    def _who_builds(self, step: Step) -> str:
        """Say which session builds the index of a step."""
        with sessions.opened(self._target) as conn:
            schema, table = (None, "") if step.on is None else (step.on.schema, step.on.name)
            who = ", ".join(map(str, sessions.maintaining(conn, schema, table)))
        return f"{who or 'another session'} is building {step.index}: wait for its end, run again"


def read(conn: psycopg.Connection[Any], plan: IndexPlan) -> Catalog:
    """Read the catalog as the session would see it that runs the plan."""
    paths = {create.search_path for create in plan.creates}
    if len(paths) == 1 and (path := paths.pop()) is not None:
        sessions.search_in(conn, path)
    return catalogs.read(conn, plan)


def _found(conn: psycopg.Connection[Any], step: Step) -> tuple[Index | None, bool]:
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


def _unlike(step: Step, index: Index | None) -> str:
    """Say what is there after a build that the server has reported as done."""
    if index is None:
        return f"the server reports the build as done, but there is no {step.index}"
    state = "" if index.usable else " and not valid"
    return f"what was built is not what was planned{state}: {index.definition}"


def _unfinished(outcomes: list[Outcome], warnings: tuple[str, ...]) -> bool:
    return bool(warnings) or any(item.outcome in UNFINISHED for item in outcomes)


def _has_expression(statement: CreateIndex) -> bool:
    return any(key.column is None for key in statement.index.keys)


def _analyze_sql(table: RelationName) -> str:
    return compose.SQL("ANALYZE {}").format(identifier(table)).as_string(None)


def _outcome(step: Step, word: str, **facts: Any) -> Outcome:
    """Say what became of a step; what was not touched has nothing to undo."""
    told = {"definition": step.definition, "note": step.reason} | facts
    return Outcome(step.statement, step.index, word, purpose=step.purpose, **told)


def foretold(step: Step) -> Outcome:
    """Say what a dry run knows."""
    match step.action:
        case "exists":
            return _outcome(step, "exists")
        case "skip":
            return _outcome(step, "skipped")
        case "wait":
            return _outcome(step, "not_run", error=step.reason, note="")
        case _:
            return _outcome(step, "dry_run")
