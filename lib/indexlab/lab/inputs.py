"""What a user hands in: target, plan, workload, and what its names mean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from indexlab import demo
from indexlab import plan as plans
from indexlab import target as targets
from indexlab import workload as workloads
from indexlab.demo import database
from indexlab.errors import InputError
from indexlab.plan import IndexPlan
from indexlab.records import Record
from indexlab.target import Target
from indexlab.workload import Workload

Resolutions = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Inputs(Record):
    """What a user handed in, read and found to be in order."""

    plan: IndexPlan
    workload: Workload
    target: Target | None
    """None for the demo."""
    resolve: Resolutions = ()


def read_inputs(
    target: str, plan: str, workload: str, resolve: str = "", *, needs_plan: bool = True
) -> Inputs:
    """Read what the user handed in; connects to nothing.

    Args:
        target: as for --target.
        plan: path of the plan; empty for the demo's.
        workload: path of the workload; empty for the demo's on the demo, none elsewhere.
        resolve: what names of the plan mean: `old=new`, separated by commas.
        needs_plan: whether a target other than the demo must come with a plan.

    Raises:
        InputError: an input is not as it must be; names file and line.
    """
    given = (("target", target), ("plan", plan), ("workload", workload), ("resolve", resolve))
    for name, value in given:
        check_type(name, value, str)
    is_demo = database.is_demo(target)
    if is_demo:
        database.rows_of(target)
    elif needs_plan and not plan:
        raise InputError("a target of your own needs a plan: give --plan FILE")
    return Inputs(
        plan=plans.read(Path(plan) if plan else demo.PLAN)
        if plan or is_demo
        else IndexPlan((), "none"),
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


def check_type(name: str, value: object, kind: type) -> None:
    """Papermill hands over whatever was typed: `-p execute no` is a text, and true."""
    fits = (int, float) if kind is float else kind
    if not isinstance(value, fits) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"parameter {name!r} must be {kind.__name__}, not {value!r}")
