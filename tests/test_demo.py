from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from indexlab import demo, embedded, plan, workload
from indexlab.errors import InputError

ROWS = 20_000

NAMED_INDEXES = {
    "ix_core_bookings_station_id": "core.bookings USING btree (station_id)",
    "ix_core_bookings_customer_id": "core.bookings USING btree (customer_id)",
    "idx_booking_station_date": "core.bookings USING btree (station_id, date, slot)",
    "idx_booking_station_customer": "core.bookings USING btree (station_id, customer_id)",
    "ix_core_payments_booking_id": "core.payments USING btree (booking_id)",
    "idx_customer_station_email": "core.customers USING btree (station_id, email_encrypted)",
}

CHECKSUM = """
SELECT
    (SELECT sum(hashtextextended(t::text, 0)) FROM core.stations AS t),
    (SELECT sum(hashtextextended(t::text, 0)) FROM core.customers AS t),
    (SELECT sum(hashtextextended(t::text, 0)) FROM core.bookings AS t),
    (SELECT sum(hashtextextended(t::text, 0)) FROM core.payments AS t)
"""


def connect(server: embedded.Server, database: str) -> psycopg.Connection[Any]:
    return psycopg.connect(server.conninfo(database), autocommit=True)


@pytest.fixture(scope="module")
def server(embedded_server: embedded.Server) -> embedded.Server:
    return embedded_server


@pytest.fixture(scope="module")
def conn(server: embedded.Server) -> Iterator[psycopg.Connection[Any]]:
    server.create_database("story")
    with connect(server, "story") as conn:
        demo.load(conn, ROWS)
        yield conn


@pytest.fixture(scope="module")
def smallest(server: embedded.Server) -> Iterator[psycopg.Connection[Any]]:
    server.create_database("smallest")
    with connect(server, "smallest") as conn:
        demo.load(conn, demo.MIN_ROWS)
        yield conn


def value(conn: psycopg.Connection[Any], query: str) -> Any:
    row = conn.execute(query).fetchone()
    assert row is not None
    return row[0]


def shares(conn: psycopg.Connection[Any], table: str) -> dict[str, float]:
    rows = conn.execute(
        f"SELECT status, count(*)::float8 / {ROWS} FROM core.{table} GROUP BY status"
    )
    return dict(rows.fetchall())


def test_each_booking_has_a_payment_and_ten_share_a_customer(conn: psycopg.Connection[Any]) -> None:
    assert value(conn, "SELECT count(*) FROM core.bookings") == ROWS
    assert value(conn, "SELECT count(DISTINCT booking_id) FROM core.payments") == ROWS
    assert value(conn, "SELECT count(*) FROM core.customers") == ROWS // 10


def test_the_indexes_of_the_story_exist(conn: psycopg.Connection[Any]) -> None:
    rows = conn.execute("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'core'")
    found = {name: text.partition(" ON ")[2] for name, text in rows if name in NAMED_INDEXES}
    assert found == NAMED_INDEXES


def test_only_the_email_index_of_the_named_ones_is_unique(conn: psycopg.Connection[Any]) -> None:
    unique = conn.execute(
        """
        SELECT c.relname
        FROM pg_index AS i
        JOIN pg_class AS c ON c.oid = i.indexrelid
        WHERE i.indisunique AND c.relname = ANY(%s)
        """,
        [list(NAMED_INDEXES)],
    )
    assert unique.fetchall() == [("idx_customer_station_email",)]


def test_foreign_keys_are_there_and_validated(conn: psycopg.Connection[Any]) -> None:
    rows = conn.execute(
        """
        SELECT conname, convalidated
        FROM pg_constraint
        WHERE contype = 'f' AND connamespace = 'core'::regnamespace
        ORDER BY conname
        """
    )
    assert rows.fetchall() == [
        ("fk_bookings_customer_id_customers", True),
        ("fk_bookings_station_id_stations", True),
        ("fk_customers_station_id_stations", True),
        ("fk_payments_booking_id_bookings", True),
    ]


def test_core_is_not_on_the_search_path(conn: psycopg.Connection[Any]) -> None:
    assert "core" not in value(conn, "SELECT current_schemas(true)")
    assert value(conn, "SELECT to_regclass('bookings')") is None


def test_same_seed_gives_the_same_data_and_another_seed_other_data(
    server: embedded.Server, conn: psycopg.Connection[Any]
) -> None:
    checksums = []
    for database, seed in (("again", demo.DEFAULT_SEED), ("other", 7)):
        server.create_database(database)
        with connect(server, database) as second:
            second.execute("SET timezone = 'Asia/Tokyo'")
            demo.load(second, ROWS, seed=seed)
            second.execute("SET timezone = 'UTC'")
            checksums.append(second.execute(CHECKSUM).fetchone())
    conn.execute("SET timezone = 'UTC'")
    expected = conn.execute(CHECKSUM).fetchone()
    again, other = checksums
    assert again == expected
    assert other is not None
    assert expected is not None
    assert not set(other) & set(expected)


