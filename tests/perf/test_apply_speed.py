"""What apply costs beside psql: wall time, jobs, and the latency of writers meanwhile.

Pairs alternate, so that what the machine does besides weighs on both sides; `make bench` prints
Markdown tables. With INDEXLAB_BENCH_CHART the writers' latencies are drawn into that file.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import statistics
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from indexlab import apply, charts, embedded, plan, units
from indexlab.apply import Settings
from indexlab.demo import database
from indexlab.target import Target

ROWS = os.environ.get("INDEXLAB_BENCH_ROWS", "1000000")
PAIRS = 7
RATE = 300
"""Transactions per second of the writers: far below what the server can do."""
WRITER_PAIRS = 4

PLAN = """
CREATE INDEX CONCURRENTLY idx_bookings_date ON core.bookings (date);
CREATE INDEX CONCURRENTLY idx_bookings_status ON core.bookings (status);
CREATE INDEX CONCURRENTLY idx_bookings_created_at ON core.bookings (created_at);
CREATE INDEX CONCURRENTLY idx_bookings_customer_date ON core.bookings (customer_id, date);
CREATE INDEX CONCURRENTLY idx_payments_status ON core.payments (status);
CREATE INDEX CONCURRENTLY idx_payments_created_at ON core.payments (created_at);
CREATE INDEX CONCURRENTLY idx_customers_email ON core.customers (email_encrypted);
CREATE INDEX CONCURRENTLY idx_customers_phone ON core.customers (phone_encrypted);
"""
NAMES = [item.index.name for item in plan.parse(PLAN).creates]
DROP = f"DROP INDEX IF EXISTS {', '.join(f'core.{name}' for name in NAMES)}"


@pytest.fixture(scope="module")
def demo() -> Iterator[Target]:
    with database.opened(f"demo:{ROWS}", fresh=True, progress=lambda *_: None) as target:
        yield target


def fresh(target: Target) -> None:
    with psycopg.connect(target.conninfo, autocommit=True) as conn:
        conn.execute(DROP.encode())
        conn.execute("CHECKPOINT")


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def by_psql(target: Target, place: Path) -> Callable[[], object]:
    file = place / "plan.sql"
    file.write_text(PLAN)
    command = [embedded.binary("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", file]
    return lambda: subprocess.run([*command, "-d", target.conninfo], check=True)


def by_apply(target: Target, place: Path, **settings: object) -> Callable[[], object]:
    wanted, numbers = plan.parse(PLAN), itertools.count()
    chosen = Settings(analyze=False, **settings)

    def work() -> None:
        path = place / f"journal-{next(numbers)}-{chosen.jobs}"
        applied = apply.run(target, wanted, chosen, execute=True, journal=path)
        assert [item.outcome for item in applied.outcomes] == ["built"] * 8

    return work


def paired(
    target: Target, one: Callable[[], object], other: Callable[[], object], pairs: int
) -> tuple[list[float], list[float]]:
    """Time two ways alternately, after one run of each that does not count."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(pairs + 1):
        order = ((0, one), (1, other)) if number % 2 else ((1, other), (0, one))
        for side, work in order:
            fresh(target)
            seconds = timed(work)
            if number:
                times[side].append(seconds)
    return times


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    print()
    for row in (head, ("---",) * len(head), *rows):
        print(f"| {' | '.join(row)} |")


def seconds_of(times: list[float]) -> str:
    return ", ".join(f"{item:.2f}" for item in times)


def test_one_job_takes_no_longer_than_psql(demo: Target, tmp_path: Path) -> None:
    psql, ours = paired(demo, by_psql(demo, tmp_path), by_apply(demo, tmp_path), PAIRS)
    ratio = statistics.median(b / a for a, b in zip(psql, ours, strict=True))
    table(
        ("eight indexes, one job", "seconds, pair by pair", "median"),
        [
            ("psql", seconds_of(psql), f"{statistics.median(psql):.2f} s"),
            ("apply", seconds_of(ours), f"{statistics.median(ours):.2f} s"),
            ("apply / psql", "median of the pairs' ratios, limit 1.03", f"{ratio:.3f}"),
        ],
    )
    assert ratio <= 1.03


def test_two_jobs_are_a_quarter_faster(demo: Target, tmp_path: Path) -> None:
    one, two = paired(demo, by_apply(demo, tmp_path), by_apply(demo, tmp_path, jobs=2), PAIRS)
    ratio = statistics.median(a / b for a, b in zip(one, two, strict=True))
    table(
        ("eight indexes", "seconds, pair by pair", "median"),
        [
            ("--jobs 1", seconds_of(one), f"{statistics.median(one):.2f} s"),
            ("--jobs 2", seconds_of(two), f"{statistics.median(two):.2f} s"),
            ("times faster", "median of the pairs' ratios, at least 1.25", f"{ratio:.2f}"),
        ],
    )
    assert ratio >= 1.25


# Writers

