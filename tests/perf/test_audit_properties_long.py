"""The property of tests/test_audit_properties.py on 5,000 different statements, on each server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

STATEMENTS = os.environ.get("INDEXLAB_PROPERTY_STATEMENTS") or "5000"
PROPERTY = Path(__file__).parents[1] / "test_audit_properties.py"
SERVERS = ("embedded", "15")


def test_thousands_of_statements_without_a_counterexample() -> None:
    """Both servers are asked at a time, and get the same statements."""
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-s", "-n", "0", PROPERTY, "-k", server],
            env=os.environ
            | {"INDEXLAB_PROPERTY_STATEMENTS": STATEMENTS, "INDEXLAB_REQUIRE_PG15": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for server in SERVERS
    ]
    said = [process.communicate()[0] for process in running]
    lines = [line for text in said for line in text.splitlines() if "different" in line]
    print("", *lines, sep="\n", end="")
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    numbers = [int(found[1]) for line in lines if (found := re.search(r": (\d+) different", line))]
    assert len(numbers) == len(SERVERS)
    assert min(numbers) >= int(STATEMENTS)
