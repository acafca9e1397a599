"""What an index stores of a row: widths, alignment, NULLs and equal values of its columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from indexlab import sql
from indexlab.catalog import Catalog, Column, Index, Key
from indexlab.catalog.statistics import ColumnStatistics
from indexlab.sizes.frequencies import QUANTILES, Keys, Sample, of_column, together

HEADER, HEADER_WITH_NULLS = 8, 16
"""Bytes before the keys of an index tuple; the second has a bitmap of NULLs (itup.h)."""
LENGTHS = {
    16: (1, 1),
    18: (1, 1),
    19: (64, 1),
    20: (8, 8),
    21: (2, 2),
    23: (4, 4),
    26: (4, 4),
    27: (6, 2),
    28: (4, 4),
    600: (16, 8),
    601: (32, 8),
    603: (32, 8),
    628: (24, 8),
    700: (4, 4),
    701: (8, 8),
    718: (24, 8),
    774: (8, 4),
    790: (8, 8),
    829: (6, 4),
    1082: (4, 4),
    1083: (8, 8),
    1114: (8, 8),
    1184: (8, 8),
    1186: (16, 8),
    1266: (12, 8),
    2950: (16, 1),
    3220: (8, 8),
    3500: (4, 4),
    5069: (8, 8),
}
"""Length and alignment of types of fixed length by oid (pg_type.dat): bool, "char", name, numbers,
tid, xid, geometry, moments, macaddr, uuid, pg_lsn, enums, xid8."""
TEXTS = (25, 1042, 1043)  # oids of text, char and varchar
NUMERIC = 1700
UNKNOWN_WIDTH = 32  # as get_typavgwidth of lsyscache.c
FIRST_USER_OID = 16384
NOT_MERGED = (700, 701, 1186, 1700, 2249, 2277, 3614, 3615, 3802, 3831, 4537)
"""Oids of float4, float8, interval, numeric, records, arrays, tsvector, tsquery, jsonb, ranges and
multiranges: equal values may look different, so their operator classes have no `equalimage`."""
SHORT = 127
"""From this length on a value has a header of four bytes, which is aligned (postgres.h)."""


@dataclass(frozen=True, slots=True)
class Value:
    """One key or INCLUDE column of an index."""

    name: str
    number: int
    """Of the column; 0 for an expression."""
    type_oid: int
    align: int
    widths: tuple[float, ...]
    """Equally likely widths of values that are not NULL, headers included."""
    nulls: float = 0.0
    keys: tuple[Keys, ...] | None = None
    """Its values in all rows of the table, NULL left out; None where nothing is known."""
    known: bool = True
    together: bool = False
    """Whether equal values lie side by side in the table."""
    statistics: ColumnStatistics | None = None

    @property
    def distinct(self) -> float:
        """How many different values there are, NULL counted as one."""
        return sum(keys.number for keys in self.keys or ()) + (self.nulls > 0)


def of_key(catalog: Catalog, index: Index, key: Key, sample: Sample) -> Value:
    """Return what is known of a key of an index; pure."""
    for column in catalog.columns_of(index.table):
        if column.number == key.column:
            return of_table_column(catalog, column, sample, key.input_type)
    found = catalog.expression(index.table, key.text)
    words = [item for item in catalog.expressions if item.canonical == key.text]
    type_oid = found.type_oid if found else words[0].type_oid if words else 0
    # What the operator class takes says what the expression gives, where the server was not asked.
    type_oid = type_oid or key.input_type
    length, align = LENGTHS.get(type_oid, (UNKNOWN_WIDTH, 1))
    value = Value(key.text, 0, type_oid, align, _around(length, type_oid), known=False)
    statistics = catalog.statistics.of_expression(index.table, key.text)
    if statistics is None:
        return value
    if type_oid not in LENGTHS and statistics.width - 3 < SHORT:
        # ANALYZE has measured values as computed, before a shorter header is put on them.
        statistics = replace(statistics, width=max(1.0, statistics.width - 3))
    return _with(value, statistics, sample, 0.0, math.inf)


def of_table_column(catalog: Catalog, column: Column, sample: Sample, input_type: int = 0) -> Value:
    """Return what is known of a column; pure.

    Args:
        catalog: the target.
        column: one of its columns.
        sample: what its statistics come from.
        input_type: oid of the type that the operator class takes, for domains and enums.
    """
    type_oid = column.type_oid
    if type_oid not in LENGTHS and (input_type in LENGTHS or input_type in TEXTS):
        type_oid = input_type
    width, align = _type_width(column, type_oid)
    name = sql.quote(column.name)
    value = Value(name, column.number, type_oid, align, _around(width, type_oid), known=False)
    found = catalog.statistics.of(column.table, column.number)
    if found is None:
        return value
    least, most = _limits(catalog, column, sample.rows * (1 - found.nulls))
    return _with(value, found, sample, least, most)


def _with(
    value: Value, found: ColumnStatistics, sample: Sample, least: float, most: float
) -> Value:
    keys = of_column(found, sample, least, most) if found.distinct or found.nulls == 1 else None
    fixed = value.type_oid in LENGTHS
    align = value.align
    if not fixed and value.type_oid >= FIRST_USER_OID and found.width in (4, 8):
        align = int(found.width)  # an enum, most likely
        fixed = True
    return replace(
        value,
        align=align,
        widths=value.widths if value.type_oid in LENGTHS else _widths(value, found, fixed=fixed),
        nulls=found.nulls,
        keys=keys,
        known=True,
        together=together(found),
        statistics=found,
    )


def _limits(catalog: Catalog, column: Column, rows: float) -> tuple[float, float]:
    """Return how many values a column has at least and at most, as its constraints tell.

    Unique combinations need as many values as make enough of them, and a column that refers to
    another table has no more values than that table has rows.
    """
    least, most = 0.0, math.inf
    for index in catalog.indexes_of(column.table):
        numbers = [key.column for key in index.keys]
        if not index.unique or index.predicate is not None or column.number not in numbers:
            continue
        others = 1.0
        for number in numbers:
            if number != column.number:
                known = catalog.statistics.of(column.table, number) if number else None
                distinct = math.inf if known is None else known.distinct
                others *= distinct if distinct > 0 else -distinct * rows or math.inf
        least = max(least, rows / others)
    for foreign in catalog.foreign_keys_of(column.table):
        if foreign.columns == (column.number,):
            referenced = catalog.relation(foreign.referenced).rows
            most = min(most, referenced if referenced > 0 else math.inf)
    return min(least, rows), max(most, 1.0)


def _type_width(column: Column, type_oid: int) -> tuple[float, int]:
    """Return what a type's values take and how they are aligned, without statistics."""
    if type_oid in LENGTHS:
        return LENGTHS[type_oid]
    limit = column.type.partition("(")[2].rstrip(")")
    if type_oid in TEXTS and limit.isdigit():
        most = min(int(limit), 1000)
        return (most if most <= UNKNOWN_WIDTH else UNKNOWN_WIDTH + (most - UNKNOWN_WIDTH) / 2), 1
    return UNKNOWN_WIDTH, 1


