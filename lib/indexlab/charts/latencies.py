"""Charts of latencies: of one measurement, by table size, and of writers during a build."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from indexlab import units
from indexlab.benchmark import Growth, Measurement, Scaling, Series, Writers
from indexlab.charts.figure import (
    AFTER,
    BEFORE,
    INK,
    MAX_PANELS,
    MAX_ROWS,
    NAME,
    PANEL_NAME,
    QUIET,
    RULE,
    Chart,
    chart_of,
    decade,
    left_out,
    log_ms,
    magnitude,
    name_rows,
    new_axes,
    new_figure,
    sentence,
    short,
    style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


GROWTH = ("query", "side", "rows", "p50_ms")
LATENCIES = ("query", "p50_ms", "p95_ms", "p99_ms")
WRITERS = ("beside", "seconds", "latency_ms")
WRITING = ("phase", "seconds", "latency_ms")


def scale(found: Scaling) -> Chart:
    """Draw each query's latency against the size of the table, both sides, on log axes."""
    growths = sorted(found.growths, key=lambda g: g.exponent_after - g.exponent_before)
    first, last = units.count(found.rows[0]), units.count(found.rows[-1])
    title = f"{first} to {last} rows: no query was measured"
    if growths:
        flat = sum(growth.exponent_after < growth.exponent_before - 0.2 for growth in growths)
        title = (
            f"{flat} of {units.plural(len(growths), 'query')} grow more slowly with the indexes, "
            f"from {first} to {last} rows"
        )
    alt = sentence(
        title,
        (
            f"{g.query}: rows^{g.exponent_before:.2f} before "
            f"({', '.join(units.ms(ms) for ms in g.before_ms)}), rows^{g.exponent_after:.2f} after "
            f"({', '.join(units.ms(ms) for ms in g.after_ms)})"
            for g in growths
        ),
    )
    shown = growths[:MAX_PANELS]
    columns = min(3, max(1, len(shown)))
    lines = max(1, -(-len(shown) // columns))
    with style():
        figure = new_figure(title, 0.9 + 1.7 * lines)
        for number, growth in enumerate(shown):
            axes = figure.add_subplot(lines, columns, number + 1)
            for times, colour, line, mark in (
                (growth.before_ms, BEFORE, "--", "o"),
                (growth.after_ms, AFTER, "-", "D"),
            ):
                axes.plot(found.rows, times, line, marker=mark, color=colour, markersize=4)
            name = short(growth.query, PANEL_NAME)
            exponents = f"rows^{growth.exponent_before:.2f} -> rows^{growth.exponent_after:.2f}"
            axes.set_title(f"{name}\n{exponents}", fontsize=8)
            _log_both(axes, found.rows, [*growth.before_ms, *growth.after_ms])
        figure.supxlabel(
            "rows of the largest table, logarithmic" + left_out(len(shown), len(growths)),
            fontsize=9,
        )
        figure.supylabel("median latency, logarithmic", fontsize=9)
        if shown:
            axes = figure.axes[0]
            axes.plot([], [], "--", marker="o", color=BEFORE, label="without the indexes")
            axes.plot([], [], "-", marker="D", color=AFTER, label="with them")
            figure.legend(loc="outside lower right", ncols=2, fontsize=8.5)
        return chart_of(figure, title, alt, GROWTH, _grown(found.rows, growths))


def _grown(rows: Sequence[int], growths: Sequence[Growth]) -> Iterator[tuple[object, ...]]:
    for growth in growths:
        for side, times in (("before", growth.before_ms), ("after", growth.after_ms)):
            for count, ms in zip(rows, times, strict=True):
                yield growth.query, side, count, ms


def _log_both(axes: Axes, rows: Sequence[int], times: Sequence[float]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(min(rows) / 1.6, max(rows) * 1.6)
    axes.xaxis.set_major_locator(FixedLocator([float(min(rows)), float(max(rows))]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: units.count(round(value))))
    low, high = int(magnitude(min(times)) // 1), -int(-magnitude(max(times)) // 1)
    axes.set_ylim(10.0**low * 0.8, 10.0 ** max(high, low + 1) * 1.25)
    step = max(1, -(-(high - low) // 3))
    ticks = [10.0**n for n in range(low, max(high, low + 1) + 1, step)]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: decade(value)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.tick_params(labelsize=7.5)
    axes.grid(visible=True, color=RULE, linewidth=0.5)


def latencies(measurement: Measurement) -> Chart:
    """Draw p50, p95 and p99 of each query, slowest first."""
    series = sorted(measurement.series, key=lambda s: -s.p50_ms)
    title = "no query was measured"
    if series:
        slowest = series[0]
        title = (
            f"{short(slowest.query, NAME)} is the slowest of "
            f"{units.plural(len(series), 'query')}: p50 {units.ms(slowest.p50_ms)}"
        )
    alt = sentence(
        title,
        (f"{s.query}: p50 {units.ms(s.p50_ms)}, p95 {units.ms(s.p95_ms)}, p99 {units.ms(s.p99_ms)}"
         for s in series),
    )  # fmt: skip
    rows = [(s.query, s.p50_ms, s.p95_ms, s.p99_ms) for s in series]
    shown = series[:MAX_ROWS]
    with style():
        figure, axes = new_axes(title, len(shown))
        for row, one in enumerate(shown):
            axes.plot([one.p50_ms, one.p99_ms], [-row, -row], color=RULE, linewidth=3, zorder=1)
            for value, mark, colour in _marks(one):
                axes.plot(value, -row, mark, color=colour, markersize=6, zorder=2)
            axes.text(
                1.02,
                -row,
                f"{units.ms(one.p50_ms)}, {units.ms(one.p95_ms)}, {units.ms(one.p99_ms)}",
                transform=axes.get_yaxis_transform(),
                va="center",
            )
        name_rows(axes, [-float(row) for row in range(len(shown))], [s.query for s in shown])
        if shown:
            axes.set_ylim(top=1.0)
            axes.text(
                1.02,
                0.75,
                "p50, p95, p99",
                transform=axes.get_yaxis_transform(),
                va="center",
                color=QUIET,
            )
        log_ms(axes, [value for s in shown for value, _, _ in _marks(s)])
        axes.set_xlabel("latency, logarithmic" + left_out(len(shown), len(series)))
        if shown:
            for label, mark, colour in (
                ("p50", "o", AFTER),
                ("p95", "s", BEFORE),
                ("p99", "|", INK),
            ):
                axes.plot([], [], mark, color=colour, label=label)
            figure.legend(loc="outside lower right", ncols=3, fontsize=8.5)
        return chart_of(figure, title, alt, LATENCIES, rows)


def _marks(series: Series) -> tuple[tuple[float, str, str], ...]:
    return ((series.p50_ms, "o", AFTER), (series.p95_ms, "s", BEFORE), (series.p99_ms, "|", INK))


def writers(
    beside_psql: Sequence[tuple[float, float]], beside_apply: Sequence[tuple[float, float]]
) -> Chart:
    """Draw the latency of writers while indexes are built, by psql and by the kit.

    Args:
        beside_psql: seconds since the build began and latency in ms, for each transaction.
        beside_apply: the same beside the kit's build.
    """
    from matplotlib.ticker import FuncFormatter, NullFormatter

    sides = (("psql", beside_psql, BEFORE), ("indexlab", beside_apply, AFTER))
    p99 = {name: _quantile([ms for _, ms in points], 0.99) for name, points, _ in sides}
    title = (
        f"Writers' p99 while indexes are built: {units.ms(p99['indexlab'])} beside indexlab, "
        f"{units.ms(p99['psql'])} beside psql"
    )
    told = (f"beside {name}: {units.plural(len(points), 'write')}" for name, points, _ in sides)
    alt = sentence(title, told)
    rows = [(name, at, ms) for name, points, _ in sides for at, ms in points]
    with style():
        figure = new_figure(title, 3.6)
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (name, points, colour) in zip(panels, sides, strict=True):
            axes.plot(
                [at for at, _ in points],
                [ms for _, ms in points],
                ".",
                color=colour,
                markersize=2,
                alpha=0.5,
            )
            axes.axhline(p99[name], color=INK, linewidth=0.8)
            axes.set_title(f"beside {name}; the line is p99")
            axes.set_xlabel("seconds since the build began")
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: units.ms(value)))
            axes.yaxis.set_minor_formatter(NullFormatter())
        panels[0].set_ylabel("latency of a write")
        return chart_of(figure, title, alt, WRITERS, rows)


def writing(seen: Writers) -> Chart:
    """Draw each write before, while and after indexes were built, with the p99 of each phase."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    phases = {item.phase: item for item in seen.phases}
    title = "No writes were measured beside the builds"
    if {"before", "while"} <= phases.keys():
        title = (
            f"Writers' p99 while indexes were built: {units.ms(phases['while'].p99_ms)}, "
            f"{units.ms(phases['before'].p99_ms)} before"
        )
    alt = sentence(
        title,
        (
            f"{item.phase}: {units.plural(item.done, 'write')}, p50 {units.ms(item.p50_ms)}, "
            f"p99 {units.ms(item.p99_ms)}, longest {units.ms(item.max_ms)}"
            for item in phases.values()
        ),
    )
    ends = {
        "before": (min((at for at, _ in seen.points), default=0.0), 0.0),
        "while": (0.0, seen.seconds),
        "after": (seen.seconds, max((at for at, _ in seen.points), default=seen.seconds)),
    }
    rows = [(_phase(at, seen.seconds), at, ms) for at, ms in seen.points]
    with style():
        figure = new_figure(title, 3.4)
        axes = figure.add_subplot()
        for name, colour in (("before", BEFORE), ("while", AFTER), ("after", BEFORE)):
            points = [(at, ms) for at, ms in seen.points if ends[name][0] <= at <= ends[name][1]]
            moments, times = [at for at, _ in points], [ms for _, ms in points]
            axes.plot(moments, times, ".", color=colour, markersize=3, alpha=0.5)
            if name in phases:
                axes.hlines(phases[name].p99_ms, *ends[name], color=INK, linewidth=1.2)
        axes.axvspan(0, seen.seconds, color=RULE, alpha=0.5, linewidth=0, zorder=0)
        axes.set_xlabel("seconds since the builds began; shaded: while they went on; lines: p99")
        axes.set_ylabel("latency of a write, logarithmic")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: units.ms(value)))
        axes.yaxis.set_minor_formatter(NullFormatter())
        return chart_of(figure, title, alt, WRITING, rows)


def _phase(at: float, seconds: float) -> str:
    """Name the phase of a moment; the builds begin at 0 and take so many seconds."""
    return "before" if at < 0 else "while" if at <= seconds else "after"


def _quantile(values: Sequence[float], share: float) -> float:
    ranked = sorted(values)
    return ranked[min(int(share * len(ranked)), len(ranked) - 1)] if ranked else math.nan
