"""The versioned JSON of each stage: writing results as documents, and reading measurements back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, replace

from indexlab import benchmark, explain, units
from indexlab.apply import NO_INDEX, Applied, Outcome
from indexlab.audit import Audit, Finding, place, statement_sql
from indexlab.benchmark import (
    Comparison,
    Headline,
    Load,
    Measurement,
    Scaling,
    Series,
    Writers,
    intervals,
)
from indexlab.errors import InputError
from indexlab.impact import Impact, QueryImpact
from indexlab.runs import private
from indexlab.runs.directory import Json, Run
from indexlab.target import Server, Target
from indexlab.workload import SampledQuery, Values, Workload


def of_target(target: Target, server: Server) -> Json:
    """Describe the target without anything secret."""
    return {"spec": target.spec, **asdict(server)}


def of_audit(audit: Audit, target: Target, impact: Impact | None = None) -> Json:
    """Write an audit's result, and what its plan does to the workload where that was asked."""
    return {
        "target": of_target(target, audit.server),
        "statements": [
            {
                "index": item.label,
                "qualified": str(replace(item.table, name=item.label)),
                "line": item.statement.line,
                "column": item.statement.column,
                "reason": item.statement.reason,
                "statement": item.statement.text,
                "verdict": item.verdict,
                "revised": None if item.revised is None else statement_sql(item.revised),
                "sequence": item.sequence,
                "findings": [
                    {**_finding(finding), "at": asdict(place(item, finding))}
                    for finding in item.findings
                ],
            }
            for item in audit.statements
        ],
        "existing": [
            {
                "index": item.label,
                "bytes": item.index.bytes,
                "scans": item.index.scans,
                "drop": item.drop,
                "restore": item.restore,
                "findings": [_finding(finding) for finding in item.findings],
            }
            for item in audit.existing
        ],
        "replaced": audit.replaced,
        "advice": [_finding(finding) for finding in audit.advice],
        "preconditions": [_finding(finding) for finding in audit.preconditions],
        "impact": [] if impact is None else [_impact(impact, item) for item in impact.queries],
        "what_if": None if impact is None else _what_if(impact),
    }


def _impact(impact: Impact, item: QueryImpact) -> Json:
    """Write what a plan does to one query; costs are the planner's, null where not simulated."""
    known = not item.problem
    planned = [c.name for c in impact.candidates if not c.problem and c.table in item.tables]
    return {
        "query": item.query,
        "weight": item.weight,
        "cost_before": item.cost_before if known else None,
        "cost_after": item.cost_after if known else None,
        "indexes_used": list(item.uses_after),
        "indexes_used_before": list(item.uses_before),
        "alone": {name: item.cost_alone(name) for name in planned if known},
        "without": {name: item.cost_without(name) for name in planned if known},
        "values": item.sets,
        "plans": [
            {
                "values": variant.sets,
                "cost_before": variant.cost_before,
                "cost_after": variant.cost_after,
                "indexes_used": list(variant.uses_after),
                "change": explain.difference(variant.before, variant.after),
            }
            for variant in item.variants
        ],
        "not_simulated": item.problem,
        "notes": [note for note in (item.note, item.unseen) if note],
    }


def _what_if(impact: Impact) -> Json:
    return {
        "backend": impact.backend,
        "notes": list(impact.notes),
        "indexes": [
            {
                "index": item.name,
                "bytes": item.bytes,
                "worth_alone": impact.worth_alone(item.name),
                "worth": impact.worth(item.name),
                "used_by": [query.query for query in impact.users(item.name)],
                "not_simulated": item.problem,
            }
            for item in impact.candidates
        ],
        "existing": [
            {
                "index": item.name,
                "bytes": item.bytes,
                "used_by": [query.query for query in impact.users(item.name)],
                "would_suffer": {loss.query: loss.after for loss in impact.losses(item.name)},
            }
            for item in impact.existing
        ],
    }


def _finding(finding: Finding) -> Json:
    return {
        "rule": finding.rule,
        "severity": finding.severity,
        "message": finding.message,
        "evidence": dict(finding.evidence),
        "fix": finding.fix,
        "suppressed": finding.suppressed,
    }


def target_of(run: Run) -> str:
    """Return the --target that a run was applied to."""
    return str(run.read_json("apply")["target"]["spec"])


