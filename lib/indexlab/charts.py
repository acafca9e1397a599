"""Charts of a benchmark and of indexes; the only module that draws."""

from __future__ import annotations

import base64
import io
import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexlab import display, units
from indexlab.benchmark import Change, Comparison, Headline, Measurement, Price, Scaling, Series
from indexlab.errors import InputError
from indexlab.impact import NOTICEABLE, Impact, QueryImpact, saved

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, Color Universal Design, 2008: told apart with every kind of colour vision.
BEFORE = "#E69F00"
AFTER = "#0072B2"
WORSE = "#D55E00"
THIRD = "#009E73"
FOURTH = "#CC79A7"
FIFTH = "#56B4E9"
INK = "#222222"
QUIET = "#767676"
RULE = "#DDDDDD"
GROUPS = (AFTER, BEFORE, THIRD, FOURTH, FIFTH, WORSE)

SIZE_STEPS = [k * 1024**n for n in range(5) for k in (1, 2, 5, 10, 20, 50, 100, 200, 500)]
TIME_STEPS = [
    *(k * 10**n for n in range(-4, 1) for k in (1, 2, 5)),
    *(10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 36000, 86400),
]

WIDTH = 9.0
ROW = 0.34
DPI = 120
SHADES = 14
NAME = 42
MOVED = ("faster", "slower")
MAX_ROWS = 40
MAX_PANELS = 24
PANEL_NAME = 34
FEW_COLUMNS = 8
"""So many names have room to be written aslant below their columns."""
SETTINGS: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.0,
    "figure.facecolor": "white",
    "figure.titlesize": 11.5,
    "figure.titleweight": "bold",
    "legend.frameon": False,
    "savefig.facecolor": "white",
    "svg.hashsalt": "indexlab",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
}


@dataclass(frozen=True, slots=True, eq=False)
class Chart:
    """A figure with the sentence that it shows and its numbers in words."""

    figure: Figure
    title: str
    alt: str
    """The text for those who do not see the chart."""

    def png(self) -> bytes:
        """Draw the chart; the same numbers give the same bytes."""
        from PIL import Image

        drawn = Image.open(io.BytesIO(self._draw("png", {"Software": None}))).convert("RGB")
        palette = Image.new("P", (1, 1))
        palette.putpalette(_palette())
        stream = io.BytesIO()
        # Reports carry their charts within: with a palette they have half the size.
        drawn.quantize(palette=palette, dither=Image.Dither.NONE).save(
            stream, "PNG", optimize=True, dpi=(DPI, DPI)
        )
        return stream.getvalue()

    def svg(self) -> bytes:
        """Draw the chart as vectors; the same numbers give the same bytes."""
        return self._draw("svg", {"Date": None, "Creator": None})

    def save(self, path: Path) -> tuple[Path, Path]:
        """Write the chart beside `path`, as .png and as .svg.

        Args:
            path: the suffix is replaced.

        Returns:
            The two files written.

        Raises:
            InputError: a file cannot be written.
        """
        png, svg = path.with_suffix(".png"), path.with_suffix(".svg")
        try:
            png.write_bytes(self.png())
            svg.write_bytes(self.svg())
        except OSError as error:
            raise InputError(f"cannot be written: {error.strerror}", source=path) from None
        return png, svg

    def _draw(self, form: str, metadata: dict[str, None]) -> bytes:
        stream = io.BytesIO()
        with _style():
            self.figure.savefig(stream, format=form, dpi=DPI, metadata=metadata)
        return stream.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png()

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.png()).decode()
        width = round(float(self.figure.get_figwidth()) * 96)
        return (
            f'<img alt="{display.escape(self.alt)}" width="{width}" '
            'style="max-width:100%;height:auto;background:#fff" '
            f'src="data:image/png;base64,{data}">'
        )


