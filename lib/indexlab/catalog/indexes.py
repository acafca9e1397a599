"""Read the indexes that exist: their query, and how its rows become indexes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import sql as compose

from indexlab.catalog.objects import Index, Key


@dataclass(frozen=True, slots=True)
class IndexRow:
    """One row of INDEXES; the numbers stand in text, with spaces between them."""

    oid: int
    schema: str
    name: str
    table: int
    method: str
    unique: bool
    nulls_not_distinct: bool
    columns: str
    opclasses: str
    collations: str
    flags: str
    expressions: list[str] | None
    """The server's words for every key; None where all keys are columns."""
    predicate: str | None
    definition: str
    options: list[str] | None
    tablespace: str
    valid: bool
    ready: bool
    building: bool
    primary: bool
    exclusion: bool
    deferrable: bool
    clustered: bool
    replica_identity: bool
    constraint: str | None
    referenced_by: list[str] | None
    extension: str | None
    parent: int | None
    scans: int


def query(conn: psycopg.Connection[Any], spaces: compose.SQL) -> compose.Composed:
    """Return INDEXES as this server takes it."""
    # The column came with 15; before it, NULLs were always distinct.
    column = "i.indnullsnotdistinct" if conn.info.server_version >= 150000 else "false"
    return compose.SQL(INDEXES).format(spaces=spaces, nulls_not_distinct=compose.SQL(column))


# What few indexes have is joined as a set: a subquery for each index costs more than the rest.
INDEXES = """
{spaces},
members AS MATERIALIZED (
    SELECT d.objid,
           pg_catalog.min(e.extname::text COLLATE "C") AS extname
      FROM pg_catalog.pg_depend AS d
      JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid
     WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
       AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
       AND d.deptype = 'e'
     GROUP BY d.objid
)
SELECT i.indexrelid::bigint AS oid,
       n.nspname AS schema,
       c.relname AS name,
       i.indrelid::bigint AS "table",
       am.amname AS method,
       i.indisunique AS unique,
       {nulls_not_distinct} AS nulls_not_distinct,
       i.indkey::text AS columns,
       i.indclass::text AS opclasses,
       i.indcollation::text AS collations,
       i.indoption::text AS flags,
       -- The words for a column are its name, and a call for each key is slow.
       CASE WHEN i.indexprs IS NOT NULL
            THEN ARRAY(SELECT COALESCE(pg_catalog.pg_get_indexdef(i.indexrelid, k.place, true), '')
                         FROM pg_catalog.generate_series(1, i.indnkeyatts::int) AS k (place)
                        ORDER BY k.place)
       END AS expressions,
       pg_catalog.pg_get_expr(i.indpred, i.indrelid, true) AS predicate,
       COALESCE(pg_catalog.pg_get_indexdef(i.indexrelid), '') AS definition,
       c.reloptions AS options,
       COALESCE(ts.spcname, '') AS tablespace,
       i.indisvalid AS valid,
       i.indisready AND i.indislive AS ready,
       EXISTS (SELECT
                 -- The functions under pg_stat_progress_create_index and pg_locks: a role may be
                 -- denied the views.
                 FROM pg_catalog.pg_stat_get_progress_info('CREATE INDEX') AS p
                WHERE p.datid = (SELECT d.oid
                                   FROM pg_catalog.pg_database AS d
                                  WHERE d.datname = pg_catalog.current_database())
                  AND (p.param7::oid = i.indexrelid
                       -- Other roles' progress is hidden, their locks are not.
                       OR (COALESCE(p.param7, 0) = 0
                           AND NOT i.indisvalid
                           AND EXISTS (SELECT
                                         FROM pg_catalog.pg_lock_status() AS l
                                        WHERE l.pid = p.pid
                                          AND l.granted
                                          AND l.relation = i.indrelid)))) AS building,
       i.indisprimary AS primary,
       i.indisexclusion AS exclusion,
       NOT i.indimmediate AS deferrable,
       i.indisclustered AS clustered,
       i.indisreplident AS replica_identity,
       o.constraint,
       o.referenced_by,
       LEAST(x.extname, y.extname) AS extension,
       h.inhparent::bigint AS parent,
       pg_catalog.pg_stat_get_numscans(i.indexrelid) AS scans
  FROM pg_catalog.pg_index AS i
  JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
  JOIN spaces AS n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_am AS am ON am.oid = c.relam
  LEFT JOIN pg_catalog.pg_tablespace AS ts ON ts.oid = c.reltablespace
  LEFT JOIN members AS x ON x.objid = i.indexrelid
  LEFT JOIN members AS y ON y.objid = i.indrelid
  LEFT JOIN pg_catalog.pg_inherits AS h ON h.inhrelid = i.indexrelid
  -- All at once, as nothing in the catalog finds constraints by their index.
  LEFT JOIN (
       SELECT x.conindid,
              pg_catalog.min(x.conname::text) FILTER (WHERE x.contype IN ('p', 'u', 'x'))
                  AS constraint,
              pg_catalog.array_agg(x.conname::text ORDER BY x.conname)
                  FILTER (WHERE x.contype = 'f') AS referenced_by
         FROM pg_catalog.pg_constraint AS x
        WHERE x.conindid <> 0
        GROUP BY x.conindid) AS o ON o.conindid = i.indexrelid
 ORDER BY n.nspname, c.relname
"""

