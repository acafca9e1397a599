"""The verbs of the audit."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from indexlab import audit as auditing
from indexlab import charts, display, export, planning
from indexlab.audit import Audit
from indexlab.charts import Chart
from indexlab.display import Note
from indexlab.impact import Impact, Trial
from indexlab.lab.exporting import exported
from indexlab.lab.ground import Ground
from indexlab.plan import IndexPlan
from indexlab.runs import Run, documents


class Auditing(Ground):
    """Judge the plan, and show what the verdicts rest on."""

    def audit(self) -> Audit:
        """Judge the plan against the target and weigh it by the workload; reads only.

        Keeps `audit.json`, `revised_plan.sql`, `migration.sql` and `rollback.sql` in the run.
        """
        self._read = self._weighed = None
        _, weighed = self._judged()
        audit, impact = self._veil.result(weighed.audit), self._veil.result(weighed.impact)
        if self.run is not None:
            told = None if self._veil.worn else self._workload
            self.run.write("revised_plan.sql", auditing.revised_plan_sql(audit))
            self.run.write("migration.sql", auditing.migration_sql(audit, told))
            self.run.write("rollback.sql", auditing.rollback_sql(audit))
            self._write("audit", documents.of_audit(audit, self.target, impact))
        return audit

    def impact(self) -> Impact | Note:
        """Say what the plan does to each query, and what each of its indexes is worth."""
        _, weighed = self._judged()
        return weighed.impact or Note.words(weighed.reason)

    def worth(self) -> Chart | Note:
        """Draw what each planned index saves each query."""
        found = self.impact()
        if isinstance(found, Note):
            return found
        return charts.worth(found) if found.candidates else Note.words("No index is planned.")

    def bytes_against_worth(self) -> Chart | Note:
        """Draw the planned indexes by size and worth."""
        found = self.impact()
        if isinstance(found, Note):
            return found
        planned = [item for item in found.candidates if not item.problem]
        return charts.bytes_against_worth(found) if planned else Note.words("No index is planned.")

    def whatif(
        self,
        statement: str,
        query: str = "",
        values: planning.Given = None,
        *,
        with_plan: bool = False,
    ) -> Trial:
        """Plan a query without and with an index that is not there; reads only.

        Args:
            statement: `CREATE INDEX ...`, one or several.
            query: the name of a query of the workload, or SQL; empty takes the query of the
                workload that gains most.
            values: for its placeholders, in order or by name; by default a sampled set.
            with_plan: whether the planned indexes are there, too, in both plans.

        Raises:
            InputError: the statement or the query is not as it must be.
            TargetError: it cannot be simulated.
        """
        catalog, audit = self._ruled()
        revised = (audit if self._weighed is None else self._weighed.audit).revised
        return self._planner.attempt(
            catalog, statement, query=query, values=values, with_plan=with_plan, plan=revised
        )

    def revised(self) -> IndexPlan:
        """Return the plan that would be applied, from the audit of this session."""
        return self._judged()[1].audit.revised

    def revised_sql(self, audit: Audit) -> Note:
        """Show the revised plan."""
        text = auditing.revised_plan_sql(audit)
        return Note(text, display.code(text))

    def export(self, audit: Audit, tool: str, to: str = "") -> Note:
        """Write the revised plan as a migration of a tool.

        Args:
            audit: whose plan.
            tool: one of `export.TOOLS`; empty writes nothing.
            to: a directory, or the file of the migration; empty is the run's directory.

        Raises:
            InputError: there is no such tool, it cannot hold a statement, or the file is there
                already.
            IncompleteError: the file cannot be written.
        """
        if not tool:
            return Note.words("No export was asked for.")
        files = export.migration(tool, audit, now=datetime.now(UTC))
        if not files:
            return Note.words("There is nothing to export: the revised plan is empty.")
        if not to and self.run is None:
            return Note(files[0].text, display.code(files[0].text))
        folder = Run(self.run.path) if self.run is not None else Run(Path())
        written = exported(files, Path(to) if to else folder.path)
        return Note.words("Written: " + ", ".join(path.as_posix() for path in written))

    def evidence(self, audit: Audit) -> Note:
        """Show every finding with its evidence."""
        columns = ["about", "severity", "rule", "evidence", "fix", "suppressed"]
        frame = audit.findings_frame()[columns].rename(columns={"suppressed": "ignored because"})
        rows = [
            (about, display.badge(str(severity)), *rest)
            for about, severity, *rest in frame.itertuples(index=False)
        ]
        return Note(frame.to_string(), display.table(tuple(frame.columns), rows))

    def sizes(self, audit: Audit) -> Chart:
        """Draw the size of every index on the tables that the plan touches."""
        snapshot, _ = self._ruled()
        tables = {
            relation.oid
            for item in audit.revised.creates
            if (relation := snapshot.find(item.index.table)) is not None
        }
        indexes = [index for table in sorted(tables) for index in snapshot.indexes_of(table)]
        return charts.index_sizes(
            names=[index.name for index in indexes],
            bytes=[index.bytes for index in indexes],
            groups=[str(snapshot.relation(index.table).qualified) for index in indexes],
        )
