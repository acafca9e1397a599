"""The model of a btree against many kinds of data, in pages and in height; built for real."""

from __future__ import annotations

import statistics as numbers
from collections.abc import Callable, Iterator
from dataclasses import replace

import psycopg
import pytest

from indexlab import catalog, embedded, sizes
from indexlab.catalog import statistics
from indexlab.catalog.objects import Index

ROWS = 40_000
TYPES = {
    "smallint": "(n % 60000 - 30000)::smallint",
    "integer": "n::integer",
    "bigint": "n * 1000003",
    "date": "date '2000-01-01' + n::integer",
    "timestamptz": "timestamptz '2020-01-01' + n * interval '97 seconds'",
    "uuid": "md5(n::text)::uuid",
    "numeric": "(n * 7919 % 1000000)::numeric / 100",
    "double": "n / 7.0::float8",
    "char": "lpad(n::text, 15)::char(15)",
    "short text": "'k' || n",
    "varied text": "repeat('ab', (n * 7919 % 41)::integer) || n",
    "long text": "repeat(md5(n::text), 1 + (n % 5)::integer)",
}
"""How a value of each type is made from a number n."""
ROWS_PER_KEY = {
    "unique": "i",
    "about two": "hashint8(i) & 16383",
    "four": "i / 4",
    "one to seven": "i / 4 * 3 + (i % 7) / 4",
    "poisson of 16": "hashint8(i + 77) & 2047",
    "hundreds": "hashint8(i + 5) % 97 + 97",
    "skewed": "floor(2000 * (20 ^ ((hashint8(i) & 65535) / 65535.0) - 1) / 19)::bigint",
    "some common": "CASE WHEN i % 3 = 0 THEN i % 5 ELSE i END",
}
"""How the number of a key is made from the number i of a row."""


@pytest.fixture(scope="module")
def conn(embedded_server: embedded.Server) -> Iterator[psycopg.Connection]:
    """A session on a database with one table for each number of rows per key."""
    embedded_server.create_database("btrees")
    with psycopg.connect(embedded_server.conninfo("btrees"), autocommit=True) as session:
        session.execute("CREATE EXTENSION pageinspect")
        for place, key in enumerate(ROWS_PER_KEY.values()):
            columns = ", ".join(f"{text} AS v{i}" for i, text in enumerate(TYPES.values()))
            session.execute(
                f"CREATE TABLE t{place} AS SELECT {columns}, i, CASE WHEN hashint8(i + 3) % 3 = 0 THEN n END AS gaps,"
                f" hashint8(i + 99) % 11 AS few, hashint8(i + 7) % 7 AS other"
                f" FROM (SELECT i, ({key})::bigint AS n FROM generate_series(1::bigint, {ROWS}) AS i) AS k"
            )
        session.execute("VACUUM ANALYZE")
        yield session
    embedded_server.drop_database("btrees")


Built = Callable[[str, str], tuple[Index, int, sizes.SizeEstimate, int]]


