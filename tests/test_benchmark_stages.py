"""Load, cold caches, sizes, and runs that are compared: the benchmark through lab and command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from indexlab import benchmark, embedded, lab, target, workload
from indexlab.benchmark import cache, load, scale
from indexlab.errors import InputError, TargetError
from indexlab.runs import Run, documents
from indexlab.target import Target
from indexlab.workload import SampledQuery

SETUP = """
CREATE TABLE rooms (id int PRIMARY KEY, floor int, name text);
INSERT INTO rooms SELECT g, g % 500, repeat('x', 100) FROM generate_series(1, 20000) AS g;
CREATE INDEX rooms_floor ON rooms (floor);
VACUUM ANALYZE;
"""
PLAN = "CREATE INDEX rooms_floor ON rooms (floor);"
WORKLOAD = """
-- name: of_floor
-- weight: 9
-- param floor: SELECT generate_series(1, 10)
SELECT * FROM rooms WHERE floor = :floor;

-- name: it_is_late
-- param word: SELECT 'it''s: 10:30 \\ :late'
SELECT :word::text || ' at 12:34' WHERE :word::text = E'it''s: 10:30 \\\\ ' || chr(58) || 'late';

-- name: rename
-- param id: SELECT generate_series(1, 10)
UPDATE rooms SET floor = -1 WHERE id = :id;
"""


@pytest.fixture(scope="module")
def at(embedded_server: embedded.Server) -> Iterator[Target]:
    embedded_server.create_database("stages")
    found = target.resolve(embedded_server.conninfo("stages"), {})
    with target.connect(found) as conn:
        for statement in filter(str.strip, SETUP.split(";\n")):
            conn.execute(statement)  # type: ignore[arg-type]
    yield found
    embedded_server.drop_database("stages")


def sampled(at: Target, text: str = WORKLOAD) -> tuple[SampledQuery, ...]:
    with target.connect(at, read_only=True) as conn:
        return workload.sample(conn, workload.parse(text))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("plan.sql").write_text(PLAN)
    Path("workload.sql").write_text(WORKLOAD)
    return tmp_path


def opened(at: Target, out: str = "", *, disposable: bool = True) -> lab.Lab:
    return lab.open_lab(
        "benchmark", at.conninfo, "plan.sql", "workload.sql", out, disposable=disposable
    )


# Partitions

PARTED = """
CREATE TABLE visits (id int, day date NOT NULL, who int) PARTITION BY RANGE (day);
CREATE TABLE visits_1 PARTITION OF visits FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE visits_2 PARTITION OF visits FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
INSERT INTO visits SELECT n, date '2024-01-01' + n % 700, n % 9000 FROM generate_series(1, 90000) AS n;
VACUUM ANALYZE visits
"""


def test_sides_are_in_turns_unless_an_index_of_before_would_go_with_a_new_one(
    database: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plan.sql").write_text("CREATE INDEX by_who ON visits (who);")
    Path("workload.sql").write_text("-- name: of_one\nSELECT * FROM visits WHERE who = 7;")
    modes = []
    with target.connect(database) as conn:
        for before in ((), ("DROP INDEX by_who", "CREATE INDEX own ON visits_1 (who)")):
            for statement in before or PARTED.split(";\n"):
                conn.execute(statement)  # type: ignore[arg-type]
            run = _ran(tmp_path / f"run-{len(modes)}", database, "--disposable")
            modes.append(run.read_json("benchmark")["mode"])
    assert modes == ["interleaved", "one side"]


def _ran(out: Path, at: Target, *options: str) -> Run:
    """Do a whole run with plan.sql and workload.sql of this directory."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "indexlab", "run", "--target", at.conninfo, "--execute"),
            *("--plan", "plan.sql", "--workload", "workload.sql", *options),
            *("--no-report", "--budget", "0.5", "--out", str(out)),
        ],
        capture_output=True,
        check=False,
        text=True,
        env=os.environ.copy(),
    )
    assert done.returncode == 0, done.stderr
    (out / "printed").write_text(done.stdout)
    return Run(out)


