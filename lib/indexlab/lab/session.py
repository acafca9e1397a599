"""The lab: target, plan and workload in one hand, and the stages as verbs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import FunctionType
from typing import Any

import psycopg

from indexlab.charts import Chart
from indexlab.errors import TargetError
from indexlab.lab.applying import Applying
from indexlab.lab.exploring import Exploring
from indexlab.lab.measuring import Measuring

HOUSEKEEPING = ("close",)
CHARTS = "charts"
"""Directory of a run for its charts."""


class Lab(Exploring, Applying, Measuring):
    """What a session works on; `open_lab` makes one."""


@contextmanager
def _answered() -> Iterator[None]:
    """Say of a server that ends a session or a statement what it says.

    Raises:
        TargetError: it does.
    """
    try:
        yield
    except (psycopg.OperationalError, psycopg.InternalError) as error:
        said = error.diag.message_primary or str(error).partition("\n")[0]
        raise TargetError(f"the server has not answered to the end: {said}") from error


def _handing_out(name: str, verb: Callable[..., Any]) -> Callable[..., Any]:
    """Let a verb hand out only what may be seen, keep its charts, and end what it tells."""

    @wraps(verb)
    def handed_out(lab: Lab, *given: Any, **options: Any) -> Any:
        if lab._busy:  # a verb that another one asks: what it says stays within the lab
            return verb(lab, *given, **options)
        lab._busy = True
        try:
            with lab._veil.errors(), _answered():
                raw = verb(lab, *given, **options)
        finally:
            lab._busy = False
            lab._progress.done()
        lab._veil.learn_samples(lab._planner.drawn)
        result = lab._veil.result(raw)
        if isinstance(result, Chart) and lab.run is not None:
            lab.run.write_bytes(f"{CHARTS}/{name}.png", result.png())
            lab.run.write_bytes(f"{CHARTS}/{name}.svg", result.svg())
        return result

    return handed_out


for _name in dir(Lab):
    _verb = getattr(Lab, _name)
    if isinstance(_verb, FunctionType) and not _name.startswith("_") and _name not in HOUSEKEEPING:
        setattr(Lab, _name, _handing_out(_name, _verb))
