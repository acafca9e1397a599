"""Steps: one statement to run each, or the reason why it need not or must not run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from indexlab import units
from indexlab.errors import InputError, TargetError
from indexlab.plan import PlanStatement
from indexlab.records import Record
from indexlab.sql import RelationName

Action = Literal[
    "build",
    "rebuild",
    "parts",
    "exists",
    "drop",
    "skip",
    "comment",
    "alter",
    "constraint",
    "wait",
    "refuse",
]
"""`parts` builds on a partitioned table; `alter` gives an index that was restored what it had beside
its definition; `constraint` makes one of an index that exists; `wait`
lets another session's build of it end first."""
BUILDS: tuple[Action, ...] = ("build", "rebuild", "parts", "wait")
NO_INDEX: tuple[Action, ...] = ("comment", "alter")
"""What changes an index and makes none."""
CHANGES: tuple[Action, ...] = (*BUILDS, "drop", "comment", "alter", "constraint")
CORRUPTING = range(140000, 140004)
"""Versions whose concurrent builds may miss rows (fixed by 14.4)."""


class ApplyRefused(InputError):
    """The plan asks for something that cannot be; nothing was run. Every refusal is listed."""


@dataclass(frozen=True, slots=True)
class Step(Record):
    """One statement to run, or the reason why it need not or must not run."""

    name: RelationName
    """The index, with its schema where that is known."""
    on: RelationName | None
    """Its table; None where nothing of that name was found."""
    action: Action
    statement: str
    """As it will run, or as it was written where it will not."""
    planned: PlanStatement = field(repr=False)
    reason: str = ""
    """Why this action."""
    definition: str = ""
    """The server's definition of the index that exists."""
    undo: str = ""
    """The SQL that takes the step back."""
    restores: tuple[str, ...] = ()
    """What follows `undo`: statements that give back what a dropped index has beside its
    definition."""
    oid: int = 0
    """Of the index to drop; 0 where an earlier step makes it."""
    brief: bool = False
    """Whether its lock keeps writers out for a moment, so that it must not be waited for."""
    family: int = 0
    """Oid of its table, or of the topmost table that it is a partition of."""
    part_of: str = ""
    """The planned index of a partitioned table that this makes a part of."""
    doomed: tuple[RelationName, ...] = ()
    """Indexes that the plan drops, which an index of a partitioned table must not adopt."""
    forbidden: bool = False
    """Whether a refusal comes from the target (its role, its version) and not from the plan."""

    @property
    def index(self) -> str:
        """The index with its schema, quoted where it must be."""
        return str(self.name)

    @property
    def table(self) -> str:
        """The table with its schema, quoted where it must be."""
        return "" if self.on is None else str(self.on)

    @property
    def purpose(self) -> str:
        """The comment above the statement in the plan."""
        return self.planned.reason

    @property
    def line(self) -> int:
        """Line of the statement in the plan."""
        return self.planned.line


def refuse(steps: tuple[Step, ...], source: str) -> None:
    """Raise if any step is impossible, with all refusals at once.

    Raises:
        ApplyRefused: a statement asks for what cannot be.
        TargetError: the role or the server does not allow any of what is refused.
    """
    refused = [step for step in steps if step.action == "refuse"]
    if not refused:
        return
    listed = "".join(f"\n  line {item.line}, {item.index}: {item.reason}" for item in refused)
    message = f"{units.plural(len(refused), 'statement')} refused, nothing was run:{listed}"
    if all(item.forbidden for item in refused):
        raise TargetError(f"{source}: {message}")
    raise ApplyRefused(message, source=source)