KEYS = """
DROP TABLE IF EXISTS public.writer_keys;
CREATE TABLE public.writer_keys (n int PRIMARY KEY, booking uuid, payment uuid);
INSERT INTO public.writer_keys
SELECT row_number() OVER (), b.id, p.id
  FROM (SELECT id, row_number() OVER () AS n FROM core.bookings TABLESAMPLE SYSTEM (10)) AS b
  JOIN (SELECT id, row_number() OVER () AS n FROM core.payments TABLESAMPLE SYSTEM (10)) AS p
    ON p.n = b.n
 LIMIT 5000;
ANALYZE public.writer_keys;
"""
WRITES = r"""
\set n random(1, {count})
BEGIN;
UPDATE core.bookings SET status = status
 WHERE id = (SELECT k.booking FROM public.writer_keys AS k WHERE k.n = :n);
UPDATE core.payments SET status = status
 WHERE id = (SELECT k.payment FROM public.writer_keys AS k WHERE k.n = :n);
COMMIT;
"""
SAMPLE = """
SELECT a.pid,
       a.application_name,
       a.query_start::text,
       COALESCE(a.query, '') AS query,
       a.wait_event_type = 'Lock' AS waits,
       CASE WHEN a.wait_event_type = 'Lock' THEN pg_blocking_pids(a.pid) ELSE '{}' END AS blockers
  FROM pg_stat_activity AS a
 WHERE a.datname = current_database()
   AND a.pid <> pg_backend_pid()
 ORDER BY a.pid
"""


@dataclass
class Sampler:
    """Looks at locks and at the watching session, fifty times a second."""

    target: Target
    longest_wait: float = 0.0
    """Seconds that a writer has waited for a lock that a session of the kit held or queued for."""
    watched: set[tuple[int, str]] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Sampler:
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        since: dict[int, float] = {}
        with psycopg.connect(self.target.conninfo, autocommit=True) as conn:
            while not self._stop.wait(0.02):
                rows = conn.execute(SAMPLE).fetchall()
                ours = {row[0] for row in rows if row[1].startswith("indexlab")}
                now = time.monotonic()
                waiting = {
                    row[0] for row in rows if row[1] == "pgbench" and row[4] and ours & {*row[5]}
                }
                since = {pid: since.get(pid, now) for pid in waiting}
                longest = max((now - began for began in since.values()), default=0.0)
                self.longest_wait = max(self.longest_wait, longest)
                self.watched |= {
                    (row[0], row[2]) for row in rows if row[0] in ours and "AS queueing" in row[3]
                }


@contextlib.contextmanager
def writers(target: Target, place: Path) -> Iterator[Callable[[], list[tuple[float, float]]]]:
    """Write at a fixed rate; the yielded function waits for its end and returns moments, latencies."""
    with psycopg.connect(target.conninfo, autocommit=True) as conn:
        conn.execute(KEYS)
        row = conn.execute("SELECT count(*) FROM public.writer_keys").fetchone()
    script = place / "writes.sql"
    script.write_text(WRITES.format(count=row[0]))
    for old in place.glob("latency*"):
        old.unlink()
    command = [embedded.binary("pgbench"), "-n", "-f", script, "-c", "4", "-R", str(RATE)]
    process = subprocess.Popen(
        [
            *command,
            "-T",
            "600",
            "--log",
            f"--log-prefix={place / 'latency'}",
            target.conninfo,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )

    def ended() -> list[tuple[float, float]]:
        process.send_signal(signal.SIGALRM)  # as if its time were over: it writes its log
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0, said
        lines = [line.split() for file in place.glob("latency*") for line in file.open()]
        return [
            (int(line[4]) + int(line[5]) / 1e6, int(line[2]) / 1000)
            for line in lines
            if len(line) >= 6
        ]

    try:
        yield ended
    finally:
        process.kill()
        process.wait(30)


def p99(latencies: list[float]) -> float:
    return statistics.quantiles(latencies, n=100)[98]


def beside(
    target: Target, place: Path, work: Callable[[], object]
) -> tuple[list[tuple[float, float]], float]:
    """Return the writers' latencies in ms, by the seconds since a build began, and its length."""
    fresh(target)
    with writers(target, place) as ended:
        time.sleep(2)  # the load's own start is not part of the measurement
        began = time.time()
        work()
        over = time.time()
        found = ended()
    return [(at - began, ms) for at, ms in found if began <= at <= over], over - began


def test_writers_do_not_notice_who_builds(demo: Target, tmp_path: Path) -> None:
    sides: dict[str, list[float]] = defaultdict(list)
    drawn: dict[str, list[tuple[float, float]]] = {}
    pooled: dict[str, list[float]] = defaultdict(list)
    works = {"psql": by_psql(demo, tmp_path), "apply": by_apply(demo, tmp_path)}
    longest, watched, watching = 0.0, 0, 0.0
    for number in range(WRITER_PAIRS):
        for name in ("psql", "apply") if number % 2 else ("apply", "psql"):
            with Sampler(demo) as sampler:
                found, length = beside(demo, tmp_path, works[name])
            drawn[name] = found
            sides[name].append(p99([ms for _, ms in found]))
            pooled[name] += [ms for _, ms in found]
            if name == "apply":
                longest = max(longest, sampler.longest_wait)
                watched, watching = watched + len(sampler.watched), watching + length
    ratio = p99(pooled["apply"]) / p99(pooled["psql"])
    table(
        (f"writers at {RATE}/s beside", "p99, run by run", "p50 of all", "p99 of all"),
        [
            (
                name,
                ", ".join(units.ms(ms) for ms in sides[name]),
                units.ms(statistics.median(pooled[name])),
                units.ms(p99(pooled[name])),
            )
            for name in ("psql", "apply")
        ],
    )
    table(
        ("what", "measured", "limit"),
        [
            ("p99 beside apply / beside psql", f"{ratio:.2f}", "1.5"),
            ("longest wait of a writer on a lock of the kit", units.duration(longest), "100 ms"),
            ("watching queries per second", f"{watched / watching:.2f}", "1"),
        ],
    )
    place = os.environ.get("INDEXLAB_BENCH_CHART")
    if place:
        charts.writers(drawn["psql"], drawn["apply"]).save(Path(place))
    assert ratio <= 1.5
    assert longest <= 0.1
    assert watched <= watching
