"""The catalog: a frozen snapshot of a target, read once and then only thought about."""

from indexlab.catalog.expressions import with_expressions
from indexlab.catalog.objects import (
    INDEXABLE,
    AccessMethod,
    Collation,
    Column,
    Expression,
    ForeignKey,
    Index,
    Key,
    OperatorClass,
    Relation,
    Tablespace,
    Unresolved,
    same_key,
)
from indexlab.catalog.partitions import (
    bytes_of,
    direct_partitions,
    foreign_partitions,
    part_name,
    partitions_of,
)
from indexlab.catalog.queries import read
from indexlab.catalog.snapshot import Catalog

__all__ = [
    "INDEXABLE",
    "AccessMethod",
    "Catalog",
    "Collation",
    "Column",
    "Expression",
    "ForeignKey",
    "Index",
    "Key",
    "OperatorClass",
    "Relation",
    "Tablespace",
    "Unresolved",
    "bytes_of",
    "direct_partitions",
    "foreign_partitions",
    "part_name",
    "partitions_of",
    "read",
    "same_key",
    "with_expressions",
]
