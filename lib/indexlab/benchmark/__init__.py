"""The benchmark stage: `measure` times a workload, `compare` says what changed between two."""

from indexlab.benchmark.comparison import Change, Comparison, Headline, compare
from indexlab.benchmark.series import Measurement, Sample, Series
from indexlab.benchmark.timing import measure

__all__ = [
    "Change",
    "Comparison",
    "Headline",
    "Measurement",
    "Sample",
    "Series",
    "compare",
    "measure",
]
