"""The command as a user meets it: a process of its own, its output, its exit code, its files."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from indexlab import embedded
from indexlab.cli import terminal
from indexlab.progress import About
from indexlab.sandbox import databases

if TYPE_CHECKING:
    from conftest import Cluster

    from indexlab.target import Target

PLAN = "CREATE INDEX idx_accounts_bid ON pgbench_accounts (bid, abalance);\n"
WORKLOAD = """\
-- name: richest_of_branch
-- param bid: SELECT bid FROM pgbench_branches
SELECT aid, abalance FROM pgbench_accounts WHERE bid = :bid ORDER BY abalance DESC LIMIT 5;

-- name: account
-- weight: 10
-- param aid: SELECT aid FROM pgbench_accounts ORDER BY aid LIMIT 100
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;

-- name: deposit
-- param aid: SELECT aid FROM pgbench_accounts ORDER BY aid LIMIT 100
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;
"""

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def indexlab(tmp_path: Path) -> Command:
    """Run the command in an empty directory."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "indexlab", *arguments],
            cwd=tmp_path,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "plan.sql").write_text(PLAN)
    (tmp_path / "workload.sql").write_text(WORKLOAD)
    return tmp_path


def _pgbench(conninfo: str) -> None:
    program = embedded.binary("pgbench")
    subprocess.run([program, "-i", "-q", "-s", "1", conninfo], check=True, capture_output=True)


@pytest.fixture(scope="module")
def pgbench15(pg15_server: Cluster) -> Iterator[Cluster]:
    """A PostgreSQL 15 with pgbench's own tables."""
    _pgbench(pg15_server.conninfo())
    yield pg15_server


def _indexes(conninfo: str) -> list[str]:
    with psycopg.connect(conninfo) as conn:
        rows = conn.execute(
            "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid ="
            " 'pgbench_accounts'::regclass AND indisvalid ORDER BY 1"
        ).fetchall()
    return [row[0] for row in rows]


def test_help_names_every_command(indexlab: Command) -> None:
    said = indexlab("--help").stdout
    for command in ("demo", "audit", "benchmark", "apply", "run", "rollback", "batch", "targets"):
        assert f"\n  {command} " in said


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['indexlab', '--help']\n"
        "import indexlab.cli\n"
        "heavy = {'pandas', 'numpy', 'scipy', 'matplotlib', 'papermill', 'psycopg', 'postgast'}\n"
        "print(heavy & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("DROP TABLE core.bookings;\n", "plan.sql:1: a plan may not hold 'DROP TABLE"),
        ("\n\nINSERT INTO x VALUES (1);\n", "plan.sql:3: a plan may not hold 'INSERT INTO"),
        ("CREATE INDEX a ON b (c);\nCREATE INDX;\n", 'plan.sql:2: syntax error at or near "INDX"'),
        ("", "plan.sql: holds no CREATE INDEX"),
    ],
)
def test_a_plan_that_is_none_is_refused_with_its_line(
    indexlab: Command, tmp_path: Path, plan: str, message: str
) -> None:
    (tmp_path / "plan.sql").write_text(plan)
    done = indexlab("audit", "--target", "demo:2000", "--plan", "plan.sql", "--no-report")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"indexlab: error: {message}")
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        ("-- name: q\nSELECT :x;\n", "uses :x, which has no sampler"),
        (
            "-- name: q\n-- param x: SELECT 1 WHERE false\nSELECT :x::int;\n",
            "workload.sql:2: the sampler of 'x' in query 'q' returns no rows",
        ),
        ("-- name: q\nSELECT missing FROM core.bookings;\n", "missing"),
    ],
)
def test_a_workload_that_cannot_run_is_refused(
    indexlab: Command, tmp_path: Path, workload: str, message: str
) -> None:
    (tmp_path / "workload.sql").write_text(workload)
    done = indexlab(
        "benchmark", "--target", "demo:2000", "--workload", "workload.sql", "--no-report"
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("audit", "--target", "demo:none"),
        ("audit", "--target", "demo:5"),
        ("audit", "--target", "not a target"),
        ("audit", "--target", "postgresql://h/db"),
        ("audit", "--plan", "missing.sql"),
        ("benchmark", "--max-slowdown", "0.5"),
        ("rollback", "missing"),
        ("nonsense",),
    ],
)
def test_wrong_usage_ends_with_two_and_no_traceback(
    indexlab: Command, arguments: tuple[str, ...]
) -> None:
    done = indexlab(*arguments)
    assert done.returncode == 2
    assert "rror" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_is_not_there_ends_with_three(indexlab: Command, files: Path) -> None:
    done = indexlab(
        "audit", "--target", "postgresql://u:hidden-word@127.0.0.1:1/db", "--plan", "plan.sql"
    )
    assert done.returncode == 3
    assert "cannot connect to" in done.stderr
    assert list((files / "reports").iterdir())  # the page of the attempt
    done = indexlab("audit", "--target", "service=none", "--plan", "plan.sql", "--no-report")
    assert done.returncode == 3
    assert len(list((files / "reports").iterdir())) == 1  # nothing was kept, so nothing is left
    assert "hidden-word" not in done.stdout + done.stderr


