"""The matrix of queries and indexes: costs in every situation, and what an index is worth; pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from indexlab import display, units
from indexlab.explain import Explain
from indexlab.records import Record

if TYPE_CHECKING:
    import pandas as pd

NOTICEABLE = 0.01
"""From this share of a query's cost on a difference is told; below it lies what rounding does."""


@dataclass(frozen=True, slots=True)
class Situation(Record):
    """What one plan costs when one index alone is there, or when it alone is missing."""

    index: str
    cost: float
    """In the planner's units."""
    uses: tuple[str, ...]
    """The indexes that the plan uses, with their schemas."""


@dataclass(frozen=True, slots=True)
class Variant(Record):
    """How a query is planned for some of its values; the plan is that of the first of them."""

    sets: int
    """How many sets of values are planned like this; 1 for a plan that fits any values."""
    before: Explain
    after: Explain
    """With the whole plan in place."""
    uses_before: tuple[str, ...]
    """Indexes with their schemas, for any of these values."""
    uses_after: tuple[str, ...]
    alone: tuple[Situation, ...] = ()
    """With one planned index and no other; what is not here is as before."""
    without: tuple[Situation, ...] = ()
    """With the whole plan but this one index; what is not here is as with the whole plan."""
    dropped: tuple[Situation, ...] = ()
    """With the whole plan, and without one existing index; what is not here is as with it."""

    def __repr__(self) -> str:
        uses = ", ".join(self.uses_after) or "no index"
        cost = f"cost {units.cost(self.cost_before)} -> {units.cost(self.cost_after)}"
        return display.clean(f"<Variant for {units.plural(self.sets, 'set')}: {cost}, {uses}>")

    @property
    def cost_before(self) -> float:
        """The planner's cost without the plan."""
        return self.before.root.total_cost

    @property
    def cost_after(self) -> float:
        """The planner's cost with the whole plan."""
        return self.after.root.total_cost


@dataclass(frozen=True, slots=True)
class QueryImpact(Record):
    """What a plan does to one query; costs are means over the sets of values."""

    query: str
    weight: float
    kind: Literal["read", "write"]
    variants: tuple[Variant, ...]
    """The plans that differ, the most frequent first; empty where it is not simulated."""
    tables: tuple[int, ...] = ()
    """Oids of the tables that it may read, with their partitions and children."""
    anything: bool = False
    """Whether it may read other tables, too: it is not simulated, and reads views or the like."""
    generic: bool = False
    """Whether it was planned for any values, as none are known."""
    problem: str = ""
    """Why it is not simulated; empty where it is."""
    note: str = ""
    """What else is to be known, such as why there are no values."""
    unseen: str = ""
    """What of it the planner does not see, such as a function with queries of its own."""

    def __repr__(self) -> str:
        told = self.problem and f"not simulated, because {self.problem}"
        cost = f"cost {units.cost(self.cost_before)} -> {units.cost(self.cost_after)}"
        return display.clean(f"<QueryImpact of {self.query}: {told or cost}>")

    def hides(self, table: int) -> bool:
        """Return whether the query may read a table in a way that is not known here."""
        if self.unseen:
            return True
        return bool(self.problem) and (self.anything or table in self.tables)

    @property
    def sets(self) -> int:
        """How many sets of values were planned; 0 for a plan that fits any."""
        return 0 if self.generic else sum(variant.sets for variant in self.variants)

    @property
    def cost_before(self) -> float:
        """The planner's cost without the plan; not a number where it is not simulated."""
        return self._mean(variant.cost_before for variant in self.variants)

    @property
    def cost_after(self) -> float:
        """The planner's cost with the whole plan."""
        return self._mean(variant.cost_after for variant in self.variants)

    def cost_alone(self, index: str) -> float:
        """Return the cost with this planned index and no other."""
        return self._mean(_cost(v.alone, index, v.cost_before) for v in self.variants)

    def cost_without(self, index: str) -> float:
        """Return the cost with the whole plan but this index."""
        return self._mean(_cost(v.without, index, v.cost_after) for v in self.variants)

    def cost_dropped(self, index: str) -> float:
        """Return the cost with the whole plan and without this existing index."""
        return self._mean(_cost(v.dropped, index, v.cost_after) for v in self.variants)

    @property
    def uses_before(self) -> tuple[str, ...]:
        """The indexes that some plan uses now, with their schemas, sorted."""
        return _union(variant.uses_before for variant in self.variants)

    @property
    def uses_after(self) -> tuple[str, ...]:
        """The indexes that some plan uses with the whole plan in place."""
        return _union(variant.uses_after for variant in self.variants)

    def uses_alone(self, index: str) -> bool:
        """Return whether some plan uses a planned index when no other is there."""
        return any(index in s.uses for v in self.variants for s in v.alone if s.index == index)

    @property
    def rise(self) -> float:
        """The cost with the whole plan as a multiple of the cost now."""
        return self.cost_after / self.cost_before if self.cost_before > 0 else 1.0

    def _mean(self, costs: Iterable[float]) -> float:
        total = sum(variant.sets for variant in self.variants)
        weighted = sum(v.sets * cost for v, cost in zip(self.variants, costs, strict=True))
        return weighted / total if total else math.nan


