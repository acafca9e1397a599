"""Ask a server whether it builds a planned index, on a copy of the table that nobody else sees.

1. Read from the target what a copy needs: columns, and the types, functions and extensions that
   they and the expressions use. The target is not changed.
2. In a scratch database of the embedded server, in one transaction, make the copy: the tables
   are empty, and they and the functions belong to a role that may do nothing else.
3. Run each CREATE INDEX behind a savepoint and keep what the server says.
4. Roll everything back.

Where the copy lacks something, the statement counts as not asked: nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql as compose

from indexlab import embedded, sql
from indexlab.audit.answers import Answer
from indexlab.audit.drafts import Draft
from indexlab.catalog import Catalog, Relation
from indexlab.catalog.structure import CopiedType, Structure, read_structure
from indexlab.errors import EmbeddedError, InputError
from indexlab.plan import IndexDef

DATABASE = "indexlab_scratch"
ROLE = "indexlab_scratch"
TURN = 4_906_313_287
"""Key of the lock that lets one session after the other into the scratch database."""
RESTRICTED = 170000
WORDS = (
    psycopg.errors.InvalidObjectDefinition,
    psycopg.errors.FeatureNotSupported,
    psycopg.errors.DatatypeMismatch,
    psycopg.errors.GroupingError,
    psycopg.errors.WindowingError,
    psycopg.errors.CollationMismatch,
    psycopg.errors.IndeterminateCollation,
    psycopg.errors.InvalidParameterValue,
    psycopg.errors.TooManyColumns,
)
"""The errors that speak of the statement; any other may be the copy's fault."""

SETTINGS = """
SELECT pg_catalog.set_config('statement_timeout', '10s', true),
       pg_catalog.set_config('check_function_bodies', 'off', true),
       pg_catalog.set_config('lc_messages', 'C', true),
       pg_catalog.set_config('client_min_messages', 'error', true)
"""
CREATE_ROLE = "CREATE ROLE {role} NOLOGIN"
MAY_CREATE = "GRANT CREATE ON DATABASE {database} TO {role}"
OWN_SCHEMA = "CREATE SCHEMA IF NOT EXISTS {schema}"
USE_SCHEMA = "GRANT ALL ON SCHEMA {schema} TO {role}"
EXTENSION = "CREATE EXTENSION IF NOT EXISTS {name} WITH SCHEMA {schema} CASCADE"
PATH = "SET LOCAL search_path = {path}"
BECOME = "SET LOCAL ROLE {role}"
ENUM = "CREATE TYPE {name} AS ENUM ({parts})"
DOMAIN = "CREATE DOMAIN {name} AS {base}"
COMPOSITE = "CREATE TYPE {name} AS ({parts})"
RANGE = "CREATE TYPE {name} AS RANGE (SUBTYPE = {base})"
TABLE = "CREATE TABLE {name} ({parts})"
DEFINITION = """
SELECT pg_catalog.pg_get_indexdef(i.indexrelid)
  FROM pg_catalog.pg_index AS i
 WHERE i.indrelid = pg_catalog.to_regclass(%s)
 ORDER BY i.indexrelid
"""


@dataclass(frozen=True, slots=True)
class Question:
    """A planned index to ask about."""

    statement: str
    """The index as the audit has it."""
    table: Relation
    asked: str
    """The statement to run: without CONCURRENTLY, tablespace and the like."""
    names: tuple[str, ...]
    """The functions, operators, operator classes and the method that it names."""


def wants_asking(draft: Draft) -> bool:
    """Return whether only a server can tell if a statement builds; pure."""
    index = draft.index
    return (
        draft.verdict is None
        and draft.relation is not None
        and (
            index.predicate is not None
            or any(key.column is None or key.opclass or key.collation for key in index.keys)
        )
    )


def ask(
    conn: psycopg.Connection[Any], catalog: Catalog, drafts: Iterable[Draft]
) -> tuple[Answer, ...]:
    """Ask the embedded server about all drafts that want it; reads only from the target.

    Without such a draft, no server is started.

    Args:
        conn: a connection to the target, in autocommit mode.
        catalog: the target.
        drafts: the planned statements, with tables and columns as corrected.
    """
    questions = tuple(_questions(drafts))
    if not questions:
        return ()
    tables = tuple({question.table.oid: question.table for question in questions}.values())
    names = sorted({name for question in questions for name in question.names})
    try:
        structure = read_structure(conn, [table.oid for table in tables], names)
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        return _none_asked(questions, f"the table's structure is not readable: {_said(error)}")
    try:
        with embedded.server() as server, _connected(server) as scratch:
            copy = _Copy.of(scratch, catalog, structure, tables)
            answers = tuple(copy.answer(question) for question in questions)
            scratch.rollback()
            return answers
    except (EmbeddedError, psycopg.Error) as error:
        return _none_asked(questions, f"there is no server to ask: {_said(error)}")


