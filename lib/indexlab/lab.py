"""The lab: target, plan and workload in one hand, and the stages as verbs.

Notebooks and the command use nothing else; each verb reads, thinks, keeps the result in the run
directory if there is one, and returns it.
"""

from __future__ import annotations

import atexit
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg

from indexlab import apply as applying
from indexlab import audit as auditing
from indexlab import benchmark as benchmarking
from indexlab import charts, demo, display, export, planning, units
from indexlab import plan as plans
from indexlab import target as targets
from indexlab import workload as workloads
from indexlab.apply import Applied, Event, Outcome, Settings
from indexlab.apply import journal as journals
from indexlab.audit import Audit
from indexlab.benchmark import Comparison, Load, Measurement, Price
from indexlab.benchmark import load as loading
from indexlab.catalog import Catalog
from indexlab.charts import Chart
from indexlab.demo import database
from indexlab.display import Note
from indexlab.errors import IncompleteError, InputError
from indexlab.impact import Impact, Trial
from indexlab.plan import IndexPlan
from indexlab.planning import Planner, Weighed
from indexlab.progress import About, Progress, Tell
from indexlab.runs import Run, documents
from indexlab.target import Server, Target
from indexlab.workload import SampledQuery, Workload

Resolutions = tuple[tuple[str, str], ...]
SETTLED = (*auditing.KEPT, "skip")
JOURNAL, ROLLBACK_JOURNAL = "apply.journal", "rollback.journal"
BUDGET = 10.0
"""Seconds of measuring, over all queries of one side."""
PRECISION = 0.05
"""How wide the interval of a ratio may be before a query needs no further round."""
CACHES = ("warm", "cold")
MODES = ("auto", "one side", "interleaved")


@dataclass(frozen=True, slots=True)
class Loads:
    """What many clients saw, and what they saw before."""

    after: Load
    before: Load | None

    def _repr_html_(self) -> str:
        sides = [("before", self.before), ("after", self.after)]
        rows = [
            (
                label,
                f"{side.throughput:,.1f}/s",
                *(units.ms(ms) for ms in (side.p50_ms, side.p95_ms, side.p99_ms, side.max_ms)),
                side.late,
            )
            for label, side in sides
            if side is not None
        ]
        columns = ("", "throughput", "p50", "p95", "p99", "longest", "skipped or failed")
        note = "Latency counts from the scheduled start." if self.after.rate else ""
        caption = f"{units.plural(self.after.clients, 'client')} at once"
        table = display.table(columns, rows, caption=caption, numeric=columns[1:])
        return f"{table}<p>{note}</p>"


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a user handed in, read and found to be in order."""

    plan: IndexPlan
    workload: Workload
    target: Target | None
    """None for the demo."""
    resolve: Resolutions = ()


def read_inputs(target: str, plan: str, workload: str, resolve: str = "") -> Inputs:
    """Read what the user handed in; connects to nothing.

    Args:
        target: as for --target.
        plan: path of the plan; empty for the demo's.
        workload: path of the workload; empty for the demo's on the demo, none elsewhere.
        resolve: what names of the plan mean: `old=new`, separated by commas.

    Raises:
        InputError: an input is not as it must be; names file and line.
    """
    given = (("target", target), ("plan", plan), ("workload", workload), ("resolve", resolve))
    for name, value in given:
        _check_type(name, value, str)
    is_demo = database.is_demo(target)
    if is_demo:
        database.rows_of(target)
    elif not plan:
        raise InputError("a target of your own needs a plan: give --plan FILE")
    return Inputs(
        plan=plans.read(Path(plan) if plan else demo.PLAN),
        workload=workloads.read(Path(workload) if workload else demo.WORKLOAD)
        if workload or is_demo
        else Workload((), "none"),
        target=None if is_demo else targets.resolve(target),
        resolve=tuple(_resolutions(resolve)),
    )


def _resolutions(text: str) -> Iterator[tuple[str, str]]:
    """Split at the commas and the equals signs that stand outside of quotes."""
    for pair in filter(None, map(str.strip, re.findall(r'(?:"[^"]*"|[^",]|")+', text))):
        parts = [part.strip() for part in re.findall(r'(?:"[^"]*"|[^"=]|")+', pair)]
        if len(parts) != 2 or not all(parts):
            raise InputError(f"--resolve {pair!r} is not old=new, such as event_date=date")
        yield parts[0], parts[1]


def require_queries(workload: Workload) -> None:
    """Check that there is something to measure.

    Raises:
        InputError: the workload has no query.
    """
    if not workload.queries:
        raise InputError("a benchmark needs a workload: give --workload FILE")
    if not workload.executable:
        raise InputError(
            "a benchmark needs a query that can be run: all of this workload are normalized text "
            "with $1, for which there are no values; write :name and a sampler",
            source=workload.source,
        )


def _check_type(name: str, value: object, kind: type) -> None:
    """Papermill hands over whatever was typed: `-p execute no` is a text, and true."""
    fits = (int, float) if kind is float else kind
    if not isinstance(value, fits) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"parameter {name!r} must be {kind.__name__}, not {value!r}")


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
    tell: Tell | None = None,
) -> Lab:
    """Open a lab: check every input, reach the target, and make the run directory.

    Args:
        stage: `audit`, `apply` or `benchmark`; names the result that the run will hold.
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
    ):
        _check_type(name, value, kind)
    planning.check_mode(what_if)
    inputs = read_inputs(target, plan, workload, resolve)
    if stage == "benchmark":
        require_queries(inputs.workload)
    progress = Progress(tell)
    run = Run.create(Path(out), stage) if out else None
    with ExitStack() as holding:
        reached = inputs.target or holding.enter_context(
            database.opened(target, progress=progress.tell)
        )
        lab = Lab(
            reached,
            inputs.plan,
            inputs.workload,
            resolve=inputs.resolve,
            run=run,
            disposable=disposable or inputs.target is None,
            server=_server(reached),
            progress=progress,
            planner=Planner(
                reached,
                inputs.workload,
                mode=what_if,
                keep=keep_sandbox,
                tell=progress.tell,
            ),
            holding=holding.pop_all(),
        )
    progress.done()
    return lab


