"""Partial indexes beside others: never redundant, at most worth a word."""

from __future__ import annotations

from typing import Any

from indexlab import sql
from indexlab.audit.drafts import Draft, Drafts, Scene, by_table, index_evidence
from indexlab.audit.verdicts import Evidence
from indexlab.catalog import Index, same_key
from indexlab.errors import InputError


def beside_partial_ones(scene: Scene, drafts: Drafts) -> Drafts:
    """Rule 12: partial against full, and a predicate that implies another, are an info."""
    planned = by_table(d.wanted for d in drafts if d.verdict is None)
    beside = {table: tuple(indexes) for table, indexes in planned.items() if len(indexes) > 1}
    settled: list[Draft] = []
    for item in drafts:
        draft = item
        if draft.verdict is None:
            wanted = draft.planned()
            earlier = _earlier(wanted, beside.get(wanted.table, ()))
            draft = _beside(draft, (*scene.staying(wanted.table), *earlier))
        settled.append(draft)
    return tuple(settled)


def _earlier(wanted: Index, planned: tuple[Index, ...]) -> tuple[Index, ...]:
    """Return the planned indexes before this one, so that each pair is told of once."""
    place = next(n for n, index in enumerate((*planned, wanted)) if index is wanted)
    return planned[:place]


def _beside(draft: Draft, others: tuple[Index, ...]) -> Draft:
    wanted = draft.planned()
    for existing in others:
        if not existing.usable or existing.predicate == wanted.predicate:
            continue
        if not _same_keys(existing, wanted):
            continue
        name = str(existing.qualified)
        if existing.predicate is None or wanted.predicate is None:
            which = f"{name} is full" if existing.predicate is None else f"{name} is partial"
            draft = draft.found(
                "partial-beside-full",
                "info",
                f"{which} on the same keys as {draft.label}: neither makes the other redundant",
                subject=name,
                evidence=_evidence(existing),
            )
        elif implies(wanted.predicate, existing.predicate) or implies(
            existing.predicate, wanted.predicate
        ):
            narrow, wide = (
                (draft.label, name)
                if implies(wanted.predicate, existing.predicate)
                else (name, draft.label)
            )
            draft = draft.found(
                "predicate-implied",
                "info",
                f"the rows of {narrow} are all in {wide}, which has the same keys",
                subject=name,
                evidence=_evidence(existing),
            )
    return draft


def _evidence(other: Index) -> Evidence:
    """Return what is known of an index; of a planned one, there is no size yet."""
    return index_evidence(other) if other.oid else (("planned index", str(other.qualified)),)


def _same_keys(one: Index, other: Index) -> bool:
    return (
        one.method == other.method
        and one.unique == other.unique
        and not one.exclusion
        and len(one.keys) == len(other.keys)
        and all(map(same_key, one.keys, other.keys))
    )


def implies(one: str, other: str) -> bool:
    """Return whether a predicate holds wherever another one does, by its terms alone.

    >>> implies("a > 1 AND b = 2", "a > 1"), implies("a > 2", "a > 1"), implies("a > 1", "a > 2")
    (True, True, False)
    """
    try:
        ours, theirs = _terms(one), _terms(other)
    except InputError:  # words for comparing that are no SQL
        return False
    return all(any(_term_implies(have, want) for have in ours) for want in theirs)


Term = tuple[str, str, float | None]
"""A term of a conjunction: its text or left side, and where it compares a number, how to what."""


def _terms(predicate: str) -> tuple[Term, ...]:
    tree = sql.parse(f"SELECT ({predicate})", "<predicate>")[0].tree.target_list[0].res_target.val
    is_and = tree.HasField("bool_expr") and tree.bool_expr.boolop == 1  # AND_EXPR
    return tuple(_term(item) for item in (tree.bool_expr.args if is_and else [tree]))


def _term(node: Any) -> Term:
    if node.HasField("a_expr") and node.a_expr.HasField("lexpr"):
        expression = node.a_expr
        right = expression.rexpr
        if right.HasField("a_const") and len(expression.name) == 1:
            constant = right.a_const
            number = (
                float(constant.ival.ival)
                if constant.HasField("ival")
                else float(constant.fval.fval)
                if constant.HasField("fval")
                else None
            )
            if number is not None:
                left = sql.deparse_expression(expression.lexpr)
                return left, expression.name[0].string.sval, number
    return sql.deparse_expression(node), "", None


def _term_implies(have: Term, want: Term) -> bool:
    if have == want:
        return True
    (left, how, number), (other_left, other_how, bound) = have, want
    if left != other_left or number is None or bound is None:
        return False
    beyond = number > bound if other_how[:1] == ">" else number < bound
    direction = other_how[:1]
    if direction not in ("<", ">") or how not in (direction, f"{direction}=", "="):
        return False
    return beyond or (number == bound and (other_how.endswith("=") or how == direction))
