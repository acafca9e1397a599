"""Run directories: what one execution leaves behind, written whole and private to the user."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexlab import display, units
from indexlab.errors import IncompleteError, InputError
from indexlab.records import Record

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
REPORTS = "reports"
"""Where runs are, seen from the directory that the command is called in."""
LEAST_FREE = 64 * 1024 * 1024
"""Bytes that must be free before a run begins: a run with its reports takes a few megabytes."""

Json = dict[str, Any]
"""A JSON document on its way to or from a file; nothing else in the kit passes dicts around."""


@dataclass(frozen=True, slots=True)
class Run(Record):
    """One directory under `reports/`; its files are private to the user and written whole."""

    path: Path

    @classmethod
    def create(cls, path: Path, stage: str) -> Run:
        """Make the directory, or take one that does not hold this stage's result yet.

        Args:
            path: where; parents are made.
            stage: name of the result file without its ending, such as `audit`.

        Raises:
            InputError: the stage's result is there already, the place cannot be written, or its
                disk is full.
        """
        run = cls(path)
        if run.has(stage):
            raise InputError(
                f"{path.as_posix()!r} holds {stage}.json already, and a run never overwrites "
                "another: give another --out"
            )
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                free = shutil.disk_usage(path).free
        except OSError as error:
            raise InputError(
                f"cannot write to {path.as_posix()!r}: {error.strerror}: give another --out"
            ) from None
        if free < LEAST_FREE:
            raise InputError(
                f"the disk of {path.as_posix()!r} has {free // 1024} kB free, "
                f"a run wants {LEAST_FREE // 1024} kB: give another --out"
            )
        return run

    def frame(self) -> pd.DataFrame:
        """Return the files as a pandas DataFrame, one row each, by name; reads only.

        Columns: `file`, below the run's directory; `bytes`; `written`, when, UTC.
        """
        import pandas as pd

        return pd.DataFrame(self._files(), columns=["file", "bytes", "written"])

    def _files(self) -> list[tuple[str, int, datetime]]:
        found = sorted(path for path in self.path.rglob("*") if path.is_file())
        facts = [(path.relative_to(self.path).as_posix(), path.stat()) for path in found]
        return [
            (name, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC)) for name, stat in facts
        ]

    def __repr__(self) -> str:
        return f"<Run {display.clean(self.path.as_posix())}>"

    def _repr_html_(self) -> str:
        rows = [
            (name, units.size(size), f"{written:%Y-%m-%d %H:%M:%S}")
            for name, size, written in self._files()
        ]
        columns = ("file", "size", "written (UTC)")
        return display.table(columns, rows, caption=f"run {self.path.name}", numeric=("size",))

    def remove_if_empty(self) -> None:
        """Leave no directory behind of a run that never came to write anything."""
        with suppress(OSError):
            self.path.rmdir()
            if self.path.parent == Path(REPORTS):  # made for this run, where nothing else is in it
                self.path.parent.rmdir()

    def has(self, stage: str) -> bool:
        """Return whether the run holds this stage's result."""
        return (self.path / f"{stage}.json").exists()

    def write(self, name: str, text: str) -> Path:
        """Write a file in one step: after a crash it is there whole or not at all.

        Raises:
            IncompleteError: the disk is full or cannot be written.
        """
        return self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, data: bytes, *, sync: bool = True) -> Path:
        """Write a file in one step, with the directories that it is to be in.

        Args:
            name: below the run's directory.
            data: all of it.
            sync: whether it must outlive a power failure; not what can be made again.

        Raises:
            IncompleteError: the disk is full or cannot be written.
        """
        path = self.path / name
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _written_whole(path, sync=sync) as partial:
                partial.write_bytes(data)
        except OSError as error:
            raise IncompleteError(
                f"cannot write {path.as_posix()!r}: {error.strerror}; "
                "what was done to the target stands"
            ) from None
        return path

    def write_json(self, stage: str, document: Json, *, sync: bool = True) -> Path:
        """Write a stage's result, with the format's number first."""
        whole = {"format": FORMAT, **document}
        text = json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
        return self.write_bytes(f"{stage}.json", text.encode(), sync=sync)

    def read_json(self, stage: str) -> Json:
        """Read a stage's result.

        Raises:
            InputError: it is absent, not JSON, or of a format that this version does not read.
        """
        path = self.path / f"{stage}.json"
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", source=path) from None
        except (ValueError, RecursionError):
            raise InputError("is not JSON", source=path) from None
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            found = document.get("format") if isinstance(document, dict) else None
            raise InputError(
                f"has format {found!r}; this version reads format {FORMAT}", source=path
            )
        return document


@contextmanager
def _written_whole(path: Path, *, sync: bool) -> Iterator[Path]:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        if sync:
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def new_directory(label: str, now: datetime) -> Path:
    """Make a directory under `reports/` that nobody else has, such as `audit-20260630-101500`.

    Raises:
        InputError: it cannot be made.
    """
    stem = f"{label}-{now:%Y%m%d-%H%M%S}"
    names = chain([stem], (f"{stem}-{number}" for number in count(2)))
    for path in map(Path(REPORTS).joinpath, names):
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.mkdir(mode=0o700)
        except FileExistsError:
            if path.parent.is_dir():
                continue
            raise InputError(f"{path.parent.as_posix()!r} is not a directory") from None
        except OSError as error:
            raise InputError(
                f"cannot make {path.as_posix()!r}: {error.strerror}: give another --out"
            ) from None
        return path
    raise AssertionError("numbers do not end")


def named(name: str) -> Path:
    """Return the directory of a run that is named by its path, or by its name under `reports/`."""
    return Path(name) if Path(name).exists() else Path(REPORTS) / name
