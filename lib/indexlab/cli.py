"""The `indexlab` command; what it imports at the top is what `--help` waits for."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

import indexlab
from indexlab.errors import IndexlabError

if TYPE_CHECKING:
    from indexlab.benchmark import Comparison
    from indexlab.formats import Line
    from indexlab.pipeline import Options, Pipeline

INTERRUPTED = 130
FOUND = 1
INCOMPLETE = 4
PLAIN_SECONDS = 1.0
PLAIN_WAIT_SECONDS = 5.0

Command = Callable[..., Any]


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_target = click.option(
    "--target",
    "-t",
    default="",
    metavar="T",
    help="The database: empty = the embedded demo, env = libpq's PG* environment, "
    "service=NAME = pg_service.conf, or a URI.",
)
_format = click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    help="What to print on stdout; progress goes to stderr.",
)
_sources = _options(
    _target,
    click.option("--plan", default="", metavar="FILE", help="The index plan (.sql)."),
    click.option("--workload", default="", metavar="FILE", help="The workload (.sql)."),
    click.option("--out", default="", metavar="DIR", help="The run directory; new under reports/."),
    click.option(
        "--no-report", is_flag=True, help="No notebooks and no HTML: run in this process."
    ),
)
_inputs = _options(_sources, _format)
_resolve = click.option(
    "--resolve",
    multiple=True,
    metavar="OLD=NEW",
    callback=lambda _context, _option, answers: ",".join(answers),
    help="What a name of the plan means, e.g. event_date=date or booking=core.bookings.",
)
_planning = _options(
    click.option(
        "--what-if",
        type=click.Choice(["sandbox", "hypopg", "off"]),
        default="sandbox",
        help="Who says what the plan would do to the workload: an empty copy of the target with "
        "its statistics, HypoPG on the target, or nobody.",
    ),
    click.option(
        "--keep-sandbox",
        is_flag=True,
        help="Leave the sandbox where it is; it holds sampled values of the data.",
    ),
)
_auditing = _options(
    click.option(
        "--format",
        "form",
        type=click.Choice(["text", "json", "github", "sarif"]),
        default="text",
        help="What to print on stdout: github for annotations, sarif for code scanners.",
    ),
    click.option("--verbose", "-v", is_flag=True, help="Tell notes of severity info, too."),
    click.option(
        "--fail-on",
        type=click.Choice(["error", "warning", "never"]),
        default="error",
        help="Exit with 1 if the plan has a finding as grave that it does not ignore.",
    ),
    click.option(
        "--export",
        type=click.Choice(["alembic", "django", "rails", "flyway", "liquibase", "sql"]),
        default=None,
        help="Write the revised plan as a migration of this tool.",
    ),
    click.option(
        "--export-to",
        default="",
        metavar="PATH",
        help="File or directory of the migration; the run directory by default.",
    ),
)
_measuring = _options(
    click.option(
        "--budget",
        type=click.FloatRange(min=0.5, max=86400),
        default=None,
        metavar="SECONDS",
        help="Time to measure, over all queries of one side.",
    ),
    click.option(
        "--precision",
        type=click.FloatRange(min=0, max=0.99),
        default=0.05,
        show_default=True,
        metavar="PART",
        help="A query is done when the interval of its ratio is narrower; 0 uses the budget up.",
    ),
    click.option(
        "--interleaved/--one-side",
        default=None,
        help="Measure with and without the planned indexes in turns (on a disposable target, "
        "where it is the default), or only what is there.",
    ),
    click.option(
        "--cache",
        type=click.Choice(["warm", "cold"]),
        default="warm",
        show_default=True,
        help="cold: empty the caches before each execution, where that is permitted.",
    ),
    click.option(
        "--clients",
        type=click.IntRange(min=0, max=1000),
        default=0,
        metavar="N",
        help="Also put load on: so many sessions at once, by pgbench.",
    ),
    click.option(
        "--rate",
        type=click.FloatRange(min=0, max=1e6),
        default=0.0,
        metavar="R",
        help="Transactions per second of that load; 0 is as fast as they can.",
    ),
    click.option(
        "--seconds",
        type=click.FloatRange(min=1, max=86400),
        default=10.0,
        metavar="T",
        help="How long that load lasts.",
    ),
    click.option("--seed", type=int, default=0, help="Of parameter values and query order."),
    click.option(
        "--statement-timeout",
        type=click.FloatRange(min=0.001),
        default=60.0,
        metavar="SECONDS",
        help="After this a statement is given up.",
    ),
    click.option(
        "--disposable",
        is_flag=True,
        help="A clone to experiment on: also run writes, rolled back, and hide indexes in "
        "transactions that are rolled back; the demo always is.",
    ),
    click.option(
        "--max-slowdown",
        type=click.FloatRange(min=1.0),
        default=None,
        metavar="RATIO",
        help="Exit with 1 if a query is slower than this beyond doubt, e.g. 1.2.",
    ),
)
_execute = click.option(
    "--execute", is_flag=True, help="Change the target; without it this is a dry run."
)
_waiting = _options(
    click.option(
        "--lock-wait",
        type=click.FloatRange(min=0),
        default=None,
        metavar="SECONDS",
        help="Longest wait for a table's lock, 5 by default; then it pauses and tries again.",
    ),
    click.option(
        "--max-wait",
        type=click.FloatRange(min=0),
        default=None,
        metavar="SECONDS",
        help="Longest wait of a step for other sessions in all, an hour by default.",
    ),
)
_applying = _options(
    _waiting,
    click.option(
        "--jobs",
        type=click.IntRange(min=1),
        default=None,
        help="Tables to work on side by side; 1 by default.",
    ),
    click.option(
        "--memory",
        default=None,
        metavar="SIZE",
        help="maintenance_work_mem of all jobs together, e.g. 1GB; by default each has the session's.",
    ),
    click.option(
        "--max-lag",
        default=None,
        metavar="SIZE",
        help="Begin no build while a standby has more WAL left to replay, e.g. 64MB.",
    ),
    click.option(
        "--min-free",
        default=None,
        metavar="SIZE",
        help="Begin no build while the server's disk has less free, e.g. 10GB.",
    ),
    click.option(
        "--window", default=None, metavar="HH:MM-HH:MM", help="Begin steps in these hours only."
    ),
    click.option(
        "--allow-blocking",
        is_flag=True,
        default=None,
        help="Build without CONCURRENTLY where the table is tiny or nobody else is connected.",
    ),
    click.option(
        "--attach-constraint",
        is_flag=True,
        default=None,
        help="Make constraints of the unique indexes.",
    ),
    click.option(
        "--drop-replaced",
        is_flag=True,
        default=None,
        help="Drop what the new indexes replace; in run, if no query became slower.",
    ),
    click.option(
        "--show-values",
        is_flag=True,
        default=None,
        help="Show the values of duplicates that keep a unique index from being built.",
    ),
)
SETTINGS = (
    *("lock_wait", "max_wait", "jobs", "memory", "max_lag", "min_free", "window"),
    *("allow_blocking", "attach_constraint", "drop_replaced", "show_values"),
)


def _settings(given: dict[str, Any]) -> str:
    """Take the options of apply out of the others, as words that reach it anywhere."""
    chosen = {name: value for name in SETTINGS if (value := given.pop(name, None)) is not None}
    return " ".join(
        name if value is True else f"{name}={str(value).replace(' ', '')}"
        for name, value in chosen.items()
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(indexlab.__version__, prog_name="indexlab")
def cli() -> None:
    """Audit, apply and benchmark PostgreSQL index plans.

    Exit codes: 0 fine; 1 the audit found errors (see --fail-on), or a query slowed down beyond --max-slowdown;
    2 bad input; 3 the target cannot be reached or does not allow it; 4 apply did not complete;
    130 interrupted.
    """


@cli.command()
@_sources
@_resolve
@_planning
@_auditing
def audit(form: str, verbose: bool, fail_on: str, **given: Any) -> int:
    """Judge every planned statement against the live database; reads only.

    A comment directly above a statement, `-- indexlab: ignore RULE because REASON`, accepts its
    findings of that rule.
    """
    from indexlab import formats

    given["export"] = given["export"] or ""
    options = _read(given, "audit")
    with _Terminal() as terminal:
        pipeline = _pipeline(options, terminal)
        document = pipeline.audit()
    source = formats.Source.of(pipeline.plan.source, pipeline.plan.text)
    match form:
        case "github":
            _say(formats.github(document, source, verbose=verbose))
        case "sarif":
            version = indexlab.__version__
            _say([_json(formats.sarif(document, source, version=version, verbose=verbose))])
        case "json":
            _say([_json(document)])
        case _:
            _show(formats.text(document, source, verbose=verbose))
            _say(["", _where(options, "audit.html")])
    return FOUND if formats.fails(document, fail_on) else 0


@cli.command("explain-rule")
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


@cli.command()
@_inputs
@_resolve
@_measuring
@click.option("--baseline", default="", metavar="RUN", help="An earlier run to compare with.")
@click.option("--label", default="", help="Name of this measurement.")
@click.option(
    "--scale",
    default="",
    metavar="SIZES",
    help="On the demo: measure at these multiples of its size, such as 0.1,1,4.",
)
def benchmark(**given: Any) -> int:
    """Time every query of the workload, and compare with an earlier run."""
    options = _read(given, "benchmark")
    if options.scale:
        return _scaled(options, given["form"])
    with _Terminal() as terminal:
        document = _pipeline(options, terminal).benchmark()
    _print(document, given["form"], _benchmark_lines(document), options, "benchmark.html")
    return _regressed(options)


def _scaled(options: Options, form: str) -> int:
    """Measure at several sizes and print how each query grows."""
    from indexlab import units

    with _Terminal() as terminal:
        document = _pipeline(options, terminal).scaled()
    lines = [
        f"{growth['query']:<32} rows^{growth['exponent_before']:.2f} -> "
        f"rows^{growth['exponent_after']:.2f}   at {units.count(document['rows'][-1])} rows "
        f"{units.ms(growth['before_ms'][-1])} -> {units.ms(growth['after_ms'][-1])}"
        for growth in document["growths"]
    ]
    chart = (options.out / "scale.png").as_posix()
    _say([_json(document)] if form == "json" else [*lines, "", f"chart: {chart}"])
    return 0


@cli.command()
@click.argument("before")
@click.argument("after")
@click.option(
    "--max-slowdown",
    type=click.FloatRange(min=1.0),
    default=None,
    metavar="RATIO",
    help="Exit with 1 if a query is slower than this beyond doubt, e.g. 1.2.",
)
@_format
def compare(before: str, after: str, max_slowdown: float | None, form: str) -> int:
    """Compare the measurements of two runs of one workload; connects to nothing."""
    from indexlab import benchmark as benchmarking
    from indexlab.runs import Run, documents

    sides = [documents.measurement(Run(_run_path(name))) for name in (before, after)]
    comparison = benchmarking.compare(sides[0], sides[1])
    document = {"format": 1, **documents.of_comparison(comparison)}
    notes = [comparison.design, str(comparison.drift), *comparison.warnings]
    _say([_json(document)] if form == "json" else [*_benchmark_lines(document), "", *notes])
    return _slowed(comparison, max_slowdown)


def _run_path(name: str) -> Path:
    return Path(name) if Path(name).exists() else Path("reports") / name


@cli.command()
@_inputs
@_resolve
@_planning
@_applying
@_execute
def apply(**given: Any) -> int:
    """Build what the audit calls for, without blocking writers; a dry run without --execute."""
    given["settings"] = _settings(given)
    options = _read(given, "apply")
    with _Terminal() as terminal:
        document = _pipeline(options, terminal).apply()
    _print(document, given["form"], _steps_lines(document), options, "apply.html")
    return 0


@cli.command()
@_inputs
@_resolve
@_planning
@_measuring
@_applying
@_execute
def run(**given: Any) -> int:
    """Audit, benchmark, apply the revised plan, benchmark again; one page over all."""
    given["settings"] = _settings(given)
    options = _read(given, "run")
    with _Terminal() as terminal:
        document = _pipeline(options, terminal).story()
    return _told(document, given["form"], options)


@cli.command()
@click.option("--rows", type=int, default=None, help="Bookings to load; 1,000,000 by default.")
@click.option("--out", default="", metavar="DIR", help="The run directory; new under reports/.")
@_format
@_planning
@_measuring
def demo(rows: int | None, **given: Any) -> int:
    """Run the whole story on the bookings demo: embedded server, ten planned indexes."""
    from indexlab.demo import database

    target = "demo" if rows is None else f"demo:{rows}"
    given |= {"target": target, "plan": "", "workload": "", "execute": True, "no_report": False}
    options = _read(given, "demo")
    with _Terminal() as terminal, database.opened(target, fresh=True, progress=terminal.tell):
        document = _pipeline(options, terminal).story()
    return _told(document, given["form"], options)


@cli.command()
@click.argument("run")
@click.option("--target", "-t", default=None, help="The database, if it has another address now.")
@_waiting
@_execute
@_format
def rollback(run: str, target: str | None, execute: bool, form: str, **given: Any) -> int:
    """Drop what RUN built and restore what it dropped; a dry run without --execute."""
    from dataclasses import asdict

    from indexlab import pipeline

    with _Terminal() as terminal:
        applied = pipeline.rollback(
            run, target=target, execute=execute, settings=_settings(given), tell=terminal.tell
        )
    document = {"format": 1, "steps": [asdict(outcome) for outcome in applied.outcomes]}
    click.echo(json.dumps(document) if form == "json" else "\n".join(_steps_lines(document)))
    return 0 if applied.complete else INCOMPLETE


def _read(given: Mapping[str, Any], label: str) -> Options:
    """Turn options into the pipeline's; nothing is run."""
    from indexlab import runs
    from indexlab.pipeline import Options

    out = given["out"] or runs.default_path(label, datetime.now().astimezone())
    elsewhere = ("out", "form", "no_report", "budget")
    chosen = {name: value for name, value in given.items() if name not in elsewhere}
    if given.get("budget") is not None:
        chosen["budget"] = given["budget"]
    if "interleaved" in chosen:
        wanted = chosen.pop("interleaved")
        chosen["mode"] = "auto" if wanted is None else "interleaved" if wanted else "one side"
    return Options(**chosen, out=Path(out), report=not given["no_report"])


