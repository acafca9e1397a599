"""What every chart has: colours, a title that is the finding, axes, words for those who do not see."""

from __future__ import annotations

import base64
import io
import math
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from indexlab import display, units
from indexlab.errors import InputError
from indexlab.records import Record

if TYPE_CHECKING:
    import pandas as pd
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
MAX_ROWS = 40
MAX_PANELS = 24
MAX_INLINE = 200_000
"""Characters: a chart with more points is smaller as a picture."""
PANEL_NAME = 34
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
class Chart(Record):
    """A figure with the sentence that it shows and its numbers in words."""

    figure: Figure
    title: str
    alt: str
    """The text for those who do not see the chart."""
    columns: tuple[str, ...] = field(default=(), repr=False)
    """What the numbers behind the chart are, each with its unit: `p50_ms`, `bytes`, `seconds`."""
    rows: tuple[tuple[object, ...], ...] = field(default=(), repr=False)
    """The numbers, in the order in which they are drawn; also those that had no room."""
    _drawn: dict[str, bytes] = field(default_factory=dict, init=False, repr=False)
    """As a picture, once it was: a run keeps it, and then the page shows it."""

    def png(self) -> bytes:
        """Draw the chart; the same numbers give the same bytes."""
        if "png" not in self._drawn:
            self._drawn["png"] = self._picture()
        return self._drawn["png"]

    def _picture(self) -> bytes:
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

    def inline(self) -> str:
        """Draw the chart as vectors for a page, whose style sheet may set its colours."""
        from indexlab.charts import inline

        drawn = self._draw("svg", {"Date": None, "Creator": None}, letters="none")
        return inline.themed(drawn.decode(), self.alt)

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

    def _draw(
        self, form: str, metadata: dict[str, None], letters: Literal["path", "none"] = "path"
    ) -> bytes:
        """Draw the chart; letters are drawn, too, or left as text (`none`)."""
        from matplotlib import rc_context

        stream = io.BytesIO()
        with style(), rc_context({"svg.fonttype": letters}):
            self.figure.savefig(stream, format=form, dpi=DPI, metadata=metadata)
        return stream.getvalue()

    def frame(self) -> pd.DataFrame:
        """Return the numbers that are drawn as a pandas DataFrame, also those that had no room.

        Its columns are those of the chart. They say what a row is about (`query`, `index`,
        `target`, `statement`, `side`, `phase`, `beside`, `round`, `kind`, `group`), and what is
        drawn, with its unit: `before_ms`, `after_ms`, `p50_ms`, `p95_ms`, `p99_ms`, `latency_ms`
        and `difference_ms` are milliseconds, `seconds` and `bytes` are these, `rows` are counted;
        `ratio`, `ratio_low` and `ratio_high` are after / before, in a drift a round's latency to
        the median; `share`, and of a query's or the workload's cost `share_saved_alone` and
        `share_lost_without`, are from 0 to 1. `used`, `significant`, `bound`, `state` and `verdict`
        are what the marks say.
        """
        import pandas as pd

        return pd.DataFrame(list(self.rows), columns=list(self.columns))

    def __repr__(self) -> str:
        return display.clean(f"<Chart: {self.title}>")

    def _repr_svg_(self) -> str | None:
        drawn = self.inline()
        return drawn if len(drawn) <= MAX_INLINE else None

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


def wrapped(title: str) -> str:
    """Break a title into lines that fit a chart."""
    return "\n".join(textwrap.wrap(title, 88, break_on_hyphens=False)) or title


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


def chart_of(
    figure: Figure,
    title: str,
    alt: str,
    columns: tuple[str, ...],
    rows: Iterable[tuple[object, ...]],
) -> Chart:
    """Lay the figure out once: each further layout would move things a little."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return Chart(figure, title, alt, columns, tuple(rows))


@contextmanager
def style() -> Iterator[None]:
    """Draw in the kit's own style, whatever the user's matplotlibrc says."""
    from matplotlib import style

    with style.context(["default", SETTINGS]):
        yield


def new_figure(title: str, height: float) -> Figure:
    """Make a figure of the usual width, `height` in inches, that pyplot does not know of."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not pyplot: it would keep every figure alive, and ask for a screen.
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(plain(title), x=0.01, ha="left")
    return figure


def new_axes(title: str, rows: float) -> tuple[Figure, Axes]:
    """Make a figure with one pair of axes, high enough for so many rows."""
    figure = new_figure(title, 1.3 + ROW * max(rows, 1))
    return figure, figure.add_subplot()


def name_rows(axes: Axes, places: Sequence[float], names: Sequence[str]) -> None:
    """Write names, cut to size, along the vertical axis."""
    axes.set_yticks(list(places), [short(name, NAME) for name in names])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    if places:
        axes.set_ylim(min(places) - 0.6, 0.6)


def log_ms(axes: Axes, values: Sequence[float], most: int = 6) -> None:
    """Give the axis decades as ticks, in the words of `units.ms`."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log")
    low = magnitude(min(values)) if values else 0.0
    high = magnitude(max(values)) if values else 1.0
    first, last = int(low // 1), -int(-high // 1)
    last = max(last, first + 1)
    step = max(1, -(-(last - first) // most))
    axes.set_xlim(10.0**first * 0.9, 10.0**last * 1.1)
    axes.xaxis.set_major_locator(FixedLocator([10.0**n for n in range(first, last + 1, step)]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: decade(value)))
    axes.grid(visible=True, axis="x", color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)


def magnitude(value: float) -> float:
    """Return the logarithm to base ten."""
    return math.log10(value)


def decade(value: float) -> str:
    """Say a power of ten without digits that it does not have: `10 us`, `1 ms`, `100 s`."""
    for limit, scale, unit in ((0.09, 1e3, "us"), (900.0, 1.0, "ms")):
        if value < limit:
            return f"{value * scale:g} {unit}"
    return f"{value / 1e3:g} s"


def bars(
    axes: Axes,
    places: Sequence[float],
    values: Sequence[float],
    words: Callable[[float], str],
    colours: Sequence[str],
) -> None:
    """Draw horizontal bars with their values written behind them."""
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


def largest(items: Sequence[Any], size: Callable[[Any], float], count: int) -> list[Any]:
    """Keep the `count` largest items, in the order in which they came."""
    kept = sorted(range(len(items)), key=lambda i: -size(items[i]))[:count]
    return [items[i] for i in sorted(kept)]


def left_out(shown: int, of: int) -> str:
    """Say how many of the rows are shown, where it is not all."""
    return "" if shown == of else f" (the {shown} largest of {of})"


def sentence(title: str, parts: Iterator[str], warnings: Sequence[str] = ()) -> str:
    """Say a chart in words: its finding, its numbers, and what to mind."""
    listed = [*parts, *(f"warning: {warning}" for warning in warnings)]
    return f"{title}. {'; '.join(listed)}" if listed else title


def short(name: str, length: int) -> str:
    """Cut the middle out of a long name: beginnings are often shared, ends tell apart."""
    return units.shortened(" ".join(plain(name).split()), length)


def label_of(text: str, otherwise: str) -> str:
    """Name an entry of a legend; matplotlib leaves out those that begin with an underscore."""
    return f" {short(text, 20)}" if text.strip() else otherwise


def plain(text: str) -> str:
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
