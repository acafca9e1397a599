"""What happens between two sides, on real servers: another machine, a restart, a clock that jumps."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from indexlab import benchmark, embedded, target, workload
from indexlab.benchmark import Comparison, controls
from indexlab.benchmark.recording import Moment
from indexlab.target import Target
from indexlab.workload import SampledQuery


def queries(text: str) -> tuple[SampledQuery, ...]:
    return tuple(SampledQuery(query, ((),)) for query in workload.parse(text).queries)


# Drift

UNCHANGED = queries("-- name: unchanged\nSELECT count(*) FROM generate_series(1, 4000) AS g;")


def slowed(database: Target) -> None:
    """Make every statement of new sessions slower: each starts a worker process for its plan."""
    with target.connect(database) as conn:
        name = sql.Identifier(conn.info.dbname)
        conn.execute(sql.SQL("ALTER DATABASE {} SET debug_parallel_query = on").format(name))


@pytest.fixture(scope="module")
def sides(
    embedded_server: embedded.Server,
) -> tuple[benchmark.Measurement, benchmark.Measurement, benchmark.Measurement]:
    """One query, measured twice as the server is, and once more after it was made slower."""
    embedded_server.create_database("drifting")
    there = target.resolve(embedded_server.conninfo("drifting"), {})
    first, second = (benchmark.measure(there, UNCHANGED, rounds=40) for _ in range(2))
    slowed(there)
    third = benchmark.measure(there, UNCHANGED, rounds=40)
    embedded_server.drop_database("drifting")
    return first, second, third


Sides = tuple[benchmark.Measurement, benchmark.Measurement, benchmark.Measurement]


def without_controls(side: benchmark.Measurement) -> benchmark.Measurement:
    """Take away what watches over the machine: the controls, and what an empty statement took."""
    return replace(side, controls=(), overhead_ms=0.0)


def compared(before: benchmark.Measurement, after: benchmark.Measurement) -> Comparison:
    return benchmark.compare(before, after)


def test_without_controls_a_slower_server_looks_like_a_slower_query(sides: Sides) -> None:
    first, _, third = sides
    naive = compared(without_controls(first), without_controls(third))
    assert naive.drift.verdict == "unknown"
    assert naive.changes[0].verdict == "slower"


def test_controls_see_that_the_server_became_slower_and_forbid_the_verdict(sides: Sides) -> None:
    first, _, third = sides
    for before, after in ((first, third), (third, first)):
        found = compared(before, after)
        assert found.drift.verdict == "refused"
        assert found.drift.controls == ("control: processor", "control: buffers")
        assert found.changes[0].verdict not in ("faster", "slower")


def test_what_the_controls_moved_by_is_taken_out_of_the_ratio(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _, third = sides
    raw = compared(without_controls(first), without_controls(third)).changes[0].ratio
    monkeypatch.setattr(controls, "REFUSED", 1000.0)
    found = compared(first, third)
    assert found.drift.verdict == "corrected"
    assert found.changes[0].ratio == pytest.approx(raw / found.drift.ratio)
    assert found.changes[0].ratio < raw


def test_a_server_that_stayed_as_it_was_is_not_refused(sides: Sides) -> None:
    first, second, third = sides
    steady, moved = compared(first, second).drift, compared(first, third).drift
    assert steady.ratio < moved.ratio
    assert compared(first, first).drift.verdict == "steady"


# A restart


def stopped(server: embedded.Server) -> None:
    """Shut a server down as an administrator does, and wait until nobody answers."""
    process = int((server.data_dir / "postmaster.pid").read_text().split("\n")[0])
    os.kill(process, signal.SIGINT)
    deadline = time.monotonic() + 30
    while (server.data_dir / "postmaster.pid").exists():
        assert time.monotonic() < deadline


def test_a_server_that_was_restarted_between_the_sides_is_told(tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        with embedded.server(tmp_path) as server:
            there = target.resolve(server.conninfo(), {})
            found += [benchmark.measure(there, UNCHANGED, rounds=5) for _ in range(2)]
            stopped(server)
    first, second, third, _ = found

    def told(before: benchmark.Measurement, after: benchmark.Measurement) -> bool:
        return any(
            "the server was restarted" in words for words in compared(before, after).warnings
        )

    assert not told(first, second)
    assert told(second, third)


# Statistics


def test_statistics_that_were_renewed_between_the_sides_are_told(
    database: Target, session: psycopg.Connection
) -> None:
    session.execute("CREATE TABLE t AS SELECT g FROM generate_series(1, 100) AS g")
    session.execute("ANALYZE t")
    everything = queries("-- name: everything\nSELECT g FROM t;")
    first, second = (benchmark.measure(database, everything, rounds=5) for _ in range(2))
    session.execute("ANALYZE t")
    third = benchmark.measure(database, everything, rounds=5)
    words = "statistics were renewed between the sides: public.t"
    assert not any(words in warning for warning in compared(first, second).warnings)
    assert any(words in warning for warning in compared(second, third).warnings)


# The clock


@pytest.mark.parametrize("seconds", [-7200.0, 0.0, 3600.0])
def test_a_jump_is_what_the_wall_clock_went_otherwise_than_the_monotonic_one(
    seconds: float,
) -> None:
    now = Moment.now()
    began = replace(now, wall=now.wall - timedelta(seconds=seconds))
    assert began.jump() == pytest.approx(seconds, abs=1.0)


# What a query may do


def test_a_query_without_rows_is_measured_and_compared(database: Target) -> None:
    nothing = queries("-- name: nothing\nSELECT 1 WHERE false;")
    before, after = (benchmark.measure(database, nothing, rounds=6) for _ in range(2))
    change = compared(before, after).changes[0]
    assert (before.series[0].rows, change.answers) == (0, "same")
