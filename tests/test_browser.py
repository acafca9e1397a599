"""The pages of a run in a real browser: what they show, how they behave, and that they keep quiet."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from indexlab import display, embedded, units
from indexlab.render import frame

if TYPE_CHECKING:
    from conftest import Opened

    Look = Callable[..., Opened]

pytestmark = pytest.mark.chromium

PAGES = ("index", "audit", "apply", "benchmark")
MOST_BYTES = 1_500_000
HOSTILE = "<img src=x onerror=alert(1)>"
CLOSING = "</script><script>alert(1)</script>"
ESCAPES = "\x1b[31mred \u202egnp.exe"


def _run(where: Path, *arguments: str) -> Path:
    """Make a run by the command, in a process of its own: a browser and a kernel do not mix."""
    done = subprocess.run(
        [sys.executable, "-m", "indexlab", "run", *arguments, "--execute", "--out", "run"],
        cwd=where,
        env=os.environ | {"INDEXLAB_DEMO_ROWS": "20000"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return where / "run"


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the demo."""
    return _run(tmp_path_factory.mktemp("story"), "--target", "demo:20000", "--budget", "2")


@pytest.fixture(scope="module")
def hostile(embedded_server: embedded.Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a database whose names, values, queries and comments are markup."""
    place = tmp_path_factory.mktemp("hostile")
    embedded_server.create_database("hostile")
    with psycopg.connect(embedded_server.conninfo("hostile"), autocommit=True) as conn:
        conn.execute(f'CREATE TABLE "{HOSTILE}" ("<b>" text, "{CLOSING}" int)')
        conn.execute(
            f'INSERT INTO "{HOSTILE}" SELECT %s || n, n FROM generate_series(1, 20000) AS n',
            [f"{CLOSING}{ESCAPES}"],
        )
        conn.execute(f'VACUUM ANALYZE "{HOSTILE}"')
    (place / "plan.sql").write_text(
        f"-- because {HOSTILE} {CLOSING} {ESCAPES}\n"
        f'CREATE INDEX "{HOSTILE}i" ON "{HOSTILE}" ("<b>");\n'
    )
    (place / "workload.sql").write_text(
        "-- name: found\n"
        f'-- param v: SELECT "<b>" FROM "{HOSTILE}" ORDER BY 1 LIMIT 20\n'
        f'SELECT "{CLOSING}" FROM "{HOSTILE}" WHERE "<b>" = :v AND "<b>" <> \'{CLOSING}{ESCAPES}\';\n'
    )
    inputs = ("--plan", "plan.sql", "--workload", "workload.sql", "--disposable")
    target = embedded_server.conninfo("hostile")
    return _run(place, "--target", target, *inputs, "--budget", "1")


# Quiet and whole


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_without_a_word_and_asks_for_nothing(
    story: Path, opened: Look, name: str
) -> None:
    path = story / f"{name}.html"
    seen = opened(path)
    assert seen.console == []
    assert seen.requests == [path.resolve().as_uri()]
    assert path.stat().st_size <= MOST_BYTES


def test_the_policy_stops_scripts_and_requests(story: Path, opened: Look) -> None:
    seen = opened(story / "index.html")
    seen.page.evaluate(
        """() => {
        const script = document.createElement("script");
        script.textContent = "window.ran = true";
        document.body.append(script);
        const image = document.createElement("img");
        image.src = "http://127.0.0.1:9/x.png";
        document.body.append(image);
        }"""
    )
    fetched = seen.page.evaluate(
        "fetch('http://127.0.0.1:9/x').then(() => 'sent', () => 'stopped')"
    )
    assert (fetched, seen.page.evaluate("window.ran")) == ("stopped", None)
    refused = "\n".join(seen.console)
    for directive in ("script-src", "img-src", "connect-src"):
        assert directive in refused or "default-src 'none'" in refused
    assert len(seen.console) >= 3


def test_without_its_script_the_page_says_the_same(story: Path, opened: Look) -> None:
    with_script = opened(story / "index.html").page
    without = opened(story / "index.html", script=False).page
    assert without.locator("h1").inner_text() == with_script.locator("h1").inner_text()
    rows = "table.il-table tbody tr"
    assert without.locator(rows).count() == with_script.locator(rows).count()
    assert without.locator("button, input").count() == 0


def test_on_top_are_finding_chart_numbers_verdicts_and_next_steps(
    story: Path, opened: Look
) -> None:
    page = opened(story / "index.html").page
    headline = json.loads((story / "run.json").read_text())["headline"]
    assert units.ms(headline["before_ms"]) in page.locator("h1").inner_text()
    assert units.ms(headline["after_ms"]) in page.locator("h1").inner_text()
    facts = page.locator(".fact")
    assert facts.count() == 3
    assert units.factor(1 / headline["ratio"]) in facts.nth(0).inner_text()
    assert "95% interval" in facts.nth(0).inner_text()
    assert "WAL records" in facts.nth(1).inner_text()
    assert "8 indexes" in facts.nth(2).inner_text()
    rows = page.locator("#verdicts ~ .wide tbody tr")
    assert rows.count() == 10
    assert all("core." in why for why in rows.locator("td:last-child").all_inner_texts())
    assert page.locator(".next li").count() >= 2


@pytest.mark.parametrize("name", PAGES)
def test_headings_are_in_order(story: Path, opened: Look, name: str) -> None:
    page = opened(story / f"{name}.html").page
    levels = page.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map((h) => Number(h.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("name", PAGES)
def test_every_chart_says_its_numbers(story: Path, opened: Look, name: str) -> None:
    charts = opened(story / f"{name}.html").page.locator("svg.il-chart, main img")
    words = [
        charts.nth(n).get_attribute("aria-label") or charts.nth(n).get_attribute("alt") or ""
        for n in range(charts.count())
    ]
    assert words
    for said in words:
        assert len(re.findall(r"\d+", said)) >= 3, said


@pytest.mark.parametrize("name", PAGES)
def test_no_id_is_there_twice(story: Path, opened: Look, name: str) -> None:
    page = opened(story / f"{name}.html").page
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert sorted(ids) == sorted(set(ids))


# Finding one's way


def test_every_entry_of_the_contents_leads_there(story: Path, opened: Look) -> None:
    page = opened(story / "index.html").page
    links = page.locator(".contents a, .parts a")
    assert links.count() > 15
    for number in range(links.count()):
        links.nth(number).focus()
        page.keyboard.press("Enter")
        target = page.evaluate(
            """() => {
            const box = document.getElementById(decodeURIComponent(location.hash.slice(1)))
                .getBoundingClientRect();
            const room = document.documentElement.scrollHeight - scrollY - innerHeight;
            return [box.top, innerHeight, room];
            }"""
        )
        top, height, room = target
        assert 0 <= top < height / 2 or (room < 2 and top < height), links.nth(number).inner_text()


def test_links_to_files_lead_to_files_of_the_run(story: Path, opened: Look) -> None:
    page = opened(story / "index.html").page
    links = page.locator(".files a")
    assert links.count() >= 8
    for number in range(links.count()):
        assert (story / str(links.nth(number).get_attribute("href"))).is_file()


def test_a_keyboard_skips_to_the_report(story: Path, opened: Look) -> None:
    page = opened(story / "index.html").page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_a_link_into_a_folded_query_unfolds_it(story: Path, opened: Look) -> None:
    page = opened(story / "index.html").page
    folded = page.locator("#query-3")
    assert folded.get_attribute("open") is None
    page.evaluate("location.hash = 'query-3'")
    page.locator("#query-3[open]").wait_for(state="attached")


# Folding, sorting, filtering, copying, colours


def test_queries_and_steps_of_plans_fold_by_keyboard(story: Path, opened: Look) -> None:
    page = opened(story / "index.html").page
    query = page.locator("details.query").nth(1)
    query.locator("> summary").focus()
    page.keyboard.press("Enter")
    assert query.get_attribute("open") is not None
    step = query.locator(".il-plan details").first
    step.locator("> summary").focus()
    page.keyboard.press("Space")
    assert step.get_attribute("open") is None
    button = query.locator(".il-plan .fold").first
    button.focus()
    page.keyboard.press("Enter")
    within = query.locator(".il-plan").first.locator("details")
    assert [within.nth(n).get_attribute("open") is None for n in range(within.count())] == (
        [button.inner_text() == "Unfold all"] * within.count()
    )


def test_of_each_plan_the_costliest_step_is_marked(story: Path, opened: Look) -> None:
    page = opened(story / "index.html").page
    page.evaluate("document.querySelectorAll('details').forEach((box) => { box.open = true; })")
    plans = page.locator(".query .il-plan")
    assert plans.count() >= 14
    for number in range(plans.count()):
        plan = plans.nth(number)
        shares = [int(text.rstrip("%")) for text in plan.locator(".il-share").all_inner_texts()]
        marks = plan.locator(".il-costly").all_inner_texts()
        assert marks == ([f"costliest: {max(shares)}% of the time"] if len(shares) > 1 else [])


def _column(table: object, number: int) -> list[str]:
    cells = table.locator(f"tbody tr td:nth-child({number})").all_inner_texts()  # type: ignore[attr-defined]
    return [str(text).strip() for text in cells]


def test_tables_sort_by_keyboard(story: Path, opened: Look) -> None:
    page = opened(story / "index.html").page
    table = page.locator("#verdicts ~ .wide table").first
    head = table.locator("th", has_text="size")
    given = _column(table, 4)
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    rising = _column(table, 4)
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    falling = _column(table, 4)
    sizes = {
        s["index"]: s["bytes"] for s in json.loads((story / "apply.json").read_text())["steps"]
    }
    ordered = [units.size(size) for size in sorted(filter(None, sizes.values()))]
    assert given != rising
    assert [size for size in rising if size] == ordered
    assert [size for size in falling if size] == ordered[::-1]
    assert rising[-2:] == falling[-2:] == ["", ""]
    assert table.locator("th[aria-sort]").count() == 1


def _numbers(words: Callable[[float], str], values: Sequence[float]) -> list[tuple[float, str]]:
    """Pair values with their words; of values that are said alike, one."""
    said = {words(value): value for value in values}
    return sorted((value, text) for text, value in said.items())


@pytest.mark.parametrize(
    ("words", "low", "high"),
    [
        (units.ms, -4, 7),
        (units.duration, -3, 5),
        (units.size, 0, 13),
        (units.factor, -4, 4),
        (units.count, 0, 9),
        (units.cost, -1, 8),
    ],
    ids=["ms", "duration", "size", "factor", "count", "cost"],
)
def test_a_column_sorts_by_what_its_words_mean(
    opened: Look, tmp_path: Path, words: Callable[[float], str], low: int, high: int
) -> None:
    chance = random.Random(7)
    known = _numbers(words, [10 ** chance.uniform(low, high) for _ in range(60)])
    shown = [text for _, text in known]
    chance.shuffle(shown)
    table = display.table(("amount", "other"), [(text, "x") for text in shown])
    path = tmp_path / "page.html"
    path.write_text(frame.page("stage.html.j2", title="amounts", body=table))
    page = opened(path).page
    page.locator("th button").first.click()
    assert _column(page.locator("table"), 1) == [text for _, text in known]


def test_rows_are_filtered_as_one_types(story: Path, opened: Look) -> None:
    page = opened(story / "index.html").page
    page.locator(".filter input").first.focus()
    page.keyboard.type("PAYMENTS built")
    rows = page.locator("#verdicts ~ .wide table").first.locator("tbody tr:visible")
    assert rows.count() == 2
    assert page.locator(".filter .count").first.inner_text() == "2 of 10 rows"
    assert page.locator(".announcer").inner_text() == "2 of 10 rows"


def test_sql_is_copied_as_it_is(story: Path, opened: Look) -> None:
    seen = opened(story / "index.html")
    seen.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    holder = seen.page.locator(".query .copyable").first
    holder.locator("button").focus()
    seen.page.keyboard.press("Enter")
    seen.page.locator(".query .copy", has_text="Copied").first.wait_for()
    queries = {
        query["sql"] for query in json.loads((story / "benchmark.json").read_text())["queries"]
    }
    assert seen.page.evaluate("navigator.clipboard.readText()") in queries


def _paper(page: object) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))  # type: ignore[attr-defined]


def test_the_switch_changes_the_colours_and_remembers(story: Path, opened: Look) -> None:
    page = opened(story / "index.html").page
    light, switch = _paper(page), page.locator(".theme")
    assert switch.get_attribute("aria-pressed") == "false"
    switch.focus()
    page.keyboard.press("Enter")
    assert switch.get_attribute("aria-pressed") == "true"
    dark = _paper(page)
    assert dark != light
    page.reload()
    assert _paper(page) == dark
    assert _paper(opened(story / "index.html", dark=True).page) == dark


def test_charts_are_as_dark_as_the_page(story: Path, opened: Look) -> None:
    ink = "getComputedStyle(document.querySelector('.il-chart text')).fill"
    light, dark = (
        opened(story / "index.html", dark=dark).page.evaluate(ink) for dark in (False, True)
    )
    assert [sum(map(int, re.findall(r"\d+", colour))) > 382 for colour in (light, dark)] == [
        False,
        True,
    ]


# On paper, on a telephone, for everybody


def test_on_paper_everything_is_unfolded_but_code(
    story: Path, opened: Look, tmp_path: Path
) -> None:
    for dark in (False, True):
        page = opened(story / "index.html", dark=dark).page
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        page.emulate_media(media="print", color_scheme="dark" if dark else "light")
        assert page.locator("details:not([open]):not(.code)").count() == 0
        assert page.locator("details.code:visible").count() == 0
        assert page.locator("button:not(.sort):visible, input:visible").count() == 0
        assert _paper(page) == "rgb(255, 255, 255)"
        shot = page.screenshot(path=tmp_path / "print.png", full_page=True)
        assert shot.startswith(b"\x89PNG")
    assert page.pdf(format="A4").startswith(b"%PDF")


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_sticks_out(story: Path, opened: Look, name: str, width: int) -> None:
    page = opened(story / f"{name}.html", width=width).page
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.evaluate("document.querySelectorAll('details').forEach((box) => { box.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious(
    story: Path, opened: Look, tmp_path: Path, name: str, dark: bool
) -> None:
    seen = opened(story / f"{name}.html", dark=dark)
    assert seen.problems() == ""
    shot = seen.page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
    assert shot.startswith(b"\x89PNG")


def test_axe_finds_nothing_serious_on_a_telephone(story: Path, opened: Look) -> None:
    seen = opened(story / "index.html", width=390)
    seen.page.evaluate(
        "document.querySelectorAll('details').forEach((box) => { box.open = true; })"
    )
    assert seen.problems() == ""


def test_axe_would_find_something(opened: Look, tmp_path: Path) -> None:
    """So that the other tests say something."""
    path = tmp_path / "page.html"
    grey = display.Markup('<p style="color:#aaa;background:#bbb">hardly to be read</p>')
    path.write_text(frame.page("stage.html.j2", title="grey", body=grey))
    assert "color-contrast" in opened(path).problems()


# Hostile databases


@pytest.mark.parametrize("name", PAGES)
def test_what_looks_like_markup_is_text(hostile: Path, opened: Look, name: str) -> None:
    seen = opened(hostile / f"{name}.html")
    seen.page.evaluate(
        "document.querySelectorAll('details').forEach((box) => { box.open = true; })"
    )
    assert seen.console == []
    assert len(seen.requests) == 1
    assert seen.page.locator("script").count() == 1
    assert seen.page.locator("main img[src='x'], main b b").count() == 0
    text = seen.page.locator("body").inner_text()
    assert HOSTILE in text
    assert not set(text) & {"\x1b", "\u202e"}


def test_queries_values_and_reasons_are_text_too(hostile: Path, opened: Look) -> None:
    page = opened(hostile / "index.html").page
    page.evaluate("document.querySelectorAll('details').forEach((box) => { box.open = true; })")
    visible = display.clean(ESCAPES)
    assert (
        f"because {HOSTILE} {CLOSING} {visible}"
        in page.locator("#verdicts ~ .wide").first.inner_text()
    )
    assert f"'{CLOSING}{visible}'" in page.locator(".query pre").first.inner_text()
    assert CLOSING in page.locator(".query .il-plan").first.inner_text()
