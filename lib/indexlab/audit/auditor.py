"""The audit itself: every statement through its rules, then all of them together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import psycopg

from indexlab import catalog as catalogs
from indexlab.audit import creates, drops, duplicates, existing, rows, scratch, together, usefulness
from indexlab.audit.answers import Answers
from indexlab.audit.drafts import Draft, Facts, Scene, by_table
from indexlab.audit.drops import Drop
from indexlab.audit.preconditions import preconditions
from indexlab.audit.resolutions import check, resolutions
from indexlab.audit.suppression import suppress
from indexlab.audit.verdicts import KEPT, Audit, StatementAudit, Verdict
from indexlab.catalog import Catalog, activity, statistics
from indexlab.errors import InputError
from indexlab.plan import (
    CommentOnIndex,
    CreateIndex,
    DropIndex,
    IndexPlan,
    PlanStatement,
    revised,
)
from indexlab.progress import Tell, silent
from indexlab.workload import Workload


def read(
    conn: psycopg.Connection[Any],
    plan: IndexPlan,
    workload: Workload | None = None,
    *,
    resolve: tuple[tuple[str, str], ...] = (),
    other: psycopg.Connection[Any] | None = None,
    tell: Tell = silent,
) -> tuple[Catalog, Audit]:
    """Read the catalog and audit the plan against it; reads only.

    Where the audit corrects a statement that has expressions, the server is asked again what it
    makes of the corrected ones. What only a server can tell is asked of the embedded server, on
    an empty copy of the table; without such a statement, none is started.

    Args:
        conn: a connection in autocommit mode.
        plan: what is wanted.
        workload: the queries that matter, to rank names by.
        resolve: what names mean, old and new: `column` and `column`, `table.column` and `column`,
            `table` and `schema.table`, or `index` and `schema.index` for what is dropped.
        other: a second connection to the same address, to tell a transaction pooler by.
        tell: is told what is read.

    Raises:
        InputError: a resolution answers nothing, or names what does not exist.
    """
    tell("reading the catalog", None)
    catalog = catalogs.read(conn, plan)
    facts = Facts(catalog, _words(workload), resolutions=resolutions(resolve))
    drafts = _resolved(facts, plan)
    _all_answered(facts, plan, drafts)
    corrected = IndexPlan(tuple(revised(d.statement, d.index) for d in drafts if d.corrected))
    catalog = catalogs.with_expressions(conn, catalog, corrected)
    facts = replace(facts, catalog=catalog)
    drafts = [
        creates.resolve(facts, draft.statement, draft.place)
        if creates.depends_on_expressions(draft)
        else draft
        for draft in drafts
    ]
    tell("reading statistics", None)
    catalog = replace(
        catalog,
        statistics=statistics.read(conn, catalog, _tables(drafts)),
        activity=activity.read(conn, other),
    )
    tell("asking a server about the plan", None)
    builds = scratch.ask(conn, catalog, drafts)
    answers = Answers(
        builds,
        duplicates.count(conn, catalog, drafts, builds, tell),
        rows.read(conn, catalog, drafts, builds, tell),
    )
    tell("judging the plan", None)
    facts = replace(facts, catalog=catalog, answers=answers)
    return catalog, _judged(facts, plan, workload, drafts)


def audit(
    catalog: Catalog,
    plan: IndexPlan,
    workload: Workload | None = None,
    *,
    resolve: tuple[tuple[str, str], ...] = (),
    answers: Answers | None = None,
) -> Audit:
    """Judge every statement of a plan; pure.

    Args:
        catalog: the target, read with the same plan.
        plan: what is wanted.
        workload: the queries that matter, to rank names by.
        resolve: what names mean, as for `read`.
        answers: what a server was asked about the plan beforehand.

    Raises:
        InputError: a resolution answers nothing, or names what does not exist.
    """
    facts = Facts(catalog, _words(workload), answers or Answers(), resolutions(resolve))
    return _judged(facts, plan, workload, _resolved(facts, plan))


def _resolved(facts: Facts, plan: IndexPlan) -> list[Draft]:
    """Put each statement through the rules that need no answers."""
    return [
        creates.resolve(facts, statement, place)
        for place, statement in enumerate(plan.statements)
        if isinstance(statement, CreateIndex)
    ]


def _judged(
    facts: Facts, plan: IndexPlan, workload: Workload | None, resolved: Iterable[Draft]
) -> Audit:
    """Judge every statement with what a server answered, then all of them together."""
    catalog = facts.catalog
    drafts = [creates.conclude(facts, draft) for draft in resolved]
    dropping = _dropping(facts, plan, drafts)
    _all_answered(facts, plan, drafts)
    dropped = tuple(entry for drop in dropping for entry in drop.dropped)
    scene = Scene(catalog, dropped)
    settled = usefulness.judge(scene, together.settle(scene, tuple(drafts)), workload)
    built = tuple(draft for draft in settled if draft.verdict is None)
    statements = suppress(tuple(_in_order(scene, settled, built, dropping)))
    return Audit(
        statements=statements,
        existing=existing.examine(scene, built),
        preconditions=tuple(
            preconditions(catalog, _tables(built), usefulness.sizes(catalog, built))
        ),
        advice=tuple(existing.foreign_keys_without_index(scene, built)),
        revised=IndexPlan(tuple(_revised(plan, statements)), plan.source),
        server=catalog.server,
        source=plan.source,
    )


def corrected(catalog: Catalog, statement: CreateIndex) -> CreateIndex:
    """Return a planned index with the names that the target has for what it means; pure.

    Raises:
        InputError: the target cannot have it; the message says why.
    """
    draft = creates.resolve(Facts(catalog, frozenset()), statement, 0)
    if draft.verdict is not None:
        reason = "; ".join(f.message for f in draft.findings if f.severity == "error")
        raise InputError(reason or f"{draft.label} cannot be built", source="<index>")
    return _revision(draft)


def _tables(drafts: Iterable[Draft]) -> set[int]:
    """Return the tables of the drafts that may be built."""
    return {d.relation.oid for d in drafts if d.verdict is None and d.relation is not None}


def _dropping(facts: Facts, plan: IndexPlan, drafts: Iterable[Draft]) -> list[Drop]:
    """Find what the plan drops; not what it creates itself above."""
    names = {draft.place: draft.index.name or "" for draft in drafts}
    planned: set[str] = set()
    found: list[Drop] = []
    for place, statement in enumerate(plan.statements):
        if isinstance(statement, CreateIndex):
            planned.add(names[place])
        elif isinstance(statement, DropIndex):
            found += drops.resolve(facts.catalog, statement, place, planned, facts.resolutions)
    return found


def _all_answered(facts: Facts, plan: IndexPlan, drafts: list[Draft]) -> None:
    """See that every resolution is of use."""
    if not facts.resolutions:
        return
    without = replace(facts, resolutions=())
    asked = _resolved(without, plan)
    answered: tuple[Draft | Drop, ...] = (*drafts, *_dropping(facts, plan, drafts))
    check(
        facts.resolutions,
        (
            f
            for items in (asked, _dropping(without, plan, asked), answered)
            for item in items
            for f in item.findings
        ),
        (finding for item in answered for finding in item.findings),
    )


def _words(workload: Workload | None) -> frozenset[str]:
    """Return the words of the workload's queries; a name among them is likelier to be meant."""
    queries = () if workload is None else workload.queries
    return frozenset(word for query in queries for word in re.findall(r"\w+", query.statement))


