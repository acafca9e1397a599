"""Say who keeps the sandbox from reading its target: it waits for no lock longer than a budget."""

from __future__ import annotations

from typing import Any

import psycopg

from indexlab import sql

SECONDS = 5
"""How long each lock is waited for. It is ACCESS SHARE, which lets others read and write on."""
NAMED = 3
# Who waits for such a lock is as much in the way as who has it: others queue behind him.
HOLDERS = """
SELECT DISTINCT
       n.nspname,
       c.relname
  FROM pg_catalog.pg_locks AS l
  JOIN pg_catalog.pg_database AS d ON d.oid = l.database
  JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE d.datname = pg_catalog.current_database()
   AND l.mode = 'AccessExclusiveLock'
   AND l.pid <> pg_catalog.pg_backend_pid()
   AND c.relkind IN ('r', 'p', 'm', 'v', 'f')
   AND n.nspname !~ '^pg_'
 ORDER BY n.nspname, c.relname
"""


def waited(conn: psycopg.Connection[Any]) -> str:
    """Say which tables are locked after a wait in vain; reads only.

    Args:
        conn: a session on the target, in no transaction.
    """
    names = [str(sql.RelationName(*row)) for row in conn.execute(HOLDERS)]
    if len(names) > NAMED:
        names = [*names[:NAMED], "more"]
    return (
        f"another session keeps {', '.join(names) or 'a table'} locked: waited {SECONDS} s for a "
        "lock that lets others read and write, and gave up; try again when it has ended"
    )