@pytest.mark.parametrize("report", [(), ("--no-report",)])
def test_a_refused_password_and_a_missing_database_end_with_three(
    indexlab: Command, files: Path, pgbench15: Cluster, report: tuple[str, ...]
) -> None:
    for uri, reason in (
        (pgbench15.uri("wrong-password"), "password authentication failed"),
        (pgbench15.uri(pgbench15.password, "nowhere"), '"nowhere" does not exist'),
    ):
        done = indexlab("audit", "--target", uri, "--plan", "plan.sql", "--out", "run", *report)
        assert (done.returncode, reason in done.stderr) == (3, True), done.stderr
        assert "Traceback" not in done.stderr


def test_the_audit_of_the_bookings_plan(indexlab: Command, tmp_path: Path) -> None:
    done = indexlab(
        "audit", "--target", "demo:2000", "--no-report", "--format", "json", "--out", "run"
    )
    document = json.loads(done.stdout)
    assert done.returncode == 1  # four statements name columns that do not exist
    assert document == json.loads((tmp_path / "run" / "audit.json").read_text())
    verdicts = {item["index"].rpartition(".")[2]: item for item in document["statements"]}
    assert len(verdicts) == 10
    skipped = {name for name, item in verdicts.items() if item["verdict"] == "skip"}
    assert skipped == {"idx_bookings_customer_id", "idx_payments_booking_id"}
    assert all(item["revised"] is None for name, item in verdicts.items() if name in skipped)
    rules = {
        name: {finding["rule"] for finding in item["findings"]} for name, item in verdicts.items()
    }
    wrong = {name for name, found in rules.items() if "missing-column" in found}
    assert wrong == {
        "idx_bookings_date",
        "idx_bookings_customer_date",
        "idx_customers_email",
        "idx_customers_phone",
    }
    assert all("wrong-schema" in found for found in rules.values())
    evidence = json.dumps(verdicts["idx_bookings_customer_id"]["findings"])
    assert "ix_core_bookings_customer_id" in evidence
    assert "idx_bookings_customer_date" in evidence
    assert "ix_core_payments_booking_id" in json.dumps(
        verdicts["idx_payments_booking_id"]["findings"]
    )
    assert (
        "core.bookings USING btree (customer_id, date)"
        in (verdicts["idx_bookings_customer_date"]["revised"])
    )


@pytest.fixture(scope="module")
def story(
    tmp_path_factory: pytest.TempPathFactory, pgbench15: Cluster
) -> Iterator[tuple[Path, subprocess.CompletedProcess[str]]]:
    """The whole run, with reports, over TCP with a password, by pg_service.conf."""
    place = tmp_path_factory.mktemp("story")
    (place / "plan.sql").write_text(PLAN)
    (place / "workload.sql").write_text(WORKLOAD)
    (place / "service.conf").write_text(
        f"[shop]\nhost=127.0.0.1\nport={pgbench15.port}\nuser=postgres\ndbname=postgres\n"
    )
    arguments = ("--plan", "plan.sql", "--workload", "workload.sql", "--budget", "1")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "indexlab",
            "run",
            "--target",
            "service=shop",
            *arguments,
            "--execute",
            "--disposable",
            "--out",
            "reports/story",
        ],
        cwd=place,
        env=os.environ
        | {"PGSERVICEFILE": str(place / "service.conf"), "PGPASSWORD": pgbench15.password},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    yield place / "reports" / "story", done
    with psycopg.connect(pgbench15.conninfo(), autocommit=True) as conn:
        conn.execute("DROP INDEX IF EXISTS idx_accounts_bid")


