"""Read what a copy of some tables' structure needs: columns, types, functions, extensions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import sql as compose
from psycopg.rows import class_row

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class CopiedColumn:
    """A column as a copy declares it."""

    table: int
    name: str
    type: str
    """With its schema, unless it is the system's."""
    collation: str
    """With its schema; empty where it is the type's own."""


@dataclass(frozen=True, slots=True)
class CopiedType:
    """A type that the target's users made."""

    schema: str
    name: str
    kind: str
    """As in pg_type.typtype: `e` enum, `d` domain, `c` composite, `r` range."""
    base: str
    """What a domain is over, or the subtype of a range."""
    labels: tuple[str, ...]
    attributes: tuple[str, ...]
    attribute_types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CopiedFunction:
    """A function that the target's users made."""

    schema: str
    name: str
    definition: str


@dataclass(frozen=True, slots=True)
class CopiedExtension:
    """An extension that brings something that is used."""

    name: str
    schema: str


@dataclass(frozen=True, slots=True)
class Structure:
    """What a copy of some tables' structure needs."""

    columns: tuple[CopiedColumn, ...]
    types: tuple[CopiedType, ...]
    functions: tuple[CopiedFunction, ...]
    extensions: tuple[CopiedExtension, ...]


def read_structure(
    conn: psycopg.Connection[Any], tables: Iterable[int], names: Iterable[str]
) -> Structure:
    """Read the structure of tables; reads only.

    Args:
        conn: a connection in autocommit mode.
        tables: their oids.
        names: what the planned indexes name: functions, operators, operator classes, methods.
    """
    wanted = {"tables": list(tables), "names": list(names)}
    with conn.transaction():
        # With nothing on the path, the server qualifies every name that it writes.
        conn.execute("SET TRANSACTION READ ONLY")
        conn.execute("SET LOCAL search_path = ''")
        conn.execute("SET LOCAL jit = off")  # to compile these queries takes longer than they do
        types = _rows(conn, CopiedType, TYPES, wanted)
        return Structure(
            columns=_rows(conn, CopiedColumn, COPIED_COLUMNS, wanted),
            types=tuple(
                replace(
                    item,
                    labels=tuple(item.labels),
                    attributes=tuple(item.attributes),
                    attribute_types=tuple(item.attribute_types),
                )
                for item in types
            ),
            functions=_rows(conn, CopiedFunction, FUNCTIONS, wanted),
            extensions=_rows(conn, CopiedExtension, EXTENSIONS, wanted),
        )


def _rows(
    conn: psycopg.Connection[Any], row: type[Row], query: LiteralString, values: dict[str, Any]
) -> tuple[Row, ...]:
    with conn.cursor(row_factory=class_row(row)) as cursor:
        text = compose.SQL(query).format(called=compose.SQL(CALLED), reached=compose.SQL(REACHED))
        return tuple(cursor.execute(text, values).fetchall())


COPIED_COLUMNS = """
SELECT a.attrelid::bigint AS "table",
       a.attname AS name,
       pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
       CASE WHEN l.oid <> t.typcollation
            THEN pg_catalog.format('%%I.%%I', s.nspname, l.collname)
            ELSE ''
       END AS collation
  FROM pg_catalog.pg_attribute AS a
  JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_collation AS l ON l.oid = a.attcollation
  LEFT JOIN pg_catalog.pg_namespace AS s ON s.oid = l.collnamespace
 WHERE a.attrelid = ANY (%(tables)s::oid[])
   AND a.attnum > 0
   AND NOT a.attisdropped
 ORDER BY a.attrelid, a.attnum
"""

# The functions that are named, and those that their definitions name; rather too many of them.
# Materialized, as else the definition is written anew for each function of the system; with the
# first oid that users' objects get, as else all functions of the system are read for nothing.
CALLED = """
own AS MATERIALIZED (
    SELECT p.oid,
           p.proname::text AS name,
           l.lanname IN ('c', 'internal') AS opaque
      FROM pg_catalog.pg_proc AS p
      JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
      JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
     WHERE p.oid >= 16384
       AND p.prokind = 'f'
       AND n.nspname NOT IN ('pg_catalog', 'information_schema')
), called AS (
    SELECT o.oid,
           CASE WHEN o.opaque THEN '' ELSE pg_catalog.pg_get_functiondef(o.oid) END AS body
      FROM own AS o
     WHERE o.name = ANY (%(names)s::text[])
     UNION
    SELECT o.oid,
           CASE WHEN o.opaque THEN '' ELSE pg_catalog.pg_get_functiondef(o.oid) END
      FROM called AS c
      JOIN own AS o ON o.oid <> c.oid AND position(o.name IN c.body) > 0
)
"""

