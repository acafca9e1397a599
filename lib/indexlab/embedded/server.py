"""Use the embedded server: one for all processes of a user, by locks on its home.

Locks say who uses the server, and the kernel drops them however a process ends:

- `users.lock` is held shared by everyone who uses the server, for as long as they use it;
- `start.lock` is held by the one who looks whether the server runs, and starts it;
- `watcher.lock` is held by the watcher, a small process that waits to hold `users.lock` alone
  (nobody is left then), stops the server and ends. A newcomer waits for it and starts afresh.

A forked child inherits its parent's share of the server and keeps it until it ends as well.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs
import psycopg
from psycopg import pq, sql
from psycopg.conninfo import make_conninfo

from indexlab.embedded.account import PORT, SOCKET, Account, choose_account, keep, make_base
from indexlab.embedded.cluster import KEPT, Recipe, clear, initdb, launch, room
from indexlab.embedded.watcher import processes, stop, tag_of, watch
from indexlab.errors import EmbeddedError
from indexlab.records import Record

_PATIENCE = 300  # seconds; replaying 4 GB of WAL on a slow disk is still a start
_TICK = 0.01

# What libpq would take from the user's PG* variables or service file, had conninfo() no say.
_NEUTRAL = {
    "hostaddr": "",
    "options": "",
    "client_encoding": "UTF8",
    "connect_timeout": "10",
    "sslmode": "disable",
    "sslnegotiation": "postgres",
    "sslcertmode": "disable",
    "sslrootcert": "",
    "gssencmode": "disable",
    "channel_binding": "disable",
    "require_auth": "",
    "requirepeer": "",
    "target_session_attrs": "any",
    "load_balance_hosts": "disable",
    "min_protocol_version": "3.0",
    "max_protocol_version": "3.0",
}

_DATABASES = """
    SELECT datname
      FROM pg_catalog.pg_database
     WHERE datallowconn
       AND NOT datistemplate
     ORDER BY datname
"""

_SESSIONS = """
    SELECT format('%%s (pid %%s)', coalesce(nullif(application_name, ''), usename), pid)
      FROM pg_catalog.pg_stat_activity
     WHERE datname = %s
     ORDER BY pid
"""

_CREATE = sql.SQL("CREATE DATABASE {name}")
# FILE_COPY, as the blocks of a big template would pass through WAL otherwise.
_COPY = sql.SQL("CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
_DROP = sql.SQL("DROP DATABASE IF EXISTS {name}")


class _DidNotStart(EmbeddedError):
    """There is no server, and nobody who uses one."""


@dataclass(frozen=True, slots=True)
class Server(Record):
    """A running embedded server."""

    socket_dir: Path
    data_dir: Path
    log: Path
    account: Account = field(default_factory=Account)
    """Whose files the server's are; for those who write some of them."""

    def conninfo(self, database: str = "postgres", user: str = "postgres") -> str:
        """Say how libpq connects to `database`, whatever PG* variables the user has set.

        A PGSERVICE that names no service and a PGTZ, PGDATESTYLE or PGGEQO that the server does
        not understand are beyond a conninfo: `server` raises an error that tells of them.
        """
        known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
        neutral = {keyword: value for keyword, value in _NEUTRAL.items() if keyword in known}
        return make_conninfo(
            host=str(self.socket_dir), port=PORT, user=user, dbname=database, **neutral
        )

    def databases(self) -> tuple[str, ...]:
        """List the databases that one can connect to, templates left out; reads only."""
        with psycopg.connect(self.conninfo()) as conn:
            return tuple(name for (name,) in conn.execute(_DATABASES))

    def create_database(self, name: str, *, template: str | None = None) -> None:
        """Create a database, empty or as a copy of `template`.

        Raises:
            EmbeddedError: the database exists, the template does not, or someone uses it.
        """
        with psycopg.connect(self.conninfo(), autocommit=True) as conn:
            try:
                if template is None:
                    conn.execute(_CREATE.format(name=sql.Identifier(name)))
                else:
                    _copy(conn, name, template)
            except (psycopg.errors.DuplicateDatabase, psycopg.errors.InvalidCatalogName) as error:
                raise EmbeddedError(f"cannot create database {name!r}: {_reason(error)}") from error
            except psycopg.errors.ObjectInUse as error:
                raise _in_use(conn, "copy", template) from error

    def drop_database(self, name: str) -> None:
        """Drop a database if it exists, but never under someone who is connected to it.

        Raises:
            EmbeddedError: there are connections; the message names them.
        """
        with psycopg.connect(self.conninfo(), autocommit=True) as conn:
            try:
                conn.execute(_DROP.format(name=sql.Identifier(name)))
            except psycopg.errors.ObjectInUse as error:
                raise _in_use(conn, "drop", name) from error


