"""What of a schema dump a sandbox loads, and in which words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from indexlab import sql
from indexlab.errors import InputError
from indexlab.sql import RelationName

NOT_NULL, GENERATED, CHECK = 2, 5, 6  # ConstrType of the grammar
ADD_CONSTRAINT, ATTACH_PARTITION, ADD_INHERIT = 17, 60, 50  # AlterTableType
NEEDED_CHANGES = (ADD_CONSTRAINT, ATTACH_PARTITION, ADD_INHERIT)
KEPT_COLUMN_CONSTRAINTS = (NOT_NULL, GENERATED)
PRIVILEGED = (
    "create_extension_stmt",
    "create_op_class_stmt",
    "create_op_family_stmt",
    "alter_op_family_stmt",
    "create_cast_stmt",
    "create_transform_stmt",
    "create_plang_stmt",
)
"""What only a superuser makes; none of it runs a function of the target's users."""
KINDS = {
    "create_schema_stmt": "schema",
    "create_extension_stmt": "extension",
    "create_stmt": "table",
    "index_stmt": "index",
    "view_stmt": "view",
    "create_table_as_stmt": "materialized view",
    "create_function_stmt": "function",
    "create_domain_stmt": "type",
    "create_enum_stmt": "type",
    "create_range_stmt": "type",
    "composite_type_stmt": "type",
    "define_stmt": "",
    "create_op_class_stmt": "operator class",
    "create_op_family_stmt": "operator family",
    "alter_op_family_stmt": "operator family",
    "create_cast_stmt": "cast",
    "create_transform_stmt": "transform",
    "create_plang_stmt": "language",
    "create_seq_stmt": "sequence",
    "create_stats_stmt": "statistics",
    "alter_table_stmt": "",
    "alter_tsconfiguration_stmt": "text search configuration",
}
"""The statements that a planner's copy needs; all others are left out."""

NAME_FIELDS = {
    "create_schema_stmt": "schemaname",
    "create_extension_stmt": "extname",
    "view_stmt": "view",
    "create_seq_stmt": "sequence",
    "composite_type_stmt": "typevar",
    "create_function_stmt": "funcname",
    "create_domain_stmt": "domainname",
    "create_enum_stmt": "type_name",
    "create_range_stmt": "type_name",
    "define_stmt": "defnames",
    "create_stats_stmt": "defnames",
    "create_op_class_stmt": "opclassname",
    "create_op_family_stmt": "opfamilyname",
}
NAMED = {
    "TypeName": "names",
    "CollateClause": "collname",
    "IndexElem": "collation",
    "DefineStmt": "defnames",
}
"""Where these nodes have their name."""


@dataclass(frozen=True, slots=True)
class Step:
    """One statement to load."""

    text: str
    object: str
    """What it makes: `table core.bookings`."""
    kind: str
    """Of the parse node; empty where the kit's grammar cannot read the statement."""
    privileged: bool = False
    plainer: tuple[str, ...] = ()
    """What to try in its place when it is refused, one after the other."""
    lost: str = ""
    """What is lost when a plainer one is taken."""


def steps(dump: str, asked: str) -> tuple[Step, ...]:
    """Take a dump apart and leave out what no plan depends on; pure.

    Defaults, triggers, policies, rules, comments, owners and grants go before they can keep a
    table from being made. CHECK constraints matter to inheritance only, and follow their table.
    Columns are stored plainly, which no plan depends on: a TOAST table and its index are two
    thirds of the work of making a table.

    Args:
        dump: the plain text of pg_dump, without rows.
        asked: the texts of the workload: sequences that it names are loaded.
    """
    return tuple(step for text in sql.split(dump) for step in _step(text, asked))


def _step(text: str, asked: str) -> Iterator[Step]:
    try:
        statement = sql.parse(text, "<dump>")[0]
    except InputError:
        yield Step(text, " ".join(text.split()[:4]), "")
        return
    kind, tree = statement.kind, statement.tree
    if kind not in KINDS or (kind == "create_seq_stmt" and tree.sequence.relname not in asked):
        return
    if kind == "create_stmt":
        yield from _table(statement)
    elif kind == "alter_table_stmt":
        yield from _change(statement)
    else:
        yield Step(text, _object(kind, tree), kind, kind in PRIVILEGED, *_plainer(statement))


def _table(statement: sql.Statement) -> Iterator[Step]:
    """CREATE TABLE with its columns, NOT NULL, generated columns and partitioning."""
    tree = statement.tree
    name = _relation(tree.relation)
    stripped = _edited(statement, lambda node: _strip(node, KEPT_COLUMN_CONSTRAINTS))
    bare = _edited(statement, lambda node: _strip(node, (NOT_NULL,)))
    generated = bare != stripped
    yield Step(
        stripped,
        f"table {name}",
        "create_stmt",
        plainer=(bare,) if generated else (),
        lost="its generated columns are plain ones" if generated else "",
    )
    if tree.inh_relations:
        for element in tree.table_elts:
            if element.constraint.contype == CHECK:
                yield _added(statement, element)


