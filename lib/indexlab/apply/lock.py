"""One runner for each database: an advisory lock that is polled for, never waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import psycopg
from psycopg import sql as compose

from indexlab.apply.blockers import Session, described
from indexlab.apply.sessions import Identity, conn_row, identity, idle, opened, terminate
from indexlab.errors import TargetError
from indexlab.target import Target

LOCK_KEY = int.from_bytes(b"indexlab", "big")
LOCK_POLL_SECONDS = 0.5

TRY_LOCK = "SELECT pg_catalog.pg_try_advisory_lock(%s)"
HOLDS_LOCK = """
SELECT EXISTS (SELECT
                 FROM pg_catalog.pg_locks AS l
                WHERE l.pid = pg_catalog.pg_backend_pid()
                  AND l.locktype = 'advisory'
                  AND (l.classid::bigint << 32) + l.objid::bigint = %s)
"""
HOLDERS = compose.SQL("""ARRAY(
        SELECT l.pid
          FROM pg_catalog.pg_locks AS l
         WHERE l.locktype = 'advisory'
           AND l.granted
           AND l.database = (SELECT d.oid
                               FROM pg_catalog.pg_database AS d
                              WHERE d.datname = pg_catalog.current_database())
           AND (l.classid::bigint << 32) + l.objid::bigint = %(key)s)""")


class RunnerLock:
    """One runner for each database: an advisory lock, held by a session that does nothing but look.

    It polls: a session that waits in pg_advisory_lock holds a snapshot, and a concurrent build
    of the runner before it would wait for that snapshot for ever.
    """

    def __init__(self, target: Target, wait: float):
        self._target, self._wait = target, wait
        self._stack = ExitStack()
        self._guard = threading.Lock()  # workers share the session
        self._who: Identity | None = None
        """The session that has taken the lock; None until one has."""
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
        with self._guard:
            if self._who is not None and self._held():
                return
            if self.conn is None or self.conn.closed:
                self._stack.close()
                self.conn = self._stack.enter_context(opened(self._target))
                if self._who is not None:  # the server may not have noticed yet, and keep the lock
                    terminate(self.conn, self._who)
            self._who = identity(self.conn)
            self._take(self.conn, on_wait)

    def _held(self) -> bool:
        """Return whether the session has the lock; one that is stuck in a query is closed."""
        if self.conn is None or self.conn.closed:
            return False
        try:
            return bool(conn_row(self.conn, HOLDS_LOCK, LOCK_KEY)[0])
        except psycopg.OperationalError:
            if not idle(self.conn):
                self.conn.close()
            return False

    def _take(
        self, conn: psycopg.Connection[Any], on_wait: Callable[[tuple[Session, ...]], None]
    ) -> None:
        deadline = time.monotonic() + self._wait
        while not conn_row(conn, TRY_LOCK, LOCK_KEY)[0]:
            holders = described(conn, HOLDERS, {"key": LOCK_KEY})
            if time.monotonic() >= deadline:
                who = ", ".join(map(str, holders)) or "another session"
                raise TargetError(
                    f"{who} applies a plan to this database: wait for its end and run again"
                )
            on_wait(holders)
            time.sleep(LOCK_POLL_SECONDS)
