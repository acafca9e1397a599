"""Audit, apply and benchmark PostgreSQL index plans in Jupyter notebooks.

`open_lab` is the door for notebooks; the stages are its verbs. `open_batch` shows what became of many
targets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from indexlab.lab import Batch, Lab, open_batch, open_lab

__version__ = "0.1.0"
__all__ = ["Batch", "Lab", "__version__", "open_batch", "open_lab"]


def __getattr__(name: str) -> Any:
    # On demand, so that the command can answer --help without pandas or a parser.
    if name in ("Batch", "Lab", "open_batch", "open_lab"):
        from indexlab import lab

        return getattr(lab, name)
    raise AttributeError(f"module 'indexlab' has no attribute {name!r}")
