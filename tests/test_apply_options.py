"""What a run can be asked for: budgets, jobs, care for the server, constraints, the journal."""

from __future__ import annotations

import json
import threading
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from indexlab import apply, plan, target
from indexlab.apply import (
    ApplyRefused,
    Event,
    Settings,
    Window,
    blockers,
    care,
    duplicates,
    journal,
    schedule,
    sharing,
    tender,
)
from indexlab.errors import InputError, TargetError
from indexlab.runs import documents

PLAN = "CREATE INDEX a ON core.bookings (date); CREATE INDEX b ON core.other (id);"


def words(applied: apply.Applied) -> list[str]:
    return [item.outcome for item in applied.outcomes]


# Settings


def test_settings_are_read_from_words_and_written_back() -> None:
    text = "lock_wait=2.5 jobs=2 memory=134217728 window=22:00-05:00 show_values=true"
    read = Settings.parse("jobs=2 memory=128MB lock_wait=2.5 show_values window=22:00-05:00")
    assert read.words() == text
    assert Settings.parse(read.words()) == read
    assert Settings.parse("") == Settings()
    assert Settings().words() == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("job=2", "'job=2' is no setting"),
        ("jobs=two", "jobs is 'two'"),
        ("jobs=0", "jobs is 0"),
        ("jobs", "write jobs=VALUE"),
        ("max_wait=-1", "max_wait is -1"),
        ("max_lag=many", "'many' is not a size such as 64MB or 2GB, or a time such as 30s"),
        ("memory=3bananas", "memory is '3bananas'"),
        ("max_lag=30 s", "'s' is no setting"),
        ("window=10-12", "not two times"),
        ("window=10:00-10:00", "no length"),
        ("analyze=maybe", "analyze is 'maybe'"),
    ],
)
def test_settings_that_cannot_be_are_refused(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Settings.parse(text)


@pytest.mark.parametrize(
    ("word", "bytes_", "seconds"),
    [
        ("max_lag=64MB", 64 * 1024**2, 0.0),
        ("max_lag=64m", 64 * 1024**2, 0.0),
        ("max_lag=30s", 0, 30.0),
        ("max_lag=1.5min", 0, 90.0),
        ("max_lag=250ms", 0, 0.25),
        ("max_lag=1h", 0, 3600.0),
    ],
)
def test_a_lag_is_a_size_or_a_time(word: str, bytes_: int, seconds: float) -> None:
    read = Settings.parse(word)
    assert (read.max_lag, read.max_lag_seconds) == (bytes_, seconds)
    assert Settings.parse(read.words()) == read


def test_a_standby_that_stands_still_falls_behind_though_its_replay_lag_does_not() -> None:
    delays = care.Delays()
    assert delays.of(care.Lag("s", 0, 9.0, written=1000), 10.0) == 0.0  # it has everything
    assert delays.of(care.Lag("s", 500, None, written=1500), 20.0) == 0.0  # first seen just now
    assert delays.of(care.Lag("s", 700, 0.5, written=1700), 25.0) == 5.0
    assert delays.of(care.Lag("s", 900, 0.5, written=1900), 50.0) == 30.0
    assert delays.of(care.Lag("s", 200, 0.5, written=1900), 51.0) == 1.0  # replays again
    assert delays.of(care.Lag("s", 200, 7.0, written=1900), 51.5) == 7.0


@pytest.mark.parametrize(
    ("window", "now", "minutes"),
    [
        ("22:00-05:00", "23:30", 0),
        ("22:00-05:00", "04:59", 0),
        ("22:00-05:00", "05:00", 17 * 60),
        ("09:00-10:30", "09:00", 0),
        ("09:00-10:30", "10:30", 22 * 60 + 30),
        ("09:00-10:30", "08:00", 60),
    ],
)
def test_a_window_may_pass_midnight(window: str, now: str, minutes: int) -> None:
    at = datetime.fromisoformat(f"2026-03-01T{now}:00+00:00")
    assert Window.parse(window).wait(at).total_seconds() == minutes * 60


# Who stands in the way


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "SELECT * FROM t WHERE a = 'secret' AND b = 42.5",
            "SELECT * FROM t WHERE a = ? AND b = ?",
        ),
        ("SELECT 'it''s' || $tag$ secret $tag$ -- secret", "SELECT ? || ?"),
        ("SELECT 'cut off secr", "SELECT ?"),
        (
            'SELECT /* secret */ col2 FROM "t\'1" WHERE x = $1',
            'SELECT col2 FROM "t\'1" WHERE x = $1',
        ),
        (r"SELECT E'a\'secret' , secret", "SELECT ?"),
        ("INSERT INTO t VALUES (U&'secret', 1e9)", "INSERT INTO t VALUES (U&?, ?)"),
    ],
)
def test_a_statement_is_told_without_its_constants(text: str, shown: str) -> None:
    assert blockers.redacted(text) == shown


