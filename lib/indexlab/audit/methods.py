"""Whether the server can build what a statement asks for: method, types, words, storage."""

from __future__ import annotations

import re
from dataclasses import replace

from indexlab import sql
from indexlab.audit.drafts import Draft, Facts
from indexlab.catalog import Unresolved
from indexlab.plan import IndexDef

MAX_COLUMNS = 32
DEFAULT_ORDER = 1  # SortByDir, SortByNulls of the grammar
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


def plain_include(_facts: Facts, draft: Draft) -> Draft:
    """Rule 31: INCLUDE columns are not ordered or compared, so they take no such words."""
    if not draft.index.include:
        return draft
    parsed = sql.parse(draft.index.sql, "<index>")[0]
    for item in parsed.tree.index_including_params:
        element = item.index_elem
        words = (
            ("a collation", bool(element.collation)),
            ("an operator class", bool(element.opclass)),
            ("ASC or DESC", element.ordering > DEFAULT_ORDER),
            ("NULLS FIRST or LAST", element.nulls_ordering > DEFAULT_ORDER),
        )
        for what, is_there in words:
            if is_there:
                return draft.found(
                    "include-option",
                    "error",
                    f"INCLUDE takes columns only, and {sql.quote(element.name)} has {what}",
                    fix="leave it out, or make the column a key",
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
        case "collation type":
            rule, message = (
                "collation-type",
                f"the type of {detail} has no collation such as {name}",
            )
            fix = "leave COLLATE out"
        case "collation":
            rule, message = "missing-collation", f"collation {name} does not exist"
            fix = "name one that pg_collation has"
        case _:
            rule, message = "expression-refused", f"the server refuses {name}: {detail}"
            fix = "write an expression over the columns of the table alone"
    return draft.found(rule, "error", message, fix=fix, verdict="refuse")


def _ordered(index: IndexDef) -> bool:
    """Return whether a key says how it is ordered; ASC is nothing but a word in the statement."""
    bare = re.sub(r"""'(?:[^']|'')*'|"(?:[^"]|"")*\"""", "", index.sql)
    return re.search(r"\b(ASC|DESC|NULLS (FIRST|LAST))\b", bare) is not None