REACHED = """
reached AS (
    (SELECT a.atttypid AS oid
       FROM pg_catalog.pg_attribute AS a
      WHERE a.attrelid = ANY (%(tables)s::oid[])
        AND a.attnum > 0
        AND NOT a.attisdropped
      UNION
     SELECT unnest(array_append(p.proargtypes::oid[], p.prorettype))
       FROM called AS c
       JOIN pg_catalog.pg_proc AS p ON p.oid = c.oid)
     UNION
    SELECT x.oid
      FROM reached AS r
      JOIN pg_catalog.pg_type AS t ON t.oid = r.oid
     CROSS JOIN LATERAL (
           SELECT t.typbasetype
            UNION ALL
           SELECT t.typelem
            UNION ALL
           SELECT g.rngsubtype
             FROM pg_catalog.pg_range AS g
            WHERE g.rngtypid = t.oid
            UNION ALL
           SELECT a.atttypid
             FROM pg_catalog.pg_attribute AS a
            WHERE a.attrelid = t.typrelid
              AND t.typrelid <> 0
              AND a.attnum > 0
              AND NOT a.attisdropped) AS x (oid)
     WHERE x.oid <> 0
)
"""

# The row type of a table that is copied comes with it.
TYPES = """
WITH RECURSIVE {called}, {reached}
SELECT n.nspname AS schema,
       t.typname AS name,
       t.typtype::text AS kind,
       CASE t.typtype
            WHEN 'd' THEN pg_catalog.format_type(t.typbasetype, t.typtypmod)
                          || COALESCE((SELECT pg_catalog.format(' COLLATE %%I.%%I', s.nspname, l.collname)
                                         FROM pg_catalog.pg_collation AS l
                                         JOIN pg_catalog.pg_namespace AS s ON s.oid = l.collnamespace
                                        WHERE l.oid = t.typcollation), '')
            WHEN 'r' THEN (SELECT pg_catalog.format_type(g.rngsubtype, NULL)
                             FROM pg_catalog.pg_range AS g
                            WHERE g.rngtypid = t.oid)
            ELSE ''
       END AS base,
       ARRAY(SELECT e.enumlabel::text
               FROM pg_catalog.pg_enum AS e
              WHERE e.enumtypid = t.oid
              ORDER BY e.enumsortorder) AS labels,
       ARRAY(SELECT a.attname::text
               FROM pg_catalog.pg_attribute AS a
              WHERE a.attrelid = t.typrelid
                AND a.attnum > 0
                AND NOT a.attisdropped
              ORDER BY a.attnum) AS attributes,
       ARRAY(SELECT pg_catalog.format_type(a.atttypid, a.atttypmod)
               FROM pg_catalog.pg_attribute AS a
              WHERE a.attrelid = t.typrelid
                AND a.attnum > 0
                AND NOT a.attisdropped
              ORDER BY a.attnum) AS attribute_types
  FROM pg_catalog.pg_type AS t
  JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
 WHERE t.oid IN (SELECT r.oid FROM reached AS r)
   AND t.typtype IN ('e', 'd', 'c', 'r')
   AND n.nspname NOT IN ('pg_catalog', 'information_schema')
   AND t.typrelid <> ALL (%(tables)s::oid[])
   AND NOT EXISTS (SELECT
                     FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass
                      AND d.objid = t.oid
                      AND d.deptype = 'e')
 ORDER BY t.oid
"""

# A range type brings its constructors, which depend on it internally.
FUNCTIONS = """
WITH RECURSIVE {called}
SELECT n.nspname AS schema,
       p.proname AS name,
       pg_catalog.pg_get_functiondef(p.oid) AS definition
  FROM pg_catalog.pg_proc AS p
  JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
 WHERE p.oid IN (SELECT c.oid FROM called AS c)
   AND NOT EXISTS (SELECT
                     FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                      AND d.objid = p.oid
                      AND d.deptype IN ('e', 'i'))
 ORDER BY p.oid
"""

EXTENSIONS = """
WITH RECURSIVE {called}, {reached}, used AS (
    SELECT 'pg_catalog.pg_type'::pg_catalog.regclass AS class, r.oid
      FROM reached AS r
     UNION ALL
    SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, c.oid
      FROM called AS c
     UNION ALL
    SELECT 'pg_catalog.pg_operator'::pg_catalog.regclass, o.oid
      FROM pg_catalog.pg_operator AS o
     WHERE o.oprname = ANY (%(names)s::text[])
     UNION ALL
    SELECT 'pg_catalog.pg_opclass'::pg_catalog.regclass, o.oid
      FROM pg_catalog.pg_opclass AS o
      JOIN pg_catalog.pg_am AS m ON m.oid = o.opcmethod
     WHERE o.opcname = ANY (%(names)s::text[])
        OR m.amname = ANY (%(names)s::text[])
)
SELECT DISTINCT
       e.extname AS name,
       n.nspname AS schema
  FROM used AS u
  JOIN pg_catalog.pg_depend AS d
    ON d.classid = u.class
   AND d.objid = u.oid
   AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
   AND d.deptype = 'e'
  JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
 ORDER BY e.extname, n.nspname
"""
