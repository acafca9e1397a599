"""Index plans: the statements that a user wants, read and written through PostgreSQL's grammar."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from postgast.pg_query_pb2 import Node, ObjectType, VariableSetKind

from indexlab import display, records, rules, sql, units
from indexlab.errors import InputError
from indexlab.records import Record
from indexlab.sql import RelationName, Statement

if TYPE_CHECKING:
    import pandas as pd

ACCEPTED = (
    "CREATE INDEX and DROP INDEX, beside BEGIN, COMMIT, SET, RESET, ANALYZE and COMMENT ON INDEX"
)
EMPTY = "-- indexlab: nothing is left of this plan"
UNBEGUN = "-- indexlab: no index is planned yet"
"""The lines by which a file of comments is read as a plan without statements."""
DESCENDING, NULLS_FIRST, NULLS_LAST = 3, 2, 3  # SortByDir, SortByNulls of the grammar


@dataclass(frozen=True, slots=True)
class IndexKey(Record):
    """One key of an index: a column or an expression, and how it is ordered."""

    column: str | None
    """Name of the column; None for an expression."""
    expression: str
    """SQL of the key without its ordering; for a column, its quoted name."""
    columns: tuple[str, ...]
    """Every column that the key reads."""
    collation: tuple[str, ...] = ()
    """Collation as written, schema first when given; empty means the column's own."""
    opclass: tuple[str, ...] = ()
    """Operator class as written; empty means the type's default."""
    opclass_options: tuple[tuple[str, str], ...] = ()
    descending: bool = False
    nulls_first: bool = False


