"""The stages in order, through notebooks or in process, into one run directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from indexlab import benchmark as benchmarking
from indexlab import charts, closing, render, runs, units
from indexlab import lab as labs
from indexlab.apply import Applied, Settings
from indexlab.benchmark import Measurement
from indexlab.benchmark import load as loading
from indexlab.benchmark import scale as scales
from indexlab.demo import database
from indexlab.errors import IndexlabError, InputError
from indexlab.lab import Inputs, Lab
from indexlab.plan import IndexPlan
from indexlab.progress import About, Tell, silent
from indexlab.redaction import Veil
from indexlab.runs import Json, Run, documents

UNRESOLVED = ("ask", "refuse")
DIFFER = ("rows differ", "values differ")


@dataclass(frozen=True, slots=True)
class Options:
    """What a user asked for, by option."""

    target: str
    plan: str
    workload: str
    out: Path
    report: bool = True
    execute: bool = False
    disposable: bool = False
    baseline: str = ""
    label: str = ""
    mode: str = "auto"
    cache: str = "warm"
    clients: int = 0
    rate: float = 0.0
    seconds: float = 10.0
    scale: str = ""
    budget: float = labs.BUDGET
    precision: float = labs.PRECISION
    seed: int = 0
    statement_timeout: float = 60.0
    max_slowdown: float | None = None
    resolve: str = ""
    export: str = ""
    export_to: str = ""
    what_if: str = "sandbox"
    keep_sandbox: bool = False
    redact: bool = False
    """Hide the texts of queries and the values of rows from all that is kept and printed."""
    settings: str = ""
    """How apply behaves, as `Settings.parse` reads it."""


@dataclass(slots=True)
class Pipeline:
    """The stages of one run; each leaves its result as JSON and returns it."""

    options: Options
    tell: Tell
    _inputs: Inputs = field(init=False)

    def __post_init__(self) -> None:
        """Read every input, so that a wrong one is told before anything is started."""
        options = self.options
        with Veil(worn=options.redact).errors():
            self._inputs = labs.read_inputs(
                options.target, options.plan, options.workload, options.resolve
            )
        labs.check_export(options.export, options.export_to)
        labs.check_redaction(Settings.parse(options.settings), redact=options.redact)
        self._measuring()
        if options.scale:
            self._factors()
        if options.baseline:
            documents.measurement(Run(Path(options.baseline)))

    def audit(self) -> Json:
        """Audit the plan, and export it if the options say so; changes nothing on the target."""
        tool, to = self.options.export, self.options.export_to
        return self._stage(
            "audit",
            self.options.out,
            lambda lab: lab.export(lab.audit(), tool, to),
            {"export": tool, "export_to": to, **self._asking()},
        )

    def _asking(self) -> dict[str, Any]:
        """Who says what the plan would do: for the stages whose verdicts rest on it."""
        return {"what_if": self.options.what_if, "keep_sandbox": self.options.keep_sandbox}

    def apply(self, *, drop_replaced: bool = True) -> Json:
        """Apply the revised plan; a dry run unless the options say execute.

        Args:
            drop_replaced: whether to drop what the plan replaces, where the settings ask for it.
        """
        execute, chosen = self.options.execute, Settings.parse(self.options.settings)
        if not drop_replaced:
            chosen = replace(chosen, drop_replaced=False)
        settings = chosen.words()
        return self._stage(
            "apply",
            self.options.out,
            lambda lab: lab.require_complete(lab.apply(execute=execute, settings=settings)),
            {
                "execute": execute,
                "settings": settings,
                "disposable": self.options.disposable,
                **self._asking(),
            },
        )

    def benchmark(
        self,
        out: Path | None = None,
        *,
        label: str | None = None,
        baseline: str | None = None,
        mode: str | None = None,
    ) -> Json:
        """Time the workload, and compare with a baseline or the other side if there is one."""
        options = self.options
        labs.require_queries(self._inputs.workload)
        measured: dict[str, Any] = {
            "label": options.label if label is None else label,
            "baseline": options.baseline if baseline is None else baseline,
            "mode": options.mode if mode is None else mode,
            "budget": options.budget,
            "precision": options.precision,
            "settings": self._measuring().words(),
        }

        def verb(lab: Lab) -> None:
            lab.benchmark(**measured)
            lab.load(measured["settings"], baseline=measured["baseline"])

        return self._stage(
            "benchmark", out or options.out, verb, {**measured, "disposable": options.disposable}
        )

    def _measuring(self) -> benchmarking.Settings:
        """Return how the benchmark is to go about it."""
        options = self.options
        chosen = benchmarking.Settings(
            cache=options.cache,
            seed=options.seed,
            statement_timeout=options.statement_timeout,
            clients=options.clients,
            rate=options.rate,
            seconds=options.seconds,
        )
        if chosen.clients:
            loading.check(chosen.clients, chosen.rate, chosen.seconds)
        return chosen

    def scaled(self) -> Json:
        """Measure the demo at several sizes, with and without the plan's indexes.

        Keeps a run for each size, and over all `scale.json` with its chart and its page. A run that
        has measured the demo's own size in turns already is not measured again.

        Raises:
            InputError: the target is not the demo, or the sizes are no list of numbers.
        """
        base = database.rows_of(self.options.target)
        rows = [round(base * factor) for factor in self._factors()]
        run = Run.create(self.options.out, "scale")
        sides = [self._at_size(size, is_base=size == base) for size in rows]
        found = benchmarking.scaling(rows, sides)
        charts.scale(found).save(run.path / "scale.png")
        run.write_json("scale", documents.of_scaling(found))
        if self.options.report:
            render.scale_page(run)
        return run.read_json("scale")

    def _factors(self) -> tuple[float, ...]:
        """Return what to multiply the demo's size by; pure."""
        if self._inputs.target is not None:
            raise InputError("--scale makes data of other sizes, so it works on the demo only")
        return scales.parse(self.options.scale)

    def _at_size(self, size: int, *, is_base: bool) -> tuple[Measurement, Measurement]:
        """Measure both sides in turns on a demo of this size, or take what this run has measured."""
        options, out = self.options, self.options.out
        if is_base and Run(out).has("benchmark") and Run(out / "before").has("benchmark"):
            before, after = (documents.measurement(Run(path)) for path in (out / "before", out))
            if after.is_paired_with(before):
                return before, after
        self.tell(f"{size:,} bookings", None)
        place = out / f"rows-{size}"
        spec = f"demo:{size}"
        one = replace(
            options,
            target=spec,
            out=place,
            report=False,
            mode="interleaved",
            execute=True,
            baseline="",
            clients=0,
            scale="",
        )
        with database.opened(spec, fresh=True, progress=self.tell):
            stages = Pipeline(one, self.tell)
            stages.apply()
            stages.benchmark()
        database.renew(spec, progress=silent)
        return documents.measurement(Run(place / "before")), documents.measurement(Run(place))

    def story(self) -> Json:
        """Audit, benchmark, apply and benchmark again; `run.json` and `index.html` tell of it all.

        On a disposable target, both sides are measured in turns after the build, if the side before
        can be brought back for a while.

        Without execute the target is not changed: the apply is a dry run, and there is no second
        benchmark.
        """
        out = self.options.out
        measures = any(
            query.kind == "read" or self._is_disposable()
            for query in self._inputs.workload.executable
        )
        summary = _Summary(self.options, self._spec(), self.tell)
        with summary.kept(Run(out)):
            with summary.stage("audit"):
                audit = self.audit()
            unresolved = [item["index"] for item in audit["statements"] if is_open(item)]
            if self.options.execute and unresolved:
                raise InputError(
                    f"{units.plural(len(unresolved), 'statement')} cannot be applied as they are "
                    f"({', '.join(unresolved)}): nothing was built; mend them, or apply "
                    "revised_plan.sql of this run, which leaves them out"
                )
            interleaved = self.options.execute and self._interleaves(audit)
            if measures and not interleaved:
                with summary.stage("benchmark before"):
                    self.benchmark(out / "before", label="before", baseline="", mode="one side")
            if interleaved and measures and self.options.clients:
                with summary.stage("load before"):
                    self._put_load(out / "before")
            if not unresolved:
                with summary.stage("apply"):
                    self.apply(drop_replaced=not self.options.execute)
            if self.options.execute and measures:
                name = "benchmark, sides in turns" if interleaved else "benchmark after"
                with summary.stage(name):
                    before = "" if interleaved else (out / "before").as_posix()
                    mode = "auto" if interleaved else "one side"
                    after = self.benchmark(label="after", baseline=before, mode=mode)
                summary.headline = after["headline"]
            if self.options.execute:
                self._drop_replaced(summary, measured=measures)
            if self.options.scale and self.options.execute and measures:
                with summary.stage("scale"):
                    self.scaled()
        return Run(out).read_json("run")

    def _put_load(self, out: Path) -> None:
        """Put load on before anything is built; what is measured in turns cannot tell that."""
        options = self.options
        with labs.open_lab(
            "load",
            options.target,
            options.plan,
            options.workload,
            out.as_posix(),
            disposable=options.disposable,
            resolve=options.resolve,
            redact=options.redact,
            tell=self.tell,
        ) as lab:
            lab.load(self._measuring().words())

    def _interleaves(self, audit: Json) -> bool:
        """Whether both sides can be measured after the build.

        What the plan drops cannot be brought back for a while, and an index that was there before
        goes with the partitioned one that it is attached to.
        """
        changes = self._inputs.plan.drops or _adopts(audit)
        return self._is_disposable() and self.options.mode != "one side" and not changes

    def _is_disposable(self) -> bool:
        return self.options.disposable or self._inputs.target is None

    def _drop_replaced(self, summary: _Summary, *, measured: bool) -> None:
        """Drop what the plan has replaced, where that is asked for and no query became slower."""
        run = Run(self.options.out)
        drops = run.read_json("audit")["replaced"]
        if not drops or not Settings.parse(self.options.settings).drop_replaced:
            return
        kept = self._keeping(run) if measured else "no query was measured"
        if kept:
            summary.notices.append(f"Nothing was dropped, though it was asked for: {kept}.")
            self.tell(About("run", summary.notices[-1], lasting=True), None)
            return
        with summary.stage("drop replaced"):
            labs.drop_replaced(
                run,
                self._inputs.target,
                self.options.target,
                settings=self.options.settings,
                redact=self.options.redact,
                tell=self.tell,
            )

    def _keeping(self, run: Run) -> str:
        """Say which queries became slower than is allowed, or cannot be compared."""
        comparison = documents.comparison(run)
        if comparison is None:
            return "nothing was compared"
        slower = comparison.regressions(self.options.max_slowdown or 1.0)
        reasons = [f"{change.query} became {units.factor(change.ratio)}" for change in slower]
        reasons += [
            f"{change.query} cannot be compared: {change.why}"
            for change in comparison.changes
            if change.answers in DIFFER and change.why
        ]
        reasons += [f"{failure.query} fails" for failure in comparison.broken()]
        return ", ".join(reasons)

    @property
    def plan(self) -> IndexPlan:
        """The plan as it was read."""
        return self._inputs.plan

    def _spec(self) -> str:
        """What --target said, without a password."""
        target = self._inputs.target
        return self.options.target if target is None else target.spec

    def _stage(
        self, stage: str, out: Path, verb: Callable[[Lab], object], parameters: dict[str, Any]
    ) -> Json:
        run = Run.create(out, stage)
        try:
            self._execute(stage, run, verb, parameters)
        finally:
            run.remove_if_empty()
        return run.read_json(stage)

    def _execute(
        self, stage: str, run: Run, verb: Callable[[Lab], object], parameters: dict[str, Any]
    ) -> None:
        options, target = self.options, self._inputs.target
        inputs = {
            "plan": options.plan,
            "workload": options.workload,
            "out": run.path.as_posix(),
            "resolve": options.resolve,
        }
        if options.report:
            render.execute(
                stage,
                {"target": self._spec(), **inputs, **parameters, "redact": options.redact},
                run,
                environment={} if target is None else target.environment(),
                secrets=() if target is None else target.secrets(),
                tell=self.tell,
            )
            return
        with labs.open_lab(
            stage,
            options.target,
            **inputs,
            disposable=options.disposable,
            what_if=options.what_if,
            keep_sandbox=options.keep_sandbox,
            redact=options.redact,
            tell=self.tell,
        ) as lab:
            verb(lab)


