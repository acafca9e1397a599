"""Redaction: no text of a query and no value of a row leaves the machine, in any file or line."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from indexlab import lab as labs
from indexlab import redaction
from indexlab.apply import Outcome
from indexlab.errors import InputError, TargetError
from indexlab.lab import Lab
from indexlab.redaction import OFF, SECRETS, Veil
from indexlab.runs import Run, private
from indexlab.workload import parse

if TYPE_CHECKING:
    from indexlab.target import Target

IN_TEXT, IN_SAMPLER, IN_COMMENT, IN_ROWS, COMMON, TWICE = (
    "zaphod",
    "slartibartfast",
    "deepthought",
    "marvin",
    "trillian",
    "fordprefect",
)
NUMBER, DRAWN_NUMBER = "424242424", "737373737"
SENTINELS = (IN_TEXT, IN_SAMPLER, IN_COMMENT, IN_ROWS, COMMON, TWICE, NUMBER, DRAWN_NUMBER)
SCHEMA = f"""
CREATE TABLE people (id int PRIMARY KEY, name text, kind text, badge bigint, note text);
INSERT INTO people
SELECT n,
       '{IN_ROWS}_' || n,
       CASE WHEN n % 2 = 0 THEN '{COMMON}' ELSE '{COMMON}_' || n % 3 END,
       {DRAWN_NUMBER},
       CASE WHEN n IN (7, 8) THEN '{TWICE}' ELSE 'note ' || n END
  FROM generate_series(1, 20000) AS n;
ANALYZE people;
"""
PLAN = """
CREATE INDEX by_name ON people (name);
CREATE INDEX by_kind ON people (kind);
CREATE INDEX by_badge ON people (badge);
"""
UNIQUE = "CREATE UNIQUE INDEX by_note ON people (note);\n"
WORKLOAD = f"""
-- name: of_name
-- weight: 5
-- param name: SELECT name FROM people WHERE name <> '{IN_SAMPLER}' ORDER BY id LIMIT 20
SELECT id, kind, '{IN_TEXT}' AS word FROM people /* {IN_COMMENT} */ WHERE name = :name;

-- name: of_kind
SELECT count(*) FROM people WHERE kind = '{COMMON}' AND note <> $${IN_TEXT}$$ AND id < {NUMBER};

