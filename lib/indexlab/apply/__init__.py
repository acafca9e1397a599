"""Apply a plan: the only stage that changes a target's schema."""

from indexlab.apply.outcomes import Applied, Outcome
from indexlab.apply.protocol import rollback, run
from indexlab.apply.sessions import Session
from indexlab.apply.steps import ApplyRefused, Step, pending, reversal
from indexlab.apply.tender import Event

__all__ = [
    "Applied",
    "ApplyRefused",
    "Event",
    "Outcome",
    "Session",
    "Step",
    "pending",
    "reversal",
    "rollback",
    "run",
]
