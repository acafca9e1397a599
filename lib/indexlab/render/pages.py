"""The overview of a run: one page with the finding, the chart, the verdicts and what to do next."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexlab import benchmark, charts, display, units
from indexlab.benchmark import Comparison, Measurement, Price
from indexlab.display import Markup
from indexlab.runs import Json, Run, documents

TEMPLATES = Path(__file__).parents[1] / "templates"
FILES = (
    ("audit.html", "the audit: every verdict with its evidence"),
    ("before/benchmark.html", "the measurements before"),
    ("apply.html", "what was built, step by step"),
    ("benchmark.html", "the measurements after, and what changed"),
    ("scale.html", "how latency grows with the size of the tables, query by query"),
    ("load.json", "what many clients saw, before and after"),
    ("revised_plan.sql", "the plan, revised; the kit reads it back"),
    ("migration.sql", "the same for psql, with verification, test and monitoring queries"),
    ("rollback.sql", "the way back"),
    ("run.json", "the stages and the headline, for programs"),
)


@dataclass(frozen=True, slots=True)
class Fact:
    """A number on top of the page."""

    value: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Section:
    """A table with its heading."""

    title: str
    words: str
    table: Markup


@dataclass(frozen=True, slots=True)
class Link:
    """A file of the run."""

    href: str
    meaning: str


def overview(run: Run) -> Path:
    """Write `index.html` of a run from its JSON: the page that is sent to colleagues.

    Args:
        run: with `run.json` and the results of the stages that ran.

    Returns:
        The path of the page.
    """
    import jinja2

    story = _Story(run)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("overview.html.j2").render(
        title=story.title(),
        when=story.summary["started"],
        target=display.clean(story.target()),
        finding=display.clean(story.finding()),
        facts=tuple(story.facts()),
        notices=tuple(map(display.clean, story.summary["notices"])),
        charts=tuple(Markup(chart) for chart in story.charts()),
        sections=tuple(story.sections()),
        next_steps=tuple(map(display.clean, story.next_steps())),
        links=tuple(Link(*file) for file in FILES if (run.path / file[0]).exists()),
    )
    return run.write("index.html", page)


class _Story:
    """The results of a run, and what they say together."""

    def __init__(self, run: Run):
        self.run = run
        self.summary = run.read_json("run")
        self.audit = run.read_json("audit")
        self.apply = run.read_json("apply") if run.has("apply") else None
        self.comparison: Comparison | None = documents.comparison(run)

    def target(self) -> str:
        target: Json = self.audit["target"]
        return (
            f"{target['database']} on {target['host']}:{target['port']}, "
            f"PostgreSQL {target['version_text']}"
        )

    def title(self) -> str:
        if self.comparison is None or not self.comparison.headline.queries:
            return "Index plan: audited"
        headline = self.comparison.headline
        return f"{units.ms(headline.before_ms)} → {units.ms(headline.after_ms)}"

    def finding(self) -> str:
        counts = self._counts()
        parts = [f"{number} to {verdict}" for verdict, number in counts.items()]
        said = f"Of {sum(counts.values())} planned statements: {', '.join(parts)}."
        built = self._built()
        if built:
            said += f" {units.plural(len(built), 'index')} built."
        if self.comparison is not None and self.comparison.headline.queries:
            headline = self.comparison.headline
            said += (
                f" The {units.plural(len(headline.queries), 'query')} that use them went from "
                f"{units.ms(headline.before_ms)} to {units.ms(headline.after_ms)} "
                "(sum of median latency times weight)."
            )
        return said

    def facts(self) -> Iterator[Fact]:
        if self.comparison is not None:
            headline, reads = self.comparison.headline, self.comparison.reads
            if headline.queries:
                yield Fact(
                    units.factor(1 / headline.ratio), "reads that use the new indexes, p50 weighted"
                )
            yield Fact(units.factor(1 / reads.ratio), "all reads of the workload, p50 weighted")
            ratios = [change.ratio for change in self.comparison.changes if change.kind == "read"]
            yield Fact(
                units.factor(statistics.geometric_mean(ratios)),
                "the typical read: geometric mean over all of them, no weights",
            )
            yield from self._write_prices()
        built = self._built()
        if built:
            yield Fact(
                units.size(sum(step["bytes"] for step in built)),
                f"price: disk for {units.plural(len(built), 'index')}, "
                f"built in {units.duration(sum(step['seconds'] for step in built))}",
            )

    def _write_prices(self) -> Iterator[Fact]:
        """Latency as measured, and WAL records, which no other load can blur."""
        assert self.comparison is not None
        sides = [documents.measurement(run) for run in (Run(self.run.path / "before"), self.run)]
        before, after = (
            {series.query: series.explain.wal_records for series in side.series} for side in sides
        )
        for change in self.comparison.writes:
            yield Fact(
                f"{before[change.query] or 0} → {after[change.query] or 0}",
                f"price: WAL records of the write {change.query}; {units.ms(change.before_ms)} to "
                f"{units.ms(change.after_ms)}, {change.verdict}",
            )

    def charts(self) -> Iterator[str]:
        if self.comparison is not None:
            yield charts.before_after(self.comparison)._repr_html_()
            before, after = self._sides()
            price = self._price(before, after)
            if price.writes:
                yield charts.price(price, self.comparison)._repr_html_()
            if before.controls:
                yield charts.drift(before, after, self.comparison)._repr_html_()
        if self.run.has("scale"):
            yield charts.scale(documents.scaling(self.run))._repr_html_()
        built = self._built()
        if built:
            yield charts.builds(
                names=[step["index"] for step in built],
                bytes=[step["bytes"] for step in built],
                seconds=[step["seconds"] for step in built],
            )._repr_html_()

    def _sides(self) -> tuple[Measurement, Measurement]:
        before = self.run.path / "before"
        return documents.measurement(Run(before)), documents.measurement(self.run)

    def _price(self, before: Measurement, after: Measurement) -> Price:
        assert self.comparison is not None
        built = self._built()
        return benchmark.price(
            self.comparison,
            before,
            after,
            bytes=sum(step["bytes"] or 0 for step in built),
            build_seconds=sum(step["seconds"] or 0 for step in built),
        )

    def sections(self) -> Iterator[Section]:
        yield Section(
            "Verdicts", "What became of each planned statement, and why.", self._verdicts()
        )
        if self.comparison is not None:
            yield Section(
                "What changed, query by query",
                "Median latency at the client. The headline weighs each query by its calls.",
                Markup(self.comparison._repr_html_()),
            )
            price = self._price(*self._sides())
            if price.writes:
                words = "What writes pay for the indexes, and how many reads pay it back."
                yield Section("The price", words, Markup(price._repr_html_()))
        existing = self._existing()
        if existing:
            yield Section(
                "Indexes that exist already", "Worth a look; nothing was done to them.", existing
            )

    def _verdicts(self) -> Markup:
        outcomes = {step["index"]: step for step in self._steps()}
        rows = []
        for item in self.audit["statements"]:
            step = outcomes.get(item["qualified"])
            rows.append(
                (
                    item["line"],
                    item["index"],
                    display.badge(item["verdict"]),
                    display.badge(step["outcome"]) if step else "",
                    units.size(step["bytes"]) if step and step["bytes"] else "",
                    display.inline_code(item["revised"] or item["statement"]),
                    _lines(item["findings"]),
                )
            )
        columns = ("line", "index", "verdict", "outcome", "size", "statement", "why")
        return display.table(columns, rows, numeric=("line", "size"))

    def _existing(self) -> Markup | None:
        rows = [
            (
                item["index"],
                units.size(item["bytes"]),
                units.count(item["scans"]),
                display.badge(finding["severity"]),
                finding["message"],
            )
            for item in self.audit["existing"]
            for finding in item["findings"]
        ]
        if not rows:
            return None
        columns = ("index", "size", "scans", "severity", "what was seen")
        return display.table(columns, rows, numeric=("size", "scans"))

    def next_steps(self) -> Iterator[str]:
        unresolved = [
            item["index"]
            for item in self.audit["statements"]
            if item["verdict"] in ("ask", "refuse")
        ]
        if unresolved:
            yield f"Decide on {', '.join(unresolved)}: the audit says what stands against them."
        if self.apply is None or not self.apply["executed"]:
            yield (
                "Nothing on the target was changed. To build, run the same command with --execute, "
                "or hand migration.sql to whoever may."
            )
            return
        if not self.apply["complete"]:
            yield "Run the same command again: it goes on from what the catalog says stands."
        yield "Watch the new indexes for a week or two: migration.sql ends with monitoring queries."
        yield (
            f"To go back: indexlab rollback {self.run.path.name} (a dry run), then with --execute; "
            "or rollback.sql."
        )

    def _steps(self) -> list[Any]:
        return [] if self.apply is None else list(self.apply["steps"])

    def _built(self) -> list[Any]:
        return [step for step in self._steps() if step["outcome"] == "built"]

    def _counts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for item in self.audit["statements"]:
            counts[item["verdict"]] = counts.get(item["verdict"], 0) + 1
        return counts


def _lines(findings: list[Any]) -> Markup:
    """One line for each finding that a reader has to know of; the audit page has all."""
    graver = [finding for finding in findings if finding["severity"] != "info"]
    return Markup("<br>".join(display.escape(finding["message"]) for finding in graver))
