"""What a run says as a whole: the finding, three numbers, how sure it is, and what to do next."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from indexlab import benchmark, display, units
from indexlab.benchmark import Comparison, Gain, Measurement, Price, Series
from indexlab.runs import Json, Run, documents

MAX_WRITES = 3
DONE = {
    "build": "as written",
    "fix": "corrected",
    "replace": "in place of others",
    "skip": "left out",
    "ask": "waiting for an answer",
    "refuse": "refused",
}
"""What became of a statement, by its verdict."""
GRAVITY = ("error", "warning", "info")

Tone = Literal["good", "price", "bad", "plain"]


@dataclass(frozen=True, slots=True)
class Fact:
    """One of the three numbers on top of the page."""

    about: str
    value: str
    lines: tuple[str, ...]
    tone: Tone


@dataclass(frozen=True, slots=True)
class NextStep:
    """Something to do, and the command that does it, if there is one."""

    words: str
    command: str = ""


@dataclass(slots=True)
class Story:
    """The results of a run, read from its JSON."""

    run: Run
    summary: Json = field(init=False)
    audit: Json = field(init=False)
    apply: Json | None = field(init=False)
    comparison: Comparison | None = field(init=False)
    before: Measurement | None = field(init=False)
    after: Measurement | None = field(init=False)

    def __post_init__(self) -> None:
        """Read what the stages kept; reads only."""
        run, first = self.run, Run(self.run.path / "before")
        self.summary, self.audit = run.read_json("run"), run.read_json("audit")
        self.apply = run.read_json("apply") if run.has("apply") else None
        self.comparison = documents.comparison(run)
        self.before = documents.measurement(first) if first.has("benchmark") else None
        self.after = documents.measurement(run) if run.has("benchmark") else None

    # What was planned and built

    @property
    def statements(self) -> list[Json]:
        """The planned statements with their verdicts."""
        found: list[Json] = self.audit["statements"]
        return found

    @property
    def steps(self) -> list[Json]:
        """What apply did, or would do."""
        return [] if self.apply is None else list(self.apply["steps"])

    @property
    def built(self) -> list[Json]:
        """The steps that built a planned index."""
        return [] if self.apply is None else documents.built(self.apply)

    @property
    def gain(self) -> Gain | None:
        """What the reads that use a planned index gained; None if there are none."""
        if self.comparison is None or not self.comparison.headline.queries:
            return None
        return benchmark.gain(self.comparison, self.comparison.headline)

    @property
    def price(self) -> Price | None:
        """What writes pay; None where both sides were not measured."""
        if self.comparison is None or self.before is None or self.after is None:
            return None
        return benchmark.price(
            self.comparison,
            self.before,
            self.after,
            bytes=sum(step["bytes"] for step in self.built),
            build_seconds=sum(step["seconds"] for step in self.built),
        )

    # In words

    def target(self) -> str:
        """Name the database."""
        target: Json = self.audit["target"]
        return (
            f"{target['database']} on {target['host']}:{target['port']}, "
            f"PostgreSQL {target['version_text']}"
        )

    def title(self) -> str:
        """Name the window: the latency before and after."""
        if self.comparison is None or not self.comparison.headline.queries:
            return f"Index plan audited: {self.audit['target']['database']}"
        headline = self.comparison.headline
        return f"{units.ms(headline.before_ms)} → {units.ms(headline.after_ms)} · indexlab"

    def finding(self) -> str:
        """Say in one sentence what came of the plan."""
        indexes = units.plural(len(self.built), "index") if self.built else "The planned indexes"
        if self.comparison is None:
            return self._without_measuring()
        gain, headline = self.gain, self.comparison.headline
        if gain is None:
            return f"{self._there()} no read of the workload uses them."
        reads = units.plural(len(headline.queries), "read")
        sides = f"{units.ms(headline.before_ms)} became {units.ms(headline.after_ms)}"
        if not gain.decided:
            return f"{indexes} made no difference to {reads} that is beyond doubt: {sides}."
        return f"{indexes} made {reads} {units.factor(1 / gain.times)}: {sides}."

    def _there(self) -> str:
        return f"{units.plural(len(self.built), 'index')} built, and" if self.built else "As it is,"

    def _without_measuring(self) -> str:
        if self.apply is not None and self.apply["executed"]:
            whole = "" if self.apply["complete"] else " before it stopped"
            how = units.plural(len(self.built), "index")
            return f"{how} built{whole}; what they do to the workload was not measured."
        kept = sum(item["verdict"] in ("build", "fix", "replace") for item in self.statements)
        return f"{kept} of {units.plural(len(self.statements), 'planned statement')} can be applied: nothing was changed yet."

    def lead(self) -> str:
        """Say what became of the plan's statements, and what the numbers are made of."""
        counts: dict[str, int] = {}
        for item in self.statements:
            counts[item["verdict"]] = counts.get(item["verdict"], 0) + 1
        parts = [f"{number} {DONE[verdict]}" for verdict, number in counts.items()]
        said = f"Of {units.plural(len(self.statements), 'planned statement')}: {', '.join(parts)}."
        if self.gain is not None:
            said += (
                " Latencies are the sum over the reads of median latency times weight: before as "
                "measured, after by each read's ratio."
            )
        return said

    def trust(self) -> str:
        """Say how the sides were measured, and what to doubt."""
        if self.comparison is None:
            return ""
        said = f"{self.comparison.design} {self.comparison.drift}"
        if self.comparison.warnings:
            doubts = units.plural(len(self.comparison.warnings), "warning")
            said += f" {doubts} below, under What changed."
        return said

    # Three numbers

    def facts(self) -> tuple[Fact, ...]:
        """Return read gain, write price and bytes, or what is expected of them."""
        return (self._reads(), self._writes(), self._bytes())

    def _reads(self) -> Fact:
        gain = self.gain
        if gain is None or self.comparison is None:
            return self._expected()
        lines = [gain.words()]
        everything = self.comparison.reads
        ratios = [change.ratio for change in self.comparison.changes if change.kind == "read"]
        lines.append(
            f"all reads of the workload {units.factor(1 / everything.ratio)}, the typical one "
            f"{units.factor(statistics.geometric_mean(ratios))} (no weights)"
        )
        tone: Literal["good", "bad", "plain"] = "plain"
        if gain.decided:
            tone = "good" if gain.times > 1 else "bad"
        value = units.factor(1 / gain.times) if gain.decided else "no difference"
        return Fact("Reads that use the indexes", value, tuple(lines), tone)

    def _expected(self) -> Fact:
        """What the planner expects, where both sides were not measured."""
        known = [item for item in self.audit["impact"] if item["cost_before"]]
        before = sum(item["weight"] * item["cost_before"] for item in known)
        after = sum(item["weight"] * item["cost_after"] for item in known)
        if self.comparison is not None:
            return Fact("Reads that use the indexes", "none", ("of the workload",), "plain")
        if not before:
            return Fact("Reads", "not known", ("no query was planned or measured",), "plain")
        value = units.factor(after / before)
        value = value.replace("faster", "cheaper").replace("slower", "dearer")
        told = (
            f"what the planner expects of {units.plural(len(known), 'query')}, by weight: cost "
            f"{units.cost(before)} to {units.cost(after)}"
        )
        return Fact("Expected of the workload", value, (told, "not measured yet"), "plain")

    def _writes(self) -> Fact:
        about = "Price: writes"
        if self.comparison is None or not self.comparison.writes:
            told = "not part of the workload, or not run: they run on disposable targets only"
            return Fact(about, "not measured", (told,), "plain")
        writes = self.comparison.writes
        before = sum(change.weight * change.before_ms for change in writes)
        after = sum(change.weight * change.before_ms * change.ratio for change in writes)
        moved = [change for change in writes if change.verdict in ("faster", "slower")]
        lines = [
            f"{change.query}: {change.before_words} to {change.after_words}, {change.verdict}"
            f"{self._wal(change.query)}"
            for change in writes[:MAX_WRITES]
        ]
        if len(writes) > MAX_WRITES:
            lines.append(f"and {units.plural(len(writes) - MAX_WRITES, 'more write')}")
        value = units.factor(after / before) if moved else "no difference"
        return Fact(about, value, tuple(lines), "price")

    def _wal(self, query: str) -> str:
        """Count WAL records, which no other load can blur."""
        sides = [_series(side, query) for side in (self.before, self.after)]
        counts = [side.explain.wal_records for side in sides if side is not None]
        if len(counts) != 2 or None in counts:
            return ""
        return f"; {counts[0]} to {counts[1]} WAL records"

    def _bytes(self) -> Fact:
        if self.built:
            seconds = units.duration(sum(step["seconds"] for step in self.built))
            whole = units.size(sum(step["bytes"] for step in self.built))
            told = f"{units.plural(len(self.built), 'index')}, built in {seconds}"
            return Fact("Price: disk", whole, (told,), "price")
        estimated = [
            finding["evidence"]["bytes"]
            for item in self.statements
            if item["revised"]
            for finding in item["findings"]
            if finding["rule"] == "estimated-size"
        ]
        if not estimated:
            return Fact("Price: disk", "none", ("nothing was built",), "plain")
        told = f"estimated for {units.plural(len(estimated), 'index')}; nothing was built"
        return Fact("Price: disk", f"about {units.size(sum(estimated))}", (told,), "plain")

    # What to do

    def next_steps(self) -> Iterator[NextStep]:
        """Say what to do next, in order."""
        unresolved = [
            item["index"] for item in self.statements if item["verdict"] in ("ask", "refuse")
        ]
        if unresolved:
            yield NextStep(
                f"Decide on {', '.join(unresolved)}: the audit says what stands against them. Mend the "
                "plan, or answer with --resolve old=new; until then nothing is applied."
            )
        if self.apply is None or not self.apply["executed"]:
            yield NextStep(
                "Nothing on the target was changed. To build, run the same command with --execute, "
                "or hand migration.sql to whoever may."
            )
            return
        if not self.apply["complete"]:
            yield NextStep(
                "Run the same command again: it goes on from what the catalog says stands."
            )
        if self.audit.get("replaced") and not any(s["outcome"] == "dropped" for s in self.steps):
            drops = ";\n".join(self.audit["replaced"])
            yield NextStep("What the new indexes replace may go, once you trust them:", f"{drops};")
        yield NextStep(
            "Watch the new indexes for a week or two: migration.sql ends with monitoring queries."
        )
        yield NextStep(
            "To go back: a dry run of the rollback, then the same with --execute; or rollback.sql.",
            f"indexlab rollback {shlex.quote(self.run.path.name)}",
        )


def _series(side: Measurement | None, query: str) -> Series | None:
    if side is None:
        return None
    return next((series for series in side.series if series.query == query), None)


def graver(findings: list[Any]) -> list[Any]:
    """Return the findings that decide a verdict, the gravest first, and what its use is.

    The audit has all.
    """
    kept = [
        finding
        for finding in findings
        if finding["severity"] != "info" or finding["rule"] == "used-by-workload"
    ]
    return sorted(kept, key=lambda finding: GRAVITY.index(finding["severity"]))


def said(story: Story) -> tuple[str, ...]:
    """Return the notices of a run, safe to show."""
    return tuple(map(display.clean, story.summary["notices"]))
