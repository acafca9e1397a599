"""How soon the kit answers: its import, --help, and what a notebook adds to a stage.

Limits are of issue 7; beside each stands the bare interpreter's start, as a machine under load is
slow at that, too. A stage's overhead is its wall time in notebooks, with pages, beyond that of the
same stage in process; and beyond that of its cells, what papermill, the kernel and the export take.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from indexlab import render
from indexlab.render import notebooks
from indexlab.runs import Run

RUNS = 15
IMPORT_LIMIT, HELP_LIMIT = 0.25, 0.2
"""Seconds."""
IMPORT_RATIO, HELP_RATIO = 4.0, 10.0
"""Times the start of a bare interpreter."""
OVERHEAD_LIMIT = 3.0
"""Seconds that a notebook may add to its stage."""
DEMO = "demo:2000"
STAGES = {
    "audit": ["audit"],
    "apply": ["apply"],
    "benchmark": ["benchmark", "--budget", "1"],
}


def _seconds(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - began


def _start(*arguments: str) -> tuple[float, float]:
    """Return the medians of a start and of the bare interpreter's, measured in turns."""
    _seconds(*arguments)  # its bytecode is compiled once, at installation
    pairs = [(_seconds(*arguments), _seconds("-c", "pass")) for _ in range(RUNS)]
    ours, bare = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(f"{' '.join(arguments)}: {1000 * ours:.0f} ms, {ours / bare:.1f} times a bare start")
    return ours, bare


def test_import_is_quick() -> None:
    ours, bare = _start("-c", "import indexlab")
    assert ours < IMPORT_LIMIT
    assert ours / bare < IMPORT_RATIO


def test_help_is_quick() -> None:
    ours, bare = _start("-m", "indexlab", "--help")
    assert ours < HELP_LIMIT
    assert ours / bare < HELP_RATIO


def _command(place: Path, *arguments: str) -> float:
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "indexlab", *arguments, "--target", DEMO, "--what-if", "off"]
        if arguments[0] != "benchmark"
        else [sys.executable, "-m", "indexlab", *arguments, "--target", DEMO],
        cwd=place,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return time.perf_counter() - began


@pytest.mark.parametrize("stage", STAGES)
def test_a_notebook_adds_little_to_its_stage(stage: str, tmp_path: Path) -> None:
    _command(tmp_path, *STAGES[stage], "--no-report", "--out", "warm")
    in_process, in_notebook = [], []
    for number in range(3):
        in_process.append(_command(tmp_path, *STAGES[stage], "--no-report", "--out", f"p{number}"))
        in_notebook.append(_command(tmp_path, *STAGES[stage], "--out", f"n{number}"))
    document = json.loads((tmp_path / "n2" / f"{stage}.ipynb").read_text())
    cells = sum(
        cell["metadata"]["papermill"]["duration"]
        for cell in document["cells"]
        if "papermill" in cell["metadata"]
    )
    around = in_notebook[-1] - cells
    added = statistics.median(in_notebook) - statistics.median(in_process)
    print(
        f"{stage}: {statistics.median(in_process):.2f} s in process, "
        f"{statistics.median(in_notebook):.2f} s with notebook and page: {added:.2f} s more; "
        f"{around:.2f} s around its cells"
    )
    assert added < OVERHEAD_LIMIT
    assert around < OVERHEAD_LIMIT


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_starts_one_kernel(stage: str, tmp_path: Path) -> None:
    seen: set[int] = set()

    def look(_text: str, _part: float | None) -> None:
        seen.update(manager.provisioner.pid for manager in notebooks._KERNELS)

    given = {"budget": 1.0} if stage == "benchmark" else {"what_if": "off"}
    run = Run.create(tmp_path / "run", stage)
    render.execute(
        stage,
        {"target": DEMO, "out": str(run.path), **given},
        run,
        environment={},
        secrets=(),
        tell=look,
    )
    assert len(seen) == 1
