"""Indexes on partitioned tables, made part by part on real servers."""

from __future__ import annotations

import threading

import psycopg
import pytest

from indexlab import apply
from indexlab.apply import ApplyRefused
from indexlab.errors import InputError

TREE = '''
CREATE TABLE core.events (id int, region text, at date, note text) PARTITION BY LIST (region);
CREATE TABLE core."north ""x""" PARTITION OF core.events FOR VALUES IN ('n');
CREATE TABLE core.south PARTITION OF core.events FOR VALUES IN ('s') PARTITION BY RANGE (at);
CREATE TABLE core.south_old (note text, at date, region text, gone int, id int);
ALTER TABLE core.south_old DROP COLUMN gone;
ALTER TABLE core.south ATTACH PARTITION core.south_old FOR VALUES FROM (MINVALUE) TO ('2026-01-01');
CREATE TABLE core.south_new PARTITION OF core.south FOR VALUES FROM ('2026-01-01') TO (MAXVALUE);
INSERT INTO core.events
SELECT n, CASE n % 2 WHEN 0 THEN 'n' ELSE 's' END, date '2025-12-01' + n % 60, 'note ' || n
  FROM generate_series(1, 600) AS n;
'''
EVENTS = "CREATE INDEX events_at ON core.events (at DESC, lower(note)) WHERE id > 5;"
DEPTH = """
SELECT c.relname, i.indisvalid, h.inhparent::regclass::text
  FROM pg_index AS i
  JOIN pg_class AS c ON c.oid = i.indexrelid
  LEFT JOIN pg_inherits AS h ON h.inhrelid = i.indexrelid
 WHERE c.relname LIKE %s
 ORDER BY c.relname
"""


def words(applied: apply.Applied) -> list[str]:
    return [item.outcome for item in applied.outcomes]


def tree(scene, pattern: str = "%events_at%") -> dict[str, tuple[bool, str | None]]:
    rows = scene.db.execute(DEPTH, [pattern]).fetchall()
    return {name: (valid, parent) for name, valid, parent in rows}


@pytest.fixture
def events(scene):
    scene.db.execute(TREE)
    return scene


def test_an_index_is_built_on_every_partition_and_ends_valid(events) -> None:
    applied = events.run(EVENTS)
    assert words(applied)[-1] == "built", applied
    assert applied.complete
    assert tree(events) == {
        "events_at": (True, None),
        'north "x"_events_at': (True, "core.events_at"),
        "south_events_at": (True, "core.events_at"),
        "south_new_events_at": (True, "core.south_events_at"),
        "south_old_events_at": (True, "core.south_events_at"),
    }
    statements = [item.statement for item in applied.outcomes if item.outcome == "built"]
    assert sum("CONCURRENTLY" in text for text in statements) == 3
    (whole,) = applied.built
    parts = [item for item in applied.outcomes if item.part_of == "core.events_at"]
    assert whole.index == "core.events_at"
    assert whole.bytes == sum(item.bytes for item in parts) > 0
    assert words(events.run(EVENTS)) == ["exists"]
    assert words(events.run(EVENTS, execute=False)) == ["exists"]


def test_rollback_of_a_tree_leaves_nothing_of_it(events) -> None:
    applied = events.run(EVENTS)
    back = apply.rollback(events.target, applied.outcomes, execute=True)
    assert back.complete, back
    assert tree(events) == {}
    assert apply.rollback(events.target, applied.outcomes, execute=True).complete


def test_equal_indexes_of_partitions_are_adopted_and_come_back_with_a_rollback(events) -> None:
    events.db.execute("CREATE INDEX by_hand ON core.south_old (at)")
    events.db.execute("COMMENT ON INDEX core.by_hand IS 'ours'")
    events.db.execute("CREATE INDEX backwards ON core.south_new (at DESC)")
    applied = events.run("CREATE INDEX events_day ON core.events (at);")
    assert applied.complete, applied
    found = tree(events, "%")
    assert found["by_hand"] == (True, "core.south_events_day")
    assert found["backwards"] == (True, None)
    assert "south_old_events_day" not in found
    back = apply.rollback(events.target, applied.outcomes, execute=True)
    assert back.complete, back
    left = {name for name in tree(events, "%") if "day" in name or name in ("by_hand", "backwards")}
    assert left == {"by_hand", "backwards"}
    row = events.db.execute("SELECT obj_description('core.by_hand'::regclass)").fetchone()
    assert row == ("ours",)