def _adopts(audit: Json) -> bool:
    return any(
        statement["revised"] and finding["evidence"].get("adopted")
        for statement in audit["statements"]
        for finding in statement["findings"]
    )


def is_open(statement: Json) -> bool:
    """Return whether a statement of an audit keeps the plan from being applied; pure."""
    return statement["verdict"] in UNRESOLVED


def rollback(
    name: str,
    *,
    target: str | None,
    execute: bool,
    settings: str = "",
    redact: bool = False,
    tell: Tell,
) -> Applied:
    """Take back what a run did to its target; a dry run unless `execute`.

    Args:
        name: the run's directory, or its name under `reports/`.
        target: as for --target; None takes the run's own.
        execute: whether to change the target.
        settings: how it behaves, as `Settings.parse` reads it.
        redact: hide the values of rows from what it says and keeps.
        tell: is told what goes on.

    Raises:
        InputError: there is no such run, or it applied nothing.
        TargetError: the target cannot be reached or does not allow it.
    """
    run = Run(runs.named(name))
    if not run.has("apply") and not (run.path / labs.JOURNAL).exists():
        raise InputError(
            f"{name!r} is not a run that applied anything: it has no apply.json and no journal"
        )
    with closing.closed(run.path, tell) if execute else nullcontext():
        return labs.roll_back(
            run, target=target, execute=execute, settings=settings, redact=redact, tell=tell
        )


