"""What stands in the way of a plan as a whole, seen on real servers."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import psycopg
import pytest

from indexlab import audit as auditing
from indexlab import catalog, plan
from indexlab.audit.preconditions import LAGS, OLD, preconditions
from indexlab.audit.verdicts import Finding
from indexlab.catalog import Catalog, activity
from indexlab.catalog.activity import Activity, Prepared, Replica, Session, Setting
from indexlab.sizes import SizeEstimate

PLAN = plan.parse("CREATE INDEX i ON t (a)")

_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=["embedded", pytest.param("15", marks=pytest.mark.pg15)])
def conninfo(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """How to connect to a database of the server that the test is for."""
    name = "embedded_server" if request.param == "embedded" else "pg15_server"
    return request.getfixturevalue(name).conninfo


@pytest.fixture
def address(conninfo: Callable[[str], str]) -> Iterator[str]:
    """A database of the test's own, with a table."""
    name = f"preconditions_{next(_numbers)}"
    with psycopg.connect(conninfo("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        with psycopg.connect(conninfo(name)) as session:
            session.execute("CREATE TABLE t (a int)")
            session.execute("INSERT INTO t SELECT generate_series(1, 1000)")
        with psycopg.connect(conninfo(name), autocommit=True) as session:
            session.execute("ANALYZE t")
        yield conninfo(name)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def conn(address: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(address, autocommit=True) as session:
        yield session


@pytest.fixture
def beside(address: str) -> Iterator[psycopg.Connection]:
    """Another session, in transactions."""
    with psycopg.connect(address, application_name="reporting") as session:
        yield session
        session.rollback()


@pytest.fixture
def role(conn: psycopg.Connection) -> Iterator[str]:
    """A role that may log in and nothing else."""
    name = f"nobody_{next(_numbers)}"
    conn.execute(f"CREATE ROLE {name} LOGIN")
    yield name
    conn.execute(f"RESET ROLE; SET lock_timeout = '10s'; DROP OWNED BY {name}; DROP ROLE {name}")


def found(conn: psycopg.Connection, rule: str) -> list[Finding]:
    _, audit = auditing.read(conn, PLAN)
    return [finding for finding in audit.preconditions if finding.rule == rule]


def seen(conn: psycopg.Connection, other: psycopg.Connection) -> Session:
    """Return what is read of the other session."""
    pid = other.info.backend_pid
    [session] = [item for item in activity.read(conn).sessions if item.pid == pid]
    return session


def judged(conn: psycopg.Connection, rule: str, **facts: object) -> list[Finding]:
    """Judge a made-up activity for a plan on table t."""
    read = catalog.read(conn)
    table = read.named("public", "t")
    assert table is not None
    read = replace(read, activity=replace(Activity(), **facts))
    return [f for f in preconditions(read, [table.oid], [SizeEstimate(8192, "")]) if f.rule == rule]


def oid(conn: psycopg.Connection) -> int:
    row = conn.execute("SELECT 't'::regclass::oid::bigint").fetchone()
    assert row is not None
    return row[0]


def an_old(**facts: object) -> Session:
    return replace(
        Session(7, "etl", "bob", "idle in transaction", "client backend", OLD, snapshot=True),
        **facts,
    )


def test_a_quiet_server_has_nothing_to_warn_of(conn: psycopg.Connection):
    _, audit = auditing.read(conn, PLAN)
    assert [f.rule for f in audit.preconditions if f.severity != "info"] == []


def test_the_planned_size_is_set_against_the_database(conn: psycopg.Connection):
    [finding] = found(conn, "disk-space")
    evidence = dict(finding.evidence)
    assert finding.severity == "info"
    assert evidence["bytes"] > 8192
    assert evidence["database bytes"] > evidence["bytes"]
    assert evidence["free bytes"] == "not known"
    assert "how much space is free is not known to SQL" in finding.message


def test_more_wal_than_max_wal_size_is_told(conn: psycopg.Connection):
    facts = {"wal_level": "replica", "max_wal_bytes": 4096, "database_bytes": 10**6}
    assert "more than max_wal_size" in judged(conn, "disk-space", **facts)[0].message
    facts["wal_level"] = "minimal"
    assert "WAL" not in judged(conn, "disk-space", **facts)[0].message


def test_a_plan_that_builds_nothing_asks_nothing_of_the_server(conn: psycopg.Connection):
    conn.execute("ALTER DATABASE " + conn.info.dbname + " SET statement_timeout = '5s'")
    conn.execute("CREATE INDEX i ON t (a)")
    _, audit = auditing.read(conn, PLAN)
    assert audit.preconditions == ()


# Timeouts


@pytest.mark.parametrize("name", ["statement_timeout", "lock_timeout"])
def test_a_timeout_of_the_database_is_named_with_its_place(conn: psycopg.Connection, name: str):
    conn.execute(f"ALTER DATABASE {conn.info.dbname} SET {name} = '5s'")
    [finding] = found(conn, name.replace("_", "-"))
    assert finding.severity == "warning"
    assert f"{name} is 5s for database {conn.info.dbname}" in finding.message


def test_the_role_in_the_database_goes_before_the_database(conn: psycopg.Connection):
    database, user = conn.info.dbname, conn.info.user
    conn.execute(f"ALTER DATABASE {database} SET statement_timeout = '5s'")
    conn.execute(f"ALTER ROLE {user} IN DATABASE {database} SET statement_timeout = 0")
    assert found(conn, "statement-timeout") == []
    conn.execute(f"ALTER ROLE {user} IN DATABASE {database} SET statement_timeout = '1h'")
    [finding] = found(conn, "statement-timeout")
    assert f"is 1h for role {user} in database {database}" in finding.message


def test_a_timeout_of_another_role_is_none_of_ours(conn: psycopg.Connection, role: str):
    conn.execute(f"ALTER ROLE {role} SET lock_timeout = '1s'")
    assert found(conn, "lock-timeout") == []


@pytest.mark.parametrize("value", ["0", "0ms", "0min", " 0 s"])
def test_a_timeout_of_zero_is_none(conn: psycopg.Connection, value: str):
    settings = (Setting("lock_timeout", value, None, None),)
    assert judged(conn, "lock-timeout", settings=settings) == []


def test_an_idle_timeout_ends_no_build(conn: psycopg.Connection):
    conn.execute(
        f"ALTER DATABASE {conn.info.dbname} SET idle_in_transaction_session_timeout = '1s'"
    )
    assert activity.read(conn).settings == ()


# Sessions


def test_a_snapshot_of_another_session_is_seen(
    conn: psycopg.Connection, beside: psycopg.Connection
):
    beside.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    beside.execute("SELECT 'secret' FROM t")
    session = seen(conn, beside)
    assert session.snapshot
    assert session.locks == ()
    assert session.age is not None
    assert (session.application, session.state) == ("reporting", "idle in transaction")
    assert "secret" not in repr(session)


def test_a_writer_of_the_table_is_seen_without_a_snapshot(
    conn: psycopg.Connection, beside: psycopg.Connection
):
    beside.execute("INSERT INTO t VALUES (1)")
    session = seen(conn, beside)
    assert not session.snapshot
    assert session.locks == (oid(conn),)


def test_a_reader_between_two_statements_is_not_waited_for(
    conn: psycopg.Connection, beside: psycopg.Connection
):
    beside.execute("SELECT FROM t")
    pid = beside.info.backend_pid
    assert [s for s in activity.read(conn).sessions if s.pid == pid] == []


def test_a_session_of_another_database_is_not_waited_for(
    conn: psycopg.Connection, conninfo: Callable[[str], str]
):
    with psycopg.connect(conninfo("postgres")) as elsewhere:
        elsewhere.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        elsewhere.execute("SELECT 1")
        pid = elsewhere.info.backend_pid
        assert [s for s in activity.read(conn).sessions if s.pid == pid] == []


def test_an_old_transaction_is_warned_of_with_who_it_is(conn: psycopg.Connection):
    [finding] = judged(conn, "open-transactions", sessions=(an_old(),))
    assert finding.severity == "warning"
    assert finding.evidence == (("pid 7", "etl, bob, idle in transaction, 1 min 0 s"),)


def test_a_short_transaction_is_not_worth_a_word(conn: psycopg.Connection):
    assert judged(conn, "open-transactions", sessions=(an_old(age=0.1),)) == []
    [finding] = judged(conn, "open-transactions", sessions=(an_old(age=OLD / 2),))
    assert finding.severity == "info"


def test_a_writer_of_another_table_is_not_waited_for(conn: psycopg.Connection):
    writer = an_old(snapshot=False, locks=(1,))
    assert judged(conn, "open-transactions", sessions=(writer,)) == []
    writer = an_old(snapshot=False, locks=(oid(conn),))
    assert len(judged(conn, "open-transactions", sessions=(writer,))) == 1


def test_a_waiter_for_an_advisory_lock_is_warned_of(
    conn: psycopg.Connection, beside: psycopg.Connection
):
    conn.execute("SELECT pg_advisory_lock(11)")
    beside.pgconn.send_query(b"SELECT pg_advisory_lock(11)")
    deadline = time.monotonic() + 30
    while not any(s.advisory for s in activity.read(conn).sessions):
        assert time.monotonic() < deadline
    [finding] = found(conn, "advisory-lock-waiters")
    conn.execute("SELECT pg_advisory_unlock(11)")
    while beside.pgconn.get_result() is not None:
        pass
    assert finding.severity == "warning"
    assert [name for name, _ in finding.evidence] == [f"pid {beside.info.backend_pid}"]


def test_a_build_and_a_wraparound_vacuum_on_the_table_are_told(conn: psycopg.Connection):
    build = an_old(building=oid(conn), progress=0.5)
    [finding] = judged(conn, "build-in-progress", sessions=(build,))
    assert "on public.t, 50% of its phase done" in finding.message
    assert judged(conn, "open-transactions", sessions=(build,)) == []
    vacuum = an_old(kind="autovacuum worker", wraparound=True, locks=(oid(conn),))
    assert len(judged(conn, "wraparound-vacuum", sessions=(vacuum,))) == 1
    assert judged(conn, "wraparound-vacuum", sessions=(an_old(locks=(oid(conn),)),)) == []


def test_a_prepared_transaction_counts_where_it_has_locked_the_table(conn: psycopg.Connection):
    held = Prepared("it's", "bob", 90.0, (oid(conn),))
    [finding] = judged(conn, "prepared-transaction", prepared=(held,))
    assert finding.fix.startswith("COMMIT PREPARED 'it''s'")
    assert judged(conn, "prepared-transaction", prepared=(replace(held, locks=()),)) == []


def test_two_connections_with_one_backend_are_pooled(
    conn: psycopg.Connection, beside: psycopg.Connection
):
    assert activity.read(conn).pooled is None
    assert activity.read(conn, beside).pooled is False
    assert activity.read(conn, conn).pooled is True
    _, audit = auditing.read(conn, PLAN, other=conn)
    assert "transaction-pooler" in {finding.rule for finding in audit.preconditions}


def test_a_standby_that_lags_is_warned_of(conn: psycopg.Connection):
    late = Replica("eu", "streaming", 2e9, LAGS)
    [finding] = judged(conn, "replication-lag", replicas=(late,))
    assert "'eu' is 1.86 GB and 1 min 0 s behind" in finding.message
    near = Replica("eu", "streaming", 1e6, None)
    assert judged(conn, "replication-lag", replicas=(near,)) == []


# What may not be seen


def test_what_other_roles_do_is_not_visible_to_everyone(
    conn: psycopg.Connection, beside: psycopg.Connection, role: str
):
    conn.execute(f"ALTER TABLE t OWNER TO {role}; GRANT ALL ON SCHEMA public TO {role}")
    beside.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    beside.execute("SELECT FROM t")
    conn.execute(f"SET ROLE {role}")
    session = seen(conn, beside)
    assert session.snapshot
    assert (session.age, session.state) == (None, "")
    assert len(found(conn, "not-visible")) == 1
    [finding] = found(conn, "open-transactions")
    assert finding.severity == "info"
    conn.execute("RESET ROLE")
    assert found(conn, "not-visible") == []
    beside.rollback()


def test_views_that_are_closed_to_the_role_are_said_not_to_be_known(
    conn: psycopg.Connection, role: str
):
    conn.execute(f"ALTER TABLE t OWNER TO {role}; GRANT ALL ON SCHEMA public TO {role}")
    conn.execute("REVOKE SELECT ON pg_stats, pg_stat_activity FROM PUBLIC")
    conn.execute(f"SET ROLE {role}")
    [finding] = found(conn, "not-visible")
    assert "may not see sessions, statistics of columns" in finding.message


def test_an_empty_and_an_unanalyzed_table_are_told(conn: psycopg.Connection):
    conn.execute("TRUNCATE t")
    conn.execute("VACUUM t")
    [finding] = found(conn, "no-statistics")
    assert "there are no rows" in finding.message
    conn.execute("DROP TABLE t; CREATE TABLE t (a int) WITH (autovacuum_enabled = off)")
    conn.execute("INSERT INTO t VALUES (1)")
    if conn.info.server_version >= 140000:
        [finding] = found(conn, "no-statistics")
        assert finding.fix == "ANALYZE public.t"


def test_a_catalog_without_activity_is_judged_by_its_server_alone(conn: psycopg.Connection):
    read: Catalog = catalog.read(conn)
    assert list(preconditions(read, [oid(conn)])) == []
    standby = replace(read, server=replace(read.server, standby=True))
    assert [f.rule for f in preconditions(standby, [oid(conn)])] == ["standby"]
