"""Care for the server: what it has room for, and whether a build may begin now."""

from __future__ import annotations

import ipaddress
import os
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import class_row

from indexlab import units
from indexlab.apply.sessions import conn_row
from indexlab.apply.settings import Settings
from indexlab.apply.steps import BUILDS, Step
from indexlab.errors import InputError, TargetError
from indexlab.plan import CreateIndex

LEAST_MEMORY = 1024**2
PAGE_FILL = 0.9
ENTRY_BYTES = 20
"""Of an index entry beside its values: item pointer, tuple header, alignment."""
PER_METHOD = {"btree": 1.0, "hash": 1.1, "gist": 1.5, "spgist": 1.2, "gin": 0.7, "brin": 0.001}

LAG = """
SELECT COALESCE(NULLIF(r.application_name, ''), 'a standby') AS name,
       pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), r.replay_lsn)::bigint AS bytes,
       extract(epoch FROM r.replay_lag)::float8 AS seconds,
       pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), '0/0')::bigint AS written
  FROM pg_catalog.pg_stat_replication AS r
 ORDER BY r.pid
"""


@dataclass(frozen=True, slots=True)
class Lag:
    """How much WAL a standby has not replayed."""

    name: str
    bytes: int | None
    """None where the role may not see it."""
    seconds: float | None = None
    """How long the last thing took that it replayed; None where it is idle, or has not yet."""
    written: int = 0
    """The end of the server's WAL, in bytes."""


def lags(conn: psycopg.Connection[Any]) -> tuple[Lag, ...]:
    """Read how far the standbys are behind; reads only."""
    with conn.cursor(row_factory=class_row(Lag)) as cursor:
        return tuple(cursor.execute(LAG).fetchall())


class Delays:
    """How long standbys are behind, by where the server's WAL ended when it was looked at before.

    `replay_lag` alone tells how long the last thing took that was replayed: while replay stands
    still, so does it.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque(maxlen=10_000)

    def of(self, lag: Lag, now: float) -> float:
        """Return how many seconds a standby is behind at least, and remember where the WAL ends.

        Args:
            lag: as it was just read.
            now: seconds on a clock that only goes on.
        """
        self._seen.append((now, lag.written))
        if not lag.bytes:
            return 0.0
        missing = (at for at, written in self._seen if written > lag.written - (lag.bytes or 0))
        return max(lag.seconds or 0.0, now - next(missing, now))


# Who may not read the setting must not ask for it, and pg_settings is slow: it writes all of them.
PLACES = """
SELECT CASE WHEN pg_catalog.pg_has_role('pg_read_all_settings', 'USAGE')
            THEN pg_catalog.current_setting('data_directory')
       END AS place
 UNION
SELECT pg_catalog.pg_tablespace_location(t.oid)
  FROM pg_catalog.pg_tablespace AS t
 WHERE t.spcname = ANY (%(spaces)s)
 ORDER BY place
"""
HERE = """
SELECT pg_catalog.pg_backend_pid(),
       COALESCE(pg_catalog.host(pg_catalog.inet_server_addr()), '')
"""


def free(conn: psycopg.Connection[Any], spaces: Iterable[str] = ()) -> int | None:
    """Return the free bytes of the fullest disk of the server; None where it cannot be seen.

    A server does not tell; its disks are looked at where it runs on this machine.

    Args:
        conn: any session.
        spaces: tablespaces beside the server's own directory.
    """
    pid, address = conn_row(conn, HERE)
    if address and not ipaddress.ip_address(address).is_loopback:
        return None
    try:
        if Path(f"/proc/{pid}/comm").read_text().strip() not in ("postgres", "postmaster"):
            return None
        places = [row[0] for row in conn.execute(PLACES, {"spaces": list(spaces)}) if row[0]]
        found = [os.statvfs(place) for place in places]
    except OSError:
        return None
    return min((item.f_bavail * item.f_frsize for item in found), default=None)


ROOMS = """
SELECT w.step,
       GREATEST(c.reltuples, 0)::float8 AS rows,
       pg_catalog.pg_table_size(c.oid) AS bytes,
       COALESCE(pg_catalog.sum(s.stawidth), 0)::int AS width
  FROM unnest(%(steps)s::int[], %(schemas)s::text[], %(tables)s::text[],
                         %(columns)s::text[]) AS w (step, schema, name, "column")
  JOIN pg_catalog.pg_namespace AS n ON n.nspname = w.schema
  JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = w.name
  LEFT JOIN LATERAL (
       SELECT v.avg_width AS stawidth
         FROM pg_catalog.pg_stats AS v
        WHERE v.schemaname = w.schema
          AND v.tablename = w.name
          AND v.attname = w.column
        ORDER BY v.inherited
        LIMIT 1) AS s ON true
 GROUP BY w.step, c.oid, c.reltuples
 ORDER BY w.step
