"""Trends: one query's latency from run to run, small enough to stand in a line of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from indexlab import units
from indexlab.display import Markup, escape

WIDTH, HEIGHT, EDGE = 240, 36, 5
LEAST_SPAN = math.log10(1.5)
"""Medians that lie closer together look level: what is within the noise is no trend."""
MOST = 60
"""So many of the latest points are drawn."""


@dataclass(frozen=True, slots=True)
class Point:
    """One median latency."""

    ms: float
    words: str
    """When and where it was measured."""
    before: bool = False
    """Whether it is of the side without the planned indexes."""


def trend(query: str, points: Sequence[Point]) -> Markup:
    """Draw medians in their order, on a logarithmic scale, as SVG in the colour of the text.

    Nothing is fetched and nothing runs: the numbers are in the titles of the dots, and all of them
    in the words for those who do not see the chart.

    Args:
        query: whose medians.
        points: the oldest first; at least one.
    """
    shown = points[-MOST:]
    places = [(x, y) for x, y in zip(_across(len(shown)), _heights(shown), strict=True)]
    line = " ".join(f"{x:g},{y:g}" for x, y in places)
    dots = "".join(
        f'<circle cx="{x:g}" cy="{y:g}" r="2.6" class="{"was" if point.before else "is"}">'
        f"<title>{escape(f'{units.ms(point.ms)}, {point.words}')}</title></circle>"
        for point, (x, y) in zip(shown, places, strict=True)
    )
    return Markup(
        f'<svg class="il-trend" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="{escape(_words(query, shown, len(points)))}">'
        f'<polyline points="{line}"/>{dots}</svg>'
    )


def _words(query: str, shown: Sequence[Point], of: int) -> str:
    cut = "" if len(shown) == of else f", the latest of {of}"
    listed = "; ".join(f"{units.ms(point.ms)} {point.words}" for point in shown)
    return (
        f"Median latency of {query} over {units.plural(len(shown), 'measurement')}{cut}: {listed}"
    )


def _across(number: int) -> list[float]:
    step = (WIDTH - 2 * EDGE) / max(number - 1, 1)
    first = EDGE if number > 1 else WIDTH / 2
    return [round(first + step * place, 1) for place in range(number)]


def _heights(points: Sequence[Point]) -> list[float]:
    logs = [math.log10(max(point.ms, 1e-6)) for point in points]
    middle, span = (max(logs) + min(logs)) / 2, max(max(logs) - min(logs), LEAST_SPAN)
    room = HEIGHT - 2 * EDGE
    return [round(EDGE + room * (0.5 - (log - middle) / span), 1) for log in logs]
