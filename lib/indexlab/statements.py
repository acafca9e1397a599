"""The statements that a target has run, as its extension pg_stat_statements counted them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql as compose
from psycopg.rows import class_row

from indexlab import display, records, sql, units, workload
from indexlab.errors import InputError
from indexlab.records import Record
from indexlab.workload import Query

if TYPE_CHECKING:
    import pandas as pd

SOURCE = "pg_stat_statements"
"""What errors and tables call a workload that was made of them."""
MOST = 20
"""So many statements are shown and drafted, the costliest first."""
READ_AT_MOST = 500
VERBS = {
    "select_stmt": "select",
    "insert_stmt": "insert",
    "update_stmt": "update",
    "delete_stmt": "delete",
    "merge_stmt": "merge",
}
NAME_LENGTH = 48
COLUMNS = ("query", "calls", "mean", "total", "share", "rows per call", "pages per call", "text")


@dataclass(frozen=True, slots=True)
class Recorded(Record):
    """One statement with its constants taken out, and what its calls took together."""

    name: str
    """Made of its verb and its table, such as `select_bookings`; each once."""
    text: str
    """With `$1`, `$2`, ... in place of the constants, without comments."""
    calls: int
    total_ms: float
    """Execution time of all calls, in milliseconds, planning not included."""
    share: float
    """Of the time that all recorded statements of this database took, from 0 to 1."""
    rows: int
    """Rows that all calls returned or affected."""
    pages: int
    """Pages of 8 kB that all calls touched, in shared buffers or not."""

    @property
    def mean_ms(self) -> float:
        """Milliseconds of one call on average."""
        return self.total_ms / self.calls if self.calls else 0.0

    def block(self) -> str:
        """Write it as a block of a workload file; its weight is its calls."""
        return f"-- name: {self.name}\n-- weight: {self.calls}\n{self.text};\n"

    def query(self) -> Query:
        """Return it as a query of a workload: it can be planned, but not run, for want of values.

        Raises:
            InputError: the grammar of workloads does not take it.
        """
        (query,) = workload.parse(self.block(), SOURCE).queries
        if query.name != self.name or query.weight != self.calls:
            raise InputError(f"{self.name!r} cannot be written as a query of a workload")
        return query


@dataclass(frozen=True, slots=True)
class Statements(Record):
    """What a target has run since the statistics were reset, the costliest first."""

    recorded: tuple[Recorded, ...]
    since: str = ""
    """UTC, when counting began; empty where the server does not tell."""
    hidden: int = 0
    """Statements of other roles, whose texts this role may not see."""
    reason: str = ""
    """Why there are none, and what to do; empty where there are some."""

    def queries(self) -> tuple[Query, ...]:
        """Return them as queries of a workload."""
        return tuple(one.query() for one in self.recorded)

    def frame(self) -> pd.DataFrame:
        """Return the statements as a pandas DataFrame, one row each, the costliest first.

        Columns: `query`, its name here; `calls`; `mean_ms` and `total_ms`, execution time of one
        call and of all in milliseconds; `share` of the time of all statements, from 0 to 1;
        `rows`, returned or affected by all calls; `pages` of 8 kB that all calls touched; `text`.
        """
        import pandas as pd

        rows = [
            (
                *(one.name, one.calls, one.mean_ms, one.total_ms),
                *(one.share, one.rows, one.pages, one.text),
            )
            for one in self.recorded
        ]
        columns = ["query", "calls", "mean_ms", "total_ms", "share", "rows", "pages", "text"]
        return pd.DataFrame(rows, columns=columns)

    def _title(self) -> str:
        since = f" since {self.since}" if self.since else ""
        return f"the statements that took most time{since}"

    def _notes(self) -> Iterator[str]:
        if self.reason:
            yield self.reason
        if self.hidden:
            yield (
                f"{units.plural(self.hidden, 'statement')} of other roles cannot be seen: "
                "GRANT pg_read_all_stats shows them."
            )

    def _cells(self, one: Recorded) -> tuple[object, ...]:
        calls = max(one.calls, 1)
        return (
            *(one.name, units.count(one.calls), units.ms(one.mean_ms), units.ms(one.total_ms)),
            *(f"{one.share:.0%}", units.count(one.rows / calls), units.count(one.pages / calls)),
        )

    def __repr__(self) -> str:
        if not self.recorded:
            return display.clean("\n".join(self._notes()))
        rows = [(*self._cells(one), one.text) for one in self.recorded]
        return records.text(self._title(), COLUMNS, rows, notes=self._notes())

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{display.escape(note)}</p>" for note in self._notes())
        if not self.recorded:
            return notes
        rows = [(*self._cells(one), display.inline_code(one.text)) for one in self.recorded]
        table = display.table(COLUMNS, rows, caption=self._title(), numeric=COLUMNS[1:7])
        return table + notes


INSTALLED = """
SELECT namespace.nspname AS schema,
       pg_catalog.array_agg(attribute.attname::text ORDER BY attribute.attname) AS columns,
       pg_catalog.to_regclass(
           pg_catalog.format('%I.pg_stat_statements_info', namespace.nspname)
       ) IS NOT NULL AS informed
  FROM pg_catalog.pg_extension AS extension
  JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = extension.extnamespace
  JOIN pg_catalog.pg_class AS class
       ON class.relnamespace = namespace.oid
      AND class.relname = 'pg_stat_statements'
  JOIN pg_catalog.pg_attribute AS attribute
       ON attribute.attrelid = class.oid
      AND attribute.attnum > 0
      AND NOT attribute.attisdropped
 WHERE extension.extname = 'pg_stat_statements'
 GROUP BY namespace.nspname
 ORDER BY namespace.nspname
