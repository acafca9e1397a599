"""Read rows of the target without hurting it: one query, READ ONLY, for some seconds at most."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql as compose

from indexlab import sql, units
from indexlab.catalog import Catalog, Relation
from indexlab.catalog.partitions import bytes_of, partitions_of

TIMEOUT_MS = 5_000
LARGEST_BYTES = 1 << 30
"""Tables above this size are not read."""

# One message, so that it costs one round trip; the server limits each of its statements.
BOUNDED = """
BEGIN TRANSACTION READ ONLY;
SET LOCAL statement_timeout = {timeout};
SET LOCAL jit = off;
SET LOCAL max_parallel_workers_per_gather = 0;
{query} {mark};
COMMIT
"""
ANSWER = 4
"""Which of the statements has the rows."""


def not_to_be_read(catalog: Catalog, table: Relation) -> str:
    """Say why the rows of a table are left alone; empty if they may be read. Pure."""
    if not table.readable:
        return "the role may not read the table"
    oids = {part.oid for part in (table, *partitions_of(catalog, table))}
    if any(r.kind == "foreign table" and r.parent in oids for r in catalog.relations):
        return "a partition is a foreign table"
    size = bytes_of(catalog, table)
    return f"the table has {units.size(size)}" if size > LARGEST_BYTES else ""


def rows_of(table: Relation) -> compose.Composed:
    """Name the rows that an index on a table covers: its partitions', but no children's; pure."""
    only = compose.SQL("" if table.kind == "partitioned table" else "ONLY ")
    return only + compose.Identifier(table.schema, table.name)


def one_row(conn: psycopg.Connection[Any], query: compose.Composed) -> tuple[Any, ...]:
    """Run a query that has one row, in one round trip; reads only.

    It takes no lock but ACCESS SHARE, and no second process.

    Args:
        conn: a connection to the target, in autocommit mode and outside of a transaction.
        query: without parameters, made of what the grammar has accepted.

    Raises:
        psycopg.Error: what the server says against it; the transaction is over then.
    """
    message = compose.SQL(BOUNDED).format(
        timeout=compose.Literal(TIMEOUT_MS), query=query, mark=compose.SQL(sql.OWN)
    )
    try:
        cursor = conn.execute(message)
    except psycopg.Error:
        if not conn.closed:
            conn.execute("ROLLBACK")
        raise
    for _ in range(ANSWER):
        cursor.nextset()
    row: tuple[Any, ...] | None = cursor.fetchone()
    assert row is not None
    return row


def too_long() -> str:
    """Say that a query took too long; pure."""
    return f"that took more than {TIMEOUT_MS // 1000} s"
