"""SQL text: names as the server reads them, statements and where they stand."""

from __future__ import annotations

import doctest
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql as compose

from indexlab import embedded, sql
from indexlab.errors import InputError

ODD_NAMES = [
    *("bookings", "_private", "a1", "a$b", "a$", "x_y"),
    *("Album", "ALL", "camelCase", "1a", "$a", "a b", " a", "a ", "a-b", "a.b", "a:b", ":a"),
    *('a"b', '"', '""', "a'b", "a\\b", "a\nb", "a\tb", "a;b", "--", "/*", "%s", "{}", "$1"),
    *("ünïcode", "ü", "Ж", "名前", "😀", "e\u0301", "\u200b", "a\u00a0b", "\u0131", "İ", "ª", "②"),
]


@pytest.fixture(scope="module")
def conn(embedded_server: embedded.Server) -> Iterator[psycopg.Connection]:
    embedded_server.create_database("sql_names")
    with psycopg.connect(embedded_server.conninfo("sql_names"), autocommit=True) as conn:
        yield conn
    embedded_server.drop_database("sql_names")


@pytest.fixture(scope="module")
def words(conn: psycopg.Connection) -> list[str]:
    """Every keyword of the server, and names that are odd in other ways."""
    keywords = conn.execute("SELECT word FROM pg_catalog.pg_get_keywords() ORDER BY word")
    return [word for (word,) in keywords] + ODD_NAMES


def test_the_examples_hold():
    assert doctest.testmod(sql).failed == 0
    assert doctest.testmod(sql).attempted > 0


# Names


def test_what_the_server_leaves_unquoted_the_kit_does_too(
    conn: psycopg.Connection, words: list[str]
):
    quoted = conn.execute("SELECT quote_ident(w) FROM unnest(%s::text[]) AS w", [words])
    for word, (servers,) in zip(words, quoted, strict=True):
        # The server quotes a$b out of caution, and is right to read it back without.
        assert sql.quote(word) == servers or (sql.quote(word), "$" in word) == (word, True)


PLACES = """
CREATE SCHEMA {schema};
CREATE TABLE {schema}.{word} ({word} int, plain int);
CREATE FUNCTION {schema}.{word}({word} int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1';
CREATE INDEX {word} ON {schema}.{word} ({word}, ({word} + 1), ({word}.{word}),
    {schema}.{word}({word} => {word})) INCLUDE ({word}) WHERE {word} IS NOT NULL AND ({word}) > 0;
COMMENT ON INDEX {schema}.{word} IS 'x';
SET LOCAL search_path = {schema};
ANALYZE {word};
SELECT {word}, t.{word} FROM {word} AS t;
"""

NAMES = """
SELECT c.relname
FROM pg_catalog.pg_class AS c
WHERE c.relnamespace = 'names'::regnamespace
UNION ALL
SELECT a.attname
FROM pg_catalog.pg_attribute AS a
WHERE a.attrelid = (
    SELECT oid
    FROM pg_catalog.pg_class
    WHERE relnamespace = 'names'::regnamespace AND relkind = 'r'
) AND a.attnum = 1
UNION ALL
SELECT p.proargnames[1]
FROM pg_catalog.pg_proc AS p
WHERE p.pronamespace = 'names'::regnamespace
"""


def test_a_quoted_name_is_the_same_name_in_every_place(conn: psycopg.Connection, words: list[str]):
    for word in words:
        # A table and its index share the names of a schema, so the index has another one.
        places = PLACES.replace("CREATE INDEX {word}", "CREATE INDEX {index}")
        places = places.replace("INDEX {schema}.{word}", "INDEX {schema}.{index}")
        script = (
            places.replace("{schema}", "names")
            .replace("{index}", sql.quote(f"{word}_"))
            .replace("{word}", sql.quote(word))
        )
        with conn.transaction(force_rollback=True):
            conn.execute(script.encode())
            names = sorted(name for (name,) in conn.execute(NAMES))
        assert names == sorted([word, f"{word}_", word, word]), word


def test_a_quoted_name_is_an_index_by_itself(conn: psycopg.Connection, words: list[str]):
    with conn.transaction(force_rollback=True):
        conn.execute("CREATE TABLE plain (a int)")
        for word in words:
            conn.execute(f"CREATE INDEX {sql.quote(word)} ON plain (a)".encode())
            found = conn.execute("SELECT to_regclass(%s)::oid <> 0", [sql.quote(word)]).fetchone()
            assert found == (True,), word
            conn.execute(f"DROP INDEX {sql.quote(word)}".encode())