def test_a_run_on_a_partitioned_table_counts_one_index_and_whose_parts_are_read(
    database: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with target.connect(database) as conn:
        for statement in PARTED.split(";\n"):
            conn.execute(statement)  # type: ignore[arg-type]
    Path("plan.sql").write_text(
        "CREATE INDEX by_who ON visits (who);\nCOMMENT ON INDEX by_who IS 'who came';"
    )
    Path("workload.sql").write_text(
        "-- name: of_one\nSELECT * FROM visits WHERE who = 7;\n"
        "-- name: other\nSELECT count(*) FROM pg_catalog.pg_class;"
    )
    run = _ran(tmp_path / "run", database)
    found = documents.comparison(run)
    assert found is not None
    assert found.headline.queries == ("of_one",)
    assert "of_one" not in found.controls
    assert found.drift is None or "of_one" not in found.drift.controls
    steps = run.read_json("apply")["steps"]
    (built,) = documents.built(run.read_json("apply"))
    assert built["index"] == "public.by_who"
    assert built["bytes"] == sum(step["bytes"] for step in steps if step["part_of"])
    printed = (run.path / "printed").read_text()
    lines = printed.splitlines()
    assert [line.split()[:2] for line in lines if "by_who" in line and "line" not in line] == [
        ["built", "public.by_who"],
        ["comment", "public.by_who"],
    ]
    assert any(line.endswith("on partitions: 2 built") for line in lines)
    summary = (run.path / "summary.md").read_text()
    assert "1 index built" in summary.splitlines()[0]
    assert "over the 1 query with a new index" in printed
    back = subprocess.run(
        [
            *(sys.executable, "-m", "indexlab", "rollback", "run", "--execute"),
            *("--target", database.conninfo),
        ],
        capture_output=True,
        check=False,
        text=True,
    )
    assert back.returncode == 0, back.stderr
    assert "dropped  public.by_who  on partitions: 2 skipped" in back.stdout.splitlines()


# Load


def test_many_clients_are_served_and_leave_nothing_behind(at: Target) -> None:
    found = load.run(at, sampled(at), clients=3, seconds=1, disposable=True)
    assert found.late == 0
    assert found.done > 50
    assert found.throughput == found.done / 1
    assert 0 < found.p50_ms <= found.p95_ms <= found.p99_ms <= found.max_ms
    with target.connect(at) as conn:
        assert conn.execute("SELECT min(floor) FROM rooms").fetchone() == (0,)


def test_a_rate_is_kept_and_latency_counts_from_the_scheduled_start(at: Target) -> None:
    text = "-- name: nap\nSELECT pg_sleep(0.05);"
    found = load.run(at, sampled(at, text), clients=1, seconds=3, rate=40)
    # One client manages less than 20 in a second: those behind wait, and their waiting counts.
    assert found.throughput < 25
    assert found.p95_ms > 200


def test_on_a_target_that_is_not_disposable_nothing_can_write(at: Target) -> None:
    found = load.run(at, sampled(at), clients=1, seconds=1)
    assert found.late == 0
    with target.connect(at) as conn:
        conn.execute(
            "CREATE OR REPLACE FUNCTION sly() RETURNS void LANGUAGE sql AS "
            "$$ INSERT INTO rooms VALUES (0) $$"
        )
    with pytest.raises(TargetError, match="read-only transaction"):
        load.run(at, sampled(at, "-- name: sly\nSELECT sly();"), clients=1, seconds=1)
    writes = tuple(one for one in sampled(at) if one.query.kind == "write")
    with pytest.raises(InputError, match="the workload has no reads"):
        load.run(at, writes, clients=1, seconds=1)


def test_what_pgbench_takes_for_a_variable_is_refused_by_name(at: Target) -> None:
    with pytest.raises(
        InputError, match=r"query 'colon' cannot be sent by pgbench, which takes \":late"
    ):
        load.run(at, sampled(at, "-- name: colon\nSELECT 'too :late';"), clients=1, seconds=1)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"clients": 0, "seconds": 1}, "clients 0 is not from 1"),
        ({"clients": 1, "seconds": 0}, "seconds 0 is not from 1"),
        ({"clients": 1, "seconds": 1, "rate": -1}, "rate -1 is not from 0"),
    ],
)
def test_impossible_loads_are_refused(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        load.run(Target("nowhere", "host=/nowhere"), (), **given)


@pytest.mark.pg15
def test_a_password_is_on_no_command_line_of_a_load(
    pg15_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    start = subprocess.Popen

    def spy(command: list[str], **options: Any) -> Any:
        seen.append(command)
        return start(command, **options)

    monkeypatch.setattr(load.subprocess, "Popen", spy)
    there = target.resolve(pg15_server.uri(pg15_server.password), {})
    found = load.run(there, sampled(there, "-- name: one\nSELECT 1;"), clients=1, seconds=1)
    assert found.done > 0
    assert not [word for word in seen[-1] if pg15_server.password[:16] in word]


# Cold caches


def test_a_cold_cache_reads_from_outside_of_shared_buffers(at: Target) -> None:
    one = sampled(at)[:1]
    warm = benchmark.measure(at, one, rounds=2)
    cold = benchmark.measure(at, one, rounds=2, cold=True)
    assert (warm.conditions.cache, cold.conditions.cache) == ("warm", "cold")
    with target.connect(at) as conn:
        io = "SELECT heap_blks_read FROM pg_statio_user_tables WHERE relname = 'rooms'"
        before = conn.execute(io).fetchone()
    benchmark.measure(at, one, rounds=2, cold=True)
    with target.connect(at) as conn:
        assert conn.execute(io).fetchone() > before
        extensions = "SELECT count(*) FROM pg_extension WHERE extname = 'pg_buffercache'"
        assert conn.execute(extensions).fetchone() == (0,)


@pytest.mark.pg15
def test_a_cold_cache_is_refused_where_it_cannot_be_made(pg15_server: Any) -> None:
    one = workload.parse("-- name: one\nSELECT 1;").queries[0]
    queries = (SampledQuery(one, ((),)),)
    by_socket = target.resolve(pg15_server.conninfo(), {})
    with target.connect(by_socket) as conn:
        version = conn.info.server_version
    # The distribution's server may be another one: from 17 on it evicts, where its files may be read.
    if version < cache.EVICTING:
        with pytest.raises(TargetError, match=r"PostgreSQL 1\d\..* cannot evict its buffers"):
            benchmark.measure(by_socket, queries, cold=True)
    by_network = target.resolve(pg15_server.uri(pg15_server.password), {})
    with pytest.raises(TargetError, match="on a server of this machine"):
        benchmark.measure(by_network, queries, cold=True)


# Through the lab


def test_a_disposable_target_is_measured_in_turns_and_both_sides_are_kept(
    at: Target, files: Path
) -> None:
    with opened(at, "run") as room:
        after = room.benchmark(budget=1)
        comparison = room.compare(after, "")
        price = room.price(after, comparison, "")
        drift = room.drift(after, comparison, "")
    assert comparison.mode == "interleaved"
    assert [change.query for change in comparison.writes] == ["rename"]
    assert [paid.query for paid in price.writes] == ["rename"]
    assert "controls moved" in drift.title
    before = documents.measurement(Run(files / "run" / "before"))
    again = documents.measurement(Run(files / "run"))
    assert again == after
    assert before.is_paired_with(again)
    assert before.conditions.hidden == ("rooms_floor",)
    kept = documents.comparison(Run(files / "run"))
    assert kept == comparison


def test_interleaving_is_refused_where_others_may_be(at: Target, files: Path) -> None:
    with opened(at, disposable=False) as room:
        with pytest.raises(InputError, match="do it on a clone, and say --disposable"):
            room.benchmark(mode="interleaved")
        with pytest.raises(InputError, match="cold for everybody"):
            room.benchmark(settings="cache=cold")
        assert not room.benchmark(budget=0.5).is_interleaved
    with opened(at) as room:
        with pytest.raises(InputError, match="either --interleaved or --baseline"):
            room.benchmark(mode="interleaved", baseline="run")
        with pytest.raises(InputError, match="mode 'both' is none of"):
            room.benchmark(mode="both")
    Path("plan.sql").write_text("CREATE INDEX rooms_name ON rooms (name);")
    with opened(at) as room, pytest.raises(InputError, match="nothing to interleave"):
        room.benchmark(mode="interleaved")


# Two runs


def test_any_two_runs_can_be_compared_and_a_slowdown_fails(at: Target, files: Path) -> None:
    for name, ms in (("fast", 0.004), ("slow", 0.02)):
        with target.connect(at) as conn:
            conn.execute(
                f"CREATE OR REPLACE FUNCTION nap() RETURNS void LANGUAGE sql AS 'SELECT pg_sleep({ms})'"
            )
        Path("workload.sql").write_text("-- name: nap\nSELECT nap();\n")
        with opened(at, name, disposable=False) as room:
            room.benchmark(budget=2, precision=0)

    def compare(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "indexlab", "compare", *words],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ,
        )

    slower = compare("fast", "slow", "--max-slowdown", "1.2")
    assert slower.returncode == 1, slower.stderr
    assert "nap is slower than --max-slowdown 1.2 allows" in slower.stderr
    assert "One side was measured after the other" in slower.stdout
    faster = compare("slow", "fast", "--max-slowdown", "1.2", "--format", "json")
    assert faster.returncode == 0
    assert json.loads(faster.stdout)["changes"][0]["verdict"] == "faster"
    absent = compare("fast", "nowhere")
    assert (absent.returncode, "cannot be read" in absent.stderr) == (2, True)
    other = json.loads((files / "fast" / "benchmark.json").read_text()) | {"format": 2}
    (files / "fast" / "benchmark.json").write_text(json.dumps(other))
    newer = compare("fast", "slow")
    assert (newer.returncode, "has format 2; this version reads format 1" in newer.stderr) == (
        2,
        True,
    )


# Sizes


def test_exponents_of_known_growth() -> None:
    rows = (1_000, 10_000, 100_000)
    assert scale.exponent(rows, [0.1, 1.0, 10.0]) == pytest.approx(1)
    assert scale.exponent(rows, [0.1, 0.1, 0.1]) == pytest.approx(0)
    assert scale.exponent(rows, [1, 100, 10_000]) == pytest.approx(2)


def test_a_rate_that_cannot_be_reached_is_told(at: Target) -> None:
    found = load.run(
        at, sampled(at, "-- name: nap\nSELECT pg_sleep(0.05);"), clients=1, seconds=2, rate=500
    )
    assert found.throughput < 25
    assert found.fell_behind
    assert "the rate was not reached" in str(found)


def test_what_pgbench_cannot_send_is_refused_before_anything_is_measured(
    at: Target, files: Path
) -> None:
    many = "".join(f"-- name: q{number}\nSELECT {number};\n" for number in range(129))
    for text, reason in (
        ("-- name: colon\nSELECT 'too :late';", 'takes ":late\'" for a variable'),
        (many, "pgbench takes 128 queries at most, the workload has 129"),
    ):
        Path("workload.sql").write_text(text)
        with opened(at, "run") as room, pytest.raises(InputError, match=reason):
            room.benchmark(settings="clients=1")
    assert not (files / "run" / "benchmark.json").exists()


def test_a_sampler_has_a_limit_of_time_as_well(
    at: Target, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexlab.lab.measuring.SAMPLER_SECONDS", 0.1)
    Path("workload.sql").write_text(
        "-- name: q\n-- param x: SELECT 1 FROM pg_sleep(60)\nSELECT :x::int;"
    )
    with opened(at) as room, pytest.raises(InputError, match=r"sampler of 'x'.*let it read less"):
        room.benchmark(settings="statement_timeout=0.1")


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("deep", "[" * 100_000, "is not JSON"),
        ("no values", {"values": None}, r"'of_floor': Input should be a valid tuple"),
        ("other parameters", {"values": [["1", "2"]]}, "'of_floor' has other parameters"),
        ("a text for values", {"values": ["12"]}, r"'of_floor': Input should be a valid tuple"),
    ],
)
def test_a_damaged_baseline_is_refused(
    at: Target, files: Path, name: str, damage: Any, reason: str
) -> None:
    with opened(at, "whole", disposable=False) as room:
        room.benchmark(budget=0.5)
    document = json.loads((files / "whole" / "benchmark.json").read_text())
    if isinstance(damage, dict):
        document["queries"][0] |= damage
    (files / name).mkdir()
    (files / name / "benchmark.json").write_text(
        damage if isinstance(damage, str) else json.dumps(document)
    )
    with opened(at, disposable=False) as room, pytest.raises(InputError, match=reason):
        room.benchmark(budget=0.5, baseline=name)


