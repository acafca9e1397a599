"""Make a cluster, and start its server; the caller holds `start.lock`."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from indexlab.embedded.account import PORT, SOCKET, Account, binary, choose_socket_dir
from indexlab.errors import EmbeddedError
from indexlab.records import Record

_LOG_LIMIT = 10 * 2**20
_SWEEP_SECONDS = 10.0
MARK = "PG_VERSION"
"""A file without which no server starts: it goes first and comes last."""

# Given as arguments, so that ALTER SYSTEM cannot keep the next start from working.
_SETTINGS = {
    "listen_addresses": "",  # a socket in a private directory is the whole of the access control
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_preload_libraries": "pg_stat_statements",
    "track_io_timing": "on",  # explain shows what was read and how long it took
    "jit": "off",  # compiling would blur the timing of short queries
    "random_page_cost": "1.1",  # laptops and servers have SSDs
    "maintenance_work_mem": "256MB",  # an index of the demo is sorted in memory
    "dynamic_shared_memory_type": "sysv",  # containers have a /dev/shm of 64 MB
    "wal_level": "minimal",  # nothing is replicated: COPY into a new table writes no WAL
    "max_wal_senders": "0",  # wal_level=minimal asks for it
    "max_wal_size": "4GB",  # no checkpoint in the middle of a load or of a measurement
    "checkpoint_timeout": "30min",
    "synchronous_commit": "off",  # the last moments before a crash can be made again
    "fsync": "on",  # a power cut must not spoil the home; measured to cost little
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "logging_collector": "off",  # the log is the server's standard error
}


@dataclass(frozen=True, slots=True)
class Recipe(Record):
    """How a cluster differs from the one that keeps the user's databases."""

    settings: tuple[tuple[str, str], ...] = ()
    """Name and value, beside those of every cluster or in place of them."""
    disposable: bool = False
    """Whether a cluster that does not start is made afresh: nothing in it is worth mending."""


KEPT = Recipe()
"""The cluster of the demo and of the user's own databases."""


def initdb(base: Path, account: Account) -> None:
    """Make a cluster beside its place and move it there when complete.

    A directory that is there, and empty, stays: a cluster goes by its inode (`watcher.tag_of`),
    and whoever watches the old one shall stop the new one.
    """
    data = base / "data"
    _sweep(base)
    fresh = Path(tempfile.mkdtemp(prefix="new-", dir=base))
    account.own(fresh)
    child = account.popen(
        binary("initdb"),
        *("-D", fresh, "-U", "postgres", "-A", "trust", "-E", "UTF8"),
        *("--no-locale", "--no-data-checksums", "--no-sync", "--no-instructions"),
        stdout=subprocess.PIPE,
    )
    said, _ = child.communicate()
    if child.returncode != 0:
        shutil.rmtree(fresh, ignore_errors=True)
        raise EmbeddedError(
            f"initdb could not make {str(data)!r}, with {room(base)}:\n{said.strip()}\n"
            "Mend what it says, or set INDEXLAB_HOME to another directory"
        )
    if not data.exists():
        fresh.rename(data)
        return
    for part in sorted(fresh.iterdir(), key=lambda part: part.name == MARK):
        part.rename(data / part.name)
    fresh.rmdir()


def clear(data: Path) -> None:
    """Remove all that is in a cluster's directory, which no process may be at work on."""
    for part in sorted(data.iterdir(), key=lambda part: part.name != MARK):
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part)
        else:
            part.unlink()


def _sweep(base: Path) -> None:
    """Remove what a killed initdb left; it may outlive its user, and write on for a moment."""
    deadline = time.monotonic() + _SWEEP_SECONDS
    while (left := list(base.glob("new-*"))) and time.monotonic() < deadline:
        for directory in left:
            shutil.rmtree(directory, ignore_errors=True)
        time.sleep(0.02)


def launch(base: Path, tag: str, account: Account, recipe: Recipe) -> subprocess.Popen[str]:
    """Start the postmaster of a cluster that no process is at work on."""
    data = base / "data"
    sockets = choose_socket_dir(base, account)
    # PostgreSQL believes them when a stranger has got the old pid, and so do not we.
    (data / "postmaster.pid").unlink(missing_ok=True)
    (sockets / f"{SOCKET}.lock").unlink(missing_ok=True)
    log = base / "log"
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.replace(base / "log.1")
    quoted = str(sockets).replace('"', '""')
    settings = {
        **_SETTINGS,
        "shared_buffers": f"{_shared_buffers() >> 20}MB",
        **dict(recipe.settings),
        "unix_socket_directories": f'"{quoted}"',
        "cluster_name": tag,
    }
    arguments = [word for pair in settings.items() for word in ("-c", "=".join(pair))]
    with log.open("ab") as out:
        return account.popen(
            binary("postgres"), "-D", data, "-p", str(PORT), *arguments, stdout=out.fileno()
        )


def _shared_buffers() -> int:
    """An eighth of the memory that we may use, in bytes, between 128 MB and 1 GB."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # no such cgroup, or "max"
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(max(memory // 8, 128 * 2**20), 2**30)


def room(directory: Path) -> str:
    """Say how much room is left on a disk."""
    return f"{shutil.disk_usage(directory).free // 2**20} MB free on its disk"
