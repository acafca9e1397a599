"""What is printed of a result, and the exit code that it has."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from indexlab.benchmark import Comparison
    from indexlab.formats import Line
    from indexlab.pipeline import Options

FOUND = 1
INCOMPLETE = 4


def result(
    document: Mapping[str, Any], form: str, lines: list[str], chosen: Options, page: str
) -> None:
    """Print a result as JSON, or as lines that end with the place of its page."""
    say([as_json(document)] if form == "json" else [*lines, "", where(chosen, page)])


def say(lines: Iterable[str]) -> None:
    """Print lines on stdout."""
    for line in lines:
        click.echo(line)


def show(lines: Iterable[Line]) -> None:
    """Print with colours on a terminal that takes them, and as they are elsewhere."""
    from indexlab import formats

    if not sys.stdout.isatty():
        say(map(formats.plain, lines))
        return
    from rich.console import Console

    console = Console(highlight=False)  # it respects NO_COLOR
    for line in lines:
        console.print(formats.colored(line), soft_wrap=True)


def as_json(document: Mapping[str, Any]) -> str:
    """Write a document as it is printed: what a terminal would act on, or hide, as an escape."""

    def shown(found: re.Match[str]) -> str:
        return found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1]

    return re.sub(r"[^\x00-\x7e]", shown, json.dumps(document, indent=1, ensure_ascii=False))


def where(chosen: Options, page: str) -> str:
    """Say where a page is, or the run where there is none."""
    path = chosen.out / page if chosen.report else chosen.out
    return f"report: {path.as_posix()}"


def audit_lines(document: Mapping[str, Any]) -> list[str]:
    """Say of a run's audit what bears on its other stages."""
    from indexlab.display import clean

    severities = ("error", "warning")

    lines = []
    for item in document["statements"]:
        lines.append(f"{item['verdict']:<8} line {item['line']:<4} {clean(item['index'])}")
        lines += [
            f"         {finding['severity']}: {clean(finding['message'])} [{finding['rule']}]"
            for finding in item["findings"]
            if finding["severity"] in severities and not finding["suppressed"]
        ]
    lines += [
        f"{finding['severity']}: {clean(finding['message'])} [{finding['rule']}]"
        for finding in document["preconditions"]
    ]
    return lines


def steps_lines(document: Mapping[str, Any], *, notes: bool = True) -> list[str]:
    """Say what became of each step."""
    from indexlab import units
    from indexlab.apply import NO_INDEX
    from indexlab.display import clean

    wholes = {step["index"] for step in document["steps"] if not step["part_of"]}
    parts: dict[str, Counter[str]] = {}
    shown = []
    for step in document["steps"]:
        if step["part_of"] in wholes and step["outcome"] in ("built", "exists", "skipped"):
            parts.setdefault(step["part_of"], Counter())[step["outcome"]] += 1
        else:
            shown.append(step)
    lines = []
    for step in shown:
        beside = step["outcome"] == "built" and step["action"] in NO_INDEX
        line = f"{step['action'] if beside else step['outcome']:<8} {clean(step['index'])}"
        if step["bytes"]:
            line += f"  {units.size(step['bytes'])} in {units.duration(step['seconds'])}"
        counts = Counter() if step["part_of"] else parts.get(step["index"], Counter())
        if counts:
            told = (f"{number} {outcome}" for outcome, number in counts.items())
            line += f"  on partitions: {', '.join(told)}"
        for why in filter(None, (step["error"], step["note"] if notes else "")):
            line += f"  {clean(why)}"
        lines.append(line)
    return lines


def benchmark_lines(document: Mapping[str, Any]) -> list[str]:
    """Say what changed, or how long each query takes."""
    from indexlab import units
    from indexlab.display import clean

    failed = [
        f"{clean(one['query']):<32} fails {clean(one['reason'])}"
        for one in document.get("failed_on_one_side", ())
    ]
    doubts = [f"warning: {clean(words)}" for words in document.get("warnings", ())]
    if document["headline"] is None:
        return [*map(_latency, document["queries"]), *failed, *doubts]
    lines = []
    for change in document["changes"]:
        lines.append(
            f"{clean(change['query']):<32} {_bound(change, 'before'):>9} -> "
            f"{_bound(change, 'after'):<9} {change['verdict']}"
        )
        if change["reason"]:
            lines.append(f"    {clean(change['reason'])}")
    lines += failed
    headline = document["headline"]
    if headline["queries"]:
        lines += [
            "",
            f"{units.ms(headline['before_ms'])} -> {units.ms(headline['after_ms'])} "
            f"({units.gained(headline['ratio'], decided=headline.get('decided', True))}) over the "
            f"{units.plural(len(headline['queries']), 'query')} with a new index",
        ]
    if document.get("mode") == "interleaved":
        lines.append("measured in turns, with and without the indexes: the most trustworthy mode")
    return lines + doubts


