"""Samples, series and measurements: what a benchmark saw, checked when it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from indexlab import display, units
from indexlab.explain import Explain
from indexlab.target import Server


@dataclass(frozen=True, slots=True)
class Sample:
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
class Series:
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

    def __post_init__(self) -> None:
        if not self.samples:
            raise ValueError(f"query {self.query!r} has no samples")

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


@dataclass(frozen=True, slots=True)
class Measurement:
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

    def frame(self) -> Any:
        """Return a pandas DataFrame with one row per query, times in milliseconds."""
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

    def _repr_html_(self) -> str:
        rows = [
            (
                s.query,
                s.kind,
                f"{s.weight:g}",
                len(s.samples),
                *(units.ms(value) for value in (s.p50_ms, s.p95_ms, s.p99_ms)),
                units.count(s.rows),
                display.Markup(s.explain._repr_html_()),
            )
            for s in self.series
        ]
        numeric = ("weight", "samples", "p50", "p95", "p99", "rows")
        named = f" {self.label}" if self.label else ""
        note = display.escape(
            f"{self.server}, {self.started}, {units.duration(self.seconds)}; an empty statement "
            f"takes {units.ms(self.overhead_ms)}"
            + (
                f"; not run, as writes or for want of values: {', '.join(self.skipped)}"
                if self.skipped
                else ""
            )
        )
        columns = ("query", "kind", *numeric, "plan")
        table = display.table(columns, rows, caption=f"latency{named}", numeric=numeric)
        return f"{table}<p>{note}</p>"
