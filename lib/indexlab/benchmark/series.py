"""Samples, series and measurements: what a benchmark saw, checked when it is made."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from indexlab import display, records, units
from indexlab.explain import Explain, folded
from indexlab.records import Record
from indexlab.target import Server

if TYPE_CHECKING:
    import pandas as pd

HIDDEN = "[hidden"
"""How a text begins that a redaction took out; equal texts give equal marks on one machine."""


@dataclass(frozen=True, slots=True)
class Sample(Record):
    """The client's latency of one execution.

    Raises:
        ValueError: the time is not a positive number.
    """

    ms: float
    values: int
    """Which set of the query's values was used, counted from 0."""
    round: int = 0
    """In which round it was taken, counted from 0: samples of one round share their moment."""

    def __post_init__(self) -> None:
        if not (self.ms > 0 and math.isfinite(self.ms)):
            raise ValueError(f"a sample must be a positive number of milliseconds, not {self.ms!r}")
        if self.values < 0:
            raise ValueError(f"a sample's set of values is counted from 0, not {self.values!r}")


@dataclass(frozen=True, slots=True)
class Series(Record):
    """All timings of one query, and the plan that they had.

    Raises:
        ValueError: there are no samples.
    """

    query: str
    kind: Literal["read", "write"]
    weight: float
    """Calls per unit of time, relative to the other queries."""
    samples: tuple[Sample, ...]
    """In the order of execution."""
    rows: int
    """Rows that the first set of values returned or affected."""
    explain: Explain
    """EXPLAIN ANALYZE of the prepared statement with its first set of values, after the timing."""
    sql: str
    indexes: tuple[str, ...] = ()
    """Indexes that the plan of any set of values uses, sorted."""
    warm_up: tuple[float, ...] = ()
    """Latencies in milliseconds before the samples; they count for nothing."""
    steady: bool = True
    """Whether the warm-up came to a steady latency before its time was over."""
    limit_ms: float | None = None
    """Where an execution was given up: after how long; a sample of this length is a lower bound."""
    answers: tuple[str, ...] = ()
    """Of a read's first sets of values: number of rows and hash of each answer."""
    volatile: bool = False
    """One set of values got two different answers on one side, or the text asks for the time, the
    session or chance: then another answer of the other side says nothing."""
    hot_share: float | None = None
    """Of the rows that a write updated: which part was a heap-only tuple; None without updates."""
    wal_bytes: float | None = None
    """Of a write: median over several executions, each of which ran before, so that pages met again are
    not written whole as the first time after a checkpoint; where keys are random, others are. None
    before PostgreSQL 13."""

    @property
    def given_up(self) -> bool:
        """Whether the median is a lower bound only: the query took longer than its limit."""
        return self.limit_ms is not None and self.p50_ms >= self.limit_ms

    def __post_init__(self) -> None:
        if not self.samples:
            raise ValueError(f"query {self.query!r} has no samples")

    @property
    def is_hidden(self) -> bool:
        """Whether a redaction took its text out."""
        return self.sql.startswith(HIDDEN)

    def has_text_of(self, other: Series) -> bool:
        """Return whether both have one text, as far as a hidden one lets that be known."""
        return self.sql == other.sql or self.is_hidden != other.is_hidden

    @property
    def p50_ms(self) -> float:
        """Median latency in milliseconds."""
        return self.percentile(50)

    @property
    def p95_ms(self) -> float:
        """Latency in milliseconds that 95 of 100 executions stay below."""
        return self.percentile(95)

    @property
    def p99_ms(self) -> float:
        """Latency in milliseconds that 99 of 100 executions stay below."""
        return self.percentile(99)

    def percentile(self, percent: float) -> float:
        """Return a percentile of the latencies in milliseconds, interpolated linearly.

        Args:
            percent: from 0 to 100.
        """
        import numpy as np

        return float(np.percentile([sample.ms for sample in self.samples], percent))

    def frame(self) -> pd.DataFrame:
        """Return the samples as a pandas DataFrame, one row per execution, in their order.

        Columns: `ms`, the client's latency in milliseconds; `values`, which set of the query's
        values was used, counted from 0; `round`, in which it was taken, counted from 0.
        """
        import pandas as pd

        rows = [(sample.ms, sample.values, sample.round) for sample in self.samples]
        return pd.DataFrame(rows, columns=["ms", "values", "round"])

    def __repr__(self) -> str:
        count = units.plural(len(self.samples), "sample")
        return (
            f"<Series of {display.clean(self.query)}: {count}, p50 {units.ms(self.p50_ms)}, "
            f"p95 {units.ms(self.p95_ms)}, p99 {units.ms(self.p99_ms)}>"
        )

    def _repr_html_(self) -> str:
        numeric = ("weight", "samples", "p50", "p95", "p99", "rows")
        facts = (f"{self.weight:g}", len(self.samples), *_percentiles(self))
        row = (self.query, self.kind, *facts, units.count(self.rows))
        table = display.table(("query", "kind", *numeric), [row], numeric=numeric)
        return f"{table}{self.explain._repr_html_()}"


