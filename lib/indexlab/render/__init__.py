"""Rendering: stage notebooks through papermill, and the pages that people send to each other."""

from indexlab.render.matrix import PAGE as BATCH_PAGE
from indexlab.render.matrix import batch_files, matrix_page
from indexlab.render.notebooks import StageFailed, check_parameters, execute, notebook
from indexlab.render.pages import overview
from indexlab.render.scaling import scale_page
from indexlab.render.shelf import index, is_own, require_own

__all__ = [
    "BATCH_PAGE",
    "StageFailed",
    "batch_files",
    "check_parameters",
    "execute",
    "index",
    "is_own",
    "matrix_page",
    "notebook",
    "overview",
    "require_own",
    "scale_page",
]
