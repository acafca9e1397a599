"""The interval of a headline: how sure the gain over several queries together is."""

from __future__ import annotations

import math
from dataclasses import dataclass

from indexlab import units
from indexlab.benchmark.changes import Comparison, Headline
from indexlab.records import Record


@dataclass(frozen=True, slots=True)
class Gain(Record):
    """How many times faster several queries became together, by weight."""

    times: float
    """before / after: 43.1 is 43.1 times faster, 0.5 is twice as slow."""
    low: float
    high: float
    """Infinite where a query was given up before: its latency is a lower bound."""
    confidence: float

    @property
    def decided(self) -> bool:
        """Whether the interval leaves no doubt about the direction."""
        return self.low > 1 or self.high < 1

    def __repr__(self) -> str:
        return f"<Gain: {self.words()}>"

    def words(self) -> str:
        """Say the interval: `4.31x to 4.58x faster (95% interval)`."""
        end = f"({self.confidence:.0%} interval)"
        low, high = units.factor(1 / self.low), units.factor(1 / self.high if self.high else 1.0)
        if math.isinf(self.high):
            return f"at least {low} {end}"
        if low.split()[1:] == high.split()[1:] != []:
            return f"{low.split()[0]} to {high} {end}"
        return f"{low} to {high} {end}"


def gain(comparison: Comparison, headline: Headline) -> Gain:
    """Return the gain of a headline with its interval; pure.

    What is left of the latency (after / before) is the sum of the queries' ratios, each with its
    share of the latency before. The limits of a sum of independent estimates follow from those of
    its parts, their distances added up in quadrature: Zou and Donner, Construction of confidence
    limits about effect measures, Statistics in Medicine 27, 2008. The shares are taken for known.

    Args:
        comparison: where the changes of the queries are.
        headline: of this comparison: its own, or that of all reads.
    """
    changes = [change for change in comparison.changes if change.query in headline.queries]
    whole = sum(change.weight * change.before_ms for change in changes)
    if not whole:
        return Gain(1.0, 1.0, 1.0, comparison.confidence)
    parts = [(change.weight * change.before_ms / whole, change) for change in changes]
    middle = sum(share * change.ratio for share, change in parts)
    below = math.hypot(*(share * (change.ratio - change.ratio_low) for share, change in parts))
    above = math.hypot(*(share * (change.ratio_high - change.ratio) for share, change in parts))
    is_open = any(change.bound in ("before", "both") for change in changes)
    return Gain(
        times=headline.ratio,
        low=1 / (middle + above),
        high=math.inf if is_open else 1 / max(middle - below, 1e-9),
        confidence=comparison.confidence,
    )
