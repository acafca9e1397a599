"""The options of the command, said once and used by several of its verbs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from indexlab.pipeline import Options

Command = Callable[..., Any]


class Number(click.FloatRange):
    """A number within a range; no range of click's keeps out `nan`, which is beyond no limit."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read it; refuse what is not finite."""
        found = float(super().convert(value, param, ctx))
        if not math.isfinite(found):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return found


def _together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


target = click.option(
    "--target",
    "-t",
    default="",
    metavar="T",
    help="The database: empty = the embedded demo, env = libpq's PG* environment, "
    "service=NAME = pg_service.conf, or a URI.",
)
output = click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    help="What to print on stdout; progress goes to stderr.",
)
redact = click.option(
    "--redact",
    is_flag=True,
    help="Hide the texts of queries and the values of rows from every file and from the terminal.",
)
sources = _together(
    target,
    click.option("--plan", default="", metavar="FILE", help="The index plan (.sql)."),
    click.option("--workload", default="", metavar="FILE", help="The workload (.sql)."),
    click.option("--out", default="", metavar="DIR", help="The run directory; new under reports/."),
    click.option(
        "--no-report", is_flag=True, help="No notebooks and no HTML: run in this process."
    ),
    redact,
)
inputs = _together(sources, output)
resolve = click.option(
    "--resolve",
    multiple=True,
    metavar="OLD=NEW",
    callback=lambda _context, _option, answers: ",".join(answers),
    help="What a name of the plan means, e.g. event_date=date or booking=core.bookings.",
)
planning = _together(
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
auditing = _together(
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
max_slowdown = click.option(
    "--max-slowdown",
    type=Number(min=1.0),
    default=None,
    metavar="RATIO",
    help="Exit with 1 if a query is slower than this beyond doubt, e.g. 1.2.",
)
disposable = click.option(
    "--disposable",
    is_flag=True,
    help="A clone to experiment on: also run writes, rolled back, and hide indexes in "
    "transactions that are rolled back; the demo always is.",
)
measuring = _together(
    click.option(
        "--budget",
        type=Number(min=0.5, max=86400),
        default=None,
        metavar="SECONDS",
        help="Time to measure, over all queries of one side.",
    ),
    click.option(
        "--precision",
        type=Number(min=0, max=0.99),
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
        type=Number(min=0, max=1e6),
        default=0.0,
        metavar="R",
        help="Transactions per second of that load; 0 is as fast as they can.",
    ),
    click.option(
        "--seconds",
        type=Number(min=1, max=86400),
        default=10.0,
        metavar="T",
        help="How long that load lasts.",
    ),
    click.option("--seed", type=int, default=0, help="Of parameter values and query order."),
    click.option(
        "--statement-timeout",
        type=Number(min=0.001),
        default=60.0,
        metavar="SECONDS",
        help="After this a statement is given up.",
    ),
    disposable,
    max_slowdown,
)
scale = click.option(
    "--scale",
    default="",
    metavar="SIZES",
    help="On the demo: measure at these multiples of its size, such as 0.1,1,4.",
)
execute = click.option(
    "--execute", is_flag=True, help="Change the target; without it this is a dry run."
)
waiting = _together(
    click.option(
        "--lock-wait",
        type=Number(min=0),
        default=None,
        metavar="SECONDS",
        help="Longest wait for a table's lock, 5 by default; then it pauses and tries again.",
    ),
    click.option(
        "--max-wait",
        type=Number(min=0),
        default=None,
        metavar="SECONDS",
        help="Longest wait of a step for other sessions in all, an hour by default.",
    ),
)
applying = _together(
    waiting,
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
        metavar="SIZE|TIME",
        help="Begin no build while a standby has more left to replay: 64MB of WAL, or 30s.",
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
    click.option(
        "--writers",
        "watch_writers",
        type=Number(min=0.1, max=1e5),
        default=None,
        metavar="R",
        help="On a disposable target: send R of the workload's writes per second, rolled back, and "
        "show what they notice of the builds.",
    ),
)
SETTINGS = (
    *("lock_wait", "max_wait", "jobs", "memory", "max_lag", "min_free", "window"),
    *("allow_blocking", "attach_constraint", "drop_replaced", "show_values"),
    "watch_writers",
)


def settings(given: dict[str, Any]) -> str:
    """Take the options of apply out of the others, as words that reach it anywhere."""
    chosen = {name: value for name in SETTINGS if (value := given.pop(name, None)) is not None}
    return " ".join(
        name if value is True else f"{name}={str(value).replace(' ', '')}"
        for name, value in chosen.items()
    )


def read(given: Mapping[str, Any], label: str) -> Options:
    """Turn options into the pipeline's, and make a directory where none is named; runs nothing."""
    from indexlab import runs
    from indexlab.pipeline import Options

    out = given["out"] or runs.new_directory(label, datetime.now().astimezone())
    elsewhere = ("out", "form", "no_report", "budget")
    chosen = {name: value for name, value in given.items() if name not in elsewhere}
    if given.get("budget") is not None:
        chosen["budget"] = given["budget"]
    if "interleaved" in chosen:
        wanted = chosen.pop("interleaved")
        chosen["mode"] = "auto" if wanted is None else "interleaved" if wanted else "one side"
    return Options(**chosen, out=Path(out), report=not given["no_report"])
