"""Faults that a run survives: on real servers, with a proxy of the tests' own for the network."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from indexlab import apply, embedded, plan, target
from indexlab.apply import Event, Settings, journal, lock
from indexlab.errors import TargetError

SOURCES = Path(apply.__file__).parents[2]
SEED = 20260301
TWO = """
CREATE INDEX idx_customer ON core.bookings (customer_id);
CREATE INDEX idx_status_date ON core.bookings (status, date DESC);
"""
BOTH = {"idx_customer": True, "idx_status_date": True}


def words(applied: apply.Applied) -> list[str]:
    return [item.outcome for item in applied.outcomes]


def restore(fields: dict[str, Any]) -> apply.Outcome:
    return apply.Outcome(**fields)


# The client is killed

STORY = """
CREATE SCHEMA IF NOT EXISTS core;
DROP TABLE IF EXISTS core.kept, core.parted CASCADE;
CREATE TABLE core.kept (id int, "Naïve ""col" text, day date);
INSERT INTO core.kept
SELECT n, 'v' || n, date '2026-01-01' + n % 90 FROM generate_series(1, 5000) AS n;
CREATE INDEX old ON core.kept (id);
CREATE TABLE core.parted (id int, day date) PARTITION BY RANGE (id);
CREATE TABLE core.low PARTITION OF core.parted FOR VALUES FROM (MINVALUE) TO (1000);
CREATE TABLE core.high PARTITION OF core.parted FOR VALUES FROM (1000) TO (MAXVALUE);
INSERT INTO core.parted SELECT n, date '2026-01-01' + n % 90 FROM generate_series(1, 3000) AS n;
ANALYZE core.kept, core.parted;
"""
WANTED = """
CREATE INDEX "by ""day" ON core.kept (day, "Naïve ""col");
CREATE UNIQUE INDEX numbered ON core.kept (id);
CREATE INDEX parted_day ON core.parted (day);
DROP INDEX IF EXISTS core.old;
"""
AFTER = {
    'by "day': True,
    "numbered": True,
    "parted_day": True,
    "low_parted_day": True,
    "high_parted_day": True,
}
FORKING = """
import os, sys
from pathlib import Path
from indexlab import apply, plan, target
where, text, journal = target.resolve(sys.argv[1]), plan.parse(sys.argv[2]), Path(sys.argv[3])
settings = apply.Settings.parse(sys.argv[4])
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if not child:
        apply.run(where, text, settings, execute=True, journal=journal / line.strip())
        os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


