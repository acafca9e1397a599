"""Restore in a sandbox what its target's planner knows: statistics and settings."""

from __future__ import annotations

import json
import re
import struct
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import psycopg

from indexlab import sql
from indexlab.catalog import Catalog
from indexlab.catalog.statistics import ColumnStatistics, Statistics
from indexlab.sandbox.differences import Differences
from indexlab.sandbox.loading import said
from indexlab.sandbox.original import Measure, Setting

COLUMNS = """
SELECT pg_catalog.pg_restore_attribute_stats(
           'schemaname', x.schemaname,
           'relname', x.tablename,
           'attname', x.attname,
           'attnum', x.attnum,
           'inherited', x.inherited,
           'null_frac', x.null_frac,
           'avg_width', x.avg_width,
           'n_distinct', x.n_distinct,
           'most_common_vals', x.most_common_vals,
           'most_common_freqs', x.most_common_freqs::real[],
           'histogram_bounds', x.histogram_bounds,
           'correlation', x.correlation,
           'most_common_elems', x.most_common_elems,
           'most_common_elem_freqs', x.most_common_elem_freqs::real[],
           'elem_count_histogram', x.elem_count_histogram::real[],
           'range_length_histogram', x.range_length_histogram,
           'range_empty_frac', x.range_empty_frac::real,
           'range_bounds_histogram', x.range_bounds_histogram)
  FROM pg_catalog.json_to_recordset(%s::json) AS x (
           schemaname text,
           tablename text,
           attname text,
           attnum int2,
           inherited boolean,
           null_frac real,
           avg_width integer,
           n_distinct real,
           most_common_vals text,
           most_common_freqs text,
           histogram_bounds text,
           correlation real,
           most_common_elems text,
           most_common_elem_freqs text,
           elem_count_histogram text,
           range_length_histogram text,
           range_empty_frac text,
           range_bounds_histogram text)
 WHERE pg_catalog.to_regclass(pg_catalog.format('%%I.%%I', x.schemaname, x.tablename)) IS NOT NULL
"""
RELATIONS = """
SELECT pg_catalog.pg_restore_relation_stats(
           'schemaname', x.schema,
           'relname', x.name,
           'relpages', x.relpages,
           'reltuples', x.reltuples,
           'relallvisible', x.relallvisible)
  FROM pg_catalog.json_to_recordset(%s::json) AS x (
           schema text,
           name text,
           relpages integer,
           reltuples real,
           relallvisible integer)
"""
WIDTHS = """
SELECT s.schemaname,
       s.tablename,
       s.attname,
       s.null_frac::float8,
       s.avg_width,
       s.n_distinct::float8
  FROM pg_catalog.pg_stats AS s
 WHERE s.schemaname NOT IN ('pg_catalog', 'information_schema')
 ORDER BY s.schemaname, s.tablename, s.attname, s.inherited
"""
GROUPS = """
SELECT s.oid::bigint
  FROM pg_catalog.pg_statistic_ext AS s
  JOIN pg_catalog.pg_namespace AS n ON n.oid = s.stxnamespace
 WHERE n.nspname = %s
   AND s.stxname = %s
"""
# Their types have no input; in a database of our own, bytes may pass for them.
CASTS = (
    "CREATE CAST (bytea AS pg_ndistinct) WITHOUT FUNCTION",
    "CREATE CAST (bytea AS pg_dependencies) WITHOUT FUNCTION",
)
PUT_GROUP = """
INSERT INTO pg_catalog.pg_statistic_ext_data (stxoid, stxdinherit, stxdndistinct, stxddependencies)
VALUES (%s, %s, %s::bytea::pg_ndistinct, %s::bytea::pg_dependencies)
"""
UNKNOWN_FEATURES = """
SELECT s.name
  FROM pg_catalog.pg_settings AS s
 WHERE s.name LIKE 'enable\\_%%'
   AND s.vartype = 'bool'
   AND s.category LIKE 'Query Tuning%%'
   AND s.name <> ALL (%s::text[])
 ORDER BY s.name
"""
SET = "SELECT pg_catalog.set_config(%s, %s, false)"
PLANNER = """
SELECT pg_catalog.set_config('statement_timeout', '60s', false),
       pg_catalog.set_config('default_transaction_read_only', 'on', false),
       pg_catalog.set_config('client_min_messages', 'error', false)
"""
NDISTINCT_MAGIC, DEPENDENCIES_MAGIC, BASIC = 0xA352BFA4, 0xB4549A2C, 1  # statistics.h
ORDER = "<" if sys.byteorder == "little" else ">"


def column_statistics(worker: psycopg.Connection[Any], rows: str, differences: Differences) -> None:
    """Restore the planner's statistics of columns; as the owner, since values pass through types.

    Args:
        worker: a session of the owner.
        rows: of pg_stats, as a JSON text.
        differences: where it is said what could not be restored.
    """
    if not rows:
        return
    try:
        worker.execute(COLUMNS, [rows])
    except psycopg.Error:
        if worker.closed:
            raise
        for row in json.loads(rows):
            _one_column(worker, row, differences)


