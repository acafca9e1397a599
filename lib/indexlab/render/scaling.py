"""The page of a demo that was measured at several sizes."""

from __future__ import annotations

from pathlib import Path

from indexlab import charts
from indexlab.display import Markup
from indexlab.render import frame
from indexlab.runs import Run, documents


def scale_page(run: Run) -> Path:
    """Write `scale.html` of a run from its `scale.json`: lines, exponents and medians.

    Args:
        run: that was measured at several sizes.

    Returns:
        The path of the page.
    """
    found = documents.scaling(run)
    chart = charts.scale(found)
    page = frame.page(
        "scale.html.j2",
        title=chart.title,
        chart=Markup(chart.inline()),
        table=Markup(found._repr_html_()),
        overview=run.has("audit"),  # its index.html is written last
    )
    return run.write("scale.html", page)
