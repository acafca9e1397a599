"""The sandboxes' own cluster, and one database in it for each sandbox.

Whoever uses a sandbox is connected to its database for as long as he lives. So a database
without a session is what a killed process left, and the next sandbox to be made drops it.

To create a database is to create three hundred files. Where sandboxes follow each other, as in a
batch, one database serves them all (`in_turn`): each drops what it has made, and the next one looks
whether the database is as it was when it was new, or makes another.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql as compose

from indexlab import embedded
from indexlab.embedded import Recipe, Server
from indexlab.errors import SandboxError
from indexlab.sandbox.original import Locale

ROLE = "indexlab_sandbox"
"""Owns what is copied and plans the queries: functions of the target's users get no power."""
PREFIX, KEPT_PREFIX = "sandbox_", "kept_"
TURN = 4_906_313_288
"""Key of the lock under which databases are made and swept."""
STAND_IN_LOCALE = "C.UTF-8"
"""What libc has everywhere and the planner does not take for C: it may not order by bytes."""

RECIPE = Recipe(
    settings=(
        ("autovacuum", "off"),  # it would see that the tables are empty
        ("fsync", "off"),  # nothing here outlives its user
        ("full_page_writes", "off"),
        ("shared_buffers", "64MB"),
        ("max_locks_per_transaction", "1024"),  # many tables in one transaction
        ("shared_preload_libraries", ""),
        ("checkpoint_timeout", "1d"),
        ("bgwriter_lru_maxpages", "0"),
        ("track_io_timing", "off"),
        ("track_activities", "on"),
        ("log_min_messages", "fatal"),  # statements here hold sampled values of the data
        ("log_min_error_statement", "panic"),
    ),
    disposable=True,
)

# That of a series is kept by the session that is named as it begins.
ABANDONED = """
SELECT d.datname
  FROM pg_catalog.pg_database AS d
 WHERE d.datname LIKE 'sandbox\\_%%'
   AND NOT EXISTS (SELECT
                     FROM pg_catalog.pg_stat_activity AS a
                    WHERE a.datid = d.oid
                       OR a.application_name = pg_catalog.split_part(d.datname, '.', 1))
 ORDER BY d.datname
"""
OF_SERIES = """
SELECT d.datname
  FROM pg_catalog.pg_database AS d
 WHERE pg_catalog.split_part(d.datname, '.', 1) = %s
 ORDER BY d.datname
"""
NOTE = "COMMENT ON DATABASE {name} IS {note}"
NOTED = """
SELECT COALESCE(pg_catalog.shobj_description(d.oid, 'pg_database'), '')
  FROM pg_catalog.pg_database AS d
 WHERE d.datname = pg_catalog.current_database()
"""
CATALOGS = """
SELECT c.relname
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'oid'
 WHERE c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace
   AND c.relkind = 'r'
   AND NOT c.relisshared
 ORDER BY c.relname
"""
HOLDS_MORE = "EXISTS (SELECT FROM pg_catalog.{catalog} AS c WHERE c.oid >= 16384)"
# Catalogs that have grown by what was dropped slow down whoever comes next.
AS_NEW = """
SELECT NOT ({more}
            OR EXISTS (SELECT
                         FROM pg_catalog.pg_db_role_setting AS s
                        WHERE s.setdatabase = d.oid)
            OR EXISTS (SELECT
                         FROM pg_catalog.pg_stat_activity AS a
                        WHERE a.datid = d.oid
                          AND a.pid <> pg_catalog.pg_backend_pid()))
       AND EXISTS (SELECT
                     FROM pg_catalog.pg_namespace AS n
                    WHERE n.nspname = 'public'
                      AND n.nspacl::text
                          = '{{pg_database_owner=UC/pg_database_owner,=U/pg_database_owner}}')
       AND pg_catalog.pg_relation_size('pg_catalog.pg_attribute') < {most}
       AND pg_catalog.pg_relation_size('pg_catalog.pg_depend') < {most}
       AND pg_catalog.pg_relation_size('pg_catalog.pg_statistic') < {most}
  FROM pg_catalog.pg_database AS d
 WHERE d.datname = pg_catalog.current_database()
"""
MOST = 4 * 2**20
"""Bytes of a catalog; after some hundred small schemas another database is made."""
EXTENSIONS = "SELECT e.extname FROM pg_catalog.pg_extension AS e WHERE e.oid >= 16384 ORDER BY 1"
SCHEMAS = "SELECT n.nspname FROM pg_catalog.pg_namespace AS n WHERE n.oid >= 16384 ORDER BY 1"
DROP_OWNED = "DROP OWNED BY {role} CASCADE"
DROP_EXTENSION = "DROP EXTENSION IF EXISTS {name} CASCADE"
DROP_SCHEMA = "DROP SCHEMA IF EXISTS {name} CASCADE"
QUIET = "SELECT pg_catalog.set_config('client_min_messages', 'error', false)"
KNOWN_ROLE = "SELECT FROM pg_catalog.pg_roles AS r WHERE r.rolname = %s"
CREATE_ROLE = "CREATE ROLE {role} LOGIN"
CREATE = """
CREATE DATABASE {name}
  WITH STRATEGY file_copy
       OWNER {role}
       TEMPLATE template0
       ENCODING 'UTF8'
       LOCALE_PROVIDER {provider}
       LOCALE {locale}
       LC_COLLATE {collate}
       LC_CTYPE {ctype}
"""
PRIVATE = "REVOKE ALL ON DATABASE {name} FROM PUBLIC"
DROP = "DROP DATABASE IF EXISTS {name} WITH (FORCE)"
DROP_UNUSED = "DROP DATABASE IF EXISTS {name}"


