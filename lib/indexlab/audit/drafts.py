"""A planned index on its way through the rules, and what the rules know beside it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from indexlab import sql, units
from indexlab.audit.answers import Answers
from indexlab.audit.resolutions import Resolution
from indexlab.audit.verdicts import Evidence, Finding, Severity, Verdict
from indexlab.catalog import Catalog, Index, Relation
from indexlab.plan import CreateIndex, IndexDef


@dataclass(frozen=True, slots=True)
class Draft:
    """A planned CREATE INDEX on its way through the rules."""

    statement: CreateIndex
    place: int
    """Which statement of the plan it is."""
    index: IndexDef
    """The index as corrected so far."""
    verdict: Verdict | None = None
    """None as long as the statement may be built."""
    corrected: bool = False
    findings: tuple[Finding, ...] = ()
    relation: Relation | None = None
    wanted: Index | None = None
    """The index in the terms of the catalog, once all of it is found there."""
    supersedes: tuple[Index, ...] = ()
    """The existing indexes that are superfluous once it is built."""
    replaces: tuple[Index, ...] = ()
    """Those of them that nothing speaks against dropping."""
    parts: tuple[str, ...] = ()
    """The statements that build it on a partitioned table, in order; elsewhere none."""
    restores: tuple[str, ...] = ()
    """The statements that build again what was there before and goes with it."""

    def table(self) -> Relation:
        """Return the relation; only for the rules after the one that finds it."""
        assert self.relation is not None
        return self.relation

    def planned(self) -> Index:
        """Return the index in the catalog's terms; only for drafts that got through their rules."""
        assert self.wanted is not None
        return self.wanted

    @property
    def label(self) -> str:
        """What messages call the index."""
        return sql.quote(self.index.name) if self.index.name else "the unnamed index"

    def found(
        self,
        rule: str,
        severity: Severity,
        message: str,
        *,
        subject: str = "",
        evidence: Evidence = (),
        fix: str = "",
        verdict: Verdict | None = None,
    ) -> Draft:
        """Return the draft with one more finding and, where one is given, the verdict."""
        finding = Finding(
            rule,
            severity,
            message,
            subject or self.label,
            evidence,
            fix,
            decides=self.verdict is None and verdict is not None,
        )
        return replace(self, findings=(*self.findings, finding), verdict=self.verdict or verdict)

    def left_out_unless(self, rule: str) -> Verdict | None:
        """Return the verdict of a rule of judgement: a comment that accepts it has the last word.

        Only for what the server would build all the same.
        """
        return None if any(i.rule == rule for i in self.statement.ignores) else "skip"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules know beside the statement."""

    catalog: Catalog
    mentioned: frozenset[str]
    """The words of the workload."""
    answers: Answers = field(default_factory=Answers)
    """What a server was asked beforehand."""
    resolutions: tuple[Resolution, ...] = ()
    """What the user says that names mean."""


Rule = Callable[[Facts, Draft], Draft]
"""A rule on one statement by itself."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """An existing index that the plan drops, and the statement that does it."""

    oid: int
    place: int


@dataclass(frozen=True, slots=True)
class Scene:
    """The indexes that exist and those of them that the plan drops."""

    catalog: Catalog
    dropped: tuple[Dropped, ...] = ()
    _places: dict[int, int] = field(init=False, repr=False, compare=False)
    _staying: dict[int, tuple[Index, ...]] = field(init=False, repr=False, compare=False)
    """Of the tables that lose an index."""

    def __post_init__(self) -> None:
        places = {item.oid: item.place for item in reversed(self.dropped)}
        object.__setattr__(self, "_places", places)
        tables = {index.table for index in self.catalog.indexes if places and index.oid in places}
        staying = {
            table: tuple(i for i in self.catalog.indexes_of(table) if i.oid not in places)
            for table in tables
        }
        object.__setattr__(self, "_staying", staying)

    def drops(self, index: Index) -> bool:
        """Return whether the plan drops this index."""
        return index.oid in self._places

    def dropped_before(self, oid: int, place: int) -> bool:
        """Return whether a statement before this place of the plan drops a relation."""
        return oid in self._places and self._places[oid] < place

    def staying(self, table: int) -> tuple[Index, ...]:
        """Return the indexes of a table that the plan leaves."""
        found = self._staying.get(table)
        return self.catalog.indexes_of(table) if found is None else found


def by_table(indexes: Iterable[Index | None]) -> dict[int, list[Index]]:
    """Group planned indexes by their tables; those that are not in the catalog are left out."""
    grouped: defaultdict[int, list[Index]] = defaultdict(list)
    for index in indexes:
        if index is not None:
            grouped[index.table].append(index)
    return grouped


Drafts = tuple[Draft, ...]
Together = Callable[[Scene, Drafts], Drafts]
"""A rule on all statements together; it takes all drafts and returns all drafts."""


def index_evidence(index: Index) -> Evidence:
    """Return what a reader wants to know of an existing index."""
    return (
        ("index", str(index.qualified)),
        ("definition", index.definition),
        ("size", units.size(index.bytes)),
        ("scans", index.scans),
    )
