"""Rendering: stage notebooks through papermill, and the pages that people send to each other."""

from indexlab.render.notebooks import StageFailed, check_parameters, execute, notebook
from indexlab.render.pages import overview
from indexlab.render.scaling import scale_page
from indexlab.render.shelf import index, is_own, require_own

__all__ = [
    "StageFailed",
    "check_parameters",
    "execute",
    "index",
    "is_own",
    "notebook",
    "overview",
    "require_own",
    "scale_page",
]
