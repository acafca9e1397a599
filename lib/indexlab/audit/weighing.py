"""What the impact matrix means for the verdicts: what no query uses is not built.

Pure, as the audit is: the matrix is read beforehand. Nothing is claimed of what was not simulated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from indexlab import sql, units
from indexlab.audit.covering import foreign_keys, supports
from indexlab.audit.existing import REMOVABLE
from indexlab.audit.idle import Idle, staying
from indexlab.audit.verdicts import (
    KEPT,
    Audit,
    Evidence,
    ExistingAudit,
    Finding,
    StatementAudit,
)
from indexlab.catalog import Catalog, Index, bytes_of
from indexlab.errors import InputError
from indexlab.impact import Candidate, Impact, QueryImpact
from indexlab.plan import CommentOnIndex, CreateIndex, DropIndex, IndexDef, IndexPlan
from indexlab.sizes import PAGE
from indexlab.sql import RelationName

RULE = "unused-by-workload"
WANTED_ANYWAY = (
    "duplicate-index",
    "covered-by-existing",
    "duplicate-in-plan",
    "covered-by-planned",
)
"""Whoever has a comment accept one of these has asked for an index that another one serves for."""
RISE = 1.10
"""From this multiple of its cost on a query is told to have become dearer."""
TINY_PAGES = 8
"""A table of so few pages is read whole whatever indexes it has, so that it proves nothing."""


def weigh(catalog: Catalog, audit: Audit, impact: Impact) -> Audit:
    """Let the matrix speak on an audit's verdicts; pure.

    A planned index that no query uses, for none of its values, is skipped, unless it is unique,
    serves the deletes of a foreign key, is on a table that a query reads which could not be
    simulated, or on one that is empty, tiny or was never analyzed. An existing index that the plan
    makes idle is advised to be dropped only where nothing else speaks for it.

    Args:
        catalog: the target that both are about.
        audit: as `audit` judged the plan.
        impact: of the audit's revised plan.
    """
    scales = _Scales(catalog, audit, impact)
    statements = tuple(scales.weighed(item) for item in audit.statements)
    left_out = tuple(
        old for old, new in zip(audit.statements, statements, strict=True) if new is not old
        and old.verdict in KEPT and new.verdict not in KEPT
    )  # fmt: skip
    statements = tuple(_beside(item, left_out) for item in statements)
    names = {_name(item) for item in statements if item.verdict in KEPT}
    built = {name: index for name, index in scales.kept.items() if name in names}
    idle = Idle(catalog, impact, built)
    existing = idle.examined(_without(audit.existing, left_out))
    statements = tuple(
        replace(item, verdict="replace")
        if item.verdict == "build" and _name(item) in idle.replacing
        else item
        for item in statements
    )
    return replace(
        audit,
        statements=statements,
        existing=existing,
        advice=(*audit.advice, *_not_simulated(impact), *scales.dearer_anyway()),
        revised=_revised(audit.revised, left_out),
    )


def not_weighed(audit: Audit, reason: str) -> Audit:
    """Say that no query was planned, and why; pure. The verdicts stay."""
    finding = Finding(
        "not-simulated",
        "warning",
        f"what the plan does to the workload is not known: {reason}",
        "workload",
        (),
        "mend the cause, or ask without it: --what-if off",
    )
    return replace(audit, advice=(*audit.advice, finding))


def _name(item: StatementAudit) -> str:
    return str(replace(item.table, name=item.label))


@dataclass(slots=True)
class _Scales:
    """What is weighed, and what came of it."""

    catalog: Catalog
    audit: Audit
    impact: Impact
    candidates: dict[str, Candidate] = field(init=False)
    kept: dict[str, Index] = field(init=False)
    """The planned indexes that are built, in the catalog's terms."""
    needed: set[str] = field(default_factory=set)
    """Those that no query uses and a foreign key needs."""

    def __post_init__(self) -> None:
        self.candidates = {item.name: item for item in self.impact.candidates}
        self.kept = {}
        for item in self.audit.kept:
            if isinstance(item.revised, CreateIndex):
                wanted = self.catalog.wanted(item.revised.index)
                if isinstance(wanted, Index):
                    self.kept[_name(item)] = wanted

    # Planned indexes

    def weighed(self, item: StatementAudit) -> StatementAudit:
        """Judge one statement of the plan."""
        if isinstance(item.statement, DropIndex):
            return _with(item, *self._dearer(item))
        candidate = self.candidates.get(_name(item))
        if candidate is None or item.verdict not in KEPT or not self.impact.simulated:
            return item
        if candidate.problem:
            return _with(item, self._unknown(item, candidate.problem))
        used = self.impact.users(candidate.name)
        if used or candidate.unique:
            earned = (self._used(item, candidate),) if used else ()
            return _with(item, *earned, *_needless(item))
        because = "" if _ignored(item) else self._why_it_stays(item, candidate)
        found = _with(item, self._unused(item, candidate, because))
        if because or _ignored(item):
            return found
        return replace(found, verdict="skip", revised=None, undo="")

    def _why_it_stays(self, item: StatementAudit, candidate: Candidate) -> str:
        """Say what speaks for an index that no query uses; empty where nothing does."""
        for ignore in item.statement.ignores:
            if ignore.rule in WANTED_ANYWAY:
                return f"the plan wants it all the same: {ignore.reason}"
        hiding = [query for query in self.impact.queries if query.hides(candidate.table)]
        if hiding:
            query = hiding[0]
            return f"query {query.query} is not seen whole: {query.problem or query.unseen}"
        if not self.impact.settled:
            return "plans change when all unused indexes are left out at once"
        table = self.catalog.relation(candidate.table)
        if table.rows < 0:
            return f"{table.qualified} was never analyzed, so that its plans are guesses"
        pages = bytes_of(self.catalog, table) // PAGE
        if pages <= TINY_PAGES:
            return (
                f"{table.qualified} has {units.plural(pages, 'page')}, which are "
                "read whole whatever indexes there are"
            )
        return self._foreign_key(_name(item))

    def _foreign_key(self, name: str) -> str:
        """Say which foreign key nothing else serves."""
        index = self.kept.get(name)
        if index is None:
            return ""
        unused = {candidate.name for candidate in self.impact.unused} - self.needed
        planned = [one for other, one in self.kept.items() if other not in {name, *unused}]
        others = [*staying(self.catalog, self.impact, index.table), *planned]
        for key in foreign_keys(self.catalog, index):
            if not any(supports(self.catalog, other, key) for other in others):
                self.needed.add(name)
                referenced = self.catalog.relation(key.referenced).qualified
                return (
                    f"it serves deletes in {referenced} through the foreign key "
                    f"{sql.quote(key.name)}"
                )
        return ""

    def _used(self, item: StatementAudit, candidate: Candidate) -> Finding:
        users, cost = self.impact.users(candidate.name), self.impact.cost_after
        return Finding(
            "used-by-workload",
            "info",
            f"{_name(item)} earns its keep: {units.listed(q.query for q in users)} "
            f"{'uses' if len(users) == 1 else 'use'} it, and without it the workload would cost "
            f"{units.increase(cost, cost + self.impact.worth(candidate.name))}",
            _name(item),
            (("queries", ", ".join(query.query for query in users)), *self._facts(candidate)),
        )

    def _unused(self, item: StatementAudit, candidate: Candidate, stays: str) -> Finding:
        instead = self.impact.supersedes(candidate.name)
        alone = self.impact.users_alone(candidate.name)
        readers = [q for q in self.impact.simulated if candidate.table in q.tables]
        sets = sum(max(query.sets, 1) for query in readers)
        name = _name(item)
        if instead:
            message = (
                f"no query of the workload uses {name} beside {' and '.join(instead)}, which "
                f"{'serves' if len(instead) == 1 else 'serve'} what it would serve alone "
                f"({units.listed(query.query for query in alone)})"
            )
        else:
            message = (
                f"no query of the workload uses {name}: with it and without it, the plans of the "
                f"{units.plural(len(readers), 'query')} that read its table are the same, for "
                f"{units.plural(sets, 'set')} of values"
            )
        return Finding(
            RULE,
            "info" if stays else "warning",
            f"{message}; it stays, as {stays}" if stays else message,
            name,
            (
                ("queries on its table", ", ".join(query.query for query in readers) or "none"),
                ("sets of values", sets),
                *((("superseded by", ", ".join(instead)),) if instead else ()),
                *self._facts(candidate),
            ),
            "" if stays else f"leave it out, or write -- indexlab: ignore {RULE} because REASON",
            _ignored(item),
            decides=not stays and not _ignored(item),
        )

    def _facts(self, candidate: Candidate) -> Evidence:
        return (
            ("worth alone", round(self.impact.worth_alone(candidate.name), 1)),
            ("worth beside the others", round(self.impact.worth(candidate.name), 1)),
            ("bytes", candidate.bytes),
            ("asked", self.impact.backend),
        )

    def _unknown(self, item: StatementAudit, problem: str) -> Finding:
        return Finding(
            "not-simulated",
            "info",
            f"what {_name(item)} does to the workload is not known: {problem}",
            _name(item),
            (("asked", self.impact.backend),),
        )

    # Queries that become dearer

    def _dearer(self, item: StatementAudit) -> Iterator[Finding]:
        """Tell of the queries that lose by a planned drop."""
        for query in self._risen():
            if item.label in self.impact.drops and item.label in query.uses_before:
                yield _risen(query, f", and uses {item.label}, which the plan drops", item.label)

    def dearer_anyway(self) -> Iterator[Finding]:
        """Tell of the queries that become dearer without using what the plan drops."""
        for query in self._risen():
            if not set(query.uses_before) & set(self.impact.drops):
                yield _risen(query, "", query.query)

    def _risen(self) -> Iterator[QueryImpact]:
        return (query for query in self.impact.simulated if query.rise >= RISE)


