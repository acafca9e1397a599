"""Timing a workload: the connections, the rounds and the clock."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, NoReturn

import psycopg
from psycopg import generators, pq, sql

from indexlab import explain, target, units
from indexlab.benchmark.series import Measurement, Sample, Series
from indexlab.errors import InputError, TargetError
from indexlab.explain import Explain
from indexlab.target import Server, Target
from indexlab.workload import SampledQuery, Values

ROUND_MS = 50.0
"""A fast query is executed again within a round until about this much time is spent on it."""
ROUND_EXECUTIONS = 20
MAX_SAMPLES = 400
"""More do not narrow the interval of a median enough to be worth their time."""
CUSTOM_PLANS = 5
"""Executions that the server plans for their values before it considers a generic plan
(choose_custom_plan in src/backend/utils/cache/plancache.c)."""
MIN_ROUNDS = 5
LEAST_SAMPLES = 3
EXPLAIN_SLOWDOWN = 4
WRITING = ("Insert", "Update", "Delete", "Merge")
OVERHEAD_EXECUTIONS = 100

Progress = Callable[[str, float], None]
"""Called with what is being done, and with the done part of the whole from 0 to 1."""


@dataclass(slots=True, eq=False)
class _Runner:
    """A query prepared on the connection that runs it, and what has been seen of it."""

    sampled: SampledQuery
    conn: psycopg.Connection[Any]
    name: str
    source: str | Path
    timeout: float
    rows: int = 0
    cost_ms: float = 0.0
    """How long an execution takes, as far as is known."""
    turn: int = 0
    begun: float = 0.0
    """When the running statement was sent, by the monotonic clock."""
    samples: list[Sample] = field(default_factory=list)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold a transaction that changes nothing: READ ONLY for a read, rolled back for all."""
        with self.errors_told(), self.conn.transaction(force_rollback=True):
            yield

    @contextmanager
    def errors_told(self) -> Iterator[None]:
        self.begun = time.monotonic()
        try:
            yield
        except psycopg.Error as error:
            self._tell(error, time.monotonic() - self.begun)

    def _tell(self, error: psycopg.Error, seconds: float) -> NoReturn:
        query = self.sampled.query
        reason = error.diag.message_primary or str(error)
        if self.conn.closed:
            raise TargetError(
                f"the connection was lost while query {query.name!r} ran: {reason}"
            ) from None
        message = f"query {query.name!r} fails: {reason}"
        if isinstance(error, psycopg.errors.QueryCanceled) and seconds >= 0.99 * self.timeout:
            message = (
                f"query {query.name!r} takes longer than the limit of "
                f"{units.duration(self.timeout)}: raise it with --statement-timeout, "
                "or take the query out of the workload"
            )
        elif isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
            message += (
                "; a read is measured in a READ ONLY transaction, so a query that writes "
                "through a function cannot be one: take it out of the workload"
            )
        elif error.diag.message_hint:
            message += f" (hint: {error.diag.message_hint})"
        raise InputError(message, source=self.source, line=query.line) from None

    def prepare(self) -> None:
        pgconn = self.conn.pgconn
        statement = self.sampled.query.statement.encode()
        pgconn.send_prepare(self.name.encode(), statement)
        _finish(self.conn)

    def execute(self) -> float:
        """Run the next set of values and return its latency in milliseconds."""
        values = self.sampled.values[self.turn % len(self.sampled.values)]
        self.begun = time.monotonic()
        ms, result = _timed(self.conn, self.name, values)
        self.turn += 1
        if self.turn == 1:
            self.rows = result.ntuples or result.command_tuples or 0
        return ms

    def repeat(self, count: int) -> list[float]:
        """Run `count` executions: reads in one transaction, each write in its own."""
        if self.sampled.query.kind == "write" and count > 1:
            return [ms for _ in range(count) for ms in self.repeat(1)]
        with self.transaction():
            return [self.execute() for _ in range(count)]

    def check(self) -> None:
        """Prepare the query and run it once, before anything is measured."""
        with self.errors_told():
            self.prepare()
        (self.cost_ms,) = self.repeat(1)

    def warm_up(self, limit_ms: float) -> None:
        """Execute once more at least, and past the custom plans if that fits into the limit."""
        spent = 0.0
        while self.turn < 2 or (self.turn <= CUSTOM_PLANS and spent + self.cost_ms < limit_ms):
            (self.cost_ms,) = self.repeat(1)
            spent += self.cost_ms
        self.turn = 0

    def measure(self, count: int, number: int) -> None:
        """Take `count` samples in round `number`."""
        first, sets = self.turn, len(self.sampled.values)
        times = self.repeat(count)
        self.samples += [Sample(ms, (first + i) % sets, number) for i, ms in enumerate(times)]
        self.cost_ms = median(times)

    def series(self) -> Series:
        """Explain the query as it was measured."""
        # ANALYZE reads the clock at every row: it may need longer than the query itself.
        self.timeout *= EXPLAIN_SLOWDOWN
        with self.transaction():
            _limit(self.conn, self.timeout)
            indexes = {
                index
                for values in self.sampled.values
                for index in self.explain(values, analyze=False).indexes
            }
            plan = self.explain(self.sampled.values[0], analyze=True)
        query = self.sampled.query
        return Series(
            query=query.name,
            kind=query.kind,
            weight=query.weight,
            samples=tuple(self.samples),
            rows=self.rows,
            explain=plan,
            sql=query.sql,
            indexes=tuple(sorted(indexes.union(plan.indexes))),
        )

    def explain(self, values: Values, *, analyze: bool) -> Explain:
        self.begun = time.monotonic()
        statement = self.sampled.query.statement
        return explain.run(self.conn, statement, values, analyze=analyze, prepared=self.name)


