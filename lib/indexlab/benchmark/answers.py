"""What a query answered, as a text that does not depend on the order of its rows."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Literal

from psycopg import pq

from indexlab import sql

MAX_ROWS = 100_000
"""Of a larger answer only the number of rows is compared."""
MAX_SETS = 5
"""Answers of so many sets of values are kept."""

CHANGING = frozenset(
    (
        *("now", "transaction_timestamp", "statement_timestamp", "clock_timestamp", "timeofday"),
        *("age", "random", "random_normal", "gen_random_uuid", "uuidv4", "uuidv7"),
        *("pg_backend_pid", "txid_current", "pg_current_xact_id", "pg_current_snapshot"),
    )
)
"""Functions whose value is another one in a later transaction or another session."""
TIMES = ("SVFOP_CURRENT_DATE", "SVFOP_CURRENT_TIME", "SVFOP_LOCALTIME")
MOMENTS = frozenset(("now", "today", "tomorrow", "yesterday"))
"""What a date or a time may be cast from."""

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


def depends_on_the_moment(statement: str) -> bool:
    """Return whether a statement asks for the time, the session or chance by itself; pure.

    Such as `at > now() - interval '1 day'`: an hour later, the same rows give another answer. What
    a view or a function asks for is not seen.

    Args:
        statement: one, with numbered placeholders.
    """
    (parsed,) = sql.parse(statement, "the query")
    asked = sql.nodes(parsed.tree, "FuncCall", "SQLValueFunction", "TypeCast")
    return any(map(_changes, asked))


def _changes(node: Any) -> bool:
    match node.DESCRIPTOR.name:
        case "FuncCall":
            return str(node.funcname[-1].string.sval) in CHANGING
        case "SQLValueFunction":
            kinds = node.DESCRIPTOR.fields_by_name["op"].enum_type.values_by_number
            return str(kinds[node.op].name).startswith(TIMES)
        case _:
            return str(node.arg.a_const.sval.sval).strip().lower() in MOMENTS


def compared(before: tuple[str, ...], after: tuple[str, ...], *, is_volatile: bool) -> Answers:
    """Compare the answers of both sides, set of values by set of values; pure.

    Args:
        before: digests of the first sets of values; empty for writes.
        after: the same of the other side.
        is_volatile: a side has given two answers to one question, or depends on the moment.
    """
    pairs = list(zip(before, after, strict=False))
    if not pairs:
        return "not compared"
    counts = [(a.partition(":")[0], b.partition(":")[0]) for a, b in pairs]
    hashed = [(a, b) for a, b in pairs if not a.endswith(":")]
    if any(a != b for a, b in counts):
        return "volatile" if is_volatile else "rows differ"
    if any(a != b for a, b in hashed):
        return "volatile" if is_volatile else "values differ"
    return "same" if len(hashed) == len(pairs) else "not compared"
