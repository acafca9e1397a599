"""Run all steps: chains of them side by side, and what has to be done around each."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

import psycopg
from psycopg import sql as compose

from indexlab.apply import care
from indexlab.apply.failures import told
from indexlab.apply.journal import Journal
from indexlab.apply.lock import RunnerLock
from indexlab.apply.outcomes import UNFINISHED, Applied, Outcome
from indexlab.apply.schedule import Chain, chains
from indexlab.apply.settings import Settings
from indexlab.apply.statements import identifier
from indexlab.apply.steps import BUILDS, Step
from indexlab.apply.tender import WATCH_SECONDS, Event, Tender
from indexlab.apply.worker import Worker, outcome
from indexlab.errors import TargetError
from indexlab.plan import CreateIndex
from indexlab.sql import RelationName
from indexlab.target import Target


@dataclass(frozen=True, slots=True)
class Orders:
    """What a run is to do and what was found out before it."""

    steps: tuple[Step, ...]
    sizes: Mapping[int, int]
    """Estimated bytes by number of step."""
    share: Mapping[str, str]
    """Settings by which the jobs share memory and parallel workers."""

    @property
    def spaces(self) -> set[str]:
        """The tablespaces that the builds name."""
        planned = (step.planned for step in self.steps if step.action in BUILDS)
        return {
            item.index.tablespace
            for item in planned
            if isinstance(item, CreateIndex) and item.index.tablespace
        }


class Crew:
    """The work of a run, done in threads of its own."""

    def __init__(
        self,
        target: Target,
        settings: Settings,
        lock: RunnerLock,
        tender: Tender,
        journal: Journal | None,
    ):
        self._target = target
        self._settings = settings
        self._lock = lock
        self._tender = tender
        self._journal = journal
        self._failed = threading.Event()
        self._guard = threading.Lock()
        self._outcomes: dict[int, tuple[Outcome, ...]] = {}
        self._analyzed: list[str] = []
        self._warnings: list[str] = []

    def work(self, orders: Orders) -> Applied:
        """Run the steps; the first that fails lets nothing more begin."""
        waiting = deque(chains(orders.steps, orders.sizes, self._settings.jobs))
        jobs = min(self._settings.jobs, len(waiting))
        if jobs < 2:
            self._take(waiting, orders)
        else:
            with ThreadPoolExecutor(jobs, "indexlab-job") as pool:
                for job in [pool.submit(self._take, waiting, orders) for _ in range(jobs)]:
                    job.result()
        self._leave_out(orders)
        told_ = tuple(item for n in sorted(self._outcomes) for item in self._outcomes[n])
        unfinished = bool(self._warnings) or any(item.outcome in UNFINISHED for item in told_)
        applied = Applied(
            told_,
            executed=True,
            interrupted=self._tender.stopping and unfinished,
            analyzed=tuple(self._analyzed),
            warnings=tuple(self._warnings),
            estimate=sum(orders.sizes.values()),
        )
        if self._journal is not None:
            self._journal.end(complete=applied.complete, interrupted=applied.interrupted)
        return applied

    def _take(self, waiting: deque[Chain], orders: Orders) -> None:
        given = (self._target, self._settings, self._lock, self._tender, orders.share)
        with closing(Worker(*given)) as worker:
            while True:
                try:
                    chain = waiting.popleft()
                except IndexError:
                    return
                try:
                    self._follow(worker, chain, orders)
                except BaseException:
                    self._failed.set()
                    raise

    def _follow(self, worker: Worker, chain: Chain, orders: Orders) -> None:
        for number in chain:
            if self._failed.is_set() or self._tender.stopping:
                break
            self._step(worker, number, orders)
        self._analyze(worker, chain, orders)

    def _step(self, worker: Worker, number: int, orders: Orders) -> None:
        step = orders.steps[number]
        worker.parts = []
        self._tender.forget_waits(step)
        started = time.monotonic()
        changing = step.action not in ("exists", "skip")
        try:
            if changing and not self._may_begin(worker, step, orders):
                done = outcome(step, "not_run", error="interrupted", note="")
            else:
                if changing and self._journal is not None:
                    self._journal.intend(step, number)
                    worker.note = partial(self._journal.part, number=number)
                done = worker.carry_out(step)
        except (psycopg.OperationalError, TargetError) as error:  # the server does not come back
            done = _unknown(step, error)
        seconds = time.monotonic() - started if done.attempts else 0.0
        waits = tuple(dict.fromkeys([*done.waited_for, *self._tender.waits(step)]))
        done = replace(done, seconds=seconds, waited_for=waits)
        if done.outcome in UNFINISHED:
            self._failed.set()
        self._keep(number, step, (*worker.parts, done), changing=changing)

    def _keep(
        self, number: int, step: Step, outcomes: tuple[Outcome, ...], *, changing: bool
    ) -> None:
        if changing and self._journal is not None:
            for part in outcomes[:-1]:
                self._journal.part(part, number)
            self._journal.close(outcomes[-1], number)
        with self._guard:
            self._outcomes[number] = outcomes
        for item in outcomes:
            self._tender.tell(Event("end", step, item.attempts, outcome=item))

    def _may_begin(self, worker: Worker, step: Step, orders: Orders) -> bool:
        """Wait until nothing is against a step; False where the run ends first."""
        settings = self._settings
        if not (settings.max_lag or settings.min_free or settings.window):
            return True
        if step.action not in (*BUILDS, "drop", "constraint"):
            return True
        spaces = orders.spaces

        def asked(conn: psycopg.Connection[object]) -> str:
            return care.objection(conn, settings, spaces, datetime.now().astimezone())

        while objection := worker.asking(asked):
            if self._tender.stopping or self._failed.is_set():
                return False
            self._tender.tell(Event("pause", step, detail=objection))
            self._tender.pause(WATCH_SECONDS)
        return not self._tender.stopping

    def _analyze(self, worker: Worker, chain: Chain, orders: Orders) -> None:
        touched: dict[RelationName, Step] = {}
        for number in chain:
            step = orders.steps[number]
            built = number in self._outcomes and self._outcomes[number][-1].outcome == "built"
            if built and _deserves_statistics(step, self._settings) and step.on is not None:
                touched[step.on] = step
        for table, step in touched.items():
            failure = worker.attempt(step, _analyze_sql(table), 1, kind="analyze")
            with self._guard:
                if failure is None:
                    self._analyzed.append(str(table))
                    continue
                why = "interrupted" if self._tender.stopping else told(failure)
                self._warnings.append(f"{table} has no new statistics, ANALYZE it: {why}")

    def _leave_out(self, orders: Orders) -> None:
        """Say of each step that was not begun why."""
        reason = "a step before it failed" if self._failed.is_set() else "interrupted"
        for number, step in enumerate(orders.steps):
            if number not in self._outcomes:
                done = outcome(step, "not_run", error=reason, note="")
                self._keep(number, step, (done,), changing=False)


def _deserves_statistics(step: Step, settings: Settings) -> bool:
    if not isinstance(step.planned, CreateIndex) or step.action not in BUILDS:
        return False
    expression = any(key.column is None for key in step.planned.index.keys)
    return settings.analyze or expression


def _analyze_sql(table: RelationName) -> str:
    return compose.SQL("ANALYZE {}").format(identifier(table)).as_string(None)


def _unknown(step: Step, error: Exception) -> Outcome:
    reason = f"{told(error)}; whether {step.index} stands is not known, run again to see"
    facts: dict[str, object] = {"attempts": 1, "error": reason, "note": ""}
    if step.action in BUILDS:
        facts |= {"definition": step.statement, "undo": step.undo}
    return outcome(step, "failed", **facts)
