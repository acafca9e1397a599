"""What the workload does to columns: which it updates, and which values it asks them for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from indexlab import sql
from indexlab.catalog import Catalog, Relation
from indexlab.sizes.selectivity import column_name, constant
from indexlab.sql import RelationName
from indexlab.workload import Workload


@dataclass(frozen=True, slots=True)
class Update:
    """What an UPDATE of the workload sets."""

    query: str
    table: int
    columns: frozenset[str]


@dataclass(frozen=True, slots=True)
class Asked:
    """A column that a query of the workload compares by `=`."""

    query: str
    table: int
    column: str
    value: str | None
    """None for a parameter or anything else that may be any value."""


def updates(catalog: Catalog, workload: Workload | None) -> Iterator[Update]:
    """Find what the workload updates in tables of the catalog; pure."""
    for query in () if workload is None else workload.writes:
        for statement in sql.parse(query.statement, query.name):
            for node in sql.nodes(statement.node, "UpdateStmt"):
                table = _meant(catalog, node.relation)
                if table is not None:
                    names = frozenset(item.res_target.name for item in node.target_list)
                    yield Update(query.name, table.oid, names)


def asked(catalog: Catalog, workload: Workload | None) -> Iterator[Asked]:
    """Find which columns the workload compares, and with which values; pure."""
    for query in () if workload is None else workload.queries:
        for statement in sql.parse(query.statement, query.name):
            tables = [
                (node.alias.aliasname or node.relname, table)
                for node in sql.nodes(statement.node, "RangeVar")
                if (table := _meant(catalog, node)) is not None
            ]
            for comparison in sql.nodes(statement.node, "A_Expr"):
                yield from _compared(catalog, query.name, comparison, tables)


def _compared(
    catalog: Catalog, query: str, node: Any, tables: list[tuple[str, Relation]]
) -> Iterator[Asked]:
    """Read one comparison; those by another operator than `=` may mean any value."""
    equals = [name.string.sval for name in node.name] == ["="]
    for side, other in ((node.lexpr, node.rexpr), (node.rexpr, node.lexpr)):
        name = column_name(side)
        if name is None:
            continue
        qualifier = _qualifier(side)
        meant = {
            table.oid
            for alias, table in tables
            if qualifier in (None, alias) and catalog.column(table.oid, name) is not None
        }
        values = [constant(item) for item in _operands(other)] if equals else [None]
        for table in meant:
            yield from (Asked(query, table, name, value) for value in values)


def _operands(node: Any) -> list[Any]:
    return list(node.list.items) if node.WhichOneof("node") == "list" else [node]


def _qualifier(node: Any) -> str | None:
    while node.WhichOneof("node") == "type_cast":
        node = node.type_cast.arg
    fields = node.column_ref.fields
    return fields[-2].string.sval if len(fields) > 1 else None


def _meant(catalog: Catalog, node: Any) -> Relation | None:
    """Find a table as the server would, or in the one schema that has it."""
    found = catalog.find(RelationName(node.schemaname or None, node.relname))
    if found is not None or node.schemaname:
        return found
    elsewhere = catalog.elsewhere(node.relname)
    return elsewhere[0] if len(elsewhere) == 1 else None
