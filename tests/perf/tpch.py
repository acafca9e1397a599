"""TPC-H for benchmarks: the data, and servers that have loaded it, kept in the user's cache.

The first use at scale factor 1 takes about two minutes and 6 GB of disk, the next ones seconds.
`tpch/` holds the benchmark's public text: schema, primary keys, and the 22 queries with the
standard's default substitutions.
"""

from __future__ import annotations

import fcntl
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from indexlab import embedded
from indexlab.embedded.account import choose_account

TEXTS = Path(__file__).with_name("tpch")
QUERIES = {
    file.stem: file.read_text(encoding="utf-8") for file in sorted(TEXTS.glob("queries/*.sql"))
}
TABLES = ("region", "nation", "part", "supplier", "partsupp", "customer", "orders", "lineitem")
INDEXES = {
    "l_orderkey": "CREATE INDEX l_orderkey ON public.lineitem (l_orderkey)",
    "l_partkey": "CREATE INDEX l_partkey ON public.lineitem (l_partkey)",
    "l_suppkey": "CREATE INDEX l_suppkey ON public.lineitem (l_suppkey)",
    "l_shipdate": "CREATE INDEX l_shipdate ON public.lineitem (l_shipdate)",
    "l_receiptdate": "CREATE INDEX l_receiptdate ON public.lineitem (l_receiptdate)",
    "o_custkey": "CREATE INDEX o_custkey ON public.orders (o_custkey)",
    "o_orderdate": "CREATE INDEX o_orderdate ON public.orders (o_orderdate)",
    "o_key_priority": (
        "CREATE INDEX o_key_priority ON public.orders (o_orderkey, o_orderpriority)"
    ),
    "ps_suppkey": "CREATE INDEX ps_suppkey ON public.partsupp (ps_suppkey)",
}
PLAIN, INDEXED = "tpch", "tpch_indexed"
"""Databases: with primary keys alone, and a copy of it, statistics and all, with the indexes."""
CHUNK = 1 << 20

Address = Callable[[str], str]
"""From a database's name to how libpq connects to it."""


def cache(name: str) -> Path:
    """Return a directory for what is worth keeping between runs; nobody else reads it."""
    place = platformdirs.user_cache_path("indexlab-bench") / name
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    return place


def data(scale: str) -> Path:
    """Return where the eight .tbl files of a scale factor are, made if need be."""
    place = cache(f"tpch-{scale}") / "tbl"
    with _held(place.parent):
        return place if place.exists() else _generated(place, scale)


def _generated(place: Path, scale: str) -> Path:
    program = Path(sys.executable).with_name("tpchgen-cli")
    if not program.is_file():
        raise FileNotFoundError("no tpchgen-cli: pip install -e '.[test,bench]'")
    fresh = place.with_name("tbl_new")
    shutil.rmtree(fresh, ignore_errors=True)
    subprocess.run([program, "--quiet", "-s", scale, "--output-dir", fresh], check=True)
    return fresh.rename(place)


@contextmanager
def embedded_18(scale: str) -> Iterator[embedded.Server]:
    """Run the embedded server with the benchmark loaded."""
    place = cache(f"tpch-{scale}/{_version()}")
    with _held(place), embedded.server(place) as it:
        load(it.conninfo, scale)
        yield it


