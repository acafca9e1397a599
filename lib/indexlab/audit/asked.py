"""What follows from the answers of a server: refusals, and rows that stand in the way."""

from __future__ import annotations

from indexlab import units
from indexlab.audit.answers import Rows
from indexlab.audit.drafts import Draft, Facts
from indexlab.audit.duplicates import wants_counting
from indexlab.audit.scratch import wants_asking
from indexlab.audit.verdicts import Evidence


def as_a_server_builds_it(facts: Facts, draft: Draft) -> Draft:
    """Rules 32 to 34: immutability, operator classes and the like, in a server's own words."""
    if not wants_asking(draft):
        return draft
    answer = facts.answers.build(draft.index.sql)
    if answer is None or answer.unasked:
        why = "audit.read does that" if answer is None else answer.unasked
        return draft.found(
            "not-asked",
            "info",
            f"no server was asked whether it builds {draft.label}: {why}",
            fix="try the statement on a copy of the database",
        )
    if not answer.refusal:
        return draft
    evidence: Evidence = (
        ("asked", f"PostgreSQL {answer.version}"),
        ("target", f"PostgreSQL {facts.catalog.server.version_text}"),
        ("statement", answer.statement),
    )
    return draft.found(
        "expression-refused",
        "error",
        f"the server refuses {draft.label}: {answer.refusal}",
        evidence=evidence,
        fix="write it so that it depends on nothing but the row, such as "
        "AT TIME ZONE 'UTC' for a timestamptz"
        if "IMMUTABLE" in answer.refusal
        else "write what the server accepts",
        verdict="refuse",
    )


def without_duplicate_rows(facts: Facts, draft: Draft) -> Draft:
    """Rule 35: a UNIQUE index over duplicates fails at its end, and leaves an invalid index."""
    if not wants_counting(draft):
        return draft
    found = facts.answers.duplicate(draft.index.sql)
    if found is None:
        return draft
    name = str(draft.table().qualified)
    if found.uncounted:
        return draft.found(
            "duplicates-not-counted",
            "info",
            f"duplicates in {name} were not counted: {found.uncounted}",
            subject=name,
            fix="count them before the build, which fails if there are any",
        )
    if not found.groups:
        return draft
    return draft.found(
        "duplicate-rows",
        "error",
        f"{name} has {units.plural(found.groups, 'value')} more than once, "
        f"in {units.plural(found.rows, 'row')}: the build of {draft.label} would fail "
        "and leave an invalid index",
        subject=name,
        evidence=(("groups", found.groups), ("rows", found.rows)),
        fix="remove or change the duplicates first",
        verdict="refuse",
    )


LARGEST = {"btree": 2704, "brin": 8152}
"""Bytes that one entry may take on a page of 8 kB: BTMaxItemSize, and a whole page."""


def fitting_the_rows(facts: Facts, draft: Draft) -> Draft:
    """Rule 35: what an empty table takes may fail on a row, at the end of the build."""
    found = facts.answers.of_rows(draft.index.sql)
    if found is None or draft.wanted is None:
        return draft
    name = str(draft.table().qualified)
    if found.refusal:
        return draft.found(
            "refused-by-rows",
            "error",
            f"an expression of {draft.label} fails on a row of {name}: {found.refusal}",
            subject=name,
            evidence=(("condition", found.refusal),),
            fix="mend the rows, or write an expression that takes every value",
            verdict="refuse",
        )
    if found.unread:
        return draft.found(
            "rows-not-read",
            "info",
            f"whether every row of {name} fits {draft.label} is not known: {found.unread}",
            subject=name,
            fix="try the statement on a copy of the data",
        )
    return _fitting(draft, found, name)


def _fitting(draft: Draft, found: Rows, name: str) -> Draft:
    method = draft.planned().method
    most = LARGEST.get(method)
    # A summary of BRIN has the smallest and the largest value of every key.
    sides = 2 if method == "brin" else 1
    if most is None or sides * found.widest_row <= most:
        return draft
    sure = method == "btree" and found.widest_value > most
    width = found.widest_value if sure else sides * found.widest_row
    return draft.found(
        "wide-key",
        "error" if sure else "warning",
        f"{'a key' if sure else 'an entry'} of {draft.label} takes {'' if sure else 'up to '}"
        f"{units.plural(width, 'byte')} for some row of {name}, and at most "
        f"{units.count(most)} fit: the build {'fails' if sure else 'may fail'}",
        subject=name,
        evidence=(("bytes", width), ("largest", most)),
        fix="index a hash of the long column, such as md5(column), where equality is all that "
        "is asked",
        verdict="refuse" if sure else None,
    )
