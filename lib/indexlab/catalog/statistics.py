"""What the planner knows of columns: how wide, how many values, which are common."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from indexlab.catalog.snapshot import Catalog


@dataclass(frozen=True, slots=True)
class ColumnStatistics:
    """The planner's statistics of a column, as pg_stats shows them."""

    table: int
    column: int
    """Its number."""
    nulls: float
    """The share of NULLs, 0 to 1."""
    width: float
    """Average bytes of a value that is not NULL."""
    distinct: float
    """As `n_distinct`: a number of values, or, negative, minus their share of the rows."""
    common: tuple[tuple[str, float], ...] = ()
    """The most common values as text, at most ten, each with its share of the rows."""
    frequencies: tuple[float, ...] = ()
    """The shares of all values that the planner knows as common ones."""
    widths: tuple[int, ...] = ()
    """Bytes of the text form of a sample of values that are not common ones."""
    correlation: float | None = None
    """How far the order of the values is the order of the rows, -1 to 1."""
    quads: tuple[int, ...] = ()
    """Groups of four decimal digits that each of these texts takes, if it is a number."""
    bounds: int = 0
    """How many bounds the histogram has."""
    elements: float | None = None
    """How many different elements an array has on average."""
    element_frequencies: tuple[float, ...] = ()
    """The shares of the rows that hold the most common elements."""


@dataclass(frozen=True, slots=True)
class DistinctGroup:
    """How many combinations of values some columns have, from extended statistics."""

    table: int
    columns: tuple[int, ...]
    """Their numbers, ascending."""
    distinct: float
    """As `n_distinct`."""


@dataclass(frozen=True, slots=True)
class ExpressionStatistics:
    """The planner's statistics of an expression, from an index on it."""

    table: int
    text: str
    """The server's words for the expression."""
    values: ColumnStatistics


@dataclass(frozen=True, slots=True)
class Statistics:
    """The planner's statistics of some tables."""

    tables: tuple[int, ...] = ()
    """The tables that were asked for."""
    columns: tuple[ColumnStatistics, ...] = ()
    groups: tuple[DistinctGroup, ...] = ()
    expressions: tuple[ExpressionStatistics, ...] = ()
    denied: bool = False
    """Whether the role may not read pg_stats at all."""
    _by_column: dict[tuple[int, int], ColumnStatistics] = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        by_column = {(item.table, item.column): item for item in self.columns}
        object.__setattr__(self, "_by_column", by_column)

    def of(self, table: int, column: int) -> ColumnStatistics | None:
        """Return what is known of a column; None where nothing is."""
        return self._by_column.get((table, column))

    def of_expression(self, table: int, text: str) -> ColumnStatistics | None:
        """Return what is known of an expression in the server's words; None where nothing is."""
        found = (
            item.values for item in self.expressions if (item.table, item.text) == (table, text)
        )
        return next(found, None)

    def group(self, table: int, columns: Iterable[int]) -> DistinctGroup | None:
        """Return what is known of these columns together."""
        wanted = tuple(sorted(columns))
        found = (item for item in self.groups if (item.table, item.columns) == (table, wanted))
        return next(found, None)


def read(conn: psycopg.Connection[Any], catalog: Catalog, tables: Iterable[int]) -> Statistics:
    """Read the statistics of some tables; reads only, in two round trips.

    Where indexes hold expressions, their statistics take two more.

    Columns that the role may not read have none. Those of the tables alone are read, because the
    common values of thousands of columns are slow to turn into text.

    Args:
        conn: a connection.
        catalog: where names and numbers of the columns come from.
        tables: their oids.
    """
    asked = tuple(sorted(set(tables)))
    relations = {
        (relation.schema, relation.name): relation.oid for relation in map(catalog.relation, asked)
    }
    if not relations:
        return Statistics()
    names = {
        "schemas": [schema for schema, _ in relations],
        "tables": [name for _, name in relations],
    }
    numbers = {
        (oid, column.name): column.number
        for oid in relations.values()
        for column in catalog.columns_of(oid)
    }
    columns: dict[tuple[int, int], ColumnStatistics] = {}
    try:
        of_columns = conn.execute(COLUMN_STATISTICS, names).fetchall()
        of_groups = conn.execute(DISTINCT_GROUPS, names).fetchall()
    except psycopg.errors.InsufficientPrivilege:
        return Statistics(asked, denied=True)
    for schema, name, column, *facts in of_columns:
        table = relations.get((schema, name))
        number = None if table is None else numbers.get((table, column))
        if table is not None and number is not None:
            # Of a table with children there are two: the first is of its own rows.
            columns.setdefault((table, number), _column(table, number, facts))
    groups = [
        DistinctGroup(
            relations[schema, name], tuple(map(int, numbers_of.split(", "))), float(count)
        )
        for schema, name, text in of_groups
        if (schema, name) in relations
        for numbers_of, count in re.findall(r'"([\d, ]+)": (-?[\d.]+)', text)
    ]
    expressions = _read_expressions(conn, catalog, asked)
    return Statistics(asked, tuple(columns.values()), tuple(groups), expressions)


