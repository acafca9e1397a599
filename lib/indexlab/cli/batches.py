"""Batches: the stages on many targets, and the file that names them."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from indexlab.cli import options
from indexlab.cli.results import as_json, say
from indexlab.cli.terminal import Terminal
from indexlab.errors import InputError

if TYPE_CHECKING:
    from indexlab.batch.book import Book
    from indexlab.batch.cluster import Ended
    from indexlab.batch.engine import Event

PLAIN_SECONDS = 5.0
"""Between two lines on how far a batch is, where lines cannot change in place."""
ASK = "ask"


@click.command()
@click.argument("file", metavar="TARGETS.YAML")
@click.option(
    "--stage",
    type=click.Choice(["audit", "benchmark", "apply", "run"]),
    required=True,
    help="What to do on every target.",
)
@options.execute
@click.option(
    "--jobs",
    type=click.IntRange(min=1, max=1024),
    default=None,
    help="Processes of this machine; as many as it has processors by default.",
)
@click.option(
    "--scheduler", default="", metavar="ADDRESS", help="A Dask scheduler whose workers do it."
)
@click.option(
    "--only",
    default="",
    metavar="CONDITIONS",
    help="These targets only, e.g. tag=eu,name=shop-*.",
)
@click.option(
    "--out",
    default="",
    metavar="PLACE",
    help="A directory, or a URL that fsspec knows, such as s3://bucket/path; new under reports/.",
)
@click.option("--no-report", is_flag=True, help="No notebooks and no HTML for the targets.")
@click.option(
    "--waves",
    default="",
    metavar="N,N%,...",
    help="How many targets are done at the end of each wave, e.g. 1,10,100%; a failure or a "
    "regression in one keeps the next from being begun.",
)
@click.option(
    "--pause",
    default="",
    metavar="SECONDS|ask",
    help="Between two waves: wait so long, or for an answer.",
)
@options.max_slowdown
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=None,
    metavar="SECONDS",
    help="After this a target is given up; its own timeout in the file goes first.",
)
@click.option(
    "--retries",
    type=click.IntRange(min=0, max=100),
    default=2,
    show_default=True,
    help="How often a target that cannot be reached is tried again.",
)
@click.option(
    "--resume", is_flag=True, help="Take up the batch in --out: what is missing or failed."
)
@options.output
def batch(file: str, **given: Any) -> int:
    """Do a stage on every target of TARGETS.YAML; batch.json says what came of each."""
    from indexlab import runs
    from indexlab.batch import agenda, cluster, engine, targets
    from indexlab.batch.tasks import Work

    work = Work(
        given["stage"],
        execute=given["execute"],
        report=not given["no_report"],
        max_slowdown=given["max_slowdown"],
        timeout=given["timeout"],
    )
    pause = _pausing(given["pause"])
    if given["resume"] and not given["out"]:
        raise InputError("--resume needs --out, which says what to resume")
    cluster.check_address(given["scheduler"])
    found = targets.read(Path(file))
    agenda.waves(given["waves"], len(targets.select(found, given["only"])))
    out = given["out"] or runs.new_directory("batch", datetime.now().astimezone()).as_posix()
    planned = engine.planned(
        found,
        work,
        out,
        only=given["only"],
        wave=given["waves"],
        resume=given["resume"],
    )
    jobs = min(given["jobs"] or cluster.processors(), len(planned.tasks))
    with Terminal() as terminal, _no_empty_place(planned.book.store.directory):
        terminal.tell("starting the workers")
        with cluster.opened(
            planned.book.store, jobs=jobs, scheduler=given["scheduler"], report=work.report
        ) as crew:
            terminal.tell("")
            click.echo(f"dashboard: {crew.dashboard}", err=True)
            book = engine.run(
                planned,
                crew,
                retries=given["retries"],
                pause=pause if isinstance(pause, float) else pause and partial(_asked, terminal),
                hear=_telling(terminal, len(planned.tasks)),
            )
    page = book.show()
    if given["form"] == "json":
        say([as_json({"format": 1, **book.document()})])
    else:
        say([*_lines(book), "", f"report: {page}"])
    return book.exit_code()


@contextmanager
def _no_empty_place(directory: Path | None) -> Iterator[None]:
    """Leave no directory behind of a batch for which there were no workers."""
    from indexlab.runs import Run

    try:
        yield
    finally:
        if directory is not None:
            Run(directory).remove_if_empty()


def _pausing(text: str) -> float | Literal["ask"] | None:
    """Read --pause."""
    if not text:
        return None
    if text == ASK:
        if not sys.stdin.isatty():
            raise InputError("--pause ask needs a terminal to ask on: give seconds")
        return "ask"
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86400:
        raise InputError(f"--pause {text!r} is neither a number of seconds nor {ASK!r}")
    return seconds


def _asked(terminal: Terminal, number: int, total: int) -> bool:
    """Ask on the terminal whether the next wave is to begin; Ctrl-C is a no."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with terminal.paused():
            return click.confirm(f"Begin wave {number} of {total}?", default=False, err=True)
    except (KeyboardInterrupt, click.Abort):
        return False
    finally:
        signal.signal(signal.SIGINT, before)