def test_few_bookings_are_pending_and_most_are_completed(conn: psycopg.Connection[Any]) -> None:
    share = shares(conn, "bookings")
    assert 0.88 < share["completed"] < 0.92
    assert 0.05 < share["cancelled"] < 0.07
    assert 0.01 < share["confirmed"] < 0.03
    assert 0.01 < share["no_show"] < 0.025
    assert 0.001 < share["pending"] < 0.005


def test_most_payments_are_paid_and_one_in_a_hundred_failed(conn: psycopg.Connection[Any]) -> None:
    share = shares(conn, "payments")
    assert 0.91 < share["paid"] < 0.95
    assert 0.007 < share["failed"] < 0.013
    assert 0.04 < share["refunded"] < 0.07
    assert 0.001 < share["pending"] < 0.006


def test_weekends_are_busier_than_their_share_of_days(conn: psycopg.Connection[Any]) -> None:
    weekend = value(
        conn,
        "SELECT avg((extract(isodow FROM date) > 5)::integer)::float8 FROM core.bookings",
    )
    assert 0.42 < weekend < 0.51


def test_customers_come_again_and_some_very_often(conn: psycopg.Connection[Any]) -> None:
    row = conn.execute(
        """
        SELECT
            count(*) FILTER (WHERE bookings > 1)::float8 / count(*),
            max(bookings)
        FROM (SELECT count(*) AS bookings FROM core.bookings GROUP BY customer_id) AS c
        """
    ).fetchone()
    assert row is not None
    repeat_share, most = row
    assert 0.75 < repeat_share < 0.98
    assert 50 < most < ROWS / 50


def test_stations_differ_in_size(conn: psycopg.Connection[Any]) -> None:
    ratio = value(
        conn,
        """
        SELECT max(bookings)::float8 / min(bookings)
        FROM (SELECT count(*) AS bookings FROM core.bookings GROUP BY station_id) AS s
        """,
    )
    assert ratio > 2


def test_pending_bookings_are_mostly_recent(conn: psycopg.Connection[Any]) -> None:
    recent = value(
        conn,
        """
        SELECT avg((created_at > timestamptz '2026-06-01 00:00+00')::integer)::float8
        FROM core.bookings
        WHERE status = 'pending'
        """,
    )
    assert recent > 0.8


def test_nothing_happens_before_its_cause(conn: psycopg.Connection[Any]) -> None:
    conn.execute("SET timezone = 'UTC'")
    wrong = value(
        conn,
        """
        SELECT count(*)
        FROM core.bookings AS b
        JOIN core.customers AS c ON c.id = b.customer_id
        JOIN core.payments AS p ON p.booking_id = b.id
        WHERE c.created_at >= b.created_at
            OR b.created_at >= p.created_at
            OR b.created_at::date >= b.date
            OR b.updated_at < b.created_at
            OR p.updated_at < p.created_at
            OR b.station_id <> c.station_id
            OR b.total_cents <> p.amount_cents
        """,
    )
    assert wrong == 0


def test_keys_come_in_no_physical_order_and_creation_times_do(
    conn: psycopg.Connection[Any],
) -> None:
    rows = conn.execute(
        """
        SELECT attname, correlation
        FROM pg_stats
        WHERE schemaname = 'core' AND tablename = 'bookings' AND attname IN ('id', 'created_at')
        """
    )
    correlation = dict(rows.fetchall())
    assert abs(correlation["id"]) < 0.1
    assert correlation["created_at"] > 0.99


def test_encrypted_columns_look_like_base64(conn: psycopg.Connection[Any]) -> None:
    odd = value(
        conn,
        """
        SELECT count(*)
        FROM core.customers
        WHERE email_encrypted !~ '^[A-Za-z0-9+/]{120}$'
            OR phone_encrypted !~ '^[A-Za-z0-9+/]{80}$'
        """,
    )
    assert odd == 0
    assert value(conn, "SELECT count(DISTINCT phone_encrypted) FROM core.customers") == ROWS // 10


def test_every_page_is_visible_to_all_after_the_load(conn: psycopg.Connection[Any]) -> None:
    hidden = value(
        conn,
        """
        SELECT coalesce(sum(relpages - relallvisible), -1)
        FROM pg_class
        WHERE relnamespace = 'core'::regnamespace AND relkind = 'r'
        """,
    )
    assert hidden == 0


