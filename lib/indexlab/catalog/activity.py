"""What goes on in the server beside the kit: settings, sessions, builds, standbys."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, LiteralString

import psycopg
from psycopg.rows import class_row


@dataclass(frozen=True, slots=True)
class Setting:
    """Where one of the timeouts is set for the role and the database of this session."""

    name: str
    value: str
    """As written."""
    role: str | None
    """The role it is set for; None for all roles."""
    database: str | None
    """The database it is set for; None for all databases."""


@dataclass(frozen=True, slots=True)
class Session:
    """Another session of this database that may stand in the way of a build."""

    pid: int
    application: str
    user: str
    state: str
    """Empty where the role may not see it."""
    kind: str
    """As `backend_type`; empty where the role may not see it."""
    age: float | None
    """Seconds since its transaction began; None where the role may not see it."""
    snapshot: bool
    """Whether it holds a snapshot that a concurrent build waits for."""
    locks: tuple[int, ...] = ()
    """The tables that it has locked so that a build has to wait."""
    advisory: bool = False
    """Whether it waits for an advisory lock."""
    wraparound: bool = False
    """Whether it is an autovacuum that does not yield, as it prevents wraparound."""
    building: int | None = None
    """The table that it builds an index on."""
    progress: float | None = None
    """The share of the blocks that this build has done in its phase, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared transaction of this database."""

    name: str
    owner: str
    age: float
    """Seconds."""
    locks: tuple[int, ...]
    """The tables that it has locked so that a build has to wait."""


@dataclass(frozen=True, slots=True)
class Replica:
    """A standby or another receiver of the server's WAL."""

    application: str
    state: str
    """Empty where the role may not see it."""
    lag_bytes: float | None
    """How much WAL it has not replayed; None where the role may not see it."""
    lag: float | None
    """Seconds, as it last told."""


@dataclass(frozen=True, slots=True)
class Activity:
    """What goes on in the server."""

    settings: tuple[Setting, ...] = ()
    sessions: tuple[Session, ...] = ()
    prepared: tuple[Prepared, ...] = ()
    replicas: tuple[Replica, ...] = ()
    database_bytes: int | None = None
    """None where the role may not know it."""
    max_wal_bytes: int = 0
    """The setting max_wal_size."""
    wal_level: str = ""
    pooled: bool | None = None
    """Whether a pooler deals out transactions; None where it was not tried."""
    denied: tuple[str, ...] = ()
    """What the role may not read at all, in words."""


def read(conn: psycopg.Connection[Any], other: psycopg.Connection[Any] | None = None) -> Activity:
    """Read what goes on in the server; reads only.

    It takes one round trip, or one for each of five short queries with a libpq before 14 and where
    the role may not read one of the views. What the role may not see is None or empty in the
    result.

    Args:
        conn: a connection in autocommit mode.
        other: a second one to the same address, to tell a pooler in transaction mode by: then both
            are asked for their backend, too.
    """
    try:
        answers = _together(conn)
        denied: tuple[str, ...] = ()
    except psycopg.errors.InsufficientPrivilege:
        answers, denied = _one_by_one(conn)
    settings, sessions, prepared, replicas, server = answers
    activity = Activity(
        settings=settings,
        sessions=tuple(replace(item, locks=tuple(item.locks)) for item in sessions),
        prepared=tuple(replace(item, locks=tuple(item.locks)) for item in prepared),
        replicas=replicas,
        denied=denied,
    )
    if server:
        activity = replace(
            activity,
            database_bytes=server[0].database_bytes,
            max_wal_bytes=server[0].max_wal_bytes,
            wal_level=server[0].wal_level,
        )
    return (
        activity if other is None else replace(activity, pooled=_backend(conn) == _backend(other))
    )