def _with(item: StatementAudit, *findings: Finding) -> StatementAudit:
    reasons = {ignore.rule: ignore.reason for ignore in item.statement.ignores}
    marked = (replace(f, suppressed=f.suppressed or reasons.get(f.rule, "")) for f in findings)
    return replace(item, findings=(*item.findings, *marked)) if findings else item


def _ignored(item: StatementAudit) -> str:
    """Return why the plan wants the index whoever uses it; empty where it does not say so."""
    return next((one.reason for one in item.statement.ignores if one.rule == RULE), "")


def _needless(item: StatementAudit) -> Iterator[Finding]:
    """Tell of a comment that accepts what is not found."""
    for ignore in item.statement.ignores:
        if ignore.rule == RULE:
            yield Finding(
                "unused-ignore",
                "warning",
                f"nothing to ignore: the audit finds no {RULE} here",
                ignore.rule,
                (("line", ignore.line),),
                "remove the comment",
            )


def _risen(query: QueryImpact, words: str, subject: str) -> Finding:
    return Finding(
        "query-cost-rises",
        "warning",
        f"query {query.query} would cost {units.increase(query.cost_before, query.cost_after)} "
        f"with the plan{words}",
        subject,
        (
            ("cost before", round(query.cost_before, 2)),
            ("cost after", round(query.cost_after, 2)),
            ("weight", query.weight),
            ("told from", f"{RISE - 1:.0%}"),
        ),
        "keep what it uses now, or measure it before and after",
    )


