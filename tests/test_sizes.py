"""Estimated sizes against indexes that a server has really built."""

from __future__ import annotations

import re
import statistics as numbers
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from indexlab import catalog, embedded
from indexlab.catalog import statistics
from indexlab.sizes import SizeEstimate, estimate

SCHEMA = """
CREATE TABLE t AS
SELECT i AS id,
       i % 20 AS few,
       repeat('x', i * 7919 % 60) || i AS words,
       md5(i::text) AS hash,
       md5(i::text)::uuid AS u,
       i * 7919 % 1000 AS who,
       timestamptz '2024-01-01' + i * interval '7 s' AS at,
       i / 4 AS four,
       i % 100 AS a,
       i % 100 / 10 AS b,
       CASE WHEN i % 2 = 0 THEN i END AS half,
       CASE WHEN i % 100 = 0 THEN 'pending' ELSE 'done' END AS status,
       i::numeric % 50 AS amount
  FROM generate_series(1, 60000) AS i;
CREATE STATISTICS together (ndistinct) ON a, b FROM t;
CREATE UNIQUE INDEX by_id ON t (id);
CREATE INDEX by_few ON t (few);
CREATE INDEX by_words ON t (words);
CREATE INDEX by_hash ON t (hash);
CREATE INDEX by_u ON t (u);
CREATE INDEX by_who_at ON t (who, at);
CREATE INDEX by_four ON t (four);
CREATE INDEX by_half ON t (half);
CREATE INDEX by_both ON t (a, b);
CREATE INDEX by_amount ON t (amount);
CREATE INDEX by_few_with ON t (few) INCLUDE (at);
CREATE INDEX by_few_apart ON t (few) WITH (deduplicate_items = off);
CREATE INDEX by_id_loose ON t (id) WITH (fillfactor = 70);
CREATE INDEX pending ON t (id) WHERE status = 'pending';
CREATE INDEX not_done ON t (half) WHERE half IS NOT NULL;
CREATE INDEX hashed ON t USING hash (id);
CREATE INDEX ranges ON t USING brin (id);
CREATE INDEX tree ON t USING gist (point(id, id));
CREATE INDEX odd ON t (id) WHERE id % 3 = 0;
CREATE INDEX letters ON t (upper(words));
"""
INDEXES = frozenset(re.findall(r"INDEX (\w+) ON t ", SCHEMA))
EXACT = (
    *("by_id", "by_few", "by_words", "by_hash", "by_u", "by_who_at", "by_four", "by_half"),
    *("by_both", "by_amount", "by_few_with", "by_few_apart", "by_id_loose", "pending", "not_done"),
)


@pytest.fixture(scope="module")
def conn(embedded_server: embedded.Server) -> Iterator[psycopg.Connection]:
    """A session on a database with one table and many indexes, never analyzed so far."""
    embedded_server.create_database("sizes")
    with psycopg.connect(embedded_server.conninfo("sizes"), autocommit=True) as session:
        session.execute(SCHEMA)
        yield session
    embedded_server.drop_database("sizes")


Sizes = dict[str, tuple[int, SizeEstimate]]


def known(conn: psycopg.Connection, name: str) -> catalog.Catalog:
    """Read the catalog with the statistics of a table."""
    read = catalog.read(conn)
    table = read.named("public", name)
    assert table is not None
    return replace(read, statistics=statistics.read(conn, read, [table.oid]))


def sizes(conn: psycopg.Connection) -> Sizes:
    """Return the real size of each index and its estimate."""
    read = known(conn, "t")
    return {i.name: (i.bytes, estimate(read, i)) for i in read.indexes if i.name in INDEXES}


@pytest.fixture(scope="module")
def analyzed(conn: psycopg.Connection) -> Sizes:
    conn.execute("ANALYZE t")
    return sizes(conn)


@pytest.mark.parametrize("name", EXACT)
def test_a_btree_is_estimated_within_a_fifth(analyzed: Sizes, name: str):
    real, estimated = analyzed[name]
    assert 0.8 < estimated.bytes / real < 1.2
    assert not estimated.rough


