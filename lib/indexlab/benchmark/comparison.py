"""Comparing two measurements: ratios with intervals, verdicts, and the headline."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from indexlab.benchmark import circumstances, verdicts
from indexlab.benchmark import controls as controlling
from indexlab.benchmark.changes import Change, Comparison, Headline
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
    - controls that moved more than the threshold correct all ratios, or forbid every verdict on less
      than they moved by; and nothing that changed by less than twice what the shortest control did,
      in milliseconds, is called faster or slower then.

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
        verdicts.change(
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
    changes = verdicts.without_false_discoveries(found, confidence, minimum_effect)
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
        warnings=tuple(circumstances.warnings(before, after, pairs, changes, controls)),
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


def _headline(changes: Sequence[Change]) -> Headline:
    before = sum(change.weight * change.before_ms for change in changes)
    # Not of the medians after: they are no part of the queries' ratios where sides took turns, or
    # where a drift is corrected, and the whole must say what its parts say.
    after = sum(change.weight * change.before_ms * change.ratio for change in changes)
    return Headline(
        before_ms=before,
        after_ms=after,
        ratio=before / after if changes else 1.0,
        queries=tuple(change.query for change in changes),
    )
