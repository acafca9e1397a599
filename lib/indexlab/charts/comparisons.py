"""Charts of two sides: before and after, their ratios, what drifted, and the price."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from indexlab import units
from indexlab.benchmark import Change, Comparison, Headline, Measurement, Price, Series, gain
from indexlab.charts.figure import (
    AFTER,
    BEFORE,
    INK,
    MAX_PANELS,
    MAX_ROWS,
    PANEL_NAME,
    QUIET,
    RULE,
    WORSE,
    Chart,
    chart_of,
    label_of,
    largest,
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

MOVED = ("faster", "slower")
CHANGES = (
    *("query", "kind", "before_ms", "after_ms", "ratio", "ratio_low", "ratio_high"),
    *("bound", "verdict"),
)
DRIFT = ("query", "side", "round", "ratio")
PRICE = ("query", "kind", "difference_ms", "significant")
ECDF = ("query", "side", "latency_ms", "share")


def before_after(comparison: Comparison) -> Chart:
    """Draw the median latency of each query before and after, writes below the reads."""
    reads = [change for change in comparison.changes if change.kind == "read"]
    reads = sorted(reads, key=lambda change: change.ratio)
    changes = [*reads, *sorted(comparison.writes, key=lambda change: change.ratio)]
    title = _finding(comparison)
    alt = sentence(title, (f"{c.query}: {_arrow(c)}" for c in changes), comparison.warnings)
    shown = largest(changes, lambda c: c.weight * max(c.before_ms, c.after_ms), MAX_ROWS)
    gap = 1.0 if comparison.writes and reads else 0.0
    places = [-(row + (gap if change.kind == "write" else 0.0)) for row, change in enumerate(shown)]
    with style():
        figure, axes = new_axes(title, len(shown) + gap)
        for place, change in zip(places, shown, strict=True):
            low, high = sorted((change.before_ms, change.after_ms))
            axes.plot([low, high], [place, place], color=RULE, linewidth=3, zorder=1)
            # Around the median after, which may lie a little beside before times the ratio.
            ends = [max(change.after_ms * r / change.ratio, 1e-4) for r in _interval(change)]
            axes.plot(ends, [place, place], color=AFTER, linewidth=1.2, zorder=2)
            axes.plot(change.before_ms, place, "o", color=BEFORE, markersize=7, zorder=2)
            axes.plot(change.after_ms, place, "D", color=AFTER, markersize=6, zorder=3)
            axes.text(
                1.02,
                place,
                _arrow(change),
                transform=axes.get_yaxis_transform(),
                va="center",
                color=WORSE if change.verdict == "slower" else INK,
            )
        name_rows(axes, places, [change.query for change in shown])
        log_ms(axes, [value for c in shown for value in (c.before_ms, c.after_ms)])
        if gap:
            line = -float(len([change for change in shown if change.kind == "read"]))
            axes.axhline(line, color=RULE, linewidth=0.8)
            name_rows(axes, [*places, line], [*(change.query for change in shown), "writes"])
            axes.get_yticklabels()[-1].set(color=QUIET, fontstyle="italic")
        axes.set_xlabel("median latency, logarithmic" + left_out(len(shown), len(changes)))
        if shown:
            axes.plot([], [], "o", color=BEFORE, label=label_of(comparison.before, "before"))
            axes.plot([], [], "D", color=AFTER, label=label_of(comparison.after, "after"))
            figure.legend(loc="outside lower right", ncols=2, fontsize=8.5)
        return chart_of(figure, title, alt, CHANGES, map(_changed, changes))


def _changed(change: Change) -> tuple[object, ...]:
    """Return the numbers of `CHANGES`; `bound` says which side is known as a lower bound only."""
    return (
        *(change.query, change.kind, change.before_ms, change.after_ms),
        *(change.ratio, change.ratio_low, change.ratio_high, change.bound, change.verdict),
    )


def _interval(change: Change) -> tuple[float, float]:
    """Return the ratio's interval; a lower bound on one side has none to draw."""
    return (change.ratio, change.ratio) if change.bound else (change.ratio_low, change.ratio_high)


