"""Runs: one directory under `reports/` per execution, with versioned JSON in it."""

from indexlab.runs.directory import FORMAT, Json, Run, default_path

__all__ = ["FORMAT", "Json", "Run", "default_path"]
