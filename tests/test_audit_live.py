"""What stands in the way of a plan, in scenes on servers of their own: nothing here is made up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import psycopg
import pytest

from indexlab import audit as auditing
from indexlab import plan, target
from indexlab.audit import Finding, preconditions
from indexlab.catalog import activity

if TYPE_CHECKING:
    from conftest import Cluster

pytestmark = pytest.mark.pg15

PLAN = plan.parse("CREATE INDEX planned ON t (a)")
PATIENCE = 60.0
"""Seconds after which a scene is taken not to come about."""


@pytest.fixture(scope="module")
def primary(pg15_cluster: Callable[..., Cluster]) -> Cluster:
    """A server of the module's own with a table."""
    made = pg15_cluster(max_prepared_transactions="5", wal_level="replica", autovacuum_naptime="1s")
    with psycopg.connect(made.conninfo(), autocommit=True) as conn:
        conn.execute("CREATE TABLE t (a int)")
        conn.execute("INSERT INTO t SELECT generate_series(1, 1000)")
        conn.execute("ANALYZE t")
    return made


@pytest.fixture(scope="module")
def standby(primary: Cluster, pg15_standby: Callable[..., Cluster]) -> Cluster:
    return pg15_standby(primary, application="eu")


@pytest.fixture
def conn(primary: Cluster) -> Iterator[psycopg.Connection]:
    with psycopg.connect(primary.conninfo(), autocommit=True) as session:
        yield session


def found(conn: psycopg.Connection, rule: str) -> list[Finding]:
    _, audit = auditing.read(conn, PLAN)
    return [finding for finding in audit.preconditions if finding.rule == rule]


def until(come_about: Callable[[], object]) -> object:
    """Wait for a scene; the server says when it is there."""
    deadline = time.monotonic() + PATIENCE
    while not (seen := come_about()):
        assert time.monotonic() < deadline, "the scene does not come about"
    return seen


# Builds


def test_a_concurrent_build_that_waits_for_a_snapshot_is_told(
    primary: Cluster, conn: psycopg.Connection
) -> None:
    with (
        psycopg.connect(primary.conninfo()) as reporting,
        psycopg.connect(primary.conninfo(), autocommit=True) as builder,
    ):
        reporting.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reporting.execute("SELECT 1")
        builder.pgconn.send_query(b"CREATE INDEX CONCURRENTLY other ON t (a, a)")
        until(lambda: conn.execute(WAITING).fetchone())
        [finding] = found(conn, "build-in-progress")
        assert f"pid {builder.info.backend_pid} is building an index on public.t" in finding.message
        assert finding.severity == "warning"
        again = auditing.read(conn, plan.parse("CREATE INDEX other ON t (a, a)"))[1].statements[0]
        assert (again.verdict, [f.rule for f in again.findings if f.decides]) == (
            "skip",
            ["being-built"],
        )
        leftovers = {
            f.rule for item in auditing.read(conn, PLAN)[1].existing for f in item.findings
        }
        assert leftovers == {"being-built"}
        reporting.rollback()
        while builder.pgconn.get_result() is not None:
            pass
    assert found(conn, "build-in-progress") == []
    conn.execute("DROP INDEX other")


WAITING = """
SELECT p.pid
  FROM pg_stat_progress_create_index AS p
 WHERE p.phase = 'waiting for old snapshots'
"""


def test_a_vacuum_against_wraparound_is_told_and_another_is_not(conn: psycopg.Connection) -> None:
    """It comes once the table is 100,000 transactions old, and takes its time."""
    conn.execute("CREATE TABLE old (a int, filler text)")
    conn.execute("INSERT INTO old SELECT n, repeat('x', 1000) FROM generate_series(1, 4000) AS n")
    wanted = plan.parse("CREATE INDEX planned ON old (a)")
    assert rules_against(conn, wanted) & {"wraparound-vacuum"} == set()
    conn.execute(
        "ALTER TABLE old SET (autovacuum_freeze_max_age = 100000,"
        " autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)"
    )
    conn.execute(
        "DO $$ BEGIN FOR n IN 1..100100 LOOP PERFORM txid_current(); COMMIT; END LOOP; END $$"
    )
    until(lambda: "wraparound-vacuum" in rules_against(conn, wanted))
    _, audit = auditing.read(conn, wanted)
    [finding] = [f for f in audit.preconditions if f.rule == "wraparound-vacuum"]
    assert (finding.severity, finding.subject) == ("warning", "public.old")
    assert found(conn, "wraparound-vacuum") == []  # it is not on the other table