def test_a_half_attached_tree_is_finished(events) -> None:
    events.db.execute(
        "CREATE INDEX events_at ON ONLY core.events (at DESC, lower(note)) WHERE id > 5"
    )
    events.db.execute('CREATE INDEX n ON core."north ""x""" (at DESC, lower(note)) WHERE id > 5')
    events.db.execute("ALTER INDEX core.events_at ATTACH PARTITION core.n")
    assert not tree(events)["events_at"][0]
    assert events.run(EVENTS).complete
    assert all(valid for valid, _ in tree(events).values())
    assert tree(events, "n")["n"] == (True, "core.events_at")


def test_an_invalid_leftover_on_a_partition_is_built_again(events) -> None:
    events.db.execute("UPDATE core.events SET id = 7 WHERE id IN (9, 11)")
    text = "CREATE UNIQUE INDEX events_id ON core.events (id, region, at);"
    events.db.execute("UPDATE core.events SET at = '2025-12-05' WHERE id = 7")
    failed = events.run(text)
    assert words(failed)[-1] == "failed"
    assert "could not create unique index" in failed.outcomes[-1].error
    assert not tree(events, "events_id")["events_id"][0]
    events.db.execute("UPDATE core.events SET id = 700 + extract(day FROM at)::int WHERE false")
    events.db.execute("DELETE FROM core.events WHERE id = 7")
    with pytest.raises(psycopg.errors.UniqueViolation):
        events.db.execute(
            "INSERT INTO core.south_old (id, region, at) VALUES (1, 's', '2025-12-02'), (1, 's', '2025-12-02')"
        )
        events.db.execute(
            "CREATE UNIQUE INDEX CONCURRENTLY south_old_events_id ON core.south_old (id, region, at)"
        )
    events.db.execute("DELETE FROM core.south_old WHERE note IS NULL")
    assert tree(events, "south_old_events_id")["south_old_events_id"] == (False, None)
    assert events.run(text).complete
    assert all(valid for valid, _ in tree(events, "%events_id").values())


def test_a_unique_index_needs_the_partition_key(events) -> None:
    with pytest.raises(ApplyRefused, match="must contain its partition key: region is not among"):
        events.run("CREATE UNIQUE INDEX u ON core.events (id, at);")


def test_a_constraint_of_a_partitioned_table_is_refused(events) -> None:
    with pytest.raises(InputError, match="cannot become a constraint"):
        events.run("CREATE UNIQUE INDEX u ON core.events (id, region, at);", attach_constraint=True)


def test_a_partition_that_is_created_meanwhile_gets_its_index(events) -> None:
    blocker = events.session(autocommit=False)
    blocker.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    blocker.execute("SELECT FROM core.other")
    made = threading.Event()

    def told(event: apply.Event) -> None:
        if event.waiting_for and not made.is_set():
            made.set()
            events.db.execute("CREATE TABLE core.west PARTITION OF core.events FOR VALUES IN ('w')")
            events.db.execute("INSERT INTO core.events VALUES (1000, 'w', '2026-01-01', 'w')")
            blocker.rollback()

    assert events.run(EVENTS, on_event=told).complete
    assert made.is_set()
    found = tree(events, "%")
    assert found["events_at"] == (True, None)
    assert [parent for name, (_, parent) in found.items() if name.startswith("west")] == [
        "core.events_at"
    ]


class Writer:
    """Inserts into a partition without a pause, from a session of its own."""

    def __init__(self, scene) -> None:
        self.conn = scene.session(options="-c lock_timeout=1s", application_name="writer")
        self.writes = 0
        self.error: psycopg.Error | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self.conn.execute("INSERT INTO core.events VALUES (2001, 'n', '2026-01-01', 'x')")
                self.writes += 1
        except psycopg.Error as error:
            self.error = error


BEHIND_THE_KIT = """
SELECT count(*)
  FROM pg_stat_activity AS w
  JOIN pg_stat_activity AS k ON k.pid = ANY (pg_blocking_pids(w.pid))
 WHERE w.application_name = 'writer'
   AND k.application_name = 'indexlab apply'
   AND k.wait_event_type = 'Lock'
"""


def test_a_writer_behind_a_lock_that_is_queued_for_is_let_through_soon(events) -> None:
    """The parent's lock keeps writers out: it is queued for only for a moment, and tried again."""
    holder = events.session(autocommit=False)
    holder.execute("INSERT INTO core.events VALUES (2000, 'n', '2026-01-01', 'x')")
    with Writer(events) as writer:
        events.eventually(lambda: writer.writes)
        run = events.start(EVENTS)
        seen = 0
        while seen < 3:
            events.eventually(lambda: events.db.execute(BEHIND_THE_KIT).fetchone() == (1,))
            before = writer.writes
            events.eventually(lambda before=before: writer.writes > before)
            assert tree(events) == {}, "the lock was granted beside a writer that held its own"
            seen += 1
        holder.rollback()
        assert run.result().complete
    assert writer.error is None, "a writer waited a second for a lock that the kit queued for"
    assert all(valid for valid, _ in tree(events).values())