def _cost(situations: tuple[Situation, ...], index: str, otherwise: float) -> float:
    return next((item.cost for item in situations if item.index == index), otherwise)


def _union(names: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(sorted({name for group in names for name in group}))


@dataclass(frozen=True, slots=True)
class Candidate(Record):
    """A planned index, as the planner took it."""

    name: str
    """With its schema."""
    table: int
    """Oid."""
    line: int
    unique: bool
    bytes: int = 0
    rough: bool = False
    """Whether the size may well be off by a factor."""
    problem: str = ""
    """Why it is not simulated; empty where it is."""


@dataclass(frozen=True, slots=True)
class Existing(Record):
    """An index that is there, that enforces nothing, and that the plan leaves."""

    name: str
    """With its schema."""
    oid: int
    bytes: int
    tried: bool = True
    """Whether the plans without it are known: an index in use, for want of a way to hide it, has
    none."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What a query loses without an index."""

    query: str
    weight: float
    before: float
    """The cost with it."""
    after: float

    @property
    def worth(self) -> float:
        """Cost times weight."""
        return self.weight * (self.after - self.before)


@dataclass(frozen=True, slots=True)
class Impact(Record):
    """What the planner would do with a plan, query by query and index by index."""

    backend: str
    """What was asked, in words."""
    notes: tuple[str, ...]
    """How it differs from the target, and what follows."""
    queries: tuple[QueryImpact, ...]
    candidates: tuple[Candidate, ...]
    existing: tuple[Existing, ...] = ()
    drops: tuple[str, ...] = ()
    """Existing indexes that the plan itself drops."""
    settled: bool = True
    """Whether the plans stayed the same when all unused planned indexes were hidden at once."""

    @property
    def simulated(self) -> tuple[QueryImpact, ...]:
        """The queries of which plans are known."""
        return tuple(query for query in self.queries if not query.problem)

    def users(self, index: str) -> tuple[QueryImpact, ...]:
        """Return the queries that use an index with the whole plan in place."""
        return tuple(query for query in self.simulated if index in query.uses_after)

    def users_before(self, index: str) -> tuple[QueryImpact, ...]:
        """Return the queries that use an existing index now."""
        return tuple(query for query in self.simulated if index in query.uses_before)

    def users_alone(self, index: str) -> tuple[QueryImpact, ...]:
        """Return the queries that would use a planned index if it were the only one."""
        return tuple(query for query in self.simulated if query.uses_alone(index))

    @property
    def unused(self) -> tuple[Candidate, ...]:
        """The planned indexes that no query uses, for no value, and that enforce nothing."""
        used = {name for query in self.simulated for name in query.uses_after}
        return tuple(
            item
            for item in self.candidates
            if not item.problem and not item.unique and item.name not in used
        )

    def supersedes(self, index: str) -> tuple[str, ...]:
        """Return the planned indexes that serve the queries which would use this one alone."""
        tables = {item.name: item.table for item in self.candidates}
        return _union(
            tuple(
                name
                for name in query.uses_after
                if tables.get(name) == tables[index] and name != index
            )
            for query in self.users_alone(index)
        )

    def worth_alone(self, index: str) -> float:
        """Return what a planned index saves if no other is built: cost times weight."""
        return sum(q.weight * (q.cost_before - q.cost_alone(index)) for q in self.simulated)

    def worth(self, index: str) -> float:
        """Return what is lost without a planned index beside the others: cost times weight."""
        return sum(q.weight * (q.cost_without(index) - q.cost_after) for q in self.simulated)

    def losses(self, index: str) -> tuple[Loss, ...]:
        """Return the queries that an existing index's drop would make noticeably dearer."""
        return tuple(
            Loss(query.query, query.weight, query.cost_after, query.cost_dropped(index))
            for query in self.simulated
            if query.cost_dropped(index) > query.cost_after * (1 + NOTICEABLE)
        )

    @property
    def cost_before(self) -> float:
        """All queries now: the sum of cost times weight."""
        return sum(query.weight * query.cost_before for query in self.simulated)

    @property
    def cost_after(self) -> float:
        """All queries with the whole plan."""
        return sum(query.weight * query.cost_after for query in self.simulated)

    def frame(self) -> pd.DataFrame:
        """Return the queries as a pandas DataFrame, one row each.

        Columns: `query`; `weight`, calls per unit of time; `cost_before` and `cost_after` in the
        planner's units, means over the sets of values; `ratio`, after / before; `indexes_used`
        with the whole plan; `values`, how many sets were planned; `plans`, how many differ;
        `not_simulated`, why not, empty where it is.
        """
        import pandas as pd

        rows = [
            (
                item.query,
                item.weight,
                item.cost_before,
                item.cost_after,
                item.cost_after / item.cost_before if item.cost_before else math.nan,
                ", ".join(item.uses_after),
                item.sets,
                len(item.variants),
                item.problem,
            )
            for item in self.queries
        ]
        columns = [
            *("query", "weight", "cost_before", "cost_after", "ratio"),
            *("indexes_used", "values", "plans", "not_simulated"),
        ]
        return pd.DataFrame(rows, columns=columns)

    def indexes_frame(self) -> pd.DataFrame:
        """Return the planned indexes as a pandas DataFrame, one row each.

        Columns: `index`; `bytes`, estimated; `worth_alone` and `worth`, cost times weight that it
        saves without and beside the others; `used_by`; `not_simulated`, why not.
        """
        import pandas as pd

        rows = [
            (
                item.name,
                item.bytes,
                self.worth_alone(item.name),
                self.worth(item.name),
                ", ".join(query.query for query in self.users(item.name)),
                item.problem,
            )
            for item in self.candidates
        ]
        columns = ["index", "bytes", "worth_alone", "worth", "used_by", "not_simulated"]
        return pd.DataFrame(rows, columns=columns)

    def matrix(self) -> pd.DataFrame:
        """Return queries by planned indexes: the share of a query's cost that one saves alone."""
        import pandas as pd

        names = [item.name for item in self.candidates]
        return pd.DataFrame(
            [[saved(query, name) for name in names] for query in self.simulated],
            index=[query.query for query in self.simulated],
            columns=names,
        )

    def _repr_html_(self) -> str:
        from indexlab.impact import showing

        return showing.page(self)

    def __repr__(self) -> str:
        from indexlab.impact import showing

        return "\n".join(showing.lines(self))


def saved(query: QueryImpact, index: str) -> float:
    """Return the share of a query's cost that a planned index saves by itself; pure."""
    if not query.cost_before > 0:
        return 0.0
    return (query.cost_before - query.cost_alone(index)) / query.cost_before


def planned_apart(query: QueryImpact) -> Iterator[str]:
    """Say where a query's plans differ by its values, one line for each plan; pure."""
    if len(query.variants) < 2:
        return
    for variant in query.variants:
        uses = ", ".join(variant.uses_after) or "no index"
        yield f"{variant.sets} of {query.sets} sets of values: {uses}"