def _read_expressions(
    conn: psycopg.Connection[Any], catalog: Catalog, tables: Iterable[int]
) -> tuple[ExpressionStatistics, ...]:
    """Read the statistics of the indexes with expressions; no round trip where there is none."""
    indexes = {
        (index.schema, index.name): index
        for table in tables
        for index in catalog.indexes_of(table)
        if index.oid and index.predicate is None and any(not key.column for key in index.keys)
    }
    if not indexes:
        return ()
    oids = [index.oid for index in indexes.values()]
    names = {
        "schemas": [schema for schema, _ in indexes],
        "tables": [name for _, name in indexes],
    }
    places = {
        (oid, name): place for oid, name, place in conn.execute(INDEX_COLUMNS, {"oids": oids})
    }
    found: dict[tuple[int, str], ExpressionStatistics] = {}
    for schema, name, column, *facts in conn.execute(COLUMN_STATISTICS, names).fetchall():
        index = indexes.get((schema, name))
        place = None if index is None else places.get((index.oid, column))
        if index is None or place is None or place > len(index.keys):
            continue
        key = index.keys[place - 1]
        if not key.column:
            values = _column(index.table, 0, facts)
            item = ExpressionStatistics(index.table, key.text, values)
            found.setdefault((index.table, key.text), item)
    return tuple(found.values())


def _column(table: int, number: int, facts: list[Any]) -> ColumnStatistics:
    nulls, width, distinct, values, frequencies, widths, quads, bounds, *facts = facts
    correlation, elements, element_frequencies = facts
    return ColumnStatistics(
        table,
        number,
        nulls,
        width,
        distinct,
        common=tuple(zip(values or (), frequencies or (), strict=False)),
        frequencies=tuple(frequencies or ()),
        widths=tuple(size for size in widths or () if size is not None),
        correlation=correlation,
        quads=tuple(number for number in quads or () if number is not None),
        bounds=bounds or 0,
        elements=elements,
        # After the frequencies come the smallest and the largest of them, and that of NULL.
        element_frequencies=tuple(element_frequencies or ())[:-3],
    )


# The names stand as constants: the view is a security barrier, and what restricts it from the
# outside by a join is applied only after all of it has been computed.
COLUMN_STATISTICS = """
SELECT s.schemaname,
       s.tablename,
       s.attname,
       s.null_frac::float8 AS nulls,
       s.avg_width AS width,
       s.n_distinct::float8 AS "distinct",
       (s.most_common_vals::text::text[])[1:10] AS common,
       s.most_common_freqs::float8[] AS frequencies,
       ARRAY(SELECT pg_catalog.octet_length(v.value)
               FROM pg_catalog.unnest(s.histogram_bounds::text::text[])
                    WITH ORDINALITY AS v (value, place)
              ORDER BY v.place
              LIMIT 101) AS widths,
       ARRAY(SELECT (pg_catalog.length(pg_catalog.ltrim(pg_catalog.split_part(v.value, '.', 1), '-0')) + 3) / 4
                    + (pg_catalog.length(pg_catalog.rtrim(pg_catalog.split_part(v.value, '.', 2), '0')) + 3) / 4
               FROM pg_catalog.unnest(s.histogram_bounds::text::text[])
                    WITH ORDINALITY AS v (value, place)
              ORDER BY v.place
              LIMIT 101) AS quads,
       pg_catalog.array_length(s.histogram_bounds::text::text[], 1) AS bounds,
       s.correlation::float8 AS correlation,
       s.elem_count_histogram[pg_catalog.array_length(s.elem_count_histogram, 1)]::float8 AS elements,
       s.most_common_elem_freqs::float8[] AS element_frequencies
  FROM pg_catalog.pg_stats AS s
 WHERE s.schemaname = ANY (%(schemas)s::name[])
   AND s.tablename = ANY (%(tables)s::name[])
 ORDER BY s.schemaname, s.tablename, s.attname, s.inherited
"""

INDEX_COLUMNS = """
SELECT a.attrelid::bigint,
       a.attname,
       a.attnum
  FROM pg_catalog.pg_attribute AS a
 WHERE a.attrelid = ANY (%(oids)s::oid[])
   AND a.attnum > 0
 ORDER BY a.attrelid, a.attnum
"""

DISTINCT_GROUPS = """
SELECT e.schemaname,
       e.tablename,
       e.n_distinct::text
  FROM pg_catalog.pg_stats_ext AS e
 WHERE e.schemaname = ANY (%(schemas)s::name[])
   AND e.tablename = ANY (%(tables)s::name[])
   AND e.n_distinct IS NOT NULL
 ORDER BY e.schemaname, e.tablename, e.statistics_schemaname, e.statistics_name
"""
