"""What a target has run, by pg_stat_statements of several versions, and where there is none."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from indexlab import audit, benchmark, plan, starter, statements, workload
from indexlab.statements import Recorded, Statements
from indexlab.target import Target, connect

SCHEMA = """
CREATE SCHEMA "Stats of ü";
CREATE TABLE orders (id int PRIMARY KEY, customer int, note text);
CREATE TABLE "Odd ""name"" x" (id int);
INSERT INTO orders SELECT n, n % 10, 'x' FROM generate_series(1, 500) AS n;
"""
RUN = (
    "SELECT count(*) FROM orders WHERE customer = 7",
    "SELECT count(*) FROM orders WHERE customer = 8",
    "SELECT note /* why */ FROM orders -- name: taken\n WHERE id = 3",
    "UPDATE orders SET note = 'y' WHERE id = 3",
    'DELETE FROM "Odd ""name"" x" WHERE id = 1',
    "SELECT 1",
    "SELECT count(*) FROM pg_catalog.pg_class",
    "SET work_mem = '4MB'",
)


@pytest.fixture(params=["1.7", "1.8", ""], ids=["1.7", "1.8", "newest"])
def counted(session: psycopg.Connection, request: pytest.FixtureRequest) -> psycopg.Connection:
    """A session on a database that has run some statements, with a version of the extension."""
    session.execute(SCHEMA)
    version = f"VERSION '{request.param}'" if request.param else ""
    session.execute(f'CREATE EXTENSION pg_stat_statements SCHEMA "Stats of ü" {version}')
    session.execute('SELECT "Stats of ü".pg_stat_statements_reset()')
    for statement in RUN:
        session.execute(statement)
    return session


def _named(found: Statements) -> dict[str, Recorded]:
    return {one.name: one for one in found.recorded}


def test_statements_are_named_by_verb_and_table(counted: psycopg.Connection) -> None:
    found = statements.read(counted)
    assert found.reason == ""
    assert set(_named(found)) == {
        *("select_orders", "select_orders_2", "update_orders", "delete_Odd__name__x"),
    }


def test_calls_and_shares_add_up(counted: psycopg.Connection) -> None:
    found = statements.read(counted)
    counts = [one for one in found.recorded if one.text.startswith("SELECT count(*)")]
    assert [(one.calls, one.rows) for one in counts] == [(2, 2)]
    assert counts[0].mean_ms == pytest.approx(counts[0].total_ms / 2)
    assert 0 < sum(one.share for one in found.recorded) <= 1
    assert [one.total_ms for one in found.recorded] == sorted(
        (one.total_ms for one in found.recorded), reverse=True
    )
    frame = found.frame()
    assert list(frame["query"]) == [one.name for one in found.recorded]


def test_a_comment_cannot_pass_for_a_header(counted: psycopg.Connection) -> None:
    found = statements.read(counted)
    drafted = workload.parse("\n".join(one.block() for one in found.recorded), "drafted")
    assert [query.name for query in drafted.queries] == [one.name for one in found.recorded]
    assert all(query.generic for query in drafted.queries)
    assert "taken" not in "".join(one.text for one in found.recorded)
    assert {one.kind for one in drafted.writes} == {"write"}
    assert len(drafted.writes) == 2


def test_most_bounds_the_list(counted: psycopg.Connection) -> None:
    whole, one = statements.read(counted), statements.read(counted, most=1)
    assert (len(whole.recorded), len(one.recorded)) == (4, 1)


def test_where_the_extension_is_not_installed_the_reason_says_what_to_do(
    session: psycopg.Connection,
) -> None:
    found = statements.read(session)
    assert found.recorded == ()
    assert "CREATE EXTENSION pg_stat_statements" in found.reason
    assert found.reason in repr(found)
    assert "<p>" in found._repr_html_()


def test_where_nothing_ran_yet_it_says_so(session: psycopg.Connection) -> None:
    session.execute("CREATE EXTENSION pg_stat_statements")
    session.execute("SELECT pg_stat_statements_reset()")
    assert "counted no statement on a table" in statements.read(session).reason


@pytest.mark.pg15
def test_where_it_is_installed_but_not_loaded_it_says_so(pg15_server) -> None:
    with psycopg.connect(pg15_server.conninfo(), autocommit=True) as conn:
        conn.execute("CREATE EXTENSION pg_stat_statements")
        try:
            found = statements.read(conn)
        finally:
            conn.execute("DROP EXTENSION pg_stat_statements")
    assert "not loaded" in found.reason


@pytest.fixture
def stranger(session: psycopg.Connection, database: Target) -> Iterator[psycopg.Connection]:
    """A session of a role that may not see what others run."""
    session.execute(SCHEMA)
    session.execute("CREATE EXTENSION pg_stat_statements")
    session.execute("SELECT pg_stat_statements_reset()")
    session.execute("SELECT count(*) FROM orders")
    role = sql.Identifier(f"stranger of {session.info.dbname}")
    session.execute(sql.SQL("CREATE ROLE {}").format(role))
    with connect(database) as conn:
        conn.execute(sql.SQL("SET ROLE {}").format(role))
        yield conn
    session.execute(sql.SQL("DROP ROLE {}").format(role))


def test_statements_of_others_are_counted_and_not_shown(stranger: psycopg.Connection) -> None:
    found = statements.read(stranger)
    assert found.recorded == ()
    assert found.hidden > 0
    assert "GRANT pg_read_all_stats" in repr(found)
    assert "insufficient privilege" not in repr(found)


def test_names_that_a_workload_has_are_not_taken_again() -> None:
    one = Recorded("select_orders", "SELECT 1", 1, 1.0, 1.0, 1, 1)
    names = [
        item.name for item in statements.renamed([one, one], ["select_orders", "select_orders_2"])
    ]
    assert names == ["select_orders_3", "select_orders_4"]


def test_what_the_kit_asks_about_rows_is_left_out(
    counted: psycopg.Connection, database: Target
) -> None:
    wanted = plan.parse(
        "CREATE UNIQUE INDEX one_note ON orders (customer, note);\n"
        "CREATE INDEX low ON orders (lower(note), (1 / id)) WHERE id > 0;"
    )
    with connect(database) as other:
        audit.read(counted, wanted, other=other)
        starter.draft(counted, other)
    texts = counted.execute('SELECT query FROM "Stats of ü".pg_stat_statements').fetchall()
    assert sum("/* indexlab */" in text for (text,) in texts) >= 2
    found = {one.name: one.text for one in statements.read(counted).recorded}
    assert set(found) == {
        *("select_orders", "select_orders_2", "update_orders", "delete_Odd__name__x"),
    }, found


def test_what_a_benchmark_runs_is_not_counted(
    counted: psycopg.Connection, database: Target
) -> None:
    asked = workload.parse("-- name: q\nSELECT count(*) FROM orders WHERE customer = 7")
    before = {one.name: one.calls for one in statements.read(counted).recorded}
    sampled = workload.sample(counted, asked)
    benchmark.measure(database, sampled, budget=0.2, precision=0.5)
    assert {one.name: one.calls for one in statements.read(counted).recorded} == before
