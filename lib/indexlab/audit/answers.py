"""What a server answered: whether it builds a planned index, and what its rows say against it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server made of one planned index on an empty copy of its table."""

    statement: str
    """The index as it was asked about."""
    definition: str = ""
    """The server's own words for it; empty where it was refused or not asked."""
    refusal: str = ""
    """Why the server refuses it."""
    unasked: str = ""
    """Why the server could not be asked."""
    version: str = ""
    """The version of the server that was asked."""


@dataclass(frozen=True, slots=True)
class Duplicates:
    """How many rows stand in the way of a planned UNIQUE index."""

    statement: str
    groups: int = 0
    """How many values are there more than once."""
    rows: int = 0
    """How many rows have one of these values."""
    uncounted: str = ""
    """Why they were not counted."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What the rows of a table make of a planned index."""

    statement: str
    refusal: str = ""
    """Why an expression fails on a row; without the value, which is nobody's business."""
    widest_value: int = 0
    """Bytes of the largest stored value of a key that an index cannot make smaller."""
    widest_row: int = 0
    """Bytes of all keys of a row together, at most; expressions before compression."""
    unread: str = ""
    """Why the rows were not read."""


@dataclass(frozen=True, slots=True)
class Answers:
    """All that was asked for one plan."""

    builds: tuple[Answer, ...] = ()
    duplicates: tuple[Duplicates, ...] = ()
    rows: tuple[Rows, ...] = ()
    _builds: dict[str, Answer] = field(init=False, repr=False, compare=False)
    _duplicates: dict[str, Duplicates] = field(init=False, repr=False, compare=False)
    _rows: dict[str, Rows] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # The first one counts.
        builds = {item.statement: item for item in reversed(self.builds)}
        duplicates = {item.statement: item for item in reversed(self.duplicates)}
        rows = {item.statement: item for item in reversed(self.rows)}
        object.__setattr__(self, "_builds", builds)
        object.__setattr__(self, "_duplicates", duplicates)
        object.__setattr__(self, "_rows", rows)

    def build(self, statement: str) -> Answer | None:
        """Return what a server made of this statement, if it was asked."""
        return self._builds.get(statement)

    def duplicate(self, statement: str) -> Duplicates | None:
        """Return what was counted for this statement, if anything was."""
        return self._duplicates.get(statement)

    def of_rows(self, statement: str) -> Rows | None:
        """Return what the rows make of this statement, if they were read."""
        return self._rows.get(statement)
