"""One index as a statement defines it, read and written through PostgreSQL's grammar."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from postgast.pg_query_pb2 import Node

from indexlab import sql
from indexlab.errors import InputError
from indexlab.records import Record
from indexlab.sql import RelationName, Statement

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
        return cls.of_statement(statements[0], source)

    @classmethod
    def of_statement(cls, statement: Statement, source: str | Path) -> IndexDef:
        """Take the index out of a CREATE INDEX statement that has been parsed.

        Raises:
            InputError: the kit cannot write it back without a change of meaning.
        """
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
        tablespace: str | None = None,
    ) -> IndexDef:
        """Return the same index with other words; what is not given stays.

        Args:
            name: the new name of the index.
            table: the new name of the table.
            columns: new names by old name, applied in keys, INCLUDE and predicate.
            concurrently: whether the statement says CONCURRENTLY.
            if_not_exists: whether the statement says IF NOT EXISTS.
            only: whether the statement says ONLY, which leaves partitions out.
            tablespace: where the index is to be; empty for the default.

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
        if tablespace is not None:
            tree.table_space = tablespace
        if columns:
            _rename_columns(tree, columns)
        return IndexDef._of_node(node)


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
