"""The page of a demo that was measured at several sizes."""

from __future__ import annotations

from pathlib import Path

from indexlab import charts
from indexlab.display import Markup
from indexlab.runs import Run, documents

TEMPLATES = Path(__file__).parents[1] / "templates"


def scale_page(run: Run) -> Path:
    """Write `scale.html` of a run from its `scale.json`: lines, exponents and medians.

    Args:
        run: that was measured at several sizes.

    Returns:
        The path of the page.
    """
    import jinja2

    found = documents.scaling(run)
    chart = charts.scale(found)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("scale.html.j2").render(
        title=chart.title,
        chart=Markup(chart._repr_html_()),
        table=Markup(found._repr_html_()),
        overview=(run.path / "index.html").exists() or run.has("audit"),
    )
    return run.write("scale.html", page)
