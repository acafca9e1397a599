"""Who stands in the way, and how far builds are: read from a second session, once a second."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql as compose
from psycopg.rows import dict_row

from indexlab import units
from indexlab.records import Record

TEXT_LENGTH = 120


@dataclass(frozen=True, slots=True)
class Session(Record):
    """Another session that stands in the way."""

    pid: int
    """0 for a prepared transaction."""
    application: str
    user: str
    state: str
    """Empty where the role may not see it."""
    age_seconds: float | None
    """Age of its transaction, or of its state where it has none."""
    query_start: datetime | None = None
    query: str = ""
    """Its statement, the last one where it is idle, without any constant."""

    def __str__(self) -> str:
        if not self.pid:
            return "a prepared transaction (see pg_prepared_xacts)"
        who = " as ".join(filter(None, (self.application, self.user)))
        age = "" if self.age_seconds is None else f"for {units.duration(self.age_seconds)}"
        told = ", ".join(filter(None, (who, " ".join(filter(None, (self.state, age))))))
        began = "" if self.query_start is None else f"query of {self.query_start:%H:%M:%S}"
        told = "; ".join(filter(None, (told, ": ".join(filter(None, (began, self.query))))))
        return f"pid {self.pid} ({told})" if told else f"pid {self.pid}"


# Strings, comments and numbers; a text that was cut off ends within one of them.
CONSTANTS = re.compile(
    r"""
    (?P<identifier> "(?:[^"]|"")*"? )
  | (?P<comment> --[^\n]* | /\*.*?(?:\*/|\Z) )
  | (?P<string> [eEbBxXnN]?'(?:''|[^'])*(?:'|\Z) | (?P<tag>\$\w*\$).*?(?:(?P=tag)|\Z) )
  | (?P<number> (?<![\w$]) \d [\w.]* )
    """,
    re.VERBOSE | re.DOTALL,
)


def redacted(text: str) -> str:
    """Take the constants and comments out of a statement, and cut it to size; pure."""
    shown = without_constants(text)
    return shown if len(shown) <= TEXT_LENGTH else f"{shown[: TEXT_LENGTH - 3]}..."


def without_constants(text: str) -> str:
    """Take the constants and comments out of SQL; pure.

    Where a backslash may keep a quote from ending its string, all from the first quote on goes.
    """
    if "\\" in text:
        text = re.split(r"['$]", text, maxsplit=1)[0] + "'"

    def hidden(match: re.Match[str]) -> str:
        if match["identifier"] is not None:
            return match["identifier"]
        return " " if match["comment"] is not None else "?"

    return " ".join(CONSTANTS.sub(hidden, text).split())


# The age is that of the transaction, which is what a build waits for.
DESCRIBED = """
SELECT w.pid,
       COALESCE(NULLIF(a.application_name, ''), a.backend_type, '') AS application,
       COALESCE(a.usename, '')::text AS user,
       COALESCE(a.state, '') AS state,
       extract(epoch FROM pg_catalog.clock_timestamp()
                          - COALESCE(a.xact_start, a.state_change))::float8 AS age_seconds,
       a.query_start,
       COALESCE(CASE WHEN a.state IS NOT NULL THEN a.query END, '') AS query
  FROM (SELECT DISTINCT pid FROM unnest({pids}) AS u (pid)) AS w
  LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = w.pid
 WHERE w.pid <> pg_catalog.pg_backend_pid()
   AND (w.pid = 0 OR a.pid IS NOT NULL)
 ORDER BY w.pid
"""


def described(
    conn: psycopg.Connection[Any], pids: compose.Composable, values: dict[str, Any]
) -> tuple[Session, ...]:
    """Read who the sessions are that an SQL array of processes names."""
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(compose.SQL(DESCRIBED).format(pids=pids), values).fetchall()
    return tuple(_session(row) for row in rows)


def _session(row: dict[str, Any]) -> Session:
    return Session(**{**row, "query": redacted(row["query"])})


# Who builds, vacuums or analyzes holds this lock to the end. Autovacuum has no user and gives way.
MAINTAINING = compose.SQL("""ARRAY(
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


def maintaining(
    conn: psycopg.Connection[Any], schema: str | None, table: str
) -> tuple[Session, ...]:
    """Read which sessions may be building an index on a table, whatever their role lets us see."""
    return described(conn, MAINTAINING, {"schema": schema, "name": table})


@dataclass(frozen=True, slots=True)
class Observation:
    """What a second session sees of a statement in flight."""

    pid: int
    phase: str
    """As in pg_stat_progress_create_index; empty where it does not tell."""
    blocks_done: int
    blocks_total: int
    tuples_done: int
    tuples_total: int
    queueing: bool
    """Whether it waits for the lock of a table or an index."""
    waiting: bool
    """Whether it waits for another session at all."""
    blockers: tuple[Session, ...] = ()

    @property
    def percent(self) -> float | None:
        """Share of the phase that is done; None where the server does not count.

        While it waits for others, the counters still hold those of the phase before.
        """
        if self.waiting or self.phase.startswith("waiting"):
            return None
        for done, total in (
            (self.blocks_done, self.blocks_total),
            (self.tuples_done, self.tuples_total),
        ):
            if total:
                return min(100.0 * done / total, 100.0)
        return None


# One query a second is all that watching costs, however many builds are in flight.
OBSERVED = """
SELECT w.pid,
       COALESCE(p.phase, '') AS phase,
       COALESCE(p.blocks_done, 0) AS blocks_done,
       COALESCE(p.blocks_total, 0) AS blocks_total,
       COALESCE(p.tuples_done, 0) AS tuples_done,
       COALESCE(p.tuples_total, 0) AS tuples_total,
       COALESCE(k.queueing, false) AS queueing,
       COALESCE(k.waiting, false) AS waiting,
       b.pid AS blocker,
       COALESCE(NULLIF(a.application_name, ''), a.backend_type, '') AS application,
       COALESCE(a.usename, '')::text AS user,
       COALESCE(a.state, '') AS state,
       extract(epoch FROM pg_catalog.clock_timestamp()
                          - COALESCE(a.xact_start, a.state_change))::float8 AS age_seconds,
       a.query_start,
       COALESCE(CASE WHEN a.state IS NOT NULL THEN a.query END, '') AS query
  FROM pg_catalog.unnest(%(pids)s::int[]) AS w (pid)
  LEFT JOIN pg_catalog.pg_stat_progress_create_index AS p ON p.pid = w.pid
  LEFT JOIN (SELECT l.pid,
                    true AS waiting,
                    pg_catalog.bool_or(l.locktype = 'relation') AS queueing
               FROM pg_catalog.pg_locks AS l
              WHERE NOT l.granted
              GROUP BY l.pid) AS k ON k.pid = w.pid
  LEFT JOIN LATERAL (
       SELECT DISTINCT u.pid
         FROM pg_catalog.unnest(CASE WHEN k.waiting THEN pg_catalog.pg_blocking_pids(w.pid) END
                     || NULLIF(p.current_locker_pid, 0)::int) AS u (pid)
        WHERE u.pid IS NOT NULL) AS b ON true
  LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = b.pid
 ORDER BY w.pid,
          b.pid
"""


def observe(conn: psycopg.Connection[Any], pids: Iterable[int]) -> dict[int, Observation]:
    """Read how far statements are and who is in their way, by process; reads only."""
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(OBSERVED, {"pids": list(pids)}).fetchall()
    found: dict[int, Observation] = {}
    for row in rows:
        seen = {name: row[name] for name in Observation.__slots__ if name != "blockers"}
        before = found.get(row["pid"])
        blockers = () if before is None else before.blockers
        if row["blocker"] is not None:
            who = {name: row[name] for name in Session.__slots__ if name != "pid"}
            blockers = (*blockers, _session({"pid": row["blocker"], **who}))
        found[row["pid"]] = Observation(**seen, blockers=blockers)
    return found


CANCEL = """
SELECT pg_catalog.pg_cancel_backend(p.pid)
  FROM unnest(%(pids)s::int[]) AS p (pid)
 ORDER BY p.pid
"""


def cancel(conn: psycopg.Connection[Any], pid: int) -> None:
    """Cancel what a process of ours does."""
    conn.execute(CANCEL, {"pids": [pid]})
