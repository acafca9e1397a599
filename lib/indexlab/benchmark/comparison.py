"""Comparing two measurements: ratios with intervals, verdicts, and the headline."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from indexlab import explain, units
from indexlab.benchmark import controls as controlling
from indexlab.benchmark import intervals, reasons, stability
from indexlab.benchmark.answers import Answers, compared
from indexlab.benchmark.changes import (
    FALSE_DISCOVERIES,
    MOVED,
    Change,
    Comparison,
    Headline,
    Verdict,
)
from indexlab.benchmark.controls import Drift
from indexlab.benchmark.intervals import Estimate
from indexlab.benchmark.series import Failure, Measurement, Series
from indexlab.errors import InputError

NOISE_MS = 0.1
"""What waking a sleeping process may cost on both ends of a socket: no index did that."""
PAIRED_NOISE_MS = 0.005
"""The same where both sides took turns on one connection."""


def compare(
    before: Measurement,
    after: Measurement,
    *,
    indexes: Collection[str] = (),
    tables: Collection[str] = (),
    confidence: float = 0.95,
    minimum_effect: float = 0.05,
    drift_threshold: float = controlling.THRESHOLD,
    seed: int = 0,
) -> Comparison:
    """Say what changed between two measurements; pure.

    The ratio of the medians has a bootstrap interval, see `intervals.ratio`. Only sets of values
    that both sides have run are compared.

    The verdict is about the interval: `faster` or `slower` when it lies beyond the minimum effect,
    `no change` when it lies within, else `not significant`. Then what stands against it:

    - of all that is called faster or slower, at most 5% may be false (Benjamini and Hochberg);
    - a difference of less than 0.1 ms, or less than what an empty statement differs by between the
      sides, is never called faster or slower, for bootstrap intervals do not see what differs
      between two sessions; on one connection in turns, 0.005 ms;
    - sides that gave different answers are not compared: a wrong answer is never fast;
    - controls that moved more than the threshold correct all ratios, or forbid every verdict on less than they moved by.

    Args:
        before: the baseline.
        after: the same queries, later.
        indexes: names, without schema, of the indexes that the change is about.
        tables: of these indexes, with schema; reads that touch none of them are controls, too.
        confidence: of the intervals, between 0 and 1.
        minimum_effect: a ratio within 1 plus or minus this is no change worth a word.
        drift_threshold: controls that moved less are steady.
        seed: the same seed and measurements give the same intervals.

    Raises:
        InputError: the measurements are not of the same workload, or have no query in common.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence {confidence!r} is not between 0 and 1")
    if not 0 <= minimum_effect < 1:
        raise InputError(f"minimum effect {minimum_effect!r} is not from 0 to below 1")
    if not drift_threshold > 0:
        raise InputError(f"drift threshold {drift_threshold!r} is not positive")
    pairs = tuple(_pairs(before, after))
    paired = before.is_paired_with(after)
    wanted = frozenset(indexes)
    untouched = [(old, new) for old, new in pairs if _is_untouched(old, new, frozenset(tables))]
    drift = controlling.drift(
        (*before.controls, *(old for old, _ in untouched)),
        (*after.controls, *(new for _, new in untouched)),
        paired=paired,
        confidence=confidence,
        seed=seed,
        threshold=drift_threshold,
    )
    noise = PAIRED_NOISE_MS if paired else NOISE_MS
    found = [
        _change(
            old,
            new,
            drift=drift,
            indexes=wanted,
            confidence=confidence,
            minimum_effect=minimum_effect,
            noise_ms=max(noise, abs(after.overhead_ms - before.overhead_ms)),
            paired=paired,
            seed=seed,
        )
        for old, new in pairs
    ]
    changes = _without_false_discoveries(found, confidence, minimum_effect)
    reads = tuple(change for change in changes if change.kind == "read")
    about = tuple(change for change in reads if change.indexes) if wanted else reads
    controls = tuple(change for change in reads if wanted and not change.indexes)
    return Comparison(
        before=before.label,
        after=after.label,
        changes=changes,
        headline=_headline(about),
        reads=_headline(reads),
        controls=tuple(change.query for change in controls),
        warnings=tuple(_warnings(before, after, pairs, changes, controls)),
        confidence=confidence,
        minimum_effect=minimum_effect,
        drift=drift,
        mode="interleaved" if paired else "one side",
        failed=tuple(_failed(before, after)),
    )


