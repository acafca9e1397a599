"""How the audit grows: 500, 1,000 and 2,000 statements on as many tables, five indexes each.

The limits hold for 1,000 tables; each size is measured in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from indexlab import embedded, units

PROGRAM = Path(__file__).with_name("many_tables.py")
SIZES = (500, 1000, 2000)
"""Half, as it is, and double: the growth is measured over a factor of four."""
LIMITS = {"trips": 8.0, "read": 0.5, "audit": 1.5, "bytes": 300e6}
GROWTH = 1.5
"""How much longer an item may take at four times the size."""

Measured = dict[int, dict[str, float]]


def program(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, PROGRAM, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    found: Measured = {}
    with embedded.server(tmp_path_factory.mktemp("scale")) as server:
        for tables in SIZES:
            name = f"tables_{tables}"
            server.create_database(name)
            program("fill", server.conninfo(name), str(tables))
            found[tables] = json.loads(program("measure", server.conninfo(name), str(tables)))
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
