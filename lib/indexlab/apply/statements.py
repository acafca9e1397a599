"""Write the statements that the apply stage sends, with every name quoted."""

from __future__ import annotations

from psycopg import sql as compose

from indexlab.sql import RelationName


def drop_sql(name: RelationName, *, if_exists: bool = False, concurrently: bool = True) -> str:
    """Write the DROP INDEX; one that is concurrent blocks no reader and no writer."""
    words = compose.SQL("DROP INDEX{}{} {}").format(
        compose.SQL(" CONCURRENTLY" if concurrently else ""),
        compose.SQL(" IF EXISTS" if if_exists else ""),
        identifier(name),
    )
    return words.as_string(None)


def constraint_sql(table: RelationName, index: RelationName) -> str:
    """Write the ALTER TABLE that makes a constraint of a unique index."""
    words = compose.SQL("ALTER TABLE {} ADD CONSTRAINT {} UNIQUE USING INDEX {}")
    name = compose.Identifier(index.name)
    return words.format(identifier(table), name, name).as_string(None)


def drop_constraint_sql(table: RelationName, index: RelationName) -> str:
    """Write the ALTER TABLE that drops a constraint and its index."""
    words = compose.SQL("ALTER TABLE {} DROP CONSTRAINT {}")
    return words.format(identifier(table), compose.Identifier(index.name)).as_string(None)


def comment_sql(name: RelationName, comment: str | None) -> str:
    """Write the COMMENT ON INDEX that sets or removes a comment."""
    words = compose.SQL("COMMENT ON INDEX {} IS {}")
    return words.format(identifier(name), compose.Literal(comment)).as_string(None)


def cluster_sql(table: RelationName, index: RelationName) -> str:
    """Write the ALTER TABLE that says by which index CLUSTER orders the table."""
    words = compose.SQL("ALTER TABLE {} CLUSTER ON {}")
    return words.format(identifier(table), compose.Identifier(index.name)).as_string(None)


def statistics_sql(index: RelationName, place: int, target: int) -> str:
    """Write the ALTER INDEX that sets the statistics target of a key, by its place from 1."""
    words = compose.SQL("ALTER INDEX {} ALTER COLUMN {} SET STATISTICS {}")
    return words.format(identifier(index), place, target).as_string(None)


def identifier(name: RelationName) -> compose.Identifier:
    """Return a name for psycopg to quote."""
    return compose.Identifier(*filter(None, (name.schema, name.name)))
