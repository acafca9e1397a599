"""Rendering: stage notebooks through papermill, and the pages that people send to each other."""

from indexlab.render.notebooks import StageFailed, check_parameters, execute, notebook
from indexlab.render.pages import overview
from indexlab.render.scaling import scale_page

__all__ = ["StageFailed", "check_parameters", "execute", "notebook", "overview", "scale_page"]
