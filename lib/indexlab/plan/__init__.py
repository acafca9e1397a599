"""Index plans: the statements that a user wants, read and written through PostgreSQL's grammar."""

from indexlab.plan.adding import Added, add
from indexlab.plan.definition import IndexDef, IndexKey
from indexlab.plan.reading import EMPTY, UNBEGUN, parse, read
from indexlab.plan.statements import (
    CommentOnIndex,
    CreateIndex,
    DropIndex,
    Ignore,
    IndexPlan,
    PlanStatement,
    Surrounding,
    revised,
)

__all__ = [
    "EMPTY",
    "UNBEGUN",
    "Added",
    "CommentOnIndex",
    "CreateIndex",
    "DropIndex",
    "Ignore",
    "IndexDef",
    "IndexKey",
    "IndexPlan",
    "PlanStatement",
    "Surrounding",
    "add",
    "parse",
    "read",
    "revised",
]
