"""An investigation as its notebook makes it: on the demo, and on a database without a plan."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import indexlab
from indexlab import Lab, plan
from indexlab.benchmark import Measurement
from indexlab.display import Note
from indexlab.errors import InputError
from indexlab.impact import Trial
from indexlab.lab import Costs, Explained
from indexlab.statements import Statements
from indexlab.target import Target

DEMO = "demo:2000"
JOIN = """
SELECT count(*)
  FROM core.bookings AS b
  JOIN core.customers AS c ON c.id = b.customer_id
 WHERE b.guests = 77
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with indexlab.open_lab("explore", DEMO) as lab:
        yield lab


def test_where_nobody_counts_the_workload_is_ranked_by_cost(lab: Lab) -> None:
    found = lab.slowest()
    assert isinstance(found, Costs)
    costs = list(found.frame()["cost_times_weight"])
    assert costs == sorted(costs, reverse=True)
    assert len(costs) == len(lab.workload.queries)
    assert found.frame()["share"].sum() == pytest.approx(1)
    assert "pg_stat_statements" in found.reason


def test_the_costliest_query_is_explained_with_times(lab: Lab) -> None:
    found = lab.explain()
    assert isinstance(found, Explained)
    assert found.query == lab.slowest().frame()["query"][0]
    assert found.explain is not None
    assert found.explain.execution_ms is not None
    assert "executed once" in found.notes[0]


def test_a_plan_that_was_asked_for_is_not_folded_away(lab: Lab) -> None:
    shown = lab.explain("pending_badge")._repr_html_()
    assert "<details open>" in shown
    assert 'class="il-fold"' not in shown


