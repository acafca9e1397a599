"""Migrations that are SQL scripts: Flyway's, Liquibase's, and plain ones."""

from __future__ import annotations

from collections.abc import Iterable

from indexlab.errors import InputError
from indexlab.export.changes import Change, File, Migration

FLYWAY_CONF = "executeInTransaction=false\nplaceholderReplacement=false\n"
FLYWAY_LOCK = (
    "Flyway's own lock is a transaction that a concurrent build would wait for without end:",
    "set flyway.postgresql.transactional.lock=false.",
)


def sql(migration: Migration) -> tuple[File, ...]:
    """Write two scripts for psql, up and down."""
    return (
        File("indexes.up.sql", _up(migration)),
        File("indexes.down.sql", _down(migration)),
    )


def flyway(migration: Migration) -> tuple[File, ...]:
    """Write a versioned and an undo script, each with the configuration that is named as it is."""
    stem = f"{migration.now:%Y%m%d%H%M%S}__planned_indexes.sql"
    up = _comments(FLYWAY_LOCK) + _up(migration)
    down = _comments(FLYWAY_LOCK) + _down(migration)
    return (
        File(f"V{stem}", up),
        File(f"V{stem}.conf", FLYWAY_CONF),
        File(f"U{stem}", down),
        File(f"U{stem}.conf", FLYWAY_CONF),
    )


def liquibase(migration: Migration) -> tuple[File, ...]:
    """Write formatted SQL: a changeset for each change, with its rollback.

    Raises:
        InputError: a statement has a line break, which in this format may begin another changeset.
    """
    parts = ["--liquibase formatted sql\n" + _comments(migration.notes)]
    for number, change in enumerate(migration.changes, 1):
        for text in (*change.up, *change.down):
            if len(text.splitlines()) > 1:
                raise InputError(
                    f"liquibase's formatted SQL cannot hold the line break in {text!r}: "
                    "choose another --export"
                )
        parts.append(_changesets(migration.identity, number, change))
    return (File(f"indexlab-{migration.identity}.sql", "\n".join(parts)),)


def _changesets(identity: str, number: int, change: Change) -> str:
    """Write one changeset for each statement: one that fails must not run its neighbours again."""
    written = []
    for place, text in enumerate(change.up):
        last = place == len(change.up) - 1
        undo = [f"--rollback {text};\n" for text in change.down] if last else []
        written.append(
            f"--changeset indexlab:{identity}-{number}-{place + 1} runInTransaction:false "
            "splitStatements:false stripComments:false\n"
            + _comments(change.reason)
            + f"{text};\n"
            + "".join(undo or ["--rollback empty\n"])
        )
    return "\n".join(written)


def _up(migration: Migration) -> str:
    parts = [_comments(migration.notes)]
    for change in migration.changes:
        parts.append(_comments(change.reason) + "".join(f"{text};\n" for text in change.up))
    return "\n".join(parts)


def _down(migration: Migration) -> str:
    return _comments(migration.notes[:1]) + "".join(f"{text};\n" for text in migration.backwards)


def _comments(lines: Iterable[str]) -> str:
    return "".join(f"-- {line}".rstrip() + "\n" for line in lines)
