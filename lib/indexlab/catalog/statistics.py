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


@dataclass(frozen=True, slots=True)
class DistinctGroup:
    """How many combinations of values some columns have, from extended statistics."""

    table: int
    columns: tuple[int, ...]
    """Their numbers, ascending."""
    distinct: float
    """As `n_distinct`."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """The planner's statistics of some tables."""

    tables: tuple[int, ...] = ()
    """The tables that were asked for."""
    columns: tuple[ColumnStatistics, ...] = ()
    groups: tuple[DistinctGroup, ...] = ()
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

    def group(self, table: int, columns: Iterable[int]) -> DistinctGroup | None:
        """Return what is known of these columns together."""
        wanted = tuple(sorted(columns))
        found = (item for item in self.groups if (item.table, item.columns) == (table, wanted))
        return next(found, None)


def read(conn: psycopg.Connection[Any], catalog: Catalog, tables: Iterable[int]) -> Statistics:
    """Read the statistics of some tables; reads only, in two round trips.

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
    return Statistics(asked, tuple(columns.values()), tuple(groups))


def _column(table: int, number: int, facts: list[Any]) -> ColumnStatistics:
    nulls, width, distinct, values, frequencies, widths, correlation = facts
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
       s.correlation::float8 AS correlation
  FROM pg_catalog.pg_stats AS s
 WHERE s.schemaname = ANY (%(schemas)s::name[])
   AND s.tablename = ANY (%(tables)s::name[])
 ORDER BY s.schemaname, s.tablename, s.attname, s.inherited
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
