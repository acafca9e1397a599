"""The sandboxes' own cluster, and one database in it for each sandbox.

Whoever uses a sandbox is connected to its database for as long as he lives. So a database
without a session is what a killed process left, and the next sandbox to be made drops it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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

ABANDONED = """
SELECT d.datname
  FROM pg_catalog.pg_database AS d
 WHERE d.datname LIKE 'sandbox\\_%%'
   AND NOT EXISTS (SELECT
                     FROM pg_catalog.pg_stat_activity AS a
                    WHERE a.datid = d.oid)
 ORDER BY d.datname
"""
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


@contextmanager
def made(server: Server, locale: Locale, *, keep: bool) -> Iterator[tuple[str, str]]:
    """Make a database that orders text as the target does, and drop it at the end.

    Args:
        server: the sandboxes' server.
        locale: the target's.
        keep: do not drop it.

    Yields:
        Its name, and what its order lacks of the target's: empty where it is the same.
    """
    name = (KEPT_PREFIX if keep else PREFIX) + secrets.token_hex(6)
    with psycopg.connect(server.conninfo(), autocommit=True) as admin:
        with _turn(admin):
            for (left,) in admin.execute(ABANDONED).fetchall():
                with suppress(psycopg.errors.ObjectInUse, psycopg.errors.UndefinedFile):
                    _run(admin, DROP, name=compose.Identifier(left))
            if admin.execute(KNOWN_ROLE, [ROLE]).fetchone() is None:
                _run(admin, CREATE_ROLE, role=compose.Identifier(ROLE))
            note = _create(admin, name, locale)
            holder = psycopg.connect(server.conninfo(name), autocommit=True)
        try:
            with holder:
                yield name, note
        finally:
            if not keep:
                with suppress(psycopg.OperationalError):  # the server is gone, and so is its home
                    _run(admin, DROP, name=compose.Identifier(name))


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
