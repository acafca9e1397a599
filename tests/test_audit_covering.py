"""What is found by its keys is all that comparing every pair of indexes finds."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import psycopg

from indexlab import catalog
from indexlab.audit.covering import Beside, cover, reversed_equal

SCENE = """
CREATE TABLE t (a int, b int, c text, d int4range);
CREATE INDEX a1 ON t (a);
CREATE INDEX a2 ON t (a) INCLUDE (b);
CREATE UNIQUE INDEX a3 ON t (a);
CREATE INDEX a_down ON t (a DESC);
CREATE INDEX ab ON t (a, b);
CREATE INDEX ab_down ON t (a DESC, b DESC);
CREATE INDEX ab_turned ON t (a, b DESC);
CREATE INDEX abc ON t (a, b, c);
CREATE INDEX ba ON t (b, a);
CREATE INDEX low1 ON t (lower(c), a);
CREATE INDEX low2 ON t (lower(c), a) WITH (fillfactor = 70);
CREATE INDEX low3 ON t (lower(c));
CREATE INDEX up3 ON t (upper(c));
CREATE INDEX part1 ON t (a) WHERE b > 0;
CREATE INDEX part2 ON t (a, b) WHERE b > 0;
CREATE INDEX pattern ON t (c text_pattern_ops);
CREATE INDEX c1 ON t (c);
CREATE INDEX c_other ON t (c COLLATE "C");
CREATE INDEX h1 ON t USING hash (a);
CREATE INDEX h2 ON t USING hash (a);
CREATE INDEX g1 ON t USING gist (d);
CREATE INDEX g2 ON t USING gist (d);
"""


def test_no_pair_is_missed_by_looking_at_keys(conn: psycopg.Connection):
    conn.execute(SCENE)
    indexes = catalog.read(conn).indexes
    beside = Beside(indexes)
    covering = {
        (keeper.name, index.name)
        for keeper, index in permutations(indexes, 2)
        if cover(keeper, index) is not None
    }
    turned = {
        (one.name, other.name)
        for one, other in permutations(indexes, 2)
        if reversed_equal(one, other)
    }
    assert covering >= {("abc", "a1"), ("a3", "a1"), ("low2", "low3"), ("h1", "h2"), ("g2", "g1")}
    assert turned >= {("ab", "ab_down"), ("a1", "a_down")}
    wider = {
        (indexes[place].name, index.name) for index in indexes for place in beside.wider(index)
    }
    narrower = {(index.name, item.name) for index in indexes for item in beside.narrower(index)}
    backwards = {(item.name, index.name) for index in indexes for item in beside.turned(index)}
    assert covering <= wider
    assert covering <= narrower
    assert turned <= backwards
    assert {("ba", "a1"), ("part2", "a1"), ("c_other", "c1"), ("up3", "low3")}.isdisjoint(wider)


def test_what_is_replaced_in_a_snapshot_is_looked_up_anew(conn: psycopg.Connection):
    conn.execute(SCENE)
    read = catalog.read(conn)
    table = read.elsewhere("t")[0]
    fewer = replace(read, indexes=read.indexes[:1])
    assert fewer.indexes_of(table.oid) == read.indexes[:1]
    assert read.indexes_of(table.oid) == read.indexes
    renamed = replace(read, relations=(replace(table, name="u"),))
    assert (renamed.elsewhere("t"), len(renamed.elsewhere("u"))) == ((), 1)
    assert renamed.columns_of(table.oid) == read.columns_of(table.oid)
