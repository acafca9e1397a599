"""Read a snapshot: every catalog query of the kit stands here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import psycopg
from psycopg import sql as compose
from psycopg.rows import class_row, tuple_row

from indexlab import target as targets
from indexlab.catalog.expressions import with_expressions
from indexlab.catalog.objects import (
    AccessMethod,
    Collation,
    Column,
    ForeignKey,
    Index,
    Key,
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
    with conn.transaction():
        answers = _asked(conn)
        catalog = Catalog(
            server=targets.server(conn),
            search_path=tuple(_column(answers)),
            schemas=tuple(_column(answers)),
            relations=_rows(answers, Relation),
            columns=_rows(answers, Column),
            indexes=tuple(_index(row) for row in _rows(answers, _IndexRow)),
            foreign_keys=tuple(
                replace(item, columns=tuple(item.columns)) for item in _rows(answers, ForeignKey)
            ),
            opclasses=_rows(answers, OperatorClass),
            defaults=tuple(_next(answers)),
            collations=_rows(answers, Collation),
            methods=_rows(answers, AccessMethod),
            tablespaces=_rows(answers, Tablespace),
            accepted=tuple(_next(answers)),
        )
    return catalog if plan is None else with_expressions(conn, catalog, plan)


def _asked(conn: psycopg.Connection[Any]) -> psycopg.Cursor[Any]:
    """Send the queries in one message; their results are taken in the same order."""
    fitting = compose.SQL(FITTING_TYPES)
    queries = (
        compose.SQL(SNAPSHOT),
        compose.SQL(SEARCH_PATH),
        compose.SQL(SCHEMAS),
        compose.SQL(RELATIONS),
        compose.SQL(COLUMNS),
        _indexes_sql(conn),
        compose.SQL(FOREIGN_KEYS),
        compose.SQL(OPERATOR_CLASSES),
        compose.SQL(DEFAULT_OPERATOR_CLASSES).format(fitting=fitting),
        compose.SQL(COLLATIONS),
        compose.SQL(ACCESS_METHODS),
        compose.SQL(TABLESPACES),
        compose.SQL(ACCEPTED_TYPES).format(fitting=fitting),
    )
    cursor = conn.execute(compose.SQL(";").join(queries), prepare=False)
    cursor.nextset()  # SET has no rows
    return cursor


def _next(answers: psycopg.Cursor[Any]) -> list[Any]:
    rows = answers.fetchall()
    answers.nextset()
    return rows


def _rows(answers: psycopg.Cursor[Any], row: type[Row]) -> tuple[Row, ...]:
    answers.row_factory = class_row(row)
    rows = tuple(_next(answers))
    answers.row_factory = tuple_row
    return rows


def _column(answers: psycopg.Cursor[Any]) -> list[str]:
    return [row[0] for row in _next(answers)]


SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"

SEARCH_PATH = """
SELECT s.name
  FROM unnest(pg_catalog.current_schemas(false)) WITH ORDINALITY AS s (name, place)
 ORDER BY s.place
"""

SCHEMAS = """
SELECT n.nspname
  FROM pg_catalog.pg_namespace AS n
 WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
   AND n.nspname !~ '^pg_(toast_)?temp_'
 ORDER BY n.nspname
"""

# Sizes and privileges are null for a relation that is dropped while this runs.
RELATIONS = """
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
       pg_catalog.pg_stat_get_numscans(c.oid) AS scans,
       pg_catalog.has_schema_privilege(n.oid, 'CREATE') AS creatable,
       COALESCE((SELECT p.partattrs::text
                   FROM pg_catalog.pg_partitioned_table AS p
                  WHERE p.partrelid = c.oid), '') AS partition_key
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
   AND n.nspname !~ '^pg_(toast_)?temp_'
 ORDER BY n.nspname, c.relname
"""

COLUMNS = """
SELECT a.attrelid::bigint AS "table",
       a.attnum::int AS number,
       a.attname AS name,
       pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
       a.atttypid::bigint AS type_oid,
       a.attcollation::bigint AS collation,
       a.attnotnull AS not_null,
       a.attgenerated::text AS generated
  FROM pg_catalog.pg_attribute AS a
  JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
   AND n.nspname !~ '^pg_(toast_)?temp_'
   AND c.relkind IN ('r', 'p', 'm', 'v', 'f')
   AND a.attnum > 0
   AND NOT a.attisdropped
 ORDER BY a.attrelid, a.attnum