def _pipeline(options: Options, terminal: _Terminal) -> Pipeline:
    from indexlab.pipeline import Pipeline

    return Pipeline(options, terminal.tell)


def _regressed(options: Options) -> int:
    """Say which queries slowed down beyond the limit."""
    from indexlab.runs import Run, documents

    return _slowed(documents.comparison(Run(options.out)), options.max_slowdown)


def _slowed(comparison: Comparison | None, max_slowdown: float | None) -> int:
    if comparison is None or max_slowdown is None:
        return 0
    slower = comparison.regressions(max_slowdown)
    for change in slower:
        click.echo(
            f"indexlab: {change.query} is slower than --max-slowdown {max_slowdown:g} "
            f"allows: {change.ratio:.2f}x ({change.ratio_low:.2f} to {change.ratio_high:.2f}); "
            f"{change.difference}; {change.reason}",
            err=True,
        )
    broken = comparison.broken()
    for failure in broken:
        click.echo(f"indexlab: {failure.query} fails now: {failure.reason}", err=True)
    return FOUND if slower or broken else 0


def _told(document: Mapping[str, Any], form: str, options: Options) -> int:
    """Print a run's result; the exit code is that of its worst stage."""
    from indexlab import pipeline
    from indexlab.display import clean
    from indexlab.runs import Run

    out = Run(options.out)
    lines = _audit_lines(out.read_json("audit"))
    if out.has("apply"):
        lines += ["", *_steps_lines(out.read_json("apply"), notes=False)]
    if document["headline"] is not None:
        lines += ["", *_benchmark_lines(out.read_json("benchmark"))]
    if document["notices"]:
        lines += ["", *map(clean, document["notices"])]
    _print(document, form, lines, options, "index.html")
    regressed = _regressed(options)
    unresolved = any(pipeline.is_open(item) for item in out.read_json("audit")["statements"])
    return FOUND if unresolved or regressed else 0