def outcomes(run: Run) -> tuple[Outcome, ...]:
    """Read back what became of each step.

    Raises:
        InputError: it is not as this version writes it.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(tuple[Outcome, ...]).validate_python(run.read_json("apply")["steps"])
    except (KeyError, ValidationError) as error:
        raise InputError(str(error), source=run.path / "apply.json") from None


def built(document: Json) -> list[Json]:
    """Return the steps of an `apply.json` that built a planned index, with all its parts; pure."""
    return [step for step in _of_indexes(document) if step["outcome"] == "built"]


def by_index(document: Json) -> dict[str, Json]:
    """Return what became of each planned index, by its name with its schema; pure.

    Of a partitioned one that is the whole; a comment is no index.
    """
    return {step["index"]: step for step in _of_indexes(document)}


def _of_indexes(document: Json) -> Iterator[Json]:
    for step in document["steps"]:
        if not step.get("part_of") and step.get("action") not in NO_INDEX:
            yield step


def outcome(fields: Json) -> Outcome:
    """Read back what became of one step.

    Raises:
        InputError: it is not as this version writes it.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Outcome).validate_python(fields)
    except ValidationError as error:
        raise InputError(f"an outcome is not as it must be: {error}") from None


def of_apply(applied: Applied, target: Target, server: Server) -> Json:
    """Write what became of each step."""
    return {
        "target": of_target(target, server),
        "executed": applied.executed,
        "complete": applied.complete,
        "interrupted": applied.interrupted,
        "estimate": applied.estimate,
        "warnings": applied.warnings,
        "steps": [asdict(outcome) for outcome in applied.outcomes],
    }


def of_writers(writers: Writers) -> Json:
    """Write what writers saw beside the builds: each latency in ms, by seconds since they began."""
    return {
        "rate": writers.rate,
        "seconds": writers.seconds,
        "late": writers.late,
        "longest_wait_ms": writers.longest_wait * 1000,
        "looks": writers.looks,
        "trouble": writers.trouble,
        "phases": [asdict(item) for item in writers.phases],
        "points": writers.points,
    }


def of_benchmark(
    measurement: Measurement,
    comparison: Comparison | None,
    sampled: tuple[SampledQuery, ...],
    target: Target,
    server: Server,
) -> Json:
    """Write a measurement with every sample, and what changed since its baseline."""
    values = {item.query.name: item.values for item in sampled}
    whole = asdict(replace(measurement, series=(), controls=()))
    del whole["series"], whole["server"], whole["controls"]
    document: Json = {
        **whole,
        "target": of_target(target, server),
        "queries": [_series(series, values[series.query]) for series in measurement.series],
        "control_series": [_series(series, ((),)) for series in measurement.controls],
        "changes": [],
        "headline": None,
        "warnings": measurement.warnings(),
    }
    if comparison is not None:
        document |= of_comparison(comparison)
    return document


def of_comparison(comparison: Comparison) -> Json:
    """Write what changed between two measurements."""
    return {
        "baseline": comparison.before,
        "changes": [asdict(change) for change in comparison.changes],
        "headline": _headline(comparison, comparison.headline),
        "all_reads": _headline(comparison, comparison.reads),
        "controls": comparison.controls,
        "warnings": comparison.warnings,
        "confidence": comparison.confidence,
        "minimum_effect": comparison.minimum_effect,
        "drift": asdict(comparison.drift),
        "mode": comparison.mode,
        "failed_on_one_side": [asdict(failure) for failure in comparison.failed],
        "false_discoveries": comparison.false_discoveries,
    }


def of_scaling(scaling: Scaling) -> Json:
    """Write how latency grows with the size of the tables."""
    return asdict(scaling)


