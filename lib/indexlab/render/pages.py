"""The page of a run: the finding, the chart, three numbers, the verdicts, and its stages, whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from indexlab import charts, units
from indexlab.display import Markup, escape
from indexlab.render import frame, stages, tables
from indexlab.render.frame import Entry
from indexlab.render.stages import Stage
from indexlab.render.story import Story, said
from indexlab.runs import Run, documents

FILES = (
    ("audit.html", "the audit by itself"),
    ("before/benchmark.html", "the measurements before, by themselves"),
    ("apply.html", "what was built, by itself"),
    ("benchmark.html", "the measurements after, by themselves"),
    ("scale.html", "how latency grows with the size of the tables, query by query"),
    ("load.json", "what many clients saw, before and after"),
    ("revised_plan.sql", "the plan, revised; the kit reads it back"),
    ("migration.sql", "the same for psql, with verification, test and monitoring queries"),
    ("rollback.sql", "the way back"),
    ("audit.json", "the audit, for programs"),
    ("apply.json", "what was built, for programs"),
    ("benchmark.json", "every sample and plan, for programs"),
    ("run.json", "the stages and the headline, for programs"),
)
STAGES = (
    ("audit", "audit", "Audit"),
    ("before", "before/benchmark", "Before"),
    ("apply", "apply", "Apply"),
    ("benchmark", "benchmark", "Benchmark"),
)
"""Id, notebook and name of each stage, in order."""
MEASURE = re.compile(r"\b[\d.,]+ (?:us|ms|s|min|h|kB|MB|GB|TB)\b")


def overview(run: Run) -> Path:
    """Write `index.html` of a run from its JSON and notebooks: the page that is sent to colleagues.

    Args:
        run: with `run.json` and the results of the stages that ran.

    Returns:
        The path of the page.
    """
    return run.write("index.html", overview_page(run))


def overview_page(run: Run) -> str:
    """Make the page of a run; reads only."""
    story = Story(run)
    parts = tuple(_stages(run))
    price = story.price
    known = tuple(tables.queries(story))
    existing = tables.existing(story)
    contents = [Entry("verdicts", "Verdicts"), Entry("next", "Next")]
    if known:
        contents.append(Entry("queries", "Queries"))
    if price is not None and price.writes:
        contents.append(Entry("price", "Price"))
    contents += [Entry(part.id, name) for name, part in parts]
    contents.append(Entry("files", "Files"))
    return frame.page(
        "overview.html.j2",
        title=story.title(),
        contents=tuple(contents),
        target=story.target(),
        when=story.summary["started"],
        when_words=_moment(story.summary["started"]),
        finding=_unbroken(story.finding()),
        lead=story.lead(),
        notices=said(story),
        chart=_before_after(story),
        trust=story.trust(),
        facts=story.facts(),
        verdicts=tables.verdicts(story),
        existing=existing,
        existing_words=_existing_words(story),
        next_steps=tuple(story.next_steps()),
        queries=known,
        queries_words=_queries_words(story),
        price=Markup(price._repr_html_()) if price is not None and price.writes else None,
        price_chart=_price_chart(story),
        scale_chart=_scale_chart(run),
        stages=tuple(part for _, part in parts),
        links=tuple({"href": h, "meaning": m} for h, m in FILES if (run.path / h).exists()),
    )


def _unbroken(text: str) -> Markup:
    """Keep a number and its unit in one line of a heading."""
    return Markup(MEASURE.sub(r'<span class="measure">\g<0></span>', escape(text)))


def _before_after(story: Story) -> Markup | None:
    if story.comparison is None:
        return None
    return Markup(charts.before_after(story.comparison).inline())


def _price_chart(story: Story) -> Markup | None:
    price = story.price
    if story.comparison is None or price is None or not price.writes:
        return None
    return Markup(charts.price(price, story.comparison).inline())


def _scale_chart(run: Run) -> Markup | None:
    return Markup(charts.scale(documents.scaling(run)).inline()) if run.has("scale") else None


def _stages(run: Run) -> Iterator[tuple[str, Stage]]:
    """Render the notebooks that ran, each as a section."""
    both = (run.path / "before" / "benchmark.ipynb").exists()
    for stage, name, title in STAGES:
        path = run.path / f"{name}.ipynb"
        if path.exists():
            own = {"before": "Benchmark before", "benchmark": "Benchmark after" if both else ""}
            document = stages.read(path)
            yield title, stages.part(document, stage, level=2, title=own.get(stage, ""))


def _moment(started: str) -> str:
    return f"{datetime.fromisoformat(started):%-d %B %Y, %H:%M} UTC"


def _existing_words(story: Story) -> str:
    count = len(story.audit["existing"])
    return f"{units.plural(count, 'existing index')} to look at"


def _queries_words(story: Story) -> str:
    if story.comparison is None:
        return "What each query does now: its plan, with the step that costs most marked."
    return (
        "What became of each query, and why: its plan before and after, with the step that costs "
        "most marked. Plans are those of one execution under EXPLAIN ANALYZE, which takes time "
        "itself; the latencies are those of clients."
    )
