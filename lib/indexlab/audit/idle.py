"""Existing indexes that the workload makes no use of, once the plan is built; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from indexlab import units
from indexlab.audit.covering import cautions, cover, drop_sql, obstacles, restore_sql
from indexlab.audit.verdicts import Evidence, ExistingAudit, Finding
from indexlab.catalog import Catalog, Index
from indexlab.impact import Existing, Impact

DISPENSABLE = 1.10
"""Up to this multiple of their cost queries may do without an existing index."""

ENOUGH_SCANS = 1000
"""So many scans of a table and its indexes must be counted before none of one index says much."""


def staying(catalog: Catalog, impact: Impact, table: int) -> list[Index]:
    """Return the indexes of a table that the plan does not drop; pure."""
    return [i for i in catalog.indexes_of(table) if str(i.qualified) not in impact.drops]


@dataclass(slots=True)
class Idle:
    """What the matrix says of existing indexes; pure."""

    catalog: Catalog
    impact: Impact
    kept: Mapping[str, Index]
    """The planned indexes that are built, in the catalog's terms, by name."""
    replacing: set[str] = field(default_factory=set)
    """The planned ones for which an existing one is advised to be dropped."""

    def examined(self, existing: tuple[ExistingAudit, ...]) -> tuple[ExistingAudit, ...]:
        """Add to what is said of existing indexes what the workload makes of them."""
        return tuple(self._all(existing))

    def _all(self, existing: tuple[ExistingAudit, ...]) -> Iterator[ExistingAudit]:
        told = {item.index.oid: item for item in existing}
        tried = {item.oid: item for item in self.impact.existing if self.impact.simulated}
        for index in self.catalog.indexes:
            item = told.get(index.oid)
            if index.oid in tried and not self._hidden(index):
                item = self._examined(item, index, tried[index.oid])
            if item is not None:
                yield item

    def _hidden(self, index: Index) -> bool:
        return any(query.hides(index.table) for query in self.impact.queries)

    def _examined(
        self, item: ExistingAudit | None, index: Index, tried: Existing
    ) -> ExistingAudit | None:
        said = item or ExistingAudit(index, str(index.qualified), ())
        found, may_go = self._idle(index, tried, bool(said.drop))
        if found is None:
            return item
        said = replace(said, findings=(*said.findings, found))
        if may_go and not said.drop:
            said = replace(
                said,
                drop=drop_sql(self.catalog, index),
                restore=restore_sql(self.catalog, index),
            )
        return said

    def _idle(
        self, index: Index, tried: Existing, said_already: bool
    ) -> tuple[Finding | None, bool]:
        """Say whether the workload can do without an index, and whether it may be dropped for it."""
        against = cautions(
            self.catalog,
            index,
            [*staying(self.catalog, self.impact, index.table), *self._planned(index.table)],
        )
        if self.impact.users(tried.name):
            return self._dispensable(index, tried, against), False
        if not self.impact.users_before(tried.name):
            return self._never_used(index, against), False
        may_go = not against and not obstacles(self.catalog, index) and self._safe(index)
        if may_go:
            self.replacing |= {
                planned
                for query in self.impact.users_before(tried.name)
                for planned in set(query.uses_after) & self.kept.keys()
                if self.kept[planned].table == index.table
            }
        return self._made_idle(index, against, may_go, said_already), may_go

    def _made_idle(
        self, index: Index, against: tuple[str, ...], may_go: bool, said_already: bool
    ) -> Finding:
        name = str(index.qualified)
        users = [query.query for query in self.impact.users_before(name)]
        drop = drop_sql(self.catalog, index)
        return Finding(
            "idle-after-plan",
            "warning" if may_go and not said_already else "info",
            f"the plan makes {name} idle: {units.listed(users)} "
            f"{'uses' if len(users) == 1 else 'use'} it now, and no query of the workload with the "
            f"plan in place; {_counted(index)}" + _but(name, against),
            name,
            self._facts(index),
            f"after the build: {drop}" if may_go else "watch its scans before you drop it",
        )

    def _never_used(self, index: Index, against: tuple[str, ...]) -> Finding:
        name = str(index.qualified)
        return Finding(
            "idle-index",
            "info",
            f"no query of the workload uses {name}, with the plan or without; {_counted(index)}"
            + _but(name, against),
            name,
            self._facts(index),
            "if the workload is all that matters, and no standby uses it, it can go",
        )

    def _dispensable(
        self, index: Index, tried: Existing, against: tuple[str, ...]
    ) -> Finding | None:
        losses = self.impact.losses(tried.name)
        dear = any(loss.after > DISPENSABLE * loss.before for loss in losses)
        if dear or against or not tried.tried:
            return None
        suffering = units.listed(
            f"{loss.query} {units.increase(loss.before, loss.after)}" for loss in losses
        )
        users = ", ".join(query.query for query in self.impact.users(tried.name))
        return Finding(
            "dispensable-index",
            "info",
            f"the workload could do without {tried.name}: "
            + (f"it would cost {suffering}" if losses else "no query would cost more")
            + f"; {_counted(index)}",
            tried.name,
            (*self._facts(index), ("used with the plan by", users)),
            "weigh its bytes and its share of every write against this",
        )

    def _facts(self, index: Index) -> Evidence:
        users = self.impact.users_before(str(index.qualified))
        return (
            ("definition", index.definition),
            ("bytes", index.bytes),
            ("scans", index.scans),
            ("used now by", ", ".join(query.query for query in users) or "none"),
            ("asked", self.impact.backend),
        )

    def _planned(self, table: int) -> list[Index]:
        return [index for index in self.kept.values() if index.table == table]

    def _safe(self, index: Index) -> bool:
        """Whether more than this workload says that an idle index is not needed."""
        if any(cover(planned, index) is not None for planned in self._planned(index.table)):
            return True
        table = self.catalog.relation(index.table)
        scans = table.scans + sum(one.scans for one in self.catalog.indexes_of(index.table))
        return index.scans == 0 and scans >= ENOUGH_SCANS


def _counted(index: Index) -> str:
    return f"it had {units.plural(index.scans, 'scan')} since its statistics count"


def _but(name: str, against: tuple[str, ...]) -> str:
    return "".join(f"; but {name} {clause}" for clause in against)
