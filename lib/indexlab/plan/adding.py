"""Add an index to a plan file: what an investigation found is kept where the work goes on."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from indexlab import display, sql
from indexlab.errors import InputError
from indexlab.plan.reading import EMPTY, IGNORE, UNBEGUN, parse
from indexlab.plan.statements import CreateIndex, IndexPlan
from indexlab.records import Record

Reading = Callable[[CreateIndex], CreateIndex]
"""Gives a planned index the names that the target has for what it means."""


@dataclass(frozen=True, slots=True)
class Added(Record):
    """What became of a statement that was to be added to a plan."""

    path: Path
    index: str
    line: int
    """Where it stands in the file, counted from 1."""
    new: bool
    """False where the plan held it already, and nothing was written."""

    def __repr__(self) -> str:
        where = f"line {self.line} of {self.path.name}"
        return display.clean(
            f"{self.index} is now {where}." if self.new else f"{self.index} was there: {where}."
        )

    def _repr_html_(self) -> str:
        return f"<p>{display.escape(repr(self))}</p>"


def add(
    path: Path, statement: str, reason: str = "", *, reading: Reading = lambda item: item
) -> Added:
    """Append a CREATE INDEX to a plan file, its reason as the comment above it.

    The file is written whole or not at all, and what stands in it stays as it is, character by
    character. It is made if it is not there. Two who add at once do not lose each other's.

    Args:
        path: of the plan; a file that is no plan is refused.
        statement: one CREATE INDEX.
        reason: why, in words; may have several lines.
        reading: how the statements of the plan are to be read when it is looked for.

    Raises:
        InputError: the statement is not one CREATE INDEX, the file is no plan or holds another
            index of this name, or it cannot be written; nothing was written.
    """
    wanted = _statement(statement)
    for said in reason.splitlines():
        if IGNORE.fullmatch(f"-- {said.strip()}"):
            raise InputError(
                f"the reason {said.strip()!r} would be read as an instruction: say it otherwise"
            )
    place = path.resolve()  # a link stays a link
    with _alone(place):
        text, plan = _current(place, path)
        found = _same(plan, wanted, reading)
        if found is not None:
            return Added(path, _label(found), found.line, new=False)
        _check_name(plan, wanted, path)
        whole, line = _appended(text, plan, wanted, reason, path)
        _write(place, whole)
    return Added(path, _label(wanted), line, new=True)


def _statement(text: str) -> CreateIndex:
    parsed = parse(text, "<index>")
    if len(parsed.statements) != 1 or not parsed.creates:
        raise InputError("give one CREATE INDEX statement", source="<index>")
    return parsed.creates[0]


def _label(statement: CreateIndex) -> str:
    return statement.index.name or f"the index on {statement.index.table}"


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Keep others who add from the directory meanwhile; the kernel lets go of the lock."""
    try:
        descriptor = os.open(place.parent, os.O_RDONLY)
    except OSError as error:
        raise _unwritable(place, error) from None
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _unwritable(place: Path, error: OSError) -> InputError:
    return InputError(f"cannot be written: {error.strerror}", source=place.name)


def _current(place: Path, path: Path) -> tuple[str, IndexPlan]:
    """Return the text of the plan with its line ends, and what it says."""
    if not place.exists():
        return "", IndexPlan((), path.as_posix())
    sql.read_text(place)  # refuses what is not text
    try:
        with place.open(encoding="utf-8", newline="") as file:
            text = file.read()
    except OSError as error:
        raise _unwritable(place, error) from None
    if not text.strip("\ufeff \t\r\n"):
        return text, IndexPlan((), path.as_posix())
    return text, parse(text.removeprefix("\ufeff"), path.as_posix())


def _same(plan: IndexPlan, wanted: CreateIndex, reading: Reading) -> CreateIndex | None:
    """Find the statement of the plan that makes the same index, under whatever name; pure."""
    goal = _essence(wanted, reading)
    return next((item for item in plan.creates if _essence(item, reading) == goal), None)


def _essence(statement: CreateIndex, reading: Reading) -> str:
    try:
        index = reading(statement).index
    except InputError:  # the target cannot have it, so it is only what is written
        index = statement.index
    return index.revise(name="x", concurrently=False, if_not_exists=False).sql


def _check_name(plan: IndexPlan, wanted: CreateIndex, path: Path) -> None:
    name = wanted.index.name
    for item in plan.creates:
        if name is not None and item.index.name == name:
            raise InputError(
                f"holds another index named {name!r}: give this one another name",
                source=path,
                line=item.line,
            )


def _appended(
    text: str, plan: IndexPlan, wanted: CreateIndex, reason: str, path: Path
) -> tuple[str, int]:
    """Return the text with the statement at its end, and the statement's line; pure.

    Raises:
        InputError: the grammar reads something else out of it than the plan and the statement.
    """
    newline = "\r\n" if "\r\n" in text else "\n"
    marks = (EMPTY, UNBEGUN)
    kept = "".join(line for line in text.splitlines(keepends=True) if line.strip() not in marks)
    comments = [f"-- {display.clean(line).strip()}" for line in reason.splitlines() if line.strip()]
    added = newline.join([*comments, *f"{wanted.text.rstrip().rstrip(';')};".split("\n"), ""])
    before = kept.rstrip()
    lead = f"{before}{newline}{newline}" if before.strip("\ufeff") else before
    # A last statement need not have its semicolon, and may have a comment behind it.
    for whole in (f"{lead}{added}", f"{before}{newline};{newline}{newline}{added}"):
        try:
            read = parse(whole.removeprefix("\ufeff"), path.as_posix())
        except InputError:
            continue
        last = read.statements[-1]
        if (
            isinstance(last, CreateIndex)
            and last.index == wanted.index
            and last.ignores == wanted.ignores
            and [item.text for item in read.statements[:-1]]
            == [item.text for item in plan.statements]
        ):
            return whole, last.line
    raise InputError("nothing can be added to its end: end it with a whole statement", source=path)


def _write(place: Path, text: str) -> None:
    """Write the file in one step, with the rights that it had."""
    try:
        handle, name = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
    except OSError as error:
        raise _unwritable(place, error) from None
    partial = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            _as_before(place, file.fileno())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(place)
    except OSError as error:
        raise _unwritable(place, error) from None
    finally:
        partial.unlink(missing_ok=True)


def _as_before(place: Path, handle: int) -> None:
    if place.exists():
        facts = place.stat()
        os.fchmod(handle, facts.st_mode & 0o7777)
        with suppress(PermissionError):
            os.fchown(handle, facts.st_uid, facts.st_gid)
        return
    mask = os.umask(0)
    os.umask(mask)
    os.fchmod(handle, 0o666 & ~mask)
