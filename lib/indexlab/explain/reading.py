"""Asking a server for its plan of a statement, and reading what EXPLAIN (FORMAT JSON) gives."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from indexlab.explain.nodes import Buffers, Explain, Node

AGGREGATES = {"Sorted": "GroupAggregate", "Hashed": "HashAggregate", "Mixed": "MixedAggregate"}
CONDITIONS = (
    "Index Cond",
    "Recheck Cond",
    "TID Cond",
    "Order By",
    "Hash Cond",
    "Merge Cond",
    "Join Filter",
    "Filter",
    "One-Time Filter",
    "Sort Key",
    "Presorted Key",
    "Group Key",
    "Cache Key",
    "Run Condition",
)
REMOVED = (
    "Rows Removed by Filter",
    "Rows Removed by Join Filter",
    "Rows Removed by Index Recheck",
)


def run(
    conn: psycopg.Connection[Any],
    statement: str,
    values: Sequence[str | None] = (),
    *,
    analyze: bool,
    prepared: str = "",
    generic: bool = False,
) -> Explain:
    """Ask the server for the plan of one statement; with `analyze` the statement is executed.

    The caller holds the transaction: READ ONLY around a read, rolled back around a write.

    Args:
        conn: any connection.
        statement: one statement with placeholders `$1`, `$2`, ...
        values: one text per placeholder; bound untyped, so each takes the type that is wanted.
        analyze: execute it and report times, rows, buffers and WAL.
        prepared: name of a prepared statement of this session, explained in place of `statement`
            with the plan that the server's plan cache gives it: the generic one, if it is due.
        generic: ask for the plan that fits any values, without any (PostgreSQL 16 and newer).

    Raises:
        psycopg.Error: whatever the server says.
    """
    options = _options(conn.info.server_version, analyze=analyze, generic=generic)
    with psycopg.RawCursor(conn, row_factory=tuple_row) as cursor:
        if prepared:
            arguments = sql.SQL(", ").join(sql.Literal(value) for value in values)
            call = sql.SQL("EXECUTE ") + sql.Identifier(prepared)
            cursor.execute(
                sql.SQL(options)
                + (call + sql.SQL("(") + arguments + sql.SQL(")") if values else call),
                prepare=False,
            )
        else:
            # A statement of the user is a whole text, into which nothing is composed.
            text = (options + statement).encode(conn.info.encoding)
            cursor.execute(text, list(values) or None, prepare=False)
        row = cursor.fetchone()
    assert row is not None
    return parse(row[0])


GENERIC = "SELECT pg_catalog.set_config('plan_cache_mode', 'force_generic_plan', true)"
GENERIC_SINCE = 160000
"""From this version on, EXPLAIN itself has GENERIC_PLAN."""
PREPARED = "indexlab_generic"


def run_generic(conn: psycopg.Connection[Any], statement: str, count: int) -> Explain:
    """Ask the server for the plan of a statement that fits any values; it is not executed.

    Before PostgreSQL 16, where nothing else tells it, the plan cache is asked.

    Args:
        conn: a connection in autocommit mode.
        statement: one statement with placeholders `$1`, `$2`, ...
        count: how many placeholders it has.

    Raises:
        psycopg.Error: whatever the server says.
    """
    if conn.info.server_version >= GENERIC_SINCE:
        return run(conn, statement, analyze=False, generic=True)
    with conn.transaction(force_rollback=True):
        conn.execute(GENERIC)
        conn.execute(f"PREPARE {PREPARED} AS {statement}".encode())
        try:
            return run(conn, statement, [None] * count, analyze=False, prepared=PREPARED)
        finally:
            if conn.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS:
                conn.execute(f"DEALLOCATE {PREPARED}".encode())


def _options(version: int, *, analyze: bool, generic: bool = False) -> str:
    words = ["SETTINGS", "VERBOSE", "FORMAT JSON"]
    if analyze and version >= 130000:
        words.insert(0, "WAL")
    if analyze:
        words[:0] = ["ANALYZE", "BUFFERS"]
    if generic:
        words.insert(0, "GENERIC_PLAN")
    return "EXPLAIN (" + ", ".join(words) + ") "


def parse(json_value: str | Sequence[Any] | Mapping[str, Any]) -> Explain:
    """Read the output of EXPLAIN (FORMAT JSON), of PostgreSQL 12 to 18.

    Args:
        json_value: the JSON text, or what it decodes to; a list gives its first entry.

    Raises:
        ValueError: it is not that.
    """
    value: Any = json.loads(json_value) if isinstance(json_value, str) else json_value
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        value = value[0]
    if not isinstance(value, Mapping) or "Plan" not in value:
        raise ValueError(f"not the output of EXPLAIN (FORMAT JSON): {str(value)[:80]!r}")
    plan = value["Plan"]
    analyzed = "Execution Time" in value
    return Explain(
        root=_node(plan),
        planning_ms=_number(value.get("Planning Time")),
        execution_ms=_number(value.get("Execution Time")),
        buffers=_buffers(plan) if analyzed and "Shared Hit Blocks" in plan else None,
        wal_records=plan.get("WAL Records") if analyzed else None,
        wal_bytes=plan.get("WAL Bytes") if analyzed else None,
        settings=tuple(sorted((str(k), str(v)) for k, v in value.get("Settings", {}).items())),
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _buffers(plan: Mapping[str, Any]) -> Buffers:
    return Buffers(
        shared_hit=plan.get("Shared Hit Blocks", 0),
        shared_read=plan.get("Shared Read Blocks", 0),
        shared_dirtied=plan.get("Shared Dirtied Blocks", 0),
        shared_written=plan.get("Shared Written Blocks", 0),
        temp_read=plan.get("Temp Read Blocks", 0),
        temp_written=plan.get("Temp Written Blocks", 0),
    )


def _node(raw: Mapping[str, Any]) -> Node:
    relation, schema = raw.get("Relation Name"), raw.get("Schema")
    if relation is not None and schema is not None:
        relation = f"{schema}.{relation}"
    return Node(
        type=_type(raw),
        schema=schema,
        relation=relation,
        index=raw.get("Index Name"),
        alias=raw.get("Alias"),
        startup_cost=float(raw.get("Startup Cost", 0)),
        total_cost=float(raw.get("Total Cost", 0)),
        plan_rows=float(raw.get("Plan Rows", 0)),
        actual_rows=_number(raw.get("Actual Rows")),
        actual_loops=_number(raw.get("Actual Loops")),
        actual_ms=_number(raw.get("Actual Total Time")),
        conditions=tuple([(name, _words(raw[name])) for name in CONDITIONS if name in raw]),
        rows_removed=float(sum([raw[name] for name in REMOVED if name in raw])),
        shared_hit=raw.get("Shared Hit Blocks", 0),
        shared_read=raw.get("Shared Read Blocks", 0),
        subplan=raw.get("Subplan Name", ""),
        disabled=bool(raw.get("Disabled", False)),
        children=tuple(map(_node, raw.get("Plans", ()))),
        cte=raw.get("CTE Name", ""),
    )


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _type(raw: Mapping[str, Any]) -> str:
    name = str(raw["Node Type"])
    join = raw.get("Join Type", "Inner")
    if name == "Aggregate":
        name = AGGREGATES.get(raw.get("Strategy", ""), name)
        mode = raw.get("Partial Mode", "Simple")
        name = name if mode == "Simple" else f"{mode} {name}"
    elif name == "ModifyTable":
        name = str(raw.get("Operation", name))
    elif name == "SetOp":
        hashed = "Hash" if raw.get("Strategy") == "Hashed" else ""
        name = f"{hashed}SetOp {raw.get('Command', '')}".strip()
    elif name == "Custom Scan":
        name = f"Custom Scan ({raw.get('Custom Plan Provider', 'unknown')})"
    elif join != "Inner":
        name = f"{name.removesuffix(' Join')} {join} Join"
    if raw.get("Scan Direction") == "Backward":
        name += " Backward"
    return f"Parallel {name}" if raw.get("Parallel Aware") else name
