"""Measuring a workload: one side, or two sides in turns."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from indexlab.benchmark import preparing, sessions
from indexlab.benchmark.design import Design, left_out
from indexlab.benchmark.recording import Moment, Whole, facts_of
from indexlab.benchmark.rounds import Progress, Unit
from indexlab.benchmark.runners import Runner, Side
from indexlab.benchmark.series import Measurement
from indexlab.target import Target
from indexlab.workload import SampledQuery


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
        InputError: a query fails (names its line), or there is none to run.
        TargetError: the target cannot be reached, or the connection is lost.
    """
    plan = Design(rounds, budget, precision, seed, statement_timeout, source, cold)
    plan.check(sampled)
    tell = progress or (lambda _words, _part: None)
    began = Moment.now()
    skipped = left_out(sampled, disposable=disposable, source=source)
    side = Side(label)
    with ExitStack() as stack:
        reading = stack.enter_context(sessions.opened(target, read_only=True))
        writing = (
            stack.enter_context(sessions.opened(target, read_only=False))
            if any(s.query.kind == "write" and s.query.name not in skipped for s in sampled)
            else reading
        )

        evictor = preparing.evictor(stack, target, reading) if cold else None

        def runner(one: SampledQuery, name: str) -> Runner:
            conn = writing if one.query.kind == "write" else reading
            return Runner(one, conn, name, side, source, statement_timeout, evictor)

        units = [
            Unit((runner(one, f"indexlab_{number}"),))
            for number, one in enumerate(sampled)
            if one.query.name not in skipped
        ]
        units += preparing.control_units(lambda one, name: (runner(one, name),))
        failures = preparing.check(units, tolerated, tell)
        units = [unit for unit in units if unit.name not in failures[0]]
        facts = facts_of(reading, plan, "one side")
        preparing.vacuum(units)
        facts = replace(facts, overhead_ms=sessions.overhead(reading))
        number = plan.take(units, tell)
        whole = Whole(conn=reading, units=tuple(units), skipped=skipped, rounds=number, began=began)
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
    in the next round in the other one: ABBA; where one side is much faster, the round comes back to
    it at other moments. A side without the indexes is a transaction in which they are dropped and
    which is rolled back: no other session sees it, but they wait for their tables meanwhile, so the
    target must be disposable. Each side has prepared statements of its own, and the first
    executions after a switch, which plan anew, do not count.

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
    plan = Design(rounds, budget, precision, seed, statement_timeout, source, cold)
    plan.check(sampled)
    tell = progress or (lambda _words, _part: None)
    began = Moment.now()
    skipped = left_out(sampled, disposable=True, source=source)
    names = tuple(sorted(hidden))
    sides = (Side(labels[0], names, switching=True), Side(labels[1], switching=True))
    with ExitStack() as stack:
        conn = stack.enter_context(sessions.opened(target, read_only=False))
        evictor = preparing.evictor(stack, target, conn) if cold else None
        preparing.check_hiding(conn, sides[0])

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
        units += preparing.control_units(pair)
        failures = preparing.check(units, frozenset(one.query.name for one in sampled), tell)
        failed = failures[0].keys() | failures[1].keys()
        units = [unit for unit in units if unit.name not in failed]
        facts = facts_of(conn, plan, "interleaved")
        preparing.vacuum(units)
        facts = replace(facts, overhead_ms=sessions.overhead(conn))
        number = plan.take(units, tell)
        whole = Whole(conn=conn, units=tuple(units), skipped=skipped, rounds=number, began=began)
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
        preparing.vacuum(units)
    return found[0], found[1]
