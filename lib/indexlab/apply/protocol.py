"""The protocol of a run: read, decide, refuse, and only then change anything."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg

from indexlab.apply import care, sessions
from indexlab.apply.blockers import Session
from indexlab.apply.crew import Crew, Orders
from indexlab.apply.foreseen import pending, restoring
from indexlab.apply.hand import READING_WAITS, read, reading_wait
from indexlab.apply.journal import Journal
from indexlab.apply.lock import RunnerLock
from indexlab.apply.outcomes import Applied, Outcome
from indexlab.apply.reversal import rebuilt, reversal
from indexlab.apply.sessions import definition_of
from indexlab.apply.settings import Settings
from indexlab.apply.statements import comment_sql
from indexlab.apply.steps import BUILDS, Step, refuse
from indexlab.apply.tender import Event, Tender
from indexlab.apply.worker import foretold
from indexlab.errors import TargetError
from indexlab.plan import CommentOnIndex, IndexPlan
from indexlab.target import Target

Decide = Callable[[psycopg.Connection[Any]], tuple[Step, ...]]


def run(
    target: Target,
    plan: IndexPlan,
    settings: Settings | None = None,
    *,
    execute: bool = False,
    journal: Path | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Applied:
    """Carry a plan out, or say what it would do; without `execute` it reads only.

    1. Check the address: two sessions are two, settings hold, so no pooler in transaction mode.
    2. Take the runner's advisory lock, by polling, on a session of its own.
    3. Read the catalog, decide on every step, and refuse all that is impossible at once: not the
       owner, a standby, 14.0 to 14.3, a name that is taken, an index that must stay, no room.
    4. For each step, note the intent in the journal, then run it on an autocommit session with no
       timeouts, CONCURRENTLY; on a partitioned table part by part. Tables are worked on side by
       side, each by one job; drops come last. The first step that fails lets nothing more begin.
    5. Watch it from the lock's session once a second: the phase, and the sessions it waits for. What
       waits for a table's lock longer than `lock_wait` is cancelled and tried again after a pause;
       what has waited longer than `max_wait` in all is given up.
    6. When an attempt fails, look at the catalog: what is valid stands, what another session
       builds is waited for and adopted, an invalid leftover is dropped before a retry and before
       giving up, or is named in the outcome.
    7. Believe the catalog only: built means valid and ready.
    8. ANALYZE the tables that got indexes.

    The statements run in worker threads and the caller's thread watches, calls `on_event` and
    waits: Ctrl-C reaches the thread that only watches, so it cannot tear a statement from its
    clean-up. The statements in flight are then cancelled at the server, their leftovers dropped,
    and the outcomes are returned. A second Ctrl-C gives the clean-up up.

    Args:
        target: the database.
        plan: usually the revised plan of the audit.
        settings: how the run behaves; the usual ones by default.
        execute: whether to change the target.
        journal: the file that keeps what was begun and what became of it; None keeps nothing.
        on_event: called in the caller's thread. All events but `progress` have been handled before
            the run goes on. If it raises, the run ends as by Ctrl-C.

    Raises:
        ApplyRefused: statements of the plan cannot be; lists all of them.
        TargetError: the target cannot be reached or does not allow it, or another run has the lock.
        IncompleteError: the journal cannot be written.
        KeyboardInterrupt: Ctrl-C before the first step was begun.
    """
    chosen = settings or Settings()

    def decide(conn: psycopg.Connection[Any]) -> tuple[Step, ...]:
        steps = pending(read(conn, plan), plan, constraints=chosen.attach_constraint)
        return _informed(conn, steps)

    kept = Journal(journal) if journal is not None and execute else None
    return _Run(target, chosen, on_event or _unheard, kept).carry_out(
        decide, plan.source, execute=execute
    )


def rollback(
    target: Target,
    outcomes: tuple[Outcome, ...],
    settings: Settings | None = None,
    *,
    execute: bool = False,
    journal: Path | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Applied:
    """Take outcomes back under the protocol of `run`; without `execute` it reads only.

    What was built is dropped CONCURRENTLY if it still is what was built, and left alone with a
    note if not; what was dropped is built again; comments get their former words. It may be
    stopped and started again.

    Args:
        target: the database.
        outcomes: of a run, in its order.
        settings: how the run behaves; nothing is made a constraint.
        execute: whether to change the target.
        journal: as for `run`.
        on_event: as for `run`.

    Raises:
        ApplyRefused: what was dropped cannot be built again.
        TargetError: the target cannot be reached or does not allow it.
        IncompleteError: the journal cannot be written.
        KeyboardInterrupt: Ctrl-C before the first step was begun.
    """
    chosen = replace(settings or Settings(), attach_constraint=False, jobs=1)

    def decide(conn: psycopg.Connection[Any]) -> tuple[Step, ...]:
        catalog = read(conn, rebuilt(outcomes))
        return _informed(conn, reversal(catalog, outcomes))

    kept = Journal(journal) if journal is not None and execute else None
    return _Run(target, chosen, on_event or _unheard, kept).carry_out(
        decide, "rollback", execute=execute
    )


def _unheard(_: Event) -> None:
    """Take an event that nobody asked for."""


@dataclass(frozen=True, slots=True)
class _Run:
    """One run under the protocol."""

    target: Target
    settings: Settings
    on_event: Callable[[Event], None]
    journal: Journal | None

    def carry_out(self, decide: Decide, source: str, *, execute: bool) -> Applied:
        reading = sessions.opening(self.target, lock_timeout=reading_wait(self.settings))
        with reading as opened, RunnerLock(self.target, self.settings.runner_wait) as lock:
            reader = opened()
            assert lock.conn is not None
            sessions.refuse_pooler(reader, lock.conn)
            if execute:
                lock.ensure(self._waits)
            orders = self._decided(reader, decide, source)
            steps = orders.steps
            if not execute:
                return Applied(
                    tuple(map(foretold, steps)),
                    executed=False,
                    estimate=sum(orders.sizes.values()),
                )
            if self.journal is not None:
                self.journal.begin(self.target.spec, source, self.settings.words())
            tender = Tender(self.target, self.on_event, self.settings, session=lock.conn)
            crew = Crew(
                self.target, self.settings, lock, tender, journal=self.journal, session=reader
            )
            with ThreadPoolExecutor(1, "indexlab-apply") as pool:
                work = pool.submit(crew.work, orders)
                tender.tend(work)
                return work.result()

    def _decided(self, reader: psycopg.Connection[Any], decide: Decide, source: str) -> Orders:
        """Read and decide, again while a lock of another session keeps the catalog from it."""
        deadline = time.monotonic() + self.settings.max_wait
        while True:
            try:
                steps = decide(reader)
                refuse(steps, source)
                return self._orders(reader, steps)
            except psycopg.errors.LockNotAvailable:
                if time.monotonic() > deadline:
                    raise TargetError(
                        "another session keeps a table locked, so that the catalog cannot be read: "
                        "wait for its end and run again"
                    ) from None
                self.on_event(Event("retry", detail=READING_WAITS))

    def _orders(self, conn: psycopg.Connection[Any], steps: tuple[Step, ...]) -> Orders:
        """Find out what the builds will take, and refuse what has no room; reads only."""
        sizes = care.estimated_bytes(conn, steps)
        workers = care.workers(conn) if self.settings.jobs > 1 else None
        orders = Orders(steps, sizes, care.memory(self.settings), workers)
        if any(step.action in BUILDS for step in steps):
            care.check(conn, self.settings, orders.spaces, sum(sizes.values()))
        return orders

    def _waits(self, holders: tuple[Session, ...]) -> None:
        self.on_event(Event("lock", waiting_for=holders, detail="another run has the lock"))


def _informed(conn: psycopg.Connection[Any], steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Complete the decisions with what the catalog's snapshot does not hold."""
    return _with_definitions(conn, _with_rights(conn, _with_comments(conn, steps)))