def test_leaves_are_built_side_by_side(events) -> None:
    blocker = events.session(autocommit=False)
    blocker.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    blocker.execute("SELECT FROM core.other")
    run = events.start("CREATE INDEX events_day ON core.events (at);", jobs=3)
    building = "SELECT array_agg(DISTINCT relid::regclass::text) FROM pg_stat_progress_create_index"
    events.eventually(lambda: len(events.db.execute(building).fetchone()[0] or ()) == 3)
    blocker.rollback()
    applied = run.result()
    assert applied.complete, applied
    assert words(applied).count("built") == 5
    assert all(valid for valid, _ in tree(events, "%events_day").values())
    back = apply.rollback(events.target, applied.outcomes, execute=True)
    assert back.complete, back
    assert tree(events, "%events_day") == {}


def test_leaves_that_were_built_when_another_failed_are_used_by_the_rerun(events) -> None:
    events.db.execute("UPDATE core.events SET note = NULL WHERE region = 'n' AND id = 300")
    text = "CREATE INDEX events_bad ON core.events ((1 / length(coalesce(note, ''))), at);"
    failed = events.run(text, jobs=3)
    assert words(failed)[-1] == "failed"
    assert "a row does not fit the index" in failed.outcomes[-1].error
    standing = tree(events, "%events_bad")
    assert standing["events_bad"][0] is False
    assert 'north "x"_events_bad' not in standing
    events.db.execute("UPDATE core.events SET note = 'n' WHERE note IS NULL")
    again = events.run(text, jobs=3)
    assert again.complete, again
    found = tree(events, "%events_bad")
    assert len(found) == 5
    assert all(valid for valid, _ in found.values())


def test_an_index_that_the_plan_drops_is_not_adopted(events) -> None:
    events.db.execute("CREATE INDEX by_hand ON core.south_old (at)")
    text = "CREATE INDEX events_day ON core.events (at); DROP INDEX core.by_hand;"
    applied = events.run(text)
    assert applied.complete, applied
    assert words(applied)[-1] == "dropped"
    found = tree(events, "%")
    assert "by_hand" not in found
    assert found["south_old_events_day"] == (True, "core.south_events_day")
    assert found["events_day"] == (True, None)
    assert apply.rollback(events.target, applied.outcomes, execute=True).complete
    assert events.indexes() == {"by_hand": True}


FOREIGN = """
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER far FOREIGN DATA WRAPPER nowhere;
CREATE FOREIGN TABLE core.abroad PARTITION OF core.events FOR VALUES IN ('a') SERVER far;
"""


@pytest.mark.parametrize(
    "apply_address",
    ["embedded_server", pytest.param("pg15_server", marks=pytest.mark.pg15)],
    indirect=True,
)
def test_a_foreign_partition_is_refused_since_the_parent_would_never_be_valid(events) -> None:
    events.db.execute(FOREIGN)
    text = "CREATE INDEX events_day ON core.events (at);"
    with pytest.raises(ApplyRefused, match=r"its partition core\.abroad cannot have an index"):
        events.run(text)
    with pytest.raises(ApplyRefused, match=r"core\.abroad cannot enforce it"):
        events.run("CREATE UNIQUE INDEX u ON core.events (id, region, at);")
    assert events.indexes() == {}
    # So it is on this server: all that can be attached is, and the parent stays invalid.
    events.db.execute("CREATE INDEX events_day ON ONLY core.events (at)")
    with pytest.raises(psycopg.errors.WrongObjectType):
        events.db.execute("CREATE INDEX abroad_at ON core.abroad (at)")
    for table in ('core."north ""x"""', "core.south"):
        events.db.execute(f"CREATE INDEX a{len(table)} ON {table} (at)".encode())
        events.db.execute(
            f"ALTER INDEX core.events_day ATTACH PARTITION core.a{len(table)}".encode()
        )
    assert tree(events, "events_day") == {"events_day": (False, None)}
    # And so it is with the way that the refusal names.
    events.db.execute("DROP INDEX core.events_day CASCADE")
    events.run(
        'CREATE INDEX n_at ON core."north ""x""" (at); CREATE INDEX s_at ON core.south (at);'
    )
    events.db.execute(text.encode())
    found = tree(events, "%")
    assert found["events_day"] == (True, None)
    assert (found["n_at"][1], found["s_at"][1]) == ("core.events_day", "core.events_day")
