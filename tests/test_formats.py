"""What an audit prints: quoted lines, annotations, SARIF; and comments that accept findings."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from indexlab import audit, formats, plan, rules
from indexlab.cli import results
from indexlab.errors import InputError
from indexlab.formats import Source
from indexlab.runs import Json, documents
from indexlab.target import Target

PLAN = """\
-- why it is wanted
-- indexlab: ignore missing-column because the next release
CREATE INDEX CONCURRENTLY by_date ON t USING btree (event_date);

\tCREATE INDEX CONCURRENTLY "naïve
 two" ON public.t (a,
    dtae);
/* x */ DROP INDEX CONCURRENTLY there_is_none, public.also_none;
"""
SCHEMA = "CREATE TABLE t (a int, date date, plain text)"


@pytest.fixture
def judge(session: psycopg.Connection, database: Target) -> Callable[[str], Json]:
    session.execute(SCHEMA)

    def judged(text: str) -> Json:
        _, result = audit.read(session, plan.parse(text))
        return documents.of_audit(result, database)

    return judged


def at(document: Json) -> dict[tuple[str, str], str]:
    """The text that each finding points to, by index and rule."""
    lines = PLAN.split("\n")
    return {
        (item["index"], finding["rule"]): lines[place["line"] - 1][
            place["column"] - 1 : place["end_column"] - 1
            if place["end_line"] == place["line"]
            else None
        ]
        for item in document["statements"]
        for finding in item["findings"]
        for place in [finding["at"]]
    }


def test_a_finding_points_to_the_word_that_it_is_about(judge: Callable[[str], Json]) -> None:
    found = at(judge(PLAN))
    assert found["by_date", "missing-column"] == "event_date"
    assert found["by_date", "qualified"] == "t"
    assert found["naïve\n two", "missing-column"] == "dtae"
    assert found["there_is_none", "missing-index"] == "there_is_none"
    assert found["public.also_none", "missing-index"] == "public.also_none"


def test_text_quotes_the_line_and_underlines_the_word(judge: Callable[[str], Json]) -> None:
    lines = [formats.plain(line) for line in formats.text(judge(PLAN), Source("p.sql", PLAN))]
    start = next(n for n, line in enumerate(lines) if line.startswith("p.sql:7:5: "))
    assert lines[start].startswith("p.sql:7:5: error[missing-column]: column dtae does not exist")
    assert lines[start + 1 : start + 4] == ["  |", "7 |     dtae);", "  |     ^^^^"]
    assert any(line.strip().startswith("= fix: ") for line in lines[start:])
    ignored = next(line for line in lines if "= ignored: " in line)
    assert ignored.endswith("the next release")
    assert lines[-1].startswith("4 statements: ")
    assert "1 ignored (database test_" in lines[-1]


def test_wide_and_control_characters_keep_the_underline_in_place(
    judge: Callable[[str], Json],
) -> None:
    text = 'CREATE INDEX CONCURRENTLY "日本\x1b" ON public.t (missing_one);'
    lines = [formats.plain(line) for line in formats.text(judge(text), Source("p.sql", text))]
    quoted = next(n for n, line in enumerate(lines) if line.startswith("1 | "))
    assert "\x1b" not in "".join(lines)
    shown = lines[quoted].replace("日本", "####")  # two cells each
    assert shown.index("missing_one") == lines[quoted + 1].index("^")


def test_notes_are_told_when_asked_for(judge: Callable[[str], Json]) -> None:
    document, source = judge("CREATE INDEX i ON t (a);"), Source("p.sql", "")
    quiet = formats.remarks(document)
    told = formats.remarks(document, verbose=True)
    assert "info" not in {remark.severity for remark in quiet}
    assert "not-concurrent" in {remark.rule for remark in told}
    assert "::notice " in "\n".join(formats.github(document, source, verbose=True))


def test_what_is_beside_the_plan_comes_last(session: psycopg.Connection, database: Target) -> None:
    session.execute(SCHEMA)
    session.execute("CREATE INDEX one ON t (a); CREATE INDEX two ON t (a)")
    _, result = audit.read(session, plan.parse("CREATE INDEX CONCURRENTLY x ON t (nothing);"))
    told = formats.remarks(documents.of_audit(result, database), verbose=True)
    placed = [remark.place is not None for remark in told]
    assert placed == sorted(placed, reverse=True)
    assert "duplicate-index" in {remark.rule for remark in told if remark.place is None}


def test_github_annotations_are_escaped(judge: Callable[[str], Json]) -> None:
    source = Source("my:dir,x/100%.sql", PLAN)
    lines = formats.github(judge(PLAN), source)
    assert all(re.match(r"::(error|warning) \S.*?::", line) for line in lines)
    assert not any("\n" in line or "\r" in line for line in lines)
    (wrong,) = [line for line in lines if "title=missing-column" in line]  # one is ignored
    assert wrong.startswith(
        "::error file=my%3Adir%2Cx/100%25.sql,line=7,col=5,endLine=7,endColumn=9,"
        "title=missing-column::column dtae does not exist"
    )
    assert "%0Afix: " in wrong


def test_sarif_has_what_the_standard_requires(judge: Callable[[str], Json]) -> None:
    log = formats.sarif(judge(PLAN), Source("dir/my plan.sql", PLAN), version="1.2.3")
    assert json.loads(json.dumps(log)) == log
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "indexlab"
    ids = [rule["id"] for rule in driver["rules"]]
    assert len(ids) == len(set(ids))
    assert all(rule["shortDescription"]["text"] for rule in driver["rules"])
    assert not any("helpUri" in rule for rule in driver["rules"])
    assert run["columnKind"] == "unicodeCodePoints"
    for result in run["results"]:
        assert ids[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")
        assert result["message"]["text"]
        (location,) = result["locations"]
        physical = location["physicalLocation"]
        assert physical["artifactLocation"]["uri"] == "dir/my%20plan.sql"
        if "region" in physical:
            region = physical["region"]
            assert min(region.values()) >= 1
            start = (region["startLine"], region["startColumn"])
            assert start < (region["endLine"], region["endColumn"])
    suppressed = [result for result in run["results"] if "suppressions" in result]
    assert [result["suppressions"] for result in suppressed] == [
        [{"kind": "inSource", "justification": "the next release"}]
    ]


# Comments that accept findings


def test_an_ignored_finding_stays_with_its_reason_and_the_verdict(
    judge: Callable[[str], Json],
) -> None:
    text = (
        "-- indexlab: ignore missing-column because later\nCREATE INDEX CONCURRENTLY i ON t (zzzz);"
    )
    document = judge(text)
    (item,) = document["statements"]
    (finding,) = [f for f in item["findings"] if f["rule"] == "missing-column"]
    assert finding["suppressed"] == "later"
    assert item["verdict"] in ("ask", "refuse")
    assert item["reason"] == ""
    assert not formats.fails(document, "error")
    assert formats.fails(judge(text.split("\n")[1]), "error")


def test_fail_on(judge: Callable[[str], Json]) -> None:
    document = judge("CREATE INDEX a ON t (a); CREATE INDEX b ON t (a);")
    assert not formats.fails(document, "error")
    assert formats.fails(document, "warning")
    assert not formats.fails(document, "never")


def test_an_ignore_that_ignores_nothing_is_a_warning(judge: Callable[[str], Json]) -> None:
    document = judge("\n-- indexlab: ignore wide-key because it is\nCREATE INDEX i ON t (a);")
    (item,) = document["statements"]
    (unused,) = [f for f in item["findings"] if f["rule"] == "unused-ignore"]
    assert (unused["severity"], unused["at"]["line"]) == ("warning", 2)
    assert item["verdict"] == "build"


def test_one_comment_over_a_drop_of_many_is_used_by_any_of_them(
    judge: Callable[[str], Json],
) -> None:
    text = "-- indexlab: ignore {} because known\nDROP INDEX IF EXISTS x; DROP INDEX y, z;"
    for rule, unused in (("nothing-to-drop", 0), ("wide-key", 1)):
        found = [f for s in judge(text.format(rule))["statements"] for f in s["findings"]]
        assert [f["rule"] for f in found].count("unused-ignore") == unused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-- indexlab: ignore mising-column because x\nDROP INDEX a;", "did you mean 'missing-c"),
        ("\n-- indexlab: ignore missing-column\nDROP INDEX a;", "p.sql:2: .*no rule or no reason"),
        ("-- indexlab: ignore missing-column because\nDROP INDEX a;", "p.sql:1: .*no reason"),
        ("-- indexlab: ignore exists because x\n\nDROP INDEX a;", "p.sql:1: stands above no"),
        ("DROP INDEX a; -- indexlab: ignore exists because x", "p.sql:1: stands above no"),
        ("-- indexlab: ignore exists because x\nBEGIN;\nDROP INDEX a;", "p.sql:1: stands above"),
    ],
)
def test_an_ignore_without_effect_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan.parse(text, "p.sql")


def test_ignores_are_no_reason_and_stay_in_the_revised_plan(session: psycopg.Connection) -> None:
    session.execute(SCHEMA)
    ignore = "-- indexlab: ignore not-concurrent because we know"
    read = plan.parse(f"-- the reason\n{ignore}\nCREATE INDEX i ON t (a);")
    (create,) = read.creates
    assert create.reason == "the reason"
    assert plan.parse(read.to_sql()).creates[0].ignores[0].reason == "we know"
    _, result = audit.read(session, read)
    assert ignore in audit.revised_plan_sql(result)
    assert plan.parse(audit.revised_plan_sql(result)).creates[0].reason == "the reason"
    assert "-- indexlab: ignore" not in audit.migration_sql(result)
    assert "we know" in result._repr_html_()


# The command


def test_the_command_speaks_every_format(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "p.sql").write_text(
        "CREATE INDEX CONCURRENTLY d ON core.bookings (event_date);\n"
        "CREATE INDEX CONCURRENTLY p ON core.bookings (zzz_none);\n"
    )

    base = ("audit", "--target", "demo:2000", "--plan", str(tmp_path / "sub" / "p.sql"))

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "indexlab", *base, "--no-report", *more],
            cwd=tmp_path,
            env=os.environ,
            capture_output=True,
            text=True,
            check=False,
        )

    github = run("--format", "github")
    assert github.returncode == 1, github.stderr
    assert github.stdout.startswith("::error file=sub/p.sql,line=1,col=47,endLine=1,endColumn=57,")
    sarif = json.loads(run("--format", "sarif", "--fail-on", "never").stdout)
    assert sarif["runs"][0]["results"][0]["ruleId"] in rules.names()
    text = run("--fail-on", "never", "--resolve", "zzz_none=status", "--export", "alembic")
    assert text.returncode == 0, text.stderr
    assert "\x1b" not in text.stdout
    assert "sub/p.sql:1:47: error[missing-column]" in text.stdout
    (script,) = (tmp_path / "reports").glob("*/*_planned_indexes.py")
    assert "status" in script.read_text()
    assert run("--export-to", "x.py").returncode == 2
    assert run("--export", "sql", "--export-to", "none/x.sql").returncode == 2
    assert run("--resolve", "wrong").returncode == 2
    assert run("--export", "flyway", "--export-to", "V1__x.sql").returncode == 1
    assert (tmp_path / "V1__x.sql.conf").exists()


def test_sarif_messages_hide_nothing_and_link_nowhere(judge: Callable[[str], Json]) -> None:
    text = 'CREATE INDEX by_x ON public.t ("[x](javascript:y)\u202e\u2028");\n'
    log = formats.sarif(judge(text), Source("p.sql", text), version="1")
    told = "".join(result["message"]["text"] for result in log["runs"][0]["results"])
    assert "[x] (javascript:y)\\u202e\\u2028" in told


def test_json_on_a_terminal_is_the_same_and_shows_what_would_hide() -> None:
    document = {"name": "客 \u202e\u2028\x7f\x1b\U000e0001é"}
    text = results.as_json(document)
    assert json.loads(text) == document
    assert "客" in text
    assert "é" in text
    assert not {"\u202e", "\u2028", "\x7f", "\x1b", "\U000e0001"} & set(text)
