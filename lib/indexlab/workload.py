"""Workloads: named, weighted queries, and the parameter values that they are run with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psycopg

from indexlab import display, records, sql, units
from indexlab.errors import InputError
from indexlab.records import Record

if TYPE_CHECKING:
    import pandas as pd

HEADER = re.compile(r"^--\s*(name|weight|param)\b\s*(.*)$", re.IGNORECASE)
UNBEGUN = "-- indexlab: no query is written yet"
"""The line by which a file of comments is read as a workload without queries."""
READABLE = ("select_stmt",)
WRITING = ("insert_stmt", "update_stmt", "delete_stmt", "merge_stmt")
SAMPLER_ROWS = 1000

Values = tuple[str | None, ...]
"""Values of one execution, as text, in the order of `Query.parameters`."""


@dataclass(frozen=True, slots=True)
class Sampler(Record):
    """A query whose rows are values for one or more parameters."""

    names: tuple[str, ...]
    sql: str
    line: int


@dataclass(frozen=True, slots=True)
class Query(Record):
    """One statement of the workload."""

    name: str
    sql: str
    """The statement as written, with `:name` placeholders."""
    statement: str
    """The statement with numbered placeholders, for the server."""
    parameters: tuple[str, ...]
    """Names of the placeholders, in order of number."""
    samplers: tuple[Sampler, ...]
    kind: Literal["read", "write"]
    weight: float
    """Calls per unit of time, relative to the other queries."""
    line: int
    generic: bool = False
    """Whether it is normalized text, as pg_stat_statements shows it: it has `$1`, `$2`, ... of its
    own and no values to run with, so that it can be planned, but not executed."""


@dataclass(frozen=True, slots=True)
class Workload(Record):
    """The queries that matter."""

    queries: tuple[Query, ...]
    source: str = "workload.sql"

    @property
    def reads(self) -> tuple[Query, ...]:
        """The queries that change nothing."""
        return tuple(query for query in self.queries if query.kind == "read")

    @property
    def writes(self) -> tuple[Query, ...]:
        """The queries that change rows or lock them."""
        return tuple(query for query in self.queries if query.kind == "write")

    @property
    def executable(self) -> tuple[Query, ...]:
        """The queries that can be run: not those of which only normalized text is there."""
        return tuple(query for query in self.queries if not query.generic)

    def frame(self) -> pd.DataFrame:
        """Return the queries as a pandas DataFrame, one row each, in order.

        Columns: `line` of the file, counted from 1; `query`, its name; `kind`, read or write;
        `weight`, calls per unit of time; `parameters`, with commas; `runs`, whether there are
        values to run it with; `statement` as it was written.
        """
        import pandas as pd

        columns = ["line", "query", "kind", "weight", "parameters", "runs", "statement"]
        rows = [
            (
                one.line,
                one.name,
                one.kind,
                one.weight,
                ", ".join(one.parameters),
                not one.generic,
                one.sql,
            )
            for one in self.queries
        ]
        return pd.DataFrame(rows, columns=columns)

    def _title(self) -> str:
        reads = units.plural(len(self.reads), "read")
        return f"{Path(self.source).name}: {reads}, {units.plural(len(self.writes), 'write')}"

    def __repr__(self) -> str:
        rows = [(one.name, one.kind, f"{one.weight:g}", one.statement) for one in self.queries]
        return records.text(self._title(), ("query", "kind", "weight", "statement"), rows)

    def _repr_html_(self) -> str:
        rows = [
            (
                one.name,
                one.kind,
                f"{one.weight:g}",
                ", ".join(one.parameters),
                display.inline_code(one.sql.strip()),
            )
            for one in self.queries
        ]
        columns = ("query", "kind", "weight", "parameters", "statement")
        return display.table(columns, rows, caption=self._title(), numeric=("weight",))


@dataclass(frozen=True, slots=True)
class SampledQuery(Record):
    """A query with the values that every measurement of it uses."""

    query: Query
    values: tuple[Values, ...]

    def frame(self) -> pd.DataFrame:
        """Return the values as a pandas DataFrame, one row for each set, as text.

        Columns are the query's parameters, in order of number.
        """
        import pandas as pd

        return pd.DataFrame(list(self.values), columns=list(self.query.parameters))

    def __repr__(self) -> str:
        sets = units.plural(len(self.values), "set")
        return f"<SampledQuery {display.clean(self.query.name)}: {sets} of values>"

    def _repr_html_(self) -> str:
        columns = self.query.parameters or ("no parameter",)
        rows = self.values if self.query.parameters else ()
        return display.table(columns, rows, caption=f"values of {self.query.name}")


def read(path: Path) -> Workload:
    """Read a workload file; reads only.

    Raises:
        InputError: the file cannot be read or is not a workload; names file and line.
    """
    return parse(sql.read_text(path), path.as_posix())


def parse(text: str, source: str = "workload.sql") -> Workload:
    """Read a workload from text.

    Raises:
        InputError: names the query, the line and what to do.
    """
    queries: list[Query] = []
    for block in _blocks(text, source):
        query = block.query(source)
        if any(other.name == query.name for other in queries):
            raise InputError(f"query {query.name!r} is there twice", source=source, line=query.line)
        queries.append(query)
    if not queries and UNBEGUN not in text.splitlines():
        raise InputError("holds no query: each begins with a line -- name: ...", source=source)
    return Workload(tuple(queries), source)


@dataclass(slots=True)
class _Block:
    """The lines from one `-- name:` to the next."""

    name: str
    line: int
    weight: float
    samplers: list[Sampler]
    body: list[str]
    body_line: int

    def query(self, source: str) -> Query:
        text = "\n".join(self.body)
        bound, names = sql.bind_names(text, source, self.body_line)
        statements = sql.parse(bound, source, self.body_line)
        if len(statements) != 1:
            raise InputError(
                f"query {self.name!r} has {len(statements)} statements: it needs exactly one",
                source=source,
                line=self.line,
            )
        statement = statements[0]
        if statement.kind not in READABLE + WRITING or _creates(statement.tree):
            words = " ".join(statement.text.split()[:3])
            raise InputError(
                f"query {self.name!r} may not be {words!r}: a workload holds "
                "SELECT, INSERT, UPDATE, DELETE and MERGE",
                source=source,
                line=statement.line,
            )
        self._check_samplers(names, source)
        return Query(
            name=self.name,
            sql=sql.without_outer_comments(text),
            statement=statement.text,
            parameters=names,
            samplers=tuple(self.samplers),
            kind="write" if _writes(statement.tree) else "read",
            weight=self.weight,
            line=self.line,
            generic=any(True for _ in sql.nodes(statement.tree, "ParamRef")) and not names,
        )

    def _check_samplers(self, names: tuple[str, ...], source: str) -> None:
        sampled = [name for sampler in self.samplers for name in sampler.names]
        for name in names:
            if name not in sampled:
                raise InputError(
                    f"query {self.name!r} uses :{name}, which has no sampler: "
                    f"add a line -- param {name}: SELECT ...",
                    source=source,
                    line=self.line,
                )
        for sampler in self.samplers:
            for name in sampler.names:
                if name not in names or sampled.count(name) > 1:
                    what = "is not used" if name not in names else "has two samplers"
                    raise InputError(
                        f"parameter {name!r} of query {self.name!r} {what}",
                        source=source,
                        line=sampler.line,
                    )


def _blocks(text: str, source: str) -> Iterator[_Block]:
    block: _Block | None = None
    for number, line in enumerate(text.split("\n"), 1):
        header = HEADER.match(line.strip())
        if header is None:
            if block is not None:
                block.body.append(line)
            elif line.strip() and not line.strip().startswith("--"):
                raise InputError(
                    "a query needs a line -- name: ... above it", source=source, line=number
                )
            continue
        word, rest = header[1].lower(), header[2]
        if word == "name":
            if block is not None:
                yield block
            block = _Block(
                _header_value(word, rest, source, number), number, 1.0, [], [], number + 1
            )
            continue
        if block is None:
            raise InputError(
                f"-- {word} before the first -- name: line", source=source, line=number
            )
        if word == "weight":
            block.weight = _weight(_header_value(word, rest, source, number), source, number)
        else:
            block.samplers.append(_sampler(rest, source, number))
        block.body.append("")
    if block is not None:
        yield block


def _header_value(word: str, rest: str, source: str, line: int) -> str:
    value = rest.removeprefix(":").strip()
    if not rest.startswith(":") or not value:
        raise InputError(f"write it as -- {word}: VALUE", source=source, line=line)
    return value


def _weight(text: str, source: str, line: int) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise InputError(f"weight {text!r} is not a positive number", source=source, line=line)
    return weight


def _sampler(rest: str, source: str, line: int) -> Sampler:
    names, colon, query = rest.partition(":")
    split = tuple(name.strip() for name in names.split(","))
    if not colon or not all(name.isidentifier() for name in split):
        raise InputError("write it as -- param NAME: SELECT ...", source=source, line=line)
    statements = sql.parse(query, source, line)
    if (
        len(statements) != 1
        or statements[0].kind not in READABLE
        or _writes(statements[0].tree)
        or _creates(statements[0].tree)
    ):
        raise InputError(
            f"the sampler of {names.strip()!r} must be one SELECT", source=source, line=line
        )
    return Sampler(split, statements[0].text, line)


def _writes(tree: Any) -> bool:
    kinds = ("InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "LockingClause")
    return any(True for _ in sql.nodes(tree, *kinds))


def _creates(tree: Any) -> bool:
    """Whether a SELECT has INTO, in any branch of a UNION."""
    return any(node.HasField("into_clause") for node in sql.nodes(tree, "SelectStmt"))


def sample(
    conn: psycopg.Connection[Any], workload: Workload, *, size: int = 20, seed: int = 0
) -> tuple[SampledQuery, ...]:
    """Draw parameter values for every query; reads only.

    Args:
        conn: a connection in autocommit mode; samplers run in READ ONLY transactions.
        workload: the queries.
        size: sets of values per query; a sampler with fewer rows gives each of them.
        seed: the same seed and sampler rows give the same values.

    Returns:
        One entry per query, in order. A query without parameters has one empty set of values,
        and one of normalized text has none.

    Raises:
        InputError: a sampler fails, returns no rows, or returns another number of columns;
            `size` is less than 1 or `seed` less than 0.
    """
    if size < 1 or seed < 0:
        raise InputError(f"cannot sample with size={size}, seed={seed}: give 1 or more, 0 or more")
    return tuple(_sample(conn, query, workload.source, size, seed) for query in workload.queries)


def _sample(
    conn: psycopg.Connection[Any], query: Query, source: str, size: int, seed: int
) -> SampledQuery:
    if query.generic:
        return SampledQuery(query, ())
    if not query.parameters:
        return SampledQuery(query, ((),))
    import numpy as np

    columns: dict[str, list[str | None]] = {}
    chosen = size
    for sampler in query.samplers:
        rows = _sampler_rows(conn, query, sampler, source)
        # Each sampler has its own stream, so one sampler's rows never shift another's choice.
        random = np.random.default_rng([seed, *query.name.encode(), *sampler.names[0].encode()])
        order = random.permutation(len(rows))
        picked = [rows[order[i % len(rows)]] for i in range(size)]
        if len(query.samplers) == 1:
            chosen = min(size, len(rows))
        for name, values in zip(sampler.names, zip(*picked, strict=True), strict=True):
            columns[name] = list(values)
    sets = zip(*(columns[name][:chosen] for name in query.parameters), strict=True)
    return SampledQuery(query, tuple(dict.fromkeys(sets)))


def _sampler_rows(
    conn: psycopg.Connection[Any], query: Query, sampler: Sampler, source: str
) -> list[Values]:
    label = f"the sampler of {', '.join(sampler.names)!r} in query {query.name!r}"
    try:
        # Rolled back, so that not even a set_config() of the sampler outlives it.
        with (
            conn.transaction(force_rollback=True),
            conn.cursor(name="indexlab_sampler") as cursor,
        ):
            conn.execute("SET TRANSACTION READ ONLY")
            cursor.execute(sampler.sql)  # the user's own SQL, parsed above
            cursor.fetchmany(SAMPLER_ROWS)
            result = cursor.pgresult
            assert result is not None
            # Text as the server wrote it: bound untyped, it takes the type that the query wants.
            rows = [
                tuple(_text(result.get_value(row, column)) for column in range(result.nfields))
                for row in range(result.ntuples)
            ]
    except psycopg.Error as error:
        reason = error.diag.message_primary or str(error)
        if isinstance(error, psycopg.errors.QueryCanceled):
            reason += "; let it read less, such as by TABLESAMPLE or LIMIT"
        raise InputError(f"{label} fails: {reason}", source=source, line=sampler.line) from None
    if not rows:
        raise InputError(
            f"{label} returns no rows: widen it until it does", source=source, line=sampler.line
        )
    if len(rows[0]) != len(sampler.names):
        raise InputError(
            f"{label} returns {len(rows[0])} columns for {len(sampler.names)} parameters",
            source=source,
            line=sampler.line,
        )
    return rows


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()
