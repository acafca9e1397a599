"""Is the benchmark right? Against pgbench, against no change at all, and against known slowdowns.

Every figure is a row of a Markdown table, with its limit; all rows are printed together at the end,
and kept in `reports/benchmark_truth.md`. `make bench` runs it on a machine that does nothing else;
where it needs a busy one, it makes one busy itself. All of it takes about a quarter of an hour.

Shares have their own exact interval at 95% (Clopper and Pearson, Biometrika 26, 1934). It takes
comparisons for independent; the 20 queries of one run share its moments, so what is false together
is counted by runs, too.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import pq, sql
from scipy.stats import binomtest

from indexlab import audit as auditing
from indexlab import benchmark, demo, embedded, plan, target, units, workload
from indexlab.benchmark import Change, Comparison
from indexlab.benchmark.changes import MOVED
from indexlab.target import Target
from indexlab.workload import SampledQuery

SETUP = """
CREATE TABLE points (id int PRIMARY KEY, unused int, filler text);
INSERT INTO points SELECT g, g % 7, repeat('x', 60) FROM generate_series(1, 50000) AS g;
CREATE INDEX unused_key ON points (unused);
CREATE TABLE marked (x int);
CREATE INDEX marker ON marked (x);
VACUUM ANALYZE;
"""
POINT = "SELECT filler FROM points WHERE id = 4711"
MILLISECOND = "SELECT count(*) FROM generate_series(1, 17000) AS g"
SAME = tuple(
    [f"SELECT filler FROM points WHERE id = {n}" for n in (1, 500, 25_000, 49_999)]
    + [f"SELECT count(*) FROM points WHERE id < {n}" for n in (300, 1_000, 3_000, 9_000)]
    + [f"SELECT count(*) FROM generate_series(1, {n}) AS g" for n in (1_000, 4_000, 9_000, 20_000)]
    + [f"SELECT sum(length(filler)) FROM points WHERE id % {n} = 0" for n in (2, 3, 5, 7)]
    + [f"SELECT id FROM points WHERE id < {n} ORDER BY md5(filler || id)" for n in (50, 200, 800)]
    + ["SELECT pg_sleep(0.002)"]
)
"""What the planner serves alike with and without the index on `unused`."""
# The server rounds a wait up to whole milliseconds: 10 and 11, without a doubt about rounding.
SLEPT = (
    "SELECT pg_sleep(CASE WHEN to_regclass('public.marker') IS NULL THEN 0.0095 ELSE 0.0105 END)"
)
# Milliseconds of computing: a round trip, whose length the scheduler decides, is no part of the ratio.
DOUBLED = (
    "SELECT sum(length(md5(filler || id))) > 0 FROM points WHERE id BETWEEN 1 AND "
    "CASE WHEN to_regclass('public.marker') IS NULL THEN 4000 ELSE 8000 END"
)
"""Slower where the marker is: it is what an interleaved comparison hides on one side."""


ROWS: list[str] = []
"""Of the table, as they were found."""


def row(*cells: str) -> None:
    """Print a row of the table, and keep it for the end."""
    ROWS.append(f"| {' | '.join(cells)} |")
    print(f"\n{ROWS[-1]}")


def share(count: int, total: int) -> str:
    """Write a share with its exact interval.

    >>> share(0, 200), share(195, 200)
    ('0.0% (0.0% to 1.8%)', '97.5% (94.3% to 99.2%)')
    """
    found = binomtest(count, total).proportion_ci(0.95, method="exact")
    return f"{count / total:.1%} ({found.low:.1%} to {found.high:.1%})"


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    """Print the whole table at the end, whatever failed, and keep it."""
    ROWS.clear()
    yield
    text = "| what | measured |\n|---|---|\n" + "".join(f"{line}\n" for line in ROWS)
    print(f"\n\n{text}")
    place = Path("reports")
    place.mkdir(exist_ok=True)
    (place / "benchmark_truth.md").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def at() -> Iterator[Target]:
    with (
        tempfile.TemporaryDirectory(prefix="truth-") as place,
        embedded.server(Path(place)) as server,
    ):
        found = target.resolve(server.conninfo(), {})
        with target.connect(found) as conn:
            for statement in filter(str.strip, SETUP.split(";\n")):
                conn.execute(statement)
        yield found


def queries(statements: Sequence[str]) -> tuple[SampledQuery, ...]:
    text = "\n".join(
        f"-- name: q{number:02}\n{statement};" for number, statement in enumerate(statements)
    )
    return tuple(SampledQuery(query, ((),)) for query in workload.parse(text).queries)


@contextmanager
def busy(processors: int) -> Iterator[None]:
    """Keep processors busy with something else."""
    program = "while True: sum(range(100000))"
    others = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(processors)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


# Against pgbench


def by_pgbench(at: Target, statement: str, times: int, place: Path) -> list[float]:
    """Milliseconds of each execution by pgbench's own log."""
    script, log = place / "script.sql", place / "log"
    script.write_text(statement + ";\n")
    subprocess.run(
        [embedded.binary("pgbench"), "-n", "-M", "prepared", "-r", "-l", "-t", str(times),
         f"--log-prefix={log}", "-f", script, at.conninfo],
        check=True,
        capture_output=True,
    )  # fmt: skip
    (written,) = place.glob("log.*")
    lines = written.read_text().splitlines()
    written.unlink()
    return [int(line.split()[2]) / 1000 for line in lines]


