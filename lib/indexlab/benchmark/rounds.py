"""The design of the experiment: shuffled rounds, sides in turns, until it is precise enough."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from indexlab.benchmark import intervals
from indexlab.benchmark.runners import Runner

ROUND_MS = 50.0
"""A fast query is executed again within a round until about this much time is spent on it."""
ROUND_EXECUTIONS = 20
TURN_MS = 25.0
"""The same where sides take turns: executions in a row share the processors that the scheduler gave
to client and server, so that more and shorter rounds make the ratio surer. A side alone has nothing
to hold its rounds against: there, short ones would seem to agree because they are neighbours."""
TURN_EXECUTIONS = 10
REPEATED_PART = 0.2
"""The faster side of a query may take so much of the slower one's time for more samples."""
MOST_REPEATS = 10
CONTROL_EXECUTIONS = 5
MAX_SAMPLES = 5000
"""More do not narrow an interval enough to be worth their time and their room in the result."""
MIN_ROUNDS = 5
MOST_OF_A_MEDIAN = 400
"""Without a precision asked for: so many samples of one side are enough."""
LEAST_SAMPLES = 3
CHECK_GROWTH = 1.25
CHECK_RESAMPLES = 500
CONFIDENCE = 0.95

Progress = Callable[[str, float], None]
"""Called with what is being done, and with the done part of the whole from 0 to 1."""


