"""EXPLAIN output as a tree of nodes: asking the server for it, reading it, and comparing two."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from indexlab import display, units
from indexlab.records import Record

if TYPE_CHECKING:
    import pandas as pd

MAX_PARTS = 4
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
FURNITURE = ("Hash", "Materialize", "Memoize", "BitmapAnd", "BitmapOr", "Result", "Subquery Scan")
"""Steps that only serve the step above them: a difference does not name them."""


@dataclass(frozen=True, slots=True)
class Node(Record):
    """One step of a plan; the times, rows and buffers are those of the server's own report."""

    type: str
    """As psql writes it: `Parallel Seq Scan`, `Hash Left Join`, `Index Scan Backward`."""
    schema: str | None
    relation: str | None
    """With its schema, where the server says it (VERBOSE)."""
    index: str | None
    """Without a schema: EXPLAIN gives none."""
    alias: str | None
    startup_cost: float
    total_cost: float
    plan_rows: float
    actual_rows: float | None
    """Mean per loop; fractional from PostgreSQL 18 on; None without ANALYZE."""
    actual_loops: float | None
    actual_ms: float | None
    """Mean per loop, in milliseconds, children included."""
    conditions: tuple[tuple[str, str], ...]
    """Label and text: `("Index Cond", "(id = $1)")`, `("Filter", ...)`, `("Sort Key", ...)`."""
    rows_removed: float
    """Rows per loop that filters and rechecks threw away."""
    shared_hit: int
    """Pages found in shared buffers, children and all loops included."""
    shared_read: int
    """Pages read from the operating system, children and all loops included."""
    subplan: str
    """`InitPlan 1`, `CTE x`; empty for ordinary children."""
    disabled: bool
    children: tuple[Node, ...]

    @property
    def pages(self) -> int:
        """Pages of shared buffers that the step and its children touched."""
        return self.shared_hit + self.shared_read

    @property
    def table(self) -> tuple[str, ...]:
        """Schema and name of the relation, as parts of an identifier; empty without one."""
        if self.relation is None:
            return ()
        if self.schema is None:
            return (self.relation,)
        return self.schema, self.relation.removeprefix(f"{self.schema}.")

    def __repr__(self) -> str:
        return f"<{display.clean(self.title())}, cost {units.cost(self.total_cost)}>"

    def __str__(self) -> str:
        return self.title()

    def title(self) -> str:
        """Name the step as psql does: `Index Scan using idx on core.bookings b`."""
        using = f" using {self.index}" if self.index and self.relation else ""
        on = f" on {self.relation or self.index}" if self.relation or self.index else ""
        alias = f" {self.alias}" if self.alias and self.alias not in self.table else ""
        return f"{self.type}{using}{on}{alias}"


@dataclass(frozen=True, slots=True)
class Buffers(Record):
    """Pages of 8 kB that a whole statement touched, planning not included."""

    shared_hit: int
    shared_read: int
    shared_dirtied: int
    shared_written: int
    temp_read: int
    temp_written: int


@dataclass(frozen=True, slots=True)
class Explain(Record):
    """What the server says about one execution, or about the plan that it would use."""

    root: Node
    planning_ms: float | None
    execution_ms: float | None
    """None without ANALYZE."""
    buffers: Buffers | None
    """None without ANALYZE."""
    wal_records: int | None
    """None without ANALYZE, and before PostgreSQL 13."""
    wal_bytes: int | None
    settings: tuple[tuple[str, str], ...]
    """Planner settings that differ from their defaults."""

    def nodes(self) -> Iterator[Node]:
        """Walk the plan, parents first."""
        return _walk(self.root)

    def levels(self) -> Iterator[tuple[int, Node]]:
        """Walk the plan with the depth of each step, parents first."""
        return _levels(self.root, 0)

    @property
    def indexes(self) -> tuple[str, ...]:
        """Names of all indexes that the plan uses, sorted, each once."""
        return tuple(sorted({node.index for node in self.nodes() if node.index}))

    @property
    def shape(self) -> tuple[tuple[int, str, str, str], ...]:
        """Depth, type, relation and index of each step: equal for plans of the same shape."""
        return tuple(
            (depth, node.type, node.relation or "", node.index or "")
            for depth, node in _levels(self.root, 0)
        )

    def text(self) -> str:
        """Write the plan as an indented tree, as psql does."""
        lines = [line for depth, node in _levels(self.root, 0) for line in _lines(node, depth)]
        if self.buffers is not None:
            lines.append(
                f"Buffers: shared hit={self.buffers.shared_hit} read={self.buffers.shared_read}"
                f" dirtied={self.buffers.shared_dirtied}"
                f", temp read={self.buffers.temp_read} written={self.buffers.temp_written}"
            )
        if self.wal_bytes:
            lines.append(f"WAL: records={self.wal_records} bytes={self.wal_bytes}")
        if self.settings:
            lines.append("Settings: " + ", ".join(f"{k} = {v!r}" for k, v in self.settings))
        if self.planning_ms is not None:
            lines.append(f"Planning Time: {self.planning_ms:.3f} ms")
        if self.execution_ms is not None:
            lines.append(f"Execution Time: {self.execution_ms:.3f} ms")
        return "\n".join(lines)

    def frame(self) -> pd.DataFrame:
        """Return the steps as a pandas DataFrame, one row each, parents first.

        Columns: `depth` below the topmost step; `type`; `relation`; `index`; `total_cost` in the
        planner's units; `plan_rows`, estimated; `actual_rows` and `actual_ms`, means per loop, the
        latter in milliseconds with the children; `actual_loops`; `rows_removed` per loop by filters
        and rechecks; `shared_hit` and `shared_read`, pages of 8 kB over all loops.
        """
        import pandas as pd

        columns = [
            "type",
            "relation",
            "index",
            "total_cost",
            "plan_rows",
            "actual_rows",
            "actual_loops",
            "actual_ms",
            "rows_removed",
            "shared_hit",
            "shared_read",
        ]
        rows = [
            [depth, *(getattr(node, column) for column in columns)]
            for depth, node in _levels(self.root, 0)
        ]
        return pd.DataFrame(rows, columns=["depth", *columns])

    def __repr__(self) -> str:
        return display.clean(self.text())

    def _repr_html_(self) -> str:
        spent = "" if self.execution_ms is None else f", {units.ms(self.execution_ms)}"
        used = f" ({', '.join(self.indexes)})" if self.indexes else ""
        return (
            f"<details><summary>{display.escape(self.root.title() + used + spent)}</summary>"
            f"{display.code(self.text())}</details>"
        )


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _walk(child)