@dataclass(frozen=True, slots=True)
class Failure(Record):
    """A query that one side of a comparison could not run."""

    query: str
    reason: str


@dataclass(frozen=True, slots=True)
class Table(Record):
    """A table that the workload reads or writes, as it was when it was measured."""

    name: str
    """With its schema."""
    rows: float
    """As the planner believes; negative where it was never told."""
    bytes: int
    index_bytes: int
    analyzed: str
    """UTC; `-infinity` if never."""


@dataclass(frozen=True, slots=True)
class Conditions(Record):
    """Under what conditions a measurement was taken."""

    mode: Literal["one side", "interleaved"] = "one side"
    hidden: tuple[str, ...] = ()
    """Indexes that were hidden from the planner on this side."""
    cache: Literal["warm", "cold"] = "warm"
    precision: float = 0.0
    """Rounds were added until the intervals were as narrow as this; 0: it was not asked for."""
    seed: int = 0
    rounds: int = 0
    client_cpus: int = 0
    client_load: float = 0.0
    """Processes that wanted a processor of the client's machine, mean of the last minute."""
    server_started: str = ""
    """UTC, to the microsecond."""
    clock_jump_s: float = 0.0
    """By how much the wall clock went otherwise than the monotonic one, which times samples."""
    queries_s: float = 0.0
    """Time within executions, warm-up included: the rest of `seconds` is the kit's own."""
    tables: tuple[Table, ...] = ()

    def __str__(self) -> str:
        """Say it in a few words."""
        rounds = units.plural(self.rounds, "round")
        without = f" without {', '.join(self.hidden)}" if self.hidden else ""
        where = f"client with {units.plural(self.client_cpus, 'processor')} at load"
        return (
            f"{self.mode}{without}, {self.cache} cache, {rounds}, seed {self.seed}, "
            f"{where} {self.client_load:.1f}"
        )


