"""The lab: target, plan and workload in one hand, and the stages as verbs.

Notebooks and the command use nothing else; each verb reads, thinks, keeps the result in the run
directory if there is one, and returns it.
"""

from indexlab.lab.afterwards import drop_replaced, roll_back
from indexlab.lab.applying import JOURNAL, check_redaction
from indexlab.lab.batches import Batch, open_batch
from indexlab.lab.beginning import begin
from indexlab.lab.exploring import Costs, Explained
from indexlab.lab.exporting import check_export
from indexlab.lab.inputs import Inputs, read_inputs, require_queries
from indexlab.lab.measuring import BUDGET, PRECISION, Loads
from indexlab.lab.opening import open_lab
from indexlab.lab.session import Lab

__all__ = [
    "BUDGET",
    "JOURNAL",
    "PRECISION",
    "Batch",
    "Costs",
    "Explained",
    "Inputs",
    "Lab",
    "Loads",
    "begin",
    "check_export",
    "check_redaction",
    "drop_replaced",
    "open_batch",
    "open_lab",
    "read_inputs",
    "require_queries",
    "roll_back",
]
