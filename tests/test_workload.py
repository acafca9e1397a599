"""Workloads: the format, what is refused and where, and values drawn from a real server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from indexlab import target, workload
from indexlab.errors import InputError
from indexlab.target import Target
from indexlab.workload import Query, SampledQuery, Workload


def only(text: str) -> Query:
    (query,) = workload.parse(text).queries
    return query


def refusal(text: str) -> str:
    with pytest.raises(InputError) as refused:
        workload.parse(text)
    assert refused.value.exit_code == 2
    return str(refused.value)


# The format


FILE = """\
-- What the shop sends.

-- name: by_customer
-- weight: 30
-- param customer: SELECT id FROM customers
-- The account page.
SELECT *
FROM bookings
WHERE customer = :customer -- the one
LIMIT 20;

-- NAME : by day and slot
--param day, slot: SELECT day, slot FROM bookings
--weight:0.5
SELECT 1 FROM bookings WHERE day = :day AND slot = :slot OR :day IS NULL

-- name: newest
TABLE bookings;
"""


def test_a_workload_is_read():
    first, second, third = workload.parse(FILE, "shop.sql").queries
    assert (first.name, first.weight, first.line) == ("by_customer", 30, 3)
    assert first.sql == "SELECT *\nFROM bookings\nWHERE customer = :customer -- the one\nLIMIT 20"
    assert first.statement == first.sql.replace(":customer", "$1")
    assert (first.parameters, first.kind) == (("customer",), "read")
    assert (second.name, second.weight, second.line) == ("by day and slot", 0.5, 12)
    assert second.statement == "SELECT 1 FROM bookings WHERE day = $1 AND slot = $2 OR $1 IS NULL"
    assert second.parameters == ("day", "slot")
    assert (third.statement, third.weight, third.samplers) == ("TABLE bookings", 1, ())


def test_samplers_are_read():
    first, second, _ = workload.parse(FILE).queries
    assert [(s.names, s.sql, s.line) for s in (*first.samplers, *second.samplers)] == [
        (("customer",), "SELECT id FROM customers", 5),
        (("day", "slot"), "SELECT day, slot FROM bookings", 13),
    ]


def test_the_order_of_parameters_is_that_of_the_statement():
    query = only("-- name: q\n-- param a, b: SELECT 1, 2\n-- param c: SELECT 3\nSELECT :c, :b, :a")
    assert query.parameters == ("c", "b", "a")


def test_headers_may_stand_among_the_lines_of_a_query():
    query = only("-- name: q\nSELECT :a\n-- param a: SELECT 1\n, 2")
    assert query.statement.split() == ["SELECT", "$1", ",", "2"]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT ':a', \":b\" -- :c\n/* :d */",
        "SELECT $$:a$$, $x$:b$x$, E'\\':c'",
        "SELECT a::text, t[1:2], t[:3], f(x := 1)",
        "SELECT '10:30'::time",
    ],
)
def test_colons_that_are_no_placeholders(text: str):
    assert only(f"-- name: q\n{text}").parameters == ()


def test_odd_line_breaks_within_strings_stay():
    text = "SELECT 'a\u2028b\x0bc\x0cd\x85e'"
    assert only(f"-- name: q\n{text}").statement == text
    assert only(f"-- name: q\n{text}\n-- name: r\nSELECT 1".split("-- name: r")[0]).line == 1


def test_lines_of_windows():
    first, second = workload.parse("-- name: q\r\nSELECT 1;\r\n-- name: r\r\nSELECT 2;\r\n").queries
    assert (first.name, first.statement, second.line) == ("q", "SELECT 1", 3)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO t VALUES (1)",
        "UPDATE t SET a = 1",
        "DELETE FROM t",
        "MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN DELETE",
        "WITH gone AS (DELETE FROM t RETURNING a) SELECT * FROM gone",
        "SELECT * FROM t FOR UPDATE",
        "SELECT * FROM (SELECT * FROM t FOR NO KEY UPDATE SKIP LOCKED) AS s",
        "SELECT * FROM t FOR SHARE",
    ],
)
def test_what_changes_or_locks_rows_is_a_write(statement: str):
    read = workload.parse(f"-- name: w\n{statement};\n-- name: r\nSELECT 1;")
    assert [query.name for query in read.writes] == ["w"]
    assert [query.name for query in read.reads] == ["r"]


@pytest.mark.parametrize(
    "statement",
    ["SELECT 1", "VALUES (1)", "TABLE t", "WITH a AS (SELECT 1) TABLE a", "SELECT 'DELETE FROM t'"],
)
def test_what_only_reads_is_a_read(statement: str):
    assert only(f"-- name: q\n{statement}").kind == "read"


# Refusals


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "workload.sql: holds no query: each begins with a line -- name: ..."),
        ("-- only comments\n", "workload.sql: holds no query"),
        ("\nSELECT 1;", "workload.sql:2: a query needs a line -- name: ... above it"),
        ("-- weight: 2\n-- name: q", "workload.sql:1: -- weight before the first -- name: line"),
        ("-- param a: SELECT 1", "workload.sql:1: -- param before the first -- name: line"),
        ("-- name:\nSELECT 1", "workload.sql:1: write it as -- name: VALUE"),
        ("-- name q\nSELECT 1", "workload.sql:1: write it as -- name: VALUE"),
        ("-- name: q\n-- weight: 0\nSELECT 1", "workload.sql:2: weight '0' is not a positive"),
        ("-- name: q\n-- weight: -1\nSELECT 1", "workload.sql:2: weight '-1' is not a positive"),
        ("-- name: q\n-- weight: nan\nSELECT 1", "workload.sql:2: weight 'nan' is not a positive"),
        ("-- name: q\n-- weight: inf\nSELECT 1", "workload.sql:2: weight 'inf' is not a positive"),
        ("-- name: q\n-- weight: x\nSELECT 1", "workload.sql:2: weight 'x' is not a positive"),
        ("-- name: q\n\n-- name: r\nSELECT 1", "workload.sql:1: query 'q' has 0 statements"),
        ("-- name: q\nSELECT 1; SELECT 2", "workload.sql:1: query 'q' has 2 statements"),
        (
            "-- name: q\nSELECT 1;\n-- name: q\nSELECT 2;",
            "workload.sql:3: query 'q' is there twice",
        ),
        ("-- name: q\n\nSELEC 1", 'workload.sql:3: syntax error at or near "SELEC"'),
        ("-- name: é\n-- ü\nSELECT 'é',\nFROM t", 'workload.sql:4: syntax error at or near "FROM"'),
        ("-- name: q\nSELECT 1,\n'a", "workload.sql:3: unterminated quoted string"),
        ("-- name: q\nSELECT\n\x00", "workload.sql:3: a NUL character"),
        (
            "-- name: q\n-- param a: SELECT 1\nSELECT :a, $1",
            "workload.sql:3: placeholder '$1' beside :a: write all as :name with a sampler, or none",
        ),
        (
            "-- name: q\nSELECT :a",
            "workload.sql:1: query 'q' uses :a, which has no sampler: "
            "add a line -- param a: SELECT ...",
        ),
        (
            "-- name: q\n-- param a: SELECT 1\nSELECT 1",
            "workload.sql:2: parameter 'a' of query 'q' is not used",
        ),
        (
            "-- name: q\n-- param a: SELECT 1\n-- param a: SELECT 2\nSELECT :a",
            "workload.sql:2: parameter 'a' of query 'q' has two samplers",
        ),
        ("-- name: q\n-- param a SELECT 1\nSELECT :a", "workload.sql:2: write it as -- param NAME"),
        ("-- name: q\n-- param 1: SELECT 1\nSELECT 1", "workload.sql:2: write it as -- param NAME"),
        ("-- name: q\n-- param a,: SELECT 1\nSELECT 1", "workload.sql:2: write it as -- param"),
    ],
)
def test_a_workload_that_is_not_as_it_must_be_is_refused(text: str, said: str):
    assert refusal(text).startswith(said)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE t (a int)",
        "SELECT 1 AS a INTO t",
        "SELECT 1 AS a INTO t UNION SELECT 2",
        "CREATE TABLE t AS SELECT 1",
        "TRUNCATE t",
        "CALL p()",
        "EXPLAIN SELECT 1",
        "COPY t FROM STDIN",
        "BEGIN",
        "DO 'BEGIN END'",
    ],
)
def test_only_queries_are_queries(statement: str):
    said = refusal(f"-- name: q\n\n{statement};")
    assert said.startswith("workload.sql:3: query 'q' may not be ")
    assert said.endswith("a workload holds SELECT, INSERT, UPDATE, DELETE and MERGE")


@pytest.mark.parametrize(
    "sampler",
    [
        "",
        "SELECT 1; SELECT 2",
        "DELETE FROM t RETURNING a",
        "WITH d AS (DELETE FROM t RETURNING a) SELECT a FROM d",
        "SELECT a FROM t FOR UPDATE",
        "SELECT 1 AS a INTO t",
        "SELECT 1 AS a INTO t UNION SELECT 2",
        "EXPLAIN SELECT 1",
    ],
)
def test_a_sampler_is_one_select(sampler: str):
    said = refusal(f"-- name: q\n-- param a: {sampler}\nSELECT :a")
    assert said == "workload.sql:2: the sampler of 'a' must be one SELECT"


def test_a_sampler_with_a_syntax_error_is_refused_with_its_line():
    said = refusal("-- name: q\n-- weight: 1\n-- param a: SELEC 1\nSELECT :a")
    assert said.startswith('workload.sql:3: syntax error at or near "SELEC"')


def test_a_query_nested_too_deeply_is_refused():
    said = refusal("-- name: q\nSELECT " + " || ".join(["a"] * 500))
    assert said.startswith("workload.sql:2: nested too deeply")


@pytest.mark.parametrize("content", [None, b"-- name: q\nSELECT '\xfc'"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None):
    file = tmp_path / "workload.sql"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=r"workload\.sql(:2: not UTF-8|: cannot be read)"):
        workload.read(file)


def test_a_file_with_a_byte_order_mark(tmp_path: Path):
    file = tmp_path / "workload.sql"
    file.write_bytes("\ufeff-- name: q\r\nSELECT 1\r\n".encode())
    assert workload.read(file).queries[0].name == "q"
    assert workload.read(file).source == file.as_posix()


# Sampling


def drawn(
    conn: psycopg.Connection[Any], text: str, *, size: int = 20, seed: int = 0
) -> tuple[SampledQuery, ...]:
    sampled = workload.sample(conn, workload.parse(text), size=size, seed=seed)
    assert conn.info.transaction_status == TransactionStatus.IDLE
    return sampled


NUMBERS = "-- name: q\n-- param n: SELECT * FROM generate_series(1, 500)\nSELECT :n::int"


def test_the_same_seed_gives_the_same_values(session: psycopg.Connection):
    (first,) = drawn(session, NUMBERS)
    assert drawn(session, NUMBERS) == (first,)
    assert len(set(first.values)) == 20
    assert drawn(session, NUMBERS, seed=1) != (first,)


def test_another_query_does_not_change_the_values(session: psycopg.Connection):
    other = "-- name: p\n-- param a: SELECT 1 UNION SELECT 2\nSELECT :a;\n"
    assert drawn(session, other + NUMBERS)[1].values == drawn(session, NUMBERS)[0].values


def test_a_sampler_with_few_rows_gives_each_of_them(session: psycopg.Connection):
    (three,) = drawn(session, NUMBERS.replace("500", "3"))
    assert sorted(three.values) == [("1",), ("2",), ("3",)]


def test_only_the_first_thousand_rows_are_fetched(session: psycopg.Connection):
    (many,) = drawn(session, NUMBERS.replace("500", "5000"), size=2000)
    assert len(many.values) == workload.SAMPLER_ROWS
    assert max(int(value) for (value,) in many.values if value) == workload.SAMPLER_ROWS


def test_values_of_one_sampler_stay_together(session: psycopg.Connection):
    text = (
        "-- name: q\n-- param a, b: SELECT n, n * 10 FROM generate_series(1, 50) AS n\n"
        "-- param c: SELECT * FROM generate_series(1, 7)\nSELECT :c, :b, :a"
    )
    (sampled,) = drawn(session, text)
    assert sampled.query.parameters == ("c", "b", "a")
    assert len(sampled.values) == 20
    assert all(int(b) == 10 * int(a) for _, b, a in sampled.values if a and b)
    assert {c for c, _, _ in sampled.values} <= set("1234567")


def test_a_query_without_parameters_is_run_with_nothing(session: psycopg.Connection):
    (sampled,) = drawn(session, "-- name: q\nSELECT 1")
    assert sampled.values == ((),)


TYPED = """
CREATE TABLE typed (
    a uuid, b date, c int, d numeric, e text[], f timestamptz, g jsonb, h boolean, i text, j bytea
);
INSERT INTO typed VALUES (
    'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '2026-02-28', -7, 1e-3, '{"a,b",NULL,"\\"é\\""}',
    '2026-01-01 12:00:00.123456+02', '{"a": [1]}', true, 'it''s %s :x $1', '\\x00ff'
);
"""


@pytest.mark.parametrize("column", list("abcdefghij"))
def test_values_take_the_type_that_the_query_wants(session: psycopg.Connection, column: str):
    session.execute(TYPED)
    text = (
        f"-- name: q\n-- param v: SELECT {column} FROM typed\n"
        f"SELECT count(*) FROM typed WHERE {column} = :v"
    )
    (sampled,) = drawn(session, text)
    assert found(session, sampled) == [1]


def test_null_is_a_value(session: psycopg.Connection):
    (sampled,) = drawn(
        session, "-- name: q\n-- param v: SELECT NULL::date\nSELECT (:v::date IS NULL)::int"
    )
    assert sampled.values == ((None,),)
    assert found(session, sampled) == [1]


def found(conn: psycopg.Connection[Any], sampled: SampledQuery) -> list[Any]:
    def rows(values: Sequence[str | None]) -> Any:
        with psycopg.RawCursor(conn) as cursor:
            return cursor.execute(sampled.query.statement.encode(), values).fetchone()

    return [rows(values)[0] for values in sampled.values]


VOLATILE = """
CREATE TABLE written (a int);
CREATE FUNCTION writing() RETURNS int LANGUAGE plpgsql AS $$
BEGIN INSERT INTO written VALUES (1); RETURN 1; END $$;
CREATE FUNCTION writing_anyway() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('transaction_read_only', 'off', true);
    INSERT INTO written VALUES (1);
    RETURN 1;