def test_the_story_on_another_server_and_schema(
    story: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    run, done = story
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "report: reports/story/index.html"
    summary = json.loads((run / "run.json").read_text())
    assert [(stage["stage"], stage["status"]) for stage in summary["stages"]] == [
        ("audit", "ok"),
        ("apply", "ok"),
        ("benchmark, sides in turns", "ok"),
    ]
    sides = [json.loads((run / d / "benchmark.json").read_text()) for d in ("before", ".")]
    assert [side["conditions"]["hidden"] for side in sides] == [["idx_accounts_bid"], []]
    assert sides[1]["mode"] == "interleaved"
    assert summary["headline"]["queries"] == ["richest_of_branch"]
    assert summary["headline"]["ratio"] > 1
    applied = json.loads((run / "apply.json").read_text())
    assert [step["outcome"] for step in applied["steps"]] == ["built"]
    assert "richest_of_branch" in (run / "index.html").read_text()


def test_a_rehearsal_tells_what_is_and_what_is_expected(
    indexlab: Command, files: Path, pgbench15: Cluster
) -> None:
    (files / "wanted.sql").write_text("CREATE INDEX by_balance ON pgbench_accounts (abalance);\n")
    (files / "asked.sql").write_text(
        "-- name: in_debt\nSELECT aid FROM pgbench_accounts WHERE abalance < -100000;\n"
        "-- name: the_first\nSELECT abalance FROM pgbench_accounts WHERE aid = 1;\n"
    )
    inputs = ("--target", pgbench15.uri(), "--plan", "wanted.sql", "--workload", "asked.sql")
    done = indexlab(
        *("run", *inputs, "--no-report", "--budget", "0.5"), PGPASSWORD=pgbench15.password
    )
    assert done.returncode == 0, done.stderr
    told = {line.split(" ")[0]: line for line in done.stdout.splitlines() if line}
    assert re.search(r" +[\d.]+ (ms|us|s) now +cost [\d,.]+ -> [\d,.]+ by ", told["in_debt"])
    assert told["in_debt"].endswith("by public.by_balance")
    assert told["the_first"].endswith("uses none of the planned indexes")
    assert told["dry_run"].endswith("public.by_balance")
    assert "by weight; what the planner thinks, not measured" in told["expected:"]


def test_answers_reach_every_stage(indexlab: Command, files: Path, pgbench15: Cluster) -> None:
    (files / "asking.sql").write_text("CREATE INDEX mended ON pgbench_accounts (branch_no, aid);\n")
    inputs = ("--target", pgbench15.uri(), "--plan", "asking.sql", "--workload", "workload.sql")
    secret = {"PGPASSWORD": pgbench15.password}
    asked = indexlab("apply", *inputs, "--no-report", **secret)
    assert (asked.returncode, "cannot be applied as they are (mended)" in asked.stderr) == (2, True)
    answer = ("--resolve", "branch_no=bid", "--format", "json")
    # No query of the workload needs the index: that is another question.
    done = indexlab("apply", *inputs, *answer, "--what-if", "off", **secret)  # by the notebook
    assert done.returncode == 0, done.stderr
    [step] = json.loads(done.stdout)["steps"]
    assert (step["outcome"], "(bid, aid)" in step["statement"]) == ("dry_run", True)
    told = indexlab(
        *("run", *inputs, *answer, "--execute", "--no-report", "--budget", "0.5"),
        *("--what-if", "off", "--out", "reports/answered"),
        **secret,
    )
    with psycopg.connect(pgbench15.conninfo(), autocommit=True) as conn:
        conn.execute("DROP INDEX mended")
    assert told.returncode == 0, told.stderr
    assert [stage["status"] for stage in json.loads(told.stdout)["stages"]] == ["ok"] * 4


def test_what_a_run_keeps_is_private(
    story: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    run, _ = story
    kept = [path for path in run.rglob("*") if path.is_file()]
    assert len(kept) > 12
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}


def test_the_password_is_nowhere(
    story: tuple[Path, subprocess.CompletedProcess[str]], pgbench15: Cluster
) -> None:
    run, done = story
    assert _holding(pgbench15, done, run.parent) == []


def test_a_password_in_the_uri_is_nowhere_either(
    indexlab: Command, files: Path, pgbench15: Cluster
) -> None:
    done = indexlab(
        "audit", "--target", pgbench15.uri(pgbench15.password), "--plan", "plan.sql",
        "--out", "reports/uri",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kept = [path for path in (files / "reports").rglob("*") if path.is_file()]
    names = {path.relative_to(files / "reports").as_posix() for path in kept}
    assert {"uri/audit.html", "uri/audit.ipynb", "uri/summary.md", "index.html"} <= names
    assert _holding(pgbench15, done, files / "reports") == []


def _holding(cluster: Cluster, done: subprocess.CompletedProcess[str], place: Path) -> list[str]:
    """Where the part of the password stands that no way of quoting changes."""
    core = cluster.password[:16]
    texts = {"stdout": done.stdout, "stderr": done.stderr}
    texts |= {
        str(path): path.read_text(errors="replace") for path in place.rglob("*") if path.is_file()
    }
    return [name for name, text in texts.items() if core in text]


def test_rollback_takes_back_what_the_run_built(
    indexlab: Command, files: Path, pgbench15: Cluster
) -> None:
    conninfo = pgbench15.conninfo()
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute("DROP INDEX IF EXISTS idx_accounts_bid")
    before = _indexes(conninfo)
    common = ("--target", conninfo, "--plan", "plan.sql", "--no-report")
    dry = indexlab("apply", *common, "--out", "reports/dry")
    assert (dry.returncode, _indexes(conninfo)) == (0, before)
    done = indexlab("apply", *common, "--execute", "--out", "reports/real")
    assert (done.returncode, "idx_accounts_bid" in _indexes(conninfo)) == (0, True), done.stderr
    again = indexlab("apply", *common, "--execute", "--out", "reports/again")
    assert again.stdout.startswith(("exists", "report")), again.stdout
    dry = indexlab("rollback", "real")
    assert "idx_accounts_bid" in _indexes(conninfo)
    undone = indexlab("rollback", "real", "--execute")
    assert (undone.returncode, _indexes(conninfo)) == (0, before), undone.stderr


def test_a_run_that_did_not_complete_prints_how_far_it_came(
    indexlab: Command, files: Path, pgbench15: Cluster
) -> None:
    conninfo = pgbench15.conninfo()
    with psycopg.connect(conninfo) as blocker:
        blocker.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        blocker.execute("SELECT FROM pgbench_accounts LIMIT 1")
        done = indexlab(
            *("run", "--target", conninfo, "--plan", "plan.sql", "--workload", "workload.sql"),
            *("--execute", "--no-report", "--budget", "0.5", "--max-wait", "1", "--out", "far"),
            *("--format", "json"),
        )
    with psycopg.connect(
        conninfo, autocommit=True
    ) as conn:  # the blocker may have held its remains
        conn.execute("DROP INDEX IF EXISTS idx_accounts_bid")
    assert done.returncode == 4, done.stderr
    document = json.loads(done.stdout)
    assert document == json.loads((files / "far" / "run.json").read_text())
    assert document["stages"][-1]["status"] == "failed"
    assert "apply did not complete" in " ".join(document["notices"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_apply_ends_with_four_and_leaves_no_carcass(
    files: Path, pgbench15: Cluster, number: signal.Signals
) -> None:
    conninfo = pgbench15.conninfo()
    before = _indexes(conninfo)
    with psycopg.connect(conninfo) as blocker:
        blocker.execute("LOCK TABLE pgbench_accounts IN ROW EXCLUSIVE MODE")
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "indexlab",
                "apply",
                "--target",
                conninfo,
                "--plan",
                "plan.sql",
                "--execute",
                "--out",
                "reports/stopped",
                "--format",
                "json",
            ],
            cwd=files,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        _until(conninfo, "CREATE INDEX CONCURRENTLY%")
        process.send_signal(number)
    printed, said = process.communicate(timeout=120)
    assert process.returncode == 4, said
    assert json.loads(printed)["steps"][0]["outcome"] == "failed"
    journal = (files / "reports" / "stopped" / "apply.journal").read_text().splitlines()
    assert json.loads(journal[-1])["interrupted"] is True
    document = json.loads((files / "reports" / "stopped" / "apply.json").read_text())
    assert document["interrupted"]
    assert [step["outcome"] for step in document["steps"]] == ["failed"]
    assert (files / "reports" / "stopped" / "apply.html").exists()
    with psycopg.connect(conninfo) as conn:
        found = conn.execute("SELECT to_regclass('idx_accounts_bid')").fetchone()
    assert (found, _indexes(conninfo)) == ((None,), before)


def _until(conninfo: str, query: str) -> None:
    deadline = time.monotonic() + 60
    with psycopg.connect(conninfo, autocommit=True) as conn:
        while time.monotonic() < deadline:
            row = conn.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE %s"
                " AND wait_event_type = 'Lock'",
                [query],
            ).fetchone()
            if row is not None and row[0]:
                return
    pytest.fail(f"no session ever waited in {query}")


@pytest.mark.parametrize("report", [(), ("--no-report",)])
def test_an_interrupted_benchmark_ends_with_130(
    tmp_path: Path, pgbench15: Cluster, report: tuple[str, ...]
) -> None:
    (tmp_path / "plan.sql").write_text(PLAN)
    (tmp_path / "workload.sql").write_text("-- name: slow\nSELECT pg_sleep(30);\n")
    conninfo = pgbench15.conninfo()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "indexlab",
            "benchmark",
            "--target",
            conninfo,
            "--plan",
            "plan.sql",
            "--workload",
            "workload.sql",
            "--out",
            "run",
            *report,
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    with psycopg.connect(conninfo, autocommit=True) as conn:
        running = (
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)%'"
            " AND state = 'active' AND pid <> pg_backend_pid()"
        )
        while conn.execute(running).fetchone() != (1,) and time.monotonic() < deadline:
            pass
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert (process.returncode, conn.execute(running).fetchone()) == (130, (0,)), said
    assert "Traceback" not in said
    assert not (tmp_path / "run" / "benchmark.json").exists()


def test_a_regression_beyond_the_limit_fails_the_run(
    indexlab: Command, files: Path, pgbench15: Cluster
) -> None:
    conninfo = pgbench15.conninfo()
    common = ("--target", conninfo, "--plan", "plan.sql", "--no-report", "--budget", "1")
    workload = "-- name: slept\nSELECT pg_sleep(s) FROM slowness;\n"
    (files / "sleep.sql").write_text(workload)
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute("CREATE TABLE slowness AS SELECT 0.01 AS s")
        first = indexlab("benchmark", *common, "--workload", "sleep.sql", "--out", "first")
        assert first.returncode == 0, first.stderr
        conn.execute("UPDATE slowness SET s = 0.1")
        compare = ("--workload", "sleep.sql", "--baseline", "first", "--max-slowdown", "1.2")
        second = indexlab("benchmark", *common, *compare, "--out", "second")
        conn.execute("DROP TABLE slowness")
    assert second.returncode == 1, second.stderr
    assert "slept is slower than --max-slowdown 1.2 allows" in second.stderr


def test_an_out_that_is_taken_is_refused(indexlab: Command, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "audit.json").write_text("{}")
    done = indexlab("audit", "--target", "demo:2000", "--out", "run")
    assert done.returncode == 2
    assert "never overwrites" in done.stderr
    assert (tmp_path / "run" / "audit.json").read_text() == "{}"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_for_reports_is_told_before_anything_runs(
    indexlab: Command, small_disk: Path
) -> None:
    done = indexlab("audit", "--target", "demo:2000", "--out", str(small_disk / "run"))
    assert done.returncode == 2
    assert "kB free" in done.stderr
    assert list(small_disk.iterdir()) in ([], [small_disk / "run"])


def _sandboxes() -> set[str]:
    with databases.cluster() as server:
        return {name for name in server.databases() if name.startswith(("sandbox_", "kept_"))}


def test_the_audit_plans_the_workload_and_leaves_no_sandbox(indexlab: Command, files: Path) -> None:
    before = _sandboxes()
    done = indexlab("audit", "--target", "demo:2000", "--out", "o", "--format", "json")
    document = json.loads(done.stdout)
    assert {item["query"] for item in document["impact"]} >= {"pending_badge", "create_booking"}
    assert document["what_if"]["backend"].startswith("sandbox on PostgreSQL 18")
    badge = next(item for item in document["impact"] if item["query"] == "pending_badge")
    assert (
        badge["cost_after"] < badge["cost_before"] == badge["without"]["core.idx_bookings_status"]
    )
    assert badge["indexes_used"] == ["core.idx_bookings_status"]
    assert badge["weight"] == 5
    page = (files / "o" / "audit.html").read_text()
    assert "what each planned index is worth" in page
    assert "earn their keep: " in page
    assert "do " in page and "of the work with" in page
    assert _sandboxes() == before


def test_a_sandbox_that_is_to_be_kept_is_named(indexlab: Command) -> None:
    before = _sandboxes()
    options = ("--no-report", "--keep-sandbox", "--format", "json")
    done = indexlab("audit", "--target", "demo:2000", "--out", "o", *options)
    (kept,) = _sandboxes() - before
    with databases.cluster() as server:
        server.drop_database(kept)
    assert any(
        f"stays as database {kept} " in note for note in json.loads(done.stdout)["what_if"]["notes"]
    )


def test_what_if_off_plans_nothing(indexlab: Command) -> None:
    options = ("--no-report", "--what-if", "off", "--format", "json")
    done = indexlab("audit", "--target", "demo:2000", "--out", "o", *options)
    document = json.loads(done.stdout)
    assert (document["impact"], document["what_if"]) == ([], None)
    refused = indexlab("audit", "--target", "demo:2000", "--what-if", "crystal-ball")
    assert refused.returncode == 2
    assert "crystal-ball" in refused.stderr


def test_apply_follows_the_matrix(indexlab: Command, files: Path, pgbench15: Cluster) -> None:
    (files / "plan.sql").write_text(
        PLAN + "CREATE INDEX by_balance ON pgbench_accounts (abalance, filler);\n"
    )
    inputs = ("--target", pgbench15.uri(), "--plan", "plan.sql", "--workload", "workload.sql")
    secret = {"PGPASSWORD": pgbench15.password}
    done = indexlab("apply", *inputs, "--no-report", "--format", "json", **secret)
    outcomes = {step["index"]: step for step in json.loads(done.stdout)["steps"]}
    assert outcomes["public.by_balance"]["outcome"] == "skipped"
    assert (
        "no query of the workload uses public.by_balance" in outcomes["public.by_balance"]["note"]
    )
    assert pgbench15.password not in done.stdout + done.stderr


EVENTS = """
CREATE SCHEMA shop;
CREATE TABLE shop.events (id int, at date) PARTITION BY RANGE (at);
CREATE TABLE shop.old PARTITION OF shop.events FOR VALUES FROM (MINVALUE) TO ('2026-01-01');
CREATE TABLE shop.new PARTITION OF shop.events FOR VALUES FROM ('2026-01-01') TO (MAXVALUE);
INSERT INTO shop.events SELECT n, date '2025-12-01' + n % 60 FROM generate_series(1, 500) AS n;
"""


def test_a_partitioned_table_gets_its_index_and_a_killed_run_is_taken_back(
    indexlab: Command, tmp_path: Path, session: psycopg.Connection, database: Target
) -> None:
    session.execute(EVENTS.encode())
    (tmp_path / "plan.sql").write_text(
        "CREATE INDEX by_id ON shop.new (id);\nCREATE INDEX events_at ON shop.events (at, id);\n"
    )
    options = ("--target", database.conninfo, "--plan", "plan.sql", "--no-report")
    done = indexlab(
        *("apply", *options, "--execute", "--out", "reports/one", "--jobs", "2"),
        *("--memory", "128 MB", "--lock-wait", "2", "--max-wait", "60", "--max-lag", "1GB"),
    )
    assert done.returncode == 0, done.stderr
    valid = "SELECT count(*) FROM pg_index WHERE indisvalid AND indrelid >= 16384"
    assert session.execute(valid).fetchone() == (4,)
    assert "shop.events_at: built" in done.stderr
    run = tmp_path / "reports" / "one"
    assert json.loads((run / "apply.json").read_text())["complete"]
    settings = json.loads((run / "apply.journal").read_text().splitlines()[0])["settings"]
    assert settings == "lock_wait=2.0 max_wait=60.0 jobs=2 memory=134217728 max_lag=1073741824"
    (run / "apply.json").unlink()  # as a run that was killed leaves it
    back = indexlab("rollback", "one", "--execute", "--lock-wait", "1")
    assert back.returncode == 0, back.stderr
    assert session.execute(valid).fetchone() == (0,)
    assert (run / "rollback.json").exists()


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        (("--jobs", "0"), "x>=1"),
        (("--max-lag", "much"), "'much' is not a size"),
        (("--window", "22-5"), "not two times"),
        (("--memory", "1GB", "--jobs", "x"), "not a valid integer"),
    ],
)
def test_options_of_apply_are_checked_before_anything_is_started(
    indexlab: Command, files: Path, option: tuple[str, ...], reason: str
) -> None:
    done = indexlab("apply", "--target", "service=none", "--plan", "plan.sql", *option)
    assert (done.returncode, reason in done.stderr) == (2, True), done.stderr
    assert not (files / "reports").exists()


