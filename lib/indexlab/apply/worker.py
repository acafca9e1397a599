"""What a step needs from its first look at the catalog to its outcome."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import psycopg
from psycopg import errors

from indexlab.apply import duplicates, partitions, sessions
from indexlab.apply.failures import passing
from indexlab.apply.foreseen import restoring
from indexlab.apply.hand import BRIEF_LOCK_SECONDS, Hand, read
from indexlab.apply.journal import intended
from indexlab.apply.outcomes import Outcome
from indexlab.apply.partitions import Part
from indexlab.apply.statements import constraint_sql, drop_constraint_sql, drop_sql
from indexlab.apply.steps import Step
from indexlab.apply.tender import Event
from indexlab.catalog import Index, with_expressions
from indexlab.plan import CreateIndex, IndexDef, IndexPlan

BLOCKING_TRIES = 3

Work = Callable[["Worker"], None]


class Worker(Hand):
    """Carries steps out, one at a time; the catalog decides what each needs."""

    def __init__(self, *given: Any):
        super().__init__(*given)
        self.parts: list[Outcome] = []
        """What became of the parts of the step that has ended last."""
        self.note: Callable[[Outcome], None] = unheard
        """Is told of a part before it begins."""
        self.cleared: Callable[[Step], bool] = always
        """Waits until a part may begin; False where the run ends first."""
        self.together: Callable[[Worker, Sequence[Work]], None] = one_by_one
        """Has works done by this job and by those that have nothing else to do."""

    def carry_out(self, step: Step) -> Outcome:
        """Bring a step to its outcome."""
        match step.action:
            case "build" | "rebuild" | "wait":
                return self._constrained(step, self._build(step))
            case "parts":
                return self._in_parts(step)
            case "constraint":
                return self._constrained(step, outcome(step, "exists"))
            case "drop":
                return self._drop(step)
            case "comment" | "alter":
                return self._comment(step)
            case _:
                return foretold(step)

    def _build(self, step: Step) -> Outcome:
        """Build an index: what is in its place is looked at before each attempt that needs it."""
        attempt = locked_out = 0
        look_first = step.action != "build"
        while True:
            if look_first and (ended := self._make_room(step, attempt)) is not None:
                return ended
            attempt += 1
            failure, statement = self._send_build(step, attempt)
            sent = replace(step, statement=statement)
            locked_out += self.spent == "lock_wait"
            if failure is None and (standing := self.built(step)) is not None and standing.usable:
                definition = {"definition": standing.definition, "undo": step.undo}
                return outcome(
                    sent, "built", attempts=attempt, bytes=standing.bytes, note="", **definition
                )
            ended = self._after(sent, failure, attempt)
            if ended is not None:
                return ended
            taken = isinstance(failure, errors.DuplicateTable)
            if failure is None or not (
                (taken and attempt <= self._settings.retries + 1)
                or self.again(step, failure, attempt, locked_out)
            ):
                error = "the index is not there" if failure is None else self._reason(step, failure)
                return outcome(step, "failed", attempts=attempt, error=error, note="")
            look_first = True

    def _make_room(self, step: Step, attempt: int) -> Outcome | None:
        """Bring it about that nothing is in the place of an index; return what ends the step.

        Valid as wanted: it exists. Another definition: failed. Being built: wait, and look again.
        Invalid and nobody building: drop it. A build by another role cannot be seen in the progress
        report, but its lock can: the drop would wait for that build to end, and then drop a good
        index.
        """
        adopted = False
        while True:
            index, as_wanted = self.look(step)
            facts: dict[str, Any] = {"attempts": attempt, "note": ""}
            if index is None:
                return None
            if not as_wanted:
                error = f"the name was taken meanwhile by another definition: {index.definition}"
                return outcome(step, "failed", error=error, **facts)
            if index.usable:
                note = "another session has built it meanwhile" if adopted else ""
                return outcome(
                    step, "exists", **facts | {"definition": index.definition, "note": note}
                )
            held = self.await_others(step)
            if held:
                word = "not_run" if held == "interrupted" and not attempt else "failed"
                return outcome(step, word, error=held, **facts)
            adopted = True
            index, as_wanted = self.look(step)
            if index is None or index.usable or index.building or not as_wanted:
                continue
            left = self._drop_former(step)
            if left:
                facts |= {"attempts": max(attempt, 1), "definition": index.definition}
                return outcome(step, "failed", error=left, **facts | {"undo": step.undo})

    def _send_build(self, step: Step, attempt: int) -> tuple[Exception | None, str]:
        """Send the build, without CONCURRENTLY where that is allowed and does no harm."""
        if self._settings.allow_blocking and attempt <= BLOCKING_TRIES and self._harmless(step):
            assert isinstance(step.planned, CreateIndex)
            plain = step.planned.index.revise(concurrently=False).sql
            plain_failure = self.attempt(step, plain, attempt, lock_timeout=BRIEF_LOCK_SECONDS)
            if not isinstance(plain_failure, errors.LockNotAvailable):
                return plain_failure, plain
        return self.attempt(step, step.statement, attempt), step.statement

    def _harmless(self, step: Step) -> bool:
        assert step.on is not None
        schema, table = step.on.schema, step.on.name
        return bool(self.asking(lambda conn: sessions.harmless(conn, schema, table)))

    def _after(self, step: Step, failure: Exception | None, attempt: int) -> Outcome | None:
        """Look at what an attempt has left; return what ends the step, None where nothing does."""
        ours = self.sent and not isinstance(failure, errors.DuplicateTable)
        index, as_wanted = self.look(step)
        if index is None:
            return None
        facts: dict[str, Any] = {"attempts": attempt, "note": "", "definition": index.definition}
        if index.usable and as_wanted:
            if not ours:
                return outcome(step, "exists", **facts)
            return outcome(step, "built", bytes=index.bytes, undo=step.undo, **facts)
        error = self._reason(step, failure) if failure is not None else _unlike(index)
        if ours and as_wanted and not index.building:
            left = self._drop_leftover(step)
            return (
                outcome(step, "failed", error=f"{error}; {left}", undo=step.undo, **facts)
                if left
                else None
            )
        if as_wanted and not ours:
            return None  # another session builds it, or has left it: the next look decides
        undo = step.undo if failure is None else ""
        return outcome(step, "failed", error=error, undo=undo, **facts)

    def _reason(self, step: Step, failure: Exception) -> str:
        """Say why a build failed, with examples of the rows that did not fit."""
        error = self.why(step, failure)
        if not isinstance(failure, errors.UniqueViolation):
            return error
        values = self._settings.show_values
        shown = self.asking(lambda conn: duplicates.examples(conn, step, values=values))
        return f"{error}: {shown}" if shown else error

    def _drop_former(self, step: Step) -> str:
        """Drop what a former run has left, within the budgets of a build; return why not, if so."""
        attempt = locked_out = 0
        while True:
            attempt += 1
            statement = drop_sql(step.name, if_exists=True)
            failure = self.attempt(step, statement, attempt, kind="clean")
            locked_out += self.spent == "lock_wait"
            if failure is None or self.look(step)[0] is None:
                return ""
            if not self.again(step, failure, attempt, locked_out):
                return (
                    f"{self.why(step, failure)}; the invalid index {step.index} is left as it was"
                )

    def _drop_leftover(self, step: Step) -> str:
        """Drop an invalid index that is ours to drop; return what is left, if anything is."""
        spent, sent = self.spent, self.sent
        limit = max(self._settings.cleanup_wait, 0.001)
        failure: Exception | None = None
        try:
            for attempt in range(1, self._settings.retries + 2):
                statement = drop_sql(step.name, if_exists=True)
                failure = self.attempt(
                    step, statement, attempt, kind="clean", cleaning=True, limit=limit
                )
                if failure is None:
                    return ""
                index, _ = self.look(step)
                if index is None:
                    return ""
                if not passing(failure):
                    break
        finally:
            self.spent, self.sent = spent, sent
        waits = self._tender.waits(step)
        whom = f", kept by {', '.join(waits)}" if waits else ""
        return (
            f"the invalid index {step.index} is left{whom}: run again to drop it, "
            "or roll the run back"
        )

    def _in_parts(self, step: Step) -> Outcome:
        """Make an index on a partitioned table part by part, until every partition has it.

        A partition that is created meanwhile gets its index from the server, once the parent has
        one; what is created before that is found by the next look.
        """
        attempts = size = 0
        before: tuple[Part, ...] = ()
        facts: dict[str, Any] = {"note": ""}
        while True:
            todo = self.asking(partial(_todo, step=step))
            if not todo or todo == before:
                break
            before = todo
            for kind in partitions.ORDER:
                parts = tuple(part for part in todo if part.kind == kind)
                found, failed = self._side_by_side(parts, step)
                attempts += sum(done.attempts for done in found)
                size += sum(done.bytes for done in found)
                if failed:
                    if attempts:
                        facts |= {"definition": _planned_sql(step), "undo": step.undo}
                    return outcome(step, "failed", attempts=attempts, error=failed, **facts)
        index, as_wanted = self.look(step)
        if index is None or not index.usable or not as_wanted:
            state = "there is none" if index is None else index.definition
            error = f"every partition has its index, but that of the parent is not valid: {state}"
            facts |= {"definition": _planned_sql(step), "undo": step.undo}
            return outcome(step, "failed", attempts=attempts, error=error, **facts)
        facts |= {"definition": index.definition, "undo": step.undo}
        return outcome(step, "built", attempts=attempts, bytes=size, **facts)

    def _side_by_side(self, parts: tuple[Part, ...], whole: Step) -> tuple[list[Outcome], str]:
        """Do parts of one kind, leaves together with jobs that have nothing else to do.

        Returns:
            What became of those that were begun, and why the whole has failed, if it has.
        """
        done: dict[int, Outcome] = {}
        failed = threading.Event()

        def do(worker: Worker, number: int) -> None:
            part = parts[number]
            leaf = part.kind == "leaf"
            if failed.is_set() or self._tender.stopping or (leaf and not self.cleared(part.step)):
                return
            try:
                done[number] = worker.part(part, whole, self)
            finally:
                if number not in done or done[number].outcome not in ("built", "exists"):
                    failed.set()

        works = [partial(do, number=number) for number in range(len(parts))]
        if parts and parts[0].kind == "leaf":
            self.together(self, works)
        else:
            one_by_one(self, works)
        found = [done[number] for number in sorted(done)]
        bad = [item for item in found if item.outcome not in ("built", "exists")]
        if bad:
            return found, "; ".join(f"{item.index}: {item.error}" for item in bad)
        return found, "interrupted" if len(done) < len(parts) else ""

    def part(self, part: Part, whole: Step, leader: Worker) -> Outcome:
        """Do one part of an index; the job that has the whole keeps what became of it."""
        step = part.step
        if part.kind != "attach" and step.name != whole.name:  # the whole is noted already
            leader.note(intended(step))
        if part.kind == "leaf":
            began = time.monotonic()
            done = self._build(step)
            if done.outcome == "exists":  # left by an earlier run of ours
                return done
            seconds, waits = time.monotonic() - began, self._tender.waits(step)
            done = replace(done, note=step.reason, seconds=seconds, waited_for=waits)
            leader.keep(done, step)
            return done
        before = self._adopted(part)
        if before is not None:
            leader.note(before)
        failure = self.brief(step, step.statement)
        if failure is not None and self._settled(part):
            failure = None
        if failure is not None:
            return outcome(step, "failed", attempts=1, error=self.why(step, failure), note="")
        if part.kind == "only":
            facts: dict[str, Any] = {"definition": _planned_sql(step), "undo": step.undo}
            done = outcome(step, "built", attempts=1, **facts)
            if step.name != whole.name:
                leader.keep(done, step)
            return done
        if before is not None:
            leader.keep(before, step)
        return outcome(step, "exists", attempts=1)

    def _adopted(self, part: Part) -> Outcome | None:
        """Say how an index is built again that was there before it is attached and goes with it."""
        if not part.adopted:
            return None
        index, _ = self.look(part.step)
        return (
            None if index is None else self._again(outcome(part.step, "exists"), index, part.step)
        )

    def _again(self, done: Outcome, index: Index, step: Step) -> Outcome:
        """Add to an outcome how an index is built again that was there before."""
        assert step.on is not None
        table = step.on
        kept = self.asking(lambda conn: sessions.belongings(conn, index.oid, table, step.name))
        again = IndexDef.parse(index.definition).revise(concurrently=True).sql
        return replace(done, attempts=1, definition=index.definition, undo=again, restores=kept)

    def keep(self, done: Outcome, step: Step) -> None:
        """Keep what became of a part of the step in hand, and tell it."""
        self.parts.append(done)
        self._tender.tell(Event("end", step, done.attempts, outcome=done))

    def _settled(self, part: Part) -> bool:
        """Return whether somebody else has done a part meanwhile, or its table is gone."""
        index, as_wanted = self.look(part.step)
        if part.kind == "only":
            return index is not None and as_wanted
        return index is None or index.parent is not None

    def _constrained(self, step: Step, done: Outcome) -> Outcome:
        """Make a constraint of a unique index that stands, where that is asked for."""
        assert isinstance(step.planned, CreateIndex)
        wanted = self._settings.attach_constraint and step.planned.index.unique
        if not wanted or done.outcome not in ("built", "exists"):
            return done
        index, _ = self.look(step)
        if index is None or index.constraint is not None:
            return done
        assert step.on is not None
        before = None
        if done.outcome == "exists":
            before = replace(self._again(done, index, step), note="was no constraint")
            self.note(before)
        failure = self.brief(step, constraint_sql(step.on, step.name))
        if failure is not None:
            error = f"it stands, but is no constraint: {self.why(step, failure)}"
            return replace(done, outcome="failed", error=error, attempts=done.attempts + 1)
        undo = drop_constraint_sql(step.on, step.name)
        if before is not None:
            self.parts.append(before)
        return replace(
            done,
            outcome="built",
            attempts=done.attempts + 1,
            definition=index.definition,
            bytes=index.bytes,
            undo=undo,
            note=f"it is the constraint {step.name.name!r} now",
        )

    def _drop(self, step: Step) -> Outcome:
        index, _ = self.look(step)
        if index is None:
            return outcome(step, "skipped", note="it is gone already")
        if step.oid not in (0, index.oid):
            error = f"another index has taken its name since: {index.definition}"
            return outcome(step, "failed", error=error)
        step = step if step.brief else restoring(step, index.definition)
        attempt = locked_out = 0
        while True:
            attempt += 1
            failure = (
                self.brief(step, step.statement)
                if step.brief
                else self.attempt(step, step.statement, attempt)
            )
            locked_out += self.spent == "lock_wait"
            index, _ = self.look(step)
            if index is None:
                kept = {"undo": step.undo, "restores": step.restores}
                return outcome(step, "dropped", attempts=attempt, **kept)
            if failure is None or not self.again(step, failure, attempt, locked_out):
                break
        error = self.why(step, failure) if failure is not None else "it is still there"
        kept = {} if index.usable else {"undo": step.undo, "restores": step.restores}
        if not index.usable:
            error += (
                "; it is invalid now and serves no query: run again to finish the drop, "
                "or REINDEX INDEX CONCURRENTLY to keep it"
            )
        return outcome(step, "failed", attempts=attempt, error=error, **kept)

    def _comment(self, step: Step) -> Outcome:
        attempt = locked_out = 0
        while True:
            attempt += 1
            failure = self.attempt(step, step.statement, attempt)
            locked_out += self.spent == "lock_wait"
            if failure is None:
                return outcome(step, "built", attempts=attempt, undo=step.undo)
            if not self.again(step, failure, attempt, locked_out):
                error = self.why(step, failure)
                return outcome(step, "failed", attempts=attempt, error=error)


def unheard(_: Outcome) -> None:
    """Take note of nothing."""


def always(_: Step) -> bool:
    """Let every part begin."""
    return True


def one_by_one(worker: Worker, works: Sequence[Work]) -> None:
    """Have a job do works alone."""
    for work in works:
        work(worker)


def _todo(conn: psycopg.Connection[Any], step: Step) -> tuple[Part, ...]:
    """Read what is left to do for an index on a partitioned table."""
    catalog = read(conn, IndexPlan((step.planned,)))
    assert isinstance(step.planned, CreateIndex)
    index = step.planned.index
    if index.predicate is not None or not all(key.column for key in index.keys):
        catalog = with_expressions(conn, catalog, partitions.leaves(catalog, step))
    return partitions.todo(catalog, step)


def _planned_sql(step: Step) -> str:
    assert isinstance(step.planned, CreateIndex)
    return step.planned.index.sql


def _unlike(index: Index) -> str:
    """Say what is there after a build that the server has reported as done."""
    state = "" if index.usable else " and not valid"
    return f"what was built is not what was planned{state}: {index.definition}"


def outcome(step: Step, word: str, **facts: Any) -> Outcome:
    """Say what became of a step; what was not touched has nothing to undo."""
    told = {"definition": step.definition, "note": step.reason} | facts
    return Outcome(
        step.statement,
        step.index,
        word,
        purpose=step.purpose,
        action=step.action,
        part_of=step.part_of,
        **told,
    )


def foretold(step: Step) -> Outcome:
    """Say what a dry run knows."""
    match step.action:
        case "exists":
            return outcome(step, "exists")
        case "skip":
            return outcome(step, "skipped")
        case _:
            return outcome(step, "dry_run")
