"""Plans applied to real servers; the scenes are told in SQL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import make_conninfo

from indexlab import apply, catalog, plan, target
from indexlab.apply import Applied, ApplyRefused, Event, journal, lock, sessions
from indexlab.errors import InputError, TargetError

if TYPE_CHECKING:
    from conftest import Scene

SOURCES = Path(apply.__file__).parents[2]

on_15_too = pytest.mark.parametrize(
    "apply_address",
    ["embedded_server", pytest.param("pg15_server", marks=pytest.mark.pg15)],
    indirect=True,
)


def outcomes(applied: Applied) -> list[str]:
    return [item.outcome for item in applied.outcomes]


def actions(steps: tuple[apply.Step, ...]) -> list[str]:
    return [item.action for item in steps]


TWO = """
-- the account page
CREATE INDEX idx_customer ON core.bookings (customer_id);
CREATE INDEX idx_status_date ON core.bookings (status, date DESC);
"""


@on_15_too
def test_what_is_absent_is_built(scene: Scene) -> None:
    applied = scene.run(TWO)
    assert outcomes(applied) == ["built", "built"]
    assert scene.indexes() == {"idx_customer": True, "idx_status_date": True}
    first = applied.outcomes[0]
    assert first.index == "core.idx_customer"
    assert first.statement.startswith("CREATE INDEX CONCURRENTLY idx_customer ON core.bookings")
    assert first.bytes > 0
    assert first.attempts == 1
    assert first.purpose == "the account page"
    assert first.definition.startswith("CREATE INDEX idx_customer ON core.bookings")
    assert first.undo == 'DROP INDEX CONCURRENTLY IF EXISTS "core"."idx_customer"'
    assert applied.complete
    assert applied.analyzed == ("core.bookings",)


def test_a_dry_run_changes_nothing(scene: Scene) -> None:
    applied = scene.run(TWO, execute=False)
    assert outcomes(applied) == ["dry_run", "dry_run"]
    assert not applied.executed
    assert applied.complete
    assert scene.indexes() == {}


@on_15_too
def test_a_second_run_finds_all_there(scene: Scene) -> None:
    text = """
    CREATE INDEX lowered ON core.bookings (lower(note));
    CREATE INDEX opened ON core.bookings (date) WHERE status IN ('open', 'held');
    CREATE UNIQUE INDEX numbered ON core.bookings (id) INCLUDE (status);
    CREATE INDEX patterned ON core.bookings (note text_pattern_ops DESC NULLS LAST) WITH (fillfactor = 80);
    CREATE INDEX collated ON core.bookings (note COLLATE "C");
    CREATE INDEX hashed ON core.bookings USING hash (status);
    CREATE INDEX texts ON core.bookings ((id::text), (md5(customer_id::text) || 'x'));
    CREATE INDEX ranged ON core.bookings USING brin (date) WITH (pages_per_range = 16);
    CREATE INDEX ON core.bookings (customer_id, (date + 1));
    COMMENT ON INDEX lowered IS 'it''s for the search';
    """
    assert set(outcomes(scene.run(text))) == {"built"}
    before = scene.indexes()
    again = scene.run(text)
    assert set(outcomes(again)) == {"exists"}
    assert again.complete
    assert scene.indexes() == before
    assert "bookings_customer_id_expr_idx" in before


def test_an_unnamed_index_that_exists_under_another_name_is_not_built_twice(scene: Scene) -> None:
    scene.db.execute("CREATE INDEX by_hand ON core.bookings (customer_id)")
    applied = scene.run(
        "CREATE INDEX ON core.bookings (customer_id); CREATE INDEX x ON core.bookings (customer_id);"
    )
    assert outcomes(applied) == ["exists", "exists"]
    assert "core.by_hand" in applied.outcomes[0].note
    assert scene.indexes() == {"by_hand": True}


def test_an_equal_index_that_the_plan_drops_does_not_stand_in(scene: Scene) -> None:
    scene.db.execute("CREATE INDEX old ON core.bookings (customer_id)")
    applied = scene.run("CREATE INDEX new ON core.bookings (customer_id); DROP INDEX core.old;")
    assert outcomes(applied) == ["built", "dropped"]
    assert scene.indexes() == {"new": True}


def test_a_plan_that_says_the_same_twice_builds_once(scene: Scene) -> None:
    applied = scene.run(
        "CREATE INDEX a ON core.bookings (date); CREATE INDEX b ON core.bookings (date);"
    )
    assert outcomes(applied) == ["built", "exists"]
    assert scene.indexes() == {"a": True}


def test_a_name_is_free_again_after_its_drop(scene: Scene) -> None:
    scene.db.execute("CREATE INDEX a ON core.bookings (date)")
    applied = scene.run("DROP INDEX core.a; CREATE INDEX a ON core.bookings (status);")
    assert outcomes(applied) == ["dropped", "built"]
    assert "(status)" in applied.outcomes[1].definition


@on_15_too
def test_an_invalid_leftover_is_dropped_and_built_again(scene: Scene) -> None:
    scene.leftover("CREATE UNIQUE INDEX CONCURRENTLY u ON core.bookings (customer_id)")
    scene.db.execute("UPDATE core.bookings SET customer_id = id")
    text = "CREATE UNIQUE INDEX u ON core.bookings (customer_id);"
    assert scene.indexes() == {"u": False}
    assert actions(scene.pending(text)) == ["rebuild"]
    assert outcomes(scene.run(text)) == ["built"]
    assert scene.indexes() == {"u": True}


@pytest.mark.parametrize(
    ("setup", "reason"),
    [
        ("CREATE INDEX taken ON core.bookings (date)", "Wanted: .*status.* There: .*date"),
        ("CREATE VIEW core.taken AS SELECT 1", "taken by a view"),
        ("CREATE INDEX taken ON core.other (id)", "another definition"),
    ],
)
def test_a_name_that_is_taken_is_refused_before_anything_is_done(
    scene: Scene, setup: str, reason: str
) -> None:
    scene.db.execute(setup.encode())
    before = scene.indexes()
    text = (
        "CREATE INDEX fine ON core.bookings (note); CREATE INDEX taken ON core.bookings (status);"
    )
    for execute in (True, False):
        with pytest.raises(ApplyRefused, match=f"(?s)core.taken: .*{reason}") as refused:
            scene.run(text, execute=execute)
        assert refused.value.exit_code == 2
    assert scene.indexes() == before


def test_all_refusals_are_told_at_once(scene: Scene) -> None:
    text = """CREATE INDEX a ON core.bookings (event_date);
    CREATE INDEX b ON core.nowhere (x);
    DROP INDEX core.absent;
    DROP INDEX core.bookings;"""
    with pytest.raises(ApplyRefused) as refused:
        scene.run(text)
    for part in (
        "column 'event_date'",
        "table 'core.nowhere'",
        "core.absent",
        "4 statements",
        "line 4",
    ):
        assert part in str(refused.value)


def test_what_only_the_build_can_refuse_ends_the_run(scene: Scene) -> None:
    applied = scene.run("CREATE INDEX c ON core.bookings ((status::date));")
    assert outcomes(applied) == ["failed"]
    assert "IMMUTABLE" in applied.outcomes[0].error


@on_15_too
def test_names_that_need_quotes(scene: Scene) -> None:
    scene.db.execute('''
        CREATE SCHEMA "Weird ""S""";
        CREATE TABLE "Weird ""S"""."Order" ("select" int, "Naïve col" text);
    ''')
    text = '''
    CREATE INDEX "My ""Idx""" ON "Weird ""S"""."Order" ("select", "Naïve col");
    COMMENT ON INDEX "My ""Idx""" IS 'back\\slash';
    '''
    applied = scene.run(text)
    assert outcomes(applied) == ["built", "built"]
    assert applied.outcomes[0].index == '"Weird ""S"""."My ""Idx"""'
    assert outcomes(scene.run(text)) == ["exists", "exists"]
    back = apply.rollback(scene.target, applied.outcomes, execute=True)
    assert outcomes(back)[-1] == "dropped"
    assert scene.indexes() == {}


def test_a_long_name_is_compared_as_the_server_cuts_it(scene: Scene) -> None:
    text = f"CREATE INDEX {'long_' * 20} ON core.bookings (date);"
    assert outcomes(scene.run(text)) == ["built"]
    assert outcomes(scene.run(text)) == ["exists"]


@on_15_too
def test_the_search_path_of_the_plan_is_heeded(scene: Scene) -> None:
    scene.db.execute("""
        CREATE SCHEMA app;
        CREATE FUNCTION app.twice(int) RETURNS int IMMUTABLE LANGUAGE sql RETURN $1 * 2;
    """)
    text = "SET search_path = app, core; CREATE INDEX t ON bookings (twice(id));"
    applied = scene.run(text)
    assert outcomes(applied) == ["built"]
    assert outcomes(scene.run(text)) == ["exists"]
    back = apply.rollback(scene.target, applied.outcomes, execute=True)
    assert outcomes(back) == ["dropped"]
    assert outcomes(apply.rollback(scene.target, back.outcomes, execute=True)) == ["built"]
    assert outcomes(scene.run(text + "DROP INDEX t")) == ["exists", "dropped"]
    assert outcomes(scene.run(text + "DROP INDEX t")) == ["built", "dropped"]


@on_15_too
def test_duplicates_leave_no_leftover_and_no_value_in_the_report(scene: Scene) -> None:
    scene.db.execute("UPDATE core.bookings SET note = 'secret@example.org' WHERE id < 3")
    events: list[Event] = []
    applied = scene.run(
        "CREATE UNIQUE INDEX u ON core.bookings (note); CREATE INDEX later ON core.bookings (date);",
        on_event=events.append,
    )
    assert outcomes(applied) == ["failed", "not_run"]
    assert applied.outcomes[0].attempts == 1
    assert "could not create unique index" in applied.outcomes[0].error
    assert not applied.complete
    assert not applied.interrupted
    assert scene.indexes() == {}
    assert "secret" not in repr(applied) + repr(events) + applied._repr_html_()


def test_a_row_that_the_expression_cannot_take_is_not_quoted(scene: Scene) -> None:
    scene.db.execute("UPDATE core.bookings SET note = 'secret' WHERE id = 3")
    applied = scene.run("CREATE INDEX n ON core.bookings ((note::int));")
    assert outcomes(applied) == ["failed"]
    assert "22P02" in applied.outcomes[0].error
    assert "secret" not in repr(applied)
    assert scene.indexes() == {}


@on_15_too
def test_a_build_names_the_session_that_it_waits_for_and_completes_after_it(scene: Scene) -> None:
    blocker = scene.session(autocommit=False, application_name="<b>report</b>")
    blocker.execute("UPDATE core.bookings SET status = 'held' WHERE id = 1")
    pid = blocker.info.backend_pid
    run = scene.start(TWO)
    try:
        scene.eventually(lambda: run.waits_for(pid))
    finally:
        blocker.rollback()
    applied = run.result()
    assert outcomes(applied) == ["built", "built"]
    assert (
        f"pid {pid} (<b>report</b> as postgres, idle in transaction"
        in applied.outcomes[0].waited_for[0]
    )
    assert "<b>" not in applied._repr_html_()
    told = [event for event in run.events if event.waiting_for]
    assert any(event.phase == "waiting for writers before build" for event in told)
    kinds = [event.kind for event in run.events if event.kind != "progress"]
    assert kinds == ["start", "end", "start", "end", "analyze"]
    assert "waits for pid" in str(told[0])


@on_15_too
def test_a_build_that_another_session_cancels_is_cleaned_up_and_not_tried_again(
    scene: Scene,
) -> None:
    blocker = scene.session(autocommit=False)
    blocker.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    blocker.execute("SELECT FROM core.other")
    run = scene.start(TWO)
    scene.eventually(scene.building)
    scene.db.execute("SELECT pg_cancel_backend(%s)", [scene.building()])
    applied = run.result()
    assert outcomes(applied) == ["failed", "not_run"]
    assert scene.indexes() == {}
    assert not applied.interrupted


@on_15_too
def test_a_lost_connection_is_tried_again_without_a_leftover(scene: Scene) -> None:
    blocker = scene.session(autocommit=False)
    blocker.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    blocker.execute("SELECT FROM core.other")
    run = scene.start(TWO)
    scene.eventually(scene.building)
    scene.db.execute("SELECT pg_terminate_backend(%s)", [scene.building()])
    scene.eventually(lambda: any(event.kind == "retry" for event in run.events))
    blocker.rollback()
    applied = run.result()
    assert outcomes(applied) == ["built", "built"]
    assert applied.outcomes[0].attempts == 2
    assert scene.indexes() == {"idx_customer": True, "idx_status_date": True}


def test_a_leftover_that_cannot_be_dropped_is_named(scene: Scene) -> None:
    blocker = scene.session(autocommit=False)
    blocker.execute("UPDATE core.bookings SET status = 'held' WHERE id = 1")
    run = scene.start(TWO, cleanup_wait=0.2)
    scene.eventually(scene.building)
    scene.db.execute("SELECT pg_cancel_backend(%s)", [scene.building()])
    applied = run.result()
    assert outcomes(applied) == ["failed", "not_run"]
    assert "the invalid index core.idx_customer is left" in applied.outcomes[0].error
    assert scene.indexes() == {"idx_customer": False}
    blocker.rollback()
    back = apply.rollback(scene.target, applied.outcomes, execute=True)
    assert outcomes(back) == ["dropped"]
    assert scene.indexes() == {}


CHILD = """
import sys
from indexlab import apply, plan, target
def told(event):
    print(event.kind, event.phase, flush=True)
applied = apply.run(target.resolve(sys.argv[1]), plan.parse(sys.argv[2]), execute=True, on_event=told)
print("outcomes", *(f"{o.outcome}:{o.error}" for o in applied.outcomes), applied.complete, applied.interrupted)
"""


@on_15_too
@pytest.mark.parametrize(
    "lock",
    [
        "SELECT FROM core.other",  # holds a snapshot only
        "UPDATE core.bookings SET status = 'held' WHERE id = 1",  # keeps the clean-up waiting, too
    ],
)
def test_ctrl_c_cancels_the_build_cleans_up_and_keeps_the_outcomes(scene: Scene, lock: str) -> None:
    blocker = scene.session(autocommit=False)
    blocker.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    blocker.execute(lock.encode())
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, scene.conninfo, TWO],
        env=os.environ | {"PYTHONPATH": str(SOURCES)},
        stdout=subprocess.PIPE,
        text=True,
    )
    scene.eventually(scene.building)
    child.send_signal(signal.SIGINT)
    scene.eventually(lambda: scene.building() is None)
    blocker.rollback()
    said, _ = child.communicate(timeout=60)
    assert (
        said.splitlines()[-1]
        == "outcomes failed:interrupted not_run:a step before it failed False True"
    )
    assert scene.indexes() == {}


@on_15_too
def test_a_second_ctrl_c_gives_the_clean_up_up_and_names_what_is_left(scene: Scene) -> None:
    blocker = scene.session(autocommit=False)
    blocker.execute("UPDATE core.bookings SET status = 'held' WHERE id = 1")
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, scene.conninfo, TWO],
        env=os.environ | {"PYTHONPATH": str(SOURCES)},
        stdout=subprocess.PIPE,
        text=True,
    )
    scene.eventually(scene.building)
    child.send_signal(signal.SIGINT)
    assert child.stdout is not None
    while "dropping the invalid leftover" not in child.stdout.readline():
        assert child.poll() is None
    child.send_signal(signal.SIGINT)
    said, _ = child.communicate(timeout=60)
    assert "the invalid index core.idx_customer is left" in said
    assert scene.indexes() == {"idx_customer": False}


def test_a_deadlock_is_tried_again(scene: Scene) -> None:
    name = scene.db.info.dbname
    scene.db.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '2s'".encode())
    other = scene.session(autocommit=False)
    other.execute("SET deadlock_timeout = '1min'")
    other.execute("UPDATE core.bookings SET status = 'held' WHERE id = 1")
    run = scene.start(TWO)
    scene.eventually(scene.building)
    other.execute("LOCK TABLE core.bookings IN SHARE UPDATE EXCLUSIVE MODE")
    other.rollback()
    applied = run.result()
    assert outcomes(applied) == ["built", "built"]
    assert applied.outcomes[0].attempts == 2
    assert any("deadlock" in event.detail for event in run.events if event.kind == "retry")


def test_ctrl_c_in_a_callback_sends_nothing_more(scene: Scene) -> None:
    def told(event: Event) -> None:
        if event.kind == "start":
            signal.raise_signal(signal.SIGINT)

    applied = scene.run(TWO, on_event=told)
    assert outcomes(applied) == ["failed", "not_run"]
    assert applied.interrupted
    assert applied.outcomes[0].error == "interrupted"
    assert scene.indexes() == {}


def test_a_callback_that_raises_ends_the_run_after_cleaning_up(scene: Scene) -> None:
    blocker = scene.session(autocommit=False)
    blocker.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    blocker.execute("SELECT FROM core.other")

    def told(event: Event) -> None:
        if event.kind == "progress":
            raise LookupError("display is gone")

    with pytest.raises(LookupError, match="display is gone"):
        scene.run(TWO, on_event=told)
    assert scene.indexes() == {}


def test_timeouts_of_the_role_do_not_reach_the_build(scene: Scene) -> None:
    scene.db.execute(
        """
        ALTER DATABASE {} SET statement_timeout = '100ms';
        ALTER DATABASE {} SET lock_timeout = '1ms';
        ALTER DATABASE {} SET default_transaction_read_only = on;
    """.replace("{}", scene.db.info.dbname).encode()
    )
    blocker = scene.session(autocommit=False)
    blocker.execute("SET TRANSACTION READ WRITE")
    blocker.execute("UPDATE core.bookings SET status = 'held' WHERE id = 1")
    run = scene.start(TWO, retries=0)
    try:
        scene.eventually(lambda: run.waits_for(blocker.info.backend_pid))
    finally:
        blocker.rollback()
    assert outcomes(run.result()) == ["built", "built"]


def test_a_table_lock_that_is_not_free_is_not_queued_for_but_tried_again(scene: Scene) -> None:
    blocker = scene.session(autocommit=False)
    blocker.execute("LOCK TABLE core.bookings IN SHARE UPDATE EXCLUSIVE MODE")
    run = scene.start(TWO, lock_wait=0.2)
    scene.eventually(lambda: any(event.kind == "retry" for event in run.events))
    blocker.rollback()
    applied = run.result()
    assert outcomes(applied) == ["built", "built"]
    assert applied.outcomes[0].attempts > 1
    assert "tries again" in next(e.detail for e in run.events if e.kind == "retry")


@on_15_too
def test_who_does_not_own_the_table_is_told_who_does(scene: Scene) -> None:
    role = f"guest_{scene.db.info.dbname}"
    scene.db.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA core TO {role}".encode())
    guest = target.resolve(make_conninfo(scene.conninfo, user=role))
    with pytest.raises(TargetError, match=f"belongs to 'postgres' and not to '{role}'") as refused:
        apply.run(guest, plan.parse(TWO), execute=True)
    assert refused.value.exit_code == 3
    scene.db.execute(f"ALTER TABLE core.bookings OWNER TO {role}".encode())
    with pytest.raises(TargetError, match="may not create anything in the schema 'core'"):
        apply.run(guest, plan.parse(TWO), execute=True)
    scene.db.execute(f"GRANT CREATE ON SCHEMA core TO {role}".encode())
    assert outcomes(apply.run(guest, plan.parse(TWO), execute=True)) == ["built", "built"]


def test_a_standby_and_a_corrupting_version_are_refused(scene: Scene) -> None:
    wanted = plan.parse(TWO + "DROP INDEX IF EXISTS core.absent;")
    read = catalog.read(scene.db, wanted)
    standby = replace(read, server=replace(read.server, standby=True))
    steps = apply.pending(standby, wanted)
    assert actions(steps) == ["refuse", "refuse", "skip"]
    assert "standby" in steps[0].reason
    for version, action in ((140003, "refuse"), (140004, "build")):
        old = replace(read, server=replace(read.server, version=version))
        assert actions(apply.pending(old, wanted))[0] == action


def test_two_handles_of_one_session_are_a_pooler(scene: Scene) -> None:
    one, other = scene.session(), scene.session()
    sessions.refuse_pooler(one, other)
    with pytest.raises(TargetError, match="pooler in transaction mode"):
        sessions.refuse_pooler(one, one)


def test_a_second_runner_waits_and_then_says_who_is_first(scene: Scene) -> None:
    first = scene.session(application_name="the first")
    first.execute("SELECT pg_advisory_lock(%s)", [lock.LOCK_KEY])
    with pytest.raises(TargetError, match="the first as postgres"):
        scene.run(TWO, runner_wait=0)
    assert outcomes(scene.run(TWO, execute=False)) == ["dry_run", "dry_run"]
    run = scene.start(TWO)
    scene.eventually(lambda: any(event.kind == "lock" for event in run.events))
    assert scene.indexes() == {}
    first.execute("SELECT pg_advisory_unlock(%s)", [lock.LOCK_KEY])
    assert outcomes(run.result()) == ["built", "built"]


def test_two_runs_at_once_build_each_index_once(scene: Scene) -> None:
    runs = [scene.start(TWO) for _ in range(2)]
    ended = sorted(outcomes(run.result()) for run in runs)
    assert ended == [["built", "built"], ["exists", "exists"]]


@on_15_too
def test_a_build_of_another_session_is_waited_for_and_adopted(scene: Scene) -> None:
    blocker = scene.session(autocommit=False)
    blocker.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    blocker.execute("SELECT FROM core.other")
    other = scene.session(application_name="migration tool")
    statement = b"CREATE INDEX CONCURRENTLY idx_customer ON core.bookings (customer_id)"
    builder = threading.Thread(target=other.execute, args=(statement,))
    builder.start()
    try:
        scene.eventually(scene.building)
        assert actions(scene.pending(TWO))[0] == "wait"
        assert outcomes(scene.run(TWO, execute=False)) == ["dry_run", "dry_run"]
        refused = scene.run(TWO, max_wait=0.2)
        assert outcomes(refused) == ["failed", "not_run"]
        assert "migration tool" in refused.outcomes[0].error
        run = scene.start(TWO)
        scene.eventually(lambda: run.waits_for(other.info.backend_pid))
    finally:
        blocker.rollback()
        builder.join(30)
    applied = run.result()
    assert outcomes(applied) == ["exists", "built"]
    assert "another session has built it" in applied.outcomes[0].note
    assert scene.indexes() == {"idx_customer": True, "idx_status_date": True}


@on_15_too
def test_an_index_that_must_stay_is_not_dropped(scene: Scene) -> None:
    scene.db.execute("""
        CREATE TABLE core.parent (a int NOT NULL, b int NOT NULL, CONSTRAINT ub UNIQUE (b));
        CREATE UNIQUE INDEX referred ON core.parent (a);
        CREATE TABLE core.child (a int REFERENCES core.parent (a));
        CREATE UNIQUE INDEX identity ON core.other (id);
        ALTER TABLE core.other ALTER id SET NOT NULL;
        ALTER TABLE core.other REPLICA IDENTITY USING INDEX identity;
        CREATE TABLE core.parted (id int) PARTITION BY RANGE (id);
        CREATE TABLE core.leaf PARTITION OF core.parted DEFAULT;
        CREATE INDEX parted_id ON core.parted (id);
        CREATE MATERIALIZED VIEW core.mv AS SELECT id FROM core.bookings;
        CREATE UNIQUE INDEX mv_id ON core.mv (id);
    """)
    reasons = {
        "bookings_pkey": "constraint 'bookings_pkey'",
        "ub": "constraint 'ub'",
        "referred": "foreign key",
        "identity": "replica identity",
        "leaf_id_idx": "attached to core.parted_id",
        "parted_id": "partitioned",
        "mv_id": "REFRESH MATERIALIZED VIEW CONCURRENTLY",
    }
    steps = scene.pending("".join(f"DROP INDEX core.{name};" for name in reasons))
    for step, reason in zip(steps, reasons.values(), strict=True):
        assert step.action == "refuse", step
        assert reason in step.reason
    with pytest.raises(ApplyRefused, match="it must stay"):
        scene.run("DROP INDEX IF EXISTS core.ub;")


@on_15_too
def test_rollback_drops_what_was_built_and_restores_what_was_dropped(scene: Scene) -> None:
    scene.db.execute("""
        CREATE INDEX was_there ON core.bookings (note) WHERE status = 'open';
        CREATE INDEX stays ON core.bookings (date);
        COMMENT ON INDEX core.stays IS 'before';
    """)
    applied = scene.run(
        TWO
        + """
        CREATE INDEX stays ON core.bookings (date);
        DROP INDEX core.was_there;
        DROP INDEX IF EXISTS core.never;
        COMMENT ON INDEX core.stays IS 'after';
    """
    )
    assert outcomes(applied) == ["built", "built", "exists", "dropped", "skipped", "built"]
    assert applied.outcomes[3].undo.startswith("CREATE INDEX CONCURRENTLY was_there")
    dry = apply.rollback(scene.target, applied.outcomes)
    assert outcomes(dry) == ["dry_run"] * 4
    assert set(scene.indexes()) == {"idx_customer", "idx_status_date", "stays"}
    back = apply.rollback(scene.target, applied.outcomes, execute=True)
    assert outcomes(back) == ["built", "built", "dropped", "dropped"]
    assert scene.indexes() == {"stays": True, "was_there": True}
    row = scene.db.execute("SELECT obj_description('core.stays'::regclass)").fetchone()
    assert row == ("before",)
    again = apply.rollback(scene.target, applied.outcomes, execute=True)
    assert outcomes(again) == ["exists", "exists", "skipped", "skipped"]


BELONGINGS = """
SELECT c.relname,
       pg_get_indexdef(c.oid),
       obj_description(c.oid, 'pg_class'),
       t.spcname,
       i.indisclustered,
       ARRAY(SELECT a.attname || ' ' || a.attstattarget
               FROM pg_attribute AS a
              WHERE a.attrelid = c.oid AND a.attstattarget >= 0)
  FROM pg_index AS i
  JOIN pg_class AS c ON c.oid = i.indexrelid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN pg_tablespace AS t ON t.oid = c.reltablespace
 WHERE n.nspname = 'core'
 ORDER BY c.relname
"""


@on_15_too
def test_a_dropped_index_comes_back_with_all_that_it_had(scene: Scene, tmp_path: Path) -> None:
    space = scene.db.info.dbname
    scene.db.execute("SET allow_in_place_tablespaces = on")
    scene.db.execute(f"CREATE TABLESPACE {space} LOCATION ''".encode())
    scene.db.execute(
        f"""
        CREATE INDEX far ON core.bookings (note) WITH (fillfactor = 60) TABLESPACE {space}
         WHERE status = 'open';
        COMMENT ON INDEX core.far IS 'it''s 100 % "needed"';
        CREATE INDEX "in %s order" ON core.bookings (date);
        ALTER TABLE core.bookings CLUSTER ON "in %s order";
        CREATE INDEX finely ON core.bookings (lower(note), id);
        ALTER INDEX core.finely ALTER COLUMN 1 SET STATISTICS 700;
        CREATE INDEX twin ON core.bookings (customer_id);
        CREATE INDEX twin_too ON core.bookings (customer_id);
        """.encode()
    )
    before = scene.db.execute(BELONGINGS).fetchall()
    path = tmp_path / "apply.journal"
    drops = ("far", '"in %s order"', "finely", "twin")
    applied = scene.run("".join(f"DROP INDEX core.{name};" for name in drops), journal=path)
    assert outcomes(applied) == ["dropped"] * 4
    told = journal.outcomes(path, lambda fields: apply.Outcome(**fields))
    # Killed when the index stood again, and what it had beside was not given back yet:
    scene.run(f"{applied.outcomes[0].undo};")
    assert apply.rollback(scene.target, told, execute=True).complete
    assert scene.db.execute(BELONGINGS).fetchall() == before
    scene.db.execute("DROP INDEX core.far")
    scene.db.execute(f"DROP TABLESPACE {space}".encode())


def test_rollback_leaves_alone_what_was_changed_since(scene: Scene) -> None:
    applied = scene.run(TWO)
    scene.db.execute("""
        DROP INDEX core.idx_customer;
        CREATE INDEX idx_customer ON core.bookings (customer_id, id);
    """)
    back = apply.rollback(scene.target, applied.outcomes, execute=True)
    assert outcomes(back) == ["dropped", "skipped"]
    assert "no longer what was built" in back.outcomes[1].note
    assert scene.indexes() == {"idx_customer": True}


def test_expression_indexes_are_analyzed_even_when_others_are_not(scene: Scene) -> None:
    assert scene.run(TWO, analyze=False).analyzed == ()
    applied = scene.run("CREATE INDEX e ON core.bookings ((id % 7));", analyze=False)
    assert applied.analyzed == ("core.bookings",)
    row = scene.db.execute("SELECT count(*) FROM pg_stats WHERE tablename = 'e'").fetchone()
    assert row == (1,)


def test_a_materialized_view_and_an_unlogged_table_are_fine(scene: Scene) -> None:
    scene.db.execute("""
        CREATE MATERIALIZED VIEW core.mv AS SELECT id FROM core.bookings;
        CREATE UNLOGGED TABLE core.fast (id int);
    """)
    text = "CREATE INDEX m ON core.mv (id); CREATE INDEX f ON core.fast (id);"
    assert outcomes(scene.run(text)) == ["built", "built"]
    assert outcomes(scene.run(text)) == ["exists", "exists"]


def test_results_show_themselves(scene: Scene) -> None:
    applied = scene.run(TWO)
    frame = applied.frame()
    assert list(frame["outcome"]) == ["built", "built"]
    assert applied.headline == "2 built"
    assert "core.idx_customer" in applied._repr_html_()
    assert applied.built == applied.outcomes


def test_settings_below_zero_are_refused(scene: Scene) -> None:
    with pytest.raises(InputError, match="retries is -1"):
        scene.run(TWO, retries=-1)
