"""What one may ask of a planner that looks at indexes which are not there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from indexlab.explain import Explain
from indexlab.plan import CreateIndex
from indexlab.records import Record
from indexlab.sql import RelationName
from indexlab.workload import Values


@dataclass(frozen=True, slots=True)
class Hypothetical(Record):
    """An index that the planner now takes for real."""

    index: RelationName
    """Its name where it is asked about: what a plan shows, and what `hide` takes."""
    table: RelationName
    bytes: int
    """Its estimated size; of a partitioned one, that of all its parts."""
    pages: int
    rough: bool
    """Whether the size may well be off by a factor."""
    basis: str
    """What the size rests on, in words."""
    parts: tuple[RelationName, ...] = ()
    """Of a partitioned one, its indexes on the partitions: these are what a plan shows."""


@dataclass(frozen=True, slots=True)
class Lacking(Record):
    """Something of the target that is not in the sandbox; what needs it is not simulated."""

    object: str
    """What it is, and its name: `table core.places`, `function public.crypt`."""
    reason: str


class WhatIf(Protocol):
    """A planner that can be asked; the target is not changed by it."""

    @property
    def name(self) -> str:
        """What was asked: `sandbox on PostgreSQL 18.6, with the statistics of 15.20`."""

    @property
    def notes(self) -> tuple[str, ...]:
        """How this planner differs from the target's, and what follows from that."""

    @property
    def lacking(self) -> tuple[Lacking, ...]:
        """What is not there, and why."""

    def add(self, index: CreateIndex) -> Hypothetical:
        """Make a planned index for the planner; it is visible at once.

        Args:
            index: with the table and the columns as the target has them.

        Raises:
            SandboxError: the index cannot be; the message says why.
        """

    def hide(self, indexes: Collection[RelationName]) -> None:
        """Keep the planner from exactly these indexes; it sees all others again.

        Args:
            indexes: existing ones or added ones; parts of a hidden partitioned index are hidden.

        Raises:
            SandboxError: there is no such index, or existing ones cannot be hidden.
        """

    def explain(self, statement: str, values: Values | None) -> Explain:
        """Ask for the plan of one statement; it is not executed.

        Args:
            statement: with numbered placeholders.
            values: one text per placeholder; None for the plan that fits any values.

        Raises:
            SandboxError: the statement needs what is lacking, or the server refuses it.
        """