REPLACED = """
CREATE SCHEMA shop;
CREATE TABLE shop.orders (id int, at int, total int);
INSERT INTO shop.orders SELECT n, n % 100, n FROM generate_series(1, 3000) AS n;
CREATE INDEX narrow ON shop.orders (at);
CREATE INDEX beside ON shop.orders (total);
ANALYZE shop.orders;
"""
SLOWED = """
-- name: minds_the_index
SELECT CASE WHEN to_regclass('shop.wide') IS NULL THEN '' ELSE pg_sleep(0.02)::text END;
"""
OTHER_ANSWER = """
-- name: sees_the_index
SELECT pg_sleep(CASE WHEN to_regclass('shop.wide') IS NULL THEN 0.001 ELSE 0.02 END),
       to_regclass('shop.wide')::text;
"""
STEADY = """
-- name: of_a_moment
SELECT pg_sleep(0.002), count(*) FROM shop.orders WHERE at = 7 AND id > 10;
"""
THERE = """
SELECT relname
  FROM pg_class
 WHERE relkind = 'i'
   AND relnamespace = 'shop'::regnamespace
 ORDER BY relname
"""


def _there(session: psycopg.Connection) -> list[str]:
    return [name for (name,) in session.execute(THERE)]


@pytest.fixture
def replacing(tmp_path: Path, session: psycopg.Connection, database: Target) -> tuple[str, ...]:
    """Options for a plan whose index covers one that exists."""
    session.execute(REPLACED.encode())
    (tmp_path / "plan.sql").write_text("CREATE INDEX wide ON shop.orders (at, id);\n")
    given = ("--target", database.conninfo, "--plan", "plan.sql", "--no-report")
    return (*given, "--execute", "--out", "reports/one", "--what-if", "off")