"""

STATEMENTS = """
SELECT pg_catalog.min(counted.query) AS text,
       pg_catalog.sum(counted.calls)::bigint AS calls,
       pg_catalog.sum(counted.{time})::float8 AS total_ms,
       (
           pg_catalog.sum(counted.{time})
           / nullif(pg_catalog.sum(pg_catalog.sum(counted.{time})) OVER (), 0)
       )::float8 AS share,
       pg_catalog.sum(counted.rows)::bigint AS rows,
       pg_catalog.sum(counted.shared_blks_hit + counted.shared_blks_read)::bigint AS pages,
       pg_catalog.count(*) FILTER (WHERE counted.queryid IS NULL) AS hidden
  FROM {schema}.pg_stat_statements AS counted
  JOIN pg_catalog.pg_database AS database ON database.oid = counted.dbid
 WHERE database.datname = pg_catalog.current_database()
 GROUP BY counted.queryid
 ORDER BY total_ms DESC, counted.queryid
 LIMIT {most}
"""

SINCE = """
SELECT information.stats_reset AS since
  FROM {schema}.pg_stat_statements_info AS information
 ORDER BY information.stats_reset
"""


@dataclass(frozen=True, slots=True)
class _Installed:
    """Where the extension is, and what its version has."""

    schema: str
    columns: list[str]
    informed: bool


@dataclass(frozen=True, slots=True)
class _Row:
    """What the extension counted of one statement."""

    text: str | None
    calls: int
    total_ms: float
    share: float | None
    rows: int
    pages: int
    hidden: int
    """So many statements, as their texts belong to other roles."""


def read(conn: psycopg.Connection[Any], most: int = MOST) -> Statements:
    """Read what the target has run on its own tables, the costliest first; reads only.

    Queries of the system's catalogs alone, what the kit asks about rows, and what is no SELECT,
    INSERT, UPDATE, DELETE or MERGE, are left out. A benchmark's calls are there only where its role
    may not keep them from being counted. Where nothing can be read, the result says why.

    Args:
        conn: a connection in autocommit mode.
        most: so many statements.
    """
    try:
        with conn.cursor(row_factory=class_row(_Installed)) as cursor:
            installed = cursor.execute(INSTALLED).fetchone()
        if installed is None:
            return Statements((), reason=NOT_INSTALLED)
        rows, since = _rows(conn, installed)
    except psycopg.errors.ObjectNotInPrerequisiteState:
        return Statements((), reason=NOT_LOADED)
    except psycopg.errors.InsufficientPrivilege as error:
        said = error.diag.message_primary or "permission denied"
        return Statements((), reason=f"pg_stat_statements cannot be read: {said}.")
    found = tuple(_recorded(rows))[:most]
    hidden = sum(row.hidden for row in rows)
    reason = "" if found else NOTHING
    return Statements(found, since=since, hidden=hidden, reason=reason)


NOT_INSTALLED = (
    "pg_stat_statements is not installed in this database, so nobody has counted what runs here: "
    "add it to shared_preload_libraries, restart, and CREATE EXTENSION pg_stat_statements."
)
NOT_LOADED = (
    "pg_stat_statements is installed, but not loaded: add it to shared_preload_libraries and "
    "restart the server."
)
NOTHING = "pg_stat_statements has counted no statement on a table of this database yet."


def _rows(conn: psycopg.Connection[Any], installed: _Installed) -> tuple[list[_Row], str]:
    # Until version 1.8 of the extension, which a newer server may still have.
    time = "total_exec_time" if "total_exec_time" in installed.columns else "total_time"
    schema = compose.Identifier(installed.schema)
    query = compose.SQL(STATEMENTS).format(
        schema=schema, time=compose.Identifier(time), most=compose.Literal(READ_AT_MOST)
    )
    with conn.cursor(row_factory=class_row(_Row)) as cursor:
        rows = cursor.execute(query).fetchall()
    if not installed.informed:
        return rows, ""
    row = conn.execute(compose.SQL(SINCE).format(schema=schema)).fetchone()
    moment = row[0] if row is not None else None
    if not isinstance(moment, datetime):
        return rows, ""
    return rows, f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _recorded(rows: Iterable[_Row]) -> Iterator[Recorded]:
    """Name the statements that index work is about; pure."""
    taken: set[str] = set()
    for row in rows:
        read_ = None if row.hidden or not row.text else _read(row.text)
        if read_ is None:
            continue
        stem, text = read_
        name, number = stem, 2
        while name in taken:
            name, number = f"{stem}_{number}", number + 1
        one = Recorded(name, text, row.calls, row.total_ms, row.share or 0.0, row.rows, row.pages)
        try:
            one.query()
        except InputError:
            continue  # such as a text that holds both $1 and :name
        taken.add(name)
        yield one


def _read(text: str) -> tuple[str, str] | None:
    """Return a name for a statement, and its text; None for what no index can serve; pure."""
    try:
        parsed = sql.parse(text, SOURCE)
    except InputError:
        return None
    if len(parsed) != 1 or parsed[0].kind not in VERBS or sql.OWN in text:
        return None
    tables = tuple(_tables(parsed[0]))
    if not tables:
        return None
    written = "".join(c if c.isalnum() else "_" for c in tables[0]).strip("_") or "table"
    name = f"{VERBS[parsed[0].kind]}_{written}"[:NAME_LENGTH]
    return name, sql.without_comments(parsed[0].text)


def _tables(statement: sql.Statement) -> Iterator[str]:
    """Name the tables that a statement speaks of, but for the system's."""
    own = {node.ctename for node in sql.nodes(statement.node, "CommonTableExpr")}
    for node in sql.nodes(statement.node, "RangeVar"):
        system = node.schemaname in ("pg_catalog", "information_schema")
        if not system and not node.relname.startswith("pg_") and node.relname not in own:
            yield node.relname


def renamed(recorded: Iterable[Recorded], taken: Iterable[str]) -> tuple[Recorded, ...]:
    """Give other names to the statements whose names are taken; pure."""
    used = set(taken)
    found = []
    for one in recorded:
        name, number = one.name, 2
        while name in used:
            name, number = f"{one.name}_{number}", number + 1
        used.add(name)
        found.append(replace(one, name=name))
    return tuple(found)
