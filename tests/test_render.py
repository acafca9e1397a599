"""Headless notebooks and their pages, on the demo at a small size."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import stat
from pathlib import Path

import pytest

from indexlab import render
from indexlab.errors import InputError
from indexlab.render import StageFailed, notebooks, stages
from indexlab.runs import Run

TARGET = "demo:2000"
FETCHES = re.compile(
    r"""(?:src|href|action|poster)\s*=\s*["']?(?!data:|\#|[\w/.-]+\.(?:html|sql|json)\b)[^"'\s>]+"""
    r"""|@import|url\((?!["']?data:|\#)""",
    re.IGNORECASE,
)


def _execute(stage: str, run: Run, **parameters: object) -> Path:
    values = {"target": TARGET, "out": str(run.path), **parameters}
    return render.execute(
        stage, values, run, environment={}, secrets=(), tell=lambda _text, _part: None
    )


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run.create(tmp_path_factory.mktemp("audited") / "run", "audit")
    _execute("audit", run)
    return run


def test_the_page_loads_nothing(audited: Run) -> None:
    page = (audited.path / "audit.html").read_text()
    assert "default-src 'none'" in page
    assert not FETCHES.findall(page)
    assert page.count("<script") == 1


def test_the_page_shows_verdicts_and_chart(audited: Run) -> None:
    page = (audited.path / "audit.html").read_text()
    assert "idx_bookings_customer_date" in page
    assert "email_encrypted" in page
    assert '<svg class="il-chart" role="img" aria-label="' in page


def test_the_executed_notebook_tells_no_place_of_this_machine(audited: Run) -> None:
    document = json.loads((audited.path / "audit.ipynb").read_text())
    assert document["metadata"]["papermill"]["input_path"] == "audit.ipynb"
    assert document["metadata"]["papermill"]["output_path"] == "audit.ipynb"


