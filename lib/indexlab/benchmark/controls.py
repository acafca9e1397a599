"""Controls: statements that no index can touch, and what it means when they moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from indexlab import units
from indexlab.benchmark import intervals
from indexlab.benchmark.series import Series
from indexlab.records import Record
from indexlab.workload import Query, SampledQuery

THRESHOLD = 0.05
"""Controls that moved less than this moved not at all."""
REFUSED = 0.25
"""Beyond this the machine was another one: no correction is worth anything."""

PROCESSOR = """
SELECT count(*) AS numbers
FROM pg_catalog.generate_series(1, 5000) AS number
"""
BUFFERS = """
SELECT sum(pg_catalog.length(prosrc)) AS characters
FROM pg_catalog.pg_proc
"""
STATEMENTS = (("control: processor", PROCESSOR), ("control: buffers", BUFFERS))


def queries() -> tuple[SampledQuery, ...]:
    """Return the kit's own controls: one that computes, and one that reads shared buffers; pure."""
    return tuple(
        SampledQuery(
            Query(
                name=name,
                sql=text.strip(),
                statement=text,
                parameters=(),
                samplers=(),
                kind="read",
                weight=1.0,
                line=0,
            ),
            ((),),
        )
        for name, text in STATEMENTS
    )


@dataclass(frozen=True, slots=True)
class Drift(Record):
    """How much the controls moved between the sides, and what follows from it."""

    ratio: float
    """After / before, the geometric mean over the controls: 1 is steady."""
    low: float
    high: float
    verdict: Literal["steady", "corrected", "refused", "unknown"]
    threshold: float
    controls: tuple[str, ...]
    moved_ms: float = 0.0
    """By how many milliseconds each control moved at least. What every statement pays alike, such as
    a slower network, adds at most that to each, and weighs the more the shorter a query is."""

    @property
    def noise_ms(self) -> float:
        """Below this a query that changed may have paid no more than what every statement paid."""
        return 2 * self.moved_ms if self.verdict in ("corrected", "refused") else 0.0

    def __str__(self) -> str:
        """Say what it means."""
        words = f"{units.factor(self.ratio)} ({self.low:.3g} to {self.high:.3g})"
        match self.verdict:
            case "unknown":
                return "No control was measured on both sides: a drift of the machine is not seen."
            case "steady":
                moved = max(self.ratio, 1 / self.ratio) > 1 + self.threshold
                if moved or self.high / self.low > (1 + self.threshold) ** 4:
                    return (
                        f"No drift between the sides was seen (after / before {self.ratio:.3f}), but "
                        f"the controls scatter: {self.low:.3g} to {self.high:.3g}. A quiet machine "
                        "would tell more."
                    )
                return (
                    f"Controls are steady within {self.threshold:.0%}: "
                    f"after / before {self.ratio:.3f} ({self.low:.3g} to {self.high:.3g})."
                )
            case "corrected":
                return (
                    f"Controls, which no index can touch, moved too: {words}. Every ratio is "
                    "divided by theirs and its interval is wider by theirs. Measure interleaved, "
                    "on a disposable clone, for ratios that need no correction."
                )
            case _:
                return (
                    f"Controls, which no index can touch, moved too: {words}. No query that "
                    "changed by less than that, or by less than twice the "
                    f"{units.ms(self.moved_ms)} that each of them moved by, is called faster or "
                    "slower. Measure again on a "
                    "quiet server, or interleaved on a disposable clone."
                )


UNKNOWN = Drift(1.0, 1.0, 1.0, "unknown", THRESHOLD, ())


def drift(
    before: Sequence[Series],
    after: Sequence[Series],
    *,
    paired: bool,
    confidence: float,
    seed: int,
    threshold: float = THRESHOLD,
) -> Drift:
    """Say how much the controls moved; pure.

    Args:
        before: controls of the one side.
        after: controls of the other.
        paired: the sides were interleaved.
        confidence: of the interval.
        seed: of the resamples.
        threshold: a ratio within 1 plus or minus this is steady.
    """
    import numpy as np

    new = {series.query: series for series in after}
    pairs = [(old, new[old.query]) for old in before if old.query in new]
    names = tuple(old.query for old, _ in pairs)
    if not pairs:
        return Drift(1.0, 1.0, 1.0, "unknown", threshold, ())
    found = [
        intervals.ratio(
            old.samples,
            young.samples,
            paired=paired,
            confidence=confidence,
            random=np.random.default_rng([seed, *old.query.encode()]),
        )
        for old, young in pairs
    ]
    value = float(np.exp(np.mean([np.log(one.value) for one in found])))
    # Controls share the machine's moments: their errors are not independent, so they do not
    # average out.
    low = value * float(np.exp(np.mean([np.log(one.low / one.value) for one in found])))
    high = value * float(np.exp(np.mean([np.log(one.high / one.value) for one in found])))
    moved = abs(np.log(value)) > np.log1p(threshold) and not low <= 1 <= high
    beyond = abs(np.log(value)) > np.log1p(REFUSED)
    verdict: Literal["steady", "corrected", "refused"] = (
        "steady" if not moved else "refused" if beyond else "corrected"
    )
    moved_ms = min(abs(young.p50_ms - old.p50_ms) for old, young in pairs)
    return Drift(value, low, high, verdict, threshold, names, moved_ms)