def test_a_blocker_that_never_ends_is_named_and_leaves_no_carcass(scene) -> None:
    blocker = scene.session(autocommit=False, application_name="nightly")
    blocker.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    blocker.execute("SELECT 'secret' FROM core.other WHERE id = 4711")
    applied = scene.run(PLAN, max_wait=1)
    assert words(applied) == ["failed", "not_run"]
    error = applied.outcomes[0].error
    assert f"pid {blocker.info.backend_pid} (nightly as postgres, idle in transaction for" in error
    assert "SELECT ? FROM core.other WHERE id = ?" in error
    assert "secret" not in repr(applied)
    assert "4711" not in repr(applied)
    assert "max_wait" in error
    assert scene.indexes() == {}


def test_the_phase_and_its_end_are_told(scene) -> None:
    scene.db.execute(
        "INSERT INTO core.bookings SELECT n, 1, now(), 'x', repeat('y', 200) FROM generate_series(3000, 200000) AS n"
    )
    events: list[Event] = []
    text = "CREATE INDEX n ON core.bookings (note, status, date);"
    assert scene.run(text, lock_wait=0.1, on_event=events.append).complete
    phases = {event.phase for event in events if event.kind == "progress"}
    assert phases, "a build of this size is seen at least once"
    assert all(event.eta is None or event.eta >= 0 for event in events)


def test_what_waits_has_no_percent_of_the_phase_before() -> None:
    seen = {"pid": 1, "tuples_done": 0, "tuples_total": 0, "queueing": False}
    seen |= {"blocks_done": 5, "blocks_total": 10}
    scanning = blockers.Observation(phase="building index", waiting=False, **seen)
    assert scanning.percent == 50
    waiting = blockers.Observation(phase="waiting for old snapshots", waiting=True, **seen)
    assert waiting.percent is None


@pytest.mark.parametrize(
    ("done", "spent", "left"),
    [
        (25, 30.0, 90.0),
        (50, 4.0, 4.0),
        (100, 9.0, 0.0),
        (1, 30.0, None),  # below two percent nothing is guessed
        (50, 0.5, None),  # nor in the first second
    ],
)
def test_the_time_left_is_that_of_the_phase_at_its_pace(
    scene, done: int, spent: float, left: float | None
) -> None:
    step = scene.pending("CREATE INDEX a ON core.bookings (date);")[0]
    flight = tender.InFlight(scene.db, 1, step, cleaning=False, attempt=1)
    watched = tender._Watched(flight, began=0.0, seen=0.0, phase="building index", phase_since=10.0)
    seen = blockers.Observation(
        *(1, "building index", done, 100, 0, 0), queueing=False, waiting=False
    )
    event = tender._event(watched, seen, 10.0 + spent)
    assert (event.percent, event.eta) == (done, left)
    assert ("left)" in str(event)) == (left is not None)


# Jobs


def test_tables_are_worked_on_side_by_side(scene) -> None:
    blocker = scene.session(autocommit=False)
    blocker.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    blocker.execute("SELECT FROM core.other")
    run = scene.start(PLAN + "CREATE INDEX c ON core.bookings (status);", jobs=2)
    count = "SELECT count(*) FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%'"
    scene.eventually(lambda: scene.db.execute(count).fetchone() == (2,))
    blocker.rollback()
    applied = run.result()
    assert words(applied) == ["built", "built", "built"]
    assert [item.index for item in applied.outcomes] == ["core.a", "core.b", "core.c"]
    assert set(applied.analyzed) == {"core.bookings", "core.other"}


def test_jobs_share_memory_and_a_lone_one_has_all_parallel_workers(scene) -> None:
    scene.db.execute(
        """
        CREATE FUNCTION core.note(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'memory % workers %', current_setting('maintenance_work_mem'),
                            current_setting('max_parallel_maintenance_workers')
                  USING ERRCODE = 'AA001';
        END $$;
        """
    )
    text = "CREATE INDEX s ON core.other (core.note(id));"
    applied = scene.run(text, jobs=2, memory=64 * 1024**2)
    assert "memory 32MB workers 2" in applied.outcomes[0].error
    with pytest.raises(InputError, match="too little for 2 jobs"):
        scene.run(PLAN, jobs=2, memory=1024**2)