@contextmanager
def debian_15(scale: str, programs: Path) -> Iterator[Address]:
    """Run a PostgreSQL 15, its planner as it comes, with the benchmark and HypoPG loaded."""
    place = cache(f"tpch-{scale}/15")
    account = choose_account()
    sockets = Path(tempfile.mkdtemp(prefix="tpch15-"))
    for directory in (place, sockets):
        account.own(directory)
    with _held(place), (place / "log").open("w") as log:
        if not (place / "data" / "PG_VERSION").exists():
            child = account.popen(
                programs / "initdb",
                *("-D", place / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8"),
                *("--locale=C", "--no-sync"),
                stdout=log.fileno(),
            )
            assert child.wait() == 0, f"initdb failed, see {log.name}"
        server = account.popen(
            programs / "postgres",
            *("-D", place / "data", "-k", sockets, "-c", "listen_addresses="),
            *("-c", "shared_buffers=512MB", "-c", "maintenance_work_mem=256MB"),
            *("-c", "max_wal_size=4GB", "-c", "autovacuum=off", "-c", "fsync=off"),
            stdout=log.fileno(),
        )

        def address(database: str) -> str:
            return make_conninfo(host=str(sockets), user="postgres", dbname=database)

        try:
            _await(server, address("postgres"), Path(log.name))
            load(address, scale)
            with psycopg.connect(address(PLAIN), autocommit=True) as conn:
                conn.execute("CREATE EXTENSION IF NOT EXISTS hypopg")
            yield address
        finally:
            server.send_signal(signal.SIGINT)
            server.wait()
            shutil.rmtree(sockets, ignore_errors=True)


def load(address: Address, scale: str) -> None:
    """Make the two databases on a server where they are not there yet."""
    with psycopg.connect(address("postgres"), autocommit=True) as admin:
        existing = {name for (name,) in admin.execute("SELECT datname FROM pg_database")}
        if PLAIN not in existing:
            _make(admin, address, PLAIN, None, lambda conn: _fill(conn, data(scale)))
        if INDEXED not in existing:
            _make(admin, address, INDEXED, PLAIN, _index)


def _make(
    admin: psycopg.Connection,
    address: Address,
    name: str,
    template: str | None,
    work: Callable[[psycopg.Connection], None],
) -> None:
    """Make a database under another name, which it gives up when complete."""
    new, final = sql.Identifier(f"{name}_new"), sql.Identifier(name)
    admin.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(new))
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
    admin.execute(create.format(new, sql.Identifier(template or "template1")))
    with psycopg.connect(address(f"{name}_new"), autocommit=True) as conn:
        work(conn)
    admin.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(new, final))
    admin.execute("CHECKPOINT")


def _fill(conn: psycopg.Connection, files: Path) -> None:
    conn.execute((TEXTS / "schema.sql").read_text(encoding="utf-8"))
    for table in TABLES:
        copy = sql.SQL("COPY {} FROM STDIN (DELIMITER '|')").format(sql.Identifier(table))
        with (files / f"{table}.tbl").open("rb") as file, conn.cursor().copy(copy) as target:
            while lines := file.read(CHUNK) + file.readline():
                target.write(lines.replace(b"|\n", b"\n"))
    conn.execute((TEXTS / "primary_keys.sql").read_text(encoding="utf-8"))
    conn.execute("VACUUM (ANALYZE)")


def _index(conn: psycopg.Connection) -> None:
    """Build the indexes, and give the tables the counts back that the builds corrected.

    The planner's statistics are then those of the plain database to the last digit, and what
    differs in its plans comes from the indexes alone.
    """
    before = conn.execute(COUNTS).fetchall()
    for statement in INDEXES.values():
        conn.execute(statement)
    with conn.cursor() as cursor:
        cursor.executemany(RESTORE_COUNTS, before)


COUNTS = """
SELECT relpages,
       reltuples,
       relallvisible,
       oid
  FROM pg_catalog.pg_class
 WHERE relnamespace = 'public'::regnamespace
   AND relkind = 'r'
 ORDER BY oid
"""

RESTORE_COUNTS = """
UPDATE pg_catalog.pg_class
   SET relpages = %s,
       reltuples = %s,
       relallvisible = %s
 WHERE oid = %s
"""


@contextmanager
def _held(place: Path) -> Iterator[None]:
    """Let one process at a time make what is missing, and measure."""
    with (place / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _version() -> str:
    program = embedded.binary("postgres")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return re.sub(r"[^\d.]", "", said.stdout)


def _await(server: subprocess.Popen[str], conninfo: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(conninfo).close()
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL 15 did not start, see {str(log)!r}") from None
            time.sleep(0.05)
        else:
            return
