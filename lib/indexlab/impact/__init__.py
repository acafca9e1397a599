"""The impact of a plan: what each of its indexes would do to each query of the workload."""

from indexlab.impact.matrix import (
    NOTICEABLE,
    Candidate,
    Existing,
    Impact,
    QueryImpact,
    Situation,
    Variant,
    saved,
)
from indexlab.impact.reach import Families, opaque, with_parts
from indexlab.impact.reading import read
from indexlab.impact.trial import Trial, attempt

__all__ = [
    "NOTICEABLE",
    "Candidate",
    "Existing",
    "Families",
    "Impact",
    "QueryImpact",
    "Situation",
    "Trial",
    "Variant",
    "attempt",
    "opaque",
    "read",
    "saved",
    "with_parts",
]
