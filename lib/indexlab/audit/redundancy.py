"""Which existing index makes a statement superfluous, and which one a statement makes superfluous.

Only an index that the plan does not drop makes a statement superfluous.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from indexlab import sql
from indexlab.audit.covering import (
    Beside,
    cautions,
    cover,
    drop_sql,
    foreign_keys,
    obstacles,
    reversed_equal,
)
from indexlab.audit.drafts import Draft, Drafts, Scene, by_table, index_evidence
from indexlab.catalog import Catalog, Index


def not_there_already(scene: Scene, drafts: Drafts) -> Drafts:
    """Rules 1 to 9 against what exists and stays."""
    beside = _beside(scene, drafts)
    return tuple(
        _not_there(beside[d.planned().table], d) if d.verdict is None else d for d in drafts
    )


def _beside(scene: Scene, drafts: Drafts) -> dict[int, Beside]:
    """Return the indexes that stay, for each table on which something may be built."""
    tables = {draft.planned().table for draft in drafts if draft.verdict is None}
    return {table: Beside(scene.staying(table)) for table in tables}


def _not_there(beside: Beside, draft: Draft) -> Draft:
    wanted = draft.planned()
    wider = (beside.indexes[place] for place in beside.wider(wanted))
    covers = [found for index in wider if (found := cover(index, wanted)) is not None]
    if not covers:
        return draft
    found = min(covers, key=lambda c: (c.how != "duplicate", len(c.keeper.keys), c.keeper.oid))
    keeper = found.keeper
    duplicate = found.how == "duplicate"
    rule = "duplicate-index" if duplicate else "covered-by-existing"
    return draft.found(
        rule,
        "warning",
        f"{draft.label} is redundant: {keeper.qualified} {found.words}"
        + (_storage_difference(keeper, wanted) if duplicate else ""),
        subject=str(keeper.qualified),
        evidence=index_evidence(keeper),
        fix="leave the statement out",
        verdict=draft.left_out_unless(rule),
    )


def _storage_difference(existing: Index, wanted: Index) -> str:
    """Rule 9: other options or another tablespace do not make another index."""
    differences = []
    if set(existing.options) != set(wanted.options):
        shown = [", ".join(i.options) or "none" for i in (existing, wanted)]
        differences.append(f"its storage parameters are {shown[0]}, not {shown[1]}")
    if existing.tablespace != wanted.tablespace and wanted.tablespace:
        differences.append(f"its tablespace is not {wanted.tablespace}")
    return f" ({'; '.join(differences)})" if differences else ""


def what_it_replaces(scene: Scene, drafts: Drafts) -> Drafts:
    """Rules 2 to 6 against existing indexes: they can go once the statement is built."""
    planned = by_table(d.wanted for d in drafts if d.verdict is None)
    beside = _beside(scene, drafts)
    return tuple(
        _replaces(scene, d, planned, beside[d.planned().table]) if d.verdict is None else d
        for d in drafts
    )


def _replaces(
    scene: Scene, draft: Draft, planned: Mapping[int, list[Index]], beside: Beside
) -> Draft:
    wanted = draft.planned()
    staying = beside.indexes
    for existing in beside.narrower(wanted):
        found = cover(wanted, existing)
        if found is None or not existing.usable or obstacles(scene.catalog, existing):
            continue
        if found.how == "duplicate":  # only a comment has brought it here: both are wanted
            continue
        name = str(existing.qualified)
        against = cautions(scene.catalog, existing, [*staying, *planned[wanted.table]])
        draft = replace(draft, supersedes=(*draft.supersedes, existing))
        if not against:
            draft = replace(draft, replaces=(*draft.replaces, existing))
        draft = draft.found(
            "replaces-index",
            "info",
            f"{name} is superfluous once {draft.label} is built, which {found.words}"
            + (f", but {name} {' and '.join(against)}" if against else "")
            + foreign_key_words(scene.catalog, existing),
            subject=name,
            evidence=index_evidence(existing),
            fix="" if against else f"after the build: {drop_sql(scene.catalog, existing)}",
        )
    return draft


def foreign_key_words(catalog: Catalog, index: Index) -> str:
    """Say which foreign keys the index supports, and that its keeper does as well."""
    names = ", ".join(sql.quote(key.name) for key in foreign_keys(catalog, index))
    return f"; that one serves the foreign key {names} as well" if names else ""


def the_same_backwards(scene: Scene, drafts: Drafts) -> Drafts:
    """Rule 10: an index is read in both directions; only said, as nobody asked to change it."""
    beside = _beside(scene, drafts)
    return tuple(
        _backwards(beside[d.planned().table], d) if d.verdict is None else d for d in drafts
    )


def _backwards(beside: Beside, draft: Draft) -> Draft:
    for existing in beside.turned(draft.planned()):
        if existing.usable and reversed_equal(existing, draft.planned()):
            draft = draft.found(
                "same-backwards",
                "info",
                f"{existing.qualified} read backwards gives the order of {draft.label}",
                subject=str(existing.qualified),
                evidence=index_evidence(existing),
                fix="leave the statement out if the direction was all that it was for",
            )
    return draft
