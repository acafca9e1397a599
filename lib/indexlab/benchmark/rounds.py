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
REPEATED_PART = 0.5
"""The faster side of a query may take so much of the slower one's time for more samples."""
MOST_REPEATS = 2
MOST_RETURNS = 8
SWITCH_MS = 1.0
"""About what it takes to get to a side, besides the executions that do not count."""
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
    visited: int = -1
    """The round of the last visit."""
    executions: int = 0
    """Of each side in the last visit, without repeats."""

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

        Two rounds together are ABBA: what drifts evenly adds as much to A as to B. A further visit
        in the same round measures the faster side again, with the same values.
        """
        if number == self.visited:
            self._come_back()
            return
        self.visited, self.executions = number, self._executions()
        order = self._active()
        if number % 2:
            order.reverse()
        for runner in order:
            runner.measure(self.executions, number, self._repeats(runner))
        self.rounds += 1

    def returns(self) -> int:
        """Return how often a round comes back to the faster side alone.

        Executions in a row meet one moment: where the scheduler put client and server, a round trip
        takes 14 us, or 60. One execution of 50 ms meets many, ten of 0.1 ms but one, so that the
        short side makes the ratio unsure. Visits at other moments of the round cost it little.
        """
        if self.is_control or self.is_precise or not self.executions or self._is_alone():
            return 0
        fast = self._faster
        count = fast.settling + self.executions * self._repeats(fast)
        affordable = REPEATED_PART * self.executions * self.cost_ms
        return min(int(affordable / (SWITCH_MS + count * fast.cost_ms)), MOST_RETURNS)

    def _come_back(self) -> None:
        if self.is_precise or self._is_alone():
            return
        fast = self._faster
        fast.turn -= self.executions
        fast.measure(self.executions, self.visited, self._repeats(fast))

    @property
    def _faster(self) -> Runner:
        return min(self.runners, key=lambda runner: runner.cost_ms)

    def _is_alone(self) -> bool:
        """Whether a round has one side, or may not run it at will."""
        return len(self._active()) < 2 or any(r.evictor is not None for r in self.runners)

    def _repeats(self, runner: Runner) -> int:
        """Return how often the faster side runs what the slower one runs once in a visit."""
        if self._is_alone():
            return 1
        affordable = int(REPEATED_PART * self.cost_ms / max(runner.cost_ms, 1e-6))
        return max(1, min(affordable, TURN_EXECUTIONS // self.executions, MOST_REPEATS))

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
        # Resamples may be narrow by luck, and where latencies have two levels a few of them decide:
        # what is there without them must agree.
        sides = self.runners[0].samples, self.runners[1].samples
        self.is_precise = intervals.width_by_order(*sides, CONFIDENCE) <= precision and all(
            intervals.ratio(
                *sides, paired=True, confidence=CONFIDENCE, random=draw, resamples=resamples
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
            agenda = [u for u in (*group, *controls) for _ in range(1 + u.returns())]
            for unit in order.sample(agenda, len(agenda)):
                if not unit.is_control and unit.visited != number:
                    in_time = time.monotonic() < deadline
                    if not unit.continues(
                        rounds, done=number - first, in_time=in_time, precision=precision
                    ):
                        continue
                    busy = True
                unit.visit(number)
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
