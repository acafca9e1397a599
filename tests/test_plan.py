"""Index plans: what is read, what is refused and where, and that writing changes no meaning."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from indexlab import embedded, plan
from indexlab.errors import InputError
from indexlab.plan import CommentOnIndex, CreateIndex, DropIndex, IndexDef, IndexKey, Surrounding
from indexlab.sql import RelationName, quote

Definitions = Callable[[str], list[tuple[str, str]]]


def index(text: str) -> IndexDef:
    return IndexDef.parse(text)


def reasons(text: str) -> list[str]:
    return [statement.reason for statement in plan.parse(text).statements]


def refusal(text: str) -> str:
    with pytest.raises(InputError) as refused:
        plan.parse(text)
    assert refused.value.exit_code == 2
    return str(refused.value)


# Reading


def test_statements_keep_order_text_and_line():
    read = plan.parse("\n\nCREATE INDEX a\n  ON t (x);\nDROP INDEX b; CREATE INDEX c ON t (y)\n")
    assert [(item.text, item.line) for item in read.statements] == [
        ("CREATE INDEX a\n  ON t (x)", 3),
        ("DROP INDEX b", 5),
        ("CREATE INDEX c ON t (y)", 5),
    ]
    assert [item.index.name for item in read.creates] == ["a", "c"]
    assert read.drops == (read.statements[1],)


def test_lines_are_counted_in_characters_not_bytes():
    read = plan.parse("-- ünï😀\nCREATE INDEX é ON t (ü);\n-- ñ\nDROP INDEX ö;")
    assert [item.line for item in read.statements] == [2, 4]


def test_empty_statements_are_not_there():
    read = plan.parse(";;\n;CREATE INDEX a ON t (x);;\n;DROP INDEX b;;")
    assert [item.line for item in read.statements] == [2, 3]


def test_text_ends_with_the_last_word():
    read = plan.parse("DROP INDEX a -- the old one\n; DROP INDEX b -- done\n/* end */")
    assert [item.text for item in read.statements] == ["DROP INDEX a", "DROP INDEX b"]
    again = plan.parse(read.to_sql())
    assert [item.names[0].name for item in again.drops] == ["a", "b"]


def test_a_thousand_statements():
    read = plan.parse("".join(f"-- r{n}\nCREATE INDEX i{n} ON t (c{n});\n" for n in range(1000)))
    assert (read.creates[999].line, read.creates[999].reason) == (2000, "r999")


def test_a_definition_is_taken_apart():
    read = index(
        "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON ONLY core.t USING btree "
        '(a DESC, lower(b) COLLATE "C" text_pattern_ops NULLS FIRST, c DESC NULLS LAST) '
        "INCLUDE (d, e) NULLS NOT DISTINCT WITH (fillfactor = 70, deduplicate_items = off) "
        "TABLESPACE fast WHERE f > 0 AND a IS NOT NULL"
    )
    first, second, third = read.keys
    assert (read.name, read.table, read.method) == ("i", RelationName("core", "t"), "btree")
    assert read.unique and read.nulls_not_distinct and read.only
    assert read.concurrently and read.if_not_exists
    assert (first.column, first.descending, first.nulls_first) == ("a", True, True)
    assert (second.column, second.expression, second.columns) == (None, "lower(b)", ("b",))
    assert (second.collation, second.opclass) == (("C",), ("text_pattern_ops",))
    assert (second.descending, second.nulls_first) == (False, True)
    assert (third.descending, third.nulls_first) == (True, False)
    assert (read.include, read.predicate) == (("d", "e"), "f > 0 AND a IS NOT NULL")
    assert read.options == (("fillfactor", "70"), ("deduplicate_items", "off"))
    assert read.tablespace == "fast"
    assert read.columns == ("a", "b", "c", "d", "e", "f")


def test_operator_class_options_are_read():
    (key,) = index("CREATE INDEX ON t USING gist (a public.gist_trgm_ops (siglen = 32))").keys
    assert key.opclass == ("public", "gist_trgm_ops")
    assert key.opclass_options == (("siglen", "32"),)


def test_an_index_may_have_no_name():
    assert index("CREATE INDEX ON t (a)").name is None


def test_names_that_need_quotes_are_read_without_them():
    read = index('CREATE INDEX "My ""Index" ON "Odd Schema"."select" ("a b", ("c.d" || "Ü"))')
    assert read.name == 'My "Index'
    assert read.table == RelationName("Odd Schema", "select")
    assert str(read.table) == '"Odd Schema"."select"'
    assert read.columns == ("a b", "c.d", "Ü")
    assert read.keys[0].expression == '"a b"'


def test_a_column_of_a_composite_is_not_a_column_of_the_table():
    assert index("CREATE INDEX ON t (((address).city), (t.note || 'x'))").columns == (
        "address",
        "note",
    )


def test_a_definition_survives_pickling():
    read = plan.parse("-- why\nCREATE INDEX i ON t (lower(a)) WHERE b;")
    assert pickle.loads(pickle.dumps(read)) == read


# Reasons


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-- why\nDROP INDEX a;", "why"),
        ("-- one\n-- two\nDROP INDEX a;", "one\ntwo"),
        ("-- far\n\n-- near\nDROP INDEX a;", "near"),
        ("-- far\n\nDROP INDEX a;", ""),
        ("/* why */\nDROP INDEX a;", "why"),
        ("/*\n * one\n *\n * two\n */\nDROP INDEX a;", "one\ntwo"),
        ("/* one */\n-- two\nDROP INDEX a;", "one\ntwo"),
        ("------\n-- why\n------\nDROP INDEX a;", "why"),
        ("  --why  \n  DROP INDEX a;", "why"),
        ("-- why\r\nDROP INDEX a;", "why"),
        ("-- grün 😀\nDROP INDEX a;", "grün 😀"),
        ("-- not 'a; -- string\nDROP INDEX a;", "not 'a; -- string"),
        ("DROP -- inside\nINDEX a;", ""),
        ("DROP INDEX a; -- after\n", ""),
        ("/* before */ DROP INDEX a;", ""),
    ],
)
def test_the_comment_directly_above_is_the_reason(text: str, reason: str):
    assert reasons(text) == [reason]


@pytest.mark.parametrize("comment", ["-- trailing", "/* trailing */", "/* of\n */"])
def test_a_comment_behind_the_previous_statement_is_no_reason(comment: str):
    assert reasons(f"DROP INDEX a; {comment}\nDROP INDEX b;") == ["", ""]


def test_a_comment_before_the_previous_statement_on_its_line_is_no_reason():
    assert reasons("/* of\n a */ DROP INDEX a;\nDROP INDEX b;") == ["", ""]


# What migration tools put around


MIGRATION = """
BEGIN;
SET lock_timeout = '5s';
CREATE INDEX a ON t (x);
COMMENT ON INDEX core.a IS 'it''s';
COMMENT ON INDEX a IS NULL;
ANALYZE t;
ANALYZE;
COMMIT;
START TRANSACTION;
RESET lock_timeout;
END;
DROP INDEX CONCURRENTLY IF EXISTS core.b, "C d" CASCADE;
"""


def test_every_accepted_kind():
    read = plan.parse(MIGRATION)
    around = [item.kind for item in read.statements if isinstance(item, Surrounding)]
    assert around == ["BEGIN", "SET", "ANALYZE", "ANALYZE", "COMMIT", "BEGIN", "RESET", "COMMIT"]
    assert [(str(item.name), item.comment) for item in read.comments] == [
        ("core.a", "it's"),
        ("a", None),
    ]
    (drop,) = read.drops
    assert drop.names == (RelationName("core", "b"), RelationName(None, "C d"))
    assert drop.concurrently and drop.if_exists and drop.cascade
    assert [type(item) for item in read.statements[3:5]] == [CommentOnIndex] * 2


@pytest.mark.parametrize(
    ("before", "search_path"),
    [
        ("", None),
        ("SET search_path = core;", ("core",)),
        ("SET search_path TO core, \"Odd Schema\", '$user';", ("core", "Odd Schema", "$user")),
        ("SET SCHEMA 'core';", ("core",)),
        ("SET search_path = '';", ("",)),
        ("SET search_path = core; SET search_path TO DEFAULT;", None),
        ("SET search_path = core; RESET search_path;", None),
        ("SET search_path = core; RESET ALL;", None),
        ("SET search_path = core; SET lock_timeout = '5s';", ("core",)),
        ("SET SESSION search_path = core;", ("core",)),
        ("BEGIN; SET search_path = core; COMMIT;", ("core",)),
        ("BEGIN; SET LOCAL search_path = core;", ("core",)),
        ("BEGIN; SET LOCAL search_path = core; COMMIT;", None),
        ("SET search_path = a; BEGIN; SET LOCAL search_path = b; COMMIT;", ("a",)),
        ("SET LOCAL search_path = core;", None),
    ],
)
def test_search_path_is_what_the_server_would_have(
    before: str, search_path: tuple[str, ...] | None
):
    read = plan.parse(f"{before} CREATE INDEX i ON t (a); DROP INDEX i;")
    assert read.creates[0].search_path == search_path
    assert read.drops[0].search_path == search_path


@pytest.mark.parametrize(
    ("before", "inside"),
    [
        ("", False),
        ("BEGIN;", True),
        ("START TRANSACTION;", True),
        ("BEGIN; COMMIT;", False),
        ("BEGIN; END;", False),
        ("BEGIN; COMMIT AND CHAIN;", True),
    ],
)
def test_transactions_are_accounted_for(before: str, inside: bool):
    read = plan.parse(f"{before} CREATE INDEX i ON t (a); DROP INDEX i;")
    assert (read.creates[0].in_transaction, read.drops[0].in_transaction) == (inside, inside)


# Refusals


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE t",
        "INSERT INTO t VALUES (1)",
        "SELECT 1",
        "ALTER INDEX a RENAME TO b",
        "REINDEX INDEX a",
        "VACUUM ANALYZE t",
        "COMMENT ON TABLE t IS 'x'",
        "DROP VIEW a",
        "ROLLBACK",
        "SAVEPOINT a",
        "DO 'BEGIN END'",
        "CREATE SCHEMA s CREATE INDEX i ON t (a)",
        "EXPLAIN SELECT 1",
    ],
)
def test_anything_else_is_refused_with_its_line(statement: str):
    said = refusal(f"CREATE INDEX i ON t (a);\n\n-- comment\n{statement};")
    assert said.startswith("plan.sql:4: a plan may not hold ")
    assert repr(" ".join(statement.split()[:3])) in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("DROP INDEX a;\nCREATE INDX b ON t (x);", 'plan.sql:2: syntax error at or near "INDX"'),
        ("DROP INDEX a;\n\nCREATE INDEX b ON t (", "plan.sql:3: syntax error at end of input"),
        ("-- ünï😀\nDROP INDEX é;\nCREATE INDX ü;", 'plan.sql:3: syntax error at or near "INDX"'),
        ("DROP INDEX a;\n\\d t\n", 'plan.sql:2: syntax error at or near "\\"'),
        ("DROP INDEX a;\r\n\r\nDROP IDX b;\r\n", 'plan.sql:3: syntax error at or near "IDX"'),
        ("DROP INDEX a;\nDROP INDEX 'b\nc\nd", "plan.sql:2: unterminated quoted string"),
        ("DROP INDEX a;\n/* b\nc", "plan.sql:2: unterminated /* comment"),
        ("DROP INDEX a;\nDROP INDEX \x00;", "plan.sql:2: a NUL character"),
    ],
)
def test_what_the_grammar_does_not_accept_is_refused_with_its_line(text: str, said: str):
    refused = refusal(text)
    assert refused.startswith(said)
    assert "\n" not in refused


@pytest.mark.parametrize("text", ["", "\n \n", "-- only\n/* comments */\n", ";", "BEGIN; COMMIT;"])
def test_a_plan_without_indexes_is_refused(text: str):
    assert refusal(text) == "plan.sql: holds no CREATE INDEX or DROP INDEX statement"


def test_an_expression_nested_too_deeply_is_refused_with_its_line():
    deep = " || ".join(["a"] * 500)
    text = f"CREATE INDEX i ON t (a);\n\n-- é\nCREATE INDEX j ON t (({deep}));\nDROP INDEX k;"
    assert refusal(text).startswith("plan.sql:4: nested too deeply")


def test_one_statement_is_not_a_plan():
    with pytest.raises(InputError, match=r"a\.sql:7: not one CREATE INDEX statement"):
        IndexDef.parse("CREATE INDEX i ON t (a); DROP INDEX i", "a.sql", 7)


# Files


def test_a_file_of_windows(tmp_path: Path):
    file = tmp_path / "plan.sql"
    file.write_bytes("\ufeff-- why\r\nCREATE INDEX i\r\n ON t (a);\r\n".encode())
    (create,) = plan.read(file).creates
    assert (create.line, create.reason, create.text) == (2, "why", "CREATE INDEX i\n ON t (a)")


def test_a_file_that_is_not_utf_8_is_refused_with_its_line(tmp_path: Path):
    file = tmp_path / "plan.sql"
    file.write_bytes("CREATE INDEX i ON t (a);\n-- ü\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"plan\.sql:2: not UTF-8 text"):
        plan.read(file)


@pytest.mark.parametrize("kind", ["missing", "directory"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, kind: str):
    place = tmp_path if kind == "directory" else tmp_path / "missing.sql"
    with pytest.raises(InputError, match="cannot be read: ") as refused:
        plan.read(place)
    assert str(refused.value).startswith(f"{place}: ")


def test_a_file_is_called_by_its_path_in_refusals(tmp_path: Path):
    file = tmp_path / "plan.sql"
    file.write_text("CREATE INDEX i ON t (a);\nTRUNCATE t;")
    with pytest.raises(InputError) as refused:
        plan.read(file)
    assert str(refused.value).startswith(f"{file.as_posix()}:2: a plan may not hold 'TRUNCATE t'")
    assert (refused.value.source, refused.value.line) == (file.as_posix(), 2)


# Revising


BEFORE = (
    "CREATE INDEX i ON old (a DESC, lower(b), (old.c || b)) INCLUDE (d) "
    "WHERE old.a IS NOT NULL AND e > 1"
)


def test_nothing_given_nothing_changed():
    assert index(BEFORE).revise() == index(BEFORE)


def test_a_new_name_is_cut_as_the_server_cuts_it():
    assert index(BEFORE).revise(name="My Index").sql.startswith('CREATE INDEX "My Index" ON old')
    assert index(BEFORE).revise(name="é" * 40).name == "é" * 31


def test_prefixes_of_the_old_table_go_with_it():
    moved = index(BEFORE).revise(table=RelationName("Core", "new"))
    assert moved.table == RelationName("Core", "new")
    assert "old" not in moved.sql
    assert moved.keys[2].expression == "c || b"
    assert moved.predicate == "a IS NOT NULL AND e > 1"


def test_prefixes_with_schema_and_database_go_too():
    before = index("CREATE INDEX i ON db.core.old ((core.old.a || 'x'), ((old.pair).b))")
    moved = before.revise(table=RelationName("core", "new"))
    assert "db." not in moved.sql
    assert [key.expression for key in moved.keys] == ["a || 'x'", "(pair).b"]


def test_columns_are_renamed_everywhere_at_once():
    names = {"a": "b", "b": "a", "c": "select", "d": "D d", "e": "é", "old": "never"}
    renamed = index(BEFORE).revise(columns=names)
    assert [key.expression for key in renamed.keys] == ["b", "lower(a)", 'old."select" || a']
    assert renamed.include == ("D d",)
    assert renamed.predicate == 'old.b IS NOT NULL AND "é" > 1'
    assert renamed.columns == ("b", "a", "select", "D d", "é")


def test_functions_types_and_strings_keep_their_names():
    renamed = index("CREATE INDEX i ON t (a(a), (b::a), (a || 'a'))").revise(columns={"a": "z"})
    assert [key.expression for key in renamed.keys] == ["a(z)", "b::a", "z || 'a'"]


@pytest.mark.parametrize("on", [True, False])
def test_concurrently_and_if_not_exists(on: bool):
    revised = index(BEFORE).revise(name="i").revise(concurrently=on, if_not_exists=on)
    assert (revised.concurrently, "CONCURRENTLY" in revised.sql) == (on, on)
    assert (revised.if_not_exists, "IF NOT EXISTS" in revised.sql) == (on, on)


def test_a_revised_statement_keeps_its_reason_and_line():
    (before,) = plan.parse("BEGIN;\n-- why\nCREATE INDEX i ON t (a);").creates
    after = plan.revised(before, before.index.revise(concurrently=True))
    assert (after.reason, after.line, after.in_transaction) == ("why", 3, False)
    assert after.text == after.index.sql


# Writing


def test_a_written_plan_is_read_back():
    read = plan.parse(f"/* two\n\n * lines */\n{MIGRATION.strip()} -- last\n")
    again = plan.parse(read.to_sql())
    assert [type(item) for item in again.statements] == [type(item) for item in read.statements]
    assert [item.reason for item in again.statements] == [item.reason for item in read.statements]
    assert [item.index for item in again.creates] == [item.index for item in read.creates]
    assert [item.names for item in again.drops] == [item.names for item in read.drops]
    assert again.to_sql() == read.to_sql()


def test_no_reason_ends_its_comment(tmp_path: Path):
    reason = "a\u2028b\x0bc\x0cd; DROP TABLE x"
    read = plan.parse(f"-- {reason}\nDROP INDEX a;")
    assert len(plan.parse(read.to_sql()).statements) == 1
    assert reasons(read.to_sql()) == reasons(plan.parse(read.to_sql()).to_sql())


SCENE = r"""
CREATE EXTENSION pg_trgm;
CREATE SCHEMA core;
CREATE SCHEMA "Odd Schema";
CREATE TYPE core.mood AS ENUM ('sad', 'ok');
CREATE TYPE core.pair AS (a int, b text);
CREATE DOMAIN core.int4 AS int;
CREATE COLLATION core."My Coll" (locale = 'C');
CREATE TABLE core.t (
    id uuid, n int, val int, note text, name text, status varchar(20), amount numeric(10, 2),
    f float8, day date, slot time, at timestamptz, local timestamp, span interval, data jsonb,
    j json, tags text[], period tstzrange, place point, active boolean, bits bit(8), vec tsvector,
    ip inet, doc xml, mood core.mood, pair core.pair,
    "order" int, "Camel" text, "user" text, "select" int, "desc" int, "ünï" text
);
CREATE TABLE "Odd Schema"."Odd ""Table" ("a b" int, "c.d" text);
CREATE FUNCTION core."Weird Fn"(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION core."coalesce"(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION core."operator"(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION core.opt(a int, b int DEFAULT 3, "desc" int DEFAULT 0) RETURNS int
    IMMUTABLE LANGUAGE sql AS 'SELECT a + b';
CREATE FUNCTION core.vari(VARIADIC a text[]) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT a[1]';
CREATE OPERATOR core.=== (leftarg = int, rightarg = int, function = pg_catalog.int4eq);
"""

DEFINITIONS = """
SELECT
    pg_catalog.pg_get_indexdef(i.indexrelid),
    coalesce(s.spcname, '')
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
LEFT JOIN pg_catalog.pg_tablespace AS s ON s.oid = c.reltablespace
WHERE i.indrelid IN ('core.t'::regclass, '"Odd Schema"."Odd ""Table"'::regclass)
"""


@pytest.fixture(scope="module")
def definitions(embedded_server: embedded.Server) -> Iterator[Definitions]:
    """Ask the server what a CREATE INDEX makes, and take it back."""
    embedded_server.create_database("plan_forms")
    conninfo = embedded_server.conninfo("plan_forms")
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute(SCENE)
        conn.execute("SET search_path = core, public")

        def made_by(statement: str) -> list[tuple[str, str]]:
            with conn.transaction(force_rollback=True):
                conn.execute(statement.encode())
                return conn.execute(DEFINITIONS).fetchall()

        yield made_by
    embedded_server.drop_database("plan_forms")


def full(form: str) -> str:
    return form if form.startswith("CREATE") else f"CREATE INDEX i ON core.t {form}"


FORMS = r"""
(n)
(n, day DESC NULLS LAST, slot ASC NULLS FIRST, note DESC)
("order", "Camel", "user", "select", "desc", "ünï")
(n) INCLUDE ("order", note)
(lower(note))
((lower(note)) COLLATE "C" text_pattern_ops DESC NULLS LAST)
(note COLLATE pg_catalog."POSIX")
(note COLLATE core."My Coll" pg_catalog.text_ops)
((note COLLATE "C" || name))
(((note || name) COLLATE "C"))
(((note)))
((n - (val - 1)))
(((n - val) - 1))
((- (-n)))
((n - -1))
((- 2147483648 + n))
((2 ^ n ^ 2))
((-(n ^ 2)))
(((-n) ^ 2))
((n & (1 | val)))
((@ (n + 1)))
((|/ f))
((n OPERATOR(pg_catalog.+) 1))
((n OPERATOR(pg_catalog.*) (val OPERATOR(pg_catalog.+) 1)))
((OPERATOR(pg_catalog.-) n))
((n OPERATOR(core.===) val))
((data ->> 'a'))
((data -> 'a' -> 0 ->> 'b'))
(((data #>> '{a,b}')::numeric(10,2)))
((data ->> ('a' || note)))
((data['a']['b']))
(((data -> 'a')['b']))
USING gin (data jsonb_path_ops)
USING gin ((data -> 'a') jsonb_path_ops)
USING gin (tags) WITH (fastupdate = off, gin_pending_list_limit = 4096)
USING gin (note public.gin_trgm_ops)
USING gist (note gist_trgm_ops (siglen = 32))
USING gist (period) WITH (buffering = auto)
USING gist (ip inet_ops)
USING gin (to_tsvector('english'::regconfig, coalesce(note, '') || ' ' || coalesce(name, '')))
USING brin (at) WITH (pages_per_range = 32, autosummarize)
USING brin (id uuid_bloom_ops (false_positive_rate = 0.05, n_distinct_per_range = -0.5))
USING brin (at timestamptz_minmax_multi_ops (values_per_range = 16))
USING hash (id)
USING spgist (place)
(day) WITH (fillfactor = '70', deduplicate_items = off)
(day) TABLESPACE pg_default
(status) WHERE status = 'pending'
(status) WHERE status IN ('pending', 'confirmed')
(status) WHERE status NOT IN ('pending', 'confirmed') AND n IN (1, 2, NULL)
(status) WHERE status::text = ANY (ARRAY['a'::character varying, 'b'::character varying]::text[])
(status) WHERE status <> ALL ('{a,b}')
(status) WHERE note IS NOT NULL
(status) WHERE note IS NULL AND NOT active
(status) WHERE NOT (active AND n > 1)
(status) WHERE NOT (note IS NULL OR note = '')
(status) WHERE (NOT active) IS TRUE
(status) WHERE active IS NOT TRUE OR active IS UNKNOWN
(status) WHERE active IS DISTINCT FROM true
(status) WHERE active IS NOT DISTINCT FROM (n > 1)
(status) WHERE (active = true) = (n > 1)
(status) WHERE (n > 1 OR n < -1) AND (active OR n = 0)
(status) WHERE n > 1 OR n < -1 AND active OR n = 0
(status) WHERE active AND (active AND active)
(status) WHERE n NOT BETWEEN 1 AND 10 AND active
(status) WHERE n BETWEEN SYMMETRIC 10 AND 2 + val
(status) WHERE note LIKE 'a\%' ESCAPE '#' AND note NOT ILIKE 'b%'
(status) WHERE note SIMILAR TO 'a|b' ESCAPE '#' OR note !~* 'c'
(status) WHERE note LIKE ANY (ARRAY['a%', 'b%'])
(status) WHERE note IS NOT NFC NORMALIZED
(status) WHERE note = E'a\nb\\c\'d\u00e9'
(status) WHERE note = 'a\b'
(status) WHERE note = 'it''s'
(status) WHERE note = $$it's$$
(status) WHERE note = $x$a$$b$x$
(status) WHERE note = U&'d\0061t\+000061'
(status) WHERE note = 'é😀'
(status) WHERE bits = B'10101010' OR bits = X'FF'
(status) WHERE n > 1_000 OR n = 0xFF OR n = 2147483648
(status) WHERE amount > 1.50 OR amount > 1e3 OR amount > -.5
(status) WHERE f = float8 'Infinity' OR f > 1.0e-10::float8
(status) WHERE day > DATE '2026-01-01' AND slot > TIME(3) '10:00:00.1234'
(status) WHERE at > TIMESTAMP WITH TIME ZONE '2026-01-01 00:00+00'
(status) WHERE local > TIMESTAMP(0) '2026-01-01 00:00:00.5'
(status) WHERE span > INTERVAL '1 day' OR span > INTERVAL '1-2' YEAR TO MONTH
(status) WHERE span > INTERVAL '1.234' SECOND(2) OR span > INTERVAL(2) '1.234 sec'
(status) WHERE span::interval day > '1 day'
(status) WHERE (n, val) > (1, 2) AND (n, val) IN ((1, 2), (3, 4))
(status) WHERE j IS JSON OBJECT WITH UNIQUE KEYS
(status) WHERE data ? 'a' AND data ?| ARRAY['a', 'b'] AND data @? '$.a[*] ? (@ > 1)'
(status) WHERE period && tstzrange('2026-01-01Z', NULL)
(status) WHERE ip << inet '10.0.0.0/8' AND place <-> point '(0,0)' < 5
(status) WHERE mood IN ('sad'::core.mood, 'ok')
(status) WHERE t.active AND core.t.n > 1
((at AT TIME ZONE 'UTC'))
(((at AT TIME ZONE 'UTC')::date))
((date_trunc('day', local AT TIME ZONE 'UTC' AT TIME ZONE 'Europe/Berlin')))
(((local + interval '1 day') AT TIME ZONE 'UTC'))
((local::date - 1))
((extract(year FROM local)))
((EXTRACT('month' FROM local)))
((date_trunc('hour', local) + date_part('minute', local)::int / 5 * interval '5 min'))
((CAST(n AS numeric(10, 2))))
((n::bigint), (n::float(10)), (n::core.int4))
((status::text), (status::varchar(5)), (note::char(5)), (note::bpchar), (note::"char"))
((local::timestamp(2)), (bits::bit varying(3)), (amount::decimal(4)))
((tags[1]), (tags[1:2]), (tags[:n]))
((ARRAY[n, val]), ((ARRAY[n, val])[1]))
((string_to_array(note, ',')))
((CASE WHEN active THEN 1 ELSE 0 END))
((CASE status WHEN 'a' THEN 1 WHEN 'b' THEN CASE WHEN n > 1 THEN 2 END END))
((CASE WHEN (n > 1) IS TRUE THEN n END IS NULL))
(COALESCE(note, name, ''), GREATEST(n, val), (NULLIF(note, '')))
((note IS NULL), ((n = 1)::text), (n BETWEEN 1 AND 2))
((ROW(n, val) < ROW(1, 2)))
((substring(note from 1 for 3)), (substring(note from 'a.*')), (substring(note, 2)))
((position('a' in note)), (overlay(note placing 'x' from 1 for 2)))
((trim(both 'x' from note)), (trim(note)), (btrim(note, 'x')), (normalize(note, NFKC)))
((JSON_VALUE(data, '$.a' RETURNING int DEFAULT 0 ON ERROR)), (JSON_EXISTS(data, '$.a')))
((xmlexists('//a' passing by ref doc)))
(core."Weird Fn"(n), core."coalesce"(note), core."operator"(note))
(core.opt(n, b => 4), core.opt(b := 4, a := n), core.vari(note, 'x'), core.vari(VARIADIC tags))
(pg_catalog.lower(note))
(((pair).a), ((pair).b || 'x'), ((t.pair).a))
(lower(t.note), (core.t.note || 'x'))
((left(note, 10)), (abs(hashtext(note)) % 16), (regexp_replace(note, E'\\s+', ' ', 'g')))
CREATE UNIQUE INDEX u ON core.t (n) NULLS NOT DISTINCT WHERE active
CREATE UNIQUE INDEX u ON core.t (n) INCLUDE (id) NULLS NOT DISTINCT WITH (fillfactor=50) WHERE n > 0
CREATE INDEX ON core.t (n)
CREATE INDEX IF NOT EXISTS "Weird ""Name" ON ONLY core.t USING "btree" (n)
CREATE INDEX "concurrently" ON core.t (n)
CREATE INDEX "a.b" ON t (n)
CREATE INDEX überindex ON core.t (n)
CREATE INDEX i ON "Odd Schema"."Odd ""Table" ("a b", lower("c.d")) WHERE "a b" > 0
""".strip().splitlines()


def rebuilt(read: IndexDef) -> str:
    """Write the statement from the fields alone."""
    parts = ["CREATE", "UNIQUE" if read.unique else "", "INDEX", quote(read.name or "i"), "ON"]
    parts += ["ONLY" if read.only else "", str(read.table), "USING", quote(read.method)]
    parts += [f"({', '.join(map(rebuilt_key, read.keys))})"]
    if read.include:
        parts.append(f"INCLUDE ({', '.join(map(quote, read.include))})")
    parts.append("NULLS NOT DISTINCT" if read.nulls_not_distinct else "")
    parts += ["WITH", assignments(read.options)] if read.options else []
    parts += ["TABLESPACE", quote(read.tablespace)] if read.tablespace else []
    parts += ["WHERE", read.predicate] if read.predicate is not None else []
    return " ".join(parts)


def rebuilt_key(key: IndexKey) -> str:
    words = [key.expression if key.column else f"({key.expression})"]
    words += ["COLLATE", ".".join(map(quote, key.collation))] if key.collation else []
    words.append(".".join(map(quote, key.opclass)))
    words.append(assignments(key.opclass_options) if key.opclass_options else "")
    words.append("DESC" if key.descending else "")
    if key.nulls_first != key.descending:
        words.append("NULLS FIRST" if key.nulls_first else "NULLS LAST")
    return " ".join(words)


def assignments(options: tuple[tuple[str, str], ...]) -> str:
    return "({})".format(", ".join(f"{quote(name)} = '{value}'" for name, value in options))


@pytest.mark.parametrize("form", FORMS)
def test_reading_and_writing_is_lossless(definitions: Definitions, form: str):
    read = index(full(form))
    made = definitions(full(form))
    assert made
    assert definitions(read.sql) == made
    if read.name is not None:
        assert definitions(rebuilt(read)) == made
    assert read.revise() == read


MISWRITTEN = """
((note::pg_catalog.bpchar))
(core.opt(n, "desc" => 1))
(((NOT n = 1) IS NULL))
((local AT TIME ZONE ('U' || 'TC')))
((doc IS DOCUMENT))
(status) WHERE (n = 1) IN (true)
(status) WHERE active BETWEEN (n = 1) AND (val IS NULL)
""".strip().splitlines()


@pytest.mark.parametrize("form", MISWRITTEN)
def test_what_the_library_would_write_differently_is_refused(definitions: Definitions, form: str):
    assert definitions(full(form))
    said = refusal(f"DROP INDEX a;\n{full(form)};")
    assert said.startswith("plan.sql:2: would be written back as ")
    assert said.endswith("write it in other words")


def test_a_new_name_that_the_library_cannot_write_is_refused():
    with pytest.raises(InputError, match="would be written back"):
        index("CREATE INDEX i ON t (a)").revise(columns={"a": "x" * 64})


def test_long_names_are_cut_as_the_server_cuts_them(definitions: Definitions):
    name = "i" + "é" * 40
    ((made, _),) = definitions(f"CREATE INDEX {name} ON core.t (n)")
    cut = index(f"CREATE INDEX {name} ON core.t (n)").name
    assert cut == "i" + "é" * 31
    assert quote(cut) in made


def test_created_and_dropped_are_the_only_kinds_of_work():
    read = plan.parse(MIGRATION)
    work = [item for item in read.statements if isinstance(item, CreateIndex | DropIndex)]
    assert work == [*read.creates, *read.drops]