@pytest.mark.parametrize(
    ("remaining", "total", "given"),
    [
        ((), 2, ()),
        ((5.0,), 2, (2,)),
        ((200.0, 100.0), 2, (2, 0)),  # the long one would end last, even with both
        ((100.0, 100.0), 2, (1, 1)),
        ((100.0, 90.0, 10.0), 3, (2, 1, 0)),
        ((1.0, 1.0), 0, (0, 0)),
    ],
)
def test_parallel_workers_go_to_what_would_end_last(
    remaining: tuple[float, ...], total: int, given: tuple[int, ...]
) -> None:
    assert sharing.workers(remaining, total) == given


def test_a_job_takes_no_parallel_worker_that_another_still_has() -> None:
    pool = sharing.Workers(2, [("one", 50.0), ("two", 50.0)])
    assert pool.take("one", 50) == 1
    assert pool.take("two", 50) == 1
    assert pool.take("one", 45) == 1
    pool.leave("two")
    assert pool.take("one", 30) == 2
    assert pool.take("late", 500) == 0  # they come free when the other's statement ends
    assert pool.take("one", 20) == 0
    assert pool.take("late", 400) == 2


def test_work_that_is_handed_out_is_done_by_those_who_are_free() -> None:
    errands: sharing.Errands[str] = sharing.Errands(2)
    both = threading.Barrier(2, timeout=30)
    done: list[tuple[int, str]] = []

    def work(job: str, number: int) -> None:
        if number < 2:
            both.wait()  # only two jobs at once pass here
        done.append((number, job))

    helper = threading.Thread(target=errands.help, args=["helper"])
    helper.start()
    errands.together("leader", [partial(work, number=number) for number in range(5)])
    assert sorted(number for number, _ in done) == [0, 1, 2, 3, 4]
    assert {job for _, job in done} == {"leader", "helper"}
    errands.help("leader")
    helper.join(30)
    assert not helper.is_alive()


def test_what_goes_wrong_in_handed_out_work_is_raised_where_it_came_from() -> None:
    errands: sharing.Errands[str] = sharing.Errands(1)

    def work(_job: str) -> None:
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost"):
        errands.together("leader", [work])
    errands.help("leader")


def test_a_failure_of_one_job_lets_the_other_end_and_nothing_more_begin(scene) -> None:
    applied = scene.run(
        "CREATE INDEX bad ON core.other ((1 / (id - 1)));"
        "CREATE INDEX a ON core.bookings (date);"
        "CREATE INDEX c ON core.bookings (status);",
        jobs=2,
    )
    assert applied.outcomes[0].outcome == "failed"
    assert not applied.complete
    assert all(scene.indexes().values())


def steps_of(scene, text: str) -> tuple[apply.Step, ...]:
    return scene.pending(text)


def test_the_longest_chain_begins_and_drops_come_last(scene) -> None:
    scene.db.execute("CREATE INDEX old ON core.bookings (customer_id)")
    steps = steps_of(
        scene,
        "CREATE INDEX b ON core.other (id); DROP INDEX core.old;"
        "CREATE INDEX new ON core.bookings (customer_id, date);",
    )
    assert schedule.chains(steps, {0: 10, 2: 100}, 2) == ((2, 1), (0,))
    assert schedule.chains(steps, {0: 10, 2: 100}, 1) == ((0, 2, 1),)
    assert schedule.chains((), {}, 1) == ()


def test_a_drop_comes_after_its_replacement_is_valid(scene) -> None:
    scene.db.execute("CREATE INDEX old ON core.bookings (customer_id)")
    begun: list[str] = []

    def told(event: Event) -> None:
        if event.kind == "start":
            begun.append(event.index)

    text = "DROP INDEX core.old; CREATE INDEX new ON core.bookings (customer_id, date);"
    assert words(scene.run(text, on_event=told)) == ["dropped", "built"]
    assert begun == ["core.new", "core.old"]


def test_nothing_is_dropped_where_the_replacement_fails(scene) -> None:
    scene.db.execute("CREATE INDEX old ON core.bookings (customer_id)")
    text = "DROP INDEX core.old; CREATE UNIQUE INDEX new ON core.bookings (customer_id);"
    assert words(scene.run(text)) == ["not_run", "failed"]
    assert scene.indexes() == {"old": True}


# Unique