def forest(comparison: Comparison) -> Chart:
    """Draw the ratio after / before of each query with its interval, the slowest on top."""
    changes = sorted(comparison.changes, key=lambda change: -change.ratio)
    counts = {word: sum(c.verdict == word for c in changes) for word in ("faster", "slower")}
    title = (
        f"{counts['faster']} of {units.plural(len(changes), 'query')} became faster, "
        f"{counts['slower']} slower, beyond doubt"
    )
    alt = sentence(
        title,
        (f"{c.query}: {_ratio_words(c)}, {c.verdict}" for c in changes),
        comparison.warnings,
    )
    shown = largest(changes, lambda c: abs(magnitude(c.ratio)), MAX_ROWS)
    places = [-float(row) for row in range(len(shown))]
    marks = {"faster": ("D", AFTER), "slower": ("s", WORSE), "no change": ("o", INK)}
    with style():
        figure, axes = new_axes(title, len(shown))
        effect = comparison.minimum_effect
        axes.axvspan(1 - effect, 1 + effect, color=RULE, zorder=0)
        for place, change in zip(places, shown, strict=True):
            mark, colour = marks.get(change.verdict, ("o", QUIET))
            axes.plot(_interval(change), [place, place], color=colour, linewidth=1.6, zorder=2)
            axes.plot(change.ratio, place, mark, color=colour, markersize=6, zorder=3)
            axes.text(
                1.02,
                place,
                _ratio_words(change),
                transform=axes.get_yaxis_transform(),
                va="center",
            )
        name_rows(axes, places, [change.query for change in shown])
        _log_ratio(axes, [value for c in shown for value in (*_interval(c), c.ratio)])
        axes.set_xlabel(
            "median after / before, logarithmic; below 1 is faster"
            + left_out(len(shown), len(changes))
        )
        return chart_of(figure, title, alt, CHANGES, map(_changed, changes))


def _ratio_words(change: Change) -> str:
    match change.bound:
        case "before":
            return f"{change.ratio:.3g} at most"
        case "after":
            return f"{change.ratio:.3g} at least"
        case "both":
            return "both given up"
    return f"{change.ratio:.3g} ({change.ratio_low:.3g} to {change.ratio_high:.3g})"


