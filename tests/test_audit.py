"""The audit against real servers: what is found, and above all what is not."""

from __future__ import annotations

import itertools
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from indexlab import audit as auditing
from indexlab import catalog, demo, embedded, plan, workload
from indexlab.audit import Audit, ExistingAudit, StatementAudit
from indexlab.audit.names import Name, candidates, clearly_best
from indexlab.errors import InputError

REPO = Path(__file__).parents[1]
SCHEMAS = REPO.parent / "shared" / "schemas"

Audited = Callable[..., Audit]
Judged = Callable[..., StatementAudit]

_numbers = itertools.count(1)


def rules(item: StatementAudit | ExistingAudit, *severities: str) -> set[str]:
    wanted = severities or ("error", "warning")
    return {finding.rule for finding in item.findings if finding.severity in wanted}


def messages(item: StatementAudit | ExistingAudit) -> str:
    return "\n".join(finding.message for finding in item.findings)


def redundant(audit: Audit) -> set[str]:
    """The existing indexes that are called duplicate or redundant."""
    names = ("duplicate-index", "redundant-index")
    return {
        item.label.removeprefix("public.")
        for item in audit.existing
        if any(finding.rule in names for finding in item.findings)
    }


BOOKINGS = """
CREATE TABLE bookings (
    id int PRIMARY KEY,
    customer_id int NOT NULL,
    date date NOT NULL,
    status varchar(20) NOT NULL,
    reference text,
    paid boolean,
    details json,
    tags text[],
    created_at timestamptz
);
"""


# The story


def test_the_demo_plan_is_corrected_as_its_story_tells(conn: psycopg.Connection) -> None:
    conn.execute(demo.SCHEMA.read_text())
    _, audit = auditing.read(conn, plan.read(demo.PLAN), workload.read(demo.WORKLOAD))
    verdicts = {item.label: item.verdict for item in audit.statements}
    assert {name for name, verdict in verdicts.items() if verdict == "skip"} == {
        "idx_bookings_customer_id",
        "idx_payments_booking_id",
    }
    assert set(verdicts.values()) == {"skip", "fix"}
    wrong = [
        (item.label, finding.fix)
        for item in audit.statements
        for finding in item.findings
        if finding.rule == "missing-column"
    ]
    assert wrong == [
        ("idx_bookings_date", "write date"),
        ("idx_bookings_customer_date", "write date"),
        ("idx_customers_email", "write email_encrypted"),
        ("idx_customers_phone", "write phone_encrypted"),
    ]
    assert all(str(item.table).startswith("core.") for item in audit.statements)
    redundancy = next(i for i in audit.statements if i.label == "idx_bookings_customer_id")
    named = {value for finding in redundancy.findings for _, value in finding.evidence}
    assert {"core.ix_core_bookings_customer_id", "idx_bookings_customer_date"} <= named
    existing = {item.label: rules(item) for item in audit.existing}
    assert existing == {
        "core.ix_core_bookings_customer_id": {"superfluous-after-plan"},
        "core.ix_core_bookings_station_id": {"redundant-index"},
    }
    assert "fk_bookings_customer_id_customers" in messages(audit.existing[0])
    for item in audit.kept:
        for statement in item.sequence:
            conn.execute(statement)


def test_the_wrong_column_is_named_with_the_nearest_one(judged: Judged) -> None:
    item = judged(BOOKINGS, "CREATE INDEX i ON bookings (event_date)")
    assert item.verdict == "fix"
    assert messages(item).startswith("bookings is public.bookings")
    assert (
        "column event_date does not exist in public.bookings; "
        "nearest: date (subset of the words, type date)"
    ) in messages(item)
    assert "ON public.bookings USING btree (date)" in item.revised.text


# Rules 1 to 10: same or covered


@pytest.mark.parametrize(
    ("existing", "planned", "rule"),
    [
        ("CREATE INDEX e ON t (a)", "CREATE INDEX p ON t (a)", "duplicate-index"),
        ("CREATE UNIQUE INDEX e ON t (a)", "CREATE INDEX p ON t (a)", "covered-by-existing"),
        (
            "ALTER TABLE t ADD CONSTRAINT e UNIQUE (a)",
            "CREATE UNIQUE INDEX p ON t (a)",
            "duplicate-index",
        ),
        ("CREATE INDEX e ON t (a, b)", "CREATE INDEX p ON t (a)", "covered-by-existing"),
        ("ALTER TABLE t ADD PRIMARY KEY (a, b)", "CREATE INDEX p ON t (a)", "covered-by-existing"),
        (
            "ALTER TABLE t ADD UNIQUE (a) DEFERRABLE",
            "CREATE INDEX p ON t (a)",
            "covered-by-existing",
        ),
        (
            "CREATE INDEX e ON t (lower(v), a)",
            "CREATE INDEX p ON t (lower(v))",
            "covered-by-existing",
        ),
        (
            "CREATE INDEX e ON t (a, b)",
            "CREATE INDEX p ON t (a) INCLUDE (b)",
            "covered-by-existing",
        ),
        ("CREATE INDEX e ON t (a) INCLUDE (b)", "CREATE INDEX p ON t (a)", "covered-by-existing"),
        (
            "CREATE INDEX e ON t (a) INCLUDE (b, c)",
            "CREATE INDEX p ON t (a) INCLUDE (c, b)",
            "duplicate-index",
        ),
        ("CREATE INDEX e ON t (v)", "CREATE INDEX p ON t (v varchar_ops)", "duplicate-index"),
        ("CREATE INDEX e ON t (v)", "CREATE INDEX p ON t ((v))", "duplicate-index"),
        (
            "CREATE INDEX e ON t (a) WITH (fillfactor = 70)",
            "CREATE INDEX p ON t (a)",
            "duplicate-index",
        ),
        (
            "CREATE INDEX e ON t (a) WHERE v IN ('x', 'y')",
            "CREATE INDEX p ON t (a) WHERE v IN ('x', 'y')",
            "duplicate-index",
        ),
        (
            "CREATE INDEX e ON t USING gin (g)",
            "CREATE INDEX p ON t USING gin (g)",
            "duplicate-index",
        ),
        (
            'CREATE INDEX e ON t (lower(v COLLATE "C"))',
            'CREATE INDEX p ON t (lower(v COLLATE "C"))',
            "duplicate-index",
        ),
    ],
)
def test_what_exists_already_is_left_out(
    judged: Judged, existing: str, planned: str, rule: str
) -> None:
    schema = "CREATE TABLE t (a int, b int, c int, v varchar(20), g text[]);" + existing
    item = judged(schema, planned)
    assert (item.verdict, rules(item)) == ("skip", {rule})