def _print(
    document: Mapping[str, Any], form: str, lines: list[str], options: Options, page: str
) -> None:
    _say([_json(document)] if form == "json" else [*lines, "", _where(options, page)])


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


def _show(lines: Iterable[Line]) -> None:
    """Print with colours on a terminal that takes them, and as they are elsewhere."""
    from indexlab import formats

    if not sys.stdout.isatty():
        _say(map(formats.plain, lines))
        return
    from rich.console import Console

    console = Console(highlight=False)  # it respects NO_COLOR
    for line in lines:
        console.print(formats.colored(line), soft_wrap=True)


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False)


def _where(options: Options, page: str) -> str:
    path = options.out / page if options.report else options.out
    return f"report: {path.as_posix()}"


def _audit_lines(document: Mapping[str, Any]) -> list[str]:
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


def _steps_lines(document: Mapping[str, Any], *, notes: bool = True) -> list[str]:
    from indexlab import units
    from indexlab.display import clean

    lines = []
    for step in document["steps"]:
        line = f"{step['outcome']:<8} {clean(step['index'])}"
        if step["outcome"] == "built":
            line += f"  {units.size(step['bytes'])} in {units.duration(step['seconds'])}"
        for why in filter(None, (step["error"], step["note"] if notes else "")):
            line += f"  {clean(why)}"
        lines.append(line)
    return lines