def _levels(node: Node, depth: int) -> Iterator[tuple[int, Node]]:
    yield depth, node
    for child in node.children:
        yield from _levels(child, depth + 1)


def _lines(node: Node, depth: int) -> Iterator[str]:
    lead = "  " * (3 * depth - 2) + "->  " if depth else ""
    if node.subplan:
        yield "  " * (3 * depth - 2) + node.subplan
    actual = ""
    if node.actual_loops is not None and not node.actual_loops:
        actual = " (never executed)"
    elif node.actual_ms is not None:
        actual = (
            f" (actual time={node.actual_ms:.3f} rows={node.actual_rows:g}"
            f" loops={node.actual_loops:g})"
        )
    yield (
        f"{lead}{node.title()}  (cost={node.startup_cost:.2f}..{node.total_cost:.2f}"
        f" rows={node.plan_rows:g}){actual}{'  (disabled)' if node.disabled else ''}"
    )
    below = " " * (6 * depth + 2)
    for label, text in node.conditions:
        yield f"{below}{label}: {text}"
    if node.rows_removed:
        yield f"{below}Rows Removed: {node.rows_removed:g}"
    if node.pages:
        yield f"{below}Buffers: shared hit={node.shared_hit} read={node.shared_read}"


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


@dataclass(frozen=True, slots=True)
class _Access:
    """How a plan reads one relation."""

    relation: str
    words: str
    indexes: tuple[str, ...]
    pages: str

    def before(self) -> str:
        using = f" using {', '.join(self.indexes)}" if self.indexes else ""
        return f"{self.words}{using} on {self.relation}{self.pages}"

    def after(self) -> str:
        if self.indexes:
            return f"{self.words} using {', '.join(self.indexes)}{self.pages}"
        return f"{self.words}{self.pages}"


def difference(before: Explain, after: Explain) -> str:
    """Say in words how a plan changed; `same plan` if it has the same shape.

    Example:
        Seq Scan on core.bookings (14,279 pages) became Index Scan using idx_x (6 pages)
    """
    if before.shape == after.shape:
        return "same plan"
    old, new = _accesses(before), _accesses(after)
    parts: list[str] = []
    for key, access in old.items():
        other = new.get(key)
        if other is None:
            parts.append(f"{access.relation} is no longer read")
        elif (access.words, access.indexes) != (other.words, other.indexes):
            parts.append(f"{access.before()} became {other.after()}")
    parts += [f"now also {access.before()}" for key, access in new.items() if key not in old]
    parts += _steps(before, after)
    if not parts:
        return "the same steps in another order"
    if len(parts) > MAX_PARTS:
        rest = units.plural(len(parts) - MAX_PARTS + 1, "more change")
        parts = [*parts[: MAX_PARTS - 1], f"and {rest}"]
    return "; ".join(parts)


def _accesses(explain: Explain) -> dict[tuple[str, str, int], _Access]:
    found: dict[tuple[str, str, int], _Access] = {}
    for node in explain.nodes():
        if node.relation is None or "Scan" not in node.type:
            continue
        # A bitmap's indexes are below its heap scan; a subplan below a filter is its own access.
        below = _bitmaps(node) if "Bitmap Heap Scan" in node.type else ()
        indexes = tuple(sorted({*([node.index] if node.index else []), *below}))
        pages = f" ({units.plural(node.pages, 'page')})" if explain.buffers is not None else ""
        place = 0
        while (key := (node.relation, node.alias or "", place)) in found:
            place += 1
        found[key] = _Access(node.relation, node.type, indexes, pages)
    return found


def _bitmaps(node: Node) -> tuple[str, ...]:
    return tuple(
        name
        for child in node.children
        if child.type.startswith("Bitmap")
        for name in ([child.index] if child.index else _bitmaps(child))
    )


def _steps(before: Explain, after: Explain) -> list[str]:
    def count(explain: Explain) -> Counter[str]:
        return Counter(
            node.type
            for node in explain.nodes()
            if node.type not in FURNITURE and not (node.relation or node.index)
        )

    lost, gained = count(before) - count(after), count(after) - count(before)
    if lost and gained:
        return [f"{', '.join(lost)} became {', '.join(gained)}"]
    if lost:
        return [f"without {', '.join(lost)}"]
    return [f"with {', '.join(gained)}"] if gained else []
