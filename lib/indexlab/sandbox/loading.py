"""Load a schema into a sandbox, and go on where a statement is refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import psycopg
from psycopg import sql as compose

from indexlab.progress import Tell, silent
from indexlab.sandbox.databases import STAND_IN_LOCALE
from indexlab.sandbox.rewrite import Step, names
from indexlab.sandbox.whatif import Lacking

BATCH = 40
"""Statements in one message: they stand or fall together, and then go one by one."""
COLLATIONS = ("CollateClause", "IndexElem")
SESSION = """
SELECT pg_catalog.set_config('search_path', '', false),
       pg_catalog.set_config('check_function_bodies', 'off', false),
       pg_catalog.set_config('client_min_messages', 'error', false),
       pg_catalog.set_config('xmloption', 'content', false),
       pg_catalog.set_config('statement_timeout', '60s', false)
"""
KNOWN_TYPE = "SELECT pg_catalog.to_regtype(%s) IS NOT NULL"
KNOWN_COLLATION = """
SELECT EXISTS (SELECT
                 FROM pg_catalog.pg_collation AS c
                 JOIN pg_catalog.pg_namespace AS n ON n.oid = c.collnamespace
                WHERE n.nspname = %s
                  AND c.collname = %s)
"""
STAND_IN_COLLATION = "CREATE COLLATION {name} (PROVIDER = libc, LOCALE = {locale})"
# The type keeps any text, as the values of its statistics are read and compared with nothing.
STAND_IN_TYPE = """
CREATE TYPE {name};
CREATE FUNCTION {schema}.{reads} (cstring) RETURNS {name}
    LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'textin';
CREATE FUNCTION {schema}.{writes} ({name}) RETURNS cstring
    LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'textout';
CREATE FUNCTION {schema}.{modifies} (cstring[]) RETURNS integer
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS 'SELECT 0';
CREATE TYPE {name} (
    INPUT = {schema}.{reads},
    OUTPUT = {schema}.{writes},
    TYPMOD_IN = {schema}.{modifies},
    INTERNALLENGTH = VARIABLE,
    STORAGE = extended
);
"""
AVAILABLE = """
SELECT a.name
  FROM pg_catalog.pg_available_extensions AS a
 ORDER BY a.name