def test_the_median_estimate_is_within_a_twentieth(analyzed: Sizes):
    errors = [abs(analyzed[name][1].bytes / analyzed[name][0] - 1) for name in EXACT]
    assert numbers.median(errors) < 0.05


def test_a_tree_of_points_is_estimated_roughly_and_says_so(analyzed: Sizes):
    real, estimated = analyzed["tree"]
    assert 0.4 < estimated.bytes / real < 2.5
    assert estimated.rough
    assert "a rough model of" in estimated.basis


def test_a_predicate_of_unknown_share_makes_an_upper_bound(analyzed: Sizes):
    real, estimated = analyzed["odd"]
    assert estimated.bytes > real
    assert estimated.rough
    assert "upper bound" in estimated.basis


def test_the_statistics_of_an_expression_come_from_an_index_on_it(analyzed: Sizes):
    real, estimated = analyzed["letters"]
    assert 0.95 < estimated.bytes / real < 1.05
    assert not estimated.rough


def test_an_expression_without_an_index_has_no_statistics_and_says_so(
    analyzed: Sizes, conn: psycopg.Connection
):
    assert "letters" in analyzed
    read = known(conn, "t")
    letters = read.index("public", "letters")
    assert letters is not None
    key = replace(letters.keys[0], text="lower(words)")
    estimated = estimate(read, replace(letters, oid=0, keys=(key,)))
    assert estimated.rough
    assert "no statistics of lower(words)" in estimated.basis


def test_the_basis_tells_how_many_keys_are_merged(analyzed: Sizes):
    assert analyzed["by_few"][1].basis == "60,000 rows; about 20 different keys, deduplicated"
    assert analyzed["by_both"][1].basis == "60,000 rows; about 100 different keys, deduplicated"


def test_without_statistics_types_give_the_widths(conn: psycopg.Connection):
    conn.execute("DROP TABLE IF EXISTS fresh")
    conn.execute(
        "CREATE TABLE fresh (id int PRIMARY KEY, word varchar(10)) WITH (autovacuum_enabled = off)"
    )
    conn.execute("INSERT INTO fresh SELECT i, i FROM generate_series(1, 5000) AS i")
    read = catalog.read(conn)
    table = read.named("public", "fresh")
    assert table is not None
    [index] = read.indexes_of(table.oid)
    estimated = estimate(read, replace(index, oid=0))
    assert estimated.rough
    assert "no statistics of id" in estimated.basis
    assert 0.5 < estimated.bytes / index.bytes < 2


ODD = {
    "empty": "",
    "one row": "INSERT INTO strange VALUES (1, 'a', NULL, '{1}')",
    "only NULL": "INSERT INTO strange SELECT NULL FROM generate_series(1, 5000)",
    "one value": "INSERT INTO strange SELECT 1, 'a', 2, '{1,2}' FROM generate_series(1, 5000)",
}
METHODS = {
    "btree": "(id, word, amount)",
    "hash": "(word)",
    "brin": "(id, word, amount)",
    "gin": "(list)",
    "gist": "(point(id, id))",
    "spgist": "(word)",
}


@pytest.mark.parametrize("analyze", [True, False], ids=["analyzed", "never analyzed"])
@pytest.mark.parametrize("rows", ODD)
def test_odd_tables_are_estimated_to_a_few_pages(
    conn: psycopg.Connection, rows: str, analyze: bool
):
    conn.execute("DROP TABLE IF EXISTS strange")
    conn.execute(
        'CREATE TABLE strange (id int, word text COLLATE "C", amount numeric, list int[])'
        " WITH (autovacuum_enabled = off)"
    )
    conn.execute(ODD[rows].encode())
    if analyze:
        conn.execute("ANALYZE strange")
    read = known(conn, "strange")
    for method, keys in METHODS.items():
        conn.execute(f"CREATE INDEX strange_{method} ON strange USING {method} {keys}")
    indexes = [i for i in known(conn, "strange").indexes if i.name.startswith("strange_")]
    for index in indexes:
        estimated = estimate(read, replace(index, oid=0))
        assert estimated.pages >= 1
        if analyze and index.method in ("btree", "hash", "brin"):
            assert abs(estimated.pages - index.bytes // 8192) <= 1, index.name
    conn.execute("DROP TABLE strange")
