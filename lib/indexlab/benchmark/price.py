"""The price: what writes pay for the indexes, and how many reads pay it back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from indexlab import display, records, units
from indexlab.benchmark import intervals
from indexlab.benchmark.changes import Change, Comparison
from indexlab.benchmark.series import Measurement, Series
from indexlab.benchmark.verdicts import in_common
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
    per_write: tuple[float, float] | None = None
    """Between what `reads_per_write` lies, by the bootstrap: from 0, where writes may not be slower
    at all, to infinite, where reads may save nothing; None where it was not asked."""
    for_the_build: tuple[float, float] | None = None
    """The same of `reads_for_the_build`."""
    confidence: float = 0.95
    """Of both intervals."""

    @property
    def reads_per_write(self) -> float:
        """How many reads pay for one write: 0 if writes are not slower, infinite if nothing is saved."""
        return _paid(self.extra_ms, self.saved_ms)

    @property
    def reads_for_the_build(self) -> float:
        """How many reads pay for building the indexes."""
        return _paid(1000 * self.build_seconds, self.saved_ms)

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
        build = ""
        if self.build_seconds:
            reads = units.count(math.ceil(self.reads_for_the_build))
            build = f", and the build after {reads} reads{self._ends_of_the_build()}"
        return (
            f"A write pays {units.ms(self.extra_ms)} more and a read saves "
            f"{units.ms(self.saved_ms)}, on average by weight: the indexes pay from "
            f"{self.reads_per_write:.3g} reads per write on{self._ends_per_write()}{build}."
        )

    def _ends_per_write(self) -> str:
        if self.per_write is None:
            return ""
        low, high = self.per_write
        upper = f"{high:.3g}" if high < math.inf else "any number"
        return f" ({self.confidence:.0%} interval: {low:.3g} to {upper})"

    def _ends_of_the_build(self) -> str:
        if self.for_the_build is None:
            return ""
        low, high = self.for_the_build
        upper = units.count(math.ceil(high)) if high < math.inf else "any number"
        return f" ({units.count(math.ceil(low))} to {upper})"

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


def _paid(cost_ms: float, saved_ms: float) -> float:
    """Return how many savings pay a cost: 0 if there is none, infinite if nothing is saved; pure."""
    if cost_ms <= 0:
        return 0.0
    return cost_ms / saved_ms if saved_ms > 0 else math.inf


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
    pairs = {change.query: (old[change.query], new[change.query]) for change in comparison.changes}
    drawn = _Drawn(pairs, comparison, before.is_paired_with(after), after.conditions.seed)
    saved = [-extra for extra in drawn.extra(reads)]
    paid = zip(drawn.extra(comparison.writes), saved, strict=True)
    level = comparison.confidence
    return Price(
        writes=tuple(_write(change, *pairs[change.query]) for change in comparison.writes),
        saved_ms=_mean([(c.before_ms - c.after_ms, c.weight) for c in reads]),
        extra_ms=_mean([(c.after_ms - c.before_ms, c.weight) for c in comparison.writes]),
        bytes=bytes,
        build_seconds=build_seconds,
        per_write=_middle([_paid(cost, gain) for cost, gain in paid], level),
        for_the_build=_middle([_paid(1000 * build_seconds, gain) for gain in saved], level),
        confidence=level,
    )


def _middle(draws: Sequence[float], confidence: float) -> tuple[float, float]:
    """Return the ends of the middle part of the draws, by their order: some may be infinite."""
    ordered = sorted(draws)
    tail = int((1 - confidence) / 2 * len(ordered))
    return ordered[tail], ordered[-1 - tail]


def _mean(values: list[tuple[float, float]]) -> float:
    weight = sum(weight for _, weight in values)
    return sum(value * weight for value, weight in values) / weight if weight else 0.0


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What the weighted means might have been: each query's sides resampled as for its ratio."""

    pairs: dict[str, tuple[Series, Series]]
    comparison: Comparison
    paired: bool
    seed: int

    def extra(self, changes: Sequence[Change]) -> tuple[float, ...]:
        """Return by how many milliseconds the average call is slower after, per resample."""
        import numpy as np

        total, weight = np.zeros(intervals.RESAMPLES), 0.0
        for change in changes:
            old, new = in_common(*self.pairs[change.query])
            before, after = intervals.medians(
                old,
                new,
                paired=self.paired,
                confidence=self.comparison.confidence,
                random=np.random.default_rng([self.seed, *change.query.encode()]),
            )
            total += change.weight * (after - before)
            weight += change.weight
        return tuple(float(value) for value in total / (weight or 1.0))


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
