"""The summary of a run in Markdown: what it says, and that nothing in it acts."""

from __future__ import annotations

import doctest
import importlib
from typing import Any

import mistune
import pytest

from indexlab import formats
from indexlab.formats.summary import escaped

summary_module = importlib.import_module("indexlab.formats.summary")

TARGET = {"version_text": "18.1"}
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</code><script>alert(1)</script>",
    "a | b || c",
    "`code` ``more`` ```",
    "[x](javascript:alert(1))",
    "![x](http://evil.example/x.png)",
    "http://evil.example www.evil.example ann@evil.example",
    "@everyone #12 !34 ~bug :smile: %1 $5 &amp; &lt;",
    "**bold** _it_ ~~gone~~ $x^2$",
    "\x1b[31mred\u202eder\u2066",
    "two\nlines\n\n# heading\n---",
    "\\| \\` \\",
)


def _finding(message: str, severity: str = "warning", suppressed: str = "") -> dict[str, Any]:
    return {"rule": "r", "severity": severity, "message": message, "suppressed": suppressed}


def _audit(index: str = "i", message: str = "it repeats j") -> dict[str, Any]:
    return {
        "target": TARGET,
        "statements": [
            {
                "index": index,
                "qualified": f"core.{index}",
                "line": 3,
                "verdict": "fix",
                "findings": [_finding(message), _finding("a note", "info")],
            }
        ],
    }


def _benchmark(query: str = "q", bound: str = "") -> dict[str, Any]:
    change = {
        "query": query,
        "before_ms": 690.0,
        "after_ms": 16.0,
        "ratio": 16 / 690,
        "ratio_low": 0.02,
        "ratio_high": 0.03,
        "verdict": "faster",
        "bound": bound,
    }
    headline = {"before_ms": 690.0, "after_ms": 16.0, "ratio": 690 / 16, "queries": [query]}
    return {"target": TARGET, "queries": [], "changes": [change], "headline": headline}


def _apply(outcome: str = "built", error: str = "") -> dict[str, Any]:
    step = {"index": "core.i", "outcome": outcome, "bytes": 8192, "error": error, "note": ""}
    return {"target": TARGET, "executed": True, "steps": [step]}


def _rendered(text: str) -> str:
    """As a code host does: with tables, struck words, bare addresses and raw HTML."""
    plugins = ["table", "strikethrough", "url", "task_lists", "footnotes"]
    return str(mistune.create_markdown(escape=False, plugins=plugins)(text))


def test_a_summary_says_what_was_found_judged_and_changed() -> None:
    said = formats.summary(
        {
            "run": {"started": "2026-06-30T10:15:00+00:00", "notices": ["It was interrupted."]},
            "audit": _audit(),
            "apply": _apply(),
            "benchmark": _benchmark(),
        },
        chart="summary.png",
        alt="q fell",
    )
    assert said == (
        "### 690 ms → 16.0 ms (43.1x faster) over the 1 query with a new index; "
        "1 index built, 8.00 kB; 1 statement: 1 to fix\n\n"
        "> **Mind:** It was interrupted.\n\n"
        "![q fell](summary.png)\n\n"
        "| verdict | index | line | outcome | why |\n|---|---|---|---|---|\n"
        "| **fix** | <code>i</code> | 3 | built, 8.00 kB | it repeats j |\n\n"
        "| query | before | after | after / before (95 %) | verdict |\n|---|---|---|---|---|\n"
        "| <code>q</code> | 690 ms | 16.0 ms | 0.0232 (0.02 to 0.03) | **faster** |\n\n"
        "indexlab, 2026-06-30 10:&#8203;15, PostgreSQL 18.1\n"
    )


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        ({"audit": _audit()}, "1 statement: 1 to fix"),
        ({"apply": _apply("failed", "a lock")}, "| **failed** |"),
        ({"benchmark": _benchmark(bound="before")}, "| ≥ 690 ms | 16.0 ms |"),
        ({"audit": _audit() | {"redacted": True}}, "texts and values hidden"),
        ({"benchmark": _benchmark() | {"headline": None}}, "0 queries measured"),
    ],
)
def test_a_stage_alone_has_a_summary(documents: dict[str, Any], words: str) -> None:
    assert words in formats.summary(documents)


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_hostile_acts(text: str) -> None:
    documents = {
        "run": {"notices": [text]},
        "audit": _audit(text, text),
        "benchmark": _benchmark(text),
    }
    said = formats.summary(documents, chart="summary.png", alt=text)
    page = _rendered(said)
    for tag in ("<script", "<a ", "onerror=alert(1)>", "<em", "<del", "<hr", "\x1b", "\u202e"):
        assert tag not in page, page
    assert page.count("<img") == 1
    assert 'src="summary.png"' in page
    assert page.count("<h") == page.count("<h3")
    assert page.count("<strong>") == 3  # the notice's, the verdict's, the change's
    assert page.count("<tr>") == 4
    assert page.count("<td") == 5 + 5


@pytest.mark.parametrize("sign", "@#!~%$:")
def test_no_sign_stands_before_a_word(sign: str) -> None:
    """Code hosts look for references in the page that Markdown has made."""
    page = _rendered(escaped(f"see {sign}name"))
    assert f"{sign}name" not in page.replace("&#8203;", "\u200b")
    assert f"{sign}\u200bname" in page.replace("&#8203;", "\u200b")


def test_a_long_plan_is_cut() -> None:
    audit = _audit()
    audit["statements"] *= 100
    said = formats.summary({"audit": audit})
    assert said.count("| **fix** |") == 60
    assert "and 40 more: the report has all" in said


def test_the_examples_in_the_docstrings_hold() -> None:
    tested = doctest.testmod(summary_module)
    assert (tested.failed, tested.attempted > 0) == (0, True)
