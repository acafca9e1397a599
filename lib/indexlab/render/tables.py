"""The sections of a run's page: verdicts, what exists already, and every query with its plans."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from indexlab import display, explain, units
from indexlab.benchmark import Change, Series
from indexlab.display import Markup
from indexlab.explain import Explain
from indexlab.render.story import Story, graver
from indexlab.runs import Json, documents


@dataclass(frozen=True, slots=True)
class ShownPlan:
    """A plan and whose it is."""

    title: str
    tree: Markup


@dataclass(frozen=True, slots=True)
class ShownQuery:
    """A query: what became of it, its text, and its plans."""

    id: str
    name: str
    badge: Markup
    numbers: str
    sql: Markup
    told: str
    plans: tuple[ShownPlan, ...]


def verdicts(story: Story) -> Markup:
    """Show what became of each statement, and why."""
    outcomes = {} if story.apply is None else documents.by_index(story.apply)
    rows = []
    for item in story.statements:
        step = outcomes.get(item["qualified"])
        became: tuple[object, ...] = ()
        if outcomes:
            size = units.size(step["bytes"]) if step and step["bytes"] else ""
            became = (display.badge(step["outcome"]) if step else "", size)
        rows.append((_statement(item), display.badge(item["verdict"]), *became, _reasons(item)))
    applied = ("outcome", "size") if outcomes else ()
    columns = ("statement", "verdict", *applied, "why")
    return display.table(columns, rows, numeric=("size",))


def _statement(item: Json) -> Markup:
    parts = [
        f'<span class="name">{display.escape(item["index"])}</span>',
        f'<small class="il-sub">line {display.escape(item["line"])}'
        + (f": {display.escape(item['reason'])}" if item["reason"] else "")
        + "</small>",
        display.sql(item["revised"] or item["statement"]),
    ]
    if item["revised"] and item["verdict"] == "fix":
        parts.append(
            '<details class="code"><summary>as it was written</summary>'
            f"{display.sql(item['statement'])}</details>"
        )
    return Markup("".join(parts))


def _reasons(item: Json) -> Markup:
    return Markup(
        "".join(f"<div>{display.escape(f['message'])}</div>" for f in graver(item["findings"]))
    )


def existing(story: Story) -> Markup | None:
    """Show what was seen of the indexes that exist; None if nothing was."""
    rows = [
        (
            item["index"],
            units.size(item["bytes"]),
            units.count(item["scans"]),
            display.badge(finding["severity"]),
            finding["message"],
        )
        for item in story.audit["existing"]
        for finding in item["findings"]
    ]
    if not rows:
        return None
    columns = ("index", "size", "scans", "severity", "what was seen")
    return display.table(columns, rows, numeric=("size", "scans"))


def queries(story: Story) -> Iterator[ShownQuery]:
    """Show each query with its plans, those that changed most first."""
    before = {} if story.before is None else {s.query: s for s in story.before.series}
    after = {} if story.after is None else {s.query: s for s in story.after.series}
    changes = {} if story.comparison is None else {c.query: c for c in story.comparison.changes}
    names = sorted({**before, **after}, key=lambda name: _rank(changes.get(name)))
    for number, name in enumerate(names, 1):
        yield _query(f"query-{number}", changes.get(name), before.get(name), after.get(name))


def _rank(change: Change | None) -> tuple[bool, float]:
    """Put what gained most first, then what lost, then what was not compared."""
    if change is None:
        return True, 0.0
    return False, change.ratio


def _query(id: str, change: Change | None, old: Series | None, new: Series | None) -> ShownQuery:  # noqa: A002
    known = new or old
    assert known is not None
    if change is None:
        numbers = f"median {units.ms(known.p50_ms)}"
    else:
        moved = units.factor(change.ratio) if change.verdict in ("faster", "slower") else ""
        sides = f"{change.before_words} → {change.after_words}"
        numbers = f"{sides}, {moved}" if moved else sides
    told = () if change is None else (change.difference, change.why, change.reason)
    return ShownQuery(
        id=id,
        name=known.query,
        badge=Markup("") if change is None else display.badge(change.verdict),
        numbers=numbers,
        sql=display.code(known.sql),
        told="; ".join(part for part in told if part and part != "same plan"),
        plans=tuple(_plans(old, new)),
    )


def _plans(old: Series | None, new: Series | None) -> Iterator[ShownPlan]:
    if old is not None and new is not None:
        if old.explain.shape == new.explain.shape:
            yield _plan("The plan, the same before and after", new.explain)
            return
        yield _plan("Before", old.explain)
        yield _plan("After", new.explain)
        return
    for title, side in (("The plan", old), ("The plan", new)):
        if side is not None:
            yield _plan(title, side.explain)


def _plan(title: str, plan: Explain) -> ShownPlan:
    spent = "" if plan.execution_ms is None else f": {units.ms(plan.execution_ms)}"
    return ShownPlan(title + spent, Markup(explain.tree(plan).replace(display.STYLE, "")))
