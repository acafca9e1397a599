"""What EXPLAIN says: steps with their numbers, as psql writes them, and as a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from indexlab import display, units
from indexlab.records import Record

if TYPE_CHECKING:
    import pandas as pd


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
    cte: str = ""
    """The name of the WITH query that a `CTE Scan` reads; empty for other steps."""

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
        from indexlab.explain import trees

        return trees.tree(self)


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
