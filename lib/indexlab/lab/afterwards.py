"""What follows a run: taking it back, and dropping what it replaced."""

from __future__ import annotations

from dataclasses import replace

from indexlab import apply as applying
from indexlab import plan as plans
from indexlab.apply import Applied, Settings
from indexlab.apply import journal as journals
from indexlab.errors import IncompleteError
from indexlab.lab.applying import JOURNAL, ROLLBACK_JOURNAL, telling, with_drops
from indexlab.lab.reaching import held, server
from indexlab.progress import Progress, Tell
from indexlab.redaction import Veil
from indexlab.runs import Run, documents
from indexlab.target import Target


def roll_back(
    run: Run,
    *,
    target: str | None = None,
    execute: bool = False,
    settings: str = "",
    redact: bool = False,
    tell: Tell | None = None,
) -> Applied:
    """Take back what a run did to its target; a dry run unless `execute`.

    The journal says what to take back, also where the run was killed; without one, `apply.json`.
    Keeps `rollback.json` and `rollback.journal` in the run when it changed something.

    Args:
        run: that applied something.
        target: as for --target; None takes the run's own.
        execute: whether to change the target.
        settings: as `Settings.parse` reads them.
        redact: hide the values of rows from what is told and kept.
        tell: is told what goes on.

    Raises:
        InputError: the run applied nothing.
        TargetError: the target cannot be reached or does not allow it.
    """
    chosen = Settings.parse(settings)
    journal = run.path / JOURNAL
    if journal.exists():
        spec = journals.target_of(journal) if target is None else target
        outcomes = journals.outcomes(journal, documents.outcome)
    else:
        spec = documents.target_of(run) if target is None else target
        outcomes = documents.outcomes(run)
    veil = Veil(worn=redact)
    progress = Progress(tell, veil=veil.telling)
    with veil.errors(), held(spec, progress) as reached:
        applied = veil.result(
            applying.rollback(
                reached,
                outcomes,
                chosen,
                execute=execute,
                journal=run.path / ROLLBACK_JOURNAL,
                on_event=telling(progress),
            )
        )
        if execute:
            run.write_json("rollback", documents.of_apply(applied, reached, server(reached)))
    progress.done()
    return applied


def drop_replaced(
    run: Run,
    target: Target | None,
    spec: str,
    *,
    settings: str = "",
    redact: bool = False,
    tell: Tell | None = None,
) -> Applied:
    """Drop what the indexes of a run have replaced, as its audit says.

    The plan is looked at again, so that each index is dropped behind a valid one. Adds to the run's
    `apply.json` and `apply.journal`.

    Args:
        run: that has been audited and applied.
        target: the database; None for the demo.
        spec: as for --target.
        settings: as `Settings.parse` reads them.
        redact: hide the values of rows from what is told and kept.
        tell: is told what goes on.

    Raises:
        InputError: an index must stay after all.
        TargetError: the target cannot be reached or does not allow it.
        IncompleteError: an index could not be dropped; `apply.json` says what stands.
    """
    before, veil = documents.outcomes(run), Veil(worn=redact)
    progress = Progress(tell, veil=veil.telling)
    plan = with_drops(
        plans.read(run.path / "revised_plan.sql"), tuple(run.read_json("audit")["replaced"])
    )
    with veil.errors(), held(spec, progress, target) as reached:
        applied = veil.result(
            applying.run(
                reached,
                plan,
                Settings.parse(settings),
                execute=True,
                journal=run.path / JOURNAL,
                on_event=telling(progress),
            )
        )
        known = {(item.index, item.statement) for item in before}
        added = tuple(i for i in applied.outcomes if (i.index, i.statement) not in known)
        whole = replace(applied, outcomes=(*before, *added))
        run.write_json("apply", documents.of_apply(whole, reached, server(reached)))
    progress.done()
    if not whole.complete:
        raise IncompleteError(documents.incomplete(whole))
    return whole