def _timed(
    conn: psycopg.Connection[Any], name: str, values: Values
) -> tuple[float, pq.abc.PGresult]:
    """Execute a prepared statement at libpq's level: no Python values are made of its rows.

    psycopg's own wait loop reads the answer, so Ctrl-C is seen within a tenth of a second and
    cancels the statement on the server.
    """
    parameters = [None if value is None else value.encode() for value in values]
    key = name.encode()
    started = time.perf_counter_ns()
    conn.pgconn.send_query_prepared(key, parameters)
    results = conn.wait(generators.execute(conn.pgconn))
    elapsed = time.perf_counter_ns() - started
    return max(elapsed, 1) / 1e6, _checked(conn, results)


def _finish(conn: psycopg.Connection[Any]) -> None:
    _checked(conn, conn.wait(generators.execute(conn.pgconn)))


def _checked(conn: psycopg.Connection[Any], results: Sequence[pq.abc.PGresult]) -> pq.abc.PGresult:
    result = results[-1]
    if result.status == pq.ExecStatus.FATAL_ERROR:
        raise psycopg.errors.error_from_result(result, encoding=conn.info.encoding)
    return result


def measure(
    target: Target,
    sampled: tuple[SampledQuery, ...],
    *,
    label: str = "",
    rounds: int = 0,
    budget: float = 12.0,
    seed: int = 0,
    disposable: bool = False,
    statement_timeout: float = 60.0,
    source: str | Path = "workload.sql",
    progress: Progress | None = None,
) -> Measurement:
    """Time every query of a workload; changes no row of the target.

    1. Each query is prepared on the server and executed once: one that fails ends it all here.
    2. If writes are run, their tables are vacuumed, so that the reads of both sides of a comparison
       meet no dead rows that an earlier measurement has rolled back.
    3. Each is executed again, past the five executions that the server plans for their values, so
       that samples have the plan that a long-lived application gets (plan_cache_mode as it is).
       Queries slower than their share of the budget are only executed once more.
    4. Rounds, with the queries in another order in each: every query runs once, a fast one up to
       20 times or 50 ms. Sets of values take turns, in the same order on both sides of a comparison.
       Reads come first: rolled back writes leave dead rows that would slow them.
    5. Each query is explained with ANALYZE.

    Reads run in READ ONLY transactions. Writes run only in a `disposable` target, each in a
    transaction that is rolled back; BEGIN, ROLLBACK and COMMIT are in no sample, so the price of a
    commit (and of constraints deferred to it) is not measured.

    Args:
        target: where the queries run.
        sampled: the queries with their values, from `workload.sample`. A write without values (its
            baseline has not run it) is skipped, and so is a query of normalized text.
        label: what reports call this measurement, such as `before`.
        rounds: how many; 0 lets the budget decide. A query gets three samples in any case.
        budget: seconds for steps 3 and 4 over all queries. It is exceeded where slow queries
            need more for their least number of samples: 10, or 5, or 3 for the slowest.
        seed: of the order of queries within rounds.
        disposable: rows of the target may be written and rolled back; sequences stay advanced.
        statement_timeout: seconds that one execution may take.
        source: what errors call the workload.
        progress: is told what is being done.

    Raises:
        InputError: a query fails, or takes longer than `statement_timeout`; names its line.
        TargetError: the target cannot be reached, or the connection is lost.
    """
    _check_arguments(sampled, rounds, budget, statement_timeout, source)
    tell = progress or (lambda _words, _part: None)
    started, clock = datetime.now(UTC), time.monotonic()
    skipped = tuple(
        one.query.name
        for one in sampled
        if one.query.generic or (one.query.kind == "write" and not (disposable and one.values))
    )
    with ExitStack() as stack:
        reading = stack.enter_context(_connection(target, statement_timeout, read_only=True))
        writing = (
            stack.enter_context(_connection(target, statement_timeout, read_only=False))
            if any(s.query.kind == "write" and s.query.name not in skipped for s in sampled)
            else reading
        )
        runners = [
            _Runner(
                sampled=one,
                conn=writing if one.query.kind == "write" else reading,
                name=f"indexlab_{number}",
                source=source,
                timeout=statement_timeout,
            )
            for number, one in enumerate(sampled)
            if one.query.name not in skipped
        ]
        server, settings = _facts(reading)
        for number, runner in enumerate(runners):
            tell(f"check {runner.sampled.query.name}", 0.1 * number / len(runners))
            runner.check()
        _vacuum(runners)
        overhead = _overhead(reading)
        _take_samples(runners, rounds, budget, seed, tell)
        series: list[Series] = []
        for number, runner in enumerate(runners):
            tell(f"explain {runner.sampled.query.name}", 0.9 + 0.1 * number / len(runners))
            series.append(runner.series())
    tell("measured", 1.0)
    return Measurement(
        label=label,
        series=tuple(series),
        skipped=skipped,
        server=server,
        settings=settings,
        overhead_ms=overhead,
        started=started.isoformat(timespec="seconds"),
        seconds=time.monotonic() - clock,
    )


