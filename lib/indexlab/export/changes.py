"""What a migration does, whatever the tool: statements up, statements down, and words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath

from indexlab.audit import Audit, StatementAudit, statement_sql
from indexlab.display import clean
from indexlab.plan import CommentOnIndex, CreateIndex
from indexlab.sql import RelationName

NOTICE = (
    "Each statement runs outside of a transaction, as CONCURRENTLY must: one that fails leaves an",
    "INVALID index behind. There is no IF NOT EXISTS on purpose: it compares the name only and",
    "would skip over that leftover. Drop the leftover, then run the migration again.",
)


@dataclass(frozen=True, slots=True)
class Change:
    """One index that is built or dropped."""

    up: tuple[str, ...]
    """Statements without semicolons."""
    down: tuple[str, ...]
    reason: tuple[str, ...]
    """The plan's comment, line by line; safe in a comment of any language."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a migration."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Migration:
    """The changes with what a tool wants beside them."""

    changes: tuple[Change, ...]
    identity: str
    """Twelve hexadecimal digits of what it does: the same plan gives the same."""
    now: datetime
    notes: tuple[str, ...]
    """What a reader must know, line by line."""

    @classmethod
    def of(cls, audit: Audit, wanted: tuple[Change, ...], now: datetime) -> Migration:
        """Put the changes of an audit together."""
        words = repr([(change.up, change.down) for change in wanted])
        left_out = tuple(
            f"Left out, {item.verdict}: line {item.statement.line}, {_flat(item.label)}"
            for item in audit.statements
            if item.revised is None
        )
        source = _flat(PurePath(audit.source).name)
        return cls(
            wanted,
            hashlib.sha256(words.encode()).hexdigest()[:12],
            now,
            (f"{source}, as revised by indexlab audit.", *NOTICE, *left_out),
        )

    @property
    def number(self) -> int:
        """The identity as a number of eight digits, for names that want digits."""
        return int(self.identity, 16) % 10**8

    @property
    def backwards(self) -> tuple[str, ...]:
        """The statements that take everything back, the last change first."""
        return tuple(text for change in reversed(self.changes) for text in change.down)


def changes(audit: Audit) -> tuple[Change, ...]:
    """Return what the revised plan does, in order, and what takes each of it back; pure."""
    return tuple(_change(audit, item) for item in audit.kept)


def _change(audit: Audit, item: StatementAudit) -> Change:
    return Change(
        up=tuple(_up(audit, item)),
        down=item.backwards,
        reason=tuple(_flat(line) for line in item.statement.reason.splitlines()),
    )


def _up(audit: Audit, item: StatementAudit) -> Iterator[str]:
    assert item.revised is not None
    if not isinstance(item.revised, CreateIndex):
        yield statement_sql(item.revised)
        return
    yield from (f.fix.rstrip(";") for f in item.findings if f.rule == "invalid-leftover")
    index = item.revised.index
    yield from item.parts or (index.revise(if_not_exists=False).sql,)
    name = RelationName(index.table.schema, index.name or "")
    for other in audit.revised.statements:
        if isinstance(other, CommentOnIndex) and other.name == name:
            yield other.text.rstrip(";")


def _flat(text: str) -> str:
    """Return text without anything that could end a comment."""
    return clean(" ".join(text.split())).replace("*/", "* /")
