"""Which share of a table's rows a predicate leaves, where the statistics tell it simply."""

from __future__ import annotations

import math
from typing import Any

from indexlab import sql
from indexlab.catalog import Catalog, Index
from indexlab.catalog.statistics import ColumnStatistics
from indexlab.errors import InputError

AND, NOT, IS_NULL = 1, 3, 1  # BoolExprType, NullTestType of the grammar


def selectivity(catalog: Catalog, index: Index) -> tuple[float, bool]:
    """Return the share of the rows that a partial index holds, and whether it is an upper bound."""
    if index.predicate is None:
        return 1.0, False
    try:
        tree = sql.parse(f"SELECT WHERE {index.predicate}", "<predicate>")[0].tree.where_clause
    except InputError:
        return 1.0, True
    return _share(catalog, index.table, tree)


def _share(catalog: Catalog, table: int, node: Any) -> tuple[float, bool]:
    kind = node.WhichOneof("node")
    if kind == "bool_expr" and node.bool_expr.boolop == AND:
        parts = [_share(catalog, table, part) for part in node.bool_expr.args]
        return math.prod(share for share, _ in parts), any(bound for _, bound in parts)
    if kind == "null_test":
        found = _statistics(catalog, table, node.null_test.arg)
        if found is not None:
            is_null = node.null_test.nulltesttype == IS_NULL
            return (found.nulls if is_null else 1 - found.nulls), False
    negated = kind == "bool_expr" and node.bool_expr.boolop == NOT
    column = node.bool_expr.args[0] if negated else node
    if column.HasField("column_ref"):
        found = _statistics(catalog, table, column)
        return _of_value(found, "f" if negated else "t", catalog.relation(table).rows)
    if kind == "a_expr" and [n.string.sval for n in node.a_expr.name] == ["="]:
        value = constant(node.a_expr.rexpr)
        found = _statistics(catalog, table, node.a_expr.lexpr)
        if value is not None:
            return _of_value(found, value, catalog.relation(table).rows)
    return 1.0, True


def _of_value(found: ColumnStatistics | None, value: str, rows: float) -> tuple[float, bool]:
    """Return the share of a value: its own, or that of the average one whose share is not known."""
    if found is None:
        return 1.0, True
    known = dict(found.common)
    if value in known:
        return known[value], False
    # The text of the first common values alone has been read.
    unread = found.frequencies[len(found.common) :]
    rest = max(0.0, 1 - found.nulls - sum(found.frequencies))
    distinct = found.distinct if found.distinct >= 0 else -found.distinct * max(rows, 0.0)
    others = max(0.0, distinct - len(found.frequencies))
    if others < 0.5 and not unread:
        return rest, False
    return (sum(unread) + rest) / max(1.0, len(unread) + others), False


def _statistics(catalog: Catalog, table: int, node: Any) -> ColumnStatistics | None:
    name = column_name(node)
    column = None if name is None else catalog.column(table, name)
    return None if column is None else catalog.statistics.of(table, column.number)


def column_name(node: Any) -> str | None:
    """Return the name of the column that an expression is, casts aside; None for another one."""
    kind = node.WhichOneof("node")
    if kind == "type_cast":
        return column_name(node.type_cast.arg)
    if kind != "column_ref" or not node.column_ref.fields[-1].HasField("string"):
        return None
    return str(node.column_ref.fields[-1].string.sval)


def constant(node: Any) -> str | None:
    """Return the text of the constant that an expression is, casts aside; None for another one."""
    kind = node.WhichOneof("node")
    if kind == "type_cast":
        return constant(node.type_cast.arg)
    if kind != "a_const" or node.a_const.isnull:
        return None
    value = node.a_const
    match value.WhichOneof("val"):
        case "boolval":
            return "t" if value.boolval.boolval else "f"
        case "sval" | "ival" | "fval" as form:
            return str(getattr(getattr(value, form), form))
    return None
