"""The property of tests/test_audit_properties.py on 5,000 statements, each on both servers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

STATEMENTS = os.environ.get("INDEXLAB_PROPERTY_STATEMENTS", "5000")
PROPERTY = Path(__file__).parents[1] / "test_audit_properties.py"


def test_thousands_of_statements_without_a_counterexample() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-s", PROPERTY],
        env=os.environ | {"INDEXLAB_PROPERTY_STATEMENTS": STATEMENTS},
        capture_output=True,
        text=True,
        check=False,
    )
    print("\n".join(line for line in done.stdout.splitlines() if "statements" in line), end="")
    assert done.returncode == 0, done.stdout
