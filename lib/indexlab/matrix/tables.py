"""The matrix as files for other programs: CSV for people's spreadsheets, Parquet for pandas."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from csv import writer
from typing import TYPE_CHECKING, Any

from indexlab import display
from indexlab.matrix.targets import COLUMNS, Matrix, headline

if TYPE_CHECKING:
    import pyarrow as pa

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - as meant
"""What a spreadsheet takes for the beginning of a formula."""
MOST_WIDE = 200


def csv(matrix: Matrix) -> bytes:
    """Write the tidy table, one line for each target and statement; pure.

    Names are text for people here: control characters are visible, and one that a spreadsheet
    would take for a formula has an apostrophe before it. The exact names are in the Parquet file.
    """
    rows = (
        [" ".join(value) if isinstance(value, tuple) else value for value in record.values()]
        for record in matrix.records()
    )
    return _written(list(COLUMNS), rows)


def wide_csv(matrix: Matrix) -> bytes | None:
    """Write one line for each target and one column for each statement; pure.

    None where each target has a plan of its own: there would be thousands of empty columns.
    """
    names = matrix.names
    if len(names) > MOST_WIDE and matrix.filled < 0.5:
        return None
    rows = []
    for row in matrix.rows:
        states = {cell.statement: cell.state for cell in row.cells}
        fixed = (row.name, row.status, " ".join(row.tags), headline(row))
        rows.append([*fixed, *(states.get(name, "") for name in names)])
    return _written(["target", "status", "tags", "headline", *names], rows)


def parquet(matrix: Matrix) -> bytes:
    """Write the tidy table with exact names and types; pure.

    Tags are a list; what a target does not have is null.
    """
    import pyarrow as pa
    from pyarrow import parquet as files

    types: dict[type, pa.DataType] = {
        str: pa.string(),
        int: pa.int64(),
        float: pa.float64(),
        tuple: pa.list_(pa.string()),
    }
    records = list(matrix.records())
    columns = {
        name: pa.array([_whole(record[name]) for record in records], types[kind])
        for name, kind in COLUMNS.items()
    }
    stream = io.BytesIO()
    files.write_table(pa.table(columns), stream, compression="zstd")
    return stream.getvalue()


def _whole(value: object) -> object:
    """Return a text that UTF-8 can hold: JSON may bring half of a surrogate pair."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, tuple):
        return [_whole(item) for item in value]
    return value


def _written(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    stream = io.StringIO()
    out = writer(stream, lineterminator="\n")
    out.writerow([safe(column) for column in columns])
    out.writerows([safe(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return stream.getvalue().encode()


def safe(text: str) -> str:
    r"""Return text that no spreadsheet computes and no terminal obeys.

    >>> safe("=cmd()"), safe("idx_a"), safe("\x1b[31m"), safe("- 1")
    ("'=cmd()", 'idx_a', '\\x1b[31m', "'- 1")
    """
    shown = display.clean(text)
    return f"'{shown}" if shown.startswith(FORMULA) or shown.lstrip(" ").startswith("=") else shown