@pytest.mark.parametrize("option", ["--max-slowdown", "--budget", "--precision", "--rate"])
def test_what_is_no_number_is_no_limit(files: Path, option: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "indexlab", "benchmark", option, "nan"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "nan is not a finite number" in done.stderr) == (2, True)


@pytest.mark.parametrize("text", ["", "1", "1,1", "0,1", "a,b", "1,-2", "1,inf"])
def test_sizes_must_be_two_different_numbers(text: str) -> None:
    with pytest.raises(InputError, match="is not a list of two or more different sizes"):
        scale.parse(text)


def test_the_demo_at_two_sizes(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "indexlab", "benchmark", "--target", "demo:20000"),
            *("--scale", "0.1,1", "--budget", "3", "--out", str(tmp_path / "scale")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "scale" / "scale.json").read_text())
    assert found["rows"] == [2000, 20000]
    by_name = {growth["query"]: growth for growth in found["growths"]}
    badge = by_name["pending_badge"]  # counts by reading the whole table, or by an index
    assert badge["exponent_before"] > badge["exponent_after"] + 0.2
    assert (tmp_path / "scale" / "scale.png").read_bytes().startswith(b"\x89PNG")
    assert "rows^" in done.stdout
    page = (tmp_path / "scale" / "scale.html").read_text()
    assert f"report: {(tmp_path / 'scale' / 'scale.html').as_posix()}" in done.stdout
    assert "grow more slowly with the indexes, from 2,000 to 20,000 rows" in page
    assert f"rows^{badge['exponent_after']:.2f}" in page
    assert "index.html" not in page


