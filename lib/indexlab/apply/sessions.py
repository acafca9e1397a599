"""The sessions of a run: how they are set and restored, and what they ask about one index."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import psycopg
from psycopg import conninfo as libpq
from psycopg import sql as compose
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row

from indexlab import target as targets
from indexlab.apply.statements import cluster_sql, comment_sql, statistics_sql
from indexlab.errors import TargetError
from indexlab.plan import IndexDef
from indexlab.sql import RelationName
from indexlab.target import Target

POOLER = (
    "the address leads to a pooler in transaction mode, which loses settings and locks between "
    "statements: give the address of the server itself, or of a pool in session mode"
)
KEEPALIVE = {"keepalives_idle": 20, "keepalives_interval": 10, "keepalives_count": 3}
"""Seconds, seconds, times."""

# A lock_timeout would also cut the build's waits for old transactions, and so kill every
# concurrent build on a busy database; a statement_timeout of the role would kill long ones.
SET = "SELECT {settings}"
SETTING = "pg_catalog.set_config({name}, {value}, false)"
SINCE = {"idle_session_timeout": 140000, "transaction_timeout": 170000}
"""Settings that older servers do not know."""

HOLDS = """
SELECT pg_catalog.current_setting('default_transaction_read_only'),
       pg_catalog.current_setting('indexlab.settled', true)
"""

# The function under pg_stat_activity: to plan the view takes longer.
IDENTITY = """
SELECT a.pid,
       a.backend_start
  FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) AS a
 ORDER BY a.pid
