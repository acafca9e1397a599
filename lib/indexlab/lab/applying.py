"""The verbs of apply, and taking back what it did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from indexlab import apply as applying
from indexlab import audit as auditing
from indexlab import charts, units
from indexlab import plan as plans
from indexlab import target as targets
from indexlab import workload as workloads
from indexlab.apply import Applied, Event, Outcome, Settings
from indexlab.benchmark import Writers
from indexlab.benchmark import writers as writing
from indexlab.charts import Chart
from indexlab.display import Note
from indexlab.errors import IncompleteError, InputError
from indexlab.lab.ground import Ground
from indexlab.lab.inputs import check_type
from indexlab.plan import IndexPlan
from indexlab.progress import About, Progress
from indexlab.runs import documents
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
                f"{units.plural(len(unresolved), 'statement')} of {self.plan.source!r} cannot be "
                f"applied as they are ({', '.join(unresolved)}): mend them, or apply "
                "revised_plan.sql of the audit, which leaves them out"
            )
        sampled = self._sampled_writes(chosen.watch_writers) if execute else ()
        audit = self._judged()[1].audit
        wanted = with_drops(audit.revised, audit.replaced if chosen.drop_replaced else ())

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
        applied = replace(applied, outcomes=(*self._left_out(), *applied.outcomes))
        applied = self._veil.result(applied)
        self._write("apply", documents.of_apply(applied, self.target, self.server))
        self._progress.done()
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
                sampled = workloads.sample(conn, self.workload)
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


def with_drops(plan: IndexPlan, drops: tuple[str, ...]) -> IndexPlan:
    """Return a plan that ends with these statements; pure."""
    if not drops:
        return plan
    added = plans.parse(";\n".join(drops), "what the plan replaces").statements
    return replace(plan, statements=(*plan.statements, *added))