def _check_arguments(
    sampled: tuple[SampledQuery, ...],
    rounds: int,
    budget: float,
    statement_timeout: float,
    source: str | Path,
) -> None:
    if rounds < 0:
        raise InputError(f"rounds {rounds!r} is negative: 0 lets the budget decide")
    if not 0 < budget < math.inf:
        raise InputError(f"budget {budget!r} is not a positive number of seconds")
    if not 0.001 <= statement_timeout <= 500_000:
        raise InputError(
            f"statement timeout {statement_timeout!r} is not a number of seconds from 0.001 to 500,000"
        )
    for one in sampled:
        if not one.values and one.query.kind == "read" and not one.query.generic:
            raise InputError(
                f"query {one.query.name!r} has no values to run with",
                source=source,
                line=one.query.line,
            )


@contextmanager
def _connection(
    address: Target, statement_timeout: float, *, read_only: bool
) -> Iterator[psycopg.Connection[Any]]:
    with target.connect(address, read_only=read_only, purpose="benchmark") as conn:
        # Not False: a role or database that is read-only by default stays so.
        conn.read_only = True if read_only else None
        conn.prepare_threshold = None
        _limit(conn, statement_timeout)
        yield conn


TIMEOUT = "SELECT pg_catalog.set_config('statement_timeout', %s, false)"


def _limit(conn: psycopg.Connection[Any], seconds: float) -> None:
    conn.execute(TIMEOUT, [f"{round(seconds * 1000)}ms"])


SETTINGS = """
SELECT name,
       current_setting(name) AS value
FROM pg_catalog.pg_settings
WHERE name = ANY (%s)
   -- Switched off by somebody: plans without it are not those of the default planner.
   OR (name LIKE 'enable\\_%%' AND setting <> boot_val)
ORDER BY name COLLATE "C"
"""

