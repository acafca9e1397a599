"""Migrations that are Python modules: Alembic's and Django's."""

from __future__ import annotations

from collections.abc import Iterable

from indexlab.export.changes import Change, File, Migration

ALEMBIC = '''\
"""Build the planned indexes.

Set `down_revision` to the revision before this one; None stands for the first.
"""

{notes}
from alembic import op

revision = "{revision}"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change one index after the other, outside of a transaction."""
    with op.get_context().autocommit_block():
{up}


def downgrade() -> None:
    """Take it back, the last change first."""
    with op.get_context().autocommit_block():
{down}
'''

DJANGO = '''\
"""Build the planned indexes.

Put the name of your app's last migration into `dependencies`.
"""

{notes}
from django.db import migrations


class Migration(migrations.Migration):
    """Change one index after the other, outside of a transaction."""

    atomic = False

    dependencies = []

    operations = [
{operations}
    ]
'''


def alembic(migration: Migration) -> tuple[File, ...]:
    """Write a revision script; its id comes from what it does."""
    up = "\n".join(_executed(change) for change in migration.changes)
    down = "\n".join(_execute(text) for text in migration.backwards)
    text = ALEMBIC.format(
        notes=_comments(migration.notes, 0),
        revision=migration.identity,
        up=up,
        down=down or "        pass",
    )
    return (File(f"{migration.identity}_planned_indexes.py", text),)


def _executed(change: Change) -> str:
    return _comments(change.reason, 8) + "\n".join(map(_execute, change.up))


def _execute(text: str) -> str:
    # A colon before a word would be a parameter to SQLAlchemy; it takes care of % by itself.
    return f"        op.execute({_literal(text.replace(':', chr(92) + ':'))})"


def django(migration: Migration) -> tuple[File, ...]:
    """Write a non-atomic migration; AddIndexConcurrently cannot hold every index, RunSQL can."""
    operations = "\n".join(_operation(change) for change in migration.changes)
    text = DJANGO.format(notes=_comments(migration.notes, 0), operations=operations)
    return (File(f"indexlab_{migration.identity}.py", text),)


def _operation(change: Change) -> str:
    # A list of strings is executed without parameters, so that % stays what it is.
    return (
        _comments(change.reason, 8)
        + "        migrations.RunSQL(\n"
        + f"            [{_listed(change.up)}],\n"
        + f"            reverse_sql=[{_listed(change.down)}],\n"
        + "        ),"
    )


def _listed(statements: Iterable[str]) -> str:
    return "".join(f"\n                {_literal(text)}," for text in statements) + "\n            "


def _literal(text: str) -> str:
    return repr(text)


def _comments(lines: Iterable[str], indent: int) -> str:
    return "".join(f"{'':{indent}}# {line}".rstrip() + "\n" for line in lines)