@dataclass(frozen=True, slots=True)
class Made:
    """A database for a sandbox."""

    name: str
    order: str
    """What its order of text lacks of the target's: empty where it is the same."""
    session: psycopg.Connection[Any]
    """A superuser's, which holds it."""


@contextmanager
def cluster() -> Iterator[Server]:
    """Use the server of the sandboxes: made and started if need be.

    Raises:
        EmbeddedError: it cannot be; the message says why.
    """
    with embedded.server(place(), RECIPE) as server:
        yield server


def place() -> Path:
    """Return the directory of the sandboxes, below that of the embedded server."""
    return embedded.home() / "sandbox"


_series = ""
"""How the databases of this process are named, and of those that it forks."""


@contextmanager
def in_series(server: Server) -> Iterator[None]:
    """Let the sandboxes of this process and its forks use one database, one after the other.

    One that comes while another is open has a database of its own. At the end all are dropped.
    """
    global _series  # noqa: PLW0603 - what forks shall know
    name = PREFIX + secrets.token_hex(6)
    with psycopg.connect(server.conninfo(), autocommit=True, application_name=name) as keeper:
        _series = name
        try:
            yield
        finally:
            _series = ""
            with suppress(psycopg.OperationalError):  # the server is gone, and so is its home
                for (left,) in keeper.execute(OF_SERIES, [name]).fetchall():
                    _run(keeper, DROP, name=compose.Identifier(left))


@contextmanager
def made(server: Server, locale: Locale, *, keep: bool, alone: bool = False) -> Iterator[Made]:
    """Make a database that orders text as the target does, and drop it at the end.

    Args:
        server: the sandboxes' server.
        locale: the target's.
        keep: do not drop it.
        alone: take a new one, also within a series.
    """
    if _series and not keep and not alone:
        holder = _of_series(server, locale)
        if holder is not None:
            with holder:
                yield Made(holder.info.dbname, str(_value(holder, NOTED)), holder)
                with suppress(psycopg.Error):  # the next one looks whether it is as new
                    _clear(holder)
            return
    name = (KEPT_PREFIX if keep else PREFIX) + secrets.token_hex(6)
    with psycopg.connect(server.conninfo(), autocommit=True) as admin:
        with _turn(admin):
            note = _swept_and_created(admin, name, locale)
            holder = _opened(server, name)
        try:
            with holder:
                yield Made(name, note, holder)
        finally:
            if not keep:
                with suppress(psycopg.OperationalError):  # the server is gone, and so is its home
                    _run(admin, DROP, name=compose.Identifier(name))


def _swept_and_created(admin: psycopg.Connection[Any], name: str, locale: Locale) -> str:
    for (left,) in admin.execute(ABANDONED).fetchall():
        with suppress(psycopg.errors.ObjectInUse, psycopg.errors.UndefinedFile):
            _run(admin, DROP, name=compose.Identifier(left))
    if admin.execute(KNOWN_ROLE, [ROLE]).fetchone() is None:
        _run(admin, CREATE_ROLE, role=compose.Identifier(ROLE))
    return _create(admin, name, locale)