"""


@dataclass(frozen=True, slots=True)
class _IndexRow:
    """One row of INDEXES; the key_ arrays run in parallel."""

    oid: int
    schema: str
    name: str
    table: int
    method: str
    unique: bool
    nulls_not_distinct: bool
    columns: list[int]
    key_texts: list[str]
    key_families: list[int]
    key_input_types: list[int]
    key_collations: list[int]
    key_flags: list[int]
    key_options: list[str]
    predicate: str | None
    definition: str
    options: list[str]
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
    referenced_by: list[str]
    extension: str | None
    parent: int | None
    bytes: int
    scans: int


def _indexes_sql(conn: psycopg.Connection[Any]) -> compose.Composed:
    # The column came with 15; before it, NULLs were always distinct.
    column = "i.indnullsnotdistinct" if conn.info.server_version >= 150000 else "false"
    return compose.SQL(INDEXES).format(nulls_not_distinct=compose.SQL(column))


INDEXES = """
SELECT i.indexrelid::bigint AS oid,
       n.nspname AS schema,
       c.relname AS name,
       i.indrelid::bigint AS "table",
       am.amname AS method,
       i.indisunique AS unique,
       {nulls_not_distinct} AS nulls_not_distinct,
       pg_catalog.string_to_array(i.indkey::text, ' ')::int[] AS columns,
       k.texts AS key_texts,
       k.families AS key_families,
       k.input_types AS key_input_types,
       pg_catalog.string_to_array(i.indcollation::text, ' ')::bigint[] AS key_collations,
       pg_catalog.string_to_array(i.indoption::text, ' ')::int[] AS key_flags,
       k.options AS key_options,
       pg_catalog.pg_get_expr(i.indpred, i.indrelid, true) AS predicate,
       COALESCE(pg_catalog.pg_get_indexdef(i.indexrelid), '') AS definition,
       COALESCE(c.reloptions, ARRAY[]::text[]) AS options,
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
       COALESCE(o.referenced_by, ARRAY[]::text[]) AS referenced_by,
       (SELECT e.extname
          FROM pg_catalog.pg_depend AS d
          JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid
         WHERE d.classid = 'pg_catalog.pg_class'::regclass
           AND d.objid IN (i.indexrelid, i.indrelid)
           AND d.refclassid = 'pg_catalog.pg_extension'::regclass
           AND d.deptype = 'e'
         ORDER BY e.extname
         LIMIT 1) AS extension,
       (SELECT h.inhparent::bigint
          FROM pg_catalog.pg_inherits AS h
         WHERE h.inhrelid = i.indexrelid) AS parent,
       CASE WHEN c.relkind = 'i'
            THEN COALESCE(pg_catalog.pg_relation_size(c.oid), 0)
            ELSE 0
       END AS bytes,
       pg_catalog.pg_stat_get_numscans(i.indexrelid) AS scans
  FROM pg_catalog.pg_index AS i
  JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_am AS am ON am.oid = c.relam
  LEFT JOIN pg_catalog.pg_tablespace AS ts ON ts.oid = c.reltablespace
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
 CROSS JOIN LATERAL (
       SELECT pg_catalog.array_agg(
                  COALESCE(pg_catalog.pg_get_indexdef(i.indexrelid, a.attnum, true), '')
                  ORDER BY a.attnum) AS texts,
              pg_catalog.array_agg(o.opcfamily::bigint ORDER BY a.attnum) AS families,
              pg_catalog.array_agg(o.opcintype::bigint ORDER BY a.attnum) AS input_types,
              pg_catalog.array_agg(
                  COALESCE(pg_catalog.array_to_string(a.attoptions, ', '), '')
                  ORDER BY a.attnum) AS options
         FROM pg_catalog.pg_attribute AS a
         JOIN pg_catalog.pg_opclass AS o ON o.oid = i.indclass[a.attnum - 1]
        WHERE a.attrelid = i.indexrelid
          AND a.attnum BETWEEN 1 AND i.indnkeyatts) AS k
 WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
   AND n.nspname !~ '^pg_(toast_)?temp_'
 ORDER BY n.nspname, c.relname
"""


SHARED = tuple(
    name
    for name in Index.__slots__
    if name in _IndexRow.__slots__ and name not in ("options", "referenced_by")
)


def _index(row: _IndexRow) -> Index:
    number = len(row.key_texts)
    keys = tuple(
        Key(
            column=row.columns[place],
            text=row.key_texts[place],
            family=row.key_families[place],
            input_type=row.key_input_types[place],
            collation=row.key_collations[place],
            descending=bool(row.key_flags[place] & 1),
            nulls_first=bool(row.key_flags[place] & 2),
            options=row.key_options[place],
        )
        for place in range(number)
    )
    return Index(
        **{name: getattr(row, name) for name in SHARED},
        keys=keys,
        include=tuple(row.columns[number:]),
        options=tuple(row.options),
        referenced_by=tuple(row.referenced_by),
    )


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
SELECT n.nspname AS schema,
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
