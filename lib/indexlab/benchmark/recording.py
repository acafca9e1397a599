"""Putting a measurement together: samples, plans, and the conditions that they were taken under."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

import psycopg

from indexlab.benchmark import sessions
from indexlab.benchmark.design import Design
from indexlab.benchmark.rounds import Progress, Unit
from indexlab.benchmark.series import Conditions, Failure, Measurement, Series
from indexlab.target import Server


@dataclass(frozen=True, slots=True)
class Moment:
    """When it began, by both clocks."""

    wall: datetime
    monotonic: float

    @classmethod
    def now(cls) -> Moment:
        """Look at both clocks."""
        return cls(datetime.now(UTC), time.monotonic())

    def jump(self) -> float:
        """By how many seconds the wall clock went ahead of the monotonic one since then."""
        return (datetime.now(UTC) - self.wall).total_seconds() - (time.monotonic() - self.monotonic)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the server before the first round."""

    server: Server
    settings: tuple[tuple[str, str], ...]
    conditions: Conditions
    overhead_ms: float = 0.0

    def hiding(self, names: Iterable[str]) -> Facts:
        """Return the same for a side that lacks these indexes; pure."""
        return replace(self, conditions=replace(self.conditions, hidden=tuple(names)))


def facts_of(
    conn: psycopg.Connection[Any],
    plan: Design,
    mode: Literal["one side", "interleaved"],
) -> Facts:
    """Ask the server for what a measurement must say of its conditions; reads only."""
    server, settings = sessions.facts(conn)
    conditions = Conditions(
        mode=mode,
        cache="cold" if plan.cold else "warm",
        precision=plan.precision,
        seed=plan.seed,
        client_cpus=os.cpu_count() or 0,
        client_load=sessions.load_average(),
        server_started=sessions.server_started(conn),
    )
    return Facts(server, settings, conditions)


@dataclass(frozen=True, slots=True)
class Whole:
    """What was measured, on all sides."""

    conn: psycopg.Connection[Any]
    units: tuple[Unit, ...]
    skipped: tuple[str, ...]
    rounds: int
    began: Moment

    def measurement(
        self, place: int, label: str, facts: Facts, failed: tuple[Failure, ...], tell: Progress
    ) -> Measurement:
        """Explain the queries of one side, and put its measurement together."""
        series: list[Series] = []
        own: list[Series] = []
        for done, unit in enumerate(self.units):
            if unit.is_control and not unit.runners[place].samples:
                continue  # there was no round: every query has failed
            tell(f"explain {unit.name}", 0.9 + 0.1 * done / len(self.units))
            (own if unit.is_control else series).append(unit.runners[place].series())
        names = {
            (node.schema, node.table[-1])
            for one in series
            for node in one.explain.nodes()
            if node.schema is not None and node.relation is not None
        }
        tell("measured", 1.0)
        return Measurement(
            label=label,
            series=tuple(series),
            skipped=self.skipped,
            server=facts.server,
            settings=facts.settings,
            overhead_ms=facts.overhead_ms,
            started=self.began.wall.isoformat(timespec="microseconds"),
            seconds=time.monotonic() - self.began.monotonic,
            controls=tuple(own),
            failed=failed,
            conditions=replace(
                facts.conditions,
                rounds=self.rounds,
                clock_jump_s=round(self.began.jump(), 3),
                queries_s=sum(unit.runners[place].spent_ms for unit in self.units) / 1000,
                tables=sessions.tables(self.conn, names),
            ),
        )
