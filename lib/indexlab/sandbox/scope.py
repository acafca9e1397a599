"""Which relations of a target a sandbox needs, and which of them it cannot have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg

from indexlab import sql
from indexlab.catalog import Catalog, Relation
from indexlab.plan import IndexPlan
from indexlab.sandbox.whatif import Lacking
from indexlab.sql import RelationName
from indexlab.workload import Workload

COPIED = ("table", "partitioned table", "materialized view", "view")

# What a view reads, by its rule; a parent by its children and the other way round.
NEIGHBOURS = """
SELECT r.ev_class::bigint AS relation,
       d.refobjid::bigint AS needed
  FROM pg_catalog.pg_rewrite AS r
  JOIN pg_catalog.pg_depend AS d
    ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
   AND d.objid = r.oid
   AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
   AND d.refobjid <> r.ev_class
 WHERE r.oid >= 16384
 UNION
SELECT h.inhrelid::bigint,
       h.inhparent::bigint
  FROM pg_catalog.pg_inherits AS h
 UNION
SELECT h.inhparent::bigint,
       h.inhrelid::bigint
  FROM pg_catalog.pg_inherits AS h
 ORDER BY relation, needed
"""

CLOSED_SCHEMAS = """
SELECT n.nspname
  FROM pg_catalog.pg_namespace AS n
 WHERE NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE')
 ORDER BY n.nspname
"""

GUARDED = """
SELECT c.oid::bigint
  FROM pg_catalog.pg_class AS c
 WHERE c.relrowsecurity
   AND pg_catalog.row_security_active(c.oid)
 ORDER BY c.oid
"""


@dataclass(frozen=True, slots=True)
class Scope:
    """The relations to copy."""

    relations: tuple[Relation, ...]
    """Tables, views and materialized views, by name; their indexes come along."""
    lacking: tuple[Lacking, ...]
    """What is wanted, too, and may not be read or cannot be had."""
    whole: bool
    """Whether nothing that can be copied is left out."""
    planned: tuple[int, ...]
    """Oids of the tables that the plan is about, with their partitions."""
    guarded: tuple[Relation, ...]
    """Those whose statistics row security hides from the role."""


def read_scope(
    conn: psycopg.Connection[Any],
    catalog: Catalog,
    plan: IndexPlan | None,
    workload: Workload | None,
    *,
    whole: bool,
) -> Scope:
    """Find what a plan and a workload need of a target; reads only."""
    neighbours: defaultdict[int, set[int]] = defaultdict(set)
    for relation, needed in conn.execute(NEIGHBOURS):
        neighbours[relation].add(needed)
    for key in catalog.foreign_keys:
        neighbours[key.table].add(key.referenced)
    closed = {name for (name,) in conn.execute(CLOSED_SCHEMAS)}
    guarded = {oid for (oid,) in conn.execute(GUARDED)}
    planned = set(_named(catalog, plan))
    wanted = {item.oid for item in catalog.relations} if whole else set(planned)
    wanted |= {item.oid for item in _asked(catalog, workload)}
    reached = _closure(wanted, neighbours)
    relations, lacking = [], []
    for item in catalog.relations:
        if item.oid not in reached or item.kind not in (*COPIED, "foreign table"):
            continue
        reason = _missing(item, closed)
        if reason:
            lacking.append(Lacking(f"{item.kind} {item.qualified}", reason))
        else:
            relations.append(item)
    there = {item.oid for item in relations}
    return Scope(
        tuple(relations),
        tuple(lacking),
        planned=tuple(
            item.oid for item in relations if item.oid in planned or item.parent in planned
        ),
        whole=all(item.oid in there for item in catalog.relations if item.kind in COPIED),
        guarded=tuple(item for item in relations if item.oid in guarded),
    )


def _named(catalog: Catalog, plan: IndexPlan | None) -> Iterator[int]:
    """The tables of planned indexes, and of those that the plan drops."""
    if plan is None:
        return
    for create in plan.creates:
        found = _found(catalog, create.index.table, create.search_path)
        yield from (item.oid for item in found)
    for drop in plan.drops:
        for name in drop.names:
            for item in _found(catalog, name, drop.search_path):
                index = catalog.index(item.schema, item.name)
                if index is not None:
                    yield index.table


def _asked(catalog: Catalog, workload: Workload | None) -> Iterator[Relation]:
    """The relations that the queries of a workload name."""
    for query in () if workload is None else workload.queries:
        for statement in sql.parse(query.statement, query.name):
            for node in sql.nodes(statement.node, "RangeVar"):
                name = RelationName(node.schemaname or None, node.relname)
                yield from _found(catalog, name, None)


def _found(
    catalog: Catalog, name: RelationName, search_path: tuple[str, ...] | None
) -> tuple[Relation, ...]:
    """What a name means, or may mean where a plan is still to be corrected."""
    found = catalog.find(name, search_path)
    return catalog.elsewhere(name.name) if found is None else (found,)


def _closure(start: Iterable[int], neighbours: dict[int, set[int]]) -> set[int]:
    reached: set[int] = set()
    waiting = list(start)
    while waiting:
        oid = waiting.pop()
        if oid not in reached:
            reached.add(oid)
            waiting += neighbours.get(oid, ())
    return reached


def _missing(item: Relation, closed: set[str]) -> str:
    if item.kind == "foreign table":
        return "its rows, and what reading them costs, are another server's"
    if item.schema in closed:
        return f"the role lacks USAGE on schema {sql.quote(item.schema)}"
    if not item.readable:
        return f"the role lacks SELECT on {item.qualified}"
    return ""
