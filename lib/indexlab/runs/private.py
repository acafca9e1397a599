"""What a redacted run needs and must not hold: kept in the home of the kit, never in the run."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from indexlab import embedded
from indexlab.errors import IndexlabError, InputError
from indexlab.runs.directory import Run

NOTE = "values"
"""`values.json` of a redacted run names the file in which its values are kept."""
KEY_BYTES = 32

Drawn = Mapping[str, Sequence[Sequence[str | None]]]
"""Sets of parameter values by query."""


def key() -> bytes:
    """Return the secret of this user's kit, by which it knows a hidden text again.

    Raises:
        EmbeddedError: the home of the kit cannot be written.
    """
    path = _folder() / "key"
    with suppress(FileNotFoundError):
        return path.read_bytes()
    handle, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(secrets.token_bytes(KEY_BYTES))
    with suppress(FileExistsError):  # another process was first: its key it is
        os.link(name, path)
    Path(name).unlink()
    return path.read_bytes()


def keep(run: Run, drawn: Drawn) -> None:
    """Keep the values of a redacted run apart from it, so that a later one can be paired with it.

    Raises:
        IndexlabError: the home of the kit, or the run, cannot be written.
    """
    name = secrets.token_hex(16)
    Run(_folder()).write_json(name, {"queries": {query: drawn[query] for query in drawn}})
    run.write_json(NOTE, {"kept": name})


def kept(run: Run) -> Drawn:
    """Return the values that were kept apart from a redacted run.

    Raises:
        InputError: they are not on this machine.
    """
    try:
        name = _name(run)
        found: Drawn = Run(_folder()).read_json(name)["queries"]
    except IndexlabError:
        raise InputError(
            "the values of this redacted run are not on this machine, or of another user: measure "
            "a baseline again, or one without --redact",
            source=run.path / "benchmark.json",
        ) from None
    return found


def forget(run: Run) -> None:
    """Delete the values that were kept apart from a run and its parts."""
    for note in sorted(run.path.rglob(f"{NOTE}.json")):
        with suppress(IndexlabError, OSError):
            (_folder() / f"{_name(Run(note.parent))}.json").unlink()


def _name(run: Run) -> str:
    """Return what names the values: letters and digits only, as it becomes part of a path."""
    name = str(run.read_json(NOTE).get("kept"))
    if not name.isalnum():
        raise InputError(f"names no values: {name!r}", source=run.path / f"{NOTE}.json")
    return name


def _folder() -> Path:
    folder = embedded.home() / "private"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
