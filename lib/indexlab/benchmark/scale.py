"""How latency grows with the size of the tables: one line per query and side, and its exponent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from indexlab import display, records, units
from indexlab.benchmark.series import Measurement
from indexlab.errors import InputError
from indexlab.records import Record

if TYPE_CHECKING:
    import pandas as pd

MAX_SIZES = 12


@dataclass(frozen=True, slots=True)
class Growth(Record):
    """A query's median latency at each size."""

    query: str
    before_ms: tuple[float, ...]
    after_ms: tuple[float, ...]
    exponent_before: float
    """1: latency grows as the table does, as a sequential scan's; near 0: it does not grow."""
    exponent_after: float


@dataclass(frozen=True, slots=True)
class Scaling(Record):
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

    def frame(self) -> pd.DataFrame:
        """Return the medians as a pandas DataFrame, one row for each query at each size.

        Columns: `query`; `rows` of the largest table; `before_ms` and `after_ms`, medians in
        milliseconds; `exponent_before` and `exponent_after`, to which power of `rows` they grow.
        """
        import pandas as pd

        rows = [
            (one.query, size, before, after, one.exponent_before, one.exponent_after)
            for one in self.growths
            for size, before, after in zip(self.rows, one.before_ms, one.after_ms, strict=True)
        ]
        columns = ["query", "rows", "before_ms", "after_ms", "exponent_before", "exponent_after"]
        return pd.DataFrame(rows, columns=columns)

    def _cells(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the headings and the rows of the table that people see."""
        sizes = [f"{units.count(rows)} rows" for rows in self.rows]
        columns = ("query", *sizes, "grows with")
        rows = [
            (
                one.query,
                *(
                    f"{units.ms(before)} -> {units.ms(after)}"
                    for before, after in zip(one.before_ms, one.after_ms, strict=True)
                ),
                f"rows^{one.exponent_before:.2f} -> rows^{one.exponent_after:.2f}",
            )
            for one in self.growths
        ]
        return columns, rows

    def __repr__(self) -> str:
        return records.text(str(self), *self._cells())

    def _repr_html_(self) -> str:
        columns, rows = self._cells()
        return display.table(columns, rows, caption=str(self), numeric=columns[1:])


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