def _none_asked(questions: Iterable[Question], why: str) -> tuple[Answer, ...]:
    return tuple(Answer(question.statement, unasked=why) for question in questions)


def _questions(drafts: Iterable[Draft]) -> Iterator[Question]:
    seen: set[str] = set()
    for draft in drafts:
        if not wants_asking(draft) or draft.index.sql in seen:
            continue
        seen.add(draft.index.sql)
        parsed = sql.parse(draft.index.sql, "<index>")[0]
        yield Question(
            draft.index.sql, draft.table(), _bare(draft.index), tuple(_names(draft.index, parsed))
        )


def _bare(index: IndexDef) -> str:
    """Write the statement without what a scratch database lacks or a transaction forbids."""
    name = index.name or "indexlab_asked"
    bare = index.revise(name=name, concurrently=False, if_not_exists=False)
    node = sql.parse(bare.sql, "<index>")[0].node
    node.index_stmt.table_space = ""
    return sql.deparse(node)


def _names(index: IndexDef, parsed: sql.Statement) -> Iterator[str]:
    yield index.method
    for key in index.keys:
        yield from key.opclass[-1:]
    for call in sql.nodes(parsed.tree, "FuncCall"):
        yield call.funcname[-1].string.sval
    for operation in sql.nodes(parsed.tree, "A_Expr"):
        yield operation.name[-1].string.sval
    for reference in sql.nodes(parsed.tree, "ColumnRef"):  # t.f may be f(t)
        if reference.fields[-1].HasField("string"):
            yield reference.fields[-1].string.sval


def _connected(server: embedded.Server) -> psycopg.Connection[Any]:
    """Connect to the scratch database, which is there from the second time on."""
    try:
        return psycopg.connect(server.conninfo(DATABASE))
    except psycopg.OperationalError:
        _make_database(server)
        return psycopg.connect(server.conninfo(DATABASE))


def _make_database(server: embedded.Server) -> None:
    if DATABASE in server.databases():
        return
    try:
        server.create_database(DATABASE)
    except (EmbeddedError, psycopg.errors.UniqueViolation):
        if DATABASE not in server.databases():  # another process was not faster
            raise


