"""The index of runs: one page over all of them, with what each found and how latencies went."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from indexlab import display, units
from indexlab.charts.trends import Point, trend
from indexlab.display import Markup
from indexlab.errors import InputError
from indexlab.render import frame
from indexlab.render.frame import Entry
from indexlab.runs import Run, held, shelf
from indexlab.runs.cards import Timing
from indexlab.runs.shelf import Place, Shelf

PAGE = "index.html"
MARK = '<meta name="generator" content="indexlab reports">'
"""By it a page is known as one that may be written anew."""
MARKED_WITHIN = 4096
MOST_ENTRIES, LONGEST_ENTRY = 6, 24
"""So many targets are in the bar on top, and so many characters of each."""


@dataclass(frozen=True, slots=True)
class Trend:
    """How the latencies of one target went."""

    id: str
    target: str
    table: Markup


def index(place: Path) -> Path:
    """Write `index.html` over the runs of a directory, from their JSON.

    Args:
        place: such as `reports`; made if it is not there.

    Returns:
        The path of the page.

    Raises:
        InputError: the directory cannot be read, or its index.html is another one's.
        IncompleteError: the page cannot be written.
    """
    with held(place, wait=True):
        require_own(place)
        found = shelf.read(place, keep=True)
        trends = tuple(_trends(found))
        page = frame.page(
            "shelf.html.j2",
            title="Runs",
            contents=tuple(_contents(found, trends)),
            mark=Markup(MARK),
            finding=_finding(found),
            runs=_runs(found) if found.places else None,
            trends=trends,
            strangers=found.strangers,
        )
        return Run(place).write(PAGE, page)


def is_own(place: Path) -> bool:
    """Return whether a directory has an index that the kit wrote; reads only."""
    try:
        with (place / PAGE).open(encoding="utf-8", errors="replace") as page:
            return MARK in page.read(MARKED_WITHIN)
    except OSError:
        return False


def require_own(place: Path) -> None:
    """Check that no page of somebody else is overwritten.

    Raises:
        InputError: it would be.
    """
    if (place / PAGE).exists() and not is_own(place):
        raise InputError(
            f"{(place / PAGE).as_posix()!r} is no index of runs, and is not overwritten: "
            "move it, or name the directory of your runs"
        )


def _contents(found: Shelf, trends: tuple[Trend, ...]) -> Iterator[Entry]:
    if found.places:
        yield Entry("runs", "Runs")
    yield from (Entry(trend.id, _short(trend.target)) for trend in trends[:MOST_ENTRIES])
    if found.strangers:
        yield Entry("others", "Not shown")


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_ENTRY else f"{name[: LONGEST_ENTRY - 1]}…"


def _finding(found: Shelf) -> str:
    if not found.places:
        return "No runs yet: the first one appears here by itself."
    runs, targets = len(found.places), len(found.targets())
    latest = found.places[0]
    return (
        f"{units.plural(runs, 'run')} on {units.plural(targets, 'target')}; the latest, of "
        f"{_day(latest)}: {latest.card.headline or latest.card.verdict}."
    )


def _day(place: Place) -> str:
    return place.card.started[:16].replace("T", " ")


def _runs(found: Shelf) -> Markup:
    rows = (
        (
            Markup(f'<time datetime="{display.escape(p.card.started)}">{_day(p)}</time>'),
            p.card.target,
            _link(p),
            display.badge("running" if p.working else p.card.verdict),
            p.card.headline,
            ", ".join(f"{number} {word}" for word, number in p.card.verdicts),
            p.card.server.removeprefix("PostgreSQL "),
        )
        for p in found.places
    )
    columns = ("when (UTC)", "target", "run", "verdict", "what came of it", "plan", "PostgreSQL")
    return display.table(columns, rows)


def _link(place: Place) -> Markup:
    if not place.page:
        return display.escape(place.name)
    href = display.escape(quote(f"{place.name}/{place.page}"))
    return Markup(f'<a class="il-run" href="./{href}">{display.escape(place.name)}</a>')


def _trends(found: Shelf) -> Iterator[Trend]:
    for number, target in enumerate(found.targets(), 1):
        queries = found.trend(target)
        if queries:
            rows = (_trend(query, timings) for query, timings in sorted(queries.items()))
            columns = ("query", "runs", "first", "latest", "since the first", "median latency")
            numeric = ("runs", "first", "latest")
            yield Trend(f"trend-{number}", target, display.table(columns, rows, numeric=numeric))


def _trend(query: str, timings: tuple[tuple[Place, Timing], ...]) -> tuple[object, ...]:
    points = [point for place, timing in timings for point in _points(place, timing)]
    first, latest = points[0].ms, points[-1].ms
    return (
        query,
        len(timings),
        units.ms(first),
        units.ms(latest),
        units.factor(latest / first) if first else "",
        trend(query, points),
    )


def _points(place: Place, timing: Timing) -> Iterator[Point]:
    words = f"{_day(place)}, {place.name}"
    if timing.before_ms is not None:
        yield Point(timing.before_ms, f"before, {words}", before=True)
    yield Point(timing.after_ms, words)
