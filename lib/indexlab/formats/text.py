"""An audit on a terminal: each finding with the line of the plan and the word underlined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from indexlab import units
from indexlab.display import clean
from indexlab.formats.remarks import Remark, Source, remarks
from indexlab.runs import Json

if TYPE_CHECKING:
    from rich.text import Text

STYLES = {"error": "bold red", "warning": "bold yellow", "info": "bold cyan"}
BESIDE = {"advice": "beside the plan", "preconditions": "before any build"}
QUOTED_CELLS = 160
"""What is quoted of a line that is longer."""
EVIDENCE_CHARACTERS = 160

Line = tuple[tuple[str, str], ...]
"""Pieces of a line, each with its style in the words of rich."""


def text(document: Json, source: Source, *, verbose: bool = False) -> tuple[Line, ...]:
    """Write an audit as lines: the findings, then the verdicts and their sum.

    Args:
        document: of an audit, as `audit.json` holds it.
        source: the plan file.
        verbose: whether notes of severity info are wanted, too.
    """
    told = remarks(document, verbose=verbose)
    lines = [line for remark in told for line in (*_told(remark, source), ())]
    lines += [
        ((f"{item['verdict']:<8} line {item['line']:<4} {_flat(item['index'])}", ""),)
        for item in document["statements"]
    ]
    return (*lines, ((_sum(document), "bold"),))


def plain(line: Line) -> str:
    """Return a line without its styles."""
    return "".join(piece for piece, _ in line)


def colored(line: Line) -> Text:
    """Return a line for rich to print."""
    from rich.text import Text

    return Text.assemble(*line)


def _told(remark: Remark, source: Source) -> Iterator[Line]:
    style = "dim" if remark.suppressed else STYLES[remark.severity]
    place = remark.place
    where = BESIDE.get(remark.about, f"existing index {remark.about}")
    if place is not None:
        where = f"{source.path}:{place.line}:{place.column}"
    yield (
        (f"{_flat(where)}: ", ""),
        (f"{remark.severity}[{remark.rule}]", style),
        (f": {_flat(remark.message)}", "" if remark.suppressed else "bold"),
    )
    gutter = 1 if place is None else len(str(place.line))
    if place is not None:
        quoted, before, width = _quoted(remark, source)
        yield ((f"{'':{gutter}} |", "blue"),)
        yield (f"{place.line} | ", "blue"), (quoted, "")
        yield (f"{'':{gutter}} | ", "blue"), (" " * before, ""), ("^" * width, style)
    evidence = "; ".join(f"{name}: {value}" for name, value in remark.evidence)
    if len(evidence) > EVIDENCE_CHARACTERS:
        evidence = evidence[: EVIDENCE_CHARACTERS - 3] + "..."
    notes = (("evidence", evidence), ("fix", remark.fix), ("ignored", remark.suppressed))
    for name, note in notes:
        if note:
            yield (f"{'':{gutter}} = ", "blue"), (f"{name}: ", "bold"), (_flat(note), "")


def _quoted(remark: Remark, source: Source) -> tuple[str, int, int]:
    """Return the line as shown, the cells before the word, and the cells of the word."""
    from rich.cells import cell_len

    assert remark.place is not None
    line, place = source.line(remark.place.line), remark.place
    start = place.column - 1
    end = place.end_column - 1 if place.end_line == place.line else len(line)
    before, word, after = (_shown(part) for part in (line[:start], line[start:end], line[end:]))
    if cell_len(before + word + after) > QUOTED_CELLS:
        before = "..." + before[-40:] if len(before) > 43 else before
        word = word[:80]
        after = after[:30] + "..." if len(after) > 33 else after
    return before + word + after, cell_len(before), max(cell_len(word), 1)


def _shown(part: str) -> str:
    return clean(part.replace("\t", "    "))


def _flat(words: str) -> str:
    return clean(words).replace("\n", " ")


def _sum(document: Json) -> str:
    verdicts = Counter(item["verdict"] for item in document["statements"])
    total = units.plural(len(document["statements"]), "statement")
    told = f"{total}: " + ", ".join(f"{number} {verdict}" for verdict, number in verdicts.items())
    all_told = remarks(document)
    standing = Counter(remark.severity for remark in all_told if not remark.suppressed)
    ignored = sum(bool(remark.suppressed) for remark in all_told)
    counted = [units.plural(standing[name], name) for name in ("error", "warning")]
    found = f"{told}; {', '.join(counted)}" + (f", {ignored} ignored" if ignored else "")
    return f"{found} (database {_flat(document['target']['database'])})"