@contextmanager
def placed(at: Target, client: int, server: int) -> Iterator[None]:
    """Hold clients on one processor and new server processes on another, by inheritance.

    Left to itself, the scheduler moves them, and a round trip between two processors takes several
    times as long as one within: a comparison of two clients would be one of their places.
    """
    with target.connect(at) as conn:
        row = conn.execute("SELECT pg_read_file('postmaster.pid')").fetchone()
    assert row is not None
    postmaster = int(row[0].split()[0])
    kept = [(process, os.sched_getaffinity(process)) for process in (0, postmaster)]
    try:
        for (process, _), processor in zip(kept, (client, server), strict=True):
            os.sched_setaffinity(process, {processor})
        yield
    finally:
        for process, processors in kept:
            os.sched_setaffinity(process, processors)


@pytest.mark.parametrize("place", ["one processor", "two processors"])
def test_against_pgbench(at: Target, tmp_path: Path, place: str) -> None:
    """Both clients in turns, ten times, each with a connection of its own every time."""
    cores = sorted(os.sched_getaffinity(0))
    if place == "two processors" and len(cores) < 2:
        pytest.skip("this machine has one processor")
    found: dict[str, list[tuple[float, float]]] = {POINT: [], MILLISECOND: []}

    def ours(statement: str) -> float:
        measured = benchmark.measure(at, queries([statement]), rounds=20, budget=5)
        return measured.series[0].p50_ms

    def theirs(statement: str) -> float:
        times = 4000 if statement == POINT else 400
        return statistics.median(by_pgbench(at, statement, times, tmp_path))

    with placed(at, cores[0], cores[0] if place == "one processor" else cores[1]):
        for turn in range(10):
            for statement, pairs in found.items():
                if turn % 2:
                    pairs.append((ours(statement), theirs(statement)))
                else:
                    pairs.append((theirs(statement), ours(statement))[::-1])
    point = statistics.median(a - b for a, b in found[POINT]) * 1000
    ratio = statistics.median(a / b for a, b in found[MILLISECOND]) - 1
    for statement, words, limit in (
        (POINT, f"{point:+.1f} us", "10 us"),
        (MILLISECOND, f"{ratio:+.1%}", "5 %"),
    ):
        kit, other = (statistics.median(side) for side in zip(*found[statement], strict=True))
        apart = sorted(a - b for a, b in found[statement])
        row(
            f"client and server on {place}, `{statement}`",
            f"kit {kit:.4f} ms, pgbench {other:.4f} ms: {words} (limit {limit}); "
            f"in ten turns {1000 * apart[0]:+.1f} to {1000 * apart[-1]:+.1f} us",
        )
    assert abs(point) <= 10
    assert abs(ratio) <= 0.05


# Nothing changed


def pairs(
    at: Target, hidden: str, statements: Sequence[str], seed: int, budget: float
) -> tuple[Change, ...]:
    sides = benchmark.interleave(
        at, queries(statements), [("public", hidden)], budget=budget, precision=0.05, seed=seed
    )
    return benchmark.compare(*sides, seed=seed).changes


def one_after_the_other(at: Target, seed: int) -> Comparison:
    before, after = (
        benchmark.measure(at, queries(SAME), budget=2.5, precision=0.05, seed=seed + place)
        for place in (0, 1)
    )
    return benchmark.compare(before, after, seed=seed)