def _of_series(server: Server, locale: Locale) -> psycopg.Connection[Any] | None:
    """Open the database of the series, made anew if need be; None while another one uses it."""
    name = f"{_series}.{hashlib.sha256(repr(locale).encode()).hexdigest()[:8]}"
    there = _there(server, name)
    if there is not None:
        return there
    with psycopg.connect(server.conninfo(), autocommit=True) as admin, _turn(admin):
        try:
            _run(admin, DROP_UNUSED, name=compose.Identifier(name))
        except psycopg.errors.ObjectInUse:
            return None
        note = _swept_and_created(admin, name, locale)
        _run(admin, NOTE, name=compose.Identifier(name), note=compose.Literal(note))
    return _opened(server, name)


def _opened(server: Server, name: str) -> psycopg.Connection[Any]:
    return psycopg.connect(server.conninfo(name), autocommit=True, application_name="indexlab")


def _there(server: Server, name: str) -> psycopg.Connection[Any] | None:
    """Open a database of the series that is there and is as it was when it was new."""
    try:
        holder = _opened(server, name)
    except psycopg.OperationalError:
        return None
    names = [row[0] for row in holder.execute(CATALOGS)]
    template: Any = HOLDS_MORE
    more = [compose.SQL(template).format(catalog=compose.Identifier(name)) for name in names]
    query = compose.SQL(AS_NEW).format(
        more=compose.SQL(" OR ").join(more), most=compose.Literal(MOST)
    )
    if _value(holder, query):
        return holder
    holder.close()
    return None


def _value(conn: psycopg.Connection[Any], query: str | compose.Composed) -> Any:
    row = conn.execute(query.encode() if isinstance(query, str) else query).fetchone()
    return None if row is None else row[0]


def _clear(holder: psycopg.Connection[Any]) -> None:
    """Drop all that was made in a database."""
    holder.execute(QUIET)
    _run(holder, DROP_OWNED, role=compose.Identifier(ROLE))
    for (extension,) in holder.execute(EXTENSIONS).fetchall():
        _run(holder, DROP_EXTENSION, name=compose.Identifier(extension))
    for (schema,) in holder.execute(SCHEMAS).fetchall():
        _run(holder, DROP_SCHEMA, name=compose.Identifier(schema))


@contextmanager
def _turn(admin: psycopg.Connection[Any]) -> Iterator[None]:
    admin.execute("SELECT pg_catalog.pg_advisory_lock(%s)", [TURN])
    try:
        yield
    finally:
        admin.execute("SELECT pg_catalog.pg_advisory_unlock(%s)", [TURN])


def _create(admin: psycopg.Connection[Any], name: str, locale: Locale) -> str:
    """Create the database in the target's locale, or in one that the planner treats alike."""
    choices: list[tuple[str, str, str, str]] = []
    if locale.provider == "c":
        choices.append(("libc", locale.collate, locale.collate, locale.ctype))
    elif locale.provider == "b":
        choices.append(("builtin", locale.locale, "C", "C"))
    stand_in = "C" if locale.bytewise else STAND_IN_LOCALE
    choices.append(("libc", stand_in, stand_in, stand_in))
    for provider, default, collate, ctype in choices:
        try:
            _run(
                admin,
                CREATE,
                name=compose.Identifier(name),
                role=compose.Identifier(ROLE),
                provider=compose.Identifier(provider),
                locale=compose.Literal(default),
                collate=compose.Literal(collate),
                ctype=compose.Literal(ctype),
            )
        except (psycopg.errors.WrongObjectType, psycopg.errors.InvalidParameterValue):
            continue
        except psycopg.errors.ObjectNotInPrerequisiteState:
            continue
        _run(admin, PRIVATE, name=compose.Identifier(name))
        if (provider, default) == (choices[0][0], choices[0][1]) and locale.provider != "i":
            return ""
        return (
            f"text is ordered by {default} here and by {locale} on the target: which share of "
            "the rows lies between two texts may be estimated otherwise"
        )
    raise SandboxError(
        f"the sandbox has neither the target's locale {str(locale)!r} nor {stand_in!r}: "
        f"install the locale {stand_in}"
    )


def _run(admin: psycopg.Connection[Any], template: str, **parts: compose.Composable) -> None:
    text: Any = template
    admin.execute(compose.SQL(text).format(**parts))