def _strip(tree: Any, kept: tuple[int, ...]) -> None:
    tree.tablespacename = ""
    tree.access_method = ""
    for element in list(tree.table_elts):
        if element.HasField("column_def"):
            column = element.column_def
            column.ClearField("raw_default")
            column.compression = ""
            column.storage_name = "plain"
            for item in list(column.constraints):
                if item.constraint.contype not in kept:
                    column.constraints.remove(item)
        elif element.HasField("constraint") and element.constraint.contype != NOT_NULL:
            tree.table_elts.remove(element)


def _added(statement: sql.Statement, element: Any) -> Step:
    """The CHECK constraint of a CREATE TABLE as a statement of its own."""
    holder = sql.parse("ALTER TABLE ONLY x ADD CONSTRAINT c CHECK (true)", "<check>")[0]
    tree = holder.tree
    tree.relation.CopyFrom(statement.tree.relation)
    tree.relation.inh = False
    getattr(tree.cmds[0].alter_table_cmd, "def").constraint.CopyFrom(element.constraint)
    name = _relation(tree.relation)
    words = f"constraint {sql.quote(element.constraint.conname)} of {name}"
    return Step(sql.deparse(holder.node, verified=False), words, holder.kind)


def _change(statement: sql.Statement) -> Iterator[Step]:
    """ALTER TABLE, where it says something that the planner reads."""
    tree = statement.tree
    commands = [item.alter_table_cmd for item in tree.cmds]
    if any(command.subtype not in NEEDED_CHANGES for command in commands):
        return
    name = _relation(tree.relation)
    words = f"partition of {name}"
    for command in commands:
        constraint = getattr(command, "def").constraint
        if command.subtype == ADD_CONSTRAINT and constraint.contype == CHECK:
            return
        if command.subtype == ADD_CONSTRAINT:
            words = f"constraint {sql.quote(constraint.conname)} of {name}"
        elif command.subtype == ATTACH_PARTITION:
            part = _relation(getattr(command, "def").partition_cmd.name)
            words = f"partition {part} of {name}"
    yield Step(statement.text, words, statement.kind)


def _plainer(statement: sql.Statement) -> tuple[tuple[str, ...], str]:
    """What may be tried in place of a refused statement, and what that loses."""
    tree = statement.tree
    if statement.kind == "create_domain_stmt" and tree.constraints:
        return (_edited(statement, _without_checks),), "its values are not checked"
    return (), ""


def _without_checks(tree: Any) -> None:
    for item in list(tree.constraints):
        if item.constraint.contype != NOT_NULL:
            tree.constraints.remove(item)


def _edited(statement: sql.Statement, edit: Callable[[Any], None]) -> str:
    """Change a copy of a statement; its own words where nothing changed."""
    copy = sql.copied(statement.node)
    edit(getattr(copy, statement.kind))
    if copy == statement.node:
        return statement.text
    return sql.deparse(copy, verified=False)


def _object(kind: str, tree: Any) -> str:
    """Say what a statement makes: `view core.days`."""
    if kind == "index_stmt":
        name = str(RelationName(tree.relation.schemaname or None, tree.idxname))
    elif kind == "create_table_as_stmt":
        name = _relation(tree.into.rel)
    elif kind in NAME_FIELDS:
        found = getattr(tree, NAME_FIELDS[kind])
        if isinstance(found, str):
            name = sql.quote(found)
        else:
            name = _relation(found) if hasattr(found, "relname") else _dotted(found)
    else:
        name = ""
    word = sql.object_word(tree.kind) if kind == "define_stmt" else KINDS[kind]
    return f"{word} {name}".strip()


def _relation(node: Any) -> str:
    return str(RelationName(node.schemaname or None, node.relname))


def _dotted(items: Iterable[Any]) -> str:
    return ".".join(sql.quote(item.string.sval) for item in items)


def names(text: str, *kinds: str) -> Iterator[tuple[str, ...]]:
    """Find the names in a statement's nodes of some kinds; pure.

    Args:
        text: of one statement.
        kinds: `TypeName`, `CollateClause`, `IndexElem` (its collation) or `DefineStmt`.
    """
    try:
        statement = sql.parse(text, "<dump>")[0]
    except InputError:
        return
    for node in sql.nodes(statement.node, *kinds):
        parts = getattr(node, NAMED[node.DESCRIPTOR.name])
        if parts:
            yield tuple(item.string.sval for item in parts)
