"""The matrix of a batch: what is read, what is said over all, the tables, the page, the notebook."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from batches import document
from pyarrow import parquet

import indexlab
from indexlab import charts, matrix, render
from indexlab.display import Note
from indexlab.errors import InputError
from indexlab.matrix import Matrix

if TYPE_CHECKING:
    from conftest import Opened

    Look = Callable[..., Opened]

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "\"quoted\" & 'single'",
    "</script><script>alert(1)</script>",
    "\x1b[31mred\x1b[0m",
    "invoice\u202efdp.exe",
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd",
    "javascript:alert(1)",
    "ü" * 31 + "é",
    "half \ud800 pair",
)


def target(name: str, status: str = "ok", **given: Any) -> dict[str, Any]:
    return {"name": name, "status": status, "statements": {}, **given}


def batch(*targets: dict[str, Any], **given: Any) -> dict[str, Any]:
    return {"format": 1, "targets": list(targets), **given}


def of(*targets: dict[str, Any], **given: Any) -> Matrix:
    return matrix.of_document(batch(*targets, **given))


def gain(before: float, after: float) -> dict[str, float]:
    return {"before_ms": before, "after_ms": after, "ratio": before / after}


def hostile() -> dict[str, Any]:
    """A batch in which every text that a user or a server chooses is hostile."""
    return batch(
        *(
            target(
                name,
                "failed" if place % 2 else "findings",
                reason=f"{name} failed",
                tags=[name],
                group=name,
                server=name,
                statements=dict.fromkeys(HOSTILE, "failed"),
                reasons={text: text for text in HOSTILE},
                headline=name if place == 3 else gain(10, 1 + place),
                regressions=[name],
                run=name,
                page=name,
            )
            for place, name in enumerate(HOSTILE)
        ),
        notices=list(HOSTILE),
        stage=HOSTILE[0],
        started=HOSTILE[0],
    )


# Reading


def test_a_batch_of_the_least_that_the_format_asks_is_read():
    found = of(target("a"), target("b", "failed", reason="no", exit=3, headline=None, run=None))
    assert [(row.name, row.status, row.reason) for row in found.rows] == [
        ("b", "failed", "no"),
        ("a", "ok", ""),
    ]


def test_keys_of_a_later_version_are_no_fault():
    assert of({**target("a"), "later": 1}, later={"x": []}).rows[0].name == "a"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not JSON"),
        ("[]", "has format None"),
        ('{"format": 2, "targets": []}', "has format 2; this version reads format 1"),
        ('{"format": 1}', "targets: Field required"),
        ('{"format": 1, "targets": [{"name": "a"}]}', r"targets\.0\.status: Field required"),
        ('{"format": 1, "targets": [{"name": "a", "status": "ok", "seconds": "x"}]}', r"seconds:"),
    ],
)
def test_a_document_that_is_none_is_refused(tmp_path: Path, text: str, reason: str):
    (tmp_path / "batch.json").write_text(text)
    with pytest.raises(InputError, match=rf"batch\.json: .*{reason}"):
        matrix.read(tmp_path)


@pytest.mark.parametrize("place", ["", "nothing/here"])
def test_a_place_without_a_batch_is_refused(tmp_path: Path, place: str):
    with pytest.raises(InputError, match="give the directory that `indexlab batch` wrote to"):
        matrix.read(tmp_path / place)


def test_an_unknown_kind_of_url_is_refused():
    with pytest.raises(InputError, match=r"cannot be read: .*nonsense"):
        matrix.read("nonsense://bucket/batch")


@pytest.mark.parametrize("form", ["{0}", "{0}/", "{0}/batch.json", "file://{0}", "memory://batch"])
def test_a_batch_is_read_by_path_and_by_url(tmp_path: Path, form: str):
    import fsspec

    text = json.dumps(batch(target("a")))
    (tmp_path / "batch.json").write_text(text)
    with fsspec.open("memory://batch/batch.json", "w") as file:
        file.write(text)
    assert matrix.read(form.format(tmp_path)).rows[0].name == "a"


def test_a_headline_over_no_query_is_no_gain():
    nothing = {"before_ms": 0.0, "after_ms": 0.0, "ratio": 1.0}
    assert [row.gain for row in of(target("a", headline=nothing)).rows] == [None]


def test_a_target_that_runs_is_running_whatever_stood_before():
    found = of(target("a", "failed", running=True), complete=False)
    assert found.statuses == {"running": 1}


# What it says over all


def test_the_worst_comes_first():
    slow, fast = gain(10, 20), gain(10, 1)
    found = of(
        target("fine", headline=fast),
        target("slower", headline=slow),
        target("asked", "findings", statements={"i": "ask"}),
        target("refused", "findings", statements={"i": "refuse"}),
        target("missing", "not_run"),
        target("gone", "failed"),
        target("strange", "of a later version"),
        target("at work", "running"),
    )
    assert [row.name for row in found.rows] == [
        *("gone", "strange", "missing", "refused", "asked", "at work", "slower", "fine")
    ]


def test_targets_that_failed_alike_are_one_reason():
    found = of(
        target("shop-1", "failed", reason='cannot connect to "10.0.0.1": shop-1 refused'),
        target("shop-2", "failed", reason='cannot connect to "10.0.0.2": shop-2 refused'),
        target("a", "failed", reason="a cat sat"),
        target("shop-4", "findings", reason='cannot connect to "10.0.0.4": shop-4 refused'),
        target("slow", "findings", regressions=["insert_booking"]),
        target("fine"),
    )
    assert [(len(it.rows), it.rows[0].name, it.text) for it in found.reasons()] == [
        (2, "shop-1", 'cannot connect to "10.0.0.1": shop-1 refused'),
        (1, "a", "a cat sat"),
        (1, "shop-4", 'cannot connect to "10.0.0.4": shop-4 refused'),
        (1, "slow", "slower: insert_booking"),
    ]


def test_no_target_that_did_not_end_well_is_without_a_reason():
    found = matrix.of_document(document(200, 5))
    told = [row.name for reason in found.reasons() for row in reason.rows]
    assert sorted(told) == sorted(row.name for row in found.rows if row.status != "ok")


def test_statements_are_in_the_order_of_the_plan():
    found = of(
        target("a", statements={"z": "built", "m": "built", "b": "built"}),
        target("b", "failed", statements={"b": "failed", "extra": "failed"}),
    )
    assert found.names == ("z", "m", "b", "extra")


def test_the_finding_counts_everybody():
    found = of(
        *(target(f"f{n}", "failed") for n in range(3)),
        target("n", "not_run"),
        target("i", "findings"),
        *(target(f"o{n}", headline=gain(100, 10)) for n in range(5)),
    )
    said = "Of 10 targets, 3 failed, 1 not run and 1 with findings; 5 fine."
    assert found.finding().startswith(said[:-1])
    assert found.finding().endswith("The typical one became 10.0x faster.")


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ((), "There is no target in this batch."),
        ((target("a"),), "The one target is fine."),
        ((target("a"), target("b")), "All 2 are fine."),
    ],
)
def test_a_batch_without_a_fault_says_so(targets: tuple[dict[str, Any], ...], said: str):
    assert of(*targets).finding() == said


def test_the_typical_gain_is_the_median_with_its_spread():
    found = of(*(target(f"t{n}", headline=gain(100, 10 + n)) for n in range(101)))
    middle, low, high = found.typical_gain() or (0, 0, 0)
    assert (round(middle, 3), round(low, 3), round(high, 3)) == (0.6, 0.15, 1.05)


def test_a_part_of_a_batch_is_chosen_by_tag_name_group_and_status():
    found = of(
        target("shop-1", tags=["eu"], group="s1"),
        target("shop-2", "failed", tags=["eu", "big"]),
        target("desk", tags=["us"]),
    )
    chosen = {
        conditions: [row.name for row in found.only(conditions).rows]
        for conditions in ("", "tag=eu,tag=us,name=shop-*", "status=failed", "group=s1")
    }
    assert chosen == {
        "": ["shop-2", "desk", "shop-1"],
        "tag=eu,tag=us,name=shop-*": ["shop-2", "shop-1"],
        "status=failed": ["shop-2"],
        "group=s1": ["shop-1"],
    }
    with pytest.raises(InputError, match="'colour=red' is no condition"):
        found.only("colour=red")
    with pytest.raises(InputError, match="'tag=moon' fits none of the 3 targets"):
        found.only("tag=moon")


# Tables


def test_parquet_holds_what_was_read_exactly():
    given = [
        target(
            "a",
            tags=["eu", "big"],
            statements={"i": "built", "j": "exists"},
            builds={"i": {"seconds": 1.5, "bytes": 8192}},
            headline=gain(10, 4),
            exit=0,
        ),
        target("=cmd()", "failed", reason="no \x1b[31m", exit=3),
    ]
    table = parquet.read_table(io.BytesIO(matrix.parquet(of(*given))))
    assert table.column_names == list(matrix.COLUMNS)
    rows = table.to_pylist()
    assert [(r["target"], r["statement"], r["state"], r["bytes"]) for r in rows] == [
        ("=cmd()", None, None, None),
        ("a", "i", "built", 8192),
        ("a", "j", "exists", None),
    ]
    assert rows[0]["reason"] == "no \x1b[31m"
    assert (rows[1]["tags"], rows[1]["ratio"], rows[1]["exit"]) == (["eu", "big"], 0.4, 0)


def test_pandas_reads_the_tables_back_as_the_frame_has_them():
    found = matrix.of_document(document(50, 4))
    frame = found.frame()
    for read in (
        pd.read_parquet(io.BytesIO(matrix.parquet(found))),
        pd.read_csv(io.BytesIO(matrix.csv(found))),
    ):
        for column in ("target", "status", "statement", "state"):
            assert read[column].fillna("").tolist() == frame[column].fillna("").tolist()
        assert read["seconds"].sum() == pytest.approx(frame["seconds"].sum())
    wide = pd.read_csv(io.BytesIO(matrix.wide_csv(found) or b"")).set_index("target")
    assert wide[list(found.names)].fillna("").equals(found.wide().fillna(""))


def test_no_cell_of_a_csv_file_is_a_formula_or_obeyed_by_a_terminal():
    found = matrix.of_document(hostile())
    for data in (matrix.csv(found), matrix.wide_csv(found) or b""):
        text = data.decode()
        assert "\x1b" not in text
        assert "\u202e" not in text
        cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
        assert any(cell.startswith("'=cmd") for cell in cells)
        assert not [cell for cell in cells if cell.startswith(("=", "@", "+", "-", "\t", "\r"))]


def test_numbers_stay_numbers_in_a_csv_file():
    """An apostrophe is for texts only: a spreadsheet must be able to add up."""
    found = of(target("a", statements={"i": "built"}, builds={"i": {"seconds": 2.5, "bytes": 10}}))
    (row,) = csv.DictReader(io.StringIO(matrix.csv(found).decode()))
    assert (row["seconds"], row["bytes"]) == ("2.5", "10")


def test_hostile_names_survive_in_parquet_as_far_as_utf8_can_hold_them():
    rows = parquet.read_table(io.BytesIO(matrix.parquet(matrix.of_document(hostile())))).to_pylist()
    names = {row["target"] for row in rows}
    assert names == {*HOSTILE[:-1], "half \\ud800 pair"}


def test_plans_of_their_own_make_no_file_of_empty_columns():
    assert matrix.wide_csv(matrix.of_document(document(300, 2, own=True))) is None
    names = [name for name, _ in render.batch_files(document(300, 2, own=True))]
    assert names == ["index.html", "matrix.csv", "matrix.parquet"]


def test_the_tables_of_no_target_are_empty_and_not_broken():
    found = of()
    assert parquet.read_table(io.BytesIO(matrix.parquet(found))).num_rows == 0
    assert list(found.frame().columns) == list(matrix.COLUMNS)
    assert found.wide().empty


# Charts


def test_charts_say_the_finding_and_name_their_numbers():
    few = matrix.of_document(document(12, 4))
    drawn = [charts.matrix(few), charts.gains(few), charts.build_times(few)]
    measured = [row.name for row in few.gains]
    assert measured
    assert all(name in drawn[1].alt for name in measured)
    assert all(name in drawn[0].alt for name in few.names)
    assert drawn[2].title.startswith(f"{len(few.built())} builds in ")
    for chart in drawn:
        assert chart.png().startswith(b"\x89PNG")


def test_many_targets_are_drawn_as_shares_and_spreads():
    many = matrix.of_document(document(400, 6))
    for draw in (charts.matrix, charts.gains, charts.build_times):
        chart = draw(many)
        assert chart.figure.get_figheight() < 8, draw
        assert len(chart.alt) < 20_000


def test_no_bar_of_the_gains_holds_slower_and_faster_targets():
    found = of(*(target(f"t{n}", headline=gain(100, 80 + n)) for n in range(60)))
    axes = charts.gains(found).figure.axes[0]
    edges = [patch.get_x() for patch in axes.patches]
    assert min(abs(edge - 1) for edge in edges) < 1e-9
    assert (
        charts.gains(found).title
        == "the typical target became 1.10x slower; 39 of 60 became slower"
    )


def test_charts_of_nothing_say_so():
    assert charts.gains(of(target("a"))).title == "no target was measured before and after"
    assert charts.build_times(of(target("a"))).title == "nothing was built"
    assert charts.matrix(of()).title == "0 statements on 0 targets: none failed"


# The page


def test_the_page_and_its_tables_lie_beside_the_batch():
    files = dict(render.batch_files(document(20, 3)))
    assert list(files) == ["index.html", "matrix.csv", "matrix.parquet", "matrix_wide.csv"]
    page = files["index.html"].decode()
    for name in ("batch.json", "matrix.csv", "matrix.parquet", "matrix_wide.csv"):
        assert f'<a href="{name}">' in page


def test_a_page_says_the_same_at_every_time():
    assert render.batch_files(document(30, 3)) == render.batch_files(document(30, 3))


def test_the_page_may_load_nothing_and_run_its_own_script_only():
    page = dict(render.batch_files(hostile()))["index.html"].decode()
    assert "default-src 'none'" in page
    assert "script-src 'sha256-" in page
    assert page.count("<script>") == 1
    for text in ("<img src=x", "\x1b", "\u202e", "<script>alert"):
        assert text not in page


@pytest.mark.parametrize(
    ("given", "href"),
    [
        ({"page": "runs/a b/1/index.html", "run": "runs/a b/1"}, "runs/a%20b/1/index.html"),
        ({"run": "runs/é"}, "runs/%C3%A9/"),
        ({"page": "javascript:alert(1)"}, "javascript%3Aalert%281%29"),
        ({"page": "//example.com/x"}, ".//example.com/x"),
        ({"page": 'a"onclick="x'}, "a%22onclick%3D%22x"),
    ],
)
def test_a_link_leads_to_the_run_and_nowhere_else(given: dict[str, str], href: str):
    assert f'<a href="{href}">shop</a>' in render.matrix_page(of(target("shop", **given)))


def test_a_batch_that_was_stopped_says_so_on_top():
    page = render.matrix_page(
        of(target("a"), target("b", "not_run"), stopped="wave 1 had a failure", complete=False)
    )
    assert "The batch was stopped: wave 1 had a failure" in page
    assert "This batch has not come to its end: 1 not run" in page


def test_a_page_of_too_many_targets_shows_the_worst_and_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("indexlab.render.matrix.MOST_CELLS", 40)
    page = render.matrix_page(matrix.of_document(document(30, 4)))
    assert "The 10 worst of 30 targets are here" in page
    assert page.count("<tr data-s=") == 10


# In a browser


@pytest.fixture
def shown(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    def write(batch: dict[str, Any]) -> Path:
        for name, data in render.batch_files(batch):
            (tmp_path / name).write_bytes(data)
        return tmp_path / "index.html"

    return write


def visible(page: Any) -> int:
    return int(page.locator("#targets tbody tr:visible").count())


@pytest.mark.chromium
@pytest.mark.parametrize(
    ("batch", "dark"),
    [
        (document(20, 10), False),
        (document(20, 10), True),
        (document(60, 3, own=True), False),
        (hostile(), False),
        (batch(), False),
    ],
    ids=["light", "dark", "plans of their own", "hostile", "empty"],
)
def test_the_page_is_quiet_and_keeps_nobody_out(
    opened: Look, shown: Callable[[dict[str, Any]], Path], batch: dict[str, Any], dark: bool
):
    found = opened(shown(batch), dark=dark)
    assert found.console == []
    assert len(found.requests) == 1
    assert found.problems() == ""
    assert visible(found.page) == len(batch["targets"])


@pytest.mark.chromium
def test_hostile_names_are_text_on_the_page(opened: Look, shown: Callable[[dict[str, Any]], Path]):
    page = opened(shown(hostile())).page
    names = page.locator("#targets tbody th a").all_inner_texts()
    assert {"<img src=x onerror=alert(1)>", "\\x1b[31mred\\x1b[0m", "invoice\\u202efdp.exe"} <= {
        *names
    }
    for text in HOSTILE:
        if text.isascii() and text.isprintable():
            page.select_option("[name=tag]", text)
            assert visible(page) == 1, text


@pytest.mark.chromium
def test_filters_leave_what_fits_and_have_an_address(
    opened: Look, shown: Callable[[dict[str, Any]], Path]
):
    batch = document(120, 5)
    page = opened(shown(batch)).page
    expected = [t for t in batch["targets"] if "eu" in t["tags"] and t["status"] == "failed"]
    page.select_option("[name=tag]", "eu")
    page.select_option("[name=status]", "failed")
    assert visible(page) == len(expected) > 0
    assert page.locator("#shown").inner_text() == f"{len(expected)} of 120 targets"
    assert page.evaluate("location.hash") == "#tag=eu&status=failed"
    page.get_by_role("button", name="Show all").click()
    page.locator("#shown").filter(has_text="120 of 120").wait_for()
    assert page.evaluate("location.hash") == ""
    assert visible(page) == 120
    page.evaluate("location.hash = 'verdict=ask&statement=idx_orders_customer_1'")
    asked = [t for t in batch["targets"] if t["statements"].get("idx_orders_customer_1") == "ask"]
    page.locator("#shown").filter(has_text=f"{len(asked)} of 120").wait_for()
    assert visible(page) == len(asked)


@pytest.mark.chromium
def test_a_filter_leaves_out_columns_without_a_word(
    opened: Look, shown: Callable[[dict[str, Any]], Path]
):
    page = opened(
        shown(
            batch(
                target("a", tags=["x"], statements={"i": "built", "j": "built"}),
                target("b", tags=["y"], statements={"k": "built"}),
            )
        )
    ).page
    heads = page.locator("#targets thead th:visible")
    assert heads.count() == 4 + 3
    page.select_option("[name=tag]", "y")
    assert [text for text in heads.all_inner_texts()[4:] if "k" in text]
    assert heads.count() == 4 + 1


@pytest.mark.chromium
def test_it_can_be_used_by_keyboard(opened: Look, shown: Callable[[dict[str, Any]], Path]):
    page = opened(shown(document(80, 20)), width=1000, height=700).page
    page.keyboard.press("/")
    page.keyboard.type("shop-eu-0")
    assert 0 < visible(page) < 80
    page.get_by_role("button", name="took").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert page.locator("#targets th[aria-sort]").get_attribute("aria-sort") == "descending"
    page.locator(".sheet").focus()
    # The page's policy forbids to wait for an expression, as that would be evaluated in it.
    page.locator(".sheet").evaluate(
        "box => { window.moved = new Promise(done => "
        "box.addEventListener('scroll', () => done(box.scrollLeft), { once: true })); }"
    )
    page.keyboard.press("ArrowRight")
    assert page.evaluate("window.moved") > 0


@pytest.mark.chromium
def test_gains_and_times_are_sorted_as_numbers(
    opened: Look, shown: Callable[[dict[str, Any]], Path]
):
    page = opened(
        shown(
            batch(
                target("a", headline=gain(100, 9), seconds=75),
                target("b", headline=gain(100, 1), seconds=9.5),
                target("c", headline=gain(1, 2), seconds=3_700),
            )
        )
    ).page
    names = page.locator("#targets tbody th")
    page.get_by_role("button", name="gain").click()
    assert [text.strip() for text in names.all_inner_texts()] == ["b", "a", "c"]
    page.get_by_role("button", name="took").click()
    assert [text.strip() for text in names.all_inner_texts()] == ["b", "a", "c"]


@pytest.mark.chromium
def test_the_first_row_and_column_stay_in_sight(
    opened: Look, shown: Callable[[dict[str, Any]], Path]
):
    page = opened(shown(document(100, 20)), width=1100, height=800).page
    sheet = page.locator(".sheet")
    sheet.evaluate("box => { box.scrollTop = 1500; box.scrollLeft = 600; }")
    frame = sheet.bounding_box()
    corner = page.locator("#targets thead th").first.bounding_box()
    assert abs(corner["x"] - frame["x"]) < 3
    assert abs(corner["y"] - frame["y"]) < 3
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.chromium
def test_it_reads_without_its_script(opened: Look, shown: Callable[[dict[str, Any]], Path]):
    page = opened(shown(document(20, 3)), script=False).page
    assert visible(page) == 20
    assert not page.locator("#filters").is_visible()


# In a notebook


def test_a_batch_shows_itself_in_a_notebook(tmp_path: Path):
    (tmp_path / "batch.json").write_text(json.dumps(document(40, 4)))
    found = indexlab.open_batch(str(tmp_path), "tag=eu")
    assert {"eu"} <= {tag for row in found.matrix.rows for tag in row.tags}
    assert all("eu" in row.tags for row in found.matrix.rows)
    assert "tag=eu" not in found._repr_html_()
    assert str(len(found.matrix.rows)) in repr(found)
    assert found.frame()["target"].nunique() == len(found.matrix.rows)
    assert isinstance(found.reasons(), Matrix)
    page = found.matrix._repr_html_()
    assert page.count("<tr>") == min(30, len(found.matrix.rows)) + 1


def test_a_batch_without_gains_and_builds_says_so(tmp_path: Path):
    (tmp_path / "batch.json").write_text(json.dumps(batch(target("a"))))
    found = indexlab.open_batch(str(tmp_path))
    for shown in (found.reasons(), found.gains(), found.build_times()):
        assert isinstance(shown, Note)


def test_hostile_names_are_text_in_a_notebook():
    shown = matrix.of_document(hostile())._repr_html_()
    for text in ("<img src=x", "\x1b", "\u202e", "<script>"):
        assert text not in shown


def test_without_a_place_a_batch_of_the_demo_is_done_and_nothing_of_it_stays():
    from indexlab import embedded

    told: list[str] = []
    found = indexlab.open_batch(tell=lambda text, _fraction: told.append(text))
    assert {row.name: row.status for row in found.matrix.rows} == {
        "customer-3": "failed",
        "customer-1": "ok",
        "customer-2": "ok",
    }
    assert "indexlab_demo_gone" in found.matrix.rows[0].reason
    assert found.matrix.states == {"skipped": 4, "built": 16}
    assert len(found.matrix.gains) == 2
    assert any(text.startswith("customer-2: ") for text in told)
    with embedded.server() as server:
        assert not [name for name in server.databases() if name.startswith("copy_")]
