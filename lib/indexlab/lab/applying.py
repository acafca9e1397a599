"""The verbs of apply, and taking back what it did."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from indexlab import apply as applying
from indexlab import audit as auditing
from indexlab import charts, sql, units
from indexlab import plan as plans
from indexlab import target as targets
from indexlab import workload as workloads
from indexlab.apply import Applied, Event, Outcome, Settings
from indexlab.audit import Audit
from indexlab.benchmark import Writers
from indexlab.benchmark import writers as writing
from indexlab.catalog import Catalog, Index
from indexlab.charts import Chart
from indexlab.display import Note
from indexlab.errors import IncompleteError, InputError
from indexlab.lab.ground import Ground
from indexlab.lab.inputs import check_type
from indexlab.plan import CreateIndex, IndexDef, IndexPlan, PlanStatement
from indexlab.progress import About, Progress
from indexlab.runs import documents
from indexlab.sql import RelationName
from indexlab.workload import SampledQuery

SETTLED = (*auditing.KEPT, "skip")
JOURNAL, ROLLBACK_JOURNAL = "apply.journal", "rollback.journal"


class Applying(Ground):
    """Build what the audit calls for, and show what became of it."""

    def apply(self, *, execute: bool = False, settings: str = "") -> Applied:
        """Build what the audit calls for; a dry run unless `execute`.

        Keeps `apply.json` in the run, whatever happened, and from its first step on
        `apply.journal`, from which a run that was killed can be taken back; and `writers.json`
        where the settings ask for writers.

        Args:
            execute: whether to change the target.
            settings: as `Settings.parse` reads them, such as `jobs=2 window=22:00-05:00`.

        Raises:
            InputError: the plan cannot be applied; nothing was done.
            IncompleteError: a step failed or was interrupted; `apply.json` says what stands.
        """
        check_type("execute", execute, bool)
        check_type("settings", settings, str)
        chosen = Settings.parse(settings)
        check_redaction(chosen, redact=self._veil.worn)
        unresolved = self.unresolved()
        if unresolved:
            raise InputError(
                f"{units.plural(len(unresolved), 'statement')} of {self._plan.source!r} cannot be "
                f"applied as they are ({', '.join(unresolved)}): mend them, or apply "
                "revised_plan.sql of the audit, which leaves them out"
            )
        sampled = self._sampled_writes(chosen.watch_writers) if execute else ()
        snapshot, weighed = self._judged()
        audit = weighed.audit
        begun = unfinished(snapshot, audit, self._plan, constraints=chosen.attach_constraint)
        wanted = with_drops(audit.revised, audit.replaced if chosen.drop_replaced else ())
        wanted = replace(wanted, statements=(*begun, *wanted.statements))

        def run() -> Applied:
            return applying.run(
                self.target,
                wanted,
                chosen,
                execute=execute,
                journal=None if self.run is None else self.run.path / JOURNAL,
                on_event=telling(self._progress),
            )

        applied = self._beside_writers(run, chosen.watch_writers, sampled) if sampled else run()
        taken_up = {
            str(replace(item.index.table, name=item.index.name or ""))
            for item in begun
            if isinstance(item, CreateIndex)
        }
        left_out = (item for item in self._left_out() if item.index not in taken_up)
        applied = replace(applied, outcomes=(*left_out, *applied.outcomes))
        applied = self._veil.result(applied)
        self._write("apply", documents.of_apply(applied, self.target, self.server))
        return applied

    def _sampled_writes(self, rate: float) -> tuple[SampledQuery, ...]:
        """Read values for the writes that are to be sent; none where no writers are asked for.

        Raises:
            InputError: the target is not disposable, or the workload writes nothing.
        """
        if not rate:
            return ()
        if self.disposable:
            with targets.connect(self.target, read_only=True, purpose="benchmark") as conn:
                sampled = workloads.sample(conn, self._workload)
            self._veil.learn_samples(sampled)
        else:
            sampled = ()
        writing.check(rate, sampled, disposable=self.disposable)
        return sampled

    def _beside_writers(
        self, run: Callable[[], Applied], rate: float, sampled: tuple[SampledQuery, ...]
    ) -> Applied:
        """Apply beside writers, and keep what they saw in `writers.json`."""
        self._progress.tell(f"writers at {rate:g} per second, before, while and after")
        with writing.beside(self.target, sampled, rate=rate) as beside:
            beside.begin()
            try:
                applied = run()
            finally:
                beside.end()
            self._progress.tell("builds have ended, the writers go on for a moment")
        self._seen = self._veil.result(beside.result)
        if self._seen is not None:
            self._write("writers", documents.of_writers(self._seen))
        return applied

    def writers(self, applied: Applied) -> Writers | Note:
        """Show what writers saw before, while and after the builds."""
        if self._seen is None or not applied.executed:
            return Note.words("No writers were put on beside the builds.")
        return self._seen

    def writing(self, applied: Applied) -> Chart | Note:
        """Draw what writers saw before, while and after the builds."""
        if self._seen is None or not applied.executed:
            return Note.words("There is nothing to draw.")
        return charts.writing(self._seen)

    def _left_out(self) -> Iterator[Outcome]:
        """Say of each statement that the audit skips why it is not a step."""
        snapshot, weighed = self._judged()
        for item in weighed.audit.statements:
            if item.verdict == "skip":
                schema = item.table.schema or ""
                exists = snapshot.index(schema, item.label) is not None
                yield Outcome(
                    statement=item.statement.text,
                    index=str(replace(item.table, name=item.label)),
                    outcome="exists" if exists else "skipped",
                    note=item.why,
                )

    def unresolved(self) -> tuple[str, ...]:
        """Return the statements that the audit refuses or asks about."""
        _, audit = self._ruled()
        return tuple(item.label for item in audit.statements if item.verdict not in SETTLED)

    def require_complete(self, applied: Applied) -> Note:
        """Confirm that every step came to its end.

        Raises:
            IncompleteError: a step failed, was interrupted or was not run.
        """
        if not applied.complete:
            raise IncompleteError(documents.incomplete(applied))
        return Note.words(
            "Every step is done." if applied.executed else "A dry run changes nothing."
        )

    def builds(self, applied: Applied) -> Chart | Note:
        """Draw size and build time of what was built."""
        built = applied.built
        if not built:
            return Note.words("Nothing was built.")
        return charts.builds(
            names=[outcome.index for outcome in built],
            bytes=[outcome.bytes for outcome in built],
            seconds=[outcome.seconds for outcome in built],
        )


def check_redaction(settings: Settings, *, redact: bool) -> None:
    """Check that what is hidden is not asked for.

    Raises:
        InputError: it is.
    """
    if redact and settings.show_values:
        raise InputError("--show-values shows what --redact hides: give one of them")


def telling(progress: Progress) -> Callable[[Event], None]:
    """Return what tells a progress of each event of apply."""

    def tell(event: Event) -> None:
        fraction = None if event.percent is None else event.percent / 100
        progress.tell(About(event.index, str(event), lasting=event.lasting), fraction)

    return tell


def unfinished(
    catalog: Catalog, audit: Audit, plan: IndexPlan, *, constraints: bool
) -> tuple[PlanStatement, ...]:
    """Return what indexes still lack that the audit skips since they stand; pure.

    A run that was killed may have built one, and not yet commented on it or made it a constraint.

    Args:
        catalog: that the audit has seen.
        audit: of the plan.
        plan: as it was written.
        constraints: whether unique indexes become constraints of their names.
    """
    there = {
        item.label: index
        for item in audit.statements
        if item.verdict == "skip"
        and any(finding.rule == "exists" for finding in item.findings)
        and (index := catalog.index(item.table.schema or "", item.label)) is not None
    }
    creates = (
        CreateIndex(IndexDef.parse(index.definition), index.definition, 1)
        for index in there.values()
        if constraints and index.unique
    )
    waiting = (
        item
        for item in creates
        if any(
            step.action == "constraint"
            for step in applying.pending(catalog, IndexPlan((item,)), constraints=True)
        )
    )
    written = {(item.line, item.name.name, item.comment) for item in audit.revised.comments}
    comments = (
        replace(item, name=index.qualified)
        for item in plan.comments
        if (item.line, item.name.name, item.comment) not in written
        and (index := _index_of(catalog, item.name, there)) is not None
    )
    return (*waiting, *comments)


def _index_of(catalog: Catalog, name: RelationName, there: Mapping[str, Index]) -> Index | None:
    """Return the index that a comment is on: one that was planned, or any that exists."""
    planned = there.get(sql.truncate(name.name))
    if planned is not None and name.schema in (None, planned.schema):
        return planned
    found = catalog.find(name)
    return None if found is None else catalog.index(found.schema, found.name)


def with_drops(plan: IndexPlan, drops: tuple[str, ...]) -> IndexPlan:
    """Return a plan that ends with these statements; pure."""
    if not drops:
        return plan
    added = plans.parse(";\n".join(drops), "what the plan replaces").statements
    return replace(plan, statements=(*plan.statements, *added))
