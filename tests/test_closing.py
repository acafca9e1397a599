"""What a run leaves besides its stages: summary, charts, card and its place in the index."""

from __future__ import annotations

import importlib.util
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from indexlab import closing
from indexlab.errors import InputError
from indexlab.runs import Run

ROOT = Path(__file__).parents[1]
DEMO = ("--target", "demo:2000")
FOUND = {"audit": 1}
"""The audit of the demo's plan finds errors, and says so."""
CHARTS = {"before_after", "distributions", "drift", "gains", "latencies", "ratios"}

Command = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def start(place: Path) -> Command:
    """Start the command in a directory of the module's own."""

    def run(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "indexlab", *arguments],
            cwd=place,
            env=os.environ.copy(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


@pytest.fixture(scope="module")
def told(start: Command) -> str:
    """What a whole run on the demo has printed as JSON."""
    run = start("demo", "--rows", "2000", "--budget", "0.5", "--format", "json")
    out, errors = run.communicate(timeout=240)
    assert run.returncode == 0, errors
    return out


@pytest.fixture
def run(told: str, place: Path) -> Run:
    (path,) = (place / "reports").glob("demo-*")
    return Run(path)


def test_json_is_all_that_is_printed(told: str, run: Run) -> None:
    assert json.loads(told) == run.read_json("run")
    assert told.endswith("}\n")


@pytest.mark.parametrize("stage", ["audit", "benchmark", "apply", "run"])
def test_each_stage_prints_its_document(start: Command, place: Path, stage: str) -> None:
    options = ("--budget", "0.5") if stage in ("benchmark", "run") else ()
    out = f"json-{stage}"
    done = start(stage, *DEMO, "--no-report", "--format", "json", "--out", out, *options)
    printed, errors = done.communicate(timeout=240)
    assert done.returncode == FOUND.get(stage, 0), errors
    assert json.loads(printed) == Run(place / out).read_json(stage)


def test_a_run_keeps_its_charts_as_pictures_and_vectors(run: Run) -> None:
    charts = {path.name for path in (run.path / "charts").iterdir()}
    assert {f"{name}{kind}" for name in CHARTS for kind in (".png", ".svg")} <= charts
    for path in (run.path / "charts").iterdir():
        data = path.read_bytes()
        if path.suffix == ".png":
            assert data.startswith(b"\x89PNG")
        else:
            assert b"<svg" in data
            assert b"<dc:date>" not in data


def test_a_run_keeps_a_summary_with_its_picture(run: Run) -> None:
    text = (run.path / "summary.md").read_text()
    assert text.startswith("### ")
    assert "](summary.png)" in text
    picture = (run.path / "summary.png").read_bytes()
    assert picture == (run.path / "charts" / "before_after.png").read_bytes()
    assert "| **fix** | <code>idx&#95;bookings&#95;date</code> |" in text


def test_everything_is_private_to_the_user(run: Run) -> None:
    for path in (run.path, *run.path.rglob("*")):
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path
    assert not list(run.path.rglob(".*"))


def test_a_run_is_in_the_index_when_it_ends(run: Run) -> None:
    page = (run.path.parent / "index.html").read_text()
    assert f'href="./{run.path.name}/index.html"' in page
    assert "demo:2000" in page


def test_of_two_runs_at_once_one_is_refused_and_none_is_spoilt(start: Command, place: Path) -> None:
    both = [start("audit", *DEMO, "--no-report", "--out", "same") for _ in range(2)]
    ended = [(one.communicate(timeout=240), one.returncode) for one in both]
    assert sorted(code for _, code in ended) == [FOUND["audit"], 2]
    (refused,) = [said[1] for said, code in ended if code == 2]
    assert "works in 'same'" in refused or "holds audit.json already" in refused
    assert len(Run(place / "same").read_json("audit")["statements"]) == 10


def test_two_runs_at_once_without_a_name_get_one_each(start: Command, place: Path) -> None:
    before = set((place / "reports").glob("audit-*"))
    both = [start("audit", *DEMO, "--no-report") for _ in range(2)]
    for one in both:
        _, errors = one.communicate(timeout=240)
        assert one.returncode == FOUND["audit"], errors
    made = set((place / "reports").glob("audit-*")) - before
    assert len(made) == 2
    page = (place / "reports" / "index.html").read_text()
    assert all(path.name in page for path in made)


def test_what_was_asked_wrongly_leaves_no_directory(start: Command, place: Path) -> None:
    before = set((place / "reports").iterdir())
    done = start("audit", "--target", "service=x", "--plan", "none.sql")
    done.communicate(timeout=60)
    assert done.returncode == 2
    assert set((place / "reports").iterdir()) == before


# In process


def test_an_index_beside_foreign_pages_is_told_and_harms_nothing(tmp_path: Path) -> None:
    shelf = tmp_path / "reports"
    shelf.mkdir()
    (shelf / "index.html").write_text("mine")
    heard: list[str] = []
    with closing.closed(shelf / "run", lambda text, _part: heard.append(text)) as run:
        run.write_json("scale", {"growths": []})
    assert "the run is not in the index" in heard[0]
    assert (shelf / "index.html").read_text() == "mine"


def test_only_a_place_for_runs_gets_an_index(tmp_path: Path) -> None:
    with closing.closed(tmp_path / "run", lambda _text, _part: None) as run:
        run.write_json("scale", {"growths": []})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_directory_in_which_nothing_came_to_be_goes(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="wrong"),
        closing.closed(tmp_path / "run", lambda _text, _part: None),
    ):
        raise InputError("wrong")
    assert list(tmp_path.iterdir()) == []


# The sample


@pytest.fixture
def sample() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sample", ROOT / ".ci" / "sample.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_sample_holds_what_its_page_links_to(
    sample: ModuleType, run: Run, tmp_path: Path
) -> None:
    place = tmp_path / "sample"
    place.mkdir()
    (place / "old.html").write_text("")
    sample.copy(run.path, place)
    kept = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    assert kept >= {"index.html", "before_after.png", "summary.md", ".sample", "migration.sql"}
    assert "old.html" not in kept
    assert not {name for name in kept if name.endswith(".ipynb")}
    assert sample.linked(place) <= kept


def test_a_sample_that_is_too_large_replaces_nothing(
    sample: ModuleType, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "MOST_BYTES", 1000)
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample" / "old.html").write_text("")
    with pytest.raises(SystemExit, match="no sample: "):
        sample.copy(run.path, tmp_path / "sample")
    assert (tmp_path / "sample" / "old.html").exists()


def test_the_sample_in_the_repository_is_whole(sample: ModuleType) -> None:
    place = ROOT / "reports" / "sample"
    files = [path for path in place.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= sample.MOST_BYTES
    assert (place / "before_after.png") in files
    for page in place.rglob("*.html"):
        links = sample.Links()
        links.feed(page.read_text(encoding="utf-8"))
        assert {link for link in links.found if not (page.parent / link).exists()} == set()
