"""Every public result shows itself: a table for notebooks, short words elsewhere, a DataFrame."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import indexlab
from indexlab import (
    apply,
    audit,
    benchmark,
    embedded,
    lab,
    plan,
    records,
    runs,
    starter,
    statements,
)
from indexlab import workload as workloads
from indexlab.apply import Event, Session, Settings, Window
from indexlab.catalog import Unresolved
from indexlab.cli import terminal
from indexlab.desk import Desk
from indexlab.matrix import Matrix, Row
from indexlab.records import Record
from indexlab.sandbox import Lacking
from indexlab.statements import Recorded
from indexlab.target import connect, resolve

PACKAGES = (
    *("apply", "audit", "benchmark", "catalog", "charts", "desk", "embedded", "explain", "impact"),
    *("lab", "plan", "planning", "runs", "sandbox", "starter", "statements", "target", "workload"),
)
NO_RESULTS = ("Sandbox", "HypoPG")
"""Open connections, not what came of something."""
HOSTILE = '<img src=x onerror="alert(1)">\x1b[31m\u202e</script>'
LONGEST = 6000
PLAN = """
-- the desk
CREATE INDEX of_guests ON core.bookings (guests) INCLUDE (status);
-- indexlab: ignore unnamed because it is short
CREATE INDEX ON core.bookings USING btree (lower(note) COLLATE "C" text_pattern_ops);
DROP INDEX CONCURRENTLY core.idx_bookings_station_date_slot;
COMMENT ON INDEX core.of_guests IS 'x';
ANALYZE core.bookings;
CREATE INDEX nonsense ON core.nowhere (x);
"""


def public() -> dict[str, type]:
    """Find the dataclasses that the packages hand out."""
    found: dict[str, type] = {}
    for package in PACKAGES:
        module = importlib.import_module(f"indexlab.{package}")
        names = getattr(module, "__all__", None) or [
            name for name, value in vars(module).items() if inspect.isclass(value)
        ]
        for name in names:
            value = getattr(module, name)
            if (
                dataclasses.is_dataclass(value)
                and isinstance(value, type)
                and value.__module__.startswith(f"indexlab.{package}")
                and not name.startswith("_")
                and name not in NO_RESULTS
            ):
                found[f"{package}.{name}"] = value
    return found


PUBLIC = public()


def within(value: object, seen: dict[type, Any]) -> dict[type, Any]:
    """Collect an instance of each class that a result is made of."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        seen.setdefault(type(value), value)
        for part in dataclasses.fields(value):
            within(getattr(value, part.name), seen)
    elif isinstance(value, tuple | list):
        for item in value:
            within(item, seen)
    elif isinstance(value, dict):
        for item in value.values():
            within(item, seen)
    return seen


def results(place: Path) -> Iterator[object]:
    """Make the results of every stage, on the demo."""
    with indexlab.open_lab("explore", "demo:2000", out=str(place / "run")) as demo:
        yield demo
        yield from (demo.target, demo.server, demo.plan, demo.workload, demo.run)
        yield from (demo.slowest(), demo.explain("pending_badge"), demo._ruled()[0])
        trial = demo.try_index(query="pending_badge")
        yield from (trial, demo.keep(trial, to=str(place / "plan.sql")))
        judged = demo.audit()
        yield from (judged, demo.impact(), demo.worth(), demo._judged()[1], demo.apply())
        measured = [demo.benchmark(mode="one side", budget=0.5, precision=0.3) for _ in range(2)]
        comparison = benchmark.compare(*measured, indexes=["idx_bookings_status"])
        yield from (*measured, comparison, benchmark.price(comparison, *measured))
        yield benchmark.gain(comparison, comparison.reads)
        yield benchmark.scaling([1000, 2000], [(measured[0], measured[1])] * 2)
        with connect(demo.target) as conn:
            yield workloads.sample(conn, demo.workload)
            steps = apply.pending(demo._ruled()[0], judged.revised)
            yield steps
        yield judged.statements
        yield demo.load("clients=1 seconds=1")
        yield lab.read_inputs("demo:2000", "", "")
    writers = benchmark.Writers(50.0, 1.0, ((-0.5, 1.0), (0.5, 3.0), (1.5, 2.0)), 0, 0.0, 12)
    yield from (writers, writers.phases, benchmark.Settings())
    yield from (benchmark.Failure("q", "syntax"), Desk(Path("notebooks"), ("audit",)))
    yield plan.parse(PLAN, "hostile.sql")
    yield from (Settings.parse("jobs=2"), Window.parse("22:00-05:00"))
    yield from (Lacking("table x", "it is remote"), starter.examples(), Unresolved("table", "x"))
    yield lab.Batch(Matrix((Row("shop", "ok"),)), "reports/night")
    one = Recorded("select_t", "SELECT $1", 2, 3.0, 0.5, 2, 2)
    yield statements.Statements((one,), since="2026-06-30 10:00 UTC", hidden=1)