def test_duplicates_are_told_with_their_places_and_values_only_when_asked(scene) -> None:
    scene.db.execute("UPDATE core.bookings SET note = 'Jo''s' WHERE id IN (5, 6, 7)")
    text = "CREATE UNIQUE INDEX u ON core.bookings (lower(note), status) WHERE id > 1;"
    hidden = scene.run(text).outcomes[0].error
    assert "(lower(note), status) = (...) in 3 rows, ctid (" in hidden
    assert "jo" not in hidden
    shown = scene.run(text, show_values=True).outcomes[0].error
    assert "\"jo's\", 'open'" in shown
    assert scene.indexes() == {}


def test_nulls_are_duplicates_only_where_they_are_not_distinct(scene) -> None:
    scene.db.execute("UPDATE core.bookings SET note = NULL WHERE id < 4")
    text = "CREATE UNIQUE INDEX u ON core.bookings (note)"
    assert words(scene.run(f"{text};")) == ["built"]
    scene.db.execute("DROP INDEX core.u")
    error = scene.run(f"{text} NULLS NOT DISTINCT;", show_values=True).outcomes[0].error
    assert "(note) = (null) in 3 rows" in error
    assert duplicates.EXAMPLES == 3


def test_a_unique_index_becomes_a_constraint_and_comes_back(scene) -> None:
    text = (
        "CREATE UNIQUE INDEX u ON core.bookings (id, date); CREATE INDEX v ON core.bookings (date);"
    )
    constraint = "SELECT contype::text FROM pg_constraint WHERE conname = 'u'"
    applied = scene.run(text, attach_constraint=True)
    assert words(applied) == ["built", "built"]
    assert scene.db.execute(constraint).fetchone() == ("u",)
    assert words(scene.run(text, attach_constraint=True)) == ["exists", "exists"]
    back = apply.rollback(scene.target, applied.outcomes, execute=True)
    assert back.complete, back
    assert scene.indexes() == {}
    assert scene.db.execute(constraint).fetchone() is None


def test_an_index_that_exists_becomes_a_constraint_and_an_index_again(scene) -> None:
    scene.db.execute("CREATE UNIQUE INDEX u ON core.bookings (id, date)")
    applied = scene.run(
        "CREATE UNIQUE INDEX u ON core.bookings (id, date);", attach_constraint=True
    )
    assert words(applied) == ["exists", "built"]
    back = apply.rollback(scene.target, applied.outcomes, execute=True)
    assert back.complete, back
    assert scene.indexes() == {"u": True}
    assert scene.db.execute("SELECT FROM pg_constraint WHERE conname = 'u'").fetchone() is None


OID = "SELECT 'core.u'::regclass::oid::int8"


@pytest.mark.parametrize("altered", [True, False])
def test_a_crash_beside_the_new_constraint_of_an_index_is_taken_back(
    scene, tmp_path: Path, altered: bool
) -> None:
    scene.db.execute("CREATE UNIQUE INDEX u ON core.bookings (id, date)")
    before = scene.db.execute(OID).fetchone()
    text = "CREATE UNIQUE INDEX u ON core.bookings (id, date);"
    noted = tmp_path / "apply.journal"
    settings = Settings(attach_constraint=True)
    apply.run(scene.target, plan.parse(text), settings, execute=True, journal=noted)
    lines = noted.read_text().splitlines(keepends=True)
    events = [json.loads(line)["event"] for line in lines]
    assert events[:3] == ["run", "intent", "part"]
    noted.write_text("".join(lines[:3]))  # as a kill before or after the ALTER TABLE leaves it
    if not altered:
        scene.db.execute("ALTER TABLE core.bookings DROP CONSTRAINT u")
        scene.db.execute("CREATE UNIQUE INDEX u ON core.bookings (id, date)")
        before = scene.db.execute(OID).fetchone()
    outcomes = journal.outcomes(noted, documents.outcome)
    back = apply.rollback(scene.target, outcomes, execute=True)
    assert back.complete, back
    assert scene.indexes() == {"u": True}
    assert scene.db.execute("SELECT FROM pg_constraint WHERE conname = 'u'").fetchone() is None
    assert (scene.db.execute(OID).fetchone() == before) is not altered
    again = apply.rollback(scene.target, outcomes, execute=True)
    assert (again.complete, scene.indexes()) == (True, {"u": True})


