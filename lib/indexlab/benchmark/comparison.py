"""Comparing two measurements: ratios with intervals, verdicts, and the headline."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from indexlab import display, explain, units
from indexlab.benchmark.series import Measurement, Sample, Series
from indexlab.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RESAMPLES = 2000
MIN_ROUNDS = 5
"""From so many rounds on, a side with several samples in a round is resampled by rounds."""
PER_SET = 5
"""From so many samples of each set of values on, a side is resampled within its sets."""
FEW_SAMPLES = 6
"""Below this, the range of a sample covers its median with less than 95% probability."""
NOISE_MS = 0.1
"""What waking a sleeping process may cost on both ends of a socket: no index did that."""

Verdict = Literal["faster", "slower", "no change", "not significant"]
MOVED: tuple[Verdict, ...] = ("faster", "slower")


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one query."""

    query: str
    kind: Literal["read", "write"]
    weight: float
    before_ms: float
    """Median over the sets of values that both sides have run."""
    after_ms: float
    ratio: float
    """after_ms / before_ms: below 1 is faster."""
    ratio_low: float
    ratio_high: float
    verdict: Verdict
    indexes: tuple[str, ...]
    """The planned indexes that its plan uses after, sorted."""
    difference: str
    """What became of the plan, in words."""
    rows_before: int
    rows_after: int


@dataclass(frozen=True, slots=True)
class Headline:
    """The latency of several queries as one number: the sum of weight times median."""

    before_ms: float
    after_ms: float
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
class Comparison:
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

    def frame(self) -> Any:
        """Return a pandas DataFrame with one row per query, times in milliseconds."""
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

    def _repr_html_(self) -> str:
        table = display.table(
            ("query", "before", "after", "change", "after / before", "verdict", "rows", "plan"),
            map(_row, self.changes),
            caption=f"{self.before or 'before'} and {self.after or 'after'}: {self.headline}",
            numeric=("before", "after", "change", "rows"),
        )
        notes = [f"All reads: {self.reads}."]
        if self.controls:
            notes.append(f"Reads without a planned index: {', '.join(self.controls)}.")
        notes.append(
            f"The interval is of after / before at {self.confidence:.0%}; "
            f"a change below {self.minimum_effect:.0%} counts as none."
        )
        lines = [display.escape(note) for note in notes]
        lines += [
            display.Markup(f"{display.badge('warning')} {display.escape(warning)}")
            for warning in self.warnings
        ]
        return table + "".join(f"<p>{line}</p>" for line in lines)


def _row(change: Change) -> tuple[object, ...]:
    rows = units.count(change.rows_after)
    if change.rows_before != change.rows_after:
        rows = f"{units.count(change.rows_before)} -> {rows}"
    return (
        change.query if change.kind == "read" else f"{change.query} (write)",
        units.ms(change.before_ms),
        units.ms(change.after_ms),
        units.factor(change.ratio),
        f"{change.ratio_low:.3g} to {change.ratio_high:.3g}",
        display.badge(change.verdict),
        rows,
        change.difference,
    )


