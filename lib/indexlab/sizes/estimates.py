"""How large a planned index becomes, from the planner's statistics alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from indexlab import sql, units
from indexlab.catalog import Catalog, Column, Index, Key, Relation
from indexlab.catalog.statistics import Statistics
from indexlab.sizes.selectivity import selectivity

PAGE = 8192
USABLE = PAGE - 24 - 16 - 4
"""Bytes of a btree page without its header, its special space and the line pointer of its high
key (bufpage.h, nbtree.h)."""
LINE_POINTER = 4
HEADER, HEADER_WITH_NULLS = 8, 16
"""Bytes before the keys of an index tuple; the second has a bitmap of NULLs (itup.h)."""
TID = 6
POSTING_LIMIT = 808
"""The largest posting list tuple of a build, MAXALIGNed: a tenth of a page without a line pointer
(`maxpostingsize` in `_bt_load`, nbtsort.c)."""
LEAF_FILL, INNER_FILL = 90, 70  # BTREE_DEFAULT_FILLFACTOR, BTREE_NONLEAF_FILLFACTOR

LENGTHS = {
    16: (1, 1),
    18: (1, 1),
    21: (2, 2),
    23: (4, 4),
    26: (4, 4),
    700: (4, 4),
    1082: (4, 4),
    20: (8, 8),
    701: (8, 8),
    790: (8, 8),
    1083: (8, 8),
    1114: (8, 8),
    1184: (8, 8),
    19: (64, 1),
    829: (6, 4),
    1186: (16, 8),
    1266: (12, 8),
    2950: (16, 1),
}
"""Length and alignment of types by oid: bool, "char", the numbers and moments, name, uuid."""
TEXTS = (25, 1042, 1043)  # oids of text, char and varchar
UNKNOWN_WIDTH = 32  # as get_typavgwidth of lsyscache.c
FIRST_USER_OID = 16384
NO_DEDUPLICATION = (700, 701, 1186, 1700, 3802)
"""Oids of float4, float8, interval, numeric and jsonb: equal values may look different, so their
operator classes have no `equalimage` function."""
LONG = 127
"""Values below it are stored with a header of one byte and without alignment (postgres.h)."""


@dataclass(frozen=True, slots=True)
class SizeEstimate:
    """How large an index is likely to become."""

    bytes: int
    basis: str
    """What the estimate rests on, in words."""
    rough: bool = False
    """Whether it may well be off by a factor, for want of statistics or of a model."""
    height: int | None = None
    """Level of a btree's root, 0 where the root is a leaf; None for other methods."""

    @property
    def pages(self) -> int:
        """How many pages of 8 kB it has."""
        return math.ceil(self.bytes / PAGE)


@dataclass(frozen=True, slots=True)
class _Value:
    """One key or INCLUDE column of the index."""

    name: str
    number: int
    type_oid: int
    align: int
    widths: tuple[float, ...]
    """Widths to average over: often one."""
    nulls: float = 0.0
    distinct: float | None = None
    """How many values it has in the rows of the index, without NULL; None where not known."""
    frequencies: tuple[float, ...] = ()
    """The shares of its common values among all rows."""
    known: bool = True


