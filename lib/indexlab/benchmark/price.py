"""The price: what writes pay for the indexes, and how many reads pay it back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from indexlab import display, records, units
from indexlab.benchmark.changes import Change, Comparison
from indexlab.benchmark.series import Measurement, Series
from indexlab.records import Record

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class WritePrice(Record):
    """What one write of the workload costs before and after."""

    query: str
    weight: float
    before_ms: float
    after_ms: float
    verdict: str
    wal_before: float | None
    """Bytes; None where the server does not tell."""
    wal_after: float | None
    pages_before: int
    pages_after: int
    hot_before: float | None
    """Share of heap-only updates, from 0 to 1; None without updates."""
    hot_after: float | None

    @property
    def extra_ms(self) -> float:
        """Milliseconds that the indexes add to one execution."""
        return self.after_ms - self.before_ms


@dataclass(frozen=True, slots=True)
class Price(Record):
    """Read gain against write price."""

    writes: tuple[WritePrice, ...]
    saved_ms: float
    """Milliseconds that a read of the workload saves on average, by weight."""
    extra_ms: float
    """Milliseconds that a write of the workload pays on average, by weight."""
    bytes: int
    """Size of the indexes on disk."""
    build_seconds: float

    @property
    def reads_per_write(self) -> float:
        """How many reads pay for one write: 0 if writes are not slower, infinite if nothing is saved."""
        if self.extra_ms <= 0:
            return 0.0
        return self.extra_ms / self.saved_ms if self.saved_ms > 0 else math.inf

    @property
    def reads_for_the_build(self) -> float:
        """How many reads pay for building the indexes."""
        if not self.build_seconds:
            return 0.0
        return 1000 * self.build_seconds / self.saved_ms if self.saved_ms > 0 else math.inf

    def __str__(self) -> str:
        """Say it in a sentence."""
        if not self.writes:
            return "No write was measured: the price in writes is not known."
        if self.saved_ms <= 0:
            return (
                f"No read became faster, and a write pays {units.ms(max(self.extra_ms, 0))} more."
            )
        if self.extra_ms <= 0:
            return (
                f"A read saves {units.ms(self.saved_ms)} on average, and writes did not slow down."
            )
        return (
            f"A write pays {units.ms(self.extra_ms)} more and a read saves "
            f"{units.ms(self.saved_ms)}, on average by weight: the indexes pay from "
            f"{self.reads_per_write:.3g} reads per write on"
            + (
                f", and the build after {units.count(math.ceil(self.reads_for_the_build))} reads."
                if self.build_seconds
                else "."
            )
        )

    def frame(self) -> pd.DataFrame:
        """Return the writes as a pandas DataFrame, one row each.

        Columns: `query`; `weight`, calls per unit of time; `before_ms`, `after_ms` and `extra_ms`,
        medians in milliseconds and their difference; `verdict`; `wal_before` and `wal_after`,
        bytes of WAL; `pages_before` and `pages_after`, pages of 8 kB that were touched;
        `hot_before` and `hot_after`, shares of heap-only updates from 0 to 1.
        """
        import pandas as pd

        columns = [
            *("query", "weight", "before_ms", "after_ms", "extra_ms", "verdict", "wal_before"),
            *("wal_after", "pages_before", "pages_after", "hot_before", "hot_after"),
        ]
        rows = [[getattr(one, column) for column in columns] for one in self.writes]
        return pd.DataFrame(rows, columns=columns)

    def __repr__(self) -> str:
        rows = [
            (one.query, units.ms(one.before_ms), units.ms(one.after_ms), one.verdict)
            for one in self.writes
        ]
        return records.text(str(self), ("write", "before", "after", "verdict"), rows)

    def _repr_html_(self) -> str:
        columns = ("write", "before", "after", "verdict", "WAL", "pages", "HOT")
        rows = [
            (
                one.query,
                units.ms(one.before_ms),
                units.ms(one.after_ms),
                display.badge(one.verdict),
                _arrow(one.wal_before, one.wal_after, units.size),
                _arrow(one.pages_before, one.pages_after, units.count),
                _arrow(one.hot_before, one.hot_after, "{:.0%}".format),
            )
            for one in self.writes
        ]
        table = display.table(columns, rows, caption="the price in writes")
        disk = f" The indexes take {units.size(self.bytes)} on disk." if self.bytes else ""
        return f"{table}<p>{display.escape(str(self) + disk)}</p>"


def _arrow(before: float | None, after: float | None, words: Any) -> str:
    if before is None or after is None:
        return ""
    return f"{words(before)} -> {words(after)}"


def price(
    comparison: Comparison,
    before: Measurement,
    after: Measurement,
    *,
    bytes: int = 0,  # noqa: A002
    build_seconds: float = 0.0,
) -> Price:
    """Hold the read gain against the write price; pure.

    Means are weighted by calls. A query whose verdict is not significant counts with what was
    measured: leaving it out would favour one side.

    Args:
        comparison: of the two measurements.
        before: without the indexes.
        after: with them.
        bytes: size of the indexes.
        build_seconds: how long they took to build.
    """
    old = {series.query: series for series in before.series}
    new = {series.query: series for series in after.series}
    reads = [change for change in comparison.changes if change.kind == "read"]
    return Price(
        writes=tuple(
            _write(change, old[change.query], new[change.query]) for change in comparison.writes
        ),
        saved_ms=_mean([(c.before_ms - c.after_ms, c.weight) for c in reads]),
        extra_ms=_mean([(c.after_ms - c.before_ms, c.weight) for c in comparison.writes]),
        bytes=bytes,
        build_seconds=build_seconds,
    )


def _mean(values: list[tuple[float, float]]) -> float:
    weight = sum(weight for _, weight in values)
    return sum(value * weight for value, weight in values) / weight if weight else 0.0


def _write(change: Change, before: Series, after: Series) -> WritePrice:
    return WritePrice(
        query=change.query,
        weight=change.weight,
        before_ms=change.before_ms,
        after_ms=change.after_ms,
        verdict=change.verdict,
        wal_before=before.wal_bytes,
        wal_after=after.wal_bytes,
        pages_before=before.explain.root.pages,
        pages_after=after.explain.root.pages,
        hot_before=before.hot_share,
        hot_after=after.hot_share,
    )
