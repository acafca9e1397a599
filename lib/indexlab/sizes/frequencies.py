"""How many different keys there are, and how many rows each of them has."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from indexlab.catalog.statistics import ColumnStatistics

TARGET = 100  # default_statistics_target
ROWS_PER_TARGET = 300
"""Rows and pages that ANALYZE samples for each unit of the target (`std_typanalyze`)."""
IN_ORDER = 0.99
"""From this correlation on the rows are taken to be in the order of the values."""
QUANTILES = 64
BUCKETS = 10
ITERATIONS = 32


@dataclass(frozen=True, slots=True)
class Keys:
    """Some different keys that have about as many rows each."""

    number: float
    rows: float
    """On average."""
    steady: bool = False
    """Whether each has just that many, instead of a Poisson spread around it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What ANALYZE has looked at: rows of some pages of a table."""

    rows: float
    """Rows of the table."""
    pages: float
    """Pages of the table."""
    size: float
    """Rows of the sample; at most as many pages were read."""


def of_column(
    found: ColumnStatistics, sample: Sample, least: float = 0.0, most: float = math.inf
) -> tuple[Keys, ...]:
    """Return the values of a column, NULL left out, with the rows of each; pure.

    The common values are known. As many others are taken to be there as make the estimator of
    ANALYZE expect what it has said: it sees too few where equal values lie together on the pages
    that it happened to read, and where the values are skewed.

    Args:
        found: the statistics of the column.
        sample: what they come from.
        least: how many values there must be at least, for a reason beyond the statistics.
        most: how many there can be at most.
    """
    rows = sample.rows * (1 - found.nulls)
    listed = [share * sample.rows for share in found.frequencies]
    common = [Keys(1, each, steady=True) for each in listed if each >= 1]
    rest = rows - sum(listed)
    said = absolute(found.distinct, sample.rows)
    if said - len(listed) < 0.5 or rest < 1:
        return tuple(common)
    full = len(listed) >= max(TARGET, found.bounds - 1)
    ceiling = min(listed) if full else None
    view = _View.of(sample, rows, together=together(found))
    others = _others(said, len(listed), rest, ceiling, view)
    others = min(max(others, least - len(listed), 1.0), max(most - len(listed), 1.0), rest)
    return (*common, *_tail(others, rest, ceiling))


def of_number(said: float, sample: Sample, rows: float, *, together: bool) -> float:
    """Correct a number of different keys that ANALYZE has estimated; pure.

    Args:
        said: what it says.
        sample: what it comes from.
        rows: how many rows have such a key.
        together: whether equal keys lie side by side.
    """
    return _others(said, 0, rows, None, _View.of(sample, rows, together=together))


def together(found: ColumnStatistics) -> bool:
    """Tell whether equal values lie side by side, so mostly on one page."""
    return abs(found.correlation or 0.0) >= IN_ORDER


def absolute(distinct: float, rows: float) -> float:
    """Return a number of values from `n_distinct`, which may be minus their share of the rows."""
    return distinct if distinct >= 0 else -distinct * rows


@dataclass(frozen=True, slots=True)
class _View:
    """What of some values ANALYZE could see."""

    rows: float
    """Rows of the table that have one."""
    size: float
    """Rows of the sample that have one."""
    met: float
    """The share of the values that are on the pages of the sample."""
    share: float
    """The share of the rows of these values that is in the sample."""

    @classmethod
    def of(cls, sample: Sample, rows: float, *, together: bool) -> _View:
        """Of values that lie together, only those of the pages read can be in the sample at all."""
        size = sample.size * rows / sample.rows
        seen = min(1.0, sample.size / sample.pages) if together and sample.pages else 1.0
        return cls(rows, size, seen, min(1.0, size / (rows * seen)))


def _others(said: float, common: int, rest: float, ceiling: float | None, view: _View) -> float:
    """Return how many values beside the common ones make ANALYZE's estimate what it is.

    Args:
        said: the estimate.
        common: how many common values there are.
        rest: rows of the other values.
        ceiling: rows of the last common value, where the skew goes on.
        view: what ANALYZE could see.
    """
    if view.size >= view.rows or said >= view.rows:
        return said - common
    low, high = 0.0, math.log(max(rest, 2.0))
    for _ in range(ITERATIONS):
        middle = (low + high) / 2
        if _haas_stokes(_tail(math.exp(middle), rest, ceiling), common, view) < said:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)


def _haas_stokes(tail: Iterable[Keys], common: int, view: _View) -> float:
    """Return what the estimator makes of these values: n*d / (n - f1 + f1*n/N).

    The source is `compute_scalar_stats` of analyze.c, after Haas and Stokes, IBM RJ 10025. The
    common values were each seen more than once.
    """
    distinct, once = float(common), 0.0
    missed = math.log1p(-min(view.share, 1 - 1e-12))
    for keys in tail:
        number = keys.number * view.met
        if keys.rows > 50:  # their spread is small beside it
            distinct += number * -math.expm1(missed * keys.rows)
            once += number * view.share * keys.rows * math.exp(missed * (keys.rows - 1))
            continue
        # By the generating function of a Poisson distribution without 0.
        rate = _rate(keys.rows)
        present = -math.expm1(-rate)
        distinct += number * -math.expm1(-rate * view.share) / present
        once += number * view.share * rate * math.exp(-rate * view.share) / present
    return view.size * distinct / max(1.0, view.size - once + once * view.size / view.rows)


def _tail(number: float, rows: float, ceiling: float | None) -> tuple[Keys, ...]:
    """Spread rows over the values that are not common.

    A list of common values that ANALYZE did not fill leaves no value that stands out, so the rest
    are alike. Behind a full one the skew goes on: from the last common value down by Zipf's law,
    as far as the number of values makes it.
    """
    mean = rows / number
    if ceiling is None or ceiling <= 1.25 * mean:
        return (Keys(number, mean),)
    low, high = 1e-6, mean
    for _ in range(ITERATIONS):
        floor = math.sqrt(low * high)
        if math.log(ceiling / floor) / (1 / floor - 1 / ceiling) < mean:
            low = floor
        else:
            high = floor
    floor = math.sqrt(low * high)
    step = (ceiling / floor) ** (1 / BUCKETS)
    weight = number / (1 / floor - 1 / ceiling)
    found = []
    for place in range(BUCKETS):
        start, end = floor * step**place, floor * step ** (place + 1)
        keys = weight * (1 / start - 1 / end)
        found.append(Keys(keys, weight * math.log(step) / keys))
    return tuple(found)


def combined(columns: Iterable[tuple[Keys, ...]], rows: float) -> tuple[Keys, ...]:
    """Combine the values of columns that have nothing to do with each other; pure.

    Args:
        columns: the values of each column, NULL among them.
        rows: how many rows there are.
    """
    found: tuple[Keys, ...] = (Keys(1, rows, steady=True),)
    for values in columns:
        found = buckets(
            Keys(
                one.number * other.number,
                one.rows * other.rows / rows,
                one.steady and other.steady and other.number == 1 and one.rows >= rows,
            )
            for one in found
            for other in buckets(values)
        )
    return tuple(met(keys) for keys in found)


def met(keys: Keys, share: float = 1.0) -> Keys:
    """Return the keys that a random part of the rows meets, with the rows of each."""
    expected = keys.rows * share
    if keys.steady or expected > 50:
        return Keys(keys.number, expected, keys.steady)
    if share == 1 and keys.rows >= 1:
        return keys
    missed = (1 - share) ** keys.rows if keys.rows >= 1 else math.exp(-expected)
    number = keys.number * max(1 - missed, 1e-12)
    return Keys(number, max(1.0, keys.number * expected / number))


def buckets(values: Iterable[Keys]) -> tuple[Keys, ...]:
    """Put keys together that have nearly as many rows, so that their number stays small."""
    sums: dict[tuple[int, bool], tuple[float, float]] = {}
    for keys in values:
        if keys.rows <= 0 or keys.number <= 0:
            continue
        place = (round(3 * math.log2(keys.rows)), keys.steady and keys.number == 1)
        number, rows = sums.get(place, (0.0, 0.0))
        sums[place] = (number + keys.number, rows + keys.number * keys.rows)
    return tuple(
        Keys(number, rows / number, steady) for (_, steady), (number, rows) in sums.items()
    )


def rows_of(keys: Keys) -> tuple[int, ...]:
    """Return how many rows single keys have: equally likely numbers, in no order."""
    if keys.steady:
        return (max(1, round(keys.rows)),)
    return _spread(round(max(keys.rows, 1.0), 3))


@lru_cache(maxsize=4096)
def _spread(mean: float) -> tuple[int, ...]:
    """Return quantiles of a Poisson distribution without 0 that has this mean."""
    if mean > 200:
        return tuple(
            max(1, round(mean + math.sqrt(mean) * _normal((i + 0.5) / QUANTILES)))
            for i in _scattered()
        )
    found = sorted(_truncated(mean))
    return tuple(found[i] for i in _scattered())


def _truncated(mean: float) -> Iterator[int]:
    if mean < 1.001:
        yield from (1 for _ in range(QUANTILES))
        return
    rate = _rate(mean)
    number, weight = 1, rate * math.exp(-rate) / -math.expm1(-rate)
    reached = weight
    for place in range(QUANTILES):
        while reached < (place + 0.5) / QUANTILES and number < 10 * mean + 50:
            number += 1
            weight *= rate / number
            reached += weight
        yield number


def _rate(mean: float) -> float:
    """Return the rate of the Poisson distribution that has this mean without 0."""
    rate = max(mean, 1 + 1e-6) - 1 + 1e-9  # between this and the mean; by Newton's method
    for _ in range(20):
        gone = math.exp(-rate)
        value = rate / (1 - gone) - mean
        slope = (1 - gone - rate * gone) / (1 - gone) ** 2
        step = value / slope
        rate = max(1e-9, rate - step)
        if abs(step) < 1e-9 * rate:
            break
    return rate


def _scattered() -> Iterator[int]:
    return (place * 37 % QUANTILES for place in range(QUANTILES))


def _normal(quantile: float) -> float:
    """Return a quantile of the normal distribution (Hastings, 26.2.23 in Abramowitz and Stegun)."""
    tail = min(quantile, 1 - quantile)
    t = math.sqrt(-2 * math.log(tail))
    value = t - (2.515517 + 0.802853 * t + 0.010328 * t * t) / (
        1 + 1.432788 * t + 0.189269 * t * t + 0.001308 * t**3
    )
    return math.copysign(value, quantile - 0.5)