def test_an_unknown_parameter_is_refused_before_anything_runs(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", "audit")
    with pytest.raises(InputError, match=r"unknown parameter 'tagret': there are target, plan"):
        _execute("audit", run, tagret="x")
    assert list(run.path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value"), [("budget", "fast"), ("settings", 1.5), ("disposable", "yes"), ("label", 3)]
)
def test_a_parameter_of_another_type_is_refused(tmp_path: Path, name: str, value: object) -> None:
    run = Run.create(tmp_path / "run", "benchmark")
    with pytest.raises(InputError, match=f"parameter '{name}' must be"):
        _execute("benchmark", run, **{name: value})
    assert list(run.path.iterdir()) == []


def test_a_failed_cell_leaves_a_page_with_the_state_reached(tmp_path: Path) -> None:
    workload = tmp_path / "workload.sql"
    workload.write_text("-- name: broken\nSELECT nonsense FROM core.bookings;\n")
    run = Run.create(tmp_path / "run", "benchmark")
    with pytest.raises(StageFailed, match=r"broken.*nonsense.*benchmark\.html") as raised:
        _execute("benchmark", run, workload=str(workload))
    assert raised.value.exit_code == 2
    page = (run.path / "benchmark.html").read_text()
    assert "This cell failed: InputError" in page
    assert "Benchmark a workload" in page
    assert not run.has("benchmark")


def test_a_hostile_name_is_text_on_the_page(tmp_path: Path) -> None:
    plan = tmp_path / "plan.sql"
    plan.write_text(
        "-- <script>alert(1)</script>\n"
        'CREATE INDEX "<img src=x onerror=alert(1)>" ON core.bookings (status);\n'
    )
    run = Run.create(tmp_path / "run", "audit")
    page = _execute("audit", run, plan=str(plan)).read_text()
    assert "<img src=x" not in page
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page


def test_secrets_are_taken_out_of_notebook_and_page(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", "audit")
    parameters = {"target": TARGET, "out": str(run.path)}
    render.execute(
        "audit",
        parameters,
        run,
        environment={},
        secrets=("idx_bookings_status",),
        tell=lambda _text, _part: None,
    )
    for name in ("audit.ipynb", "audit.html"):
        assert "idx_bookings_status" not in (run.path / name).read_text()


@pytest.mark.parametrize("secret", ['se"cr\\et', "ge<h>eim & co", "schl\u00fcssel", "main"])
def test_a_secret_is_found_however_it_is_written(secret: str) -> None:
    import nbformat

    shown = nbformat.v4.new_output("execute_result", {"text/html": f"<p>{html.escape(secret)}</p>"})
    cell = nbformat.v4.new_code_cell(f"x = {secret!r} or '{secret}'", outputs=[shown])
    document = nbformat.v4.new_notebook(cells=[cell])
    cleaned = notebooks._without(document, (secret,))
    page = stages.stage_page(cleaned, "audit")
    assert secret not in json.dumps(cleaned, ensure_ascii=False)
    body = page.partition('<article class="stage">')[2].partition("</article>")[0]
    assert html.escape(secret) not in body
    assert page.count("<p>***</p>") == 1


def test_a_chart_with_too_many_points_stays_a_picture(audited: Run) -> None:
    document = stages.read(audited.path / "audit.ipynb")
    for cell in document.cells:
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop("image/svg+xml", None)
    page = stages.stage_page(document, "audit")
    assert '<img alt="' in page
    assert 'src="data:image/png;base64,' in page


def test_the_policy_names_the_script_of_the_page(audited: Run) -> None:
    page = (audited.path / "audit.html").read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy.replace("style-src 'unsafe-inline'", "")


def test_output_that_is_no_table_or_chart_is_text() -> None:
    import nbformat

    outputs = [
        nbformat.v4.new_output("stream", name="stdout", text="\x1b[31m<b>red</b>\u202e"),
        nbformat.v4.new_output("stream", name="stderr", text="<i>warned</i>"),
        nbformat.v4.new_output("execute_result", {"text/plain": "<u>plain</u>"}),
        nbformat.v4.new_output(
            "error", ename="<s>", evalue="<s>value\u202e", traceback=["\x1b[31m<s>line"]
        ),
    ]
    cell = nbformat.v4.new_code_cell("'<h1>' # <script>", outputs=outputs)
    page = stages.stage_page(nbformat.v4.new_notebook(cells=[cell]), "audit")
    for tag in ("<b>", "<i>", "<u>", "<s>", "<h1>"):
        assert tag not in page.partition("<main")[2]
    assert r"\x1b[31m&lt;b&gt;red&lt;/b&gt;\u202e" in page
    assert not {"\x1b", "\u202e"} & set(page)
    assert "This cell failed: &lt;s&gt;" in page


def test_code_without_a_result_is_folded_with_the_next() -> None:
    import nbformat

    shown = nbformat.v4.new_output("execute_result", {"text/plain": "2"})
    cells = [
        nbformat.v4.new_markdown_cell("# Title\n\nwords"),
        nbformat.v4.new_code_cell("a = 1"),
        nbformat.v4.new_code_cell("b = a + 1"),
        nbformat.v4.new_code_cell("b", outputs=[shown]),
        nbformat.v4.new_code_cell("last = b"),
    ]
    document = nbformat.v4.new_notebook(cells=cells)
    merged = stages.merged(document)
    assert [cell.source for cell in merged.cells[1:]] == ["a = 1\n\nb = a + 1\n\nb", "last = b"]
    assert len(document.cells) == 5


def test_the_kernel_speaks_only_through_a_private_directory(tmp_path: Path) -> None:
    seen: set[tuple[str, int, int]] = set()

    def look(_text: str, _part: float | None) -> None:
        for manager in notebooks._KERNELS:
            place = Path(manager.ip).parent
            sockets = [path for path in place.iterdir() if path.is_socket()]
            seen.add((manager.transport, stat.S_IMODE(place.stat().st_mode), len(sockets)))

    run = Run.create(tmp_path / "run", "audit")
    values = {"target": TARGET, "out": str(run.path)}
    render.execute("audit", values, run, environment={}, secrets=(), tell=look)
    assert seen == {("ipc", 0o700, 5)}
