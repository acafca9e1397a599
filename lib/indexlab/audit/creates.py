"""What is right or wrong about one CREATE INDEX by itself: table, columns, method, words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from indexlab import sql
from indexlab.audit.names import Candidate, Name, candidates, clearly_best
from indexlab.audit.verdicts import Evidence, Finding, Severity, Verdict
from indexlab.catalog import INDEXABLE, Catalog, Index, Relation, Unresolved
from indexlab.plan import CreateIndex, IndexDef
from indexlab.sql import RelationName

SYSTEM_SCHEMAS = ("pg_catalog", "information_schema", "pg_toast")
SYSTEM_COLUMNS = ("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid")
MAX_COLUMNS = 32
OPTIONS = (
    ("btree", ("fillfactor", "deduplicate_items")),
    ("hash", ("fillfactor",)),
    ("gist", ("fillfactor", "buffering")),
    ("spgist", ("fillfactor",)),
    ("gin", ("fastupdate", "gin_pending_list_limit")),
    ("brin", ("pages_per_range", "autosummarize")),
)
"""The storage parameters of the methods that come with the server."""
REMEDIES = (
    ("gin_trgm_ops", "CREATE EXTENSION pg_trgm"),
    ("gist_trgm_ops", "CREATE EXTENSION pg_trgm"),
    ("vector_", "CREATE EXTENSION vector"),
)


@dataclass(frozen=True, slots=True)
class Draft:
    """A planned CREATE INDEX on its way through the rules."""

    statement: CreateIndex
    place: int
    """Which statement of the plan it is."""
    index: IndexDef
    """The index as corrected so far."""
    verdict: Verdict | None = None
    """None as long as the statement may be built."""
    corrected: bool = False
    findings: tuple[Finding, ...] = ()
    relation: Relation | None = None
    wanted: Index | None = None
    """The index in the terms of the catalog, once all of it is found there."""
    supersedes: tuple[Index, ...] = ()
    """The existing indexes that are superfluous once it is built."""
    replaces: tuple[Index, ...] = ()
    """Those of them that nothing speaks against dropping."""

    @property
    def label(self) -> str:
        """What messages call the index."""
        return sql.quote(self.index.name) if self.index.name else "the unnamed index"

    def found(
        self,
        rule: str,
        severity: Severity,
        message: str,
        *,
        subject: str = "",
        evidence: Evidence = (),
        fix: str = "",
        verdict: Verdict | None = None,
    ) -> Draft:
        """Return the draft with one more finding and, where one is given, the verdict."""
        finding = Finding(rule, severity, message, subject or self.label, evidence, fix)
        return replace(self, findings=(*self.findings, finding), verdict=self.verdict or verdict)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules know beside the statement."""

    catalog: Catalog
    mentioned: frozenset[str]
    """The words of the workload."""


Rule = Callable[[Facts, Draft], Draft]


def resolve(facts: Facts, statement: CreateIndex, place: int) -> Draft:
    """Put one statement through the rules, up to the first that settles its verdict."""
    draft = Draft(statement, place, statement.index)
    for rule in RULES:
        draft = rule(facts, draft)
        if draft.verdict is not None:
            break
    return draft


