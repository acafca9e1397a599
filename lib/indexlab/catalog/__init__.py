"""The catalog: a frozen snapshot of a target, read once and then only thought about."""

from indexlab.catalog.queries import read
from indexlab.catalog.snapshot import (
    INDEXABLE,
    Catalog,
    Collation,
    Column,
    Expression,
    ForeignKey,
    Index,
    Key,
    OperatorClass,
    Relation,
    Unresolved,
    same_key,
)

__all__ = [
    "INDEXABLE",
    "Catalog",
    "Collation",
    "Column",
    "Expression",
    "ForeignKey",
    "Index",
    "Key",
    "OperatorClass",
    "Relation",
    "Unresolved",
    "read",
    "same_key",
]