def _one_column(
    worker: psycopg.Connection[Any], row: dict[str, Any], differences: Differences
) -> None:
    try:
        worker.execute(COLUMNS, [json.dumps([row])])
    except psycopg.Error as error:
        if worker.closed:
            raise
        # What the server says may hold a value of the data.
        where = ".".join(str(row[name]) for name in ("schemaname", "tablename", "attname"))
        differences.note(f"statistics of {where} are lost: SQLSTATE {error.sqlstate}")


def relation_statistics(admin: psycopg.Connection[Any], measures: Iterable[Measure]) -> None:
    """Restore how many pages and rows relations had when they were last looked at."""
    rows = [asdict(item) for item in measures]
    if rows:
        admin.execute(RELATIONS, [json.dumps(rows)])


def group_statistics(admin: psycopg.Connection[Any], rows: str, differences: Differences) -> None:
    """Restore extended statistics: numbers of combinations and dependencies.

    Args:
        admin: a superuser's session.
        rows: of pg_stats_ext, as a JSON text.
        differences: where it is said what could not be restored.
    """
    groups = json.loads(rows) if rows else []
    if not groups:
        return
    for cast in CASTS:
        admin.execute(cast.encode())
    for row in groups:
        name = (row["statistics_schemaname"], row["statistics_name"])
        found = admin.execute(GROUPS, name).fetchone()
        if found is None:
            differences.note(f"extended statistics {'.'.join(name)} are lost")
            continue
        admin.execute(
            PUT_GROUP,
            [
                found[0],
                row["inherited"],
                None if row["n_distinct"] is None else ndistinct(row["n_distinct"]),
                None if row["dependencies"] is None else dependencies(row["dependencies"]),
            ],
        )


def ndistinct(text: str) -> bytes:
    """Write numbers of combinations as the server stores them (mvdistinct.c); pure.

    >>> ndistinct('{"1, 2": 50}').hex()[-16:]
    '0200000001000200'
    """
    items = [
        (float(count), [int(number) for number in columns.split(",")])
        for columns, count in re.findall(r'"([-\d, ]+)": (-?[\d.]+)', text)
    ]
    data = struct.pack(ORDER + "3I", NDISTINCT_MAGIC, BASIC, len(items))
    for count, columns in items:
        data += struct.pack(ORDER + f"di{len(columns)}h", count, len(columns), *columns)
    return data


def dependencies(text: str) -> bytes:
    """Write functional dependencies as the server stores them (dependencies.c); pure.

    >>> len(dependencies('{"1 => 2": 1.000000}'))
    26
    """
    items = [
        (float(degree), [int(number) for number in re.split(r",|=>", columns)])
        for columns, degree in re.findall(r'"([-\d, =>]+)": (-?[\d.]+)', text)
    ]
    data = struct.pack(ORDER + "3I", DEPENDENCIES_MAGIC, BASIC, len(items))
    for degree, columns in items:
        data += struct.pack(ORDER + f"dh{len(columns)}h", degree, len(columns), *columns)
    return data


def settings(
    planner: psycopg.Connection[Any], given: Iterable[Setting], differences: Differences
) -> None:
    """Have a session plan by the target's settings, and without what the target cannot do."""
    known = {item.name: item.value for item in given}
    for name, value in known.items():
        try:
            planner.execute(SET, [name, value])
        except psycopg.Error as error:
            if planner.closed:
                raise
            differences.note(f"setting {name} = {value!r} is not taken over: {said(error)}")
    unknown = [name for (name,) in planner.execute(UNKNOWN_FEATURES, [list(known)])]
    for name in unknown:
        planner.execute(SET, [name, "off"])
    differences.off = tuple(unknown)
    planner.execute(PLANNER)


def set_path(conn: psycopg.Connection[Any], schemas: Iterable[str]) -> None:
    """Set the schemas that unqualified names are looked up in."""
    conn.execute(SET, ["search_path", ", ".join(map(sql.quote, schemas))])


def widths(
    admin: psycopg.Connection[Any], catalog: Catalog, known: Statistics
) -> tuple[ColumnStatistics, ...]:
    """Read how wide the columns are that the catalog knows nothing of; reads only.

    Enough for heights of existing indexes, and fast for any number of columns.
    """
    found: dict[tuple[int, int], ColumnStatistics] = {}
    for schema, name, attribute, nulls, width, distinct in admin.execute(WIDTHS):
        table = catalog.named(schema, name)
        column = None if table is None else catalog.column(table.oid, attribute)
        if table is not None and column is not None and table.oid not in known.tables:
            statistics = ColumnStatistics(table.oid, column.number, nulls, width, distinct)
            found.setdefault((table.oid, column.number), statistics)
    return tuple(found.values())
