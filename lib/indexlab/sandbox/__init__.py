"""What the planner would do, without touching the target: a what-if interface with two backends.

The sandbox is an empty copy of the target's schema in an embedded server, with the target's
planner statistics and sizes. HypoPG is an extension inside the target.
"""

from indexlab.sandbox.engine import Sandbox
from indexlab.sandbox.hypopg import HypoPG, open_hypopg
from indexlab.sandbox.opening import open_sandbox
from indexlab.sandbox.whatif import Hypothetical, Lacking, WhatIf

__all__ = [
    "HypoPG",
    "Hypothetical",
    "Lacking",
    "Sandbox",
    "WhatIf",
    "open_hypopg",
    "open_sandbox",
]
