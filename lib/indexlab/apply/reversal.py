"""Decide how to take a run back; pure, the catalog says what is still there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from indexlab import sql
from indexlab.apply.foreseen import Foreseen
from indexlab.apply.outcomes import Outcome
from indexlab.apply.steps import Step
from indexlab.catalog import Catalog, Index, Unresolved
from indexlab.plan import CommentOnIndex, CreateIndex, DropIndex, IndexDef, IndexPlan
from indexlab.sql import RelationName


def reversal(catalog: Catalog, outcomes: tuple[Outcome, ...]) -> tuple[Step, ...]:
    """Decide how to take outcomes back, the last one first; pure.

    What was built is dropped if it still is what was built; what was dropped is built again; a
    comment gets its former words.

    Args:
        catalog: read with `rebuilt(outcomes)` as the plan.
        outcomes: of a run, or of several in their order.
    """
    foreseen = Foreseen(catalog, rebuilt(outcomes), dropping=tuple(_dropping(outcomes)))
    return tuple(_steps(foreseen, outcomes))


def _steps(foreseen: Foreseen, outcomes: tuple[Outcome, ...]) -> Iterator[Step]:
    for outcome in reversed(outcomes):
        step = _reverse(foreseen, outcome)
        if step is None:
            continue
        step = replace(step, part_of=outcome.part_of)
        yield step
        for statement in outcome.restores:  # also where the index is back: a rollback may be killed
            comment = CommentOnIndex(step.name, None, statement, 1)
            planned = replace(step, action="alter", statement=statement, planned=comment)
            yield replace(planned, reason="as it was before", definition="", undo="")


def _dropping(outcomes: tuple[Outcome, ...]) -> Iterator[RelationName]:
    """Find the indexes that go again, so that none of them stands in for one that comes back."""
    for outcome in outcomes:
        if outcome.undo and outcome.definition:
            index = _create(outcome.definition).index
            if sql.parse(outcome.undo, "the outcomes")[0].kind != "index_stmt":
                yield RelationName(index.table.schema, index.name or "")


def rebuilt(outcomes: tuple[Outcome, ...]) -> IndexPlan:
    """Return the indexes of outcomes as a plan, in the server's own definitions; pure."""
    texts = [item.definition for item in outcomes if item.definition and item.undo]
    return IndexPlan(tuple(_create(text) for text in texts), "the outcomes")


def _reverse(foreseen: Foreseen, outcome: Outcome) -> Step | None:
    if not outcome.undo:
        return None
    if not outcome.definition:
        statement = sql.parse(outcome.undo, "the outcomes")[0]
        name = RelationName(*(item.string.sval for item in statement.tree.object.list.items))
        text = statement.tree.comment or None
        return foreseen.comment(CommentOnIndex(name, text, outcome.undo, 1))
    created = _create(outcome.definition)
    undo = sql.parse(outcome.undo, "the outcomes")[0]
    if undo.kind == "index_stmt":  # what was there is built again, if it is gone or invalid
        return foreseen.create(created, again=True)
    name = RelationName(created.index.table.schema, created.index.name or "")
    statement_ = DropIndex((name,), outcome.undo, 1, concurrently=True, if_exists=True)
    index = foreseen.index(name)
    if index is not None and not _is_still(foreseen.catalog, index, outcome.definition):
        why = f"left alone, it is no longer what was built: {index.definition}"
        return Step(name, created.index.table, "skip", outcome.undo, statement_, why)
    if undo.kind == "alter_table_stmt" and index is not None and index.constraint is None:
        why = "left alone, it has not become a constraint"
        return Step(name, created.index.table, "skip", outcome.undo, statement_, why)
    step = foreseen.drop(statement_, name, own=True)
    return replace(step, action="skip") if step.action == "refuse" and not step.forbidden else step


def _is_still(catalog: Catalog, index: Index, definition: str) -> bool:
    """Return whether an index is what a definition made.

    The words are compared where the server cannot be asked about expressions, as on a table that its
    owner may not read.
    """
    wanted = catalog.wanted(_create(definition).index)
    return index.definition == definition or (
        not isinstance(wanted, Unresolved) and index.equals(wanted)
    )


def _create(definition: str) -> CreateIndex:
    return CreateIndex(IndexDef.parse(definition), definition, 1)