@pytest.mark.parametrize(
    ("existing", "planned"),
    [
        ("CREATE INDEX e ON t (a, b, c)", "CREATE UNIQUE INDEX p ON t (a, b)"),
        ("CREATE UNIQUE INDEX e ON t (a, b)", "CREATE UNIQUE INDEX p ON t (a)"),
        ("CREATE INDEX e ON t (a)", "CREATE INDEX p ON t (a) WHERE b > 1"),
        ("CREATE INDEX e ON t (a, b) WHERE b > 1", "CREATE INDEX p ON t (a)"),
        ("CREATE INDEX e ON t (a) WHERE b > 1", "CREATE INDEX p ON t (a) WHERE b > 2"),
        ("CREATE INDEX e ON t (a) WHERE n IS NOT NULL", "CREATE INDEX p ON t (a)"),
        ("CREATE INDEX e ON t (a) WHERE f", "CREATE INDEX p ON t (a) WHERE f = true"),
        ("CREATE INDEX e ON t (a) WHERE f = true", "CREATE INDEX p ON t (a) WHERE f"),
        ("CREATE INDEX e ON t (a) WHERE f", "CREATE INDEX p ON t (a) WHERE f IS TRUE"),
        ("CREATE INDEX e ON t (v)", "CREATE INDEX p ON t (v text_pattern_ops)"),
        ("CREATE INDEX e ON t USING gin (j)", "CREATE INDEX p ON t USING gin (j jsonb_path_ops)"),
        ('CREATE INDEX e ON t (v COLLATE "C")', 'CREATE INDEX p ON t (v COLLATE "POSIX")'),
        ("CREATE INDEX e ON t USING hash (a)", "CREATE INDEX p ON t (a)"),
        (
            "CREATE INDEX e ON t USING brin (a) WITH (pages_per_range = 8)",
            "CREATE INDEX p ON t USING brin (a) WITH (pages_per_range = 16)",
        ),
        (
            "CREATE INDEX e ON t USING gist (ts tsvector_ops (siglen = 64))",
            "CREATE INDEX p ON t USING gist (ts tsvector_ops (siglen = 128))",
        ),
        ("CREATE INDEX e ON t (a, b)", "CREATE INDEX p ON t (b)"),
        ("CREATE INDEX e ON t USING brin (a, b)", "CREATE INDEX p ON t USING brin (a)"),
        ("CREATE INDEX e ON t USING gin (g, j)", "CREATE INDEX p ON t USING gin (g)"),
        ("CREATE INDEX e ON t (a, b)", "CREATE INDEX p ON t (a) INCLUDE (c)"),
        ("CREATE UNIQUE INDEX e ON t (a) INCLUDE (b)", "CREATE UNIQUE INDEX p ON t (a, b)"),
        ("ALTER TABLE t ADD UNIQUE (a) DEFERRABLE", "CREATE UNIQUE INDEX p ON t (a)"),
        (
            "CREATE UNIQUE INDEX e ON t (a)",
            "CREATE UNIQUE INDEX p ON t (a) NULLS NOT DISTINCT",
        ),
        ("CREATE INDEX e ON t (a, b)", "CREATE INDEX p ON t (a, b DESC)"),
        ("CREATE INDEX e ON t (a DESC)", "CREATE INDEX p ON t (a)"),
        ("CREATE INDEX e ON t (a NULLS FIRST)", "CREATE INDEX p ON t (a)"),
        ("CREATE INDEX e ON t ((a + b))", "CREATE INDEX p ON t ((b + a))"),
        ("CREATE TABLE u (a int); CREATE INDEX e ON u (a)", "CREATE INDEX p ON t (a)"),
        (
            "CREATE SCHEMA s; CREATE TABLE s.t (a int); CREATE INDEX e ON s.t (a)",
            "CREATE INDEX p ON t (a)",
        ),
        (
            "CREATE TABLE child () INHERITS (t); CREATE INDEX e ON child (a)",
            "CREATE INDEX p ON t (a)",
        ),
    ],
)
def test_what_is_different_is_built(judged: Judged, existing: str, planned: str) -> None:
    schema = (
        "CREATE TABLE t (a int, b int, c int, n int NOT NULL, f boolean, v varchar(20), "
        "g text[], j jsonb, ts tsvector);"
    )
    item = judged(schema + existing, planned)
    assert item.verdict in ("build", "replace")
    assert not {"duplicate-index", "covered-by-existing"} & rules(item)


def test_an_index_read_backwards_is_only_mentioned(judged: Judged) -> None:
    schema = "CREATE TABLE t (a int, b int); CREATE INDEX e ON t (a DESC, b DESC);"
    item = judged(schema, "CREATE INDEX p ON t (a, b)")
    assert item.verdict == "build"
    assert "same-backwards" in rules(item, "info")


def test_of_equal_indexes_one_stays(audited: Audited) -> None:
    audit = audited("CREATE TABLE t (a int); CREATE INDEX e1 ON t (a); CREATE INDEX e2 ON t (a);")
    assert redundant(audit) == {"e2"}
    assert audit.existing[0].drop == "DROP INDEX CONCURRENTLY public.e2"
    assert audit.existing[0].restore == ("CREATE INDEX CONCURRENTLY e2 ON public.t USING btree (a)")


def test_every_redundant_index_has_a_keeper_that_stays(audited: Audited) -> None:
    audit = audited(
        "CREATE TABLE t (a int, b int, c int); CREATE INDEX one ON t (a);"
        "CREATE INDEX two ON t (a, b); CREATE INDEX three ON t (a, b, c)"
    )
    assert redundant(audit) == {"one", "two"}
    keepers = {dict(item.findings[0].evidence)["keeper"] for item in audit.existing}
    assert keepers == {"public.three"}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ("CREATE UNIQUE INDEX u ON t (a); CREATE INDEX p ON t (a)", {"p"}),
        ("ALTER TABLE t ADD CONSTRAINT k UNIQUE (a); CREATE UNIQUE INDEX u ON t (a)", {"u"}),
        ("CREATE UNIQUE INDEX u ON t (a); CREATE INDEX w ON t (a, b)", set()),
        ("CREATE UNIQUE INDEX u ON t (a); CREATE UNIQUE INDEX w ON t (a, b)", set()),
        ("CREATE INDEX i ON t (a) WHERE b > 1; CREATE INDEX w ON t (a)", set()),
        ("CREATE INDEX i ON t (a) WHERE f; CREATE INDEX w ON t (a) WHERE f = true", set()),
        ("CREATE INDEX i ON t (v); CREATE INDEX w ON t (v text_pattern_ops)", set()),
        ("CREATE INDEX i ON t (b); CREATE INDEX w ON t (a, b)", set()),
        ("CREATE INDEX i ON t USING hash (a); CREATE INDEX w ON t (a)", set()),
        ("CREATE INDEX i ON t USING brin (a); CREATE INDEX w ON t USING brin (a, b)", set()),
        ("CREATE INDEX i ON t (a DESC); CREATE INDEX w ON t (a)", set()),
        (
            "CREATE UNIQUE INDEX i ON t (n); ALTER TABLE t REPLICA IDENTITY USING INDEX i;"
            "ALTER TABLE t ADD UNIQUE (n)",
            set(),
        ),
    ],
)
def test_existing_indexes_are_redundant_or_not(
    audited: Audited, schema: str, expected: set[str]
) -> None:
    table = "CREATE TABLE t (a int, b int, n int NOT NULL, f boolean, v varchar(20));"
    assert redundant(audited(table + schema)) == expected


def test_an_index_that_a_foreign_key_hangs_on_is_not_redundant(audited: Audited) -> None:
    audit = audited(
        "CREATE TABLE t (a int NOT NULL); CREATE UNIQUE INDEX u ON t (a);"
        "CREATE TABLE r (a int REFERENCES t (a)); ALTER TABLE t ADD CONSTRAINT k UNIQUE (a)"
    )
    assert redundant(audit) == set()


