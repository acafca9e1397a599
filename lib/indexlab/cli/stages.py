"""The stages one by one: audit, apply, benchmark."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

import indexlab
from indexlab.cli import options
from indexlab.cli.results import (
    FOUND,
    INCOMPLETE,
    as_json,
    benchmark_lines,
    load_lines,
    regressed,
    result,
    say,
    show,
    steps_lines,
    where,
)
from indexlab.cli.terminal import working

if TYPE_CHECKING:
    from indexlab.pipeline import Options


@click.command()
@options.sources
@options.resolve
@options.planning
@options.auditing
def audit(form: str, verbose: bool, fail_on: str, **given: Any) -> int:
    """Judge every planned statement against the live database; reads only.

    A comment directly above a statement, `-- indexlab: ignore RULE because REASON`, accepts its
    findings of that rule.
    """
    from indexlab import formats

    given["export"] = given["export"] or ""
    chosen = options.read(given, "audit")
    with working(chosen) as pipeline:
        document = pipeline.audit()
    source = formats.Source.of(pipeline.plan.source, pipeline.plan.text)
    match form:
        case "github":
            say(formats.github(document, source, verbose=verbose))
        case "sarif":
            version = indexlab.__version__
            say([as_json(formats.sarif(document, source, version=version, verbose=verbose))])
        case "json":
            say([as_json(document)])
        case _:
            show(formats.text(document, source, verbose=verbose))
            say(["", where(chosen, "audit.html")])
    return FOUND if formats.fails(document, fail_on) else 0


@click.command("explain-rule")
@click.argument("name", default="")
def explain_rule(name: str) -> int:
    """Print the page of the audit's rule NAME; without a name, list all rules."""
    from indexlab import rules

    if not name:
        width = max(map(len, rules.names()))
        for rule in rules.names():
            click.echo(f"{rule:<{width}}  {rules.severity(rule):<16}  {rules.summary(rule)}")
        return 0
    page = rules.page(name)
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(page))
    else:
        click.echo(page.rstrip())
    return 0


@click.command()
@options.inputs
@options.resolve
@options.measuring
@click.option("--baseline", default="", metavar="RUN", help="An earlier run to compare with.")
@click.option("--label", default="", help="Name of this measurement.")
@options.scale
def benchmark(**given: Any) -> int:
    """Time every query of the workload, and compare with an earlier run."""
    chosen = options.read(given, "benchmark")
    if chosen.scale:
        return _scaled(chosen, given["form"])
    with working(chosen) as pipeline:
        document = pipeline.benchmark()
    lines = [*benchmark_lines(document), *load_lines(chosen)]
    result(document, given["form"], lines, chosen, "benchmark.html")
    return regressed(chosen)


def _scaled(chosen: Options, form: str) -> int:
    """Measure at several sizes and print how each query grows."""
    from indexlab import units

    with working(chosen) as pipeline:
        document = pipeline.scaled()
    lines = [
        f"{growth['query']:<32} rows^{growth['exponent_before']:.2f} -> "
        f"rows^{growth['exponent_after']:.2f}   at {units.count(document['rows'][-1])} rows "
        f"{units.ms(growth['before_ms'][-1])} -> {units.ms(growth['after_ms'][-1])}"
        for growth in document["growths"]
    ]
    result(document, form, lines, chosen, "scale.html")
    return 0


@click.command()
@options.inputs
@options.resolve
@options.planning
@options.applying
@options.disposable
@options.execute
def apply(**given: Any) -> int:
    """Build what the audit calls for, without blocking writers; a dry run without --execute."""
    from indexlab.errors import IndexlabError
    from indexlab.runs import Run

    given["settings"] = options.settings(given)
    chosen = options.read(given, "apply")
    try:
        with working(chosen) as pipeline:
            document = pipeline.apply()
    except IndexlabError as error:  # of a notebook, too
        run, ended = Run(chosen.out), error.exit_code == INCOMPLETE
        if ended and run.has("apply") and not (document := run.read_json("apply"))["complete"]:
            result(document, given["form"], steps_lines(document), chosen, "apply.html")
        raise
    result(document, given["form"], steps_lines(document), chosen, "apply.html")
    return 0
