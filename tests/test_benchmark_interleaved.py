"""Sides in turns: an index is hidden from one of them, and never for longer than a transaction."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from indexlab import benchmark, embedded, explain, target, workload
from indexlab.benchmark import Comparison, runners
from indexlab.errors import InputError, TargetError
from indexlab.target import Target
from indexlab.workload import SampledQuery

SETUP = """
CREATE SCHEMA "Böö king";
CREATE TABLE "Böö king"."T ""x y" (id int PRIMARY KEY, customer int, status int, notes text);
INSERT INTO "Böö king"."T ""x y"
SELECT g, g % 1000, 0, repeat('x', 80) FROM generate_series(1, 30000) AS g;
CREATE INDEX "by ""customer" ON "Böö king"."T ""x y" (customer);
CREATE INDEX by_status ON "Böö king"."T ""x y" (status);
CREATE TABLE other (id int PRIMARY KEY);
INSERT INTO other SELECT generate_series(1, 5000);
CREATE UNIQUE INDEX other_key ON other (id);
VACUUM ANALYZE;
"""
HIDDEN = (("Böö king", 'by "customer'), ("Böö king", "by_status"))
WORKLOAD = """
-- name: of_customer
-- param customer: SELECT generate_series(1, 20)
SELECT * FROM "Böö king"."T ""x y" WHERE customer = :customer;

-- name: untouched
SELECT count(*) FROM other;