def estimate(catalog: Catalog, index: Index) -> SizeEstimate:
    """Estimate the size of an index right after its build; pure.

    The model of a btree follows nbtsort.c and nbtdedup.c: tuples of aligned keys, pages filled up
    to the fillfactor, equal keys merged into posting lists, then the pages above. The other methods
    have rough models.

    Args:
        catalog: the target, with statistics where they are known.
        index: planned or existing.
    """
    table = catalog.relation(index.table)
    rows, rows_basis = _rows(catalog, table)
    statistics = catalog.statistics
    values = [_of_key(catalog, index, key, rows) for key in index.keys]
    included = [
        _of_column(statistics, column, rows)
        for column in catalog.columns_of(index.table)
        if column.number in index.include
    ]
    share, bound = selectivity(catalog, index)
    if share < 1:
        values = [_restricted(value, share, index.predicate or "") for value in values]
    entries = rows * share
    basis = [rows_basis] if index.predicate is None else [f"{units.count(round(entries))} rows"]
    if index.predicate is not None and bound:
        basis.append("an upper bound, as the predicate's share of the rows is not known")
    unknown = [value.name for value in (*values, *included) if not value.known]
    if unknown:
        basis.append(
            f"no statistics of {', '.join(unknown)}: the widths of the types, and no key taken "
            "to be there twice"
        )
    if index.method == "btree":
        groups = _groups(statistics, index, values, entries, rows) if _merges(index, values) else ()
        pages, level, merged = _btree(index, values, included, entries, groups)
        size: float = pages * PAGE
        basis += [merged] if merged else []
    else:
        level = None
        size = _other_method(index, values, included, entries, table)
        basis.append(f"a rough model of {index.method}")
    rough = bool(unknown) or bound or index.method != "btree" or table.rows < 0
    return SizeEstimate(round(size), "; ".join(basis), rough, level)


def height(catalog: Catalog, index: Index, pages: int) -> int:
    """Estimate the level of an existing btree's root from its real size; pure.

    Args:
        catalog: the target, with statistics where they are known.
        index: a btree.
        pages: how many pages of 8 kB it has, the first one, which says where the root is, included.

    Returns:
        The level of the root: 0 where it is a leaf.
    """
    rows, _ = _rows(catalog, catalog.relation(index.table))
    values = [_of_key(catalog, index, key, rows) for key in index.keys]
    inner = _aligned(_tuple_size(values)) + (8 if _merges(index, values) else 0)
    fan_out = max(2.0, _per_page(inner, INNER_FILL))
    level, rest = 0, pages - 1.0
    while rest > 1:
        # A full level of this many pages and all that is above it takes `rest`.
        rest /= fan_out
        level += 1
    return level


