"""Opening a lab."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from indexlab import planning
from indexlab.demo import database
from indexlab.lab.inputs import check_type, read_inputs, require_queries
from indexlab.lab.reaching import recorded, server
from indexlab.lab.session import Lab
from indexlab.planning import Planner
from indexlab.progress import Progress, Tell
from indexlab.redaction import OFF, Veil
from indexlab.runs import Run, private


def open_lab(
    stage: str,
    target: str = "",
    plan: str = "",
    workload: str = "",
    out: str = "",
    *,
    disposable: bool = False,
    resolve: str = "",
    what_if: str = "sandbox",
    keep_sandbox: bool = False,
    redact: bool = False,
    tell: Tell | None = None,
) -> Lab:
    """Open a lab: check every input, reach the target, and make the run directory.

    Args:
        stage: `audit`, `apply` or `benchmark`, which name the result that the run will hold; or
            `explore`, which needs no plan, and without a workload takes what the target has run.
        target: empty for the bookings demo on the embedded server; otherwise as for --target.
        plan: path of the plan; empty for the demo's.
        workload: path of the workload; empty for the demo's on the demo, none elsewhere.
        out: run directory; empty keeps nothing.
        disposable: the target may be written to by the workload's writes, which are rolled back;
            the demo always is.
        resolve: what names of the plan mean: `old=new`, separated by commas.
        what_if: who says what the plan would do to the workload: `sandbox`, an empty copy of the
            target with its statistics; `hypopg`, the extension on the target; `off`, nobody.
        keep_sandbox: whether the sandbox outlives the lab; it holds sampled values of the data.
        redact: hide the texts of queries and the values of rows from all that the lab hands out
            or keeps.
        tell: is told what goes on; by default the page or the command that started this process.

    Raises:
        InputError: an input is not as it must be; nothing was run.
        TargetError: the target cannot be reached.
    """
    for name, value, kind in (
        ("out", out, str),
        ("disposable", disposable, bool),
        ("what_if", what_if, str),
        ("keep_sandbox", keep_sandbox, bool),
        ("redact", redact, bool),
    ):
        check_type(name, value, kind)
    planning.check_mode(what_if)
    veil = Veil(key=private.key()) if redact else OFF
    with veil.errors():
        inputs = read_inputs(target, plan, workload, resolve, needs_plan=stage != "explore")
        if stage == "benchmark":
            require_queries(inputs.workload)
    veil.learn_workload(inputs.workload)
    veil.learn_names((inputs.plan.source, inputs.workload.source, out))
    progress = Progress(tell, veil=veil.telling)
    run = Run.create(Path(out), stage) if out else None
    with veil.errors(), ExitStack() as holding:
        reached = inputs.target or holding.enter_context(
            database.opened(target, progress=progress.tell)
        )
        queries = inputs.workload
        if stage == "explore" and not queries.queries:
            progress.tell("reading pg_stat_statements")
            queries = recorded(reached)
            veil.learn_workload(queries)
        lab = Lab(
            reached,
            inputs.plan,
            queries,
            resolve=inputs.resolve,
            run=run,
            disposable=disposable or inputs.target is None,
            server=server(reached),
            progress=progress,
            planner=Planner(
                reached,
                queries,
                mode=what_if,
                keep=keep_sandbox,
                tell=progress.tell,
            ),
            holding=holding.pop_all(),
            veil=veil,
        )
    progress.done()
    return lab
