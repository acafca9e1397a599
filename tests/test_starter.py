"""The folder that one begins with: it works as it stands, and nothing is overwritten."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from indexlab import lab, plan, workload
from indexlab.errors import InputError
from indexlab.target import Target

FILES = (
    *("plan.sql", "workload.sql", "README.md", ".github/workflows/indexlab.yml"),
    *(".gitlab-ci.yml", ".gitignore"),
)
SHOP = """
CREATE TABLE customers (id int PRIMARY KEY);
CREATE TABLE "Ord""ers é" (
    id int PRIMARY KEY,
    "Customer; Id" int REFERENCES customers,
    clerk int REFERENCES customers
);
CREATE TABLE "line\nbreak" (id int PRIMARY KEY, "to\n-- name: x" int REFERENCES customers);
CREATE TABLE empty (id int REFERENCES customers);
CREATE INDEX ON "Ord""ers é" (clerk);
INSERT INTO customers SELECT generate_series(1, 50);
INSERT INTO "Ord""ers é" SELECT n, n % 50 + 1, n % 7 + 1 FROM generate_series(1, 3000) AS n;
INSERT INTO "line\nbreak" SELECT n, n % 50 + 1 FROM generate_series(1, 10) AS n;
ANALYZE;
"""
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def indexlab(tmp_path: Path) -> Command:
    def run(*arguments: str, at: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "indexlab", *arguments],
            cwd=at,
            env=dict(os.environ),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run


def _begin(folder: Path, target: str = "") -> Any:
    return lab.begin(folder, target, version="1.2.3")


def test_all_files_are_there_and_the_kit_reads_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "shop"
    files, _ = _begin(folder)
    assert [path.relative_to(folder).as_posix() for path in files] == list(FILES)
    assert plan.read(folder / "plan.sql").statements == ()
    assert workload.read(folder / "workload.sql").queries == ()


def test_the_examples_are_right_once_their_marks_are_taken_away(tmp_path: Path) -> None:
    _begin(tmp_path)
    for name, mark, read in (
        ("plan.sql", plan.UNBEGUN, plan.parse),
        ("workload.sql", workload.UNBEGUN, workload.parse),
    ):
        text = (tmp_path / name).read_text()
        head, example = text.split("-- An example;")
        lines = example.split(mark)[0].splitlines()[2:]
        shown = [line.removeprefix("--").removeprefix(" ") for line in lines]
        found = read(head + "\n".join(line for line in shown if "The next line" not in line))
        assert len(getattr(found, "creates", None) or found.queries) == 1


def test_nothing_is_overwritten_and_nothing_is_left_by_halves(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("ours")
    with pytest.raises(InputError, match=r"holds README\.md already, and init never overwrites"):
        _begin(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "ours"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        _begin(tmp_path / "file" / "shop")


def test_the_workflows_audit_every_pull_request_and_keep_the_report(tmp_path: Path) -> None:
    _begin(tmp_path)
    github = yaml.safe_load((tmp_path / FILES[3]).read_text())
    assert github[True] == {"pull_request": None}  # YAML 1.1 reads `on` as true
    assert github["permissions"] == {"contents": "read"}
    (job,) = github["jobs"].values()
    runs = [step["run"] for step in job["steps"] if "run" in step]
    assert "indexlab==1.2.3" in runs[0]
    words = shlex.split(runs[1].replace("\\\n", " "))
    assert words[:2] == ["indexlab", "audit"]
    (upload,) = [step for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
    assert upload["if"] == "always()"
    assert upload["with"]["path"] == words[words.index("--out") + 1]
    assert all(value.startswith("${{ secrets.") for value in job["env"].values())
    gitlab = yaml.safe_load((tmp_path / ".gitlab-ci.yml").read_text())["indexlab"]
    assert gitlab["artifacts"]["when"] == "always"
    assert gitlab["artifacts"]["paths"] == ["reports/audit/"]
    assert "merge_request_event" in gitlab["rules"][0]["if"]


def test_within_a_repository_the_paths_are_from_its_root(tmp_path: Path, indexlab: Command) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    folder = tmp_path / "db's" / "my indexes"
    _begin(folder)
    for name in (FILES[3], ".gitlab-ci.yml"):
        loaded = yaml.safe_load((folder / name).read_text())
        steps = (
            [step.get("run", "") for step in loaded["jobs"]["audit"]["steps"]]
            if ("jobs" in loaded)
            else loaded["indexlab"]["script"]
        )
        (script,) = [step for step in steps if "indexlab audit" in step]
        words = shlex.split(script.replace("\\\n", " "))
        for option in ("--plan", "--workload"):
            assert (tmp_path / words[words.index(option) + 1]).is_file()
    assert "not the root of its repository" in (folder / "README.md").read_text()
    _begin(tmp_path)
    assert "not the root" not in (tmp_path / "README.md").read_text()


def test_foreign_keys_are_drafted_where_nobody_counts(
    session: psycopg.Connection, database: Target, tmp_path: Path
) -> None:
    session.execute(SHOP)
    _, draft = _begin(tmp_path, database.conninfo)
    assert "pg_stat_statements is not installed" in draft.notes[0]
    planned = plan.read(tmp_path / "plan.sql")
    assert [item.index.columns for item in planned.creates] == [
        *(("Customer; Id",), ("to\n-- name: x",), ("id",)),
    ]
    assert all("no index serves the foreign key" in item.reason for item in planned.creates)
    drafted = workload.read(tmp_path / "workload.sql")
    assert [query.name for query in drafted.queries] == [
        'Ord"ers é_by_Customer; Id',
        'Ord"ers é_by_clerk',
    ]
    sampled = workload.sample(session, drafted)
    assert all(len(one.values) > 1 for one in sampled)


def test_what_was_counted_is_drafted(
    session: psycopg.Connection, database: Target, tmp_path: Path
) -> None:
    session.execute(SHOP)
    session.execute("CREATE EXTENSION pg_stat_statements")
    session.execute("SELECT pg_stat_statements_reset()")
    for _ in range(3):
        session.execute("SELECT count(*) FROM customers WHERE id > 7")
    _begin(tmp_path, database.conninfo)
    (query,) = workload.read(tmp_path / "workload.sql").queries
    assert (query.name, query.weight, query.generic) == ("select_customers", 3.0, True)


@pytest.mark.pg15
def test_no_password_is_written(pg15_server, tmp_path: Path) -> None:
    _begin(tmp_path, pg15_server.uri(pg15_server.password))
    text = "".join((tmp_path / name).read_text() for name in FILES)
    assert pg15_server.password not in text
    assert "127.0.0.1" in text


def test_the_audit_runs_on_what_was_written(indexlab: Command, tmp_path: Path) -> None:
    begun = indexlab("init", "shop", "--target", "demo:2000")
    assert begun.returncode == 0, begun.stderr
    assert "wrote shop/plan.sql" in begun.stdout
    folder = tmp_path / "shop"
    command = next(
        line.removeprefix("$ ")
        for line in (folder / "README.md").read_text().splitlines()
        if line.startswith("$ indexlab audit")
    )
    audited = indexlab(*shlex.split(command)[1:], "--format", "json", "--no-report", at=folder)
    assert audited.returncode == 0, audited.stderr
    found = json.loads(audited.stdout)
    assert len(found["impact"]) == len(workload.read(folder / "workload.sql").queries) > 0
    again = indexlab("init", "shop")
    assert again.returncode == 2
    assert "never overwrites a file" in again.stderr


def test_the_audit_runs_on_the_examples_too(indexlab: Command, tmp_path: Path) -> None:
    assert indexlab("init", ".").returncode == 0
    inputs = ("--plan", "plan.sql", "--workload", "workload.sql", "--target", "demo:2000")
    audited = indexlab("audit", *inputs, "--no-report", "--out", "run")
    assert audited.returncode == 0, audited.stderr
    assert "0 statements" in audited.stdout