def test_apply_drops_what_is_replaced_only_when_asked_and_restores_it(
    indexlab: Command, replacing: tuple[str, ...], session: psycopg.Connection
) -> None:
    done = indexlab("apply", *replacing[:-4], "--out", "reports/without", "--what-if", "off")
    assert (done.returncode, _there(session)) == (0, ["beside", "narrow", "wide"]), done.stderr
    session.execute("DROP INDEX shop.wide")
    done = indexlab("apply", *replacing, "--drop-replaced", "--jobs", "2")
    assert (done.returncode, _there(session)) == (0, ["beside", "wide"]), done.stderr
    assert "dropped  shop.narrow" in done.stdout
    back = indexlab("rollback", "one", "--execute")
    assert (back.returncode, _there(session)) == (0, ["beside", "narrow"]), back.stderr


def test_nothing_is_dropped_where_the_replacing_index_cannot_be_built(
    indexlab: Command, replacing: tuple[str, ...], session: psycopg.Connection, tmp_path: Path
) -> None:
    (tmp_path / "plan.sql").write_text("CREATE INDEX wide ON shop.orders (at, (100 / (id - 1)));\n")
    done = indexlab("apply", *replacing, "--drop-replaced")
    assert done.returncode != 0
    assert _there(session) == ["beside", "narrow"]