@pytest.mark.parametrize(
    "constraint",
    [
        "CONSTRAINT k UNIQUE (a) DEFERRABLE",
        "CONSTRAINT k EXCLUDE USING gist (r WITH &&)",
        "CONSTRAINT k PRIMARY KEY (a)",
    ],
)
def test_the_index_of_a_constraint_exists_under_its_name(
    judged: Judged, conn: psycopg.Connection, constraint: str
) -> None:
    conn.execute(f"CREATE TABLE t (a int, r int4range, {constraint})")
    row = conn.execute("SELECT pg_get_indexdef('k'::regclass)").fetchone()
    assert row is not None
    item = judged("", row[0])
    assert (item.verdict, rules(item, "info")) == ("skip", {"exists"})


def test_exclusion_constraints_are_compared_with_nothing(audited: Audited) -> None:
    audit = audited(
        "CREATE TABLE t (r int4range, EXCLUDE USING gist (r WITH &&), EXCLUDE USING gist (r WITH =))"
    )
    assert audit.existing == ()


def test_attached_indexes_are_left_to_their_parent(audited: Audited) -> None:
    audit = audited(
        "CREATE TABLE t (a int, b int) PARTITION BY RANGE (a);"
        "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);"
        "CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20);"
        "CREATE INDEX narrow ON t (a); CREATE INDEX wide ON t (a, b);"
    )
    assert redundant(audit) == {"narrow"}
    assert audit.existing[0].drop == "DROP INDEX public.narrow"


def test_an_unfinished_index_of_a_partitioned_table_is_not_called_failed(audited: Audited) -> None:
    audit = audited(
        "CREATE TABLE t (a int) PARTITION BY RANGE (a);"
        "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);"
        "CREATE INDEX parts ON ONLY t (a);"
    )
    assert [(i.label, rules(i, "info"), i.drop) for i in audit.existing] == [
        ("public.parts", {"unfinished-index"}, "")
    ]


def test_indexes_of_an_extension_are_left_alone(audited: Audited, conn: psycopg.Connection) -> None:
    audit = audited("CREATE TABLE t (a int); CREATE INDEX e1 ON t (a); CREATE INDEX e2 ON t (a);")
    cat = catalog.read(conn)
    owned = replace(cat, indexes=tuple(replace(i, extension="ext") for i in cat.indexes))
    assert redundant(audit) == {"e2"}
    assert auditing.audit(owned, plan.parse("CREATE INDEX i ON other (x)")).existing == ()


# Invalid indexes


BROKEN = "CREATE TABLE t (a int); INSERT INTO t VALUES (1), (1);"


def leave_invalid(conn: psycopg.Connection, statement: str) -> None:
    with pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute(statement)


def test_an_invalid_index_is_no_keeper_and_is_reported(
    conn: psycopg.Connection, audited: Audited
) -> None:
    conn.execute(BROKEN)
    leave_invalid(conn, "CREATE UNIQUE INDEX CONCURRENTLY broken ON t (a)")
    audit = audited("", "CREATE INDEX i ON t (a)")
    assert audit.statements[0].verdict == "build"
    assert [(i.label, rules(i), i.drop) for i in audit.existing] == [
        ("public.broken", {"invalid-index"}, "DROP INDEX CONCURRENTLY public.broken")
    ]


def test_an_invalid_leftover_of_the_same_index_is_built_anew(
    conn: psycopg.Connection, judged: Judged
) -> None:
    conn.execute(BROKEN)
    leave_invalid(conn, "CREATE UNIQUE INDEX CONCURRENTLY u ON t (a)")
    conn.execute("TRUNCATE t")
    item = judged("", "CREATE UNIQUE INDEX IF NOT EXISTS u ON t (a)")
    assert (item.verdict, rules(item)) == ("build", {"invalid-leftover"})
    assert "IF NOT EXISTS compares names only" in messages(item)


def test_a_build_in_progress_is_not_a_leftover(address: str, audited: Audited) -> None:
    with (
        psycopg.connect(address) as writer,
        psycopg.connect(address, autocommit=True) as builder,
    ):
        writer.execute("CREATE TABLE t (a int)")
        writer.commit()
        writer.execute("INSERT INTO t VALUES (1)")  # a build waits for its end
        builder.pgconn.send_query(b"CREATE INDEX CONCURRENTLY slow ON t (a)")
        with psycopg.connect(address, autocommit=True) as watch:
            seen = "SELECT FROM pg_stat_progress_create_index WHERE index_relid <> 0"
            while watch.execute(seen).fetchone() is None:
                pass
        audit = audited("", "CREATE INDEX slow ON t (a)")
        writer.rollback()
        while builder.pgconn.get_result() is not None:
            pass
    assert (audit.statements[0].verdict, rules(audit.statements[0])) == ("skip", {"being-built"})
    assert [rules(i, "info") for i in audit.existing] == [{"being-built"}]


# What the plan makes superfluous


def test_a_wider_index_replaces_the_narrow_one(judged: Judged) -> None:
    schema = "CREATE TABLE t (a int, b int); CREATE INDEX narrow ON t (a);"
    item = judged(schema, "CREATE INDEX wide ON t (a, b)")
    assert item.verdict == "replace"
    finding = next(f for f in item.findings if f.rule == "replaces-index")
    assert finding.fix == "after the build: DROP INDEX CONCURRENTLY public.narrow"


def test_a_unique_index_replaces_the_plain_one(judged: Judged) -> None:
    schema = "CREATE TABLE t (a int); CREATE INDEX plain ON t (a);"
    assert judged(schema, "CREATE UNIQUE INDEX u ON t (a)").verdict == "replace"


def test_a_clustered_index_is_not_replaced(judged: Judged) -> None:
    schema = "CREATE TABLE t (a int, b int); CREATE INDEX narrow ON t (a); CLUSTER t USING narrow;"
    item = judged(schema, "CREATE INDEX wide ON t (a, b)")
    assert item.verdict == "build"
    assert "CLUSTERed" in messages(item)


def test_a_constraint_is_never_replaced(judged: Judged) -> None:
    item = judged("CREATE TABLE t (a int PRIMARY KEY, b int)", "CREATE INDEX wide ON t (a, b)")
    assert item.verdict == "build"
    assert "replaces-index" not in rules(item, "info")


def test_nothing_that_was_not_asked_for_is_dropped(audited: Audited) -> None:
    audit = audited(
        "CREATE TABLE t (a int, b int); CREATE INDEX narrow ON t (a);",
        "CREATE INDEX wide ON t (a, b)",
    )
    assert audit.revised.drops == ()
    migration = auditing.migration_sql(audit)
    assert "-- DROP INDEX CONCURRENTLY public.narrow;" in migration
    assert "\nDROP" not in migration


# Rules 22 to 27: tables and columns


def test_a_table_on_the_search_path_is_qualified(judged: Judged) -> None:
    item = judged(BOOKINGS, "CREATE INDEX i ON bookings (date)")
    assert item.verdict == "build"
    assert rules(item, "info") == {"qualified", "not-concurrent"}
    assert item.revised.text == "CREATE INDEX CONCURRENTLY i ON public.bookings USING btree (date)"


def test_a_search_path_in_the_plan_counts(judged: Judged) -> None:
    schema = "CREATE SCHEMA core; CREATE TABLE core.t (a int); CREATE TABLE t (a int)"
    item = judged(schema, "SET search_path = core; CREATE INDEX i ON t (a)")
    assert (item.verdict, str(item.table)) == ("build", "core.t")


