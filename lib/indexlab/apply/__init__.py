"""Apply a plan: the only stage that changes a target's schema."""

from indexlab.apply.blockers import Session
from indexlab.apply.foreseen import pending
from indexlab.apply.outcomes import Applied, Outcome
from indexlab.apply.protocol import rollback, run
from indexlab.apply.reversal import reversal
from indexlab.apply.settings import Settings, Window, size
from indexlab.apply.steps import NO_INDEX, ApplyRefused, Step
from indexlab.apply.tender import Event

__all__ = [
    "NO_INDEX",
    "Applied",
    "ApplyRefused",
    "Event",
    "Outcome",
    "Session",
    "Settings",
    "Step",
    "Window",
    "pending",
    "reversal",
    "rollback",
    "run",
    "size",
]
