"""Charts of indexes: their builds, sizes, and what each is worth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from indexlab import units
from indexlab.charts.figure import (
    AFTER,
    GROUPS,
    INK,
    MAX_PANELS,
    MAX_ROWS,
    NAME,
    PANEL_NAME,
    QUIET,
    ROW,
    RULE,
    THIRD,
    WORSE,
    Chart,
    bars,
    chart_of,
    largest,
    left_out,
    name_rows,
    new_axes,
    new_figure,
    sentence,
    short,
    style,
    wrapped,
)
from indexlab.impact import NOTICEABLE, Candidate, Impact, QueryImpact, saved

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW_COLUMNS = 8
"""So many names have room to be written aslant below their columns."""


BUILDS = ("index", "bytes", "seconds")
SIZES = ("index", "bytes", "group")
WORTH = ("query", "index", "share_saved_alone", "used")
VALUES = ("index", "bytes", "share_lost_without", "share_saved_alone", "used")


def builds(
    names: Sequence[str],
    bytes: Sequence[float],  # noqa: A002
    seconds: Sequence[float],
) -> Chart:
    """Draw what each built index took: bytes on disk and time to build.

    Args:
        names: of the indexes.
        bytes: size of each.
        seconds: how long each took to build.
    """
    rows = sorted(zip(names, bytes, seconds, strict=True), key=lambda row: -row[1])
    title = (
        f"{units.plural(len(rows), 'index')}: {units.size(sum(bytes))} "
        f"in {units.duration(sum(seconds))} of building"
    )
    alt = sentence(title, (f"{n}: {units.size(b)}, {units.duration(s)}" for n, b, s in rows))
    shown = rows[:MAX_ROWS]
    places = [-float(row) for row in range(len(shown))]
    with style():
        figure = new_figure(title, 1.3 + ROW * max(len(shown), 1))
        left, right = figure.subplots(1, 2, sharey=True)
        bars(left, places, [row[1] for row in shown], units.size, [AFTER] * len(shown))
        bars(right, places, [row[2] for row in shown], units.duration, [THIRD] * len(shown))
        name_rows(left, places, [row[0] for row in shown])
        right.tick_params(left=False, labelleft=False)
        left.set_xlabel("size on disk" + left_out(len(shown), len(rows)))
        right.set_xlabel("time to build")
        return chart_of(figure, title, alt, BUILDS, rows)


def index_sizes(
    names: Sequence[str],
    bytes: Sequence[float],  # noqa: A002
    groups: Sequence[str],
) -> Chart:
    """Draw the sizes of indexes as bars, coloured by group, largest first.

    Args:
        names: of the indexes.
        bytes: size of each.
        groups: a word for each, such as its table or its verdict.
    """
    from matplotlib.patches import Patch

    rows = sorted(zip(names, bytes, groups, strict=True), key=lambda row: -row[1])
    title = f"{units.plural(len(rows), 'index')} take {units.size(sum(bytes))}"
    if len(rows) == 1:
        title = f"1 index takes {units.size(sum(bytes))}"
    alt = sentence(title, (f"{n} ({group}): {units.size(b)}" for n, b, group in rows))
    totals: dict[str, float] = {}
    for _, amount, group in rows:
        totals[group] = totals.get(group, 0.0) + amount
    order = sorted(totals, key=lambda group: -totals[group])
    # More groups than colours: the smaller ones share grey, and the legend says so.
    named = order if len(order) <= len(GROUPS) else order[: len(GROUPS) - 1]
    colours = dict(zip(named, GROUPS, strict=False))
    shown = rows[:MAX_ROWS]
    places = [-float(row) for row in range(len(shown))]
    with style():
        figure, axes = new_axes(title, len(shown))
        tints = [colours.get(group, QUIET) for _, _, group in shown]
        bars(axes, places, [row[1] for row in shown], units.size, tints)
        name_rows(axes, places, [row[0] for row in shown])
        axes.set_xlabel("size on disk" + left_out(len(shown), len(rows)))
        if len(order) > 1:
            entries = [(short(group, 24), colour) for group, colour in colours.items()]
            if len(named) < len(order):
                entries.append(("others", QUIET))
            axes.legend(
                handles=[Patch(color=colour, label=f" {name}") for name, colour in entries],
                loc="lower right",
                fontsize=8.5,
            )
        return chart_of(figure, title, alt, SIZES, rows)


def worth(impact: Impact) -> Chart:
    """Draw which planned index saves which query how much: a heat map of queries by indexes.

    A cell is the share of the query's cost that the index saves by itself; a dot says that the
    query uses it with the whole plan in place.
    """
    from matplotlib.patches import Rectangle

    known = [query for query in impact.simulated if query.cost_before > 0]
    planned = [item.name for item in impact.candidates if not item.problem]
    used = [name for name in planned if impact.users(name)]
    served = [query for query in known if set(query.uses_after) & set(planned)]
    title = (
        f"{len(used)} of {units.plural(len(planned), 'planned index')} "
        f"{'earns its' if len(used) == 1 else 'earn their'} keep: {len(served)} of "
        f"{units.plural(len(known), 'query')} {'uses' if len(served) == 1 else 'use'} them"
    )
    alt = sentence(
        title,
        (
            f"{query.query}: {units.cost(query.cost_before)} -> {units.cost(query.cost_after)}; "
            + ", ".join(
                f"{name} alone saves {saved(query, name):.0%}"
                + (" and is used" if name in query.uses_after else "")
                for name in planned
                if _matters(query, name)
            )
            for query in served
        ),
    )
    rows = largest(known, lambda query: query.weight * query.cost_before, MAX_ROWS)
    columns = largest(planned, impact.worth_alone, MAX_PANELS)
    with style():
        figure = new_figure(title, 3.2 + ROW * max(len(rows), 1))
        axes = figure.add_subplot()
        shares = [[saved(query, name) for name in columns] for query in rows]
        axes.set_xlim(-0.5, max(len(columns), 1) - 0.5)
        axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
        for row, query in enumerate(rows):
            for column, name in enumerate(columns):
                share = min(max(shares[row][column], -1.0), 1.0)
                if share:
                    colour = AFTER if share > 0 else WORSE
                    corner = (column - 0.5, row - 0.5)
                    cell = Rectangle(corner, 1, 1, color=colour, alpha=abs(share), linewidth=0)
                    axes.add_patch(cell)
                if _matters(query, name):
                    share = shares[row][column]
                    axes.text(
                        column,
                        row,
                        f"{share:.0%}" + (" ●" if name in query.uses_after else ""),
                        ha="center",
                        va="center",
                        fontsize=8,
                        color="white" if abs(share) > 0.6 else INK,
                    )
        axes.set_yticks(range(len(rows)), [short(query.query, NAME) for query in rows])
        axes.set_xticks(
            range(len(columns)),
            [short(name, PANEL_NAME) for name in columns],
            rotation=30 if len(columns) <= FEW_COLUMNS else 90,
            ha="right",
            va="top" if len(columns) <= FEW_COLUMNS else "center",
            rotation_mode="anchor",
        )
        axes.tick_params(length=0)
        axes.set_xticks([n - 0.5 for n in range(1, len(columns))], minor=True)
        axes.set_yticks([n - 0.5 for n in range(1, len(rows))], minor=True)
        axes.grid(visible=True, which="minor", color=RULE, linewidth=0.5)
        axes.tick_params(which="minor", length=0)
        axes.spines[:].set_visible(False)
        figure.supxlabel(
            "share of a query's cost that an index saves by itself; ● used with the whole plan"
            + left_out(len(rows), len(known)),
            fontsize=9,
        )
        return chart_of(figure, title, alt, WORTH, _worths(known, planned))


def _worths(queries: Sequence[QueryImpact], indexes: Sequence[str]) -> Iterator[tuple[object, ...]]:
    for query in queries:
        for name in indexes:
            yield query.query, name, saved(query, name), name in query.uses_after


def _matters(query: QueryImpact, index: str) -> bool:
    return index in query.uses_after or abs(saved(query, index)) >= NOTICEABLE


def _valued(impact: Impact, items: Sequence[Candidate]) -> Iterator[tuple[object, ...]]:
    """Return sizes, and shares of the cost of the whole workload."""
    whole = impact.cost_before or 1.0
    for item in items:
        lost, alone = impact.worth(item.name) / whole, impact.worth_alone(item.name) / whole
        yield item.name, item.bytes, lost, alone, bool(impact.users(item.name))


def bytes_against_worth(impact: Impact) -> Chart:
    """Draw what each planned index takes and what it is worth; the two that do the work are named.

    A point is what would be lost without the index beside the others, a line goes up to what it
    would save alone.
    """
    planned = [item for item in impact.candidates if not item.problem]
    # Two that could stand in for each other are worth nothing beside each other.
    beside = sum(impact.worth(item.name) for item in planned) > 0
    value = impact.worth if beside else impact.worth_alone
    ranked = sorted(planned, key=lambda item: (-value(item.name), item.bytes))
    total = sum(max(value(item.name), 0.0) for item in planned)
    best = [item for item in ranked[:2] if value(item.name) > 0]
    title = "no planned index saves the workload anything"
    if best:
        done = sum(value(item.name) for item in best) / total
        names = " and ".join(item.name for item in best)
        title = (
            f"{names} {'do' if len(best) == 2 else 'does'} {done:.0%} of the work with "
            f"{units.size(sum(item.bytes for item in best))} of "
            f"{units.size(sum(item.bytes for item in planned))}"
        )
    alt = sentence(
        title,
        (
            f"{item.name}: {units.size(item.bytes)}, worth {units.cost(impact.worth(item.name))} "
            f"beside the others and {units.cost(impact.worth_alone(item.name))} alone"
            + ("" if impact.users(item.name) else ", not used with the whole plan")
            for item in ranked
        ),
    )
    whole = impact.cost_before or 1.0
    with style():
        figure = new_figure(wrapped(title), 4.2)
        axes = figure.add_subplot()
        for item in planned:
            low, high = impact.worth(item.name) / whole, impact.worth_alone(item.name) / whole
            used = bool(impact.users(item.name))
            size = max(item.bytes, 1)
            axes.plot([size, size], [low, high], color=RULE, linewidth=3, zorder=1)
            axes.plot(
                size,
                low,
                "o",
                markersize=8,
                color=AFTER if used else QUIET,
                markerfacecolor=AFTER if used else "white",
                zorder=3 if item in best else 2,
            )
        for item in best:
            axes.annotate(
                short(item.name, NAME),
                (max(item.bytes, 1), impact.worth(item.name) / whole),
                xytext=(9, 6),
                textcoords="offset points",
                fontweight="bold",
                fontsize=8.5,
            )
        _log_bytes(axes, [max(item.bytes, 1) for item in planned])
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.set_ylabel("share of the workload's cost saved")
        axes.set_xlabel("size, logarithmic")
        axes.grid(visible=True, axis="y", color=RULE, linewidth=0.5)
        axes.margins(y=0.12)
        if planned:
            axes.plot([], [], "o", color=AFTER, label="lost without it, beside the others")
            axes.plot([], [], color=RULE, linewidth=3, label="up to: saved by it alone")
            if any(not impact.users(item.name) for item in planned):
                axes.plot(
                    [], [], "o", color=QUIET, markerfacecolor="white", label="used by no query"
                )
            figure.legend(loc="outside lower right", ncols=3, fontsize=8.5)
        return chart_of(figure, title, alt, VALUES, _valued(impact, ranked))


def _log_bytes(axes: Axes, values: Sequence[float]) -> None:
    """Give the axis powers of two as ticks, in the words of `units.size`."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log", base=2)
    low = math.log2(min(values, default=8192)) - 0.5
    high = max(math.log2(max(values, default=2**20)) + 2.5, low + 4)
    axes.set_xlim(2**low, 2**high)
    step = max(1, math.ceil((high - low) / 8))
    ticks = [2.0**n for n in range(math.ceil(low), math.floor(high) + 1, step)]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _whole_size(value)))
    axes.set_axisbelow(True)


def _whole_size(value: float) -> str:
    """Say a power of two without digits that it does not have: `8 kB`, `512 MB`."""
    number, unit = units.size(value).split()
    return f"{float(number.replace(',', '')):g} {unit}"
