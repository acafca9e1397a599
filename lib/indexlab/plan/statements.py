"""What stands in a plan: statements, what they accept of the audit, and the plan over all."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from indexlab import display, records, units
from indexlab.plan.definition import IndexDef
from indexlab.records import Record
from indexlab.sql import RelationName

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Ignore(Record):
    """A comment above a statement that says which finding is known, and why it is accepted."""

    rule: str
    reason: str
    line: int

    def __str__(self) -> str:
        return f"indexlab: ignore {self.rule} because {self.reason}"


@dataclass(frozen=True, slots=True)
class CreateIndex(Record):
    """A planned CREATE INDEX."""

    index: IndexDef
    text: str
    """The statement as the user wrote it."""
    line: int
    reason: str = ""
    """The comment directly above the statement."""
    search_path: tuple[str, ...] | None = None
    """What a SET search_path above it in the file says; None means the session's."""
    in_transaction: bool = False
    column: int = 1
    """Where its first word stands in the line, in characters from 1."""
    ignores: tuple[Ignore, ...] = ()


@dataclass(frozen=True, slots=True)
class DropIndex(Record):
    """A planned DROP INDEX."""

    names: tuple[RelationName, ...]
    text: str
    line: int
    reason: str = ""
    concurrently: bool = False
    if_exists: bool = False
    cascade: bool = False
    search_path: tuple[str, ...] | None = None
    in_transaction: bool = False
    column: int = 1
    ignores: tuple[Ignore, ...] = ()


@dataclass(frozen=True, slots=True)
class CommentOnIndex(Record):
    """A planned COMMENT ON INDEX; it follows its index."""

    name: RelationName
    comment: str | None
    text: str
    line: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Surrounding(Record):
    """A statement that a migration tool puts around the others and the kit does in its own way."""

    kind: str
    """BEGIN, COMMIT, SET, RESET or ANALYZE."""
    text: str
    line: int
    reason: str = ""


PlanStatement = CreateIndex | DropIndex | CommentOnIndex | Surrounding


@dataclass(frozen=True, slots=True)
class IndexPlan(Record):
    """The ordered statements of a plan file."""

    statements: tuple[PlanStatement, ...]
    source: str = "plan.sql"
    text: str = field(default="", repr=False, compare=False)
    """What it was read from, for those who quote a line of it."""

    @property
    def creates(self) -> tuple[CreateIndex, ...]:
        """The CREATE INDEX statements, in order."""
        return tuple(item for item in self.statements if isinstance(item, CreateIndex))

    @property
    def drops(self) -> tuple[DropIndex, ...]:
        """The DROP INDEX statements, in order."""
        return tuple(item for item in self.statements if isinstance(item, DropIndex))

    @property
    def comments(self) -> tuple[CommentOnIndex, ...]:
        """The COMMENT ON INDEX statements, in order."""
        return tuple(item for item in self.statements if isinstance(item, CommentOnIndex))

    def frame(self) -> pd.DataFrame:
        """Return the statements as a pandas DataFrame, one row each, in order.

        Columns: `line` of the file, counted from 1; `kind`, such as CREATE INDEX; `statement` as
        it was written; `reason`, the comment above it.
        """
        import pandas as pd

        columns = ["line", "kind", "statement", "reason"]
        rows = [(item.line, _kind(item), item.text, item.reason) for item in self.statements]
        return pd.DataFrame(rows, columns=columns)

    def _title(self) -> str:
        drops = [units.plural(len(self.drops), "drop")] if self.drops else []
        counted = [units.plural(len(self.creates), "index"), *drops]
        return f"{Path(self.source).name}: {', '.join(counted)}"

    def __repr__(self) -> str:
        rows = [(item.line, item.text, item.reason) for item in self.statements]
        return records.text(self._title(), ("line", "statement", "reason"), rows)

    def _repr_html_(self) -> str:
        rows = [
            (item.line, display.inline_code(item.text), item.reason) for item in self.statements
        ]
        columns = ("line", "statement", "reason")
        return display.table(columns, rows, caption=self._title(), numeric=("line",))

    def to_sql(self) -> str:
        """Write the plan as SQL; reading it back gives the same indexes, drops and reasons."""
        return "\n".join(_written(item) for item in self.statements)


def _written(item: PlanStatement) -> str:
    reason = "".join(f"-- {line}\n" for line in item.reason.splitlines())
    if isinstance(item, CreateIndex | DropIndex):
        reason += "".join(f"-- {ignore}\n" for ignore in item.ignores)
    text = item.index.sql if isinstance(item, CreateIndex) else item.text.rstrip(";")
    return f"{reason}{text};\n"


def _kind(item: PlanStatement) -> str:
    match item:
        case CreateIndex():
            return "CREATE INDEX"
        case DropIndex():
            return "DROP INDEX"
        case CommentOnIndex():
            return "COMMENT ON INDEX"
        case Surrounding():
            return item.kind


def revised(statement: CreateIndex, index: IndexDef) -> CreateIndex:
    """Return the planned statement with another index in it; line and reason stay."""
    return replace(statement, index=index, text=index.sql, in_transaction=False)
