"""Which tables a query may read, and which indexes its plans use."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import psycopg

from indexlab import sql
from indexlab.catalog import INDEXABLE, Catalog, Index
from indexlab.explain import Explain, Node
from indexlab.sql import RelationName
from indexlab.workload import Workload


def relation_of(node: Node) -> RelationName:
    """Return the relation that a step reads; only for steps that have one."""
    return RelationName(node.schema, node.table[-1])


class Names:
    """Names of indexes as a plan has them, and as the plan's author or the target has them."""

    def __init__(self, catalog: Catalog):
        self.catalog = catalog
        self.planned: dict[RelationName, str] = {}

    def learn(self, index: RelationName, name: str) -> None:
        """Note what a planned index, or a part of it, is called in a plan."""
        self.planned[index] = name

    def used(self, explain: Explain) -> tuple[str, ...]:
        """Return the indexes of a plan with their schemas; of a part, the partitioned one."""
        return tuple(sorted({self._name(found) for found in _indexes(explain.root, None)}))

    def _name(self, found: RelationName) -> str:
        if found in self.planned:
            return self.planned[found]
        index = self.catalog.index(found.schema or "", found.name)
        while index is not None and index.parent is not None:
            parent = self.catalog.relation(index.parent)
            above = self.catalog.index(parent.schema, parent.name)
            if above is None:
                break
            index = above
        return str(found if index is None else index.qualified)


def _indexes(node: Node, schema: str | None) -> Iterator[RelationName]:
    """Find the indexes of a plan; an index lives in the schema of its table, the step above."""
    schema = node.schema or schema
    if node.index:
        yield RelationName(schema, node.index)
    for child in node.children:
        yield from _indexes(child, schema)


class Families:
    """Tables with their partitions and children: a plan may show any of them."""

    def __init__(self, catalog: Catalog):
        self.catalog = catalog
        self.members: dict[int, set[int]] = {}
        self.root = functools.cache(self._root)
        for relation in catalog.relations:
            if relation.parent is not None:
                self.members.setdefault(self.root(relation.oid), set()).add(relation.oid)

    def _root(self, oid: int) -> int:
        seen = {oid}
        while (parent := self.catalog.relation(oid).parent) is not None and parent not in seen:
            oid = parent
            seen.add(oid)
        return oid

    def widened(self, tables: Iterable[int]) -> frozenset[int]:
        """Return the tables with all their relatives."""
        roots = {self.root(oid) for oid in tables}
        return frozenset(roots.union(*(self.members.get(root, ()) for root in roots)))

    def mentioned(self, statement: str) -> frozenset[int]:
        """Return the tables that a statement names; those of a view show in its plan only."""
        found = (self.meant(name) for name in relations(statement))
        return frozenset(oid for oid in found if oid is not None)

    def meant(self, name: RelationName) -> int | None:
        """Return the table of this name; None for a view and whatever else is no table."""
        relation = self.catalog.find(name)
        return relation.oid if relation is not None and relation.kind in INDEXABLE else None


def with_parts(catalog: Catalog, indexes: Iterable[Index]) -> frozenset[Index]:
    """Return indexes with those of the partitions that are attached to them, at every depth; pure."""
    below: dict[int, list[Index]] = {}
    for index in catalog.indexes:
        if index.parent is not None:
            below.setdefault(index.parent, []).append(index)
    found: set[Index] = set()
    open_ = list(indexes)
    while open_:
        index = open_.pop()
        found.add(index)
        open_ += below.get(index.oid, ())
    return frozenset(found)


def relations(statement: str) -> tuple[RelationName, ...]:
    """Return the relations that a statement names, without those that it defines itself; pure."""
    found: list[RelationName] = []
    for parsed in sql.parse(statement, "<query>"):
        own = {node.ctename for node in sql.nodes(parsed.node, "CommonTableExpr")}
        for node in sql.nodes(parsed.node, "RangeVar"):
            if node.schemaname or node.relname not in own:
                found.append(RelationName(node.schemaname or None, node.relname))
    return tuple(dict.fromkeys(found))


# A function of these languages has no queries that the planner could use an index for, and what
# calls itself immutable reads no table.
OPAQUE = """
SELECT n.nspname,
       p.proname
  FROM pg_catalog.pg_proc AS p
  JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
 WHERE p.proname = ANY (%s)
   AND p.provolatile <> 'i'
   AND l.lanname NOT IN ('internal', 'c')
   AND n.nspname NOT IN ('pg_catalog', 'information_schema')
 ORDER BY n.nspname, p.proname
"""


def opaque(conn: psycopg.Connection[Any], workload: Workload) -> dict[str, str]:
    """Find the queries that call functions with queries of their own; reads only.

    Args:
        conn: a connection to the target.
        workload: the queries.

    Returns:
        In words what the planner does not see, by the name of the query.
    """
    called: dict[str, set[str]] = {}
    for query in workload.queries:
        for parsed in sql.parse(query.statement, query.name):
            called[query.name] = {
                node.funcname[-1].string.sval for node in sql.nodes(parsed.node, "FuncCall")
            }
    names = sorted(set().union(*called.values()))
    if not names:
        return {}
    rows = conn.execute(OPAQUE, [names]).fetchall()
    written = {name: str(RelationName(schema, name)) for schema, name in rows}
    return {
        query: "calls " + ", ".join(written[name] for name in sorted(mine & written.keys()))
        for query, mine in called.items()
        if mine & written.keys()
    }
