"""Read a snapshot: every catalog query of the kit stands here."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from itertools import starmap
from typing import Any, TypeVar

import psycopg
from psycopg import sql as compose

from indexlab import target as targets
from indexlab.catalog import indexes
from indexlab.catalog.expressions import with_expressions
from indexlab.catalog.objects import (
    AccessMethod,
    Collation,
    Column,
    ForeignKey,
    OperatorClass,
    Relation,
    Tablespace,
)
from indexlab.catalog.snapshot import Catalog
from indexlab.plan import IndexPlan

Row = TypeVar("Row")


def read(conn: psycopg.Connection[Any], plan: IndexPlan | None = None) -> Catalog:
    """Read the snapshot; reads only, in a constant number of round trips.

    With a plan, the server is also asked what it makes of the expressions in it: one more round
    trip for each planned statement that has any, and one for each table that these are on.

    Args:
        conn: a connection in autocommit mode.
        plan: whose expressions are to be put into the server's words.
    """
    with _nothing_is_garbage(), conn.transaction():
        answers = _asked(conn)
        search_path = tuple(_column(answers))
        schemas = tuple(_column(answers))
        relations = _rows(answers, Relation)
        of_tables = _next(answers)
        of_indexes = _rows(answers, indexes.IndexRow)
        key_options = _next(answers)
        foreign_keys = _rows(answers, ForeignKey)
        of_opclasses = _next(answers)
        catalog = Catalog(
            server=targets.server(conn),
            search_path=search_path,
            schemas=schemas,
            relations=relations,
            columns=tuple(Column(*row[:-1]) for row in of_tables),
            indexes=indexes.assembled(
                of_indexes,
                words={(row[0], row[1]): row[-1] or row[2] for row in of_tables},
                options={(row[0], row[1]): row[2] for row in key_options},
                opclasses={row[0]: row[-2:] for row in of_opclasses},
                sizes={relation.oid: relation.bytes for relation in relations},
            ),
            foreign_keys=tuple(replace(item, columns=tuple(item.columns)) for item in foreign_keys),
            opclasses=tuple(OperatorClass(*row[1:]) for row in of_opclasses),
            defaults=tuple(_next(answers)),
            collations=_rows(answers, Collation),
            methods=_rows(answers, AccessMethod),
            tablespaces=_rows(answers, Tablespace),
            accepted=tuple(_next(answers)),
        )
    return catalog if plan is None else with_expressions(conn, catalog, plan)


@contextmanager
def _nothing_is_garbage() -> Iterator[None]:
    """Hold the collector back: it would walk the many objects again and again, and free none."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _asked(conn: psycopg.Connection[Any]) -> psycopg.Cursor[Any]:
    """Send the queries in one message; their results are taken in the same order."""
    fitting = compose.SQL(FITTING_TYPES)
    spaces = compose.SQL(SPACES)
    queries = (
        compose.SQL(SNAPSHOT),
        compose.SQL(NO_JIT),
        compose.SQL(SEARCH_PATH),
        compose.SQL(SCHEMAS).format(spaces=spaces),
        compose.SQL(RELATIONS).format(spaces=spaces),
        compose.SQL(COLUMNS).format(spaces=spaces),
        indexes.query(conn, spaces),
        compose.SQL(indexes.KEY_OPTIONS),
        compose.SQL(FOREIGN_KEYS),
        compose.SQL(OPERATOR_CLASSES),
        compose.SQL(DEFAULT_OPERATOR_CLASSES).format(fitting=fitting),
        compose.SQL(COLLATIONS),
        compose.SQL(ACCESS_METHODS),
        compose.SQL(TABLESPACES),
        compose.SQL(ACCEPTED_TYPES).format(fitting=fitting),
    )
    cursor = conn.execute(compose.SQL(";").join(queries), prepare=False)
    cursor.nextset()  # the two SET have no rows
    cursor.nextset()
    return cursor


def _next(answers: psycopg.Cursor[Any]) -> list[Any]:
    rows = answers.fetchall()
    answers.nextset()
    return rows


def _rows(answers: psycopg.Cursor[Any], row: type[Row]) -> tuple[Row, ...]:
    """Take rows by position, which is faster than by name: they are many."""
    aliases = [column.name for column in answers.description or ()]
    names = [item.name for item in fields(row)]  # type: ignore[arg-type]
    assert names[: len(aliases)] == aliases, f"the aliases are not the fields of {row.__name__}"
    return tuple(starmap(row, _next(answers)))


def _column(answers: psycopg.Cursor[Any]) -> list[str]:
    return [row[0] for row in _next(answers)]


SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"

# The planner cannot know how little the functions below do; compiling takes longer than running.
NO_JIT = "SET LOCAL jit = off"

SEARCH_PATH = """
SELECT s.name
  FROM unnest(pg_catalog.current_schemas(false)) WITH ORDINALITY AS s (name, place)
 ORDER BY s.place
"""

