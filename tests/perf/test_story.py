"""How long a user waits: the command's answer, the first demo, the second one.

Each figure is printed with its limit and their ratio; `make bench` runs it on a machine that does
nothing else.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from indexlab import units

ROWS = "1000000"


def _say(what: str, seconds: float, limit: float) -> None:
    ratio = seconds / limit
    print(f"\n{what}: {units.duration(seconds)}, {ratio:.0%} of {units.duration(limit)}", end="")
    assert ratio <= 1, f"{what} took {units.duration(seconds)}"


def _timed(arguments: Sequence[str], where: Path, home: Path) -> tuple[float, str]:
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "indexlab", *arguments],
        cwd=where,
        env=os.environ | {"INDEXLAB_HOME": str(home), "INDEXLAB_DEMO_ROWS": ROWS},
        capture_output=True,
        text=True,
        check=True,
    )
    return time.perf_counter() - began, done.stdout


def test_help_answers_at_once(tmp_path: Path) -> None:
    times = [_timed(["--help"], tmp_path, tmp_path)[0] for _ in range(11)]
    _say("indexlab --help, median of 11", statistics.median(times), 0.3)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("story")


def test_the_first_demo(place: Path) -> None:
    began = time.perf_counter()
    program = (
        "from indexlab.demo import database\n"
        "with database.opened('demo', progress=lambda *_: None): pass"
    )
    environment = os.environ | {"INDEXLAB_HOME": str(place / "home"), "INDEXLAB_DEMO_ROWS": ROWS}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    loading = time.perf_counter() - began
    _say("making the cluster, loading 1,000,000 bookings, copying the template", loading, 20)
    seconds, _ = _timed(["demo", "--out", "first"], place, place / "home")
    _say("the first demo, with loading", loading + seconds, 90)


def test_the_second_demo_reuses_the_data(place: Path) -> None:
    seconds, said = _timed(["demo", "--out", "second"], place, place / "home")
    _say("the second demo", seconds, 60)
    print("\n" + "\n".join(line for line in said.splitlines() if "->" in line), end="")


def test_the_headline_at_a_million_bookings(place: Path) -> None:
    for name in ("first", "second"):
        document = json.loads((place / name / "benchmark.json").read_text())
        headline = document["headline"]
        moved = {
            change["query"]: f"{change['ratio']:.2f} {change['verdict']}"
            for change in document["changes"]
            if change["query"] in document["controls"]
        }
        weightless = statistics.geometric_mean(
            change["before_ms"] / change["after_ms"]
            for change in document["changes"]
            if change["query"] in headline["queries"]
        )
        print(
            f"\n{name}: {headline['before_ms']:.0f} ms -> {headline['after_ms']:.1f} ms, "
            f"{headline['ratio']:.0f}x; geometric mean of the same queries, without weights: "
            f"{weightless:.0f}x; controls after / before: {moved}",
            end="",
        )
        assert headline["ratio"] >= 43
