"""A plan as a tree that folds, each step with what it takes alone, the costliest one marked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from indexlab import display, units
from indexlab.display import Markup
from indexlab.explain.nodes import Explain, Node

Measure = Literal["time", "pages", "cost"]
WORDS: dict[Measure, str] = {"time": "of the time", "pages": "of the pages", "cost": "of the cost"}
MISJUDGED, FEW_ROWS = 10, 100
"""Rows that differ from the expected by this factor are pointed out, from so many rows on."""
GATHERS = ("Gather", "Gather Merge")


@dataclass(frozen=True, slots=True)
class Branch:
    """A step of the tree with its part of the whole."""

    node: Node
    share: float
    """What the step takes alone, without those below it: from 0 to 1 of the whole plan."""
    costliest: bool
    below: tuple[Branch, ...]

    def walk(self) -> Iterator[Branch]:
        """Walk the tree, parents first."""
        yield self
        for branch in self.below:
            yield from branch.walk()


def measure(explain: Explain) -> Measure:
    """Say by what the steps of a plan can be told apart; pure.

    Time where it was executed; pages where that took no measurable time; else the planner's cost.
    """
    root = explain.root
    if root.actual_ms:
        return "time"
    return "pages" if root.actual_ms is not None and root.pages else "cost"


def branches(explain: Explain) -> Branch:
    """Work out what each step takes alone; pure.

    The server's numbers contain what is below a step. Times are means over loops, and below a
    Gather the loops of all processes are counted, which ran side by side. The time of a WITH query
    is part of the scan that reads it; its cost is part of the step that it hangs on. What a LIMIT
    does not fetch is not counted.
    """
    by = measure(explain)
    own: list[float] = []
    if by == "time":
        _times(explain.root, 1.0, _queries(explain), own)
    elif by == "pages":
        own += [
            max(0.0, node.pages - sum(child.pages for child in node.children))
            for node in explain.nodes()
        ]
    else:
        _costs(explain.root, explain.root.total_cost, own)
    whole = sum(own)
    shares = [part / whole if whole else 0.0 for part in own]
    largest = shares.index(max(shares)) if whole and len(shares) > 1 else -1
    numbered = iter(range(len(shares)))

    def branch(node: Node) -> Branch:
        number = next(numbered)
        below = tuple(map(branch, node.children))
        return Branch(node, shares[number], number == largest, below)

    return branch(explain.root)


def _queries(explain: Explain) -> dict[str, float]:
    """Return the milliseconds of each WITH query, by name."""
    return {
        node.subplan.removeprefix("CTE "): (node.actual_ms or 0) * (node.actual_loops or 0)
        for node in explain.nodes()
        if node.subplan.startswith("CTE ")
    }


def _times(node: Node, processes: float, queries: dict[str, float], own: list[float]) -> float:
    """Note the milliseconds of each step alone, parents first; return those of all of it."""
    loops = node.actual_loops or 0
    total = (node.actual_ms or 0) * loops / processes
    place = len(own)
    own.append(0.0)
    below = 0.0
    for child in node.children:
        beside = processes
        if node.type in GATHERS and not child.subplan and loops:
            beside = max(1.0, (child.actual_loops or 0) / loops)
        spent = _times(child, beside, queries, own)
        if not child.subplan.startswith("CTE "):
            below += spent
    if node.cte in queries:
        # The first scan that asks for rows makes the query run, within its own time.
        taken = min(total, queries[node.cte])
        queries[node.cte] -= taken
        below += taken
    own[place] = max(0.0, total - below)
    return total


def _costs(node: Node, whole: float, own: list[float]) -> None:
    """Note the cost of each step alone, parents first, `whole` being that of all of it."""
    place = len(own)
    own.append(0.0)
    fetched = whole / node.total_cost if node.total_cost else 0.0
    rest = whole
    for number, child in enumerate(node.children):
        times = 1.0
        if child.subplan.startswith("SubPlan"):
            times = max(1.0, node.plan_rows)
        elif node.type.startswith("Nested Loop") and number and not child.subplan:
            times = max(1.0, node.children[0].plan_rows)
        part = min(rest, child.total_cost * fetched * times)
        rest -= part
        _costs(child, part, own)
    own[place] = rest


def tree(explain: Explain) -> Markup:
    """Return a plan as an HTML tree whose steps fold."""
    by = WORDS[measure(explain)]
    shown = _branch(branches(explain), by, explain.root.actual_loops is not None)
    about = "".join(f"<p>{display.escape(line)}</p>" for line in _about(explain))
    return Markup(f'{display.STYLE}<div class="il-plan"><ul>{shown}</ul>{about}</div>')


def folded(explain: Explain) -> Markup:
    """Return a plan as one line that unfolds into its tree."""
    spent = "" if explain.execution_ms is None else f", {units.ms(explain.execution_ms)}"
    others = [name for name in explain.indexes if name != explain.root.index]
    used = f" ({', '.join(others)})" if others else ""
    return Markup(
        f'<details class="il-fold"><summary>'
        f"{display.escape(explain.root.title() + used + spent)}</summary>{tree(explain)}</details>"
    )


def _branch(branch: Branch, by: str, executed: bool) -> str:
    node = branch.node
    name = f"<small>{display.escape(node.subplan)}</small> " if node.subplan else ""
    line = (
        f'<span class="il-step">{name}<b>{display.escape(node.title())}</b></span> '
        f'<span class="il-share" style="--share:{branch.share:.1%}">{branch.share:.0%}</span> '
        + (f'<span class="il-costly">costliest: {branch.share:.0%} {by}</span> ' * branch.costliest)
        + f'<span class="il-facts">{display.escape(", ".join(_facts(node, executed)))}</span>'
    )
    told = "".join(
        f'<div class="il-cond">{display.escape(f"{label}:")} '
        f"<code>{display.escape(text)}</code></div>"
        for label, text in node.conditions
    )
    told += "".join(f'<div class="il-cond">{display.escape(words)}</div>' for words in _odd(node))
    below = "".join(_branch(child, by, executed) for child in branch.below)
    below = f"<ul>{below}</ul>" if below else ""
    if not told and not below:
        return f'<li><div class="il-leaf">{line}</div></li>'
    return f"<li><details open><summary>{line}</summary>{told}{below}</details></li>"


def _facts(node: Node, executed: bool) -> Iterator[str]:
    """Say what is known of a step: time, rows, pages, or cost and the rows that are expected."""
    if executed and not node.actual_loops:
        yield "never executed"
        return
    if node.actual_rows is None:
        yield f"cost {units.cost(node.total_cost)}"
        yield units.plural(round(node.plan_rows), "row")
        return
    loops = node.actual_loops or 1
    if node.actual_ms is not None:
        yield (
            units.ms(node.actual_ms * loops)
            if loops == 1
            else (f"{units.count(loops)} times {units.ms(node.actual_ms)}")
        )
    each = " each" if loops > 1 else ""
    rows = "1 row" if node.actual_rows == 1 else f"{units.count(node.actual_rows)} rows"
    planned = units.count(node.plan_rows)
    yield (
        f"{rows}{each}"
        if rows.split(maxsplit=1)[0] == planned
        else f"{rows}{each} ({planned} expected)"
    )
    if node.pages:
        yield units.plural(node.pages, "page")


def _odd(node: Node) -> Iterator[str]:
    """Say what a reader should look at in a step."""
    if node.rows_removed:
        yield f"{units.count(node.rows_removed)} rows read and thrown away"
    if node.disabled:
        yield "disabled by a setting, and used for want of another"
    if node.actual_rows is not None and node.actual_loops:
        low, high = sorted((max(node.actual_rows, 1.0), max(node.plan_rows, 1.0)))
        if high >= FEW_ROWS and high / low >= MISJUDGED:
            more = "more" if node.actual_rows > node.plan_rows else "fewer"
            yield f"{high / low:,.0f} times {more} rows than expected: statistics may be stale"


def _about(explain: Explain) -> Iterator[str]:
    """Say what is known of the whole plan."""
    spent = []
    if explain.planning_ms is not None:
        spent.append(f"planning {units.ms(explain.planning_ms)}")
    if explain.execution_ms is not None:
        spent.append(f"execution {units.ms(explain.execution_ms)}, as the server measured it")
    if explain.wal_bytes:
        spent.append(f"{explain.wal_records} WAL records, {units.size(explain.wal_bytes)}")
    if spent:
        yield "; ".join(spent)
    if explain.settings:
        listed = ", ".join(f"{name} = {value}" for name, value in explain.settings)
        yield f"planner settings that differ from their defaults: {listed}"
