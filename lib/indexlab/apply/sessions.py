"""The sessions of a run: how they are set, who else is there, and the lock between runners."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql as compose
from psycopg.rows import class_row

from indexlab import target as targets
from indexlab import units
from indexlab.errors import TargetError
from indexlab.target import Target

LOCK_KEY = int.from_bytes(b"indexlab", "big")
LOCK_POLL_SECONDS = 0.5
POOLER = (
    "the address leads to a pooler in transaction mode, which loses settings and locks between "
    "statements: give the address of the server itself, or of a pool in session mode"
)


@dataclass(frozen=True, slots=True)
class Session:
    """Another session that stands in the way."""

    pid: int
    """0 for a prepared transaction."""
    application: str
    user: str
    state: str
    """Empty where the role may not see it."""
    age_seconds: float | None
    """Age of its transaction, or of its state where it has none."""

    def __str__(self) -> str:
        if not self.pid:
            return "a prepared transaction (see pg_prepared_xacts)"
        who = " as ".join(filter(None, (self.application, self.user)))
        age = "" if self.age_seconds is None else f"for {units.duration(self.age_seconds)}"
        told = ", ".join(filter(None, (who, " ".join(filter(None, (self.state, age))))))
        return f"pid {self.pid} ({told})" if told else f"pid {self.pid}"


@dataclass(frozen=True, slots=True)
class Progress:
    """One row of pg_stat_progress_create_index."""

    phase: str
    blocks_done: int
    blocks_total: int
    tuples_done: int
    tuples_total: int
    locker: int

    @property
    def percent(self) -> float | None:
        """Share of the phase that is done; None where the server does not count."""
        for done, total in (
            (self.blocks_done, self.blocks_total),
            (self.tuples_done, self.tuples_total),
        ):
            if total:
                return min(100.0 * done / total, 100.0)
        return None


# A lock_timeout would also cut the build's waits for old transactions, and so kill every
# concurrent build on a busy database; a statement_timeout of the role would kill long ones.
# Settings that the server does not know (idle_session_timeout before 14) are left out.
SET = """
SELECT pg_catalog.set_config(s.name, w.value, false)
  FROM unnest(%(names)s::text[], %(values)s::text[]) AS w (name, value)
  JOIN pg_catalog.pg_settings AS s ON s.name = w.name
 ORDER BY s.name
"""

LOST = """
SELECT s.name
  FROM unnest(%(names)s::text[], %(values)s::text[]) AS w (name, value)
  JOIN pg_catalog.pg_settings AS s ON s.name = w.name
 WHERE s.setting <> w.value
 ORDER BY s.name
"""


@contextmanager
def opened(
    target: Target,
    *,
    writing: bool = False,
    lock_timeout: float = 0,
    statement_timeout: float = 0,
    search_path: tuple[str, ...] | None = None,
) -> Iterator[psycopg.Connection[Any]]:
    """Open a session with the settings that a run needs; it is idle, never in a transaction.

    Args:
        target: from `target.resolve`.
        writing: whether it may write.
        lock_timeout: seconds, 0 for none.
        statement_timeout: seconds, 0 for none.
        search_path: what the plan sets; None leaves the session's own.

    Raises:
        TargetError: no connection, or the settings do not hold until the next statement.
    """
    settings = {
        "default_transaction_read_only": "off" if writing else "on",
        "idle_in_transaction_session_timeout": "0",
        "idle_session_timeout": "0",
        "jit": "off",
        "lock_timeout": str(round(lock_timeout * 1000)),
        "statement_timeout": str(round(statement_timeout * 1000)),
        "transaction_timeout": "0",
    }
    wanted = {"names": list(settings), "values": list(settings.values())}
    with targets.connect(target, purpose="apply") as conn:
        conn.execute(SET, wanted)
        if search_path is not None:
            search_in(conn, search_path)
        if conn.execute(LOST, wanted).fetchall():
            raise TargetError(POOLER)
        yield conn


def search_in(conn: psycopg.Connection[Any], schemas: tuple[str, ...]) -> None:
    """Have a session look names up in these schemas, as the plan says."""
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


def backend_pid(conn: psycopg.Connection[Any]) -> int:
    """Ask for the server process itself: behind a pooler libpq knows another number."""
    return int(conn_row(conn, "SELECT pg_catalog.pg_backend_pid()")[0])


PROGRESS = """
SELECT p.phase,
       COALESCE(p.blocks_done, 0) AS blocks_done,
       COALESCE(p.blocks_total, 0) AS blocks_total,
       COALESCE(p.tuples_done, 0) AS tuples_done,
       COALESCE(p.tuples_total, 0) AS tuples_total,
       COALESCE(p.current_locker_pid, 0)::int AS locker
  FROM pg_catalog.pg_stat_progress_create_index AS p
 WHERE p.pid = %s
   AND p.phase IS NOT NULL
 ORDER BY p.pid
