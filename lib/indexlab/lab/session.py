"""The lab: target, plan and workload in one hand, and the stages as verbs."""

from __future__ import annotations

from indexlab.lab.applying import Applying
from indexlab.lab.exploring import Exploring
from indexlab.lab.measuring import Measuring


class Lab(Exploring, Applying, Measuring):
    """What a session works on; `open_lab` makes one."""