def test_a_run_drops_what_is_replaced_after_the_benchmark_and_restores_it(
    indexlab: Command, replacing: tuple[str, ...], session: psycopg.Connection, tmp_path: Path
) -> None:
    (tmp_path / "workload.sql").write_text(STEADY)
    measured = ("--workload", "workload.sql", "--budget", "1", "--max-slowdown", "50")
    done = indexlab("run", *replacing, *measured, "--drop-replaced")
    assert (done.returncode, _there(session)) == (0, ["beside", "wide"]), done.stderr
    run = tmp_path / "reports" / "one"
    stages = [stage["stage"] for stage in json.loads((run / "run.json").read_text())["stages"]]
    assert stages[-2:] == ["benchmark after", "drop replaced"]
    steps = json.loads((run / "apply.json").read_text())["steps"]
    assert {step["index"]: step["outcome"] for step in steps} == {
        "shop.wide": "built",
        "shop.narrow": "dropped",
    }
    back = indexlab("rollback", "one", "--execute")
    assert (back.returncode, _there(session)) == (0, ["beside", "narrow"]), back.stderr


def test_a_run_keeps_what_is_replaced_where_answers_differ(
    indexlab: Command, replacing: tuple[str, ...], session: psycopg.Connection, tmp_path: Path
) -> None:
    (tmp_path / "workload.sql").write_text(OTHER_ANSWER)
    measured = ("--workload", "workload.sql", "--budget", "1")
    done = indexlab("run", *replacing, *measured, "--drop-replaced")
    assert (done.returncode, _there(session)) == (0, ["beside", "narrow", "wide"]), done.stderr
    assert "sees_the_index cannot be compared: the sides gave different answers" in done.stderr