def test_a_table_in_one_other_schema_is_found(judged: Judged) -> None:
    item = judged("CREATE SCHEMA core; CREATE TABLE core.t (a int)", "CREATE INDEX i ON t (a)")
    assert (item.verdict, rules(item)) == ("fix", {"wrong-schema"})
    assert "wrong schema, it exists as core.t" in messages(item)


def test_a_table_in_two_other_schemas_is_asked_about(judged: Judged) -> None:
    schema = "CREATE SCHEMA c; CREATE SCHEMA d; CREATE TABLE c.t (a int); CREATE TABLE d.t (a int)"
    item = judged(schema, "CREATE INDEX i ON t (a)")
    assert (item.verdict, rules(item)) == ("ask", {"ambiguous-table"})
    assert "c.t, d.t" in messages(item)


def test_a_schema_that_was_written_is_not_changed_by_itself(judged: Judged) -> None:
    schema = "CREATE SCHEMA core; CREATE TABLE core.t (a int)"
    assert judged(schema, "CREATE INDEX i ON public.t (a)").verdict == "ask"


@pytest.mark.parametrize(
    ("written", "verdict"),
    [("booking", "fix"), ("bokings", "fix"), ("orders", "refuse"), ("archive_bookings", "ask")],
)
def test_a_misspelled_table_is_corrected_if_it_is_clear(
    judged: Judged, written: str, verdict: str
) -> None:
    item = judged(BOOKINGS, f"CREATE INDEX i ON {written} (date)")
    assert (item.verdict, rules(item)) == (verdict, {"missing-table"})


def test_letter_case_is_mended_by_quotes(judged: Judged) -> None:
    item = judged(
        'CREATE TABLE "Album" ("AlbumId" int, "Title" text)', "CREATE INDEX i ON Album (AlbumId)"
    )
    assert item.verdict == "fix"
    assert 'nearest: "Album" (case mismatch, quote it)' in messages(item)
    assert 'ON public."Album" USING btree ("AlbumId")' in item.revised.text


@pytest.mark.parametrize(
    ("create", "kind"),
    [
        ("CREATE VIEW v AS SELECT 1 AS a", "view"),
        ("CREATE SEQUENCE v", "sequence"),
        ("CREATE TABLE t (a int); CREATE INDEX v ON t (a)", "index"),
        (
            "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;"
            "CREATE FOREIGN TABLE v (a int) SERVER s",
            "foreign table",
        ),
    ],
)
def test_what_is_not_a_table_is_refused_as_such(judged: Judged, create: str, kind: str) -> None:
    item = judged(create, "CREATE INDEX i ON v (a)")
    assert (item.verdict, rules(item)) == ("refuse", {"not-a-table"})
    assert f"is a {kind}" in messages(item)


@pytest.mark.parametrize(
    "create",
    ["CREATE MATERIALIZED VIEW v AS SELECT 1 AS a", "CREATE UNLOGGED TABLE v (a int)"],
)
def test_what_takes_indexes_is_built_on(judged: Judged, create: str) -> None:
    assert judged(create, "CREATE INDEX i ON v (a)").verdict == "build"


@pytest.mark.parametrize("table", ["pg_class", "pg_catalog.pg_class", "information_schema.tables"])
def test_the_system_takes_no_index(judged: Judged, table: str) -> None:
    item = judged("", f"CREATE INDEX i ON {table} (a)")
    assert (item.verdict, rules(item)) == ("refuse", {"system-catalog"})


def test_system_columns_are_refused(judged: Judged, conn: psycopg.Connection) -> None:
    item = judged(BOOKINGS, "CREATE INDEX i ON bookings (ctid)")
    assert (item.verdict, rules(item)) == ("refuse", {"system-column"})
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        conn.execute("CREATE INDEX i ON bookings (ctid)")


def test_dropped_columns_are_gone(judged: Judged) -> None:
    schema = BOOKINGS + "ALTER TABLE bookings DROP COLUMN status"
    item = judged(schema, "CREATE INDEX i ON bookings (status)")
    assert (item.verdict, rules(item)) == ("refuse", {"missing-column"})


@pytest.mark.parametrize(
    "planned",
    [
        "CREATE INDEX i ON bookings (id) INCLUDE (event_date)",
        "CREATE INDEX i ON bookings (id) WHERE event_date > '2026-01-01'",
        "CREATE INDEX i ON bookings (date_part('year', event_date::timestamp))",
        "CREATE INDEX i ON bookings ((bookings.event_date + 1))",
    ],
)
def test_columns_are_looked_for_everywhere(judged: Judged, planned: str) -> None:
    item = judged(BOOKINGS, planned)
    assert (item.verdict, rules(item)) == ("fix", {"missing-column"})
    assert "event_date" not in item.revised.text


def test_a_corrected_expression_is_compared_in_the_servers_words(judged: Judged) -> None:
    schema = (
        "CREATE SCHEMA core; CREATE TABLE core.customers (email_encrypted varchar(500));"
        "CREATE INDEX e ON core.customers (lower(email_encrypted))"
    )
    item = judged(schema, "CREATE INDEX i ON customers (lower(email))")
    assert (item.verdict, "duplicate-index" in rules(item)) == ("skip", True)


@pytest.mark.parametrize(
    ("columns", "written", "verdict"),
    [
        ("date_event date", "event_date", "fix"),
        ("eventdate date", "event_date", "fix"),
        ("custmer_id int", "customer_id", "fix"),
        ("email_encrypted text, email_hash text", "email", "ask"),
        ("id int, name text", "customer_id", "refuse"),
        ("date date, created_at timestamptz", "created_date", "ask"),
        ("event jsonb", "event_date", "ask"),
        ("min_price int", "max_price", "ask"),
        ("address1 text", "address2", "ask"),
        ("sent_id int", "rent_id", "ask"),
        ("x int", "customer_id", "refuse"),
    ],
)
def test_a_column_is_corrected_only_if_it_is_clear(
    judged: Judged, columns: str, written: str, verdict: str
) -> None:
    item = judged(f"CREATE TABLE t ({columns})", f"CREATE INDEX i ON t ({written})")
    assert (item.verdict, rules(item)) == (verdict, {"missing-column"})


def test_a_correction_never_makes_a_column_appear_twice(judged: Judged) -> None:
    item = judged(BOOKINGS, "CREATE INDEX i ON bookings (date, event_date)")
    assert item.verdict == "ask"


def test_the_workload_orders_the_candidates() -> None:
    names = [Name("email_a", "text"), Name("email_b", "text")]
    ranked = candidates("email", names, frozenset({"email_b"}))
    assert [item.name for item in ranked] == ["email_b", "email_a"]
    assert clearly_best("email", ranked) is None


def test_virtual_columns_are_refused_and_stored_ones_built(
    judged: Judged, conn: psycopg.Connection
) -> None:
    if conn.info.server_version < 180000:
        pytest.skip("virtual generated columns came with 18")
    schema = (
        "CREATE TABLE t (a int, v int GENERATED ALWAYS AS (a + 1) VIRTUAL,"
        " s int GENERATED ALWAYS AS (a + 1) STORED)"
    )
    item = judged(schema, "CREATE INDEX j ON t (s); CREATE INDEX i ON t (v)")
    assert (item.verdict, rules(item)) == ("refuse", {"virtual-column"})


# Rules 28 to 30: names


def test_a_name_is_looked_up_among_all_relations(judged: Judged) -> None:
    item = judged(
        BOOKINGS + "CREATE VIEW taken AS SELECT 1", "CREATE INDEX taken ON bookings (date)"
    )
    assert (item.verdict, rules(item)) == ("refuse", {"name-taken"})
    assert "by a view" in messages(item)