def _copy(conn: psycopg.Connection, name: str, template: str) -> None:
    """Copy a database, with shared blocks where the file system can."""
    copy = _COPY.format(name=sql.Identifier(name), template=sql.Identifier(template))
    try:
        conn.execute("SET file_copy_method = clone")
        conn.execute(copy)
    except (psycopg.errors.InternalError_, psycopg.errors.InvalidParameterValue):
        conn.execute("SET file_copy_method = copy")
        conn.execute(copy)


def _in_use(conn: psycopg.Connection, verb: str, database: str | None) -> EmbeddedError:
    """Name who is connected to a database, so that they leave; reads only."""
    names = [name for (name,) in conn.execute(_SESSIONS, (database,))]
    return EmbeddedError(
        f"cannot {verb} database {database!r} while it is in use by "
        f"{', '.join(names) or 'someone who has just left'}: close these connections"
    )


def _reason(error: psycopg.Error) -> str:
    """What the server or libpq said, without its punctuation."""
    return " ".join((error.diag.message_primary or str(error)).split()).rstrip(".")


def home() -> Path:
    """Return the directory of the embedded server, made with mode 0700 if there is none.

    Raises:
        EmbeddedError: the directory cannot be made.
    """
    chosen = os.environ.get("INDEXLAB_HOME") or platformdirs.user_cache_dir("indexlab")
    directory = Path(chosen).expanduser().absolute()
    with _writing(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


@contextmanager
def server(where: Path | None = None, recipe: Recipe = KEPT) -> Iterator[Server]:
    """Use the embedded server: made and started if need be, stopped when its last user leaves.

    Leaving returns at once; the server stops a moment later. It may be entered again and from
    many threads and processes. A notebook keeps it with `ExitStack().enter_context(server())`
    and must keep the stack, too; the end of the process releases it in any case.

    Args:
        where: the directory of the server; `home()` if None.
        recipe: how its cluster is made and started; the same for all users of one directory.

    Raises:
        EmbeddedError: the server cannot be made, started or reached; the message says why.
    """
    place = home() if where is None else where.absolute()
    account = choose_account()
    with ExitStack() as stack:
        with _writing(place):
            base = make_base(place, account)
            with _locked(base / "start.lock", fcntl.LOCK_EX):
                stack.enter_context(_locked(base / "users.lock", fcntl.LOCK_SH))
                running = _running(base, account, recipe)
        try:
            yield running
        finally:
            with suppress(OSError):  # the home may be gone
                watch(base)  # the watcher may have been killed since


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """Turn what the operating system refuses into an error that says what to set."""
    try:
        yield
    except OSError as error:
        raise EmbeddedError(
            f"cannot write {str(directory)!r} ({error}): "
            "set INDEXLAB_HOME to a directory that you can write"
        ) from error


@contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    """Hold a lock, which an exec never inherits and the end of the process releases."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise EmbeddedError(
                        f"another process starts or stops the server since {_PATIENCE} s "
                        f"and holds {str(path)!r}: see `fuser {path}` and end it"
                    ) from None
                time.sleep(_TICK)
        yield
    finally:
        os.close(descriptor)


def _running(base: Path, account: Account, recipe: Recipe) -> Server:
    """Return the server of `base`, made to run if need be; the caller holds `start.lock`."""
    data = base / "data"
    if data.exists() and recipe.disposable:
        with suppress(_DidNotStart):
            return _started(base, account, recipe)
        stop(tag_of(data))
        clear(data)
        initdb(base, account)
    return _started(base, account, recipe)


def _started(base: Path, account: Account, recipe: Recipe) -> Server:
    """Make and start what is not there.

    Raises:
        _DidNotStart: the server's log says why.
        EmbeddedError: the cluster cannot be made, or libpq cannot connect to the server.
    """
    data = base / "data"
    if not data.exists():
        initdb(base, account)
    tag = tag_of(data)
    watch(base)  # before the start, so that whatever breaks it leaves no server behind
    found = _answering(base, tag, account)
    if found is None and processes(tag)[0]:
        ready = [line.strip() for line in _pid_file(base)[-1:]] == ["ready"]  # answers at once
        patience = 2 if ready else _PATIENCE
        found = _await(base, tag, account, lambda: bool(processes(tag)[0]), patience)
    if found is None:
        stop(tag)  # orphans of a killed server, or one whose socket has been removed
        child = keep(launch(base, tag, account, recipe))
        found = _await(base, tag, account, lambda: child.poll() is None, _PATIENCE)
    if found is None:
        raise _DidNotStart(
            f"the embedded server in {str(base)!r} did not start, with {room(base)}. "
            f"The end of its log:\n{_tail(base / 'log')}\n"
            f"Mend what it says, or remove {str(base)!r}, databases and all"
        )
    return found


def _await(
    base: Path, tag: str, account: Account, alive: Callable[[], bool], patience: float
) -> Server | None:
    """Wait until the server answers; None if its process ends or `patience` seconds pass."""
    deadline = time.monotonic() + patience
    while alive() and time.monotonic() < deadline:
        found = _answering(base, tag, account)
        if found is not None:
            return found
        time.sleep(_TICK)
    return None


def _answering(base: Path, tag: str, account: Account) -> Server | None:
    """Return the server if it takes connections, and is the one of this cluster.

    Raises:
        EmbeddedError: it runs, but the user's environment keeps libpq from connecting.
    """
    lines = _pid_file(base)
    if not lines:
        return None
    # Where the one who started it put the socket, which need not be where we would.
    found = Server(Path(lines[-4]), base / "data", base / "log", account)
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(os.fsencode(found.socket_dir / SOCKET))
        except OSError:
            return None
    try:
        with psycopg.connect(found.conninfo(), autocommit=True) as conn:
            row = conn.execute("SHOW cluster_name").fetchone()
    except psycopg.OperationalError as error:
        if "too many clients" in str(error):
            return found
        # It is starting up, shutting down or in recovery; or orphans keep its socket open.
        if "the database system is" in str(error) or not processes(tag)[0]:
            return None
        names = sorted(name for name in os.environ if name.startswith("PG"))  # never the values
        raise EmbeddedError(
            f"the embedded server runs, but libpq cannot connect to it: {_reason(error)}. "
            f"Unset what is wrong of these: {', '.join(names) or 'no PG* variable is set'}"
        ) from error
    return found if row == (tag,) else None


def _pid_file(base: Path) -> list[str]:
    """The lines of postmaster.pid; none while the server has not written all of them."""
    try:
        lines = (base / "data" / "postmaster.pid").read_text(errors="surrogateescape").split("\n")
    except FileNotFoundError:
        return []
    return lines[:-1] if len(lines) > 8 else []


def _tail(log: Path) -> str:
    """The last lines of the server's log."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError as error:
        return f"({error})"
    return "\n".join(lines[-12:]) or "(empty)"