def _pairs(before: Measurement, after: Measurement) -> Iterator[tuple[Series, Series]]:
    old = {series.query: series for series in before.series}
    new = {series.query: series for series in after.series}
    # Writes that one side was not allowed to run are no other workload: they stay out.
    skipped = {*before.skipped, *after.skipped}
    skipped.update(failure.query for side in (before, after) for failure in side.failed)
    other = "the baseline is of another workload"
    for name in [*old, *new]:
        if (name in old) != (name in new) and name not in skipped:
            where = "the baseline" if name in old else "this measurement"
            raise InputError(f"{other}: only {where} has the query {name!r}")
    for name, series in new.items():
        if name not in old:
            continue
        if not series.has_text_of(old[name]) or series.kind != old[name].kind:
            raise InputError(f"{other}: its query {name!r} has another text")
        yield old[name], series


def _failed(before: Measurement, after: Measurement) -> Iterator[Failure]:
    for word, side in (("before", before), ("after", after)):
        for failure in side.failed:
            yield Failure(failure.query, f"{word}: {failure.reason}")


def _is_untouched(old: Series, new: Series, tables: frozenset[str]) -> bool:
    """Whether no index on these tables can have touched a read."""
    if not tables or old.kind != "read" or old.given_up or new.given_up:
        return False
    read = {node.relation for plan in (old.explain, new.explain) for node in plan.nodes()}
    return not tables & {name for name in read if name is not None}


def _change(
    before: Series,
    after: Series,
    *,
    drift: Drift,
    indexes: frozenset[str],
    confidence: float,
    minimum_effect: float,
    noise_ms: float,
    paired: bool,
    seed: int,
) -> tuple[Change, Estimate]:
    import numpy as np

    common = {s.values for s in before.samples} & {s.values for s in after.samples}
    if not common and not (before.given_up or after.given_up):
        raise InputError(
            f"query {before.query!r}: the sides have run no set of values in common: "
            "measure both with the same seed"
        )
    random = np.random.default_rng([seed, *before.query.encode()])
    old, new = (
        [sample for sample in series.samples if sample.values in common] or list(series.samples)
        for series in (before, after)
    )
    before_ms, after_ms = (float(np.median([sample.ms for sample in side])) for side in (old, new))
    bound = _bound(before, after)
    found = (
        _bounded(before_ms, after_ms, bound)
        if bound
        else _corrected(
            intervals.ratio(old, new, paired=paired, confidence=confidence, random=random), drift
        )
    )
    answers = compared(*_answers(before, after), is_volatile=before.volatile or after.volatile)
    verdict, why = _verdict(found.low, found.high, minimum_effect), ""
    if verdict in MOVED and (why := _objection(before, after, answers, bound)):
        verdict = "not significant"
    if verdict in MOVED and not bound and abs(after_ms - before_ms) < noise_ms:
        verdict, why = "not significant", "the difference is less than what sessions differ by"
    if found.draws < 2 and not bound:
        verdict = "not significant"
    change = Change(
        query=before.query,
        kind=before.kind,
        weight=after.weight,
        before_ms=before_ms,
        after_ms=after_ms,
        ratio=found.value,
        ratio_low=found.low,
        ratio_high=found.high,
        verdict=verdict,
        indexes=tuple(sorted(indexes.intersection({*after.indexes, *after.explain.indexes}))),
        difference=explain.difference(before.explain, after.explain),
        rows_before=before.rows,
        rows_after=after.rows,
        answers=answers,
        bound=bound,
        why=why,
        reason=reasons.slower(before, after) if verdict == "slower" else "",
    )
    return change, found


