"""One query with and without some indexes that are not there: both plans, side by side."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from indexlab import display, explain, units
from indexlab.display import Markup
from indexlab.explain import Explain
from indexlab.records import Record
from indexlab.sandbox import Hypothetical, WhatIf
from indexlab.sql import RelationName
from indexlab.workload import Values

if TYPE_CHECKING:
    import pandas as pd

STYLE = """<style>
.il-pair{border-collapse:collapse;width:100%;table-layout:fixed}
.il-pair th{text-align:left;padding:.25em .7em}
.il-pair td{vertical-align:top;padding:.25em .7em;border-top:1px solid #8884}
.il-tree{white-space:pre-wrap;overflow-wrap:anywhere;font-family:ui-monospace,monospace;
font-size:.86em;line-height:1.45;margin:0;padding-left:calc(1.4em * var(--depth) + 1.2em);
text-indent:-1.2em}
.il-tree small{opacity:.75}
.il-tree mark{color:inherit;background:#fdf0d5;outline:1px solid #e69f0088}
@media (prefers-color-scheme:dark){.il-tree mark{background:#5b4300}}
</style>"""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a plan as it is shown."""

    depth: int
    words: str
    numbers: str
    """Cost and rows."""
    conditions: tuple[str, ...]
    changed: bool
    """Whether the other plan does not have it."""


@dataclass(frozen=True, slots=True)
class Trial(Record):
    """What indexes that are not there would do to one query."""

    backend: str
    indexes: tuple[Hypothetical, ...]
    query: str
    """Its name, or what is asked for one that has none."""
    statement: str
    before: Explain
    after: Explain
    generic: bool
    """Whether it was planned for any values."""
    notes: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()
    """What makes the indexes, in the same order, with names as the target has them."""

    @property
    def kept(self) -> tuple[str, ...]:
        """The statements of the indexes that the plan takes up."""
        pairs = zip(self.indexes, self.statements, strict=False)
        return tuple(text for item, text in pairs if str(item.index) in self.used)

    @property
    def cost_before(self) -> float:
        """The planner's cost without the indexes."""
        return self.before.root.total_cost

    @property
    def cost_after(self) -> float:
        """The planner's cost with them."""
        return self.after.root.total_cost

    @property
    def used(self) -> tuple[str, ...]:
        """Names of the indexes that the plan takes up."""
        return tuple(
            str(item.index)
            for item in self.indexes
            if any(one.name in self.after.indexes for one in (item.index, *item.parts))
        )

    @property
    def title(self) -> str:
        """What came of it, in a sentence."""
        if self.before.shape == self.after.shape:
            return f"{self.query}: the plan stays the same, cost {units.cost(self.cost_after)}"
        words = units.factor(self.cost_after / self.cost_before) if self.cost_before else ""
        words = words.replace("faster", "cheaper").replace("slower", "dearer")
        return (
            f"{self.query}: cost {units.cost(self.cost_before)} -> {units.cost(self.cost_after)}"
            + (f" ({words})" if words != "unchanged" else "")
        )

    def steps(self) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
        """Return the steps of both plans, each with whether the other plan lacks it."""
        old, new = (tuple(one.levels()) for one in (self.before, self.after))
        keys = [[_key(node) for _, node in side] for side in (old, new)]
        same = difflib.SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_matching_blocks()
        kept_old = {block.a + n for block in same for n in range(block.size)}
        kept_new = {block.b + n for block in same for n in range(block.size)}
        return (
            tuple(_step(*item, place not in kept_old) for place, item in enumerate(old)),
            tuple(_step(*item, place not in kept_new) for place, item in enumerate(new)),
        )

    def frame(self) -> pd.DataFrame:
        """Return the steps of both plans as a pandas DataFrame, one row each.

        Columns: `side`, before or after; `depth` below the topmost step; `step` and `cost` in
        words; `changed`, whether the other plan lacks it.
        """
        import pandas as pd

        rows = [
            (side, step.depth, step.words, step.numbers, step.changed)
            for side, steps in zip(("before", "after"), self.steps(), strict=True)
            for step in steps
        ]
        return pd.DataFrame(rows, columns=["side", "depth", "step", "cost", "changed"])

    def _about(self) -> Iterator[str]:
        for item in self.indexes:
            about = "very roughly" if item.rough else "about"
            use = "used" if str(item.index) in self.used else "not used"
            yield f"{item.index}: {about} {units.size(item.bytes)}, {use}"
        if self.before.shape != self.after.shape:
            yield explain.difference(self.before, self.after)
        if self.generic:
            yield "planned for any values (GENERIC_PLAN)"
        yield f"asked: {self.backend}"
        yield from self.notes

    def _repr_html_(self) -> str:
        cells = "".join(f"<td>{''.join(map(_html, steps))}</td>" for steps in self.steps())
        about = "".join(f"<li>{display.escape(words)}</li>" for words in self._about())
        heads = "".join(
            f'<th scope="col">{name}: cost {units.cost(cost)}</th>'
            for name, cost in (("before", self.cost_before), ("after", self.cost_after))
        )
        return Markup(
            f"{STYLE}<p><strong>{display.escape(self.title)}</strong></p>"
            f'<table class="il-pair"><thead><tr>{heads}</tr></thead>'
            f"<tbody><tr>{cells}</tr></tbody></table><ul>{about}</ul>"
            f"<details><summary>the statement</summary>{display.code(self.statement)}</details>"
        )

    def __repr__(self) -> str:
        lines = [self.title]
        for name, mark, steps in zip(("before", "after"), "-+", self.steps(), strict=True):
            lines += ["", name]
            for step in steps:
                lead = (mark if step.changed else " ") + "  " * step.depth
                lines.append(f"{lead} {step.words}  {step.numbers}")
                lines += [f"{lead}     {condition}" for condition in step.conditions]
        return display.clean("\n".join([*lines, "", *self._about()]))


def _key(node: explain.Node) -> tuple[object, ...]:
    return node.type, node.relation, node.index, node.alias, node.conditions


def _step(depth: int, node: explain.Node, changed: bool) -> Step:
    name = f"{node.subplan}: " if node.subplan else ""
    return Step(
        depth,
        name + node.title(),
        f"cost {units.cost(node.total_cost)}, {units.count(node.plan_rows)} rows",
        tuple(f"{label}: {text}" for label, text in node.conditions),
        changed,
    )


def _html(step: Step) -> str:
    words = display.escape(step.words)
    # Not by colour alone: a changed step is marked by a sign, too.
    shown = f"<mark>≠ {words}</mark>" if step.changed else f"{words}"
    below = "".join(f"<br><small>{display.escape(text)}</small>" for text in step.conditions)
    return (
        f'<div class="il-tree" style="--depth:{step.depth}">{shown} '
        f"<small>({display.escape(step.numbers)})</small>{below}</div>"
    )


def attempt(
    whatif: WhatIf,
    indexes: tuple[Hypothetical, ...],
    statement: str,
    values: Values | None,
    *,
    query: str,
    hidden: Collection[RelationName] = (),
    notes: tuple[str, ...] = (),
) -> Trial:
    """Plan one statement without and with some indexes that the planner has; reads only.

    Args:
        whatif: the planner that is asked; it sees everything that is not hidden.
        indexes: what `whatif.add` has made.
        statement: with numbered placeholders.
        values: one text for each; None plans for any values.
        query: what the statement is called.
        hidden: what is hidden from both plans.
        notes: what else is to be told.

    Raises:
        SandboxError: the statement cannot be simulated.
    """
    whatif.hide({*hidden, *(item.index for item in indexes)})
    before = whatif.explain(statement, values)
    whatif.hide(tuple(hidden))
    after = whatif.explain(statement, values)
    return Trial(whatif.name, indexes, query, statement, before, after, values is None, notes)
