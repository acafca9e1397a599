"""The protocol of a run: read, decide, refuse, and only then change anything."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psycopg

from indexlab.apply import sessions
from indexlab.apply.outcomes import Applied, Outcome
from indexlab.apply.runner import Runner, Settings, foretold, read
from indexlab.apply.sessions import RunnerLock, Session, definition_of
from indexlab.apply.steps import Step, comment_sql, pending, rebuilt, refuse, restoring, reversal
from indexlab.apply.tender import Event, Tender
from indexlab.plan import CommentOnIndex, IndexPlan
from indexlab.target import Target


def run(
    target: Target,
    plan: IndexPlan,
    *,
    execute: bool = False,
    retries: int = 2,
    lock_timeout: float = 0,
    runner_wait: float = 60,
    cleanup_wait: float = 30,
    analyze: bool = True,
    on_event: Callable[[Event], None] | None = None,
) -> Applied:
    """Carry a plan out, or say what it would do; without `execute` it reads only.

    1. Check the address: two sessions are two, settings hold, so no pooler in transaction mode.
    2. Take the runner's advisory lock, by polling, on an idle session of its own.
    3. Read the catalog, decide on every step, and refuse all that is impossible at once: not the
       owner, a standby, 14.0 to 14.3, a name that is taken, an index that must stay.
    4. For each step in order, tell the intent, then run it on an autocommit session of its own
       with no timeouts, CONCURRENTLY. The first step that fails ends the run.
    5. Watch it from another session once a second: the phase, and the sessions it waits for.
    6. When an attempt fails, look at the catalog: what is valid stands, an invalid leftover of
       ours is dropped before a retry and before giving up, or is named in the outcome.
    7. Believe the catalog only: built means valid, ready and defined as asked.
    8. ANALYZE the tables that got indexes.

    The statements run in a worker thread and the caller's thread watches, calls `on_event` and
    waits: Ctrl-C reaches the thread that only watches, so it cannot tear a statement from its
    clean-up. The statement in flight is then cancelled at the server, its leftover dropped, and
    the outcomes are returned. A second Ctrl-C gives the clean-up up.

    Args:
        target: the database.
        plan: usually the revised plan of the audit.
        execute: whether to change the target.
        retries: how often a step is tried again after a deadlock, a lock that was not available,
            a serialization failure or a lost connection. A build that another session cancelled,
            or that found duplicates, is not tried again.
        lock_timeout: seconds; 0, the default, for none. It also cuts the waits for old
            transactions, so that a short one kills every concurrent build on a busy database.
        runner_wait: seconds to wait for another run on the same database.
        cleanup_wait: seconds to wait for sessions that keep a leftover from being dropped.
        analyze: whether to ANALYZE the tables; those with a new expression index always are.
        on_event: called in the caller's thread. `start`, `clean`, `analyze` and `end` events have
            been handled before the run goes on. If it raises, the run ends as by Ctrl-C.

    Raises:
        ApplyRefused: statements of the plan cannot be; lists all of them.
        TargetError: the target cannot be reached or does not allow it, or another run has the lock.
        InputError: a setting is negative.
        KeyboardInterrupt: Ctrl-C before the first step was begun.
    """
    settings = Settings(
        execute=execute,
        on_event=on_event or _unheard,
        retries=retries,
        lock_timeout=lock_timeout,
        runner_wait=runner_wait,
        cleanup_wait=cleanup_wait,
        analyze=analyze,
    )

    def decide(conn: psycopg.Connection[Any]) -> tuple[Step, ...]:
        return _informed(conn, pending(read(conn, plan), plan))

    return _carry_out(target, decide, plan.source, settings)


def rollback(
    target: Target,
    outcomes: tuple[Outcome, ...],
    *,
    execute: bool = False,
    retries: int = 2,
    runner_wait: float = 60,
    cleanup_wait: float = 30,
    on_event: Callable[[Event], None] | None = None,
) -> Applied:
    """Take outcomes back under the protocol of `run`; without `execute` it reads only.

    What was built is dropped CONCURRENTLY if it still is what was built, and left alone with a
    note if not; what was dropped is built again; comments get their former words. It may be
    stopped and started again.

    Args:
        target: the database.
        outcomes: of a run, in its order.
        execute: whether to change the target.
        retries: as for `run`.
        runner_wait: as for `run`.
        cleanup_wait: as for `run`.
        on_event: as for `run`.

    Raises:
        ApplyRefused: what was dropped cannot be built again.
        TargetError: the target cannot be reached or does not allow it.
        InputError: a setting is negative.
        KeyboardInterrupt: Ctrl-C before the first step was begun.
    """
    settings = Settings(
        execute=execute,
        on_event=on_event or _unheard,
        retries=retries,
        lock_timeout=0,
        runner_wait=runner_wait,
        cleanup_wait=cleanup_wait,
        analyze=True,
    )

    def decide(conn: psycopg.Connection[Any]) -> tuple[Step, ...]:
        catalog = read(conn, rebuilt(outcomes))
        return _informed(conn, reversal(catalog, outcomes))

    return _carry_out(target, decide, "rollback", settings)


def _unheard(_: Event) -> None:
    """Take an event that nobody asked for."""


def _carry_out(
    target: Target,
    decide: Callable[[psycopg.Connection[Any]], tuple[Step, ...]],
    source: str,
    settings: Settings,
) -> Applied:
    def waits(holders: tuple[Session, ...]) -> None:
        settings.on_event(Event("lock", waiting_for=holders, detail="another run has the lock"))

    with RunnerLock(target, settings.runner_wait) as lock:
        with sessions.opened(target) as reader:
            assert lock.conn is not None
            sessions.refuse_pooler(reader, lock.conn)
            if settings.execute:
                lock.ensure(waits)
            steps = decide(reader)
        refuse(steps, source)
        if settings.execute:
            tender = Tender(target, settings.on_event)
            runner = Runner(target, settings, lock, tender)
            with ThreadPoolExecutor(1, "indexlab-apply") as pool:
                work = pool.submit(runner.work, steps)
                tender.tend(work)
                return work.result()
    return Applied(tuple(map(foretold, steps)), executed=False)


def _informed(conn: psycopg.Connection[Any], steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Complete the decisions with what the catalog's snapshot does not hold."""
    return _with_definitions(conn, _with_rights(conn, _with_comments(conn, steps)))


def _with_definitions(conn: psycopg.Connection[Any], steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Have drops remember their index in words that hold on every search_path."""
    return tuple(
        restoring(step, definition)
        if step.action == "drop" and step.oid and (definition := definition_of(conn, step.oid))
        else step
        for step in steps
    )


def _with_rights(conn: psycopg.Connection[Any], steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Refuse builds in a schema where even the owner of the table may create nothing."""
    schemas = {
        step.name.schema
        for step in steps
        if step.action in ("build", "rebuild") and step.name.schema is not None
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
        if step.action in ("build", "rebuild") and step.name.schema in closed
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
