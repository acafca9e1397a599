"""Indexes of partitioned tables: refused as one statement, with the statements that do it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from indexlab import sql
from indexlab.audit.drafts import Draft, Drafts, Scene
from indexlab.catalog import Catalog, Index, Relation

UNIQUE_KEY = "unique-without-partition-key"


def built_in_parts(scene: Scene, drafts: Drafts) -> Drafts:
    """Rule 23: CONCURRENTLY fails on a partitioned table; its parts are built one by one."""
    return tuple(
        _in_parts(scene.catalog, draft)
        if draft.verdict is None and draft.table().kind == "partitioned table"
        else draft
        for draft in drafts
    )


def _in_parts(catalog: Catalog, draft: Draft) -> Draft:
    table = draft.table()
    name = str(table.qualified)
    missing = _missing_key(catalog, draft)
    if missing:
        return draft.found(
            UNIQUE_KEY,
            "error",
            f"a unique index on the partitioned {name} must contain its partition key: "
            f"{missing} is not among the keys of {draft.label}",
            subject=name,
            fix="add the partition key, or make the index unique on each partition by itself",
            verdict="refuse",
        )
    statements = tuple(way(catalog, draft))
    return draft.found(
        "partitioned-table",
        "error",
        f"{name} is partitioned, and CONCURRENTLY cannot build an index on all its parts",
        subject=name,
        evidence=(("partitions", sum(1 for _ in _parts(catalog, table))),),
        fix="; ".join(statements),
        verdict="refuse",
    )


def _missing_key(catalog: Catalog, draft: Draft) -> str:
    """Name the parts of the partition key that a unique index lacks."""
    if not draft.index.unique:
        return ""
    table, keys = draft.table(), {key.column for key in draft.planned().keys}
    columns = {column.number: sql.quote(column.name) for column in catalog.columns_of(table.oid)}
    lacking = [int(number) for number in table.partition_key.split() if int(number) not in keys]
    return ", ".join(columns.get(number, "an expression") for number in lacking)


def way(catalog: Catalog, draft: Draft) -> Iterator[str]:
    """Write the statements that build an index on a partitioned table without blocking writers.

    An equal index that a partition has already is attached instead of built again.
    """
    table, name = draft.table(), draft.index.name or ""
    existing = catalog.index(table.schema, name)
    if existing is None:
        yield _on_only(draft, table, name)
    taken = {(item.schema, item.name) for item in catalog.relations}
    above = _Above(table, sql.RelationName(table.schema, name), existing)
    yield from _children(catalog, draft, above, taken)


@dataclass(frozen=True, slots=True)
class _Above:
    """A partitioned table and the index on it that those of its partitions are attached to."""

    table: Relation
    index: sql.RelationName
    existing: Index | None


def _children(
    catalog: Catalog, draft: Draft, above: _Above, taken: set[tuple[str, str]]
) -> Iterator[str]:
    for part in _direct(catalog, above.table):
        partitioned = part.kind == "partitioned table"
        there = _equal_on(catalog, draft, part)
        if there is None:
            name = _free_name(part, draft.index.name or "", taken)
            yield (_on_only if partitioned else _on_leaf)(draft, part, name.name)
        else:
            name = there.qualified
        if partitioned:
            yield from _children(catalog, draft, _Above(part, name, there), taken)
        if there is None or above.existing is None or there.parent != above.existing.oid:
            yield f"ALTER INDEX {above.index} ATTACH PARTITION {name}"


def _on_leaf(draft: Draft, table: Relation, name: str) -> str:
    index = draft.index.revise(
        name=name, table=table.qualified, concurrently=True, if_not_exists=False
    )
    statement = sql.parse(index.sql, "<index>")[0]
    statement.tree.relation.inh = True
    return sql.deparse(statement.node)


def _on_only(draft: Draft, table: Relation, name: str) -> str:
    index = draft.index.revise(
        name=name, table=table.qualified, concurrently=False, if_not_exists=False
    )
    statement = sql.parse(index.sql, "<index>")[0]
    statement.tree.relation.inh = False
    return sql.deparse(statement.node)


def _direct(catalog: Catalog, parent: Relation) -> list[Relation]:
    """Return the partitions that take indexes; foreign tables are passed over by the server."""
    return [
        item
        for item in catalog.relations
        if item.parent == parent.oid
        and item.is_partition
        and item.kind in ("table", "partitioned table")
    ]


def _parts(catalog: Catalog, parent: Relation) -> Iterator[Relation]:
    for part in _direct(catalog, parent):
        if part.kind == "partitioned table":
            yield from _parts(catalog, part)
        else:
            yield part


def _equal_on(catalog: Catalog, draft: Draft, part: Relation) -> Index | None:
    """Return the usable index of a partition that is the planned one there."""
    wanted = catalog.wanted(draft.index.revise(table=part.qualified))
    if not isinstance(wanted, Index):
        return None
    return next(
        (
            index
            for index in catalog.indexes_of(part.oid)
            if (index.usable or part.kind == "partitioned table")
            and index.constraint is None
            and index.equals(wanted)
        ),
        None,
    )


def _free_name(part: Relation, planned: str, taken: set[tuple[str, str]]) -> sql.RelationName:
    """Call the index of a partition after the partition and the planned index."""
    number = 0
    while True:
        ending = f"_{planned}{number or ''}"
        room = sql.MAX_IDENTIFIER_BYTES - min(len(ending.encode()), 40)
        name = sql.truncate(part.name.encode()[:room].decode(errors="ignore") + ending)
        if (part.schema, name) not in taken:
            taken.add((part.schema, name))
            return sql.RelationName(part.schema, name)
        number += 1
