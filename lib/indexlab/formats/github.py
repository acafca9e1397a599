"""An audit as workflow commands, which GitHub shows beside the lines of a pull request."""

from __future__ import annotations

from collections.abc import Iterator

from indexlab.display import clean
from indexlab.formats.remarks import Remark, Source, remarks
from indexlab.runs import Json

COMMANDS = {"error": "error", "warning": "warning", "info": "notice"}


def github(document: Json, source: Source, *, verbose: bool = False) -> tuple[str, ...]:
    """Write an annotation for each finding that the plan does not accept.

    Args:
        document: of an audit, as `audit.json` holds it.
        source: the plan file.
        verbose: whether notes of severity info are wanted, too.
    """
    told = remarks(document, verbose=verbose)
    return tuple(_annotation(remark, source) for remark in told if not remark.suppressed)


def _annotation(remark: Remark, source: Source) -> str:
    properties = ",".join(f"{name}={_property(value)}" for name, value in _where(remark, source))
    message = remark.message + (f"\nfix: {remark.fix}" if remark.fix else "")
    return f"::{COMMANDS[remark.severity]} {properties}::{_data(clean(message))}"


def _where(remark: Remark, source: Source) -> Iterator[tuple[str, str]]:
    place = remark.place
    if place is not None:
        yield "file", source.path
        yield "line", str(place.line)
        yield "col", str(place.column)
        yield "endLine", str(place.end_line)
        yield "endColumn", str(place.end_column)
    yield "title", remark.rule


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
