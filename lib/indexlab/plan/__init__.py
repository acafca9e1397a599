"""Index plans: the statements that a user wants, read and written through PostgreSQL's grammar."""

from indexlab.plan.definition import IndexDef, IndexKey
from indexlab.plan.reading import EMPTY, parse, read
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
    "CommentOnIndex",
    "CreateIndex",
    "DropIndex",
    "Ignore",
    "IndexDef",
    "IndexKey",
    "IndexPlan",
    "PlanStatement",
    "Surrounding",
    "parse",
    "read",
    "revised",
]