def _rows(catalog: Catalog, table: Relation) -> tuple[float, str]:
    """Return a table's rows, and how they are known.

    Where it was never analyzed, the planner's own guess: what fits into its pages at the width
    of its types (`estimate_rel_size` in plancat.c).
    """
    if table.kind == "partitioned table":
        parts = [r for r in catalog.relations if r.parent == table.oid and r.kind != "view"]
        rows = sum(_rows(catalog, part)[0] for part in parts)
        return rows, f"{units.count(round(rows))} rows"
    if table.rows > 0 or (table.rows == 0 and table.bytes == 0):
        return table.rows, f"{units.count(round(table.rows))} rows"
    width = sum(_type_width(column)[0] for column in catalog.columns_of(table.oid))
    rows = table.bytes / PAGE * ((PAGE - 24) // (_aligned(width) + 24 + LINE_POINTER))
    return rows, f"about {units.count(round(rows))} rows, guessed from the table's pages"


def _of_key(catalog: Catalog, index: Index, key: Key, rows: float) -> _Value:
    for column in catalog.columns_of(index.table):
        if column.number == key.column:
            return _of_column(catalog.statistics, column, rows)
    found = catalog.expression(index.table, key.text)
    words = [item for item in catalog.expressions if item.canonical == key.text]
    type_oid = found.type_oid if found else words[0].type_oid if words else 0
    length, align = LENGTHS.get(type_oid, (UNKNOWN_WIDTH, 1))
    return _Value(key.text, 0, type_oid, align, (length,), known=False)


def _of_column(statistics: Statistics, column: Column, rows: float) -> _Value:
    width, align = _type_width(column)
    found = statistics.of(column.table, column.number)
    name = sql.quote(column.name)
    if found is None:
        return _Value(name, column.number, column.type_oid, align, (width,), known=False)
    widths: tuple[float, ...] = (found.width,)
    if column.type_oid in TEXTS and found.widths and not found.common:
        widths = tuple(size + (1 if size + 1 < LONG else 4) for size in found.widths)
    distinct = found.distinct if found.distinct >= 0 else -found.distinct * rows
    return _Value(
        name,
        column.number,
        column.type_oid,
        align,
        widths,
        found.nulls,
        distinct,
        found.frequencies,
    )


def _type_width(column: Column) -> tuple[float, int]:
    """Return what a type's values take and how they are aligned, without statistics."""
    if column.type_oid in LENGTHS:
        return LENGTHS[column.type_oid]
    limit = column.type.partition("(")[2].rstrip(")")
    if column.type_oid in TEXTS and limit.isdigit():
        most = min(int(limit), 1000)
        return (most if most <= UNKNOWN_WIDTH else UNKNOWN_WIDTH + (most - UNKNOWN_WIDTH) / 2), 1
    return UNKNOWN_WIDTH, 1


def _restricted(value: _Value, share: float, predicate: str) -> _Value:
    """Take the values of a part of the rows for a random part, or for those that are not NULL."""
    if f"{value.name} IS NOT NULL" in predicate:
        return replace(value, nulls=0.0)
    return replace(value, frequencies=tuple(each * share for each in value.frequencies))


def _aligned(size: float, boundary: int = 8) -> int:
    return math.ceil(size / boundary) * boundary


# btree


def _btree(
    index: Index,
    values: list[_Value],
    included: list[_Value],
    entries: float,
    groups: tuple[tuple[float, float], ...],
) -> tuple[int, int, str]:
    """Return the pages of a btree, the level of its root, and what was merged in it."""
    fill = next((int(o[11:]) for o in index.options if o.startswith("fillfactor=")), LEAF_FILL)
    size = _tuple_size([*values, *included])
    distinct = sum(count for count, _ in groups)
    if groups and distinct < 0.95 * entries:
        leaves = _merged_leaves(groups, size, fill)
        words = f"about {units.count(round(distinct))} different keys, deduplicated"
    else:
        leaves = entries / _per_page(size, fill)
        words = ""
    pages = max(1, math.ceil(leaves)) if entries >= 1 else 0
    total = pages + 1  # the first page says where the root is
    inner = _aligned(_tuple_size(values)) + (8 if words else 0)
    level = 0
    while pages > 1:
        pages = math.ceil(pages / _per_page(inner, INNER_FILL))
        total += pages
        level += 1
    return total, level, words


def _tuple_size(values: list[_Value]) -> float:
    """Return the average bytes of an index tuple, MAXALIGNed (`index_form_tuple`)."""
    samples = max((len(value.widths) for value in values), default=1)
    any_null = 1 - math.prod(1 - value.nulls for value in values)
    total = 0.0
    for sample in range(samples):
        offset = 0.0
        without_nulls = 0.0
        for value in values:
            width = value.widths[sample % len(value.widths)]
            align = value.align if width < LONG else max(value.align, 4)
            offset = _aligned(offset, align) + width
            if len(values) > 1:
                without_nulls += width * (1 - value.nulls)
        total += (1 - any_null) * _aligned(HEADER + offset)
        total += any_null * _aligned(HEADER_WITH_NULLS + without_nulls)
    return total / samples


def _per_page(size: float, fill: int, truncated: float = 0.0) -> float:
    """Return how many tuples a page holds (`_bt_buildadd` in nbtsort.c).

    A page is full once less than the fillfactor's rest is free; its last tuple then moves on. The
    part of a posting list that the high key does not need counts as free.
    """
    item = float(size + LINE_POINTER)
    rest = max(PAGE * (100 - fill) / 100 - truncated, size + 8.0)
    number = max(1.0, (USABLE - LINE_POINTER - rest) / item)
    return math.floor(number) if item.is_integer() else number


def _merges(index: Index, values: list[_Value]) -> bool:
    """Tell whether a build merges equal keys (`_bt_allequalimage`, `_bt_load`)."""
    off = any(o.replace(" ", "") in DEDUPLICATION_OFF for o in index.options)
    return (
        not index.unique
        and not index.include
        and not off
        and all(value.type_oid not in NO_DEDUPLICATION for value in values)
    )


DEDUPLICATION_OFF = tuple(f"deduplicate_items={word}" for word in ("off", "false", "no", "0"))


def _groups(
    statistics: Statistics, index: Index, values: list[_Value], entries: float, rows: float
) -> tuple[tuple[float, float], ...]:
    """Return pairs: how many different keys, and how many rows each of them has.

    NULLs are a key like any other. Of several columns the distinct values multiply; as many keys as
    a random draw of that many rows would meet are taken to be there.
    """
    if not values or entries < 1 or any(value.distinct is None for value in values):
        return ()
    if len(values) == 1:
        value = values[0]
        common = [(1.0, f * rows) for f in (*value.frequencies, value.nulls * entries / rows)]
        rest = entries - sum(count for _, count in common)
        others = (value.distinct or 0.0) - len(value.frequencies)
        if others >= 0.5 and rest >= 1:
            common.append((min(others, rest), max(1.0, rest / others)))
        return tuple(item for item in common if item[1] >= 1)
    found = statistics.group(index.table, [value.number for value in values])
    if found is not None:
        distinct = found.distinct if found.distinct >= 0 else -found.distinct * rows
    else:
        product = math.prod((value.distinct or 0.0) + (value.nulls > 0) for value in values)
        if product <= 0:
            return ()
        distinct = product * -math.expm1(-entries / product)
    distinct = max(1.0, min(distinct, entries))
    return ((distinct, entries / distinct),)


def _merged_leaves(groups: Iterable[tuple[float, float]], size: float, fill: int) -> float:
    """Return the leaf pages of a btree whose equal keys are merged (nbtdedup.c).

    A posting list takes row identifiers until the tuple would pass its limit; what is left of a
    key's rows makes a shorter one, or a plain tuple.
    """
    base = _aligned(size)
    most = max(1, (POSTING_LIMIT - base) // TID)
    leaves = 0.0
    for keys, rows in groups:
        full = math.floor(rows / most)
        rest = rows - full * most
        if full:
            posting = _aligned(base + most * TID)
            per_page = _per_page(posting, fill, posting - base)
            # Several keys share a page; only whole tuples fit.
            leaves += keys * full / math.floor(per_page)
        if rest > 0:
            share = rest - math.floor(rest)
            short = (1 - share) * _posting(base, math.floor(rest))
            short += share * _posting(base, math.floor(rest) + 1)
            if short:
                per_page = _per_page(short, fill, max(0.0, short - base))
                leaves += keys / per_page
    return leaves


def _posting(base: int, rows: int) -> int:
    return 0 if rows == 0 else base if rows == 1 else _aligned(base + rows * TID)


# The other methods


def _other_method(
    index: Index,
    values: list[_Value],
    included: list[_Value],
    entries: float,
    table: Relation,
) -> float:
    """Return the rough bytes of a hash, gin, gist, spgist or brin index.

    hash: 16 bytes and a line pointer a row, three quarters of a page (hash.h). brin: a summary of two
    values a range of pages. gin: an element of eight bytes and three bytes of posting list. Trees of
    gist and others: tuples in pages that are two thirds full.
    """
    width = _tuple_size([*values, *included])
    match index.method:
        case "hash":
            buckets = max(2, math.ceil(entries / (PAGE * 0.75 / (16 + LINE_POINTER))))
            return (buckets * 1.15 + 2) * PAGE
        case "brin":
            written = [o[16:] for o in index.options if o.startswith("pages_per_range=")]
            ranges = math.ceil(table.bytes / PAGE / (int(written[0]) if written else 128))
            summaries = ranges * (_aligned(2 * width) + LINE_POINTER)
            return (2 + math.ceil(summaries / PAGE) + math.ceil(ranges / 1360)) * PAGE
        case "gin":
            elements = sum(max(1.0, value.widths[0] / 8) for value in values)
            return PAGE * 2 + entries * elements * 3
        case _:
            return PAGE * (1 + math.ceil(entries * (width + LINE_POINTER) / (PAGE * 0.67)))
