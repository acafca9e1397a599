"""The audit itself: every statement through its rules, then all of them together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import psycopg

from indexlab import catalog as catalogs
from indexlab.audit import creates, drops, existing, together
from indexlab.audit.drafts import Draft, Facts, Scene
from indexlab.audit.drops import Drop
from indexlab.audit.verdicts import KEPT, Audit, StatementAudit, Verdict
from indexlab.catalog import Catalog
from indexlab.plan import (
    CommentOnIndex,
    CreateIndex,
    DropIndex,
    IndexPlan,
    PlanStatement,
    revised,
)
from indexlab.workload import Workload


def read(
    conn: psycopg.Connection[Any], plan: IndexPlan, workload: Workload | None = None
) -> tuple[Catalog, Audit]:
    """Read the catalog and audit the plan against it; reads only.

    Where the audit corrects a statement that has expressions, the server is asked again what it
    makes of the corrected ones.

    Args:
        conn: a connection in autocommit mode.
        plan: what is wanted.
        workload: the queries that matter, to rank names by.
    """
    catalog = catalogs.read(conn, plan)
    facts = Facts(catalog, _words(workload))
    drafts = [creates.resolve(facts, item, 0) for item in plan.creates]
    corrected = IndexPlan(tuple(revised(d.statement, d.index) for d in drafts if d.corrected))
    catalog = catalogs.with_expressions(conn, catalog, corrected)
    return catalog, audit(catalog, plan, workload)


def audit(catalog: Catalog, plan: IndexPlan, workload: Workload | None = None) -> Audit:
    """Judge every statement of a plan; pure.

    Args:
        catalog: the target, read with the same plan.
        plan: what is wanted.
        workload: the queries that matter, to rank names by.
    """
    facts = Facts(catalog, _words(workload))
    drafts: list[Draft] = []
    dropping: list[Drop] = []
    for place, statement in enumerate(plan.statements):
        if isinstance(statement, CreateIndex):
            drafts.append(creates.resolve(facts, statement, place))
        elif isinstance(statement, DropIndex):
            planned = [draft.index.name or "" for draft in drafts]
            dropping += drops.resolve(catalog, statement, place, planned)
    dropped = tuple(entry for drop in dropping for entry in drop.dropped)
    scene = Scene(catalog, dropped)
    settled = together.settle(scene, tuple(drafts))
    built = tuple(draft for draft in settled if draft.verdict is None)
    statements = tuple(_in_order(scene, settled, built, dropping))
    return Audit(
        statements=statements,
        existing=existing.examine(scene, built),
        preconditions=tuple(existing.preconditions(catalog.server)),
        advice=tuple(existing.foreign_keys_without_index(scene, built)),
        revised=IndexPlan(tuple(_revised(plan, statements)), plan.source),
        server=catalog.server,
        source=plan.source,
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
    planned = [draft.wanted for draft in built if draft.wanted is not None]
    numbered = [(draft.place, _concluded(draft)) for draft in settled]
    for drop in dropping:
        staying = [] if drop.index is None else scene.staying(drop.index.table)
        audited = drops.conclude(scene.catalog, drop, [*staying, *planned])
        numbered.append((drop.place, audited))
    yield from (audited for _, audited in sorted(numbered, key=lambda item: item[0]))


def _concluded(draft: Draft) -> StatementAudit:
    verdict: Verdict = draft.verdict or (
        "fix" if draft.corrected else "replace" if draft.replaces else "build"
    )
    kept, index = verdict in KEPT, draft.index
    name = replace(index.table, name=index.name or "")
    return StatementAudit(
        statement=draft.statement,
        label=draft.index.name or "(unnamed)",
        table=draft.index.table,
        verdict=verdict,
        revised=_revision(draft) if kept else None,
        findings=draft.findings,
        undo=f"DROP INDEX CONCURRENTLY IF EXISTS {name}" if kept else "",
    )


def _revision(draft: Draft) -> CreateIndex:
    """Return the statement as it is to be run: qualified, corrected, CONCURRENTLY."""
    statement = revised(draft.statement, draft.index.revise(concurrently=True))
    return replace(statement, search_path=None)


def _revised(plan: IndexPlan, statements: tuple[StatementAudit, ...]) -> Iterator[PlanStatement]:
    """Return the statements to run, each comment behind its index."""
    for item in statements:
        if item.revised is None:
            continue
        yield item.revised
        if isinstance(item.revised, CreateIndex):
            yield from (_comment(item.revised, c) for c in plan.comments if _is_on(c, item))


def _is_on(comment: CommentOnIndex, item: StatementAudit) -> bool:
    schemas = (None, item.table.schema)
    return comment.name.name == item.label and comment.name.schema in schemas


def _comment(statement: CreateIndex, comment: CommentOnIndex) -> CommentOnIndex:
    index = statement.index
    name = replace(index.table, name=index.name or "")
    text = "NULL" if comment.comment is None else _literal(comment.comment)
    return replace(comment, name=name, text=f"COMMENT ON INDEX {name} IS {text}")


def _literal(text: str) -> str:
    quoted = "'" + text.replace("'", "''").replace("\\", "\\\\") + "'"
    return f"E{quoted}" if "\\" in text else quoted
