"""How often an interval holds the truth, by simulation: few rounds, skewed latencies, drift."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from indexlab.benchmark import Sample, intervals

Draw = Callable[[np.random.Generator, int], np.ndarray]

COMPARISONS = 300
LEAST = 0.90
"""Of intervals at 95%; what chance may take off among so many is within it."""
TRUTH = 1.5

SKEWED: dict[str, Draw] = {
    "narrow": lambda random, size: random.lognormal(0, 0.05, size),
    "skewed": lambda random, size: random.lognormal(0, 0.5, size),
    "a floor and a long tail": lambda random, size: 1 + random.exponential(0.2, size),
    "now and then three times": lambda random, size: (
        random.lognormal(0, 0.05, size) * np.where(random.random(size) < 0.15, 3, 1)
    ),
}


def samples(times: np.ndarray) -> list[Sample]:
    """Rows are rounds."""
    return [Sample(float(ms), 0, turn) for turn, row in enumerate(times) for ms in row]


def covered(draw: Draw, rounds: int, executions: int, *, paired: bool, moments: str) -> float:
    """Return how often the interval of a ratio that is known holds it."""
    random = np.random.default_rng([rounds, executions, paired])
    held = 0
    for _ in range(COMPARISONS):
        shape = rounds, executions
        old, new = (draw(random, rounds * executions).reshape(shape) for _ in range(2))
        if moments == "drift":
            old, new = (side * np.linspace(1, 1.3, rounds)[:, None] for side in (old, new))
        if moments == "rounds differ":
            met = random.lognormal(0, 0.15, (2, rounds, 1))
            old, new = old * met[0], new * met[0 if paired else 1]
        if moments == "two speeds":  # of a machine that is shared: one side of a round meets it
            old, new = (
                side * np.where(random.random((rounds, 1)) < 0.3, 1.75, 1) for side in (old, new)
            )
        found = intervals.ratio(
            samples(old),
            samples(TRUTH * new),
            paired=paired,
            confidence=0.95,
            random=random,
            resamples=400,
        )
        held += found.low <= TRUTH <= found.high
    return held / COMPARISONS


@pytest.mark.parametrize("rounds", [3, 5, 10, 30])
@pytest.mark.parametrize("latency", SKEWED)
def test_sides_in_turns(latency: str, rounds: int) -> None:
    for executions, moments in ((1, "drift"), (5, "rounds differ"), (5, "two speeds")):
        share = covered(SKEWED[latency], rounds, executions, paired=True, moments=moments)
        assert share >= LEAST, (executions, moments)


@pytest.mark.parametrize("rounds", [2, 3, 5, 10])
@pytest.mark.parametrize("latency", ["narrow", "a floor and a long tail"])
def test_one_side_after_the_other(latency: str, rounds: int) -> None:
    """Executions of a round share its moment, however few rounds there are."""
    for moments in ("alike", "rounds differ"):
        share = covered(SKEWED[latency], rounds, 5, paired=False, moments=moments)
        assert share >= LEAST, moments


def test_five_rounds_in_turns_reach_no_farther_than_they_did() -> None:
    old = samples(np.full((5, 1), 10.0))
    new = samples(np.array([[5.0], [4.0], [2.5], [6.0], [5.5]]))
    found = intervals.ratio(old, new, paired=True, confidence=0.95, random=np.random.default_rng(1))
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.25, 1.0))