def outside_of_the_system(facts: Facts, draft: Draft) -> Draft:
    """Rule 22: nobody may index the system's own tables."""
    table = draft.index.table
    path = _path(facts, draft)
    hidden = table.schema is None and table.name.startswith("pg_")
    if table.schema not in SYSTEM_SCHEMAS and not (
        hidden and facts.catalog.find(table, path) is None
    ):
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
    tables = [r for r in catalog.relations if r.kind in INDEXABLE and r.schema in inside]
    ranked = candidates(written.name, {Name(r.name) for r in tables}, facts.mentioned)
    best = clearly_best(written.name, ranked)
    meant = [r for r in tables if best is not None and r.name == best.name]
    nearest = _nearest(ranked)
    finding = Finding(
        "missing-table",
        "error",
        f"table {written} does not exist{nearest}",
        str(written),
        _evidence(ranked),
        f"write {meant[0].qualified}" if len(meant) == 1 else "name a table that exists",
    )
    # Half of a table's name is not enough to build on it: only spelling is corrected here.
    if best is not None and best.rank < 3 and len(meant) == 1:
        return _fixed_table(draft, meant[0], finding)
    return replace(
        draft, findings=(*draft.findings, finding), verdict="ask" if ranked else "refuse"
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
    """Rules 22 and 23: views and the like take none, partitioned tables take them in parts."""
    relation = _relation(draft)
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
    if relation.kind == "partitioned table":
        return draft.found(
            "partitioned-table",
            "error",
            f"{name} is partitioned, and CONCURRENTLY cannot build an index on all its parts",
            subject=name,
            fix=f"CREATE INDEX ON ONLY {name}, build one CONCURRENTLY on each partition, "
            "then ALTER INDEX ... ATTACH PARTITION",
            verdict="refuse",
        )
    return draft


def allowed_for_this_role(facts: Facts, draft: Draft) -> Draft:
    """Rule 37: only the owner may, and only where it may create objects."""
    relation, user = _relation(draft), facts.catalog.server.user
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


def its_columns(facts: Facts, draft: Draft) -> Draft:
    """Rules 24, 26 and 27: in keys, INCLUDE, expressions and predicate."""
    relation, index = _relation(draft), draft.index
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
            f"column {sql.quote(written)} does not exist in {relation.qualified}{_nearest(ranked)}",
            subject=f"{relation.qualified}.{sql.quote(written)}",
            evidence=_evidence(ranked),
            fix="name a column that exists" if best is None else f"write {sql.quote(best.name)}",
            verdict=None if best is not None else "ask" if ranked else "refuse",
        )
    if draft.verdict is not None or not renamed:
        return draft
    return replace(draft, index=index.revise(columns=dict(renamed)), corrected=True)


def no_virtual_columns(facts: Facts, draft: Draft) -> Draft:
    """Rule 24: a virtual generated column is stored nowhere; a stored one is fine."""
    relation = _relation(draft)
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


def within_the_methods_limits(facts: Facts, draft: Draft) -> Draft:
    """Rule 31: what the access method can do."""
    index, method = draft.index, facts.catalog.method(draft.index.method)
    if method is None:
        known = ", ".join(item.name for item in facts.catalog.methods)
        return draft.found(
            "missing-method",
            "error",
            f"access method {sql.quote(index.method)} does not exist; there are {known}",
            verdict="refuse",
        )
    beyond = (
        ("UNIQUE", index.unique and not method.can_unique),
        ("INCLUDE", bool(index.include) and not method.can_include),
        ("more than one column", len(index.keys) > 1 and not method.can_multicolumn),
        ("ASC, DESC or NULLS FIRST", _ordered(index) and not method.can_order),
    )
    for what, is_beyond in beyond:
        if is_beyond:
            draft = draft.found(
                "method-limit",
                "error",
                f"access method {method.name} does not support {what}",
                evidence=(("method", method.name),),
                fix="leave it out, or use btree",
                verdict="refuse",
            )
    return draft


def within_the_servers_limits(facts: Facts, draft: Draft) -> Draft:
    """Rule 31: at most 32 columns; NULLS NOT DISTINCT came with 15."""
    index, server = draft.index, facts.catalog.server
    number = len(index.keys) + len(index.include)
    if number > MAX_COLUMNS:
        return draft.found(
            "too-many-columns",
            "error",
            f"{draft.label} has {number} columns, and an index has at most {MAX_COLUMNS}",
            evidence=(("columns", number),),
            verdict="refuse",
        )
    if index.nulls_not_distinct and server.version < 150000:
        return draft.found(
            "server-too-old",
            "error",
            f"NULLS NOT DISTINCT needs PostgreSQL 15, and the server is {server.version_text}",
            verdict="refuse",
        )
    return draft


def its_storage(facts: Facts, draft: Draft) -> Draft:
    """The tablespace exists and is allowed, and the method knows the storage parameters."""
    index = draft.index
    known = next((names for method, names in OPTIONS if method == index.method), None)
    for name, _ in index.options:
        if known is not None and name not in known:
            return draft.found(
                "unknown-option",
                "error",
                f"{index.method} has no storage parameter {sql.quote(name)}; "
                f"it has {', '.join(known)}",
                verdict="refuse",
            )
    if index.tablespace is not None:
        spaces = {item.name: item.creatable for item in facts.catalog.tablespaces}
        if not spaces.get(index.tablespace, False):
            exists = index.tablespace in spaces
            return draft.found(
                "tablespace",
                "error",
                f"tablespace {sql.quote(index.tablespace)} "
                + ("does not take indexes of this role" if exists else "does not exist"),
                fix="leave TABLESPACE out, or name one of " + ", ".join(spaces),
                verdict="refuse",
            )
    return draft


