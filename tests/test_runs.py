"""Run directories: whole files, private files, never one over another."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from indexlab import runs
from indexlab.errors import IncompleteError, InputError
from indexlab.runs import Run


def test_a_run_is_private_to_its_user(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "a" / "run", "audit")
    path = run.write("audit.sql", "SELECT 1")
    assert (run.path.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)


def test_a_second_stage_may_join_a_run_but_not_repeat_one(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", "audit")
    run.write_json("audit", {})
    Run.create(tmp_path / "run", "apply")
    with pytest.raises(InputError, match=r"audit\.json already.*another --out"):
        Run.create(tmp_path / "run", "audit")


def test_a_place_that_cannot_be_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write to .*another --out"):
        Run.create(tmp_path / "file" / "run", "audit")


def test_a_write_that_fails_leaves_nothing_half_done(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", "audit")
    run.write("audit.sql", "old")
    (run.path / "taken.sql").mkdir()
    with pytest.raises(IncompleteError, match=r"cannot write .*taken\.sql"):
        run.write("taken.sql", "new")
    assert sorted(path.name for path in run.path.iterdir()) == ["audit.sql", "taken.sql"]
    assert (run.path / "audit.sql").read_text() == "old"


def test_documents_carry_their_format(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", "audit")
    path = run.write_json("audit", {"name": "é"})
    assert json.loads(path.read_text()) == {"format": runs.FORMAT, "name": "é"}
    assert run.read_json("audit")["name"] == "é"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "format None"),
        ('{"format": 99}', "format 99; this version reads format 1"),
    ],
)
def test_a_document_of_another_kind_is_refused(tmp_path: Path, text: str, message: str) -> None:
    run = Run.create(tmp_path / "run", "benchmark")
    run.write("benchmark.json", text)
    with pytest.raises(InputError, match=rf"benchmark\.json: .*{message}"):
        run.read_json("benchmark")


def test_new_directories_do_not_collide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    now = datetime(2026, 6, 30, 10, 15, tzinfo=UTC)
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _number: runs.new_directory("audit", now), range(8)))
    stem = "reports/audit-20260630-101500"
    assert made == {Path(stem), *(Path(f"{stem}-{number}") for number in range(2, 9))}
    assert {path.stat().st_mode & 0o777 for path in made} == {0o700}


def test_a_place_for_new_directories_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("reports").write_text("")
    with pytest.raises(InputError, match="'reports' is not a directory"):
        runs.new_directory("audit", datetime(2026, 6, 30, 10, 15, tzinfo=UTC))


def test_files_within_directories_are_private_as_well(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", "audit")
    path = run.write_bytes("charts/a.png", b"\x89PNG")
    assert (path.parent.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)
    assert path.read_bytes() == b"\x89PNG"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_refused_before_anything_runs(tmp_path: Path, small_disk: Path) -> None:
    with pytest.raises(InputError, match="kB free, a run wants"):
        Run.create(small_disk / "run", "audit")