def test_a_name_in_another_schema_is_free(judged: Judged) -> None:
    schema = BOOKINGS + "CREATE SCHEMA s; CREATE TABLE s.t (a int); CREATE INDEX i ON s.t (a)"
    assert judged(schema, "CREATE INDEX i ON bookings (date)").verdict == "build"


def test_if_not_exists_does_not_hide_another_definition(judged: Judged) -> None:
    schema = BOOKINGS + "CREATE INDEX i ON bookings (status)"
    item = judged(schema, "CREATE INDEX IF NOT EXISTS i ON bookings (date)")
    assert (item.verdict, rules(item)) == ("refuse", {"name-taken"})
    assert "(status)" in messages(item)
    assert "in silence" in messages(item)


def test_an_index_that_exists_as_wanted_is_skipped(judged: Judged) -> None:
    schema = BOOKINGS + "CREATE INDEX i ON bookings (date)"
    item = judged(schema, "CREATE INDEX IF NOT EXISTS i ON bookings (date)")
    assert (item.verdict, rules(item, "info")) == ("skip", {"qualified", "exists"})


LONG = "idx_bookings_by_customer_and_date_and_status_for_the_account_page"


def test_long_names_are_compared_as_the_server_cuts_them(judged: Judged) -> None:
    item = judged(
        BOOKINGS,
        f"CREATE INDEX {LONG}_a ON bookings (date); CREATE INDEX {LONG}_b ON bookings (status)",
    )
    assert (item.verdict, rules(item)) == ("refuse", {"truncated-name", "name-twice"})


def test_a_long_name_is_said_to_be_cut(judged: Judged) -> None:
    item = judged(BOOKINGS, f"CREATE INDEX {LONG}_a ON bookings (date)")
    assert (item.verdict, rules(item)) == ("build", {"truncated-name"})
    assert len(item.label) == 63


def test_an_unnamed_index_gets_the_servers_name(judged: Judged, conn: psycopg.Connection) -> None:
    schema = BOOKINGS + "CREATE TABLE bookings_date_status_idx ()"
    item = judged(schema, "CREATE INDEX ON bookings (date, status)")
    assert (item.verdict, item.label) == ("build", "bookings_date_status_idx1")
    conn.execute("DROP INDEX bookings_date_status_idx1; CREATE INDEX ON bookings (date, status)")
    assert conn.execute("SELECT to_regclass('bookings_date_status_idx1')").fetchone() != (None,)


def test_an_unnamed_index_that_was_built_is_found_under_the_servers_name(judged: Judged) -> None:
    built = BOOKINGS + "CREATE INDEX ON bookings (status); CREATE INDEX ON bookings (date);"
    item = judged(built, "CREATE INDEX ON bookings (date)")
    assert (item.label, item.verdict) == ("bookings_date_idx", "skip")
    assert "exists" in {finding.rule for finding in item.findings}


def test_an_unnamed_index_leaves_the_servers_name_to_another_one(judged: Judged) -> None:
    other = BOOKINGS + "CREATE INDEX bookings_date_idx ON bookings (date, status)"
    item = judged(other, "CREATE UNIQUE INDEX ON bookings (date)")
    assert item.label == "bookings_date_idx1"


def test_an_unnamed_index_is_matched_by_its_definition(judged: Judged) -> None:
    schema = BOOKINGS + "CREATE INDEX anything ON bookings (date)"
    assert judged(schema, "CREATE INDEX ON bookings (date)").verdict == "skip"


# Within the plan


def test_equal_statements_leave_one(audited: Audited) -> None:
    audit = audited(
        BOOKINGS,
        "CREATE INDEX i ON bookings (date); CREATE INDEX j ON bookings (date);"
        "CREATE INDEX i ON bookings (date)",
    )
    assert [item.verdict for item in audit.statements] == ["build", "skip", "skip"]
    assert {rule for item in audit.statements for rule in rules(item)} == {"duplicate-in-plan"}


def test_a_chain_in_the_plan_leaves_its_longest(audited: Audited) -> None:
    audit = audited(
        BOOKINGS,
        "CREATE INDEX a ON bookings (date); CREATE INDEX b ON bookings (date, status);"
        "CREATE INDEX c ON bookings (date, status, paid)",
    )
    assert [item.verdict for item in audit.statements] == ["skip", "skip", "build"]
    assert all("planned c" in messages(item) for item in audit.statements[:2])


def test_what_cannot_be_built_keeps_nothing(audited: Audited) -> None:
    audit = audited(
        BOOKINGS,
        "CREATE INDEX a ON bookings (date); CREATE INDEX b ON bookings (date, nonsense)",
    )
    assert [item.verdict for item in audit.statements] == ["build", "refuse"]


def test_an_index_that_the_plan_drops_keeps_nothing(judged: Judged) -> None:
    schema = BOOKINGS + "CREATE INDEX old ON bookings (date, status)"
    item = judged(schema, "DROP INDEX old; CREATE INDEX i ON bookings (date)")
    assert item.verdict == "build"


def test_an_index_may_be_dropped_and_made_again(judged: Judged) -> None:
    schema = BOOKINGS + "CREATE INDEX i ON bookings (date)"
    assert judged(schema, "DROP INDEX i; CREATE INDEX i ON bookings (status)").verdict == "build"


def test_a_transaction_around_the_plan_is_mentioned(judged: Judged) -> None:
    item = judged(BOOKINGS, "BEGIN; CREATE INDEX i ON bookings (date); COMMIT")
    assert "in-transaction" in rules(item, "info")


# DROP INDEX


def test_a_planned_drop_is_qualified_and_concurrent(judged: Judged) -> None:
    item = judged(BOOKINGS + "CREATE INDEX i ON bookings (date)", "DROP INDEX i")
    assert (item.verdict, rules(item, "info")) == ("build", {"not-concurrent"})
    assert item.revised.text == "DROP INDEX CONCURRENTLY public.i"
    assert item.undo == "CREATE INDEX CONCURRENTLY i ON public.bookings USING btree (date)"


def test_an_index_comes_back_to_its_tablespace(audited: Audited, conn: psycopg.Connection) -> None:
    if conn.info.server_version < 150000:
        pytest.skip("tablespaces in place came with 15")
    conn.execute("SET allow_in_place_tablespaces = on")
    conn.execute("CREATE TABLESPACE elsewhere LOCATION ''")
    try:
        schema = BOOKINGS + "CREATE INDEX i ON bookings (date) TABLESPACE elsewhere"
        undo = audited(schema, "DROP INDEX i").statements[0].undo
        assert undo.endswith("USING btree (date) TABLESPACE elsewhere")
        conn.execute("DROP INDEX i")
        conn.execute(undo)
        assert catalog.read(conn).index("public", "i").tablespace == "elsewhere"
    finally:
        conn.execute("DROP TABLE bookings")
        conn.execute("DROP TABLESPACE elsewhere")


def test_one_drop_of_two_indexes_is_judged_for_each(audited: Audited) -> None:
    schema = BOOKINGS + "CREATE INDEX i ON bookings (date); CREATE INDEX j ON bookings (status)"
    audit = audited(schema, "DROP INDEX i, j, bookings_pkey")
    assert [item.verdict for item in audit.statements] == ["build", "build", "refuse"]


