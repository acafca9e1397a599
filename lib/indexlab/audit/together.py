"""What planned statements mean for each other and for the indexes that exist.

Every rule takes all drafts and returns all drafts. A statement is dropped from the plan only for
a keeper that stays: an existing index that the plan does not drop, or a statement that is built.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from indexlab import sql, units
from indexlab.audit.covering import (
    Cover,
    cautions,
    cover,
    drop_sql,
    foreign_keys,
    obstacles,
    reversed_equal,
)
from indexlab.audit.creates import Draft
from indexlab.audit.verdicts import Evidence
from indexlab.catalog import Catalog, Index

Drafts = tuple[Draft, ...]


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

    def drops(self, index: Index) -> bool:
        """Return whether the plan drops this index."""
        return any(item.oid == index.oid for item in self.dropped)

    def staying(self, table: int) -> tuple[Index, ...]:
        """Return the indexes of a table that the plan leaves."""
        return tuple(i for i in self.catalog.indexes_of(table) if not self.drops(i))


def settle(scene: Scene, drafts: Drafts) -> Drafts:
    """Put all statements through the rules between them."""
    for rule in RULES:
        drafts = rule(scene, drafts)
    return drafts


def each_has_a_name(scene: Scene, drafts: Drafts) -> Drafts:
    """Rule 30: an unnamed index gets the name that the server would give it."""
    taken = {(d.relation.schema, d.index.name) for d in drafts if d.relation and d.index.name}
    named: list[Draft] = []
    for draft in drafts:
        if draft.relation is None or draft.index.name is not None:
            named.append(draft)
            continue
        schema = draft.relation.schema
        name = next(
            name
            for name in _proposals(draft)
            if scene.catalog.named(schema, name) is None and (schema, name) not in taken
        )
        taken.add((schema, name))
        wanted = None if draft.wanted is None else replace(draft.wanted, name=name)
        named.append(
            replace(draft, index=draft.index.revise(name=name), wanted=wanted).found(
                "unnamed",
                "info",
                f"the index has no name, and running its statement twice makes two; it is called {name}",
                fix=f"write CREATE INDEX {sql.quote(name)} ON ...",
            )
        )
    return tuple(named)


def _proposals(draft: Draft) -> Iterator[str]:
    """Write names as ChooseIndexName does: table, columns, idx, and a number if need be."""
    assert draft.relation is not None
    words = [key.column or _word_of(key.expression) for key in draft.index.keys]
    columns, table = "_".join([*words, *draft.index.include]), draft.relation.name
    number = 0
    while True:
        ending = f"_idx{number or ''}"
        room = sql.MAX_IDENTIFIER_BYTES - len(ending) - 1
        while len(table.encode()) + len(columns.encode()) > room:
            if len(table.encode()) > len(columns.encode()):
                table = table[:-1]
            else:
                columns = columns[:-1]
        yield f"{table}_{columns}{ending}"
        number += 1


def _word_of(expression: str) -> str:
    called = re.match(r'(?:\w+\.)?"?(\w+)"?\(', expression)
    return called[1] if called else "expr"


def names_are_free(scene: Scene, drafts: Drafts) -> Drafts:
    """Rules 28 and 29: by schema and name among all kinds of relations."""
    return tuple(_name_is_free(scene, d) if d.verdict is None else d for d in drafts)


def _name_is_free(scene: Scene, draft: Draft) -> Draft:
    wanted = _wanted(draft)
    holder = scene.catalog.named(wanted.schema, wanted.name)
    if holder is None or any(
        item.oid == holder.oid and item.place < draft.place for item in scene.dropped
    ):
        return draft
    name = str(holder.qualified)
    existing = scene.catalog.index(wanted.schema, wanted.name)
    silently = (
        "; IF NOT EXISTS compares names only and would pass over it in silence"
        if draft.index.if_not_exists
        else ""
    )
    if existing is None:
        return draft.found(
            "name-taken",
            "error",
            f"the name {name} is taken by a {holder.kind}{silently}",
            subject=name,
            evidence=(("kind", holder.kind),),
            fix="choose another name",
            verdict="refuse",
        )
    if not existing.equals(wanted):
        broken = "" if existing.usable else ", which is invalid"
        return draft.found(
            "name-taken",
            "error",
            f"the name {name} is taken by another index{broken}: {existing.definition}{silently}",
            subject=name,
            evidence=_evidence(existing),
            fix="choose another name, or drop the other index first",
            verdict="refuse",
        )
    if existing.usable:
        return draft.found(
            "exists",
            "info",
            f"{name} exists as wanted",
            subject=name,
            evidence=_evidence(existing),
            verdict="skip",
        )
    if existing.building:
        return draft.found(
            "being-built",
            "warning",
            f"another session is building {name} now",
            subject=name,
            fix="wait for it, then audit again",
            verdict="skip",
        )
    return draft.found(
        "invalid-leftover",
        "warning",
        f"{name} exists but is invalid, as a failed build leaves it{silently}; "
        "it is dropped and built anew",
        subject=name,
        evidence=_evidence(existing),
        fix=drop_sql(scene.catalog, existing),
    )


def not_there_already(scene: Scene, drafts: Drafts) -> Drafts:
    """Rules 1 to 9 against what exists and stays."""
    return tuple(_not_there(scene, d) if d.verdict is None else d for d in drafts)


def _not_there(scene: Scene, draft: Draft) -> Draft:
    wanted = _wanted(draft)
    covers = [c for i in scene.staying(wanted.table) if (c := cover(i, wanted)) is not None]
    if not covers:
        return draft
    found = min(covers, key=lambda c: (c.how != "duplicate", len(c.keeper.keys), c.keeper.oid))
    keeper = found.keeper
    duplicate = found.how == "duplicate"
    return draft.found(
        "duplicate-index" if duplicate else "covered-by-existing",
        "warning",
        f"{draft.label} is redundant: {keeper.qualified} {found.words}"
        + (_storage_difference(keeper, wanted) if duplicate else ""),
        subject=str(keeper.qualified),
        evidence=_evidence(keeper),
        fix="leave the statement out",
        verdict="skip",
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


def no_name_twice(_scene: Scene, drafts: Drafts) -> Drafts:
    """Rule 28 between the statements, after the names are cut to 63 bytes."""
    settled: list[Draft] = []
    for draft in drafts:
        earlier = [d for d in settled if d.verdict is None and _share_a_name(d, draft)]
        clash = earlier and draft.verdict is None
        settled.append(_named_twice(draft, earlier[0]) if clash else draft)
    return tuple(settled)


def _share_a_name(one: Draft, other: Draft) -> bool:
    if one.wanted is None or other.wanted is None:
        return False
    return one.wanted.qualified == other.wanted.qualified


def _named_twice(draft: Draft, earlier: Draft) -> Draft:
    line = earlier.statement.line
    if _wanted(earlier).equals(_wanted(draft)):
        return draft.found(
            "duplicate-in-plan",
            "warning",
            f"{draft.label} is in the plan already, on line {line}",
            evidence=(("line", line),),
            fix="leave the statement out",
            verdict="skip",
        )
    return draft.found(
        "name-twice",
        "error",
        f"{draft.label} is the name of another index already, on line {line}",
        evidence=(("line", line), ("definition", earlier.index.sql)),
        fix="choose another name",
        verdict="refuse",
    )


def not_covered_by_the_plan(_scene: Scene, drafts: Drafts) -> Drafts:
    """Rules 1 to 9 between the statements; rule 7: what is left out has a keeper that is built."""
    built = [draft for draft in drafts if draft.verdict is None]
    return tuple(_not_covered(draft, built) for draft in drafts)


def _not_covered(draft: Draft, built: list[Draft]) -> Draft:
    if draft.wanted is None or draft.verdict not in (None, "skip"):
        return draft
    if any(finding.rule == "duplicate-in-plan" for finding in draft.findings):
        return draft
    keepers = [(d, c) for d in _keepers(draft, built) if (c := _cover(d, draft)) is not None]
    # Some keeper is itself covered by none: covering is a strict order among the statements.
    keepers = [(d, c) for d, c in keepers if not _keepers(d, built)]
    if not keepers:
        return draft
    keeper, found = max(keepers, key=lambda item: len(_wanted(item[0]).keys))
    same = found.how == "duplicate"
    return draft.found(
        "duplicate-in-plan" if same else "covered-by-planned",
        "warning",
        f"{draft.label} is redundant: the planned {keeper.label} (line {keeper.statement.line}) "
        f"{found.words}",
        subject=keeper.label,
        evidence=(
            ("index", keeper.label),
            ("line", keeper.statement.line),
            ("definition", keeper.index.sql),
        ),
        fix="leave the statement out",
        verdict="skip",
    )


def _keepers(draft: Draft, built: list[Draft]) -> list[Draft]:
    """Return the statements that cover a draft; of equal ones, only the first covers the others."""
    return [
        other
        for other in built
        if other is not draft
        and _cover(other, draft) is not None
        and (_cover(draft, other) is None or other.place < draft.place)
    ]


def _cover(keeper: Draft, draft: Draft) -> Cover | None:
    return cover(_wanted(keeper), _wanted(draft))


def what_it_replaces(scene: Scene, drafts: Drafts) -> Drafts:
    """Rules 2 to 6 against existing indexes: they can go once the statement is built."""
    return tuple(_replaces(scene, d, drafts) if d.verdict is None else d for d in drafts)


def _replaces(scene: Scene, draft: Draft, drafts: Drafts) -> Draft:
    wanted = _wanted(draft)
    staying = scene.staying(wanted.table)
    planned = [d.wanted for d in drafts if d.verdict is None and d.wanted is not None]
    for existing in staying:
        found = cover(wanted, existing)
        if found is None or not existing.usable or obstacles(scene.catalog, existing):
            continue
        name = str(existing.qualified)
        against = cautions(scene.catalog, existing, [*staying, *planned])
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
            evidence=_evidence(existing),
            fix="" if against else f"after the build: {drop_sql(scene.catalog, existing)}",
        )
    return draft


def foreign_key_words(catalog: Catalog, index: Index) -> str:
    """Say which foreign keys the index supports, and that its keeper does as well."""
    names = ", ".join(sql.quote(key.name) for key in foreign_keys(catalog, index))
    return f"; the wider one serves the foreign key {names} as well" if names else ""


def the_same_backwards(scene: Scene, drafts: Drafts) -> Drafts:
    """Rule 10: an index is read in both directions; only said, as nobody asked to change it."""
    return tuple(_backwards(scene, d) if d.verdict is None else d for d in drafts)


def _backwards(scene: Scene, draft: Draft) -> Draft:
    for existing in scene.staying(_wanted(draft).table):
        if existing.usable and reversed_equal(existing, _wanted(draft)):
            draft = draft.found(
                "same-backwards",
                "info",
                f"{existing.qualified} read backwards gives the order of {draft.label}",
                subject=str(existing.qualified),
                evidence=_evidence(existing),
                fix="leave the statement out if the direction was all that it was for",
            )
    return draft


def built_concurrently(_scene: Scene, drafts: Drafts) -> Drafts:
    """Rule 37: CONCURRENTLY does not block writers, and fails in a transaction."""
    return tuple(_concurrently(d) if d.verdict is None else d for d in drafts)


def _concurrently(draft: Draft) -> Draft:
    if draft.statement.in_transaction:
        draft = draft.found(
            "in-transaction",
            "info",
            f"{draft.label} stands between BEGIN and COMMIT, where CREATE INDEX CONCURRENTLY "
            "fails; it is built outside of a transaction",
        )
    if not draft.index.concurrently:
        draft = draft.found(
            "not-concurrent",
            "info",
            f"{draft.label} would block writes to its table while it is built; "
            "it is built CONCURRENTLY",
        )
    return draft


RULES: tuple[Callable[[Scene, Drafts], Drafts], ...] = (
    each_has_a_name,
    names_are_free,
    not_there_already,
    no_name_twice,
    not_covered_by_the_plan,
    what_it_replaces,
    the_same_backwards,
    built_concurrently,
)


def _wanted(draft: Draft) -> Index:
    assert draft.wanted is not None  # no draft without a verdict comes here without one
    return draft.wanted


def _evidence(index: Index) -> Evidence:
    return (
        ("index", str(index.qualified)),
        ("definition", index.definition),
        ("size", units.size(index.bytes)),
        ("scans", index.scans),
    )
