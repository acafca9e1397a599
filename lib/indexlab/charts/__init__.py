"""Charts; the only package that draws. Each title is the finding, each `alt` has the numbers."""

from indexlab.charts.batches import build_times, gains, matrix
from indexlab.charts.comparisons import before_after, drift, ecdf, forest, price
from indexlab.charts.figure import Chart
from indexlab.charts.indexes import builds, bytes_against_worth, index_sizes, worth
from indexlab.charts.latencies import latencies, scale, writers, writing

__all__ = [
    "Chart",
    "before_after",
    "build_times",
    "builds",
    "bytes_against_worth",
    "drift",
    "ecdf",
    "forest",
    "gains",
    "index_sizes",
    "latencies",
    "matrix",
    "price",
    "scale",
    "worth",
    "writers",
    "writing",
]