@dataclass(frozen=True, slots=True)
class IndexDef(Record):
    """A CREATE INDEX statement taken apart.

    Build one with `IndexDef.parse`; `sql` is the statement that the fields were read from.
    """

    name: str | None
    table: RelationName
    method: str
    unique: bool
    nulls_not_distinct: bool
    keys: tuple[IndexKey, ...]
    include: tuple[str, ...]
    predicate: str | None
    predicate_columns: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    tablespace: str | None
    concurrently: bool
    if_not_exists: bool
    only: bool
    sql: str

    @classmethod
    def parse(cls, text: str, source: str | Path = "<index>", line: int = 1) -> IndexDef:
        """Read one CREATE INDEX statement.

        Raises:
            InputError: the text is not exactly one CREATE INDEX statement.
        """
        statements = sql.parse(text, source, line)
        if len(statements) != 1 or statements[0].kind != "index_stmt":
            raise InputError(f"not one CREATE INDEX statement: {text!r}", source=source, line=line)
        return cls._of_statement(statements[0], source)

    @classmethod
    def _of_statement(cls, statement: Statement, source: str | Path) -> IndexDef:
        try:
            return cls._of_node(statement.node)
        except InputError as error:
            raise InputError(str(error), source=source, line=statement.line) from None

    @classmethod
    def _of_node(cls, node: Node) -> IndexDef:
        tree = node.index_stmt
        predicate = tree.where_clause if tree.HasField("where_clause") else None
        return cls(
            name=tree.idxname or None,
            table=RelationName(tree.relation.schemaname or None, tree.relation.relname),
            method=tree.access_method,
            unique=tree.unique,
            nulls_not_distinct=tree.nulls_not_distinct,
            keys=tuple(_key(item.index_elem) for item in tree.index_params),
            include=tuple(
                item.index_elem.name or sql.deparse_expression(item.index_elem.expr)
                for item in tree.index_including_params
            ),
            predicate=None if predicate is None else sql.deparse_expression(predicate),
            predicate_columns=() if predicate is None else _columns(predicate),
            options=tuple(_option(item) for item in tree.options),
            tablespace=tree.table_space or None,
            concurrently=tree.concurrent,
            if_not_exists=tree.if_not_exists,
            only=not tree.relation.inh,
            sql=sql.deparse(node),
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that the index reads, in keys, INCLUDE and predicate, each once."""
        used = [column for key in self.keys for column in key.columns]
        return tuple(dict.fromkeys([*used, *self.include, *self.predicate_columns]))

    def revise(
        self,
        *,
        name: str | None = None,
        table: RelationName | None = None,
        columns: Mapping[str, str] | None = None,
        concurrently: bool | None = None,
        if_not_exists: bool | None = None,
        only: bool | None = None,
    ) -> IndexDef:
        """Return the same index with other words; what is not given stays.

        Args:
            name: the new name of the index.
            table: the new name of the table.
            columns: new names by old name, applied in keys, INCLUDE and predicate.
            concurrently: whether the statement says CONCURRENTLY.
            if_not_exists: whether the statement says IF NOT EXISTS.
            only: whether the statement says ONLY, which leaves partitions out.

        Raises:
            InputError: the kit cannot write the statement back without a change of meaning.
        """
        node = Node()
        node.CopyFrom(sql.parse(self.sql, "<index>")[0].node)
        tree = node.index_stmt
        if name is not None:
            tree.idxname = sql.truncate(name)
        if table is not None:
            tree.relation.catalogname = ""
            tree.relation.schemaname, tree.relation.relname = table.schema or "", table.name
            for ref in _column_refs(tree):
                del ref.fields[:-1]  # a prefix would name the old table
        if concurrently is not None:
            tree.concurrent = concurrently
        if if_not_exists is not None:
            tree.if_not_exists = if_not_exists
        if only is not None:
            tree.relation.inh = not only
        if columns:
            _rename_columns(tree, columns)
        return IndexDef._of_node(node)


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
        name = Path(self.source).name
        counted = [(len(self.creates), "index"), (len(self.drops), "drop")]
        return f"{name}: " + ", ".join(
            units.plural(n, word) for n, word in counted if n or word == "index"
        )

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
                index = IndexDef._of_statement(item, source)
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


def _name(items: Any) -> RelationName:
    parts = [item.string.sval for item in items]
    return RelationName(parts[-2] if len(parts) > 1 else None, parts[-1])


def _sets_search_path(tree: Any) -> bool:
    return str(tree.name or VariableSetKind.Name(tree.kind)) in ("search_path", "VAR_RESET_ALL")


def _set_value(arg: Node) -> str:
    constant = arg.a_const
    return str(constant.sval.sval if constant.HasField("sval") else constant.ival.ival)


def _key(element: Any) -> IndexKey:
    descending = element.ordering == DESCENDING
    nulls = element.nulls_ordering
    is_column = bool(element.name)
    return IndexKey(
        column=element.name or None,
        expression=sql.quote(element.name) if is_column else sql.deparse_expression(element.expr),
        columns=(element.name,) if is_column else _columns(element.expr),
        collation=tuple(item.string.sval for item in element.collation),
        opclass=tuple(item.string.sval for item in element.opclass),
        opclass_options=tuple(_option(item) for item in element.opclassopts),
        descending=descending,
        nulls_first=nulls == NULLS_FIRST or (descending and nulls != NULLS_LAST),
    )


def _option(item: Node) -> tuple[str, str]:
    element = item.def_elem
    if not element.HasField("arg"):
        return element.defname, "true"
    kind = element.arg.WhichOneof("node")
    value = getattr(element.arg, kind)
    match kind:
        case "integer":
            text = str(value.ival)
        case "float":
            text = value.fval
        case "boolean":
            text = "true" if value.boolval else "false"
        case "string":
            text = value.sval
        case _:  # a word that the grammar takes for a type's name, such as auto
            text = ".".join(part.string.sval for part in getattr(value, "names", ()))
    return element.defname, text


def _column_refs(tree: Any) -> Iterator[Any]:
    for ref in sql.nodes(tree, "ColumnRef"):
        if ref.fields[-1].HasField("string"):
            yield ref


def _columns(expression: Node) -> tuple[str, ...]:
    names = (ref.fields[-1].string.sval for ref in _column_refs(expression))
    return tuple(dict.fromkeys(names))


def _rename_columns(tree: Any, columns: Mapping[str, str]) -> None:
    for item in (*tree.index_params, *tree.index_including_params):
        if item.index_elem.name in columns:
            item.index_elem.name = columns[item.index_elem.name]
    for ref in _column_refs(tree):
        field = ref.fields[-1].string
        field.sval = columns.get(field.sval, field.sval)


def revised(statement: CreateIndex, index: IndexDef) -> CreateIndex:
    """Return the planned statement with another index in it; line and reason stay."""
    return replace(statement, index=index, text=index.sql, in_transaction=False)
