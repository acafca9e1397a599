"""The page of a batch at 1,000 targets by 20 statements: how long it takes to make and to open.

A page of a hundred targets is made in the same run, so that growth is seen beside the figures.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from batches import document

from indexlab import matrix, render, units

SIZES = ((100, 20), (1_000, 20))
MAKING, MOST_BYTES = 3.0, 2_000_000
"""Seconds to make the page and its tables, and bytes of the page, at the larger size."""
GROWTH = 1.5
"""How much longer a target may take at ten times as many."""
USABLE, FILTERED, SORTED = 2.0, 0.5, 1.5
"""Seconds until the page can be used, and until it has filtered or sorted and laid out anew."""


def made(targets: int, statements: int) -> tuple[float, dict[str, bytes]]:
    batch = document(targets, statements)
    began = time.perf_counter()
    files = dict(render.batch_files(batch))
    return time.perf_counter() - began, files


def test_making_the_page():
    made(3, 2)  # the libraries are loaded once
    small, large = (min(made(*size)[0] for _ in range(3)) for size in SIZES)
    files = made(*SIZES[-1])[1]
    ratio = large / SIZES[-1][0] / (small / SIZES[0][0])
    print(
        f"\n{SIZES[-1][0]:,} x {SIZES[-1][1]}: {units.duration(large)} for "
        + ", ".join(f"{name} {units.size(len(data))}" for name, data in files.items())
        + f"; a target takes {ratio:.2f} times as long as at {SIZES[0][0]}"
    )
    assert large < MAKING
    assert ratio < GROWTH
    assert len(files["index.html"]) < MOST_BYTES


def test_a_hundred_thousand_targets_have_a_page_of_bounded_size():
    found = matrix.of_document(document(100_000, 20))
    began = time.perf_counter()
    page = render.matrix_page(found)
    took = time.perf_counter() - began
    print(f"\n100,000 x 20: {units.size(len(page))} in {units.duration(took)}")
    assert len(page) < 8 * MOST_BYTES
    assert "of 100,000 targets are here" in page


@pytest.mark.chromium
def test_the_page_is_usable_at_once(tmp_path: Path, opened: Callable[..., Any]):
    path = tmp_path / "index.html"
    path.write_bytes(made(*SIZES[-1])[1]["index.html"])
    page = opened(path).page
    ready = page.evaluate(
        "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd / 1000"
    )
    timed = """(act) => {
        const began = performance.now();
        act === "filter"
          ? (document.querySelector("[name=tag]").value = "eu",
             document.getElementById("filters").dispatchEvent(new Event("input")))
          : document.querySelector("#targets thead button").click();
        document.getElementById("targets").getBoundingClientRect();
        return (performance.now() - began) / 1000;
    }"""
    filtered, ordered = (page.evaluate(timed, act) for act in ("filter", "sort"))
    print(
        f"\nusable after {units.duration(ready)}; filtered in {units.duration(filtered)}, "
        f"sorted in {units.duration(ordered)}"
    )
    assert ready < USABLE
    assert filtered < FILTERED
    assert ordered < SORTED
