"""Indexes of partitioned tables: built part by part, since one statement cannot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from indexlab import sql
from indexlab.audit.covering import restore_sql
from indexlab.audit.drafts import Draft, Drafts, Scene
from indexlab.catalog import (
    Catalog,
    Index,
    Relation,
    direct_partitions,
    foreign_partitions,
    part_name,
    partitions_of,
)

UNIQUE_KEY = "unique-without-partition-key"


def unique_by_the_partition_key(scene: Scene, drafts: Drafts) -> Drafts:
    """Rule 23: a unique index of a partitioned table contains its partition key."""
    return tuple(
        _with_its_key(scene.catalog, draft)
        if draft.verdict is None and draft.table().kind == "partitioned table"
        else draft
        for draft in drafts
    )


def _with_its_key(catalog: Catalog, draft: Draft) -> Draft:
    missing = _missing_key(catalog, draft)
    if not missing:
        return draft
    name = str(draft.table().qualified)
    return draft.found(
        UNIQUE_KEY,
        "error",
        f"a unique index on the partitioned {name} must contain its partition key: "
        f"{missing} is not among the keys of {draft.label}",
        subject=name,
        fix="add the partition key, or make the index unique on each partition by itself",
        verdict="refuse",
    )


def no_partition_is_foreign(scene: Scene, drafts: Drafts) -> Drafts:
    """Rule 23: with a foreign table among the partitions the whole never becomes valid."""
    return tuple(
        _on_foreign(scene.catalog, draft)
        if draft.verdict is None and draft.table().kind == "partitioned table"
        else draft
        for draft in drafts
    )


def _on_foreign(catalog: Catalog, draft: Draft) -> Draft:
    found = foreign_partitions(catalog, draft.table())
    if not found:
        return draft
    names = ", ".join(str(item.qualified) for item in found)
    which = "foreign table" if len(found) == 1 else "foreign tables"
    if draft.index.unique:
        why, fix = "it enforces nothing", "make the index unique on each of the other partitions"
    else:
        why = "without one there the parent's never becomes valid part by part"
        fix = (
            "plan the index on each of the other partitions; when all have theirs, a plain CREATE "
            "INDEX on the parent takes them over, with writers locked out for a moment"
        )
    return draft.found(
        "foreign-partition",
        "error",
        f"{draft.table().qualified} has the {which} {names} among its partitions, which takes no "
        f"index: {why}",
        subject=str(draft.table().qualified),
        evidence=(("partitions", names),),
        fix=fix,
        verdict="refuse",
    )


def built_in_parts(scene: Scene, drafts: Drafts) -> Drafts:
    """Rule 23: CONCURRENTLY fails on a partitioned table; its parts are built one by one.

    The last rule, so that only what is built takes names and indexes of the partitions.
    """
    building = [draft for draft in drafts if draft.verdict is None]
    taken = _Taken(
        {(item.schema, item.name) for item in scene.catalog.relations}
        | {(d.table().schema, d.index.name or "") for d in building}
    )
    return tuple(
        _in_parts(scene, draft, taken)
        if draft.verdict is None and draft.table().kind == "partitioned table"
        else draft
        for draft in drafts
    )


def _in_parts(scene: Scene, draft: Draft, taken: _Taken) -> Draft:
    catalog, table = scene.catalog, draft.table()
    parts = tuple(_way(scene, draft, taken))
    count = sum(1 for part in partitions_of(catalog, table) if part.kind == "table")
    adopted = sum(bool(part.restore) for part in parts)
    draft = draft.found(
        "partitioned-table",
        "info",
        f"{table.qualified} is partitioned, and CONCURRENTLY cannot build an index on all its "
        "parts: it is built part by part",
        subject=str(table.qualified),
        evidence=(
            ("built", "ON ONLY the parent, each leaf concurrently, then attached"),
            ("partitions", count),
            *((("adopted", adopted),) if adopted else ()),
        ),
        fix="; ".join(part.statement for part in parts),
    )
    return replace(
        draft,
        corrected=draft.corrected or draft.statement.index.concurrently,
        parts=tuple(part.statement for part in parts),
        restores=tuple(part.restore for part in parts if part.restore),
    )


def _missing_key(catalog: Catalog, draft: Draft) -> str:
    """Name the parts of the partition key that a unique index lacks."""
    if not draft.index.unique:
        return ""
    table, keys = draft.table(), {key.column for key in draft.planned().keys}
    columns = {column.number: sql.quote(column.name) for column in catalog.columns_of(table.oid)}
    lacking = [int(number) for number in table.partition_key.split() if int(number) not in keys]
    return ", ".join(columns.get(number, "an expression") for number in lacking)


@dataclass(frozen=True, slots=True)
class _Part:
    """One of the statements that build the index of a partitioned table."""

    statement: str
    restore: str = ""
    """Builds again what goes with the parent, of an index that was there before."""


class _Taken:
    """The names and the indexes of partitions that are no longer free."""

    def __init__(self, names: set[tuple[str, str]]):
        self._names = names
        self._adopted: set[int] = set()

    def name(self, part: Relation, planned: str) -> sql.RelationName:
        """Call the index of a partition after the partition and the planned index."""
        number = 0
        while (part.schema, name := part_name(part.name, planned, number)) in self._names:
            number += 1
        self._names.add((part.schema, name))
        return sql.RelationName(part.schema, name)

    def adopt(self, index: Index) -> bool:
        """Return whether an index is free to be attached, which it then is no more."""
        free = index.oid not in self._adopted
        self._adopted.add(index.oid)
        return free


def _way(scene: Scene, draft: Draft, taken: _Taken) -> Iterator[_Part]:
    """Write the statements that build an index on a partitioned table without blocking writers.

    An equal index that a partition has already is attached instead of built again.
    """
    table, name = draft.table(), draft.index.name or ""
    existing = scene.catalog.index(table.schema, name)
    if existing is not None and scene.dropped_before(existing.oid, draft.place):
        existing = None
    if existing is None:
        yield _Part(_on_only(draft, table, name))
    yield from _below(
        scene, draft, _Above(table, sql.RelationName(table.schema, name), existing), taken
    )


@dataclass(frozen=True, slots=True)
class _Above:
    """A partitioned table and the index on it that those of its partitions are attached to."""

    table: Relation
    index: sql.RelationName
    existing: Index | None


def _below(scene: Scene, draft: Draft, above: _Above, taken: _Taken) -> Iterator[_Part]:
    for part in direct_partitions(scene.catalog, above.table):
        partitioned = part.kind == "partitioned table"
        there = _equal_on(scene, draft, part, above.existing)
        attached = there is not None and there.parent is not None
        if there is not None and not attached and not taken.adopt(there):
            there = None
        name = taken.name(part, draft.index.name or "") if there is None else there.qualified
        if there is None:
            yield _Part((_on_only if partitioned else _on_leaf)(draft, part, name.name))
        if partitioned:
            yield from _below(scene, draft, _Above(part, name, there), taken)
        if not attached:
            again = there is not None and there.usable and not partitioned
            yield _Part(
                f"ALTER INDEX {above.index} ATTACH PARTITION {name}",
                restore_sql(scene.catalog, there) if again and there is not None else "",
            )


def _on_leaf(draft: Draft, table: Relation, name: str) -> str:
    return draft.index.revise(
        name=name, table=table.qualified, concurrently=True, if_not_exists=False, only=False
    ).sql


def _on_only(draft: Draft, table: Relation, name: str) -> str:
    return draft.index.revise(
        name=name, table=table.qualified, concurrently=False, if_not_exists=False, only=True
    ).sql


def _equal_on(scene: Scene, draft: Draft, part: Relation, above: Index | None) -> Index | None:
    """Return the index of a partition that is the planned one there: attached, or free to be.

    Args:
        scene: what exists and what the plan drops of it.
        draft: the planned index of the whole.
        part: the partition.
        above: the index that it is to be attached to, if that exists.
    """
    wanted = scene.catalog.wanted(draft.index.revise(table=part.qualified))
    if not isinstance(wanted, Index):
        return None
    equal = [item for item in scene.catalog.indexes_of(part.oid) if item.equals(wanted)]
    ranked = (
        *(item for item in equal if above is not None and item.parent == above.oid),
        *(
            item
            for item in equal
            if item.parent is None
            and item.constraint is None
            and (item.usable or part.kind == "partitioned table")
            and not scene.drops(item)
        ),
    )
    return next(iter(ranked), None)