# Materialized, as the planner else walks pg_class once for every schema.
SPACES = """
WITH spaces AS MATERIALIZED (
    SELECT n.oid,
           n.nspname,
           pg_catalog.has_schema_privilege(n.oid, 'CREATE') AS creatable
      FROM pg_catalog.pg_namespace AS n
     WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
       AND n.nspname !~ '^pg_(toast_)?temp_'
)
"""

SCHEMAS = """
{spaces}
SELECT n.nspname
  FROM spaces AS n
 ORDER BY n.nspname
"""

# Sizes and privileges are null for a relation that is dropped while this runs.
RELATIONS = """
{spaces}
SELECT c.oid::bigint AS oid,
       n.nspname AS schema,
       c.relname AS name,
       CASE c.relkind
            WHEN 'r' THEN 'table'
            WHEN 'p' THEN 'partitioned table'
            WHEN 'm' THEN 'materialized view'
            WHEN 'v' THEN 'view'
            WHEN 'f' THEN 'foreign table'
            WHEN 'S' THEN 'sequence'
            WHEN 'i' THEN 'index'
            WHEN 'I' THEN 'partitioned index'
            WHEN 'c' THEN 'composite type'
            ELSE 'TOAST table'
       END AS kind,
       pg_catalog.pg_get_userbyid(c.relowner) AS owner,
       pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owned,
       CASE WHEN c.relkind IN ('r', 'p', 'm', 'v', 'f')
            THEN COALESCE(pg_catalog.has_table_privilege(c.oid, 'SELECT'), false)
                 -- With row_security off, a policy is an error instead of a filter.
                 AND (pg_catalog.current_setting('row_security')::bool
                      OR NOT pg_catalog.row_security_active(c.oid))
            ELSE true
       END AS readable,
       c.relpersistence = 'u' AS unlogged,
       (SELECT h.inhparent::bigint
          FROM pg_catalog.pg_inherits AS h
         WHERE h.inhrelid = c.oid
         ORDER BY h.inhseqno
         LIMIT 1) AS parent,
       c.relispartition AS is_partition,
       c.reltuples::float8 AS rows,
       CASE WHEN c.relkind IN ('r', 'm', 'i', 't')
            THEN COALESCE(pg_catalog.pg_relation_size(c.oid), 0)
            ELSE 0
       END AS bytes,
       pg_catalog.pg_stat_get_tuples_inserted(c.oid) AS inserted,
       pg_catalog.pg_stat_get_tuples_updated(c.oid) AS updated,
       pg_catalog.pg_stat_get_tuples_hot_updated(c.oid) AS hot_updated,
       pg_catalog.pg_stat_get_tuples_deleted(c.oid) AS deleted,
       n.creatable,
       pg_catalog.pg_stat_get_numscans(c.oid) AS scans,
       COALESCE((SELECT p.partattrs::text
                   FROM pg_catalog.pg_partitioned_table AS p
                  WHERE p.partrelid = c.oid), '') AS partition_key
  FROM pg_catalog.pg_class AS c
  JOIN spaces AS n ON n.oid = c.relnamespace
 ORDER BY n.nspname, c.relname
"""

COLUMNS = """
{spaces}
SELECT a.attrelid::bigint AS "table",
       a.attnum::int AS number,
       a.attname AS name,
       pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
       a.atttypid::bigint AS type_oid,
       a.attcollation::bigint AS collation,
       a.attnotnull AS not_null,
       a.attgenerated::text AS generated,
       NULLIF(pg_catalog.quote_ident(a.attname), a.attname::text) AS quoted
  FROM pg_catalog.pg_attribute AS a
  JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
  JOIN spaces AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'm', 'v', 'f')
   AND a.attnum > 0
   AND NOT a.attisdropped
 ORDER BY a.attrelid, a.attnum
"""

FOREIGN_KEYS = """
SELECT o.conname AS name,
       o.conrelid::bigint AS "table",
       o.conkey::int[] AS columns,
       o.confrelid::bigint AS referenced
  FROM pg_catalog.pg_constraint AS o
  JOIN pg_catalog.pg_namespace AS n ON n.oid = o.connamespace
 WHERE o.contype = 'f'
   AND o.conparentid = 0
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
 ORDER BY o.conrelid, o.conname
"""

OPERATOR_CLASSES = """
SELECT o.oid::bigint AS oid,
       n.nspname AS schema,
       o.opcname AS name,
       am.amname AS method,
       o.opcfamily::bigint AS family,
       o.opcintype::bigint AS input_type
  FROM pg_catalog.pg_opclass AS o
  JOIN pg_catalog.pg_namespace AS n ON n.oid = o.opcnamespace
  JOIN pg_catalog.pg_am AS am ON am.oid = o.opcmethod
 ORDER BY am.amname, o.opcname, n.nspname
"""

