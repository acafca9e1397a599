"""Sessions that measure: their settings, the clock around libpq, and the facts of the server."""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from statistics import median
from typing import Any

import psycopg
from psycopg import generators, pq

from indexlab import target
from indexlab.benchmark.series import Table
from indexlab.target import Server, Target
from indexlab.workload import Values

OVERHEAD_EXECUTIONS = 100
CANCELLING = 5.0
"""Seconds that a server may take to hear of a cancellation."""
ANSWERING = 0.2
"""Seconds for an answer before it is cancelled once more."""
OWN_SECONDS = 60.0
"""What the kit's own statements may take: the catalog's facts, hiding an index, a plan, a VACUUM."""
OTHERS_MS = 10_000
"""How long hiding an index waits for other users of its table."""


@contextmanager
def opened(address: Target, *, read_only: bool) -> Iterator[psycopg.Connection[Any]]:
    """Connect for measuring and close at the end; psycopg prepares nothing by itself.

    The limit of the user's statements is that of their transactions.

    Args:
        address: of the server.
        read_only: the session and each of its transactions refuse to write.
    """
    with target.connect(address, read_only=read_only, purpose="benchmark") as conn:
        # Not False: a role or database that is read-only by default stays so.
        conn.read_only = True if read_only else None
        conn.prepare_threshold = None
        limit(conn, OWN_SECONDS)
        if conn.info.server_version >= 140000:
            # A client that was killed lets go of the indexes that it hides before its query ends.
            with suppress(psycopg.errors.InvalidParameterValue):  # not on every system
                conn.execute(LOOK_FOR_CLIENT)
        _leave_uncounted(conn)
        yield conn


LOOK_FOR_CLIENT = "SELECT pg_catalog.set_config('client_connection_check_interval', '1s', false)"

# Only a superuser may; where the extension is not loaded, there is no such setting.
UNCOUNTED = """
SELECT pg_catalog.set_config(setting.name, 'none', false)
  FROM pg_catalog.pg_settings AS setting
 WHERE setting.name = 'pg_stat_statements.track'
   AND pg_catalog.current_setting('is_superuser') = 'on'
"""


def _leave_uncounted(conn: psycopg.Connection[Any]) -> None:
    """Keep what is measured out of pg_stat_statements, which tells what the application runs."""
    conn.execute(UNCOUNTED)


TIMEOUT = "SELECT pg_catalog.set_config('statement_timeout', %s, false)"


def limit(conn: psycopg.Connection[Any], seconds: float) -> None:
    """Set how long a statement of this session may take."""
    conn.execute(TIMEOUT, [f"{round(seconds * 1000)}ms"])


def timed(
    conn: psycopg.Connection[Any], name: str, values: Values
) -> tuple[float, pq.abc.PGresult]:
    """Execute a prepared statement at libpq's level: no Python values are made of its rows.

    psycopg's own wait loop reads the answer, so Ctrl-C is seen within a tenth of a second and
    cancels the statement on the server. The clock is monotonic: it does not jump.

    Returns:
        Milliseconds until the whole answer was there, and the answer.

    Raises:
        psycopg.Error: whatever the server says.
    """
    parameters = [None if value is None else value.encode() for value in values]
    key = name.encode()
    with _settled(conn):
        started = time.perf_counter_ns()
        conn.pgconn.send_query_prepared(key, parameters)
        results = conn.wait(generators.execute(conn.pgconn))
        elapsed = time.perf_counter_ns() - started
    return max(elapsed, 1) / 1e6, _checked(conn, results)


def prepare(conn: psycopg.Connection[Any], name: str, statement: str) -> None:
    """Prepare a statement on the server under a name.

    Raises:
        psycopg.Error: whatever the server says.
    """
    with _settled(conn):
        conn.pgconn.send_prepare(name.encode(), statement.encode())
        results = conn.wait(generators.execute(conn.pgconn))
    _checked(conn, results)


