"""The sandbox against the servers that it stands for: same plans, same indexes, nothing left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from indexlab import catalog, explain, plan, target, workload
from indexlab.embedded import Server
from indexlab.explain import Explain
from indexlab.sandbox import Sandbox, databases, open_sandbox, pages
from indexlab.sandbox.files import Files
from indexlab.sql import RelationName
from indexlab.target import Target

SHOP = """
CREATE SCHEMA core;
CREATE TABLE core.customer (
    id int PRIMARY KEY,
    name text NOT NULL,
    grp int NOT NULL DEFAULT 1 CHECK (grp >= 0)
);
CREATE TABLE core.booking (
    id int PRIMARY KEY,
    customer_id int NOT NULL REFERENCES core.customer,
    day date NOT NULL,
    status text NOT NULL,
    note text
);
CREATE INDEX booking_day ON core.booking (day);
INSERT INTO core.customer
SELECT i, 'name ' || i, i % 17 FROM generate_series(1, 20000) AS i;
INSERT INTO core.booking
SELECT i,
       1 + (i * 7919) % 20000,
       DATE '2020-01-01' + (i % 700),
       CASE WHEN i % 50 = 0 THEN 'open' ELSE 'done' END,
       repeat('x', i % 30)
  FROM generate_series(1, 120000) AS i;
CREATE VIEW core.recent AS
SELECT b.*, c.name FROM core.booking AS b JOIN core.customer AS c ON c.id = b.customer_id
 WHERE b.day > '2021-06-01';
ANALYZE;
"""

QUERIES = """
-- name: by_day
SELECT * FROM core.booking WHERE day = '2020-05-05';
-- name: by_customer
SELECT * FROM core.booking WHERE customer_id = 42;
-- name: nested_loops
SELECT * FROM core.customer AS c JOIN core.booking AS b ON b.customer_id = c.id
 WHERE c.name IN ('name 7', 'name 8', 'name 9');
-- name: through_a_view
SELECT name, count(*) FROM core.recent GROUP BY name ORDER BY 2 DESC LIMIT 10;
-- name: few_open
SELECT * FROM core.booking WHERE status = 'open' AND day < '2020-02-01';
-- name: ordered
SELECT * FROM core.booking ORDER BY customer_id, day LIMIT 20;
-- name: write
UPDATE core.booking SET note = 'y' WHERE customer_id = 99;
"""

PLAN = """
CREATE INDEX booking_customer ON core.booking (customer_id, day);
CREATE INDEX customer_name ON core.customer (name);
CREATE INDEX booking_open ON core.booking (day) WHERE status = 'open';
"""


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[Server]:
    """The sandboxes' server, kept from test to test."""
    with databases.cluster() as server:
        yield server


@contextmanager
def sandboxed(
    where: Target, plan_text: str = "", queries: str = "", **options: bool
) -> Iterator[Sandbox]:
    """Open a sandbox of a database, as the audit does."""
    wanted = plan.parse(plan_text) if plan_text else None
    work = workload.parse(queries) if queries else None
    with target.connect(where) as conn:
        snapshot = catalog.read(conn, wanted)
    with open_sandbox(where, snapshot, wanted, work, **options) as sandbox:
        yield sandbox


def real(conn: psycopg.Connection, statement: str) -> Explain:
    return explain.run(conn, statement, (), analyze=False)


def creates(text: str) -> tuple[plan.CreateIndex, ...]:
    return plan.parse(text).creates


def near(one: float, other: float, share: float) -> bool:
    return abs(one - other) <= share * other


@pytest.fixture
def shop(database: Target) -> Iterator[tuple[Target, psycopg.Connection]]:
    with target.connect(database) as conn:
        conn.execute(SHOP)
        conn.execute("VACUUM")
        yield database, conn


# The same plans


def test_plans_and_costs_are_those_of_the_target(shop: tuple[Target, psycopg.Connection]):
    where, conn = shop
    with sandboxed(where, PLAN, QUERIES) as sandbox:
        for query in workload.parse(QUERIES).queries:
            here, there = sandbox.explain(query.statement, ()), real(conn, query.statement)
            assert here.shape == there.shape, query.name
            assert here.root.total_cost == there.root.total_cost, query.name


def test_plans_with_planned_indexes_are_those_with_built_ones(
    shop: tuple[Target, psycopg.Connection],
):
    where, conn = shop
    with sandboxed(where, PLAN, QUERIES) as sandbox:
        for create in creates(PLAN):
            sandbox.add(create)
        conn.execute(PLAN)
        used = set()
        for query in workload.parse(QUERIES).queries:
            here, there = sandbox.explain(query.statement, ()), real(conn, query.statement)
            assert here.shape == there.shape, query.name
            assert near(here.root.total_cost, there.root.total_cost, 0.03), query.name
            used |= set(here.indexes)
        assert {"booking_customer", "customer_name", "booking_open"} <= used


