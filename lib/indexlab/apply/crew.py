"""Run all steps: chains of them side by side, and what has to be done around each."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

import psycopg
from psycopg import sql as compose

from indexlab.apply import care
from indexlab.apply.failures import told
from indexlab.apply.journal import Journal
from indexlab.apply.lock import RunnerLock
from indexlab.apply.outcomes import UNFINISHED, Applied, Outcome
from indexlab.apply.schedule import Chain, chains
from indexlab.apply.settings import Settings
from indexlab.apply.sharing import Errands, Workers
from indexlab.apply.statements import identifier
from indexlab.apply.steps import BUILDS, CHANGES, Step
from indexlab.apply.tender import WATCH_SECONDS, Event, Tender
from indexlab.apply.worker import Work, Worker, outcome
from indexlab.errors import TargetError
from indexlab.plan import CreateIndex
from indexlab.sql import RelationName
from indexlab.target import Target

PARALLEL = "max_parallel_maintenance_workers"


@dataclass(frozen=True, slots=True)
class Orders:
    """What a run is to do and what was found out before it."""

    steps: tuple[Step, ...]
    sizes: Mapping[int, int]
    """Estimated bytes by number of step."""
    memory: Mapping[str, str]
    """Settings by which the jobs share memory."""
    workers: int | None = None
    """Parallel workers that the jobs share; None where the only job has what its session has."""

    @property
    def spaces(self) -> set[str]:
        """The tablespaces that the builds name."""
        planned = (step.planned for step in self.steps if step.action in BUILDS)
        return {
            item.index.tablespace
            for item in planned
            if isinstance(item, CreateIndex) and item.index.tablespace
        }


class _Queue:
    """What the jobs take from: chains, what others hand out, parallel workers."""

    def __init__(self, waiting: deque[Chain], orders: Orders, jobs: int):
        self.orders = orders
        self.errands: Errands[Worker] = Errands(jobs)
        self._waiting = waiting
        first = [(chain, self._bytes(chain)) for chain in (*waiting,)[:jobs]]
        self._workers = Workers(orders.workers, first) if orders.workers is not None else None

    def next(self) -> Chain | None:
        """Take the chain that is next; None when all are taken."""
        try:
            return self._waiting.popleft()
        except IndexError:
            return None

    def equip(self, worker: Worker, job: Hashable, left: Chain) -> None:
        """Give a job its share of memory and parallel workers for its next statement.

        Args:
            worker: who carries it out.
            job: the chain, or the help that a worker gives to one.
            left: the steps of the chain that are not done.
        """
        if self._workers is not None:
            number = self._workers.take(job, self._bytes(left))
            worker.share = {**self.orders.memory, PARALLEL: str(number)}

    def end(self, job: Hashable) -> None:
        """Let others have a job's share of parallel workers."""
        if self._workers is not None:
            self._workers.leave(job)

    def _bytes(self, chain: Chain) -> float:
        return float(sum(self.orders.sizes.get(number, 0) for number in chain))


class Crew:
    """The work of a run, done in threads of its own."""

    def __init__(
        self,
        target: Target,
        settings: Settings,
        lock: RunnerLock,
        tender: Tender,
        *,
        journal: Journal | None,
        session: psycopg.Connection[Any],
    ):
        """Get ready.

        Args:
            target: the database.
            settings: of the run.
            lock: held by the run.
            tender: who watches what the jobs send.
            journal: None keeps nothing.
            session: open and idle, for the job that begins first; it is not closed here.
        """
        self._target = target
        self._settings = settings
        self._lock = lock
        self._tender = tender
        self._journal = journal
        self._sessions = [session]
        self._failed = threading.Event()
        self._guard = threading.Lock()
        self._outcomes: dict[int, tuple[Outcome, ...]] = {}
        self._analyzed: list[str] = []
        self._warnings: list[str] = []
        self._delays = care.Delays()

    def work(self, orders: Orders) -> Applied:
        """Run the steps; the first that fails lets nothing more begin."""
        jobs = self._settings.jobs
        waiting = deque(chains(orders.steps, orders.sizes, jobs))
        if not any(step.action == "parts" for step in orders.steps):
            jobs = min(jobs, len(waiting))  # nobody would hand anything out
        if jobs < 2:
            self._take(_Queue(waiting, orders, 1))
        else:
            queue = _Queue(waiting, orders, jobs)
            with ThreadPoolExecutor(jobs, "indexlab-job") as pool:
                for job in [pool.submit(self._take, queue) for _ in range(jobs)]:
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

    def _take(self, queue: _Queue) -> None:
        given = (self._target, self._settings, self._lock, self._tender, queue.orders.memory)
        with closing(Worker(*given)) as worker:
            worker.cleared = lambda step: self._may_begin(worker, step, queue.orders)
            with self._guard:
                if self._sessions:
                    worker.adopt(self._sessions.pop())
            try:
                while (chain := queue.next()) is not None:
                    self._follow(worker, chain, queue)
            except BaseException:
                self._failed.set()
                raise
            finally:
                queue.errands.help(worker)

    def _follow(self, worker: Worker, chain: Chain, queue: _Queue) -> None:
        worker.together = partial(self._together, queue=queue, chain=chain)
        for place, number in enumerate(chain):
            if self._failed.is_set() or self._tender.stopping:
                break
            queue.equip(worker, chain, chain[place:])
            self._step(worker, number, queue.orders)
        queue.end(chain)
        self._analyze(worker, chain, queue.orders)

    def _together(self, leader: Worker, works: Sequence[Work], queue: _Queue, chain: Chain) -> None:
        """Have works of a chain's step done by its job and by those that have no chain any more."""

        def equipped(worker: Worker, work: Work) -> None:
            job = chain if worker is leader else (chain, id(worker))
            queue.equip(worker, job, chain)
            try:
                work(worker)
            finally:
                if worker is not leader:
                    queue.end(job)

        queue.errands.together(leader, [partial(equipped, work=work) for work in works])

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
                    worker.noted = self._journal.intend(step, number)
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
        self._tender.tell(Event("end", step, outcomes[-1].attempts, outcome=outcomes[-1]))

    def _may_begin(self, worker: Worker, step: Step, orders: Orders) -> bool:
        """Wait until nothing is against a step; False where the run ends first."""
        settings = self._settings
        lag = settings.max_lag or settings.max_lag_seconds
        if not (lag or settings.min_free or settings.window):
            return True
        if step.action not in (*BUILDS, "drop", "constraint"):
            return True
        spaces = orders.spaces

        def asked(conn: psycopg.Connection[object]) -> str:
            return care.objection(conn, settings, spaces, datetime.now().astimezone(), self._delays)

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
        if touched and self._journal is not None:
            self._journal.settle()  # what follows may take long
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
    if step.action in CHANGES:
        definition = step.statement if step.action in BUILDS else step.definition
        facts |= {"definition": definition, "undo": step.undo, "restores": step.restores}
    return outcome(step, "failed", **facts)