def compare(
    before: Measurement,
    after: Measurement,
    *,
    indexes: Collection[str] = (),
    confidence: float = 0.95,
    minimum_effect: float = 0.05,
    seed: int = 0,
) -> Comparison:
    """Say what changed between two measurements; changes nothing.

    The interval of a ratio of medians is the percentile bootstrap for two independent samples
    (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13) over 2,000
    resamples. Not BCa: its acceleration comes from the jackknife, which is inconsistent for
    a median (same book, chapter 11). Only sets of values that both sides have run are compared.
    What is drawn with replacement depends on how a side was measured (Davison and Hinkley,
    Bootstrap Methods and their Application, 1997, chapter 3):

    - whole rounds, where a query ran several times in each of five rounds or more: executions in a
      row share what the machine did at that moment, so they are not independent;
    - samples within their sets of values, where each set has five or more: differences between
      sets are part of the design, equal on both sides, and no noise;
    - else single samples.

    Bootstrap intervals of few draws are too narrow: in logarithms, they are widened by
    sqrt(n / (n - 1)) times Student's t over the normal quantile, with n the number of draws of the
    smaller side (after Hesterberg, What Teachers Should Know about the Bootstrap, The American
    Statistician 69, 2015). With three samples that is a factor of 2.7.

    The verdict is about the interval: `faster` or `slower` when it lies beyond the minimum effect,
    `no change` when it lies within, else `not significant`. A difference of less than 0.1 ms, or
    less than what an empty statement differs by between the sides, is never called faster or
    slower: bootstrap intervals do not see what differs between two sessions.

    Args:
        before: the baseline.
        after: the same queries, later.
        indexes: names, without schema, of the indexes that the change is about.
        confidence: of the intervals, between 0 and 1.
        minimum_effect: a ratio within 1 plus or minus this is no change worth a word.
        seed: the same seed and measurements give the same intervals.

    Raises:
        InputError: the measurements are not of the same workload, or have no query in common.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence {confidence!r} is not between 0 and 1")
    if not 0 <= minimum_effect < 1:
        raise InputError(f"minimum effect {minimum_effect!r} is not from 0 to below 1")
    pairs = tuple(_pairs(before, after))
    wanted = frozenset(indexes)
    changes = tuple(
        _change(
            old,
            new,
            indexes=wanted,
            confidence=confidence,
            minimum_effect=minimum_effect,
            noise_ms=max(NOISE_MS, abs(after.overhead_ms - before.overhead_ms)),
            seed=seed,
        )
        for old, new in pairs
    )
    reads = tuple(change for change in changes if change.kind == "read")
    about = tuple(change for change in reads if change.indexes) if wanted else reads
    controls = tuple(change for change in reads if wanted and not change.indexes)
    return Comparison(
        before=before.label,
        after=after.label,
        changes=changes,
        headline=_headline(about),
        reads=_headline(reads),
        controls=tuple(change.query for change in controls),
        warnings=tuple(_warnings(before, after, pairs, changes, controls)),
        confidence=confidence,
        minimum_effect=minimum_effect,
    )


def _pairs(before: Measurement, after: Measurement) -> Iterator[tuple[Series, Series]]:
    old = {series.query: series for series in before.series}
    new = {series.query: series for series in after.series}
    # Writes that one side was not allowed to run are no other workload: they stay out.
    skipped = {*before.skipped, *after.skipped}
    other = "the baseline is of another workload"
    for name in [*old, *new]:
        if (name in old) != (name in new) and name not in skipped:
            where = "the baseline" if name in old else "this measurement"
            raise InputError(f"{other}: only {where} has the query {name!r}")
    for name, series in new.items():
        if name not in old:
            continue
        if (series.sql, series.kind) != (old[name].sql, old[name].kind):
            raise InputError(f"{other}: its query {name!r} has another text")
        yield old[name], series


def _change(
    before: Series,
    after: Series,
    *,
    indexes: frozenset[str],
    confidence: float,
    minimum_effect: float,
    noise_ms: float,
    seed: int,
) -> Change:
    import numpy as np

    common = {s.values for s in before.samples} & {s.values for s in after.samples}
    if not common:
        raise InputError(
            f"query {before.query!r}: the sides have run no set of values in common: "
            "measure both with the same seed"
        )
    random = np.random.default_rng([seed, *before.query.encode()])
    old, new = (
        [sample for sample in series.samples if sample.values in common]
        for series in (before, after)
    )
    before_ms, after_ms = (float(np.median([sample.ms for sample in side])) for side in (old, new))
    ratio = after_ms / before_ms
    (old_medians, old_draws), (new_medians, new_draws) = (
        _medians(side, random) for side in (old, new)
    )
    tail = 50 * (1 - confidence)
    ends = np.log(np.percentile(new_medians / old_medians, [tail, 100 - tail]) / ratio)
    draws = min(old_draws, new_draws)
    low, high = ratio * np.exp(ends * _expansion(max(draws, 2), confidence))
    verdict = _verdict(float(low), float(high), minimum_effect)
    if draws < 2 or (verdict in MOVED and abs(after_ms - before_ms) < noise_ms):
        verdict = "not significant"
    return Change(
        query=before.query,
        kind=before.kind,
        weight=after.weight,
        before_ms=before_ms,
        after_ms=after_ms,
        ratio=ratio,
        ratio_low=float(low),
        ratio_high=float(high),
        verdict=verdict,
        indexes=tuple(sorted(indexes.intersection({*after.indexes, *after.explain.indexes}))),
        difference=explain.difference(before.explain, after.explain),
        rows_before=before.rows,
        rows_after=after.rows,
    )


def _medians(
    samples: Sequence[Sample], random: np.random.Generator
) -> tuple[NDArray[np.float64], int]:
    """Return the medians in milliseconds of one side's resamples, and of how many draws each is."""
    import numpy as np

    times = np.array([sample.ms for sample in samples])
    rounds = np.unique([sample.round for sample in samples], return_inverse=True)[1]
    sets = np.unique([sample.values for sample in samples], return_inverse=True)[1]
    if MIN_ROUNDS <= rounds.max() + 1 < len(times):
        return _medians_of_rounds(times, rounds, random), int(rounds.max()) + 1
    if np.bincount(sets).min() < PER_SET:
        sets = np.zeros_like(sets)
    drawn = [
        one[random.integers(len(one), size=(RESAMPLES, len(one)))]
        for one in (times[sets == number] for number in range(sets.max() + 1))
    ]
    medians: NDArray[np.float64] = np.median(
        np.concatenate(drawn, axis=1), axis=1, overwrite_input=True
    )
    return medians, len(times)