def test_the_kit_reads_back_what_it_quotes(words: list[str]):
    for word in words:
        (statement,) = sql.parse(f"DROP INDEX {sql.quote(word)}.{sql.quote(word)}", "x")
        items = statement.tree.objects[0].list.items
        assert [item.string.sval for item in items] == [word, word]


def test_an_empty_name_is_quoted_and_the_grammar_refuses_it():
    assert sql.quote("") == '""'
    with pytest.raises(InputError, match="zero-length delimited identifier"):
        sql.parse('DROP INDEX ""', "x")


@pytest.mark.parametrize("letter", ["a", "é", "名", "😀", "ae\u0301"])
@pytest.mark.parametrize("shift", range(4))
def test_long_names_are_cut_where_the_server_cuts_them(
    conn: psycopg.Connection, letter: str, shift: int
):
    name = "x" * shift + letter * 70
    with conn.transaction(force_rollback=True):
        conn.execute(compose.SQL("CREATE TABLE {} ()").format(compose.Identifier(name)))
        row = conn.execute(
            "SELECT relname FROM pg_catalog.pg_class WHERE oid = (SELECT max(oid) "
            "FROM pg_catalog.pg_class WHERE relkind = 'r')"
        ).fetchone()
    assert row == (sql.truncate(name),)
    (statement,) = sql.parse(f"DROP INDEX {sql.quote(name)}", "x")
    assert statement.tree.objects[0].list.items[0].string.sval == sql.truncate(name)


@pytest.mark.parametrize("name", ["", "a", "x" * 63, "é" * 31])
def test_short_names_are_not_cut(name: str):
    assert sql.truncate(name) == name


# Statements


def test_statements_know_their_lines_within_a_greater_text():
    first, second = sql.parse("SELECT 'é';\n\nSELECT\n2", "x", first_line=10)
    assert (first.line, first.text, first.kind) == (10, "SELECT 'é'", "select_stmt")
    assert (second.line, second.text) == (12, "SELECT\n2")
    with pytest.raises(InputError, match=r"^x:12: syntax error at or near \"SELEC\""):
        sql.parse("SELECT 'é';\n\nSELEC 2", "x", first_line=10)


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("SELECT 1", "SELECT 1"),
        ("-- a\n/* b */ SELECT 1; -- c\n;", "SELECT 1"),
        ("SELECT 'a\n-- b'; ", "SELECT 'a\n-- b'"),
        ("SELECT 1 -- inside\n, 'é' /* after */", "SELECT 1 -- inside\n, 'é'"),
        ("-- nothing", ""),
        ("", ""),
    ],
)
def test_outer_comments_are_left_out(text: str, inner: str):
    assert sql.without_outer_comments(text) == inner


@pytest.mark.parametrize(
    ("text", "bound", "names"),
    [
        ("SELECT :a, :b, :a", "SELECT $1, $2, $1", ("a", "b")),
        ("SELECT :a::int, b::text", "SELECT $1::int, b::text", ("a",)),
        ("SELECT ':a', \":b\", :c", "SELECT ':a', \":b\", $1", ("c",)),
        ("SELECT E'\\':a', $$:b$$, $x$:c$x$, U&':d'", None, ()),
        ("SELECT 1 -- :a\n/* :b /* :c */ */", None, ()),
        ("SELECT t[1:2], t[:2], t[1:], t[1 : 2]", None, ()),
        ("SELECT t[:a : :b]", "SELECT t[$1 : $2]", ("a", "b")),
        ("SELECT '10:30'::time, x = '{:a}'", None, ()),
        ("SELECT :date, :order, :Größe", "SELECT $1, $2, $3", ("date", "order", "Größe")),
        ("SELECT 'é', :é", "SELECT 'é', $1", ("é",)),
        ("SELECT data ? 'a', 5 % 3, :a", "SELECT data ? 'a', 5 % 3, $1", ("a",)),
        ("SELECT f(x := 1), f(x => :a)", "SELECT f(x := 1), f(x => $1)", ("a",)),
        ("SELECT $1, $2::date", None, ()),
        ("", None, ()),
    ],
)
def test_named_placeholders_are_numbered(text: str, bound: str | None, names: tuple[str, ...]):
    assert sql.bind_names(text, "x", 1) == (text if bound is None else bound, names)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SELECT :a,\n$1", "x:6: placeholder '$1' beside :a: write all as :name with a sampler"),
        ("SELECT 1,\n\n'é :a", "x:7: unterminated quoted string"),
        ("SELECT\n\x00", "x:6: a NUL character"),
    ],
)
def test_text_that_cannot_be_bound_is_refused_with_its_line(text: str, said: str):
    with pytest.raises(InputError) as refused:
        sql.bind_names(text, "x", 5)
    assert str(refused.value).startswith(said)