def test_what_a_verb_tells_ends_with_it(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(lab._progress, "_tell", lambda text, _part: told.append(text))
    lab._read = None
    nothing = lab.try_index(query="SELECT 1 FROM core.stations WHERE id = 1")
    assert isinstance(nothing, Note)
    assert told[0] == "reading the catalog"
    assert told[-1] == ""


def test_without_analyze_and_for_a_write_nothing_is_executed(lab: Lab) -> None:
    for found in (lab.explain("pending_badge", analyze=False), lab.explain("change_status")):
        assert isinstance(found, Explained)
        assert found.explain is not None
        assert found.explain.execution_ms is None
        assert "planned, not run" in found.notes[0]


def test_a_query_that_takes_too_long_is_given_up_and_planned(lab: Lab) -> None:
    found = lab.explain("SELECT pg_sleep(5)", statement_timeout=0.05)
    assert isinstance(found, Explained)
    assert found.explain is not None
    assert found.explain.execution_ms is None
    assert found.notes[0] == "It was given up after 50 ms."


def test_sql_that_writes_in_disguise_writes_nothing(lab: Lab) -> None:
    with psycopg.connect(lab.target.conninfo, autocommit=True) as conn:
        conn.execute(
            "CREATE OR REPLACE FUNCTION public.sly() RETURNS void LANGUAGE sql AS "
            "'DELETE FROM core.payments'"
        )
        before = conn.execute("SELECT count(*) FROM core.payments").fetchone()
        found = lab.explain("SELECT public.sly()")
        assert conn.execute("SELECT count(*) FROM core.payments").fetchone() == before
    assert isinstance(found, Explained)
    assert "read-only" in " ".join(found.notes)


def test_an_unknown_name_is_told_with_those_there_are(lab: Lab) -> None:
    with pytest.raises(InputError, match="there is no query 'nope': there are customer_history"):
        lab.explain("nope")


def test_what_the_target_refuses_is_a_sentence(lab: Lab) -> None:
    found = lab.explain("SELECT nothing FROM core.nowhere")
    assert isinstance(found, Explained)
    assert found.explain is None
    assert "does not plan it" in found.notes[-1]
    assert found.frame().empty


def test_the_plan_is_tried_where_no_index_is_named(lab: Lab) -> None:
    trial = lab.try_index(query="pending_badge")
    assert isinstance(trial, Trial)
    assert trial.used == ("core.idx_bookings_status",)
    assert [text.split(" USING")[0] for text in trial.kept] == [
        "CREATE INDEX CONCURRENTLY idx_bookings_status ON core.bookings"
    ]


def test_a_query_beside_the_workload_finds_its_tables_in_the_sandbox(lab: Lab) -> None:
    trial = lab.try_index("CREATE INDEX g ON core.bookings (guests)", JOIN)
    assert isinstance(trial, Trial)
    assert trial.used == ("core.g",)


def test_a_table_without_planned_indexes_has_none_to_try(lab: Lab) -> None:
    found = lab.try_index(query="SELECT * FROM core.stations WHERE city = 'Cork'")
    assert "No index was named" in repr(found)


def test_one_query_is_timed(lab: Lab) -> None:
    found = lab.time("pending_badge", seconds=0.2)
    assert isinstance(found, Measurement)
    assert [series.query for series in found.series] == ["pending_badge"]


def test_what_convinced_is_kept_with_its_reason_and_once(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "plan.sql"
    trial = lab.try_index(query="pending_badge")
    lab.keep(trial, to=str(path))
    (kept,) = plan.read(path).creates
    assert "pending_badge: cost" in kept.reason
    before = path.read_text()
    lab.keep("CREATE INDEX other ON bookings (status)", "again", to=str(path))
    assert path.read_text() == before
    lab.keep("CREATE INDEX ON bookings (event_date)", "names are put right", to=str(path))
    assert plan.read(path).creates[1].index.columns == ("date",)


def test_what_did_not_convince_is_not_kept(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "plan.sql"
    trial = lab.try_index("CREATE INDEX u ON core.bookings (updated_at)", "pending_badge")
    assert isinstance(trial, Trial)
    assert "would not use" in repr(lab.keep(trial, to=str(path)))
    assert "Nothing was tried" in repr(lab.keep(Note.words("nothing"), to=str(path)))
    assert "say in which plan file" in repr(lab.keep("CREATE INDEX ON core.bookings (guests)"))
    with pytest.raises(InputError, match="nowhere"):
        lab.keep("CREATE INDEX ON core.nowhere (x)", to=str(path))
    assert not path.exists()


@pytest.fixture(params=["embedded_server", "pg15_server"])
def own(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database of one's own, of which only a name is known; gone afterwards."""
    server = request.getfixturevalue(request.param)
    name = f"explored by ü {request.param}"
    with psycopg.connect(server.conninfo("postgres"), autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
        with psycopg.connect(server.conninfo(name), autocommit=True) as conn:
            conn.execute("CREATE TABLE orders (id int PRIMARY KEY, customer int)")
            conn.execute("INSERT INTO orders SELECT n, n % 50 FROM generate_series(1, 20000) AS n")
            conn.execute("ANALYZE orders")
        yield server.conninfo(name)
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def test_without_plan_and_workload_there_is_still_sql_to_look_at(own: str) -> None:
    with indexlab.open_lab("explore", own) as lab:
        found = lab.slowest()
        assert isinstance(found, Statements)
        assert found.recorded == ()
        assert "There is no query to look at" in repr(lab.explain())
        query = "SELECT * FROM orders WHERE customer = 7"
        assert isinstance(lab.explain(query), Explained)
        trial = lab.try_index("CREATE INDEX c ON orders (customer)", query)
        assert isinstance(trial, Trial)
        assert trial.used == ("public.c",)
        own_sampler = "-- param c: SELECT 7\nSELECT * FROM orders WHERE customer = :c"
        timed = lab.time(own_sampler, seconds=0.2)
        assert isinstance(timed, Measurement)


def test_what_the_target_has_run_is_the_workload(
    session: psycopg.Connection, database: Target
) -> None:
    session.execute("CREATE EXTENSION pg_stat_statements")
    session.execute("SELECT pg_stat_statements_reset()")
    session.execute("CREATE TABLE orders (id int PRIMARY KEY, customer int)")
    session.execute("INSERT INTO orders SELECT n, n % 500 FROM generate_series(1, 20000) AS n")
    session.execute("ANALYZE orders")
    session.execute("SELECT * FROM orders WHERE customer = 7")
    session.execute("SELECT * FROM orders WHERE id > 5 AND interval '1 day' > interval '2 days'")
    with indexlab.open_lab("explore", database.conninfo) as lab:
        found = lab.slowest()
        assert isinstance(found, Statements)
        names = {one.text.split(" WHERE ")[-1]: one.name for one in found.recorded}
        name = names["customer = $1"]
        planned = lab.explain(name)
        assert isinstance(planned, Explained)
        assert "planned for any values" in planned.notes[0]
        assert "there are no values to time it with" in repr(lab.time(name))
        trial = lab.try_index("CREATE INDEX c ON orders (customer)", name)
        assert isinstance(trial, Trial)
        assert trial.used == ("public.c",)
        assert trial.query == name
        (other,) = {one.name for one in found.recorded if "interval" in one.text}
        refused = lab.explain(other)
        assert isinstance(refused, Explained)
        assert "does not plan it: syntax error" in refused.notes[0]


def test_the_plan_of_any_values_is_told_before_16_too(pg15_server) -> None:
    from indexlab import explain

    with psycopg.connect(pg15_server.conninfo(), autocommit=True) as conn:
        found = explain.run_generic(conn, "SELECT * FROM pg_class WHERE oid = $1", 1)
        assert found.root.conditions[0][1] == "(pg_class.oid = $1)"
        assert conn.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
