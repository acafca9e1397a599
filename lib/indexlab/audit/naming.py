"""What an index is called, and whether the name is free."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from indexlab import sql
from indexlab.audit.covering import drop_sql
from indexlab.audit.drafts import Draft, Drafts, Facts, Scene, index_evidence
from indexlab.catalog import Index
from indexlab.plan import IndexDef


def its_length(_facts: Facts, draft: Draft) -> Draft:
    """Rule 28: a name of more than 63 bytes is cut, and nobody says so."""
    name = draft.index.name or ""
    if len(name.encode()) < sql.MAX_IDENTIFIER_BYTES - 3:
        return draft
    longer = re.search(re.escape(name) + r"[\w$]+", draft.statement.text)
    if longer is None:
        return draft
    return draft.found(
        "truncated-name",
        "warning",
        f"{longer[0]} is longer than {sql.MAX_IDENTIFIER_BYTES} bytes: the server calls it {name}",
        evidence=(("bytes", len(longer[0].encode())),),
        fix="choose a shorter name",
    )


def each_has_a_name(scene: Scene, drafts: Drafts) -> Drafts:
    """Rule 30: an unnamed index gets the name that the server would give it.

    One that has been built under such a name is found there, so that a plan that has been applied
    is not taken for another one.
    """
    taken = {(d.relation.schema, d.index.name) for d in drafts if d.relation and d.index.name}
    named: list[Draft] = []
    # What was proposed for one draft and was taken is not tried again for the next.
    proposals: dict[tuple[int, tuple[str, ...]], Iterator[str]] = {}
    for draft in drafts:
        if draft.relation is None or draft.index.name is not None:
            named.append(draft)
            continue
        schema, table = draft.relation.schema, draft.relation.name
        words = _words(draft.index)
        name = next(
            name
            for name in proposals.setdefault((draft.relation.oid, words), _proposals(table, words))
            if (schema, name) not in taken and _is_free_or_its_own(scene, draft, schema, name)
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


def _is_free_or_its_own(scene: Scene, draft: Draft, schema: str, name: str) -> bool:
    holder = scene.catalog.named(schema, name)
    if holder is None:
        return True
    existing = scene.catalog.index(schema, name)
    if existing is None or draft.wanted is None or scene.dropped_before(existing.oid, draft.place):
        return False
    return existing.equals(replace(draft.wanted, name=name))


def _words(index: IndexDef) -> tuple[str, ...]:
    keys = (key.column or _word_of(key.expression) for key in index.keys)
    return (*keys, *index.include)


def _proposals(table: str, words: tuple[str, ...]) -> Iterator[str]:
    """Write names as ChooseIndexName does: table, columns, idx, and a number if need be."""
    columns = "_".join(words)
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
    wanted = draft.planned()
    holder = scene.catalog.named(wanted.schema, wanted.name)
    if holder is None or scene.dropped_before(holder.oid, draft.place):
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
    # Its own definition does not say that an index backs a constraint of such a kind.
    if not replace(existing, deferrable=False, exclusion=False).equals(wanted):
        broken = "" if existing.usable else ", which is invalid"
        return draft.found(
            "name-taken",
            "error",
            f"the name {name} is taken by another index{broken}: {existing.definition}{silently}",
            subject=name,
            evidence=index_evidence(existing),
            fix="choose another name, or drop the other index first",
            verdict="refuse",
        )
    if existing.usable:
        return draft.found(
            "exists",
            "info",
            f"{name} exists as wanted"
            + (f", for the constraint {existing.constraint}" if existing.constraint else ""),
            subject=name,
            evidence=index_evidence(existing),
            verdict="skip",
        )
    return _exists_but_invalid(scene, draft, existing, silently)


def _exists_but_invalid(scene: Scene, draft: Draft, existing: Index, silently: str) -> Draft:
    name = str(existing.qualified)
    if existing.building:
        return draft.found(
            "being-built",
            "warning",
            f"another session is building {name} now",
            subject=name,
            fix="wait for it, then audit again",
            verdict="skip",
        )
    if scene.catalog.relation(existing.oid).kind == "partitioned index":
        return draft.found(
            "unfinished-index",
            "warning",
            f"{name} is invalid until an index of every partition is attached to it; "
            "what is missing is built",
            subject=name,
            evidence=index_evidence(existing),
        )
    return draft.found(
        "invalid-leftover",
        "warning",
        f"{name} exists but is invalid, as a failed build leaves it{silently}; "
        "it is dropped and built anew",
        subject=name,
        evidence=index_evidence(existing),
        fix=drop_sql(scene.catalog, existing),
    )
