"""Why a query became slower, as far as its two plans tell."""

from __future__ import annotations

from collections.abc import Iterator

from indexlab import units
from indexlab.benchmark.series import Series
from indexlab.explain import Explain, Node

MISJUDGED = 5.0
"""From this factor between expected and actual rows on, an estimate is worth a word."""
MORE_PAGES = 1.2
MAX_REASONS = 4


def slower(before: Series, after: Series) -> str:
    """Say what in the plans makes a query slower; pure.

    Args:
        before: the faster side.
        after: the slower one.

    Returns:
        Sentences with the server's own numbers; one that says so if the plans do not tell.
    """
    old, new = before.explain, after.explain
    found = [*_beliefs(old, new), *_work(old, new), *_of_a_write(before, after)]
    if not found:
        return "the plans do not tell why: they do the same work; measure again"
    return "; ".join(found[:MAX_REASONS])


def _beliefs(old: Explain, new: Explain) -> Iterator[str]:
    """Say what the planner believed, and where it was wrong."""
    if new.shape != old.shape and new.root.total_cost < old.root.total_cost:
        yield (
            f"the planner took the new plan for cheaper (cost {units.count(new.root.total_cost)} "
            f"in place of {units.count(old.root.total_cost)})"
        )
    worst = max(_run_to_their_end(new.root), key=_misjudged, default=None)
    if worst is not None and _misjudged(worst) >= MISJUDGED and worst.actual_rows is not None:
        yield (
            f"it expected {units.count(worst.plan_rows)} rows of {worst.title()} and got "
            f"{units.count(worst.actual_rows)} per loop"
        )


def _run_to_their_end(node: Node, *, is_cut: bool = False) -> Iterator[Node]:
    """Walk the steps whose rows can be held against what was expected.

    A step below a LIMIT is stopped as soon as there are enough: that it gave fewer rows than it
    would have is no error of the planner.
    """
    if not is_cut or (node.actual_rows or 0) > node.plan_rows:
        yield node
    for child in node.children:
        yield from _run_to_their_end(child, is_cut=is_cut or node.type == "Limit")


def _misjudged(node: Node) -> float:
    if node.actual_rows is None or not node.actual_loops:
        return 1.0
    wanted, got = max(node.plan_rows, 1.0), max(node.actual_rows, 1.0)
    return max(wanted / got, got / wanted)


def _work(old: Explain, new: Explain) -> Iterator[str]:
    """Say which work the new plan does that the old one did not."""
    if old.buffers is not None and new.buffers is not None:
        pages = (
            old.buffers.shared_hit + old.buffers.shared_read,
            new.buffers.shared_hit + new.buffers.shared_read,
        )
        if pages[1] > MORE_PAGES * max(pages[0], 1):
            yield f"it touches {units.count(pages[1])} pages in place of {units.count(pages[0])}"
        if new.buffers.temp_written > old.buffers.temp_written:
            written = new.buffers.temp_written - old.buffers.temp_written
            yield f"it spills {units.plural(written, 'more page')} to temporary files"
    loops = _most_loops(new)
    if loops is not None and loops[0] > 10 * (_most_loops(old) or (1.0, ""))[0]:
        yield f"{loops[1]} runs {units.count(loops[0])} times"
    if _is_parallel(old) and not _is_parallel(new):
        yield "it no longer runs in parallel"


def _most_loops(plan: Explain) -> tuple[float, str] | None:
    nodes = [node for node in plan.nodes() if node.actual_loops and node.relation]
    if not nodes:
        return None
    most = max(nodes, key=lambda node: node.actual_loops or 0)
    return most.actual_loops or 0.0, most.title()


def _is_parallel(plan: Explain) -> bool:
    return any(node.type.startswith("Gather") for node in plan.nodes())


def _of_a_write(before: Series, after: Series) -> Iterator[str]:
    if before.wal_bytes and after.wal_bytes and after.wal_bytes > 1.05 * before.wal_bytes:
        yield (
            f"it writes {units.size(after.wal_bytes)} of WAL in place of "
            f"{units.size(before.wal_bytes)}, for the indexes that it maintains"
        )
    if before.hot_share is not None and after.hot_share is not None:
        lost = before.hot_share - after.hot_share
        if lost > 0.05:
            yield (
                f"{before.hot_share:.0%} of its updates were heap-only (HOT), now "
                f"{after.hot_share:.0%}: a column that it sets is indexed"
            )
