"""The audit among names, tables, roles and moments that nobody would choose."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator

import psycopg
import pytest

from indexlab import audit as auditing
from indexlab import catalog, plan, sql
from indexlab.audit import Audit, StatementAudit
from indexlab.sql import quote

NAMES = (
    'say "hello"',
    "it's",
    "two\nlines",
    "</script><script>alert(1)</script>",
    "😀 emoji",
    "ü" * 31 + "x",  # 63 bytes
    "select",
    "Select",
    "a.b",
    "%s {0} %%",
    "$1",
    "back\\slash",
    "semi;colon -- comment",
    " space ",
    "1",
)

_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=["embedded", pytest.param("15", marks=pytest.mark.pg15)])
def conninfo(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """How to connect to a database of the server that the test is for."""
    name = "embedded_server" if request.param == "embedded" else "pg15_server"
    return request.getfixturevalue(name).conninfo


@pytest.fixture
def conn(conninfo: Callable[[str], str]) -> Iterator[psycopg.Connection]:
    """A session on an empty database."""
    name = f"hostile_{next(_numbers)}"
    with psycopg.connect(conninfo("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        with psycopg.connect(conninfo(name), autocommit=True) as session:
            yield session
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def audited(conn: psycopg.Connection, text: str) -> Audit:
    return auditing.read(conn, plan.parse(text))[1]


def rules(item: StatementAudit) -> set[str]:
    return {finding.rule for finding in item.findings if finding.severity != "info"}


def run(conn: psycopg.Connection, audit: Audit) -> None:
    for item in audit.kept:
        assert item.revised is not None
        for statement in item.sequence:
            conn.execute(statement)


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_audited_built_and_found_again(conn: psycopg.Connection, name: str) -> None:
    quoted = quote(name)
    schema, table = f"{quoted}", f"{quoted}.{quoted}"
    conn.execute(f"CREATE SCHEMA {schema}; CREATE TABLE {table} ({quoted} int, b text)")
    conn.execute(f"CREATE INDEX ON {table} (b)")
    text = f"CREATE INDEX {quote('i' + name)} ON {table} ({quoted}) WHERE {quoted} > 0"
    audit = audited(conn, text)
    assert [item.verdict for item in audit.statements] == ["build"]
    run(conn, audit)
    again = audited(conn, text).statements[0]
    assert (again.verdict, again.findings[-1].rule) == ("skip", "exists")
    elsewhere = audited(conn, f"CREATE INDEX j ON {quoted} ({quoted} DESC, b)").statements[0]
    assert elsewhere.verdict == "fix"
    dropped = audited(conn, f"DROP INDEX {quoted}.{quote('i' + name)}")
    run(conn, dropped)
    back = [item.undo for item in dropped.statements]
    conn.execute(back[0])


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_written_in_a_readable_and_harmless_way(
    conn: psycopg.Connection, name: str
) -> None:
    quoted = quote(name)
    conn.execute(f"CREATE TABLE {quoted} ({quoted} int); CREATE INDEX ON {quoted} ({quoted})")
    conn.execute(f"CREATE INDEX ON {quoted} ({quoted})")
    audit = audited(conn, f"CREATE INDEX {quoted} ON {quoted} (nosuch)")
    for text in (audit._repr_html_(), audit.findings_frame().to_html()):
        assert "<script" not in text
    told = [finding.message for item in audit.existing for finding in item.findings]
    assert told and all(f"public.{quoted}"[:20] in text or "idx" in text for text in told)
    assert f"public.{quoted}" in audit.statements[0].why
    written = auditing.revised_plan_sql(audit) + auditing.migration_sql(audit)
    assert sql.parse(re.sub(r"(?m)^\\.*$", "", written), "migration") is not None


def test_quoted_and_unquoted_letters_are_told_apart(conn: psycopg.Connection) -> None:
    conn.execute('CREATE TABLE "select" ("Select" int, "select" int, "SELECT" text)')
    good = audited(conn, 'CREATE INDEX i ON "select" ("Select", "select", "SELECT")')
    assert good.statements[0].verdict == "build"
    run(conn, good)
    folded = audited(conn, 'CREATE INDEX j ON "SELECT" ("SELECT")')
    assert folded.statements[0].verdict in ("fix", "ask")
    assert '"select"' in folded.statements[0].why


def test_a_table_of_1600_columns(conn: psycopg.Connection) -> None:
    conn.execute(f"CREATE TABLE wide ({', '.join(f'c{n} int' for n in range(1600))})")
    text = (
        "CREATE INDEX last ON wide (c1599); CREATE INDEX gone ON wide (c1600);"
        f"CREATE INDEX most ON wide ({', '.join(f'c{n}' for n in range(32))});"
        f"CREATE INDEX more ON wide ({', '.join(f'c{n}' for n in range(33))})"
    )
    audit = audited(conn, text)
    assert [item.verdict for item in audit.statements] == ["build", "ask", "build", "refuse"]
    run(conn, audit)


def test_dropped_columns_are_gone(conn: psycopg.Connection) -> None:
    conn.execute("CREATE TABLE t (a int, b int, c int, d int); CREATE INDEX e ON t (d)")
    conn.execute("ALTER TABLE t DROP COLUMN a, DROP COLUMN c")
    text = (
        "CREATE INDEX i ON t (b); CREATE INDEX j ON t (a); CREATE INDEX k ON t (d);"
        'CREATE INDEX l ON t ("........pg.dropped.1........")'
    )
    audit = audited(conn, text)
    verdicts = [item.verdict for item in audit.statements]
    assert verdicts[0] == "build"
    assert verdicts[1] in ("ask", "refuse")
    assert verdicts[2:] == ["skip", "refuse"]
    run(conn, audit)


PARTS = """
CREATE TABLE p (a int, b int, c int) PARTITION BY RANGE (a);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (b);
CREATE TABLE p11 PARTITION OF p1 FOR VALUES FROM (0) TO (100) PARTITION BY LIST (c);
CREATE TABLE p111 PARTITION OF p11 FOR VALUES IN (1);
CREATE TABLE p112 PARTITION OF p11 DEFAULT;
CREATE TABLE p2 PARTITION OF p DEFAULT;
"""


def test_partitions_three_deep(conn: psycopg.Connection) -> None:
    conn.execute(PARTS + "CREATE INDEX whole ON p (a, b)")
    audit = audited(
        conn,
        "CREATE INDEX whole ON p (a, b); CREATE INDEX leaf ON p112 (c);"
        "CREATE INDEX again ON p111 (a, b); CREATE INDEX mid ON p11 (a, b);"
        "DROP INDEX p111_a_b_idx",
    )
    verdicts = [item.verdict for item in audit.statements]
    assert verdicts == ["skip", "build", "skip", "skip", "refuse"]
    assert not [item for item in audit.existing if "p1" in item.label]  # attached, not redundant
    run(conn, audit)


class Interrupted(psycopg.Connection):
    """A connection beside which another session works between its statements."""

    between: Callable[[int], None] | None = None
    sent = 0

    def execute(self, *args: object, **kwargs: object) -> psycopg.Cursor:  # type: ignore[override]
        self.sent += 1
        if self.between is not None:
            self.between(self.sent)
        return super().execute(*args, **kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize("place", range(1, 9))
def test_a_table_dropped_while_the_catalog_is_read(conn: psycopg.Connection, place: int) -> None:
    """Whatever the moment, the audit ends: with the table, or without it."""
    conn.execute("CREATE TABLE stays (a int); CREATE INDEX ON stays (a)")
    conn.execute("CREATE TABLE goes (a int, b text); CREATE INDEX ON goes (lower(b))")
    text = "CREATE INDEX i ON stays (abs(a)); CREATE INDEX j ON goes (a); CREATE INDEX k ON goes (upper(b))"

    with Interrupted.connect(conn.info.dsn, autocommit=True) as session:

        def drop(number: int) -> None:
            if number == place:
                conn.execute("DROP TABLE goes")

        session.between = drop
        _, audit = auditing.read(session, plan.parse(text))
    assert audit.statements[0].verdict == "build"
    # A snapshot that was taken before the drop has the table still.
    assert {item.verdict for item in audit.statements[1:]} <= {"build", "refuse", "ask"}
    assert audit.statements[0].label == "i"


def test_the_snapshot_is_of_one_moment(conn: psycopg.Connection) -> None:
    """What goes while the queries run is there in all of them, or in none."""
    conn.execute("CREATE TABLE t (a int PRIMARY KEY); CREATE INDEX i ON t (a)")
    seen = []
    for place in range(1, 7):
        with Interrupted.connect(conn.info.dsn, autocommit=True) as session:

            def drop(number: int, place: int = place) -> None:
                if number == place:
                    conn.execute("DROP TABLE IF EXISTS t")

            session.between = drop
            read = catalog.read(session)
        tables = {relation.oid for relation in read.relations}
        assert {column.table for column in read.columns} <= tables
        assert {index.table for index in read.indexes} <= tables
        seen.append(len(tables))
        conn.execute("DROP TABLE IF EXISTS t")
        conn.execute("CREATE TABLE t (a int PRIMARY KEY); CREATE INDEX i ON t (a)")
    assert set(seen) <= {0, 3}


def test_a_role_that_may_read_nothing(conn: psycopg.Connection) -> None:
    role = f"nobody_{next(_numbers)}_{conn.info.dbname}"
    conn.execute(
        "CREATE SCHEMA closed; CREATE TABLE closed.t (a int, b text); CREATE INDEX e ON closed.t (a);"
        "INSERT INTO closed.t SELECT n, n FROM generate_series(1, 9) AS n; ANALYZE closed.t;"
        "REVOKE ALL ON pg_catalog.pg_stats, pg_catalog.pg_stat_activity,"
        " pg_catalog.pg_stat_progress_create_index, pg_catalog.pg_stat_user_tables FROM PUBLIC"
    )
    conn.execute(f"CREATE ROLE {role}; SET ROLE {role}")
    try:
        audit = audited(
            conn,
            "CREATE INDEX i ON closed.t (b); CREATE INDEX j ON closed.t (lower(b));"
            "CREATE INDEX e ON closed.t (a); CREATE UNIQUE INDEX u ON closed.t (b); DROP INDEX closed.e",
        )
        verdicts = [item.verdict for item in audit.statements]
        assert verdicts[0] == verdicts[1] == verdicts[3] == verdicts[4] == "refuse"
        assert rules(audit.statements[0]) == {"not-owner"}
    finally:
        conn.execute("RESET ROLE")
        conn.execute(f"DROP ROLE {role}")