def roll_back(
    run: Run,
    *,
    target: str | None = None,
    execute: bool = False,
    settings: str = "",
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
    progress = Progress(tell)
    with _reached(spec, progress) as reached:
        applied = applying.rollback(
            reached,
            outcomes,
            chosen,
            execute=execute,
            journal=run.path / ROLLBACK_JOURNAL,
            on_event=_telling(progress),
        )
        if execute:
            run.write_json("rollback", documents.of_apply(applied, reached, _server(reached)))
    progress.done()
    return applied


def drop_replaced(
    run: Run, target: Target | None, spec: str, *, settings: str = "", tell: Tell | None = None
) -> Applied:
    """Drop what the indexes of a run have replaced, as its audit says.

    The plan is looked at again, so that each index is dropped behind a valid one. Adds to the run's
    `apply.json` and `apply.journal`.

    Args:
        run: that has been audited and applied.
        target: the database; None for the demo.
        spec: as for --target.
        settings: as `Settings.parse` reads them.
        tell: is told what goes on.

    Raises:
        InputError: an index must stay after all.
        TargetError: the target cannot be reached or does not allow it.
        IncompleteError: an index could not be dropped; `apply.json` says what stands.
    """
    before, progress = documents.outcomes(run), Progress(tell)
    plan = _with_drops(
        plans.read(run.path / "revised_plan.sql"), tuple(run.read_json("audit")["replaced"])
    )
    with _reached(spec, progress, target) as reached:
        applied = applying.run(
            reached,
            plan,
            Settings.parse(settings),
            execute=True,
            journal=run.path / JOURNAL,
            on_event=_telling(progress),
        )
        known = {(item.index, item.statement) for item in before}
        added = tuple(i for i in applied.outcomes if (i.index, i.statement) not in known)
        whole = replace(applied, outcomes=(*before, *added))
        run.write_json("apply", documents.of_apply(whole, reached, _server(reached)))
    progress.done()
    if not whole.complete:
        raise IncompleteError(documents.incomplete(whole))
    return whole


def _with_drops(plan: IndexPlan, drops: tuple[str, ...]) -> IndexPlan:
    """Return a plan that ends with these statements; pure."""
    if not drops:
        return plan
    added = plans.parse(";\n".join(drops), "what the plan replaces").statements
    return replace(plan, statements=(*plan.statements, *added))


@contextmanager
def _reached(spec: str, progress: Progress, target: Target | None = None) -> Iterator[Target]:
    """Hold the demo while it is worked on, or find out what another --target means."""
    if database.is_demo(spec):
        with database.opened(spec, progress=progress.tell) as reached:
            yield reached
    else:
        yield targets.resolve(spec) if target is None else target


def _server(target: Target) -> Server:
    with targets.connect(target, read_only=True) as conn:
        return targets.server(conn)


def _name(source: str) -> str:
    """A page is sent to others: it names files, not the places of this machine."""
    return Path(source).name


def check_export(tool: str, to: str) -> None:
    """Check an export's options; writes nothing.

    Raises:
        InputError: there is no such tool, or it cannot be written there.
    """
    if tool and tool not in export.TOOLS:
        raise InputError(f"no export for {tool!r}: there are {', '.join(export.TOOLS)}")
    if not to:
        return
    if not tool:
        raise InputError("--export-to needs --export, which says for which tool")
    path = Path(to)
    if path.is_file():
        raise InputError(f"{to!r} exists already, and an export never overwrites a file")
    if not path.is_dir() and not path.parent.is_dir():
        raise InputError(f"the directory {path.parent.as_posix()!r} does not exist")


def _exported(files: tuple[export.File, ...], place: Path) -> tuple[Path, ...]:
    """Write files into a directory, or the first of them as `place` and the others beside it."""
    names = [file.name for file in files]
    folder = place
    if not place.is_dir():
        folder = place.parent
        stem = files[0].name
        names = [_beside(place.name, stem, name) for name in names]
    for name in names:
        if (folder / name).exists():
            raise InputError(
                f"{(folder / name).as_posix()!r} exists already, and an export never overwrites "
                "a file"
            )
    return tuple(
        Run(folder).write(name, file.text) for name, file in zip(names, files, strict=True)
    )


def _beside(given: str, first: str, name: str) -> str:
    """Name a file after the one that was given: what belongs to it begins with its name."""
    return given + name.removeprefix(first) if name.startswith(first) else name


def _telling(progress: Progress) -> Callable[[Event], None]:
    def tell(event: Event) -> None:
        fraction = None if event.percent is None else event.percent / 100
        progress.tell(About(event.index, str(event), lasting=event.lasting), fraction)

    return tell


class Lab:
    """What a session works on; `open_lab` makes one."""

    def __init__(
        self,
        target: Target,
        plan: IndexPlan,
        workload: Workload,
        *,
        resolve: Resolutions,
        run: Run | None,
        disposable: bool,
        server: Server,
        progress: Progress,
        planner: Planner,
        holding: ExitStack,
    ):
        self.target = target
        self.plan = plan
        self.workload = workload
        self.resolve = resolve
        self.run = run
        self.disposable = disposable
        self.server = server
        self._progress = progress
        self._planner = planner
        self._holding = holding
        self._read: tuple[Catalog, Audit] | None = None
        self._weighed: Weighed | None = None
        # A sandbox holds sampled values of the data: it goes with the process at the latest.
        atexit.register(planner.close)
        self._other: Measurement | None = None

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the sandbox and of the embedded server, if this lab holds them."""
        atexit.unregister(self._planner.close)
        self._planner.close()
        self._holding.close()

    def _reader(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        return targets.connect(self.target, read_only=True, purpose="audit")

    def _ruled(self) -> tuple[Catalog, Audit]:
        """The audit by the rules alone."""
        if self._read is None:
            self._progress.tell("reading the catalog")
            with self._reader() as conn, self._reader() as other:
                self._read = auditing.read(
                    conn, self.plan, self.workload, resolve=self.resolve, other=other
                )
        return self._read

    def _judged(self) -> tuple[Catalog, Weighed]:
        """The audit, after the workload has been planned."""
        catalog, audit = self._ruled()
        if self._weighed is None:
            self._weighed = self._planner.weigh(catalog, audit)
        return catalog, self._weighed

    def audit(self) -> Audit:
        """Judge the plan against the target and weigh it by the workload; reads only.

        Keeps `audit.json`, `revised_plan.sql`, `migration.sql` and `rollback.sql` in the run.
        """
        self._read = self._weighed = None
        _, weighed = self._judged()
        audit = weighed.audit
        if self.run is not None:
            self.run.write("revised_plan.sql", auditing.revised_plan_sql(audit))
            self.run.write("migration.sql", auditing.migration_sql(audit, self.workload))
            self.run.write("rollback.sql", auditing.rollback_sql(audit))
            self.run.write_json("audit", documents.of_audit(audit, self.target, weighed.impact))
        self._progress.done()
        return audit

    def impact(self) -> Impact | Note:
        """Say what the plan does to each query, and what each of its indexes is worth."""
        _, weighed = self._judged()
        self._progress.done()
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
        trial = self._planner.attempt(
            catalog, statement, query=query, values=values, with_plan=with_plan, plan=revised
        )
        self._progress.done()
        return trial

    def revised(self) -> IndexPlan:
        """Return the plan that would be applied, from the audit of this session."""
        return self._judged()[1].audit.revised

    def apply(self, *, execute: bool = False, settings: str = "") -> Applied:
        """Build what the audit calls for; a dry run unless `execute`.

        Keeps `apply.json` in the run, whatever happened, and from its first step on
        `apply.journal`, from which a run that was killed can be taken back.

        Args:
            execute: whether to change the target.
            settings: as `Settings.parse` reads them, such as `jobs=2 window=22:00-05:00`.

        Raises:
            InputError: the plan cannot be applied; nothing was done.
            IncompleteError: a step failed or was interrupted; `apply.json` says what stands.
        """
        _check_type("execute", execute, bool)
        _check_type("settings", settings, str)
        chosen = Settings.parse(settings)
        unresolved = self.unresolved()
        if unresolved:
            raise InputError(
                f"{units.plural(len(unresolved), 'statement')} of {self.plan.source!r} cannot be "
                f"applied as they are ({', '.join(unresolved)}): mend them, or apply "
                "revised_plan.sql of the audit, which leaves them out"
            )
        audit = self._judged()[1].audit
        applied = applying.run(
            self.target,
            _with_drops(audit.revised, audit.replaced if chosen.drop_replaced else ()),
            chosen,
            execute=execute,
            journal=None if self.run is None else self.run.path / JOURNAL,
            on_event=_telling(self._progress),
        )
        applied = replace(applied, outcomes=(*self._left_out(), *applied.outcomes))
        if self.run is not None:
            self.run.write_json("apply", documents.of_apply(applied, self.target, self.server))
        self._progress.done()
        return applied

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

    def benchmark(
        self,
        *,
        label: str = "",
        baseline: str = "",
        mode: str = "auto",
        cache: str = "warm",
        budget: float = BUDGET,
        precision: float = PRECISION,
        seed: int = 0,
        statement_timeout: float = 60.0,
    ) -> Measurement:
        """Time the workload; writes run only on a disposable target, and are rolled back.

        Keeps `benchmark.json` in the run; with a baseline, what changed since is part of it. Where
        sides are interleaved, the one without the planned indexes is kept in `before/` of the run.

        Args:
            label: name of the measurement in tables and charts.
            baseline: run directory of an earlier one; its parameter values are used again.
            mode: `interleaved` measures with and without the planned indexes that exist, in turns,
                on a disposable target; `one side` only as the target is; `auto` interleaves
                where that is possible and no baseline is given.
            cache: `warm` as a busy server's, or `cold`: emptied before each execution, on a
                disposable server of this machine.
            budget: seconds of measuring, over all queries of a side.
            precision: how wide the interval of a ratio may be before a query needs no further
                round: 0.05 is 5%; 0 uses the budget up.
            seed: of the parameter values and the order of queries.
            statement_timeout: seconds after which the server gives a statement up.

        Raises:
            InputError: a query or a sampler fails; the baseline is not of this workload; the sides
                cannot be interleaved.
        """
        for name, value, kind in (
            ("label", label, str),
            ("baseline", baseline, str),
            ("mode", mode, str),
            ("cache", cache, str),
            ("budget", budget, float),
            ("precision", precision, float),
            ("seed", seed, int),
            ("statement_timeout", statement_timeout, float),
        ):
            _check_type(name, value, kind)
        if cache not in CACHES:
            raise InputError(f"cache {cache!r} is none of {', '.join(CACHES)}")
        if cache == "cold" and not self.disposable:
            raise InputError(
                "a cold cache is cold for everybody on that server: do it on a clone, and say "
                "--disposable"
            )
        hidden = self._to_hide(mode, baseline)
        self._other = self._baseline(baseline) if baseline else None
        if baseline:
            sampled = documents.values_of(Run(Path(baseline)), self.workload)
        else:
            self._progress.tell("sampling parameter values")
            with targets.connect(self.target, read_only=True, purpose="benchmark") as conn:
                sampled = workloads.sample(conn, self.workload, seed=seed)
        if hidden:
            self._other, measurement = benchmarking.interleave(
                self.target,
                sampled,
                hidden,
                labels=("before", label or "after"),
                cold=cache == "cold",
                budget=2 * budget,
                precision=precision,
                seed=seed,
                statement_timeout=statement_timeout,
                source=self.workload.source,
                progress=self._progress.tell,
            )
        else:
            measurement = benchmarking.measure(
                self.target,
                sampled,
                label=label,
                cold=cache == "cold",
                budget=budget,
                precision=precision,
                seed=seed,
                disposable=self.disposable,
                statement_timeout=statement_timeout,
                source=self.workload.source,
                tolerated=frozenset(series.query for series in self._other.series)
                if self._other is not None
                else frozenset(),
                progress=self._progress.tell,
            )
        self._keep(measurement, sampled, seed)
        self._progress.done()
        return measurement

    def load(
        self,
        clients: int,
        *,
        rate: float = 0.0,
        seconds: float = 10.0,
        seed: int = 0,
        baseline: str = "",
        statement_timeout: float = 60.0,
    ) -> Loads | Note:
        """Send the workload from many clients at once; keeps `load.json` in the run.

        Args:
            clients: concurrent sessions; 0 puts no load on.
            rate: transactions per second over all clients; 0 is as fast as they can.
            seconds: how long.
            seed: of parameter values and of the choice of queries.
            baseline: run directory of an earlier load to show beside it.
            statement_timeout: seconds after which the server gives a statement up.

        Raises:
            InputError: a number is out of range.
            TargetError: a statement fails.
        """
        for name, value, kind in (("clients", clients, int), ("rate", rate, float)):
            _check_type(name, value, kind)
        if clients == 0:
            return Note.words("No load was asked for (clients).")
        self._progress.tell(f"{units.plural(clients, 'client')} for {units.duration(seconds)}")
        with targets.connect(self.target, read_only=True, purpose="benchmark") as conn:
            sampled = workloads.sample(conn, self.workload, seed=seed)
        found = loading.run(
            self.target,
            sampled,
            clients=clients,
            rate=rate,
            seconds=seconds,
            seed=seed,
            statement_timeout=statement_timeout,
            disposable=self.disposable,
        )
        earlier = documents.load(Run(Path(baseline))) if baseline else None
        if self.run is not None:
            self.run.write_json("load", documents.of_load(found, earlier))
        self._progress.done()
        return Loads(found, earlier)

    def _keep(self, measurement: Measurement, sampled: tuple[SampledQuery, ...], seed: int) -> None:
        if self.run is None:
            return
        other = self._other
        comparison = None if other is None else self._compared(other, measurement, seed)
        if other is not None and measurement.is_paired_with(other):
            Run.create(self.run.path / "before", "benchmark").write_json(
                "benchmark", documents.of_benchmark(other, None, sampled, self.target, self.server)
            )
        self.run.write_json(
            "benchmark",
            documents.of_benchmark(measurement, comparison, sampled, self.target, self.server),
        )

    def _to_hide(self, mode: str, baseline: str) -> tuple[tuple[str, str], ...]:
        """Return the planned indexes to measure with and without; none to measure one side.

        In a run that has built some, only those: before it, there were the others, too.
        """
        if mode not in MODES:
            raise InputError(f"mode {mode!r} is none of {', '.join(MODES)}")
        if mode == "one side" or (mode == "auto" and (baseline or not self.disposable)):
            return ()
        if baseline:
            raise InputError(
                "interleaving measures both sides itself: give either --interleaved or --baseline"
            )
        if not self.disposable:
            raise InputError(
                "interleaving drops the planned indexes in transactions that are rolled back, and "
                "others wait for their tables meanwhile: do it on a clone, and say --disposable"
            )
        snapshot, audit = self._ruled()
        present = {
            str(replace(item.table, name=item.label)): (item.table.schema or "", item.label)
            for item in audit.statements
            if (index := snapshot.index(item.table.schema or "", item.label)) is not None
            and index.valid
        }
        if self.run is not None and self.run.has("apply"):
            outcomes = documents.outcomes(self.run)
            built = {outcome.index for outcome in outcomes if outcome.outcome == "built"}
            present = {name: parts for name, parts in present.items() if name in built} or present
        if not present and mode == "interleaved":
            raise InputError(
                "there is nothing to interleave: none of the planned indexes exists; apply first"
            )
        return tuple(present.values())

    def compare(self, after: Measurement, baseline: str, *, seed: int = 0) -> Comparison | Note:
        """Say what changed since the other side or an earlier run, query by query."""
        before = self._before(baseline)
        if before is None:
            return Note.words("There is no baseline to compare with.")
        return self._compared(before, after, seed)

    def _before(self, baseline: str) -> Measurement | None:
        """Return the other side: of this session, or of an earlier run."""
        if self._other is None and baseline:
            return self._baseline(baseline)
        return self._other

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
        written = _exported(files, Path(to) if to else folder.path)
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

    def latencies(self, measurement: Measurement) -> Chart:
        """Draw p50, p95 and p99 of each query."""
        return charts.latencies(measurement)

    def before_after(self, comparison: Comparison | Note) -> Chart | Note:
        """Draw the medians of both sides."""
        return comparison if isinstance(comparison, Note) else charts.before_after(comparison)

    def distributions(self, after: Measurement, baseline: str) -> Chart | Note:
        """Draw the whole distribution of each query's latency, both sides."""
        before = self._before(baseline)
        if before is None:
            return Note.words("There is no baseline to draw beside it.")
        return charts.ecdf(before, after)

    def ratios(self, comparison: Comparison | Note) -> Chart | Note:
        """Draw each query's ratio with its interval."""
        return comparison if isinstance(comparison, Note) else charts.forest(comparison)

    def drift(
        self, after: Measurement, comparison: Comparison | Note, baseline: str
    ) -> Chart | Note:
        """Draw the controls round by round: whether the machine was the same on both sides."""
        before = self._before(baseline)
        if before is None or isinstance(comparison, Note):
            return Note.words("There are no two sides that the machine could differ between.")
        return charts.drift(before, after, comparison)

    def price(
        self, after: Measurement, comparison: Comparison | Note, baseline: str
    ) -> Price | Note:
        """Hold the read gain against the write price."""
        before = self._before(baseline)
        if before is None or isinstance(comparison, Note):
            return Note.words("There is no second side, so no price.")
        steps = documents.outcomes(self.run) if self.run and self.run.has("apply") else ()
        built = [outcome for outcome in steps if outcome.outcome == "built"]
        return benchmarking.price(
            comparison,
            before,
            after,
            bytes=sum(outcome.bytes or 0 for outcome in built),
            build_seconds=sum(outcome.seconds or 0 for outcome in built),
        )

    def gains(self, price: Price | Note, comparison: Comparison | Note) -> Chart | Note:
        """Draw what reads save beside what writes pay."""
        if isinstance(price, Note) or isinstance(comparison, Note):
            return Note.words("There is nothing to draw.")
        return charts.price(price, comparison)

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

    def _baseline(self, path: str) -> Measurement:
        return documents.measurement(Run(Path(path)))

    def _compared(self, before: Measurement, after: Measurement, seed: int) -> Comparison:
        # By the audit's names for all of them: once built, they are no longer to be built.
        _, audit = self._ruled()
        names = {item.label for item in audit.statements}
        tables = {f"{item.table.schema}.{item.table.name}" for item in audit.statements}
        return benchmarking.compare(before, after, indexes=names, tables=tables, seed=seed)

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

    def _repr_html_(self) -> str:
        rows = [
            ("target", str(self.server)),
            ("plan", f"{_name(self.plan.source)}: {units.plural(len(self.plan.creates), 'index')}"),
            ("workload", f"{_name(self.workload.source)}: {self._queries()}"),
            ("writes are", "run and rolled back" if self.disposable else "not run"),
            ("run directory", self.run.path.as_posix() if self.run else "none: nothing is kept"),
        ]
        return display.table(("", "in this lab"), rows)

    def __repr__(self) -> str:
        return f"<Lab on {self.server}, plan {self.plan.source}, workload {self.workload.source}>"

    def _queries(self) -> str:
        reads, writes = len(self.workload.reads), len(self.workload.writes)
        return f"{units.plural(reads, 'read')}, {units.plural(writes, 'write')}"
