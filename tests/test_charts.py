from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from indexlab import benchmark, charts, display, explain
from indexlab.benchmark import Measurement, Sample, Series
from indexlab.charts import Chart, figure
from indexlab.errors import InputError
from indexlab.explain import Explain
from indexlab.impact import Candidate, Impact, QueryImpact, Situation, Variant
from indexlab.target import Server

SERVER = Server(180006, "18.6", "shop", "app", "socket", 5432, superuser=False, standby=False)
NAMES = (
    "bookings_of_one_customer_sorted_by_date_x",
    "a_$x$_{\\frac}_$",
    "顧客の予約_🎉",
    "<img src=x onerror=alert(1)>",
    "_hidden",
    "line\nbreak\x1b[31m\u202e",
    "$",
    "x" * 200,
    "by_id",
    "per%cent %s {}",
    "pending_count",
    "payments_failed_this_week_by_station_key",
)
WRITES = ("book", "update_status_of_booking_after_payment_x")


@pytest.fixture(autouse=True)
def _no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def measured(label: str, scale: float, names: tuple[str, ...] = NAMES + WRITES) -> Measurement:
    random = np.random.default_rng(7)
    node = {"Node Type": "Seq Scan", "Relation Name": "bookings", "Schema": "core"}
    plan = explain.parse([{"Plan": node, "Execution Time": 1.0}])
    series = tuple(
        Series(
            query=name,
            kind="write" if name in WRITES else "read",
            weight=1.0,
            samples=tuple(
                Sample(float(ms), 0)
                for ms in scale * 3.0 ** (number % 9) * random.lognormal(0, 0.2, 200)
            ),
            rows=1,
            explain=plan,
            sql=f"SELECT {number}",
        )
        for number, name in enumerate(names)
    )
    return Measurement(label, series, (), SERVER, (), 0.02, "2025-01-01T00:00:00+00:00", 1.0)


def story() -> benchmark.Comparison:
    return benchmark.compare(measured("_before $x$", 0.7), measured("after", 0.0162))


