"""What is right or wrong about the DROP INDEX statements of a plan."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, replace

from indexlab import sql
from indexlab.audit.covering import cautions, drop_sql, obstacles, restore_sql
from indexlab.audit.drafts import Dropped
from indexlab.audit.names import Name, candidates, clearly_best
from indexlab.audit.resolutions import Resolution, resolved
from indexlab.audit.verdicts import Evidence, Finding, Severity, StatementAudit, Verdict
from indexlab.catalog import Catalog, Index, Relation
from indexlab.plan import DropIndex
from indexlab.sql import RelationName

INDEXES = ("index", "partitioned index")


@dataclass(frozen=True, slots=True)
class Drop:
    """A planned DROP INDEX of one index, on its way through the rules."""

    statement: DropIndex
    """The statement with one name."""
    place: int
    index: Index | None = None
    verdict: Verdict | None = None
    corrected: bool = False
    findings: tuple[Finding, ...] = ()

    @property
    def name(self) -> RelationName:
        """The name as written."""
        return self.statement.names[0]

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """The existing index that it drops, if it does."""
        kept = self.index is not None and self.verdict is None
        return (Dropped(self.index.oid, self.place),) if kept and self.index else ()

    def found(
        self,
        rule: str,
        severity: Severity,
        message: str,
        *,
        evidence: Evidence = (),
        fix: str = "",
        verdict: Verdict | None = None,
    ) -> Drop:
        """Return the draft with one more finding and, where one is given, the verdict."""
        subject = str(self.name if self.index is None else self.index.qualified)
        decides = self.verdict is None and verdict is not None
        finding = Finding(rule, severity, message, subject, evidence, fix, decides=decides)
        return replace(self, findings=(*self.findings, finding), verdict=self.verdict or verdict)


def resolve(
    catalog: Catalog,
    statement: DropIndex,
    place: int,
    planned: Set[str],
    resolutions: tuple[Resolution, ...] = (),
) -> tuple[Drop, ...]:
    """Find what a statement drops and whether it may; one entry for each of its names.

    Args:
        catalog: where to look.
        statement: as planned; one statement may name several indexes.
        place: which statement of the plan it is.
        planned: names that earlier statements of the plan create.
        resolutions: what the user says that names mean.
    """
    singles = (replace(statement, names=(name,)) for name in statement.names)
    return tuple(_resolve(catalog, Drop(single, place), planned, resolutions) for single in singles)


def _resolve(
    catalog: Catalog, drop: Drop, planned: Set[str], resolutions: tuple[Resolution, ...]
) -> Drop:
    name = drop.name
    found = catalog.find(name, drop.statement.search_path)
    if found is None and name.name in planned:
        return drop.found(
            "drops-planned-index",
            "error",
            f"{name} is what the plan itself creates above: one of the statements is too many",
            verdict="ask",
        )
    if found is None:
        answered = _answered(catalog, drop, resolutions)
        drop, found = _missing(catalog, drop) if answered is None else answered
    if found is None:
        return drop
    if found.kind not in INDEXES:
        return drop.found(
            "not-an-index",
            "error",
            f"{found.qualified} is a {found.kind}, not an index",
            verdict="refuse",
        )
    drop = replace(drop, index=catalog.index(found.schema, found.name))
    for rule in RULES:
        drop = rule(catalog, drop, found)
    return drop


def _answered(
    catalog: Catalog, drop: Drop, resolutions: tuple[Resolution, ...]
) -> tuple[Drop, Relation | None] | None:
    """Take what the user said is meant; where that is gone, as after a first run, nothing is left."""
    for resolution in resolutions:
        if not resolution.speaks_of(drop.name):
            continue
        meant = resolution.relation(catalog)
        written = str(resolution.meant if meant is None else meant.qualified)
        finding = resolved(f"index {drop.name}", written, resolution)
        drop = replace(drop, findings=(*drop.findings, finding), corrected=True)
        if meant is None:
            message = f"there is no index {written}, so there is nothing to drop"
            drop = drop.found("missing-index", "warning", message, verdict="skip")
        return drop, meant
    return None


def _missing(catalog: Catalog, drop: Drop) -> tuple[Drop, Relation | None]:
    """Look in other schemas and for near names; without one, there is nothing to drop."""
    name = drop.name
    elsewhere = [r for r in catalog.elsewhere(sql.truncate(name.name)) if r.kind in INDEXES]
    places = ", ".join(str(r.qualified) for r in elsewhere)
    if len(elsewhere) == 1 and name.schema is None:
        message = f"{name} is not found: wrong schema, it exists as {places}"
        fix = f"write {places}"
        drop = drop.found("wrong-schema", "warning", message, fix=fix)
        return replace(drop, corrected=True), elsewhere[0]
    if elsewhere:
        message = f"{name} is not found, but the name exists elsewhere: {places}"
        return drop.found(
            "ambiguous-index",
            "error",
            message,
            evidence=(("candidates", places),),
            fix="write the schema that is meant",
            verdict="ask",
        ), None
    if drop.statement.if_exists:
        return drop.found("nothing-to-drop", "info", f"{name} is gone", verdict="skip"), None
    indexes = [r for r in catalog.relations if r.kind in INDEXES]
    if name.schema is not None:
        indexes = [r for r in indexes if r.schema == name.schema]
    ranked = candidates(name.name, {Name(r.name) for r in indexes})
    if clearly_best(name.name, ranked) is None:
        message = f"there is no index {name}, so there is nothing to drop"
        return drop.found("missing-index", "warning", message, verdict="skip"), None
    # A misspelled name is corrected where something is built, never where something is dropped.
    message = f"there is no index {name}; nearest: {', '.join(map(str, ranked))}"
    evidence = tuple((item.name, item.why) for item in ranked)
    return drop.found("missing-index", "error", message, evidence=evidence, verdict="ask"), None


def _by_its_owner(catalog: Catalog, drop: Drop, relation: Relation) -> Drop:
    if relation.owned:
        return drop
    owner, user = sql.quote(relation.owner), sql.quote(catalog.server.user)
    return drop.found(
        "not-owner",
        "error",
        f"{relation.qualified} belongs to {owner}, and {user} may not drop it",
        evidence=(("owner", relation.owner), ("user", catalog.server.user)),
        fix=f"connect as {owner}",
        verdict="refuse",
    )


def _unprotected(catalog: Catalog, drop: Drop, relation: Relation) -> Drop:
    """Rule 20: what cannot be dropped, and what must not be."""
    if drop.index is None:
        return drop
    for reason in obstacles(catalog, drop.index):
        drop = drop.found(
            "protected-index",
            "error",
            f"{relation.qualified} {reason}",
            evidence=(("definition", drop.index.definition),),
            verdict="refuse",
        )
    return drop


def _in_one_piece(_catalog: Catalog, drop: Drop, relation: Relation) -> Drop:
    if relation.kind != "partitioned index":
        return drop
    return drop.found(
        "partitioned-index",
        "error",
        f"{relation.qualified} is partitioned, which DROP INDEX CONCURRENTLY cannot drop",
        fix="drop it without CONCURRENTLY in a quiet moment: it locks the table and all its parts",
        verdict="refuse",
    )


def _concurrently(_catalog: Catalog, drop: Drop, relation: Relation) -> Drop:
    if drop.statement.concurrently:
        return drop
    return drop.found(
        "not-concurrent",
        "info",
        f"{relation.qualified} would be dropped with a lock on its table; "
        "it is dropped CONCURRENTLY",
    )


RULES = (_by_its_owner, _unprotected, _in_one_piece, _concurrently)


def conclude(catalog: Catalog, drop: Drop, others: Iterable[Index]) -> StatementAudit:
    """Give a DROP its verdict, once it is known which other indexes there will be."""
    index, statement = drop.index, drop.statement
    table = drop.name if index is None else catalog.relation(index.table).qualified
    label = str(drop.name if index is None else index.qualified)
    if index is None or drop.verdict is not None:
        return StatementAudit(
            statement, label, table, drop.verdict or "refuse", None, drop.findings
        )
    for reason in cautions(catalog, index, others):
        drop = drop.found("needed-index", "warning", f"{index.qualified} {reason}")
    if index.unique and index.usable:
        drop = drop.found(
            "drops-uniqueness",
            "warning",
            f"{index.qualified} is unique: without it, equal rows may come in",
        )
    revised = replace(
        statement,
        names=(index.qualified,),
        text=drop_sql(catalog, index),
        concurrently=True,
        if_exists=False,
        cascade=False,
        in_transaction=False,
        search_path=None,
    )
    return StatementAudit(
        statement,
        label,
        table,
        verdict="fix" if drop.corrected else "build",
        revised=revised,
        findings=drop.findings,
        undo=restore_sql(catalog, index),
    )