"""


def progress(conn: psycopg.Connection[Any], pid: int) -> Progress | None:
    """Read how far a build is; None where none runs in that process."""
    with conn.cursor(row_factory=class_row(Progress)) as cursor:
        return cursor.execute(PROGRESS, [pid]).fetchone()


# The age is that of the transaction, which is what a build waits for.
DESCRIBED = """
SELECT w.pid,
       COALESCE(NULLIF(a.application_name, ''), a.backend_type, '') AS application,
       COALESCE(a.usename, '')::text AS user,
       COALESCE(a.state, '') AS state,
       extract(epoch FROM pg_catalog.clock_timestamp()
                          - COALESCE(a.xact_start, a.state_change))::float8 AS age_seconds
  FROM (SELECT DISTINCT pid FROM unnest({pids}) AS u (pid)) AS w
  LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = w.pid
 WHERE w.pid <> pg_catalog.pg_backend_pid()
   AND (w.pid = 0 OR a.pid IS NOT NULL)
 ORDER BY w.pid
"""

BLOCKING = compose.SQL(DESCRIBED).format(
    pids=compose.SQL("pg_catalog.pg_blocking_pids(%(pid)s) || %(locker)s::int[]")
)


def in_the_way(conn: psycopg.Connection[Any], pid: int, locker: int = 0) -> tuple[Session, ...]:
    """Read which sessions a process waits for.

    Args:
        conn: any session but that one.
        pid: the process that waits.
        locker: what the server's own progress report names, beside the lock table.
    """
    with conn.cursor(row_factory=class_row(Session)) as cursor:
        values = {"pid": pid, "locker": [locker] if locker else []}
        return tuple(cursor.execute(BLOCKING, values).fetchall())


# Who builds, vacuums or analyzes holds this lock to the end. Autovacuum has no user and gives way.
MAINTAINING = compose.SQL(DESCRIBED).format(
    pids=compose.SQL("""ARRAY(
        SELECT l.pid
          FROM pg_catalog.pg_locks AS l
          JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          JOIN pg_catalog.pg_stat_activity AS b ON b.pid = l.pid
         WHERE l.locktype = 'relation'
           AND l.mode = 'ShareUpdateExclusiveLock'
           AND l.granted
           AND b.datname = pg_catalog.current_database()
           AND b.usesysid IS NOT NULL
           AND n.nspname = %(schema)s
           AND c.relname = %(name)s)""")
)


def maintaining(
    conn: psycopg.Connection[Any], schema: str | None, table: str
) -> tuple[Session, ...]:
    """Read which sessions may be building an index on a table, whatever their role lets us see."""
    with conn.cursor(row_factory=class_row(Session)) as cursor:
        return tuple(cursor.execute(MAINTAINING, {"schema": schema, "name": table}).fetchall())


TRY_LOCK = "SELECT pg_catalog.pg_try_advisory_lock(%s)"
HOLDS_LOCK = """
SELECT EXISTS (SELECT
                 FROM pg_catalog.pg_locks AS l
                WHERE l.pid = pg_catalog.pg_backend_pid()
                  AND l.locktype = 'advisory'
                  AND (l.classid::bigint << 32) + l.objid::bigint = %s)
