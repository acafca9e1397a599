"""Which table a statement means, and whether it may be indexed."""

from __future__ import annotations

from dataclasses import replace

from indexlab import sql
from indexlab.audit.drafts import Draft, Facts
from indexlab.audit.names import Name, candidates, clearly_best, nearest, ranking
from indexlab.audit.resolutions import resolved
from indexlab.audit.verdicts import Finding
from indexlab.catalog import INDEXABLE, Relation
from indexlab.sql import RelationName

SYSTEM_SCHEMAS = ("pg_catalog", "information_schema", "pg_toast")


def outside_of_the_system(facts: Facts, draft: Draft) -> Draft:
    """Rule 22: nobody may index the system's own tables."""
    table = draft.index.table
    path = _path(facts, draft)
    hidden = table.schema is None and table.name.startswith("pg_")
    known = facts.catalog.find(table, path) or facts.catalog.elsewhere(table.name)
    if table.schema not in SYSTEM_SCHEMAS and (known or not hidden):
        return draft
    return draft.found(
        "system-catalog",
        "error",
        f"{table} belongs to the system, which takes no indexes of users",
        subject=str(table),
        verdict="refuse",
    )


def its_table(facts: Facts, draft: Draft) -> Draft:
    """Rules 25 and 26: the table by search_path, in the one other schema, or by a near name."""
    catalog, written = facts.catalog, draft.index.table
    found = catalog.find(written, _path(facts, draft))
    if found is None:
        return _missing_table(facts, draft, written)
    if written.schema is None:
        draft = draft.found(
            "qualified",
            "info",
            f"{written} is {found.qualified} by the search_path; the statement now says so",
            subject=str(found.qualified),
        )
    return replace(draft, relation=found, index=draft.index.revise(table=found.qualified))


def _missing_table(facts: Facts, draft: Draft, written: RelationName) -> Draft:
    catalog = facts.catalog
    for resolution in facts.resolutions:
        meant = resolution.table(catalog, written)
        if meant is not None:
            finding = resolved(f"table {written}", str(meant.qualified), resolution)
            return _fixed_table(draft, meant, finding)
    elsewhere = catalog.elsewhere(sql.truncate(written.name))
    tables = [item for item in elsewhere if item.kind in INDEXABLE]
    places = ", ".join(str(item.qualified) for item in tables or elsewhere)
    schema_exists = written.schema is None or written.schema in catalog.schemas
    if len(tables) == 1 and (written.schema is None or not schema_exists):
        return _fixed_table(
            draft,
            tables[0],
            Finding(
                "wrong-schema",
                "warning",
                f"{written} is not found: wrong schema, it exists as {places}",
                str(written),
                (("exists as", places),),
                f"write {places}",
            ),
        )
    if tables:
        several = "in several schemas" if len(tables) > 1 else "in another schema"
        return draft.found(
            "ambiguous-table",
            "error",
            f"{written} is not found, but the name exists {several}: {places}",
            subject=str(written),
            evidence=(("candidates", places),),
            fix="write the schema that is meant",
            verdict="ask",
        )
    if elsewhere:
        return replace(draft, relation=elsewhere[0])  # the next rule says what it is
    return _near_table(facts, draft, written)


def _near_table(facts: Facts, draft: Draft, written: RelationName) -> Draft:
    """Look for the name among the tables of its schema, or of all if there is none to look in."""
    catalog = facts.catalog
    inside = [written.schema] if written.schema in catalog.schemas else list(catalog.schemas)
    tables = [relation for schema in inside for relation in catalog.indexable(schema)]
    ranked = candidates(written.name, {Name(r.name) for r in tables}, facts.mentioned)
    best = clearly_best(written.name, ranked)
    meant = [r for r in tables if best is not None and r.name == best.name]
    finding = Finding(
        "missing-table",
        "error",
        f"table {written} does not exist{nearest(ranked)}",
        str(written),
        ranking(ranked),
        f"write {meant[0].qualified}" if len(meant) == 1 else "name a table that exists",
    )
    # Half of a table's name is not enough to build on it: only spelling is corrected here.
    if best is not None and best.rank < 3 and len(meant) == 1:
        return _fixed_table(draft, meant[0], finding)
    return replace(
        draft,
        findings=(*draft.findings, replace(finding, decides=True)),
        verdict="ask" if ranked else "refuse",
    )


def _fixed_table(draft: Draft, table: Relation, finding: Finding) -> Draft:
    return replace(
        draft,
        index=draft.index.revise(table=table.qualified),
        relation=table,
        corrected=True,
        findings=(*draft.findings, finding),
    )


def a_kind_that_takes_indexes(_facts: Facts, draft: Draft) -> Draft:
    """Rule 22: views and the like take none."""
    relation = draft.table()
    name = str(relation.qualified)
    if relation.kind not in INDEXABLE:
        return draft.found(
            "not-a-table",
            "error",
            f"{name} is a {relation.kind}, which takes no index",
            subject=name,
            evidence=(("kind", relation.kind),),
            fix="index the tables beneath it" if relation.kind == "view" else "",
            verdict="refuse",
        )
    return draft


def allowed_for_this_role(facts: Facts, draft: Draft) -> Draft:
    """Rule 37: only the owner may, and only where it may create objects."""
    relation, user = draft.table(), facts.catalog.server.user
    name = str(relation.qualified)
    if not relation.owned:
        return draft.found(
            "not-owner",
            "error",
            f"{name} belongs to {sql.quote(relation.owner)}, and {sql.quote(user)} may not index it",
            subject=name,
            evidence=(("owner", relation.owner), ("user", user)),
            fix=f"connect as {sql.quote(relation.owner)}",
            verdict="refuse",
        )
    if not relation.creatable:
        return draft.found(
            "no-create-privilege",
            "error",
            f"{sql.quote(user)} may not create anything in schema {sql.quote(relation.schema)}",
            subject=name,
            fix=f"GRANT CREATE ON SCHEMA {sql.quote(relation.schema)} TO {sql.quote(user)}",
            verdict="refuse",
        )
    return draft


def _path(facts: Facts, draft: Draft) -> tuple[str, ...] | None:
    path = draft.statement.search_path
    if path is None:
        return None
    user = facts.catalog.server.user
    return tuple(user if schema == "$user" else schema for schema in path)