# Few keys have options of their operator class; those of a table's column are something else.
KEY_OPTIONS = """
SELECT a.attrelid::bigint AS index,
       a.attnum::int AS place,
       pg_catalog.array_to_string(a.attoptions, ', ') AS options
  FROM pg_catalog.pg_attribute AS a
  JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
 WHERE a.attoptions IS NOT NULL
   AND c.relkind IN ('i', 'I')
 ORDER BY a.attrelid, a.attnum
"""


def assembled(
    rows: Iterable[IndexRow],
    *,
    words: Mapping[tuple[int, int], str],
    options: Mapping[tuple[int, int], str],
    opclasses: Mapping[int, tuple[int, int]],
    sizes: Mapping[int, int],
) -> tuple[Index, ...]:
    """Make indexes of the rows of INDEXES; pure.

    Args:
        rows: in their order.
        words: the server's word for a column, by table and number.
        options: the options of an operator class, by index and place of the key, from 1.
        opclasses: operator family and input type by the oid of the operator class.
        sizes: bytes by oid.
    """
    return tuple(
        Index(
            oid=row.oid,
            schema=row.schema,
            name=row.name,
            table=row.table,
            method=row.method,
            unique=row.unique,
            nulls_not_distinct=row.nulls_not_distinct,
            keys=tuple(_keys(row, words, options, opclasses)),
            include=_numbers(row.columns)[len(_numbers(row.opclasses)) :],
            predicate=row.predicate,
            definition=row.definition,
            options=tuple(row.options or ()),
            tablespace=row.tablespace,
            valid=row.valid,
            ready=row.ready,
            building=row.building,
            primary=row.primary,
            exclusion=row.exclusion,
            deferrable=row.deferrable,
            clustered=row.clustered,
            replica_identity=row.replica_identity,
            constraint=row.constraint,
            referenced_by=tuple(row.referenced_by or ()),
            extension=row.extension,
            parent=row.parent,
            bytes=sizes.get(row.oid, 0),
            scans=row.scans,
        )
        for row in rows
    )


def _keys(
    row: IndexRow,
    words: Mapping[tuple[int, int], str],
    options: Mapping[tuple[int, int], str],
    opclasses: Mapping[int, tuple[int, int]],
) -> Iterable[Key]:
    columns, flags = _numbers(row.columns), _numbers(row.flags)
    collations = _numbers(row.collations)
    for place, opclass in enumerate(_numbers(row.opclasses)):
        column = columns[place]
        if row.expressions is not None:
            text = row.expressions[place]
        else:
            text = words.get((row.table, column), "")
        family, input_type = opclasses[opclass]
        yield Key(
            column,
            text,
            family,
            input_type,
            collations[place],
            bool(flags[place] & 1),
            bool(flags[place] & 2),
            options.get((row.oid, place + 1), ""),
        )


@lru_cache(maxsize=4096)
def _numbers(text: str) -> tuple[int, ...]:
    """Read the text form of an array without braces, of which indexes share the most."""
    return tuple(map(int, text.split()))
