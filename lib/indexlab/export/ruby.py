"""Migrations of Rails."""

from __future__ import annotations

from collections.abc import Iterable

from indexlab.export.changes import File, Migration

RAILS = """\
{notes}
class Indexlab{number:08d} < ActiveRecord::Migration[7.0]
  disable_ddl_transaction!

  def up
{up}  end

  def down
{down}  end
end
"""


def rails(migration: Migration) -> tuple[File, ...]:
    """Write a migration; its class is called as its file is, which Rails asks for."""
    up = "".join(
        _comments(change.reason, 4) + "".join(map(_execute, change.up))
        for change in migration.changes
    )
    text = RAILS.format(
        notes=_comments(migration.notes, 0),
        number=migration.number,
        up=up,
        down="".join(map(_execute, migration.backwards)),
    )
    return (File(f"{migration.now:%Y%m%d%H%M%S}_indexlab{migration.number:08d}.rb", text),)


def _execute(text: str) -> str:
    # Between single quotes Ruby reads only these two; neither #{} nor $ means anything.
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"    execute '{quoted}'\n"


def _comments(lines: Iterable[str], indent: int) -> str:
    return "".join(f"{'':{indent}}# {line}".rstrip() + "\n" for line in lines)
