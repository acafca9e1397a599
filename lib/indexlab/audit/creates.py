"""What is right or wrong about one CREATE INDEX by itself, before the others are looked at."""

from __future__ import annotations

from collections.abc import Iterable

from indexlab.audit.asked import (
    as_a_server_builds_it,
    fitting_the_rows,
    without_duplicate_rows,
)
from indexlab.audit.columns import its_columns, no_virtual_columns
from indexlab.audit.drafts import Draft, Facts, Rule
from indexlab.audit.methods import (
    in_terms_of_the_catalog,
    its_storage,
    plain_include,
    within_the_methods_limits,
    within_the_servers_limits,
)
from indexlab.audit.naming import its_length
from indexlab.audit.tables import (
    a_kind_that_takes_indexes,
    allowed_for_this_role,
    its_table,
    outside_of_the_system,
)
from indexlab.plan import CreateIndex

RULES: tuple[Rule, ...] = (
    outside_of_the_system,
    its_table,
    a_kind_that_takes_indexes,
    allowed_for_this_role,
    its_columns,
    no_virtual_columns,
    within_the_methods_limits,
    within_the_servers_limits,
    plain_include,
    in_terms_of_the_catalog,
    its_storage,
    its_length,
)
ANSWERED: tuple[Rule, ...] = (
    as_a_server_builds_it,
    without_duplicate_rows,
    fitting_the_rows,
)


def resolve(facts: Facts, statement: CreateIndex, place: int) -> Draft:
    """Put one statement through the rules, up to the first that settles its verdict; pure.

    What a server is to be asked about it is not judged yet.
    """
    return _through(RULES, facts, Draft(statement, place, statement.index))


def conclude(facts: Facts, draft: Draft) -> Draft:
    """Put a statement through the rules on what a server answered; pure."""
    return _through(ANSWERED, facts, draft)


def depends_on_expressions(draft: Draft) -> bool:
    """Return whether the server's words for expressions may change what becomes of a statement."""
    index = draft.statement.index
    return index.predicate is not None or any(key.column is None for key in index.keys)


def _through(rules: Iterable[Rule], facts: Facts, draft: Draft) -> Draft:
    for rule in rules:
        if draft.verdict is not None:
            break
        draft = rule(facts, draft)
    return draft
