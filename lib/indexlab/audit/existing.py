"""What is to be said about the indexes that exist and the foreign keys."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

from indexlab import sql, units
from indexlab.audit.covering import (
    Beside,
    Cover,
    cautions,
    cover,
    drop_sql,
    obstacles,
    restore_sql,
    reversed_equal,
    superfluous,
    supports,
)
from indexlab.audit.drafts import Draft, Scene, by_table
from indexlab.audit.redundancy import foreign_key_words
from indexlab.audit.verdicts import Evidence, ExistingAudit, Finding
from indexlab.catalog import Catalog, Index

Found = tuple[Index, Finding]


def examine(scene: Scene, built: tuple[Draft, ...]) -> tuple[ExistingAudit, ...]:
    """Look at every existing index that the plan leaves; those without a finding are left out.

    Args:
        scene: the indexes, and what the plan drops.
        built: the statements that are to be built.
    """
    found: defaultdict[int, list[Finding]] = defaultdict(list)
    for rule in RULES:
        for index, finding in rule(scene, built):
            found[index.oid].append(finding)
    return tuple(
        _audited(scene.catalog, index, tuple(found[index.oid]))
        for index in scene.catalog.indexes
        if index.oid in found
    )


def _audited(catalog: Catalog, index: Index, findings: tuple[Finding, ...]) -> ExistingAudit:
    removable = any(f.rule in REMOVABLE for f in findings) and not obstacles(catalog, index)
    return ExistingAudit(
        index,
        str(index.qualified),
        findings,
        drop=drop_sql(catalog, index) if removable else "",
        restore=restore_sql(catalog, index) if removable else "",
    )


def invalid_leftovers(scene: Scene, _built: tuple[Draft, ...]) -> Iterator[Found]:
    """Rule 18: a failed build leaves an index that costs writes and serves nobody."""
    for index in _remaining(scene):
        if index.usable or index.parent is not None:
            continue
        name = str(index.qualified)
        if scene.catalog.relation(index.oid).kind == "partitioned index":
            yield (
                index,
                Finding(
                    "unfinished-index",
                    "info",
                    f"{name} is invalid until an index of every partition is attached to it",
                    name,
                    _evidence(index),
                    f"build what is missing, then ALTER INDEX {name} ATTACH PARTITION ...",
                ),
            )
        elif index.building:
            yield (
                index,
                Finding("being-built", "info", f"another session is building {name} now", name),
            )
        else:
            yield (
                index,
                Finding(
                    "invalid-index",
                    "warning",
                    f"{name} is invalid, as a failed build leaves it: it serves no query"
                    + (" and still costs writes" if index.ready else ""),
                    name,
                    _evidence(index),
                    drop_sql(scene.catalog, index),
                ),
            )


def redundant(scene: Scene, _built: tuple[Draft, ...]) -> Iterator[Found]:
    """Rules 1 to 9 between existing indexes, without the false alarms of rules 11 to 19."""
    for table in dict.fromkeys(index.table for index in scene.catalog.indexes):
        staying = [index for index in scene.staying(table) if index.usable]
        for index, found in superfluous(scene.catalog, staying):
            yield index, _redundant(scene.catalog, index, found, staying)


def _redundant(catalog: Catalog, index: Index, found: Cover, staying: list[Index]) -> Finding:
    name, keeper = str(index.qualified), found.keeper
    duplicate = found.how == "duplicate"
    differences = [
        what
        for what, differs in (
            ("storage parameters", set(index.options) != set(keeper.options)),
            ("tablespaces", index.tablespace != keeper.tablespace),
        )
        if differs
    ]
    differ = f", though their {' and '.join(differences)} differ" if differences else ""
    against = cautions(catalog, index, staying)
    return Finding(
        "duplicate-index" if duplicate else "redundant-index",
        "warning",
        f"{name} is redundant: {keeper.qualified} {found.words}{differ if duplicate else ''}"
        + "".join(f"; {name} {clause}" for clause in against)
        + foreign_key_words(catalog, index),
        name,
        _versus(index, keeper),
        drop_sql(catalog, index),
    )


def equal_constraints(scene: Scene, _built: tuple[Draft, ...]) -> Iterator[Found]:
    """Two constraints that enforce the same have an index each; only a constraint can be dropped."""
    for index in _remaining(scene):
        for other in scene.staying(index.table):
            backed = index.constraint is not None and other.constraint is not None
            if not (backed and other.oid < index.oid and cover(other, index) is not None):
                continue
            assert index.constraint is not None
            yield (
                index,
                Finding(
                    "duplicate-constraint",
                    "info",
                    f"{index.qualified} enforces the same as {other.qualified}",
                    str(index.qualified),
                    _versus(index, other),
                    f"drop one of the constraints, such as {sql.quote(index.constraint)}",
                ),
            )


def equal_backwards(scene: Scene, _built: tuple[Draft, ...]) -> Iterator[Found]:
    """Rule 10: advice only."""
    beside: dict[int, Beside] = {}
    for index in _remaining(scene):
        if index.table not in beside:
            beside[index.table] = Beside(scene.staying(index.table))
        for other in beside[index.table].turned(index):
            if other.oid < index.oid and other.usable and reversed_equal(other, index):
                yield (
                    index,
                    Finding(
                        "same-backwards",
                        "info",
                        f"{other.qualified} read backwards gives the order of {index.qualified}",
                        str(index.qualified),
                        _versus(index, other),
                    ),
                )


def superfluous_after_plan(scene: Scene, built: tuple[Draft, ...]) -> Iterator[Found]:
    """What the plan makes superfluous: advice, as the plan does not ask to drop it."""
    planned = by_table(draft.wanted for draft in built)
    for draft in built:
        for index in draft.supersedes:
            name = str(index.qualified)
            found = None if draft.wanted is None else cover(draft.wanted, index)
            against = cautions(
                scene.catalog, index, [*scene.staying(index.table), *planned.get(index.table, ())]
            )
            yield (
                index,
                Finding(
                    "superfluous-after-plan",
                    "warning",
                    f"{name} is superfluous once {draft.label} (line {draft.statement.line}) "
                    f"is built, which {found.words if found else 'serves the same queries'}"
                    + "".join(f"; but {name} {clause}" for clause in against)
                    + foreign_key_words(scene.catalog, index),
                    name,
                    (*_evidence(index), ("planned", draft.index.sql)),
                    f"after the build: {drop_sql(scene.catalog, index)}",
                ),
            )


RULES: tuple[Callable[[Scene, tuple[Draft, ...]], Iterator[Found]], ...] = (
    invalid_leftovers,
    redundant,
    equal_constraints,
    equal_backwards,
    superfluous_after_plan,
)
REMOVABLE = ("invalid-index", "duplicate-index", "redundant-index", "superfluous-after-plan")
"""The rules that advise to drop an index."""


def foreign_keys_without_index(scene: Scene, built: tuple[Draft, ...]) -> Iterator[Finding]:
    """Rule 21: deleting from the referenced table reads the whole of the other one."""
    catalog = scene.catalog
    planned = by_table(draft.wanted for draft in built)
    for key in catalog.foreign_keys:
        there = [*scene.staying(key.table), *planned.get(key.table, ())]
        if any(supports(catalog, index, key) for index in there):
            continue
        table, referenced = catalog.relation(key.table), catalog.relation(key.referenced)
        columns = {c.number: sql.quote(c.name) for c in catalog.columns_of(key.table)}
        names = ", ".join(columns[number] for number in key.columns)
        yield Finding(
            "foreign-key-without-index",
            "info",
            f"no index serves the foreign key {sql.quote(key.name)} of {table.qualified}: "
            f"each delete in {referenced.qualified} reads the whole table",
            str(table.qualified),
            (("columns", names), ("rows", int(max(table.rows, 0)))),
            f"CREATE INDEX CONCURRENTLY ON {table.qualified} ({names})",
        )


def _remaining(scene: Scene) -> Iterator[Index]:
    """Go through the indexes that the plan leaves and that are not an extension's."""
    for index in scene.catalog.indexes:
        if not scene.drops(index) and index.extension is None:
            yield index


def _evidence(index: Index) -> Evidence:
    return (
        ("definition", index.definition),
        ("size", units.size(index.bytes)),
        ("bytes", index.bytes),
        ("scans", index.scans),
    )


def _versus(index: Index, keeper: Index) -> Evidence:
    return (
        *_evidence(index),
        ("keeper", str(keeper.qualified)),
        ("keeper definition", keeper.definition),
        ("keeper size", units.size(keeper.bytes)),
    )
