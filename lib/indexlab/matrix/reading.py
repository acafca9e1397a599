"""Reading `batch.json`, from a directory or a URL; an absent key of a later version is no fault."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from indexlab.errors import InputError
from indexlab.matrix.targets import Cell, Forecast, Gain, Matrix, Row, worst_first

FORMAT = 1
FILE = "batch.json"


@dataclass(frozen=True, slots=True)
class _Build:
    seconds: float | None = None
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class _Target:
    """A target as the file has it."""

    name: str
    status: str
    statements: Mapping[str, str] = field(default_factory=dict)
    reason: str | None = None
    exit: int | None = None
    headline: Mapping[str, Any] | str | None = None
    run: str | None = None
    page: str | None = None
    tags: tuple[str, ...] = ()
    group: str | None = None
    stage: str | None = None
    wave: int | None = None
    seconds: float | None = None
    attempts: int | None = None
    server: str | None = None
    running: bool = False
    reasons: Mapping[str, str] = field(default_factory=dict)
    builds: Mapping[str, _Build] = field(default_factory=dict)
    forecast: Mapping[str, Any] | None = None
    regressions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Batch:
    targets: tuple[_Target, ...]
    stage: str | None = None
    execute: bool = False
    started: str | None = None
    seconds: float | None = None
    complete: bool | None = None
    notices: tuple[str, ...] = ()
    stopped: str | None = None
    interrupted: bool = False


def read(place: str | Path) -> Matrix:
    """Read a batch; writes nothing.

    Args:
        place: the batch's directory or its `batch.json`, as a path or as a URL that fsspec knows.

    Raises:
        InputError: there is none, or it is not as it must be.
    """
    where = str(place)
    where = where if where.endswith(".json") else f"{where.rstrip('/')}/{FILE}"
    try:
        if "://" in where:
            import fsspec

            with fsspec.open(where, "rt", encoding="utf-8") as file:
                text = file.read()
        else:
            text = Path(where).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # fsspec says of an unknown protocol: ValueError
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"cannot be read: {reason}; give the directory that `indexlab batch` wrote to",
            source=where,
        ) from None
    try:
        document = json.loads(text)
    except ValueError:
        raise InputError("is not JSON", source=where) from None
    return of_document(document, source=where)


def of_document(document: object, *, source: str = FILE) -> Matrix:
    """Read a batch from its document; pure.

    Args:
        document: as `batch.json` has it.
        source: what errors call it.

    Raises:
        InputError: it has another format, or lacks what it must have.
    """
    from pydantic import TypeAdapter, ValidationError

    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else None
        raise InputError(f"has format {found!r}; this version reads format {FORMAT}", source=source)
    try:
        batch = TypeAdapter(_Batch).validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {first['msg']}", source=source) from None
    rows = worst_first(_row(target) for target in batch.targets)
    ended = all(row.status not in ("running", "waiting", "not_run") for row in rows)
    return Matrix(
        rows,
        stage=batch.stage or "",
        execute=batch.execute,
        started=batch.started or "",
        seconds=batch.seconds,
        complete=ended if batch.complete is None else batch.complete,
        notices=(*batch.notices, *_stops(batch)),
    )


def _stops(batch: _Batch) -> Iterator[str]:
    if batch.stopped:
        yield f"The batch was stopped: {batch.stopped}"
    if batch.interrupted:
        yield "The batch was interrupted: what is here is how far it came."


def _row(target: _Target) -> Row:
    gain, nothing = _sides(target.headline, "before_ms", "after_ms"), _Build()
    costs = _sides(target.forecast, "before", "after")
    cells = []
    for statement, state in target.statements.items():
        build, why = target.builds.get(statement, nothing), target.reasons.get(statement, "")
        cells.append(Cell(statement, state, build.seconds, build.bytes, why))
    return Row(
        name=target.name,
        status="running" if target.running else target.status,
        cells=tuple(cells),
        reason=target.reason or "",
        exit=target.exit,
        gain=gain and Gain(*gain),
        forecast=costs and Forecast(*costs),
        regressions=target.regressions,
        headline=target.headline if isinstance(target.headline, str) else "",
        run=target.run or "",
        page=target.page or "",
        tags=target.tags,
        group=target.group or "",
        stage=target.stage or "",
        wave=target.wave,
        seconds=target.seconds,
        attempts=target.attempts,
        server=target.server or "",
    )


def _sides(found: Mapping[str, Any] | str | None, *names: str) -> tuple[float, float] | None:
    """Return before and after; None where there is nothing to divide, as over no query."""
    if not isinstance(found, Mapping):
        return None
    before, after = (found.get(name) for name in names)
    if not _measured(before) or not _measured(after):
        return None
    return float(before), float(after)  # type: ignore[arg-type]


def _measured(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0
