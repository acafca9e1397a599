"""A cold cache: pages put out of shared buffers and out of the operating system's cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from indexlab.errors import TargetError
from indexlab.target import Server

EVICTING = 170000
ALL_AT_ONCE = 180000

PLACE = """
SELECT pg_catalog.current_setting('data_directory') AS directory,
       oid::text AS database
FROM pg_catalog.pg_database
WHERE datname = pg_catalog.current_database()
"""
EXTENSION = "CREATE EXTENSION IF NOT EXISTS pg_buffercache"
EVICT_ALL = """
SELECT buffers_evicted AS evicted
FROM pg_buffercache_evict_all()
"""
EVICT_EACH = """
SELECT count(pg_buffercache_evict(bufferid)) AS evicted
FROM pg_buffercache
WHERE reldatabase IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
"""


@dataclass(frozen=True, slots=True)
class Evictor:
    """Makes the cache cold before each execution, outside of what is timed."""

    conn: psycopg.Connection[Any]
    files: Path
    """The directory of the database's files."""
    at_once: bool
    """Whether the server evicts all buffers in one call."""
    written: dict[Path, int] = field(default_factory=dict)
    """When a file was last changed, as of the last time that it was brought to disk."""

    def evict(self) -> None:
        """Put the database's pages out of both caches.

        A page that is in use at this moment stays; of a measurement's own session none is.
        """
        self.conn.execute(EVICT_ALL if self.at_once else EVICT_EACH)
        for file in self.files.iterdir():
            with suppress(FileNotFoundError):  # dropped meanwhile
                self._forget(file)

    def _forget(self, file: Path) -> None:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            changed = os.fstat(descriptor).st_mtime_ns
            if self.written.get(file) != changed:
                os.fdatasync(descriptor)  # what is not on disk yet cannot be forgotten
                self.written[file] = changed
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


@contextmanager
def evictor(conn: psycopg.Connection[Any], server: Server) -> Iterator[Evictor]:
    """Hold what makes the cache cold, after a check that this can be done here.

    The extension that evicts is made in a transaction that lasts as long and is rolled back: the
    target keeps nothing of it.

    Args:
        conn: a session of its own, which may write.
        server: what is known of the server.

    Raises:
        TargetError: it cannot: a cold cache is refused, not pretended.
    """
    if server.host != "socket" or not server.superuser:
        raise TargetError(
            "a cold cache needs a superuser on a server of this machine, such as the embedded "
            "demo: leave --cache cold out"
        )
    if server.version < EVICTING:
        raise TargetError(
            f"PostgreSQL {server.version_text} cannot evict its buffers (17 and later can): leave "
            "--cache cold out"
        )
    row = conn.execute(PLACE).fetchone()
    assert row is not None
    files = Path(row[0]) / "base" / row[1]
    found = Evictor(conn, files, server.version >= ALL_AT_ONCE)
    with conn.transaction(force_rollback=True):
        try:
            conn.execute(EXTENSION)
            found.evict()
        except (OSError, AttributeError, psycopg.Error) as error:
            reason = str(error).splitlines()[0]
            raise TargetError(
                f"the cache cannot be made cold here ({reason}): leave --cache cold out"
            ) from None
        yield found
