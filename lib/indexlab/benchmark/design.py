"""How much is measured and in what order, checked before anything is connected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from indexlab.benchmark import rounds
from indexlab.benchmark.rounds import Progress, Unit
from indexlab.errors import InputError
from indexlab.workload import SampledQuery


@dataclass(frozen=True, slots=True)
class Design:
    """How much is measured, and in what order."""

    rounds: int
    budget: float
    precision: float
    seed: int
    statement_timeout: float
    source: str | Path
    cold: bool = False

    def check(self, sampled: Sequence[SampledQuery]) -> None:
        """Check what can be checked before anything is connected.

        Raises:
            InputError: an argument is out of range.
        """
        if self.rounds < 0:
            raise InputError(f"rounds {self.rounds!r} is negative: 0 lets the budget decide")
        if not 0 < self.budget < math.inf:
            raise InputError(f"budget {self.budget!r} is not a positive number of seconds")
        if not 0 <= self.precision < 1:
            raise InputError(f"precision {self.precision!r} is not from 0 to below 1: 0.05 is 5%")
        if not 0.001 <= self.statement_timeout <= 500_000:
            raise InputError(
                f"statement timeout {self.statement_timeout!r} is not a number of seconds from "
                "0.001 to 500,000"
            )
        for one in sampled:
            if not one.values and one.query.kind == "read" and not one.query.generic:
                raise InputError(
                    f"query {one.query.name!r} has no values to run with",
                    source=self.source,
                    line=one.query.line,
                )

    def take(self, units: Sequence[Unit], tell: Progress) -> int:
        """Warm up and measure; returns the number of rounds."""
        return rounds.take(
            units,
            rounds=self.rounds,
            budget=self.budget,
            precision=self.precision,
            seed=self.seed,
            tell=tell,
        )


def left_out(
    sampled: Sequence[SampledQuery], *, disposable: bool, source: str | Path
) -> tuple[str, ...]:
    """Return the queries that are not run: normalized text, and writes that may not be; pure.

    Raises:
        InputError: none is left.
    """
    found = tuple(
        one.query.name
        for one in sampled
        if one.query.generic or (one.query.kind == "write" and not (disposable and one.values))
    )
    if len(found) == len(sampled):
        raise InputError(
            "there is no query to run: writes are run on a disposable target only (on a clone, say "
            "--disposable), and normalized text is not run at all",
            source=source,
        )
    return found
