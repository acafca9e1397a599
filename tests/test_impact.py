"""The impact of plans: read through a real sandbox, and what the audit makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from indexlab import audit as auditing
from indexlab import impact, plan, planning, target, workload
from indexlab.audit import Audit, Finding
from indexlab.catalog import Catalog
from indexlab.errors import InputError, SandboxError
from indexlab.explain import Explain
from indexlab.impact import Impact
from indexlab.planning import Planner, Weighed
from indexlab.sandbox import WhatIf, open_sandbox
from indexlab.sql import RelationName
from indexlab.target import Target

ORDERS = """
CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
INSERT INTO customers SELECT n, 'customer ' || n FROM generate_series(1, 2000) AS n;
CREATE TABLE orders (
    id int PRIMARY KEY,
    customer int NOT NULL REFERENCES customers,
    status text NOT NULL,
    created date NOT NULL,
    note text NOT NULL
);
INSERT INTO orders
SELECT n,
       1 + n % 2000,
       CASE WHEN n % 500 = 0 THEN 'open' ELSE 'done' END,
       date '2024-01-01' + n % 700,
       'note ' || n
  FROM generate_series(1, 40000) AS n;
VACUUM ANALYZE customers;
VACUUM ANALYZE orders;
"""
BY_CUSTOMER = """
-- name: of_customer
-- weight: 10
-- param c: SELECT id FROM customers ORDER BY id LIMIT 20
SELECT * FROM orders WHERE customer = :c;
"""
OPEN = """
-- name: newly_open
SELECT * FROM orders WHERE status = 'open' AND created >= '2025-11-01';
"""


@contextmanager
def planner(at: Target, queries: str, mode: str = "sandbox") -> Iterator[Planner]:
    work = workload.parse(queries) if queries else workload.Workload(())
    asked = Planner(at, work, mode=mode, keep=False, tell=lambda _words, _part: None)
    try:
        yield asked
    finally:
        asked.close()


@pytest.fixture
def weighed(database: Target) -> Callable[..., Weighed]:
    """Audit a plan in a scene and weigh it by a workload."""

    def run(schema: str, text: str, queries: str, mode: str = "sandbox") -> Weighed:
        with target.connect(database) as conn:
            for statement in filter(str.strip, schema.split(";\n")):
                conn.execute(statement)
            work = workload.parse(queries) if queries else None
            catalog, audit = auditing.read(conn, plan.parse(text), work)
        with planner(database, queries, mode) as asked:
            return asked.weigh(catalog, audit)

    return run


def known(weighed: Weighed) -> Impact:
    assert weighed.impact is not None, weighed.reason
    return weighed.impact


def verdicts(audit: Audit) -> dict[str, str]:
    return {item.label: item.verdict for item in audit.statements}


def finding(audit: Audit, label: str, rule: str) -> Finding:
    found = [
        one
        for item in (*audit.statements, *audit.existing)
        for one in item.findings
        if item.label == label and one.rule == rule
    ]
    (only,) = found
    return only


def rules_of(audit: Audit, label: str) -> set[str]:
    return {
        one.rule
        for item in (*audit.statements, *audit.existing)
        for one in item.findings
        if item.label == label
    }


# What no query uses


def test_an_index_that_no_query_uses_is_skipped_with_the_evidence(weighed) -> None:
    plans = "CREATE INDEX by_customer ON orders (customer);\nCREATE INDEX by_note ON orders (note);"
    found = weighed(ORDERS, plans, BY_CUSTOMER)
    assert verdicts(found.audit) == {"by_customer": "build", "by_note": "skip"}
    told = finding(found.audit, "by_note", "unused-by-workload")
    assert (told.severity, told.decides) == ("warning", True)
    assert "no query of the workload uses public.by_note" in told.message
    assert "the plans of the 1 query that read its table are the same, for 10 sets" in told.message
    earned = finding(found.audit, "by_customer", "used-by-workload")
    assert "of_customer uses it" in earned.message
    assert dict(earned.evidence)["worth beside the others"] > 0


def test_what_is_skipped_is_in_no_file(weighed) -> None:
    plans = (
        "CREATE INDEX by_customer ON orders (customer);\nCREATE INDEX by_note ON orders (note);\n"
        "COMMENT ON INDEX by_note IS 'for nobody';"
    )
    audit = weighed(ORDERS, plans, BY_CUSTOMER).audit
    again = plan.parse(auditing.revised_plan_sql(audit))
    assert [item.index.name for item in again.creates] == ["by_customer"]
    assert again.comments == ()
    assert "by_note" not in auditing.rollback_sql(audit)
    built = auditing.migration_sql(audit).splitlines()
    assert not [line for line in built if "by_note" in line and not line.startswith("--")]


def test_an_index_that_another_serves_for_is_skipped_and_that_one_named(weighed) -> None:
    plans = (
        "CREATE INDEX by_status ON orders (status, created);\n"
        "CREATE INDEX by_created ON orders (created, status);"
    )
    found = weighed(ORDERS, plans, OPEN)
    assert verdicts(found.audit) == {"by_status": "build", "by_created": "skip"}
    assert known(found).worth_alone("public.by_created") > 0
    assert known(found).supersedes("public.by_created") == ("public.by_status",)
    told = finding(found.audit, "by_created", "unused-by-workload")
    assert "beside public.by_status, which serves what it would serve alone" in told.message
    assert "(newly_open)" in told.message


def test_a_comment_has_an_unused_index_built_after_all(weighed) -> None:
    plans = (
        "-- indexlab: ignore unused-by-workload because the report of next year wants it\n"
        "CREATE INDEX by_note ON orders (note);"
    )
    audit = weighed(ORDERS, plans, BY_CUSTOMER).audit
    assert verdicts(audit) == {"by_note": "build"}
    told = finding(audit, "by_note", "unused-by-workload")
    assert told.suppressed == "the report of next year wants it"
    assert "unused-ignore" not in rules_of(audit, "by_note")


def test_a_comment_on_an_index_in_use_has_nothing_to_ignore(weighed) -> None:
    plans = (
        "-- indexlab: ignore unused-by-workload because who knows\n"
        "CREATE INDEX by_customer ON orders (customer);"
    )
    audit = weighed(ORDERS, plans, BY_CUSTOMER).audit
    assert "unused-ignore" in rules_of(audit, "by_customer")
    assert verdicts(audit) == {"by_customer": "build"}


def test_a_unique_index_enforces_and_is_not_skipped(weighed) -> None:
    audit = weighed(ORDERS, "CREATE UNIQUE INDEX u ON orders (note)", BY_CUSTOMER).audit
    assert verdicts(audit) == {"u": "build"}
    assert "unused-by-workload" not in rules_of(audit, "u")


def test_an_index_for_the_deletes_of_a_foreign_key_stays(weighed) -> None:
    plans = (
        "CREATE INDEX a ON orders (customer, note);\nCREATE INDEX b ON orders (customer, created);"
    )
    audit = weighed(ORDERS, plans, "-- name: q\nSELECT * FROM orders WHERE id = 5;").audit
    assert verdicts(audit) == {"a": "build", "b": "skip"}
    told = finding(audit, "a", "unused-by-workload")
    assert told.severity == "info"
    assert "serves deletes in public.customers through the foreign key" in told.message
    assert not [f for f in audit.advice if f.rule == "foreign-key-without-index"]


def test_without_a_workload_nothing_is_weighed(weighed) -> None:
    found = weighed(ORDERS, "CREATE INDEX by_note ON orders (note)", "")
    assert found.impact is None
    assert verdicts(found.audit) == {"by_note": "build"}


def test_off_is_off(weighed) -> None:
    found = weighed(ORDERS, "CREATE INDEX by_note ON orders (note)", BY_CUSTOMER, "off")
    assert (found.impact, found.reason) == (None, "Nothing was planned: --what-if is off.")
    assert verdicts(found.audit) == {"by_note": "build"}


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ("CREATE TABLE orders (customer int, note text)", "was never analyzed"),
        (
            "CREATE TABLE orders (customer int, note text);\nINSERT INTO orders SELECT 1, 'a';\n"
            "ANALYZE orders",
            "has 1 page, which are read whole",
        ),
    ],
)
def test_tables_of_which_nothing_is_known_prove_nothing(weighed, schema: str, why: str) -> None:
    queries = "-- name: q\nSELECT * FROM orders WHERE customer = $1"
    audit = weighed(schema, "CREATE INDEX by_note ON orders (note)", queries).audit
    assert verdicts(audit) == {"by_note": "build"}
    told = finding(audit, "by_note", "unused-by-workload")
    assert (told.severity, why in told.message) == ("info", True), told.message


def test_a_query_that_is_not_simulated_keeps_the_indexes_of_its_tables(weighed) -> None:
    queries = (
        BY_CUSTOMER + "-- name: broken\nSELECT * FROM customers WHERE no_such_function(name) > 1;"
    )
    plans = "CREATE INDEX by_note ON orders (note);\nCREATE INDEX by_name ON customers (name);"
    found = weighed(ORDERS, plans, queries)
    assert verdicts(found.audit) == {"by_note": "skip", "by_name": "build"}
    (told,) = [f for f in found.audit.advice if f.rule == "not-simulated"]
    assert told.message.startswith("query broken is not simulated, because ")
    assert "query broken is not seen whole" in (
        finding(found.audit, "by_name", "unused-by-workload").message
    )
    (broken,) = [q for q in known(found).queries if q.problem]
    assert "no_such_function" in broken.problem
    assert "not simulated, because" in known(found)._repr_html_()


def test_a_query_of_an_unknown_view_keeps_every_index(weighed) -> None:
    queries = BY_CUSTOMER + "-- name: broken\nSELECT * FROM some_view;"
    audit = weighed(ORDERS, "CREATE INDEX by_note ON orders (note)", queries).audit
    assert verdicts(audit) == {"by_note": "build"}


def test_what_runs_inside_of_a_function_is_not_taken_for_unused(weighed) -> None:
    schema = ORDERS + (
        "CREATE FUNCTION last_note(c int) RETURNS text STABLE LANGUAGE plpgsql AS "
        "$$ BEGIN RETURN (SELECT max(note) FROM orders WHERE customer = c); END $$"
    )
    queries = "-- name: f\nSELECT name, last_note(id) FROM customers WHERE id = 7;"
    audit = weighed(schema, "CREATE INDEX by_note ON orders (note)", queries).audit
    assert verdicts(audit) == {"by_note": "build"}
    told = finding(audit, "by_note", "unused-by-workload")
    assert "query f is not seen whole: calls public.last_note" in told.message


# How queries reach their tables


def test_a_query_through_a_view_uses_an_index_of_its_table(weighed) -> None:
    schema = ORDERS + "CREATE VIEW recent AS SELECT * FROM orders WHERE created > '2024-02-01'"
    queries = "-- name: v\nSELECT * FROM recent WHERE customer = 5;"
    plans = "CREATE INDEX by_customer ON orders (customer);\nCREATE INDEX by_note ON orders (note);"
    found = weighed(schema, plans, queries)
    assert verdicts(found.audit) == {"by_customer": "build", "by_note": "skip"}
    assert [q.query for q in known(found).users("public.by_customer")] == ["v"]


def test_a_query_of_a_partitioned_table_uses_an_index_of_a_part(weighed) -> None:
    schema = """