@dataclass(slots=True, eq=False)
class Unit:
    """A query on all sides that take turns: one runner, or one before and one after."""

    runners: tuple[Runner, ...]
    is_control: bool = False
    floor: int = LEAST_SAMPLES
    rounds: int = 0
    is_precise: bool = False
    next_check: int = field(default=MIN_ROUNDS)

    @property
    def name(self) -> str:
        """The query's."""
        return self.runners[0].sampled.query.name

    @property
    def kind(self) -> str:
        """Whether it reads or writes."""
        return self.runners[0].sampled.query.kind

    @property
    def cost_ms(self) -> float:
        """Latency of the slowest side, as far as is known."""
        return max((r.cost_ms for r in self._active()), default=0.0)

    @property
    def taken(self) -> int:
        """Samples that every active side has."""
        return min((len(r.samples) for r in self._active()), default=MAX_SAMPLES)

    def _active(self) -> list[Runner]:
        return [runner for runner in self.runners if not runner.is_given_up]

    def warm_up(self, limit_ms: float) -> None:
        """Bring each side to a steady latency."""
        for runner in self.runners:
            runner.warm_up(limit_ms / len(self.runners))

    def visit(self, number: int) -> None:
        """Measure the sides one after the other, the other way round in every second round.

        Two rounds together are ABBA: what drifts evenly adds as much to A as to B.
        """
        count = self._executions()
        order = self._active()
        if number % 2:
            order.reverse()
        for runner in order:
            runner.measure(count, number, self._repeats(runner, count))
        self.rounds += 1

    def _repeats(self, runner: Runner, count: int) -> int:
        """Return how often the faster side runs what the slower one runs once in a round.

        One execution of 0.1 ms scatters more than one of 50 ms. To repeat the short one costs
        little and makes the round's ratio surer; else it would take more rounds of both.
        """
        if len(self._active()) < 2 or runner.evictor is not None:
            return 1
        affordable = int(REPEATED_PART * self.cost_ms / max(runner.cost_ms, 1e-6))
        return max(1, min(affordable, TURN_EXECUTIONS // count, MOST_REPEATS))

    def _executions(self) -> int:
        if self.is_control:
            return CONTROL_EXECUTIONS
        if any(runner.evictor is not None for runner in self.runners):
            return 1
        turns = len(self.runners) > 1
        most, ms = (TURN_EXECUTIONS, TURN_MS) if turns else (ROUND_EXECUTIONS, ROUND_MS)
        fitting = int(ms / max(self.cost_ms, 1e-6))
        return max(1, min(fitting, most, MAX_SAMPLES - self.taken))

    def check(self, precision: float, seed: int) -> None:
        """Look now and then whether the interval is as narrow as asked.

        The rule looks at the width alone, never at which side is faster: stopping by it does not
        favour a verdict.
        """
        active = self._active()
        if self.is_control or self.is_precise or not active or self.rounds < self.next_check:
            return
        import numpy as np

        self.next_check = max(self.rounds + 1, int(self.rounds * CHECK_GROWTH))
        draw = np.random.default_rng([seed, self.rounds])
        if len(self.runners) == 1 or len(active) == 1:
            found = intervals.median(
                active[0].samples, confidence=CONFIDENCE, random=draw, resamples=CHECK_RESAMPLES
            )
            # Two sides that are as wide as this make a ratio as wide as asked.
            self.is_precise = found.width <= precision / 2**0.5
            return
        # A few resamples may be narrow by luck: many of them must agree before it is over.
        self.is_precise = all(
            intervals.ratio(
                self.runners[0].samples,
                self.runners[1].samples,
                paired=True,
                confidence=CONFIDENCE,
                random=draw,
                resamples=resamples,
            ).width
            <= precision
            for resamples in (CHECK_RESAMPLES, intervals.RESAMPLES)
        )

    def continues(self, rounds: int, *, done: int, in_time: bool, precision: float) -> bool:
        """Whether it needs another round."""
        if self.is_control or not self._active():
            return False
        most = MAX_SAMPLES if precision else MOST_OF_A_MEDIAN
        if self.taken >= most:
            return False
        if rounds:
            return done < rounds or self.taken < LEAST_SAMPLES
        if self.is_precise:
            return False
        needs_rounds = self.floor > LEAST_SAMPLES and done < MIN_ROUNDS
        return in_time or self.taken < self.floor or needs_rounds


def take(
    units: Sequence[Unit],
    *,
    rounds: int,
    budget: float,
    precision: float,
    seed: int,
    tell: Progress,
) -> int:
    """Warm up and measure, reads before writes, each kind with its queries' part of the budget.

    Controls are measured in every round of either kind.

    Args:
        units: queries and controls.
        rounds: how many; 0 lets precision and budget decide.
        budget: seconds.
        precision: width of the interval that is asked for; 0 uses the budget.
        seed: of the order of queries within rounds.
        tell: is told what is being done.

    Returns:
        The number of rounds.
    """
    controls = [unit for unit in units if unit.is_control]
    queries = [unit for unit in units if not unit.is_control]
    share = budget / max(len(queries), 1)
    order = random.Random(seed)
    done, number = 0, 0
    for control in controls:
        control.warm_up(50)
    for kind in ("read", "write"):
        group = [unit for unit in queries if unit.kind == kind]
        if not group:
            continue
        deadline = time.monotonic() + share * len(group)
        for unit in group:
            tell(f"warm up {unit.name}", 0.1 + 0.8 * done / len(queries))
            unit.warm_up(1000 * share / 4)
            unit.floor = _least_samples(unit.cost_ms * len(unit.runners) / 1000, budget, share)
        begun, first, busy = time.monotonic(), number, True
        while busy:
            busy = False
            for unit in order.sample([*group, *controls], len(group) + len(controls)):
                if unit.is_control:
                    unit.visit(number)
                    continue
                in_time = time.monotonic() < deadline
                if unit.continues(
                    rounds, done=number - first, in_time=in_time, precision=precision
                ):
                    unit.visit(number)
                    busy = True
                    if precision:
                        unit.check(precision, seed)
            number += 1
            spent = (time.monotonic() - begun) / max(deadline - begun, 1e-9)
            part = min(1.0, (number - first) / rounds if rounds else spent)
            tell(
                f"{kind}s, round {number - first}",
                0.1 + 0.8 * (done + part * len(group)) / len(queries),
            )
        done += len(group)
    return number


def _least_samples(seconds: float, budget: float, share: float) -> int:
    """How many samples a query of this latency gets even where they exceed the budget."""
    if seconds > min(budget / 10, share):
        return LEAST_SAMPLES
    return 10 if 10 * seconds <= share else 5
