"""What happened between two measurements, or to their answers, that makes a comparison doubtful."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from indexlab import units
from indexlab.benchmark import stability
from indexlab.benchmark.changes import MOVED, Change
from indexlab.benchmark.series import Measurement, Series
from indexlab.benchmark.verdicts import is_cut


def warnings(
    before: Measurement,
    after: Measurement,
    pairs: Sequence[tuple[Series, Series]],
    changes: Sequence[Change],
    controls: Sequence[Change],
) -> Iterator[str]:
    """Say what makes a comparison doubtful, each with its remedy; pure.

    Args:
        before: the baseline.
        after: what it is compared with.
        pairs: the series of both, query by query.
        changes: what became of each query.
        controls: of these, the reads that use no planned index.
    """
    if before.server != after.server:
        yield (
            f"the servers differ: {before.server} before, {after.server} after; "
            "measure both sides on one server"
        )
    old, new = dict(before.settings), dict(after.settings)
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield (
                f"the setting {name} was {old.get(name, 'the default')!r} before and is "
                f"{new.get(name, 'the default')!r} after; measure both sides with the same"
            )
    yield from _of_the_moment(before, after)
    moved = [f"{c.query} ({units.factor(c.ratio)})" for c in controls if c.verdict in MOVED]
    if moved:
        yield (
            f"reads without a planned index moved too: {', '.join(moved)}; something else changed "
            "(caches, load, ANALYZE), so measure again on a quiet server"
        )
    # A side that was given up has returned none of its rows.
    differ = [
        change.query
        for change in changes
        if change.rows_before != change.rows_after
        and not change.bound
        and change.answers != "volatile"
    ]
    if differ:
        yield (
            f"row counts differ: {', '.join(differ)}; the data changed between the sides, "
            "so measure both without writers"
        )
    yield from _of_the_answers(changes, pairs)
    yield from stability.warnings((before, after), pairs, in_turns=before.is_paired_with(after))
    unequal = [a.query for a, b in pairs if a.weight != b.weight]
    if unequal:
        yield f"weights differ: {', '.join(unequal)}; the headline uses those after"


def _of_the_moment(before: Measurement, after: Measurement) -> Iterator[str]:
    old, new = before.conditions, after.conditions
    if old.cache != new.cache:
        yield f"the cache was {old.cache} before and {new.cache} after; measure both alike"
    starts = {old.server_started, new.server_started} - {""}
    if before.server == after.server and len(starts) > 1:
        yield (
            "the server was restarted between the sides: caches and settings are other ones; "
            "measure both again"
        )
    known = {table.name: table for table in old.tables}
    renewed = [
        t.name for t in new.tables if t.name in known and t.analyzed != known[t.name].analyzed
    ]
    if renewed:
        yield (
            f"statistics were renewed between the sides: {units.listed(renewed)}; a plan may have "
            "changed by that alone, so ANALYZE first and measure both again"
        )
    for word, side in (("before", before), ("after", after)):
        jump = side.conditions.clock_jump_s
        if abs(jump) > 1:
            yield (
                f"the wall clock jumped by {units.duration(abs(jump))} in the measurement {word}; "
                "latencies are by a monotonic clock and hold, time stamps do not"
            )


def _of_the_answers(
    changes: Sequence[Change], pairs: Sequence[tuple[Series, Series]]
) -> Iterator[str]:
    cut = {old.query for old, new in pairs if is_cut(old, new)}
    wrong = [c.query for c in changes if c.answers == "values differ" and c.query not in cut]
    if wrong:
        yield (
            f"the sides gave different answers: {', '.join(wrong)}; data changed in between, an "
            "index is corrupt (amcheck tells), sums of floating point numbers came in another "
            "order, or a view or function that it reads asks for the time"
        )
    ties = [c.query for c in changes if c.answers == "values differ" and c.query in cut]
    if ties:
        yield (
            f"a LIMIT cuts among rows that tie: {', '.join(ties)}; the sides chose other ones, so "
            "order by a key"
        )
    volatile = [c.query for c in changes if c.answers == "volatile"]
    if volatile:
        yield f"volatile results, so answers are not compared: {', '.join(volatile)}"
    for change in changes:
        if change.bound:
            yield (
                f"{change.query} was given up at the limit on the side "
                f"{change.bound.replace('both', 'before and after')}: its latency is a lower bound"
            )
