"""The lab: target, plan and workload in one hand, and the stages as verbs."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import FunctionType
from typing import Any

from indexlab.charts import Chart
from indexlab.lab.applying import Applying
from indexlab.lab.auditing import Auditing
from indexlab.lab.measuring import Measuring

HOUSEKEEPING = ("close",)
CHARTS = "charts"
"""Directory of a run for its charts."""


class Lab(Auditing, Applying, Measuring):
    """What a session works on; `open_lab` makes one."""


def _handing_out(name: str, verb: Callable[..., Any]) -> Callable[..., Any]:
    """Let a verb hand out only what may be seen, and keep the charts that it draws."""

    @wraps(verb)
    def handed_out(lab: Lab, *given: Any, **options: Any) -> Any:
        with lab._veil.errors():
            result = lab._veil.result(verb(lab, *given, **options))
        if isinstance(result, Chart) and lab.run is not None:
            lab.run.write_bytes(f"{CHARTS}/{name}.png", result.png())
            lab.run.write_bytes(f"{CHARTS}/{name}.svg", result.svg())
        return result

    return handed_out


for _name in dir(Lab):
    _verb = getattr(Lab, _name)
    if isinstance(_verb, FunctionType) and not _name.startswith("_") and _name not in HOUSEKEEPING:
        setattr(Lab, _name, _handing_out(_name, _verb))
