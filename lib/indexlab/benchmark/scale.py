"""How latency grows with the size of the tables: one line per query and side, and its exponent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from indexlab import display, units
from indexlab.benchmark.series import Measurement
from indexlab.errors import InputError

MAX_SIZES = 12


@dataclass(frozen=True, slots=True)
class Growth:
    """A query's median latency at each size."""

    query: str
    before_ms: tuple[float, ...]
    after_ms: tuple[float, ...]
    exponent_before: float
    """1: latency grows as the table does, as a sequential scan's; near 0: it does not grow."""
    exponent_after: float


@dataclass(frozen=True, slots=True)
class Scaling:
    """All queries at all sizes."""

    rows: tuple[int, ...]
    """Of the largest table, ascending."""
    growths: tuple[Growth, ...]

    def __str__(self) -> str:
        """Say how the typical query grows."""
        if not self.growths:
            return f"no query was measured at all sizes from {self.rows[0]:,} to {self.rows[-1]:,}"
        middle = len(self.growths) // 2
        before = sorted(growth.exponent_before for growth in self.growths)[middle]
        after = sorted(growth.exponent_after for growth in self.growths)[middle]
        return (
            f"from {self.rows[0]:,} to {self.rows[-1]:,} rows the median query grows with "
            f"rows^{before:.2f} without the indexes and with rows^{after:.2f} with them"
        )

    def _repr_html_(self) -> str:
        sizes = tuple(f"{units.count(rows)} rows" for rows in self.rows)
        lines = [
            (
                growth.query,
                side,
                *(units.ms(ms) for ms in times),
                f"rows^{exponent:.2f}",
            )
            for growth in self.growths
            for side, times, exponent in (
                ("without", growth.before_ms, growth.exponent_before),
                ("with", growth.after_ms, growth.exponent_after),
            )
        ]
        columns = ("query", "indexes", *sizes, "grows with")
        table = display.table(
            columns, lines, caption="median latency by size", numeric=(*sizes, "grows with")
        )
        return f"{table}<p>{display.escape(str(self))}.</p>"


def parse(text: str) -> tuple[float, ...]:
    """Read factors of the demo's size, such as `0.1,1,4`; pure.

    Raises:
        InputError: it is not at least two different positive numbers.
    """
    try:
        factors = tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        factors = ()
    if not 2 <= len(factors) <= MAX_SIZES or not all(0 < f < math.inf for f in factors):
        raise InputError(
            f"--scale {text!r} is not a list of two or more different sizes, such as 0.1,1,4"
        )
    return factors


def scaling(rows: Sequence[int], sides: Sequence[tuple[Measurement, Measurement]]) -> Scaling:
    """Fit the growth of every query that was measured at all sizes; pure.

    The exponent is the slope of the least-squares line through the logarithms: latency is about
    a * rows^b.

    Args:
        rows: of the largest table, ascending.
        sides: the measurements without and with the indexes, at each size.
    """
    tables = [
        tuple({series.query: series.p50_ms for series in side.series} for side in pair)
        for pair in sides
    ]
    names = [
        series.query
        for series in sides[0][0].series
        if all(series.query in side for pair in tables for side in pair)
    ]
    return Scaling(tuple(rows), tuple(_growth(name, rows, tables) for name in names))


def _growth(
    name: str, rows: Sequence[int], tables: Sequence[tuple[dict[str, float], ...]]
) -> Growth:
    before = tuple(pair[0][name] for pair in tables)
    after = tuple(pair[1][name] for pair in tables)
    return Growth(name, before, after, exponent(rows, before), exponent(rows, after))


def exponent(rows: Sequence[float], ms: Sequence[float]) -> float:
    """Return the slope of the line through log(rows) and log(ms); pure."""
    import numpy as np

    return round(float(np.polyfit(np.log(rows), np.log(ms), 1)[0]), 2) + 0.0
