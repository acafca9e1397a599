"""How long the index over five hundred runs takes; `make bench` prints it."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from indexlab import render, units
from indexlab.runs import Run, cards, shelf

RUNS, QUERIES, TARGETS, TURNS = 500, 14, 5, 3
LIMIT_S = 2.0
"""From the JSON of runs that have a card, as every run of the command leaves one."""
FIRST_LIMIT_S = 15.0
"""From results without cards, as an earlier version left them: 0.7 MB of samples each."""
SAMPLES = 1_000
"""Timings of each query in benchmark.json: those of a demo of ten seconds."""
MAX_PAGE = 3 * 1024 * 1024


def _target(number: int) -> dict[str, Any]:
    spec = f"service=shop-{number % TARGETS}"
    known = {"version_text": "18.1", "database": "shop", "host": "db", "port": 5432}
    return {"spec": spec, **known}


def _benchmark(number: int) -> dict[str, Any]:
    names = [f"query_{query}" for query in range(QUERIES)]
    samples = [{"ms": 1.5 + n / 977, "values": n % 50, "round": n // 50} for n in range(SAMPLES)]
    changes = [
        {"query": name, "before_ms": 40.0 + number % 7, "after_ms": 2.0, "verdict": "faster"}
        for name in names
    ]
    sums = {"before_ms": 690.0, "after_ms": 16.0, "ratio": 43.1, "queries": names}
    return {
        "target": _target(number),
        "started": f"2026-{1 + number // 28 % 12:02}-{1 + number % 28:02}T10:00:00+00:00",
        "queries": [{"query": name, "p50_ms": 2.0, "samples": samples} for name in names],
        "changes": changes,
        "headline": sums,
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five hundred runs, each as large as that of a demo, without cards."""
    path = tmp_path_factory.mktemp("speed") / "reports"
    path.mkdir()
    statement = {"index": "i", "qualified": "core.i", "line": 1, "verdict": "fix"}
    for number in range(RUNS):
        run = Run.create(path / f"run-{number:03}", "audit")
        run.write_json("audit", {"target": _target(number), "statements": [statement] * 10})
        (run.path / "benchmark.json").write_text(json.dumps({"format": 1, **_benchmark(number)}))
        (run.path / "index.html").write_text("<p>")
    return path


def _took(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def test_the_index_of_five_hundred_runs(place: Path) -> None:
    size = (place / "run-000" / "benchmark.json").stat().st_size
    first = _took(lambda: render.index(place))
    assert (place / "run-000" / f"{cards.CARD}.json").exists()
    again = statistics.median(_took(lambda: render.index(place)) for _ in range(TURNS))
    read = statistics.median(_took(lambda: shelf.read(place)) for _ in range(TURNS))
    page = (place / "index.html").stat().st_size
    print(
        f"\nindex of {RUNS} runs: {units.duration(again)} (limit {LIMIT_S:g} s), of it reading "
        f"{units.duration(read)}; without cards, from {units.size(size)} each: "
        f"{units.duration(first)} (limit {FIRST_LIMIT_S:g} s); page {units.size(page)}"
    )
    assert again < LIMIT_S
    assert first < FIRST_LIMIT_S
    assert page < MAX_PAGE