def test_fifty_kills_at_seeded_moments_and_a_rerun_always_end_with_the_plan(
    scene, tmp_path: Path
) -> None:
    moments = random.Random(SEED)
    driver = subprocess.Popen(
        [sys.executable, "-c", FORKING, scene.conninfo, WANTED, str(tmp_path), "jobs=2"],
        env=os.environ | {"PYTHONPATH": str(SOURCES)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdin is not None
    assert driver.stdout is not None

    def launched(name: str) -> int:
        driver.stdin.write(name + "\n")
        driver.stdin.flush()
        return int(driver.stdout.readline())

    stopped_at: dict[str, int] = {}
    try:
        assert driver.stdout.readline() == "ready\n"
        scene.db.execute(STORY)
        began = time.monotonic()
        launched("whole")
        assert driver.stdout.readline() == "ended\n"
        whole = time.monotonic() - began
        assert scene.indexes() == AFTER
        for number in range(50):
            scene.db.execute(STORY)
            name = f"kill-{number}"
            child = launched(name)
            time.sleep(moments.uniform(0, whole))  # the moment, not a synchronisation
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            assert driver.stdout.readline() == "ended\n"
            path = tmp_path / name
            reached = path.read_text().count("\n") if path.exists() else 0
            stopped_at[name] = reached
            again = scene.run(WANTED, journal=path)
            assert again.complete, (number, again)
            assert scene.indexes() == AFTER, number
            if number % 5 == 0:
                outcomes = journal.outcomes(path, restore)
                back = apply.rollback(scene.target, outcomes, execute=True)
                assert back.complete, (number, back)
                assert scene.indexes() == {"old": True}, number
    finally:
        driver.stdin.close()
        driver.wait(30)
        driver.stdout.close()
    assert len(set(stopped_at.values())) > 3, f"the moments were all alike: {stopped_at}"
    print(f"seed {SEED}: entries of the journal at each kill: {list(stopped_at.values())}")


def test_a_rollback_that_is_killed_is_started_again(scene, tmp_path: Path) -> None:
    scene.db.execute(STORY)
    scene.run(WANTED, journal=tmp_path / "j")
    outcomes = journal.outcomes(tmp_path / "j", restore)

    def told(event: Event) -> None:
        if event.kind == "end" and event.outcome.outcome in ("dropped", "built"):
            raise LookupError("enough")

    while True:
        try:
            back = apply.rollback(scene.target, outcomes, execute=True, on_event=told)
        except LookupError:
            continue
        break
    assert back.complete, back
    assert scene.indexes() == {"old": True}


# The server dies


@dataclass
class Cluster18:
    """A server of the wheel's that may be killed."""

    place: Path
    port: int
    run: Callable[..., None]
    data: str = "data"

    def conninfo(self) -> str:
        return make_conninfo(
            host=str(self.place), port=self.port, user="postgres", dbname="postgres"
        )

    def start(self) -> None:
        options = f"-k {self.place} -p {self.port} -c listen_addresses= -c fsync=off"
        control = (embedded.binary("pg_ctl"), "-D", self.place / self.data, "-w", "-t", "60")
        self.run(*control, "-l", self.place / f"log-{self.data}", "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        self.run(embedded.binary("pg_ctl"), "-D", self.place / self.data, "-m", mode, "stop")


@pytest.fixture
def cluster(server_account) -> Iterator[Cluster18]:
    place = Path(tempfile.mkdtemp(prefix="pg18-"))
    made = Cluster18(place, 5432, server_account(place))
    made.run(
        *(embedded.binary("initdb"), "-D", place / "data", "-U", "postgres", "-E", "UTF8"),
        *("--locale=C", "-N", "--auth=trust"),
    )
    made.start()
    try:
        yield made
    finally:
        with contextlib.suppress(pytest.fail.Exception):
            made.stop()
        shutil.rmtree(place, ignore_errors=True)


def filled(cluster: Cluster18) -> psycopg.Connection[Any]:
    conn = psycopg.connect(cluster.conninfo(), autocommit=True)
    conn.execute(
        """
        CREATE SCHEMA core;
        CREATE TABLE core.bookings (id int, customer_id int, status text, date date);
        INSERT INTO core.bookings
        SELECT n, n % 50, 'open', date '2026-01-01' + n % 90 FROM generate_series(1, 2000) AS n;
        """
    )
    return conn


STANDING = """
SELECT c.relname, i.indisvalid
  FROM pg_index AS i
  JOIN pg_class AS c ON c.oid = i.indexrelid
 WHERE c.relname LIKE 'idx%'
 ORDER BY c.relname
"""


def test_a_server_that_is_shut_down_in_mid_build_and_comes_back_gets_its_indexes(
    cluster: Cluster18,
) -> None:
    filled(cluster).close()
    blocker = psycopg.connect(cluster.conninfo())
    blocker.execute("UPDATE core.bookings SET status = 'held' WHERE id = 1")
    died: list[str] = []

    def told(event: Event) -> None:
        if event.waiting_for and not died:
            died.append(event.phase)
            cluster.stop("immediate")
            cluster.start()

    where = target.resolve(cluster.conninfo())
    applied = apply.run(where, plan.parse(TWO), execute=True, on_event=told)
    assert died == ["waiting for writers before build"]
    assert words(applied) == ["built", "built"]
    assert applied.outcomes[0].attempts == 2
    with psycopg.connect(cluster.conninfo()) as conn:
        assert dict(conn.execute(STANDING).fetchall()) == BOTH


@pytest.fixture
def standby(cluster: Cluster18) -> Iterator[Cluster18]:
    """A standby of the cluster, by pg_basebackup."""
    filled(cluster).close()
    made = Cluster18(cluster.place, 5433, cluster.run, "standby")
    address = make_conninfo(host=str(cluster.place), port=cluster.port, user="postgres")
    cluster.run(
        *(embedded.binary("pg_basebackup"), "-d", address, "-D", cluster.place / "standby"),
        *("-R", "-c", "fast"),
    )
    made.start()
    yield made
    made.stop()


@pytest.mark.parametrize(
    ("limit", "reason", "begun"),
    [
        ("max_lag=64kB", r"walreceiver has .* to replay, more than 64\.0 kB", set()),
        ("max_lag=1ms", r"walreceiver is .* behind, more than 1 ms", {"idx_customer"}),
    ],
)
def test_a_standby_that_lags_keeps_builds_from_beginning(
    cluster: Cluster18, standby: Cluster18, limit: str, reason: str, begun: set[str]
) -> None:
    """A time is known from the second look on: replay stands still, and so does replay_lag."""
    told: list[str] = []
    with (
        psycopg.connect(standby.conninfo(), autocommit=True) as replica,
        psycopg.connect(cluster.conninfo(), autocommit=True) as primary,
    ):
        replica.execute("SELECT pg_wal_replay_pause()")
        primary.execute("UPDATE core.bookings SET date = date + 1")

        def resume(event: Event) -> None:
            if event.kind == "pause" and not told:
                assert {name for name, _ in primary.execute(STANDING)} <= begun
                told.append(event.detail)
                replica.execute("SELECT pg_wal_replay_resume()")

        applied = apply.run(
            target.resolve(cluster.conninfo()),
            plan.parse(TWO),
            Settings.parse(limit),
            execute=True,
            on_event=resume,
        )
    assert words(applied) == ["built", "built"]
    assert re.search(reason, told[0]), told


def test_a_standby_itself_is_refused(standby: Cluster18) -> None:
    with pytest.raises(TargetError, match="standby"):
        apply.run(target.resolve(standby.conninfo()), plan.parse(TWO), execute=True)


# The network is cut


@dataclass
class Proxy:
    """A TCP proxy before a server's socket that can cut every connection."""

    upstream: str
    cut_after: int = 0
    """Messages from clients after which everything is cut once; 0 for never."""
    seen: int = 0
    _pairs: list[tuple[socket.socket, socket.socket]] = field(default_factory=list)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        with self._guard:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self.upstream)
            with self._guard:
                self._pairs.append((client, server))
            for ends in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(*ends, client), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if source is client:
                    self.seen += 1
                    if self.seen == self.cut_after:
                        self.cut()
                        break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxied(scene) -> Iterator[tuple[Proxy, target.Target]]:
    given = conninfo_to_dict(scene.conninfo)
    proxy = Proxy(f"{given['host']}/.s.PGSQL.{given['port']}")
    through = make_conninfo(
        scene.conninfo, host="127.0.0.1", port=proxy.port, sslmode="disable", gssencmode="disable"
    )
    yield proxy, target.resolve(through)
    proxy.close()


@pytest.mark.parametrize(
    ("holding", "phase"),
    [
        ("UPDATE core.bookings SET status = 'held' WHERE id = 1", "waiting for writers"),
        ("SELECT FROM core.other", "waiting for old snapshots"),
        ("LOCK TABLE core.bookings IN SHARE MODE", "waiting for the lock of the table"),
    ],
)
def test_a_cut_while_it_waits_is_survived(scene, proxied, holding: str, phase: str) -> None:
    proxy, where = proxied
    blocker = scene.session(autocommit=False)
    blocker.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    blocker.execute(holding)
    cuts: list[str] = []

    def told(event: Event) -> None:
        if event.phase.startswith(phase) and event.waiting_for and not cuts:
            cuts.append(event.phase)
            proxy.cut()
            blocker.rollback()

    applied = apply.run(where, plan.parse(TWO), execute=True, on_event=told)
    assert len(cuts) == 1
    assert words(applied) == ["built", "built"]
    assert scene.indexes() == BOTH


def test_a_cut_at_every_message_is_survived_by_a_rerun(scene, proxied) -> None:
    """Every phase: connecting, the locks, the catalog, each build, the drop, ANALYZE, closing."""
    proxy, where = proxied
    text = TWO + "DROP INDEX IF EXISTS core.old;"
    apply.run(where, plan.parse(text), execute=True)
    messages = proxy.seen
    ended: dict[str, int] = {}
    for number in range(1, messages + 1, 4):
        scene.db.execute(
            """
            DROP INDEX IF EXISTS core.idx_customer, core.idx_status_date;
            CREATE INDEX IF NOT EXISTS old ON core.other (id);
            """
        )
        proxy.seen, proxy.cut_after = 0, number
        try:
            first = apply.run(where, plan.parse(text), execute=True)
            ended["complete" if first.complete else "incomplete"] = number
        except (TargetError, psycopg.Error):
            ended["refused"] = number
        proxy.cut_after = 0
        again = apply.run(where, plan.parse(text), execute=True)
        assert again.complete, (number, again)
        assert scene.indexes() == BOTH, number
    assert {"complete", "refused"} <= ended.keys(), ended


# Other sessions


def test_a_blocker_that_ends_after_a_while_is_waited_for(scene) -> None:
    blocker = scene.session(autocommit=False, application_name="report")
    blocker.execute("UPDATE core.bookings SET status = 'held' WHERE id = 1")
    run = scene.start(TWO, max_wait=60)
    pid = blocker.info.backend_pid
    scene.eventually(lambda: sum(e.kind == "progress" for e in run.events) >= 4)
    assert run.waits_for(pid)
    blocker.rollback()
    applied = run.result()
    assert words(applied) == ["built", "built"]
    assert f"pid {pid} (report as postgres" in applied.outcomes[0].waited_for[0]


def test_a_blocker_of_the_clean_up_leaves_a_named_carcass_that_the_rerun_replaces(scene) -> None:
    blocker = scene.session(autocommit=False, application_name="forgotten")
    blocker.execute("UPDATE core.bookings SET status = 'held' WHERE id = 1")
    applied = scene.run(TWO, max_wait=0.5, cleanup_wait=0.3)
    assert words(applied) == ["failed", "not_run"]
    assert "the invalid index core.idx_customer is left, kept by pid" in applied.outcomes[0].error
    assert "forgotten" in applied.outcomes[0].error
    assert scene.indexes() == {"idx_customer": False}
    blocker.rollback()
    assert words(scene.run(TWO)) == ["built", "built"]
    assert scene.indexes() == BOTH


def test_a_leftover_whose_blocker_ends_after_a_while_is_replaced(scene) -> None:
    """The drop before a build may wait as long as the build, not only as the clean-up behind one."""
    cut_off(scene, WRITES, BUILD)
    blocker = scene.session(autocommit=False, application_name="report")
    blocker.execute("UPDATE core.bookings SET status = 'held' WHERE id = 1")
    run = scene.start(TWO, cleanup_wait=0.1)
    scene.eventually(lambda: sum(e.kind == "progress" for e in run.events) >= 2)
    assert run.waits_for(blocker.info.backend_pid)
    blocker.rollback()
    assert words(run.result()) == ["built", "built"]


def test_a_leftover_whose_blocker_never_ends_is_named_when_the_budget_is_used_up(scene) -> None:
    cut_off(scene, WRITES, BUILD)
    blocker = scene.session(autocommit=False, application_name="forgotten")
    blocker.execute("UPDATE core.bookings SET status = 'held' WHERE id = 1")
    applied = scene.run(TWO, max_wait=0.5, lock_wait=0.2)
    assert words(applied) == ["failed", "not_run"]
    assert "the invalid index core.idx_customer is left as it was" in applied.outcomes[0].error
    assert "forgotten" in applied.outcomes[0].error
    assert scene.indexes() == {"idx_customer": False}


def test_a_concurrent_alter_table_is_not_queued_behind(scene) -> None:
    other = scene.session(autocommit=False)
    began: list[Event] = []
    retries: list[Event] = []

    def told(event: Event) -> None:
        if event.kind == "start" and not began:
            began.append(event)
            other.execute("ALTER TABLE core.bookings ADD COLUMN added int")
        if event.kind == "retry":
            retries.append(event)
            if "lock" in event.detail:
                other.commit()

    assert words(scene.run(TWO, lock_wait=0.3, on_event=told)) == ["built", "built"]
    assert retries[0].waiting_for == ()
    assert scene.indexes() == BOTH


def test_a_table_that_is_locked_before_the_run_keeps_nobody_waiting_for_ever(scene) -> None:
    other = scene.session(autocommit=False)
    other.execute("ALTER TABLE core.bookings ADD COLUMN added int")
    with pytest.raises(TargetError, match="another session keeps a table locked"):
        scene.run(TWO, lock_wait=0.1, max_wait=0.2)
    run = scene.start(TWO, lock_wait=0.1)
    scene.eventually(lambda: any("cannot be read" in event.detail for event in run.events))
    other.commit()
    assert words(run.result()) == ["built", "built"]


def test_a_table_that_is_dropped_meanwhile_fails_with_the_reason(scene) -> None:
    other = scene.session(autocommit=False)

    def told(event: Event) -> None:
        if event.kind == "start":
            other.execute("DROP TABLE core.bookings")
        if event.waiting_for:
            other.commit()

    applied = scene.run(TWO, lock_wait=30, on_event=told)
    assert words(applied) == ["failed", "not_run"]
    assert "bookings" in applied.outcomes[0].error


def test_who_waits_for_our_advisory_lock_while_we_wait_for_it_is_named(scene) -> None:
    """It holds a snapshot, and no server sees that deadlock: the budget ends it."""
    blocker = scene.session(autocommit=False)
    blocker.execute("UPDATE core.bookings SET status = 'held' WHERE id = 1")
    run = scene.start(TWO, max_wait=2)
    scene.eventually(scene.building)
    other = scene.session(application_name="old tool")

    def wait() -> None:
        other.execute("SELECT pg_advisory_lock(%s)", [lock.LOCK_KEY])

    waiter = threading.Thread(target=wait)
    waiter.start()
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    scene.eventually(lambda: scene.db.execute(waiting).fetchone() == (1,))
    blocker.rollback()
    applied = run.result()
    waiter.join(30)
    assert words(applied) == ["failed", "not_run"]
    assert "old tool as postgres" in applied.outcomes[0].error
    assert scene.indexes() == {}


def test_timeouts_of_the_role_are_overridden(scene) -> None:
    role = f"hasty_{scene.db.info.dbname}"
    scene.db.execute(
        f"""
        CREATE ROLE {role} LOGIN SUPERUSER;
        ALTER ROLE {role} SET statement_timeout = '50ms';
        ALTER ROLE {role} SET lock_timeout = '10ms';
        ALTER ROLE {role} SET idle_in_transaction_session_timeout = '50ms';
        """.encode()
    )
    blocker = scene.session(autocommit=False)
    blocker.execute("UPDATE core.bookings SET status = 'held' WHERE id = 1")
    told: list[Event] = []

    def heard(event: Event) -> None:
        told.append(event)
        if sum(item.kind == "progress" for item in told) == 2:
            blocker.rollback()

    hasty = target.resolve(make_conninfo(scene.conninfo, user=role))
    applied = apply.run(hasty, plan.parse(TWO), Settings(retries=0), execute=True, on_event=heard)
    assert words(applied) == ["built", "built"]


# Leftovers


BUILD = "CREATE INDEX CONCURRENTLY idx_customer ON core.bookings (customer_id)"
WRITES = "UPDATE core.bookings SET status = 'held' WHERE id = 1"


def cut_off(scene, holding: str, statement: str) -> None:
    """End a statement while it waits for what another session holds."""
    blocker = scene.session(autocommit=False)
    blocker.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    blocker.execute(holding.encode())
    hasty = scene.session(options="-c statement_timeout=600ms")
    with pytest.raises(psycopg.errors.QueryCanceled):
        hasty.execute(statement.encode())
    blocker.rollback()


@pytest.mark.parametrize(
    ("there", "holding", "statement", "live"),
    [
        pytest.param("SELECT", WRITES, BUILD, "fft", id="ended while it waited for writers"),
        pytest.param("SELECT", "SELECT FROM core.other", BUILD, "ftt", id="and for old snapshots"),
        pytest.param(
            "CREATE INDEX idx_customer ON core.bookings (customer_id)",
            "SELECT FROM core.bookings",
            "DROP INDEX CONCURRENTLY core.idx_customer",
            "ftt",
            id="half dropped",
        ),
    ],
)
def test_a_leftover_of_each_kind_is_replaced(
    scene, there: str, holding: str, statement: str, live: str
) -> None:
    scene.db.execute(there.encode())
    cut_off(scene, holding, statement)
    left = "SELECT indisvalid, indisready, indislive FROM pg_index WHERE indexrelid = %s::regclass"
    flags = scene.db.execute(left, ["core.idx_customer"]).fetchone()
    assert "".join("t" if flag else "f" for flag in flags) == live
    assert words(scene.run(TWO)) == ["built", "built"]
    assert scene.indexes() == BOTH


def test_a_leftover_of_a_repack_is_not_ours_to_touch(scene) -> None:
    """REINDEX CONCURRENTLY leaves `_ccnew`, under a name of its own."""
    scene.db.execute("CREATE INDEX idx_customer ON core.bookings (customer_id)")
    cut_off(scene, WRITES, "REINDEX INDEX CONCURRENTLY core.idx_customer")
    assert words(scene.run(TWO)) == ["exists", "built"]
    assert scene.indexes() == {**BOTH, "idx_customer_ccnew": False}


# The disk, the pooler


def test_a_disk_that_fills_up_leaves_nothing(scene, small_disk: Path) -> None:
    small_disk.chmod(0o777)
    space = f"small_{scene.db.info.dbname}"
    scene.db.execute(f"CREATE TABLESPACE {space} LOCATION '{small_disk}'".encode())
    try:
        scene.db.execute(
            "INSERT INTO core.other SELECT generate_series(2, 9000); ANALYZE core.other"
        )
        wide = "(md5(id::text) || md5((id + 1)::text) || md5((id + 2)::text))"
        applied = scene.run(f"CREATE INDEX wide ON core.other ({wide}) TABLESPACE {space};")
        assert words(applied) == ["failed"]
        assert "No space left" in applied.outcomes[0].error
        assert scene.indexes() == {}, applied.outcomes[0].error
        scene.db.execute("INSERT INTO core.other SELECT generate_series(9001, 90000)")
        scene.db.execute("ANALYZE core.other")
        with pytest.raises(TargetError, match="the plan needs about"):
            scene.run(f"CREATE INDEX wide ON core.other (id) TABLESPACE {space};")
    finally:
        scene.db.execute(f"DROP TABLESPACE {space}".encode())


@pytest.fixture
def pooled(scene, pgbouncer, request) -> str:
    """The scene's database behind a pgbouncer, in the mode that the test says."""
    given = conninfo_to_dict(scene.conninfo)
    behind = SimpleNamespace(socket_dir=given["host"], port=given["port"])
    pool = pgbouncer(behind, request.param)
    return make_conninfo(scene.conninfo, host=str(pool.socket_dir), port=pool.port)


@pytest.mark.parametrize("pooled", ["transaction"], indirect=True)
def test_a_pooler_in_transaction_mode_is_refused_before_anything_is_done(scene, pooled) -> None:
    with pytest.raises(TargetError, match="pooler in transaction mode"):
        apply.run(target.resolve(pooled), plan.parse(TWO), execute=True)
    assert scene.indexes() == {}


@pytest.mark.parametrize("pooled", ["session"], indirect=True)
def test_a_pool_in_session_mode_gets_its_sessions_back_as_they_were(scene, pooled) -> None:
    assert apply.run(target.resolve(pooled), plan.parse(TWO), execute=True).complete
    settings = "SELECT current_setting('default_transaction_read_only'), current_setting('jit')"
    before = scene.session().execute(settings).fetchone()
    for _ in range(4):
        with psycopg.connect(pooled, autocommit=True) as conn:
            assert conn.execute(settings).fetchone() == before
