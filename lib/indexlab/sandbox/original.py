"""What a sandbox takes from its target beside the schema: statistics, sizes, settings, locale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg import sql as compose
from psycopg.rows import class_row

from indexlab.sandbox.locked import SECONDS
from indexlab.sandbox.scope import Scope

Row = TypeVar("Row")

PAGE = 8192


@dataclass(frozen=True, slots=True)
class Measure:
    """How large a relation is, and how large the planner's statistics say that it was."""

    schema: str
    name: str
    kind: str
    """As in pg_class.relkind."""
    bytes: int
    """Of its main fork."""
    relpages: int
    reltuples: float
    relallvisible: int

    @property
    def pages(self) -> int:
        """Pages of 8 kB."""
        return -(-self.bytes // PAGE)


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of the session that the planner or the parser reads."""

    name: str
    value: str
    """In the base unit of the setting."""


@dataclass(frozen=True, slots=True)
class Locale:
    """How a database orders text unless told otherwise."""

    encoding: str
    provider: str
    """As in pg_database.datlocprovider: `c` libc, `i` ICU, `b` builtin."""
    collate: str
    ctype: str
    locale: str
    """Of ICU and builtin; empty for libc."""

    @property
    def bytewise(self) -> bool:
        """Whether text is ordered by its bytes, as far as the planner knows."""
        return self.provider == "b" or (self.provider == "c" and self.collate in ("C", "POSIX"))

    def __str__(self) -> str:
        word = {"i": "ICU", "b": "builtin", "c": "libc"}[self.provider]
        return f"{self.locale or self.collate} ({word})"


@dataclass(frozen=True, slots=True)
class Original:
    """What was read."""

    measures: tuple[Measure, ...]
    settings: tuple[Setting, ...]
    column_statistics: str
    """Rows of pg_stats as a JSON text; sampled values of the data are among them."""
    group_statistics: str
    """Rows of pg_stats_ext as a JSON text, without most common values."""
    unmatched: tuple[str, ...]
    """Extended statistics with lists of most common values, which cannot be copied."""
    block_size: int
    denied: bool
    """Whether the role may not read the planner's statistics of columns at all."""
    tablespaces: tuple[str, ...]
    """Tablespaces of the relations whose page costs are not those of the session."""


def read_locale(conn: psycopg.Connection[Any]) -> Locale:
    """Read how the database orders text; reads only."""
    return _rows(conn, Locale, _locale_sql(conn.info.server_version))[0]


def read_original(conn: psycopg.Connection[Any], scope: Scope) -> Original:
    """Read what the planner knows of relations; reads only.

    Args:
        conn: a connection in autocommit mode.
        scope: the relations.
    """
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        # A lock that somebody else holds shall not keep us for ever.
        conn.execute(LOCK_BUDGET)
        oids = {"oids": [item.oid for item in scope.relations]}
        measures = _rows(conn, Measure, MEASURES, oids)
        names = {
            "schemas": sorted({item.schema for item in measures}),
            "names": sorted({item.name for item in measures}),
        }
        version = conn.info.server_version
        denied = False
        statistics: tuple[str, str, tuple[str, ...]] = ("", "", ())
        try:
            with conn.transaction():
                statistics = _statistics(conn, version, names)
        except psycopg.errors.InsufficientPrivilege:
            denied = True
        return Original(
            measures=measures,
            settings=_rows(conn, Setting, SETTINGS),
            column_statistics=statistics[0],
            group_statistics=statistics[1],
            unmatched=statistics[2],
            block_size=int(_text(conn, BLOCK_SIZE)),
            denied=denied,
            tablespaces=tuple(row[0] for row in conn.execute(TABLESPACES, oids)),
        )


def _statistics(
    conn: psycopg.Connection[Any], version: int, names: dict[str, Any]
) -> tuple[str, str, tuple[str, ...]]:
    return (
        _text(conn, _column_statistics_sql(version), names),
        _text(conn, _group_statistics_sql(version), names),
        tuple(row[0] for row in conn.execute(UNMATCHED, names)),
    )


def _rows(
    conn: psycopg.Connection[Any],
    row: type[Row],
    query: compose.SQL | compose.Composed | str,
    values: dict[str, Any] | None = None,
) -> tuple[Row, ...]:
    with conn.cursor(row_factory=class_row(row)) as cursor:
        text = query.encode() if isinstance(query, str) else query
        return tuple(cursor.execute(text, values).fetchall())


def _text(
    conn: psycopg.Connection[Any],
    query: compose.SQL | compose.Composed | str,
    values: dict[str, Any] | None = None,
) -> str:
    row = conn.execute(query.encode() if isinstance(query, str) else query, values).fetchone()
    return "" if row is None or row[0] is None else str(row[0])


LOCK_BUDGET = compose.SQL("SET LOCAL lock_timeout = {}").format(f"{SECONDS}s")

MEASURES = """
SELECT n.nspname AS schema,
       c.relname AS name,
       c.relkind::text AS kind,
       CASE WHEN c.relkind IN ('r', 'm', 'i')
            THEN COALESCE(pg_catalog.pg_relation_size(c.oid), 0)
            ELSE 0
       END AS bytes,
       c.relpages,
       c.reltuples::float8 AS reltuples,
       c.relallvisible
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'm', 'i', 'I')
   AND c.oid IN (SELECT o.oid
                   FROM pg_catalog.unnest(%(oids)s::oid[]) AS o (oid)
                  UNION ALL
                 SELECT i.indexrelid
                   FROM pg_catalog.pg_index AS i
                  WHERE i.indrelid = ANY (%(oids)s::oid[]))
 ORDER BY n.nspname, c.relname
"""

# What the planner and the parser read. A value without a unit is in the base unit.
SETTINGS = """
SELECT s.name,
       s.setting AS value
  FROM pg_catalog.pg_settings AS s
 WHERE s.category LIKE 'Query Tuning%'
    OR s.name IN ('work_mem',
                  'hash_mem_multiplier',
                  'max_parallel_workers_per_gather',
                  'max_parallel_workers',
                  'parallel_leader_participation',
                  'debug_parallel_query',
                  'constraint_exclusion',
                  'TimeZone',
                  'DateStyle',
                  'IntervalStyle',
                  'default_text_search_config',
                  'array_nulls',
                  'standard_conforming_strings',
                  'transform_null_equals',
                  'xmloption')
 ORDER BY s.name
"""

BLOCK_SIZE = "SELECT pg_catalog.current_setting('block_size')"

LOCALE = """
SELECT pg_catalog.pg_encoding_to_char(d.encoding) AS encoding,
       {provider}::text AS provider,
       d.datcollate AS collate,
       d.datctype AS ctype,
       COALESCE({locale}, '') AS locale
  FROM pg_catalog.pg_database AS d
 WHERE d.datname = pg_catalog.current_database()
"""


def _locale_sql(version: int) -> compose.Composed:
    provider = "d.datlocprovider" if version >= 150000 else "'c'"
    locale = "d.datlocale" if version >= 170000 else "d.daticulocale"
    return compose.SQL(LOCALE).format(
        provider=compose.SQL(provider),
        locale=compose.SQL(locale if version >= 150000 else "NULL::text"),
    )


# The rows as one text, which the sandbox takes as it is. The names stand as constants, as
# the view is a security barrier. Attributes of an index have numbers: names differ by version.
COLUMN_STATISTICS = """
SELECT pg_catalog.json_agg(pg_catalog.row_to_json(q))::text
  FROM (SELECT s.schemaname,
               s.tablename,
               CASE WHEN c.relkind IN ('i', 'I') THEN NULL ELSE s.attname END AS attname,
               CASE WHEN c.relkind IN ('i', 'I') THEN a.attnum END AS attnum,
               s.inherited,
               s.null_frac,
               s.avg_width,
               s.n_distinct,
               s.most_common_vals::text AS most_common_vals,
               s.most_common_freqs::text AS most_common_freqs,
               s.histogram_bounds::text AS histogram_bounds,
               s.correlation,
               s.most_common_elems::text AS most_common_elems,
               s.most_common_elem_freqs::text AS most_common_elem_freqs,
               s.elem_count_histogram::text AS elem_count_histogram,
               {ranges}
          FROM pg_catalog.pg_stats AS s
          JOIN pg_catalog.pg_namespace AS n ON n.nspname = s.schemaname
          JOIN pg_catalog.pg_class AS c
            ON c.relnamespace = n.oid
           AND c.relname = s.tablename
          JOIN pg_catalog.pg_attribute AS a
            ON a.attrelid = c.oid
           AND a.attname = s.attname
         WHERE s.schemaname = ANY (%(schemas)s::name[])
           AND s.tablename = ANY (%(names)s::name[])
         ORDER BY s.schemaname, s.tablename, a.attnum, s.inherited) AS q
"""


def _column_statistics_sql(version: int) -> compose.Composed:
    ranges = ("range_length_histogram", "range_empty_frac", "range_bounds_histogram")
    form = "s.{}::text AS {}" if version >= 170000 else "NULL::text AS {1}"
    return compose.SQL(COLUMN_STATISTICS).format(
        ranges=compose.SQL(", ".join(form.format(name, name) for name in ranges))
    )


GROUP_STATISTICS = """
SELECT pg_catalog.json_agg(pg_catalog.row_to_json(q))::text
  FROM (SELECT e.statistics_schemaname,
               e.statistics_name,
               {inherited} AS inherited,
               e.n_distinct::text AS n_distinct,
               e.dependencies::text AS dependencies
          FROM pg_catalog.pg_stats_ext AS e
         WHERE e.schemaname = ANY (%(schemas)s::name[])
           AND e.tablename = ANY (%(names)s::name[])
           AND (e.n_distinct IS NOT NULL OR e.dependencies IS NOT NULL)
         ORDER BY e.statistics_schemaname, e.statistics_name) AS q
"""


def _group_statistics_sql(version: int) -> compose.Composed:
    inherited = "e.inherited" if version >= 150000 else "false"
    return compose.SQL(GROUP_STATISTICS).format(inherited=compose.SQL(inherited))


UNMATCHED = """
SELECT pg_catalog.format('%%I.%%I', e.statistics_schemaname, e.statistics_name)
  FROM pg_catalog.pg_stats_ext AS e
 WHERE e.schemaname = ANY (%(schemas)s::name[])
   AND e.tablename = ANY (%(names)s::name[])
   AND e.most_common_vals IS NOT NULL
 ORDER BY e.statistics_schemaname, e.statistics_name
"""

TABLESPACES = """
SELECT DISTINCT
       t.spcname
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_database AS d ON d.datname = pg_catalog.current_database()
  JOIN pg_catalog.pg_tablespace AS t
    ON t.oid = CASE WHEN c.reltablespace = 0 THEN d.dattablespace ELSE c.reltablespace END
 WHERE t.spcoptions IS NOT NULL
   AND (c.oid = ANY (%(oids)s::oid[])
        OR c.oid IN (SELECT i.indexrelid
                       FROM pg_catalog.pg_index AS i
                      WHERE i.indrelid = ANY (%(oids)s::oid[])))
 ORDER BY t.spcname
"""