def _with_definitions(conn: psycopg.Connection[Any], steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Have drops remember their index in words that hold on every search_path."""
    return tuple(
        _remembering(conn, step) if step.action == "drop" and step.oid and not step.brief else step
        for step in steps
    )


def _remembering(conn: psycopg.Connection[Any], step: Step) -> Step:
    definition = definition_of(conn, step.oid)
    if not definition or step.on is None:
        return step
    kept = sessions.belongings(conn, step.oid, step.on, step.name)
    return replace(restoring(step, definition), restores=kept)


def _with_rights(conn: psycopg.Connection[Any], steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Refuse builds in a schema where even the owner of the table may create nothing."""
    schemas = {
        step.name.schema for step in steps if step.action in BUILDS and step.name.schema is not None
    }
    closed = sessions.closed_schemas(conn, schemas) if schemas else ()
    return tuple(
        replace(
            step,
            action="refuse",
            forbidden=True,
            reason=f"the role may not create anything in the schema {step.name.schema!r}: "
            "GRANT CREATE ON SCHEMA to it",
        )
        if step.action in BUILDS and step.name.schema in closed
        else step
        for step in steps
    )


def _with_comments(conn: psycopg.Connection[Any], steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Compare planned comments with what is there."""
    return tuple(_with_comment(conn, step) if step.action == "comment" else step for step in steps)


def _with_comment(conn: psycopg.Connection[Any], step: Step) -> Step:
    assert isinstance(step.planned, CommentOnIndex)
    before = sessions.comment_of(conn, step.name.schema, step.name.name)
    if before == step.planned.comment:
        return replace(step, action="exists")
    return replace(step, undo=comment_sql(step.name, before))
