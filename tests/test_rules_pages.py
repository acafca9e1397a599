"""The pages of the rules: one for each rule that the audit can tell of, and none beside."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexlab import rules
from indexlab.audit import preconditions
from indexlab.errors import InputError

AUDIT = Path(__file__).parents[1] / "lib" / "indexlab" / "audit"
PARTS = ("**Why:** ", "**Example:** ", "**What to do:** ", "**Ignoring:** ")


def emitted() -> set[str]:
    """Find the rule of every finding: a literal, a choice of two, or a variable's values."""
    found = {name for file in AUDIT.glob("*.py") for name in _emitted(ast.parse(file.read_text()))}
    return found | {name.replace("_", "-") for name in preconditions.TIMEOUTS}


def _emitted(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        function = node.func
        called = function.attr if isinstance(function, ast.Attribute) else ast.unparse(function)
        if called not in ("found", "Finding"):
            continue
        rule = node.args[0]
        if isinstance(rule, ast.Name):
            yield from _values(tree, rule.id)
        elif isinstance(rule, ast.IfExp):
            yield from map(ast.literal_eval, (rule.body, rule.orelse))
        elif isinstance(rule, ast.Constant):
            yield ast.literal_eval(rule)


def _values(tree: ast.Module, name: str) -> Iterator[str]:
    """Find what is assigned to a variable, by itself or as the first of several."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign):
            continue
        (target,), value = node.targets, node.value
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            target, value = target.elts[0], value.elts[0]
        if not isinstance(target, ast.Name) or target.id != name:
            continue
        choices = (value.body, value.orelse) if isinstance(value, ast.IfExp) else (value,)
        yield from (ast.literal_eval(item) for item in choices if isinstance(item, ast.Constant))


def test_every_rule_has_a_page_and_every_page_has_a_rule() -> None:
    assert emitted() == set(rules.names())


@pytest.mark.parametrize("name", rules.names())
def test_a_page_says_what_a_reader_needs(name: str) -> None:
    lines = rules.page(name).splitlines()
    assert lines[0] == f"# {name}"
    assert 8 <= len(lines) <= 20
    assert set(rules.severity(name).split(" or ")) <= {"error", "warning", "info"}
    assert rules.summary(name).endswith(".")
    for part in PARTS:
        assert sum(line.startswith(part) and len(line) > len(part) for line in lines) == 1


def _calls(*names: str) -> Iterator[ast.Call]:
    for file in AUDIT.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Attribute) and called.attr in names:
                yield node


JUDGEMENT = {
    "duplicate-index",
    "covered-by-existing",
    "duplicate-in-plan",
    "covered-by-planned",
    "unused-by-workload",
}
BOTH = {"being-built", "same-backwards", "unfinished-index", "duplicate-index"}
"""Rules on statements and on existing indexes alike."""


def test_a_page_says_what_ignoring_does() -> None:
    said = {name: rules.page(name).partition("**Ignoring:** ")[2] for name in rules.names()}
    assert {n for n, text in said.items() if "is then built after all" in text} == JUDGEMENT
    assert {n for n, text in said.items() if "no comment can stand there" in text} == BOTH
    settled = {
        call.args[0].value
        for call in _calls("found")
        if isinstance(call.args[0], ast.Constant) and "verdict" in {k.arg for k in call.keywords}
    }
    assert len(settled) > 25
    stuck = {n for n, text in said.items() if "no comment can make it a statement to build" in text}
    assert settled - JUDGEMENT <= stuck


def test_an_unknown_rule_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(InputError, match="did you mean 'missing-column'"):
        rules.page("mising-column")
    with pytest.raises(InputError, match="explain-rule"):
        rules.page("../../pyproject")


def explain(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "indexlab", "explain-rule", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_explain_rule_prints_the_page_or_lists_all() -> None:
    assert explain("missing-column").stdout.strip() == rules.page("missing-column").strip()
    listed = explain().stdout.splitlines()
    assert [line.split()[0] for line in listed] == list(rules.names())
    assert explain("nonsense-rule").returncode == 2
