"""What a worker does for one target, in a process that does nothing else and then ends."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from indexlab import formats, pipeline
from indexlab import target as targets
from indexlab.batch import stores
from indexlab.batch.tasks import CHANGING, RESULT, VARIABLE, Result, Source, Task
from indexlab.demo import database
from indexlab.display import clean
from indexlab.errors import IncompleteError, IndexlabError, InputError, Unreachable
from indexlab.pipeline import Options, Pipeline
from indexlab.progress import Tell
from indexlab.render import StageFailed
from indexlab.runs import Json, Run, documents

FOUND, BAD, UNREACHABLE, INCOMPLETE, INTERRUPTED = 1, 2, 3, 4, 130
PAGES = ("index.html", "audit.html", "apply.html", "benchmark.html")
LOST = ("OperationalError", "AdminShutdown", "CannotConnectNow", "CrashShutdown", "InterfaceError")
PART = re.compile(r'"(?:[^"]|"")*"|[^".]+')
SECRET = 4
"""A shorter one would also hit innocent words."""


def perform(task: Task, tell: Tell) -> Result:
    """Do a task, keep its run and say what came of it; a failure is a result, too.

    Args:
        task: what to do; its references are resolved here, with this machine's credentials.
        tell: is told what goes on.

    Raises:
        TypeError, ValueError and the like: the kit itself is at fault.
    """
    began, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    secrets: tuple[str, ...] = ()
    exit_, reason, again = 0, "", False
    store = stores.opened(task.out)
    place = store.place(task.run)
    try:
        spec = _spec(task.target)
        if not database.is_demo(spec):
            secrets = targets.resolve(spec).secrets()
        exit_, reason = _done(task, spec, place, tell)
    except KeyboardInterrupt:
        exit_, reason = _interrupted(task), "interrupted"
    except StageFailed as error:
        exit_, reason = error.exit_code, str(error)
        again = error.kind in LOST and not _changes(task)
    except Unreachable as error:
        exit_, reason, again = error.exit_code, str(error), error.may_pass
    except IndexlabError as error:
        exit_, reason = error.exit_code, str(error)
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        exit_, reason = UNREACHABLE, f"the connection was lost: {error}"
        again = not _changes(task)
    run = Run(place)
    result = replace(
        summary(run, task),
        status={0: "ok", FOUND: "findings"}.get(exit_, "failed"),
        exit=exit_,
        reason=clean(without(reason, secrets)),
        again=again,
        started=started,
        seconds=round(time.monotonic() - began, 3),
        mark=task.mark,
    )
    return _kept(store, run, task, result)


def without(text: str, secrets: tuple[str, ...]) -> str:
    """Take secrets out of a text; pure."""
    for secret in secrets:
        if len(secret) >= SECRET:
            text = text.replace(secret, "***")
    return text


def _changes(task: Task) -> bool:
    return task.execute and task.stage in CHANGING


def _interrupted(task: Task) -> int:
    return INCOMPLETE if _changes(task) else INTERRUPTED


def _spec(reference: str) -> str:
    """Find out what a target means on this machine.

    Raises:
        InputError: its variable is not set here.
    """
    if not reference.startswith(VARIABLE):
        return reference
    name = reference.removeprefix(VARIABLE)
    value = os.environ.get(name, "")
    if not value:
        raise InputError(f"the environment variable {name!r} is not set where the target is done")
    return value


def _done(task: Task, spec: str, place: Path, tell: Tell) -> tuple[int, str]:
    """Run the stage; return its exit code and what there is to say."""
    with targets.reused() if task.stage == "audit" else nullcontext():
        if not database.is_demo(spec):
            with targets.connect(targets.resolve(spec), read_only=True, purpose="batch"):
                pass  # who cannot be reached is told before a run is made
        return _staged(task, spec, place, tell)


def _staged(task: Task, spec: str, place: Path, tell: Tell) -> tuple[int, str]:
    with tempfile.TemporaryDirectory(prefix="indexlab-inputs-") as private:
        options = Options(
            target=spec,
            plan=_file(task.plan, Path(private)),
            workload=_file(task.workload, Path(private)),
            out=place,
            report=task.report,
            execute=task.execute,
            settings=task.settings,
            **task.options,
        )
        stages = Pipeline(options, tell)
        match task.stage:
            case "audit":
                found = formats.fails(stages.audit(), "error")
                return (FOUND, "the audit found errors") if found else (0, "")
            case "apply":
                stages.apply()
                return 0, ""
            case "benchmark":
                stages.benchmark()
            case _:
                stages.story()
    return _judged(Run(place), task)


def _judged(run: Run, task: Task) -> tuple[int, str]:
    reasons = [f"{query} became slower" for query in _regressions(run, task)]
    if task.stage == "run":
        audit = run.read_json("audit")["statements"]
        unresolved = [item["index"] for item in audit if pipeline.is_open(item)]
        if unresolved:
            reasons.append(f"cannot be applied as they are: {', '.join(unresolved)}")
    return (FOUND, "; ".join(reasons)) if reasons else (0, "")


def _file(source: Source, private: Path) -> str:
    return stores.inputs(source.text, source.path, private).as_posix() if source.path else ""


def _kept(store: stores.Store, run: Run, task: Task, result: Result) -> Result:
    """Keep what came of a run beside its other files."""
    if not run.path.is_dir() or result.again:
        # Nothing was begun, or it will be begun anew in a run of its own.
        return replace(result, run=None, page=None) if not run.path.is_dir() else result
    try:
        run.write_json(RESULT, result.document())
        store.keep(task.run)
    except IncompleteError as error:
        reason = "; ".join(filter(None, (result.reason, str(error))))
        return replace(
            result, status="failed", exit=max(result.exit or 0, INCOMPLETE), reason=reason
        )
    return result


# What a run says


def summary(run: Run, task: Task) -> Result:
    """Read from a run's JSON what a line of the matrix says; reads only."""
    result = Result(task.name, "not_run")
    if not run.path.is_dir():
        return result
    pages = [page for page in PAGES if (run.path / page).exists()]
    result = replace(result, run=task.run, page=f"{task.run}/{pages[0]}" if pages else None)
    audit = run.read_json("audit") if run.has("audit") else None
    applied = run.read_json("apply") if run.has("apply") else None
    measured = run.read_json("benchmark") if run.has("benchmark") else None
    if audit is not None:
        result = replace(
            result,
            statements={label: item["verdict"] for label, item in _labelled(audit)},
            reasons=dict(_verdict_reasons(audit)),
            forecast=_forecast(audit),
        )
    if applied is not None and (applied["executed"] or audit is None):
        result = _with_steps(result, applied, audit)
    if measured is not None:
        result = replace(
            result, headline=measured["headline"], regressions=tuple(_regressions(run, task))
        )
    known = next((one for one in (audit, applied, measured) if one is not None), None)
    return result if known is None else replace(result, server=known["target"]["version_text"])


