"""What planned statements mean for each other and for the indexes that exist."""

from __future__ import annotations

from collections import Counter

from indexlab.audit.drafts import Draft, Drafts, Scene, Together
from indexlab.audit.naming import each_has_a_name, names_are_free
from indexlab.audit.partial import beside_partial_ones
from indexlab.audit.partitions import (
    built_in_parts,
    no_partition_is_foreign,
    unique_by_the_partition_key,
)
from indexlab.audit.redundancy import (
    not_there_already,
    the_same_backwards,
    what_it_replaces,
)
from indexlab.audit.rivals import one_for_each_name_and_use


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


def one_after_the_other(_scene: Scene, drafts: Drafts) -> Drafts:
    """Rule 37: said once for each table."""
    seen: Counter[int] = Counter()
    settled: list[Draft] = []
    for draft in drafts:
        if draft.verdict is None:
            table = draft.table().oid
            seen[table] += 1
            if seen[table] == 2:
                settled.append(_waits_for_another(draft))
                continue
        settled.append(draft)
    return tuple(settled)


def _waits_for_another(draft: Draft) -> Draft:
    name = str(draft.table().qualified)
    return draft.found(
        "one-after-the-other",
        "info",
        f"several indexes are built on {name}: CONCURRENTLY does that one after the other, "
        "whatever sessions there are",
        subject=name,
    )


def analyzed_afterwards(_scene: Scene, drafts: Drafts) -> Drafts:
    """Rule 36: an index on an expression has no statistics before ANALYZE."""
    return tuple(_analyzed(draft) if draft.verdict is None else draft for draft in drafts)


def _analyzed(draft: Draft) -> Draft:
    if all(key.column for key in draft.planned().keys):
        return draft
    return draft.found(
        "analyze-after",
        "info",
        f"{draft.label} is on an expression, which has no statistics before ANALYZE",
        fix=f"ANALYZE {draft.table().qualified}",
    )


RULES: tuple[Together, ...] = (
    each_has_a_name,
    names_are_free,
    not_there_already,
    unique_by_the_partition_key,
    no_partition_is_foreign,
    one_for_each_name_and_use,
    what_it_replaces,
    the_same_backwards,
    beside_partial_ones,
    built_concurrently,
    one_after_the_other,
    analyzed_afterwards,
    built_in_parts,
)


def settle(scene: Scene, drafts: Drafts) -> Drafts:
    """Put all statements through the rules between them."""
    for rule in RULES:
        drafts = rule(scene, drafts)
    return drafts
