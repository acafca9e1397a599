"""The target: where its address comes from, connecting to it, and what must never be shown."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, LiteralString
from urllib.parse import quote, urlencode

import psycopg
from psycopg import conninfo as libpq
from psycopg import sql as compose
from psycopg.pq import TransactionStatus

from indexlab.errors import InputError, TargetError, Unreachable
from indexlab.records import Record

OLDEST = 12
CONNINFO_VARIABLE = "INDEXLAB_CONNINFO"
SECRETS = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")
FORMS = "env (libpq's PG* environment), service=NAME, or a URI such as postgresql://user@host/db"


@dataclass(frozen=True, slots=True)
class Target(Record):
    """An address that may be shown, beside the one that connects."""

    spec: str
    """What a user may read and pass again: it never holds a password."""
    conninfo: str = field(repr=False)
    """What libpq connects with; it may hold a password, so it is not part of any display."""

    def environment(self) -> dict[str, str]:
        """Return the variables that give a child process what `spec` leaves out."""
        return {} if self.conninfo in ("", self.spec) else {CONNINFO_VARIABLE: self.conninfo}

    def secrets(self) -> tuple[str, ...]:
        """Return the passwords that the kit knows for this target, to be kept out of all output."""
        given = libpq.conninfo_to_dict(self.conninfo)
        found = [str(given[name]) for name in SECRETS if given.get(name)]
        return tuple(filter(None, [*found, os.environ.get("PGPASSWORD", "")]))


@dataclass(frozen=True, slots=True)
class Server(Record):
    """Facts about the connected server and session."""

    version: int
    """As `server_version_num`: 180006 is 18.6."""
    version_text: str
    database: str
    user: str
    host: str
    """Host name, or `socket` for a Unix socket."""
    port: int
    superuser: bool
    standby: bool

    def __str__(self) -> str:
        return (
            f"{self.database} as {self.user} on {self.host}:{self.port} "
            f"(PostgreSQL {self.version_text})"
        )


def resolve(spec: str, environ: Mapping[str, str] = os.environ) -> Target:
    """Turn what a user wrote after --target into a target; connects to nothing.

    Args:
        spec: `env`, `service=NAME`, a URI or a libpq connection string.
        environ: where the launching process left the full address, if `spec` is a redacted one.

    Raises:
        InputError: `spec` is none of these. The message does not repeat it: it may hold a password.
    """
    if spec == "env":
        return Target(spec, "")
    given = _parts("the target", spec)
    if not given:
        raise InputError(f"the target is empty: write {FORMS}")
    shown = _shown(spec, given)
    full = environ.get(CONNINFO_VARIABLE)
    if full is not None and not any(name in given for name in SECRETS):
        kept = _parts(CONNINFO_VARIABLE, full)
        if {key: value for key, value in kept.items() if key not in SECRETS} == given:
            return Target(shown, full)
    return Target(shown, spec)


def _parts(what: str, address: str) -> dict[str, Any]:
    try:
        return dict(libpq.conninfo_to_dict(address))
    except psycopg.ProgrammingError:
        raise InputError(
            f"{what} is not an address that libpq understands "
            f"(not shown, it may hold a password): write {FORMS}"
        ) from None


def _shown(spec: str, given: Mapping[str, Any]) -> str:
    """Write the address again without its secrets, in the form in which it came."""
    open_ = {key: str(value) for key, value in given.items() if key not in SECRETS}
    if not spec.startswith(("postgresql://", "postgres://")):
        return libpq.make_conninfo(**open_)
    user, dbname = open_.pop("user", ""), open_.pop("dbname", "")
    host, port = open_.pop("host", ""), open_.pop("port", "")
    if host.startswith("/") or "," in host or "," in port:  # not to be written before the slash
        open_ |= {"host": host} | ({"port": port} if port else {})
        host, port = "", ""
    place = (quote(user, safe="") + "@" if user else "") + (
        f"[{quote(host, safe=':')}]" if ":" in host else quote(host, safe="")
    )
    place += f":{port}" if port else ""
    query = "?" + urlencode(open_, quote_via=quote) if open_ else ""
    return f"postgresql://{place}/{quote(dbname, safe='')}{query}"


@contextmanager
def connect(
    target: Target, *, read_only: bool = False, purpose: str = ""
) -> Iterator[psycopg.Connection[Any]]:
    """Open an autocommit connection and close it at the end.

    Args:
        target: from `resolve`.
        read_only: the session refuses to write, unless a statement itself lifts that; and no
            timeout of the role or the database ends it.
        purpose: follows `indexlab` in application_name, where a DBA sees it.

    Raises:
        Unreachable: the server cannot be reached, or refuses the login.
        TargetError: it is older than 12.
    """
    name = f"indexlab {purpose}".strip()
    conn = _idle.taken(target, name) if read_only else None
    if conn is None:
        conn = _connected(target, name)
    try:
        check_version(
            conn.info.server_version, conn.info.parameter_status("server_version") or "unknown"
        )
        own = _own_settings(conn, read_only=read_only)
        if own:
            conn.execute(_each("SET {} = {}", *own.items()))
        try:
            yield conn
        finally:  # a pool may hand the session to somebody else
            if own and not conn.closed and conn.info.transaction_status == TransactionStatus.IDLE:
                with suppress(psycopg.Error):
                    conn.execute(_each("RESET {}", *((name,) for name in own)))
    finally:
        if not (read_only and _idle.kept(target, conn)):
            conn.close()


def _connected(target: Target, name: str) -> psycopg.Connection[Any]:
    try:
        return psycopg.connect(
            target.conninfo,
            autocommit=True,
            application_name=name,
            client_encoding="utf8",
            connect_timeout=_timeout(target),
        )
    except psycopg.Error as error:
        raise Unreachable(_unreachable(target, error), may_pass=_may_pass(str(error))) from None


AS_NEW = "RESET ALL; SET application_name = {}"
MOST_IDLE = 2


class _Idle:
    """Sessions that only read and that wait for the next who wants one."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._scopes = 0
        self._kept: list[tuple[Target, psycopg.Connection[Any]]] = []

    @contextmanager
    def scope(self) -> Iterator[None]:
        with self._guard:
            self._scopes += 1
        try:
            yield
        finally:
            with self._guard:
                self._scopes -= 1
                left = [] if self._scopes else self._kept
                self._kept = self._kept if self._scopes else []
            for _, conn in left:
                conn.close()

    def taken(self, target: Target, name: str) -> psycopg.Connection[Any] | None:
        """Hand out a session as if it were new, under another name."""
        while (conn := self._next(target)) is not None:
            try:
                conn.execute(compose.SQL(AS_NEW).format(name), prepare=False)
            except psycopg.Error:  # it was ended meanwhile
                conn.close()
            else:
                return conn
        return None

    def _next(self, target: Target) -> psycopg.Connection[Any] | None:
        with self._guard:
            for place, (known, _) in enumerate(self._kept):
                if known == target:
                    return self._kept.pop(place)[1]
        return None

    def kept(self, target: Target, conn: psycopg.Connection[Any]) -> bool:
        """Keep a session that is as it was, if that is asked for."""
        fit = not conn.closed and conn.info.transaction_status == TransactionStatus.IDLE
        with self._guard:
            fit = fit and self._scopes > 0 and len(self._kept) < MOST_IDLE
            if fit:
                self._kept.append((target, conn))
        return fit