def scaling(run: Run) -> Scaling:
    """Read back how latency grows with the size of the tables.

    Raises:
        InputError: the run was not measured at several sizes, or it is not as this version writes
            it.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Scaling).validate_python(run.read_json("scale"))
    except ValidationError as error:
        raise InputError(str(error), source=run.path / "scale.json") from None


def of_load(load: Load, before: Load | None) -> Json:
    """Write what many clients saw, and what they saw before."""
    return {**asdict(load), "before": None if before is None else asdict(before)}


def load(run: Run) -> Load | None:
    """Read back what many clients saw, where the run put load on.

    Raises:
        InputError: it is not as this version writes it.
    """
    from pydantic import TypeAdapter, ValidationError

    if not run.has("load"):
        return None
    try:
        return TypeAdapter(Load).validate_python(run.read_json("load"))
    except ValidationError as error:
        raise InputError(str(error), source=run.path / "load.json") from None


def _headline(comparison: Comparison, headline: Headline) -> Json:
    """Write a headline with its interval; the upper limit is null where there is none."""
    gain = benchmark.gain(comparison, headline)
    return {
        "before_ms": headline.before_ms,
        "after_ms": headline.after_ms,
        "ratio": headline.ratio,
        "ratio_low": gain.low,
        "ratio_high": None if math.isinf(gain.high) else gain.high,
        "decided": gain.decided,
        "queries": list(headline.queries),
    }


def _series(series: Series, values: tuple[tuple[str | None, ...], ...]) -> Json:
    whole = asdict(series)
    plan = whole.pop("explain")
    return {
        **whole,
        "p50_ms": series.p50_ms,
        "p95_ms": series.p95_ms,
        "p99_ms": series.p99_ms,
        "intervals": {
            f"p{percent}_ms": intervals.percentile([s.ms for s in series.samples], percent)
            for percent in (50, 95, 99)
        },
        "values": values,
        "plan": plan,
        "buffers": plan["buffers"],
    }


def measurement(run: Run) -> Measurement:
    """Read a measurement back.

    Raises:
        InputError: the run has none, or it is not as this version writes it.
    """
    from pydantic import TypeAdapter, ValidationError

    document = run.read_json("benchmark")
    source = run.path / "benchmark.json"
    try:
        series = [{**query, "explain": query["plan"]} for query in document["queries"]]
        own = [{**one, "explain": one["plan"]} for one in document.get("control_series", ())]
        whole = {**document, "series": series, "controls": own, "server": document["target"]}
        return TypeAdapter(Measurement).validate_python(whole)
    except (KeyError, TypeError) as error:
        raise InputError(f"lacks {error} of a benchmark", source=source) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{where}: {first['msg']}", source=source) from None


def values_of(run: Run, workload: Workload) -> tuple[SampledQuery, ...]:
    """Read the parameter values of an earlier measurement, so that both sides run the same.

    Raises:
        InputError: the run is of another workload, or redacted on another machine.
    """
    from pydantic import TypeAdapter, ValidationError

    document = run.read_json("benchmark")
    source = run.path / "benchmark.json"
    drawn = private.kept(run) if document.get("redacted") else {}
    wanted = {query.name: len(query.parameters) for query in workload.queries}
    known: dict[str, tuple[Values, ...]] = {}
    try:
        for query in document["queries"]:
            name = query["query"]
            found = drawn.get(name, query["values"])
            known[name] = TypeAdapter(tuple[Values, ...]).validate_python(found)
    except (KeyError, TypeError) as error:
        raise InputError(f"lacks {error} of a benchmark", source=source) from None
    except ValidationError as error:
        raise InputError(f"{name!r}: {error.errors()[0]['msg']}", source=source) from None
    for name, sets in known.items():
        if any(len(values) != wanted.get(name, len(values)) for values in sets):
            raise InputError(
                f"the baseline is of another workload: its query {name!r} has other parameters",
                source=source,
            )
    missing = [query.name for query in workload.queries if query.name not in known]
    missing = [name for name in missing if name not in document["skipped"]]
    if missing:
        raise InputError(
            f"the baseline is of another workload: it has no query {missing[0]!r}",
            source=source,
        )
    return tuple(
        SampledQuery(query, known[query.name]) if query.name in known else SampledQuery(query, ())
        for query in workload.queries
    )


def comparison(run: Run) -> Comparison | None:
    """Read what changed back, where the run's benchmark had a baseline.

    Raises:
        InputError: it is not as this version writes it.
    """
    from pydantic import TypeAdapter, ValidationError

    if not run.has("benchmark"):
        return None
    document = run.read_json("benchmark")
    if document["headline"] is None:
        return None
    whole = {
        **document,
        "before": document["baseline"],
        "after": document["label"],
        "reads": document["all_reads"],
        "failed": document.get("failed_on_one_side", ()),
    }
    try:
        return TypeAdapter(Comparison).validate_python(whole)
    except ValidationError as error:
        raise InputError(str(error), source=run.path / "benchmark.json") from None


def incomplete(applied: Applied) -> str:
    """Say which steps did not come to their end."""
    failed = [item for item in applied.outcomes if item.outcome == "failed"]
    waiting = sum(item.outcome == "not_run" for item in applied.outcomes)
    reasons = "; ".join(f"{item.index}: {item.error}" for item in failed)
    left = f"; {units.plural(waiting, 'step')} not run" if waiting else ""
    return f"apply did not complete: {reasons or 'interrupted'}{left}"
