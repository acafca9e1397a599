"""What is left to do for an index on a partitioned table; pure, the catalog decides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from psycopg import sql as compose

from indexlab.apply.statements import drop_sql, identifier
from indexlab.apply.steps import Step
from indexlab.catalog import (
    Catalog,
    Index,
    Relation,
    direct_partitions,
    part_name,
    partitions_of,
)
from indexlab.plan import CreateIndex, IndexPlan, revised
from indexlab.sql import RelationName

Kind = Literal["only", "leaf", "attach"]
ORDER: tuple[Kind, ...] = ("only", "leaf", "attach")
"""Leaves are tables of their own, so that they may be built side by side; none needs another."""


@dataclass(frozen=True, slots=True)
class Part:
    """One statement of many that make an index of a partitioned table."""

    kind: Kind
    """`only`: the index of a partitioned table alone. `leaf`: that of a partition. `attach`."""
    step: Step
    adopted: bool = False
    """Whether the index that is attached was there before."""
    bytes: int = 0
    """Size of the table of a leaf."""


def todo(catalog: Catalog, step: Step) -> tuple[Part, ...]:
    """Return what is left to do, in order; empty when every partition is attached.

    The leaves are in the order of their sizes, the largest first, so that jobs end together.

    Args:
        catalog: read with `leaves` as the plan, so that expressions compare on every partition.
        step: the planned index on the root.
    """
    assert isinstance(step.planned, CreateIndex)
    assert step.on is not None
    root = catalog.find(step.on)
    if root is None:
        return ()
    taken = {(item.schema, item.name) for item in catalog.relations}
    there = None if step.name.schema is None else catalog.index(step.name.schema, step.name.name)
    found = _below(catalog, step, _Above(root, step.name, there), taken)
    return tuple(sorted(found, key=lambda part: (ORDER.index(part.kind), -part.bytes)))


def leaves(catalog: Catalog, step: Step) -> IndexPlan:
    """Return the planned index as it would be on the root and on each of its partitions."""
    assert isinstance(step.planned, CreateIndex)
    assert step.on is not None
    root = catalog.find(step.on)
    tables = [] if root is None else [root, *partitions_of(catalog, root)]
    creates = (
        revised(step.planned, step.planned.index.revise(table=item.qualified)) for item in tables
    )
    return IndexPlan(tuple(replace(item, search_path=step.planned.search_path) for item in creates))


@dataclass(frozen=True, slots=True)
class _Above:
    """A partitioned table, and the index on it that those of its partitions are attached to."""

    table: Relation
    name: RelationName
    there: Index | None


def _below(
    catalog: Catalog, step: Step, above: _Above, taken: set[tuple[str, str]]
) -> Iterator[Part]:
    there = above.there
    if there is None:
        yield Part("only", _part_step(step, above.table, above.name, only=True))
    for part in direct_partitions(catalog, above.table):
        partitioned = part.kind == "partitioned table"
        found = _serving(catalog, step, part, None if there is None else there.oid)
        attached = found is not None and there is not None and found.parent == there.oid
        if attached and not partitioned:
            continue
        child = found.qualified if found is not None else _free_name(part, step.name, taken)
        ready = found is not None and found.usable and not partitioned
        if partitioned:
            yield from _below(catalog, step, _Above(part, child, found), taken)
        elif not ready:
            yield Part("leaf", _part_step(step, part, child, only=False), bytes=part.bytes)
        # What bears the name of a part of ours was left by an earlier run.
        others = found is not None and found.name != part_name(part.name, step.name.name)
        adopted = found is not None and ready and others
        if not attached:
            yield Part("attach", attach_step(step, part, above.name, child), adopted)


def _serving(catalog: Catalog, step: Step, part: Relation, parent: int | None) -> Index | None:
    """Return the index of a partition that serves: attached, ready to be, or ours half done."""
    assert isinstance(step.planned, CreateIndex)
    wanted = catalog.wanted(
        step.planned.index.revise(table=part.qualified), step.planned.search_path
    )
    if not isinstance(wanted, Index):
        return None
    equal = [
        item
        for item in catalog.indexes_of(part.oid)
        if item.equals(wanted) and item.qualified not in step.doomed
    ]
    partitioned = part.kind == "partitioned table"
    ours = part_name(part.name, step.name.name)
    free = [item for item in equal if item.parent is None and item.constraint is None]
    ranked = (
        *(item for item in equal if parent is not None and item.parent == parent),
        *(item for item in free if item.usable or partitioned),
        *(item for item in free if item.name == ours),
    )
    return next(iter(ranked), None)


def _free_name(part: Relation, planned: RelationName, taken: set[tuple[str, str]]) -> RelationName:
    number = 0
    while (part.schema, name := part_name(part.name, planned.name, number)) in taken:
        number += 1
    taken.add((part.schema, name))
    return RelationName(part.schema, name)


def _part_step(step: Step, table: Relation, name: RelationName, *, only: bool) -> Step:
    """Build the index of one partition, or that of a partitioned table alone.

    The latter takes a moment and is invalid until the indexes of all parts are attached to it.
    """
    assert isinstance(step.planned, CreateIndex)
    index = step.planned.index.revise(
        name=name.name,
        table=table.qualified,
        concurrently=not only,
        if_not_exists=False,
        only=only,
    )
    return replace(
        step,
        name=name,
        on=table.qualified,
        action="build",
        statement=index.sql,
        planned=replace(revised(step.planned, index), search_path=step.planned.search_path),
        reason=f"part of {step.index}",
        part_of=step.index,
        undo=drop_sql(name, if_exists=True, concurrently=not only),
    )


ATTACH = compose.SQL("ALTER INDEX {} ATTACH PARTITION {}")


def attach_step(step: Step, table: Relation, parent: RelationName, child: RelationName) -> Step:
    """Attach the index of a partition to that of its parent."""
    statement = ATTACH.format(identifier(parent), identifier(child)).as_string(None)
    return replace(
        step,
        name=child,
        on=table.qualified,
        statement=statement,
        reason=f"attached to {parent}",
        part_of=step.index,
        undo="",
    )