"""
HOLDERS = compose.SQL(DESCRIBED).format(
    pids=compose.SQL("""ARRAY(
        SELECT l.pid
          FROM pg_catalog.pg_locks AS l
         WHERE l.locktype = 'advisory'
           AND l.granted
           AND l.database = (SELECT d.oid
                               FROM pg_catalog.pg_database AS d
                              WHERE d.datname = pg_catalog.current_database())
           AND (l.classid::bigint << 32) + l.objid::bigint = %s)""")
)


class RunnerLock:
    """One runner for each database: an advisory lock, held by an idle session of its own.

    It polls: a session that waits in pg_advisory_lock holds a snapshot, and a concurrent build
    of the runner before it would wait for that snapshot for ever.
    """

    def __init__(self, target: Target, wait: float):
        self._target, self._wait = target, wait
        self._stack = ExitStack()
        self.conn: psycopg.Connection[Any] | None = None

    def __enter__(self) -> RunnerLock:
        self.conn = self._stack.enter_context(opened(self._target))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def ensure(self, on_wait: Callable[[tuple[Session, ...]], None]) -> None:
        """Hold the lock, taking it again where the session was lost.

        Args:
            on_wait: told who has it, again and again while they have it.

        Raises:
            TargetError: another runner has kept it for longer than the wait; names that session.
        """
        if self._held():
            return
        if self.conn is None or self.conn.closed:
            self._stack.close()
            self.conn = self._stack.enter_context(opened(self._target))
        self._take(self.conn, on_wait)

    def _held(self) -> bool:
        if self.conn is None or self.conn.closed:
            return False
        try:
            return bool(conn_row(self.conn, HOLDS_LOCK, LOCK_KEY)[0])
        except psycopg.OperationalError:
            return False

    def _take(
        self, conn: psycopg.Connection[Any], on_wait: Callable[[tuple[Session, ...]], None]
    ) -> None:
        deadline = time.monotonic() + self._wait
        while not conn_row(conn, TRY_LOCK, LOCK_KEY)[0]:
            with conn.cursor(row_factory=class_row(Session)) as cursor:
                holders = tuple(cursor.execute(HOLDERS, [LOCK_KEY]).fetchall())
            if time.monotonic() >= deadline:
                who = ", ".join(map(str, holders)) or "another session"
                raise TargetError(
                    f"{who} applies a plan to this database: wait for its end and run again"
                )
            on_wait(holders)
            time.sleep(LOCK_POLL_SECONDS)


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


DEFINITION = "SELECT pg_catalog.pg_get_indexdef(%s)"


def definition_of(conn: psycopg.Connection[Any], oid: int) -> str:
    """Read how an index is defined, in words that mean the same on every search_path.

    The search_path of the session is changed for it.
    """
    search_in(conn, ("pg_catalog",))
    return str(conn_row(conn, DEFINITION, oid)[0] or "")


# The name keeps a process that has got the same number since from being taken for it.
ALIVE = """
SELECT EXISTS (SELECT
                 FROM pg_catalog.pg_stat_activity AS a
                WHERE a.pid = %s
                  AND a.application_name = 'indexlab apply'
                  AND a.pid <> pg_catalog.pg_backend_pid())
"""


def alive(conn: psycopg.Connection[Any], pid: int) -> bool:
    """Read whether a lost session of ours goes on at the server."""
    return bool(conn_row(conn, ALIVE, pid)[0])


def terminate(conn: psycopg.Connection[Any], pid: int) -> None:
    """End a lost session of ours at the server."""
    conn.execute("SELECT pg_catalog.pg_terminate_backend(%s)", [pid])