def test_a_hidden_index_is_used_again_when_it_is_shown(shop: tuple[Target, psycopg.Connection]):
    where, _ = shop
    query = "SELECT * FROM core.booking WHERE day = '2020-05-05'"
    with sandboxed(where, PLAN, QUERIES) as sandbox:
        assert sandbox.explain(query, ()).indexes == ("booking_day",)
        sandbox.hide([RelationName("core", "booking_day")])
        assert sandbox.explain(query, ()).indexes == ()
        added = sandbox.add(creates("CREATE INDEX other_day ON core.booking (day, id)")[0])
        assert sandbox.explain(query, ()).indexes == ("other_day",)
        sandbox.hide([added.index])
        assert sandbox.explain(query, ()).indexes == ("booking_day",)
        sandbox.hide([])


def test_parameters_are_planned_by_value_and_in_general(shop: tuple[Target, psycopg.Connection]):
    where, conn = shop
    query = "SELECT * FROM core.booking WHERE status = $1 AND day = '2020-05-05'"
    with sandboxed(where, PLAN, QUERIES) as sandbox:
        for value in ("open", "done"):
            there = explain.run(conn, query, (value,), analyze=False)
            assert sandbox.explain(query, (value,)).root.plan_rows == there.root.plan_rows
        there = explain.run(conn, query, (), analyze=False, generic=True)
        assert sandbox.explain(query, None).root.total_cost == there.root.total_cost


