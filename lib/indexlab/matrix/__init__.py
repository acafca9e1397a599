"""The matrix of a batch: targets by statements, read from `batch.json` and handed on as tables."""

from indexlab.matrix.reading import of_document, read
from indexlab.matrix.tables import csv, parquet, wide_csv
from indexlab.matrix.targets import (
    COLUMNS,
    WORDS,
    Cell,
    Forecast,
    Gain,
    Matrix,
    Reason,
    Row,
    Statement,
    headline,
    told,
    worst_first,
)

__all__ = [
    "COLUMNS",
    "WORDS",
    "Cell",
    "Forecast",
    "Gain",
    "Matrix",
    "Reason",
    "Row",
    "Statement",
    "csv",
    "headline",
    "of_document",
    "parquet",
    "read",
    "told",
    "wide_csv",
    "worst_first",
]
