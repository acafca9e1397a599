"""The benchmark stage: `measure` and `interleave` time a workload, `compare` says what changed."""

from indexlab.benchmark.comparison import Change, Comparison, Headline, compare
from indexlab.benchmark.controls import Drift
from indexlab.benchmark.series import (
    Conditions,
    Failure,
    Measurement,
    Sample,
    Series,
    Table,
)
from indexlab.benchmark.timing import interleave, measure

__all__ = [
    "Change",
    "Comparison",
    "Conditions",
    "Drift",
    "Failure",
    "Headline",
    "Measurement",
    "Sample",
    "Series",
    "Table",
    "compare",
    "interleave",
    "measure",
]
