"""In which order steps run, and which side by side; pure."""

from __future__ import annotations

from collections.abc import Mapping

from indexlab.apply.steps import Step

Chain = tuple[int, ...]
"""Numbers of steps that run one after the other."""


def chains(steps: tuple[Step, ...], sizes: Mapping[int, int], jobs: int) -> tuple[Chain, ...]:
    """Share steps out into chains, the longest first; pure.

    Two builds on one table would only wait for each other, so a table (with its partitions) is one
    chain. Starting the longest first keeps the whole within 4/3 - 1/(3 jobs) of the best
    possible (Graham, Bounds on Multiprocessing Timing Anomalies, 1969). With one job all steps are
    one chain.

    Args:
        steps: in the order of the plan.
        sizes: estimated bytes of what a step builds, by the step's number.
        jobs: how many chains run side by side.
    """
    if jobs == 1:
        return (ordered(steps, tuple(range(len(steps)))),) if steps else ()
    roots = list(range(len(steps)))
    first: dict[object, int] = {}
    for number, step in enumerate(steps):
        tied: tuple[object, ...] = (step.family or number, ("name", step.name))
        for tie in tied if step.family else tied[1:]:
            _join(roots, first.setdefault(tie, number), number)
    grouped: dict[int, list[int]] = {}
    for number in range(len(steps)):
        grouped.setdefault(_root(roots, number), []).append(number)
    long = sorted(grouped.values(), key=lambda chain: (-sum(sizes.get(n, 0) for n in chain), chain))
    return tuple(ordered(steps, tuple(chain)) for chain in long)


def ordered(steps: tuple[Step, ...], chain: Chain) -> Chain:
    """Put drops behind everything else, so that what replaces them is valid by then; pure.

    A drop stays in its place where a later step needs the name, or works on what is dropped.
    """
    late = [
        number
        for number in chain
        if steps[number].action == "drop"
        and not steps[number].brief  # it takes others with it, that are built again behind it
        and not any(steps[other].name == steps[number].name for other in chain if other > number)
    ]
    return (*(number for number in chain if number not in late), *late)


def _root(roots: list[int], number: int) -> int:
    while roots[number] != number:
        number = roots[number]
    return number


def _join(roots: list[int], one: int, other: int) -> None:
    first, second = sorted((_root(roots, one), _root(roots, other)))
    roots[second] = first
