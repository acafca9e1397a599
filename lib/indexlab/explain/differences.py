"""How two plans differ, in words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from indexlab import units
from indexlab.explain.nodes import Explain, Node

MAX_PARTS = 4
FURNITURE = ("Hash", "Materialize", "Memoize", "BitmapAnd", "BitmapOr", "Result", "Subquery Scan")
"""Steps that only serve the step above them: a difference does not name them."""


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