def before_after(comparison: Comparison) -> Chart:
    """Draw the median latency of each query before and after, writes below the reads."""
    reads = [change for change in comparison.changes if change.kind == "read"]
    reads = sorted(reads, key=lambda change: change.ratio)
    changes = [*reads, *sorted(comparison.writes, key=lambda change: change.ratio)]
    title = _finding(comparison)
    alt = _sentence(title, (f"{c.query}: {_arrow(c)}" for c in changes), comparison.warnings)
    shown = _most(changes, lambda c: c.weight * max(c.before_ms, c.after_ms), MAX_ROWS)
    gap = 1.0 if comparison.writes and reads else 0.0
    places = [-(row + (gap if change.kind == "write" else 0.0)) for row, change in enumerate(shown)]
    with _style():
        figure, axes = _axes(title, len(shown) + gap)
        for place, change in zip(places, shown, strict=True):
            low, high = sorted((change.before_ms, change.after_ms))
            axes.plot([low, high], [place, place], color=RULE, linewidth=3, zorder=1)
            ends = [max(change.before_ms * r, 1e-4) for r in _interval(change)]
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
        _names(axes, places, [change.query for change in shown])
        _log_ms(axes, [value for c in shown for value in (c.before_ms, c.after_ms)])
        if gap:
            line = -float(len([change for change in shown if change.kind == "read"]))
            axes.axhline(line, color=RULE, linewidth=0.8)
            _names(axes, [*places, line], [*(change.query for change in shown), "writes"])
            axes.get_yticklabels()[-1].set(color=QUIET, fontstyle="italic")
        axes.set_xlabel("median latency, logarithmic" + _left_out(len(shown), len(changes)))
        if shown:
            axes.plot([], [], "o", color=BEFORE, label=_label(comparison.before, "before"))
            axes.plot([], [], "D", color=AFTER, label=_label(comparison.after, "after"))
            figure.legend(loc="outside lower right", ncols=2, fontsize=8.5)
        return _chart(figure, title, alt)


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
    alt = _sentence(
        title,
        (
            f"{c.query}: {c.ratio:.3g} ({c.ratio_low:.3g} to {c.ratio_high:.3g}), {c.verdict}"
            for c in changes
        ),
        comparison.warnings,
    )
    shown = _most(changes, lambda c: abs(_magnitude(c.ratio)), MAX_ROWS)
    places = [-float(row) for row in range(len(shown))]
    marks = {"faster": ("D", AFTER), "slower": ("s", WORSE), "no change": ("o", INK)}
    with _style():
        figure, axes = _axes(title, len(shown))
        effect = comparison.minimum_effect
        axes.axvspan(1 - effect, 1 + effect, color=RULE, zorder=0)
        for place, change in zip(places, shown, strict=True):
            mark, colour = marks.get(change.verdict, ("o", QUIET))
            axes.plot(_interval(change), [place, place], color=colour, linewidth=1.6, zorder=2)
            axes.plot(change.ratio, place, mark, color=colour, markersize=6, zorder=3)
            axes.text(
                1.02,
                place,
                f"{change.ratio:.3g} ({change.ratio_low:.3g} to {change.ratio_high:.3g})"
                if not change.bound
                else f"{change.ratio:.3g} at most"
                if change.bound == "before"
                else "a bound",
                transform=axes.get_yaxis_transform(),
                va="center",
            )
        _names(axes, places, [change.query for change in shown])
        _log_ratio(axes, [value for c in shown for value in (*_interval(c), c.ratio)])
        axes.set_xlabel(
            "median after / before, logarithmic; below 1 is faster"
            + _left_out(len(shown), len(changes))
        )
        return _chart(figure, title, alt)


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
        "steady": f"controls moved by {moved:.1%} between the sides: neither was favoured",
        "corrected": f"controls moved by {moved:.1%} between the sides: ratios are corrected",
        "refused": f"controls moved by {moved:.0%} between the sides: small changes are in doubt",
        "unknown": "no control was measured on both sides",
    }[comparison.drift.verdict]
    new = {series.query: series for series in after.controls}
    pairs = [(old, new[old.query]) for old in before.controls if old.query in new]
    alt = _sentence(
        title,
        (
            f"{old.query}: p50 {units.ms(old.p50_ms)} -> {units.ms(young.p50_ms)} over "
            f"{units.plural(len({s.round for s in old.samples}), 'round')}"
            for old, young in pairs
        ),
    )
    with _style():
        figure = _figure(title, 0.9 + 1.6 * max(1, len(pairs)))
        for number, (old, young) in enumerate(pairs):
            axes = figure.add_subplot(len(pairs), 1, number + 1)
            whole = [sample.ms for series in (old, young) for sample in series.samples]
            middle = sorted(whole)[len(whole) // 2]
            for series, colour, line in ((old, BEFORE, "--"), (young, AFTER, "-")):
                rounds, shares = _by_round(series, middle)
                axes.plot(rounds, shares, line, marker=".", color=colour, linewidth=1.3)
            threshold = comparison.drift.threshold
            axes.axhspan(1 - threshold, 1 + threshold, color=RULE, zorder=0)
            axes.set_title(_short(old.query, PANEL_NAME), fontsize=8.5)
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
            axes.plot([], [], "--", color=BEFORE, label=_label(before.label, "before"))
            axes.plot([], [], "-", color=AFTER, label=_label(after.label, "after"))
            figure.legend(loc="outside lower right", ncols=2, fontsize=8.5)
        return _chart(figure, title, alt)


def _by_round(series: Series, middle: float) -> tuple[list[int], list[float]]:
    times: dict[int, list[float]] = {}
    for sample in series.samples:
        times.setdefault(sample.round, []).append(sample.ms)
    rounds = sorted(times)
    return rounds, [sorted(times[n])[len(times[n]) // 2] / middle for n in rounds]


def price(found: Price, comparison: Comparison) -> Chart:
    """Draw what each read saves beside what each write pays, per call, in milliseconds."""
    reads = [(c.query, c.before_ms - c.after_ms) for c in comparison.changes if c.kind == "read"]
    reads.sort(key=lambda row: -row[1])
    writes = [(one.query, one.extra_ms) for one in found.writes]
    title = "no write was measured: the price is not known"
    if writes and 0 < found.reads_per_write < math.inf:
        title = f"a write is paid by {found.reads_per_write:.2g} average reads"
    elif writes:
        title = "writes did not slow down" if found.extra_ms <= 0 else "no read pays for the writes"
    alt = _sentence(
        title,
        iter(
            [
                *(f"{name} saves {_signed(value)}" for name, value in reads),
                *(f"{name} pays {_signed(value)}" for name, value in writes),
            ]
        ),
    )
    shown = [*_most(reads, lambda row: abs(row[1]), MAX_ROWS - len(writes[:8])), *writes[:8]]
    places = [-float(row) for row in range(len(shown))]
    count = len(shown) - len(writes[:8])
    with _style():
        figure, axes = _axes(title, len(shown))
        for row, (place, (_, value)) in enumerate(zip(places, shown, strict=True)):
            is_gain = (value > 0) == (row < count)
            axes.plot(
                max(abs(value), 1e-4),
                place,
                "D" if is_gain else "s",
                color=AFTER if is_gain else WORSE,
                markersize=6,
            )
            word = "saves" if is_gain else "pays"
            axes.text(
                1.02,
                place,
                f"{word} {units.ms(abs(value))}",
                transform=axes.get_yaxis_transform(),
                va="center",
            )
        _names(axes, places, [name for name, _ in shown])
        _log_ms(axes, [max(abs(value), 1e-4) for _, value in shown])
        if writes and count:
            axes.axhline(-count + 0.5, color=RULE, linewidth=0.8)
        axes.set_xlabel(
            "difference per call, logarithmic; reads above, writes below the line"
            + _left_out(len(shown), len(reads) + len(writes))
        )
        return _chart(figure, title, alt)


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
    alt = _sentence(
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
    with _style():
        figure = _figure(title, 0.9 + 1.7 * lines)
        for number, growth in enumerate(shown):
            axes = figure.add_subplot(lines, columns, number + 1)
            for times, colour, line, mark in (
                (growth.before_ms, BEFORE, "--", "o"),
                (growth.after_ms, AFTER, "-", "D"),
            ):
                axes.plot(found.rows, times, line, marker=mark, color=colour, markersize=4)
            name = _short(growth.query, PANEL_NAME)
            exponents = f"rows^{growth.exponent_before:.2f} -> rows^{growth.exponent_after:.2f}"
            axes.set_title(f"{name}\n{exponents}", fontsize=8)
            _log_both(axes, found.rows, [*growth.before_ms, *growth.after_ms])
        figure.supxlabel(
            "rows of the largest table, logarithmic" + _left_out(len(shown), len(growths)),
            fontsize=9,
        )
        figure.supylabel("median latency, logarithmic", fontsize=9)
        if shown:
            axes = figure.axes[0]
            axes.plot([], [], "--", marker="o", color=BEFORE, label="without the indexes")
            axes.plot([], [], "-", marker="D", color=AFTER, label="with them")
            figure.legend(loc="outside lower right", ncols=2, fontsize=8.5)
        return _chart(figure, title, alt)


def _log_both(axes: Axes, rows: Sequence[int], times: Sequence[float]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(min(rows) / 1.6, max(rows) * 1.6)
    axes.xaxis.set_major_locator(FixedLocator([float(min(rows)), float(max(rows))]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: units.count(round(value))))
    low, high = int(_magnitude(min(times)) // 1), -int(-_magnitude(max(times)) // 1)
    axes.set_ylim(10.0**low * 0.8, 10.0 ** max(high, low + 1) * 1.25)
    step = max(1, -(-(high - low) // 3))
    ticks = [10.0**n for n in range(low, max(high, low + 1) + 1, step)]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _decade(value)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.tick_params(labelsize=7.5)
    axes.grid(visible=True, color=RULE, linewidth=0.5)


def _signed(ms: float) -> str:
    return units.ms(ms) if ms >= 0 else f"-{units.ms(-ms)}"


def _finding(comparison: Comparison) -> str:
    headline = comparison.headline if comparison.headline.queries else comparison.reads
    if headline.queries:
        return _fell("read latency", headline)
    slower = [change for change in comparison.writes if change.verdict == "slower"]
    return f"{len(slower)} of {units.plural(len(comparison.writes), 'write')} became slower"


def _fell(what: str, headline: Headline) -> str:
    numbers = f"{units.ms(headline.before_ms)} -> {units.ms(headline.after_ms)}"
    word = units.factor(1 / headline.ratio)
    if word == "unchanged":
        return f"{what} did not change: {numbers}"
    times = word.split("x ")[0]
    return f"{what} {'fell' if headline.ratio > 1 else 'rose'} {times}x: {numbers}"


def _arrow(change: Change) -> str:
    return (
        f"{units.ms(change.before_ms)} -> {units.ms(change.after_ms)} "
        f"({units.factor(change.ratio) if change.verdict in MOVED else change.verdict})"
    )


def ecdf(before: Measurement, after: Measurement) -> Chart:
    """Draw each query's latencies as cumulative shares, before and after, one panel each."""
    new = {series.query: series for series in after.series}
    pairs = [(series, new[series.query]) for series in before.series if series.query in new]
    faster = sum(b.p95_ms < a.p95_ms for a, b in pairs)
    title = f"p95 latency is lower in {faster} of {units.plural(len(pairs), 'query')}"
    alt = _sentence(
        title,
        (
            f"{a.query}: p50 {units.ms(a.p50_ms)} -> {units.ms(b.p50_ms)}, "
            f"p95 {units.ms(a.p95_ms)} -> {units.ms(b.p95_ms)}"
            for a, b in pairs
        ),
    )
    shown = _most(pairs, lambda pair: abs(_magnitude(pair[1].p50_ms / pair[0].p50_ms)), MAX_PANELS)
    columns = min(3, max(1, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    with _style():
        figure = _figure(title, 0.9 + 1.45 * rows)
        for number, (old, young) in enumerate(shown):
            axes = figure.add_subplot(rows, columns, number + 1)
            for series, colour, line in ((old, BEFORE, "--"), (young, AFTER, "-")):
                axes.ecdf(
                    [sample.ms for sample in series.samples],
                    color=colour,
                    linestyle=line,
                    linewidth=1.6,
                )
            axes.set_title(_short(old.query, PANEL_NAME), fontsize=8.5)
            _log_ms(axes, [s.ms for series in (old, young) for s in series.samples], most=4)
            axes.set_yticks([0, 0.5, 1], ["0", "50%", "100%"])
            axes.tick_params(labelsize=7.5)
            axes.grid(visible=True, color=RULE, linewidth=0.5)
            if number % columns:
                axes.set_yticklabels([])
        figure.supxlabel("latency, logarithmic" + _left_out(len(shown), len(pairs)), fontsize=9)
        figure.supylabel("share of executions", fontsize=9)
        if shown:
            axes = figure.axes[0]
            axes.plot([], [], "--", color=BEFORE, label=_label(before.label, "before"))
            axes.plot([], [], "-", color=AFTER, label=_label(after.label, "after"))
            figure.legend(loc="outside lower right", ncols=2, fontsize=8.5)
        return _chart(figure, title, alt)


def latencies(measurement: Measurement) -> Chart:
    """Draw p50, p95 and p99 of each query, slowest first."""
    series = sorted(measurement.series, key=lambda s: -s.p50_ms)
    title = "no query was measured"
    if series:
        slowest = series[0]
        title = (
            f"{_short(slowest.query, NAME)} is the slowest of "
            f"{units.plural(len(series), 'query')}: p50 {units.ms(slowest.p50_ms)}"
        )
    alt = _sentence(
        title,
        (f"{s.query}: p50 {units.ms(s.p50_ms)}, p95 {units.ms(s.p95_ms)}, p99 {units.ms(s.p99_ms)}"
         for s in series),
    )  # fmt: skip
    shown = series[:MAX_ROWS]
    with _style():
        figure, axes = _axes(title, len(shown))
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
        _names(axes, [-float(row) for row in range(len(shown))], [s.query for s in shown])
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
        _log_ms(axes, [value for s in shown for value, _, _ in _marks(s)])
        axes.set_xlabel("latency, logarithmic" + _left_out(len(shown), len(series)))
        if shown:
            for label, mark, colour in (
                ("p50", "o", AFTER),
                ("p95", "s", BEFORE),
                ("p99", "|", INK),
            ):
                axes.plot([], [], mark, color=colour, label=label)
            figure.legend(loc="outside lower right", ncols=3, fontsize=8.5)
        return _chart(figure, title, alt)


def _marks(series: Series) -> tuple[tuple[float, str, str], ...]:
    return ((series.p50_ms, "o", AFTER), (series.p95_ms, "s", BEFORE), (series.p99_ms, "|", INK))


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
        f"built in {units.duration(sum(seconds))}"
    )
    alt = _sentence(title, (f"{n}: {units.size(b)}, {units.duration(s)}" for n, b, s in rows))
    shown = rows[:MAX_ROWS]
    places = [-float(row) for row in range(len(shown))]
    with _style():
        figure = _figure(title, 1.3 + ROW * max(len(shown), 1))
        left, right = figure.subplots(1, 2, sharey=True)
        _bars(left, places, [row[1] for row in shown], units.size, [AFTER] * len(shown))
        _bars(right, places, [row[2] for row in shown], units.duration, [THIRD] * len(shown))
        _names(left, places, [row[0] for row in shown])
        right.tick_params(left=False, labelleft=False)
        left.set_xlabel("size on disk" + _left_out(len(shown), len(rows)))
        right.set_xlabel("time to build")
        return _chart(figure, title, alt)


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
    alt = _sentence(title, told)
    with _style():
        figure = _figure(title, 3.6)
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
        return _chart(figure, title, alt)


def _quantile(values: Sequence[float], share: float) -> float:
    ranked = sorted(values)
    return ranked[min(int(share * len(ranked)), len(ranked) - 1)] if ranked else math.nan


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
    alt = _sentence(title, (f"{n} ({group}): {units.size(b)}" for n, b, group in rows))
    totals: dict[str, float] = {}
    for _, amount, group in rows:
        totals[group] = totals.get(group, 0.0) + amount
    order = sorted(totals, key=lambda group: -totals[group])
    # More groups than colours: the smaller ones share grey, and the legend says so.
    named = order if len(order) <= len(GROUPS) else order[: len(GROUPS) - 1]
    colours = dict(zip(named, GROUPS, strict=False))
    shown = rows[:MAX_ROWS]
    places = [-float(row) for row in range(len(shown))]
    with _style():
        figure, axes = _axes(title, len(shown))
        tints = [colours.get(group, QUIET) for _, _, group in shown]
        _bars(axes, places, [row[1] for row in shown], units.size, tints)
        _names(axes, places, [row[0] for row in shown])
        axes.set_xlabel("size on disk" + _left_out(len(shown), len(rows)))
        if len(order) > 1:
            entries = [(_short(group, 24), colour) for group, colour in colours.items()]
            if len(named) < len(order):
                entries.append(("others", QUIET))
            axes.legend(
                handles=[Patch(color=colour, label=f" {name}") for name, colour in entries],
                loc="lower right",
                fontsize=8.5,
            )
        return _chart(figure, title, alt)


def worth(impact: Impact) -> Chart:
    """Draw which planned index saves which query how much: a heat map of queries by indexes.

    A cell is the share of the query's cost that the index saves by itself; a dot says that the
    query uses it with the whole plan in place.
    """
    from matplotlib.colors import LinearSegmentedColormap

    known = [query for query in impact.simulated if query.cost_before > 0]
    planned = [item.name for item in impact.candidates if not item.problem]
    used = [name for name in planned if impact.users(name)]
    served = [query for query in known if set(query.uses_after) & set(planned)]
    title = (
        f"{len(used)} of {units.plural(len(planned), 'planned index')} "
        f"{'earns its' if len(used) == 1 else 'earn their'} keep: {len(served)} of "
        f"{units.plural(len(known), 'query')} {'uses' if len(served) == 1 else 'use'} them"
    )
    alt = _sentence(
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
    rows = _most(known, lambda query: query.weight * query.cost_before, MAX_ROWS)
    columns = _most(planned, impact.worth_alone, MAX_PANELS)
    with _style():
        figure = _figure(title, 3.2 + ROW * max(len(rows), 1))
        axes = figure.add_subplot()
        shares = [[saved(query, name) for name in columns] for query in rows]
        if rows and columns:
            shades = LinearSegmentedColormap.from_list("worth", [WORSE, "#FFFFFF", AFTER])
            axes.imshow(shares, cmap=shades, vmin=-1, vmax=1, aspect="auto")
        for row, query in enumerate(rows):
            for column, name in enumerate(columns):
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
        axes.set_yticks(range(len(rows)), [_short(query.query, NAME) for query in rows])
        axes.set_xticks(
            range(len(columns)),
            [_short(name, PANEL_NAME) for name in columns],
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
            + _left_out(len(rows), len(known)),
            fontsize=9,
        )
        return _chart(figure, title, alt)


def _matters(query: QueryImpact, index: str) -> bool:
    return index in query.uses_after or abs(saved(query, index)) >= NOTICEABLE


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
    alt = _sentence(
        title,
        (
            f"{item.name}: {units.size(item.bytes)}, worth {units.cost(impact.worth(item.name))} "
            f"beside the others and {units.cost(impact.worth_alone(item.name))} alone"
            + ("" if impact.users(item.name) else ", not used with the whole plan")
            for item in ranked
        ),
    )
    whole = impact.cost_before or 1.0
    with _style():
        figure = _figure(_wrapped(title), 4.2)
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
                _short(item.name, NAME),
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
        return _chart(figure, title, alt)


def _wrapped(title: str) -> str:
    return "\n".join(textwrap.wrap(title, 88, break_on_hyphens=False)) or title


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


def _palette() -> list[int]:
    """Return every colour of the charts, and its shades towards white, as red, green and blue."""
    from matplotlib.colors import to_rgb

    # Pillow looks colours up in cells of eight levels, so shades must be further apart than that.
    shades = [
        (colour, n / SHADES)
        for colour in (BEFORE, AFTER, WORSE, THIRD, FOURTH, FIFTH, INK, QUIET)
        for n in range(SHADES, 0, -1)
    ]
    shades += [(RULE, 1.0), (RULE, 0.5), (RULE, 0.0)]
    return [
        round(255 * (1 - (1 - part) * shade)) for colour, shade in shades for part in to_rgb(colour)
    ]


def _chart(figure: Figure, title: str, alt: str) -> Chart:
    """Lay the figure out once: each further layout would move things a little."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return Chart(figure, title, alt)


@contextmanager
def _style() -> Iterator[None]:
    """Draw in the kit's own style, whatever the user's matplotlibrc says."""
    from matplotlib import style

    with style.context(["default", SETTINGS]):
        yield


def _figure(title: str, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not pyplot: it would keep every figure alive, and ask for a screen.
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_plain(title), x=0.01, ha="left")
    return figure


def _axes(title: str, rows: float) -> tuple[Figure, Axes]:
    figure = _figure(title, 1.3 + ROW * max(rows, 1))
    return figure, figure.add_subplot()


def _names(axes: Axes, places: Sequence[float], names: Sequence[str]) -> None:
    axes.set_yticks(list(places), [_short(name, NAME) for name in names])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    if places:
        axes.set_ylim(min(places) - 0.6, 0.6)


def _log_ms(axes: Axes, values: Sequence[float], most: int = 8) -> None:
    """Give the axis decades as ticks, in the words of `units.ms`."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log")
    low = _magnitude(min(values)) if values else 0.0
    high = _magnitude(max(values)) if values else 1.0
    first, last = int(low // 1), -int(-high // 1)
    last = max(last, first + 1)
    step = max(1, -(-(last - first) // most))
    axes.set_xlim(10.0**first * 0.9, 10.0**last * 1.1)
    axes.xaxis.set_major_locator(FixedLocator([10.0**n for n in range(first, last + 1, step)]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _decade(value)))
    axes.grid(visible=True, axis="x", color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)


def _magnitude(value: float) -> float:
    return math.log10(value)


def _decade(value: float) -> str:
    """Say a power of ten without digits that it does not have: `10 us`, `1 ms`, `100 s`."""
    for limit, scale, unit in ((0.09, 1e3, "us"), (900.0, 1.0, "ms")):
        if value < limit:
            return f"{value * scale:g} {unit}"
    return f"{value / 1e3:g} s"


def _bars(
    axes: Axes,
    places: Sequence[float],
    values: Sequence[float],
    words: Callable[[float], str],
    colours: Sequence[str],
) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter

    axes.barh(list(places), list(values), height=0.62, color=list(colours))
    top = max(values, default=1) or 1
    for place, value in zip(places, values, strict=True):
        axes.text(value + top * 0.015, place, words(value), va="center", fontsize=8.5)
    axes.set_xlim(0, top * 1.22)
    step = _step(top, SIZE_STEPS if words is units.size else TIME_STEPS)
    axes.xaxis.set_major_locator(FixedLocator([step * n for n in range(int(top / step) + 1)]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: words(value) if value else "0"))
    axes.grid(visible=True, axis="x", color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)


def _step(top: float, steps: Sequence[float]) -> float:
    """Return the least step that divides the axis into at most four parts."""
    return next((step for step in steps if top / step <= 4), top / 4)


def _most(items: Sequence[Any], size: Callable[[Any], float], count: int) -> list[Any]:
    """Keep the `count` largest items, in the order in which they came."""
    kept = sorted(range(len(items)), key=lambda i: -size(items[i]))[:count]
    return [items[i] for i in sorted(kept)]


def _left_out(shown: int, of: int) -> str:
    return "" if shown == of else f" (the {shown} largest of {of})"


def _sentence(title: str, parts: Iterator[str], warnings: Sequence[str] = ()) -> str:
    listed = [*parts, *(f"warning: {warning}" for warning in warnings)]
    return f"{title}. {'; '.join(listed)}" if listed else title


def _short(name: str, length: int) -> str:
    """Cut the middle out of a long name: beginnings are often shared, ends tell apart."""
    text = " ".join(_plain(name).split())
    if len(text) <= length:
        return text
    return f"{text[: length // 2]}…{text[-(length - length // 2 - 1) :]}"


def _label(text: str, otherwise: str) -> str:
    """Name an entry of a legend; matplotlib leaves out those that begin with an underscore."""
    return f" {_short(text, 20)}" if text.strip() else otherwise


def _plain(text: str) -> str:
    r"""Write what the font cannot draw as an escape, `\u5ba2`: two names never look the same."""
    known = _glyphs()
    return "".join(
        character
        if character.isspace() or ord(character) in known
        else character.encode("unicode_escape", "surrogatepass").decode()
        for character in display.clean(text)
    )


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib import font_manager

    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return frozenset(font.get_charmap())