# Which type passes for which input type of an operator class without a conversion, as
# IsBinaryCoercible has it: a domain for what it is made of, a type for itself, for what it is
# cast to by name only, and for the any-type of its kind.
FITTING_TYPES = """
WITH RECURSIVE base AS (
    SELECT t.oid AS type_oid, t.oid AS base_oid, t.typtype, t.typbasetype, t.typcategory
      FROM pg_catalog.pg_type AS t
     WHERE t.typtype IN ('b', 'd', 'e', 'r', 'm', 'c')
     UNION ALL
    SELECT b.type_oid, t.oid, t.typtype, t.typbasetype, t.typcategory
      FROM base AS b
      JOIN pg_catalog.pg_type AS t ON t.oid = b.typbasetype
     WHERE b.typtype = 'd'
), fitting AS (
    SELECT b.type_oid, b.base_oid AS input_oid, 1 AS place
      FROM base AS b
     WHERE b.typtype <> 'd'
     UNION ALL
    SELECT b.type_oid, s.casttarget, 2
      FROM base AS b
      JOIN pg_catalog.pg_cast AS s ON s.castsource = b.base_oid
     WHERE b.typtype <> 'd'
       AND s.castmethod = 'b'
       AND s.castcontext = 'i'
     UNION ALL
    SELECT b.type_oid, a.oid, 3
      FROM base AS b
      JOIN pg_catalog.pg_type AS a
        ON a.typtype = 'p'
       AND (a.typname IN ('any', 'anyelement', 'anycompatible')
            OR (a.typname IN ('anynonarray', 'anycompatiblenonarray') AND b.typcategory <> 'A')
            OR (a.typname IN ('anyarray', 'anycompatiblearray') AND b.typcategory = 'A')
            OR (a.typname = 'anyenum' AND b.typtype = 'e')
            OR (a.typname IN ('anyrange', 'anycompatiblerange') AND b.typtype = 'r')
            OR (a.typname IN ('anymultirange', 'anycompatiblemultirange') AND b.typtype = 'm')
            OR (a.typname = 'record' AND b.typtype = 'c'))
     WHERE b.typtype <> 'd'
       AND EXISTS (SELECT
                     FROM pg_catalog.pg_opclass AS o
                    WHERE o.opcintype = a.oid)
)
"""

# As GetDefaultOpClass does: the type itself, then what it is cast to, then any-types.
DEFAULT_OPERATOR_CLASSES = """
{fitting}
SELECT DISTINCT ON (am.amname, f.type_oid)
       am.amname,
       f.type_oid::bigint,
       o.opcfamily::bigint,
       o.opcintype::bigint
  FROM fitting AS f
  JOIN pg_catalog.pg_opclass AS o ON o.opcintype = f.input_oid AND o.opcdefault
  JOIN pg_catalog.pg_am AS am ON am.oid = o.opcmethod
  JOIN pg_catalog.pg_type AS t ON t.oid = o.opcintype
 ORDER BY am.amname,
          f.type_oid,
          f.place,
          t.typispreferred DESC
"""

ACCEPTED_TYPES = """
{fitting}
SELECT DISTINCT
       f.type_oid::bigint,
       o.opcintype::bigint
  FROM fitting AS f
  JOIN pg_catalog.pg_opclass AS o ON o.opcintype = f.input_oid
 ORDER BY f.type_oid::bigint,
          o.opcintype::bigint
"""

ACCESS_METHODS = """
SELECT am.amname AS name,
       pg_catalog.pg_indexam_has_property(am.oid, 'can_order') AS can_order,
       pg_catalog.pg_indexam_has_property(am.oid, 'can_unique') AS can_unique,
       pg_catalog.pg_indexam_has_property(am.oid, 'can_multi_col') AS can_multicolumn,
       pg_catalog.pg_indexam_has_property(am.oid, 'can_include') AS can_include
  FROM pg_catalog.pg_am AS am
 WHERE am.amtype = 'i'
 ORDER BY am.amname
"""

# The database's own tablespace needs no privilege.
TABLESPACES = """
SELECT t.spcname AS name,
       t.spcname <> 'pg_global'
       AND (t.oid = d.dattablespace
            OR pg_catalog.has_tablespace_privilege(t.oid, 'CREATE')) AS creatable
  FROM pg_catalog.pg_tablespace AS t
  JOIN pg_catalog.pg_database AS d ON d.datname = pg_catalog.current_database()
 ORDER BY t.spcname
"""

COLLATIONS = """
SELECT c.oid::bigint AS oid,
       n.nspname AS schema,
       c.collname AS name
  FROM pg_catalog.pg_collation AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.collnamespace
 WHERE c.collencoding IN (-1, (SELECT d.encoding
                                 FROM pg_catalog.pg_database AS d
                                WHERE d.datname = pg_catalog.current_database()))
 ORDER BY n.nspname, c.collname, c.oid
"""
