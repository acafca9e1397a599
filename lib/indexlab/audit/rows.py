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
from indexlab.audit.bounded import not_to_be_read, one_row, rows_of, too_long
from indexlab.audit.drafts import Draft
from indexlab.catalog import Catalog
from indexlab.progress import Tell, silent

METHODS = ("btree", "brin")
"""The methods that store whole values on their pages, and so have a limit."""
BTREE_MOST = 2704
"""Bytes that a key of a btree may take: BTMaxItemSize."""

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
       COALESCE(max(GREATEST({final})), 0)::bigint,
       COALESCE(max({together}), 0)::bigint
  FROM {table}
 WHERE ({predicate})
"""
# An index takes a compressed value as it is, and compresses another one unless its column forbids.
FINAL = """
CASE WHEN {compressed}
       OR (SELECT a.attstorage IN ('e', 'p')
             FROM pg_catalog.pg_attribute AS a
            WHERE a.attrelid = {oid}
              AND a.attname = {name})
     THEN pg_catalog.pg_column_size({column})
END
"""
COMPRESSED = "pg_catalog.pg_column_compression({column}) IS NOT NULL"
COMPRESSION = 140000
"""The first version that tells whether a value is compressed."""
# Both pglz and lz4 write at least as many bytes as there are different runs of three, less a few: a
# run that is new is no beginning of a match, and at most two (three) new ones reach into each match.
RUNS = """
SELECT count(DISTINCT substring(w.bytes FROM s.place FOR 3))
  FROM (SELECT substring(pg_catalog.convert_to({column}::text, pg_catalog.getdatabaseencoding())
                         FROM 1 FOR 16000) AS bytes
          FROM {table}
         WHERE ({predicate})
           AND pg_catalog.pg_typeof({column})::oid IN (25, 1042, 1043)
           AND pg_catalog.pg_column_size({column}) > 2704
         ORDER BY pg_catalog.pg_column_size({column}) DESC
         LIMIT 1) AS w
 CROSS JOIN generate_series(1, length(w.bytes) - 2) AS s (place)
"""
SURELY_WIDE = 2720
"""Runs that make a compressed value too wide for a btree, headers and the like included."""


def read(
    conn: psycopg.Connection[Any],
    catalog: Catalog,
    drafts: Iterable[Draft],
    builds: Iterable[Answer],
    tell: Tell = silent,
) -> tuple[Rows, ...]:
    """Read the rows for each statement that may fail on one; reads only, some seconds at most each.

    Args:
        conn: a connection to the target, in autocommit mode.
        catalog: the target.
        drafts: the planned statements, with tables and columns as corrected.
        builds: what a server made of them: an expression that it refuses is not run.
        tell: is told which rows are read.
    """
    sound = {item.statement for item in builds if item.definition and not item.refusal}
    asked = {d.index.sql: d for d in drafts if d.verdict is None and d.wanted is not None}
    wide = _out_of_line(conn, {d.table().oid for d in asked.values() if _has_limit(d)})
    read_ = [
        draft
        for statement, draft in asked.items()
        if (statement in sound if _computes(draft) else _has_limit(draft) and _in(draft, wide))
    ]
    found = []
    for number, draft in enumerate(read_):
        tell(f"reading the rows for {draft.label}", number / len(read_))
        found.append(_read(conn, catalog, draft))
    return tuple(found)


def _computes(draft: Draft) -> bool:
    return draft.index.predicate is not None or any(k.column is None for k in draft.index.keys)


def _has_limit(draft: Draft) -> bool:
    return draft.planned().method in METHODS


def _in(draft: Draft, tables: frozenset[int]) -> bool:
    # The values of a partitioned table are with its partitions.
    return draft.table().oid in tables or draft.table().kind == "partitioned table"


def _out_of_line(conn: psycopg.Connection[Any], tables: set[int]) -> frozenset[int]:
    if not tables:
        return frozenset()
    return frozenset(oid for (oid,) in conn.execute(OUT_OF_LINE, [sorted(tables)]))


def _read(conn: psycopg.Connection[Any], catalog: Catalog, draft: Draft) -> Rows:
    statement, table = draft.index.sql, draft.table()
    why = not_to_be_read(catalog, table)
    if why:
        return Rows(statement, unread=why)
    try:
        widest, final, together = one_row(conn, _query(draft, conn.info.server_version))
        if widest > BTREE_MOST >= final and draft.planned().method == "btree":
            final = _surely(conn, draft, widest)
    except psycopg.errors.QueryCanceled:
        return Rows(statement, unread=too_long())
    except psycopg.DataError as error:
        return Rows(statement, refusal=_words(error))
    except psycopg.Error as error:
        if conn.closed:
            raise
        return Rows(statement, unread=_words(error))
    return Rows(statement, widest_value=final, widest_row=together)


def _surely(conn: psycopg.Connection[Any], draft: Draft, widest: int) -> int:
    """Return the widest value if no compression makes it fit, and else nothing; reads only."""
    for name in _columns(draft):
        query = compose.SQL(RUNS).format(column=compose.Identifier(name), **_rows_of(draft))
        (runs,) = one_row(conn, query)
        if runs > SURELY_WIDE:
            return widest
    return 0


def _words(error: psycopg.Error) -> str:
    """Name the condition; the server's message may quote the value of a row."""
    name = "".join(f" {c.lower()}" if c.isupper() else c for c in type(error).__name__)
    return f"{name.strip()} ({error.sqlstate})"


def _columns(draft: Draft) -> tuple[str, ...]:
    return (*(key.column for key in draft.index.keys if key.column), *draft.index.include)


def _rows_of(draft: Draft) -> dict[str, compose.Composable]:
    return {
        "table": rows_of(draft.table()),
        "predicate": compose.SQL(draft.index.predicate or "true"),
    }


def _query(draft: Draft, server: int) -> compose.Composed:
    columns = {name: compose.Identifier(name) for name in _columns(draft)}
    size = compose.SQL("pg_catalog.pg_column_size({})")
    stored = [size.format(column) for column in columns.values()]
    final = [
        compose.SQL(FINAL).format(
            compressed=compose.SQL(COMPRESSED if server >= COMPRESSION else "false").format(
                column=column
            ),
            oid=compose.Literal(draft.table().oid),
            name=compose.Literal(name),
            column=column,
        )
        for name, column in columns.items()
    ]
    computed = [
        size.format(compose.SQL("({})").format(compose.SQL(key.expression)))
        for key in draft.index.keys
        if key.column is None
    ]
    together = [compose.SQL("COALESCE({}, 0)").format(item) for item in (*stored, *computed)]
    return compose.SQL(READ).format(
        stored=compose.SQL(", ").join([compose.SQL("0"), *stored]),
        final=compose.SQL(", ").join([compose.SQL("0"), *final]),
        together=compose.SQL(" + ").join(together),
        **_rows_of(draft),
    )
