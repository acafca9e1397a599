"""Read what the rows say against a planned index, with bounded work: values that fail or do not fit.

An index that the server builds on an empty table may yet fail on a row: a cast that does not take
its text, a number out of range, a key beyond a third of a page. Only what can fail so is read:
expressions that a server has found immutable, and plain columns where values are stored out of line.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg import sql as compose

from indexlab.audit.answers import Answer, Rows
from indexlab.audit.drafts import Draft
from indexlab.audit.duplicates import LIMITS, TIMEOUT_MS, not_to_be_read

METHODS = ("btree", "brin")
"""The methods that store whole values on their pages, and so have a limit."""

# Any value beyond a quarter of a page is out of line, unless its column forbids it.
OUT_OF_LINE = """
SELECT c.oid::bigint
  FROM pg_catalog.pg_class AS c
 WHERE c.oid = ANY (%s)
   AND c.reltoastrelid <> 0
   AND pg_catalog.pg_relation_size(c.reltoastrelid) > 0
 ORDER BY c.oid
"""
READ = """
SELECT COALESCE(max(GREATEST({stored})), 0)::bigint,
       COALESCE(max({together}), 0)::bigint
  FROM ONLY {table}
 WHERE ({predicate})
"""


def read(
    conn: psycopg.Connection[Any], drafts: Iterable[Draft], builds: Iterable[Answer]
) -> tuple[Rows, ...]:
    """Read the rows for each statement that may fail on one; reads only, some seconds at most each.

    Args:
        conn: a connection to the target, in autocommit mode.
        drafts: the planned statements, with tables and columns as corrected.
        builds: what a server made of them: an expression that it refuses is not run.
    """
    sound = {item.statement for item in builds if item.definition and not item.refusal}
    asked = {d.index.sql: d for d in drafts if d.verdict is None and d.wanted is not None}
    wide = _out_of_line(conn, {d.table().oid for d in asked.values() if _has_limit(d)})
    return tuple(
        _read(conn, draft)
        for statement, draft in asked.items()
        if (statement in sound if _computes(draft) else _has_limit(draft) and _in(draft, wide))
    )


def _computes(draft: Draft) -> bool:
    return draft.index.predicate is not None or any(k.column is None for k in draft.index.keys)


def _has_limit(draft: Draft) -> bool:
    return draft.planned().method in METHODS


def _in(draft: Draft, tables: frozenset[int]) -> bool:
    return draft.table().oid in tables


def _out_of_line(conn: psycopg.Connection[Any], tables: set[int]) -> frozenset[int]:
    if not tables:
        return frozenset()
    return frozenset(oid for (oid,) in conn.execute(OUT_OF_LINE, [sorted(tables)]))


def _read(conn: psycopg.Connection[Any], draft: Draft) -> Rows:
    statement, table = draft.index.sql, draft.table()
    why = not_to_be_read(table)
    if why:
        return Rows(statement, unread=why)
    try:
        with conn.transaction():
            conn.execute("SET TRANSACTION READ ONLY")
            conn.execute(LIMITS, [str(TIMEOUT_MS)])
            row = conn.execute(_query(draft)).fetchone()
    except psycopg.errors.QueryCanceled:
        return Rows(statement, unread=f"that took more than {TIMEOUT_MS // 1000} s")
    except psycopg.OperationalError:
        raise
    except psycopg.DataError as error:
        return Rows(statement, refusal=_words(error))
    except psycopg.Error as error:
        return Rows(statement, unread=_words(error))
    value, together = row or (0, 0)
    return Rows(statement, widest_value=value, widest_row=together)


def _words(error: psycopg.Error) -> str:
    """Name the condition; the server's message may quote the value of a row."""
    name = "".join(f" {c.lower()}" if c.isupper() else c for c in type(error).__name__)
    return f"{name.strip()} ({error.sqlstate})"


def _query(draft: Draft) -> compose.Composed:
    index, table = draft.index, draft.table()
    columns = [key.column for key in index.keys if key.column] + [*index.include]
    stored = [
        compose.SQL("pg_catalog.pg_column_size({})").format(compose.Identifier(name))
        for name in columns
    ]
    computed = [
        compose.SQL("pg_catalog.pg_column_size(({}))").format(compose.SQL(key.expression))
        for key in index.keys
        if key.column is None
    ]
    together = [compose.SQL("COALESCE({}, 0)").format(size) for size in (*stored, *computed)]
    return compose.SQL(READ).format(
        stored=compose.SQL(", ").join([compose.SQL("0"), *stored]),
        together=compose.SQL(" + ").join(together),
        table=compose.Identifier(table.schema, table.name),
        predicate=compose.SQL(index.predicate or "true"),
    )