def _benchmark_lines(document: Mapping[str, Any]) -> list[str]:
    from indexlab import units
    from indexlab.display import clean

    if document["headline"] is None:
        return [
            f"{clean(query['query']):<32} p50 {units.ms(query['p50_ms']):>9}  "
            f"p95 {units.ms(query['p95_ms']):>9}  p99 {units.ms(query['p99_ms']):>9}"
            for query in document["queries"]
        ]
    lines = [
        f"{clean(change['query']):<32} {_bound(change, 'before'):>9} -> "
        f"{_bound(change, 'after'):<9} {change['verdict']}"
        for change in document["changes"]
    ]
    headline = document["headline"]
    if headline["queries"]:
        lines += [
            "",
            f"{units.ms(headline['before_ms'])} -> {units.ms(headline['after_ms'])} "
            f"({units.factor(1 / headline['ratio'])}) over the "
            f"{units.plural(len(headline['queries']), 'query')} that use the new indexes",
        ]
    if document.get("mode") == "interleaved":
        lines.append("measured in turns, with and without the indexes: the most trustworthy mode")
    return lines


def _bound(change: Mapping[str, Any], side: str) -> str:
    """Write a median, or what it is at least."""
    from indexlab import units

    word = ">= " if change["bound"] in (side, "both") else ""
    return word + units.ms(change[f"{side}_ms"])


