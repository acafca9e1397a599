"""The interval of a headline, which is a sum over queries."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from indexlab import benchmark, explain
from indexlab.benchmark import Change, Comparison, Headline, Measurement, Sample, Series
from indexlab.target import Server

SERVER = Server(180006, "18.6", "shop", "app", "socket", 5432, superuser=False, standby=False)
PLAN = explain.parse([{"Plan": {"Node Type": "Seq Scan"}, "Execution Time": 1.0}])


def changed(name: str, ratio: float, low: float, high: float, **more: Any) -> Change:
    base = Change(
        query=name,
        kind="read",
        weight=1.0,
        before_ms=10.0,
        after_ms=10.0 * ratio,
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        verdict="faster",
        indexes=("i",),
        difference="",
        rows_before=1,
        rows_after=1,
    )
    return replace(base, **more)


def compared(*changes: Change) -> Comparison:
    before = sum(one.weight * one.before_ms for one in changes)
    after = sum(one.weight * one.after_ms for one in changes)
    ratio = before / after if changes else 1.0
    headline = Headline(before, after, ratio, tuple(one.query for one in changes))
    return Comparison("before", "after", changes, headline, headline, (), (), 0.95, 0.05)


def gain(comparison: Comparison) -> benchmark.Gain:
    return benchmark.gain(comparison, comparison.headline)


def test_one_query_has_its_own_interval() -> None:
    found = gain(compared(changed("q", 0.5, 0.4, 0.625)))
    assert (found.times, found.low, found.high) == pytest.approx((2.0, 1.6, 2.5))
    assert found.decided
    assert found.words() == "1.60x to 2.50x faster (95% interval)"


def test_independent_errors_partly_cancel() -> None:
    one = gain(compared(changed("a", 0.5, 0.4, 0.6)))
    four = gain(compared(*(changed(name, 0.5, 0.4, 0.6) for name in "abcd")))
    assert four.times == one.times
    assert 1 / four.low - 0.5 == pytest.approx((1 / one.low - 0.5) / 2)


def test_a_query_that_weighs_little_adds_little_doubt() -> None:
    heavy = changed("a", 0.5, 0.49, 0.51, weight=100.0)
    light = changed("b", 0.5, 0.1, 5.0, weight=0.1)
    found = gain(compared(heavy, light))
    assert found.low == pytest.approx(1 / 0.51, rel=0.02)


def test_an_interval_around_one_decides_nothing() -> None:
    found = gain(compared(changed("q", 0.98, 0.9, 1.1)))
    assert not found.decided
    assert found.words() == "1.10x slower to 1.11x faster (95% interval)"


def test_a_query_that_was_given_up_before_leaves_the_gain_open() -> None:
    found = gain(compared(changed("q", 0.1, 1e-9, 0.1, bound="before")))
    assert math.isinf(found.high)
    assert found.words() == "at least 10.0x faster (95% interval)"


def test_no_query_gains_nothing() -> None:
    found = gain(compared())
    assert (found.times, found.low, found.high, found.decided) == (1.0, 1.0, 1.0, False)


def measured(random: np.random.Generator, scale: float) -> Measurement:
    series = tuple(
        Series(
            query=f"q{number}",
            kind="read",
            weight=float(number + 1),
            samples=tuple(
                Sample(float(ms), 0, turn)
                for turn, ms in enumerate(scale * (number + 1) * random.lognormal(0, 0.3, 80))
            ),
            rows=1,
            explain=PLAN,
            sql="SELECT 1",
            indexes=(),
        )
        for number in range(4)
    )
    return Measurement("m", series, (), SERVER, (), 0.02, "2026-01-01T00:00:00+00:00", 1.0)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Of 60 comparisons whose gain is known to be 4, at 95%."""
    random = np.random.default_rng(11)
    held = 0
    for _ in range(60):
        comparison = benchmark.compare(measured(random, 4.0), measured(random, 1.0))
        found = gain(comparison)
        held += found.low <= 4.0 <= found.high
    assert held >= 52
