"""The benchmark stage: `measure` and `interleave` time a workload, `compare` says what changed."""

from indexlab.benchmark.changes import Change, Comparison, Headline
from indexlab.benchmark.comparison import compare
from indexlab.benchmark.controls import Drift
from indexlab.benchmark.gains import Gain, gain
from indexlab.benchmark.load import Load
from indexlab.benchmark.price import Price, WritePrice, price
from indexlab.benchmark.scale import Growth, Scaling, scaling
from indexlab.benchmark.series import (
    Conditions,
    Failure,
    Measurement,
    Sample,
    Series,
    Table,
)
from indexlab.benchmark.settings import Settings
from indexlab.benchmark.timing import interleave, measure
from indexlab.benchmark.writers import Writers, Written

__all__ = [
    "Change",
    "Comparison",
    "Conditions",
    "Drift",
    "Failure",
    "Gain",
    "Growth",
    "Headline",
    "Load",
    "Measurement",
    "Price",
    "Sample",
    "Scaling",
    "Series",
    "Settings",
    "Table",
    "WritePrice",
    "Writers",
    "Written",
    "compare",
    "gain",
    "interleave",
    "measure",
    "price",
    "scaling",
]