def test_the_load_leaves_nothing_but_the_schema(conn: psycopg.Connection[Any]) -> None:
    assert value(conn, "SELECT to_regclass('pg_temp.numbered_customers')") is None
    assert value(conn, "SELECT count(*) FROM pg_proc WHERE pronamespace = pg_my_temp_schema()") == 0


def test_the_plan_is_the_naive_wish_of_ten_statements_with_reasons(
    conn: psycopg.Connection[Any],
) -> None:
    wish = plan.read(demo.PLAN)
    assert [
        (item.index.name, item.index.table.name, item.index.columns) for item in wish.creates
    ] == [
        ("idx_bookings_customer_id", "bookings", ("customer_id",)),
        ("idx_bookings_date", "bookings", ("event_date",)),
        ("idx_bookings_status", "bookings", ("status",)),
        ("idx_bookings_created_at", "bookings", ("created_at",)),
        ("idx_bookings_customer_date", "bookings", ("customer_id", "event_date")),
        ("idx_payments_booking_id", "payments", ("booking_id",)),
        ("idx_payments_status", "payments", ("status",)),
        ("idx_payments_created_at", "payments", ("created_at",)),
        ("idx_customers_email", "customers", ("email",)),
        ("idx_customers_phone", "customers", ("phone",)),
    ]
    assert len(wish.statements) == len(wish.creates)
    assert all(item.reason for item in wish.creates)
    assert not any(item.index.table.schema or item.index.concurrently for item in wish.creates)


def test_the_plan_names_three_columns_that_do_not_exist(conn: psycopg.Connection[Any]) -> None:
    wanted = {
        (item.index.table.name, column)
        for item in plan.read(demo.PLAN).creates
        for column in item.index.columns
    }
    rows = conn.execute(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'core'"
    )
    assert wanted - set(rows.fetchall()) == {
        ("bookings", "event_date"),
        ("customers", "email"),
        ("customers", "phone"),
    }


def test_the_workload_has_two_writes_beside_its_reads() -> None:
    queries = workload.read(demo.WORKLOAD)
    assert 10 <= len(queries.queries) <= 14
    assert [query.name for query in queries.writes] == ["create_booking", "change_status"]


@pytest.mark.parametrize("size", ["smallest", "conn"])
@pytest.mark.parametrize("query", workload.read(demo.WORKLOAD).queries, ids=lambda q: q.name)
def test_every_query_runs_with_the_values_of_its_samplers(
    request: pytest.FixtureRequest, size: str, query: workload.Query
) -> None:
    conn: psycopg.Connection[Any] = request.getfixturevalue(size)
    (sampled,) = workload.sample(conn, workload.Workload((query,)))
    counts = []
    with conn.transaction(force_rollback=True), psycopg.RawCursor(conn) as cursor:
        for values in sampled.values:
            cursor.execute(query.statement.encode(), values, prepare=True)
            counts.append(cursor.rowcount)
    if query.kind == "write":
        assert counts == [1] * len(counts)
    elif query.name != "refunds_due" or size != "smallest":
        # Few days of a small business have a refund due; every other query finds its rows.
        assert any(counts)


@pytest.mark.parametrize("rows", [0, -5, 999, 50_000_001])
def test_sizes_out_of_range_are_refused(conn: psycopg.Connection[Any], rows: int) -> None:
    with pytest.raises(InputError, match=r"choose from 1,000 to 50,000,000"):
        demo.load(conn, rows)


def test_loading_twice_is_refused(conn: psycopg.Connection[Any]) -> None:
    with pytest.raises(InputError, match="'story' already has a schema 'core'"):
        demo.load(conn, ROWS)


def test_loading_inside_a_transaction_is_refused(server: embedded.Server) -> None:
    with (
        psycopg.connect(server.conninfo("postgres")) as conn,
        pytest.raises(InputError, match="autocommit"),
    ):
        demo.load(conn, ROWS)


def test_progress_is_told_step_by_step(server: embedded.Server) -> None:
    server.create_database("told")
    steps: list[str] = []
    with connect(server, "told") as conn:
        demo.load(conn, demo.MIN_ROWS, progress=steps.append)
    assert steps == [
        "1,000 bookings",
        "100 customers",
        "1,000 payments",
        "keys and indexes",
        "statistics",
    ]


def test_fingerprint_differs_by_rows_and_seed() -> None:
    names = {demo.fingerprint(1_000, 1), demo.fingerprint(1_000, 2), demo.fingerprint(2_000, 1)}
    assert len(names) == 3
    assert demo.fingerprint(1_000, 1) in names
