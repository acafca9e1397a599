"""A batch in a notebook: what was kept of one, or a small one on the demo's data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from indexlab import charts, demo, display, matrix, units
from indexlab.apply import Outcome
from indexlab.audit import StatementAudit
from indexlab.benchmark import Comparison
from indexlab.charts import Chart
from indexlab.demo import database
from indexlab.display import Markup, Note
from indexlab.errors import TargetError
from indexlab.lab.inputs import check_type
from indexlab.lab.opening import open_lab
from indexlab.matrix import Cell, Gain, Matrix, Row
from indexlab.progress import Progress, Tell
from indexlab.records import Record

if TYPE_CHECKING:
    import pandas as pd

DEMO = {"customer-1": 5_000, "customer-2": 20_000}
"""Bookings in each database of the demo's batch."""
GONE = "customer-3"
"""Its service is in no file, as it happens in a batch."""
BUDGET = 0.5
"""Seconds of measuring per database."""


@dataclass(frozen=True, slots=True)
class Batch(Record):
    """A batch that was run, or a part of it."""

    matrix: Matrix
    source: str
    """Where it was read."""

    def reasons(self) -> Matrix | Note:
        """Show the targets that need a look, each with its reason; the worst first."""
        open_ = tuple(row for row in self.matrix.rows if row.status != "ok")
        if not open_:
            return Note.words("Every target is fine.")
        return replace(self.matrix, rows=open_)

    def chart(self) -> Chart | Note:
        """Draw what became of each statement on each target."""
        return charts.matrix(self.matrix) if self.matrix.rows else Note.words("There is no target.")

    def gains(self) -> Chart | Note:
        """Draw how much faster or slower each target became."""
        if not self.matrix.gains:
            return Note.words("No target was measured before and after.")
        return charts.gains(self.matrix)

    def build_times(self) -> Chart | Note:
        """Draw how long the builds took, statement by statement."""
        if not self.matrix.built():
            return Note.words("Nothing was built.")
        return charts.build_times(self.matrix)

    def frame(self) -> pd.DataFrame:
        """Return one row for each target and statement, with exact names.

        Columns: `target`, `status`, `tags`, `group`, `stage`, `wave`, `statement`, `state`, `tone`,
        `seconds` of the build, `bytes` of the index, `why`, `reason`, `exit`, `before_ms`,
        `after_ms`, `ratio` (after / before), `cost_before` and `cost_after` in the planner's units,
        `target_seconds`, `attempts`, `run`. A target without statements has one row.
        """
        return self.matrix.frame()

    def wide(self) -> pd.DataFrame:
        """Return one row for each target and one column for each statement."""
        return self.matrix.wide()

    def _repr_html_(self) -> str:
        found = self.matrix
        rows = [("batch", self.source), *_facts(found)]
        return display.table(("", found.finding()), rows)

    def __repr__(self) -> str:
        return f"<Batch {self.source}: {self.matrix.finding()}>"


def _facts(found: Matrix) -> Iterator[tuple[str, object]]:
    counts = " ".join(
        f"{number:,} {display.badge(status)}" for status, number in found.statuses.items()
    )
    yield "targets", Markup(counts)
    yield "statements", units.count(len(found.names))
    if found.stage:
        yield "stage", f"{found.stage} --execute" if found.execute else found.stage
    if found.seconds:
        yield "took", units.duration(found.seconds)
    for notice in found.notices:
        yield "notice", notice


def open_batch(out: str = "", only: str = "", *, tell: Tell | None = None) -> Batch:
    """Read what `indexlab batch` kept; without a place, do a small batch on the demo's data.

    Args:
        out: the directory or URL that `indexlab batch --out` named; empty for the demo.
        only: which targets, such as `tag=eu,name=shop-*,status=failed`; empty takes all.
        tell: is told what goes on; by default the page or the command that started this process.

    Raises:
        InputError: there is no batch in this place, it is not as it must be, or no target fits.
    """
    check_type("out", out, str)
    check_type("only", only, str)
    if out:
        return Batch(matrix.read(out).only(only), out)
    progress = Progress(tell)
    found = _demo(progress)
    progress.done()
    return Batch(found.only(only), "the demo: three databases, one of which nobody knows")


def _demo(progress: Progress) -> Matrix:
    """Audit, apply and measure the demo's plan on small databases that are dropped afterwards."""
    with database.copies(DEMO, progress=progress.tell) as addresses:
        addresses[GONE] = "service=indexlab_demo_gone"
        rows = [_worked(name, address, progress) for name, address in addresses.items()]
    return Matrix(matrix.worst_first(rows), stage="run", execute=True)


def _worked(name: str, address: str, progress: Progress) -> Row:
    """Do on one database what `indexlab run --execute` does, and keep nothing of it."""

    def tell(text: str, fraction: float | None) -> None:
        progress.tell(f"{name}: {text}" if text else "", fraction)

    size = "large" if DEMO.get(name, 0) > 10_000 else "small"
    began = Row(name, "ok", tags=("demo", size), group="embedded")
    given = (address, str(demo.PLAN), str(demo.WORKLOAD))
    try:
        with open_lab("apply", *given, disposable=True, what_if="off", tell=tell) as lab:
            audit = lab.audit()
            applied = lab.apply(execute=True)
    except TargetError as error:
        return replace(began, status="failed", exit=error.exit_code, reason=str(error))
    with open_lab("benchmark", *given, disposable=True, what_if="off", tell=tell) as lab:
        compared = lab.compare(lab.benchmark(budget=BUDGET, precision=0.5), "")
    steps = {outcome.index: outcome for outcome in applied.outcomes}
    gain = None
    if isinstance(compared, Comparison) and compared.headline.queries:
        gain = Gain(compared.headline.before_ms, compared.headline.after_ms)
    return replace(
        began,
        exit=0,
        gain=gain,
        cells=tuple(_cell(item, steps) for item in audit.statements),
        server=f"PostgreSQL {audit.server.version_text}",
    )


def _cell(item: StatementAudit, steps: dict[str, Outcome]) -> Cell:
    step = steps.get(str(replace(item.table, name=item.label)))
    why = "; ".join(finding.message for finding in item.findings if finding.severity != "info")
    if step is None:
        return Cell(item.label, item.verdict, why=why)
    return Cell(item.label, step.outcome, step.seconds, step.bytes, step.error or step.note or why)