def _together(conn: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    with conn.pipeline() if psycopg.Pipeline.is_supported() else nullcontext():
        cursors = [
            conn.cursor(row_factory=class_row(row)).execute(query) for _, row, query in _parts()
        ]
        return [tuple(cursor.fetchall()) for cursor in cursors]


def _one_by_one(
    conn: psycopg.Connection[Any],
) -> tuple[list[tuple[Any, ...]], tuple[str, ...]]:
    """Read what the role may read, and return with it the names of what it may not."""
    answers: list[tuple[Any, ...]] = []
    denied: list[str] = []
    for name, row, query in _parts():
        try:
            cursor = conn.cursor(row_factory=class_row(row)).execute(query)
            answers.append(tuple(cursor.fetchall()))
        except psycopg.errors.InsufficientPrivilege:
            answers.append(())
            denied.append(name)
    return answers, tuple(denied)


def _parts() -> tuple[tuple[str, type[Any], LiteralString], ...]:
    """Return what is read: its name, the class of a row, the query."""
    return (
        ("timeouts", Setting, SETTINGS),
        ("sessions", Session, SESSIONS),
        ("prepared transactions", Prepared, PREPARED),
        ("standbys", Replica, REPLICAS),
        ("sizes", Activity, SERVER),
    )


def _backend(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute("SELECT pg_catalog.pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


# The most specific one of each name comes first: role and database, role, database, all. Here are
# the settings that can end a concurrent build. idle_in_transaction_session_timeout cannot: such a
# build is never idle in a transaction.
SETTINGS = """
SELECT f.name,
       f.value,
       f.role,
       f.database
  FROM (SELECT pg_catalog.split_part(c.written, '=', 1) AS name,
               pg_catalog.substr(c.written, pg_catalog.strpos(c.written, '=') + 1) AS value,
               r.rolname AS role,
               d.datname AS database,
               CASE WHEN s.setrole <> 0 AND s.setdatabase <> 0 THEN 1
                    WHEN s.setrole <> 0 THEN 2
                    WHEN s.setdatabase <> 0 THEN 3
                    ELSE 4
               END AS place
          FROM pg_catalog.pg_db_role_setting AS s
         CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS c (written)
          LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = s.setrole
          LEFT JOIN pg_catalog.pg_database AS d ON d.oid = s.setdatabase
         WHERE (s.setrole = 0 OR r.rolname = SESSION_USER)
           AND (s.setdatabase = 0 OR d.datname = pg_catalog.current_database())
         UNION ALL
        SELECT g.name,
               g.reset_val || 'ms', -- the kit's session itself has none
               NULL,
               NULL,
               5
          FROM pg_catalog.pg_settings AS g
         WHERE g.source IN ('configuration file', 'session')
           AND g.reset_val <> g.boot_val) AS f
 WHERE f.name IN ('lock_timeout', 'statement_timeout', 'transaction_timeout')
 ORDER BY f.name, f.place
"""

# A build waits for the transactions that have locked its table against a share lock, and for the
# snapshots of the sessions of its own database, but not for those of VACUUM. Of a session of
# another role xmin and locks are visible, its state and the age of its transaction are not.
SESSIONS = """
SELECT a.pid,
       COALESCE(a.application_name, '') AS application,
       COALESCE(a.usename, '') AS user,
       COALESCE(a.state, '') AS state,
       COALESCE(a.backend_type, '') AS kind,
       EXTRACT(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::float8 AS age,
       a.backend_xmin IS NOT NULL
       AND v.pid IS NULL
       AND COALESCE(a.backend_type, '') <> 'autovacuum worker' AS snapshot,
       COALESCE(l.tables, ARRAY[]::bigint[]) AS locks,
       COALESCE(l.advisory, false) AS advisory,
       COALESCE(a.backend_type = 'autovacuum worker'
                AND a.query LIKE '%(to prevent wraparound)', false) AS wraparound,
       b.relid::bigint AS building,
       b.blocks_done::float8 / NULLIF(b.blocks_total, 0) AS progress
  FROM pg_catalog.pg_stat_activity AS a
  LEFT JOIN pg_catalog.pg_stat_progress_vacuum AS v ON v.pid = a.pid
  LEFT JOIN pg_catalog.pg_stat_progress_create_index AS b ON b.pid = a.pid
  LEFT JOIN (SELECT l.pid,
                    pg_catalog.array_agg(DISTINCT l.relation::bigint ORDER BY l.relation::bigint)
                        FILTER (WHERE l.granted
                                  AND l.locktype = 'relation'
                                  AND l.relation >= 16384
                                  AND l.mode IN ('RowExclusiveLock', 'ShareUpdateExclusiveLock',
                                                 'ShareRowExclusiveLock', 'ExclusiveLock',
                                                 'AccessExclusiveLock')) AS tables,
                    pg_catalog.bool_or(l.locktype = 'advisory' AND NOT l.granted) AS advisory
               FROM pg_catalog.pg_locks AS l
              WHERE l.database = (SELECT d.oid
                                    FROM pg_catalog.pg_database AS d
                                   WHERE d.datname = pg_catalog.current_database())
              GROUP BY l.pid) AS l ON l.pid = a.pid
 WHERE a.datname = pg_catalog.current_database()
   AND a.pid <> pg_catalog.pg_backend_pid()
   AND COALESCE(a.backend_type, '') <> 'parallel worker'
   AND (a.backend_xmin IS NOT NULL OR l.tables IS NOT NULL OR l.advisory)
 ORDER BY a.xact_start, a.pid
"""

# The locks of a prepared transaction have no process, and its number only one of them: on itself.
# The others have the same virtual number, which was -1/xid in older releases and is its session's.
PREPARED = """
SELECT p.gid AS name,
       p.owner,
       EXTRACT(epoch FROM pg_catalog.clock_timestamp() - p.prepared)::float8 AS age,
       ARRAY(SELECT DISTINCT l.relation::bigint
               FROM pg_catalog.pg_locks AS l
               JOIN pg_catalog.pg_locks AS own ON own.virtualtransaction = l.virtualtransaction
              WHERE l.pid IS NULL
                AND own.pid IS NULL
                AND own.locktype = 'transactionid'
                AND own.transactionid = p.transaction
                AND l.locktype = 'relation'
                AND l.relation >= 16384
                AND l.mode IN ('RowExclusiveLock', 'ShareUpdateExclusiveLock',
                               'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
              ORDER BY l.relation::bigint) AS locks
  FROM pg_catalog.pg_prepared_xacts AS p
 WHERE p.database = pg_catalog.current_database()
 ORDER BY p.prepared, p.gid
"""

REPLICAS = """
SELECT COALESCE(r.application_name, '') AS application,
       COALESCE(r.state, '') AS state,
       CASE WHEN NOT pg_catalog.pg_is_in_recovery()
            THEN pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), r.replay_lsn)::float8
       END AS lag_bytes,
       EXTRACT(epoch FROM r.replay_lag)::float8 AS lag
  FROM pg_catalog.pg_stat_replication AS r
 ORDER BY r.application_name, r.pid
"""

SERVER = """
SELECT CASE WHEN pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CONNECT')
            THEN pg_catalog.pg_database_size(pg_catalog.current_database())
       END AS database_bytes,
       pg_catalog.pg_size_bytes(pg_catalog.current_setting('max_wal_size')) AS max_wal_bytes,
       pg_catalog.current_setting('wal_level') AS wal_level
"""