def _telling(terminal: Terminal, targets: int) -> Callable[[Event], None]:
    """Show a line for each target that is worked on, and one for the batch."""
    from indexlab.batch.cluster import Ended, Told
    from indexlab.batch.engine import Stopping
    from indexlab.progress import About

    last = [-PLAIN_SECONDS]
    if terminal.live:
        terminal.tell(About("batch", f"0 of {targets:,} done"), 0.0)  # it stays the first line

    def tell(event: Event) -> None:
        if isinstance(event, Told):
            if terminal.live:
                terminal.tell(About(event.name, f"{event.name}: {event.text}"), event.fraction)
            return
        if isinstance(event, Ended):
            _tell_end(terminal, event)
            return
        if isinstance(event, Stopping):
            terminal.note(str(event))
            return
        if terminal.live:
            terminal.tell(About("batch", str(event)), event.done / max(event.total, 1))
        elif time.monotonic() - last[0] >= PLAIN_SECONDS:
            last[0] = time.monotonic()
            terminal.note(str(event))

    return tell


def _tell_end(terminal: Terminal, event: Ended) -> None:
    from indexlab.progress import About

    terminal.tell(About(event.task.name, ""))
    if event.result.status == "failed":
        terminal.note(f"{event.task.name}: failed: {event.result.reason}")
    elif not terminal.live:
        terminal.note(f"{event.task.name}: {event.result.status}")


def _lines(book: Book) -> list[str]:
    """Say what came of a batch: the failures first."""
    from indexlab.batch import engine
    from indexlab.display import clean

    lines = []
    for entry in engine.failures(book):
        result = entry.result
        lines.append(f"{result.status:<8} {clean(entry.target.name)}: {clean(result.reason)}")
    lines += [
        f"{entry.result.status:<8} {clean(entry.target.name)}: {clean(entry.result.reason)}"
        for entry in book.chosen()
        if entry.result.status == "findings"
    ]
    counts = ", ".join(
        f"{number:,} {status.replace('_', ' ')}"
        for status, number in book.counts().items()
        if number
    )
    lines += ["", f"{len(book.chosen()):,} targets: {counts}"]
    if book.stopped:
        lines.append(clean(book.stopped))
    return [*lines, f"result: {book.store.url}/batch.json"]


@click.command()
@options.target
@click.option("--out", required=True, metavar="FILE", help="The file to write, e.g. targets.yaml.")
def targets(target: str, out: str) -> int:
    """List the databases of a server into a file for `indexlab batch`."""
    from indexlab import target as targeting
    from indexlab.batch import listing
    from indexlab.demo import database
    from indexlab.runs import Run

    if database.is_demo(target):
        raise InputError("say which server: give --target")
    path = Path(out)
    if path.exists():
        raise InputError(f"{out!r} exists already, and is never overwritten: give another --out")
    text = listing.listed(targeting.resolve(target))
    if not path.parent.is_dir():
        raise InputError(f"the directory {path.parent.as_posix()!r} does not exist")
    Run(path.parent).write(path.name, text)
    say([f"targets: {path.as_posix()}"])
    return 0
