"""The lab: target, plan and workload in one hand, and the stages as verbs."""

from __future__ import annotations

from indexlab.lab.applying import Applying
from indexlab.lab.auditing import Auditing
from indexlab.lab.measuring import Measuring


class Lab(Auditing, Applying, Measuring):
    """What a session works on; `open_lab` makes one."""