class _Summary:
    """What `run.json` will say; it is written however the run ends."""

    def __init__(self, options: Options, target: str, tell: Tell):
        self.options = options
        self.tell = tell
        self.target = target
        self.started = datetime.now(UTC)
        self.stages: list[Json] = []
        self.notices: list[str] = []
        self.headline: Json | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = datetime.now(UTC)
        entry: Json = {"stage": name, "started": _iso(began), "status": "failed"}
        self.stages.append(entry)
        try:
            yield
            entry["status"] = "ok"
        finally:
            entry["seconds"] = round((datetime.now(UTC) - began).total_seconds(), 3)

    @contextmanager
    def kept(self, run: Run) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            self.notices.append("The run was interrupted: what is below is how far it came.")
            raise
        except IndexlabError as error:
            self.notices.append(str(error))
            raise
        finally:
            self._write(run)

    def _write(self, run: Run) -> None:
        if not run.has("audit"):
            return  # nothing was reached that a page could tell of
        options = self.options
        run.write_json(
            "run",
            {
                "started": _iso(self.started),
                "seconds": round((datetime.now(UTC) - self.started).total_seconds(), 3),
                "target": self.target,
                "plan": options.plan,
                "workload": options.workload,
                "execute": options.execute,
                "stages": self.stages,
                "notices": self.notices,
                "headline": self.headline,
                "redacted": options.redact,
            },
        )
        if options.report:
            self.tell("writing the page over all stages", None)
            render.overview(run)


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