def _in_order(
    scene: Scene,
    settled: Iterable[Draft],
    built: tuple[Draft, ...],
    dropping: Iterable[Drop],
) -> Iterator[StatementAudit]:
    planned = by_table(draft.wanted for draft in built)
    numbered = [(draft.place, _concluded(draft)) for draft in settled]
    for drop in dropping:
        table = 0 if drop.index is None else drop.index.table
        beside = [*scene.staying(table), *planned.get(table, ())]
        audited = drops.conclude(scene.catalog, drop, beside)
        numbered.append((drop.place, audited))
    yield from (audited for _, audited in sorted(numbered, key=lambda item: item[0]))


def _concluded(draft: Draft) -> StatementAudit:
    verdict: Verdict = draft.verdict or (
        "fix" if draft.corrected else "replace" if draft.replaces else "build"
    )
    kept, index = verdict in KEPT, draft.index
    name = replace(index.table, name=index.name or "")
    way = "" if draft.parts else "CONCURRENTLY "
    return StatementAudit(
        statement=draft.statement,
        label=draft.index.name or "(unnamed)",
        table=draft.index.table,
        verdict=verdict,
        revised=_revision(draft) if kept else None,
        findings=draft.findings,
        undo=f"DROP INDEX {way}IF EXISTS {name}" if kept else "",
        parts=draft.parts if kept else (),
        restores=draft.restores if kept else (),
    )


def _revision(draft: Draft) -> CreateIndex:
    """Return the statement as it is to be run: qualified, corrected, CONCURRENTLY."""
    statement = revised(draft.statement, draft.index.revise(concurrently=True))
    return replace(statement, search_path=None)


def _revised(plan: IndexPlan, statements: tuple[StatementAudit, ...]) -> Iterator[PlanStatement]:
    """Return the statements to run, each comment behind its index."""
    named: defaultdict[str, list[StatementAudit]] = defaultdict(list)
    for item in statements:
        if isinstance(item.statement, CreateIndex):
            named[item.label].append(item)
    owned: defaultdict[str, list[tuple[CommentOnIndex, StatementAudit]]] = defaultdict(list)
    for comment in plan.comments:
        owner = _owner(comment, named[comment.name.name])
        if owner is not None:
            owned[owner.label].append((comment, owner))
    for item in statements:
        if item.revised is None:
            continue
        yield item.revised
        if isinstance(item.revised, CreateIndex):
            mine = (c for c, owner in owned[item.label] if _same_index(owner, item))
            yield from (_comment(item.revised, comment) for comment in mine)


def _owner(comment: CommentOnIndex, named: Iterable[StatementAudit]) -> StatementAudit | None:
    """Return the statement that a comment speaks of: the nearest of this name above it."""
    schema = comment.name.schema
    fitting = [i for i in named if schema is None or i.table.schema in (None, schema)]
    above = [item for item in fitting if item.statement.line < comment.line]
    return next(iter(above[-1:] or fitting), None)


def _same_index(one: StatementAudit, other: StatementAudit) -> bool:
    """Return whether two statements are for one index, as when a plan has it twice."""
    return one is other or (
        one.label == other.label and one.table == other.table and _bare(one) == _bare(other)
    )


def _bare(item: StatementAudit) -> str:
    assert isinstance(item.statement, CreateIndex)
    return item.statement.index.revise(concurrently=False, if_not_exists=False).sql


def _comment(statement: CreateIndex, comment: CommentOnIndex) -> CommentOnIndex:
    index = statement.index
    name = replace(index.table, name=index.name or "")
    text = "NULL" if comment.comment is None else _literal(comment.comment)
    return replace(comment, name=name, text=f"COMMENT ON INDEX {name} IS {text}")


def _literal(text: str) -> str:
    quoted = "'" + text.replace("'", "''").replace("\\", "\\\\") + "'"
    return f"E{quoted}" if "\\" in text else quoted