"""


@dataclass(slots=True)
class Loaded:
    """What became of a schema."""

    lacking: list[Lacking] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _noted: set[str] = field(default_factory=set)

    def note(self, text: str) -> None:
        """Say once what differs from the target."""
        if text not in self._noted:
            self._noted.add(text)
            self.notes.append(text)


def load(
    admin: psycopg.Connection[Any],
    worker: psycopg.Connection[Any],
    steps: Iterable[Step],
    tell: Tell = silent,
) -> Loaded:
    """Run the steps in order; those that are refused come again when more is there.

    Args:
        admin: a superuser's session on the sandbox; it runs nothing of the target's users.
        worker: a session of the role that owns what is made.
        steps: from `rewrite.steps`.
        tell: is told how many of them are done.
    """
    loaded = Loaded()
    for conn in (admin, worker):
        conn.execute(SESSION)
    available = {name for (name,) in admin.execute(AVAILABLE)}
    possible = [step for step in steps if _can_be(step, available, loaded)]
    refused = _settled(admin, worker, possible, tell)
    # What these need will not come by itself.
    mended = [_mended(admin, worker, step, loaded) for step, _ in refused]
    for step, why in _settled(admin, worker, [step for step, why in mended if why]):
        loaded.lacking.append(Lacking(step.object, why))
    return loaded


def _settled(
    admin: psycopg.Connection[Any],
    worker: psycopg.Connection[Any],
    steps: Iterable[Step],
    tell: Tell = silent,
) -> list[tuple[Step, str]]:
    """Run steps, and those that are refused again, until no more of them can be made."""
    waiting, refused = list(steps), list[tuple[Step, str]]()
    while waiting:
        refused = _pass(admin, worker, waiting, tell)
        if len(refused) == len(waiting):
            break
        waiting = [step for step, _ in refused]
    return refused if waiting else []


def _can_be(step: Step, available: set[str], loaded: Loaded) -> bool:
    if step.kind != "create_extension_stmt":
        return True
    name = step.object.removeprefix("extension ").strip('"')
    if name not in available:
        loaded.lacking.append(Lacking(step.object, "the sandbox's server does not have it"))
    return name in available


def _pass(
    admin: psycopg.Connection[Any],
    worker: psycopg.Connection[Any],
    steps: Sequence[Step],
    tell: Tell,
) -> list[tuple[Step, str]]:
    """Run steps in batches; return those that were refused, and why."""
    refused: list[tuple[Step, str]] = []
    done = 0
    for privileged, group in groupby(steps, lambda step: step.privileged):
        conn = admin if privileged else worker
        together = list(group)
        for start in range(0, len(together), BATCH):
            batch = together[start : start + BATCH]
            part = done / len(steps)
            tell(f"making a sandbox: {done:,} of {len(steps):,} objects", 0.5 + 0.3 * part)
            done += len(batch)
            if _tried(conn, ";\n".join(step.text for step in batch)) is None:
                continue
            for step in batch:
                error = _tried(conn, step.text)
                if error is not None:
                    refused.append((step, said(error)))
    return refused


def _tried(conn: psycopg.Connection[Any], text: str) -> psycopg.Error | None:
    try:
        conn.execute(text.encode())
    except psycopg.Error as error:
        if conn.closed:
            raise
        return error
    return None


def _mended(
    admin: psycopg.Connection[Any],
    worker: psycopg.Connection[Any],
    step: Step,
    loaded: Loaded,
) -> tuple[Step, str]:
    """Try a refused step with stand-ins for what it lacks, and in plainer words."""
    if step.kind in ("create_stmt", "create_domain_stmt", "composite_type_stmt", "index_stmt"):
        for name in names(step.text, *COLLATIONS):
            _stand_in_collation(admin, name, loaded)
    if step.kind in ("create_stmt", "create_domain_stmt", "composite_type_stmt"):
        for name in names(step.text, "TypeName"):
            _stand_in_type(admin, name, step, loaded)
    if step.object.startswith("collation "):
        for name in names(step.text, "DefineStmt"):
            _stand_in_collation(admin, name, loaded)
        return step, ""
    error = _tried(worker, step.text)
    if error is None:
        return step, ""
    for text in step.plainer:
        if _tried(worker, text) is None:
            loaded.note(f"{step.object}: {step.lost}, because {said(error)}")
            return step, ""
    return step, said(error)


def stand_in_collations(
    admin: psycopg.Connection[Any], statements: Iterable[str], known: set[str], loaded: Loaded
) -> None:
    """Make stand-ins for what queries and planned indexes name and the schema does not.

    Args:
        admin: a superuser's session on the sandbox.
        statements: of the workload and the plan.
        known: the names of the target's collations.
        loaded: where it is said.
    """
    for statement in statements:
        for name in names(statement, *COLLATIONS):
            if name[-1] in known:
                _stand_in_collation(admin, name, loaded)


def _stand_in_collation(
    admin: psycopg.Connection[Any], name: tuple[str, ...], loaded: Loaded
) -> None:
    schema, plain = name if len(name) == 2 else ("pg_catalog", name[-1])
    row = admin.execute(KNOWN_COLLATION, [schema, plain]).fetchone()
    if row == (True,):
        return
    made = compose.SQL(STAND_IN_COLLATION).format(
        name=compose.Identifier(schema, plain), locale=compose.Literal(STAND_IN_LOCALE)
    )
    try:
        admin.execute(made)
    except psycopg.Error as error:
        if admin.closed:
            raise
        loaded.note(f"collation {'.'.join(name)} has no stand-in: {said(error)}")
    else:
        loaded.note(
            f"collation {'.'.join(name)} is a stand-in with the order of {STAND_IN_LOCALE}, as the "
            "sandbox's server is built without ICU: which share of the rows lies between two "
            "texts may be estimated otherwise, and what it takes for equal is taken for different"
        )


def _stand_in_type(
    admin: psycopg.Connection[Any], name: tuple[str, ...], step: Step, loaded: Loaded
) -> None:
    if len(name) != 2 or name[0] == "pg_catalog":
        return
    schema, plain = name
    row = admin.execute(KNOWN_TYPE, [compose.Identifier(schema, plain).as_string(admin)]).fetchone()
    if row == (True,):
        return
    helper = plain.encode()[:50].decode(errors="ignore")
    made = compose.SQL(STAND_IN_TYPE).format(
        name=compose.Identifier(schema, plain),
        schema=compose.Identifier(schema),
        reads=compose.Identifier(f"{helper}_stand_in_r"),
        writes=compose.Identifier(f"{helper}_stand_in_w"),
        modifies=compose.Identifier(f"{helper}_stand_in_m"),
    )
    try:
        admin.execute(made)
    except psycopg.Error as error:
        if admin.closed:
            raise
        loaded.note(f"type {'.'.join(name)} has no stand-in: {said(error)}")
    else:
        loaded.lacking.append(
            Lacking(f"type {'.'.join(name)}", f"a stand-in keeps {step.object} whole")
        )


def said(error: psycopg.Error) -> str:
    """What the server said, in one line."""
    return " ".join((error.diag.message_primary or str(error)).split())
