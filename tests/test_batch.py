"""Batches on real databases, by real workers: faults, order, interrupts, and what stands then."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import yaml
from psycopg.conninfo import make_conninfo

from indexlab import embedded, render
from indexlab.batch import cluster, engine, targets
from indexlab.batch.book import Book
from indexlab.batch.cluster import Crew, Ended, Told
from indexlab.batch.engine import Event
from indexlab.batch.tasks import Work
from indexlab.errors import IncompleteError, InputError, TargetError
from indexlab.runs import Run

if TYPE_CHECKING:
    from conftest import Cluster

SCHEMA = """
CREATE SCHEMA core;
CREATE TABLE core.bookings (id int PRIMARY KEY, customer_id int, date date, status text);
INSERT INTO core.bookings
SELECT n, 1 + n % 100, date '2026-01-01' + n % 90, 'open' FROM generate_series(1, 500) AS n;
CREATE INDEX bookings_customer_id ON core.bookings (customer_id);
ANALYZE;
"""
PLAN = """
-- the history
CREATE INDEX idx_date ON core.bookings (date);
CREATE INDEX idx_customer ON core.bookings (customer_id);
"""
BAD_PLAN = "CREATE INDEX idx_event ON core.bookings (event_date);\n"
OFF = {"what_if": "off"}
AUDIT = Work("audit", report=False)
APPLY = Work("apply", execute=True, report=False)

Entry = dict[str, Any]


@dataclass(slots=True)
class Scene:
    """A place with plans, and databases that are copies of each other."""

    server: embedded.Server
    place: Path
    made: list[str]

    @property
    def out(self) -> Path:
        return self.place / "out"

    def entry(self, name: str, **given: Any) -> Entry:
        """Make a database and say how a file of targets names it."""
        database = f"batch_{len(self.made)}_{name[:8]}"
        self.server.create_database(database, template="batch_template")
        self.made.append(database)
        return {"name": name, "target": self.server.conninfo(database), **given}

    def targets(self, entries: list[Entry], **defaults: Any) -> targets.Targets:
        path = self.place / "targets.yaml"
        said = {"plan": "plan.sql", "parameters": OFF} | defaults
        path.write_text(yaml.safe_dump({"defaults": said, "targets": entries}))
        return targets.read(path)

    def batch(
        self,
        entries: list[Entry],
        work: Work = AUDIT,
        *,
        jobs: int = 2,
        scheduler: str = "",
        retries: int = 0,
        hear: Callable[[Event, Crew], None] | None = None,
        defaults: dict[str, Any] | None = None,
        out: str = "",
        **how: Any,
    ) -> Book:
        """Run a batch in this process."""
        found = self.targets(entries, **(defaults or {}))
        planned = engine.planned(found, work, out or self.out.as_posix(), **how)
        with cluster.opened(
            planned.book.store, jobs=jobs, scheduler=scheduler, report=work.report
        ) as crew:
            return engine.run(
                planned,
                crew,
                retries=retries,
                hear=lambda event: None if hear is None else hear(event, crew),
            )

    def document(self) -> Any:
        return Run(self.out).read_json("batch")

    def indexes(self, entry: Entry) -> dict[str, bool]:
        with psycopg.connect(entry["target"]) as conn:
            rows = conn.execute(
                "SELECT indexrelid::regclass::text, indisvalid FROM pg_index"
                " WHERE indrelid = 'core.bookings'::regclass AND NOT indisprimary ORDER BY 1"
            )
            return dict(rows.fetchall())

    def command(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Begin the command in this place."""
        return subprocess.Popen(
            [sys.executable, "-m", "indexlab", *arguments],
            cwd=self.place,
            env=os.environ | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


@pytest.fixture(scope="module")
def template(embedded_server: embedded.Server) -> Iterator[embedded.Server]:
    embedded_server.create_database("batch_template")
    with psycopg.connect(embedded_server.conninfo("batch_template"), autocommit=True) as conn:
        conn.execute(SCHEMA)
    yield embedded_server
    embedded_server.drop_database("batch_template")


@pytest.fixture
def scene(template: embedded.Server, tmp_path: Path) -> Iterator[Scene]:
    (tmp_path / "plan.sql").write_text(PLAN)
    (tmp_path / "bad.sql").write_text(BAD_PLAN)
    made = Scene(template, tmp_path, [])
    with embedded.server():  # the audits' own is kept from test to test
        yield made
    with psycopg.connect(template.conninfo(), autocommit=True) as conn:
        for name in made.made:
            conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def statuses(book: Book) -> dict[str, str]:
    return {entry.target.name: entry.result.status for entry in book.entries.values()}


def _blocked(entry: Entry) -> psycopg.Connection[Any]:
    """Hold a snapshot, for whose end a concurrent build waits."""
    conn = psycopg.connect(entry["target"])
    conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    conn.execute("SELECT 1")  # a lock on the table would hold up the clean-up, too
    return conn


def _eventually(true: Callable[[], object], seconds: float = 60) -> None:
    done = threading.Event()
    for _ in range(int(seconds * 20)):
        if true():
            return
        done.wait(0.05)
    pytest.fail(f"not within {seconds} s: {true}")


def _builds(entry: Entry) -> bool:
    with psycopg.connect(entry["target"], autocommit=True) as conn:
        row = conn.execute(
            "SELECT 1 FROM pg_stat_progress_create_index WHERE datname = current_database()"
            " AND phase LIKE 'waiting%'"
        ).fetchone()
        return row is not None


# What came of it


def test_three_kinds_of_faults_and_the_way_to_green(scene: Scene) -> None:
    """The batch that the issue shows: faults beside good targets, mended and resumed."""
    good = [scene.entry(f"good-{number}", tags=["eu"]) for number in range(16)]
    late = scene.entry("late")
    closed = replace_port(late["target"])
    faulty = [
        {"name": "unknown service", "target": "service=there_is_no_such_service"},
        {"name": "unreachable", "target": closed},
        scene.entry("wrong plan", plan="bad.sql"),
        {"name": "unknown database", "target": make_conninfo(late["target"], dbname="nope")},
    ]
    heard: list[Event] = []
    book = scene.batch([*good, *faulty], retries=1, hear=lambda event, _: heard.append(event))
    assert statuses(book) == {
        **{f"good-{number}": "ok" for number in range(16)},
        "unknown service": "failed",
        "unreachable": "failed",
        "wrong plan": "findings",
        "unknown database": "failed",
    }
    document = scene.document()
    assert document["counts"] == {"ok": 16, "findings": 1, "failed": 3, "not_run": 0}
    assert (book.exit_code(), document["complete"]) == (4, True)
    found = {entry["name"]: entry for entry in document["targets"]}
    assert "there_is_no_such_service" in found["unknown service"]["reason"]
    assert [found[name]["exit"] for name in found] == [*[0] * 16, 3, 3, 1, 3]
    # Only nobody's answer may be another one in a moment.
    assert [found[name]["attempts"] for name in found] == [*[1] * 17, 2, 1, 1]
    assert found["good-0"]["statements"] == {"idx_date": "build", "idx_customer": "skip"}
    assert found["good-0"]["tags"] == ["eu"]
    assert found["wrong plan"]["statements"] == {"idx_event": "ask"} or found["wrong plan"][
        "statements"
    ] == {"idx_event": "fix"}
    assert found["unreachable"]["run"] is None
    for name in ("good-0", "wrong plan"):
        assert (scene.out / found[name]["run"] / "audit.json").exists()
    assert {event.task.name for event in heard if isinstance(event, Ended)} == set(found)

    mended = [
        *good,
        {"name": "unknown service", "target": late["target"]},
        {"name": "unreachable", "target": late["target"]},
        {**faulty[2], "plan": "plan.sql"},
        {"name": "unknown database", "target": late["target"]},
    ]
    again: list[Event] = []
    book = scene.batch(mended, resume=True, hear=lambda event, _: again.append(event))
    assert set(statuses(book).values()) == {"ok"}
    assert book.exit_code() == 0
    ended = {event.task.name for event in again if isinstance(event, Ended)}
    assert ended == {"unknown service", "unreachable", "wrong plan", "unknown database"}
    kept = {entry["name"]: entry["run"] for entry in scene.document()["targets"]}
    assert kept["good-0"] == found["good-0"]["run"]
    assert kept["wrong plan"] != found["wrong plan"]["run"]


def replace_port(address: str) -> str:
    """Make an address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return make_conninfo(address, host="127.0.0.1", port=str(port))


def test_nothing_of_one_target_is_in_the_report_of_another(scene: Scene) -> None:
    """One worker does all, with notebooks; each target has marks in data, plan and errors."""
    entries = []
    marks = ["kestrel", "osprey", "merlin"]
    for mark in marks:
        (scene.place / f"{mark}.sql").write_text(
            f"-- reason {mark}\nCREATE INDEX idx_{mark} ON core.bookings ({mark}_x, status);\n"
        )
        (scene.place / f"{mark}.workload.sql").write_text(
            f"-- name: query_{mark}\n-- param status: SELECT status FROM core.bookings LIMIT 5\n"
            f"SELECT '{mark}', date FROM core.bookings WHERE status = :status;\n"
        )
        entry = scene.entry(mark, plan=f"{mark}.sql", workload=f"{mark}.workload.sql")
        with psycopg.connect(entry["target"], autocommit=True) as conn:
            conn.execute(f"UPDATE core.bookings SET status = 'value {mark}'".encode())
            conn.execute("ANALYZE")
        entries.append(entry | {"parameters": {"what_if": "sandbox"}})
    book = scene.batch(entries, Work("audit"), jobs=1)
    assert set(statuses(book).values()) == {"findings"}
    for entry in book.entries.values():
        assert entry.result.page is not None
        assert entry.result.run is not None
        files = [path for path in (scene.out / entry.result.run).rglob("*") if path.is_file()]
        text = "\n".join(path.read_text(errors="replace") for path in files)
        assert entry.result.page.endswith("audit.html")
        assert f"reason {entry.target.name}" in text
        for mark in marks:
            assert (mark in text) == (mark == entry.target.name)
    lines = {entry["name"]: json.dumps(entry) for entry in scene.document()["targets"]}
    for name, line in lines.items():
        assert {mark for mark in marks if mark in line} == {name}


def test_a_password_is_found_where_the_work_is_done_and_stays_there(
    scene: Scene, pg15_server: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(pg15_server.conninfo(), autocommit=True) as conn:
        conn.execute("CREATE DATABASE batch_secret")
    with psycopg.connect(pg15_server.conninfo("batch_secret"), autocommit=True) as conn:
        conn.execute(SCHEMA)
    wrong = "w0ng-Pa55word"
    monkeypatch.setenv("SHOP_DSN", pg15_server.uri(pg15_server.password, "batch_secret"))
    monkeypatch.setenv("OTHER_DSN", pg15_server.uri(wrong, "batch_secret"))
    entries = [
        {"name": "shop", "target": "env:SHOP_DSN"},
        {"name": "other", "target": "env:OTHER_DSN"},
        {"name": "none", "target": "env:NOT_SET_DSN"},
    ]
    try:
        book = scene.batch(entries, Work("audit"), retries=2)
    finally:
        with psycopg.connect(pg15_server.conninfo(), autocommit=True) as conn:
            conn.execute("DROP DATABASE batch_secret WITH (FORCE)")
    assert statuses(book) == {"shop": "ok", "other": "failed", "none": "failed"}
    found = {entry["name"]: entry for entry in scene.document()["targets"]}
    assert "'NOT_SET_DSN' is not set" in found["none"]["reason"]
    assert (found["none"]["exit"], found["other"]["exit"]) == (2, 3)
    assert found["other"]["attempts"] == 1  # a refused login is not tried again
    for path in scene.out.rglob("*"):
        if path.is_file():
            text = path.read_text(errors="replace")
            assert pg15_server.password not in text
            assert json.dumps(pg15_server.password)[1:-1] not in text
            assert wrong not in text


# Order


def test_a_group_is_worked_on_one_at_a_time(scene: Scene) -> None:
    entries = [scene.entry(f"a{n}", group="one server") for n in range(3)]
    entries += [scene.entry(f"b{n}") for n in range(2)]
    sent: list[str] = []
    most = 0

    def hear(event: Event, crew: Crew) -> None:
        nonlocal most
        grouped = [task for _, task in crew._futures.values() if task.name.startswith("a")]
        most = max(most, len(grouped))
        if isinstance(event, Ended):
            sent.append(event.task.name)

    book = scene.batch(entries, hear=hear)
    assert set(statuses(book).values()) == {"ok"}
    assert most == 1
    assert [name for name in sent if name.startswith("a")] == ["a0", "a1", "a2"]


def test_a_wave_with_a_failure_is_the_last(scene: Scene) -> None:
    first, second, third = (scene.entry(name) for name in ("first", "second", "third"))
    broken = {**second, "target": "service=there_is_no_such_service"}
    book = scene.batch([first, broken, third], wave="1,2,100%")
    assert statuses(book) == {"first": "ok", "second": "failed", "third": "not_run"}
    assert book.entries["third"].result.reason == "stopped after wave 2: second failed"
    assert [wave["done"] for wave in scene.document()["waves"]] == [True, True, False]
    assert book.exit_code() == 4
    book = scene.batch([first, second, third], wave="1,2,100%", resume=True)
    assert set(statuses(book).values()) == {"ok"}
    assert [book.entries[name].wave for name in statuses(book)] == [1, 2, 3]


def test_nothing_is_behind_the_last_wave_but_what_was_left_out(scene: Scene) -> None:
    book = scene.batch([scene.entry("first"), scene.entry("second")], wave="1")
    assert statuses(book) == {"first": "ok", "second": "not_run"}
    assert book.entries["second"].result.reason == engine.BEYOND
    assert book.exit_code() == 4


def test_a_batch_that_is_there_is_not_overwritten(scene: Scene) -> None:
    entries = [scene.entry("only")]
    scene.batch(entries)
    with pytest.raises(InputError, match=r"holds batch\.json already: say --resume"):
        scene.batch(entries)
    with pytest.raises(InputError, match="a batch with stage 'audit', not 'apply'"):
        scene.batch(entries, APPLY, resume=True)
    events: list[Event] = []
    scene.batch(entries, resume=True, hear=lambda event, _: events.append(event))
    assert not [event for event in events if isinstance(event, Ended)]
    # Another plan is other work.
    (scene.place / "plan.sql").write_text("CREATE INDEX other ON core.bookings (status);\n")
    book = scene.batch(entries, resume=True)
    assert book.entries["only"].result.statements == {"other": "build"}
    assert book.entries["only"].attempts == 2


def test_a_batch_that_is_taken_up_counts_the_time_of_all_its_sittings(scene: Scene) -> None:
    entries = [scene.entry("only")]
    scene.batch(entries)
    kept = scene.out / "batch.json"
    earlier = json.loads(kept.read_text()) | {
        "started": "2026-03-01T07:00:00+00:00",
        "seconds": 900.0,
    }
    kept.write_text(json.dumps(earlier))
    found = scene.batch(entries, resume=True).document()
    assert found["started"] == earlier["started"]
    assert 900 < found["seconds"] < 1800
    # One target in a quarter of an hour, whatever the last sitting took and whoever still waits.
    waiting = {**found["targets"][0], "name": "waiting", "status": "not_run"}
    shown = found | {"format": 1, "seconds": 900.0, "targets": [*found["targets"], waiting]}
    assert "0.067 targets a minute" in str(dict(render.batch_files(shown))["index.html"])
    kept.write_text(json.dumps({k: v for k, v in earlier.items() if k != "seconds"}))
    with pytest.raises(InputError, match="does not say when it began and how long it took"):
        scene.batch(entries, resume=True)


def test_a_batch_on_some_targets_says_nothing_of_the_others(scene: Scene) -> None:
    entries = [scene.entry("a", tags=["x"]), scene.entry("b", tags=["y"])]
    book = scene.batch(entries, only="tag=x")
    assert statuses(book) == {"a": "ok"}
    assert book.exit_code() == 0
    book = scene.batch(entries, only="tag=y", resume=True)
    assert statuses(book) == {"a": "ok", "b": "ok"}


# Building


def test_an_apply_builds_everywhere_and_a_second_time_nothing(scene: Scene) -> None:
    entries = [scene.entry(f"shop-{number}") for number in range(2)]
    book = scene.batch(entries, APPLY)
    assert set(statuses(book).values()) == {"ok"}
    result = book.entries["shop-0"].result
    assert result.statements == {"idx_date": "built", "idx_customer": "exists"} or (
        result.statements == {"idx_date": "built", "idx_customer": "skipped"}
    )
    assert result.builds["idx_date"]["bytes"] > 0
    for entry in entries:
        assert scene.indexes(entry)["core.idx_date"]


def test_a_dry_run_changes_nothing(scene: Scene) -> None:
    entry = scene.entry("shop")
    book = scene.batch([entry], replace(APPLY, execute=False))
    assert book.entries["shop"].result.statements["idx_date"] == "dry_run"
    assert list(scene.indexes(entry)) == ["core.bookings_customer_id"]


def test_a_target_that_hangs_is_given_up(scene: Scene) -> None:
    held, free = scene.entry("held", timeout=8), scene.entry("free")
    with _blocked(held):
        book = scene.batch([held, free], APPLY)
    assert statuses(book) == {"held": "failed", "free": "ok"}
    assert book.entries["held"].result.reason.startswith("not done within 8 s: ")
    assert list(scene.indexes(held)) == ["core.bookings_customer_id"]  # no invalid one is left
    assert book.entries["held"].result.run is not None


def test_a_killed_worker_in_mid_apply_and_the_resumed_batch(scene: Scene) -> None:
    """Worker and the process that builds are killed; on resume the target converges."""
    held, free = scene.entry("held"), scene.entry("free")
    killed: list[int] = []

    def kill(_event: Event, crew: Crew) -> None:
        if killed or not _builds(held):
            return
        children = crew._client.run(_descendants)
        for pids in children.values():
            for pid in pids:
                killed.append(pid)
                with suppress(ProcessLookupError):  # it went with its parent
                    os.kill(pid, signal.SIGKILL)

    with _blocked(held):
        book = scene.batch([held, free], APPLY, hear=kill)
        _eventually(lambda: not _builds(held) or _cancelled(held))
    assert len(killed) >= 3
    assert book.entries["held"].result.status == "failed"
    assert "killed" in book.entries["held"].result.reason or (
        "died" in book.entries["held"].result.reason
    )
    assert book.exit_code() == 4
    book = scene.batch([held, free], APPLY, resume=True)
    assert set(statuses(book).values()) == {"ok"}
    assert scene.indexes(held) == {"core.bookings_customer_id": True, "core.idx_date": True}


def _cancelled(entry: Entry) -> bool:
    """End the build of a client that is gone, as the server would when it answers."""
    with psycopg.connect(entry["target"], autocommit=True) as conn:
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_progress_create_index"
            " WHERE datname = current_database()"
        )
    return False


def _descendants() -> list[int]:
    """Find the nursery and the task of this worker, and itself last."""
    import os
    from pathlib import Path

    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.name)] = int(fields[1])
    found = [os.getpid()]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    python = [p for p in found if b"indexlab" in Path(f"/proc/{p}/cmdline").read_bytes()]
    return [*(pid for pid in reversed(python) if pid != os.getpid()), os.getpid()]


def test_a_worker_that_dies_alone_lets_its_apply_end_cleanly(scene: Scene) -> None:
    held = scene.entry("held")
    killed: list[int] = []

    def kill(_event: Event, crew: Crew) -> None:
        if not killed and _builds(held):
            killed.extend(crew._client.run(os.getpid).values())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    with _blocked(held):
        book = scene.batch([held], APPLY, jobs=1, hear=kill)
        assert "died" in book.entries["held"].result.reason
        _eventually(lambda: list(scene.indexes(held)) == ["core.bookings_customer_id"])
    run = scene.out / str(book.entries["held"].result.run)
    _eventually(lambda: '"event": "end"' in (run / "apply.journal").read_text())


# The command


def test_ctrl_c_ends_applies_cleanly(scene: Scene) -> None:
    held, waiting = scene.entry("held"), scene.entry("waiting")
    scene.targets([held, waiting])
    with _blocked(held):
        process = scene.command(
            *("batch", "targets.yaml", "--stage", "apply", "--execute", "--no-report"),
            *("--jobs", "1", "--out", "out"),
        )
        _eventually(lambda: _builds(held))
        os.killpg(process.pid, signal.SIGINT)
        said, told = process.communicate(timeout=120)
    assert process.returncode == 4, told
    assert "dashboard: http" in told
    found = {entry["name"]: entry for entry in scene.document()["targets"]}
    assert scene.document()["interrupted"]
    assert (found["held"]["status"], found["held"]["exit"]) == ("failed", 4)
    assert found["waiting"]["status"] == "not_run"
    assert list(scene.indexes(held)) == ["core.bookings_customer_id"]
    journal = (scene.out / found["held"]["run"] / "apply.journal").read_text().splitlines()
    assert json.loads(journal[-1])["event"] == "end"
    assert "held" in said


def _page(scene: Scene) -> str:
    return (scene.out / "index.html").read_text()


def test_a_second_ctrl_c_does_not_wait(scene: Scene) -> None:
    """A worker that is stopped answers nothing; what it did is told as not known."""
    held, waiting = scene.entry("held"), scene.entry("waiting")
    scene.targets([held, waiting])
    frozen: list[int] = []
    with _blocked(held):
        process = scene.command(
            *("batch", "targets.yaml", "--stage", "apply", "--execute", "--no-report"),
            *("--jobs", "1", "--out", "out"),
        )
        _eventually(lambda: _builds(held))
        try:
            frozen += [pid for pid in _below(process.pid) if "nursery" in _words(pid)]
            for pid in frozen:
                os.kill(pid, signal.SIGSTOP)
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            while "waiting for 1 target in work" not in process.stderr.readline():
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=60)
        finally:
            for pid in frozen:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
    assert process.returncode == 4, told
    found = {entry["name"]: entry for entry in scene.document()["targets"]}
    assert found["held"]["status"] == "failed"
    assert "what became of it is not known; resume the batch" in found["held"]["reason"]
    assert found["waiting"]["status"] == "not_run"
    assert "held" in _page(scene)
    _eventually(lambda: not [pid for pid in frozen if _words(pid)])
    assert all(scene.indexes(held).values())  # it is done or gone, and nothing invalid is left


def test_a_termination_ends_a_batch_as_ctrl_c_does(scene: Scene) -> None:
    held, waiting = scene.entry("held"), scene.entry("waiting")
    scene.targets([held, waiting])
    with _blocked(held):
        process = scene.command(
            *("batch", "targets.yaml", "--stage", "apply", "--execute", "--no-report"),
            *("--jobs", "1", "--out", "out"),
        )
        _eventually(lambda: _builds(held))
        process.terminate()
        _, told = process.communicate(timeout=120)
    assert process.returncode == 4, told
    document = scene.document()
    assert document["interrupted"]
    assert [entry["status"] for entry in document["targets"]] == ["failed", "not_run"]
    assert "interrupted" in _page(scene)
    assert list(scene.indexes(held)) == ["core.bookings_customer_id"]


def test_a_batch_that_is_killed_leaves_its_page_and_is_taken_up(scene: Scene) -> None:
    """SIGKILL of the command itself: its workers end, the apply in flight is put in order."""
    done, held = scene.entry("done"), scene.entry("held")
    waiting = scene.entry("waiting")
    scene.targets([done, held, waiting])
    call = (
        *("batch", "targets.yaml", "--stage", "apply", "--execute", "--no-report"),
        *("--jobs", "1", "--out", "out"),
    )
    with _blocked(held):
        process = scene.command(*call)
        _eventually(lambda: _builds(held))
        _eventually(lambda: scene.document()["counts"]["ok"] == 1)
        _eventually((scene.out / "index.html").exists)
        below = _below(process.pid)
        process.kill()
        process.communicate(timeout=60)
        _eventually(lambda: not [pid for pid in below if "indexlab" in _words(pid)])
        assert list(scene.indexes(held)) == ["core.bookings_customer_id"]
    document = scene.document()
    assert not document["complete"]
    assert {entry["name"]: entry["status"] for entry in document["targets"]} == {
        "done": "ok",
        "held": "not_run",
        "waiting": "not_run",
    }
    assert "has not come to its end" in _page(scene)
    process = scene.command(*call, "--resume")
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    attempts = {entry["name"]: entry["attempts"] for entry in scene.document()["targets"]}
    assert attempts == {"done": 1, "held": 2, "waiting": 1}
    assert "nothing to look at" in _page(scene)


def _below(root: int) -> list[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            parents[int(entry.name)] = int(fields[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return [pid for pid in found[1:] if "postgres" not in _words(pid)]


def _words(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


class Screen:
    """The command on a terminal of its own."""

    def __init__(self, scene: Scene, *arguments: str):
        self._master, slave = pty.openpty()
        size = struct.pack("HHHH", 30, 100, 0, 0)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, size)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "indexlab", "batch", "targets.yaml", *arguments],
            cwd=scene.place,
            env=os.environ | {"TERM": "xterm"},
            stdin=slave,
            stdout=subprocess.DEVNULL,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.seen = ""

    def until(self, words: str) -> None:
        while words not in self.seen:
            assert self._read(), self.seen

    def _read(self) -> bool:
        try:
            read = os.read(self._master, 1 << 16)
        except OSError:  # nobody is at the other end any more
            return False
        self.seen += read.decode(errors="replace")
        return bool(read)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def ended(self) -> int:
        while self._read():
            pass
        os.close(self._master)
        return self.process.wait(60)


WAVES = (
    *("--stage", "audit", "--no-report", "--out", "out", "--jobs", "1"),
    *("--waves", "1,100%", "--pause"),
)


@pytest.mark.parametrize("answer", ["y\n", "n\n", "\n", "interrupt"])
def test_the_terminal_is_asked_between_two_waves(scene: Scene, answer: str) -> None:
    scene.targets([scene.entry("first"), scene.entry("second")])
    screen = Screen(scene, *WAVES, "ask")
    screen.until("Begin wave 2 of 2? [y/N]: ")
    page = _page(scene)
    assert "first" in page
    assert "has not come to its end" in page
    if answer == "interrupt":
        screen.process.send_signal(signal.SIGINT)
    else:
        screen.type(answer)
    begins = answer == "y\n"
    assert screen.ended() == (0 if begins else 4)
    assert "dashboard: http://127.0.0.1:" in screen.seen
    assert "of 2 done" in screen.seen
    found = {entry["name"]: entry for entry in scene.document()["targets"]}
    assert found["first"]["status"] == "ok"
    assert found["second"]["status"] == ("ok" if begins else "not_run")
    assert begins or found["second"]["reason"] == "stopped before wave 2"


def test_a_pause_of_seconds_passes_and_needs_no_terminal(scene: Scene) -> None:
    scene.targets([scene.entry("first"), scene.entry("second")])
    process = scene.command("batch", "targets.yaml", *WAVES, "0.1")
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert [entry["wave"] for entry in scene.document()["targets"]] == [1, 2]


def test_a_pause_is_ended_by_an_interrupt(scene: Scene) -> None:
    scene.targets([scene.entry("first"), scene.entry("second")])
    process = scene.command("batch", "targets.yaml", *WAVES, "3600")
    _eventually((scene.out / "batch.json").exists)
    _eventually(lambda: scene.document()["waves"][0]["done"])
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 4, told
    assert scene.document()["interrupted"]
    assert [entry["status"] for entry in scene.document()["targets"]] == ["ok", "not_run"]


def test_the_command_says_the_failures_first(scene: Scene) -> None:
    entries = [scene.entry("good"), {"name": "bad\x1b[31m", "target": "service=no_such"}]
    scene.targets(entries)
    process = scene.command(
        *("batch", "targets.yaml", "--stage", "audit", "--no-report", "--jobs", "1"),
        *("--out", "out", "--format", "text"),
    )
    said, told = process.communicate(timeout=120)
    assert process.returncode == 4
    assert said.startswith("failed   bad")
    assert "\x1b" not in said + told
    assert "2 targets: 1 ok, 1 failed" in said


def test_the_command_lists_targets(scene: Scene) -> None:
    scene.entry("x")
    process = scene.command("targets", "-t", scene.server.conninfo(), "--out", "listed.yaml")
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert scene.made[0] in {t.name for t in targets.read(scene.place / "listed.yaml").targets}
    process = scene.command("targets", "-t", scene.server.conninfo(), "--out", "listed.yaml")
    _, told = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "exists already" in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--pause", "ask"), "needs a terminal"),
        (("--pause", "soon"), "neither a number of seconds"),
        (("--resume",), "--resume needs --out"),
        (("--waves", "10,1"), "must grow"),
        (("--only", "x"), "no condition"),
        (("--out", "nosuch://x/y"), "nosuch"),
        (("--scheduler", "nonsense"), "--scheduler 'nonsense' is no address"),
        (("--out", "ftp://me:pa55word@host/x"), "holds a password (not shown)"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(
    scene: Scene, arguments: tuple[str, ...], words: str
) -> None:
    scene.targets([{"name": "a", "target": "env"}])
    process = scene.command("batch", "targets.yaml", "--stage", "audit", *arguments)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 2, told
    assert words in told
    assert "pa55word" not in told
    assert not (scene.place / "reports").exists()


# The engine's own faults


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A scheduler with one worker, as somebody else has started them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    program = (sys.executable, "-m", "dask")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    one = subprocess.Popen(
        [*program, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"],
        cwd=tmp_path,
        **quiet,
    )
    worker = subprocess.Popen(
        [*program, "worker", address, "--nthreads", "1", "--no-dashboard"],
        cwd=tmp_path,
        **quiet,
    )
    yield address, one
    for process in (worker, one):
        process.terminate()
        process.wait(60)


def test_a_lost_scheduler_is_a_clear_end(
    scene: Scene, scheduler: tuple[str, subprocess.Popen[bytes]]
) -> None:
    address, process = scheduler
    held, waiting = scene.entry("held"), [scene.entry(f"w{n}", group="g") for n in range(3)]
    entries = [*waiting[:1], held, *waiting[1:]]

    def lose(_event: Event, _crew: Crew) -> None:
        if process.poll() is None and _builds(held):
            process.kill()
            process.wait()

    with _blocked(held):
        book = scene.batch(entries, APPLY, scheduler=address, hear=lose)
        _eventually(lambda: list(scene.indexes(held)) == ["core.bookings_customer_id"])
    assert book.exit_code() == 4
    assert statuses(book)["held"] == "failed"
    assert "scheduler was lost" in book.entries["held"].result.reason
    assert scene.document()["stopped"] == engine.LOST
    book = scene.batch(entries, APPLY, resume=True)
    assert set(statuses(book).values()) == {"ok"}


def test_a_scheduler_that_does_not_answer(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 4.0)
    with pytest.raises(TargetError, match="does not answer"):
        scene.batch([scene.entry("a")], scheduler="tcp://127.0.0.1:9")


def test_a_full_disk_is_told_before_anything_runs(scene: Scene, small_disk: Path) -> None:
    with pytest.raises(InputError, match="kB free, a run wants"):
        scene.batch([scene.entry("a")], out=str(small_disk / "out"))
    assert not (small_disk / "out" / "batch.json").exists()


def test_a_disk_that_fills_up_ends_the_batch(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, small_disk: Path
) -> None:
    """What was done stands in the runs, and the resumed batch goes on from there."""
    from indexlab.runs import directory

    monkeypatch.setattr(directory, "LEAST_FREE", 0)
    out = small_disk / "out"
    entries = [scene.entry(f"t{n}", group="g") for n in range(3)]
    filled: list[Path] = []

    def fill(event: Event, _crew: Crew) -> None:
        if isinstance(event, Told) and not filled:
            filled.append(small_disk / "ballast")
            with filled[0].open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(b"\0" * 512)
                except OSError:
                    pass

    with pytest.raises(IncompleteError, match=r"cannot write .*batch\.json|No space left"):
        scene.batch(entries, hear=fill, out=str(out), jobs=1)
    filled[0].unlink()
    # The workers have their own idea of how much must be free.
    book = scene.batch(entries, out=str(scene.out))
    assert set(statuses(book).values()) == {"ok"}
