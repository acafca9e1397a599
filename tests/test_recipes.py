"""The recipes for schedulers: each is read by the rules of its own tool, and held against the kit.

Airflow and Dagster are not installed here. What stands in for Airflow notes what it is called with,
and these notes are held against the notebooks; the Dagster recipe is compiled and read.
"""

from __future__ import annotations

import ast
import re
import runpy
import shlex
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import click
import pytest
import yaml
from click.testing import CliRunner

from indexlab import render
from indexlab.cli import cli
from indexlab.cli.recipes import RECIPES
from indexlab.errors import InputError

FOLDER = Path(render.__file__).parents[1] / "recipes"
SECRET = re.compile(r"password\s*[:=]|PGPASSWORD|://[^/\s]+:[^/\s]+@", re.IGNORECASE)


def text(name: str) -> str:
    return (FOLDER / RECIPES[name][0]).read_text(encoding="utf-8")


def commands(script: str) -> Iterator[list[str]]:
    """Find the calls of the kit in a shell script, word by word."""
    for line in script.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|;|\|\|", line):
            words = shlex.split(part, comments=True)
            while words and words[0] in ("flock", "-n", ".nightly"):
                words = words[1:]
            if words[:1] == ["indexlab"]:
                yield words[1:]


def check_command(words: list[str]) -> None:
    """Parse a call as the command itself would; nothing is run."""
    command = cli.get_command(click.Context(cli), words[0])
    assert command is not None, f"no command {words[0]!r}"
    with command.make_context(words[0], list(words[1:])):
        pass


def test_every_recipe_is_a_file_and_every_file_a_recipe():
    files = {path.name for path in FOLDER.iterdir() if path.suffix != ".pyc" and path.is_file()}
    assert files == {file for file, _ in RECIPES.values()}


def test_the_command_prints_recipes():
    listed = CliRunner().invoke(cli, ["recipe"])
    assert [line.split()[0] for line in listed.output.splitlines()] == list(RECIPES)
    for name in RECIPES:
        assert CliRunner().invoke(cli, ["recipe", name]).output == text(name)


def test_an_unknown_recipe_is_refused_with_those_that_there_are():
    refused = CliRunner().invoke(cli, ["recipe", "jenkins"])
    assert isinstance(refused.exception, InputError)
    assert str(refused.exception).endswith(f"there are {', '.join(RECIPES)}")


@pytest.mark.parametrize("name", RECIPES)
def test_no_recipe_holds_a_password(name: str):
    assert not SECRET.search(text(name))


# cron


FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def cron_lines() -> list[str]:
    lines = [line for line in text("cron").splitlines() if line.strip() and line[0] != "#"]
    assert text("cron").endswith("\n")  # cron ignores a last line without an end
    return lines


def check_schedule(fields: list[str]) -> None:
    """Check five fields by the rules of crontab(5), for those forms that recipes use."""
    assert len(fields) == 5
    for field, (low, high) in zip(fields, FIELDS, strict=True):
        if field != "*":
            assert low <= int(field) <= high, field


def test_the_crontab_has_settings_and_schedules():
    for line in cron_lines():
        if not re.fullmatch(r"[A-Z]+=\S+", line):
            check_schedule(line.split(None, 5)[:5])


def test_the_crontab_escapes_percent_signs():
    """An unescaped one ends the command, and the rest is its input."""
    jobs = [line.split(None, 5)[5] for line in cron_lines() if line[0].isdigit() or line[0] == "*"]
    assert jobs
    for job in jobs:
        assert not re.search(r"(?<!\\)%", job), job


def test_the_crontab_calls_the_command_as_it_is():
    jobs = "\n".join(line.split(None, 5)[5] for line in cron_lines() if line[0].isdigit())
    (call,) = commands(jobs.replace("$(date +\\%F)", "2026-06-30"))
    check_command(call)


# Code hosts


def test_the_workflow_runs_on_a_schedule_and_only_reads():
    workflow = yaml.safe_load(text("github"))
    on = workflow[True]  # YAML 1.1 reads the key `on` as a truth value
    check_schedule(on["schedule"][0]["cron"].split())
    assert workflow["permissions"] == {"contents": "read"}
    steps = workflow["jobs"]["audit"]["steps"]
    (call,) = commands("\n".join(step.get("run", "") for step in steps))
    check_command(call)
    (kept,) = [step for step in steps if "upload-artifact" in step.get("uses", "")]
    assert kept["with"]["path"] == call[call.index("--out") + 1]
    assert kept["if"] == "always()"