@pytest.mark.parametrize("tail", ["((id + 1))", "(id) WHERE id > 1", "(id DESC)"])
def test_what_cannot_be_a_constraint_is_refused_before_anything_is_done(scene, tail: str) -> None:
    with pytest.raises(InputError, match="cannot become a constraint"):
        scene.run(f"CREATE UNIQUE INDEX u ON core.bookings {tail};", attach_constraint=True)
    assert scene.indexes() == {}


# Care


def test_a_tiny_table_may_be_built_on_without_concurrently(scene) -> None:
    applied = scene.run(PLAN, allow_blocking=True)
    assert [("CONCURRENTLY" in item.statement) for item in applied.outcomes] == [False, False]
    assert all("CONCURRENTLY" in item.statement for item in scene.run(PLAN, execute=False).outcomes)


def test_a_blocking_build_does_not_queue_for_its_lock(scene) -> None:
    holder = scene.session(autocommit=False)
    holder.execute("UPDATE core.other SET id = 2")
    run = scene.start("CREATE INDEX b ON core.other (id);", allow_blocking=True)
    scene.eventually(scene.building)
    holder.rollback()
    applied = run.result()
    assert words(applied) == ["built"]
    assert "CONCURRENTLY" in applied.outcomes[0].statement


def test_a_large_table_is_never_built_on_without_concurrently(scene) -> None:
    scene.db.execute("INSERT INTO core.other SELECT generate_series(1, 50000)")
    applied = scene.run("CREATE INDEX b ON core.other (id);", allow_blocking=True)
    assert "CONCURRENTLY" in applied.outcomes[0].statement


def test_outside_of_the_window_nothing_begins(scene) -> None:
    now = datetime.now().astimezone()
    window = f"{(now.hour + 2) % 24:02}:00-{(now.hour + 3) % 24:02}:00"
    told: list[str] = []

    def stop(event: Event) -> None:
        if event.kind == "pause":
            told.append(event.detail)
            raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        scene.run(PLAN, window=window, on_event=stop)
    assert told[0].startswith(f"the window {window} opens in")
    assert scene.indexes() == {}


def test_what_the_disk_has_no_room_for_is_refused_before_anything_is_done(scene) -> None:
    with pytest.raises(TargetError, match="are to stay free"):
        scene.run(PLAN, min_free=1024**5)
    assert scene.indexes() == {}
    assert scene.run(PLAN, min_free=1024).complete


def test_the_size_is_estimated_before_it_begins(scene) -> None:
    scene.db.execute("INSERT INTO core.other SELECT generate_series(1, 50000); ANALYZE core.other")
    text = "CREATE INDEX b ON core.other (id);"
    foretold = scene.run(text, execute=False).estimate
    real = scene.run(text).outcomes[0].bytes
    assert 0.5 < foretold / real < 2


# The journal


