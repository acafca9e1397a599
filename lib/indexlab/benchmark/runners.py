"""One query on one side: prepared, warmed up, timed in rounds, explained."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, NoReturn

import psycopg
from psycopg import pq, sql

from indexlab import explain
from indexlab.benchmark import sessions
from indexlab.benchmark.answers import MAX_SETS, depends_on_the_moment, digest
from indexlab.benchmark.cache import Evictor
from indexlab.benchmark.series import Sample, Series
from indexlab.errors import InputError, TargetError
from indexlab.explain import Explain
from indexlab.workload import SampledQuery, Values

CUSTOM_PLANS = 5
"""Executions that the server plans for their values before it considers a generic plan
(choose_custom_plan in src/backend/utils/cache/plancache.c)."""
EXPLAIN_SLOWDOWN = 4
STEADY_WINDOW = 5
STEADY_WITHIN = 0.05
MAX_WARM_UP = 60
SLOW_MS = 100.0
"""From here on, planning again after a switch is no part of the latency worth an execution."""
PRICED_EXECUTIONS = 10
EARLY = 0.005
"""Seconds by which a server may cancel before its time by the client's clock: its own is not
monotonic."""
PLACEHOLDER = re.compile(r"\$(\d+)")
UNTYPED = (
    psycopg.errors.IndeterminateDatatype,
    psycopg.errors.AmbiguousFunction,
    psycopg.errors.FeatureNotSupported,  # of a composite type without a name, among others
)


class GivenUp(Exception):
    """A statement was cancelled at its time limit."""


@dataclass(frozen=True, slots=True)
class Side:
    """In what state of the database a query runs: as it is, or with indexes hidden."""

    label: str
    hidden: tuple[tuple[str, str], ...] = ()
    """Schema and name of the indexes that this side must not have."""
    switching: bool = False
    """Whether another side takes turns with this one on the same connection."""

    @contextmanager
    def opened(
        self, conn: psycopg.Connection[Any], kind: str, seconds: float = sessions.OWN_SECONDS
    ) -> Iterator[None]:
        """Hold a transaction in this state that is rolled back: READ ONLY for a read.

        Indexes are hidden by dropping them within the transaction. That is seen by this session
        alone, takes them from the planner and from writes alike, and nothing outlives a crash of
        the client, the session or the server: the transaction was never committed. To hide them is
        none of the query's time, so it has the session's limit and not that of the query.

        Args:
            conn: the session.
            kind: of the query, read or write.
            seconds: that a statement within may take.
        """
        with conn.transaction(force_rollback=True):
            conn.execute(_opening(self, kind == "read", round(seconds * 1000)))
            yield


@cache
def _opening(side: Side, is_read: bool, limit_ms: int) -> bytes:
    """Write what a transaction on this side begins with: to compose it takes as long as to run it."""
    steps: list[sql.Composable] = [sql.SQL("SET LOCAL statement_timeout = {}").format(limit_ms)]
    if side.switching and is_read:
        steps.insert(0, sql.SQL("SET LOCAL transaction_read_only = on"))
    if side.hidden:
        names = sql.SQL(", ").join(sql.Identifier(*name) for name in side.hidden)
        steps.insert(0, sql.SQL("DROP INDEX {}").format(names))
    return sql.SQL("; ").join(steps).as_bytes(None)


@dataclass(slots=True, eq=False)
class Runner:
    """A query prepared on the connection that runs it, and what has been seen of it."""

    sampled: SampledQuery
    conn: psycopg.Connection[Any]
    name: str
    side: Side
    source: str | Path
    timeout: float
    evictor: Evictor | None = None
    """Where the cache is to be cold: run before each execution, outside of its time."""
    rows: int = 0
    cost_ms: float = 0.0
    """How long an execution takes, as far as is known."""
    turn: int = 0
    begun: float = 0.0
    """When the running statement was sent, by the monotonic clock."""
    samples: list[Sample] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    steady: bool = False
    is_given_up: bool = False
    spent_ms: float = 0.0
    seen: dict[int, set[str]] = field(default_factory=dict)
    looks: dict[int, int] = field(default_factory=dict)

    @contextmanager
    def transaction(self, seconds: float | None = None) -> Iterator[None]:
        """Hold a transaction that changes nothing: READ ONLY for a read, rolled back for all.

        Args:
            seconds: that a statement within may take; by default what the query may.
        """
        limit = self.timeout if seconds is None else seconds
        with self.errors_told(limit), self.side.opened(self.conn, self.sampled.query.kind, limit):
            yield

    @contextmanager
    def errors_told(self, limit: float) -> Iterator[None]:
        """Say of an error of the server which query it was, and what to do."""
        self.begun = time.monotonic()
        try:
            yield
        except psycopg.Error as error:
            self._tell(error, is_late=time.monotonic() - self.begun >= 0.99 * limit - EARLY)

    def _tell(self, error: psycopg.Error, *, is_late: bool) -> NoReturn:
        query = self.sampled.query
        reason = PLACEHOLDER.sub(self._parameter, error.diag.message_primary or str(error))
        if self.conn.closed:
            raise TargetError(
                f"the connection was lost while query {query.name!r} ran: {reason}"
            ) from None
        if isinstance(error, psycopg.errors.QueryCanceled) and is_late:
            raise GivenUp from None
        if isinstance(error, psycopg.errors.LockNotAvailable) and self.side.hidden:
            raise TargetError(
                f"an index cannot be hidden: {reason}; somebody else uses its table, so measure "
                "without --interleaved or on a clone of your own"
            ) from None
        message = f"query {query.name!r} fails: {reason}"
        if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
            message += (
                "; a read is measured in a READ ONLY transaction, so a query that writes "
                "through a function cannot be one: take it out of the workload"
            )
        elif isinstance(error, UNTYPED) and query.parameters:
            message += "; say what type the parameter has, such as :name::bigint"
        elif error.diag.message_hint:
            message += f" (hint: {error.diag.message_hint})"
        raise InputError(message, source=self.source, line=query.line) from None

    def _parameter(self, match: re.Match[str]) -> str:
        """Write a number of the server as the name that the user gave."""
        place = int(match[1]) - 1
        names = self.sampled.query.parameters
        return f":{names[place]}" if 0 <= place < len(names) else match[0]

    def execute(self) -> float:
        """Run the next set of values and return its latency in milliseconds."""
        number = self.turn % len(self.sampled.values)
        if self.evictor is not None:
            self.evictor.evict()
        self.begun = time.monotonic()
        ms, result = sessions.timed(self.conn, self.name, self.sampled.values[number])
        self.spent_ms += ms
        self.turn += 1
        if not self.looks:
            self.rows = result.ntuples or result.command_tuples or 0
        self._look(number, result)
        return ms

    def _look(self, number: int, result: pq.abc.PGresult) -> None:
        """Keep the answer, twice for the same values: a volatile query gives two answers."""
        looks = self.looks.get(number, 0)
        if number < MAX_SETS and looks < 2:
            self.looks[number] = looks + 1
            if self.sampled.query.kind == "read":
                self.seen.setdefault(number, set()).add(digest(result))

    def repeat(self, count: int, settling: int = 0, times: int = 1) -> list[float]:
        """Run `count` executions, all of them `times` over, after `settling` that do not count.

        Reads share a transaction. Writes do not see each other: each has a transaction of its own,
        or, where sides take turns, a savepoint.
        """
        is_write = self.sampled.query.kind == "write"
        if is_write and not self.side.switching:
            found = []
            for _ in range(settling + count):
                with self.transaction():
                    found.append(self.execute())
            return found[settling:]
        with self.transaction():
            turn = self.turn
            if is_write:
                self.conn.execute("SAVEPOINT indexlab")
            for _ in range(settling):
                self._alone(is_write=is_write)
            if settling == 0 and self.side.switching:
                self.explain(self.sampled.values[turn % len(self.sampled.values)], analyze=False)
            found = []
            for _ in range(times):
                self.turn = turn
                found += [self._alone(is_write=is_write) for _ in range(count)]
            return found

    def _alone(self, *, is_write: bool) -> float:
        ms = self.execute()
        if is_write:
            self.conn.execute("ROLLBACK TO SAVEPOINT indexlab")
        return ms

    def check(self) -> None:
        """Prepare the query and run it once, before anything is measured.

        Raises:
            InputError: it fails.
        """
        with self.transaction(sessions.OWN_SECONDS):
            sessions.prepare(self.conn, self.name, self.sampled.query.statement)
        with self.giving_up():
            (self.cost_ms,) = self.repeat(1)

    @contextmanager
    def giving_up(self) -> Iterator[None]:
        """Take an execution beyond the limit for what is known of it: that it takes longer."""
        try:
            yield
        except GivenUp:
            self.is_given_up = True
            number = self.turn % len(self.sampled.values)
            last = self.samples[-1].round if self.samples else 0
            self.samples.append(Sample(self.timeout * 1000, number, last))
            self.spent_ms += self.timeout * 1000

    def warm_up(self, limit_ms: float) -> None:
        """Execute until the latency is steady, within a limit of time.

        A query whose check alone takes longer than the limit was warmed up by that. Steady is where
        the median of the last five executions is within 5% of that of the five before, all past
        the custom plans.
        """
        spent = 0.0
        most = MAX_WARM_UP if self.evictor is None else CUSTOM_PLANS
        while not self.is_given_up and not self.steady and len(self.warm) < most:
            if spent + self.cost_ms >= limit_ms:
                break
            count = 1 if self.cost_ms > 1 or self.evictor else STEADY_WINDOW
            with self.giving_up():
                times = self.repeat(count)
                self.warm += times
                self.cost_ms = median(times)
                spent += sum(times)
            self.steady = self._is_steady()
        self.turn = 0

    def _is_steady(self) -> bool:
        past = self.warm[CUSTOM_PLANS:]
        if len(past) < 2 * STEADY_WINDOW:
            return False
        last, earlier = past[-STEADY_WINDOW:], past[-2 * STEADY_WINDOW : -STEADY_WINDOW]
        return abs(median(last) / median(earlier) - 1) <= STEADY_WITHIN

    @property
    def settling(self) -> int:
        """How many executions after a switch of sides do not count."""
        if not self.side.switching or self.evictor is not None:
            return 0
        return 0 if self.cost_ms > SLOW_MS else 1 if self.cost_ms > 5 else 2

    def measure(self, count: int, number: int, repeats: int = 1) -> None:
        """Take samples of the next `count` sets of values in round `number`, each `repeats` times."""
        first, sets = self.turn, len(self.sampled.values)
        with self.giving_up():
            found = self.repeat(count, self.settling, repeats)
            self.samples += [
                Sample(ms, (first + i % count) % sets, number) for i, ms in enumerate(found)
            ]
            self.cost_ms = median(found)

    def series(self) -> Series:
        """Explain the query as it was measured."""
        query = self.sampled.query
        indexes: set[str] = set()
        wal: list[int] = []
        hot = None
        # ANALYZE reads the clock at every row: it may need longer than the query itself.
        longest = self.timeout * EXPLAIN_SLOWDOWN
        with self.transaction(sessions.OWN_SECONDS):
            for values in self.sampled.values:
                indexes.update(self.explain(values, analyze=False).indexes)
        plan = self._analyzed(longest)
        if query.kind == "write" and plan.buffers is not None:
            hot, wal = self._price(longest)
        return Series(
            query=query.name,
            kind=query.kind,
            weight=query.weight,
            samples=tuple(self.samples),
            rows=self.rows,
            explain=plan,
            sql=query.sql,
            indexes=tuple(sorted(indexes.union(plan.indexes))),
            warm_up=tuple(self.warm),
            steady=self.steady,
            limit_ms=self.timeout * 1000 if self.is_given_up else None,
            answers=tuple(min(self.seen[number]) for number in sorted(self.seen)),
            volatile=any(len(answers) > 1 for answers in self.seen.values())
            or depends_on_the_moment(query.statement),
            hot_share=hot,
            wal_bytes=float(median(wal)) if wal else None,
        )

    def _analyzed(self, seconds: float) -> Explain:
        """Explain with ANALYZE; a query that was given up, or is now, only by its plan."""
        values = self.sampled.values[0]
        if not self.is_given_up:
            try:
                with self.transaction(seconds):
                    return self.explain(values, analyze=True)
            except GivenUp:
                pass
        with self.transaction(sessions.OWN_SECONDS):
            return self.explain(values, analyze=False)

    def _price(self, seconds: float) -> tuple[float | None, list[int]]:
        """Run a write with several sets of values: the share of HOT updates, and its WAL.

        Each runs twice, and the second time counts. The first after a checkpoint writes whole pages:
        that is the price of the moment, and would fall to the side that comes first. Random keys meet
        other pages, and go on paying it.
        """
        wal = []
        with self.transaction(seconds):
            before = self.conn.execute(UPDATES).fetchone()
            for values in self.sampled.values[:PRICED_EXECUTIONS]:
                for _ in range(2):
                    with self.conn.transaction(force_rollback=True):
                        found = self.explain(values, analyze=True)
                if found.wal_bytes is not None:
                    wal.append(found.wal_bytes)
            after = self.conn.execute(UPDATES).fetchone()
        assert before is not None
        assert after is not None
        updated, hot = after[0] - before[0], after[1] - before[1]
        return (hot / updated if updated else None), wal

    def explain(self, values: Values, *, analyze: bool) -> Explain:
        """Ask for the plan that the prepared statement has now."""
        self.begun = time.monotonic()
        statement = self.sampled.query.statement
        return explain.run(self.conn, statement, values, analyze=analyze, prepared=self.name)


UPDATES = """
SELECT coalesce(sum(n_tup_upd), 0)::float8 AS updated,
       coalesce(sum(n_tup_hot_upd), 0)::float8 AS hot
FROM pg_catalog.pg_stat_xact_user_tables
"""