END $$;
"""


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        ("SELECT 1 WHERE false", "returns no rows: widen it until it does"),
        ("SELECT 1, 2", "returns 2 columns for 1 parameters"),
        ("SELECT FROM generate_series(1, 2)", "returns 0 columns for 1 parameters"),
        ("SELECT nothing FROM nowhere", 'fails: relation "nowhere" does not exist'),
        ("SELECT 1 / 0", "fails: division by zero"),
        ("SELECT $1", "fails: "),
        ("SELECT writing()", "fails: cannot execute INSERT in a read-only transaction"),
        (
            "SELECT writing_anyway()",
            "fails: transaction read-write mode must be set before any query",
        ),
        ("SELECT nextval('numbers')", "fails: cannot execute nextval() in a read-only transaction"),
    ],
)
def test_a_sampler_that_does_not_sample_is_refused(
    session: psycopg.Connection, sampler: str, said: str
):
    session.execute(VOLATILE + "CREATE SEQUENCE numbers;")
    text = f"-- name: q\n-- weight: 2\n-- param a: {sampler}\nSELECT :a"
    with pytest.raises(InputError) as refused:
        workload.sample(session, workload.parse(text, "shop.sql"))
    assert str(refused.value).startswith(f"shop.sql:3: the sampler of 'a' in query 'q' {said}")
    assert session.info.transaction_status == TransactionStatus.IDLE
    assert session.execute("SELECT count(*) FROM written").fetchone() == (0,)


def test_sampling_leaves_no_trace_in_the_session(session: psycopg.Connection):
    drawn(
        session, "-- name: q\n-- param a: SELECT set_config('work_mem', '99MB', false)\nSELECT :a"
    )
    assert session.execute("SHOW work_mem").fetchone() != ("99MB",)
    assert session.execute("SHOW transaction_read_only").fetchone() == ("off",)
    assert session.execute("SELECT count(*) FROM pg_catalog.pg_cursors").fetchone() == (0,)


def test_sampling_works_on_a_read_only_session(database: Target):
    with target.connect(database, read_only=True) as conn:
        assert len(drawn(conn, NUMBERS)[0].values) == 20


@pytest.mark.parametrize(("size", "seed"), [(0, 0), (-1, 0), (20, -1)])
def test_numbers_that_draw_nothing_are_refused(session: psycopg.Connection, size: int, seed: int):
    with pytest.raises(InputError, match=f"size={size}, seed={seed}"):
        drawn(session, NUMBERS, size=size, seed=seed)


def test_an_empty_workload_has_no_samples(session: psycopg.Connection):
    assert workload.sample(session, Workload(())) == ()


def test_normalized_text_is_kept_for_planning_and_has_no_values(session: psycopg.Connection):
    work = workload.parse("-- name: q\nSELECT $1::int + $2\n-- name: r\nSELECT 1")
    query, other = work.queries
    assert (query.generic, query.parameters, query.statement) == (True, (), "SELECT $1::int + $2")
    assert not other.generic
    assert work.executable == (other,)
    assert [item.values for item in workload.sample(session, work)] == [(), ((),)]