class _Terminal:
    """Progress on stderr: lines that change in place on a terminal, plain lines elsewhere.

    There is one line for each step of apply, and one for anything else.
    """

    def __init__(self) -> None:
        self._live: Any = None
        self._lines: Any = None
        self._told: dict[str, tuple[str, float]] = {}

    def __enter__(self) -> _Terminal:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            from indexlab.progress import Lines

            console = Console(stderr=True, highlight=False)
            self._lines = Lines()
            self._live = Live(console=console, refresh_per_second=8, transient=True)
            self._live.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)

    def tell(self, text: str, fraction: float | None = None) -> None:
        """Show what goes on."""
        from indexlab.display import clean
        from indexlab.progress import About

        if self._live is not None:
            self._live.update(self._drawn(self._lines.hear(text, fraction)))
            return
        if not text:
            return
        topic = text.topic if isinstance(text, About) else ""
        lasting = isinstance(text, About) and text.lasting
        before, at = self._told.get(topic, ("", -PLAIN_SECONDS))
        shown, now = clean(text), time.monotonic()
        # A line about who is waited for differs from second to second in the age only.
        new = shown.partition(";")[0] != before
        if (lasting and new) or now - at >= (PLAIN_WAIT_SECONDS if lasting else PLAIN_SECONDS):
            click.echo(shown, err=True)
            self._told[topic] = shown.partition(";")[0], now

    def _drawn(self, lines: Iterable[tuple[str, float | None]]) -> Any:
        from rich.console import Group
        from rich.text import Text

        from indexlab.display import clean

        return Group(*(Text(clean(text), overflow="ellipsis", no_wrap=True) for text, _ in lines))


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command and leave with its exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("indexlab: interrupted", err=True)
        code = INTERRUPTED
    except IndexlabError as error:
        click.echo(f"indexlab: error: {error}", err=True)
        code = error.exit_code
    sys.exit(code or 0)
