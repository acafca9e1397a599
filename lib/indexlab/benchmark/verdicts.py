"""The verdict on one query: its ratio with its interval, and what stands against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from indexlab import explain
from indexlab.benchmark import intervals, reasons
from indexlab.benchmark.answers import Answers, compared
from indexlab.benchmark.changes import FALSE_DISCOVERIES, MOVED, Change, Verdict
from indexlab.benchmark.controls import Drift
from indexlab.benchmark.intervals import Estimate
from indexlab.benchmark.series import Sample, Series
from indexlab.errors import InputError


def change(
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
    """Say what became of one query, before chance among all of them is thought of; pure.

    Args:
        before: its series of one side.
        after: that of the other.
        drift: how much the controls moved.
        indexes: names of those that the change is about.
        confidence: of the interval.
        minimum_effect: a ratio within 1 plus or minus this is no change worth a word.
        noise_ms: a difference below this is never called faster or slower.
        paired: the sides took turns.
        seed: of the resamples.

    Raises:
        InputError: the sides have run no set of values in common.
    """
    import numpy as np

    random = np.random.default_rng([seed, *before.query.encode()])
    old, new = in_common(before, after)
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
    moved_ms = before_ms * abs(found.value - 1) if paired else abs(after_ms - before_ms)
    if verdict in MOVED and not bound and moved_ms < noise_ms:
        verdict, why = "not significant", "the difference is less than what sessions differ by"
    if verdict in MOVED and not bound and abs(after_ms - before_ms) < drift.noise_ms:
        verdict, why = "not significant", "controls moved by as much, which no index can touch"
    if found.draws < 2 and not bound:
        verdict = "not significant"
    made = Change(
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
    return made, found


def _answers(before: Series, after: Series) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what both sides answered; of one that is hidden, only the numbers of rows compare."""
    if before.is_hidden == after.is_hidden:
        return before.answers, after.answers
    old, new = (
        tuple(f"{answer.partition(':')[0]}:" for answer in side.answers) for side in (before, after)
    )
    return old, new


def in_common(before: Series, after: Series) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Return the samples of the sets of values that both sides have run; pure.

    A side that was given up has run few of them: there, all its samples are taken.

    Raises:
        InputError: the sides have run no set of values in common.
    """
    common = {s.values for s in before.samples} & {s.values for s in after.samples}
    if not common and not (before.given_up or after.given_up):
        raise InputError(
            f"query {before.query!r}: the sides have run no set of values in common: "
            "measure both with the same seed"
        )
    old, new = (
        tuple(sample for sample in series.samples if sample.values in common) or series.samples
        for series in (before, after)
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
    if answers == "values differ" and not is_cut(before, after):
        return "the sides gave different answers"
    return ""


def is_cut(before: Series, after: Series) -> bool:
    """Whether a LIMIT may choose among rows that tie: then several answers are right."""
    return any(
        node.type == "Limit" for plan in (before.explain, after.explain) for node in plan.nodes()
    )


def without_false_discoveries(
    found: Sequence[tuple[Change, Estimate]], confidence: float, minimum_effect: float
) -> tuple[Change, ...]:
    """Take back the verdicts that chance may have given among so many; pure."""
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