@contextmanager
def _settled(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Leave no statement running behind an interrupt that psycopg's wait loop has not seen.

    That is one before the wait began, or a second one. The session ends, since its protocol is in
    the middle of an answer, and with it the transaction.
    """
    try:
        yield
    except BaseException:
        if conn.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
            with suppress(psycopg.Error):
                _cancel(conn)
            conn.close()
        raise


def _cancel(conn: psycopg.Connection[Any]) -> None:
    """Cancel until the server answers: a request that overtakes its statement cancels nothing."""
    deadline = time.monotonic() + CANCELLING
    with selectors.DefaultSelector() as answers:
        answers.register(conn.pgconn.socket, selectors.EVENT_READ)
        while time.monotonic() < deadline:
            conn.cancel_safe(timeout=CANCELLING)
            if answers.select(ANSWERING):
                conn.pgconn.consume_input()
                if not conn.pgconn.is_busy():
                    return


def _checked(conn: psycopg.Connection[Any], results: Sequence[pq.abc.PGresult]) -> pq.abc.PGresult:
    result = results[-1]
    if result.status == pq.ExecStatus.FATAL_ERROR:
        raise psycopg.errors.error_from_result(result, encoding=conn.info.encoding)
    return result


def overhead(conn: psycopg.Connection[Any]) -> float:
    """Return the median latency in milliseconds of an empty statement: part of every sample."""
    prepare(conn, "indexlab_empty", "SELECT 1")
    with conn.transaction(force_rollback=True):
        return median(timed(conn, "indexlab_empty", ())[0] for _ in range(OVERHEAD_EXECUTIONS))


SETTINGS = """
SELECT name,
       current_setting(name) AS value
FROM pg_catalog.pg_settings
WHERE name = ANY (%s)
   -- Switched off by somebody: plans without it are not those of the default planner.
   OR (name LIKE 'enable\\_%%' AND setting <> boot_val)
ORDER BY name COLLATE "C"
"""

SETTING_NAMES = [
    "autovacuum",
    "cpu_index_tuple_cost",
    "cpu_operator_cost",
    "cpu_tuple_cost",
    "default_statistics_target",
    "effective_cache_size",
    "effective_io_concurrency",
    "hash_mem_multiplier",
    "jit",
    "maintenance_work_mem",
    "max_parallel_workers",
    "max_parallel_workers_per_gather",
    "plan_cache_mode",
    "random_page_cost",
    "search_path",
    "seq_page_cost",
    "shared_buffers",
    "synchronous_commit",
    "track_io_timing",
    "work_mem",
]

STARTED = """
SELECT pg_catalog.to_char(
           pg_catalog.pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'
       ) AS started
"""


def facts(conn: psycopg.Connection[Any]) -> tuple[Server, tuple[tuple[str, str], ...]]:
    """Ask the server who it is, and for the settings that plans and latencies depend on."""
    rows = conn.execute(SETTINGS, [SETTING_NAMES]).fetchall()
    return target.server(conn), tuple((name, value) for name, value in rows)


def server_started(conn: psycopg.Connection[Any]) -> str:
    """Return when the server was started, as UTC to the microsecond."""
    row = conn.execute(STARTED).fetchone()
    assert row is not None
    return str(row[0])


TABLES = """
SELECT wanted.schema || '.' || wanted.name AS name,
       class.reltuples::float8 AS rows,
       pg_catalog.pg_relation_size(class.oid) AS bytes,
       pg_catalog.pg_indexes_size(class.oid) AS index_bytes,
       coalesce(
           greatest(stats.last_analyze, stats.last_autoanalyze) AT TIME ZONE 'UTC', '-infinity'
       )::text AS analyzed
FROM unnest(%s::text[], %s::text[]) AS wanted (schema, name)
JOIN pg_catalog.pg_namespace AS namespace ON namespace.nspname = wanted.schema
JOIN pg_catalog.pg_class AS class
    ON class.relnamespace = namespace.oid
    AND class.relname = wanted.name
LEFT JOIN pg_catalog.pg_stat_all_tables AS stats ON stats.relid = class.oid
WHERE class.relkind IN ('r', 'p', 'm')
ORDER BY wanted.schema COLLATE "C", wanted.name COLLATE "C"
"""


def tables(conn: psycopg.Connection[Any], names: Collection[tuple[str, str]]) -> tuple[Table, ...]:
    """Return the sizes of tables and when their statistics were made; reads only.

    Args:
        conn: any connection.
        names: schema and name of each.
    """
    schemas, relations = zip(*sorted(names), strict=True) if names else ((), ())
    rows = conn.execute(TABLES, [list(schemas), list(relations)]).fetchall()
    return tuple(Table(*row) for row in rows)


def load_average() -> float:
    """Return how many processes of this machine wanted a processor in the last minute."""
    return os.getloadavg()[0]