def test_a_run_keeps_what_is_replaced_where_a_query_became_slower(
    indexlab: Command, replacing: tuple[str, ...], session: psycopg.Connection, tmp_path: Path
) -> None:
    (tmp_path / "workload.sql").write_text(SLOWED)
    done = indexlab(
        "run", *replacing, "--workload", "workload.sql", "--budget", "1", "--drop-replaced"
    )
    assert (done.returncode, _there(session)) == (0, ["beside", "narrow", "wide"]), done.stderr
    assert "minds_the_index became" in done.stderr
    assert "minds_the_index became" in done.stdout
    [notice] = json.loads((tmp_path / "reports" / "one" / "run.json").read_text())["notices"]
    assert notice.startswith("Nothing was dropped, though it was asked for: minds_the_index")


def test_a_run_without_a_workload_keeps_what_is_replaced(
    indexlab: Command, replacing: tuple[str, ...], session: psycopg.Connection
) -> None:
    done = indexlab("run", *replacing, "--drop-replaced")
    assert (done.returncode, _there(session)) == (0, ["beside", "narrow", "wide"]), done.stderr
    assert "no query was measured" in done.stderr


ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
BOTH = re.compile(r"shop\.(one|two): waiting for old[^\r\n]*\r\nshop\.(one|two): waiting for old")