SETTING_NAMES = [
    "autovacuum",
    "cpu_index_tuple_cost",
    "cpu_operator_cost",
    "cpu_tuple_cost",
    "default_statistics_target",
    "effective_cache_size",
    "effective_io_concurrency",
    "hash_mem_multiplier",
    "jit",
    "maintenance_work_mem",
    "max_parallel_workers",
    "max_parallel_workers_per_gather",
    "plan_cache_mode",
    "random_page_cost",
    "search_path",
    "seq_page_cost",
    "shared_buffers",
    "synchronous_commit",
    "track_io_timing",
    "work_mem",
]


def _facts(
    conn: psycopg.Connection[Any],
) -> tuple[Server, tuple[tuple[str, str], ...]]:
    rows = conn.execute(SETTINGS, [SETTING_NAMES]).fetchall()
    return target.server(conn), tuple((name, value) for name, value in rows)


def _vacuum(runners: Sequence[_Runner]) -> None:
    """Remove the dead rows of rolled back writes from the tables that the writes touch."""
    writes = [runner for runner in runners if runner.sampled.query.kind == "write"]
    tables: set[tuple[str, ...]] = set()
    for runner in writes:
        with runner.transaction():
            plan = runner.explain(runner.sampled.values[0], analyze=False)
        tables.update(node.table for node in plan.nodes() if node.type in WRITING)
    for table in sorted(tables):
        # Without the right to it the server only warns; a foreign table has nothing to remove.
        with contextlib.suppress(psycopg.errors.QueryCanceled, psycopg.errors.WrongObjectType):
            writes[0].conn.execute(sql.SQL("VACUUM {}").format(sql.Identifier(*table)))


def _overhead(conn: psycopg.Connection[Any]) -> float:
    conn.pgconn.send_prepare(b"indexlab_empty", b"SELECT 1")
    _finish(conn)
    with conn.transaction(force_rollback=True):
        return median(_timed(conn, "indexlab_empty", ())[0] for _ in range(OVERHEAD_EXECUTIONS))


def _take_samples(
    runners: list[_Runner], rounds: int, budget: float, seed: int, tell: Progress
) -> None:
    """Warm up and measure, reads before writes, each side with its queries' part of the budget."""
    share = budget / max(len(runners), 1)
    order = random.Random(seed)
    done = 0
    for side in ("read", "write"):
        group = [runner for runner in runners if runner.sampled.query.kind == side]
        if not group:
            continue
        deadline = time.monotonic() + share * len(group)
        for runner in group:
            tell(f"warm up {runner.sampled.query.name}", 0.1 + 0.8 * done / len(runners))
            runner.warm_up(1000 * share / 4)
        floors = {r.name: _least_samples(r.cost_ms / 1000, budget, share) for r in group}
        begun, number, busy = time.monotonic(), 0, True
        while busy:
            busy = False
            for runner in order.sample(group, len(group)):
                in_time = time.monotonic() < deadline
                if _continues(runner, floors[runner.name], number, rounds, in_time):
                    runner.measure(_executions(runner), number)
                    busy = True
            number += 1
            spent = (time.monotonic() - begun) / max(deadline - begun, 1e-9)
            part = min(1.0, number / rounds if rounds else spent)
            tell(f"{side}s, round {number}", 0.1 + 0.8 * (done + part * len(group)) / len(runners))
        done += len(group)


def _least_samples(seconds: float, budget: float, share: float) -> int:
    """How many samples a query of this latency gets even where they exceed the budget."""
    if seconds > min(budget / 10, share):
        return LEAST_SAMPLES
    return 10 if 10 * seconds <= share else 5


def _executions(runner: _Runner) -> int:
    """How many samples the query gets in the next round."""
    fitting = int(ROUND_MS / max(runner.cost_ms, 1e-6))
    return max(1, min(fitting, ROUND_EXECUTIONS, MAX_SAMPLES - len(runner.samples)))


def _continues(runner: _Runner, floor: int, done: int, rounds: int, in_time: bool) -> bool:
    taken = len(runner.samples)
    if taken >= MAX_SAMPLES:
        return False
    if rounds:
        return done < rounds or taken < LEAST_SAMPLES
    return in_time or taken < floor or (floor > LEAST_SAMPLES and done < MIN_ROUNDS)