def _medians_of_rounds(
    times: NDArray[np.float64], rounds: NDArray[np.intp], random: np.random.Generator
) -> NDArray[np.float64]:
    """Draw whole rounds: a sample counts as often as its round was drawn."""
    import numpy as np

    count = int(rounds.max()) + 1
    drawn = random.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    order = np.argsort(times)
    passed = np.cumsum(drawn[:, rounds[order]], axis=1)
    total = passed[:, -1:]
    lower = np.argmax(2 * passed >= total, axis=1)
    upper = np.argmax(2 * passed > total, axis=1)
    medians: NDArray[np.float64] = (times[order][lower] + times[order][upper]) / 2
    return medians


def _expansion(draws: int, confidence: float) -> float:
    """Return how much wider the interval must be for its small number of independent draws."""
    from scipy.special import ndtri, stdtrit

    end = (1 + confidence) / 2
    return float(math.sqrt(draws / (draws - 1)) * stdtrit(draws - 1, end) / ndtri(end))


def _verdict(low: float, high: float, minimum_effect: float) -> Verdict:
    if high < 1 - minimum_effect:
        return "faster"
    if low > 1 + minimum_effect:
        return "slower"
    if low >= 1 - minimum_effect and high <= 1 + minimum_effect:
        return "no change"
    return "not significant"


def _headline(changes: Sequence[Change]) -> Headline:
    before = sum(change.weight * change.before_ms for change in changes)
    after = sum(change.weight * change.after_ms for change in changes)
    return Headline(
        before_ms=before,
        after_ms=after,
        ratio=before / after if changes else 1.0,
        queries=tuple(change.query for change in changes),
    )


def _warnings(
    before: Measurement,
    after: Measurement,
    pairs: Sequence[tuple[Series, Series]],
    changes: Sequence[Change],
    controls: Sequence[Change],
) -> Iterator[str]:
    if before.server != after.server:
        yield (
            f"the servers differ: {before.server} before, {after.server} after; "
            "measure both sides on one server"
        )
    old, new = dict(before.settings), dict(after.settings)
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield (
                f"the setting {name} was {old.get(name, 'the default')!r} before and is "
                f"{new.get(name, 'the default')!r} after; measure both sides with the same"
            )
    moved = [f"{c.query} ({units.factor(c.ratio)})" for c in controls if c.verdict in MOVED]
    if moved:
        yield (
            f"reads without a planned index moved too: {', '.join(moved)}; something else changed "
            "(caches, load, ANALYZE), so measure again on a quiet server"
        )
    differ = [change.query for change in changes if change.rows_before != change.rows_after]
    if differ:
        yield (
            f"row counts differ: {', '.join(differ)}; the data changed between the sides, "
            "so measure both without writers"
        )
    few = [a.query for a, b in pairs if min(len(a.samples), len(b.samples)) < FEW_SAMPLES]
    if few:
        yield f"fewer than {FEW_SAMPLES} samples: {', '.join(few)}; give a larger budget"
    unequal = [a.query for a, b in pairs if a.weight != b.weight]
    if unequal:
        yield f"weights differ: {', '.join(unequal)}; the headline uses those after"