def _read_until(side: int, pattern: re.Pattern[str] | None) -> str:
    """Read a terminal until its text has the pattern, or to its end."""
    said = ""
    with suppress(OSError):  # Linux says EIO where the other side is closed
        while not (pattern and pattern.search(ANSI.sub("", said))) and (got := os.read(side, 4096)):
            said += got.decode()
    return said


def test_a_terminal_has_one_line_for_each_step_that_changes_in_place(
    replacing: tuple[str, ...], session: psycopg.Connection, tmp_path: Path
) -> None:
    session.execute("CREATE TABLE shop.more AS SELECT 1 AS id")
    (tmp_path / "plan.sql").write_text(
        "CREATE INDEX one ON shop.orders (at, id);\nCREATE INDEX two ON shop.more (id);\n"
    )
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    session.execute("SELECT FROM shop.orders")
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (40, 120))
    process = subprocess.Popen(
        [sys.executable, "-m", "indexlab", "apply", *replacing, "--jobs", "2"],
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm-256color"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    drawn = _read_until(ours, BOTH)
    assert BOTH.search(ANSI.sub("", drawn)), drawn
    session.execute("ROLLBACK")
    drawn += _read_until(ours, None)
    told, _ = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 0, drawn
    assert _there(session) == ["beside", "narrow", "one", "two"]
    assert "\x1b[1A" in drawn, "the lines are drawn over"
    assert b"\x1b" not in told
    assert b"built    shop.one" in told


def test_a_log_of_a_night_is_not_flooded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: clock[0])
    with terminal.Terminal() as log:
        for second in range(8 * 3600):
            log.tell(About("core.i", f"core.i: pause the window opens in {second} s"))
            clock[0] += 1
        log.tell(About("core.i", "core.i: start CREATE INDEX", lasting=True))
        log.tell(About("core.i", "core.i: built 8.00 kB in 7 ms", lasting=True))
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == [f"core.i: pause the window opens in {second} s" for second in range(3)]
    assert 100 < len(lines) < 200
    assert lines[-2:] == ["core.i: start CREATE INDEX", "core.i: built 8.00 kB in 7 ms"]