SCHEMA = """
CREATE SCHEMA core;
CREATE TABLE core.bookings (id int PRIMARY KEY, guests int, status text, note text);
CREATE INDEX idx_bookings_station_date_slot ON core.bookings (status, guests);
INSERT INTO core.bookings SELECT n, n % 5, 'open', 'x' FROM generate_series(1, 2000) AS n;
"""


def built(server: embedded.Server) -> Iterator[object]:
    """Make what only a target that may be changed gives."""
    server.create_database("records")
    target = resolve(server.conninfo("records"), {})
    wanted = plan.parse(PLAN.partition("CREATE INDEX nonsense")[0])
    with connect(target) as conn:
        conn.execute(SCHEMA)
        snapshot, found = audit.read(conn, wanted)
        yield from (snapshot, found, audit.place(found.statements[0], found.findings[0]))
    events: list[Event] = []
    yield apply.run(target, found.revised, Settings(), execute=True, on_event=events.append)
    yield from events
    yield from (server, embedded.Recipe(), Session(1, "psql", "ada", "active", 2.0))
    server.drop_database("records")


@pytest.fixture(scope="module")
def instances(
    tmp_path_factory: pytest.TempPathFactory, embedded_server: embedded.Server
) -> dict[type, Any]:
    seen: dict[type, Any] = {}
    for result in (*results(tmp_path_factory.mktemp("records")), *built(embedded_server)):
        within(result, seen)
    return seen


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_result_is_a_record(name: str) -> None:
    wanted = ("_repr_html_", "frame", "__repr__")
    assert [part for part in wanted if not callable(getattr(PUBLIC[name], part, None))] == []
    assert issubclass(PUBLIC[name], Record)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_real_one_is_shown_in_every_way(name: str, instances: dict[type, Any]) -> None:
    assert PUBLIC[name] in instances, "no result of the stages holds one: make it above"
    shown = instances[PUBLIC[name]]
    page, words = shown._repr_html_(), repr(shown)
    assert page.strip().startswith("<")
    assert 0 < len(words) <= LONGEST
    assert " object at 0x" not in words + page
    frame = shown.frame()
    assert isinstance(frame, pd.DataFrame)
    told = set(re.findall(r"`(\w+)`", inspect.getdoc(type(shown).frame) or ""))
    fields = {part.name for part in dataclasses.fields(shown)}
    values = set(shown.query.parameters) if name == "workload.SampledQuery" else set()
    assert set(frame.columns) <= told | fields | values


def test_a_frame_names_its_units(instances: dict[type, Any]) -> None:
    for kind, units in (
        (benchmark.Measurement, "milliseconds"),
        (benchmark.Price, "milliseconds"),
        (type(instances[starter.Draft]), "bytes"),
        (runs.Run, "bytes"),
        (statements.Statements, "milliseconds"),
    ):
        assert units in (inspect.getdoc(kind.frame) or "") + (inspect.getdoc(Record.frame) or "")


def test_a_password_is_in_no_display() -> None:
    target = resolve("postgresql://u:geheim123@h/db", {})
    shown = target._repr_html_() + repr(target) + target.frame().to_string()
    assert "geheim123" not in shown
    assert "postgresql://u@h/db" in shown


def test_hostile_words_are_text_in_every_display() -> None:
    written = HOSTILE.replace('"', '""')
    wanted = plan.parse(
        f'-- {HOSTILE.splitlines()[0]}\nCREATE INDEX "{written}" ON core."{written}" (x)'
    )
    work = workloads.parse(f'-- name: {HOSTILE}\nSELECT 1 AS "{written}"')
    one = Recorded(HOSTILE, f"SELECT '{HOSTILE}'", 1, 1.0, 1.0, 1, 1)
    for shown in (
        *(wanted, wanted.creates[0], wanted.creates[0].index, work, work.queries[0]),
        *(one, statements.Statements((one,)), workloads.SampledQuery(work.queries[0], ((),))),
        *(starter.Draft(queries=(HOSTILE,)), benchmark.Failure(HOSTILE, HOSTILE)),
    ):
        page = shown._repr_html_()
        assert "<img" not in page
        assert "</script>" not in page
        assert not {"\x1b", "\u202e"} & set(page)
        assert "&lt;img" in page


def test_text_is_safe_for_a_terminal() -> None:
    work = workloads.parse(f"-- name: {HOSTILE}\nSELECT 1")
    one = Recorded(HOSTILE, "SELECT 1", 1, 1.0, 1.0, 1, 1)
    for shown in (work, workloads.SampledQuery(work.queries[0], ()), statements.Statements((one,))):
        assert not {"\x1b", "\u202e"} & set(repr(shown))


def test_the_examples_of_the_docstrings_hold() -> None:
    for module in (records, terminal):
        tested = doctest.testmod(module)
        assert (tested.failed, tested.attempted > 0) == (0, True)


def test_a_long_table_is_cut_in_text_and_says_where_the_rest_is() -> None:
    queries = "".join(f"-- name: q{n}\nSELECT {n};\n" for n in range(50))
    assert "and 30 more: see .frame()" in repr(workloads.parse(queries))
    assert len(workloads.parse(queries).frame()) == 50
