"""Records: results that show themselves, as tables in a notebook, as lines of text elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import Field, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from indexlab import display

if TYPE_CHECKING:
    import pandas as pd

MOST_LINES = 20
WIDEST = 72
NAMES = ("label", "name", "query", "index", "rule", "statement", "text")
"""Fields that say which one of its kind a record is, the most telling first."""


class Record:
    """A frozen dataclass that a notebook shows as a table, field by field.

    What a class leaves out of its `repr`, such as an address with a password, is not shown here
    either. A class that holds many of something shows these instead.
    """

    __slots__ = ()

    def frame(self) -> pd.DataFrame:
        """Return the record as a pandas DataFrame of one row, its fields as columns.

        The units are those of the fields: `_ms` is milliseconds, `seconds` is seconds, `bytes` is
        bytes; what is a record of its own is named in words.
        """
        import pandas as pd

        row = {part.name: _value(getattr(self, part.name)) for part in _shown(self)}
        return pd.DataFrame([row], columns=list(row))

    def _repr_html_(self) -> str:
        rows = [(part.name, brief(getattr(self, part.name))) for part in _shown(self)]
        return display.table(("", type(self).__name__), rows)


def _shown(record: object) -> Iterator[Field[Any]]:
    """Name the fields that are for people; pure."""
    if is_dataclass(record):
        yield from (part for part in fields(record) if part.repr and not part.name.startswith("_"))


def _value(value: object) -> object:
    return value if isinstance(value, str | int | float | bool | None) else brief(value)


def brief(value: object) -> str:
    """Say in a few words what a field holds; pure.

    >>> brief(("a", "b")), brief(None), brief((("work_mem", "4MB"), ("jit", "off")))
    ('a, b', '', 'work_mem: 4MB, jit: off')
    """
    if value is None:
        return ""
    if isinstance(value, tuple | list | set | frozenset):
        if any(is_dataclass(item) for item in value):
            return "\n".join(map(brief, value))
        pairs = (
            ": ".join(map(brief, item))
            if isinstance(item, tuple) and len(item) == 2
            else brief(item)
            for item in value
        )
        return ", ".join(pairs)
    if not is_dataclass(value) or type(value).__str__ is not object.__str__:
        return str(value)
    named = next((str(getattr(value, name)) for name in NAMES if getattr(value, name, "")), "")
    return f"{type(value).__name__} {named}".strip()


def text(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    notes: Iterable[str] = (),
    most: int = MOST_LINES,
) -> str:
    r"""Write a table as a few aligned lines, for those who see no HTML; pure.

    Args:
        title: what the table shows, in a line above it.
        columns: headings, in order.
        rows: cells, as many as headings; long ones are cut.
        notes: lines below the table.
        most: so many rows are written, the others are counted.

    >>> print(text("two queries", ("query", "p50"), [("badge", "3 ms"), ("a\x1b[31m", "")]))
    two queries
      query      p50
      badge      3 ms
      a\x1b[31m
    """
    given = [[_cell(cell) for cell in row] for row in rows]
    shown = [list(columns), *given[:most]] if given else []
    widths = [
        max(len(row[place]) for row in shown) for place in range(len(columns) if shown else 0)
    ]
    lines = [display.clean(title)]
    for row in shown:
        padded = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append(f"  {padded}".rstrip())
    if len(given) > most:
        lines.append(f"  and {len(given) - most} more: see .frame()")
    return "\n".join([*lines, *(display.clean(note) for note in notes)])


def _cell(value: object) -> str:
    line = " ".join(display.clean(brief(value)).split())
    return line if len(line) <= WIDEST else f"{line[: WIDEST - 1]}…"