_idle = _Idle()


def reused() -> AbstractContextManager[None]:
    """Let sessions that only read follow each other on one connection, instead of one for each.

    To begin a session costs a server milliseconds, and the first queries of each cost more than
    the later ones. At the end, all are closed.
    """
    return _idle.scope()


STYLES = {"DateStyle": "ISO", "IntervalStyle": "postgres"}
"""How the driver reads moments; of a date that is written, the order of day and month stays."""
# A role may have timeouts as its application needs them; the kit bounds by itself what may take long.
UNTIMED = {
    "lock_timeout": 0,
    "statement_timeout": 0,
    "idle_in_transaction_session_timeout": 0,
    "idle_session_timeout": 140000,
    "transaction_timeout": 170000,
}
"""What may end a session or its statements, by the version that it came with."""


def _own_settings(conn: psycopg.Connection[Any], *, read_only: bool) -> dict[str, str]:
    info = conn.info
    own = {
        name: style
        for name, style in STYLES.items()
        if not (info.parameter_status(name) or style).startswith(style)
    }
    if read_only:
        known = (name for name, since in UNTIMED.items() if info.server_version >= since)
        own |= dict.fromkeys(known, "0") | {"default_transaction_read_only": "on"}
    return own


def _each(statement: LiteralString, *words: tuple[str, ...]) -> compose.Composed:
    """Write a statement for each of these settings and their values."""
    each = (
        compose.SQL(statement).format(compose.Identifier(name), *map(compose.Literal, value))
        for name, *value in words
    )
    return compose.SQL("; ").join(each)


def check_version(number: int, text: str) -> None:
    """Refuse a server that is too old.

    Args:
        number: as `server_version_num`: 110022 is 11.22.
        text: as `server_version`, for the message.

    Raises:
        TargetError: the server is older than 12.
    """
    if number < OLDEST * 10000:
        raise TargetError(f"the server is PostgreSQL {text}: indexlab needs {OLDEST} or newer")


def _timeout(target: Target) -> str:
    """Ten seconds instead of libpq's for ever, unless the user has said otherwise."""
    given = libpq.conninfo_to_dict(target.conninfo).get("connect_timeout")
    return str(given or os.environ.get("PGCONNECT_TIMEOUT") or 10)


def _unreachable(target: Target, error: psycopg.Error) -> str:
    reason = str(error).strip().removeprefix("connection is bad: ")
    for secret in target.secrets():
        reason = reason.replace(secret, "***")
    hint = "check --target, the server, and the password (PGPASSWORD or ~/.pgpass)"
    return f"cannot connect to {target.spec!r}: {reason}; {hint}"


REFUSED = "FATAL:"
NOT_NOW = ("starting up", "shutting down", "recovery", "too many", "connection slots")
NO_ANSWER = ("connection to server", "timeout expired", "could not translate host name")


def _may_pass(reason: str) -> bool:
    """Return whether a connection that failed may succeed in a moment; pure.

    libpq gives no code for this, so it goes by the English words of libpq and the server; where
    the server speaks another language, a refusal counts as one that may pass.
    """
    if REFUSED in reason:
        return any(words in reason for words in NOT_NOW)
    return any(words in reason for words in NO_ANSWER)


SERVER = """
SELECT current_setting('server_version_num')::int AS version,
       current_setting('server_version') AS version_text,
       current_database() AS database,
       current_user AS user,
       current_setting('is_superuser') = 'on' AS superuser,
       pg_catalog.pg_is_in_recovery() AS standby
"""


def server(conn: psycopg.Connection[Any]) -> Server:
    """Ask the server who and where it is; reads only."""
    row = conn.execute(SERVER).fetchone()
    assert row is not None
    version, text, database, user, superuser, standby = row
    host = conn.info.host
    return Server(
        version=version,
        version_text=text,
        database=database,
        user=user,
        host="socket" if host.startswith(("/", "@")) else host,
        port=conn.info.port,
        superuser=superuser,
        standby=standby,
    )