CREATE TABLE events (id int, day date NOT NULL, who int) PARTITION BY RANGE (day);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE INDEX events_day ON events (day);
INSERT INTO events SELECT n, date '2024-01-01' + n % 700, n % 5000 FROM generate_series(1, 40000) AS n;
VACUUM ANALYZE events
"""
    queries = (
        "-- name: of_one\nSELECT * FROM events WHERE who = 7;\n"
        "-- name: of_day\nSELECT * FROM events WHERE day = '2024-05-05';"
    )
    plans = "CREATE INDEX who_1 ON events_1 (who);\nCREATE INDEX id_2 ON events_2 (id);"
    found = weighed(schema, plans, queries)
    assert verdicts(found.audit) == {"who_1": "build", "id_2": "skip"}
    used = {q.query: q.uses_after for q in known(found).queries}
    assert used["of_one"] == ("public.who_1",)
    # The index of a part is told of by the name of the partitioned one.
    assert used["of_day"] == ("public.events_day",)


EVENTS = """
CREATE TABLE events (id int, day date NOT NULL, who int) PARTITION BY RANGE (day);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')
    PARTITION BY LIST (id);
CREATE TABLE events_2_all PARTITION OF events_2 DEFAULT;
INSERT INTO events SELECT n, date '2024-01-01' + n % 700, n % 5000 FROM generate_series(1, 40000) AS n;
VACUUM ANALYZE events
"""
OF_ONE = "-- name: of_one\nSELECT * FROM events WHERE who = 7;"


def test_a_planned_index_of_a_partitioned_table_is_known_by_its_parts(weighed) -> None:
    plans = "CREATE INDEX by_who ON events (who);\nCREATE INDEX by_id ON events (id);"
    found = weighed(EVENTS, plans, OF_ONE)
    assert verdicts(found.audit) == {"by_who": "build", "by_id": "skip"}
    impact = known(found)
    assert impact.queries[0].uses_after == ("public.by_who",)
    assert impact.worth("public.by_who") > 0


def test_names_that_need_quotes_are_known_again(weighed) -> None:
    schema = """
