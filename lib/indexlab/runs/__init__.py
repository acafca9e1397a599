"""Runs: one directory under `reports/` per execution, with versioned JSON in it."""

from indexlab.runs.directory import FORMAT, REPORTS, Json, Run, named, new_directory
from indexlab.runs.holding import held, is_held

__all__ = ["FORMAT", "REPORTS", "Json", "Run", "held", "is_held", "named", "new_directory"]
