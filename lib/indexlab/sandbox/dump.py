"""Have pg_dump of the wheel write down a target's schema; it reads any version since 9.2."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from itertools import groupby

from indexlab import embedded
from indexlab import target as targets
from indexlab.catalog import Relation
from indexlab.errors import SandboxError
from indexlab.sandbox.locked import SECONDS, waited
from indexlab.sandbox.relay import relay
from indexlab.sandbox.scope import Scope
from indexlab.target import Target

NO_TABLE = ("--exclude-table=*.*",)
EVERYTHING: tuple[str, ...] = ()
TOGETHER = 100
"""Names in one pattern: each pattern is a query of pg_dump's, with one regular expression."""
KEY = "indexlab"
WAITED = frozenset(("55P03", "57014"))
"""What a server calls the end of a wait: a lock is not available, a statement is cancelled."""
OPTIONS = (
    "--schema-only",
    "--encoding=UTF8",
    f"--lock-wait-timeout={SECONDS}s",
    "--no-owner",
    "--no-privileges",
    "--no-comments",
    "--no-policies",
    "--no-publications",
    "--no-subscriptions",
    "--no-security-labels",
    "--no-tablespaces",
    "--no-table-access-method",
    "--no-toast-compression",
    f"--restrict-key={KEY}",
)


def parts(scope: Scope) -> tuple[tuple[str, ...], ...]:
    """Say with which options pg_dump is to run, in this order; pure.

    What tables need, such as types and functions, comes only with a dump that names no table.
    """
    if scope.whole:
        return (EVERYTHING,)
    if not scope.relations:
        return (NO_TABLE,)
    return NO_TABLE, tuple(f"--table={pattern}" for pattern in patterns(scope.relations))


def patterns(relations: Iterable[Relation]) -> Iterator[str]:
    """Write the names as patterns of pg_dump: in quotes, nothing in them has a meaning; pure."""
    for schema, group in groupby(relations, lambda item: item.schema):
        names = [_quoted(item.name) for item in group]
        for start in range(0, len(names), TOGETHER):
            yield f"{_quoted(schema)}.({'|'.join(names[start : start + TOGETHER])})"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def read_schema(target: Target, options: Iterable[str]) -> str:
    """Dump a part of a target's schema; reads only.

    Raises:
        SandboxError: pg_dump gave up; the message says what it said.
        TargetError: the target cannot be reached.
    """
    refused: list[str] = []
    with targets.connect(target, read_only=True, purpose="sandbox") as conn:
        with relay(conn, refused) as address:
            done = subprocess.run(
                [embedded.binary("pg_dump"), "-d", address, *OPTIONS, *options],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=embedded.environment(),
                check=False,
            )
        if done.returncode != 0 and WAITED.intersection(refused):
            conn.rollback()
            raise SandboxError(waited(conn))
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        for secret in target.secrets():
            said = said.replace(secret, "***")
        raise SandboxError(f"the target's schema cannot be copied: {said}")
    text = done.stdout.decode(errors="replace")
    # Words for psql, which SQL does not know.
    return text.replace(f"\\restrict {KEY}\n", "", 1).replace(f"\\unrestrict {KEY}\n", "")