"""


@dataclass(frozen=True, slots=True)
class Identity:
    """A session at the server: another one may get the same number, but not the same start.

    Behind a pooler libpq knows another number, so the server itself is asked.
    """

    pid: int
    started: datetime


def wanted_settings(
    *, writing: bool = False, lock_timeout: float = 0, statement_timeout: float = 0
) -> dict[str, str]:
    """Return what a session of a run is set to, whatever the role or the database has set; pure.

    Args:
        writing: whether it may write.
        lock_timeout: seconds, 0 for none.
        statement_timeout: seconds, 0 for none.
    """
    return {
        "default_transaction_read_only": "off" if writing else "on",
        "idle_in_transaction_session_timeout": "0",
        "idle_session_timeout": "0",
        "jit": "off",
        "lock_timeout": str(round(lock_timeout * 1000)),
        "statement_timeout": str(round(statement_timeout * 1000)),
        "transaction_timeout": "0",
    }


def settle(conn: psycopg.Connection[Any], settings: dict[str, str]) -> None:
    """Set a session; what the server does not know is left out."""
    known = (
        compose.SQL(SETTING).format(name=compose.Literal(name), value=compose.Literal(value))
        for name, value in settings.items()
        if conn.info.server_version >= SINCE.get(name, 0)
    )
    conn.execute(compose.SQL(SET).format(settings=compose.SQL(", ").join(known)))


@contextmanager
def opened(
    target: Target, *, writing: bool = False, lock_timeout: float = 0
) -> Iterator[psycopg.Connection[Any]]:
    """Open a session with the settings that a run needs; it is idle, never in a transaction.

    Args:
        target: from `target.resolve`.
        writing: whether it may write.
        lock_timeout: seconds, 0 for none; even reading the catalog may wait for a table's lock.

    Raises:
        TargetError: no connection, or the settings do not hold until the next statement.
    """
    settings = wanted_settings(writing=writing, lock_timeout=lock_timeout)
    with targets.connect(_kept_alive(target), purpose="apply") as conn:
        mark = secrets.token_hex(8)
        settle(conn, {**settings, "indexlab.settled": mark})
        if conn_row(conn, HOLDS) != (settings["default_transaction_read_only"], mark):
            raise TargetError(POOLER)
        try:
            yield conn
        finally:
            restore(conn)


@contextmanager
def opening(
    target: Target, *, lock_timeout: float = 0
) -> Iterator[Callable[[], psycopg.Connection[Any]]]:
    """Open a session as `opened` does, in another thread; what is yielded waits for it.

    Ctrl-C waits for nothing: a session that is not open by then is closed as soon as it is.
    """
    stack = ExitStack()
    made: Future[psycopg.Connection[Any]] = Future()

    def work() -> None:
        try:
            made.set_result(stack.enter_context(opened(target, lock_timeout=lock_timeout)))
        except (psycopg.Error, TargetError) as error:
            made.set_exception(error)

    threading.Thread(target=work, name="indexlab-opening", daemon=True).start()
    try:
        yield made.result
    finally:
        if made.done():
            stack.close()
        else:
            made.add_done_callback(lambda _: stack.close())


def idle(conn: psycopg.Connection[Any]) -> bool:
    """Return whether a session is open and can be asked; Ctrl-C may leave it in its last query."""
    return not conn.closed and conn.info.transaction_status == TransactionStatus.IDLE


def restore(conn: psycopg.Connection[Any]) -> None:
    """Give a session back the settings that it came with; a lost one has none.

    A pool in session mode may hand the session to somebody else.
    """
    if not idle(conn):
        return
    names = [*wanted_settings(), "search_path", "maintenance_work_mem"]
    names += ["max_parallel_maintenance_workers", "indexlab.settled", "indexlab.session"]
    known = (name for name in names if conn.info.server_version >= SINCE.get(name, 0))
    resets = (
        compose.SQL("RESET {}").format(compose.Identifier(*name.split("."))) for name in known
    )
    with suppress(psycopg.Error):
        conn.execute(compose.SQL("; ").join(resets))


def _kept_alive(target: Target) -> Target:
    """Have a connection that the network has lost noticed within a minute, not within hours."""
    given = libpq.conninfo_to_dict(target.conninfo)
    added = {name: value for name, value in KEEPALIVE.items() if name not in given}
    return replace(target, conninfo=libpq.make_conninfo(target.conninfo, **added))


def identity(conn: psycopg.Connection[Any]) -> Identity:
    """Ask which session this is; reads only."""
    return Identity(*conn_row(conn, IDENTITY))


def search_in(conn: psycopg.Connection[Any], schemas: tuple[str, ...] | None) -> None:
    """Have a session look names up in these schemas, as the plan says; None is its own path."""
    if schemas is None:
        conn.execute("RESET search_path")
        return
    names = compose.SQL(", ").join(map(compose.Identifier, schemas))
    conn.execute(compose.SQL("SET search_path TO {}").format(names))


SET_TOKEN = (
    "SELECT pg_catalog.set_config('indexlab.session', %s, false), pg_catalog.pg_backend_pid()"
)
GET_TOKEN = (
    "SELECT pg_catalog.current_setting('indexlab.session', true), pg_catalog.pg_backend_pid()"
)


def refuse_pooler(one: psycopg.Connection[Any], other: psycopg.Connection[Any]) -> None:
    """Check that two open sessions are two, and keep what was set in them.

    Raises:
        TargetError: they share a server process, or lose their settings.
    """
    mine = conn_row(one, SET_TOKEN, "one")
    theirs = conn_row(other, SET_TOKEN, "other")
    if mine[1] == theirs[1] or conn_row(one, GET_TOKEN) != mine:
        raise TargetError(POOLER)


def conn_row(conn: psycopg.Connection[Any], query: Any, *values: Any) -> tuple[Any, ...]:
    """Return the only row of a query."""
    row = conn.execute(query, values or None).fetchone()
    assert row is not None
    return tuple(row)


MAY_CREATE = """
SELECT n.nspname
  FROM pg_catalog.pg_namespace AS n
 WHERE n.nspname = ANY (%s)
   AND NOT pg_catalog.has_schema_privilege(n.oid, 'CREATE')
 ORDER BY n.nspname
"""


def closed_schemas(conn: psycopg.Connection[Any], schemas: set[str]) -> tuple[str, ...]:
    """Read which of these schemas the role may not create an index in, even on its own table."""
    return tuple(row[0] for row in conn.execute(MAY_CREATE, [sorted(schemas)]).fetchall())


COMMENT = """
SELECT pg_catalog.obj_description(c.oid, 'pg_class')
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = %s
   AND c.relname = %s
 ORDER BY c.oid
"""


def comment_of(conn: psycopg.Connection[Any], schema: str | None, index: str) -> str | None:
    """Read the comment on an index; None where it has none or does not exist."""
    row = conn.execute(COMMENT, [schema, index]).fetchone()
    return None if row is None else row[0]


# The server's words leave the tablespace out.
DEFINITION = """
SELECT pg_catalog.pg_get_indexdef(c.oid),
       t.spcname
  FROM pg_catalog.pg_class AS c
  LEFT JOIN pg_catalog.pg_tablespace AS t ON t.oid = c.reltablespace
 WHERE c.oid = %s
 ORDER BY c.oid