def expected_lines(
    impact: Iterable[Mapping[str, Any]], measured: Mapping[str, Any] | None
) -> list[str]:
    """Say how long each query takes now, and what the planner expects of the plan.

    Args:
        impact: of an audit, query by query.
        measured: the benchmark of the target as it is, where there is one.
    """
    from indexlab import units
    from indexlab.display import clean

    forecast = {item["query"]: item for item in impact}
    times = {} if measured is None else {one["query"]: one for one in measured["queries"]}
    lines = []
    for name in dict.fromkeys([*times, *forecast]):
        parts = [f"{clean(name):<32}"]
        if times:
            now = f"{units.ms(times[name]['p50_ms']):>9} now" if name in times else "not run"
            parts.append(f"{now:<13}")
        parts.append(_expected(forecast.get(name)))
        lines.append("  ".join(parts).rstrip())
    known = [item for item in forecast.values() if item["cost_before"]]
    if known:
        before = sum(item["weight"] * item["cost_before"] for item in known)
        after = sum(item["weight"] * item["cost_after"] for item in known)
        lines += [
            "",
            f"expected: cost {units.cost(before)} -> {units.cost(after)} over "
            f"{units.plural(len(known), 'query')}, by weight; what the planner thinks, not measured",
        ]
    return lines


def _expected(item: Mapping[str, Any] | None) -> str:
    """Say what the planner expects of one query."""
    from indexlab import units
    from indexlab.display import clean

    if item is None or not item["cost_before"]:
        return "not simulated"
    new = [clean(name) for name in item["indexes_used"] if name not in item["indexes_used_before"]]
    before, after = units.cost(item["cost_before"]), units.cost(item["cost_after"])
    if new:
        return f"cost {before} -> {after} by {units.listed(new)}"
    moved = f" -> {after}" if after != before else ""
    return f"cost {before}{moved}, uses none of the planned indexes"


def _latency(query: Mapping[str, Any]) -> str:
    """Write the percentiles of a query, or what they are at least."""
    from indexlab import units
    from indexlab.display import clean

    limit = query.get("limit_ms")
    if limit is not None and query["p50_ms"] >= limit:
        return f"{clean(query['query']):<32} given up: >= {units.ms(limit)}"
    return (
        f"{clean(query['query']):<32} p50 {units.ms(query['p50_ms']):>9}  "
        f"p95 {units.ms(query['p95_ms']):>9}  p99 {units.ms(query['p99_ms']):>9}"
    )


def _bound(change: Mapping[str, Any], side: str) -> str:
    """Write a median, or what it is at least."""
    from indexlab import units

    word = ">= " if change["bound"] in (side, "both") else ""
    return word + units.ms(change[f"{side}_ms"])


def load_lines(chosen: Options) -> list[str]:
    """Say what many clients saw, where load was put on."""
    from indexlab.runs import Run, documents

    load = documents.load(Run(chosen.out))
    return [] if load is None else ["", f"load: {load}"]


def regressed(chosen: Options) -> int:
    """Say which queries slowed down beyond the limit of a run; the exit code follows."""
    from indexlab.runs import Run, documents

    return slowed(documents.comparison(Run(chosen.out)), chosen.max_slowdown)


def slowed(comparison: Comparison | None, max_slowdown: float | None) -> int:
    """Say which queries slowed down beyond a limit; the exit code follows."""
    if comparison is None or max_slowdown is None:
        return 0
    slower = comparison.regressions(max_slowdown)
    for change in slower:
        ratio = f"{change.ratio:.2f}x ({change.ratio_low:.2f} to {change.ratio_high:.2f})"
        if change.bound:
            ratio = f"at least {change.ratio_low:.2f}x, since it was given up"
        click.echo(
            f"indexlab: {change.query} is slower than --max-slowdown {max_slowdown:g} "
            f"allows: {ratio}; {change.difference}; {change.reason}",
            err=True,
        )
    broken = comparison.broken()
    for failure in broken:
        reason = failure.reason.removeprefix("after: ")
        click.echo(f"indexlab: {failure.query} fails now: {reason}", err=True)
    return FOUND if slower or broken else 0
