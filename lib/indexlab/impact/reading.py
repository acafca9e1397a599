"""Ask a what-if planner for every plan that the matrix needs, and for no other.

What is planned: each query for all its sets of values without the plan and with all of it. Of the
sets that give the same pair of plans, the first stands for all: it is planned again with each
planned index that is on a table the query may read (alone), and without each that it uses (what it
is worth beside the others), likewise without each existing one that it uses. An index that no plan
uses cannot make a plan dearer by its absence, unless it is unique, so it is not asked about.

So the number of plans grows with queries x (2 x values + plans x indexes of their tables).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from indexlab import sql
from indexlab.catalog import Catalog, Index
from indexlab.errors import SandboxError
from indexlab.explain import Explain
from indexlab.impact.matrix import Candidate, Existing, Impact, QueryImpact, Situation, Variant
from indexlab.impact.reach import Families, Names, relation_of, relations
from indexlab.plan import CreateIndex, IndexPlan
from indexlab.progress import Tell, silent
from indexlab.sandbox import Hypothetical, WhatIf
from indexlab.sql import RelationName
from indexlab.workload import Query, SampledQuery, Values

VARIANTS = 5
"""So many plans of a query that differ by value are followed; the rarer ones are counted only."""
ONE_SESSION = "the plan itself drops {}, which cannot be hidden here: it counts as still there"


def read(
    whatif: WhatIf,
    plan: IndexPlan,
    sampled: tuple[SampledQuery, ...],
    catalog: Catalog,
    *,
    unseen: Mapping[str, str] | None = None,
    notes: Mapping[str, str] | None = None,
    tell: Tell = silent,
) -> Impact:
    """Plan every query in every situation that matters; reads only.

    The planned indexes stay in the what-if planner, all visible.

    Args:
        whatif: the planner that is asked.
        plan: the statements to be run, with names as the target has them.
        sampled: the queries with their values; one without is planned for any values.
        catalog: the target.
        unseen: what the planner does not see of a query, by its name; from `opaque`.
        notes: what else is to be known of a query, by its name.
        tell: is told what goes on.
    """
    matrix = _Reading(whatif, catalog, tell)
    matrix.add(plan)
    matrix.plan_all(sampled)
    matrix.plan_alone()
    matrix.plan_without()
    existing = matrix.plan_dropped()
    settled = matrix.is_settled()
    return Impact(
        backend=whatif.name,
        notes=(*whatif.notes, *matrix.notes),
        queries=tuple(
            replace(
                one.impact(),
                unseen=(unseen or {}).get(one.query.name, ""),
                note=(notes or {}).get(one.query.name, ""),
            )
            for one in matrix.subjects
        ),
        candidates=tuple(matrix.candidates),
        existing=existing,
        drops=tuple(str(name) for name in matrix.dropping),
        settled=settled,
    )


@dataclass(slots=True)
class _Subject:
    """A query on its way through the situations."""

    sampled: SampledQuery
    values: tuple[Values | None, ...]
    before: list[Explain] = field(default_factory=list)
    after: list[Explain] = field(default_factory=list)
    variants: list[Variant] = field(default_factory=list)
    examples: list[Values | None] = field(default_factory=list)
    """The set of values that stands for each variant."""
    tables: frozenset[int] = frozenset()
    """Every table of the families that it reads."""
    anything: bool = False
    problem: str = ""

    @property
    def query(self) -> Query:
        return self.sampled.query

    def impact(self) -> QueryImpact:
        return QueryImpact(
            query=self.query.name,
            weight=self.query.weight,
            kind=self.query.kind,
            variants=() if self.problem else tuple(self.variants),
            tables=tuple(sorted(self.tables)),
            anything=self.anything,
            generic=self.values == (None,),
            problem=self.problem,
        )


class _Reading:
    """What one reading of the matrix holds."""

    def __init__(self, whatif: WhatIf, catalog: Catalog, tell: Tell):
        self.whatif = whatif
        self.catalog = catalog
        self.tell = tell
        self.families = Families(catalog)
        self.names = Names(catalog)
        self.candidates: list[Candidate] = []
        self.added: dict[str, Hypothetical] = {}
        self.dropping: list[RelationName] = []
        self.subjects: list[_Subject] = []
        self.notes: list[str] = []
        self.hidden: frozenset[RelationName] | None = None

    # Situations

    def see(self, planned: Collection[str] | None, *, without: Iterable[RelationName] = ()) -> None:
        """Show these planned indexes and no other; None shows the whole plan, its drops done."""
        shown = self.added.keys() if planned is None else planned
        hidden = {item.index for name, item in self.added.items() if name not in shown}
        if planned is None:
            hidden.update(self.dropping)
        self._hide(frozenset(hidden.union(without)))

    def _hide(self, hidden: frozenset[RelationName]) -> None:
        if hidden != self.hidden:
            self.whatif.hide(hidden)
            self.hidden = hidden

    def add(self, plan: IndexPlan) -> None:
        """Make the planned indexes, and learn what the plan drops."""
        for statement in plan.creates:
            self._add(statement)
        for drop in plan.drops:
            for name in drop.names:
                try:
                    self.whatif.hide([name])
                except SandboxError:
                    self.notes.append(ONE_SESSION.format(name))
                else:
                    self.dropping.append(name)
        self.hidden = None

    def _add(self, statement: CreateIndex) -> None:
        index = statement.index
        table = self.catalog.find(index.table, statement.search_path)
        if table is None:
            return
        name = str(RelationName(table.schema, index.name or ""))
        candidate = Candidate(name, table.oid, statement.line, index.unique)
        there = self.catalog.index(table.schema, index.name or "")
        if there is not None and there.usable:  # the plan drops it and builds another one
            renamed = index.revise(name=f"{sql.truncate(index.name or '')[:50]} (planned)")
            statement = replace(statement, index=renamed)
        try:
            made = self.whatif.add(statement)
        except SandboxError as error:
            self.candidates.append(replace(candidate, problem=_why(error)))
            return
        self.added[name] = made
        for one in (made.index, *made.parts):
            self.names.learn(one, name)
        self.candidates.append(replace(candidate, bytes=made.bytes, rough=made.rough))

    # Plans

    def plan_all(self, sampled: tuple[SampledQuery, ...]) -> None:
        """Plan every query for all its values, without the plan and with all of it."""
        self.subjects = [_Subject(one, one.values or (None,)) for one in sampled]
        self.see(())
        for number, subject in enumerate(self.subjects):
            self.tell(f"planning {subject.query.name}", 0.4 * number / len(self.subjects))
            subject.before = self._all_values(subject)
        self.see(None)
        for number, subject in enumerate(self.subjects):
            self.tell(f"planning {subject.query.name}", 0.4 + 0.3 * number / len(self.subjects))
            if not subject.problem:
                subject.after = self._all_values(subject)
            subject.tables = self._tables(subject)
            if subject.problem:
                names = relations(subject.query.statement)
                subject.anything = any(self.families.meant(name) is None for name in names)
            else:
                self._tell_apart(subject)

    def _all_values(self, subject: _Subject) -> list[Explain]:
        plans: list[Explain] = []
        for values in subject.values:
            try:
                plans.append(self.whatif.explain(subject.query.statement, values))
            except SandboxError as error:
                subject.problem = _why(error)
                return []
        return plans

    def _tell_apart(self, subject: _Subject) -> None:
        groups: dict[Any, list[int]] = {}
        for place, pair in enumerate(zip(subject.before, subject.after, strict=True)):
            groups.setdefault(tuple(one.shape for one in pair), []).append(place)
        largest = sorted(groups.values(), key=lambda places: -len(places))
        for number, places in enumerate(largest):
            uses_before, uses_after = (
                tuple(sorted({name for n in places for name in self.names.used(plans[n])}))
                for plans in (subject.before, subject.after)
            )
            subject.variants.append(
                Variant(
                    sets=len(places),
                    before=subject.before[places[0]],
                    after=subject.after[places[0]],
                    uses_before=uses_before,
                    uses_after=uses_after,
                )
            )
            if number < VARIANTS:
                subject.examples.append(subject.values[places[0]])

    def _tables(self, subject: _Subject) -> frozenset[int]:
        found = self.families.mentioned(subject.query.statement)
        for plan in (*subject.before, *subject.after):
            found |= {
                relation.oid
                for node in plan.nodes()
                if node.relation is not None
                and (relation := self.catalog.find(relation_of(node))) is not None
            }
        return self.families.widened(found)

    def plan_alone(self) -> None:
        """Plan with each planned index by itself, where a query may read its table."""
        for candidate in self._simulated():
            asked = [s for s in self._standing() if candidate.table in s.tables]
            for subject in asked:
                rivals = [c for c in self._simulated() if c.table in subject.tables]
                if len(rivals) == 1 and not self.dropping:
                    subject.variants = [
                        replace(v, alone=(Situation(candidate.name, v.cost_after, v.uses_after),))
                        for v in subject.variants
                    ]
                    continue
                self.see((candidate.name,))
                self._plan_again(subject, "alone", candidate.name)

    def plan_without(self) -> None:
        """Plan with all planned indexes but one, where a query uses it."""
        for candidate in self._simulated():
            for subject in self._standing():
                reads = candidate.unique and candidate.table in subject.tables
                if reads or any(candidate.name in v.uses_after for v in subject.variants):
                    self.see(None, without=[self.added[candidate.name].index])
                    self._plan_again(subject, "without", candidate.name)

    def plan_dropped(self) -> tuple[Existing, ...]:
        """Plan without each existing index that enforces nothing, where a query uses it."""
        read = frozenset().union(*(subject.tables for subject in self._standing()))
        found: list[Existing] = []
        for index in self.catalog.indexes:
            if index.table not in read or enforces(index) or index.qualified in self.dropping:
                continue
            name, tried = str(index.qualified), True
            for subject in self._standing():
                if not any(name in variant.uses_after for variant in subject.variants):
                    continue
                try:
                    self.see(None, without=[index.qualified])
                except SandboxError:
                    tried = False
                    break
                self._plan_again(subject, "dropped", name)
            found.append(Existing(name, index.oid, index.bytes, tried))
        return tuple(found)

    def is_settled(self) -> bool:
        """Hide all planned indexes that nothing uses at once, and see whether any plan changes."""
        used = {name for s in self._standing() for v in s.variants for name in v.uses_after}
        kept = [c.name for c in self._simulated() if c.unique or c.name in used]
        settled = True
        if len(kept) < len(self.added):
            gone = {c.table for c in self._simulated() if c.name not in kept}
            self.see(kept, without=self.dropping)
            for subject in self._standing():
                if gone & subject.tables:
                    plans = self._all_values(subject)
                    settled &= [p.shape for p in plans] == [p.shape for p in subject.after]
        self.see(None)
        return settled

    def _plan_again(self, subject: _Subject, situation: str, index: str) -> None:
        """Plan the example of each variant, and keep what it costs in this situation."""
        for place, values in enumerate(subject.examples):
            variant = subject.variants[place]
            explain = self.whatif.explain(subject.query.statement, values)
            one = Situation(index, explain.root.total_cost, self.names.used(explain))
            known: tuple[Situation, ...] = getattr(variant, situation)
            more: dict[str, Any] = {situation: (*known, one)}
            subject.variants[place] = replace(variant, **more)

    def _simulated(self) -> list[Candidate]:
        return [candidate for candidate in self.candidates if not candidate.problem]

    def _standing(self) -> list[_Subject]:
        return [subject for subject in self.subjects if not subject.problem]


def enforces(index: Index) -> bool:
    """Return whether an index is more than a way to find rows, or is not the planner's yet; pure."""
    return (
        index.unique
        or index.exclusion
        or index.constraint is not None
        or index.parent is not None
        or index.extension is not None
        or bool(index.referenced_by)
        or index.replica_identity
        or not index.usable
    )


def _why(error: SandboxError) -> str:
    return str(error).removeprefix("not simulated, because ").rstrip(".")
