"""Reading plan files; what a plan may not hold is refused with its line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from postgast.pg_query_pb2 import Node, ObjectType, VariableSetKind

from indexlab import rules, sql
from indexlab.errors import InputError
from indexlab.plan.definition import IndexDef
from indexlab.plan.statements import (
    CommentOnIndex,
    CreateIndex,
    DropIndex,
    Ignore,
    IndexPlan,
    PlanStatement,
    Surrounding,
)
from indexlab.sql import RelationName, Statement

ACCEPTED = (
    "CREATE INDEX and DROP INDEX, beside BEGIN, COMMIT, SET, RESET, ANALYZE and COMMENT ON INDEX"
)
EMPTY = "-- indexlab: nothing is left of this plan"
UNBEGUN = "-- indexlab: no index is planned yet"
"""The lines by which a file of comments is read as a plan without statements."""


def read(path: Path) -> IndexPlan:
    """Read a plan file; reads only.

    Raises:
        InputError: the file cannot be read, is empty, or holds something that is not accepted.
    """
    return parse(sql.read_text(path), path.as_posix())


def parse(text: str, source: str = "plan.sql") -> IndexPlan:
    """Read a plan from text.

    Raises:
        InputError: a syntax error or a statement that a plan may not hold; names file and line.
    """
    statements = tuple(_statements(sql.parse(text, source), source))
    kept = any(isinstance(item, CreateIndex | DropIndex) for item in statements)
    if not kept and (statements or not {EMPTY, UNBEGUN}.intersection(text.splitlines())):
        raise InputError("holds no CREATE INDEX or DROP INDEX statement", source=source)
    _check_ignores(text, statements, source)
    return IndexPlan(statements, source, text)


def _statements(parsed: tuple[Statement, ...], source: str) -> Iterator[PlanStatement]:
    session_path: tuple[str, ...] | None = None
    search_path: tuple[str, ...] | None = None
    in_transaction = False
    for item in parsed:
        tree = item.tree
        where: dict[str, Any] = {"text": item.text, "line": item.line, "reason": _reason(item)}
        judged: dict[str, Any] = {"column": item.column, "ignores": tuple(_ignores(item, source))}
        match item.kind:
            case "index_stmt":
                index = IndexDef.of_statement(item, source)
                yield CreateIndex(
                    index,
                    **where,
                    **judged,
                    search_path=search_path,
                    in_transaction=in_transaction,
                )
            case "drop_stmt" if _object_type(tree.remove_type) == "OBJECT_INDEX":
                yield DropIndex(
                    tuple(_name(entry.list.items) for entry in tree.objects),
                    **where,
                    **judged,
                    concurrently=tree.concurrent,
                    if_exists=tree.missing_ok,
                    cascade=tree.behavior == 2,  # DROP_CASCADE
                    search_path=search_path,
                    in_transaction=in_transaction,
                )
            case "comment_stmt" if _object_type(tree.objtype) == "OBJECT_INDEX":
                yield CommentOnIndex(_name(tree.object.list.items), tree.comment or None, **where)
            case "transaction_stmt" if (kind := _TRANSACTION.get(tree.kind)) is not None:
                in_transaction = kind == "BEGIN" or tree.chain
                if kind == "COMMIT":
                    search_path = session_path  # SET LOCAL ends here
                yield Surrounding(kind, **where)
            case "variable_set_stmt":
                if _sets_search_path(tree) and (in_transaction or not tree.is_local):
                    search_path = tuple(_set_value(arg) for arg in tree.args) or None
                    session_path = session_path if tree.is_local else search_path
                yield Surrounding("SET" if tree.args else "RESET", **where)
            case "vacuum_stmt" if not tree.is_vacuumcmd:
                yield Surrounding("ANALYZE", **where)
            case _:
                words = " ".join(item.text.split()[:3])
                raise InputError(
                    f"a plan may not hold {words!r}: it holds {ACCEPTED}; "
                    "take the statement out and run it with your migration tool",
                    source=source,
                    line=item.line,
                )


IGNORE = re.compile(r"--\s*indexlab:\s*ignore\b(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
ACCEPTANCE = re.compile(r"\s+(?P<rule>\S+)\s+because\s+(?P<reason>\S.*)", re.IGNORECASE | re.DOTALL)


def _reason(item: Statement) -> str:
    """Return the comment above without what it says to the audit."""
    said = [sql.comment_text(c.text) for c in item.above if not IGNORE.fullmatch(c.text)]
    return "\n".join(line for part in said for line in part.splitlines() if line)


def _ignores(item: Statement, source: str) -> Iterator[Ignore]:
    for comment in item.above:
        asked = IGNORE.fullmatch(comment.text)
        if asked is None:
            continue
        accepted = ACCEPTANCE.fullmatch(asked["rest"])
        if accepted is None:
            raise InputError(
                f"{sql.comment_text(comment.text)!r} gives no rule or no reason: write "
                "-- indexlab: ignore RULE because REASON",
                source=source,
                line=comment.line,
            )
        if accepted["rule"] not in rules.names():
            near = rules.nearest(accepted["rule"])
            raise InputError(
                f"there is no rule {accepted['rule']!r}"
                + (f", did you mean {near!r}?" if near else "")
                + "; `indexlab explain-rule` lists them",
                source=source,
                line=comment.line,
            )
        yield Ignore(accepted["rule"], accepted["reason"].strip(), comment.line)


def _check_ignores(text: str, statements: Iterable[PlanStatement], source: str) -> None:
    """Refuse what would be without effect: nobody may trust in it."""
    if not IGNORE.search(text):
        return
    heard = {
        ignore.line
        for item in statements
        if isinstance(item, CreateIndex | DropIndex)
        for ignore in item.ignores
    }
    for comment in sql.line_comments(text):
        if IGNORE.fullmatch(comment.text) and comment.line not in heard:
            raise InputError(
                "stands above no statement that could be ignored: put it on a line of its own "
                "directly above a CREATE INDEX or DROP INDEX",
                source=source,
                line=comment.line,
            )


_TRANSACTION = {1: "BEGIN", 2: "BEGIN", 3: "COMMIT"}  # TransactionStmtKind: BEGIN, START, COMMIT


def _object_type(number: int) -> str:
    return str(ObjectType.Name(number))


def _name(items: Any) -> RelationName:
    parts = [item.string.sval for item in items]
    return RelationName(parts[-2] if len(parts) > 1 else None, parts[-1])


def _sets_search_path(tree: Any) -> bool:
    return str(tree.name or VariableSetKind.Name(tree.kind)) in ("search_path", "VAR_RESET_ALL")


def _set_value(arg: Node) -> str:
    constant = arg.a_const
    return str(constant.sval.sval if constant.HasField("sval") else constant.ival.ival)
