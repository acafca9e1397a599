"""What a server answered: whether it builds a planned index, and what its rows say against it."""

from __future__ import annotations

from dataclasses import dataclass


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
    """Bytes of the largest stored value of a key, as it is stored."""
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

    def build(self, statement: str) -> Answer | None:
        """Return what a server made of this statement, if it was asked."""
        return next((item for item in self.builds if item.statement == statement), None)

    def duplicate(self, statement: str) -> Duplicates | None:
        """Return what was counted for this statement, if anything was."""
        return next((item for item in self.duplicates if item.statement == statement), None)

    def of_rows(self, statement: str) -> Rows | None:
        """Return what the rows make of this statement, if they were read."""
        return next((item for item in self.rows if item.statement == statement), None)
