"""Where a batch is kept: a directory, or any place that fsspec reaches by a URL."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from indexlab import embedded, runs
from indexlab.batch.tasks import RESULT, RUNS
from indexlab.errors import IncompleteError, InputError
from indexlab.runs import FORMAT, Json, Run

FILE = "file://"
BATCH = "batch"
SPOOL = "batch"


@dataclass(frozen=True, slots=True)
class Store:
    """A place for `batch.json` and the runs; made by `opened`."""

    url: str
    directory: Path | None
    """Where it is a directory of this machine; None where it is reached through fsspec."""
    _fs: Any = field(default=None, repr=False)
    _root: str = ""

    def prepare(self) -> None:
        """Make sure that it can be written.

        Raises:
            InputError: it cannot, or its disk is full.
        """
        if self.directory is not None:
            Run.create(self.directory, "nothing yet")
            return
        probe = f"{self._root}/.indexlab"
        try:
            self._fs.pipe_file(probe, b"")
            self._fs.rm_file(probe)
        except Exception as error:  # noqa: BLE001 - each of fsspec's backends has errors of its own
            raise InputError(
                f"cannot write to {self.url!r}: {_said(error)}: give another --out"
            ) from None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other batches of this machine out of a directory.

        Raises:
            InputError: another one works in it.
        """
        if self.directory is None:
            yield
            return
        with runs.held(self.directory):
            yield

    def read(self) -> Json | None:
        """Return `batch.json`, if there is one.

        Raises:
            InputError: it is not JSON or of a format that this version does not read.
        """
        if self.directory is not None:
            run = Run(self.directory)
            return run.read_json(BATCH) if run.has(BATCH) else None
        try:
            text = self._fs.cat_file(f"{self._root}/{BATCH}.json")
        except FileNotFoundError:
            return None
        except Exception as error:  # noqa: BLE001 - as above
            raise InputError(f"cannot read {self.url!r}: {_said(error)}") from None
        document = json.loads(text)
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise InputError(f"this version reads format {FORMAT}", source=f"{self.url}/batch.json")
        return document

    def write(self, document: Json) -> None:
        """Write `batch.json` in one step.

        Raises:
            IncompleteError: the disk is full or cannot be written.
        """
        if self.directory is not None:
            Run(self.directory).write_json(BATCH, document)
            return
        text = json.dumps({"format": FORMAT, **document}, ensure_ascii=False)
        try:
            self._fs.pipe_file(f"{self._root}/{BATCH}.json", text.encode())
        except Exception as error:  # noqa: BLE001 - as above
            raise IncompleteError(f"cannot write to {self.url!r}: {_said(error)}") from None

    def put(self, name: str, data: bytes) -> None:
        """Write a file beside `batch.json` in one step.

        Raises:
            IncompleteError: the disk is full or cannot be written.
        """
        if self.directory is not None:
            Run(self.directory).write_bytes(name, data)
            return
        try:
            self._fs.pipe_file(f"{self._root}/{name}", data)
        except Exception as error:  # noqa: BLE001 - as above
            raise IncompleteError(f"cannot write to {self.url!r}: {_said(error)}") from None

    def runs(self) -> dict[str, int]:
        """Return the number of the last run by the folder of its target; reads only."""
        found: dict[str, int] = {}
        for place in self._places():
            folder, number = place
            found[folder] = max(found.get(folder, 0), number)
        return found

    def _places(self) -> Iterator[tuple[str, int]]:
        if self.directory is not None:
            paths = [p.parts[-2:] for p in (self.directory / RUNS).glob("*/*") if p.is_dir()]
        else:
            try:
                names = self._fs.find(f"{self._root}/{RUNS}")
            except FileNotFoundError:
                names = []
            start = len(self._root.split("/")) + 1
            paths = [tuple(name.split("/")[start : start + 2]) for name in names]
        for parts in sorted(set(paths)):
            if len(parts) == 2 and parts[1].isdecimal():
                yield parts[0], int(parts[1])

    def results(self, runs: dict[str, int]) -> dict[str, Json]:
        """Return what came of runs, by the folder of the target; reads only.

        A run that was cut off has no result, and neither has one whose result cannot be read.

        Args:
            runs: the number of the run by folder.
        """
        names = {f: f"{RUNS}/{f}/{number}/{RESULT}.json" for f, number in runs.items()}
        texts: dict[str, bytes] = {}
        if self.directory is not None:
            for folder, name in names.items():
                path = self.directory / name
                if path.is_file():
                    texts[folder] = path.read_bytes()
        elif names:
            paths = {f"{self._root}/{name}": folder for folder, name in names.items()}
            kept = self._fs.cat(list(paths), on_error="omit")
            texts = {paths[path]: text for path, text in kept.items()}
        return {folder: found for folder, text in texts.items() if (found := _document(text))}

    def place(self, run: str) -> Path:
        """Return the directory in which a run is made: in place, or before it is sent there."""
        if self.directory is not None:
            return self.directory / run
        batch = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        return embedded.home() / SPOOL / batch / run

    def keep(self, run: str) -> None:
        """Send a run to where it is kept, and forget it here.

        Raises:
            IncompleteError: it cannot be sent; it stays where it was made.
        """
        place = self.place(run)
        if self.directory is not None or not place.is_dir():
            return
        try:
            self._fs.put(f"{place.as_posix()}/", f"{self._root}/{run}/", recursive=True)
        except Exception as error:  # noqa: BLE001 - as above
            raise IncompleteError(
                f"the run cannot be kept at {self.url!r}: {_said(error)}; it is in "
                f"{place.as_posix()!r} of the machine that it ran on"
            ) from None
        shutil.rmtree(place, ignore_errors=True)


def opened(out: str) -> Store:
    """Return the place that an --out names; writes nothing.

    Raises:
        InputError: no such kind of place is known here, or the URL holds a password.
    """
    if out.startswith(FILE):
        out = out.removeprefix(FILE)
    if "://" not in out and "::" not in out:
        return Store(Path(out).as_posix(), Path(out).absolute())
    if urlsplit(out).password:
        raise InputError("--out holds a password (not shown): give it by the store's own means")
    import fsspec

    try:
        fs, root = fsspec.core.url_to_fs(out.rstrip("/"))
    except (ImportError, ValueError) as error:
        raise InputError(f"--out {out!r}: {_said(error)}") from None
    return Store(out.rstrip("/"), None, fs, str(root).rstrip("/"))


def preload(out: str) -> None:
    """Import what a place needs, but open nothing: a process forked later could not use it."""
    scheme, found, _ = out.partition("://")
    if found and scheme != "file":
        import fsspec

        fsspec.get_filesystem_class(scheme.rpartition("::")[2])


def inputs(text: str, path: str, stack_place: Path) -> Path:
    """Return a file with a text: the one it came from if it still says so, or a copy.

    Args:
        text: of a plan or a workload.
        path: where it was read, perhaps on another machine.
        stack_place: a directory for the copy.
    """
    origin = Path(path)
    try:
        if origin.read_text(encoding="utf-8-sig") == text:
            return origin
    except (OSError, ValueError):
        pass
    folder = Path(tempfile.mkdtemp(dir=stack_place))
    copy = folder / (origin.name or "plan.sql")
    copy.write_text(text, encoding="utf-8")
    return copy


def _document(text: bytes) -> Json | None:
    try:
        document = json.loads(text)
    except ValueError:
        return None
    good = isinstance(document, dict) and document.get("format") == FORMAT
    return document if good else None


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