@pytest.mark.pg15
def test_a_server_of_another_version_gets_the_same_indexes(pg15_server):
    conninfo = pg15_server.conninfo("postgres")
    with psycopg.connect(conninfo, autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS shop15")
        admin.execute("CREATE DATABASE shop15")
    where = target.resolve(pg15_server.conninfo("shop15"), {})
    with target.connect(where) as conn:
        conn.execute(SHOP)
        conn.execute("VACUUM")
        with sandboxed(where, PLAN, QUERIES) as sandbox:
            assert "statistics of 15" in sandbox.name
            assert any("PostgreSQL 15" in note for note in sandbox.notes)
            for create in creates(PLAN):
                sandbox.add(create)
            conn.execute(PLAN)
            for query in workload.parse(QUERIES).queries:
                here, there = sandbox.explain(query.statement, ()), real(conn, query.statement)
                assert here.indexes == there.indexes, query.name
                assert near(here.root.total_cost, there.root.total_cost, 0.03), query.name


def test_the_planner_settings_of_the_session_are_taken_over(database: Target):
    with target.connect(database) as conn:
        name = conn.info.dbname
        conn.execute(SHOP)
        conn.execute(
            f"""ALTER DATABASE {name} SET random_page_cost = 17;
                ALTER DATABASE {name} SET enable_hashjoin = off;
                ALTER DATABASE {name} SET work_mem = '123kB';
                ALTER DATABASE {name} SET search_path = core"""
        )
    with sandboxed(database, "", "-- name: q\nSELECT * FROM customer") as sandbox:
        told = dict(sandbox.explain("SELECT * FROM customer", ()).settings)
    assert told["random_page_cost"] == "17"
    assert told["enable_hashjoin"] == "off"
    assert told["work_mem"] == "123kB"


# Every access method


METHODS = """
CREATE EXTENSION pg_trgm;
CREATE TABLE doc (id int, body text, tags jsonb, span int4range, at timestamptz, code text,
                  words tsvector);
INSERT INTO doc
SELECT i,
       md5(i::text) || ' ' || md5((i + 1)::text),
       jsonb_build_object('k', i % 100, 'name', 'n' || i % 1000),
       int4range(i % 5000, i % 5000 + 20),
       TIMESTAMPTZ '2024-01-01 00:00Z' + i * INTERVAL '1 minute',
       'c' || i,
       to_tsvector('simple', 'w' || i % 500 || ' v' || i % 3000)
  FROM generate_series(1, 60000) AS i;
ANALYZE doc;
"""


@pytest.mark.parametrize(
    ("index", "query", "share"),
    [
        ("USING gin (body gin_trgm_ops)", "body LIKE '%abcdef%'", 0.25),
        ("USING gin (tags)", """tags @> '{"k": 7}'""", 0.25),
        ("USING gin (tags jsonb_path_ops)", """tags @> '{"k": 7}'""", 0.25),
        ("USING gin (words)", "words @@ 'w7 & v7'::tsquery", 0.25),
        ("USING gist (span)", "span && int4range(10, 11)", 0.25),
        ("USING brin (at)", "at < '2024-01-02'", 0.05),
        ("USING brin (at) WITH (pages_per_range = 8)", "at < '2024-01-02'", 0.05),
        ("USING hash (code)", "code = 'c77'", 0.05),
        ("USING spgist (code)", "code = 'c77'", 0.25),
        ("(lower(code))", "lower(code) = 'c77'", 0.05),
        ("(code text_pattern_ops) INCLUDE (id)", "code LIKE 'c777%'", 0.05),
    ],
)
def test_an_index_of_any_method_costs_what_a_built_one_does(
    database: Target, index: str, query: str, share: float
):
    statement = f"CREATE INDEX doc_idx ON doc {index}"
    query = f"SELECT id FROM doc WHERE {query}"
    with target.connect(database) as conn:
        conn.execute(METHODS)
        with sandboxed(database, statement) as sandbox:
            assert real(conn, query).shape == sandbox.explain(query, ()).shape
            sandbox.add(creates(statement)[0])
            here = sandbox.explain(query, ())
        conn.execute(statement)
        there = real(conn, query)
    assert there.indexes == ("doc_idx",)
    assert here.shape == there.shape, f"{here.text()}\n{there.text()}"
    assert near(here.root.total_cost, there.root.total_cost, share), (
        f"{here.text()}\n{there.text()}"
    )


@pytest.mark.parametrize(
    "index",
    [
        "USING gin (body gin_trgm_ops)",
        "USING gin (tags)",
        "USING gist (span)",
        "USING brin (at)",
        "USING hash (code)",
    ],
)
def test_existing_indexes_of_any_method_cost_the_same(database: Target, index: str):
    condition: Callable[[str], str] = {
        "body": "body LIKE '%abcdef%'",
        "tags": """tags @> '{"k": 7}'""",
        "span": "span && int4range(10, 11)",
        "at)": "at < '2024-01-02'",
        "code": "code = 'c77'",
    }.get
    column = index.partition("(")[2].partition(" ")[0]
    column = column if column == "at)" else column.rstrip(")")
    query = f"SELECT id FROM doc WHERE {condition(column)}"
    with target.connect(database) as conn:
        conn.execute(METHODS)
        conn.execute(f"CREATE INDEX doc_idx ON doc {index}")
        conn.execute("VACUUM doc")
        there = real(conn, query)
        with sandboxed(database, "", f"-- name: q\n{query}") as sandbox:
            here = sandbox.explain(query, ())
    assert there.indexes == ("doc_idx",)
    assert here.shape == there.shape
    assert near(here.root.total_cost, there.root.total_cost, 0.25), f"{here.text()}\n{there.text()}"


# The pages that tell of a height


@pytest.mark.parametrize("height", [0, 1, 2, 5])
def test_a_planted_btree_is_sound_and_empty(database: Target, embedded_server: Server, height: int):
    files = Files.of(embedded_server)
    with target.connect(database) as conn:
        conn.execute(
            """
            CREATE EXTENSION pageinspect; CREATE EXTENSION amcheck; CREATE EXTENSION pg_buffercache;
            CREATE TABLE t (a int); CREATE INDEX t_a ON t (a);
            """
        )
        conn.execute("SELECT pg_buffercache_evict_relation('t_a')")
        (path,) = conn.execute("SELECT pg_relation_filepath('t_a')").fetchone()
        files.put(path, pages.btree(files.first(path), height))
    with target.connect(database) as conn:
        told = conn.execute("SELECT root, level, fastroot, fastlevel FROM bt_metap('t_a')")
        assert told.fetchone() == (1, height, 1, height)
        conn.execute("SELECT bt_index_parent_check('t_a', true, true)")
        conn.execute("SET enable_seqscan = off")
        assert conn.execute("SELECT count(*) FROM t WHERE a > 5").fetchone() == (0,)
        conn.execute("INSERT INTO t SELECT generate_series(1, 2000)")
        assert conn.execute("SELECT count(*) FROM t WHERE a > 5").fetchone() == (1995,)


def test_pages_of_another_kind_are_not_taken_for_a_btree():
    with pytest.raises(ValueError, match="not the first page of a btree"):
        pages.btree(bytes(8192), 1)
    with pytest.raises(ValueError, match="not the first page of a BRIN"):
        pages.brin(bytes(8192), 1)
