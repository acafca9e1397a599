"""What only a server can tell: asked on a copy of the structure, which nobody else sees."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from indexlab import audit as auditing
from indexlab import catalog, embedded, plan
from indexlab.audit import StatementAudit
from indexlab.audit.scratch import DATABASE, ROLE

Told = Callable[..., StatementAudit]

KINDS = """
CREATE SCHEMA app;
CREATE TYPE app.mood AS ENUM ('good', 'it''s bad');
CREATE DOMAIN app.code AS varchar(8) COLLATE "C" CHECK (VALUE <> '');
CREATE TYPE app.pair AS (x int, y app.mood);
CREATE TYPE app.span AS RANGE (SUBTYPE = date);
CREATE TABLE app."T 1" (
    id int, name text COLLATE "POSIX", mood app.mood, moods app.mood[], code app.code,
    pair app.pair, span app.span, "odd; name" text
);
"""


def rules(item: StatementAudit) -> set[str]:
    return {finding.rule for finding in item.findings}


@pytest.mark.parametrize(
    "keys",
    [
        "(id) WHERE mood = 'it''s bad'",
        "((moods[1]))",
        "(lower(code))",
        "(((pair).x))",
        "(lower(span))",
        '(lower("odd; name"))',
        '((name || "odd; name") COLLATE "C")',
        "(name text_pattern_ops)",
        '(id) WHERE "T 1" IS NOT NULL',
    ],
)
def test_types_of_the_target_are_copied(told: Told, keys: str) -> None:
    item = told(KINDS, f'CREATE INDEX i ON app."T 1" {keys}')
    assert (item.verdict, "not-asked" in rules(item)) == ("build", False)


FUNCTIONS = """
CREATE TABLE t (s text);
CREATE FUNCTION inner_(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)';
CREATE FUNCTION outer_(text) RETURNS text LANGUAGE sql STABLE AS 'SELECT public.inner_($1)';
CREATE FUNCTION moving(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
CREATE FUNCTION of_row(t) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1.s';
CREATE FUNCTION by_path(text) RETURNS text LANGUAGE sql STABLE AS 'SELECT inner_($1)';
"""


@pytest.mark.parametrize("call", ["outer_(s)", "of_row(t)"])
def test_functions_of_the_target_are_copied_with_what_they_call(told: Told, call: str) -> None:
    item = told(FUNCTIONS, f"CREATE INDEX i ON t ({call})")
    assert (item.verdict, "not-asked" in rules(item)) == ("build", False)


def test_a_function_that_is_not_immutable_is_refused(told: Told) -> None:
    item = told(FUNCTIONS, "CREATE INDEX i ON t (moving(s))")
    assert (item.verdict, "expression-refused" in rules(item)) == ("refuse", True)


def test_since_17_a_function_finds_nothing_by_the_search_path(
    told: Told, conn: psycopg.Connection
) -> None:
    item = told(FUNCTIONS, "CREATE INDEX i ON t (by_path(s))")
    if conn.info.server_version < 170000:
        assert (item.verdict, "not-asked" in rules(item)) == ("build", True)
        return
    assert (item.verdict, "expression-refused" in rules(item)) == ("refuse", True)
    with pytest.raises(psycopg.errors.UndefinedFunction):
        conn.execute("CREATE INDEX i ON t (by_path(s))")


def test_extensions_come_with_what_they_bring(told: Told, conn: psycopg.Connection) -> None:
    available = conn.execute("SELECT FROM pg_available_extensions WHERE name = 'pg_trgm'")
    if available.fetchone() is None:
        pytest.skip("no contrib modules for this server")
    schema = "CREATE EXTENSION pg_trgm; CREATE TABLE t (s text)"
    item = told(schema, "CREATE INDEX i ON t USING gin (s gin_trgm_ops)")
    assert (item.verdict, "not-asked" in rules(item)) == ("build", False)


def test_what_cannot_be_copied_is_not_guessed(told: Told) -> None:
    schema = """
        CREATE TABLE t (a int);
        CREATE FUNCTION same(int, int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 = $2';
        CREATE OPERATOR === (FUNCTION = same, LEFTARG = int, RIGHTARG = int);
    """
    item = told(schema, "CREATE INDEX i ON t ((a === 1))")
    assert (item.verdict, "not-asked" in rules(item)) == ("build", True)
    finding = next(f for f in item.findings if f.rule == "not-asked")
    assert (finding.severity, "operator does not exist" in finding.message) == ("info", True)


def test_the_versions_are_in_the_evidence(told: Told) -> None:
    item = told("CREATE TABLE t (at timestamptz)", "CREATE INDEX i ON t ((at::date))")
    evidence = dict(next(f for f in item.findings if f.rule == "expression-refused").evidence)
    assert evidence["asked"].startswith("PostgreSQL 18.")
    assert evidence["target"].startswith("PostgreSQL ")


def test_nothing_is_left_in_the_scratch_database(told: Told) -> None:
    told(KINDS, 'CREATE INDEX i ON app."T 1" (lower(name))')
    with embedded.server() as server, psycopg.connect(server.conninfo(DATABASE)) as scratch:
        assert scratch.execute("SELECT to_regnamespace('app')").fetchone() == (None,)
        roles = scratch.execute("SELECT FROM pg_roles WHERE rolname = %s", [ROLE])
        assert roles.fetchone() is None


def test_what_the_targets_users_wrote_can_do_nothing(told: Told, conn: psycopg.Connection) -> None:
    # The server evaluates a call with constants while it plans the index.
    schema = """
        CREATE TABLE t (a text);
        CREATE FUNCTION evil(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
        BEGIN
            RETURN pg_read_file('PG_VERSION') || $1;
        END $$;
    """
    conn.execute(schema.replace("TABLE t", "TABLE tt").replace("evil", "evil2"))
    item = told(schema, "CREATE INDEX i ON t ((a || evil('x')))")
    finding = next(f for f in item.findings if f.rule == "not-asked")
    assert "permission denied" in finding.message


def test_plain_columns_start_no_server(
    conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INDEXLAB_HOME", "/dev/null/nowhere")
    conn.execute("CREATE TABLE t (a int, s text)")
    _, audit = auditing.read(conn, plan.parse("CREATE INDEX i ON t (a, s DESC) INCLUDE (s)"))
    assert audit.statements[0].verdict == "build"
    _, audit = auditing.read(conn, plan.parse("CREATE INDEX i ON t (lower(s))"))
    assert "there is no server to ask" in next(
        f.message for f in audit.statements[0].findings if f.rule == "not-asked"
    )


def test_without_answers_the_audit_says_that_nobody_was_asked(conn: psycopg.Connection) -> None:
    conn.execute("CREATE TABLE t (s text)")
    wanted = plan.parse("CREATE INDEX i ON t (lower(s))")
    item = auditing.audit(catalog.read(conn, wanted), wanted).statements[0]
    assert (item.verdict, "not-asked" in rules(item)) == ("build", True)
