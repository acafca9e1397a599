"""How large an index becomes, from the planner's statistics alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from indexlab import units
from indexlab.catalog import Catalog, Index, Relation
from indexlab.records import Record
from indexlab.sizes import btree, methods
from indexlab.sizes.btree import LARGEST_TUPLE, LEAF_FILL, PAGE, Shape
from indexlab.sizes.frequencies import (
    ROWS_PER_TARGET,
    TARGET,
    Keys,
    Sample,
    absolute,
    combined,
    met,
    of_number,
)
from indexlab.sizes.selectivity import selectivity
from indexlab.sizes.values import (
    FIRST_USER_OID,
    NOT_MERGED,
    Value,
    aligned,
    of_key,
    of_table_column,
    tuple_sizes,
    type_width,
)

FACTOR = 1.5
"""An estimate that may be off by so much is a rough one."""
DEDUPLICATION_OFF = tuple(f"deduplicate_items={word}" for word in ("off", "false", "no", "0"))
DEDUPLICATES = 130000
"""The first version that merges equal keys."""


@dataclass(frozen=True, slots=True)
class SizeEstimate(Record):
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
class _Content:
    """What an index is to hold."""

    index: Index
    table: Relation
    sample: Sample
    values: tuple[Value, ...]
    included: tuple[Value, ...]
    entries: float
    share: float
    """The share of the table's rows that it holds."""
    bound: bool
    """Whether the share is an upper bound."""
    basis: str

    @property
    def unknown(self) -> tuple[str, ...]:
        return tuple(value.name for value in (*self.values, *self.included) if not value.known)


def estimate(catalog: Catalog, index: Index) -> SizeEstimate:
    """Estimate the size of an index right after its build; pure.

    The model of a btree follows nbtsort.c and nbtdedup.c: tuples of aligned keys, pages filled up
    to the fillfactor, equal keys merged into posting lists, then the pages above.

    Args:
        catalog: the target, with statistics where they are known.
        index: planned or existing.
    """
    content = _content(catalog, index)
    basis = [content.basis]
    if index.predicate is not None and content.bound:
        basis.append("an upper bound, as the predicate's share of the rows is not known")
    if content.unknown:
        basis.append(
            f"no statistics of {', '.join(content.unknown)}: the widths of the types, and no key "
            "taken to be there twice"
        )
    rough = bool(content.unknown) or content.bound or content.table.rows < 0
    if index.method != "btree":
        size, known = methods.pages(catalog, _for_methods(content))
        basis += [] if known else [f"a rough model of {index.method}"]
        return SizeEstimate(size * PAGE, "; ".join(basis), rough or not known)
    groups, least = _groups(catalog, content)
    merging = _merges(catalog, content)
    tree = _tree(content, groups, merging=merging)
    distinct = sum(keys.number for keys in groups)
    if merging and distinct < 0.95 * content.entries:
        basis.append(f"about {units.count(round(distinct))} different keys, deduplicated")
    if merging and least is not None and least < distinct:
        fewest = (Keys(least, content.entries / least),)
        if tree.pages > FACTOR * _tree(content, fewest, merging=True).pages:
            basis.append("the columns taken to have nothing to do with each other")
            rough = True
    return SizeEstimate(tree.pages * PAGE, "; ".join(basis), rough, tree.height)


def height(catalog: Catalog, index: Index, pages: int) -> int:
    """Estimate the level of an existing btree's root from its real size; pure.

    Args:
        catalog: the target, with statistics where they are known.
        index: a btree.
        pages: how many pages of 8 kB it has, the first one, which says where the root is, included.

    Returns:
        The level of the root: 0 where it is a leaf.
    """
    content = _content(catalog, index)
    sizes = tuple_sizes(content.values)
    largest = sum(sizes) / len(sizes) + btree.TID_ALIGNED
    smallest = min(tuple_sizes(content.values[:1]))
    found = btree.height(pages, largest)
    if btree.height(pages, smallest) == found:
        return found
    groups, _ = _groups(catalog, content)
    tree = _tree(content, groups, merging=_merges(catalog, content))
    return btree.height(pages, tree.pivot)


def _for_methods(content: _Content) -> methods.Content:
    first = content.values[0]
    known = first.keys if first.keys is not None else (Keys(content.sample.rows, 1.0),)
    return methods.Content(
        content.index,
        (*content.values, *content.included),
        content.entries,
        content.sample.rows,
        content.sample.pages,
        tuple(met(keys, content.share) for keys in known),
    )


