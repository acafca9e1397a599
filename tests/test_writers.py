"""Writers beside builds: a real load by pgbench on a real server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from indexlab import charts, lab, workload
from indexlab.benchmark import Writers, writers
from indexlab.errors import InputError, TargetError

WORK = """
-- name: set_status
-- param id: SELECT id FROM core.bookings ORDER BY id LIMIT 20
UPDATE core.bookings SET status = 'written' WHERE id = :id;
-- name: count_all
SELECT count(*) FROM core.bookings;
"""
SEEN = Writers(
    rate=100,
    seconds=2.0,
    points=((-1.0, 1.0), (-0.5, 3.0), (0.0, 2.0), (1.9, 8.0), (2.0, 1.5)),
    late=0,
    longest_wait=0.0,
    looks=50,
)


def sampled(scene, text: str = WORK) -> tuple[workload.SampledQuery, ...]:
    return workload.sample(scene.db, workload.parse(text))


def test_a_write_counts_where_it_was_scheduled() -> None:
    assert [(item.phase, item.done, item.max_ms) for item in SEEN.phases] == [
        ("before", 2, 3.0),
        ("while", 2, 8.0),
        ("after", 1, 1.5),
    ]
    assert "No writer was seen waiting" in SEEN._repr_html_()
    chart = charts.writing(SEEN)
    assert chart.title == "Writers' p99 while indexes were built: 7.94 ms, 2.98 ms before"
    assert charts.writing(Writers(1, 1.0, (), 0, 0.0, 0)).title.startswith("No writes")


def test_writers_write_before_while_and_after_and_change_no_row(scene) -> None:
    with writers.beside(scene.target, sampled(scene), rate=200, around=0.5) as beside:
        beside.begin()
        applied = scene.run("CREATE INDEX a ON core.bookings (date);")
        beside.end()
    assert applied.complete
    assert beside.result is not None
    assert {"before", "after"} <= {item.phase for item in beside.result.phases}
    assert (beside.result.late, beside.result.trouble) == (0, "")
    assert beside.result.looks > 0
    written = "SELECT count(*) FROM core.bookings WHERE status = 'written'"
    assert scene.db.execute(written).fetchone() == (0,)


def test_a_wait_for_a_lock_of_the_kit_is_seen(scene) -> None:
    with writers.beside(scene.target, sampled(scene), rate=200, around=0.3) as beside:
        beside.begin()
        with scene.session(application_name="indexlab apply", autocommit=False) as kit:
            kit.execute("LOCK TABLE core.bookings IN SHARE MODE")
            waiting = (
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                "AND application_name = 'indexlab writers' AND query_start < now() - interval '0.2 s'"
            )
            scene.eventually(lambda: scene.db.execute(waiting).fetchone() != (0,))
        beside.end()
    assert beside.result is not None
    assert beside.result.longest_wait > 0.1
    assert "The longest wait of a writer" in beside.result.waits


def test_a_write_that_fails_lets_nothing_begin(scene) -> None:
    text = (
        "-- name: bad\n-- param id: SELECT 1\nUPDATE core.bookings SET id = 1 / (:id::int - 1);\n"
    )
    with (
        pytest.raises(TargetError, match=r"the writers have stopped: .*division by zero"),
        writers.beside(scene.target, sampled(scene, text), rate=50, around=0.5),
    ):
        pytest.fail("something was begun")


@pytest.mark.parametrize(
    ("text", "disposable", "reason"),
    [
        (WORK, False, "on a disposable target only"),
        ("-- name: r\nSELECT 1;", True, "the workload has no writes"),
    ],
)
def test_writers_are_refused_before_anything_is_done(
    scene, text: str, disposable: bool, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        writers.check(10, sampled(scene, text), disposable=disposable)


def test_the_lab_keeps_and_shows_what_writers_saw(scene, tmp_path: Path) -> None:
    (tmp_path / "plan.sql").write_text("CREATE INDEX a ON core.bookings (date);")
    (tmp_path / "work.sql").write_text(WORK)
    files = (str(tmp_path / "plan.sql"), str(tmp_path / "work.sql"))
    out = str(tmp_path / "run")
    options = {"what_if": "off", "tell": lambda *_: None}
    with lab.open_lab("apply", scene.conninfo, *files, **options) as one:
        with pytest.raises(InputError, match="disposable target"):
            one.apply(execute=True, settings="watch_writers=100")
        assert scene.indexes() == {}
        assert "No writers" in one.writers(one.apply())._repr_html_()
    with lab.open_lab("apply", scene.conninfo, *files, out, disposable=True, **options) as one:
        applied = one.apply(execute=True, settings="watch_writers=100")
        assert "the build" in one.writers(applied)._repr_html_()
        assert "p99" in one.writing(applied).title
    kept = json.loads((tmp_path / "run" / "writers.json").read_text())
    assert kept["format"] == 1
    assert kept["rate"] == 100
    assert len(kept["points"]) == sum(item["done"] for item in kept["phases"])
