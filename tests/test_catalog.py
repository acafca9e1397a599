"""The snapshot of a target: what it holds, and planned indexes in its terms."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Self

import psycopg
import pytest

from indexlab import catalog, plan
from indexlab.catalog import Catalog, Index, Unresolved
from indexlab.plan import IndexDef
from indexlab.sql import RelationName

_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=["embedded", pytest.param("15", marks=pytest.mark.pg15)])
def conninfo(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """How to connect to a database of the server that the test is for."""
    name = "embedded_server" if request.param == "embedded" else "pg15_server"
    return request.getfixturevalue(name).conninfo


@pytest.fixture(scope="module")
def address(conninfo: Callable[[str], str]) -> Iterator[str]:
    """A database of the module's own."""
    name = f"catalog_{next(_numbers)}"
    with psycopg.connect(conninfo("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        yield conninfo(name)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


SCHEMA = """
CREATE SCHEMA core;
CREATE SCHEMA empty;
CREATE TABLE core.customers (
    id int PRIMARY KEY,
    gone int,
    email varchar(80) COLLATE "C" NOT NULL,
    twice int GENERATED ALWAYS AS (id * 2) STORED
);
ALTER TABLE core.customers DROP COLUMN gone;
CREATE UNLOGGED TABLE bookings (
    id int,
    customer_id int REFERENCES core.customers,
    date date,
    status text,
    paid boolean
);
CREATE INDEX by_customer ON bookings (customer_id DESC NULLS LAST, date) INCLUDE (status)
    WITH (fillfactor = 70) WHERE status IN ('a', 'b');
CREATE INDEX by_word ON bookings (lower(status) text_pattern_ops);
CREATE UNIQUE INDEX by_id ON bookings (id) WHERE paid = true;
CREATE TABLE parts (a int) PARTITION BY LIST (a);
CREATE TABLE part PARTITION OF parts DEFAULT;
CREATE INDEX parts_a ON parts (a);
CREATE VIEW shown AS SELECT 1 AS one;
"""


@pytest.fixture
def conn(address: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(address, autocommit=True) as session:
        session.execute("SET client_min_messages = warning")
        session.execute("DROP SCHEMA IF EXISTS core, empty, public CASCADE; CREATE SCHEMA public")
        session.execute(SCHEMA)
        yield session


def found(snapshot: Catalog, name: str) -> Index:
    index = snapshot.index("public", name)
    assert index is not None
    return index


def wanted(conn: psycopg.Connection, text: str) -> Index | Unresolved:
    asked = plan.parse(text)
    return catalog.read(conn, asked).wanted(asked.creates[0].index)


def test_relations_are_told_apart_by_kind(conn: psycopg.Connection) -> None:
    snapshot = catalog.read(conn)
    kinds = {str(item.qualified): item.kind for item in snapshot.relations}
    assert kinds["core.customers"] == "table"
    assert kinds["public.parts"] == "partitioned table"
    assert kinds["public.parts_a"] == "partitioned index"
    assert kinds["public.shown"] == "view"
    assert not any(name.startswith("pg_") for name in kinds)
    assert "empty" in snapshot.schemas


def test_what_a_role_may_do_is_known(conn: psycopg.Connection) -> None:
    bookings = catalog.read(conn).find(RelationName(None, "bookings"))
    assert bookings is not None
    assert (bookings.owned, bookings.readable, bookings.creatable) == (True, True, True)
    assert bookings.unlogged


def test_a_dropped_column_is_not_there(conn: psycopg.Connection) -> None:
    snapshot = catalog.read(conn)
    customers = snapshot.find(RelationName("core", "customers"))
    assert customers is not None
    assert [column.name for column in snapshot.columns_of(customers.oid)] == [
        "id",
        "email",
        "twice",
    ]
    assert [column.generated for column in snapshot.columns_of(customers.oid)] == ["", "", "s"]


def test_names_are_found_as_the_server_finds_them(conn: psycopg.Connection) -> None:
    snapshot = catalog.read(conn)
    assert snapshot.find(RelationName(None, "customers")) is None
    assert snapshot.find(RelationName(None, "customers"), ("core",)) is not None
    assert [str(r.qualified) for r in snapshot.elsewhere("customers")] == ["core.customers"]
    assert snapshot.named("public", "by_word") is not None


def test_an_index_is_read_with_all_that_compares(conn: psycopg.Connection) -> None:
    index = found(catalog.read(conn), "by_customer")
    assert [(key.descending, key.nulls_first) for key in index.keys] == [
        (True, False),
        (False, False),
    ]
    assert (index.method, index.unique, index.include) == ("btree", False, (4,))
    assert index.options == ("fillfactor=70",)
    assert index.predicate is not None
    assert "ANY" in index.predicate
    assert index.usable


def test_constraints_and_partitions_are_known_at_the_index(conn: psycopg.Connection) -> None:
    snapshot = catalog.read(conn)
    key = snapshot.index("core", "customers_pkey")
    child = snapshot.index("public", "part_a_idx")
    parent = snapshot.named("public", "parts_a")
    assert key is not None
    assert child is not None
    assert parent is not None
    assert (key.primary, key.constraint) == (True, "customers_pkey")
    assert key.referenced_by == ("bookings_customer_id_fkey",)
    assert child.parent == parent.oid


@pytest.mark.parametrize(
    ("planned", "existing"),
    [
        (
            "CREATE INDEX i ON bookings (customer_id DESC NULLS LAST, date) INCLUDE (status) "
            "WHERE status IN ('a', 'b')",
            "by_customer",
        ),
        ("CREATE INDEX i ON bookings (lower(status) text_pattern_ops)", "by_word"),
        ("CREATE UNIQUE INDEX i ON bookings (id) WHERE paid = true", "by_id"),
    ],
)
def test_a_planned_index_equals_the_one_that_exists(
    conn: psycopg.Connection, planned: str, existing: str
) -> None:
    asked = plan.parse(planned)
    snapshot = catalog.read(conn, asked)
    index = snapshot.wanted(asked.creates[0].index)
    assert isinstance(index, Index)
    assert found(snapshot, existing).equals(index)


def test_what_only_the_planner_takes_for_the_same_differs(conn: psycopg.Connection) -> None:
    asked = plan.parse("CREATE UNIQUE INDEX i ON bookings (id) WHERE paid")
    snapshot = catalog.read(conn, asked)
    index = snapshot.wanted(asked.creates[0].index)
    assert isinstance(index, Index)
    assert not found(snapshot, "by_id").equals(index)


@pytest.mark.parametrize(
    ("planned", "what", "name"),
    [
        ("CREATE INDEX i ON nowhere (a)", "table", "nowhere"),
        ("CREATE INDEX i ON shown (one)", "kind", "public.shown"),
        ("CREATE INDEX i ON bookings (id) WHERE nothing > 1", "column", "nothing"),
        ("CREATE INDEX i ON bookings (status no_ops)", "opclass", "no_ops"),
        ("CREATE INDEX i ON bookings (id text_ops)", "opclass type", "text_ops"),
        ("CREATE INDEX i ON bookings USING gin (id)", "type", "id"),
        ('CREATE INDEX i ON bookings (status COLLATE "no")', "collation", "no"),
        ("CREATE INDEX i ON bookings (count(id))", "expression", "count(id)"),
    ],
)
def test_what_is_not_there_is_named(
    conn: psycopg.Connection, planned: str, what: str, name: str
) -> None:
    missing = wanted(conn, planned)
    assert isinstance(missing, Unresolved)
    assert (missing.what, missing.name) == (what, name)


def test_an_expression_has_the_collation_that_it_names(conn: psycopg.Connection) -> None:
    plain = wanted(conn, "CREATE INDEX i ON bookings (lower(status))")
    other = wanted(conn, 'CREATE INDEX i ON bookings (lower(status COLLATE "C"))')
    assert isinstance(plain, Index)
    assert isinstance(other, Index)
    assert plain.keys[0].collation != other.keys[0].collation


def test_no_expression_is_evaluated(conn: psycopg.Connection) -> None:
    conn.execute(
        "CREATE FUNCTION explode(x text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS"
        " $$ BEGIN RAISE EXCEPTION 'evaluated'; END $$; INSERT INTO bookings VALUES (1, NULL)"
    )
    index = wanted(conn, 'CREATE INDEX i ON bookings (explode(status COLLATE "C"))')
    assert isinstance(index, Index)


def test_what_was_asked_once_is_not_asked_again(conn: psycopg.Connection) -> None:
    asked = plan.parse("CREATE INDEX i ON bookings (lower(status))")
    snapshot = catalog.read(conn, asked)
    conn.close()
    assert catalog.with_expressions(conn, snapshot, asked) == snapshot


def test_a_timeout_is_not_taken_for_an_answer(conn: psycopg.Connection) -> None:
    snapshot = catalog.read(conn)
    with psycopg.connect(conn.info.dsn) as blocker:
        blocker.execute("LOCK TABLE bookings")
        conn.execute("SET lock_timeout = 1")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            catalog.with_expressions(
                conn, snapshot, plan.parse("CREATE INDEX i ON bookings (lower(status))")
            )


def test_reading_works_in_a_read_only_session(conn: psycopg.Connection) -> None:
    conn.execute("SET default_transaction_read_only = on")
    asked = plan.parse("CREATE INDEX i ON bookings (lower(status))")
    assert catalog.read(conn, asked).expressions[0].canonical == "lower(status)"


class Recorder(psycopg.Cursor[tuple[object, ...]]):
    """A cursor that counts what it sends."""

    sent = 0

    def execute(self, *args: Any, **kwargs: Any) -> Self:
        Recorder.sent += 1
        return super().execute(*args, **kwargs)


def test_the_number_of_round_trips_does_not_grow(conn: psycopg.Connection) -> None:
    def sent() -> int:
        before = Recorder.sent
        catalog.read(conn)
        return Recorder.sent - before

    conn.cursor_factory = Recorder
    few = sent()
    for number in range(20):
        conn.execute(f"CREATE TABLE more_{number} (a int PRIMARY KEY)")
    assert sent() == few > 0


def test_methods_say_what_they_can(conn: psycopg.Connection) -> None:
    snapshot = catalog.read(conn)
    able = {
        item.name: (item.can_order, item.can_unique, item.can_multicolumn, item.can_include)
        for item in snapshot.methods
    }
    assert able["btree"] == (True, True, True, True)
    assert able["hash"] == (False, False, False, False)
    assert able["gin"] == (False, False, True, False)
    assert able["gist"] == (False, False, True, True)


def test_only_the_shared_tablespace_takes_nothing(conn: psycopg.Connection) -> None:
    spaces = {item.name: item.creatable for item in catalog.read(conn).tablespaces}
    assert spaces == {"pg_default": True, "pg_global": False}


def test_a_name_is_cut_as_the_server_cuts_it(conn: psycopg.Connection) -> None:
    long = "a" * 70
    conn.execute(f"CREATE TABLE {long} (a int)")
    index = catalog.read(conn).wanted(IndexDef.parse(f"CREATE INDEX {long} ON {long} (a)"))
    assert isinstance(index, Index)
    assert len(index.name) == 63