def test_the_story_of_the_demo_ends_with_other_sizes(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "indexlab", "demo", "--rows", "4000", "--scale", "0.5,1"),
            *("--budget", "2", "--what-if", "off", "--out", str(tmp_path / "story")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kept = tmp_path / "story"
    found = documents.scaling(Run(kept))
    assert found.rows == (2000, 4000)
    own = {series.query: series.p50_ms for series in documents.measurement(Run(kept)).series}
    assert {g.query: g.after_ms[1] for g in found.growths} == own  # not measured a second time
    assert not (kept / "rows-4000").exists()
    overview = (kept / "index.html").read_text()
    assert 'href="scale.html"' in overview
    for words in ("grow more slowly with the indexes", "controls moved"):
        assert words in overview
    price = ("pays for", "pay for a write", "writes did not slow down")  # as it turns out
    assert any(words in overview for words in price)
    assert 'href="index.html"' in (kept / "scale.html").read_text()


def test_wrong_sizes_are_refused_before_anything_is_started(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "indexlab", "demo", "--rows", "2000", "--scale", "1"),
            *("--out", str(tmp_path / "story")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "--scale '1' is not a list" in done.stderr) == (2, True)
    assert not (tmp_path / "story").exists()


def test_sizes_are_the_demos_alone(at: Target, files: Path) -> None:
    from indexlab.pipeline import Options, Pipeline

    options = Options(at.conninfo, "plan.sql", "workload.sql", files / "s", scale="1,2")
    with pytest.raises(InputError, match="works on the demo only"):
        Pipeline(options, lambda _text, _part: None)


def test_a_cancelled_connection_is_no_crash_of_the_kit(at: Target) -> None:
    text = "-- name: suicide\nSELECT pg_terminate_backend(pg_backend_pid());"
    with pytest.raises(TargetError, match="connection was lost"):
        benchmark.interleave(at, sampled(at, text), [("public", "rooms_floor")])
    with psycopg.connect(at.conninfo) as conn:
        valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'rooms_floor'::regclass"
        assert conn.execute(valid).fetchone() == (True,)