-- name: update_status
-- param id: SELECT generate_series(1, 20)
UPDATE "Böö king"."T ""x y" SET status = 1 WHERE id = :id;
"""
STATE = """
SELECT c.relname, i.indisvalid, i.indisready, i.indislive, c.relfilenode
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE c.relnamespace IN ('"Böö king"'::regnamespace, 'public'::regnamespace)
ORDER BY c.relname
"""


@pytest.fixture(scope="module", params=["embedded", pytest.param("15", marks=pytest.mark.pg15)])
def at(request: pytest.FixtureRequest) -> Iterator[Target]:
    name = "embedded_server" if request.param == "embedded" else "pg15_server"
    server: Any = request.getfixturevalue(name)
    with psycopg.connect(server.conninfo("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE interleaved")
        with psycopg.connect(server.conninfo("interleaved"), autocommit=True) as conn:
            for statement in filter(str.strip, SETUP.split(";\n")):
                conn.execute(statement)  # type: ignore[arg-type]
        yield target.resolve(server.conninfo("interleaved"), {})
        admin.execute("DROP DATABASE interleaved WITH (FORCE)")


def sampled(at: Target, text: str) -> tuple[SampledQuery, ...]:
    with target.connect(at, read_only=True) as conn:
        return workload.sample(conn, workload.parse(text))


def state(at: Target) -> list[Any]:
    with target.connect(at) as conn:
        return conn.execute(STATE).fetchall()


@pytest.fixture(scope="module")
def compared(at: Target) -> tuple[benchmark.Measurement, benchmark.Measurement, Comparison]:
    kept = state(at)
    before, after = benchmark.interleave(at, sampled(at, WORKLOAD), HIDDEN, rounds=8)
    assert state(at) == kept
    names = [name for _, name in HIDDEN]
    tables = ['Böö king.T "x y']
    return before, after, benchmark.compare(before, after, indexes=names, tables=tables)


def test_a_side_without_the_index_reads_the_table(compared: Any) -> None:
    before, after, comparison = compared
    assert before.series[0].explain.indexes == ()
    assert after.series[0].explain.indexes == ('by "customer',)
    change = comparison.changes[0]
    assert (change.query, change.verdict, change.answers) == ("of_customer", "faster", "same")
    assert "became" in change.difference
    assert before.conditions.hidden == ('by "customer', "by_status")
    assert after.conditions.hidden == ()
    assert comparison.mode == "interleaved"
    assert "most trustworthy" in comparison._repr_html_()


def test_rounds_are_shared_and_values_are_the_same_on_both_sides(compared: Any) -> None:
    before, after, _ = compared
    for old, new in zip(before.series, after.series, strict=True):
        first, second = ([(s.values, s.round) for s in side.samples] for side in (old, new))
        assert list(dict.fromkeys(first)) == list(dict.fromkeys(second))  # the faster one repeats
        assert len({sample.round for sample in old.samples}) == 8


def test_controls_are_measured_in_every_round_on_both_sides(compared: Any) -> None:
    before, after, comparison = compared
    assert [one.query for one in before.controls] == ["control: processor", "control: buffers"]
    for side in (before, after):
        for control in side.controls:
            assert {sample.round for sample in control.samples} == set(
                range(side.conditions.rounds)
            )
    assert comparison.drift.controls == ("control: processor", "control: buffers", "untouched")


def test_a_hidden_index_costs_a_write_nothing(compared: Any) -> None:
    before, after, comparison = compared
    old, new = before.series[2], after.series[2]
    assert comparison.writes[0].query == "update_status"
    assert new.wal_bytes > old.wal_bytes
    assert new.hot_share == 0.0  # status is indexed there


def test_whole_pages_after_a_checkpoint_are_no_price(
    at: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyzed = runners.Runner._analyzed

    def after_a_checkpoint(self: runners.Runner, seconds: float) -> explain.Explain:
        with target.connect(at) as other:
            other.execute("CHECKPOINT")
        return analyzed(self, seconds)

    monkeypatch.setattr(runners.Runner, "_analyzed", after_a_checkpoint)
    spread = """
    -- name: update_status
    -- param id: SELECT generate_series(1, 30000, 1500)
    UPDATE "Böö king"."T ""x y" SET status = 1 WHERE id = :id;
    """
    for side in benchmark.interleave(at, sampled(at, spread), HIDDEN, rounds=2):
        assert side.series[0].wal_bytes < 2000  # type: ignore[operator]


def test_a_write_leaves_nothing_behind(at: Target, compared: Any) -> None:
    with target.connect(at) as conn:
        assert conn.execute('SELECT sum(status) FROM "Böö king"."T ""x y"').fetchone() == (0,)


def test_an_index_that_nobody_uses_changes_nothing(at: Target) -> None:
    one = "-- name: untouched\nSELECT count(*) FROM other"
    before, after = benchmark.interleave(at, sampled(at, one), HIDDEN, rounds=8)
    (change,) = benchmark.compare(before, after).changes
    assert change.verdict not in ("faster", "slower")


def test_a_query_that_only_the_index_makes_possible_is_told(at: Target) -> None:
    with target.connect(at) as conn:
        conn.execute("CREATE TABLE IF NOT EXISTS merged (k int, v int)")
        conn.execute("CREATE UNIQUE INDEX IF NOT EXISTS merged_k ON merged (k)")
    text = (
        WORKLOAD + "\n-- name: upsert\nINSERT INTO merged VALUES (1, 1) ON CONFLICT (k) DO NOTHING;"
    )
    before, after = benchmark.interleave(at, sampled(at, text), [("public", "merged_k")], rounds=1)
    assert [failure.query for failure in before.failed] == ["upsert"]
    assert after.failed == ()
    comparison = benchmark.compare(before, after)
    assert "no unique or exclusion constraint" in comparison.failed[0].reason
    assert comparison.failed[0].reason.startswith("before: ")
    assert comparison.broken() == ()
    assert benchmark.compare(
        replace(after, started=before.started), replace(before, started=after.started)
    ).broken()


def test_a_query_that_takes_too_long_without_the_index_is_a_lower_bound(at: Target) -> None:
    with target.connect(at) as conn:
        conn.execute(
            "CREATE OR REPLACE FUNCTION nap(i int) RETURNS boolean LANGUAGE plpgsql COST 1 AS "
            "$$ BEGIN PERFORM pg_sleep(0.05); RETURN true; END $$"
        )
    text = '-- name: naps\nSELECT id FROM "Böö king"."T ""x y" WHERE nap(id) AND customer = 7 AND id < 1010;'
    text = text.replace("nap(id) AND customer = 7", "customer = 7 AND nap(id)")
    with target.connect(at) as conn:
        conn.execute("ALTER FUNCTION nap(int) COST 0.0001")
    before, after = benchmark.interleave(
        at, sampled(at, text), HIDDEN, rounds=3, statement_timeout=0.5
    )
    assert before.series[0].given_up
    assert not after.series[0].given_up
    (change,) = benchmark.compare(before, after).changes
    assert (change.verdict, change.bound) == ("faster", "before")
    assert change.before_words == ">= 500 ms"
    assert change.ratio_low < 1e-6


def test_an_index_that_holds_up_a_constraint_cannot_be_hidden(at: Target) -> None:
    with pytest.raises(InputError, match=r"cannot hide public\.other_pkey: cannot drop index"):
        benchmark.interleave(at, sampled(at, WORKLOAD), [("public", "other_pkey")])


def test_somebody_else_on_the_table_is_named_as_the_reason(
    at: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexlab.benchmark.sessions.OTHERS_MS", 50)
    with target.connect(at) as other, other.transaction():
        other.execute('LOCK TABLE "Böö king"."T ""x y" IN ACCESS SHARE MODE')
        with pytest.raises(TargetError, match="somebody else uses the table"):
            benchmark.interleave(at, sampled(at, WORKLOAD), HIDDEN)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_crash_leaves_no_index_hidden(at: Target, number: signal.Signals) -> None:
    kept = state(at)
    script = (
        "import sys; from indexlab import benchmark, target, workload\n"
        "at = target.resolve(sys.argv[1], {})\n"
        'queries = workload.parse(\'-- name: nap\\nSELECT pg_sleep(600) FROM "Böö king"."T ""x y"\').queries\n'
        "sampled = tuple(workload.SampledQuery(q, ((),)) for q in queries)\n"
        f"benchmark.interleave(at, sampled, {HIDDEN!r}, statement_timeout=900)\n"
    )
    sources = str(Path(benchmark.__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", script, at.conninfo],
        env=os.environ | {"PYTHONPATH": sources},
        stderr=subprocess.DEVNULL,
    )
    held = (
        "SELECT count(*) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) "
        "WHERE a.application_name = 'indexlab benchmark' AND a.query LIKE '%pg_sleep%' "
        "AND a.state = 'active' AND l.mode = 'AccessExclusiveLock'"
    )
    with process, target.connect(at) as conn:
        while conn.execute(held).fetchone() == (0,):
            assert process.poll() is None
        process.send_signal(number)
        process.wait(timeout=30)
        # A killed client's statement runs on until the server notices: end it as an admin would.
        conn.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE application_name = 'indexlab benchmark'"
            if conn.info.server_version >= 140000
            else "SELECT pg_terminate_backend(pid)"
        )
    assert state(at) == kept


def refusal(at: Target) -> str:
    try:
        psycopg.connect(at.conninfo).close()
    except psycopg.OperationalError as error:
        return str(error)
    return ""


def test_a_server_that_stops_at_once_leaves_no_index_hidden(tmp_path: Path) -> None:
    with embedded.server(tmp_path) as server:
        at = target.resolve(server.conninfo(), {})
        with target.connect(at) as conn:
            for statement in filter(str.strip, SETUP.split(";\n")):
                conn.execute(statement)  # type: ignore[arg-type]
            conn.execute("CHECKPOINT")  # the embedded server's last commits may be lost in a crash
        kept = state(at)
        pid = int((server.data_dir / "postmaster.pid").read_text().split("\n")[0])
        session = psycopg.connect(at.conninfo)
        session.execute('DROP INDEX "Böö king".by_status')
        os.kill(pid, signal.SIGQUIT)
        with pytest.raises(psycopg.OperationalError):
            while True:
                session.execute("SELECT 1")
        said = ""
        while "refused" not in said and "No such file" not in said:
            said = refusal(at)
    with embedded.server(tmp_path) as server:
        assert state(target.resolve(server.conninfo(), {})) == kept
