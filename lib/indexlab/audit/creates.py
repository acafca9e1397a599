"""What is right or wrong about one CREATE INDEX by itself, before the others are looked at."""

from __future__ import annotations

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
    as_a_server_builds_it,
    without_duplicate_rows,
    fitting_the_rows,
)


def resolve(facts: Facts, statement: CreateIndex, place: int) -> Draft:
    """Put one statement through the rules, up to the first that settles its verdict."""
    draft = Draft(statement, place, statement.index)
    for rule in RULES:
        draft = rule(facts, draft)
        if draft.verdict is not None:
            break
    return draft