"""


def definition_of(conn: psycopg.Connection[Any], oid: int) -> str:
    """Read how an index is defined, in words that mean the same on every search_path.

    The search_path of the session is changed for it.
    """
    search_in(conn, ("pg_catalog",))
    definition, tablespace = conn.execute(DEFINITION, [oid]).fetchone() or (None, None)
    if definition is None or tablespace is None:
        return definition or ""
    return IndexDef.parse(definition).revise(tablespace=tablespace).sql


BELONGINGS = """
SELECT pg_catalog.obj_description(i.indexrelid, 'pg_class') AS comment,
       i.indisclustered AS clustered,
       ARRAY(SELECT a.attnum::int
               FROM pg_catalog.pg_attribute AS a
              WHERE a.attrelid = i.indexrelid
                AND a.attstattarget >= 0
              ORDER BY a.attnum) AS places,
       ARRAY(SELECT a.attstattarget::int
               FROM pg_catalog.pg_attribute AS a
              WHERE a.attrelid = i.indexrelid
                AND a.attstattarget >= 0
              ORDER BY a.attnum) AS targets
  FROM pg_catalog.pg_index AS i
 WHERE i.indexrelid = %s
 ORDER BY i.indexrelid
"""


def belongings(
    conn: psycopg.Connection[Any], oid: int, table: RelationName, index: RelationName
) -> tuple[str, ...]:
    """Read what an index has beside its definition, as statements that give it to another one."""
    row = conn.execute(BELONGINGS, [oid]).fetchone()
    if row is None:
        return ()
    comment, clustered, places, targets = row
    return (
        *((comment_sql(index, comment),) if comment is not None else ()),
        *((cluster_sql(table, index),) if clustered else ()),
        *(statistics_sql(index, *item) for item in zip(places, targets, strict=True)),
    )


STANDS = """
SELECT i.indexrelid::bigint AS oid,
       i.indrelid::bigint AS table,
       i.indisvalid AND i.indisready AND i.indislive AS usable,
       pg_catalog.pg_relation_size(i.indexrelid) AS bytes,
       pg_catalog.pg_get_indexdef(i.indexrelid) AS definition
  FROM pg_catalog.pg_index AS i
  JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = {schema}
   AND c.relname = {name}
 ORDER BY i.indexrelid
"""
ON_NO_PATH = "SET search_path TO pg_catalog; {query}; RESET search_path"


@dataclass(frozen=True, slots=True)
class Standing:
    """An index that the server has just reported as built."""

    oid: int
    table: int
    usable: bool
    bytes: int
    definition: str


def standing(conn: psycopg.Connection[Any], schema: str | None, name: str) -> Standing | None:
    """Read what stands under a name, in one round trip; the search_path is the role's after it."""
    names = {"schema": compose.Literal(schema), "name": compose.Literal(name)}
    query = compose.SQL(STANDS).format(**names)
    with conn.cursor(row_factory=class_row(Standing)) as cursor:
        cursor.execute(compose.SQL(ON_NO_PATH).format(query=query))
        cursor.nextset()  # SET has no rows
        return cursor.fetchone()


LOST_STATE = """
SELECT COALESCE(a.state, '')
  FROM pg_catalog.pg_stat_activity AS a
 WHERE a.pid = %s
   AND a.backend_start = %s
 ORDER BY a.pid
"""


def state_of(conn: psycopg.Connection[Any], who: Identity) -> str | None:
    """Read what a lost session of ours does at the server; None if it is gone."""
    row = conn.execute(LOST_STATE, [who.pid, who.started]).fetchone()
    return None if row is None else str(row[0])


TERMINATE = """
SELECT pg_catalog.pg_terminate_backend(a.pid)
  FROM pg_catalog.pg_stat_activity AS a
 WHERE a.pid = %s
   AND a.backend_start = %s
 ORDER BY a.pid
"""


def terminate(conn: psycopg.Connection[Any], who: Identity) -> None:
    """End a lost session of ours at the server."""
    conn.execute(TERMINATE, [who.pid, who.started])


HARMLESS = """
SELECT pg_catalog.pg_table_size(c.oid) <= %(tiny)s
       OR NOT EXISTS (SELECT
                        FROM pg_catalog.pg_stat_activity AS a
                       WHERE a.datname = pg_catalog.current_database()
                         AND a.backend_type = 'client backend'
                         AND a.application_name <> 'indexlab apply')
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = %(schema)s
   AND c.relname = %(table)s
 ORDER BY c.oid
"""
TINY_BYTES = 1024**2


def harmless(conn: psycopg.Connection[Any], schema: str | None, table: str) -> bool:
    """Read whether a build that keeps writers out would do no harm.

    The table is empty or at most a megabyte, or nobody but the kit is connected to the database.
    """
    values = {"tiny": TINY_BYTES, "schema": schema, "table": table}
    row = conn.execute(HARMLESS, values).fetchone()
    return bool(row and row[0])