def _content(catalog: Catalog, index: Index) -> _Content:
    table = catalog.relation(index.table)
    rows, rows_basis = _rows(catalog, table)
    statistics = catalog.statistics
    targets = [item.bounds - 1 for item in statistics.columns if item.table == table.oid]
    size = ROWS_PER_TARGET * max([TARGET, *targets])
    sample = Sample(rows, table.bytes / PAGE, size)
    values = [of_key(catalog, index, key, sample) for key in index.keys]
    included = [
        of_table_column(catalog, column, sample)
        for column in catalog.columns_of(index.table)
        if column.number in index.include
    ]
    share, bound = selectivity(catalog, index)
    if share < 1:
        values = [_restricted(value, index.predicate or "") for value in values]
    entries = rows * share
    return _Content(
        index,
        table,
        sample,
        tuple(values),
        tuple(included),
        entries,
        share,
        bound,
        rows_basis if index.predicate is None else f"{units.count(round(entries))} rows",
    )


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
    width = sum(type_width(column) for column in catalog.columns_of(table.oid))
    rows = table.bytes / PAGE * ((PAGE - 24) // (aligned(width) + 24 + btree.LINE_POINTER))
    return rows, f"about {units.count(round(rows))} rows, guessed from the table's pages"


def _restricted(value: Value, predicate: str) -> Value:
    """Take the values of a part of the rows for a random part, or for those that are not NULL."""
    return replace(value, nulls=0.0) if f"{value.name} IS NOT NULL" in predicate else value


# btree


def _tree(content: _Content, groups: tuple[Keys, ...], *, merging: bool) -> btree.Tree:
    fill = next(
        (int(o[11:]) for o in content.index.options if o.startswith("fillfactor=")), LEAF_FILL
    )
    values = content.values
    shape = Shape(
        tuple(min(size, LARGEST_TUPLE) for size in tuple_sizes((*values, *content.included))),
        tuple(
            sum(sizes) / len(sizes)
            for place in range(len(values))
            if (sizes := tuple_sizes(values[: place + 1]))
        ),
        merging,
        fill,
    )
    prefixes = [
        min(content.entries, max(1.0, sum(k.number for k in _independent(content, place))))
        for place in range(1, len(values))
    ]
    return btree.build(shape, groups, prefixes)


def _merges(catalog: Catalog, content: _Content) -> bool:
    """Tell whether a build merges equal keys (`_bt_allequalimage`, `_bt_load`)."""
    index = content.index
    types = [
        key.input_type or value.type_oid
        for key, value in zip(index.keys, content.values, strict=True)
    ]
    return (
        catalog.server.version >= DEDUPLICATES
        and not index.unique
        and not index.include
        and not any(o.replace(" ", "") in DEDUPLICATION_OFF for o in index.options)
        and all(oid not in NOT_MERGED and oid < FIRST_USER_OID for oid in types)
    )


def _groups(catalog: Catalog, content: _Content) -> tuple[tuple[Keys, ...], float | None]:
    """Return the different keys, and the fewest that there can be where the columns hang together.

    NULLs are a key like any other.
    """
    entries = content.entries
    if entries < 1:
        return (), None
    index, values = content.index, content.values
    unique = (Keys(entries, 1.0, steady=True),)
    if _is_unique(catalog, content) or any(value.keys is None for value in values):
        return unique, None
    if len(values) == 1:
        return _scaled(_independent(content, 1), entries), None
    numbers = [value.number for value in values]
    found = catalog.statistics.group(index.table, numbers)
    if found is not None:
        said = absolute(found.distinct, content.sample.rows)
        together = any(value.together for value in values)
        rows = content.sample.rows
        distinct = max(1.0, min(of_number(said, content.sample, rows, together=together), rows))
        return _scaled((met(Keys(distinct, rows / distinct), content.share),), entries), None
    least = max(value.distinct for value in values)
    least = met(Keys(least, content.sample.rows / least), content.share).number
    return _scaled(_independent(content, len(values)), entries), min(max(1.0, least), entries)


def _is_unique(catalog: Catalog, content: _Content) -> bool:
    """Tell whether no key can be there twice; NULLs can, in a unique index, too."""
    index = content.index
    if index.unique and (index.nulls_not_distinct or not any(v.nulls for v in content.values)):
        return True
    own = {value.number for value in content.values if value.number and not value.nulls}
    return any(
        other.unique and other.predicate is None and own >= {key.column for key in other.keys}
        for other in catalog.indexes_of(index.table)
        if all(key.column for key in other.keys)
    )


def _independent(content: _Content, number: int) -> tuple[Keys, ...]:
    """Return the keys of the first columns, taken to have nothing to do with each other."""
    rows = content.sample.rows
    columns = []
    for value in content.values[:number]:
        keys = value.keys if value.keys is not None else (Keys(rows, 1.0),)
        columns.append((*keys, *_null(value, rows)))
    if number == 1:
        return tuple(met(keys, content.share) for keys in columns[0])
    found = combined(columns, max(rows, 1.0))
    return tuple(met(keys, content.share) for keys in found)


def _null(value: Value, rows: float) -> tuple[Keys, ...]:
    return (Keys(1, value.nulls * rows, steady=True),) if value.nulls * rows >= 1 else ()


def _scaled(groups: tuple[Keys, ...], entries: float) -> tuple[Keys, ...]:
    """Make the groups have as many rows as there are entries."""
    total = sum(keys.number * keys.rows for keys in groups)
    if not total:
        return (Keys(entries, 1.0, steady=True),)
    factor = entries / total
    return tuple(
        replace(keys, rows=keys.rows * factor)
        if keys.steady and keys.rows * factor >= 1
        else replace(keys, number=keys.number * factor)
        for keys in groups
    )
