"""Put expressions into the server's own words, without touching the target."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql as compose

from indexlab.catalog.snapshot import INDEXABLE, Catalog, Expression, Index, Relation
from indexlab.plan import IndexPlan


def with_expressions(conn: psycopg.Connection[Any], catalog: Catalog, plan: IndexPlan) -> Catalog:
    """Ask the server for its words for the expressions of the plan and of the indexes beside it."""
    asked: dict[tuple[int, str], Expression] = {}
    tables: dict[int, Relation] = {}
    for statement in plan.creates:
        index = statement.index
        relation = catalog.find(index.table, statement.search_path)
        written = [key.expression for key in index.keys if key.column is None]
        written += [] if index.predicate is None else [index.predicate]
        if relation is None or relation.kind not in INDEXABLE or not written:
            continue
        tables[relation.oid] = relation
        for expression in _asked(conn, relation, written):
            asked[relation.oid, expression.written] = expression
    existing: list[Index] = []
    for relation in tables.values():
        indexes = catalog.indexes_of(relation.oid)
        texts = {key.text for index in indexes for key in index.keys if not key.column}
        texts |= {index.predicate for index in indexes if index.predicate is not None}
        words = {item.written: item for item in _asked(conn, relation, sorted(texts))}
        existing += [_in_canonical_words(index, words) for index in indexes]
    by_oid = {index.oid: index for index in existing}
    return replace(
        catalog,
        indexes=tuple(by_oid.get(index.oid, index) for index in catalog.indexes),
        expressions=tuple(asked.values()),
    )


def _in_canonical_words(index: Index, words: dict[str, Expression]) -> Index:
    def canonical(text: str) -> str:
        found = words.get(text)
        return text if found is None or found.error else found.canonical

    return replace(
        index,
        keys=tuple(
            key if key.column else replace(key, text=canonical(key.text)) for key in index.keys
        ),
        predicate=None if index.predicate is None else canonical(index.predicate),
    )


def _asked(
    conn: psycopg.Connection[Any], relation: Relation, written: Iterable[str]
) -> tuple[Expression, ...]:
    """Have the server plan the expressions as output columns: it parses and prints, runs nothing."""
    texts = tuple(written)
    if not texts:
        return ()
    selected = compose.SQL(", ").join(compose.SQL("({})").format(_verbatim(t)) for t in texts)
    query = compose.SQL("SELECT {} FROM ONLY {}").format(
        selected, compose.Identifier(relation.schema, relation.name)
    )
    try:
        described = conn.execute(compose.SQL("{} LIMIT 0").format(query)).description or []
        explained = conn.execute(
            compose.SQL("EXPLAIN (VERBOSE, COSTS OFF, FORMAT JSON) {}").format(query)
        ).fetchone()
    except psycopg.Error as error:
        if len(texts) > 1:
            return tuple(item for text in texts for item in _asked(conn, relation, [text]))
        reason = error.diag.message_primary or str(error)
        return (Expression(relation.oid, texts[0], "", error=reason),)
    assert explained is not None
    output = explained[0][0]["Plan"]["Output"]
    return tuple(
        Expression(relation.oid, text, words, type_oid=column.type_code)
        for text, words, column in zip(texts, output, described, strict=True)
    )


def _verbatim(text: str) -> compose.SQL:
    """Put an expression that the grammar has accepted into a statement as it stands."""
    return compose.SQL(text.replace("{", "{{").replace("}", "}}"))
