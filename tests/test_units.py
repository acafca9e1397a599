"""Numbers as words."""

from __future__ import annotations

import doctest
from collections.abc import Callable

import pytest

from indexlab import units


def test_the_examples_hold():
    assert doctest.testmod(units).failed == 0
    assert doctest.testmod(units).attempted > 0


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.00001, "0.010 us"),
        (0.0999, "99.9 us"),
        (0.1, "0.100 ms"),
        (9.996, "10.0 ms"),
        (999.4, "999 ms"),
        (999.6, "1.00 s"),
        (59_949, "59.9 s"),
        (59_951, "1 min 0 s"),
        (60_000, "1 min 0 s"),
        (-690.4, "-690 ms"),
    ],
)
def test_a_latency_changes_its_unit_without_a_gap(value: float, said: str):
    assert units.ms(value) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (3599.6, "1 h 0 min"),
        (90_000, "25 h 0 min"),
        (-1.5, "-1.5 s"),
    ],
)
def test_a_duration_changes_its_unit_without_a_gap(seconds: float, said: str):
    assert units.duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.00 kB"),
        (1024**3, "1.00 GB"),
        (2**60, "1,048,576 TB"),
    ],
)
def test_sizes_are_in_binary_units(count: float, said: str):
    assert units.size(count) == said


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (0.9949, "1.01x faster"),
        (0.996, "unchanged"),
        (1.0049, "unchanged"),
        (1.006, "1.01x slower"),
    ],
)
def test_a_factor_has_a_direction(ratio: float, said: str):
    assert units.factor(ratio) == said


@pytest.mark.parametrize(
    "say",
    [units.ms, units.size, units.factor, units.duration, units.count],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_a_number_is_unknown(say: Callable[[float], str], value: float):
    assert say(value) == "unknown"


@pytest.mark.parametrize("value", [0, -1])
def test_a_factor_of_nothing_is_unknown(value: float):
    assert units.factor(value) == "unknown"


@pytest.mark.parametrize(
    ("noun", "said"),
    [
        ("index", "2 indexes"),
        ("query", "2 queries"),
        ("key", "2 keys"),
        ("day", "2 days"),
        ("pass", "2 passes"),
        ("branch", "2 branches"),
        ("row", "2 rows"),
    ],
)
def test_plurals(noun: str, said: str):
    assert units.plural(2, noun) == said
    assert units.plural(1, noun) == f"1 {noun}"


def test_many_things_have_separators():
    assert units.plural(14_279, "row") == "14,279 rows"
