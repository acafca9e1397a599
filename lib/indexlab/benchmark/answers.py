"""What a query answered, as a text that does not depend on the order of its rows."""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

from psycopg import pq

MAX_ROWS = 100_000
"""Of a larger answer only the number of rows is compared."""
MAX_SETS = 5
"""Answers of so many sets of values are kept."""

Answers = Literal["same", "rows differ", "values differ", "volatile", "not compared"]


def digest(result: pq.abc.PGresult) -> str:
    """Return the number of rows and a sum of the rows' hashes: equal for equal bags of rows; pure.

    Equal rows count as often as they are there, so that a row lost and another one doubled is
    seen. Floating-point sums may differ in their last digits when rows come in another order.
    """
    rows, columns = result.ntuples, result.nfields
    if rows > MAX_ROWS:
        return f"{rows}:"
    total = 0
    for row in range(rows):
        words = blake2b(digest_size=8)
        for column in range(columns):
            value = result.get_value(row, column)
            words.update(b"-" if value is None else b"%d:" % len(value) + value)
        total += int.from_bytes(words.digest(), "big")
    return f"{rows}:{total % 2**64:016x}"


def compared(before: tuple[str, ...], after: tuple[str, ...], *, is_volatile: bool) -> Answers:
    """Compare the answers of both sides, set of values by set of values; pure.

    Args:
        before: digests of the first sets of values; empty for writes.
        after: the same of the other side.
        is_volatile: a side has given two answers to one question.
    """
    pairs = list(zip(before, after, strict=False))
    if not pairs:
        return "not compared"
    if is_volatile:
        return "volatile"
    counts = [(a.partition(":")[0], b.partition(":")[0]) for a, b in pairs]
    if any(a != b for a, b in counts):
        return "rows differ"
    hashed = [(a, b) for a, b in pairs if not a.endswith(":")]
    if any(a != b for a, b in hashed):
        return "values differ"
    return "same" if len(hashed) == len(pairs) else "not compared"
