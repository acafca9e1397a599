"""Say which rows keep a unique index from being built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql as compose
from psycopg.rows import class_row

from indexlab import sql, units
from indexlab.apply.sessions import search_in, settle, wanted_settings
from indexlab.apply.statements import identifier
from indexlab.apply.steps import Step
from indexlab.plan import CreateIndex

EXAMPLES = 3
SEARCH_SECONDS = 10.0

# The keys are SQL of the plan, read and written back by the server's own grammar.
DUPLICATES = """
SELECT ARRAY[{keys}]::text[] AS values,
       count(*) AS rows,
       (pg_catalog.array_agg(d.ctid::text ORDER BY d.ctid))[1:4] AS places
  FROM {table} AS d
 WHERE {conditions}
 GROUP BY {groups}
HAVING count(*) > 1
 ORDER BY count(*) DESC,
          pg_catalog.min(d.ctid)
 LIMIT {limit} {mark}
"""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A key that several rows have."""

    values: Sequence[str | None]
    rows: int
    places: Sequence[str]
    """The ctid of the first rows."""


def examples(conn: psycopg.Connection[Any], step: Step, *, values: bool) -> str:
    """Say some of the keys that several rows have; reads only, for a bounded time.

    Args:
        conn: an idle session of the run; its settings are changed.
        step: the build that failed.
        values: whether to show the values; without it only counts and places are told.
    """
    assert isinstance(step.planned, CreateIndex)
    assert step.on is not None
    settle(conn, wanted_settings(statement_timeout=SEARCH_SECONDS))
    search_in(conn, step.planned.search_path)
    try:
        with conn.cursor(row_factory=class_row(Duplicate)) as cursor:
            found = cursor.execute(_query(step)).fetchall()
    except psycopg.Error:
        return ""  # the server's own words of the failure have to do
    return "; ".join(_told(item, step.planned, values=values) for item in found)


def _query(step: Step) -> compose.Composed:
    assert isinstance(step.planned, CreateIndex)
    assert step.on is not None
    index = step.planned.index
    keys = [compose.SQL(f"({key.expression})") for key in index.keys]
    conditions = [] if index.nulls_not_distinct else [_filled(key) for key in keys]
    if index.predicate is not None:
        conditions.append(compose.SQL(f"({index.predicate})"))
    return compose.SQL(DUPLICATES).format(
        keys=compose.SQL(", ").join(compose.SQL("{}::text").format(key) for key in keys),
        table=identifier(step.on),
        conditions=compose.SQL(" AND ").join(conditions or [compose.SQL("true")]),
        groups=compose.SQL(", ").join(keys),
        limit=compose.Literal(EXAMPLES),
        mark=compose.SQL(sql.OWN),
    )


def _filled(key: compose.Composable) -> compose.Composable:
    return compose.SQL("{} IS NOT NULL").format(key)


def _told(item: Duplicate, planned: CreateIndex, *, values: bool) -> str:
    keys = ", ".join(key.expression for key in planned.index.keys)
    shown = ", ".join("null" if value is None else repr(value) for value in item.values)
    more = ", ..." if item.rows > len(item.places) else ""
    return (
        f"({keys}) = ({shown if values else '...'}) in {units.plural(item.rows, 'row')}, "
        f"ctid {', '.join(item.places)}{more}"
    )
