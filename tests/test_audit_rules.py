"""One test for each point of the rules of index auditing, in their order, on 18 and on 15.

Where a point has a negative side, the test has both. 38 to 40 are preconditions and tested with
those.
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from indexlab import audit as auditing
from indexlab import plan
from indexlab.audit import Audit, StatementAudit
from indexlab.audit.partial import implies

Told = Callable[..., StatementAudit]
Surveyed = Callable[[str], Audit]

T = """
CREATE TABLE t (
    a int, b int, c int, n int NOT NULL, f boolean, v varchar(20), s text, j jsonb,
    g text[], ts tsvector, at timestamptz
);
"""


def rules(item: StatementAudit) -> set[str]:
    return {finding.rule for finding in item.findings}


def message(item: StatementAudit, rule: str) -> str:
    return next(finding.message for finding in item.findings if finding.rule == rule)


def fix(item: StatementAudit, rule: str) -> str:
    return next(finding.fix for finding in item.findings if finding.rule == rule)


def redundant(audit: Audit) -> set[str]:
    named = ("duplicate-index", "redundant-index")
    return {i.index.name for i in audit.existing if any(f.rule in named for f in i.findings)}


def verdicts(told: Told, *pairs: tuple[str, str]) -> list[str]:
    """Audit one planned index beside one that exists, for each pair of what is ON t."""
    found = []
    for existing, planned in pairs:
        schema = existing if existing.startswith("ALTER") else f"CREATE {existing}"
        found.append(told(T + schema, f"CREATE {planned}").verdict)
    return found


# Same or covered: yes


def test_rule_01_of_equal_plain_indexes_one_stays(surveyed: Surveyed) -> None:
    twice = "CREATE INDEX one ON t (a); CREATE INDEX two ON t (a); CREATE INDEX three ON t (a)"
    assert len(redundant(surveyed(T + twice))) == 2
    assert not redundant(surveyed(T + "CREATE INDEX one ON t (a); CREATE INDEX two ON t (b)"))


def test_rule_02_plain_beside_unique_is_redundant_and_never_the_unique_one(
    surveyed: Surveyed, told: Told
) -> None:
    assert redundant(surveyed(T + "CREATE INDEX p ON t (a); CREATE UNIQUE INDEX u ON t (a)")) == {
        "p"
    }
    assert verdicts(
        told,
        ("UNIQUE INDEX e ON t (a)", "INDEX p ON t (a)"),
        ("INDEX e ON t (a)", "UNIQUE INDEX p ON t (a)"),
    ) == ["skip", "replace"]


def test_rule_03_a_constraint_stays_unless_a_foreign_key_hangs_on_the_other(
    surveyed: Surveyed,
) -> None:
    equal = "CREATE UNIQUE INDEX u ON t (n);"
    constraint = "ALTER TABLE t ADD CONSTRAINT k UNIQUE (n)"
    key = "CREATE TABLE r (n int REFERENCES t (n));"
    assert redundant(surveyed(T + equal + constraint)) == {"u"}
    assert redundant(surveyed(T + equal + key + constraint)) == set()


def test_rule_04_a_strict_left_prefix_is_redundant(surveyed: Surveyed) -> None:
    short = "CREATE INDEX short ON t (a);"
    for keeper in (
        "CREATE INDEX w ON t (a, b)",
        "CREATE UNIQUE INDEX w ON t (a, b)",
        "ALTER TABLE t ADD UNIQUE (a, b) DEFERRABLE",
        "ALTER TABLE t ADD PRIMARY KEY (a, b)",
    ):
        audit = surveyed(T + short + keeper)
        assert redundant(audit) == {"short"}
        assert audit.existing[0].findings[0].severity == "warning"
    for other in ("(a DESC, b)", "(a NULLS FIRST, b)", "(a, b) WHERE b > 1", "(b, a)"):
        assert redundant(surveyed(T + short + f"CREATE INDEX w ON t {other}")) == set()


def test_rule_05_expression_keys_compare_by_the_servers_text(surveyed: Surveyed) -> None:
    narrow = "CREATE INDEX i ON t (lower(v));"
    assert redundant(surveyed(T + narrow + "CREATE INDEX w ON t (lower(v::text), a)")) == {"i"}
    assert redundant(surveyed(T + narrow + "CREATE INDEX w ON t (upper(v), a)")) == set()


def test_rule_06_include_columns_are_covered_where_they_occur(told: Told) -> None:
    assert verdicts(
        told,
        ("INDEX e ON t (a, b)", "INDEX p ON t (a) INCLUDE (b)"),
        ("INDEX e ON t (a) INCLUDE (b)", "INDEX p ON t (a)"),
        ("INDEX e ON t (a) INCLUDE (b, c)", "INDEX p ON t (a) INCLUDE (c, b)"),
        ("INDEX e ON t (a) INCLUDE (b)", "INDEX p ON t (a, b)"),
    ) == ["skip", "skip", "skip", "replace"]


def test_rule_07_in_a_chain_the_longest_stays_and_keeps_all(surveyed: Surveyed) -> None:
    chain = "CREATE INDEX x ON t (a); CREATE INDEX y ON t (a, b); CREATE INDEX z ON t (a, b, c)"
    audit = surveyed(T + chain)
    assert redundant(audit) == {"x", "y"}
    assert {dict(i.findings[0].evidence)["keeper"] for i in audit.existing} == {"public.z"}


def test_rule_08_operator_classes_of_one_family_and_type_are_equivalent(told: Told) -> None:
    assert verdicts(
        told,
        ("INDEX e ON t (v)", "INDEX p ON t (v varchar_ops)"),
        ("INDEX e ON t (v)", "INDEX p ON t (v varchar_pattern_ops)"),
    ) == ["skip", "build"]


def test_rule_09_other_storage_is_a_duplicate_that_says_so(told: Told) -> None:
    existing = T + "CREATE INDEX e ON t (a) WITH (fillfactor = 70)"
    item = told(existing, "CREATE INDEX p ON t (a)")
    assert item.verdict == "skip"
    assert "fillfactor=70" in message(item, "duplicate-index")


def test_rule_10_every_bit_flipped_is_advice_and_one_bit_is_nothing(told: Told) -> None:
    flipped = told(T + "CREATE INDEX e ON t (a DESC)", "CREATE INDEX p ON t (a)")
    one_bit = told(T + "CREATE INDEX e ON t (a, b DESC)", "CREATE INDEX p ON t (a, b)")
    assert (flipped.verdict, "same-backwards" in rules(flipped)) == ("build", True)
    assert (one_bit.verdict, "same-backwards" in rules(one_bit)) == ("build", False)


# Same or covered: no


def test_rule_11_a_unique_prefix_is_not_redundant(surveyed: Surveyed) -> None:
    unique = "CREATE UNIQUE INDEX u ON t (a, b);"
    assert redundant(surveyed(T + unique + "CREATE INDEX w ON t (a, b, c)")) == set()
    assert redundant(surveyed(T + unique + "CREATE UNIQUE INDEX w ON t (a)")) == set()


def test_rule_12_partial_and_full_are_at_most_mentioned(surveyed: Surveyed, told: Told) -> None:
    partial = "CREATE INDEX e ON t (a) WHERE b > 1;"
    assert redundant(surveyed(T + partial + "CREATE INDEX w ON t (a)")) == set()
    assert redundant(
        surveyed(T + "CREATE INDEX e ON t (a); CREATE INDEX w ON t (a, b) WHERE f")
    ) == (set())
    beside = told(T + partial, "CREATE INDEX p ON t (a)")
    assert (beside.verdict, "partial-beside-full" in rules(beside)) == ("build", True)
    narrow = told(T + partial, "CREATE INDEX p ON t (a) WHERE b > 1 AND f")
    assert (narrow.verdict, "predicate-implied" in rules(narrow)) == ("build", True)
    assert "the rows of p are all in public.e" in message(narrow, "predicate-implied")
    other = told(T + partial, "CREATE INDEX p ON t (a) WHERE c > 1")
    assert (other.verdict, "predicate-implied" in rules(other)) == ("build", False)


def test_rule_12_planned_ones_are_held_against_each_other(told: Told) -> None:
    full = "CREATE INDEX w ON t (a); CREATE INDEX p ON t (a) WHERE b > 1"
    beside = told(T, full)
    assert (beside.verdict, "partial-beside-full" in rules(beside)) == ("build", True)
    assert "public.w is full" in message(beside, "partial-beside-full")
    narrow = told(T, "CREATE INDEX w ON t (a) WHERE b > 1; CREATE INDEX p ON t (a) WHERE b > 2")
    assert "the rows of p are all in public.w" in message(narrow, "predicate-implied")
    other = told(T, "CREATE INDEX w ON t (a) WHERE b > 1; CREATE INDEX p ON t (a) WHERE c > 1")
    assert not {"predicate-implied", "partial-beside-full"} & rules(other)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("b > 2", "b > 1", True),
        ("b > 1", "b > 2", False),
        ("b >= 1", "b > 1", False),
        ("b > 1", "b >= 1", True),
        ("b = 5", "b > 1", True),
        ("b < 2", "b < 3", True),
        ("b < 2", "b > 1", False),
        ("b <> 2", "b > 1", False),
        ("a = 1 AND b = 2", "b = 2", True),
        ("a = 1 OR b = 2", "b = 2", False),
        ("b = 2", "a = 1 AND b = 2", False),
    ],
)
def test_rule_12_what_implies_a_predicate(one: str, other: str, expected: bool) -> None:
    assert implies(one, other) is expected


def test_rule_13_what_looks_like_always_true_is_not_the_full_index(told: Told) -> None:
    assert verdicts(
        told,
        ("INDEX e ON t (a) WHERE n IS NOT NULL", "INDEX p ON t (a)"),
        ("INDEX e ON t (a)", "INDEX p ON t (a) WHERE n IS NOT NULL"),
        ("INDEX e ON t (a) WHERE f", "INDEX p ON t (a) WHERE f = true"),
        ("INDEX e ON t (a) WHERE f = true", "INDEX p ON t (a) WHERE f IS TRUE"),
        ("INDEX e ON t (a) WHERE f", "INDEX p ON t (a) WHERE f"),
    ) == ["build", "build", "build", "build", "skip"]


def test_rule_14_other_classes_collations_methods_and_ranges_differ(told: Told) -> None:
    assert verdicts(
        told,
        ("INDEX e ON t (s)", "INDEX p ON t (s text_pattern_ops)"),
        ("INDEX e ON t USING gin (j)", "INDEX p ON t USING gin (j jsonb_path_ops)"),
        (
            "INDEX e ON t USING gist (ts tsvector_ops (siglen = 64))",
            "INDEX p ON t USING gist (ts tsvector_ops (siglen = 128))",
        ),
        ('INDEX e ON t (s COLLATE "C")', 'INDEX p ON t (s COLLATE "POSIX")'),
        ("INDEX e ON t USING hash (a)", "INDEX p ON t (a)"),
        (
            "INDEX e ON t USING brin (a) WITH (pages_per_range = 8)",
            "INDEX p ON t USING brin (a) WITH (pages_per_range = 16)",
        ),
        (
            "INDEX e ON t USING brin (a) WITH (pages_per_range = 8)",
            "INDEX p ON t USING brin (a) WITH (pages_per_range = 8)",
        ),
    ) == ["build"] * 6 + ["skip"]


def test_rule_15_only_a_left_prefix_of_a_btree_counts(surveyed: Surveyed) -> None:
    for narrow, wide in (
        ("(b)", "(a, b)"),
        ("USING gin (g)", "USING gin (g, j)"),
        ("USING brin (a)", "USING brin (a, b)"),
    ):
        pair = f"CREATE INDEX i ON t {narrow}; CREATE INDEX w ON t {wide}"
        assert redundant(surveyed(T + pair)) == set()


def test_rule_16_include_columns_are_no_keys(told: Told) -> None:
    assert verdicts(
        told,
        ("UNIQUE INDEX e ON t (a) INCLUDE (b)", "UNIQUE INDEX p ON t (a, b)"),
        ("UNIQUE INDEX e ON t (a, b)", "UNIQUE INDEX p ON t (a) INCLUDE (b)"),
        ("INDEX e ON t (a, b)", "INDEX p ON t (a) INCLUDE (c)"),
        ("INDEX e ON t (a, b, c)", "INDEX p ON t (a) INCLUDE (c)"),
    ) == ["build", "build", "build", "skip"]


def test_rule_17_nulls_and_deferral_make_another_uniqueness(told: Told) -> None:
    assert verdicts(
        told,
        ("UNIQUE INDEX e ON t (a)", "UNIQUE INDEX p ON t (a) NULLS NOT DISTINCT"),
        ("ALTER TABLE t ADD UNIQUE (a) DEFERRABLE", "UNIQUE INDEX p ON t (a)"),
        ("ALTER TABLE t ADD UNIQUE (a)", "UNIQUE INDEX p ON t (a)"),
    ) == ["build", "build", "skip"]


def test_rule_18_an_invalid_index_is_no_keeper(
    conn: psycopg.Connection, surveyed: Surveyed
) -> None:
    surveyed("CREATE TABLE t (a int); INSERT INTO t VALUES (1), (1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute("CREATE UNIQUE INDEX CONCURRENTLY broken ON t (a)")
    _, audit = auditing.read(conn, plan.parse("CREATE INDEX i ON t (a)"))
    assert audit.statements[0].verdict == "build"
    assert [f.rule for f in audit.existing[0].findings] == ["invalid-index"]


def test_rule_19_tables_are_compared_by_oid(surveyed: Surveyed) -> None:
    assert not redundant(
        surveyed(
            "CREATE SCHEMA x; CREATE TABLE t (a int); CREATE TABLE x.t (a int);"
            "CREATE TABLE child () INHERITS (t);"
            "CREATE INDEX i ON t (a); CREATE INDEX i ON x.t (a); CREATE INDEX j ON child (a)"
        )
    )
    parts = surveyed(
        "CREATE TABLE p (a int, b int) PARTITION BY LIST (a); CREATE TABLE p1 PARTITION OF p DEFAULT;"
        "CREATE INDEX narrow ON p (a); CREATE INDEX wide ON p (a, b)"
    )
    assert redundant(parts) == {"narrow"}


# Droppable?


def test_rule_20_what_protects_an_index(told: Told) -> None:
    for schema, name in (
        ("ALTER TABLE t ADD CONSTRAINT x PRIMARY KEY (n)", "x"),
        ("ALTER TABLE t ADD CONSTRAINT x UNIQUE (a)", "x"),
        ("CREATE UNIQUE INDEX x ON t (a); CREATE TABLE r (a int REFERENCES t (a))", "x"),
        ("CREATE UNIQUE INDEX x ON t (n); ALTER TABLE t REPLICA IDENTITY USING INDEX x", "x"),
        ("CREATE MATERIALIZED VIEW m AS SELECT 1 AS a; CREATE UNIQUE INDEX x ON m (a)", "x"),
    ):
        item = told(T + schema, f"DROP INDEX {name}")
        assert (item.verdict, "protected-index" in rules(item)) == ("refuse", True)
    free = told(T + "CREATE INDEX x ON t (a); CLUSTER t USING x", "DROP INDEX x")
    assert (free.verdict, "needed-index" in rules(free)) == ("build", True)


def test_rule_21_which_index_serves_a_foreign_key(surveyed: Surveyed) -> None:
    tables = (
        "CREATE TABLE t (p int, q int, PRIMARY KEY (p, q));"
        "CREATE TABLE r (p int, q int, z int, FOREIGN KEY (p, q) REFERENCES t);"
    )
    for index, serves in (
        ("(q, p)", True),
        ("(p, q, z)", True),
        ("(p, q) WHERE p IS NOT NULL", True),
        ("(p, q) WHERE z > 1", False),
        ("(p)", False),
        ("((p + 0), q)", False),
        ("USING brin (p, q)", False),
    ):
        audit = surveyed(tables + f"CREATE INDEX i ON r {index}")
        found = [f.rule for f in audit.advice if f.rule == "foreign-key-without-index"]
        assert (found == []) is serves, index


# Targets


def test_rule_22_a_view_is_not_a_missing_table(told: Told) -> None:
    item = told(T + "CREATE VIEW w AS SELECT a FROM t", "CREATE INDEX i ON w (a)")
    assert (item.verdict, rules(item) & {"not-a-table", "missing-table"}) == (
        "refuse",
        {"not-a-table"},
    )
    for create in ("MATERIALIZED VIEW w AS SELECT 1 AS a", "UNLOGGED TABLE w (a int)"):
        assert told(f"CREATE {create}", "CREATE INDEX i ON w (a)").verdict == "build"
    assert "system-catalog" in rules(told("", "CREATE INDEX i ON pg_class (relname)"))
    assert "system-column" in rules(told(T, "CREATE INDEX i ON t (xmin)"))


PARTS = """
CREATE TABLE p (a int, b int) PARTITION BY LIST (a);
CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2) PARTITION BY LIST (b);
CREATE TABLE p21 PARTITION OF p2 DEFAULT;
CREATE INDEX there ON p1 (b);
"""


def test_rule_23_the_way_for_a_partitioned_table_can_be_walked(
    told: Told, conn: psycopg.Connection
) -> None:
    assert told(PARTS, "CREATE INDEX CONCURRENTLY i ON p (b)").verdict == "fix"
    told(PARTS, "CREATE INDEX i ON p (a)")
    _, audit = auditing.read(conn, plan.parse("CREATE INDEX i ON p (b)"))
    assert audit.statements[0].verdict == "refuse"  # of another definition, made by the line above
    conn.execute("DROP INDEX i")
    _, audit = auditing.read(conn, plan.parse("CREATE INDEX i ON p (b)"))
    item = audit.statements[0]
    assert item.verdict == "build"
    assert {f.severity for f in item.findings} == {"info"}
    with pytest.raises(psycopg.Error):
        conn.execute("CREATE INDEX CONCURRENTLY i ON p (b)")
    statements = list(item.sequence)
    assert fix(item, "partitioned-table").split("; ") == statements
    assert statements == [
        "CREATE INDEX i ON ONLY public.p USING btree (b)",
        "ALTER INDEX public.i ATTACH PARTITION public.there",
        "CREATE INDEX p2_i ON ONLY public.p2 USING btree (b)",
        "CREATE INDEX CONCURRENTLY p21_i ON public.p21 USING btree (b)",
        "ALTER INDEX public.p2_i ATTACH PARTITION public.p21_i",
        "ALTER INDEX public.i ATTACH PARTITION public.p2_i",
    ]
    conn.execute(statements[0])
    _, half = auditing.read(conn, plan.parse("CREATE INDEX i ON p (b)"))
    assert half.statements[0].verdict == "build"
    assert "unfinished-index" in rules(half.statements[0])
    assert list(half.statements[0].sequence) == statements[1:]
    for statement in statements[1:]:
        conn.execute(statement)
    _, again = auditing.read(conn, plan.parse("CREATE INDEX i ON p (b)"))
    assert (again.statements[0].verdict, "exists" in rules(again.statements[0])) == ("skip", True)
    for statement in item.backwards:
        conn.execute(statement)
    there = conn.execute("SELECT relname FROM pg_class WHERE relkind IN ('i', 'I') AND oid > 16384")
    assert {name for (name,) in there if not name.startswith("pg_")} == {"there"}


LONG = "s" * 60
TREE = f"""
CREATE TABLE "Odd 'T'" (a int, b int) PARTITION BY LIST (a);
CREATE TABLE "{LONG}_a" PARTITION OF "Odd 'T'" FOR VALUES IN (1);
CREATE TABLE "{LONG}_b" PARTITION OF "Odd 'T'" FOR VALUES IN (2);
CREATE TABLE ééé PARTITION OF "Odd 'T'" FOR VALUES IN (3);
"""


def test_rule_23_the_migration_of_long_and_odd_names_is_run_as_written(
    conn: psycopg.Connection,
) -> None:
    conn.execute(TREE)
    named = ["é" * 31, "i" * 62 + "1", "i" * 62 + "2"]
    written = "; ".join(
        f"""CREATE INDEX "{name}" ON "Odd 'T'" ({keys})"""
        for name, keys in zip(named, ("a, b", "b", "b DESC NULLS LAST, a"), strict=True)
    )
    _, audit = auditing.read(conn, plan.parse(written))
    for item in audit.statements:
        assert item.verdict == "build"
        for statement in item.sequence:
            conn.execute(statement)
    valid = conn.execute("SELECT count(*) FROM pg_index WHERE indisvalid AND indexrelid > 16384")
    count = "SELECT count(*) FROM pg_index WHERE indexrelid > 16384 AND NOT indisvalid"
    assert valid.fetchone() == (12,)
    assert conn.execute(count).fetchone() == (0,)
    for item in reversed(audit.statements):
        for statement in item.backwards:
            conn.execute(statement)
    assert conn.execute("SELECT FROM pg_index WHERE indexrelid > 16384").fetchall() == []


def test_rule_23_an_index_that_the_plan_drops_is_not_attached(
    told: Told, conn: psycopg.Connection
) -> None:
    told(PARTS, "CREATE INDEX i ON p (b); DROP INDEX there")
    attached = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'i'::regclass"
    assert {name for (name,) in conn.execute(attached)} == {"p1_i", "p2_i"}


def test_rule_23_an_index_that_is_attached_elsewhere_is_not_taken(
    told: Told, conn: psycopg.Connection
) -> None:
    other = PARTS + "CREATE INDEX other ON ONLY p (b); ALTER INDEX other ATTACH PARTITION there;"
    told(other, "CREATE INDEX i ON p (b)")
    row = conn.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass")
    assert row.fetchone() == (True,)


def test_rule_23_unique_on_a_partitioned_table_contains_the_partition_key(
    told: Told, conn: psycopg.Connection
) -> None:
    item = told(PARTS, "CREATE UNIQUE INDEX i ON p (b)")
    assert (item.verdict, "unique-without-partition-key" in rules(item)) == ("refuse", True)
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        conn.execute("CREATE UNIQUE INDEX i ON p (b)")
    assert "partitioned-table" in rules(told(PARTS, "CREATE UNIQUE INDEX i ON p (b, a)"))


@pytest.mark.parametrize("unique", ["", "UNIQUE "])
def test_rule_23_a_foreign_partition_lets_no_index_of_the_whole_be_built(
    told: Told, unique: str
) -> None:
    foreign = """
        CREATE FOREIGN DATA WRAPPER w;
        CREATE SERVER far FOREIGN DATA WRAPPER w;
        CREATE FOREIGN TABLE "p %s" PARTITION OF p2 FOR VALUES IN (7) SERVER far;
    """
    item = told(PARTS + foreign, f"CREATE {unique}INDEX i ON p (b, a)")
    assert (item.verdict, item.revised, item.parts) == ("refuse", None, ())
    assert 'public."p %s"' in message(item, "foreign-partition")
    assert "each of the other partitions" in fix(item, "foreign-partition")
    there = PARTS + foreign + "CREATE INDEX i ON p (b, a);"
    assert told(there, "CREATE INDEX i ON p (b, a)").verdict == "skip"
    assert told(PARTS + foreign, "CREATE INDEX i ON p21 (b, a)").verdict == "build"


def test_rule_24_columns_are_looked_for_everywhere(told: Told) -> None:
    for planned in ("(zz)", "(a) INCLUDE (zz)", "((zz + 1))", "(a) WHERE zz = 1"):
        item = told(T, f"CREATE INDEX i ON t {planned}")
        assert (item.verdict, "missing-column" in rules(item)) == ("refuse", True)
    assert "missing-column" in rules(
        told(T + "ALTER TABLE t DROP COLUMN v", "CREATE INDEX i ON t (v)")
    )
    assert told(T, "CREATE INDEX i ON t ((t IS NOT NULL))").verdict == "build"


def test_rule_24_a_whole_row_by_another_spelling_of_its_table(told: Told) -> None:
    schema = 'CREATE TABLE "Album" (a int)'
    item = told(schema, "CREATE INDEX i ON Album ((Album IS NOT NULL))")
    assert (item.verdict, "missing-column" in rules(item)) == ("fix", False)


def test_rule_25_the_search_path_then_the_one_other_schema(told: Told) -> None:
    one = "CREATE SCHEMA x; CREATE TABLE x.t (a int);"
    assert "wrong-schema" in rules(told(one, "CREATE INDEX i ON t (a)"))
    assert str(told(one + "CREATE TABLE t (a int)", "CREATE INDEX i ON t (a)").table) == "public.t"
    two = one + "CREATE SCHEMA y; CREATE TABLE y.t (a int)"
    assert told(two, "CREATE INDEX i ON t (a)").verdict == "ask"


def test_rule_26_letter_case_is_mended_by_quotes(told: Told) -> None:
    schema = 'CREATE TABLE "Album" ("Id" int, "select" int)'
    item = told(schema, "CREATE INDEX i ON Album (Id)")
    assert (item.verdict, "case mismatch" in message(item, "missing-table")) == ("fix", True)
    assert told(schema, 'CREATE INDEX i ON "Album" ("select")').verdict == "build"


def test_rule_27_a_column_is_corrected_only_if_one_is_clearly_best(told: Told) -> None:
    for columns, written, verdict in (
        ("date_event date", "event_date", "fix"),
        ("date date", "event_date", "fix"),
        ("custmer_id int", "customer_id", "fix"),
        ("event jsonb", "event_date", "ask"),
        ("email_a text, email_b text", "email", "ask"),
    ):
        item = told(f"CREATE TABLE t ({columns})", f"CREATE INDEX i ON t ({written})")
        assert item.verdict == verdict, written


# Names


def test_rule_28_names_are_cut_at_63_bytes_and_shared_with_all_relations(told: Told) -> None:
    assert "name-taken" in rules(told(T + "CREATE VIEW i AS SELECT 1", "CREATE INDEX i ON t (a)"))
    other = "CREATE SCHEMA x; CREATE TABLE x.i (a int)"
    assert told(T + other, "CREATE INDEX i ON t (a)").verdict == "build"
    long = "ü" * 31 + "index"
    item = told(T, f"CREATE INDEX {long}_a ON t (a); CREATE INDEX {long}_b ON t (b)")
    assert "name-twice" in rules(item)


def test_rule_28_a_name_goes_with_the_statement_that_is_left_out(
    conn: psycopg.Connection,
) -> None:
    scenes = {
        # left out for what exists, or for what is planned: the next one takes the name
        "CREATE INDEX n ON t (a); CREATE INDEX n ON t (b)": ["skip", "build"],
        "CREATE INDEX n ON t (b); CREATE INDEX n ON t (n); CREATE INDEX m ON t (b, a)": [
            *("skip", "build", "build")
        ],
        "CREATE INDEX n ON t (b); CREATE INDEX IF NOT EXISTS n ON t (b, a)": ["skip", "build"],
        # refused: the next one takes the name
        "CREATE INDEX n ON t (nothing_like_it); CREATE INDEX n ON t (b)": ["refuse", "build"],
        # built: it holds its name
        "CREATE INDEX n ON t (b); CREATE INDEX IF NOT EXISTS n ON t (n)": ["build", "refuse"],
        "CREATE INDEX n ON t (b); CREATE INDEX n ON t (b)": ["build", "skip"],
        # who loses its name is nobody's keeper
        "CREATE INDEX n ON t (b); CREATE INDEX n ON t (s, a); CREATE INDEX m ON t (s)": [
            *("build", "refuse", "build")
        ],
        # and so on: m is built when its keeper is refused, and the later m is not
        "CREATE INDEX n ON t (b); CREATE INDEX m ON t (s); CREATE INDEX n ON t (s, a);"
        "CREATE INDEX m ON t (n)": ["build", "build", "refuse", "refuse"],
        # what the plan drops before leaves its name, and afterwards is too late
        "DROP INDEX e; CREATE INDEX e ON t (b)": ["build", "build"],
        "CREATE INDEX e ON t (b); DROP INDEX e": ["refuse", "build"],
    }
    for text, verdicts in scenes.items():
        conn.execute(f"DROP TABLE IF EXISTS t; {T} CREATE INDEX e ON t (a)")
        audit = auditing.read(conn, plan.parse(text))[1]
        assert [item.verdict for item in audit.statements] == verdicts, text
        for item in audit.kept:
            conn.execute(item.revised.text)


def test_a_comment_goes_with_the_index_that_it_speaks_of(conn: psycopg.Connection) -> None:
    conn.execute(T + "CREATE INDEX e ON t (a)")
    text = (
        "CREATE INDEX n ON t (a);\nCOMMENT ON INDEX n IS 'one';\n"
        "CREATE INDEX n ON t (b);\nCOMMENT ON INDEX n IS 'other';"
    )
    audit = auditing.read(conn, plan.parse(text))[1]
    assert [comment.comment for comment in audit.revised.comments] == ["other"]


def test_rule_29_if_not_exists_compares_names_only(told: Told) -> None:
    existing = T + "CREATE INDEX i ON t (a)"
    assert "exists" in rules(told(existing, "CREATE INDEX IF NOT EXISTS i ON t (a)"))
    assert "name-taken" in rules(told(existing, "CREATE INDEX IF NOT EXISTS i ON t (b)"))


def test_rule_30_an_unnamed_index_is_matched_by_definition_and_named(told: Told) -> None:
    assert told(T + "CREATE INDEX e ON t (a)", "CREATE INDEX ON t (a)").verdict == "skip"
    assert told(T, "CREATE INDEX ON t (a)").label == "t_a_idx"


# Access methods and expressions


def test_rule_31_what_methods_and_types_do_not_take(told: Told, conn: psycopg.Connection) -> None:
    for planned, rule in (
        ("INDEX i ON t USING hash (a, b)", "method-limit"),
        ("UNIQUE INDEX i ON t USING gin (g)", "method-limit"),
        ("INDEX i ON t USING brin (a) INCLUDE (b)", "method-limit"),
        ("INDEX i ON t USING gin (a)", "no-operator-class"),
        ("INDEX i ON t USING gin (s gin_trgm_ops)", "missing-operator-class"),
        ("INDEX i ON t ((j::json))", "no-operator-class"),
        ("INDEX i ON t (a) INCLUDE (b DESC)", "include-option"),
        ("INDEX i ON t (a) INCLUDE (b NULLS FIRST)", "include-option"),
        ('INDEX i ON t (a) INCLUDE (s COLLATE "C")', "include-option"),
        ("INDEX i ON t (a) INCLUDE (s text_pattern_ops)", "include-option"),
        (f"INDEX i ON t ({', '.join(['a'] * 33)})", "too-many-columns"),
    ):
        item = told(T, f"CREATE {planned}")
        assert (item.verdict, rule in rules(item)) == ("refuse", True), planned
        with pytest.raises(psycopg.Error):
            conn.execute(f"CREATE {planned}")
    assert told(T, "CREATE INDEX i ON t USING hash (a)").verdict == "build"


def test_rule_32_what_is_not_immutable_is_refused_in_the_servers_words(
    told: Told, conn: psycopg.Connection
) -> None:
    for key in (
        "((s::date))",
        "((at::date))",
        "(date_trunc('day', at))",
        "(extract(hour FROM at))",
        "(to_char(at, 'YYYY'))",
        "(concat(s, v))",
        "(age(at))",
        "(to_tsvector(s))",
        "(a) WHERE at > now()",
    ):
        item = told(T, f"CREATE INDEX i ON t {key}")
        assert (item.verdict, "expression-refused" in rules(item)) == ("refuse", True), key
        assert "must be marked IMMUTABLE" in message(item, "expression-refused")
        with pytest.raises(psycopg.errors.InvalidObjectDefinition):
            conn.execute(f"CREATE INDEX i ON t {key}")


def test_rule_32_what_is_immutable_in_effect_is_built(told: Told) -> None:
    inlined = "CREATE FUNCTION low(text) RETURNS text LANGUAGE sql STABLE AS 'SELECT lower($1)';"
    for key in (
        "(lower(s))",
        "(md5(s))",
        "((s || v))",
        "(coalesce(s, ''))",
        "(((at AT TIME ZONE 'UTC')::date))",
        "USING gin (to_tsvector('english', s))",
        "((j || '{}'))",
        "(low(s))",
    ):
        item = told(T + inlined, f"CREATE INDEX i ON t {key}")
        assert (item.verdict, "not-asked" in rules(item)) == ("build", False), key


def test_rule_33_subqueries_aggregates_windows_and_sets_are_refused(
    told: Told, conn: psycopg.Connection
) -> None:
    for key in (
        "(a) WHERE a IN (SELECT 1)",
        "(sum(a))",
        "((a + row_number() OVER ()))",
        "(generate_series(1, a))",
    ):
        item = told(T, f"CREATE INDEX i ON t {key}")
        assert (item.verdict, "expression-refused" in rules(item)) == ("refuse", True), key
        with pytest.raises(psycopg.Error):
            conn.execute(f"CREATE INDEX i ON t {key}")


def test_rule_34_both_are_compared_after_the_server_has_parsed_them(told: Told) -> None:
    assert verdicts(
        told,
        ("INDEX e ON t (lower(v))", "INDEX p ON t (lower((v)::text))"),
        ("INDEX e ON t (a) WHERE v IN ('x', 'y')", "INDEX p ON t (a) WHERE v IN ('x', 'y')"),
        ("INDEX e ON t (a) WHERE v IN ('x', 'y')", "INDEX p ON t (a) WHERE v IN ('x', 'z')"),
    ) == ["skip", "skip", "build"]


def test_rule_35_duplicates_are_counted_before_a_unique_build(
    told: Told, conn: psycopg.Connection
) -> None:
    schema = T + "INSERT INTO t (a, b, n, s) VALUES (1, 1, 0, 'x'), (1, 2, 0, 'X'), (2, 3, 0, NULL)"
    for planned, counted in (
        ("(a)", {"groups": 1, "rows": 2}),
        ("(lower(s))", {"groups": 1, "rows": 2}),
        ("(a) WHERE b > 0", {"groups": 1, "rows": 2}),
    ):
        item = told(schema, f"CREATE UNIQUE INDEX i ON t {planned}")
        assert item.verdict == "refuse"
        finding = next(f for f in item.findings if f.rule == "duplicate-rows")
        assert (finding.severity, dict(finding.evidence)) == ("error", counted)
        with pytest.raises(psycopg.errors.UniqueViolation):
            conn.execute(f"CREATE UNIQUE INDEX i ON t {planned}")
    for planned in ("(b)", "(c)", "(s)", "(a) WHERE b > 1", "(a, b)"):
        assert told(schema, f"CREATE UNIQUE INDEX i ON t {planned}").verdict == "build", planned
    nulls = told(schema, "CREATE UNIQUE INDEX i ON t (c) NULLS NOT DISTINCT")
    assert nulls.verdict == "refuse"


def test_rule_35_the_rows_of_a_partitioned_table_are_those_of_its_partitions(told: Told) -> None:
    parted = (
        "CREATE TABLE p (a int, s text) PARTITION BY LIST (a);"
        "CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);"
        "INSERT INTO p VALUES (1, 'x'), (1, 'X');"
    )
    for planned in ("(a)", "(a, lower(s))"):
        item = told(parted, f"CREATE UNIQUE INDEX i ON p {planned}")
        assert (item.verdict, "duplicate-rows" in rules(item)) == ("refuse", True), planned
    assert told(parted, "CREATE UNIQUE INDEX i ON p (a, s)").verdict == "build"
    failing = told(parted, "CREATE INDEX i ON p ((s::int))")
    assert "refused-by-rows" in rules(failing)


def test_rule_35_what_is_not_counted_is_said(told: Told) -> None:
    schema = T + "INSERT INTO t (a, n, s) VALUES (1, 0, 'x')"
    item = told(schema, "CREATE UNIQUE INDEX i ON t (s text_pattern_ops)")
    assert (item.verdict, "duplicates-not-counted" in rules(item)) == ("build", True)


def test_rule_35_a_row_of_nulls_is_no_null_to_an_index(
    told: Told, conn: psycopg.Connection
) -> None:
    pair = "CREATE TYPE pair AS (x int, y int); CREATE TABLE pairs (p pair);"
    planned = "CREATE UNIQUE INDEX i ON pairs (p)"
    item = told(pair + "INSERT INTO pairs VALUES ('(,)'), ('(,)')", planned)
    assert (item.verdict, "duplicate-rows" in rules(item)) == ("refuse", True)
    with pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute(planned)
    assert told(pair + "INSERT INTO pairs VALUES (NULL), (NULL)", planned).verdict == "build"


WIDE = (
    "(SELECT left(string_agg(encode(sha256(n::text::bytea), 'base64'), ''), 3200)"
    " FROM generate_series(1, 100) AS n)"
)


@pytest.mark.parametrize("planned", ["t (s)", "t (a, s)", "t (a) INCLUDE (s)", "t (s) WHERE a = 2"])
def test_rule_35_a_value_beyond_a_third_of_a_page_is_found_before_the_build(
    told: Told, conn: psycopg.Connection, planned: str
) -> None:
    item = told(
        T + f"INSERT INTO t (a, n, s) VALUES (2, 0, {WIDE})", f"CREATE INDEX i ON {planned}"
    )
    assert (item.verdict, "3,200 bytes" in message(item, "wide-key")) == ("refuse", True)
    with pytest.raises(psycopg.errors.ProgramLimitExceeded):
        conn.execute(f"CREATE INDEX i ON {planned}")


def test_rule_35_what_an_index_compresses_is_no_error(told: Told, conn: psycopg.Connection) -> None:
    """A value of a column that was EXTERNAL once is not compressed, but the index does it."""
    once = T + (
        "ALTER TABLE t ALTER s SET STORAGE EXTERNAL;"
        "INSERT INTO t (a, n, s) VALUES (2, 0, repeat('a', 20000))"
    )
    item = told(once + "; ALTER TABLE t ALTER s SET STORAGE EXTENDED", "CREATE INDEX i ON t (s)")
    assert (item.verdict, "wide-key" in rules(item)) == ("build", True)
    item = told(once, "CREATE INDEX i ON t (s)")
    assert (item.verdict, "wide-key" in rules(item)) == ("refuse", True)
    with pytest.raises(psycopg.errors.ProgramLimitExceeded):
        conn.execute("CREATE INDEX i ON t (s)")
    packed = f"INSERT INTO t (a, n, s) VALUES (2, 0, repeat({WIDE}, 2))"
    item = told(T + packed, "CREATE INDEX i ON t (s)")
    assert (item.verdict, "wide-key" in rules(item)) == ("refuse", True)
    with pytest.raises(psycopg.errors.ProgramLimitExceeded):
        conn.execute("CREATE INDEX i ON t (s)")
    inline = "ALTER TABLE t SET (toast_tuple_target = 8160);"
    item = told(
        T + inline + "INSERT INTO t (a, n, s) VALUES (2, 0, repeat('ab', 1800)), (2, 0, 'x')",
        "CREATE INDEX i ON t (s)",
    )
    assert item.verdict == "build"


def test_rule_35_a_long_value_that_fits_is_built(told: Told) -> None:
    for values in (
        f"(2, 0, md5({WIDE}))",
        "(2, 0, repeat('a', 20000))",
        f"(2, 0, left({WIDE}, 2600))",
    ):
        item = told(T + f"INSERT INTO t (a, n, s) VALUES {values}", "CREATE INDEX i ON t (s)")
        assert (item.verdict, "wide-key" in rules(item)) == ("build", False), values
    other = T + f"INSERT INTO t (a, n, s) VALUES (2, 0, {WIDE})"
    assert told(other, "CREATE INDEX i ON t (s) WHERE a = 1").verdict == "build"
    assert told(other, "CREATE INDEX i ON t USING hash (s)").verdict == "build"
    assert told(other, "CREATE INDEX i ON t (md5(s))").verdict == "build"
    item = told(other, "CREATE INDEX i ON t (upper(s)) WHERE a = 1")
    assert (item.verdict, "wide-key" in rules(item)) == ("build", False)


def test_rule_35_an_expression_that_fails_on_a_row_is_found_before_the_build(
    told: Told, conn: psycopg.Connection
) -> None:
    rows = T + "INSERT INTO t (a, n, s) VALUES (0, 0, '12'), (2147483647, 0, 'secret')"
    for planned in ("((s::int))", "((a + 1))", "(b) WHERE s::int > 3", "((1 / a))"):
        item = told(rows, f"CREATE INDEX i ON t {planned}")
        assert (item.verdict, "refused-by-rows" in rules(item)) == ("refuse", True), planned
        assert "secret" not in repr(item.findings)
        with pytest.raises(psycopg.DataError):
            conn.execute(f"CREATE INDEX i ON t {planned}")
    for planned in ("((s::int)) WHERE a = 0", "((a - 1))", "(b) WHERE a > 3"):
        assert told(rows, f"CREATE INDEX i ON t {planned}").verdict == "build", planned
    assert told(T, "CREATE INDEX i ON t ((s::int))").verdict == "build"


def test_rule_35_rows_that_may_not_be_read_are_said_to_be_unknown(
    told: Told, conn: psycopg.Connection
) -> None:
    conn.execute("DROP ROLE IF EXISTS keeper_of_rows; CREATE ROLE keeper_of_rows")
    schema = (
        "CREATE TABLE t (s text); ALTER TABLE t OWNER TO keeper_of_rows;"
        "REVOKE SELECT ON t FROM keeper_of_rows; GRANT ALL ON SCHEMA public TO keeper_of_rows;"
        "SET ROLE keeper_of_rows"
    )
    item = told(schema, "CREATE INDEX i ON t ((s::int))")
    conn.execute("RESET ROLE; DROP OWNED BY keeper_of_rows; DROP ROLE keeper_of_rows")
    assert (item.verdict, "rows-not-read" in rules(item)) == ("build", True)


def test_an_expression_that_a_server_refuses_is_not_run_on_the_rows(
    told: Told, conn: psycopg.Connection
) -> None:
    schema = T + (
        "INSERT INTO t (a, n) VALUES (1, 0); CREATE FUNCTION shout(int) RETURNS int LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE WARNING 'it was run'; RETURN $1; END $$"
    )
    said: list[str] = []
    conn.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
    for planned in ("INDEX i ON t (shout(a))", "UNIQUE INDEX i ON t (shout(a))"):
        assert told(schema, f"CREATE {planned}").verdict == "refuse"
    assert said == []


def test_rule_36_an_expression_index_wants_analyze(told: Told) -> None:
    item = told(T, "CREATE INDEX i ON t (lower(s))")
    assert fix(item, "analyze-after") == "ANALYZE public.t"
    assert "analyze-after" not in rules(told(T, "CREATE INDEX i ON t (s)"))


# Running


def test_rule_37_concurrently_leaves_the_transaction_and_takes_turns(told: Told) -> None:
    item = told(T, "BEGIN; CREATE INDEX i ON t (a); CREATE INDEX j ON t (b); COMMIT")
    assert {"in-transaction", "one-after-the-other"} <= rules(item)
    alone = told(T, "CREATE INDEX i ON t (a)")
    assert not {"in-transaction", "one-after-the-other"} & rules(alone)
