"""How the audit grows: 500, 1,000 and 2,000 statements on as many tables, five indexes each.

The limits hold for 1,000 tables. Each measurement is a new process with new sessions; the medians
of several count. Then the same number of statements on one table.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

from indexlab import embedded, units

PROGRAM = Path(__file__).with_name("many_tables.py")
SIZES = (500, 1000, 2000)
"""Half, as it is, and double: the growth is measured over a factor of four."""
TIMES = 5
LIMITS = {"trips": 8.0, "read": 0.5, "audit": 1.5, "whole": 2.5, "bytes": 300e6}
"""Seconds and bytes."""
ONE_TABLE_SIZES = (250, 500, 1000)
ONE_TABLE_LIMIT = 1.5
GROWTH = 1.5
"""How much longer an item may take at four times the size."""

Measured = dict[int, dict[str, float]]


def program(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, PROGRAM, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


def medians(*arguments: str) -> dict[str, float]:
    found = [json.loads(program(*arguments)) for _ in range(TIMES)]
    return {name: median(item[name] for item in found) for name in found[0]}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    found: Measured = {}
    with embedded.server(tmp_path_factory.mktemp("scale")) as server:
        for tables in SIZES:
            name = f"tables_{tables}"
            server.create_database(name)
            program("fill", server.conninfo(name), str(tables))
            found[tables] = medians("measure", server.conninfo(name), str(tables))
            server.drop_database(name)
    print("\n| tables | indexes | statements | round trips | catalog | audit | whole | memory |")
    print("|---|---|---|---|---|---|---|---|")
    for tables, item in found.items():
        print(
            f"| {tables:,} | {item['indexes']:,.0f} | {tables:,} | {item['trips']:.0f} "
            f"| {units.duration(item['read'])} | {units.duration(item['audit'])} "
            f"| {units.duration(item['whole'])} | {units.size(int(item['bytes']))} |"
        )
    return found


@pytest.mark.parametrize("what", list(LIMITS))
def test_a_thousand_tables(measured: Measured, what: str) -> None:
    assert measured[1000][what] <= LIMITS[what]


@pytest.mark.parametrize("what", ["read", "audit"])
def test_growth_is_linear(measured: Measured, what: str) -> None:
    small, large = measured[SIZES[0]], measured[SIZES[-1]]
    ratio = (large[what] / large["items"]) / (small[what] / small["items"])
    print(f"\n{what}: {ratio:.2f}x the time per item at four times the size", end="")
    assert ratio <= GROWTH


@pytest.fixture(scope="module")
def on_one_table(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    with embedded.server(tmp_path_factory.mktemp("one")) as server:
        server.create_database("one")
        program("fill-one", server.conninfo("one"), "1")
        found = {
            statements: medians("measure-one", server.conninfo("one"), str(statements))["audit"]
            for statements in ONE_TABLE_SIZES
        }
    print("\n| statements on one table | audit |\n|---|---|")
    for statements, seconds in found.items():
        print(f"| {statements:,} | {units.duration(seconds)} |")
    return found


def test_a_thousand_statements_on_one_table(on_one_table: dict[int, float]) -> None:
    assert on_one_table[1000] <= ONE_TABLE_LIMIT


def test_growth_on_one_table_is_linear(on_one_table: dict[int, float]) -> None:
    small, large = ONE_TABLE_SIZES[0], ONE_TABLE_SIZES[-1]
    ratio = (on_one_table[large] / large) / (on_one_table[small] / small)
    print(f"\n{ratio:.2f}x the time per statement at four times the number", end="")
    assert ratio <= GROWTH
