"""Count the rows that stand in the way of a planned UNIQUE index, with bounded work."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg import sql as compose

from indexlab.audit.answers import Answer, Duplicates
from indexlab.audit.bounded import not_to_be_read, one_row, rows_of, too_long
from indexlab.audit.drafts import Draft
from indexlab.catalog import Catalog, Index, Relation
from indexlab.progress import Tell, silent

# The planned index compares as the types' own equality does; NULLs are equal only if it says so.
COUNT = """
SELECT count(*),
       COALESCE(sum(g.number), 0)::bigint
  FROM (SELECT count(*) AS number
          FROM {table}
         WHERE ({predicate})
           AND {comparable}
         GROUP BY {keys}
        HAVING count(*) > 1) AS g
"""


def wants_counting(draft: Draft) -> bool:
    """Return whether rows may stand in the way of a statement; pure."""
    return draft.verdict is None and draft.index.unique and draft.wanted is not None


def count(
    conn: psycopg.Connection[Any],
    catalog: Catalog,
    drafts: Iterable[Draft],
    builds: Iterable[Answer] = (),
    tell: Tell = silent,
) -> tuple[Duplicates, ...]:
    """Count duplicate rows for each UNIQUE statement; reads only, at most some seconds for each.

    Args:
        conn: a connection to the target, in autocommit mode.
        catalog: the target.
        drafts: the planned statements, with tables and columns as corrected.
        builds: what a server made of them: an expression that it refuses is not run.
        tell: is told which rows are counted.
    """
    refused = {item.statement for item in builds if item.refusal}
    asked = {d.index.sql: d for d in drafts if wants_counting(d) and d.index.sql not in refused}
    found = []
    for number, draft in enumerate(asked.values()):
        tell(f"counting duplicates for {draft.label}", number / len(asked))
        found.append(_counted(conn, catalog, draft))
    return tuple(found)


def _counted(conn: psycopg.Connection[Any], catalog: Catalog, draft: Draft) -> Duplicates:
    statement, table = draft.index.sql, draft.table()
    if _enforced_already(catalog, draft.planned()):
        return Duplicates(statement)
    why = not_to_be_read(catalog, table)
    if any(key.opclass for key in draft.index.keys):
        why = why or "its operator class may compare otherwise than GROUP BY does"
    if why:
        return Duplicates(statement, uncounted=why)
    try:
        groups, rows = one_row(conn, _query(draft, table))
    except psycopg.errors.QueryCanceled:
        return Duplicates(statement, uncounted=too_long())
    except psycopg.Error as error:
        if conn.closed:
            raise
        return Duplicates(statement, uncounted=error.diag.message_primary or str(error))
    return Duplicates(statement, groups, rows)


def _enforced_already(catalog: Catalog, wanted: Index) -> bool:
    """Return whether a unique index on some of the keys leaves no room for duplicates."""
    if wanted.nulls_not_distinct:
        return False
    keys = {(key.column, key.collation) for key in wanted.keys if key.column}
    return any(
        index.unique
        and index.usable
        and not index.deferrable
        and index.predicate is None
        and all(key.column and (key.column, key.collation) in keys for key in index.keys)
        for index in catalog.indexes_of(wanted.table)
    )


def _query(draft: Draft, table: Relation) -> compose.Composed:
    index = draft.index
    keys = [
        f"({key.expression})"
        + (
            " COLLATE " + compose.Identifier(*key.collation).as_string(None)
            if key.collation
            else ""
        )
        for key in index.keys
    ]
    # A row of NULLs is no NULL to an index, and IS NOT NULL would pass over it.
    comparable = [f"{key} IS DISTINCT FROM NULL" for key in keys]
    if index.nulls_not_distinct:
        comparable = []
    return compose.SQL(COUNT).format(
        table=rows_of(table),
        predicate=_verbatim(index.predicate or "true"),
        comparable=_verbatim(" AND ".join(comparable) or "true"),
        keys=_verbatim(", ".join(keys)),
    )


def _verbatim(text: str) -> compose.SQL:
    """Put expressions that the grammar has accepted into a statement as they stand."""
    return compose.SQL(text)