@dataclass(frozen=True, slots=True)
class Measurement(Record):
    """One benchmark of one workload on one server."""

    label: str
    series: tuple[Series, ...]
    skipped: tuple[str, ...]
    """Names of the queries that were not run: writes, as the target is not disposable, and what
    has no values."""
    server: Server
    settings: tuple[tuple[str, str], ...]
    """Settings that plans and latencies depend on, sorted by name."""
    overhead_ms: float
    """Median latency of an empty statement: what every sample contains besides its query."""
    started: str
    """UTC, ISO 8601."""
    seconds: float
    controls: tuple[Series, ...] = ()
    """Statements that no index can touch, measured in every round: if they moved, it was not the
    plan that did it."""
    failed: tuple[Failure, ...] = ()
    """Queries that this side could not run, though another one could."""
    conditions: Conditions = Conditions()

    @property
    def is_interleaved(self) -> bool:
        """Whether both sides were measured in turns within each round."""
        return self.conditions.mode == "interleaved"

    def is_paired_with(self, other: Measurement) -> bool:
        """Whether the rounds of both are the same moments."""
        return self.is_interleaved and other.is_interleaved and self.started == other.started

    def warnings(self) -> tuple[str, ...]:
        """Return what makes its samples doubtful, each with its remedy.

        Of a side that took turns with another one, their comparison says it.
        """
        from indexlab.benchmark import stability

        if self.is_interleaved:
            return ()
        queries = [(series,) for series in self.series]
        return tuple(stability.warnings((self,), queries, in_turns=False))

    def frame(self) -> pd.DataFrame:
        """Return the latencies as a pandas DataFrame, one row per query.

        Columns: `query`; `kind`, read or write; `weight`, calls per unit of time; `samples`, how
        many; `p50_ms`, `p95_ms` and `p99_ms`, percentiles of the client's latency in milliseconds;
        `rows` of the first set of values; `indexes` that the plan uses; `plan`, its topmost step.
        """
        import pandas as pd

        columns = [
            "query",
            "kind",
            "weight",
            "samples",
            "p50_ms",
            "p95_ms",
            "p99_ms",
            "rows",
            "indexes",
            "plan",
        ]
        rows = [
            (
                s.query,
                s.kind,
                s.weight,
                len(s.samples),
                s.p50_ms,
                s.p95_ms,
                s.p99_ms,
                s.rows,
                ", ".join(s.indexes),
                s.explain.root.title(),
            )
            for s in self.series
        ]
        return pd.DataFrame(rows, columns=columns)

    def __repr__(self) -> str:
        rows = [
            (s.query, units.ms(s.p50_ms), units.ms(s.p95_ms), units.ms(s.p99_ms), s.explain.root)
            for s in self.series
        ]
        notes = [f"{failure.query} fails: {failure.reason}" for failure in self.failed]
        notes += self.warnings()
        columns = ("query", "p50", "p95", "p99", "plan")
        title = f"latency {self.label}".strip()
        return records.text(f"{title}, {self.server}", columns, rows, notes=notes)

    def _repr_html_(self) -> str:
        rows = [
            (
                s.query,
                s.kind,
                f"{s.weight:g}",
                len(s.samples),
                *_percentiles(s),
                units.count(s.rows),
                folded(s.explain),
            )
            for s in self.series
        ]
        numeric = ("weight", "samples", "p50", "p95", "p99", "rows")
        named = f" {self.label}" if self.label else ""
        note = display.escape(
            f"{self.server}, {self.started}, {units.duration(self.seconds)}; {self.conditions}; "
            f"an empty statement takes {units.ms(self.overhead_ms)}"
            + (
                f"; not run, as writes or for want of values: {', '.join(self.skipped)}"
                if self.skipped
                else ""
            )
            + "".join(f"; {failure.query} fails: {failure.reason}" for failure in self.failed)
        )
        columns = ("query", "kind", *numeric, "plan")
        table = display.table(columns, rows, caption=f"latency{named}", numeric=numeric)
        lines = [note, *map(display.warning, self.warnings())]
        return table + "".join(f"<p>{line}</p>" for line in lines)


def _percentiles(series: Series) -> Iterator[str | display.Markup]:
    """Write p50, p95 and p99, each with its interval at 95%."""
    from indexlab.benchmark.intervals import percentile

    if series.given_up:
        yield from (f">= {units.ms(series.p50_ms)}",) * 3
        return
    times = [sample.ms for sample in series.samples]
    for percent in (50.0, 95.0, 99.0):
        low, high = percentile(times, percent)
        end = "?" if high is None else units.ms(high)
        value = display.escape(units.ms(series.percentile(percent)))
        interval = display.escape(f"{units.ms(low)} to {end}")
        yield display.Markup(f'{value} <small class="il-sub">{interval}</small>')
