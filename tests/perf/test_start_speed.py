"""How soon the kit answers: its import, --help, and what a notebook adds to a stage.

Limits are of issue 7; beside each stands the bare interpreter's start, as a machine under load is
slow at that, too. A stage's overhead is its wall time, from the command's start to its end, beyond
that of its cells: what the imports, papermill, the kernel's start and end, and the page take.
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
    cells = statistics.median(_in_cells(tmp_path / f"n{number}", stage) for number in range(3))
    whole, alone = statistics.median(in_notebook), statistics.median(in_process)
    print(
        f"{stage}: {alone:.2f} s in process, {whole:.2f} s with notebook and page, "
        f"{whole - cells:.2f} s of them around its cells"
    )
    assert whole - cells < OVERHEAD_LIMIT


def _in_cells(place: Path, stage: str) -> float:
    """Seconds that the stage itself took, in its kernel."""
    document = json.loads((place / f"{stage}.ipynb").read_text())
    noted = (cell["metadata"].get("papermill", {}) for cell in document["cells"])
    return sum(note.get("duration") or 0.0 for note in noted)


def test_a_later_stage_of_a_run_pays_for_its_kernel_alone(tmp_path: Path) -> None:
    around = []
    for number in range(3):
        run = Run.create(tmp_path / str(number), "apply")
        given = {"target": DEMO, "out": str(run.path), "what_if": "off"}
        began = time.perf_counter()
        render.execute(
            "apply", given, run, environment={}, secrets=(), tell=lambda _text, _part: None
        )
        around.append(time.perf_counter() - began - _in_cells(run.path, "apply"))
    print("around the cells of one stage after another: " + ", ".join(f"{s:.2f} s" for s in around))
    assert max(around) < OVERHEAD_LIMIT


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
