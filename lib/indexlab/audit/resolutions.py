"""Answers of the user to what an audit asks: `old=new` for a column, a table or a dropped index."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from indexlab.audit.verdicts import Finding
from indexlab.catalog import Catalog, Column, Relation
from indexlab.errors import InputError
from indexlab.sql import RelationName

OPEN = (
    "missing-column",
    "missing-table",
    "ambiguous-table",
    "wrong-schema",
    "missing-index",
    "ambiguous-index",
)
"""The rules whose findings a resolution answers."""
PART = re.compile(r'"((?:[^"]|"")+)"|([^".]+)')


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a name of the plan means."""

    old: tuple[str, ...]
    new: tuple[str, ...]
    text: str
    """As the user wrote it."""

    def column(self, catalog: Catalog, table: Relation, written: tuple[str, ...]) -> Column | None:
        """Return the column that is meant, if this speaks of it and there is one.

        Args:
            catalog: where to look.
            table: whose column it is.
            written: the table's name in the plan and the column's.
        """
        *prefix, name = self.old
        tables = ([table.name], [table.schema, table.name], list(written[:-1]))
        if not _same([name], written[-1:]) or not (
            not prefix or any(_same(prefix, known) for known in tables)
        ):
            return None
        if len(self.new) > 1 and not any(_same(self.new[:-1], known) for known in tables):
            return None
        columns = catalog.columns_of(table.oid)
        exact = [column for column in columns if column.name == self.new[-1]]
        folded = [column for column in columns if column.name == self.new[-1].lower()]
        return next(iter([*exact, *folded]), None)

    def table(self, catalog: Catalog, written: RelationName) -> Relation | None:
        """Return the table that is meant, if this speaks of it and there is one."""
        return self.relation(catalog) if self.speaks_of(written) else None

    def speaks_of(self, written: RelationName) -> bool:
        """Return whether this is about a table or an index of this name."""
        full = [written.name] if written.schema is None else [written.schema, written.name]
        speaks = _same(self.old, full) or _same(self.old, [written.name])
        return speaks and len(self.new) <= 2

    @property
    def meant(self) -> RelationName:
        """The new name, where it is that of a table or an index."""
        return RelationName(self.new[-2] if len(self.new) == 2 else None, self.new[-1])

    def relation(self, catalog: Catalog) -> Relation | None:
        """Return the table or the index that is meant, if there is one."""
        name = self.meant
        folded = RelationName(name.schema and name.schema.lower(), name.name.lower())
        return catalog.find(name) or catalog.find(folded)


def resolutions(pairs: Iterable[tuple[str, str]]) -> tuple[Resolution, ...]:
    """Read resolutions; pure.

    Raises:
        InputError: one is not of the form `column=column`, `table.column=column`,
            `table=schema.table` or `index=schema.index`.
    """
    read = []
    for old, new in pairs:
        text = f"{old}={new}"
        parts = _parts(old), _parts(new)
        if not all(parts):
            raise InputError(
                f"cannot resolve {text!r}: write column=column, table.column=column, "
                "table=schema.table or index=schema.index"
            )
        read.append(Resolution(*parts, text))
    return tuple(read)


def check(
    given: Iterable[Resolution], asked: Iterable[Finding], answered: Iterable[Finding]
) -> None:
    """See that every resolution answered something; pure.

    Args:
        given: the resolutions.
        asked: the findings of the audit without them.
        answered: the findings of the audit with them.

    Raises:
        InputError: one answers nothing, or names what does not exist; lists what is open.
    """
    used = {str(value) for f in answered if f.rule == "resolved" for _, value in f.evidence}
    for resolution in given:
        if resolution.text in used:
            continue
        questions = dict.fromkeys(_question(f) for f in asked if f.rule in OPEN)
        to_resolve = "; ".join(questions) or "nothing"
        raise InputError(
            f"cannot resolve {resolution.text!r}: no such name is open, or what it should be "
            f"does not exist. There is to resolve: {to_resolve}"
        )


def resolved(what: str, meant: str, resolution: Resolution) -> Finding:
    """Say that the user has answered."""
    return Finding(
        "resolved",
        "info",
        f"{what} is not found, and {meant} was said to be meant",
        meant,
        (("resolution", resolution.text),),
    )


def _question(finding: Finding) -> str:
    names = ", ".join(
        str(value) if name in ("candidates", "exists as") else name
        for name, value in finding.evidence
    )
    return f"{finding.subject} ({names})" if names else finding.subject


def _parts(text: str) -> tuple[str, ...]:
    parts = [
        (quoted.replace('""', '"') if quoted else bare.strip())
        for quoted, bare in PART.findall(text)
    ]
    whole = re.fullmatch(rf"(?:{PART.pattern})(?:\.(?:{PART.pattern}))*", text.strip())
    return tuple(parts) if whole and all(parts) else ()


def _same(one: Iterable[str], other: Iterable[str]) -> bool:
    """Compare names; one written without quotes may stand for its lower case."""
    ours, theirs = tuple(one), tuple(other)
    return ours == theirs or tuple(part.lower() for part in ours) == theirs