@pytest.mark.parametrize(
    ("schema", "name", "reason"),
    [
        ("", "bookings_pkey", "backs the constraint bookings_pkey"),
        (
            "CREATE UNIQUE INDEX u ON bookings (reference);"
            "CREATE TABLE r (x text REFERENCES bookings (reference))",
            "u",
            "is the target of the foreign key",
        ),
        (
            "CREATE UNIQUE INDEX u ON bookings (status);"
            "ALTER TABLE bookings REPLICA IDENTITY USING INDEX u",
            "u",
            "replica identity",
        ),
        (
            "CREATE MATERIALIZED VIEW v AS SELECT 1 AS a; CREATE UNIQUE INDEX u ON v (a)",
            "u",
            "REFRESH CONCURRENTLY",
        ),
        (
            "CREATE TABLE p (a int) PARTITION BY LIST (a); CREATE TABLE p1 PARTITION OF p DEFAULT;"
            "CREATE INDEX parts ON p (a)",
            "p1_a_idx",
            "is a part of the partitioned index public.parts",
        ),
    ],
)
def test_a_protected_index_is_not_dropped(
    judged: Judged, schema: str, name: str, reason: str
) -> None:
    item = judged(BOOKINGS + schema, f"DROP INDEX {name}")
    assert (item.verdict, rules(item)) == ("refuse", {"protected-index"})
    assert reason in messages(item)


def test_dropping_what_a_foreign_key_needs_is_warned_of(judged: Judged) -> None:
    schema = BOOKINGS + (
        "CREATE TABLE payments (booking_id int REFERENCES bookings);"
        "CREATE INDEX i ON payments (booking_id)"
    )
    item = judged(schema, "DROP INDEX i")
    assert (item.verdict, rules(item)) == ("build", {"needed-index"})
    assert "payments_booking_id_fkey" in messages(item)


def test_a_drop_of_nothing_is_skipped(audited: Audited) -> None:
    audit = audited(BOOKINGS, "DROP INDEX IF EXISTS gone; DROP INDEX gone; DROP INDEX bookings")
    assert [item.verdict for item in audit.statements] == ["skip", "skip", "refuse"]


def test_a_misspelled_drop_is_asked_about(judged: Judged) -> None:
    item = judged(BOOKINGS, "DROP INDEX booking_pkey")
    assert (item.verdict, rules(item)) == ("ask", {"missing-index"})
    assert "bookings_pkey" in messages(item)


# Rules 31 to 33: methods and expressions


@pytest.mark.parametrize(
    ("planned", "rule"),
    [
        ("CREATE INDEX i ON bookings USING hash (date, status)", "method-limit"),
        ("CREATE UNIQUE INDEX i ON bookings USING hash (date)", "method-limit"),
        ("CREATE INDEX i ON bookings USING hash (date) INCLUDE (status)", "method-limit"),
        ("CREATE INDEX i ON bookings USING hash (date DESC)", "method-limit"),
        ("CREATE INDEX i ON bookings USING hash (date ASC)", "method-limit"),
        ("CREATE UNIQUE INDEX i ON bookings USING brin (date)", "method-limit"),
        ("CREATE INDEX i ON bookings USING brin (date) INCLUDE (id)", "method-limit"),
        ("CREATE UNIQUE INDEX i ON bookings USING gin (tags)", "method-limit"),
        ("CREATE INDEX i ON bookings USING tree (date)", "missing-method"),
        ("CREATE INDEX i ON bookings (details)", "no-operator-class"),
        ("CREATE INDEX i ON bookings USING gin (customer_id)", "no-operator-class"),
        ("CREATE INDEX i ON bookings USING gist (customer_id)", "no-operator-class"),
        ("CREATE INDEX i ON bookings USING gin (reference gin_trgm_ops)", "missing-operator-class"),
        ("CREATE INDEX i ON bookings (customer_id text_ops)", "operator-class-type"),
        ('CREATE INDEX i ON bookings (status COLLATE "xx_XX")', "missing-collation"),
        ('CREATE INDEX i ON bookings (date COLLATE "C")', "collation-type"),
        ('CREATE INDEX i ON bookings ((id + 1) COLLATE "C")', "collation-type"),
        (f"CREATE INDEX i ON bookings ({', '.join(['id'] * 33)})", "too-many-columns"),
        ("CREATE INDEX i ON bookings (id) INCLUDE (lower(status))", "include-expression"),
        ("CREATE INDEX i ON bookings (id) WITH (fastupdate = off)", "unknown-option"),
        ("CREATE INDEX i ON bookings (id) TABLESPACE nowhere", "tablespace"),
        ("CREATE INDEX i ON bookings (id) TABLESPACE pg_global", "tablespace"),
        ("CREATE INDEX i ON bookings (nonsense(id))", "expression-refused"),
        ("CREATE INDEX i ON bookings ((date + status))", "expression-refused"),
        ("CREATE INDEX i ON bookings (sum(id))", "expression-refused"),
        ("CREATE INDEX i ON bookings ((id + row_number() OVER ()))", "expression-refused"),
        ("CREATE INDEX i ON bookings (generate_series(1, id))", "expression-refused"),
        ("CREATE INDEX i ON bookings (id) WHERE id IN (SELECT 1)", "expression-refused"),
        ("CREATE INDEX i ON bookings (((SELECT 1)))", "expression-refused"),
        ("CREATE INDEX i ON bookings (id) WHERE customer_id", "expression-refused"),
    ],
)
def test_what_the_server_refuses_is_refused_before(
    judged: Judged, conn: psycopg.Connection, planned: str, rule: str
) -> None:
    item = judged(BOOKINGS, planned)
    assert (item.verdict, rules(item)) == ("refuse", {rule})
    with pytest.raises(psycopg.Error):
        conn.execute(planned)


@pytest.mark.parametrize(
    "planned",
    [
        "CREATE INDEX i ON bookings USING hash (status)",
        "CREATE INDEX i ON bookings USING gin (tags)",
        "CREATE INDEX i ON bookings USING brin (created_at) WITH (pages_per_range = 32)",
        "CREATE INDEX i ON bookings (status varchar_pattern_ops)",
        "CREATE INDEX i ON bookings (lower(status))",
        "CREATE INDEX i ON bookings (coalesce(reference, 'ASC'))",
        "CREATE INDEX i ON bookings USING hash (coalesce(reference, ' ASC '))",
        "CREATE INDEX i ON bookings USING gin (to_tsvector('english', reference))",
        "CREATE INDEX i ON bookings (((created_at AT TIME ZONE 'UTC')::date))",
        "CREATE INDEX i ON bookings ((details ->> 'key'))",
        "CREATE INDEX i ON bookings (date) WHERE paid IS NOT TRUE",
        "CREATE INDEX i ON bookings (date) TABLESPACE pg_default",
        f"CREATE INDEX i ON bookings ({', '.join(['id'] * 32)})",
    ],
)
def test_what_the_server_builds_is_built(judged: Judged, planned: str) -> None:
    assert judged(BOOKINGS, planned).verdict == "build"


