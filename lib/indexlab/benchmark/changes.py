"""What became of each query between two measurements, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from indexlab import display, records, units
from indexlab.benchmark.answers import Answers
from indexlab.benchmark.controls import UNKNOWN, Drift
from indexlab.benchmark.series import Failure
from indexlab.records import Record

if TYPE_CHECKING:
    import pandas as pd


FALSE_DISCOVERIES = 0.05
"""Of the verdicts `faster` and `slower`, so many are expected to be false at most."""

Verdict = Literal["faster", "slower", "no change", "not significant"]
MOVED: tuple[Verdict, ...] = ("faster", "slower")


@dataclass(frozen=True, slots=True)
class Change(Record):
    """What became of one query."""

    query: str
    kind: Literal["read", "write"]
    weight: float
    before_ms: float
    """Median over the sets of values that both sides have run."""
    after_ms: float
    ratio: float
    """After / before: below 1 is faster. Of sides that took turns it is the median over the rounds'
    own ratios, else that of the medians above."""
    ratio_low: float
    ratio_high: float
    verdict: Verdict
    indexes: tuple[str, ...]
    """The planned indexes that its plan uses after, sorted."""
    difference: str
    """What became of the plan, in words."""
    rows_before: int
    rows_after: int
    answers: Answers = "not compared"
    """Whether both sides gave the same answers, whatever the order of their rows."""
    bound: Literal["", "before", "after", "both"] = ""
    """Which side was given up at the time limit: its latency is a lower bound."""
    why: str = ""
    """Why the verdict is not what the interval alone would say; empty if it is."""
    reason: str = ""
    """Of a slower query: what in its plans makes it slower."""

    @property
    def before_words(self) -> str:
        """The median before, or that it is at least so much."""
        return _words(self.before_ms, is_bound=self.bound in ("before", "both"))

    @property
    def after_words(self) -> str:
        """The median after, or that it is at least so much."""
        return _words(self.after_ms, is_bound=self.bound in ("after", "both"))


def _words(ms: float, *, is_bound: bool) -> str:
    return f">= {units.ms(ms)}" if is_bound else units.ms(ms)


@dataclass(frozen=True, slots=True)
class Headline(Record):
    """The latency of several queries as one number: the sum of weight times median."""

    before_ms: float
    after_ms: float
    """The sum of weight times median before times the query's ratio: so ratios within rounds, and
    what was corrected for a drift, are in the whole as they are in its parts."""
    ratio: float
    """before_ms / after_ms: 43.1 means 43.1 times faster; 1 when there are no queries."""
    queries: tuple[str, ...]

    def __str__(self) -> str:
        if not self.queries:
            return "no query"
        return (
            f"{units.ms(self.before_ms)} -> {units.ms(self.after_ms)} "
            f"({units.factor(1 / self.ratio)})"
        )


@dataclass(frozen=True, slots=True)
class Comparison(Record):
    """The difference between two measurements of one workload."""

    before: str
    """Label of the measurement before."""
    after: str
    changes: tuple[Change, ...]
    headline: Headline
    """The reads that use a planned index after; all reads when no indexes were named."""
    reads: Headline
    """All reads."""
    controls: tuple[str, ...]
    """Reads that use no planned index: if they moved, something else than the plan did it."""
    warnings: tuple[str, ...]
    """What makes the comparison doubtful, each with its remedy."""
    confidence: float
    minimum_effect: float
    drift: Drift = UNKNOWN
    mode: Literal["one side", "interleaved"] = "one side"
    failed: tuple[Failure, ...] = ()
    """Queries that only one side could run; the reason names the other one."""
    false_discoveries: float = FALSE_DISCOVERIES

    @property
    def design(self) -> str:
        """Say how the sides were measured, and what that is worth."""
        if self.mode == "interleaved":
            return (
                "Both sides were measured in turns within each round (ABBA), the indexes hidden "
                "on one of them: the most trustworthy mode, since drift touches both alike. A "
                "query's ratio is the median of the ratios within its rounds, and the headline is "
                "what these ratios make of the medians before."
            )
        return (
            "One side was measured after the other: what changed in between (caches, load, clock "
            "rate) is part of the difference; controls watch over it."
        )

    @property
    def writes(self) -> tuple[Change, ...]:
        """What became of the writes."""
        return tuple(change for change in self.changes if change.kind == "write")

    def regressions(self, max_slowdown: float) -> tuple[Change, ...]:
        """Return the slower queries whose whole interval lies above `max_slowdown`.

        Args:
            max_slowdown: a ratio: 1.2 allows a query to become 20% slower.
        """
        return tuple(
            change
            for change in self.changes
            if change.verdict == "slower" and change.ratio_low > max_slowdown
        )

    def broken(self) -> tuple[Failure, ...]:
        """Return the queries that ran before and fail after."""
        return tuple(failure for failure in self.failed if failure.reason.startswith("after: "))

    def frame(self) -> pd.DataFrame:
        """Return the changes as a pandas DataFrame, one row per query.

        Columns: `query`; `kind`, read or write; `weight`, calls per unit of time; `before_ms` and
        `after_ms`, medians in milliseconds; `ratio`, after / before, with the ends of its interval
        `ratio_low` and `ratio_high`; `verdict`; `rows_before` and `rows_after` of the first set of
        values; `difference` of the plans in words; `indexes`, the planned ones that it uses.
        """
        import pandas as pd

        columns = [
            "query",
            "kind",
            "weight",
            "before_ms",
            "after_ms",
            "ratio",
            "ratio_low",
            "ratio_high",
            "verdict",
            "rows_before",
            "rows_after",
            "difference",
        ]
        rows = [
            [*(getattr(change, column) for column in columns), ", ".join(change.indexes)]
            for change in self.changes
        ]
        return pd.DataFrame(rows, columns=[*columns, "indexes"])

    def __repr__(self) -> str:
        rows = [
            (
                change.query,
                change.before_words,
                change.after_words,
                units.factor(change.ratio),
                change.verdict,
            )
            for change in self.changes
        ]
        title = f"{self.before or 'before'} and {self.after or 'after'}: {self.headline}"
        columns = ("query", "before", "after", "change", "verdict")
        return records.text(title, columns, rows, notes=self.warnings)

    def _repr_html_(self) -> str:
        table = display.table(
            ("query", "before", "after", "change", "after / before", "verdict", "rows", "plan"),
            map(_row, self.changes),
            caption=f"{self.before or 'before'} and {self.after or 'after'}: {self.headline}",
            numeric=("before", "after", "change", "rows"),
        )
        notes = [self.design, str(self.drift), f"All reads: {self.reads}."]
        if self.controls:
            notes.append(f"Reads without a planned index: {', '.join(self.controls)}.")
        notes.append(
            f"The interval is of after / before at {self.confidence:.0%}; "
            f"a change below {self.minimum_effect:.0%} counts as none. Of all verdicts faster and "
            f"slower, at most {self.false_discoveries:.0%} are expected to be false "
            "(Benjamini and Hochberg)."
        )
        lines = [display.escape(note) for note in notes]
        lines += map(display.warning, self.warnings)
        return table + "".join(f"<p>{line}</p>" for line in lines)


def _row(change: Change) -> tuple[object, ...]:
    rows = units.count(change.rows_after)
    if change.bound:
        rows = ""
    elif change.rows_before != change.rows_after:
        rows = f"{units.count(change.rows_before)} -> {rows}"
    return (
        change.query if change.kind == "read" else f"{change.query} (write)",
        change.before_words,
        change.after_words,
        units.factor(change.ratio),
        f"{change.ratio_low:.3g} to {change.ratio_high:.3g}",
        display.badge(change.verdict),
        rows,
        "; ".join(filter(None, (change.difference, change.why, change.reason))),
    )