def _labelled(audit: Json) -> Iterator[tuple[str, Any]]:
    """Name each statement by its index, and by its schema, too, where two have one name."""
    names = [item["index"] for item in audit["statements"]]
    for item in audit["statements"]:
        single = names.count(item["index"]) == 1
        yield clean(item["index"] if single else item["qualified"]), item


def _verdict_reasons(audit: Json) -> Iterator[tuple[str, str]]:
    for label, item in _labelled(audit):
        said = [
            finding["message"]
            for severity in ("error", "warning")
            for finding in item["findings"]
            if finding["severity"] == severity and not finding["suppressed"]
        ]
        if said:
            yield label, clean("; ".join(said))


def _forecast(audit: Json) -> Json | None:
    known = [one for one in audit["impact"] if one["cost_before"] is not None]
    before = sum(one["weight"] * one["cost_before"] for one in known)
    after = sum(one["weight"] * one["cost_after"] for one in known)
    if not before:
        return None
    return {"before": before, "after": after, "ratio": after / before, "queries": len(known)}


def _with_steps(result: Result, applied: Json, audit: Json | None) -> Result:
    """Let what apply did speak over what the audit said."""
    labels = _labels(audit, applied)
    steps = [
        (labels.get(index, clean(index)), step)
        for index, step in documents.by_index(applied).items()
    ]
    reasons = {
        label: clean("; ".join(filter(None, (step["error"], step["note"]))))
        for label, step in steps
        if step["error"] or step["note"]
    }
    built = {
        label: {"seconds": step["seconds"], "bytes": step["bytes"]}
        for label, step in steps
        if step["outcome"] == "built" and step["bytes"]
    }
    return replace(
        result,
        statements=result.statements | {label: step["outcome"] for label, step in steps},
        reasons=result.reasons | reasons,
        builds=built,
    )


def _labels(audit: Json | None, applied: Json) -> dict[str, str]:
    """Return the names that a plan gives by the qualified ones of the steps."""
    if audit is not None:
        return {item["qualified"]: label for label, item in _labelled(audit)}
    names = {index: _own_name(index) for index in documents.by_index(applied)}
    single = Counter(names.values())
    return {full: clean(name) for full, name in names.items() if single[name] == 1}


def _own_name(qualified: str) -> str:
    """Return an index's name without its schema and quotes; pure."""
    name = PART.findall(qualified)[-1] if PART.search(qualified) else qualified
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _regressions(run: Run, task: Task) -> Iterator[str]:
    """Name the queries that are slower than the task allows beyond doubt, or fail now."""
    allowed = task.options.get("max_slowdown")
    comparison = documents.comparison(run) if allowed is not None else None
    if comparison is not None and allowed is not None:
        yield from (change.query for change in comparison.regressions(allowed))
        yield from (failure.query for failure in comparison.broken())