"""


@dataclass(frozen=True, slots=True)
class _Room:
    step: int
    rows: float
    bytes: int
    width: int


def estimated_bytes(conn: psycopg.Connection[Any], steps: tuple[Step, ...]) -> dict[int, int]:
    """Estimate the size of what each step builds, from the planner's statistics; reads only.

    Rows times the entry's width, over the fill of pages; a table without statistics counts with
    a quarter of its size. A predicate is not weighed, so a partial index is overestimated.
    """
    building = {
        number: (step.on, step.planned.index)
        for number, step in enumerate(steps)
        if step.action in BUILDS and step.on is not None and isinstance(step.planned, CreateIndex)
    }
    if not building:
        return {}
    asked = [
        (number, on.schema, on.name, column)
        for number, (on, index) in building.items()
        for column in index.columns or ("",)
    ]
    names = ("steps", "schemas", "tables", "columns")
    values = {
        name: list(items) for name, items in zip(names, zip(*asked, strict=True), strict=True)
    }
    with conn.cursor(row_factory=class_row(_Room)) as cursor:
        rooms = cursor.execute(ROOMS, values).fetchall()
    return {room.step: _size(room, building[room.step][1].method) for room in rooms}


def _size(room: _Room, method: str) -> int:
    if not room.rows or not room.width:
        return room.bytes // 4
    whole = room.rows * (ENTRY_BYTES + room.width) / PAGE_FILL
    return round(whole * PER_METHOD.get(method, 1.0))


WORKERS = "SELECT pg_catalog.current_setting('max_parallel_maintenance_workers')::int"


def workers(conn: psycopg.Connection[Any]) -> int:
    """Read how many parallel workers a build of the session may use."""
    return int(conn_row(conn, WORKERS)[0])


def memory(settings: Settings) -> dict[str, str]:
    """Share memory out among the jobs, as settings of their sessions; pure.

    Returns:
        Nothing where each is to have what its session has.

    Raises:
        InputError: there is too little for a job.
    """
    if not settings.memory:
        return {}
    each = settings.memory // settings.jobs
    if each < LEAST_MEMORY:
        raise InputError(
            f"{units.size(settings.memory)} of memory are too little for "
            f"{units.plural(settings.jobs, 'job')}: each needs {units.size(LEAST_MEMORY)}"
        )
    return {"maintenance_work_mem": str(each // 1024)}


def check(conn: psycopg.Connection[Any], settings: Settings, spaces: set[str], need: int) -> None:
    """Refuse what cannot be kept watch on, or has no room, before anything is begun.

    Args:
        conn: any session.
        settings: of the run.
        spaces: tablespaces of the plan.
        need: estimated bytes of all that is to be built.

    Raises:
        TargetError: the role does not see a limit's figure, or the disk is too full.
    """
    if (settings.max_lag or settings.max_lag_seconds) and any(
        item.bytes is None for item in lags(conn)
    ):
        raise TargetError(
            "max_lag cannot be kept: the role does not see the standbys' positions; "
            "GRANT pg_monitor to it, or leave max_lag out"
        )
    room = free(conn, spaces)
    if settings.min_free and room is None:
        raise TargetError(
            "min_free cannot be kept: the server's disks are not visible from here; "
            "run on the server's machine with a role in pg_read_all_settings, or leave it out"
        )
    if room is not None and need + settings.min_free > room:
        kept = f" and {units.size(settings.min_free)} are to stay free" if settings.min_free else ""
        raise TargetError(
            f"the plan needs about {units.size(need)}{kept}, the server's disk has "
            f"{units.size(room)}: make room, or take statements out"
        )


def objection(
    conn: psycopg.Connection[Any],
    settings: Settings,
    spaces: set[str],
    now: datetime,
    delays: Delays,
) -> str:
    """Say why a build should not begin now; empty where nothing is against it. Reads only.

    Args:
        conn: any session.
        settings: of the run.
        spaces: tablespaces of the plan.
        now: with its time zone.
        delays: what the run has seen of its standbys so far.
    """
    hours = settings.hours
    if hours is not None and (left := hours.wait(now)):
        return f"the window {hours} opens in {units.duration(left.total_seconds())}"
    for lag in lags(conn) if settings.max_lag or settings.max_lag_seconds else ():
        if settings.max_lag and lag.bytes is not None and lag.bytes > settings.max_lag:
            return (
                f"{lag.name} has {units.size(lag.bytes)} to replay, "
                f"more than {units.size(settings.max_lag)}"
            )
        behind = delays.of(lag, time.monotonic())
        if settings.max_lag_seconds and behind > settings.max_lag_seconds:
            return (
                f"{lag.name} is {units.duration(behind)} behind, "
                f"more than {units.duration(settings.max_lag_seconds)}"
            )
    if settings.min_free:
        room = free(conn, spaces)
        if room is not None and room < settings.min_free:
            return (
                f"the disk has {units.size(room)} free, less than {units.size(settings.min_free)}"
            )
    return ""
