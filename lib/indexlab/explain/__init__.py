"""EXPLAIN output: asking the server for it, reading it, comparing two, and showing it as a tree."""

from indexlab.explain.differences import difference
from indexlab.explain.nodes import Buffers, Explain, Node
from indexlab.explain.reading import parse, run, run_generic
from indexlab.explain.trees import tree

__all__ = ["Buffers", "Explain", "Node", "difference", "parse", "run", "run_generic", "tree"]
