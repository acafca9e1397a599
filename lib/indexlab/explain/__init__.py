"""EXPLAIN output: asking the server for it, reading it, comparing two, and showing it as a tree."""

from indexlab.explain.differences import difference
from indexlab.explain.nodes import Buffers, Explain, Node
from indexlab.explain.reading import parse, run, run_generic
from indexlab.explain.trees import folded, tree

__all__ = [
    "Buffers",
    "Explain",
    "Node",
    "difference",
    "folded",
    "parse",
    "run",
    "run_generic",
    "tree",
]
