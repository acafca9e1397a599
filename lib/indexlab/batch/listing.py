"""List the databases of a server as a file of targets."""

from __future__ import annotations

from typing import Any

import psycopg
import yaml
from psycopg import conninfo as libpq

from indexlab import target as targets
from indexlab.errors import InputError
from indexlab.target import Server, Target

DATABASES = """
SELECT d.datname
  FROM pg_catalog.pg_database AS d
 WHERE d.datallowconn
   AND NOT d.datistemplate
   AND pg_catalog.has_database_privilege(d.oid, 'CONNECT')
 ORDER BY d.datname
"""


def databases(conn: psycopg.Connection[Any]) -> tuple[str, ...]:
    """Return the databases of a server that the session's role may connect to; reads only."""
    return tuple(name for (name,) in conn.execute(DATABASES))


def listed(target: Target) -> str:
    """Read which databases a server has, and write them as a file of targets; reads only.

    They are one group: the targets of a server are worked on one at a time.

    Args:
        target: any database of the server; a password of it is left out.

    Raises:
        TargetError: the server cannot be reached.
    """
    with targets.connect(target, read_only=True, purpose="targets") as conn:
        return written(target, targets.server(conn), databases(conn))


def written(target: Target, server: Server, names: tuple[str, ...]) -> str:
    """Write databases of one server as YAML; pure.

    Args:
        target: how one of them is reached; the others differ in the name of the database.
        server: where they are.
        names: of the databases.

    Raises:
        InputError: there is none.
    """
    if not names:
        raise InputError("the role may connect to no database of this server")
    group = f"{server.host}:{server.port}"
    given: dict[str, Any] = {}
    if target.spec != "env":
        given |= libpq.conninfo_to_dict(target.spec)
    lines = [
        "# Which databases a batch works on; paths are relative to this file.",
        "defaults:",
        "  plan: plan.sql",
        "  # workload: workload.sql",
        "targets:",
    ]
    for name in names:
        address = libpq.make_conninfo(**(given | {"dbname": name}))
        entry = {"name": name, "target": address, "group": group}
        lines.append(f"  - {_flow(entry)}")
    return "\n".join(lines) + "\n"


def _flow(entry: dict[str, str]) -> str:
    text = yaml.safe_dump(
        entry, default_flow_style=True, sort_keys=False, allow_unicode=True, width=float("inf")
    )
    return str(text).strip()
