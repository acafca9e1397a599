"""The desk: copies of the notebooks in a folder of the user's, and JupyterLab over them."""

from __future__ import annotations

import ast
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexlab import render
from indexlab.errors import InputError
from indexlab.records import Record

NOTEBOOKS = ("explore", "audit", "benchmark", "apply")
"""In the order in which one would open them."""
Values = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Desk(Record):
    """A folder with notebooks, and what its JupyterLab is started with."""

    folder: Path
    copied: tuple[str, ...]
    """The notebooks that were not there before."""


def lay(folder: Path, values: Values) -> Desk:
    """Copy the notebooks that are not there, with these values as defaults; never overwrites.

    Args:
        folder: is made if it is not there.
        values: by the name of the parameter, such as `target`; it must hold no password.

    Raises:
        InputError: a notebook is there and has other defaults, or the folder cannot be written;
            nothing was copied.
    """
    missing = []
    for name in NOTEBOOKS:
        path = folder / f"{name}.ipynb"
        if not path.exists():
            missing.append(name)
            continue
        for parameter, value in values.items():
            default = _default(_read(path), parameter)
            if default is not None and default != value:
                raise InputError(
                    f"{path.as_posix()!r} is there already, with {parameter} = {default!r}: open "
                    "another folder, or change it there"
                )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in missing:
            document = _with_defaults(_read(render.notebook(name)), values)
            with (folder / f"{name}.ipynb").open("x", encoding="utf-8") as file:
                file.write(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", source=folder) from None
    return Desk(folder, tuple(missing))


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError("is not a notebook that can be read", source=path) from None
    if not isinstance(document, dict):
        raise InputError("is not a notebook", source=path)
    return document


def _parameters(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """Find the cell that papermill takes the parameters from."""
    for cell in document.get("cells", ()):
        if "parameters" in cell.get("metadata", {}).get("tags", ()):
            return dict(cell)
    return None


def _lines(cell: Mapping[str, Any]) -> list[str]:
    return "".join(cell["source"]).splitlines(keepends=True)


def _default(document: Mapping[str, Any], parameter: str) -> str | None:
    """Return a parameter's default in a notebook; None where it has none; pure."""
    cell = _parameters(document)
    try:
        tree = ast.parse("".join(_lines(cell)) if cell is not None else "")
    except SyntaxError:
        return None
    for node in tree.body:
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and node.target.id == parameter
            and isinstance(node.value, ast.Constant)
        ):
            return str(node.value.value)
    return None


def _with_defaults(document: dict[str, Any], values: Values) -> dict[str, Any]:
    """Return the notebook with other defaults of some parameters; pure."""
    return {
        **document,
        "cells": [
            {**cell, "source": [_line(line, values) for line in _lines(cell)]}
            if "parameters" in cell.get("metadata", {}).get("tags", ())
            else cell
            for cell in document["cells"]
        ],
    }


def _line(line: str, values: Values) -> str:
    name, colon, rest = line.partition(":")
    if not colon or name not in values:
        return line
    _, _, help_ = rest.partition("  # ")
    kind = rest.partition("=")[0].strip()
    return f"{name}: {kind} = {json.dumps(values[name], ensure_ascii=False)}  # {help_}"


def command(folder: Path, *, browser: bool, port: int) -> list[str]:
    """Return how JupyterLab is started on a folder: for this machine alone; pure.

    Args:
        folder: its root.
        browser: whether it opens one.
        port: to listen on; the next free one if it is taken.
    """
    return [
        *(sys.executable, "-m", "jupyterlab"),
        f"--ServerApp.root_dir={folder.resolve()}",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.allow_remote_access=False",
        *([] if browser else ["--no-browser"]),
        # It listens on the loopback and asks for a token; without this it refuses to start for root.
        *(["--allow-root"] if os.geteuid() == 0 else []),
    ]


def sit(folder: Path, environment: Mapping[str, str], *, browser: bool, port: int) -> None:
    """Become JupyterLab on a folder; does not return.

    Args:
        folder: its root.
        environment: variables for its kernels, beside those of this process: what a target's
            name leaves out.
        browser: whether it opens one.
        port: to listen on.
    """
    words = command(folder, browser=browser, port=port)
    os.execve(words[0], words, {**os.environ, **environment})