def _log_ratio(axes: Axes, values: Sequence[float]) -> None:
    """Give the axis a few round ratios as ticks."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log")
    low, high = min([*values, 0.5]) * 0.9, max([*values, 2.0]) * 1.1
    decades = [10.0**n for n in range(-9, 10)]
    ticks = [t for t in decades if low <= t <= high]
    if len(ticks) < 3:
        ticks = [t * k for t in decades for k in (1, 2, 5) if low <= t * k <= high]
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(ticks[:: max(1, -(-len(ticks) // 8))]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(visible=True, axis="x", color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)


def drift(before: Measurement, after: Measurement, comparison: Comparison) -> Chart:
    """Draw the controls round by round, each as a share of its median over both sides."""
    moved = max(comparison.drift.ratio, 1 / comparison.drift.ratio) - 1
    title = {
        "steady": f"controls moved by {moved:.1%} between the sides: "
        + ("neither was favoured" if moved <= comparison.drift.threshold else "they scatter"),
        "corrected": f"controls moved by {moved:.1%} between the sides: ratios are corrected",
        "refused": f"controls moved by {moved:.0%} between the sides: small changes are in doubt",
        "unknown": "no control was measured on both sides",
    }[comparison.drift.verdict]
    new = {series.query: series for series in after.controls}
    pairs = [(old, new[old.query]) for old in before.controls if old.query in new]
    alt = sentence(
        title,
        (
            f"{old.query}: p50 {units.ms(old.p50_ms)} -> {units.ms(young.p50_ms)} over "
            f"{units.plural(len({s.round for s in old.samples}), 'round')}"
            for old, young in pairs
        ),
    )
    with style():
        figure = new_figure(title, 0.9 + 1.6 * max(1, len(pairs)))
        for number, (old, young) in enumerate(pairs):
            axes = figure.add_subplot(len(pairs), 1, number + 1)
            middle = _middle(old, young)
            for series, colour, line in ((old, BEFORE, "--"), (young, AFTER, "-")):
                rounds, shares = _by_round(series, middle)
                axes.plot(rounds, shares, line, marker=".", color=colour, linewidth=1.3)
            threshold = comparison.drift.threshold
            axes.axhspan(1 - threshold, 1 + threshold, color=RULE, zorder=0)
            axes.set_title(short(old.query, PANEL_NAME), fontsize=8.5)
            axes.tick_params(labelsize=7.5)
            axes.set_ylim(bottom=0)
            last = max(sample.round for series in (old, young) for sample in series.samples)
            step = max(1, -(-last // 10))
            axes.set_xlim(-0.5, last + 0.5)
            axes.set_xticks(range(0, last + 1, step))
        figure.supxlabel("round", fontsize=9)
        figure.supylabel("latency / its median", fontsize=9)
        if pairs:
            axes = figure.axes[0]
            axes.plot([], [], "--", color=BEFORE, label=label_of(before.label, "before"))
            axes.plot([], [], "-", color=AFTER, label=label_of(after.label, "after"))
            figure.legend(loc="outside lower right", ncols=2, fontsize=8.5)
        return chart_of(figure, title, alt, DRIFT, _drifted(pairs))


def _drifted(pairs: Sequence[tuple[Series, Series]]) -> Iterator[tuple[object, ...]]:
    """Return each round's latency as a ratio to the control's median over both sides."""
    for old, young in pairs:
        middle = _middle(old, young)
        for side, series in (("before", old), ("after", young)):
            for number, share in zip(*_by_round(series, middle), strict=True):
                yield old.query, side, number, share


def _middle(old: Series, young: Series) -> float:
    whole = sorted(sample.ms for series in (old, young) for sample in series.samples)
    return whole[len(whole) // 2]


def _by_round(series: Series, middle: float) -> tuple[list[int], list[float]]:
    times: dict[int, list[float]] = {}
    for sample in series.samples:
        times.setdefault(sample.round, []).append(sample.ms)
    rounds = sorted(times)
    return rounds, [sorted(times[n])[len(times[n]) // 2] / middle for n in rounds]


def price(found: Price, comparison: Comparison) -> Chart:
    """Draw what each read saves beside what each write pays, per call, in milliseconds.

    What is within the noise of the measurement is drawn hollow and called so.
    """
    sure = {change.query for change in comparison.changes if change.verdict in MOVED}
    reads = [(c.query, c.before_ms - c.after_ms) for c in comparison.changes if c.kind == "read"]
    reads.sort(key=lambda row: -row[1])
    writes = [(one.query, one.extra_ms) for one in found.writes]
    title = "no write was measured: the price is not known"
    if writes and 0 < found.reads_per_write < math.inf:
        paid = found.reads_per_write
        title = (
            f"an average read pays for {units.count(round(1 / paid))} writes"
            if paid <= 0.5
            else f"{paid:.2g} average reads pay for a write"
        )
    elif writes:
        title = "writes did not slow down" if found.extra_ms <= 0 else "no read pays for the writes"
    alt = sentence(
        title,
        iter(
            [
                *(f"{name} saves {_signed(value)}{_doubt(name, sure)}" for name, value in reads),
                *(f"{name} pays {_signed(value)}{_doubt(name, sure)}" for name, value in writes),
            ]
        ),
    )
    shown = [*largest(reads, lambda row: abs(row[1]), MAX_ROWS - len(writes[:8])), *writes[:8]]
    places = [-float(row) for row in range(len(shown))]
    count = len(shown) - len(writes[:8])
    with style():
        figure, axes = new_axes(title, len(shown))
        for row, (place, (name, value)) in enumerate(zip(places, shown, strict=True)):
            is_gain = (value > 0) == (row < count)
            axes.plot(
                max(abs(value), 1e-4),
                place,
                "D" if is_gain else "s",
                color=AFTER if is_gain else WORSE,
                markerfacecolor=None if name in sure else "white",
                markersize=6,
            )
            word = "saves" if is_gain else "pays"
            axes.text(
                1.02,
                place,
                f"{word} {units.ms(abs(value))}{_doubt(name, sure)}",
                transform=axes.get_yaxis_transform(),
                va="center",
            )
        name_rows(axes, places, [name for name, _ in shown])
        log_ms(axes, [max(abs(value), 1e-4) for _, value in shown])
        if writes and count:
            axes.axhline(-count + 0.5, color=RULE, linewidth=0.8)
        axes.set_xlabel(
            "difference per call, logarithmic; reads above, writes below the line"
            + left_out(len(shown), len(reads) + len(writes))
        )
        return chart_of(figure, title, alt, PRICE, _paid(reads, writes, sure))


def _paid(
    reads: Sequence[tuple[str, float]], writes: Sequence[tuple[str, float]], sure: Collection[str]
) -> Iterator[tuple[object, ...]]:
    """Return what a call of each read saves, and what one of each write pays."""
    for kind, sides in (("read", reads), ("write", writes)):
        for name, value in sides:
            yield name, kind, value, name in sure


def _doubt(name: str, sure: Collection[str]) -> str:
    return "" if name in sure else ", not significant"


def _signed(ms: float) -> str:
    return units.ms(ms) if ms >= 0 else f"-{units.ms(-ms)}"


def _finding(comparison: Comparison) -> str:
    headline = comparison.headline if comparison.headline.queries else comparison.reads
    if headline.queries:
        return _moved(headline, decided=gain(comparison, headline).decided)
    slower = [change for change in comparison.writes if change.verdict == "slower"]
    return f"{len(slower)} of {units.plural(len(comparison.writes), 'write')} became slower"


def _moved(headline: Headline, *, decided: bool) -> str:
    numbers = f"{units.ms(headline.before_ms)} -> {units.ms(headline.after_ms)}"
    word = units.factor(1 / headline.ratio)
    if word == "unchanged":
        return f"read latency did not change: {numbers}"
    if not decided:
        return f"read latency did not change beyond doubt: {numbers}"
    times = word.split("x ")[0]
    return f"read latency {'fell' if headline.ratio > 1 else 'rose'} {times}x: {numbers}"


def _arrow(change: Change) -> str:
    return (
        f"{change.before_words} -> {change.after_words} "
        f"({units.factor(change.ratio) if change.verdict in MOVED else change.verdict})"
    )


def ecdf(before: Measurement, after: Measurement) -> Chart:
    """Draw each query's latencies as cumulative shares, before and after, one panel each."""
    new = {series.query: series for series in after.series}
    pairs = [(series, new[series.query]) for series in before.series if series.query in new]
    faster = sum(b.p95_ms < a.p95_ms for a, b in pairs)
    title = f"p95 latency is lower in {faster} of {units.plural(len(pairs), 'query')}"
    alt = sentence(
        title,
        (
            f"{a.query}: p50 {units.ms(a.p50_ms)} -> {units.ms(b.p50_ms)}, "
            f"p95 {units.ms(a.p95_ms)} -> {units.ms(b.p95_ms)}"
            for a, b in pairs
        ),
    )
    shown = largest(pairs, lambda pair: abs(magnitude(pair[1].p50_ms / pair[0].p50_ms)), MAX_PANELS)
    columns = min(3, max(1, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    with style():
        figure = new_figure(title, 0.9 + 1.45 * rows)
        for number, (old, young) in enumerate(shown):
            axes = figure.add_subplot(rows, columns, number + 1)
            for series, colour, line in ((old, BEFORE, "--"), (young, AFTER, "-")):
                axes.ecdf(
                    [sample.ms for sample in series.samples],
                    color=colour,
                    linestyle=line,
                    linewidth=1.6,
                )
            axes.set_title(short(old.query, PANEL_NAME), fontsize=8.5)
            log_ms(axes, [s.ms for series in (old, young) for s in series.samples], most=4)
            axes.set_yticks([0, 0.5, 1], ["0", "50%", "100%"])
            axes.tick_params(labelsize=7.5)
            axes.grid(visible=True, color=RULE, linewidth=0.5)
            if number % columns:
                axes.set_yticklabels([])
        figure.supxlabel("latency, logarithmic" + left_out(len(shown), len(pairs)), fontsize=9)
        figure.supylabel("share of executions", fontsize=9)
        if shown:
            axes = figure.axes[0]
            axes.plot([], [], "--", color=BEFORE, label=label_of(before.label, "before"))
            axes.plot([], [], "-", color=AFTER, label=label_of(after.label, "after"))
            figure.legend(loc="outside lower right", ncols=2, fontsize=8.5)
        return chart_of(figure, title, alt, ECDF, _shares(pairs))


def _shares(pairs: Sequence[tuple[Series, Series]]) -> Iterator[tuple[object, ...]]:
    """Return each latency with the share of executions that took no longer."""
    for old, young in pairs:
        for side, series in (("before", old), ("after", young)):
            times = sorted(sample.ms for sample in series.samples)
            for number, ms in enumerate(times, 1):
                yield old.query, side, ms, number / len(times)