def _answers(before: Series, after: Series) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what both sides answered; of one that is hidden, only the numbers of rows compare."""
    if before.is_hidden == after.is_hidden:
        return before.answers, after.answers
    old, new = (
        tuple(f"{answer.partition(':')[0]}:" for answer in side.answers) for side in (before, after)
    )
    return old, new


def _bound(before: Series, after: Series) -> Literal["", "before", "after", "both"]:
    if before.given_up and after.given_up:
        return "both"
    return "before" if before.given_up else "after" if after.given_up else ""


NEVER = 1e9
"""Stands for infinity, which JSON does not have."""


def _bounded(before_ms: float, after_ms: float, bound: str) -> Estimate:
    """Say what a lower bound on one side says of the ratio: its interval is open to one end."""
    value = after_ms / before_ms
    low = 1 / NEVER if bound in ("before", "both") else value
    high = NEVER if bound in ("after", "both") else value
    return Estimate(value, low, high, 2, 0.0)


def _corrected(found: Estimate, drift: Drift) -> Estimate:
    """Divide by what the controls moved by; errors of both add up in quadrature.

    Where they moved too much to be divided by, an interval reaches as much farther, both ways: a
    verdict stands only where the change is larger than that.
    """
    if drift.verdict == "refused":
        farther = max(drift.high, 1 / drift.low)
        return replace(found, low=found.low / farther, high=found.high * farther)
    if drift.verdict != "corrected":
        return found
    import numpy as np

    value = found.value / drift.ratio
    below = np.hypot(np.log(found.value / found.low), np.log(drift.high / drift.ratio))
    above = np.hypot(np.log(found.high / found.value), np.log(drift.ratio / drift.low))
    own = np.log(drift.high / drift.low) / 4
    return replace(
        found,
        value=float(value),
        low=float(value * np.exp(-below)),
        high=float(value * np.exp(above)),
        error=float(np.hypot(found.error, own)),
    )


def _objection(before: Series, after: Series, answers: Answers, bound: str) -> str:
    """Say what stands against calling a query faster or slower; empty if nothing does."""
    if bound == "both":
        return "both sides were given up at the time limit"
    if answers == "rows differ" and before.kind == "read":
        return "the sides answered with other numbers of rows"
    if answers == "values differ" and not _is_cut(before, after):
        return "the sides gave different answers"
    return ""


def _is_cut(before: Series, after: Series) -> bool:
    """Whether a LIMIT may choose among rows that tie: then several answers are right."""
    return any(
        node.type == "Limit" for plan in (before.explain, after.explain) for node in plan.nodes()
    )


def _without_false_discoveries(
    found: Sequence[tuple[Change, Estimate]], confidence: float, minimum_effect: float
) -> tuple[Change, ...]:
    values = [
        0.0 if change.bound else intervals.p_value(estimate, minimum_effect, confidence)
        for change, estimate in found
    ]
    stands = intervals.kept_by_benjamini_hochberg(values, FALSE_DISCOVERIES) if found else ()
    return tuple(
        change
        if stand or change.verdict not in MOVED
        else replace(
            change,
            verdict="not significant",
            reason="",
            why=f"among {len(found)} queries, one may look like this by chance",
        )
        for (change, _), stand in zip(found, stands, strict=True)
    )


def _verdict(low: float, high: float, minimum_effect: float) -> Verdict:
    if high < 1 - minimum_effect:
        return "faster"
    if low > 1 + minimum_effect:
        return "slower"
    if low >= 1 - minimum_effect and high <= 1 + minimum_effect:
        return "no change"
    return "not significant"


def _headline(changes: Sequence[Change]) -> Headline:
    before = sum(change.weight * change.before_ms for change in changes)
    after = sum(change.weight * change.after_ms for change in changes)
    return Headline(
        before_ms=before,
        after_ms=after,
        ratio=before / after if changes else 1.0,
        queries=tuple(change.query for change in changes),
    )


def _warnings(
    before: Measurement,
    after: Measurement,
    pairs: Sequence[tuple[Series, Series]],
    changes: Sequence[Change],
    controls: Sequence[Change],
) -> Iterator[str]:
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
    differ = [change.query for change in changes if change.rows_before != change.rows_after]
    if differ:
        yield (
            f"row counts differ: {', '.join(differ)}; the data changed between the sides, "
            "so measure both without writers"
        )
    yield from _of_the_answers(changes, pairs)
    yield from stability.warnings(before, after, pairs)
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
            f"statistics were renewed between the sides: {', '.join(renewed)}; a plan may have "
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
    cut = {old.query for old, new in pairs if _is_cut(old, new)}
    wrong = [c.query for c in changes if c.answers == "values differ" and c.query not in cut]
    if wrong:
        yield (
            f"the sides gave different answers: {', '.join(wrong)}; data changed in between, an "
            "index is corrupt (amcheck tells), or sums of floating point numbers came in another "
            "order"
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
