"""What an audit says: findings, verdicts, and how they show themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from indexlab import display, records, units
from indexlab.catalog import Index
from indexlab.plan import CreateIndex, DropIndex, IndexPlan
from indexlab.records import Record
from indexlab.sql import RelationName
from indexlab.target import Server

if TYPE_CHECKING:
    import pandas as pd

Severity = Literal["error", "warning", "info"]
Verdict = Literal["build", "fix", "skip", "replace", "ask", "refuse"]
VERDICTS: tuple[Verdict, ...] = ("build", "fix", "replace", "skip", "ask", "refuse")
KEPT: tuple[Verdict, ...] = ("build", "fix", "replace")
"""The verdicts whose statement is run."""

DECISIVE = ("resolved", "replaces-index")
"""Rules of severity info that a verdict rests on: fix, replace."""

Evidence = tuple[tuple[str, str | int | float], ...]


@dataclass(frozen=True, slots=True)
class Finding(Record):
    """One thing that a rule saw."""

    rule: str
    severity: Severity
    message: str
    subject: str
    """What it is about: a table, a column, an index, the server."""
    evidence: Evidence = ()
    fix: str = ""
    """What to do, in words or as SQL; empty where nothing is to be done."""
    suppressed: str = ""
    """Why the plan accepts it, in the words of its comment; empty where it does not."""
    decides: bool = False
    """Whether the statement has its verdict by this finding."""

    @property
    def words(self) -> str:
        """The message, and the reason where the plan accepts it."""
        return f"{self.message} (ignored: {self.suppressed})" if self.suppressed else self.message


@dataclass(frozen=True, slots=True)
class StatementAudit(Record):
    """What should become of one planned statement; a DROP of many indexes is one for each."""

    statement: CreateIndex | DropIndex
    label: str
    """Name of the index; for an unnamed one, the name that it gets."""
    table: RelationName
    verdict: Verdict
    revised: CreateIndex | DropIndex | None
    """The statement to run; None unless the verdict is build, fix or replace."""
    findings: tuple[Finding, ...] = ()
    undo: str = ""
    """The statement that takes it back; empty where nothing is run."""
    parts: tuple[str, ...] = ()
    """The statements that build it on a partitioned table, in order; elsewhere none."""
    restores: tuple[str, ...] = ()
    """What builds again, after `undo`, the indexes that were there before and went with it."""

    @property
    def sequence(self) -> tuple[str, ...]:
        """The statements to run, one after the other, without semicolons."""
        if self.revised is None:
            return ()
        return self.parts or (statement_sql(self.revised),)

    @property
    def backwards(self) -> tuple[str, ...]:
        """The statements that take it back, without semicolons."""
        if self.revised is None or not self.undo:
            return ()
        return (self.undo, *self.restores)

    @property
    def why(self) -> str:
        """The messages, the gravest first."""
        return "; ".join(finding.words for finding in _gravest_first(self.findings))

    @property
    def why_in_short(self) -> str:
        """What decided the verdict and what speaks against it; the rest is counted only."""
        weighty = [
            f
            for f in _gravest_first(self.findings)
            if f.decides or f.suppressed or f.severity != "info" or f.rule in DECISIVE
        ]
        notes = len(self.findings) - len(weighty)
        counted = [units.plural(notes, "note") + " below"] if notes else []
        return "; ".join([*(finding.words for finding in weighty), *counted])


@dataclass(frozen=True, slots=True)
class ExistingAudit(Record):
    """What an audit says about an index that exists."""

    index: Index
    label: str
    """Its name with its schema."""
    findings: tuple[Finding, ...]
    drop: str = ""
    """The statement that removes it; empty where it must stay."""
    restore: str = ""
    """The statement that brings it back."""


@dataclass(frozen=True, slots=True)
class Audit(Record):
    """The result of an audit."""

    statements: tuple[StatementAudit, ...]
    existing: tuple[ExistingAudit, ...]
    preconditions: tuple[Finding, ...]
    """What the server and the session say against any build."""
    advice: tuple[Finding, ...]
    """What concerns no index that is planned or exists, such as a foreign key without one."""
    revised: IndexPlan
    """The statements to run, in order; it may be empty."""
    server: Server
    source: str
    """Where the plan came from."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Every finding, in the order of the report."""
        return (
            *self.preconditions,
            *(finding for item in self.statements for finding in item.findings),
            *(finding for item in self.existing for finding in item.findings),
            *self.advice,
        )

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings of severity error."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def counts(self) -> tuple[tuple[Verdict, int], ...]:
        """How many statements have each verdict, without those that none has."""
        found = Counter(item.verdict for item in self.statements)
        return tuple((verdict, found[verdict]) for verdict in VERDICTS if found[verdict])

    @property
    def kept(self) -> tuple[StatementAudit, ...]:
        """The statements that are to be run."""
        return tuple(item for item in self.statements if item.verdict in KEPT)

    @property
    def replaced(self) -> tuple[str, ...]:
        """The statements that drop what planned indexes make superfluous, once those are valid.

        Only what a planned index covers by its definition, with nothing to be said for keeping it,
        and what can be dropped CONCURRENTLY.
        """
        names = {
            finding.subject
            for item in self.kept
            for finding in item.findings
            if finding.rule == "replaces-index" and finding.fix and not finding.suppressed
        }
        return tuple(
            item.drop
            for item in self.existing
            if item.label in names and item.drop.startswith("DROP INDEX CONCURRENTLY ")
        )

    @property
    def summary(self) -> str:
        """The verdicts in one line.

        >>> audit.summary  # doctest: +SKIP
        '10 statements: 8 fix, 2 skip'
        """
        total = units.plural(len(self.statements), "statement")
        return f"{total}: " + ", ".join(f"{number} {verdict}" for verdict, number in self.counts)

    def frame(self) -> pd.DataFrame:
        """Return the verdicts as a pandas DataFrame, one row for each statement.

        Columns: `line` of the plan file, counted from 1; `index`; `table`; `verdict`; `revised`,
        the statement to run, empty where none is; `why`, the messages, the gravest first.
        """
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "line": item.statement.line,
                    "index": item.label,
                    "table": str(item.table),
                    "verdict": item.verdict,
                    "revised": "" if item.revised is None else statement_sql(item.revised),
                    "why": item.why,
                }
                for item in self.statements
            ],
            columns=["line", "index", "table", "verdict", "revised", "why"],
        )

    def findings_frame(self) -> pd.DataFrame:
        """Return every finding as a pandas DataFrame, one row each.

        Columns: `about`, the line or what else it belongs to; `subject`; `severity`; `rule`;
        `message`; `evidence`, in words; `fix`; `suppressed`, why the plan accepts it.
        """
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "about": about,
                    "subject": finding.subject,
                    "severity": finding.severity,
                    "rule": finding.rule,
                    "message": finding.message,
                    "evidence": "; ".join(f"{name}: {value}" for name, value in finding.evidence),
                    "fix": finding.fix,
                    "suppressed": finding.suppressed,
                }
                for about, finding in self._by_origin()
            ],
            columns=[
                "about",
                "subject",
                "severity",
                "rule",
                "message",
                "evidence",
                "fix",
                "suppressed",
            ],
        )

    def existing_frame(self) -> pd.DataFrame:
        """Return what is said about existing indexes as a pandas DataFrame, one row for each.

        Columns: `index`; `rules`; `bytes` on disk; `scans` since the statistics were reset; `why`;
        `drop` and `restore`, the statements, empty where it must stay.
        """
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "index": item.label,
                    "rules": ", ".join(dict.fromkeys(f.rule for f in item.findings)),
                    "bytes": item.index.bytes,
                    "scans": item.index.scans,
                    "why": "; ".join(finding.message for finding in item.findings),
                    "drop": item.drop,
                    "restore": item.restore,
                }
                for item in self.existing
            ],
            columns=["index", "rules", "bytes", "scans", "why", "drop", "restore"],
        )

    def _by_origin(self) -> Iterator[tuple[str, Finding]]:
        yield from (("server", finding) for finding in self.preconditions)
        for item in self.statements:
            yield from ((f"line {item.statement.line}", finding) for finding in item.findings)
        for existing in self.existing:
            yield from (("existing index", finding) for finding in existing.findings)
        yield from (("table", finding) for finding in self.advice)

    def __repr__(self) -> str:
        rows = [
            (item.statement.line, item.label, item.verdict, item.why_in_short)
            for item in self.statements
        ]
        others = [
            f"{finding.severity}: {finding.message}"
            for finding in (*self.preconditions, *self.advice)
            if finding.severity != "info"
        ]
        if self.existing:
            others.append(f"{units.plural(len(self.existing), 'existing index')} to look at")
        return records.text(self.summary, ("line", "index", "verdict", "why"), rows, notes=others)

    def _repr_html_(self) -> str:
        """Return the verdicts, then what else was found, as tables."""
        parts = [_findings_table("Before anything is built", self.preconditions)]
        parts.append(
            display.table(
                ["line", "index", "table", "verdict", "revised", "why"],
                [
                    (
                        item.statement.line,
                        item.label,
                        item.table,
                        display.badge(item.verdict),
                        "" if item.revised is None else _inline(statement_sql(item.revised)),
                        item.why_in_short,
                    )
                    for item in self.statements
                ],
                caption=self.summary,
                numeric=["line"],
            )
        )
        if self.existing:
            parts.append(
                display.table(
                    ["index", "size", "scans", "why", "drop"],
                    [
                        (
                            item.label,
                            units.size(item.index.bytes),
                            units.count(item.index.scans),
                            "; ".join(finding.message for finding in item.findings),
                            _inline(item.drop) if item.drop else "",
                        )
                        for item in self.existing
                    ],
                    caption=f"{units.plural(len(self.existing), 'existing index')} to look at",
                    numeric=["size", "scans"],
                )
            )
        parts.append(_findings_table("Beside the plan", self.advice))
        return "".join(parts)


def _findings_table(caption: str, findings: tuple[Finding, ...]) -> str:
    if not findings:
        return ""
    rows = [(display.badge(f.severity), f.message, f.fix) for f in findings]
    return display.table(["severity", "message", "fix"], rows, caption=caption)


def _inline(text: str) -> display.Markup:
    return display.sql(text)


def _gravest_first(findings: tuple[Finding, ...]) -> list[Finding]:
    order: tuple[Severity, ...] = ("error", "warning", "info")
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def statement_sql(statement: CreateIndex | DropIndex) -> str:
    """Write a revised statement as SQL, without its semicolon."""
    if isinstance(statement, CreateIndex):
        return statement.index.sql
    return statement.text.rstrip().rstrip(";")