@pytest.mark.parametrize(
    "column",
    [
        "mood feeling",
        "mood feeling[]",
        "mood positive",
        "mood int4range",
        "mood point_pair",
        "mood oid",
        "mood name",
        "mood uuid",
        "mood citycode",
        "mood inet",
        "mood char(3)",
        "mood bit(8)",
        "mood int4multirange",
    ],
)
def test_types_of_all_kinds_have_their_operator_class(
    judged: Judged, conn: psycopg.Connection, column: str
) -> None:
    if "multirange" in column and conn.info.server_version < 140000:
        pytest.skip("multiranges came with 14")
    schema = (
        "CREATE TYPE feeling AS ENUM ('good'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);"
        "CREATE DOMAIN code AS varchar(3); CREATE DOMAIN citycode AS code;"
        f"CREATE TYPE point_pair AS (a int, b int); CREATE TABLE t ({column})"
    )
    assert judged(schema, "CREATE INDEX i ON t (mood)").verdict == "build"


def test_an_operator_class_outside_of_the_search_path_is_not_found(
    judged: Judged, conn: psycopg.Connection
) -> None:
    schema = (
        "CREATE SCHEMA x; CREATE OPERATOR CLASS x.mine FOR TYPE int USING btree AS"
        " OPERATOR 3 =, FUNCTION 1 btint4cmp(int, int); CREATE TABLE t (a int)"
    )
    item = judged(schema, "CREATE INDEX i ON t (a mine)")
    assert (item.verdict, item.findings[-1].fix) == ("refuse", "write x.mine")
    assert judged_again(conn, "CREATE INDEX i ON t (a x.mine)") == "build"


def judged_again(conn: psycopg.Connection, text: str) -> str:
    return auditing.read(conn, plan.parse(text))[1].statements[0].verdict


def test_a_whole_row_is_not_a_missing_column(judged: Judged) -> None:
    schema = (
        "CREATE TABLE t (a int); CREATE FUNCTION total(t) RETURNS int LANGUAGE sql IMMUTABLE"
        " AS 'SELECT $1.a'"
    )
    assert judged(schema, "CREATE INDEX i ON t (total(t))").verdict == "build"


def test_nulls_not_distinct_needs_15(conn: psycopg.Connection) -> None:
    conn.execute(BOOKINGS)
    wanted = plan.parse("CREATE UNIQUE INDEX i ON bookings (date) NULLS NOT DISTINCT")
    cat = catalog.read(conn, wanted)
    assert auditing.audit(cat, wanted).statements[0].verdict == "build"
    old = replace(cat, server=replace(cat.server, version=140010, version_text="14.10"))
    item = auditing.audit(old, wanted).statements[0]
    assert (item.verdict, rules(item)) == ("refuse", {"server-too-old"})


# Rules 21 and 37: foreign keys, roles and servers


@pytest.mark.parametrize(
    ("index", "covered"),
    [
        ("", False),
        ("CREATE INDEX i ON r (q, p)", True),
        ("CREATE INDEX i ON r (p, q, z)", True),
        ("CREATE INDEX i ON r (p, q) WHERE p IS NOT NULL", True),
        ("CREATE INDEX i ON r (p, z, q)", False),
        ("CREATE INDEX i ON r (p, q) WHERE z > 1", False),
        ("CREATE INDEX i ON r (p)", False),
        ("CREATE INDEX i ON r ((p + 0), q)", False),
        ("CREATE INDEX i ON r USING brin (p, q)", False),
    ],
)
def test_a_foreign_key_wants_an_index(audited: Audited, index: str, covered: bool) -> None:
    audit = audited(
        "CREATE TABLE t (p int, q int, PRIMARY KEY (p, q));"
        "CREATE TABLE r (p int, q int, z int, FOREIGN KEY (p, q) REFERENCES t);" + index
    )
    found = [item.rule for item in audit.advice]
    assert found == ([] if covered else ["foreign-key-without-index"])


@pytest.mark.parametrize(
    ("index", "covered"),
    [
        ("CREATE INDEX i ON r USING hash (p)", True),
        ("CREATE INDEX i ON r (p text_pattern_ops)", True),
        ('CREATE INDEX i ON r (p COLLATE "POSIX")', False),
    ],
)
def test_a_foreign_key_of_text(audited: Audited, index: str, covered: bool) -> None:
    audit = audited(
        "CREATE TABLE t (p text PRIMARY KEY); CREATE TABLE r (p text REFERENCES t);" + index
    )
    assert (audit.advice == ()) is covered


def test_a_planned_index_serves_a_foreign_key(audited: Audited) -> None:
    schema = "CREATE TABLE t (p int PRIMARY KEY); CREATE TABLE r (p int REFERENCES t);"
    assert audited(schema, "CREATE INDEX i ON r (p)").advice == ()


def test_the_foreign_key_of_a_partitioned_table_counts_once(audited: Audited) -> None:
    audit = audited(
        "CREATE TABLE t (p int PRIMARY KEY);"
        "CREATE TABLE r (p int REFERENCES t) PARTITION BY LIST (p);"
        "CREATE TABLE r1 PARTITION OF r FOR VALUES IN (1); CREATE TABLE r2 PARTITION OF r DEFAULT;"
    )
    assert len(audit.advice) == 1


def test_who_is_not_the_owner_is_told_who_is(conn: psycopg.Connection, address: str) -> None:
    role = f"reader_{next(_numbers)}_{conn.info.dbname}"
    conn.execute(f"CREATE ROLE {role} LOGIN; {BOOKINGS} GRANT SELECT ON bookings TO {role}")
    try:
        conn.execute(f"SET ROLE {role}")
        _, audit = auditing.read(conn, plan.parse("CREATE INDEX i ON bookings (date)"))
        item = audit.statements[0]
        assert (item.verdict, rules(item)) == ("refuse", {"not-owner"})
        assert "belongs to postgres" in messages(item)
        conn.execute("RESET ROLE")
        conn.execute(
            f"ALTER TABLE bookings OWNER TO {role}; REVOKE CREATE ON SCHEMA public FROM PUBLIC"
        )
        conn.execute(f"SET ROLE {role}")
        _, audit = auditing.read(conn, plan.parse("CREATE INDEX i ON bookings (date)"))
        assert rules(audit.statements[0]) == {"no-create-privilege"}
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("CREATE INDEX i ON bookings (date)")
    finally:
        conn.execute("RESET ROLE")
        conn.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"standby": True}, "standby"),
        ({"version": 140003, "version_text": "14.3"}, "corrupting-version"),
    ],
)
def test_some_servers_must_not_build(
    conn: psycopg.Connection, change: dict[str, object], rule: str
) -> None:
    cat = catalog.read(conn)
    bad = replace(cat, server=replace(cat.server, **change))
    found = auditing.audit(bad, plan.parse("CREATE INDEX i ON t (a)")).preconditions
    assert [(item.rule, item.severity) for item in found] == [(rule, "error")]
    assert auditing.audit(cat, plan.parse("CREATE INDEX i ON t (a)")).preconditions == ()


# Real schemas