def test_the_workflow_puts_no_secret_into_a_script():
    """A secret within `run:` would be text of the script, where its quotes are the shell's."""
    for step in yaml.safe_load(text("github"))["jobs"]["audit"]["steps"]:
        assert "${{" not in step.get("run", "")


def test_the_pipeline_runs_on_a_schedule_and_keeps_the_matrix():
    (job,) = yaml.safe_load(text("gitlab")).values()
    assert job["rules"] == [{"if": '$CI_PIPELINE_SOURCE == "schedule"'}]
    (call,) = commands("\n".join(job["script"]))
    check_command(call)
    assert job["artifacts"]["paths"] == [f"{call[call.index('--out') + 1]}/"]
    assert job["artifacts"]["when"] == "always"
    assert job["allow_failure"] == {"exit_codes": [1]}


# Airflow


class Operator:
    """Stands in for PapermillOperator: notes its arguments, and what follows it."""

    made: list[Operator]

    def __init__(self, **given: Any):
        self.given, self.followers = given, []
        type(self).made.append(self)

    def __rshift__(self, other: Operator) -> Operator:
        self.followers.append(other)
        return other


class Dag:
    """Stands in for a DAG."""

    def __init__(self, **given: Any):
        self.given = given

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the recipe as Airflow's processor of DAGs does, and return what it made."""
    operator = type("PapermillOperator", (Operator,), {"made": []})
    modules = {
        "airflow": {"DAG": Dag},
        "airflow.models": {},
        "airflow.models.param": {"Param": lambda default, **_rest: default},
        "airflow.providers": {},
        "airflow.providers.papermill": {},
        "airflow.providers.papermill.operators": {},
        "airflow.providers.papermill.operators.papermill": {"PapermillOperator": operator},
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    made = runpy.run_path(str(FOLDER / "airflow_dag.py"))
    return {"dag": made["dag"], "targets": made["TARGETS"], "operators": operator.made}


def test_the_dag_calls_the_stage_notebooks_as_they_are(airflow: dict[str, Any]):
    stages = [Path(made.given["input_nb"]).stem for made in airflow["operators"]]
    assert stages == ["audit", "benchmark", "apply", "benchmark"] * len(airflow["targets"])
    for made in airflow["operators"]:
        assert Path(made.given["input_nb"]).is_file()


def test_the_parameters_of_the_dag_are_those_of_the_notebooks(airflow: dict[str, Any]):
    for made in airflow["operators"]:
        given = dict(made.given["parameters"])
        if "execute" in given:
            assert given["execute"] == "{{ params.execute }}"
            given["execute"] = airflow["dag"].given["params"]["execute"]
        render.check_parameters(Path(made.given["input_nb"]), given)
    assert airflow["dag"].given["render_template_as_native_obj"] is True


def test_the_dag_changes_nothing_unless_asked(airflow: dict[str, Any]):
    assert airflow["dag"].given["params"] == {"execute": False}
    assert airflow["dag"].given["schedule"] is None


def test_the_dag_measures_before_it_builds_and_compares_with_that(airflow: dict[str, Any]):
    for first in airflow["operators"][::4]:
        (before,) = first.followers
        (build,) = before.followers
        (after,) = build.followers
        assert after.given["parameters"]["baseline"] == before.given["parameters"]["out"]
        assert build.given["parameters"]["out"] == first.given["parameters"]["out"]
        for made in (first, before, build, after):
            assert Path(made.given["output_nb"]).parent == Path(made.given["parameters"]["out"])


def test_no_two_tasks_of_the_dag_have_one_name_or_place(airflow: dict[str, Any]):
    for key in ("task_id", "output_nb"):
        found = [made.given[key] for made in airflow["operators"]]
        assert len(set(found)) == len(found)


# Dagster


def test_the_dagster_recipe_calls_the_command_as_it_is():
    tree = ast.parse(text("dagster"))
    lists = [
        [item.value if isinstance(item, ast.Constant) else "x" for item in node.elts]
        for node in ast.walk(tree)
        if isinstance(node, ast.List) and node.elts and isinstance(node.elts[0], ast.Constant)
    ]
    words = [word for some in lists for word in some]
    assert words[0] == "indexlab"
    check_command(words[1:])
    assert all(isinstance(word, str) for word in words)


def test_the_dagster_recipe_reads_what_a_batch_writes():
    """The names that it takes from batch.json are those of the format."""
    tree = ast.parse(text("dagster"))
    keys = {
        node.slice.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant)
    }
    assert keys == {"targets", "status"}
    (schedule,) = re.findall(r'cron_schedule="([^"]+)"', text("dagster"))
    check_schedule(schedule.split())