def with_controls(side: Measurement, wild: float = 1.0) -> Measurement:
    """The same with two controls over thirty rounds."""
    random = np.random.default_rng(11)
    one = side.series[0]
    own = tuple(
        replace(
            one,
            query=name,
            samples=tuple(
                Sample(float(wild * random.lognormal(0, 0.05)), 0, number // 5)
                for number in range(150)
            ),
        )
        for name in ("control: processor", "control: buffers $x$ 客")
    )
    return replace(side, controls=own)


def drifting(wild: float) -> Chart:
    before = with_controls(measured("before", 0.7))
    after = with_controls(measured("_after", 0.0162), wild)
    return charts.drift(before, after, benchmark.compare(before, after))


def priced() -> Chart:
    before, after = measured("before", 0.7), measured("after", 0.6)
    comparison = benchmark.compare(before, after)
    return charts.price(benchmark.price(comparison, before, after), comparison)


def scaled() -> Chart:
    pairs = [(measured("b", 0.7 * rows), measured("a", 0.01)) for rows in (0.1, 1.0, 4.0)]
    return charts.scale(benchmark.scaling((100_000, 1_000_000, 4_000_000), pairs))


def weighed(queries: tuple[str, ...] = NAMES, indexes: tuple[str, ...] = NAMES) -> Impact:
    """Every query has an index of its own, and every second one uses it beside the others."""

    def at(cost: float) -> Explain:
        return explain.parse([{"Plan": {"Node Type": "Result", "Total Cost": cost}}])

    found = []
    for number, query in enumerate(queries):
        name = indexes[number % len(indexes)] if indexes else ""
        cost, saves = 1000.0 * (number + 1), bool(indexes) and number % 2 == 0
        variant = Variant(
            sets=1,
            before=at(cost),
            after=at(1.0 if saves else cost),
            uses_before=(),
            uses_after=(name,) if saves else (),
            alone=(Situation(name, 1.0, (name,)),) if indexes else (),
            without=(Situation(name, cost, ()),) if saves else (),
        )
        found.append(QueryImpact(query, 1.0, "read", (variant,)))
    candidates = tuple(
        Candidate(name, 1, 1, unique=False, bytes=8192 * 3**number)
        for number, name in enumerate(indexes)
    )
    return Impact("sandbox", (), tuple(found), candidates)


DRAWN: dict[str, Callable[[], Chart]] = {
    "before_after": lambda: charts.before_after(story()),
    "ecdf": lambda: charts.ecdf(measured("before", 0.7), measured("_after", 0.0162)),
    "latencies": lambda: charts.latencies(measured("", 0.7)),
    "forest": lambda: charts.forest(story()),
    "drift": lambda: drifting(1.0),
    "price": priced,
    "scale": scaled,
    "builds": lambda: charts.builds(
        NAMES, [2.0**n for n in range(len(NAMES))], [n * 7.5 for n in range(len(NAMES))]
    ),
    "index_sizes": lambda: charts.index_sizes(
        NAMES, [8192.0 * n for n in range(len(NAMES))], [f"_g$x$ 客 {n}" for n in range(len(NAMES))]
    ),
    "worth": lambda: charts.worth(weighed()),
    "bytes_against_worth": lambda: charts.bytes_against_worth(weighed()),
}


SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", DRAWN)
def test_a_chart_becomes_part_of_a_page(name: str) -> None:
    chart = DRAWN[name]()
    drawn = ElementTree.fromstring(chart.inline())
    assert (drawn.tag, drawn.get("role")) == (f"{SVG}svg", "img")
    assert drawn.get("aria-label") == display.clean(chart.alt).replace("\n", " ")
    elements = {element.tag.removeprefix(SVG) for element in drawn.iter()}
    assert elements <= {"svg", "g", "path", "use", "text", "tspan", "defs", "clipPath", "rect"}
    words = " ".join("".join(element.itertext()) for element in drawn.iter(f"{SVG}text"))
    assert words.isprintable()
    assert not re.search(r"(fill|stroke): #", chart.inline())


@pytest.mark.parametrize("name", DRAWN)
def test_what_a_chart_refers_to_is_its_own(name: str) -> None:
    drawn = DRAWN[name]().inline()
    ids = re.findall(r'\bid="([^"]*)"', drawn)
    wanted = {*re.findall(r'\bhref="#([^"]*)"', drawn), *re.findall(r"url\(#([^)]*)\)", drawn)}
    assert len(ids) == len(set(ids))
    assert wanted <= set(ids)
    other = charts.builds(["i"], [1.0], [1.0]).inline()
    assert not set(ids) & set(re.findall(r'\bid="([^"]*)"', other))


def test_colours_of_a_chart_are_those_of_the_page() -> None:
    drawn = charts.before_after(story()).inline()
    for role in ("ink", "rule", "before", "after"):
        assert f"var(--chart-{role}, #" in drawn


def test_a_notebook_keeps_a_chart_of_many_points_as_a_picture_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chart = charts.before_after(story())
    assert chart._repr_svg_() == chart.inline()
    monkeypatch.setattr(figure, "MAX_INLINE", 1000)
    assert chart._repr_svg_() is None


@pytest.mark.parametrize("name", DRAWN)
def test_a_chart_is_a_small_picture_that_is_always_the_same(name: str) -> None:
    one, two = DRAWN[name](), DRAWN[name]()
    assert one.png().startswith(b"\x89PNG")
    assert len(one.png()) < 120_000
    assert one.png() == one.png() == two.png()
    assert one.svg() == two.svg()


@pytest.mark.parametrize("name", DRAWN)
def test_labels_do_not_touch_each_other_or_the_border(name: str) -> None:
    figure = DRAWN[name]().figure
    figure.draw_without_rendering()
    border = figure.bbox.padded(1)
    groups = [[text for text in axes.texts if text.get_text()] for axes in figure.axes]
    groups += [
        [label for label in axes.get_yticklabels() if label.get_text()] for axes in figure.axes
    ]
    groups += [_visible(axes.get_xticklabels()) for axes in figure.axes]
    assert any(groups)
    for group in groups:
        boxes = [text.get_window_extent() for text in group]
        for number, box in enumerate(boxes):
            assert border.x0 <= box.x0 <= box.x1 <= border.x1, group[number].get_text()
            assert border.y0 <= box.y0 <= box.y1 <= border.y1, group[number].get_text()
            assert not [b for b in boxes[number + 1 :] if box.overlaps(b)], group[number].get_text()


def _visible(labels: list[Any]) -> list[Any]:
    return [label for label in labels if label.get_visible() and label.get_text()]


@pytest.mark.parametrize("name", DRAWN)
def test_axes_are_named(name: str) -> None:
    figure = DRAWN[name]().figure
    labels = [axes.get_xlabel() for axes in figure.axes] + [figure.get_supxlabel()]
    assert any(labels)
    if name in ("before_after", "latencies", "ecdf"):
        assert any("latency, logarithmic" in label for label in labels)


def test_the_title_tells_the_finding() -> None:
    before, after = measured("b", 690.0, ("q",)), measured("a", 16.0, ("q",))
    chart = charts.before_after(benchmark.compare(before, after))
    assert chart.title.startswith("read latency fell 43.1x: ")
    assert " ms -> " in chart.title
    back = charts.before_after(benchmark.compare(after, before))
    assert back.title.startswith("read latency rose 43.1x: ")
    same = charts.before_after(benchmark.compare(before, before))
    assert same.title.startswith("read latency did not change: ")
    halves = tuple(Sample(1.0 if number % 2 else 900.0, 0) for number in range(21))
    wild = replace(before.series[0], samples=halves)
    doubtful = charts.before_after(benchmark.compare(replace(before, series=(wild,)), after))
    assert doubtful.title.startswith("read latency did not change beyond doubt: ")


def test_what_the_interval_does_not_decide_is_no_finding() -> None:
    one, two = (measured("m", ms, ("q",)) for ms in (100.0, 102.0))
    found = benchmark.compare(one, two)
    (change,) = found.changes
    doubtful = replace(found, changes=(replace(change, ratio_low=0.9, ratio_high=1.15),))
    assert charts.before_after(doubtful).title.startswith(
        "read latency did not change beyond doubt"
    )


def test_a_side_that_was_given_up_is_a_bound_in_every_chart() -> None:
    before = measured("b", 5000.0, ("q",))
    given_up = replace(before.series[0], samples=(Sample(5000.0, 0),), limit_ms=5000.0)
    bounded, after = replace(before, series=(given_up,)), measured("a", 10.0, ("q",))
    forth, back = benchmark.compare(bounded, after), benchmark.compare(after, bounded)
    assert "q: >= 5.00 s -> " in charts.before_after(forth).alt
    assert " at most, faster" in charts.forest(forth).alt
    assert " at least, slower" in charts.forest(back).alt


def test_a_drift_is_told_with_what_follows_from_it() -> None:
    assert drifting(1.0).title.endswith("neither was favoured")
    assert drifting(1.12).title.endswith("ratios are corrected")
    assert drifting(1.5).title.endswith("small changes are in doubt")


def test_scale_lines_have_their_exponents() -> None:
    chart = scaled()
    assert chart.title.startswith("14 of 14 queries grow more slowly with the indexes")
    assert "by_id: rows^1.00 before" in chart.alt
    assert "rows^0.00 after" in chart.alt


def test_a_forest_counts_what_is_beyond_doubt() -> None:
    chart = charts.forest(story())
    assert chart.title == "14 of 14 queries became faster, 0 slower, beyond doubt"
    assert "book: " in chart.alt


def test_the_text_alternative_has_the_numbers_and_the_names() -> None:
    chart = charts.before_after(story())
    for name in NAMES + WRITES:
        assert f"{name}: " in chart.alt
    assert "x faster)" in chart.alt


def test_the_notebook_gets_an_image_with_an_escaped_alternative() -> None:
    html = charts.before_after(story())._repr_html_()
    assert html.startswith("<img alt=")
    assert html.count("<") == html.count(">") == 1
    assert "data:image/png;base64," in html
    assert "\x1b" not in html
    assert charts.before_after(story())._repr_png_().startswith(b"\x89PNG")


def test_dollars_are_no_mathematics() -> None:
    figure = charts.latencies(measured("", 1.0)).figure
    texts = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert "a_$x$_{\\frac}_$" in texts
    assert not any(label.get_parse_math() for label in figure.axes[0].get_yticklabels())


def test_what_the_font_lacks_is_written_as_an_escape() -> None:
    assert figure.plain("客🎉é") == "\\u5ba2\\U0001f389é"


def test_both_files_are_saved(tmp_path: Path) -> None:
    png, svg = charts.before_after(story()).save(tmp_path / "chart.html")
    assert (png.name, svg.name) == ("chart.png", "chart.svg")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in svg.read_text()
    with pytest.raises(InputError, match="cannot be written"):
        charts.before_after(story()).save(tmp_path / "absent" / "chart.png")


def test_one_query_and_no_query_can_be_drawn() -> None:
    for names in (("q",), ("book",), ()):
        before, after = measured("b", 2.0, names), measured("a", 1.0, names)
        for chart in (
            charts.before_after(benchmark.compare(before, after)),
            charts.ecdf(before, after),
            charts.latencies(before),
        ):
            assert chart.png()
    assert charts.builds([], [], []).png()
    assert charts.index_sizes(["i"], [0], ["t"]).title == "1 index takes 0 B"


def test_a_hundred_queries_become_the_largest_ones_and_the_axis_says_so() -> None:
    names = tuple(f"query_{number}" for number in range(100))
    before, after = measured("b", 2.0, names), measured("a", 1.0, names)
    chart = charts.before_after(benchmark.compare(before, after))
    assert "the 40 largest of 100" in chart.figure.axes[0].get_xlabel()
    assert len(chart.png()) < 120_000
    assert "the 24 largest of 100" in charts.ecdf(before, after).figure.get_supxlabel()


def test_the_users_own_style_changes_nothing_and_is_left_alone() -> None:
    plain = charts.latencies(measured("", 1.0)).png()
    with mpl.rc_context({"font.size": 30.0, "axes.facecolor": "red", "savefig.dpi": 20.0}):
        assert charts.latencies(measured("", 1.0)).png() == plain
        assert mpl.rcParams["font.size"] == 30.0


def test_a_price_says_what_is_within_the_noise() -> None:
    chart = DRAWN["price"]()
    rows = [text.get_text() for text in chart.figure.axes[0].texts]
    assert any(row.endswith(", not significant") for row in rows)
    assert any(not row.endswith(", not significant") for row in rows)
    assert sum(", not significant" in row for row in rows) == chart.alt.count(", not significant")


def test_no_figure_is_left_in_pyplot() -> None:
    import matplotlib.pyplot as plt

    charts.before_after(story()).png()
    assert plt.get_fignums() == []


def test_the_map_of_worth_says_how_many_earn_their_keep() -> None:
    chart = charts.worth(weighed(("a", "b"), ("i", "j")))
    assert chart.title == "1 of 2 planned indexes earns its keep: 1 of 2 queries uses them"
    assert "a: 1,000 -> 1.00; i alone saves 100% and is used" in chart.alt
    written = [text.get_text() for text in chart.figure.axes[0].texts]
    assert written == ["100% ●", "100%"]


def test_the_two_that_do_the_work_are_named() -> None:
    chart = charts.bytes_against_worth(
        weighed(("a", "b", "c", "d", "e"), ("i", "j", "k", "l", "m"))
    )
    # Worth 999, 2,999 and 4,999 beside the others, and nothing for those that none uses.
    assert chart.title.startswith("m and k do 89% of the work with 720 kB of ")
    assert [text.get_text() for text in chart.figure.axes[0].texts] == ["m", "k"]
    assert "j: 24.0 kB, worth 0 beside the others and 1,999 alone, not used" in chart.alt


def test_an_impact_of_nothing_can_be_drawn() -> None:
    for queries, indexes in (((), ()), (("q",), ()), (("q",), ("i",))):
        assert charts.worth(weighed(queries, indexes)).png()
        assert charts.bytes_against_worth(weighed(queries, indexes)).png()
    nothing = charts.bytes_against_worth(weighed(("q",), ()))
    assert nothing.title == "no planned index saves the workload anything"


def test_the_writers_chart_says_both_p99s_and_draws_an_empty_side() -> None:
    points = [(n / 10, 1.0 + n % 5) for n in range(200)]
    chart = charts.writers(points, [(at, 2 * ms) for at, ms in points])
    assert chart.title == (
        "Writers' p99 while indexes are built: 10.0 ms beside indexlab, 5.00 ms beside psql"
    )
    assert "beside psql: 200 writes" in chart.alt
    assert chart.png() == charts.writers(points, [(at, 2 * ms) for at, ms in points]).png()


@pytest.mark.parametrize("name", DRAWN)
def test_a_chart_gives_the_numbers_that_it_draws(name: str) -> None:
    chart = DRAWN[name]()
    frame = chart.frame()
    assert tuple(frame.columns) == chart.columns
    assert len(frame) >= len(NAMES) or name == "drift"
    told = set(re.findall(r"`(\w+)`", inspect.getdoc(Chart.frame) or ""))
    assert set(chart.columns) <= told
    numbers = frame.select_dtypes("number")
    assert not numbers.empty
    assert not numbers.isna().any(axis=None)


def test_the_numbers_of_a_chart_are_those_of_the_measurement() -> None:
    found = story()
    frame = charts.before_after(found).frame().set_index("query")
    for change in found.changes:
        row = frame.loc[change.query]
        assert (row["before_ms"], row["after_ms"]) == (change.before_ms, change.after_ms)
        assert row["verdict"] == change.verdict
    one = measured("one", 0.7)
    shares = charts.ecdf(one, one).frame()
    assert len(shares) == 2 * sum(len(series.samples) for series in one.series)
    assert set(shares.groupby(["query", "side"])["share"].max()) == {1.0}


def test_rows_that_had_no_room_are_among_the_numbers() -> None:
    names = tuple(f"query_{number}" for number in range(100))
    assert len(charts.latencies(measured("", 1.0, names)).frame()) == 100
