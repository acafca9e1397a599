"""Where in the plan file the word stands that a finding is about."""

from __future__ import annotations

from dataclasses import dataclass

from indexlab import sql
from indexlab.audit.verdicts import Finding, StatementAudit
from indexlab.plan import CreateIndex, DropIndex
from indexlab.records import Record
from indexlab.sql import Word


@dataclass(frozen=True, slots=True)
class Place(Record):
    """A stretch of the plan file; lines and columns in characters from 1, the end not included."""

    line: int
    column: int
    end_line: int
    end_column: int


def place(item: StatementAudit, finding: Finding) -> Place:
    """Find the word that a finding on a statement is about; else the index's or table's name."""
    for ignore in item.statement.ignores:
        if finding.rule == "unused-ignore" and ignore.rule == finding.subject:
            return Place(ignore.line, 1, ignore.line, len(f"-- {ignore}") + 1)
    words = sql.words(item.statement.text)
    subject = [word.value for word in sql.words(finding.subject) if word.is_name]
    if isinstance(item.statement, CreateIndex):
        found = _in_create(item.statement, words, finding.rule, subject)
    else:
        found = _in_drop(item.statement, words)
    return _place(item.statement, found[0].start, found[-1].end)


def _in_create(
    statement: CreateIndex, words: tuple[Word, ...], rule: str, subject: list[str]
) -> tuple[Word, ...]:
    on = next(n for n, word in enumerate(words) if _is(statement, word, "on"))
    end = next(
        n
        for n, word in enumerate(words)
        if n > on + 1 and (word.value == "(" or _is(statement, word, "using"))
    )
    first = on + (2 if _is(statement, words[on + 1], "only") else 1)
    table = words[first:end]
    name = words[on - 1 : on] if statement.index.name else ()
    wanted = subject[-1] if subject else ""
    named = tuple(word for word in words[end:] if word.is_name and word.value == wanted)[:1]
    of_table = table if wanted == statement.index.table.name else ()
    of_name = name if wanted == sql.truncate(statement.index.name or "") else ()
    if "column" in rule or len(subject) > 2:
        return named or of_table or name or table
    if "table" in rule or "schema" in rule:
        return of_table or of_name or named or table
    return of_name or of_table or named or name or table


def _in_drop(statement: DropIndex, words: tuple[Word, ...]) -> tuple[Word, ...]:
    """Find the one name that is left in the statement, with its schema."""
    (name,) = statement.names
    parts = [part for part in (name.schema, name.name) if part is not None]
    length = 2 * len(parts) - 1
    for n, word in enumerate(words):
        if word.value == parts[0] and [w.value for w in words[n : n + length : 2]] == parts:
            return words[n : n + length]
    return words[:2]


def _is(statement: CreateIndex, word: Word, keyword: str) -> bool:
    return statement.text[word.start : word.end].lower() == keyword


def _place(statement: CreateIndex | DropIndex, start: int, end: int) -> Place:
    return Place(*_position(statement, start), *_position(statement, end))


def _position(statement: CreateIndex | DropIndex, offset: int) -> tuple[int, int]:
    before = statement.text[:offset]
    newlines = before.count("\n")
    column = offset - before.rfind("\n") if newlines else statement.column + offset
    return statement.line + newlines, column