@dataclass(frozen=True, slots=True)
class _Copy:
    """The tables' structure in a transaction that is never committed."""

    scratch: psycopg.Connection[Any]
    version: str
    functions: frozenset[str]
    """The names of the target's own functions."""
    broken_functions: str
    """Why not all of these functions could be copied; empty if they could."""
    broken_tables: tuple[tuple[int, str], ...]
    """Which tables could not be copied, and why."""
    restricted: bool
    """Whether the target builds indexes under a search_path of its own, as 17 and newer do."""

    @classmethod
    def of(
        cls,
        scratch: psycopg.Connection[Any],
        catalog: Catalog,
        structure: Structure,
        tables: tuple[Relation, ...],
    ) -> _Copy:
        """Make the copy."""
        scratch.execute("SELECT pg_catalog.pg_advisory_xact_lock(%s)", [TURN])
        scratch.execute(SETTINGS)
        role = compose.Identifier(ROLE)
        _run(scratch, CREATE_ROLE, role=role)
        _run(scratch, MAY_CREATE, role=role, database=compose.Identifier(DATABASE))
        for schema in dict.fromkeys(_schemas(structure, tables)):
            name = compose.Identifier(schema)
            _run(scratch, OWN_SCHEMA, schema=name)
            _run(scratch, USE_SCHEMA, schema=name, role=role)
        for extension in structure.extensions:
            _tried(
                scratch,
                EXTENSION,
                name=compose.Identifier(extension.name),
                schema=compose.Identifier(extension.schema),
            )
        # An expression of constants is evaluated: what the target's users wrote may do nothing.
        _run(scratch, BECOME, role=role)
        for item in structure.types:
            template, parts = _type(item)
            _tried(scratch, template, **parts)
        broken_tables = tuple(
            (table.oid, refused)
            for table in tables
            if (refused := _tried(scratch, TABLE, **_table(structure, table)))
        )
        broken = [
            f"{function.name}: {refused}"
            for function in structure.functions
            if (refused := _function(scratch, function.definition))
        ]
        path = compose.SQL(", ").join(map(compose.Literal, catalog.search_path or [""]))
        _run(scratch, PATH, path=path)
        return cls(
            scratch=scratch,
            version=str(scratch.info.server_version // 10000)
            + f".{scratch.info.server_version % 10000}",
            functions=frozenset(function.name for function in structure.functions),
            broken_functions="; ".join(broken),
            broken_tables=broken_tables,
            restricted=catalog.server.version >= RESTRICTED,
        )

    def answer(self, question: Question) -> Answer:
        """Have the server build one index on the empty copy, and take it back."""
        lacking = self._lacking(question)
        if lacking:
            return self._unasked(question, lacking)
        try:
            with self.scratch.transaction(force_rollback=True):
                self.scratch.execute(question.asked.encode(), binary=True)
                table = str(question.table.qualified)
                row = self.scratch.execute(DEFINITION, [table]).fetchone()
        except psycopg.Error as error:
            if self.scratch.closed:
                raise
            if isinstance(error, WORDS) or self._hidden(error):
                return Answer(question.statement, refusal=_said(error), version=self.version)
            return self._unasked(question, _said(error))
        return Answer(question.statement, row[0] if row else "", version=self.version)

    def _lacking(self, question: Question) -> str:
        """Say what of the target that a statement uses is not in the copy."""
        for oid, why in self.broken_tables:
            if oid == question.table.oid:
                return f"its table cannot be copied: {why}"
        if self.broken_functions and self.functions & set(question.names):
            return f"a function cannot be copied: {self.broken_functions}"
        return ""

    def _hidden(self, error: psycopg.Error) -> bool:
        """Return whether a function calls one that the target would not find either.

        What was copied is all there; since 17 a function finds nothing by the search_path.
        """
        return (
            self.restricted
            and not self.broken_functions
            and isinstance(error, psycopg.errors.UndefinedFunction)
            and "during inlining" in (error.diag.context or "")
        )

    def _unasked(self, question: Question, why: str) -> Answer:
        return Answer(question.statement, unasked=why, version=self.version)


def _schemas(structure: Structure, tables: Iterable[Relation]) -> Iterator[str]:
    yield from (table.schema for table in tables)
    for items in (structure.types, structure.functions, structure.extensions):
        yield from (item.schema for item in items if not item.schema.startswith("pg_"))


def _type(item: CopiedType) -> tuple[LiteralString, dict[str, compose.Composable]]:
    name = compose.Identifier(item.schema, item.name)
    match item.kind:
        case "e":
            labels = compose.SQL(", ").join(map(compose.Literal, item.labels))
            return ENUM, {"name": name, "parts": labels}
        case "d":
            return DOMAIN, {"name": name, "base": _verbatim(item.base)}
        case "r":
            return RANGE, {"name": name, "base": _verbatim(item.base)}
        case _:
            pairs = zip(item.attributes, item.attribute_types, strict=True)
            return COMPOSITE, {"name": name, "parts": _declared((*pair, "") for pair in pairs)}


def _table(structure: Structure, table: Relation) -> dict[str, compose.Composable]:
    columns = (
        (column.name, column.type, column.collation)
        for column in structure.columns
        if column.table == table.oid
    )
    return {"name": compose.Identifier(table.schema, table.name), "parts": _declared(columns)}


def _declared(columns: Iterable[tuple[str, str, str]]) -> compose.Composed:
    """Declare columns of a name, a type and perhaps a collation."""
    return compose.SQL(", ").join(
        compose.Identifier(name)
        + compose.SQL(" ")
        + _verbatim(type_ + (f" COLLATE {collation}" if collation else ""))
        for name, type_, collation in columns
    )


def _function(scratch: psycopg.Connection[Any], definition: str) -> str:
    """Copy a function; return why that is refused."""
    try:
        kinds = [statement.kind for statement in sql.parse(definition, "<function>")]
    except InputError as error:
        return str(error)
    if kinds != ["create_function_stmt"]:
        return "its definition is not one CREATE FUNCTION"
    return _tried(scratch, "{definition}", definition=_verbatim(definition))


def _tried(
    scratch: psycopg.Connection[Any], template: LiteralString, **parts: compose.Composable
) -> str:
    """Run a statement behind a savepoint; return why it is refused."""
    try:
        with scratch.transaction():
            _run(scratch, template, **parts)
    except psycopg.Error as error:
        if scratch.closed:
            raise
        return _said(error)
    return ""


def _run(
    scratch: psycopg.Connection[Any], template: LiteralString, **parts: compose.Composable
) -> None:
    """Run one statement; binary, as the server then accepts no second one behind it."""
    scratch.execute(compose.SQL(template).format(**parts), binary=True)


def _verbatim(text: str) -> compose.SQL:
    """Put the target's own words into a statement as they stand."""
    return compose.SQL(text)


def _said(error: Exception) -> str:
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return " ".join((primary or str(error)).split())