CREATE SCHEMA "Ö x";
CREATE TABLE "Ö x"."T" (a int, "B" int);
INSERT INTO "Ö x"."T" SELECT n, n FROM generate_series(1, 20000) AS n;
VACUUM ANALYZE "Ö x"."T"
"""
    long = "i" * 63
    plans = f'CREATE INDEX "{long}" ON "Ö x"."T" ("B");\nCREATE INDEX "I ""2" ON "Ö x"."T" (a);'
    found = weighed(schema, plans, '-- name: q\nSELECT * FROM "Ö x"."T" WHERE "B" = 5;')
    assert verdicts(found.audit) == {long: "build", 'I "2': "skip"}
    assert known(found).queries[0].uses_after == (str(RelationName("Ö x", long)),)


# Values


def test_plans_that_differ_by_value_are_told_apart(weighed) -> None:
    queries = (
        "-- name: by_status\n-- param s: SELECT DISTINCT status FROM orders ORDER BY 1\n"
        "SELECT * FROM orders WHERE status = :s;"
    )
    found = known(weighed(ORDERS, "CREATE INDEX by_status ON orders (status)", queries))
    (query,) = found.queries
    assert (query.sets, len(query.variants)) == (2, 2)
    by_use = {variant.uses_after: variant for variant in query.variants}
    assert by_use[()].cost_before == by_use[()].cost_after
    used = by_use["public.by_status",]
    assert query.cost_after == (by_use[()].cost_after + used.cost_after) / 2
    assert query.cost_before - query.cost_alone("public.by_status") == pytest.approx(
        (used.cost_before - used.cost_after) / 2
    )
    assert "2 sets of values, 2 different plans" in repr(found)


def test_normalized_text_is_planned_for_any_values(weighed) -> None:
    queries = "-- name: q\n-- weight: 3\nSELECT * FROM orders WHERE customer = $1 AND created > $2;"
    found = weighed(ORDERS, "CREATE INDEX by_customer ON orders (customer)", queries)
    (query,) = known(found).queries
    assert (query.generic, query.sets) == (True, 0)
    assert query.uses_after == ("public.by_customer",)
    assert known(found).worth("public.by_customer") == pytest.approx(
        3 * (query.cost_before - query.cost_after)
    )
    assert "planned for any values" in known(found)._repr_html_()


def test_a_sampler_that_fails_leaves_the_plan_for_any_values(weighed) -> None:
    queries = BY_CUSTOMER.replace("SELECT id FROM customers", "SELECT nothing FROM customers")
    found = weighed(ORDERS, "CREATE INDEX by_customer ON orders (customer)", queries)
    (query,) = known(found).queries
    assert query.generic
    assert 'column "nothing" does not exist' in query.note
    assert query.uses_after == ("public.by_customer",)


# Costs and existing indexes


def test_a_query_that_loses_by_a_drop_is_warned_of(weighed) -> None:
    schema = ORDERS + "CREATE INDEX old ON orders (customer)"
    audit = weighed(schema, "DROP INDEX old", BY_CUSTOMER).audit
    (item,) = audit.statements
    (told,) = [one for one in item.findings if one.rule == "query-cost-rises"]
    assert told.severity == "warning"
    assert told.message.startswith("query of_customer would cost ")
    assert "uses public.old, which the plan drops" in told.message


def test_an_index_that_the_plan_makes_idle_and_covers_may_go(weighed) -> None:
    schema = ORDERS + "CREATE INDEX old ON orders (status)"
    found = weighed(schema, "CREATE INDEX better ON orders (status, created)", OPEN)
    assert verdicts(found.audit) == {"better": "replace"}
    assert rules_of(found.audit, "public.old") >= {"superfluous-after-plan", "idle-after-plan"}
    (old,) = [item for item in found.audit.existing if item.label == "public.old"]
    assert old.drop == "DROP INDEX CONCURRENTLY public.old"


def test_an_index_that_is_merely_idle_is_only_told_of(weighed) -> None:
    schema = ORDERS + "CREATE INDEX old ON orders (created)"
    queries = "-- name: q\nSELECT * FROM orders WHERE created = '2025-05-05' AND customer = 77;"
    found = weighed(schema, "CREATE INDEX better ON orders (customer, created)", queries)
    assert verdicts(found.audit) == {"better": "build"}
    told = finding(found.audit, "public.old", "idle-after-plan")
    assert told.severity == "info"
    (old,) = [item for item in found.audit.existing if item.label == "public.old"]
    assert old.drop == ""


def test_what_is_not_built_replaces_nothing(weighed) -> None:
    """The wider index is skipped, so that what it would have covered must stay."""
    schema = ORDERS + "CREATE INDEX old ON orders (note)"
    found = weighed(schema, "CREATE INDEX wider ON orders (note, created)", BY_CUSTOMER)
    assert verdicts(found.audit) == {"wider": "skip"}
    assert rules_of(found.audit, "public.old") == {"idle-index"}
    assert all(not item.drop for item in found.audit.existing)


def test_dropping_is_tried_and_the_sufferers_are_named(weighed) -> None:
    schema = ORDERS + (
        "CREATE INDEX needed ON orders (customer);\nCREATE INDEX spare ON orders (customer, id)"
    )
    found = known(weighed(schema, "CREATE INDEX n ON orders (created)", BY_CUSTOMER))
    names = {item.name for item in found.existing}
    assert {"public.needed", "public.spare"} <= names
    assert not {name for name in names if "pkey" in name}
    (used,) = [name for name in ("public.needed", "public.spare") if found.users(name)]
    query = found.queries[0]
    assert query.cost_dropped(used) >= query.cost_after
    assert query.cost_dropped("public.unheard_of") == query.cost_after


def test_a_sandbox_that_cannot_be_made_is_told_and_fails_nothing(weighed) -> None:
    found = weighed(ORDERS, "CREATE INDEX by_note ON orders (note)", BY_CUSTOMER, "hypopg")
    assert found.impact is None
    assert verdicts(found.audit) == {"by_note": "build"}
    (told,) = [one for one in found.audit.advice if one.rule == "not-simulated"]
    assert "the target does not have HypoPG" in told.message
    assert told.severity == "warning"


# Reading


class Counting:
    """A planner that counts what it is asked."""

    def __init__(self, whatif: WhatIf):
        self.whatif = whatif
        self.name, self.notes, self.lacking = whatif.name, whatif.notes, whatif.lacking
        self.add, self.hide = whatif.add, whatif.hide
        self.asked = 0

    def explain(self, statement: str, values: workload.Values | None) -> Explain:
        self.asked += 1
        return self.whatif.explain(statement, values)


def test_queries_are_planned_only_where_an_index_can_touch_them(database: Target) -> None:
    with target.connect(database) as conn:
        for statement in filter(str.strip, ORDERS.split(";\n")):
            conn.execute(statement)
        work = workload.parse(
            BY_CUSTOMER + "-- name: elsewhere\nSELECT * FROM customers WHERE name = 'x';"
        )
        text = "".join(f"CREATE INDEX i{n} ON orders ({c});\n" for n, c in enumerate(COLUMNS))
        catalog, audit = auditing.read(conn, plan.parse(text), work)
        sampled = workload.sample(conn, work, size=10)
    with open_sandbox(database, catalog, audit.revised, work) as sandbox:
        counting = Counting(sandbox)
        found = impact.read(counting, audit.revised, sampled, catalog)
    # of_customer: 10 sets before and after, each index alone, without the one in use, once without
    # all that is unused; elsewhere: before and after only.
    assert [len(query.variants) for query in found.queries] == [1, 1]
    assert counting.asked == 10 + 10 + len(COLUMNS) + 1 + 10 + 2


COLUMNS = ("customer", "status", "created", "note")


def test_hypopg_reads_the_same_matrix(pg15_server) -> None:
    with psycopg.connect(pg15_server.conninfo(), autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS impact")
        admin.execute("CREATE DATABASE impact")
    at = target.resolve(pg15_server.conninfo("impact"), {})
    plans = "CREATE INDEX by_customer ON orders (customer);\nCREATE INDEX by_note ON orders (note);"
    with target.connect(at) as conn:
        conn.execute("CREATE EXTENSION hypopg")
        for statement in filter(str.strip, ORDERS.split(";\n")):
            conn.execute(statement)
        conn.execute("CREATE INDEX old ON orders (created)")
        queries = BY_CUSTOMER + "-- name: g\nSELECT * FROM orders WHERE customer = $1;"
        catalog, audit = auditing.read(conn, plan.parse(plans), workload.parse(queries))
    found: list[Weighed] = []
    for mode in ("hypopg", "sandbox"):
        with planner(at, queries, mode) as asked:
            found.append(asked.weigh(catalog, audit))
    by_hypopg, by_sandbox = found
    assert known(by_hypopg).backend.startswith("HypoPG ")
    assert verdicts(by_hypopg.audit) == {"by_customer": "build", "by_note": "skip"}
    assert verdicts(by_sandbox.audit) == verdicts(by_hypopg.audit)
    for query, same in zip(known(by_hypopg).queries, known(by_sandbox).queries, strict=True):
        assert query.uses_after == same.uses_after == ("public.by_customer",)
        assert query.cost_after == pytest.approx(same.cost_after, rel=0.2)


# Trials


@contextmanager
def playing(
    at: Target, queries: str, schema: str = ORDERS
) -> Iterator[tuple[Planner, Catalog, Audit]]:
    with target.connect(at) as conn:
        for statement in filter(str.strip, schema.split(";\n")):
            conn.execute(statement)
        catalog, audit = auditing.read(conn, plan.parse("DROP INDEX IF EXISTS gone"))
    with planner(at, queries) as asked:
        yield asked, catalog, audit


def test_a_trial_shows_both_plans_and_marks_what_changed(database: Target) -> None:
    with playing(database, BY_CUSTOMER) as (asked, catalog, audit):
        trial = asked.attempt(
            catalog,
            "CREATE INDEX try_it ON orders (customer)",
            query="of_customer",
            values=("7",),
            with_plan=False,
            plan=audit.revised,
        )
    assert trial.cost_after < trial.cost_before
    assert trial.used == ("public.try_it",)
    before, after = trial.steps()
    assert {step.words.split(" on ")[0] for step in before if step.changed} == {"Seq Scan"}
    assert any("try_it" in step.words for step in after if step.changed)
    text = repr(trial)
    assert "- " in text and "+ " in text and "cheaper)" in text
    page = trial._repr_html_()
    assert page.count("<mark>") == sum(step.changed for step in (*before, *after))
    assert "sandbox on PostgreSQL" in page


def test_a_trial_on_a_partitioned_table_uses_the_parts(database: Target) -> None:
    with playing(database, OF_ONE, EVENTS) as (asked, catalog, audit):
        trial = asked.attempt(
            catalog,
            "CREATE INDEX try_it ON events (who)",
            query="of_one",
            values=None,
            with_plan=False,
            plan=audit.revised,
        )
    assert trial.used == ("public.try_it",)
    (kept,) = trial.kept
    assert kept.startswith("CREATE INDEX")
    assert "try_it ON public.events " in kept


def test_a_trial_without_a_query_takes_the_one_that_gains_most(database: Target) -> None:
    queries = BY_CUSTOMER + OPEN
    with playing(database, queries) as (asked, catalog, audit):
        words = {"values": None, "with_plan": False, "plan": audit.revised}
        trial = asked.attempt(catalog, "CREATE INDEX i ON orders (status)", query="", **words)
        assert trial.query == "newly_open"
        assert trial.notes == ("it changes no other query of the workload",)
        # The same name again, for another index: what was tried before is out of sight.
        other = asked.attempt(catalog, "CREATE INDEX i ON orders (customer)", query="", **words)
        assert (other.query, other.used) == ("of_customer", ('public."i (2)"',))


def test_a_trial_on_sql_takes_values_by_name(database: Target) -> None:
    with playing(database, "") as (asked, catalog, audit):
        words = {"with_plan": False, "plan": audit.revised}
        statement = "SELECT * FROM orders WHERE created = :day AND customer = :c"
        trial = asked.attempt(
            catalog,
            "CREATE INDEX ON orders (created, customer)",
            query=statement,
            values={"day": "2025-05-05", "c": "3"},
            **words,
        )
        assert len(trial.used) == 1
        assert "2025-05-05" in repr(trial)
        generic = asked.attempt(
            catalog, "CREATE INDEX ON orders (created)", query=statement, values=None, **words
        )
        assert generic.generic
        assert "planned for any values" in repr(generic)


@pytest.mark.parametrize(
    ("text", "query", "values", "said"),
    [
        ("DROP INDEX x", "of_customer", None, "a trial holds CREATE INDEX statements only"),
        ("CREATE INDEX ON nowhere (a)", "of_customer", None, "nowhere"),
        ("CREATE INDEX ON orders (note)", "no_such_query", None, "has no query 'no_such_query'"),
        ("CREATE INDEX ON orders (note)", "of_customer", ("1", "2"), "2 values for 1 parameters"),
        ("CREATE INDEX ON orders (note)", "of_customer", {"d": "1"}, "values for 'c' are missing"),
        ("CREATE INDEX ON orders (note)", "", ("1",), "say which one"),
        ("CREATE INDEX ON orders (note)", "DROP TABLE orders", None, "give one SELECT"),
    ],
)
def test_a_trial_that_makes_no_sense_is_refused(
    database: Target, text: str, query: str, values: planning.Given, said: str
) -> None:
    with (
        playing(database, BY_CUSTOMER) as (asked, catalog, audit),
        pytest.raises(InputError, match=said),
    ):
        asked.attempt(
            catalog, text, query=query, values=values, with_plan=False, plan=audit.revised
        )


def test_text_of_the_database_is_escaped(weighed) -> None:
    schema = """
CREATE TABLE "<img>" (a int, "<b>" text);
INSERT INTO "<img>" SELECT n, 'x' || n FROM generate_series(1, 20000) AS n;
VACUUM ANALYZE "<img>"
"""
    plans = 'CREATE INDEX "<script>" ON "<img>" ("<b>")'
    found = known(weighed(schema, plans, '-- name: q\nSELECT * FROM "<img>" WHERE "<b>" = \'x\';'))
    page = found._repr_html_()
    assert "<script>" not in page and "<img>" not in page
    assert "&lt;script&gt;" in page


def test_a_lacking_query_is_a_sandbox_error(database: Target) -> None:
    with (
        playing(database, BY_CUSTOMER) as (asked, catalog, audit),
        pytest.raises(SandboxError, match="nothing_like_it"),
    ):
        asked.attempt(
            catalog,
            "CREATE INDEX ON orders (note)",
            query="SELECT * FROM nothing_like_it",
            values=None,
            with_plan=False,
            plan=audit.revised,
        )
