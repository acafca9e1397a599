"""How a batch grows: 100 and 1,000 databases on one embedded server, by two workers.

The databases are copies of a small template: three tables, a plan of four statements with its
faults, three queries. Memory is what the command, its workers and their tasks hold in proportion
(PSS), without the database servers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import yaml

from indexlab import embedded, units

SIZES = (100, 1000)
REPORTS = 24
WORKERS = 2
RATE, RATE_WITH_REPORTS = 5.0, 0.4
"""Targets per second."""
MEMORY = 1e9
GROWTH = 1.25
"""How much longer a target may take in a batch of ten times as many."""
FAILING = 0.3

SCHEMA = """
CREATE SCHEMA core;
CREATE TABLE core.customers (id int PRIMARY KEY, name text, email text);
CREATE TABLE core.bookings
    (id int PRIMARY KEY, customer_id int REFERENCES core.customers, date date, status text);
CREATE TABLE core.payments
    (id int PRIMARY KEY, booking_id int REFERENCES core.bookings, method text, amount numeric);
INSERT INTO core.customers SELECT n, 'name ' || n, 'm' || n FROM generate_series(1, 100) AS n;
INSERT INTO core.bookings
SELECT n, 1 + n % 100, date '2026-01-01' + n % 90, (ARRAY['open', 'done', 'done'])[1 + n % 3]
  FROM generate_series(1, 2000) AS n;
INSERT INTO core.payments
SELECT n, n, (ARRAY['card', 'cash'])[1 + n % 2], n FROM generate_series(1, 2000) AS n;
CREATE INDEX bookings_customer_id ON core.bookings (customer_id);
ANALYZE;
"""
PLAN = """
-- the history of a customer
CREATE INDEX idx_customer_date ON bookings (customer_id, event_date);
CREATE INDEX idx_status ON bookings (status);
CREATE INDEX idx_customer ON bookings (customer_id);
CREATE INDEX idx_method ON payments (lower(method));
"""
WORKLOAD = """
-- name: history
-- weight: 30
-- param customer_id: SELECT id FROM core.customers ORDER BY id LIMIT 20
SELECT * FROM core.bookings WHERE customer_id = :customer_id ORDER BY date DESC LIMIT 20;

-- name: open_ones
SELECT count(*) FROM core.bookings WHERE status = 'open';

-- name: methods
SELECT count(*) FROM core.payments WHERE lower(method) = 'card';
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """One batch."""

    targets: int
    seconds: float
    """From reading the file to the last result, with the start of the workers."""
    bytes: int
    code: int
    document: dict[str, object]

    @property
    def rate(self) -> float:
        return self.targets / self.seconds


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory, and a server with all databases."""
    where = tmp_path_factory.mktemp("batch")
    (where / "plan.sql").write_text(PLAN)
    (where / "workload.sql").write_text(WORKLOAD)
    with embedded.server(where / "target") as server:
        server.create_database("shop")
        with psycopg.connect(server.conninfo("shop"), autocommit=True) as conn:
            conn.execute(SCHEMA)
        entries = []
        for number in range(max(SIZES)):
            server.create_database(f"shop_{number}", template="shop")
            address = server.conninfo(f"shop_{number}")
            entries.append({"name": f"shop-{number:04}", "target": address})
        (where / "entries.json").write_text(json.dumps(entries))
        yield where


def batch(place: Path, name: str, entries: list[dict[str, object]], *arguments: str) -> Measured:
    said = {"plan": "plan.sql", "workload": "workload.sql"}
    (place / f"{name}.yaml").write_text(yaml.safe_dump({"defaults": said, "targets": entries}))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "indexlab", "batch", f"{name}.yaml", "--stage", "audit"),
            *("--jobs", str(WORKERS), "--out", name, "--format", "json", *arguments),
        ],
        cwd=place,
        env=os.environ | {"INDEXLAB_HOME": str(place / "home")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    most, ended = [0], threading.Event()

    def weigh() -> None:
        while not ended.wait(1):
            most[0] = max(most[0], held(process.pid))

    watcher = threading.Thread(target=weigh)
    watcher.start()
    output, _ = process.communicate()
    ended.set()
    watcher.join()
    document = json.loads(output)
    return Measured(len(entries), document["seconds"], most[0], process.returncode, document)


def held(root: int) -> int:
    """Return the bytes that a process and its descendants hold, without database servers."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            parents[int(entry.name)] = int(fields[1])
        except OSError:
            continue
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    total = 0
    for pid in found:
        try:
            if b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]:
                continue
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


def entries_of(place: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((place / "entries.json").read_text())
    return found


@pytest.fixture(scope="module")
def measured(place: Path) -> dict[int, Measured]:
    found = {
        size: batch(place, f"audit-{size}", entries_of(place)[:size], "--no-report")
        for size in SIZES
    }
    print("\n| targets | workers | seconds | per second | memory |\n|---|---|---|---|---|")
    for size, item in found.items():
        print(
            f"| {size:,} | {WORKERS} | {item.seconds:.1f} | {item.rate:.2f} "
            f"| {units.size(item.bytes)} |"
        )
    return found


def test_a_thousand_audits(measured: dict[int, Measured]) -> None:
    whole = measured[max(SIZES)]
    assert whole.document["counts"] == {"ok": 0, "findings": 1000, "failed": 0, "not_run": 0}
    assert whole.rate >= RATE, f"{whole.rate:.2f} a second"


def test_growth_is_linear(measured: dict[int, Measured]) -> None:
    small, large = (measured[size] for size in SIZES)
    ratio = small.rate / large.rate
    print(f"\n{ratio:.2f}x the time for a target at ten times as many", end="")
    assert ratio <= GROWTH


def test_scheduler_and_workers_stay_small(measured: dict[int, Measured]) -> None:
    assert max(item.bytes for item in measured.values()) <= MEMORY


def test_reports(place: Path) -> None:
    found = batch(place, "reports", entries_of(place)[:REPORTS])
    print(f"\nwith reports: {found.targets} in {found.seconds:.1f} s, {found.rate:.2f} a second")
    assert found.document["counts"]["findings"] == REPORTS  # type: ignore[index]
    assert found.rate >= RATE_WITH_REPORTS


def test_a_thousand_targets_of_which_three_in_ten_fail(place: Path) -> None:
    entries = entries_of(place)
    for number, entry in enumerate(entries):
        entry["parameters"] = {"what_if": "off"}
        if number % 10 < FAILING * 10:
            entry["target"] = "service=there_is_no_such_service"
    found = batch(place, "failing", entries, "--no-report")
    print(f"\n30 % failing: {found.seconds:.1f} s, {found.rate:.2f} a second", end="")
    assert found.code == 4
    assert found.document["counts"] == {"ok": 0, "findings": 700, "failed": 300, "not_run": 0}
    lines = found.document["targets"]
    assert isinstance(lines, list)
    assert [line["name"] for line in lines] == [entry["name"] for entry in entries]
    for number, line in enumerate(lines):
        failed = number % 10 < FAILING * 10
        assert (line["status"] == "failed") == failed
        assert bool(line["statements"]) != failed
        assert ("there_is_no_such_service" in line["reason"]) == failed
