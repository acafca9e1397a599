"""The verbs of the benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from indexlab import benchmark as benchmarking
from indexlab import charts, display, units
from indexlab import target as targets
from indexlab import workload as workloads
from indexlab.audit import Audit
from indexlab.benchmark import Comparison, Load, Measurement, Price, Settings, sessions
from indexlab.benchmark import load as loading
from indexlab.catalog import Catalog
from indexlab.charts import Chart
from indexlab.display import Note
from indexlab.errors import InputError
from indexlab.impact import Families, with_parts
from indexlab.lab.ground import Ground
from indexlab.lab.inputs import check_type
from indexlab.records import Record
from indexlab.runs import Run, documents, private
from indexlab.workload import SampledQuery

if TYPE_CHECKING:
    import pandas as pd

BUDGET = 10.0
"""Seconds of measuring, over all queries of one side."""
PRECISION = 0.05
"""How wide the interval of a ratio may be before a query needs no further round."""
SAMPLER_SECONDS = 5.0
"""What a sampler may take, where a statement of the workload may take less."""
MODES = ("auto", "one side", "interleaved")


@dataclass(frozen=True, slots=True)
class Loads(Record):
    """What many clients saw, and what they saw before."""

    after: Load
    before: Load | None

    def frame(self) -> pd.DataFrame:
        """Return both sides as a pandas DataFrame, one row each.

        Columns: `side`, before or after; `clients`; `rate`, scheduled per second, 0 for as fast as
        they can; `seconds`; `done` and `late`, transactions done, and skipped or failed;
        `throughput` per second; `p50_ms`, `p95_ms`, `p99_ms` and `max_ms`, in milliseconds.
        """
        import pandas as pd

        facts = [
            *("clients", "rate", "seconds", "done", "late", "throughput"),
            *("p50_ms", "p95_ms", "p99_ms", "max_ms"),
        ]
        rows = [(name, *(getattr(side, fact) for fact in facts)) for name, side in self._sides()]
        return pd.DataFrame(rows, columns=["side", *facts])

    def _sides(self) -> Iterator[tuple[str, Load]]:
        if self.before is not None:
            yield "before", self.before
        yield "after", self.after

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {side}" for name, side in self._sides())

    def _repr_html_(self) -> str:
        rows = [
            (
                label,
                f"{side.throughput:,.1f}/s",
                *(units.ms(ms) for ms in (side.p50_ms, side.p95_ms, side.p99_ms, side.max_ms)),
                side.late,
            )
            for label, side in self._sides()
        ]
        columns = ("", "throughput", "p50", "p95", "p99", "longest", "skipped or failed")
        note = "Latency counts from the scheduled start." if self.after.rate else ""
        caption = f"{units.plural(self.after.clients, 'client')} at once"
        table = display.table(columns, rows, caption=caption, numeric=columns[1:])
        return f"{table}<p>{note}</p>"


class Measuring(Ground):
    """Time the workload, and show what changed and what it cost."""

    def benchmark(
        self,
        *,
        label: str = "",
        baseline: str = "",
        mode: str = "auto",
        budget: float = BUDGET,
        precision: float = PRECISION,
        settings: str = "",
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
            budget: seconds of measuring, over all queries of a side.
            precision: how wide the interval of a ratio may be before a query needs no further
                round: 0.05 is 5%; 0 uses the budget up.
            settings: as `benchmark.Settings.parse` reads them, such as `cache=cold seed=7`.

        Raises:
            InputError: a query or a sampler fails; the baseline is not of this workload; the sides
                cannot be interleaved.
        """
        for name, value, kind in (
            ("label", label, str),
            ("baseline", baseline, str),
            ("mode", mode, str),
            ("budget", budget, float),
            ("precision", precision, float),
            ("settings", settings, str),
        ):
            check_type(name, value, kind)
        chosen = Settings.parse(settings)
        cold = chosen.cache == "cold"
        if cold and not self.disposable:
            raise InputError(
                "a cold cache is cold for everybody on that server: do it on a clone, and say "
                "--disposable"
            )
        if chosen.clients:
            loading.check(chosen.clients, chosen.rate, chosen.seconds)
            loading.check_workload(self._workload.queries, disposable=self.disposable)
        hidden = self._to_hide(mode, baseline)
        self._other = self._baseline(baseline) if baseline else None
        if baseline:
            sampled = documents.values_of(Run(Path(baseline)), self._workload)
        else:
            sampled = self._sampled(chosen)
        self._veil.learn_samples(sampled)
        if hidden:
            self._other, measurement = benchmarking.interleave(
                self.target,
                sampled,
                hidden,
                labels=("before", label or "after"),
                cold=cold,
                budget=2 * budget,
                precision=precision,
                seed=chosen.seed,
                statement_timeout=chosen.statement_timeout,
                source=self._workload.source,
                progress=self._progress.tell,
            )
        else:
            measurement = benchmarking.measure(
                self.target,
                sampled,
                label=label,
                cold=cold,
                budget=budget,
                precision=precision,
                seed=chosen.seed,
                disposable=self.disposable,
                statement_timeout=chosen.statement_timeout,
                source=self._workload.source,
                tolerated=frozenset(series.query for series in self._other.series)
                if self._other is not None
                else frozenset(),
                progress=self._progress.tell,
            )
        self._other = self._veil.result(self._other)
        measurement = self._veil.result(measurement)
        self._keep(measurement, sampled)
        return measurement

    def _sampled(self, chosen: Settings) -> tuple[SampledQuery, ...]:
        """Draw the values of all parameters, each sampler within a limit of time; reads only."""
        self._progress.tell("sampling parameter values")
        with targets.connect(self.target, read_only=True, purpose="benchmark") as conn:
            sessions.limit(conn, max(chosen.statement_timeout, SAMPLER_SECONDS))
            return workloads.sample(conn, self._workload, seed=chosen.seed)

    def load(self, settings: str = "", *, baseline: str = "") -> Loads | Note:
        """Send the workload from many clients at once; keeps `load.json` in the run.

        The same load of earlier is shown beside it: that of the side before in this run, or of
        the baseline.

        Args:
            settings: as `benchmark.Settings.parse` reads them, such as `clients=8 seconds=30`.
            baseline: run directory of an earlier benchmark.

        Raises:
            InputError: a number is out of range.
            TargetError: a statement fails.
        """
        check_type("settings", settings, str)
        check_type("baseline", baseline, str)
        chosen = Settings.parse(settings)
        if chosen.clients == 0:
            return Note.words("No load was asked for (clients).")
        words = f"{units.plural(chosen.clients, 'client')} for {units.duration(chosen.seconds)}"
        self._progress.tell(words)
        sampled = self._sampled(chosen)
        self._veil.learn_samples(sampled)
        found = loading.run(
            self.target,
            sampled,
            clients=chosen.clients,
            rate=chosen.rate,
            seconds=chosen.seconds,
            seed=chosen.seed,
            statement_timeout=chosen.statement_timeout,
            disposable=self.disposable,
            progress=self._progress.tell,
        )
        earlier = self._earlier_load(baseline)
        self._write("load", documents.of_load(found, earlier))
        return Loads(found, earlier)

    def _earlier_load(self, baseline: str) -> Load | None:
        """Return the load that was put on before, if there was one."""
        before = [] if self.run is None else [self.run.path / "before"]
        for path in (*before, *([Path(baseline)] if baseline else [])):
            if Run(path).has("load"):
                return documents.load(Run(path))
        return None

    def _keep(self, measurement: Measurement, sampled: tuple[SampledQuery, ...]) -> None:
        if self.run is None:
            return
        other = self._other
        comparison = None if other is None else self._compared(other, measurement)
        if other is not None and measurement.is_paired_with(other):
            before = Run.create(self.run.path / "before", "benchmark")
            self._keep_side(before, other, None, sampled)
        self._keep_side(self.run, measurement, comparison, sampled)

    def _keep_side(
        self,
        run: Run,
        side: Measurement,
        comparison: Comparison | None,
        sampled: tuple[SampledQuery, ...],
    ) -> None:
        """Write one side; the values of a redacted one are kept apart."""
        if self._veil.worn:
            private.keep(run, {one.query.name: one.values for one in sampled})
        shown = self._veil.result(sampled)
        document = documents.of_benchmark(side, comparison, shown, self.target, self.server)
        self._write("benchmark", document, run)

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

    def compare(self, after: Measurement, baseline: str) -> Comparison | Note:
        """Say what changed since the other side or an earlier run, query by query."""
        before = self._before(baseline)
        if before is None:
            return Note.words("There is no baseline to compare with.")
        return self._compared(before, after)

    def _before(self, baseline: str) -> Measurement | None:
        """Return the other side: of this session, or of an earlier run."""
        if self._other is None and baseline:
            return self._baseline(baseline)
        return self._other

    def _baseline(self, path: str) -> Measurement:
        return documents.measurement(Run(Path(path)))

    def _compared(self, before: Measurement, after: Measurement) -> Comparison:
        names, tables = _subject(*self._ruled())
        seed = after.conditions.seed
        return benchmarking.compare(before, after, indexes=names, tables=tables, seed=seed)

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
        applied = self.run.read_json("apply") if self.run and self.run.has("apply") else None
        built = [] if applied is None else documents.built(applied)
        return benchmarking.price(
            comparison,
            before,
            after,
            bytes=sum(step["bytes"] for step in built),
            build_seconds=sum(step["seconds"] for step in built),
        )

    def gains(self, price: Price | Note, comparison: Comparison | Note) -> Chart | Note:
        """Draw what reads save beside what writes pay."""
        if isinstance(price, Note) or isinstance(comparison, Note):
            return Note.words("There is nothing to draw.")
        return charts.price(price, comparison)


def _subject(catalog: Catalog, audit: Audit) -> tuple[set[str], set[str]]:
    """Return the names of the planned indexes and of the tables that they can bear on; pure.

    By the audit's names for all of them: once built, they are no longer to be built. A plan shows
    partitions and their indexes, so these are named, too.
    """
    names = {item.label for item in audit.statements}
    there = (catalog.index(item.table.schema or "", item.label) for item in audit.statements)
    names |= {index.name for index in with_parts(catalog, filter(None, there))}
    found = (catalog.find(item.table) for item in audit.statements)
    family = Families(catalog).widened(table.oid for table in found if table is not None)
    tables = (catalog.relation(oid) for oid in family)
    return names, {f"{table.schema}.{table.name}" for table in tables}