def in_terms_of_the_catalog(facts: Facts, draft: Draft) -> Draft:
    """Rules 31 to 34: operator classes, collations, and what the server makes of expressions."""
    wanted = facts.catalog.wanted(draft.index)
    if isinstance(wanted, Unresolved):
        return _unresolved(facts, draft, wanted)
    unasked = [
        text
        for text in (
            *(key.expression for key in draft.index.keys if key.column is None),
            *filter(None, [draft.index.predicate]),
        )
        if facts.catalog.expression(wanted.table, text) is None
    ]
    if unasked:
        draft = draft.found(
            "expression-not-asked",
            "info",
            f"the server was not asked what it makes of {' and '.join(unasked)}",
            fix="read the catalog again with the revised plan, as audit.read does",
        )
    return replace(draft, wanted=wanted)


def _unresolved(facts: Facts, draft: Draft, missing: Unresolved) -> Draft:
    name, detail = missing.name, missing.detail
    match missing.what:
        case "opclass":
            rule, message = (
                "missing-operator-class",
                f"operator class {name} does not exist for access method {detail}",
            )
            schemas = {o.schema for o in facts.catalog.opclasses if o.name == name}
            remedies = [f"write {sql.quote(s)}.{name}" for s in sorted(schemas)]
            remedies += [remedy for start, remedy in REMEDIES if name.startswith(start)]
            fix = remedies[0] if remedies else "install the extension that brings it"
        case "opclass type":
            rule, message = (
                "operator-class-type",
                f"operator class {name} does not take the type of {detail}",
            )
            fix = "leave the operator class out, or name one for the type"
        case "type":
            rule, message = (
                "no-operator-class",
                f"the type of {name} has no default operator class for access method {detail}",
            )
            fix = f"CREATE EXTENSION btree_{detail}" if detail in ("gin", "gist") else ""
            fix = f"{fix}, or use btree" if fix else "index an expression of another type"
        case "collation":
            rule, message = "missing-collation", f"collation {name} does not exist"
            fix = "name one that pg_collation has"
        case _:
            rule, message = "expression-refused", f"the server refuses {name}: {detail}"
            fix = "write an expression over the columns of the table alone"
    return draft.found(rule, "error", message, fix=fix, verdict="refuse")


def its_name(_facts: Facts, draft: Draft) -> Draft:
    """Rule 28: a name of more than 63 bytes is cut, and nobody says so."""
    name = draft.index.name or ""
    longer = re.search(re.escape(name) + r"[\w$]+", draft.statement.text)
    if len(name.encode()) < sql.MAX_IDENTIFIER_BYTES - 3 or longer is None:
        return draft
    return draft.found(
        "truncated-name",
        "warning",
        f"{longer[0]} is longer than {sql.MAX_IDENTIFIER_BYTES} bytes: the server calls it {name}",
        evidence=(("bytes", len(longer[0].encode())),),
        fix="choose a shorter name",
    )


RULES: tuple[Rule, ...] = (
    outside_of_the_system,
    its_table,
    a_kind_that_takes_indexes,
    allowed_for_this_role,
    its_columns,
    no_virtual_columns,
    within_the_methods_limits,
    within_the_servers_limits,
    in_terms_of_the_catalog,
    its_storage,
    its_name,
)


def _path(facts: Facts, draft: Draft) -> tuple[str, ...] | None:
    path = draft.statement.search_path
    if path is None:
        return None
    user = facts.catalog.server.user
    return tuple(user if schema == "$user" else schema for schema in path)


def _relation(draft: Draft) -> Relation:
    assert draft.relation is not None  # no rule after its_table runs without one
    return draft.relation


def _ordered(index: IndexDef) -> bool:
    """Return whether a key says how it is ordered; ASC is nothing but a word in the statement."""
    bare = re.sub(r"""'(?:[^']|'')*'|"(?:[^"]|"")*\"""", "", index.sql)
    return re.search(r"\b(ASC|DESC|NULLS (FIRST|LAST))\b", bare) is not None


def _nearest(ranked: Iterable[Candidate]) -> str:
    shown = ", ".join(str(item) for item in ranked)
    return f"; nearest: {shown}" if shown else ""


def _evidence(ranked: Iterable[Candidate]) -> Evidence:
    return tuple((item.name, item.why) for item in ranked)