def rules_against(conn: psycopg.Connection, wanted: plan.IndexPlan) -> set[str]:
    return {finding.rule for finding in auditing.read(conn, wanted)[1].preconditions}


def test_a_prepared_transaction_is_told_until_it_is_ended(
    primary: Cluster, conn: psycopg.Connection
) -> None:
    with psycopg.connect(primary.conninfo(), autocommit=True) as other:
        other.execute("BEGIN; INSERT INTO t VALUES (1)")
        other.execute("PREPARE TRANSACTION 'it''s held'")
        other.execute("BEGIN; CREATE TABLE elsewhere (a int)")
        other.execute("PREPARE TRANSACTION 'on no table of the plan'")
    [finding] = found(conn, "prepared-transaction")
    assert "has locked public.t" in finding.message
    assert finding.fix == "COMMIT PREPARED 'it''s held' or ROLLBACK PREPARED 'it''s held'"
    conn.execute(finding.fix.partition(" or ")[2])
    assert found(conn, "prepared-transaction") == []
    conn.execute("ROLLBACK PREPARED 'on no table of the plan'")


# Standbys


def test_a_standby_that_is_held_back_is_told_until_it_follows(
    conn: psycopg.Connection, standby: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preconditions, "LAGS_BYTES", 1 << 20)
    until(lambda: [r.state for r in activity.read(conn).replicas] == ["streaming"])
    with psycopg.connect(standby.conninfo(), autocommit=True) as follower:
        follower.execute("SELECT pg_wal_replay_pause()")
        until(lambda: follower.execute(PAUSED).fetchone() == ("paused",))
        conn.execute("CREATE TABLE much AS SELECT n, md5(n::text) FROM generate_series(1, 50000) n")
        [finding] = until(lambda: found(conn, "replication-lag"))
        assert finding.severity == "warning"
        assert finding.message.startswith("'eu' is ")
        evidence = dict(finding.evidence)
        assert (evidence["application"], evidence["state"]) == ("eu", "streaming")
        assert evidence["bytes"] >= 1 << 20
        follower.execute("SELECT pg_wal_replay_resume()")
    until(lambda: not found(conn, "replication-lag"))
    conn.execute("DROP TABLE much")


PAUSED = "SELECT pg_get_wal_replay_pause_state()"


def test_a_standby_as_target_is_an_error(standby: Cluster) -> None:
    wanted = plan.parse("CREATE UNIQUE INDEX planned ON t ((a + 1)); CREATE INDEX i ON t (a)")
    with psycopg.connect(standby.conninfo(), autocommit=True) as follower:
        until(lambda: follower.execute("SELECT to_regclass('t')").fetchone() != (None,))
        _, audit = auditing.read(follower, wanted)
        assert [(f.rule, f.severity) for f in audit.preconditions] == [("standby", "error")]
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            follower.execute(audit.kept[0].revised.text)


# Poolers


@pytest.mark.parametrize(("mode", "told"), [("transaction", True), ("session", False)])
def test_a_pooler_is_told_by_its_mode(
    primary: Cluster, pgbouncer: Callable[..., Cluster], mode: str, told: bool
) -> None:
    pool = target.resolve(pgbouncer(primary, mode).conninfo(), {})
    with target.connect(pool, read_only=True) as one, target.connect(pool, read_only=True) as two:
        _, audit = auditing.read(one, PLAN, other=two)
    assert ("transaction-pooler" in {f.rule for f in audit.preconditions}) is told
    assert [item.verdict for item in audit.statements] == ["build"]
