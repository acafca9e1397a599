"""The revised plan as a migration of somebody's tool, up and down, outside of a transaction."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from indexlab.audit import Audit
from indexlab.errors import InputError
from indexlab.export.changes import Change, File, Migration, changes
from indexlab.export.python import alembic, django
from indexlab.export.ruby import rails
from indexlab.export.scripts import flyway, liquibase, sql

__all__ = ["TOOLS", "Change", "File", "Migration", "changes", "migration"]

_WRITERS: dict[str, Callable[[Migration], tuple[File, ...]]] = {
    "alembic": alembic,
    "django": django,
    "rails": rails,
    "flyway": flyway,
    "liquibase": liquibase,
    "sql": sql,
}
TOOLS = tuple(_WRITERS)


def migration(tool: str, audit: Audit, *, now: datetime) -> tuple[File, ...]:
    """Write what an audit would build and drop as a tool's migration; pure.

    Args:
        tool: one of `TOOLS`.
        audit: whose revised plan is wanted.
        now: of which the tools that number by time make their version.

    Returns:
        The files, the first of them the migration itself; none if nothing is to be run.

    Raises:
        InputError: there is no such tool, or it cannot hold a statement.
    """
    if tool not in _WRITERS:
        raise InputError(f"no export for {tool!r}: there are {', '.join(TOOLS)}")
    wanted = changes(audit)
    return _WRITERS[tool](Migration.of(audit, wanted, now)) if wanted else ()
