"""What a comment above a statement can decide, and what it cannot."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from indexlab import audit as auditing
from indexlab import plan
from indexlab.audit import Audit, StatementAudit

Told = Callable[..., StatementAudit]

T = "CREATE TABLE t (a int, b int, c int);"


def ignoring(rule: str, statement: str) -> str:
    return f"\n-- indexlab: ignore {rule} because we know better\n{statement}"


def rules(item: StatementAudit) -> set[str]:
    return {finding.rule for finding in item.findings}


def indexes(conn: psycopg.Connection) -> list[str]:
    query = "SELECT indexname FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexname"
    return [name for (name,) in conn.execute(query)]


@pytest.mark.parametrize(
    ("rule", "schema", "before", "wanted"),
    [
        ("duplicate-index", T + "CREATE INDEX e ON t (a)", "", "CREATE INDEX p ON t (a)"),
        ("covered-by-existing", T + "CREATE INDEX e ON t (a, b)", "", "CREATE INDEX p ON t (a)"),
        ("duplicate-in-plan", T, "CREATE INDEX e ON t (a);", "CREATE INDEX p ON t (a)"),
        ("covered-by-planned", T, "CREATE INDEX e ON t (a, b);", "CREATE INDEX p ON t (a)"),
    ],
)
def test_a_judgement_that_is_ignored_leaves_the_statement_to_be_built(
    told: Told, conn: psycopg.Connection, rule: str, schema: str, before: str, wanted: str
) -> None:
    left_out = told(schema, before + wanted)
    assert (left_out.verdict, rule in rules(left_out)) == ("skip", True)
    item = told(schema, before + ignoring(rule, wanted))
    assert item.verdict == "build"
    assert [f.suppressed for f in item.findings if f.rule == rule] == ["we know better"]
    assert "replaces-index" not in rules(item)
    assert indexes(conn) == ["e", "p"]


def test_ignoring_another_rule_changes_nothing(told: Told) -> None:
    schema = T + "CREATE INDEX e ON t (a, b)"
    item = told(schema, ignoring("duplicate-index", "CREATE INDEX p ON t (a)"))
    assert (item.verdict, "unused-ignore" in rules(item)) == ("skip", True)


def test_each_reason_to_leave_out_must_be_ignored(told: Told, conn: psycopg.Connection) -> None:
    schema = T + "CREATE INDEX e ON t (a, b)"
    wanted = "CREATE INDEX w ON t (a, c);"
    planned = "CREATE INDEX p ON t (a)"
    one = ignoring("covered-by-existing", planned)
    both = ignoring("covered-by-planned", one.lstrip())
    assert told(schema, wanted + one).verdict == "skip"
    assert told(schema, wanted + both).verdict == "build"
    assert indexes(conn) == ["e", "p", "w"]


@pytest.mark.parametrize(
    ("rule", "schema", "planned", "verdict"),
    [
        ("exists", T + "CREATE INDEX p ON t (a)", "CREATE INDEX p ON t (a)", "skip"),
        ("name-taken", T + "CREATE INDEX p ON t (b)", "CREATE INDEX p ON t (a)", "refuse"),
        ("missing-column", T, "CREATE INDEX p ON t (nothing_like_it)", "refuse"),
        ("missing-table", T, "CREATE INDEX p ON nothing_like_it (a)", "refuse"),
        ("no-operator-class", T + "ALTER TABLE t ADD p point", "CREATE INDEX p ON t (p)", "refuse"),
        ("nothing-to-drop", T, "DROP INDEX IF EXISTS p", "skip"),
    ],
)
def test_what_the_server_decides_no_comment_can(
    told: Told, rule: str, schema: str, planned: str, verdict: str
) -> None:
    item = told(schema, ignoring(rule, planned))
    assert item.verdict == verdict
    [finding] = [f for f in item.findings if f.rule == rule]
    assert finding.message.endswith("; no comment can make it a statement to build")
    assert finding.suppressed == "we know better"


def test_the_same_name_twice_is_not_built_by_a_comment(conn: psycopg.Connection) -> None:
    conn.execute(T)
    twice = "CREATE INDEX p ON t (a);" + ignoring("duplicate-in-plan", "CREATE INDEX p ON t (a)")
    _, audit = auditing.read(conn, plan.parse(twice))
    assert [item.verdict for item in audit.statements] == ["build", "skip"]


def test_the_revised_plan_keeps_the_comment_and_is_judged_alike(conn: psycopg.Connection) -> None:
    conn.execute(T + "CREATE INDEX e ON t (a, b)")
    first: Audit = auditing.read(
        conn, plan.parse(ignoring("covered-by-existing", "CREATE INDEX p ON t (a)"))
    )[1]
    again = auditing.read(conn, plan.parse(auditing.revised_plan_sql(first)))[1]
    assert [item.verdict for item in again.statements] == ["build"]