def type_width(column: Column) -> float:
    """Return the planner's guess of a column's width without statistics."""
    return _type_width(column, column.type_oid)[0]


def _around(width: float, type_oid: int) -> tuple[float, ...]:
    """Return widths around an average that is all that is known, so that alignment averages out."""
    if type_oid in LENGTHS:
        return (width,)
    return tuple(max(1.0, width + shift) for shift in (-3, 2, 0, -1, 3, 1, -2))


def _widths(value: Value, found: ColumnStatistics, *, fixed: bool) -> tuple[float, ...]:
    """Return equally likely widths: those of the common values, and those of a sample of others."""
    if fixed:
        return (found.width,)
    if value.type_oid in TEXTS:
        others = [_text(size) for size in found.widths]
        common = [_text(len(text.encode())) for text, _ in found.common]
    elif value.type_oid == NUMERIC:
        others = [_numeric(number) for number in found.quads]
        common = [_numeric(_quads(text)) for text, _ in found.common]
    else:
        return _around(found.width, value.type_oid)
    weight = min(1.0, sum(found.frequencies) / max(1e-9, 1 - found.nulls))
    if not others:
        weight = 1.0
    if not common:
        weight = 0.0
    places = round(weight * QUANTILES)
    shares = [share for _, share in found.common]
    widths = [*_quantiles(common, shares, places), *_quantiles(others, None, QUANTILES - places)]
    if not widths:
        return _around(found.width, value.type_oid)
    if value.type_oid in TEXTS and others:
        # The average comes from all of ANALYZE's sample, the single widths from a few of it.
        shift = round(found.width - sum(widths) / len(widths))
        widths = [max(1.0, width + shift) for width in widths]
    return tuple(sorted(widths)) if len(set(widths)) > 1 else (widths[0],)


def _quantiles(
    widths: Sequence[float], weights: Sequence[float] | None, number: int
) -> list[float]:
    if not widths or not number:
        return []
    pairs = sorted(zip(widths, weights or [1.0] * len(widths), strict=True))
    total = sum(weight for _, weight in pairs)
    found, reached, place = [], pairs[0][1], 0
    for step in range(number):
        while reached < (step + 0.5) / number * total and place < len(pairs) - 1:
            place += 1
            reached += pairs[place][1]
        found.append(pairs[place][0])
    return found


def _text(size: int) -> float:
    return size + (1 if size + 1 < SHORT else 4)


def _numeric(quads: int) -> float:
    """Return the stored bytes of a numeric: header and groups of four digits (numeric.c)."""
    return 3 + 2 * quads


def _quads(text: str) -> int:
    before, _, after = text.partition(".")
    return math.ceil(len(before.lstrip("-0")) / 4) + math.ceil(len(after.rstrip("0")) / 4)


def tuple_sizes(values: Sequence[Value]) -> tuple[int, ...]:
    """Return equally likely sizes of an index tuple, MAXALIGNed (`index_form_tuple`); pure."""
    if all(len(value.widths) == 1 and not value.nulls for value in values):
        return (tuple_size([(value.widths[0], value.align) for value in values], nulls=False),)
    found = []
    for place in range(QUANTILES):
        present = []
        for number, value in enumerate(values):
            # Odd steps meet all quantiles; another one for each column mixes them.
            step = (place * (1, 29, 43, 11, 51, 7)[number % 6] + 13 * number) % QUANTILES
            null = (place * (31, 17, 5, 47)[number % 4] + 7 * number) % QUANTILES
            if null + 0.5 >= value.nulls * QUANTILES:
                width = value.widths[step * len(value.widths) // QUANTILES]
                present.append((width, value.align))
        found.append(tuple_size(present, nulls=len(present) < len(values)))
    return tuple(found) if len(set(found)) > 1 else (found[0],)


def tuple_size(present: Sequence[tuple[float, int]], *, nulls: bool) -> int:
    """Return the MAXALIGNed bytes of a tuple with values of these widths and alignments; pure."""
    offset = 0.0
    for width, align in present:
        boundary = align if width < SHORT else max(align, 4)
        offset = math.ceil(offset / boundary) * boundary + width
    return aligned((HEADER_WITH_NULLS if nulls else HEADER) + offset)


def aligned(size: float) -> int:
    """Return a size rounded up to eight bytes (MAXALIGN)."""
    return math.ceil(size / 8) * 8
