"""Charts of a batch: the matrix, how much each target gained, and how long builds took."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from indexlab import display, units
from indexlab.charts.figure import (
    AFTER,
    BEFORE,
    INK,
    MAX_PANELS,
    MAX_ROWS,
    NAME,
    PANEL_NAME,
    QUIET,
    ROW,
    RULE,
    WORSE,
    Chart,
    chart_of,
    largest,
    left_out,
    log_ms,
    name_rows,
    new_axes,
    new_figure,
    plain,
    sentence,
    short,
    style,
    wrapped,
)
from indexlab.matrix import Matrix, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"good": AFTER, "calm": QUIET, "warn": BEFORE, "bad": WORSE}
FEW_COLUMNS = 8
FEW_POINTS = 400
"""So many builds are drawn one by one; of more, only their spread."""


CELLS = ("target", "statement", "state")
GAINS = ("target", "before_ms", "after_ms", "ratio")
BUILDS = ("statement", "target", "seconds")


def matrix(found: Matrix) -> Chart:
    """Draw what became of each statement: target by target, or as shares where they are many."""
    title = _finding(found)
    statements = found.statements()
    alt = sentence(
        title,
        (
            f"{item.name}: "
            + ", ".join(f"{number:,} {state.replace('_', ' ')}" for state, number in item.states)
            + (f", {item.missing:,} without it" if item.missing else "")
            for item in statements[: 4 * MAX_ROWS]
        ),
    )
    grid = len(found.rows) <= MAX_ROWS and len(found.names) <= MAX_PANELS and found.names
    with style():
        return _grid(found, title, alt) if grid else _shares(found, title, alt)


def _finding(found: Matrix) -> str:
    """Say what share of the cells is as it should be."""
    cells = sum(found.states.values())
    bad = sum(number for state, number in found.states.items() if display.tone(state) == "bad")
    ends = (("failed", "failed"), ("not_run", "not run"))
    hit = [f"{found.statuses[it]:,} {word}" for it, word in ends if it in found.statuses]
    said = f"{units.plural(cells, 'statement')} on {units.plural(len(found.rows), 'target')}"
    said += f": {bad:,} refused or failed" if bad else ": none failed"
    return said + (f"; {' and '.join(hit)} as a whole" if hit else "")


def _grid(found: Matrix, title: str, alt: str) -> Chart:
    figure = new_figure(wrapped(title), 2.6 + 0.8 * ROW * len(found.rows))
    axes = figure.add_subplot()
    for row, target in enumerate(found.rows):
        states = {cell.statement: cell.state for cell in target.cells}
        for column, name in enumerate(found.names):
            if name in states:
                _square(axes, row, column, states[name])
        if not states:
            word = f"{display.symbol(target.status)} {target.status.replace('_', ' ')}"
            said = f"{word}: {target.reason}" if target.reason else word
            axes.text(
                *(-0.4, row, short(said, 90)), va="center", fontsize=7.5, color=_ink(target.status)
            )
    axes.set_xlim(-0.5, len(found.names) - 0.5)
    axes.set_ylim(len(found.rows) - 0.5, -0.5)
    axes.set_yticks(range(len(found.rows)), [short(row.name, NAME) for row in found.rows])
    axes.set_xticks(
        range(len(found.names)),
        [short(name, PANEL_NAME) for name in found.names],
        rotation=30 if len(found.names) <= FEW_COLUMNS else 90,
        ha="right",
        va="top" if len(found.names) <= FEW_COLUMNS else "center",
        rotation_mode="anchor",
    )
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return chart_of(figure, title, alt, CELLS, _cells(found))


def _cells(found: Matrix) -> Iterator[tuple[object, ...]]:
    for row in found.rows:
        for cell in row.cells:
            yield row.name, cell.statement, cell.state


def _square(axes: Axes, row: int, column: int, state: str) -> None:
    from matplotlib.patches import Rectangle

    tone = display.tone(state)
    strong = tone in ("bad", "warn")
    axes.add_patch(
        Rectangle(
            (column - 0.48, row - 0.46),
            *(0.96, 0.92),
            facecolor=COLOURS[tone],
            alpha=0.9 if strong else 0.22,
            linewidth=0,
        )
    )
    word = f"{display.symbol(state)} {state.replace('_', ' ')}".strip()
    colour = "white" if tone == "bad" else INK
    axes.text(
        *(column, row, plain(short(word, 12))), ha="center", va="center", fontsize=6.8, color=colour
    )


def _shares(found: Matrix, title: str, alt: str) -> Chart:
    """Draw one bar for each statement, its states as shares of all targets."""
    total = len(found.rows)
    shown = largest(found.statements(), lambda item: _badness(item.states), MAX_ROWS)
    places = [-float(row) for row in range(len(shown))]
    figure, axes = new_axes(wrapped(title), len(shown) + 1)
    named: dict[str, None] = {}
    for place, item in zip(places, shown, strict=True):
        left = 0.0
        for state, number in reversed(item.states):
            share = 100 * number / total
            tone = display.tone(state)
            axes.barh(
                *(place, share),
                left=left,
                height=0.72,
                color=COLOURS[tone],
                alpha=_alpha(tone),
                edgecolor="white",
                linewidth=0.6,
            )
            if share > 9:
                label = f"{number:,} {state.replace('_', ' ')}"
                axes.text(left + share / 2, place, label, ha="center", va="center", fontsize=7.5)
            left += share
            named[state] = None
    name_rows(axes, places, [item.name for item in shown])
    axes.set_xlim(0, 100)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0f}%")
    axes.set_xlabel(f"share of {total:,} targets" + left_out(len(shown), len(found.names)))
    by_tone: dict[str, list[str]] = {}
    for state in sorted(named):
        by_tone.setdefault(display.tone(state), []).append(state.replace("_", " "))
    for tone in ("good", "calm", "warn", "bad"):
        if tone in by_tone:
            words = short(", ".join(by_tone[tone]), 40)
            axes.barh([0], [0], color=COLOURS[tone], alpha=_alpha(tone), label=words)
    if named:
        figure.legend(loc="outside lower right", ncols=4, fontsize=8)
    return chart_of(figure, title, alt, CELLS, _cells(found))


def _alpha(tone: str) -> float:
    return 1.0 if tone in ("bad", "warn") else 0.45


def _badness(states: Sequence[tuple[str, int]]) -> float:
    weights = {"bad": 1.0, "warn": 0.01, "calm": 1e-6, "good": 1e-7}
    return sum(number * weights[display.tone(state)] for state, number in states)


def _ink(status: str) -> str:
    return WORSE if display.tone(status) == "bad" else INK


def gains(found: Matrix) -> Chart:
    """Draw how much the weighted latency of each target changed, from the least gain to the most."""
    measured = found.gains
    typical = found.typical_gain()
    title = "no target was measured before and after"
    if typical is not None:
        slower = sum(row.gain.ratio > 1.005 for row in measured if row.gain is not None)
        title = f"the typical target became {units.factor(typical[0])}"
        title += f"; {slower:,} of {len(measured):,} became slower" if slower else "; none slower"
    alt = sentence(title, (f"{row.name}: {row.gain}" for row in measured[: 4 * MAX_ROWS]))
    with style():
        if len(measured) <= MAX_ROWS:
            return _each_gain(measured, title, alt)
        return _gain_spread(measured, title, alt)


def _gained(row: Row) -> tuple[object, ...]:
    assert row.gain is not None
    return row.name, row.gain.before_ms, row.gain.after_ms, row.gain.ratio


def _each_gain(measured: Sequence[Row], title: str, alt: str) -> Chart:
    places = [-float(row) for row in range(len(measured))]
    figure, axes = new_axes(title, len(measured))
    for place, row in zip(places, measured, strict=True):
        assert row.gain is not None
        ends = (row.gain.before_ms, row.gain.after_ms)
        worse = row.gain.ratio > 1.005
        axes.plot(ends, [place, place], color=RULE, linewidth=3, zorder=1)
        axes.plot(ends[0], place, "o", color=BEFORE, markersize=7, zorder=2)
        axes.plot(ends[1], place, "D", color=WORSE if worse else AFTER, markersize=6, zorder=3)
        axes.text(
            1.02,
            place,
            units.factor(row.gain.ratio),
            transform=axes.get_yaxis_transform(),
            va="center",
            color=WORSE if worse else INK,
        )
    name_rows(axes, places, [row.name for row in measured])
    sides = [(row.gain.before_ms, row.gain.after_ms) for row in measured if row.gain is not None]
    log_ms(axes, [ms for pair in sides for ms in pair])
    axes.set_xlabel("sum of median latency times weight, logarithmic")
    if measured:
        axes.plot([], [], "o", color=BEFORE, label="before")
        axes.plot([], [], "D", color=AFTER, label="after")
        figure.legend(loc="outside lower right", ncols=2, fontsize=8.5)
    return chart_of(figure, title, alt, GAINS, map(_gained, measured))


def _gain_spread(measured: Sequence[Row], title: str, alt: str) -> Chart:
    """Draw a histogram over speed, in steps that are equal on a logarithmic axis."""
    speeds = [1 / row.gain.ratio for row in measured if row.gain is not None]
    low, high = math.log10(min(*speeds, 0.9)), math.log10(max(*speeds, 1.1))
    step = (high - low) / min(40, max(10, round(math.sqrt(len(speeds)))))
    # One is an edge, so that no bar holds both slower and faster targets.
    edges = [10 ** (step * n) for n in range(math.floor(low / step), math.ceil(high / step) + 1)]
    figure = new_figure(title, 3.4)
    axes = figure.add_subplot()
    axes.hist(speeds, bins=edges, color=AFTER, edgecolor="white", linewidth=0.6)
    for edge, patch in zip(edges, axes.patches, strict=False):
        if edge < 0.995:
            patch.set_facecolor(WORSE)
    middle = sorted(speeds)[len(speeds) // 2]
    axes.axvline(middle, color=INK, linewidth=1)
    axes.text(middle, 1.0, " median", transform=axes.get_xaxis_transform(), va="bottom", fontsize=8)
    axes.axvline(1, color=QUIET, linewidth=1, linestyle=":")
    _times(axes, edges[0], edges[-1])
    axes.set_xlabel("times as fast as before, logarithmic; left of the dotted line is slower")
    axes.set_ylabel("targets")
    axes.grid(visible=True, axis="y", color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)
    return chart_of(figure, title, alt, GAINS, map(_gained, measured))


def _times(axes: Axes, low: float, high: float) -> None:
    """Give the axis a few round factors as ticks: 0.5x, 1x, 2x, 5x, 10x."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log")
    ticks = [k * 10.0**n for n in range(-6, 10) for k in (1, 2, 5)]
    ticks = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
    axes.xaxis.set_major_locator(FixedLocator(ticks[:: max(1, -(-len(ticks) // 10))]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))


def build_times(found: Matrix) -> Chart:
    """Draw how long the builds of each statement took over the targets, the longest on top."""
    times: dict[str, list[float]] = {}
    rows = []
    for row, cell in found.built():
        if cell.seconds is not None and cell.seconds > 0:
            times.setdefault(cell.statement, []).append(cell.seconds)
            rows.append((cell.statement, row.name, cell.seconds))
    ranked = sorted(times.items(), key=lambda item: -_middle(item[1]))
    total = [seconds for _, some in ranked for seconds in some]
    title = "nothing was built"
    if total:
        title = (
            f"{units.plural(len(total), 'build')} in {units.duration(sum(total))} of work; "
            f"the typical one took {units.duration(_middle(total))}, "
            f"the longest {units.duration(max(total))}"
        )
    alt = sentence(
        title,
        (
            f"{name}: {units.plural(len(some), 'build')}, median {units.duration(_middle(some))}, "
            f"{units.duration(min(some))} to {units.duration(max(some))}"
            for name, some in ranked[: 4 * MAX_ROWS]
        ),
    )
    shown = ranked[:MAX_ROWS]
    places = [-float(row) for row in range(len(shown))]
    with style():
        figure, axes = new_axes(wrapped(title), len(shown))
        few = len(total) <= FEW_POINTS
        for place, (_, some) in zip(places, shown, strict=True):
            ordered = sorted(ms * 1000 for ms in some)
            ends = [ordered[int((len(ordered) - 1) * share)] for share in (0.05, 0.95)]
            axes.plot(ends, [place, place], color=RULE, linewidth=6, zorder=1)
            points = ordered if few else [ordered[0], ordered[-1]]
            axes.plot(points, [place] * len(points), "|", color=AFTER, markersize=9, zorder=2)
            axes.plot(_middle(ordered), place, "D", color=AFTER, markersize=6, zorder=3)
            axes.text(
                1.02,
                place,
                f"{units.duration(_middle(ordered) / 1000)} ({len(ordered):,})",
                transform=axes.get_yaxis_transform(),
                va="center",
            )
        name_rows(axes, places, [name for name, _ in shown])
        log_ms(axes, [seconds * 1000 for _, some in shown for seconds in some])
        axes.set_xlabel(
            "time to build, logarithmic; a diamond is the median (of so many), a band nine of ten"
            + left_out(len(shown), len(ranked))
        )
        return chart_of(figure, title, alt, BUILDS, rows)


def _middle(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]