def _not_simulated(impact: Impact) -> Iterator[Finding]:
    for query in impact.queries:
        if query.problem:
            yield Finding(
                "not-simulated",
                "info",
                f"query {query.query} is not simulated, because {query.problem}; no index on its "
                "tables is left out for want of use",
                query.query,
                (("asked", impact.backend),),
            )


def _beside(item: StatementAudit, left_out: tuple[StatementAudit, ...]) -> StatementAudit:
    """Say of what a statement covers that was left out that both are."""
    for finding in item.findings:
        lines = {value for name, value in finding.evidence if name == "line"}
        for keeper in left_out:
            covered = finding.rule in ("covered-by-planned", "duplicate-in-plan")
            if covered and item.verdict == "skip" and keeper.statement.line in lines:
                return _with(
                    item,
                    Finding(
                        RULE,
                        "info",
                        f"{_name(keeper)}, which would cover it, is left out as well: no query "
                        "uses it",
                        _name(keeper),
                    ),
                )
    return item


def _without(
    existing: tuple[ExistingAudit, ...], left_out: tuple[StatementAudit, ...]
) -> tuple[ExistingAudit, ...]:
    """Take back what was said to be superfluous by an index that is not built after all."""
    gone = {_name(item) for item in left_out}
    return tuple(item for item in (_taken_back(one, gone) for one in existing) if item.findings)


def _taken_back(item: ExistingAudit, gone: set[str]) -> ExistingAudit:
    findings = tuple(finding for finding in item.findings if _planned_in(finding) not in gone)
    if len(findings) == len(item.findings):
        return item
    removable = any(finding.rule in REMOVABLE for finding in findings)
    return replace(
        item,
        findings=findings,
        drop=item.drop if removable else "",
        restore=item.restore if removable else "",
    )


def _planned_in(finding: Finding) -> str:
    """Return the planned index by which an existing one is superfluous."""
    for name, value in finding.evidence:
        if finding.rule == "superfluous-after-plan" and name == "planned":
            try:
                index = IndexDef.parse(str(value))
            except InputError:  # what the grammar library writes, it does not always read
                return ""
            return str(RelationName(index.table.schema, index.name or ""))
    return ""


def _revised(plan: IndexPlan, left_out: tuple[StatementAudit, ...]) -> IndexPlan:
    gone = [item.revised for item in left_out]
    names = {RelationName(item.table.schema, item.label) for item in left_out}
    return replace(
        plan,
        statements=tuple(
            statement
            for statement in plan.statements
            if not any(statement is one for one in gone)
            and not (isinstance(statement, CommentOnIndex) and statement.name in names)
        ),
    )
