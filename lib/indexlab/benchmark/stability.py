"""Doubts about a measurement itself, each with its remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import median

from indexlab import units
from indexlab.benchmark.series import Measurement, Series

FEW_SAMPLES = 6
"""Below this, the range of a sample covers its median with less than 95% probability."""
TREND = 0.15
SPREAD = 0.5
LEAST_FOR_TREND = 20
BUSY = 0.75


def warnings(
    sides: Sequence[Measurement], queries: Sequence[Sequence[Series]], *, in_turns: bool
) -> Iterator[str]:
    """Say what makes samples doubtful, and what to do; pure.

    Args:
        sides: one measurement, or the two that are compared.
        queries: the series of each query, one of every side.
        in_turns: the sides met the same moments, so that what moved has moved both.
    """
    few = _names(queries, _are_few)
    if few:
        yield f"fewer than {FEW_SAMPLES} samples: {few}; give a larger budget"
    wide = _names(queries, lambda series: spread(series) > SPREAD)
    if wide:
        yield (
            f"half of the samples spread by more than {SPREAD:.0%} of the median: "
            f"{wide}; sets of values that differ or other work on the machine: stop it, "
            "or give a larger budget"
        )
    drifting = "" if in_turns else _names(queries, lambda series: abs(trend(series)) > TREND)
    if drifting:
        yield (
            f"latency moved by more than {TREND:.0%} while it was measured: "
            f"{drifting}; caches were filling or the machine changed its pace: "
            "measure again, or interleaved"
        )
    unsteady = _names(queries, lambda series: not _warmed(series))
    if unsteady:
        yield (f"the warm-up did not come to a steady latency: {unsteady}; give a larger budget")
    load = max(side.conditions.client_load for side in sides)
    cpus = max(side.conditions.client_cpus for side in sides)
    if cpus and load > BUSY * cpus:
        yield (
            f"the machine was busy: load {load:.1f} on {units.plural(cpus, 'processor')} when the "
            "measurement began; stop other work and measure again"
        )


def _names(queries: Sequence[Sequence[Series]], doubtful: Callable[[Series], bool]) -> str:
    return ", ".join(sides[0].query for sides in queries if any(map(doubtful, sides)))


def _are_few(series: Series) -> bool:
    return len(series.samples) < FEW_SAMPLES and not series.given_up


def _warmed(series: Series) -> bool:
    """Slow queries are only run once more: that they were not seen to be steady is no doubt."""
    return series.steady or len(series.warm_up) < 20


def spread(series: Series) -> float:
    """Return the interquartile range over the median, within sets of values; pure."""
    import numpy as np

    found = []
    for number in {sample.values for sample in series.samples}:
        times = [sample.ms for sample in series.samples if sample.values == number]
        if len(times) >= FEW_SAMPLES:
            low, middle, high = np.percentile(times, [25, 50, 75])
            found.append(float((high - low) / middle))
    return median(found) if found else 0.0


def trend(series: Series) -> float:
    """Return by how much the last third of the samples is slower than the first one; pure."""
    third = len(series.samples) // 3
    if third < LEAST_FOR_TREND:
        return 0.0
    times = [sample.ms for sample in series.samples]
    return median(times[-third:]) / median(times[:third]) - 1
