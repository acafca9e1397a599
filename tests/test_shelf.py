"""The shelf of runs: cards, the index over all of them, and making room."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from indexlab import render, runs
from indexlab.errors import InputError
from indexlab.runs import Run, cards, shelf

HOSTILE = "<img src=x onerror=alert(1)>\u202e\x1b[31m"
TARGET = {
    "spec": "service=shop",
    "version_text": "18.1",
    "database": "shop",
    "host": "db.example",
    "port": 5432,
}
STEP = {
    "statement": "CREATE INDEX i ON t (a)",
    "index": "core.i",
    "outcome": "built",
    "seconds": 1.0,
    "bytes": 8192,
    "undo": "DROP INDEX CONCURRENTLY core.i",
}


def _statement(verdict: str, index: str = "i") -> dict[str, Any]:
    return {"index": index, "qualified": f"core.{index}", "line": 1, "verdict": verdict}


def _audit(*verdicts: str, **target: object) -> dict[str, Any]:
    return {"target": TARGET | target, "statements": [_statement(word) for word in verdicts]}


def _apply(*steps: dict[str, Any], executed: bool = True, complete: bool = True) -> dict[str, Any]:
    return {"target": TARGET, "executed": executed, "complete": complete, "steps": list(steps)}


def _benchmark(
    medians: dict[str, tuple[float, float]], started: str = "2026-06-30T10:00:00+00:00"
) -> dict[str, Any]:
    """What a comparison leaves: medians before and after by query."""
    changes = [
        {
            "query": query,
            "before_ms": before,
            "after_ms": after,
            "verdict": "faster" if after < before else "slower",
        }
        for query, (before, after) in medians.items()
    ]
    sums = [sum(pair[side] for pair in medians.values()) for side in (0, 1)]
    return {
        "target": TARGET,
        "started": started,
        "queries": [{"query": query, "p50_ms": pair[1]} for query, pair in medians.items()],
        "changes": changes,
        "headline": {
            "before_ms": sums[0],
            "after_ms": sums[1],
            "ratio": sums[0] / sums[1],
            "queries": list(medians),
        },
    }


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "reports"
    path.mkdir()
    return path


@pytest.fixture
def kept(place: Path) -> Callable[..., Run]:
    """Keep a run under a name: `kept("one", audit={...}, benchmark={...})`."""

    def keep(name: str, **documents: dict[str, Any]) -> Run:
        run = Run.create(place / name, "audit")
        for stage, document in documents.items():
            run.write_json(stage, document)
        return run

    return keep


def _days(kept: Callable[..., Run], number: int, **documents: dict[str, Any]) -> None:
    for day in range(1, number + 1):
        started = f"2026-06-{day:02}T10:00:00+00:00"
        kept(f"run-{day}", **documents, benchmark=_benchmark({"q": (8.0, day)}, started))


# Cards


def test_a_card_says_what_came_of_a_run(kept: Callable[..., Run]) -> None:
    run = kept(
        "one",
        audit=_audit("build", "fix", "fix"),
        apply=_apply(STEP, STEP | {"outcome": "exists", "undo": ""}),
        benchmark=_benchmark({"a": (300.0, 8.0), "b": (390.0, 8.0)}),
    )
    card = cards.read(run)
    assert (card.target, card.server, card.verdict) == ("service=shop", "PostgreSQL 18.1", "faster")
    assert card.headline == "690 ms → 16.0 ms (43.1x faster) over 2 queries; 1 index built"
    assert card.verdicts == (("build", 1), ("fix", 2))
    assert [(t.query, t.before_ms, t.after_ms) for t in card.timings] == [
        ("a", 300.0, 8.0),
        ("b", 390.0, 8.0),
    ]
    assert card.started == "2026-06-30T10:00:00+00:00"


@pytest.mark.parametrize(
    ("documents", "verdict"),
    [
        ({"audit": _audit("build")}, "audited"),
        ({"audit": _audit("build", "ask")}, "ask"),
        ({"audit": _audit("build"), "apply": _apply(executed=False)}, "dry_run"),
        ({"apply": _apply(STEP)}, "built"),
        ({"apply": _apply(STEP, complete=False)}, "failed"),
        ({"benchmark": _benchmark({"q": (1.0, 2.0)})}, "slower"),
        (
            {"apply": _apply(STEP), "rollback": _apply(STEP | {"outcome": "dropped"})},
            "rolled back",
        ),
        ({"batch": {"targets": [{"status": "ok"}, {"status": "failed"}]}}, "failed"),
        ({"batch": {"targets": [{"status": "ok"}]}}, "done"),
    ],
)
def test_the_gravest_word_stands_for_a_run(
    kept: Callable[..., Run], documents: dict[str, Any], verdict: str
) -> None:
    assert cards.read(kept("one", **documents)).verdict == verdict


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("demo:20000", "demo:20000"),
        ("service=shop", "service=shop"),
        ("env", "shop on db.example:5432"),
        ("postgresql://ann@db.example/shop", "shop on db.example:5432"),
    ],
)
def test_a_target_is_named_by_what_stays_the_same(
    kept: Callable[..., Run], spec: str, name: str
) -> None:
    assert cards.read(kept("one", audit=_audit("build", spec=spec))).target == name


def test_a_card_is_made_again_when_a_stage_joins_its_run(kept: Callable[..., Run]) -> None:
    run = kept("one", audit=_audit("build"))
    assert cards.keep(run).verdict == "audited"
    run.write_json("apply", _apply(STEP))
    assert cards.read(run).verdict == "built"
    assert cards.keep(run).stages == ("audit", "apply")
    assert json.loads((run.path / "card.json").read_text())["verdict"] == "built"


def test_a_broken_card_is_made_again(kept: Callable[..., Run]) -> None:
    run = kept("one", audit=_audit("build"))
    cards.keep(run)
    for text in ("{", "[]", '{"format": 1}', '{"format": 1, "made_of": {}}'):
        (run.path / "card.json").write_text(text)
        assert cards.read(run).verdict == "audited"


# The shelf


def test_what_is_no_run_is_named_and_harms_nothing(kept: Callable[..., Run], place: Path) -> None:
    kept("good", audit=_audit("build"))
    kept("torn").write("audit.json", '{"format": 1, "targ')
    kept("later").write("audit.json", '{"format": 99}')
    kept("strange", audit={"target": 7, "statements": [None]})
    (place / "notes").mkdir()
    (place / "notes" / "plan.json").write_text("{}")
    (place / ".hidden").mkdir()
    (place / "file.json").write_text("{}")
    found = shelf.read(place)
    assert [one.name for one in found.places] == ["good"]
    reasons = {one.name: one.reason for one in found.strangers}
    assert reasons.keys() == {"torn", "later", "strange", "notes"}
    assert reasons["torn"] == "audit.json: is not JSON"
    assert reasons["later"] == "audit.json: has format 99; this version reads format 1"
    assert reasons["notes"] == "holds no result of a run"
    assert "not as this version writes it" in reasons["strange"]


def test_a_shelf_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert shelf.read(tmp_path / "none").places == ()


def test_trends_are_by_target_and_query_and_by_time(kept: Callable[..., Run], place: Path) -> None:
    _days(kept, 3)
    kept("other", audit=_audit("build", spec="service=other"))
    found = shelf.read(place)
    assert found.targets() == ("service=other", "service=shop")
    trend = found.trend("service=shop")
    assert [(place.name, timing.after_ms) for place, timing in trend["q"]] == [
        ("run-1", 1),
        ("run-2", 2),
        ("run-3", 3),
    ]
    assert found.trend("service=other") == {}


# The page


def test_the_page_has_every_run_with_its_trend(kept: Callable[..., Run], place: Path) -> None:
    _days(kept, 3, audit=_audit("build"))
    Run(place / "run-3").write("index.html", "<p>")
    page = render.index(place).read_text()
    assert 'href="./run-3/index.html"' in page
    assert 'href="./run-1' not in page
    assert page.index("run-3") < page.index("run-2") < page.index("run-1")
    assert page.count("<circle") == 6
    assert "Median latency of q over 6 measurements: 8.00 ms before, 2026-06-01 10:00" in page
    assert "default-src 'none'" in page
    assert stat.S_IMODE((place / "index.html").stat().st_mode) == 0o600


def test_hostile_names_are_text_on_the_page(kept: Callable[..., Run], place: Path) -> None:
    audit = _audit("build", spec=f"service={HOSTILE}")
    kept("a b<i>#?%", audit=audit, benchmark=_benchmark({HOSTILE: (2.0, 1.0)}))
    Run(place / "a b<i>#?%").write("index.html", "<p>")
    (place / "<script>").mkdir()
    page = render.index(place).read_text()
    for tag in ("<img", "<i>", "\u202e", "\x1b"):
        assert tag not in page
    assert page.count("<script") == 1  # the page's own
    assert 'href="./a%20b%3Ci%3E%23%3F%25/index.html"' in page
    assert "&lt;script&gt;" in page


def test_a_page_of_somebody_else_is_not_overwritten(kept: Callable[..., Run], place: Path) -> None:
    kept("one", audit=_audit("build"))
    (place / "index.html").write_text("<h1>Mine</h1>")
    with pytest.raises(InputError, match="is no index of runs, and is not overwritten"):
        render.index(place)
    assert (place / "index.html").read_text() == "<h1>Mine</h1>"


def test_an_index_is_written_anew(kept: Callable[..., Run], place: Path) -> None:
    render.index(place)
    assert "No runs yet" in (place / "index.html").read_text()
    kept("one", audit=_audit("build"))
    assert "one" in render.index(place).read_text()
    assert (place / "one" / "card.json").exists()


# Making room


def test_the_last_runs_stay(kept: Callable[..., Run], place: Path) -> None:
    _days(kept, 4)
    found = shelf.read(place)
    fates = shelf.outdated(found, 2)
    assert [(fate.place.name, fate.reason) for fate in fates] == [("run-2", ""), ("run-1", "")]
    assert [gone.name for gone in shelf.remove(found, fates)] == ["run-2", "run-1"]
    assert sorted(path.name for path in place.iterdir()) == ["run-3", "run-4"]


def test_what_a_rollback_needs_stays_unless_it_is_asked_for(
    kept: Callable[..., Run], place: Path
) -> None:
    kept("built", apply=_apply(STEP))
    kept("dry", apply=_apply(STEP | {"undo": ""}, executed=False))
    kept("nothing", apply=_apply(STEP | {"outcome": "exists", "undo": ""}))
    kept("back", apply=_apply(STEP), rollback=_apply(STEP | {"outcome": "dropped"}))
    kept("half back", apply=_apply(STEP), rollback=_apply(STEP, complete=False))
    kept("killed", audit=_audit("build")).write("apply.journal", "{}\n")
    kept("torn", audit=_audit("build")).write("apply.json", "{")
    found = shelf.read(place)
    reasons = {fate.place.name: fate.reason for fate in shelf.outdated(found, 0)}
    assert {name for name, reason in reasons.items() if not reason} == {"dry", "nothing", "back"}
    assert reasons["built"] == "rollback needs it: it changed 1 index"
    assert reasons["killed"] == "rollback needs it: it was cut off while it applied"
    asked = {fate.place.name: fate.reason for fate in shelf.outdated(found, 0, applied=True)}
    assert set(asked.values()) == {""}
    assert "torn" not in asked  # what cannot be read is no run, and is never deleted


def test_a_run_in_progress_stays(kept: Callable[..., Run], place: Path) -> None:
    run = kept("one", audit=_audit("build"))
    found = shelf.read(place)
    fates = shelf.outdated(found, 0)
    with runs.held(run.path):
        assert shelf.read(place).places[0].working
        assert shelf.outdated(found, 0)[0].reason == "it is in progress"
        assert shelf.remove(found, fates) == ()  # it began after the look
    assert run.path.is_dir()
    assert not shelf.read(place).places[0].working


def test_a_link_to_a_run_is_never_followed(
    kept: Callable[..., Run], place: Path, tmp_path: Path
) -> None:
    kept("one", audit=_audit("build")).path.rename(tmp_path / "elsewhere")
    (place / "link").symlink_to(tmp_path / "elsewhere")
    found = shelf.read(place)
    (fate,) = shelf.outdated(found, 0)
    assert fate.reason == "it is a link to another place"
    assert shelf.remove(found, (fate,)) == ()
    assert (tmp_path / "elsewhere" / "audit.json").exists()


def test_a_negative_number_is_refused(place: Path) -> None:
    with pytest.raises(InputError, match="--prune -1 is not a number"):
        shelf.outdated(shelf.read(place), -1)


# Holding


def test_a_held_directory_is_refused_to_another_process(tmp_path: Path) -> None:
    with runs.held(tmp_path / "run"):
        assert runs.is_held(tmp_path / "run")
        program = (
            "import sys; from pathlib import Path; from indexlab import runs\n"
            "with runs.held(Path(sys.argv[1])): pass"
        )
        other = [sys.executable, "-c", program, str(tmp_path / "run")]
        done = subprocess.run(other, capture_output=True, text=True, check=False)
        assert "another run works in" in done.stderr
    assert not runs.is_held(tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    def hold() -> None:
        with runs.held(tmp_path / "run"):
            os._exit(1)

    process = multiprocessing.get_context("fork").Process(target=hold)
    process.start()
    process.join(30)
    assert (tmp_path / "run" / ".lock").exists()
    assert not runs.is_held(tmp_path / "run")
    with runs.held(tmp_path / "run"):
        assert runs.is_held(tmp_path / "run")


def test_who_waits_comes_next(tmp_path: Path) -> None:
    order: list[int] = []

    def work(number: int) -> None:
        with runs.held(tmp_path, wait=True):
            order.append(number)
            order.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert order[::2] == order[1::2]
    assert sorted(order[::2]) == list(range(8))


# The command


@pytest.fixture
def reports(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "indexlab", "reports", *arguments],
            cwd=tmp_path,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_reports_makes_the_index_and_says_what_is_there(
    kept: Callable[..., Run], place: Path, reports: Callable[..., Any]
) -> None:
    _days(kept, 2)
    (place / "notes").mkdir()
    done = reports()
    assert done.returncode == 0, done.stderr
    assert "2026-06-02 10:00  run-2" in done.stdout
    assert "not a run: notes: holds no result of a run" in done.stdout
    assert done.stdout.endswith("index: reports/index.html\n")
    assert (place / "index.html").exists()


def test_reports_prunes_and_says_what_goes(
    kept: Callable[..., Run], place: Path, reports: Callable[..., Any]
) -> None:
    _days(kept, 3)
    kept("applied", apply=_apply(STEP), benchmark=_benchmark({"q": (2.0, 1.0)}, "2026-01-01"))
    assert "would go: run-2" in reports("--prune", "1", "--dry-run").stdout
    assert (place / "run-2").exists()
    done = reports("--prune", "1")
    assert done.stdout.startswith(
        "gone: run-2\ngone: run-1\nstays: applied: rollback needs it: it changed 1 index\n"
    )
    told = json.loads(reports("--prune", "1", "--applied", "--format", "json").stdout)
    assert told["pruned"] == [{"name": "applied", "gone": True, "reason": ""}]
    assert [one["name"] for one in told["runs"]] == ["run-3"]
    assert "applied" not in (place / "index.html").read_text()


def test_reports_opens_the_index(
    kept: Callable[..., Run], place: Path, tmp_path: Path, reports: Callable[..., Any]
) -> None:
    kept("one", audit=_audit("build"))
    browser = tmp_path / "browser"
    browser.write_text('#!/bin/sh\necho "$1" >opened\n')
    browser.chmod(0o755)
    assert reports("--open", BROWSER=f"{browser} %s").returncode == 0
    opened = (tmp_path / "opened").read_text().strip()
    assert opened == (place / "index.html").resolve().as_uri()


def test_where_no_browser_opens_the_place_of_the_index_is_told(
    kept: Callable[..., Run], tmp_path: Path, reports: Callable[..., Any]
) -> None:
    kept("one", audit=_audit("build"))
    (tmp_path / "bin").mkdir()
    bare = {"BROWSER": "", "DISPLAY": "", "WAYLAND_DISPLAY": "", "PATH": str(tmp_path / "bin")}
    done = reports("--open", **bare)
    assert done.returncode == 0
    assert "no browser can be opened here: open reports/index.html" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "there is no directory 'nowhere'"),
        (("--dry-run",), "--applied and --dry-run say how to prune"),
    ],
)
def test_reports_refuses_what_makes_no_sense(
    place: Path, reports: Callable[..., Any], arguments: tuple[str, ...], message: str
) -> None:
    done = reports(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


# In a browser


@pytest.fixture
def index_page(kept: Callable[..., Run], place: Path) -> Path:
    """The index over forty runs of two targets, one of which is markup, and a stranger."""
    for number in range(40):
        spec = "service=shop" if number % 2 else f"service={HOSTILE}"
        started = f"2026-{1 + number % 12:02}-11T10:00:00+00:00"
        medians = {"a query": (600.0 / (1 + number), 9.0 + number), HOSTILE: (2.0, 1.0)}
        run = kept(f"run-{number:02}", audit=_audit("build", "fix", spec=spec))
        run.write_json(
            "benchmark",
            _benchmark(medians, started) | {"target": TARGET | {"spec": spec}},
        )
        run.write("index.html", "<!DOCTYPE html><title>one run</title>")
    (place / "<script>alert(1)").mkdir()
    return render.index(place)


@pytest.mark.chromium
@pytest.mark.parametrize(("dark", "width"), [(False, 1280), (True, 1280), (False, 390)])
def test_the_index_keeps_quiet_and_lets_everybody_in(
    index_page: Path, opened: Callable[..., Any], *, dark: bool, width: int
) -> None:
    seen = opened(index_page, dark=dark, width=width)
    assert seen.console == []
    assert seen.requests == [index_page.resolve().as_uri()]
    assert seen.problems() == ""
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.chromium
def test_the_index_is_sorted_and_filtered_by_keyboard(
    index_page: Path, opened: Callable[..., Any]
) -> None:
    page = opened(index_page).page
    runs = page.locator("#runs ~ .wide")
    names = "td:nth-child(3)"
    newest = runs.locator(names).all_inner_texts()
    runs.locator("th button").nth(2).press("Enter")
    assert runs.locator(names).all_inner_texts() == sorted(newest)
    page.locator("#runs ~ .filter input").first.fill("run-07")
    shown = [text for text in runs.locator(names).all_inner_texts() if text]
    assert "run-07" in shown
    assert runs.locator("tbody tr:visible").count() == 1


@pytest.mark.chromium
def test_the_index_leads_to_its_runs_and_its_trends(
    index_page: Path, opened: Callable[..., Any]
) -> None:
    page = opened(index_page).page
    trends = page.locator(".il-trend")
    assert trends.count() == 4
    assert "Median latency of a query over 40 measurements" in str(
        trends.nth(1).get_attribute("aria-label")
    )
    page.locator("nav.contents a").nth(1).click()
    assert page.url.endswith("#trend-1")
    page.locator("#runs ~ .wide a").first.click()
    assert page.title() == "one run"
