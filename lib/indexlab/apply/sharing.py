"""What the jobs of a run share: work that one hands to others, and the server's workers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Generic, TypeVar

Job = TypeVar("Job")

SHARED_PART = 1 / 3
"""The part of a concurrent build that parallel workers take part in: the first scan and its sort,
not the second scan and its comparison. Measured: two workers save a fifth of the bookings plan."""


def workers(remaining: Sequence[float], total: int) -> tuple[int, ...]:
    """Share parallel workers out so that what ends last ends as soon as it can; pure.

    Each goes to the job that would be the last to end.

    Args:
        remaining: what each job has still to do, in bytes of indexes.
        total: how many there are.

    Returns:
        How many each job gets.
    """
    given = [0] * len(remaining)

    def left(job: int) -> float:
        return remaining[job] * (1 - SHARED_PART + SHARED_PART / (1 + given[job]))

    for _ in range(total if given else 0):
        given[max(range(len(given)), key=left)] += 1
    return tuple(given)


class Workers:
    """The parallel workers that a run may use, shared out anew as jobs begin and end."""

    def __init__(self, total: int, expected: Iterable[tuple[Hashable, float]]):
        """Begin with jobs that are about to begin.

        Args:
            total: how many there are.
            expected: those jobs, and what each has to do, in bytes of indexes.
        """
        self._total = total
        self._remaining = dict(expected)
        self._held: dict[Hashable, int] = {}
        self._guard = threading.Lock()

    def take(self, job: Hashable, remaining: float) -> int:
        """Return how many a job may use for its next statement: never more than are free.

        Args:
            job: that asks.
            remaining: what it has still to do, in bytes of indexes.
        """
        with self._guard:
            self._remaining[job] = remaining
            shares = dict(
                zip(self._remaining, workers([*self._remaining.values()], self._total), strict=True)
            )
            free = self._total - sum(held for it, held in self._held.items() if it != job)
            self._held[job] = min(shares[job], free)
            return self._held[job]

    def leave(self, job: Hashable) -> None:
        """Give back what a job has used, at its end."""
        with self._guard:
            self._remaining.pop(job, None)
            self._held.pop(job, None)


class _Errand(Generic[Job]):
    """One piece of work, and whether somebody has taken it."""

    def __init__(self, work: Callable[[Job], object]):
        self.work = work
        self.taken = self.ended = False
        self.error: BaseException | None = None


class Errands(Generic[Job]):
    """Work that a job hands out, and those do who have nothing else to do."""

    def __init__(self, leading: int):
        """Begin.

        Args:
            leading: how many jobs may hand something out; each says when it will no more.
        """
        self._leading = leading
        self._open: deque[_Errand[Job]] = deque()
        self._changed = threading.Condition()

    def together(self, job: Job, works: Sequence[Callable[[Job], object]]) -> None:
        """Do works side by side with whoever helps; return when all have ended.

        Args:
            job: that hands them out, and takes its part.
            works: each is called once, with the job that does it; the first of them begins first.

        Raises:
            BaseException: of the first work that raised one.
        """
        errands = [_Errand(work) for work in works]
        with self._changed:
            self._open.extend(errands)
            self._changed.notify_all()
        for errand in errands:
            with self._changed:
                if errand.taken:
                    continue
                self._open.remove(errand)
                errand.taken = True
            self._run(errand, job)
        with self._changed:
            self._changed.wait_for(lambda: all(errand.ended for errand in errands))
        for errand in errands:
            if errand.error is not None:
                raise errand.error

    def help(self, job: Job) -> None:
        """Do what others hand out, until nobody will any more; the job itself will not."""
        with self._changed:
            self._leading -= 1
            self._changed.notify_all()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._open or not self._leading)
                if not self._open:
                    return
                errand = self._open.popleft()
                errand.taken = True
            self._run(errand, job)

    def _run(self, errand: _Errand[Job], job: Job) -> None:
        try:
            errand.work(job)
        except BaseException as error:  # noqa: BLE001 - raised again where it was handed out
            errand.error = error
        finally:
            with self._changed:
                errand.ended = True
                self._changed.notify_all()