@pytest.mark.parametrize(
    ("mode", "load"), [("interleaved", 0), ("interleaved", 1), ("one side", 0), ("one side", 1)]
)
def test_nothing_changed(at: Target, mode: str, load: int) -> None:
    """200 comparisons of a thing with itself."""
    changes: list[Change] = []
    corrected, wrong = 0, 0
    with busy(load):
        for seed in range(200 // len(SAME)):
            if mode == "interleaved":
                found = pairs(at, "unused_key", SAME, seed, 4)
            else:
                comparison = one_after_the_other(at, 2 * seed)
                found = comparison.changes
                corrected += comparison.drift.verdict != "steady"
            changes += found
            wrong += any(change.verdict in MOVED for change in found)
    false = [change for change in changes if change.verdict in MOVED]
    covered = sum(change.ratio_low <= 1 <= change.ratio_high for change in changes)
    width = statistics.median(change.ratio_high / change.ratio_low - 1 for change in changes)
    row(
        f"A/A, {mode}, {load} busy processors, {len(changes)} comparisons",
        f"false verdicts {share(len(false), len(changes))} (limit 5 %), in {wrong} of "
        f"{200 // len(SAME)} runs; the interval covers 1 in {share(covered, len(changes))}; "
        f"median width {width:.1%}; {corrected} runs corrected for drift",
    )
    for change in false:
        print(
            f"  {change.query}: {change.ratio:.3f} ({change.ratio_low:.3f} to {change.ratio_high:.3f})"
        )
    assert len(changes) == 200
    assert len(false) <= 10


# Something changed, by a known factor


LOOP_S = 6.0


def truth(at: Target, statement: str) -> list[float]:
    """Ratios by a plain loop in turns around libpq's own call, without the kit."""
    ratios: list[float] = []
    with psycopg.connect(at.conninfo, autocommit=True) as conn:
        conn.pgconn.prepare(b"truth", statement.encode())
        deadline = time.monotonic() + LOOP_S
        while time.monotonic() < deadline:
            times: dict[bool, float] = {}
            for hides in (True, False) if len(ratios) % 2 else (False, True):
                with conn.transaction(force_rollback=True):
                    if hides:
                        conn.execute("DROP INDEX public.marker")
                    took = []
                    for _ in range(4):
                        began = time.perf_counter()
                        result = conn.pgconn.exec_prepared(b"truth", None)
                        took.append(time.perf_counter() - began)
                        assert result.status == pq.ExecStatus.TUPLES_OK
                    # The first after a switch does not count.
                    times[hides] = statistics.median(took[1:])
            ratios.append(times[False] / times[True])
    return ratios


@pytest.mark.parametrize(
    ("name", "statement"), [("pg_sleep of 10 %", SLEPT), ("doubled row range", DOUBLED)]
)
def test_a_known_slowdown_is_found(at: Target, name: str, statement: str) -> None:
    """50 comparisons of each kind, 100 in all."""
    loops: list[list[float]] = []
    changes: list[Change] = []
    for seed in range(5):
        loops.append(truth(at, statement))
        changes += pairs(at, "marker", [statement] * 10, seed, 12)
    loops.append(truth(at, statement))
    known = statistics.median(ratio for loop in loops for ratio in loop)
    apart = sorted(statistics.median(loop) for loop in loops)
    found = sum(change.verdict == "slower" for change in changes)
    covered = sum(change.ratio_low <= known <= change.ratio_high for change in changes)
    row(
        f"{name}: {known:.3f}x by a plain loop, in {len(loops)} parts {apart[0]:.3f} to "
        f"{apart[-1]:.3f}, {len(changes)} comparisons",
        f"found {share(found, len(changes))} (limit 95 %); the interval covers the truth in "
        f"{share(covered, len(changes))} (limit 90 %); "
        f"ratios {min(c.ratio for c in changes):.3f} to {max(c.ratio for c in changes):.3f}",
    )
    for change in changes:
        if change.verdict != "slower":
            print(
                f"  missed {change.query}: {change.ratio:.3f} "
                f"({change.ratio_low:.3f} to {change.ratio_high:.3f}) {change.verdict} {change.why}"
            )
    assert len(changes) == 50
    assert found >= 0.95 * len(changes)
    assert covered >= 0.90 * len(changes)


# What it costs

PRECISION = 0.05


def test_the_bookings_workload_costs_little_beyond_its_queries(at: Target) -> None:
    with target.connect(at) as admin:
        admin.execute("CREATE DATABASE bookings")
    shop = Target("bookings", at.conninfo.replace("dbname=postgres", "dbname=bookings"))
    with target.connect(shop) as conn:
        demo.load(conn, 1_000_000)
        with target.connect(shop, read_only=True) as reader:
            audited = auditing.read(reader, plan.read(demo.PLAN), None, resolve=())[1]
        for statement in audited.revised.statements:
            conn.execute(sql.SQL(statement.text))
        conn.execute("VACUUM ANALYZE")
    names = [
        (item.table.schema or "", item.label)
        for item in audited.statements
        if item.revised is not None
    ]
    with target.connect(shop, read_only=True) as conn:
        sampled = workload.sample(conn, workload.read(demo.WORKLOAD))
    began = time.monotonic()
    before, after = benchmark.interleave(shop, sampled, names, budget=240, precision=PRECISION)
    wall = time.monotonic() - began
    own = before.conditions.queries_s + after.conditions.queries_s
    comparison = benchmark.compare(before, after)
    print("\n\n| query | without | with | ratio | width of its interval |\n|---|---|---|---|---|")
    for change in comparison.changes:
        print(
            f"| {change.query} | {units.ms(change.before_ms)} | {units.ms(change.after_ms)} | "
            f"{change.ratio:.4f} | {change.ratio_high / change.ratio_low - 1:.1%} |"
        )
    # The rule looked at 500 resamples now and then, the comparison draws 2,000 others.
    wide = [c.query for c in comparison.changes if c.ratio_high / c.ratio_low - 1 > 1.3 * PRECISION]
    row(
        f"bookings, 1,000,000 rows, {len(sampled)} queries to {PRECISION:.0%}",
        f"{wall:.1f} s in all, {own:.1f} s in queries, {wall - own:.1f} s beyond (limit 20 s); "
        f"{comparison.headline}; not as precise: {', '.join(wide) or 'none'}",
    )
    assert not wide
    assert wall - own <= 20
