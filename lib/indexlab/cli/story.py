"""Whole runs: the stages in order, runs held against each other, and taken back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from indexlab.cli import options
from indexlab.cli.results import (
    FOUND,
    INCOMPLETE,
    as_json,
    audit_lines,
    benchmark_lines,
    expected_lines,
    regressed,
    result,
    say,
    slowed,
    steps_lines,
)
from indexlab.cli.terminal import Terminal, working

if TYPE_CHECKING:
    from indexlab.pipeline import Options

DEMO_WRITERS = 100
"""Writes per second beside the builds of the demo, far below what a server takes."""


@click.command()
@click.argument("before")
@click.argument("after")
@options.max_slowdown
@options.output
def compare(before: str, after: str, max_slowdown: float | None, form: str) -> int:
    """Compare the measurements of two runs of one workload; connects to nothing."""
    from indexlab import benchmark as benchmarking
    from indexlab.runs import Run, documents, named

    sides = [documents.measurement(Run(named(name))) for name in (before, after)]
    comparison = benchmarking.compare(sides[0], sides[1])
    document = {"format": 1, **documents.of_comparison(comparison)}
    notes = [comparison.design, str(comparison.drift)]
    say([as_json(document)] if form == "json" else [*benchmark_lines(document), "", *notes])
    return slowed(comparison, max_slowdown)


@click.command()
@options.inputs
@options.resolve
@options.planning
@options.measuring
@options.applying
@options.execute
def run(**given: Any) -> int:
    """Audit, benchmark, apply the revised plan, benchmark again; one page over all."""
    from indexlab.errors import IndexlabError
    from indexlab.runs import Run

    given["settings"] = options.settings(given)
    chosen = options.read(given, "run")
    try:
        with working(chosen) as pipeline:
            document = pipeline.story()
    except IndexlabError as error:  # of a notebook, too
        if error.exit_code == INCOMPLETE and (out := Run(chosen.out)).has("run"):
            _told(out.read_json("run"), given["form"], chosen)
        raise
    return _told(document, given["form"], chosen)


@click.command()
@click.option("--rows", type=int, default=None, help="Bookings to load; 1,000,000 by default.")
@click.option("--out", default="", metavar="DIR", help="The run directory; new under reports/.")
@options.output
@options.redact
@options.planning
@options.measuring
@options.scale
def demo(rows: int | None, **given: Any) -> int:
    """Run the whole story on the bookings demo: embedded server, ten planned indexes."""
    from indexlab.demo import database

    target = "demo" if rows is None else f"demo:{rows}"
    given |= {"target": target, "plan": "", "workload": "", "execute": True, "no_report": False}
    chosen = replace(options.read(given, "demo"), settings=f"watch_writers={DEMO_WRITERS}")
    with (
        working(chosen) as pipeline,
        database.opened(target, fresh=True, progress=pipeline.tell),
    ):
        document = pipeline.story()
    return _told(document, given["form"], chosen)


@click.command()
@click.argument("run")
@click.option("--target", "-t", default=None, help="The database, if it has another address now.")
@options.waiting
@options.execute
@options.redact
@options.output
def rollback(
    run: str, target: str | None, execute: bool, redact: bool, form: str, **given: Any
) -> int:
    """Drop what RUN built and restore what it dropped; a dry run without --execute."""
    from dataclasses import asdict

    from indexlab import pipeline

    with Terminal() as terminal:
        applied = pipeline.rollback(
            run,
            target=target,
            execute=execute,
            settings=options.settings(given),
            redact=redact,
            tell=terminal.tell,
        )
    document = {"format": 1, "steps": [asdict(outcome) for outcome in applied.outcomes]}
    click.echo(json.dumps(document) if form == "json" else "\n".join(steps_lines(document)))
    return 0 if applied.complete else INCOMPLETE


def _told(document: Mapping[str, Any], form: str, chosen: Options) -> int:
    """Print a run's result; the exit code is that of its worst stage."""
    from indexlab import pipeline
    from indexlab.display import clean
    from indexlab.runs import Run

    out = Run(chosen.out)
    audit = out.read_json("audit")
    unresolved = any(pipeline.is_open(item) for item in audit["statements"])
    lines = audit_lines(audit)
    if out.has("apply"):
        lines += ["", *steps_lines(out.read_json("apply"), notes=False)]
    if document["headline"] is not None:
        lines += ["", *benchmark_lines(out.read_json("benchmark"))]
    elif not document["execute"]:
        now = Run(chosen.out / "before")
        measured = now.read_json("benchmark") if now.has("benchmark") else None
        expected = expected_lines(audit["impact"], measured)
        lines += ["", *expected] if expected else []
        if unresolved:
            lines += [
                "",
                "nothing would be applied: mend the plan, or answer with --resolve old=new",
            ]
    if document["notices"]:
        lines += ["", *map(clean, document["notices"])]
    result(document, form, lines, chosen, "index.html")
    slower = regressed(chosen)
    return FOUND if unresolved or slower else 0
