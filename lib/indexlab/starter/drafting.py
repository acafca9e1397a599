"""Draft a plan and a workload from what a database tells: its foreign keys, what it has run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql as compose

from indexlab import audit as auditing
from indexlab import plan as plans
from indexlab import sql, statements
from indexlab import workload as workloads
from indexlab.audit import Audit, Finding
from indexlab.catalog import Catalog, ForeignKey, Relation
from indexlab.errors import InputError
from indexlab.plan import IndexPlan
from indexlab.records import Record

MOST_INDEXES = 20
MOST_QUERIES = 10
SECONDS = 5
"""A look into a table that takes longer is given up."""
LIMIT = "SELECT pg_catalog.set_config('statement_timeout', %s, false)"
READ_TABLES = ("table", "partitioned table")


@dataclass(frozen=True, slots=True)
class Draft(Record):
    """What a folder begins with; texts that the kit's own grammar reads."""

    indexes: tuple[str, ...] = ()
    """Statements of the plan, each with its reason above."""
    left: int = 0
    """So many more were left out."""
    queries: tuple[str, ...] = ()
    """Blocks of the workload."""
    origin: str = ""
    """Where the queries come from, in words."""
    notes: tuple[str, ...] = ()
    """What could not be drafted, and why."""


def examples() -> Draft:
    """Return a draft of which plan and workload are examples in comments; pure."""
    return Draft()


def draft(conn: psycopg.Connection[Any], other: psycopg.Connection[Any]) -> Draft:
    """Draft a plan and a workload from a database; reads only.

    The plan begins with the foreign keys that no index serves. The workload begins with what
    pg_stat_statements counted, or else with a query for each foreign key of the largest tables.

    Args:
        conn: a connection in autocommit mode.
        other: another one to the same database.
    """
    conn.execute(LIMIT, [f"{SECONDS}s"])
    catalog, audit = auditing.read(conn, IndexPlan((), "none"), other=other)
    indexes = tuple(_indexes(audit))
    recorded = statements.read(conn)
    if recorded.recorded:
        queries = tuple(one.block() for one in recorded.recorded)
        origin = "pg_stat_statements, weights are calls"
    else:
        queries = tuple(_queries(catalog, lambda table: _has_rows(conn, table)))
        origin = "the foreign keys of the largest tables; write your own queries in their place"
    notes = () if recorded.recorded else (recorded.reason,)
    if not queries:
        notes = (*notes, "No query could be drafted from foreign keys either.")
    return Draft(
        indexes[:MOST_INDEXES],
        max(0, len(indexes) - MOST_INDEXES),
        queries,
        origin if queries else "",
        notes,
    )


def _indexes(audit: Audit) -> Iterator[str]:
    """Write what the audit advises beside any plan, the largest tables first; pure."""
    advice = [item for item in audit.advice if item.rule == "foreign-key-without-index"]
    for finding in sorted(advice, key=lambda item: -int(dict(item.evidence)["rows"])):
        block = f"-- {_line(finding)}\n{finding.fix};\n"
        try:
            read = plans.parse(block, "<draft>").statements
        except InputError:
            continue
        if len(read) == 1:
            yield block


def _line(finding: Finding) -> str:
    return " ".join(finding.message.split())


def _queries(catalog: Catalog, has_rows: Any) -> Iterator[str]:
    """Write a query for each foreign key of the largest tables that have rows."""
    found = [(catalog.relation(key.table), key) for key in catalog.foreign_keys]
    readable = [
        (table, key)
        for table, key in found
        if table.kind in READ_TABLES and table.readable and not table.is_partition
    ]
    readable.sort(key=lambda pair: (-pair[0].rows, str(pair[0].qualified), pair[1].name))
    names: set[str] = set()
    for table, key in readable:
        if len(names) == MOST_QUERIES:
            return
        name, block = _block(catalog, table, key)
        if name not in names and _is_read_back(name, block) and has_rows(table):
            names.add(name)
            yield block


# Text of a file that its owner reads before anything runs it; its names are quoted.
BLOCK = """\
-- name: {name}
-- weight: 1
-- param {parameters}: SELECT {columns} FROM {table} WHERE {known} LIMIT 200
SELECT * FROM {table} WHERE {wanted} LIMIT 100;
"""


def _block(catalog: Catalog, table: Relation, key: ForeignKey) -> tuple[str, str]:
    columns = {column.number: column.name for column in catalog.columns_of(table.oid)}
    own = [columns[number] for number in key.columns]
    quoted = [sql.quote(column) for column in own]
    parameters = [
        column if column.isidentifier() and column.isascii() else f"value_{number}"
        for number, column in enumerate(own, 1)
    ]
    name = f"{table.name}_by_{'_'.join(own)}"
    known = " AND ".join(f"{column} IS NOT NULL" for column in quoted)
    wanted = " AND ".join(
        f"{column} = :{parameter}" for column, parameter in zip(quoted, parameters, strict=True)
    )
    return name, BLOCK.format(
        name=name,
        parameters=", ".join(parameters),
        columns=", ".join(quoted),
        table=table.qualified,
        known=known,
        wanted=wanted,
    )


def _is_read_back(name: str, block: str) -> bool:
    """Whether the grammar reads one query of this name: a name may hold anything, a line's end, too."""
    try:
        read = workloads.parse(block, "<draft>").queries
    except InputError:
        return False
    return [query.name for query in read] == [name]


HAS_ROWS = compose.SQL("SELECT EXISTS (SELECT FROM {table}) {mark}")


def _has_rows(conn: psycopg.Connection[Any], table: Relation) -> bool:
    name = compose.Identifier(table.schema, table.name)
    try:
        row = conn.execute(HAS_ROWS.format(table=name, mark=compose.SQL(sql.OWN))).fetchone()
    except psycopg.Error:  # locked, or nothing but dead rows
        return False
    return row is not None and bool(row[0])


def joined(blocks: Iterable[str]) -> tuple[str, ...]:
    """Return the blocks as they stand in a file; pure."""
    return tuple(block.rstrip("\n") + "\n" for block in blocks)