-- name: of_badge
-- param badge: SELECT badge FROM people LIMIT 3
SELECT count(*) FROM people WHERE badge = :badge AND note LIKE '%{IN_TEXT}%';
"""

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def people(database: Target, tmp_path: Path) -> Target:
    """A table whose rows are secret, a plan for it, and a workload that is."""
    with psycopg.connect(database.conninfo, autocommit=True) as conn:
        conn.execute(SCHEMA)
    (tmp_path / "plan.sql").write_text(PLAN)
    (tmp_path / "unique.sql").write_text(UNIQUE)
    (tmp_path / "workload.sql").write_text(WORKLOAD)
    return database


@pytest.fixture
def indexlab(people: Target, tmp_path: Path) -> Command:
    """Run a stage on the people, in a directory of its own."""

    def run(stage: str, *options: str, plan: str = "plan.sql", **variables: str):
        given = ("--target", people.spec, "--plan", plan, "--workload", "workload.sql")
        return subprocess.run(
            [sys.executable, "-m", "indexlab", stage, *given, *options],
            cwd=tmp_path,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run


def _told(path: Path) -> dict[str, set[str]]:
    """Find which secrets the files of a run hold."""
    found: dict[str, set[str]] = {}
    for file in path.rglob("*"):
        if file.is_file():
            text = file.read_text(encoding="utf-8", errors="replace").lower()
            if secrets := {word for word in SENTINELS if word in text}:
                found[file.relative_to(path).as_posix()] = secrets
    return found


def _in(text: str) -> set[str]:
    return {word for word in SENTINELS if word in text.lower()}


# Whole runs


def test_no_file_of_a_redacted_run_tells_a_secret(indexlab: Command, tmp_path: Path) -> None:
    done = indexlab(
        *("run", "--redact", "--execute", "--disposable", "--clients", "2", "--seconds", "1"),
        *("--budget", "0.5", "--out", "reports/run"),
    )
    assert done.returncode == 0, done.stderr
    assert _told(tmp_path / "reports") == {}
    assert _in(done.stdout + done.stderr) == set()
    run = Run(tmp_path / "reports" / "run")
    assert all(run.read_json(stage)["redacted"] for stage in ("audit", "apply", "benchmark"))
    page = (run.path / "benchmark.html").read_text()
    assert "of_badge" in page
    assert "by_name" in (run.path / "index.html").read_text()


def test_a_run_that_is_not_redacted_tells_them(indexlab: Command, tmp_path: Path) -> None:
    done = indexlab("benchmark", "--budget", "0.5", "--no-report", "--out", "open")
    assert done.returncode == 0, done.stderr
    assert set().union(*_told(tmp_path / "open").values()) >= {IN_TEXT, IN_COMMENT, IN_ROWS, NUMBER}


def test_the_audit_hides_common_values_and_the_test_queries(
    indexlab: Command, tmp_path: Path
) -> None:
    for what_if in ("sandbox", "off"):
        out = f"audit-{what_if}"
        shown = indexlab(
            "audit", "--redact", "--what-if", what_if, "--format", "json", "--out", out, "-v"
        )
        assert shown.returncode == 0, shown.stderr
        assert _told(tmp_path / out) == {}
        assert _in(shown.stdout + shown.stderr) == set()
        assert json.loads(shown.stdout)["redacted"] is True
    open_ = indexlab("audit", "--what-if", "off", "--no-report", "--out", "open")
    assert open_.returncode == 0
    assert COMMON in set().union(*_told(tmp_path / "open").values())


def test_duplicates_are_counted_and_not_shown(indexlab: Command, tmp_path: Path) -> None:
    done = indexlab("audit", "--redact", "--no-report", "--out", "audit", plan="unique.sql")
    assert done.returncode == 1
    assert "has 1 value more than once" in done.stdout
    assert _in(done.stdout + done.stderr) == set()
    assert _told(tmp_path / "audit") == {}
    applied = indexlab("apply", "--redact", "--execute", "--no-report", plan="unique.sql")
    assert applied.returncode == 2
    assert "1 statement of 'unique.sql' cannot be applied" in applied.stderr
    assert not any((tmp_path / "reports").glob("apply-*"))


def test_showing_values_and_hiding_them_is_refused(indexlab: Command, tmp_path: Path) -> None:
    done = indexlab("apply", "--redact", "--show-values", "--out", "apply")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--show-values shows what --redact hides" in done.stderr
    assert not (tmp_path / "apply").exists()


@pytest.mark.parametrize("report", [True, False], ids=["notebook", "in process"])
def test_an_error_does_not_quote_a_row(indexlab: Command, tmp_path: Path, *, report: bool) -> None:
    (tmp_path / "workload.sql").write_text(
        f"-- name: broken\nSELECT name::int FROM people WHERE note <> '{IN_TEXT}' ORDER BY id;\n"
    )
    options = () if report else ("--no-report",)
    done = indexlab("benchmark", "--redact", "--out", "failed", *options)
    assert done.returncode in (2, 3)
    assert "broken" in done.stderr
    assert _in(done.stdout + done.stderr) == set()
    assert _told(tmp_path / "failed") == {}
    shown = indexlab("benchmark", "--out", "shown", *options)
    assert IN_ROWS in shown.stderr


def test_an_error_in_the_workload_does_not_quote_it(indexlab: Command, tmp_path: Path) -> None:
    (tmp_path / "workload.sql").write_text(f"-- name: q\nSELECT 'a' '{IN_TEXT}' {NUMBER}x y z;\n")
    done = indexlab("audit", "--redact", "--out", "failed")
    assert done.returncode == 2
    assert "workload.sql" in done.stderr
    assert _in(done.stderr) == set()


# Pairing with a baseline


def test_a_redacted_run_is_compared_with_a_redacted_baseline(
    indexlab: Command, tmp_path: Path
) -> None:
    for out, options in (("before", ()), ("after", ("--baseline", "before"))):
        done = indexlab(
            *("benchmark", "--redact", "--one-side", "--no-report", "--budget", "0.5"),
            *("--out", out, *options),
        )
        assert done.returncode == 0, done.stderr
    after = Run(tmp_path / "after").read_json("benchmark")
    assert {change["query"] for change in after["changes"]} == {"of_name", "of_kind", "of_badge"}
    assert {change["answers"] for change in after["changes"]} == {"same"}
    assert _told(tmp_path) == {"workload.sql": _told(tmp_path)["workload.sql"]}
    told = [
        file
        for file in Path(os.environ["INDEXLAB_HOME"], "private").iterdir()
        if stat.S_IMODE(file.stat().st_mode) != 0o600
    ]
    assert told == []


def test_an_open_run_is_compared_with_a_redacted_baseline(
    indexlab: Command, tmp_path: Path
) -> None:
    shared = ("benchmark", "--one-side", "--no-report", "--budget", "0.5")
    assert indexlab(*shared, "--redact", "--out", "before").returncode == 0
    done = indexlab(*shared, "--out", "after", "--baseline", "before")
    assert done.returncode == 0, done.stderr
    after = Run(tmp_path / "after").read_json("benchmark")
    assert {change["answers"] for change in after["changes"]} == {"not compared"}


def test_a_redacted_baseline_of_another_machine_is_refused(
    indexlab: Command, tmp_path: Path
) -> None:
    shared = ("benchmark", "--redact", "--one-side", "--no-report", "--budget", "0.5")
    assert indexlab(*shared, "--out", "before").returncode == 0
    name = json.loads((tmp_path / "before" / "values.json").read_text())["kept"]
    (Path(os.environ["INDEXLAB_HOME"]) / "private" / f"{name}.json").unlink()
    done = indexlab(*shared, "--out", "after", "--baseline", "before")
    assert done.returncode == 2
    assert "the values of this redacted run are not on this machine" in done.stderr


def test_values_go_with_their_run(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", "benchmark")
    private.keep(run, {"q": (("a", None),)})
    assert private.kept(run) == {"q": [["a", None]]}
    private.forget(run)
    with pytest.raises(InputError, match="not on this machine"):
        private.kept(run)


def test_a_note_that_names_a_path_reads_nothing(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", "benchmark")
    run.write_json(private.NOTE, {"kept": "../../secret"})
    with pytest.raises(InputError, match="not on this machine"):
        private.kept(run)


def test_the_key_is_one_and_private() -> None:
    assert private.key() == private.key()
    path = Path(os.environ["INDEXLAB_HOME"], "private", "key")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(private.key()) == private.KEY_BYTES


# Words


@pytest.fixture
def veil() -> Veil:
    made = Veil(key=b"k")
    made.learn_names(("people", "name", "by_name"))
    return made


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("people has kind = 'secret' often", "people has kind = ? often"),
        ("the planner's guess of the table's rows", "the planner's guess of the table's rows"),
        ("it's 'it''s' and 'x", "it's ? and ?"),
        ("no column 'name', but 'bob'", "no column 'name', but ?"),
        ('relation "people" has no "bob""x"', 'relation "people" has no ?'),
        ("E'a' || $tag$b$tag$ || $$c$$ || N'd'", "? || ? || ? || ?"),
        ("Key (name)=(bob, 7) already exists.", "Key (name)=(?) already exists."),
        ("Failing row contains (1, bob).", "Failing row contains (?)."),
        ("it fails\nLINE 1: SELECT bob\n               ^", "it fails\n"),
        (
            "pid 7 (psql, active for 2 s; query of 20:32:39: SELECT count(*) FROM x WHERE a = ?)",
            "pid 7 (psql, active for 2 s; query of 20:32:39)",
        ),
        ("12 rows, 3.5 ms, 10 %", "12 rows, 3.5 ms, 10 %"),
    ],
)
def test_literals_are_hidden_and_names_are_not(veil: Veil, text: str, shown: str) -> None:
    assert veil.text(text) == shown
    assert OFF.text(text) == text


def test_what_was_drawn_is_hidden_wherever_it_stands(veil: Veil) -> None:
    veil.learn_values(["Bob Smith", "ab", "12", "123456", "people", "+-+-", "(Ann) Lee"])
    assert veil.text("customer Bob Smith has 12 of 123456, ab") == "customer ? has 12 of ?, ab"
    assert veil.text("(Ann) Lee: +-+-, BOB SMITH") == "?: ?, ?"
    assert veil.text("the table people, bob smithson") == "the table people, bob smithson"


def test_many_values_are_told_from_a_text_by_their_first_words(veil: Veil) -> None:
    veil.learn_values(f"customer number {number:09}" for number in range(20_000))
    veil.learn_values(f"{number:09}@example.org" for number in range(20_000))
    assert veil.text("000012345@example.org is customer number 000012345") == "? is ?"


def test_literals_of_a_workload_are_learned(veil: Veil) -> None:
    veil.learn_workload(parse("-- name: q\nSELECT 1 FROM t WHERE a LIKE '%needle%' AND b = 77777"))
    assert veil.text("found needle and 77777 in q") == "found ? and ? in q"


def test_a_hidden_text_stays_what_it_is(veil: Veil) -> None:
    once = redaction._query(veil, "SELECT 1")
    assert redaction._query(veil, once) == once == veil.text(once)
    assert Veil(key=b"other").mark("SELECT 1") not in once


@pytest.mark.parametrize(
    "text",
    [
        "SELECT name FROM people",
        "\n update people set name = name",
        "WITH x (a) AS MATERIALIZED (SELECT 1) TABLE x",
        "insert into people values (1)",
    ],
)
def test_a_query_is_hidden_under_any_name(veil: Veil, text: str) -> None:
    assert redaction.is_hidden(veil.text(text))


@pytest.mark.parametrize(
    "text",
    [
        "with the plan, it is slower",
        "updates of name would stop being HOT",
        "CREATE INDEX by_name ON people (name)",
        "selective enough",
        "delete the comment",
    ],
)
def test_prose_and_definitions_are_not_taken_for_queries(veil: Veil, text: str) -> None:
    assert veil.text(text) == text


def test_definitions_stay_as_they_are_run(veil: Veil) -> None:
    outcome = Outcome(
        statement="CREATE INDEX i ON t (a) WHERE b = 'x'",
        index="i",
        outcome="failed",
        waited_for=("pid 7 (query of 20:32:39: DELETE FROM x)",),
        error="Key (a)=(1) is duplicated",
    )
    shown = veil.result(outcome)
    assert shown.statement == outcome.statement
    assert shown.waited_for == ("pid 7 (query of 20:32:39)",)
    assert shown.error == "Key (a)=(?) is duplicated"
    assert OFF.result(outcome) is outcome


def test_every_secret_is_a_field(veil: Veil) -> None:
    for kind, treated in SECRETS.items():
        assert set(treated) <= {field.name for field in fields(kind)}, kind


def test_the_words_of_a_server_are_hidden_in_what_they_caused(
    veil: Veil, session: psycopg.Connection
) -> None:
    with pytest.raises(TargetError) as raised, veil.errors():
        try:
            session.execute("DO $$ BEGIN RAISE EXCEPTION 'customer bob is blocked'; END $$")
        except psycopg.Error as error:
            raise TargetError(f"query q fails: {error.diag.message_primary}") from error
    assert "bob" not in str(raised.value)
    assert str(raised.value).startswith("query q fails: the server refused it")
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


def test_what_is_missing_is_named(veil: Veil, session: psycopg.Connection) -> None:
    with pytest.raises(psycopg.Error, match="does not exist"), veil.errors():
        session.execute("SELECT 1 FROM people")


# The lab


def test_every_verb_of_a_lab_hands_out_through_the_veil() -> None:
    own = {name for name in dir(Lab) if not name.startswith("_") and callable(getattr(Lab, name))}
    wrapped = {name for name in own if hasattr(getattr(Lab, name), "__wrapped__")}
    assert own - wrapped == {"close"}
    assert {"audit", "benchmark", "whatif"} <= wrapped


def test_a_lab_in_a_notebook_shows_no_secret(people: Target, tmp_path: Path) -> None:
    given = (people.conninfo, str(tmp_path / "plan.sql"), str(tmp_path / "workload.sql"))
    with labs.open_lab("audit", *given, redact=True) as lab:
        trial = lab.whatif("CREATE INDEX ON people (name)", "of_name")
        shown = [lab.audit(), lab.impact(), trial, lab.benchmark(budget=0.5)]
        told = "".join(item._repr_html_() + repr(item) for item in shown)
    assert re.search("by_name", told)
    assert _in(told) == set()


def test_an_exploration_works_behind_the_veil(people: Target, tmp_path: Path) -> None:
    given = (people.conninfo, str(tmp_path / "plan.sql"), str(tmp_path / "workload.sql"))
    own = f"SELECT id FROM people WHERE name = '{IN_ROWS}_7' AND note <> '{IN_TEXT}'"
    with labs.open_lab("explore", *given, redact=True) as lab:
        shown = [
            *(lab.slowest(), lab.explain(), lab.explain("of_name"), lab.explain(own)),
            *(lab.time("of_name", seconds=0.5), lab.try_index("", "of_name")),
            lab.try_index("CREATE INDEX ON people (note)", own),
        ]
        told = "".join(item._repr_html_() + repr(item) for item in shown)
    assert "Seq Scan on" in told
    assert _in(told) == set()


def test_what_a_lab_was_given_is_shown_through_the_veil(people: Target, tmp_path: Path) -> None:
    (tmp_path / "plan.sql").write_text(f"-- for '{IN_COMMENT}'\n{PLAN.strip()}")
    given = (people.conninfo, str(tmp_path / "plan.sql"), str(tmp_path / "workload.sql"))
    for redact in (True, False):
        with labs.open_lab("audit", *given, redact=redact, what_if="off") as lab:
            judged = lab.audit()
            shown = (lab, lab.workload, lab.plan, lab.target, lab.server, judged.revised)
            told = "".join(
                item._repr_html_() + repr(item) + (item.frame().to_string() if item != lab else "")
                for item in shown
            )
            told += (
                lab.workload.queries[0].sql + lab.plan.text + judged.statements[0].statement.reason
            )
        assert "of_name" in told
        assert "CREATE INDEX by_name ON people (name)" in told
        secrets = {IN_TEXT, IN_SAMPLER, IN_COMMENT, COMMON, NUMBER}
        assert _in(told) == (set() if redact else secrets - {IN_SAMPLER})
