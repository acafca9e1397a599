"""Nine plausible indexes on TPC-H: which queries became slower, and why, by the command itself.

The report stays in the user's cache beside the data, for people to look at.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import tpch

from indexlab.runs import Run, documents

MAX_SLOWDOWN = 1.2
LIMIT_S = 360.0


def test_regressions_of_tpch_are_found_explained_and_fail_the_run(tmp_path: Path) -> None:
    statements = {name: text.strip().rstrip(";") for name, text in tpch.QUERIES.items()}
    (tmp_path / "plan.sql").write_text(";\n".join(tpch.INDEXES.values()) + ";\n")
    (tmp_path / "workload.sql").write_text(
        "\n".join(f"-- name: {name}\n{body};\n" for name, body in statements.items())
    )
    with tpch.embedded_18("1") as server:
        kept = tpch.cache("tpch-1") / "report"
        shutil.rmtree(kept, ignore_errors=True)
        command = [
            *(sys.executable, "-m", "indexlab", "benchmark", "--disposable"),
            *("--target", server.conninfo(tpch.INDEXED), "--out", str(kept)),
            *("--plan", str(tmp_path / "plan.sql"), "--workload", str(tmp_path / "workload.sql")),
            *("--budget", "50", "--statement-timeout", "10", "--max-slowdown", str(MAX_SLOWDOWN)),
        ]
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - began
    assert done.returncode in (0, 1), done.stderr
    comparison = documents.comparison(Run(kept))
    after, before = (documents.measurement(Run(path)) for path in (kept, kept / "before"))
    assert comparison is not None
    taken = {
        one.query: min(len({s.round for s in one.samples}), len({s.round for s in other.samples}))
        for one, other in zip(after.series, before.series, strict=True)
    }
    print("\n\n| query | without | with | ratio | interval | rounds | verdict | plan |")
    print("|---|---|---|---|---|---|---|---|")
    for change in comparison.changes:
        print(
            f"| {change.query} | {change.before_words} | {change.after_words} | "
            f"{change.ratio:.2f} | {change.ratio_low:.2f} to {change.ratio_high:.2f} | "
            f"{taken[change.query]} | {change.verdict} | {change.difference} |"
        )
    slower = comparison.regressions(MAX_SLOWDOWN)
    print(
        f"\nall queries: {comparison.reads}; at least "
        f"{min(taken[c.query] for c in comparison.changes if not c.bound)} rounds of each query; "
        f"{seconds:.0f} s in all (limit {LIMIT_S:.0f} s); {comparison.drift}\n"
        f"beyond --max-slowdown {MAX_SLOWDOWN}: "
        f"{', '.join(change.query for change in slower) or 'none'}; exit code {done.returncode}; "
        f"page: {kept / 'benchmark.html'}"
    )
    assert len(comparison.changes) == len(statements)
    assert done.returncode == (1 if slower else 0)
    page = (kept / "benchmark.html").read_text()
    for change in slower:
        print(f"{change.query} is slower: {change.reason}")
        assert (
            f"{change.query} is slower than --max-slowdown {MAX_SLOWDOWN:g} allows" in done.stderr
        )
        assert change.difference != "same plan", change.query
        assert change.reason
        assert change.query in page
    assert json.loads((kept / "benchmark.json").read_text())["mode"] == "interleaved"
    assert seconds <= LIMIT_S
