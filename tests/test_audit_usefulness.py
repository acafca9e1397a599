"""What statistics and the workload say about the use of a planned index."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import psycopg
import pytest

from indexlab import audit as auditing
from indexlab import plan, workload
from indexlab.audit.verdicts import Finding

_numbers = itertools.count(1)

SCHEMA = """
CREATE SCHEMA core;
CREATE TABLE core.t AS
SELECT i AS id,
       i * 7919 % 4 AS few,
       i / 2500 AS in_order,
       CASE WHEN i % 100 = 0 THEN 'pending' ELSE 'done' END AS status,
       i * 7919 % 1000 AS who,
       i AS seen,
       repeat(md5(i::text), 30) AS long,
       date '2024-01-01' + i % 300 AS day
  FROM generate_series(1, 10000) AS i;
ALTER TABLE core.t ALTER long SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX by_id ON core.t (id);
CREATE INDEX by_word ON core.t (lower(status)) WHERE seen > 0;
CREATE TABLE tiny AS SELECT i AS a FROM generate_series(1, 50) AS i;
CREATE TABLE empty (a int);
CREATE TABLE core.pairs AS SELECT i % 10 AS a, i % 10 AS b, i % 7 AS c FROM generate_series(1, 5000) AS i;
CREATE STATISTICS core.of_pairs (ndistinct) ON a, b FROM core.pairs;
ANALYZE;
"""


@pytest.fixture(scope="module", params=["embedded", pytest.param("15", marks=pytest.mark.pg15)])
def conn(request: pytest.FixtureRequest) -> Iterator[psycopg.Connection]:
    """A session on a database of the module's own; no test changes it."""
    name = "embedded_server" if request.param == "embedded" else "pg15_server"
    conninfo: Callable[[str], str] = request.getfixturevalue(name).conninfo
    database = f"usefulness_{next(_numbers)}"
    with psycopg.connect(conninfo("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {database}")
        with psycopg.connect(conninfo(database), autocommit=True) as session:
            session.execute(SCHEMA)
            yield session
        admin.execute(f"DROP DATABASE {database} WITH (FORCE)")


def findings(conn: psycopg.Connection, text: str, queries: str = "") -> dict[str, Finding]:
    """Audit one statement and return its findings by rule."""
    work = workload.parse(queries) if queries else None
    _, audit = auditing.read(conn, plan.parse(text), work)
    assert audit.statements[-1].verdict in ("build", "fix", "replace")
    assert not [f for f in audit.statements[-1].findings if f.severity == "error"]
    return {finding.rule: finding for finding in audit.statements[-1].findings}


def test_each_statement_that_is_built_has_an_estimated_size(conn: psycopg.Connection):
    finding = findings(conn, "CREATE INDEX i ON core.t (who)")["estimated-size"]
    assert finding.severity == "info"
    assert dict(finding.evidence)["bytes"] > 8192
    assert "deduplicated" in str(dict(finding.evidence)["basis"])


def test_a_size_says_where_it_takes_columns_for_independent(conn: psycopg.Connection):
    def evidence(columns: str) -> dict[str, object]:
        _, audit = auditing.read(conn, plan.parse(f"CREATE INDEX i ON core.pairs ({columns})"))
        [size] = [f for f in audit.statements[0].findings if f.rule == "estimated-size"]
        return dict(size.evidence)

    assert "that a, c are independent" in str(evidence("a, c")["assumes"])
    assert "assumes" not in evidence("a, b")
    assert "assumes" not in evidence("a")


def test_few_values_that_are_all_common_select_little(conn: psycopg.Connection):
    finding = findings(conn, "CREATE INDEX i ON core.t (few)")["low-selectivity"]
    assert finding.severity == "warning"
    assert "core.t.few has only 4 values, none with less than 2" in finding.message


@pytest.mark.parametrize(
    "text",
    [
        "CREATE INDEX i ON core.t (status)",  # one value is rare
        "CREATE INDEX i ON core.t (who)",
        "CREATE INDEX i ON core.t (in_order)",  # its rows lie together
        "CREATE INDEX i ON core.t (few, day)",  # the second key selects
        "CREATE INDEX i ON core.t (few) WHERE status = 'pending'",
        "CREATE INDEX i ON core.t (few) INCLUDE (who)",
        "CREATE INDEX i ON core.t USING brin (few)",
        "CREATE INDEX i ON core.t ((few + 1))",
        "CREATE INDEX i ON empty (a)",
    ],
)
def test_what_may_select_is_not_called_useless(conn: psycopg.Connection, text: str):
    assert "low-selectivity" not in findings(conn, text)


RARE = "-- name: next\nSELECT id FROM core.t AS x WHERE x.status = 'pending';\n"


def test_a_rare_value_that_is_asked_for_makes_a_partial_index(conn: psycopg.Connection):
    finding = findings(conn, "CREATE INDEX i ON core.t (status)", RARE)["partial-index-suggested"]
    assert finding.severity == "info"
    assert finding.fix == ("CREATE INDEX CONCURRENTLY ON core.t (status) WHERE status = 'pending'")


@pytest.mark.parametrize(
    "queries",
    [
        "",
        RARE + "-- name: all\nSELECT id FROM core.t WHERE status = 'done';\n",
        RARE + "-- name: any\n-- param s: SELECT 'done'\nSELECT id FROM core.t WHERE status = :s;",
        RARE + "-- name: other\nSELECT id FROM core.t WHERE status <> 'done';",
        RARE.replace("core.t", "tiny").replace("status", "a::text"),
    ],
)
def test_a_value_that_others_do_without_makes_none(conn: psycopg.Connection, queries: str):
    found = findings(conn, "CREATE INDEX i ON core.t (status)", queries)
    assert "partial-index-suggested" not in found


TOUCH = "-- name: touch\n-- param id: SELECT 1\nUPDATE core.t SET {} WHERE id = :id;\n"


def test_updates_of_a_column_without_an_index_stop_being_hot(conn: psycopg.Connection):
    found = findings(conn, "CREATE INDEX i ON core.t (day)", TOUCH.format("day = day + 1"))
    assert "updates of day in core.t would stop being HOT" in found["loses-hot"].message
    assert "(touch)" in found["loses-hot"].message


@pytest.mark.parametrize(
    ("text", "sets"),
    [
        ("CREATE INDEX i ON core.t (day)", "who = 1"),  # not in the index
        ("CREATE INDEX i ON core.t (seen)", "seen = 2"),  # in a predicate already
        ("CREATE INDEX i ON core.t (status)", "status = 'done'"),  # in an expression already
        ("CREATE INDEX i ON core.t (day)", "day = day + 1, id = 7"),  # not HOT now either
    ],
)
def test_updates_that_lose_nothing_are_not_told(conn: psycopg.Connection, text: str, sets: str):
    assert "loses-hot" not in findings(conn, text, TOUCH.format(sets))


def test_hot_updates_count_predicates_and_included_columns(conn: psycopg.Connection):
    touch = TOUCH.format("day = day + 1")
    assert "loses-hot" in findings(conn, "CREATE INDEX i ON core.t (who) INCLUDE (day)", touch)
    text = "CREATE INDEX i ON core.t (who) WHERE day > '2024-03-01'"
    assert "loses-hot" in findings(conn, text, touch)


def test_brin_leaves_updates_hot_from_16_on(conn: psycopg.Connection):
    text = "CREATE INDEX i ON core.t USING brin (day)"
    lost = "loses-hot" in findings(conn, text, TOUCH.format("day = day + 1"))
    assert lost == (conn.info.server_version < 160000)


def test_a_table_of_few_pages_needs_no_index(conn: psycopg.Connection):
    assert findings(conn, "CREATE INDEX i ON tiny (a)")["tiny-table"].severity == "info"
    assert "tiny-table" not in findings(conn, "CREATE UNIQUE INDEX i ON tiny (a)")
    assert "tiny-table" not in findings(conn, "CREATE INDEX i ON core.t (who)")


def test_wide_keys_may_be_too_wide(conn: psycopg.Connection):
    assert findings(conn, "CREATE INDEX i ON core.t (long)")["wide-key"].severity == "warning"
    assert "wide-key" not in findings(conn, "CREATE INDEX i ON core.t (md5(long))")
    assert "wide-key" not in findings(conn, "CREATE INDEX i ON core.t USING hash (long)")


def test_a_table_that_is_only_written_is_told(conn: psycopg.Connection):
    read, _ = auditing.read(conn, text := plan.parse("CREATE INDEX i ON core.t (who)"))

    def rules(**counts: int) -> set[str]:
        tables = [replace(r, **counts) if r.name == "t" else r for r in read.relations]
        indexes = [replace(index, scans=0) for index in read.indexes]
        seen = replace(read, relations=tuple(tables), indexes=tuple(indexes))
        return {f.rule for item in auditing.audit(seen, text).statements for f in item.findings}

    assert "write-heavy-table" in rules(inserted=20_000, scans=5)
    assert "write-heavy-table" not in rules(inserted=20_000, scans=5_000)
    assert "write-heavy-table" not in rules(inserted=100, updated=0, deleted=0, scans=0)


@pytest.mark.parametrize("table", ["core.t (few, id)", "tiny (a)"])
def test_what_enforces_is_not_judged_by_its_use(conn: psycopg.Connection, table: str):
    touch = TOUCH.format("few = 1")
    found = findings(conn, f"CREATE UNIQUE INDEX i ON {table}", touch)
    assert [f.rule for f in found.values() if f.severity == "warning"] == []
    assert not {"low-selectivity", "tiny-table", "write-heavy-table"} & found.keys()