@pytest.fixture
def built(conn: psycopg.Connection) -> Iterator[Built]:
    """Build an index on a table and return it, its height, the estimate, and its estimated height.

    The estimate is made before the index is there.
    """

    def build(table: str, rest: str) -> tuple[Index, int, sizes.SizeEstimate, int]:
        conn.execute(f"CREATE INDEX built ON {table} {rest}")
        read = known(conn)
        index = read.index("public", "built")
        assert index is not None
        without = replace(read, indexes=tuple(i for i in read.indexes if i is not index))
        row = conn.execute("SELECT level FROM bt_metap('built')").fetchone()
        assert row is not None
        level = sizes.height(read, index, index.bytes // sizes.PAGE)
        return index, row[0], sizes.estimate(without, replace(index, oid=0)), level

    conn.execute("DROP INDEX IF EXISTS built")
    yield build
    conn.execute("DROP INDEX IF EXISTS built")


def known(conn: psycopg.Connection) -> catalog.Catalog:
    read = catalog.read(conn)
    tables = [table.oid for table in read.relations if table.kind == "table"]
    return replace(read, statistics=statistics.read(conn, read, tables))


def error(index: Index, estimated: sizes.SizeEstimate) -> float:
    return abs(estimated.bytes / index.bytes - 1)


@pytest.mark.parametrize("rows", ROWS_PER_KEY)
def test_sizes_and_heights_of_every_type(built: Built, conn: psycopg.Connection, rows: str):
    errors = {}
    for place, name in enumerate(TYPES):
        table = f"t{list(ROWS_PER_KEY).index(rows)}"
        index, level, estimated, existing = built(table, f"(v{place})")
        conn.execute("DROP INDEX built")
        errors[name] = error(index, estimated)
        assert (estimated.height, existing) == (level, level), name
        assert not estimated.rough
    # ANALYZE does not say that each key has just four.
    assert numbers.median(errors.values()) < (0.10 if rows == "four" else 0.05), errors
    assert max(errors.values()) < 0.12, errors


@pytest.mark.parametrize(
    "rest",
    [
        *("(few, i)", "(few, other)", "(other, v4)", "(few, v9)", "(gaps)", "(gaps, few)"),
        *("(few, gaps)", "(v9) INCLUDE (few)", "(few) INCLUDE (v9, gaps)", "(few, other, gaps)"),
        *("(few) WITH (deduplicate_items = off)", "(v1) WITH (fillfactor = 50)"),
        *(
            "(few) WITH (fillfactor = 100)",
            "(i) WHERE gaps IS NULL",
            "(few) WHERE gaps IS NOT NULL",
        ),
        *("(i) WHERE few = 3", "(v1) WHERE few = 3"),
    ],
)
@pytest.mark.parametrize("table", ["t0", "t2", "t4"])
def test_several_columns_nulls_and_parts(built: Built, table: str, rest: str):
    index, level, estimated, existing = built(table, rest)
    assert estimated.height == existing == level
    if not estimated.rough:
        assert error(index, estimated) < 0.12


@pytest.mark.parametrize("rest", ["(v9, v3)", "(v11, v10, v9)", "(v6, v7)", "(v10, gaps, v0)"])
def test_several_columns_of_which_one_is_unique(built: Built, rest: str):
    index, level, estimated, existing = built("t0", rest)
    assert estimated.height == existing == level
    assert error(index, estimated) < 0.05


SMALL = (0, 1, 2, 366, 367, 368, 407, 408, 733, 734, 10_000)
"""Numbers of rows around the ends of a page of integers, which keeps 366 of them."""


@pytest.mark.parametrize("rows", [*SMALL, 366 * 285, 366 * 285 + 2])
def test_the_height_is_right_to_the_row(conn: psycopg.Connection, rows: int):
    """An inner page keeps 285 integers; with one leaf more there is another level."""
    conn.execute("DROP TABLE IF EXISTS edge")
    conn.execute(
        "CREATE TABLE edge AS SELECT i::int AS n"
        f" FROM generate_series(1, {rows}) AS i; CREATE UNIQUE INDEX edge_n ON edge (n)"
    )
    conn.execute("VACUUM ANALYZE edge")
    read = known(conn)
    index = read.index("public", "edge_n")
    assert index is not None
    estimated = sizes.estimate(read, replace(index, oid=0))
    (level,) = conn.execute("SELECT level FROM bt_metap('edge_n')").fetchone() or (None,)
    conn.execute("DROP TABLE edge")
    assert (estimated.pages, estimated.height) == (index.bytes // sizes.PAGE, level)
    assert sizes.height(read, index, index.bytes // sizes.PAGE) == level


def test_columns_that_hang_together_make_a_rough_estimate(built: Built):
    index, _, estimated, _ = built("t5", "(v1, v2)")
    assert estimated.bytes > 2 * index.bytes
    assert estimated.rough
    assert "nothing to do with each other" in estimated.basis


def test_extended_statistics_tell_that_columns_hang_together(
    built: Built, conn: psycopg.Connection
):
    conn.execute("CREATE STATISTICS v1_v2 (ndistinct) ON v1, v2 FROM t5; ANALYZE t5")
    index, _, estimated, _ = built("t5", "(v1, v2)")
    conn.execute("DROP STATISTICS v1_v2")
    assert error(index, estimated) < 0.05
    assert not estimated.rough