def load(conn: psycopg.Connection, file: str) -> None:
    path = SCHEMAS / file
    if not path.is_file():
        pytest.skip(f"no {path}: the schemas are not part of the repository")
    # uuidv7 came with 18; it is a default, and no index cares.
    text = path.read_text().replace("uuidv7()", "gen_random_uuid()")
    done = subprocess.run(
        [embedded.binary("psql"), "-X", "-q", "-d", conn.info.dsn],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0


REDUNDANT = {
    "pagila.sql": {f"payment_p2022_0{month}_customer_id_idx" for month in range(1, 7)},
    "chinook_quoted.sql": {'"IFK_PlaylistTrackPlaylistId"'},
    "cratesio.sql": {
        "index_crates_categories_crate_id",
        "index_crates_keywords_crate_id",
        "index_dependencies_crate_id",
        "index_keywords_keyword",
    },
    "supabase_auth.sql": {
        "auth.custom_oauth_providers_identifier_idx",
        "auth.mfa_factors_user_id_idx",
        "auth.refresh_tokens_instance_id_idx",
        "auth.sessions_user_id_idx",
        "auth.users_instance_id_idx",
    },
}
"""Read one by one against the definitions: each equals another index or is a prefix of one."""


@pytest.mark.parametrize("file", list(REDUNDANT))
def test_nothing_in_a_real_schema_is_called_redundant_that_is_not(
    conn: psycopg.Connection, file: str
) -> None:
    load(conn, file)
    assert (
        redundant(auditing.read(conn, plan.parse("DROP INDEX IF EXISTS gone"))[1])
        == (REDUNDANT[file])
    )


@pytest.mark.parametrize("file", list(REDUNDANT))
def test_every_index_of_a_real_schema_exists(conn: psycopg.Connection, file: str) -> None:
    load(conn, file)
    every = catalog.read(conn).indexes
    statements = [i for i in every if not conn_partitioned(conn, i.table)]
    text = "\n".join(f"{item.definition};" for item in statements)
    _, audit = auditing.read(conn, plan.parse(text))
    assert {(i.verdict, *rules(i, "info", "warning", "error")) for i in audit.statements} == {
        ("skip", "exists")
    }


def conn_partitioned(conn: psycopg.Connection, table: int) -> bool:
    row = conn.execute("SELECT relkind = 'p' FROM pg_class WHERE oid = %s", [table]).fetchone()
    return row == (True,)


# Files


WORKLOAD = """
-- name: by_customer
-- param customer: SELECT customer_id FROM bookings
SELECT * FROM bookings WHERE customer_id = :customer AND status <> ':customer' -- the end
-- name: never
-- param nobody: SELECT customer_id FROM bookings WHERE false
SELECT * FROM bookings WHERE customer_id = :nobody
-- name: count
SELECT count(*) FROM bookings
-- name: write
DELETE FROM bookings
"""


@pytest.fixture
def audit_of_all(conn: psycopg.Connection, audited: Audited) -> Audit:
    conn.execute(BOOKINGS)
    conn.execute("INSERT INTO bookings VALUES (1, 7, '2026-01-01', 'x'), (2, 8, '2026-01-01', 'y')")
    conn.execute("CREATE TABLE twice (a int); INSERT INTO twice VALUES (1), (1)")
    leave_invalid(conn, 'CREATE UNIQUE INDEX CONCURRENTLY "left; over" ON twice (a)')
    conn.execute("DELETE FROM twice")
    return audited(
        "CREATE INDEX old ON bookings (status); CREATE INDEX narrow ON bookings (customer_id)",
        """
        -- the account page
        -- (every visit)
        CREATE INDEX wide ON bookings (customer_id, date);
        COMMENT ON INDEX wide IS 'it''s \\ the account page';
        /* a reason
           DROP TABLE bookings; */
        CREATE INDEX "odd
        name;" ON bookings (event_date);
        CREATE UNIQUE INDEX "left; over" ON twice (a);
        CREATE INDEX no ON bookings (customer_id);
        COMMENT ON INDEX no IS 'not built';
        CREATE INDEX what ON bookings (nonsense);
        DROP INDEX old;
        """,
    )


def test_the_revised_plan_is_a_plan(audit_of_all: Audit) -> None:
    again = plan.parse(auditing.revised_plan_sql(audit_of_all))
    assert [item.index.sql for item in again.creates] == [
        item.index.sql for item in audit_of_all.revised.creates
    ]
    assert again.creates[0].reason == "the account page\n(every visit)"
    assert [item.comment for item in again.comments] == ["it's \\ the account page"]
    assert [str(name) for drop in again.drops for name in drop.names] == ["public.old"]


def test_the_revised_plan_leaves_nothing_to_say(audited: Audited, conn: psycopg.Connection) -> None:
    audit = audited(
        BOOKINGS, "CREATE INDEX i ON booking (event_date); CREATE INDEX ON bookings (id)"
    )
    again = plan.parse(auditing.revised_plan_sql(audit))
    second = auditing.read(conn, again)[1]
    assert [(i.verdict, i.findings) for i in second.statements] == [("build", ())]


def psql(conn: psycopg.Connection, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [embedded.binary("psql"), "-X", "-v", "ON_ERROR_STOP=1", "-d", conn.info.dsn, "-f", path],
        capture_output=True,
        text=True,
        check=False,
    )


def names(conn: psycopg.Connection) -> set[str]:
    return {item.name for item in catalog.read(conn).indexes}


def test_the_migration_and_its_rollback_run_in_psql(
    conn: psycopg.Connection, audit_of_all: Audit, tmp_path: Path
) -> None:
    before = names(conn)
    (tmp_path / "m.sql").write_text(auditing.migration_sql(audit_of_all, workload.parse(WORKLOAD)))
    done = psql(conn, tmp_path / "m.sql")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("Planning Time") == 2  # the query without values is passed over
    now = catalog.read(conn).indexes
    assert all(item.usable for item in now)
    assert {"wide", "left; over"} <= names(conn)
    assert not {"old", "no", "what"} & names(conn)
    comment = conn.execute("SELECT obj_description('wide'::regclass)").fetchone()
    assert comment == ("it's \\ the account page",)
    (tmp_path / "r.sql").write_text(auditing.rollback_sql(audit_of_all))
    done = psql(conn, tmp_path / "r.sql")
    assert (done.returncode, done.stderr) == (0, "")
    assert names(conn) == before - {"left; over"}


def test_a_plan_of_which_nothing_is_left_is_a_file_of_comments(audited: Audited) -> None:
    audit = audited(BOOKINGS, "CREATE INDEX i ON bookings (id)")
    assert audit.revised.statements == ()
    text = auditing.revised_plan_sql(audit)
    assert all(line.startswith("--") or not line for line in text.splitlines())
    assert plan.parse(text).statements == ()
    with pytest.raises(InputError, match="holds no CREATE INDEX"):
        plan.parse(text.replace(plan.EMPTY, "-- nothing"))


# Showing


def test_everything_from_outside_is_escaped(audited: Audited) -> None:
    audit = audited(
        'CREATE TABLE "<img src=x>" ("<b>" int); CREATE INDEX "<i>" ON "<img src=x>" ("<b>");'
        'CREATE INDEX "<j>" ON "<img src=x>" ("<b>")',
        'CREATE INDEX "<script>" ON "<img src=x>" ("<u>")',
    )
    shown = audit._repr_html_()
    assert not re.search(r"<(img|script|i|j|b|u)[ >]", shown)
    assert "&lt;script&gt;" in shown


def test_frames_have_a_row_for_each(audit_of_all: Audit) -> None:
    frame = audit_of_all.frame()
    assert list(frame.columns) == ["line", "index", "table", "verdict", "revised", "why"]
    assert list(frame["verdict"]) == ["replace", "fix", "build", "skip", "refuse", "build"]
    assert len(audit_of_all.findings_frame()) == len(audit_of_all.findings)
    assert len(audit_of_all.existing_frame()) == len(audit_of_all.existing)
    assert audit_of_all.summary == "6 statements: 2 build, 1 fix, 1 replace, 1 skip, 1 refuse"
    assert {item.severity for item in audit_of_all.errors} == {"error"}
