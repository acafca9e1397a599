"""Measuring a workload: one side, or two sides in turns."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psycopg
from psycopg import sql

from indexlab.benchmark import cache, controls, rounds, sessions
from indexlab.benchmark.rounds import Progress, Unit
from indexlab.benchmark.runners import GivenUp, Runner, Side
from indexlab.benchmark.series import Conditions, Failure, Measurement, Series
from indexlab.errors import InputError
from indexlab.target import Server, Target, connect
from indexlab.target import server as server_of
from indexlab.workload import SampledQuery

WRITING = ("Insert", "Update", "Delete", "Merge")


@dataclass(frozen=True, slots=True)
class _Moment:
    """When it began, by both clocks."""

    wall: datetime
    monotonic: float

    @classmethod
    def now(cls) -> _Moment:
        return cls(datetime.now(UTC), time.monotonic())

    def jump(self) -> float:
        """By how many seconds the wall clock went ahead of the monotonic one since then."""
        return (datetime.now(UTC) - self.wall).total_seconds() - (time.monotonic() - self.monotonic)


@dataclass(frozen=True, slots=True)
class _Design:
    """How much is measured, and in what order."""

    rounds: int
    budget: float
    precision: float
    seed: int
    statement_timeout: float
    source: str | Path
    cold: bool = False

    def check(self, sampled: Sequence[SampledQuery]) -> None:
        """Check what can be checked before anything is connected.

        Raises:
            InputError: an argument is out of range.
        """
        if self.rounds < 0:
            raise InputError(f"rounds {self.rounds!r} is negative: 0 lets the budget decide")
        if not 0 < self.budget < math.inf:
            raise InputError(f"budget {self.budget!r} is not a positive number of seconds")
        if not 0 <= self.precision < 1:
            raise InputError(f"precision {self.precision!r} is not from 0 to below 1: 0.05 is 5%")
        if not 0.001 <= self.statement_timeout <= 500_000:
            raise InputError(
                f"statement timeout {self.statement_timeout!r} is not a number of seconds from "
                "0.001 to 500,000"
            )
        for one in sampled:
            if not one.values and one.query.kind == "read" and not one.query.generic:
                raise InputError(
                    f"query {one.query.name!r} has no values to run with",
                    source=self.source,
                    line=one.query.line,
                )

    def take(self, units: Sequence[Unit], tell: Progress) -> int:
        return rounds.take(
            units,
            rounds=self.rounds,
            budget=self.budget,
            precision=self.precision,
            seed=self.seed,
            tell=tell,
        )


def measure(
    target: Target,
    sampled: tuple[SampledQuery, ...],
    *,
    label: str = "",
    cold: bool = False,
    rounds: int = 0,
    budget: float = 12.0,
    precision: float = 0.0,
    seed: int = 0,
    disposable: bool = False,
    statement_timeout: float = 60.0,
    source: str | Path = "workload.sql",
    tolerated: frozenset[str] = frozenset(),
    progress: Progress | None = None,
) -> Measurement:
    """Time every query of a workload as the target is; changes no row of it.

    1. Each query is prepared on the server and executed once: one that fails ends it all here.
    2. If writes are run, their tables are vacuumed, so that the reads of both sides of a comparison
       meet no dead rows that an earlier measurement has rolled back.
    3. Each is executed again until its latency is steady, past the five executions that the server
       plans for their values, so that samples have the plan that a long-lived application gets
       (plan_cache_mode as it is). Queries slower than their share of the budget are warmed up by
       step 1 alone. The warm-up is kept apart.
    4. Rounds, with the queries and the kit's controls in another order in each: every query runs
       once, a fast one up to 20 times or 50 ms. Sets of values take turns, in the same order on
       both sides of a comparison. A query leaves when its interval is narrow enough. Reads come
       first: rolled back writes leave dead rows that would slow them.
    5. Each query is explained with ANALYZE.

    Reads run in READ ONLY transactions. Writes run only in a `disposable` target, each in a
    transaction that is rolled back; BEGIN, ROLLBACK and COMMIT are in no sample, so the price of a
    commit (and of constraints deferred to it) is not measured. A query that takes longer than
    `statement_timeout` is given up: what is known of it is that it takes longer.

    Args:
        target: where the queries run.
        sampled: the queries with their values, from `workload.sample`. A write without values (its
            baseline has not run it) is skipped, and so is a query of normalized text.
        label: what reports call this measurement, such as `before`.
        cold: empty the caches of server and operating system before each execution.
        rounds: how many; 0 lets precision and budget decide. A query gets three samples in any
            case.
        budget: seconds for steps 3 and 4 over all queries. It is exceeded where slow queries
            need more for their least number of samples: 10, or 5, or 3 for the slowest.
        precision: how wide the interval of a ratio of two such sides may be: 0.05 is 5%; 0 uses
            the budget up.
        seed: of the order of queries within rounds.
        disposable: rows of the target may be written and rolled back; sequences stay advanced.
        statement_timeout: seconds that one execution may take.
        source: what errors call the workload.
        tolerated: queries that a baseline has run: if they fail now, that is a result.
        progress: is told what is being done.

    Raises:
        InputError: a query fails; names its line.
        TargetError: the target cannot be reached, or the connection is lost.
    """
    plan = _Design(rounds, budget, precision, seed, statement_timeout, source, cold)
    plan.check(sampled)
    tell = progress or (lambda _words, _part: None)
    began = _Moment.now()
    skipped = _skipped(sampled, disposable=disposable)
    side = Side(label)
    with ExitStack() as stack:
        reading = stack.enter_context(sessions.opened(target, statement_timeout, read_only=True))
        writing = (
            stack.enter_context(sessions.opened(target, statement_timeout, read_only=False))
            if any(s.query.kind == "write" and s.query.name not in skipped for s in sampled)
            else reading
        )

        evictor = _evictor(stack, target, reading) if cold else None

        def runner(one: SampledQuery, name: str) -> Runner:
            conn = writing if one.query.kind == "write" else reading
            return Runner(one, conn, name, side, source, statement_timeout, evictor)

        units = [
            Unit((runner(one, f"indexlab_{number}"),))
            for number, one in enumerate(sampled)
            if one.query.name not in skipped
        ]
        units += _control_units(lambda one, name: (runner(one, name),))
        failures = _check(units, tolerated, tell)
        units = [unit for unit in units if unit.name not in failures[0]]
        facts = _facts(reading, plan, "one side")
        _vacuum(units)
        facts = replace(facts, overhead_ms=sessions.overhead(reading))
        number = plan.take(units, tell)
        whole = _Whole(
            conn=reading, units=tuple(units), skipped=skipped, rounds=number, began=began
        )
        return whole.measurement(0, label, facts, tuple(failures[0].values()), tell)


def interleave(
    target: Target,
    sampled: tuple[SampledQuery, ...],
    hidden: Sequence[tuple[str, str]],
    *,
    labels: tuple[str, str] = ("before", "after"),
    cold: bool = False,
    rounds: int = 0,
    budget: float = 24.0,
    precision: float = 0.05,
    seed: int = 0,
    statement_timeout: float = 60.0,
    source: str | Path = "workload.sql",
    progress: Progress | None = None,
) -> tuple[Measurement, Measurement]:
    """Time every query without and with some indexes in turns; changes no row of the target.

    This is the most trustworthy way to compare: what drifts (caches, clock rate, other load)
    touches both sides alike. In each round each query is measured on both sides, in one order and
    in the next round in the other one: ABBA. A side without the indexes is a transaction in which
    they are dropped and which is rolled back: no other session sees it, but they wait for their
    tables meanwhile, so the target must be disposable. Each side has prepared statements of its
    own, and the first executions after a switch, which plan anew, do not count.

    Args:
        target: where the queries run; the session must own the tables.
        sampled: the queries with their values, from `workload.sample`.
        hidden: schema and name of the indexes that the side before does not have.
        labels: what reports call the sides.
        cold: empty the caches of server and operating system before each execution.
        rounds: how many; 0 lets precision and budget decide.
        budget: seconds of warming up and measuring, over all queries and both sides.
        precision: how wide the interval of a ratio may be: 0.05 is 5%; 0 uses the budget up.
        seed: of the order of queries within rounds.
        statement_timeout: seconds that one execution may take.
        source: what errors call the workload.
        progress: is told what is being done.

    Returns:
        The measurement without the indexes, and the one with them.

    Raises:
        InputError: an index cannot be hidden, or a query fails on both sides; names its line.
        TargetError: the target cannot be reached, somebody else uses a table, or the connection is
            lost.
    """
    plan = _Design(rounds, budget, precision, seed, statement_timeout, source, cold)
    plan.check(sampled)
    tell = progress or (lambda _words, _part: None)
    began = _Moment.now()
    skipped = _skipped(sampled, disposable=True)
    names = tuple(sorted(hidden))
    sides = (Side(labels[0], names, switching=True), Side(labels[1], switching=True))
    with ExitStack() as stack:
        conn = stack.enter_context(sessions.opened(target, statement_timeout, read_only=False))
        evictor = _evictor(stack, target, conn) if cold else None
        conn.execute(LOCK_TIMEOUT, [f"{sessions.OTHERS_MS}ms"])
        _check_hiding(conn, sides[0])

        def pair(one: SampledQuery, name: str) -> tuple[Runner, ...]:
            return tuple(
                Runner(one, conn, f"{name}_{number}", side, source, statement_timeout, evictor)
                for number, side in enumerate(sides)
            )

        units = [
            Unit(pair(one, f"indexlab_{number}"))
            for number, one in enumerate(sampled)
            if one.query.name not in skipped
        ]
        units += _control_units(pair)
        failures = _check(units, frozenset(one.query.name for one in sampled), tell)
        failed = failures[0].keys() | failures[1].keys()
        units = [unit for unit in units if unit.name not in failed]
        facts = _facts(conn, plan, "interleaved")
        _vacuum(units)
        facts = replace(facts, overhead_ms=sessions.overhead(conn))
        number = plan.take(units, tell)
        whole = _Whole(conn=conn, units=tuple(units), skipped=skipped, rounds=number, began=began)
        found = [
            whole.measurement(
                place,
                side.label,
                facts.hiding(name for _, name in side.hidden),
                tuple(failures[place].values()),
                tell,
            )
            for place, side in enumerate(sides)
        ]
        _vacuum(units)
    return found[0], found[1]


LOCK_TIMEOUT = "SELECT pg_catalog.set_config('lock_timeout', %s, false)"


def _check_hiding(conn: psycopg.Connection[Any], side: Side) -> None:
    """Hide the indexes once, so that what stands against it is told before anything is measured."""
    from indexlab.errors import TargetError

    words = ", ".join(f"{schema}.{name}" for schema, name in side.hidden)
    try:
        with side.opened(conn, "write"):
            pass
    except psycopg.errors.LockNotAvailable:
        raise TargetError(
            f"cannot hide {words}: somebody else uses the table; interleaving needs a disposable "
            "clone of one's own"
        ) from None
    except psycopg.Error as error:
        reason = error.diag.message_primary or str(error)
        raise InputError(
            f"cannot hide {words}: {reason}; measure one side after the other"
        ) from None


def _evictor(stack: ExitStack, address: Target, conn: psycopg.Connection[Any]) -> cache.Evictor:
    """Open a session for emptying caches."""
    other = stack.enter_context(connect(address, purpose="benchmark cache"))
    return stack.enter_context(cache.evictor(other, server_of(conn)))


def _skipped(sampled: Iterable[SampledQuery], *, disposable: bool) -> tuple[str, ...]:
    return tuple(
        one.query.name
        for one in sampled
        if one.query.generic or (one.query.kind == "write" and not (disposable and one.values))
    )


def _control_units(runners: Callable[[SampledQuery, str], tuple[Runner, ...]]) -> list[Unit]:
    """Make units of the controls; their cache stays warm: they watch over the machine."""
    units = []
    for number, one in enumerate(controls.queries()):
        unit = Unit(runners(one, f"indexlab_control_{number}"), is_control=True)
        for runner in unit.runners:
            runner.evictor = None
        units.append(unit)
    return units


def _check(
    units: Sequence[Unit], tolerated: frozenset[str], tell: Progress
) -> tuple[dict[str, Failure], dict[str, Failure]]:
    """Run every query once on each side; a query that fails on all of them ends it all."""
    failures: tuple[dict[str, Failure], dict[str, Failure]] = ({}, {})
    for number, unit in enumerate(units):
        tell(f"check {unit.name}", 0.1 * number / len(units))
        errors: list[InputError] = []
        for place, runner in enumerate(unit.runners):
            try:
                runner.check()
            except InputError as error:
                errors.append(error)
                failures[place][unit.name] = Failure(unit.name, str(error))
            except GivenUp:
                runner.is_given_up = True
        both = len(unit.runners) > 1 and len(errors) == len(unit.runners)
        if errors and (both or unit.name not in tolerated):
            raise errors[0]
    return failures


@dataclass(frozen=True, slots=True)
class _Facts:
    server: Server
    settings: tuple[tuple[str, str], ...]
    conditions: Conditions
    overhead_ms: float = 0.0

    def hiding(self, names: Iterable[str]) -> _Facts:
        return replace(self, conditions=replace(self.conditions, hidden=tuple(names)))


def _facts(
    conn: psycopg.Connection[Any],
    plan: _Design,
    mode: Literal["one side", "interleaved"],
) -> _Facts:
    server, settings = sessions.facts(conn)
    conditions = Conditions(
        mode=mode,
        cache="cold" if plan.cold else "warm",
        precision=plan.precision,
        seed=plan.seed,
        client_cpus=os.cpu_count() or 0,
        client_load=sessions.load_average(),
        server_started=sessions.server_started(conn),
    )
    return _Facts(server, settings, conditions)


@dataclass(frozen=True, slots=True)
class _Whole:
    """What was measured, on all sides."""

    conn: psycopg.Connection[Any]
    units: tuple[Unit, ...]
    skipped: tuple[str, ...]
    rounds: int
    began: _Moment

    def measurement(
        self, place: int, label: str, facts: _Facts, failed: tuple[Failure, ...], tell: Progress
    ) -> Measurement:
        """Explain the queries of one side, and put its measurement together."""
        series: list[Series] = []
        own: list[Series] = []
        for done, unit in enumerate(self.units):
            tell(f"explain {unit.name}", 0.9 + 0.1 * done / len(self.units))
            (own if unit.is_control else series).append(unit.runners[place].series())
        names = {
            (node.schema, node.table[-1])
            for one in series
            for node in one.explain.nodes()
            if node.schema is not None and node.relation is not None
        }
        tell("measured", 1.0)
        return Measurement(
            label=label,
            series=tuple(series),
            skipped=self.skipped,
            server=facts.server,
            settings=facts.settings,
            overhead_ms=facts.overhead_ms,
            started=self.began.wall.isoformat(timespec="microseconds"),
            seconds=time.monotonic() - self.began.monotonic,
            controls=tuple(own),
            failed=failed,
            conditions=replace(
                facts.conditions,
                rounds=self.rounds,
                clock_jump_s=round(self.began.jump(), 3),
                queries_s=sum(unit.runners[place].spent_ms for unit in self.units) / 1000,
                tables=sessions.tables(self.conn, names),
            ),
        )


def _vacuum(units: Sequence[Unit]) -> None:
    """Remove the dead rows of rolled back writes from the tables that the writes touch."""
    writes = [unit.runners[-1] for unit in units if unit.kind == "write"]
    tables: set[tuple[str, ...]] = set()
    for runner in writes:
        with runner.transaction():
            plan = runner.explain(runner.sampled.values[0], analyze=False)
        tables.update(node.table for node in plan.nodes() if node.type in WRITING)
    for table in sorted(tables):
        # Without the right to it the server only warns; a foreign table has nothing to remove.
        with contextlib.suppress(psycopg.errors.QueryCanceled, psycopg.errors.WrongObjectType):
            writes[0].conn.execute(sql.SQL("VACUUM {}").format(sql.Identifier(*table)))
