"""What planned statements mean for each other and for the indexes that exist."""

from __future__ import annotations

from indexlab.audit.drafts import Draft, Drafts, Scene, Together
from indexlab.audit.naming import each_has_a_name, names_are_free, no_name_twice
from indexlab.audit.redundancy import (
    not_covered_by_the_plan,
    not_there_already,
    the_same_backwards,
    what_it_replaces,
)


def built_concurrently(_scene: Scene, drafts: Drafts) -> Drafts:
    """Rule 37: CONCURRENTLY does not block writers, and fails in a transaction."""
    return tuple(_concurrently(d) if d.verdict is None else d for d in drafts)


def _concurrently(draft: Draft) -> Draft:
    if draft.statement.in_transaction:
        draft = draft.found(
            "in-transaction",
            "info",
            f"{draft.label} stands between BEGIN and COMMIT, where CREATE INDEX CONCURRENTLY "
            "fails; it is built outside of a transaction",
        )
    if not draft.index.concurrently:
        draft = draft.found(
            "not-concurrent",
            "info",
            f"{draft.label} would block writes to its table while it is built; "
            "it is built CONCURRENTLY",
        )
    return draft


RULES: tuple[Together, ...] = (
    each_has_a_name,
    names_are_free,
    not_there_already,
    no_name_twice,
    not_covered_by_the_plan,
    what_it_replaces,
    the_same_backwards,
    built_concurrently,
)


def settle(scene: Scene, drafts: Drafts) -> Drafts:
    """Put all statements through the rules between them."""
    for rule in RULES:
        drafts = rule(scene, drafts)
    return drafts
