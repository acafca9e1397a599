"""Which of the planned statements is built where several want one name, or one does for others.

A name is held by a statement that is built, and by no other: one that is left out for a keeper
leaves its name to the next. And a statement is left out only for a keeper that is built: one that
is refused for its name is nobody's keeper.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from indexlab.audit.covering import Beside, Cover, cover
from indexlab.audit.drafts import Draft, Drafts, Scene
from indexlab.sql import RelationName

IN_PLAN = "duplicate-in-plan"


def one_for_each_name_and_use(_scene: Scene, drafts: Drafts) -> Drafts:
    """Rules 1 to 9, and 28, between the statements; names are cut to 63 bytes by now."""
    built, holders = _settled(drafts)
    return tuple(_judged(draft, built, holders) for draft in drafts)


def _judged(draft: Draft, built: dict[int, _Built], holders: dict[RelationName, Draft]) -> Draft:
    if draft.wanted is None or draft.verdict not in (None, "skip"):
        return draft
    rivals = built.get(draft.wanted.table)
    judged = draft if rivals is None else _not_covered(draft, rivals)
    if judged.verdict is not None:
        return judged
    holder = holders[draft.wanted.qualified]
    return judged if holder.place == draft.place else _named_twice(draft, holder)


def _settled(drafts: Drafts) -> tuple[dict[int, _Built], dict[RelationName, Draft]]:
    """Find what is built on each table, and which statement holds each name.

    A statement that loses its name to an earlier one may have been the keeper of others, which are
    built then and want their names: so again, for their tables, until none loses its name. None
    that has lost one gets it back: a holder is covered by nothing, and loses only to one before it.
    """
    wanting: defaultdict[int, list[Draft]] = defaultdict(list)
    for draft in drafts:
        if draft.verdict is None:
            wanting[draft.planned().table].append(draft)
    built: dict[int, _Built] = {}
    holders: dict[RelationName, Draft] = {}
    changed = set(wanting)
    while changed:
        built |= {table: _Built.of(wanting[table]) for table in changed}
        kept = [draft for those in built.values() for draft in those.kept]
        holders = {}
        for draft in sorted(kept, key=lambda draft: draft.place):
            holders.setdefault(draft.planned().qualified, draft)
        losing = [d for d in kept if holders[d.planned().qualified].place != d.place]
        changed = {draft.planned().table for draft in losing}
        places = {draft.place for draft in losing}
        for table in changed:
            wanting[table] = [draft for draft in wanting[table] if draft.place not in places]
    return built, holders


@dataclass(frozen=True, slots=True)
class _Built:
    """The statements on one table that nothing but each other speaks against."""

    drafts: tuple[Draft, ...]
    beside: Beside
    last: frozenset[int]
    """Places in the plan of those that none of the others covers."""
    kept: tuple[Draft, ...] = ()
    """Those that are not left out for another."""

    @classmethod
    def of(cls, drafts: Iterable[Draft]) -> _Built:
        those = tuple(drafts)
        places = frozenset(draft.place for draft in those)
        built = cls(those, Beside(tuple(draft.planned() for draft in those)), places)
        last = frozenset(draft.place for draft in those if not any(built.keepers(draft)))
        built = replace(built, last=last)
        kept = tuple(d for d in those if d.place in last or _not_covered(d, built).verdict is None)
        return replace(built, kept=kept)

    def keepers(self, draft: Draft) -> Iterator[tuple[Draft, Cover]]:
        """Find the last ones that cover a draft; of equal ones, the first covers the others."""
        for other in (self.drafts[place] for place in self.beside.wider(draft.planned())):
            if other is draft or other.place not in self.last:
                continue
            found = cover(other.planned(), draft.planned())
            if found is not None and (
                other.place < draft.place or cover(draft.planned(), other.planned()) is None
            ):
                yield other, found


def _not_covered(draft: Draft, built: _Built) -> Draft:
    # Some keeper is itself covered by none: covering is a strict order among the statements.
    keepers = list(built.keepers(draft))
    if not keepers:
        return draft
    keeper, found = max(keepers, key=lambda item: len(item[0].planned().keys))
    same = found.how == "duplicate"
    rule = IN_PLAN if same else "covered-by-planned"
    if same and keeper.planned().qualified == draft.planned().qualified:
        return _named_twice(draft, keeper)
    return draft.found(
        rule,
        "warning",
        f"{draft.label} is redundant: the planned {keeper.label} (line {keeper.statement.line}) "
        f"{found.words}",
        subject=keeper.label,
        evidence=(
            ("index", keeper.label),
            ("line", keeper.statement.line),
            ("definition", keeper.index.sql),
        ),
        fix="leave the statement out",
        verdict=draft.left_out_unless(rule),
    )


def _named_twice(draft: Draft, holder: Draft) -> Draft:
    line = holder.statement.line
    if holder.planned().equals(draft.planned()):
        return draft.found(
            IN_PLAN,
            "warning",
            f"{draft.label} is in the plan already, on line {line}",
            evidence=(("line", line),),
            fix="leave the statement out",
            verdict="skip",
        )
    return draft.found(
        "name-twice",
        "error",
        f"{draft.label} is the name of another index already, on line {line}",
        evidence=(("line", line), ("definition", holder.index.sql)),
        fix="choose another name",
        verdict="refuse",
    )
