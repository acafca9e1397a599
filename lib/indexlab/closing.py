"""What a run leaves besides its stages: a summary to share, a card, and its place in the index."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from indexlab import charts, formats, render, runs
from indexlab.errors import IndexlabError
from indexlab.progress import About, Tell
from indexlab.runs import Json, Run, cards, documents

SUMMARY, PICTURE = "summary.md", "summary.png"
STAGES = ("run", "audit", "apply", "benchmark")


@contextmanager
def closed(out: Path, tell: Tell) -> Iterator[Run]:
    """Hold the directory of a run, and put everything in order at its end, however it ends.

    Args:
        out: the run's directory; it goes again if nothing comes to be in it.
        tell: is told what could not be done: none of it makes a run fail that has come to its end.

    Raises:
        InputError: another run works in the directory.
    """
    run = Run(out)
    try:
        with runs.held(out):
            try:
                yield run
            finally:
                _put_in_order(run, tell)
    finally:
        run.remove_if_empty()


def _put_in_order(run: Run, tell: Tell) -> None:
    try:
        if not any(run.has(stage) for stage in cards.RESULTS):
            return
        summarize(run)
        cards.keep(run)
        shelf = run.path.absolute().parent
        if shelf.name == runs.REPORTS or render.is_own(shelf):
            render.index(shelf)
    except IndexlabError as error:
        tell(About("index", f"the run is not in the index: {error}", lasting=True), None)


def summarize(run: Run) -> None:
    """Write `summary.md` of a run from its JSON, with its chart as `summary.png` beside it.

    Raises:
        InputError: the run cannot be read.
        IncompleteError: the files cannot be written.
    """
    found: dict[str, Json] = {stage: run.read_json(stage) for stage in STAGES if run.has(stage)}
    if not found:
        return
    comparison = documents.comparison(run)
    picture, alt = "", ""
    if comparison is not None:
        chart = charts.before_after(comparison)
        run.write_bytes(PICTURE, chart.png())
        picture, alt = PICTURE, chart.alt
    run.write(SUMMARY, formats.summary(found, chart=picture, alt=alt))
