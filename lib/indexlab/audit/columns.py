"""Which columns a statement means, and whether they may be indexed."""

from __future__ import annotations

from dataclasses import replace

from indexlab import sql
from indexlab.audit.drafts import Draft, Facts
from indexlab.audit.names import Name, candidates, clearly_best, nearest, ranking
from indexlab.audit.resolutions import resolved
from indexlab.audit.verdicts import Finding

SYSTEM_COLUMNS = ("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid")


def its_columns(facts: Facts, draft: Draft) -> Draft:
    """Rules 24, 26 and 27: in keys, INCLUDE, expressions and predicate."""
    relation, index = draft.table(), draft.index
    renamed: list[tuple[str, str]] = []
    for written in facts.catalog.unknown_columns(relation, index):
        if written in SYSTEM_COLUMNS:
            return draft.found(
                "system-column",
                "error",
                f"{written} is a system column, which cannot be indexed",
                subject=f"{relation.qualified}",
                verdict="refuse",
            )
        if written in index.include and "(" in written:
            return draft.found(
                "include-expression",
                "error",
                f"INCLUDE takes columns only, and {written} is an expression",
                verdict="refuse",
            )
        answer = _answered(facts, draft, written)
        if answer is not None:
            column, finding = answer
            renamed.append((written, column))
            draft = replace(draft, findings=(*draft.findings, finding))
            continue
        if written == draft.statement.index.table.name and not _is_plain(draft, written):
            renamed.append((written, relation.name))  # the whole row, by the table's old name
            continue
        columns = [Name(c.name, c.type) for c in facts.catalog.columns_of(relation.oid)]
        ranked = candidates(written, columns, facts.mentioned)
        best = clearly_best(written, ranked)
        if best is not None and best.name in (*index.columns, *(new for _, new in renamed)):
            best = None  # it is there already: whatever was meant, it is not this one
        if best is not None:
            renamed.append((written, best.name))
        draft = draft.found(
            "missing-column",
            "error",
            f"column {sql.quote(written)} does not exist in {relation.qualified}{nearest(ranked)}",
            subject=f"{relation.qualified}.{sql.quote(written)}",
            evidence=ranking(ranked),
            fix="name a column that exists" if best is None else f"write {sql.quote(best.name)}",
            verdict=None if best is not None else "ask" if ranked else "refuse",
        )
    if draft.verdict is not None or not renamed:
        return draft
    return replace(draft, index=index.revise(columns=dict(renamed)), corrected=True)


def _answered(facts: Facts, draft: Draft, written: str) -> tuple[str, Finding] | None:
    """Return the column that the user said is meant."""
    relation, table = draft.table(), draft.statement.index.table
    names = tuple(part for part in (table.schema, table.name, written) if part is not None)
    for resolution in facts.resolutions:
        column = resolution.column(facts.catalog, relation, names)
        if column is not None:
            what = f"column {sql.quote(written)}"
            meant = f"{relation.qualified}.{sql.quote(column.name)}"
            return column.name, resolved(what, meant, resolution)
    return None


def _is_plain(draft: Draft, written: str) -> bool:
    """Return whether a name stands where only a column can."""
    keys = draft.index.keys
    return written in draft.index.include or any(key.column == written for key in keys)


def no_virtual_columns(facts: Facts, draft: Draft) -> Draft:
    """Rule 24: a virtual generated column is stored nowhere; a stored one is fine."""
    relation = draft.table()
    for name in draft.index.columns:
        column = facts.catalog.column(relation.oid, name)
        if column is not None and column.generated == "v":
            return draft.found(
                "virtual-column",
                "error",
                f"{sql.quote(name)} of {relation.qualified} is a virtual generated column, "
                "which cannot be indexed",
                fix="index its expression instead, or make the column STORED",
                verdict="refuse",
            )
    return draft