def entries(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("event", ["start", "end"])
def test_an_event_trigger_that_refuses_is_named_as_what_it_may_be(scene, event: str) -> None:
    scene.db.execute(
        f"""
        CREATE FUNCTION core.no() RETURNS event_trigger LANGUAGE plpgsql
            AS $$ BEGIN RAISE EXCEPTION 'not on a Friday, 100%%'; END $$;
        CREATE EVENT TRIGGER no ON ddl_command_{event} WHEN TAG IN ('CREATE INDEX')
            EXECUTE FUNCTION core.no();
        """.encode()
    )
    applied = scene.run("CREATE INDEX i ON core.bookings (date);")
    assert words(applied) == ["failed"]
    assert "or an event trigger the statement" in applied.outcomes[0].error
    assert scene.indexes() == {}  # the one at the end comes before the index is valid for all


def test_a_materialized_view_gets_no_constraint_and_loses_what_a_run_built(scene) -> None:
    scene.db.execute("CREATE MATERIALIZED VIEW core.mv AS SELECT id FROM core.bookings")
    text = "CREATE UNIQUE INDEX u ON core.mv (id);"
    with pytest.raises(ApplyRefused, match="a materialized view has none"):
        scene.run(text, attach_constraint=True)
    applied = scene.run(text)
    assert words(applied) == ["built"]
    assert words(apply.rollback(scene.target, applied.outcomes, execute=True)) == ["dropped"]


def test_what_was_built_on_a_table_that_its_owner_may_not_read_is_taken_back(scene) -> None:
    user = f"blind_{scene.db.info.dbname}"
    scene.db.execute(
        f"""
        CREATE ROLE {user} LOGIN;
        GRANT ALL ON SCHEMA core TO {user};
        ALTER TABLE core.bookings OWNER TO {user};
        ALTER TABLE core.bookings FORCE ROW LEVEL SECURITY;
        ALTER TABLE core.bookings ENABLE ROW LEVEL SECURITY;
        ALTER ROLE {user} SET row_security = off;
        """.encode()
    )
    scene.target = target.resolve(make_conninfo(scene.conninfo, user=user), {})
    text = "CREATE INDEX e ON core.bookings ((id % 7)) WHERE id > 3;"
    applied = scene.run(text)
    assert words(applied) == ["built"]
    assert words(apply.rollback(scene.target, applied.outcomes, execute=True)) == ["dropped"]
    assert scene.indexes() == {}


def test_the_journal_tells_intent_and_outcome(scene, tmp_path: Path) -> None:
    path = tmp_path / "apply.journal"
    scene.run(PLAN, journal=path)
    assert [entry["event"] for entry in entries(path)] == [
        *("run", "intent", "outcome", "intent", "outcome", "end"),
    ]
    assert path.stat().st_mode & 0o077 == 0
    assert entries(path)[-1]["complete"] is True


def test_a_dry_run_keeps_no_journal(scene, tmp_path: Path) -> None:
    scene.run(PLAN, execute=False, journal=tmp_path / "apply.journal")
    assert list(tmp_path.iterdir()) == []


def test_a_journal_that_a_crash_has_cut_takes_the_run_back(scene, tmp_path: Path) -> None:
    path = tmp_path / "apply.journal"
    scene.run(PLAN, journal=path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:4]) + lines[4][:40])
    read = journal.outcomes(path, lambda fields: apply.Outcome(**fields))
    assert [(item.index, item.outcome) for item in read] == [
        ("core.a", "built"),
        ("core.b", "failed"),
    ]
    assert apply.rollback(scene.target, read, execute=True).complete
    assert scene.indexes() == {}
    scene.run(PLAN, journal=path)
    read = journal.outcomes(path, lambda fields: apply.Outcome(**fields))
    assert [item.outcome for item in read] == ["built", "failed", "built", "built"]


def test_a_journal_holds_names_with_any_character(scene, tmp_path: Path) -> None:
    path = tmp_path / "apply.journal"
    name = "lines\u2028 \u0085and\nmore"  # ends of lines to str.splitlines()
    scene.run(f'CREATE INDEX "{name}" ON core.bookings (date);', journal=path)
    read = journal.outcomes(path, lambda fields: apply.Outcome(**fields))
    assert [item.outcome for item in read] == ["built"]
    assert apply.rollback(scene.target, read, execute=True).complete
    assert scene.indexes() == {}


def test_a_journal_tells_a_part_once(scene, tmp_path: Path) -> None:
    path = tmp_path / "apply.journal"
    scene.db.execute("""
        CREATE TABLE core.parted (id int) PARTITION BY RANGE (id);
        CREATE TABLE core.low PARTITION OF core.parted FOR VALUES FROM (0) TO (9);
    """)
    scene.run("CREATE INDEX i ON core.parted (id);", journal=path)
    read = journal.outcomes(path, lambda fields: apply.Outcome(**fields))
    assert [(item.index, item.outcome) for item in read] == [
        ("core.low_i", "built"),
        ("core.i", "built"),
    ]


def test_a_journal_that_cannot_be_written_lets_nothing_begin(scene, small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(b"x" * (1024 * 1024 - 4096 * 8))
    with pytest.raises(OSError, match="No space"):
        (small_disk / "rest").write_bytes(b"x" * 1024 * 1024)
    from indexlab.errors import IncompleteError

    with pytest.raises(IncompleteError, match="nothing more is begun"):
        scene.run(PLAN, journal=small_disk / "apply.journal")
    assert scene.indexes() == {}


def test_two_jobs_write_one_journal(scene, tmp_path: Path) -> None:
    path = tmp_path / "apply.journal"
    applied = scene.run(PLAN, jobs=2, journal=path)
    read = journal.outcomes(path, lambda fields: apply.Outcome(**fields))
    assert {item.index for item in read} == {item.index for item in applied.outcomes}
    assert {item.outcome for item in read} == {"built"}
    assert threading.active_count() >= 1


def test_a_source_is_kept_in_the_journal_and_no_password(scene, tmp_path: Path) -> None:
    path = tmp_path / "apply.journal"
    scene.run(PLAN, journal=path)
    assert entries(path)[0]["target"] == scene.target.spec
    assert journal.target_of(path) == scene.target.spec
    assert plan.parse(PLAN).source in entries(path)[0]["source"]
