"""The partitions of a table, and what the index of each of them is called; pure."""

from __future__ import annotations

from collections.abc import Iterator

from indexlab import sql
from indexlab.catalog.objects import Relation
from indexlab.catalog.snapshot import Catalog

LONGEST_ENDING = 40
"""Bytes that the planned name may take of the name of a part's index."""


def direct_partitions(catalog: Catalog, parent: Relation) -> tuple[Relation, ...]:
    """Return the partitions right below a table; foreign ones take no indexes; pure."""
    return tuple(
        item
        for item in catalog.relations
        if item.parent == parent.oid
        and item.is_partition
        and item.kind in ("table", "partitioned table")
    )


def partitions_of(catalog: Catalog, parent: Relation) -> Iterator[Relation]:
    """Find the partitions of a table that take indexes, at every depth; pure."""
    for part in direct_partitions(catalog, parent):
        yield part
        if part.kind == "partitioned table":
            yield from partitions_of(catalog, part)


def bytes_of(catalog: Catalog, table: Relation) -> int:
    """Return the bytes of a table, of a partitioned one with all its partitions; pure."""
    return table.bytes + sum(part.bytes for part in partitions_of(catalog, table))


def foreign_partitions(catalog: Catalog, parent: Relation) -> tuple[Relation, ...]:
    """Return the partitions of a table, at every depth, that are foreign tables; pure.

    The server counts them, too, when it looks whether all partitions have their index
    (validatePartitionedIndex in tablecmds.c), so that an index made part by part stays invalid.
    """
    above = {parent.oid, *(item.oid for item in partitions_of(catalog, parent))}
    return tuple(
        item
        for item in catalog.relations
        if item.parent in above and item.is_partition and item.kind == "foreign table"
    )


def part_name(part: str, planned: str, number: int = 0) -> str:
    """Call the index of a partition after the partition and the planned index; pure.

    Where both are too long for a name, each is cut by bytes, so that the number always stays.

    Args:
        part: the name of the partition.
        planned: the name of the index on the whole.
        number: tells it from others of the same name; 0 adds nothing.

    >>> part_name("sales_2026", "by_day"), part_name("sales_2026", "by_day", 1)
    ('sales_2026_by_day', 'sales_2026_by_day1')
    """
    tail = str(number or "")
    ending = f"_{planned}{tail}"
    if len(f"{part}{ending}".encode()) <= sql.MAX_IDENTIFIER_BYTES:
        return part + ending
    if len(ending.encode()) > LONGEST_ENDING:
        ending = _cut(f"_{planned}", LONGEST_ENDING - len(tail)) + tail
    return _cut(part, sql.MAX_IDENTIFIER_BYTES - len(ending.encode())) + ending


def _cut(text: str, length: int) -> str:
    """Cut text to a number of bytes, between characters."""
    return text.encode()[:length].decode(errors="ignore")
