"""Put expressions into the server's own words, without touching the target."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql as compose

from indexlab import sql
from indexlab.catalog.objects import INDEXABLE, Expression, Index, Relation
from indexlab.catalog.snapshot import Catalog
from indexlab.plan import CreateIndex, IndexPlan


def with_expressions(conn: psycopg.Connection[Any], catalog: Catalog, plan: IndexPlan) -> Catalog:
    """Ask the server for its words for the expressions of the plan and of the indexes beside it.

    Reads only: the server parses and plans the expressions and evaluates none. What it was asked
    before is not asked again.
    """
    asked = {(item.table, item.written): item for item in catalog.expressions}
    tables: dict[int, Relation] = {}
    for statement in plan.creates:
        relation = _table(catalog, statement)
        written = _expressions(statement)
        if relation is None or relation.kind not in INDEXABLE or not written:
            continue
        tables[relation.oid] = relation
        new = [text for text in written if (relation.oid, text) not in asked]
        for expression in _asked(conn, relation, new):
            asked[relation.oid, expression.written] = expression
    existing: list[Index] = []
    for relation in tables.values():
        if any(item.table == relation.oid for item in catalog.expressions):
            continue  # its indexes have the server's words already
        indexes = catalog.indexes_of(relation.oid)
        texts = {key.text for index in indexes for key in index.keys if not key.column}
        texts |= {index.predicate for index in indexes if index.predicate is not None}
        words = {item.written: item for item in _asked(conn, relation, sorted(texts))}
        existing += [_in_canonical_words(index, words) for index in indexes]
    by_oid = {index.oid: index for index in existing}
    return replace(
        catalog,
        indexes=tuple(by_oid.get(index.oid, index) for index in catalog.indexes)
        if by_oid
        else catalog.indexes,
        expressions=tuple(asked.values()),
    )


def _expressions(statement: CreateIndex) -> list[str]:
    index = statement.index
    written = [key.expression for key in index.keys if key.column is None]
    return written + ([] if index.predicate is None else [index.predicate])


def _table(catalog: Catalog, statement: CreateIndex) -> Relation | None:
    """Find the table of a statement, also in the one schema that was not named."""
    name = statement.index.table
    found = catalog.find(name, statement.search_path)
    elsewhere = [item for item in catalog.elsewhere(name.name) if item.kind in INDEXABLE]
    return elsewhere[0] if found is None and len(elsewhere) == 1 else found


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


# No row is read. In a WHERE, the server refuses what it refuses in an index, too: aggregates,
# window functions and functions that return sets.
TYPES = "SELECT {expressions} FROM ONLY {table} WHERE {conditions} LIMIT 0 {mark}"
WORDS = "EXPLAIN (VERBOSE, COSTS OFF, FORMAT JSON) SELECT {expressions} FROM ONLY {table}"
# The planner removes the arm that cannot be reached, so that the expression is not evaluated.
COLLATION = """
SELECT pg_catalog.to_regcollation(
           pg_catalog.pg_collation_for(CASE WHEN false THEN ({expression}) END))::oid::bigint
  FROM (SELECT) AS one
  LEFT JOIN ONLY {table} ON false {mark}
"""
UNKNOWN = 705
TEXTS = (19, 25, 1042, 1043)  # oids of name, text, char and varchar


def _asked(
    conn: psycopg.Connection[Any], relation: Relation, written: Iterable[str]
) -> tuple[Expression, ...]:
    """Have the server plan the expressions as output columns: it parses and prints, runs nothing."""
    texts = tuple(written)
    if not texts or not relation.readable:  # an owner may index what it may not select
        return ()
    parts = {
        "table": compose.Identifier(relation.schema, relation.name),
        "expressions": compose.SQL(", ").join(_each("({})", texts)),
        "mark": compose.SQL(sql.OWN),
        "conditions": compose.SQL(" OR ").join(_each("({}) IS NULL", texts)),
    }
    try:
        described = conn.execute(compose.SQL(TYPES).format(**parts)).description or []
        explained = conn.execute(compose.SQL(WORDS).format(**parts)).fetchone()
        assert explained is not None
        plan = explained[0][0]["Plan"]
        collations = [
            _collation(conn, relation, *item) for item in zip(texts, described, strict=True)
        ]
    except psycopg.OperationalError:  # a timeout or a lost connection is no answer
        raise
    except psycopg.Error as error:
        refused = (error.diag.message_primary or str(error)).replace(" in WHERE", " in an index")
    else:
        refused = "cannot use subquery in an index" if "Plans" in plan else ""
    if refused and len(texts) > 1:
        return tuple(item for text in texts for item in _asked(conn, relation, [text]))
    if refused:
        return (Expression(relation.oid, texts[0], "", error=refused),)
    return tuple(
        Expression(
            relation.oid,
            text,
            _distinct(text, words),
            type_oid=UNKNOWN if _untyped(text) else column.type_code,
            collation=collation,
        )
        for text, words, column, collation in zip(
            texts, plan["Output"], described, collations, strict=True
        )
    )


def _collation(
    conn: psycopg.Connection[Any], relation: Relation, text: str, column: psycopg.Column
) -> int:
    """Return the collation that an expression names; 0 where it names none."""
    named = "collate" in text.lower() and column.type_code in TEXTS
    if not named or conn.info.server_version < 130000:  # which brought to_regcollation
        return 0
    query = compose.SQL(COLLATION).format(
        expression=_verbatim(text),
        table=compose.Identifier(relation.schema, relation.name),
        mark=compose.SQL(sql.OWN),
    )
    row = conn.execute(query).fetchone()
    return 0 if row is None else row[0] or 0


def _untyped(written: str) -> bool:
    """Return whether it is a bare NULL or quoted word; a query takes it for text, an index not."""
    target = sql.parse(f"SELECT ({written})", "<expression>")[0].tree.target_list[0].res_target
    constant = target.val.a_const
    return bool(constant.isnull or constant.HasField("sval"))


def _distinct(written: str, words: str) -> str:
    """Keep apart what only the planner takes for the same.

    It reduces `flag = true` to `flag`, and may reduce a condition that a constraint implies to
    `true`; an index keeps what was written.
    """
    if words in ("true", "false"):
        return written
    tree = sql.parse(f"SELECT ({written})", "<expression>")[0].tree
    compared = _boolean_comparisons(tree)
    return words if not compared else f"{words} [with {compared} = true or false]"


def _boolean_comparisons(tree: Any) -> int:
    """Count the comparisons with true or false in a parse tree."""
    number = 0
    for field, value in tree.ListFields():
        if field.name in ("lexpr", "rexpr") and tree.DESCRIPTOR.name == "A_Expr":
            number += value.HasField("a_const") and value.a_const.HasField("boolval")
        inner = [value] if hasattr(value, "ListFields") else value
        if not isinstance(inner, str | bytes | int | float):
            number += sum(_boolean_comparisons(i) for i in inner if hasattr(i, "ListFields"))
    return number


def _each(template: str, texts: Iterable[str]) -> list[compose.Composed]:
    return [compose.SQL(template).format(_verbatim(text)) for text in texts]


def _verbatim(text: str) -> compose.SQL:
    """Put an expression that the grammar has accepted into a statement as it stands."""
    return compose.SQL(text)
