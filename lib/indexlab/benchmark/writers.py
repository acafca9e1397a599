"""Writers beside something else, such as a build: what they notice of it."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psycopg

from indexlab import display, embedded, units
from indexlab import target as targets
from indexlab.benchmark import load
from indexlab.errors import InputError, TargetError
from indexlab.records import Record
from indexlab.target import Target
from indexlab.workload import SampledQuery

if TYPE_CHECKING:
    import pandas as pd

CLIENTS = 4
AROUND_SECONDS = 3.0
"""How long they write before and after."""
LONGEST_SECONDS = 86_400
LOOK_SECONDS = 0.02
ENDING_SECONDS = 30.0
APPLICATION = "indexlab writers"

Phase = Literal["before", "while", "after"]


@dataclass(frozen=True, slots=True)
class Written(Record):
    """The latencies of one phase, in ms."""

    phase: Phase
    done: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class Writers(Record):
    """What writers saw before, while and after something else went on."""

    rate: float
    """Transactions per second that were scheduled."""
    seconds: float
    """How long the other thing took."""
    points: tuple[tuple[float, float], ...]
    """When each transaction was scheduled, in seconds since the other thing began, and its latency
    from then on, in ms. Negative moments are those before it."""
    late: int
    """Transactions that failed."""
    longest_wait: float
    """Seconds that a writer waited for a lock that a session of the kit held or queued for; shorter
    waits than the pause between two looks are not seen."""
    looks: int
    """How often that was looked for."""
    trouble: str = ""
    """Why they ended before they should have; empty where they did not."""

    def latencies(self, phase: Phase) -> tuple[float, ...]:
        """Return the latencies of the transactions that were scheduled in a phase, in ms; pure."""
        low, high = {
            "before": (float("-inf"), 0.0),
            "while": (0.0, self.seconds),
            "after": (self.seconds, float("inf")),
        }[phase]
        return tuple(ms for at, ms in self.points if low <= at < high)

    @property
    def phases(self) -> tuple[Written, ...]:
        """The phases in which something was written; pure."""
        import numpy as np

        names: tuple[Phase, ...] = ("before", "while", "after")
        found = []
        for name in names:
            if times := self.latencies(name):
                p50, p95, p99 = (float(value) for value in np.percentile(times, [50, 95, 99]))
                found.append(Written(name, len(times), p50, p95, p99, max(times)))
        return tuple(found)

    @property
    def waits(self) -> str:
        """Say how long a writer waited for the kit."""
        looks = f"{units.plural(self.looks, 'look')} at pg_locks"
        if not self.longest_wait:
            return f"No writer was seen waiting for a lock of indexlab, in {looks}."
        return (
            "The longest wait of a writer for a lock that indexlab held or queued for was "
            f"{units.duration(self.longest_wait)}, in {looks}."
        )

    def frame(self) -> pd.DataFrame:
        """Return the phases as a pandas DataFrame, one row each.

        Columns: `phase`; `done`, writes; `p50_ms`, `p95_ms`, `p99_ms` and `max_ms`, latencies from
        the scheduled start in milliseconds.
        """
        import pandas as pd

        columns = ["phase", "done", "p50_ms", "p95_ms", "p99_ms", "max_ms"]
        rows = [[getattr(item, column) for column in columns] for item in self.phases]
        return pd.DataFrame(rows, columns=columns)

    def __repr__(self) -> str:
        return display.clean(f"<Writers at {self.rate:g} per second: {self.waits}>")

    def _repr_html_(self) -> str:
        rows = [
            (
                item.phase,
                units.count(item.done),
                *(units.ms(ms) for ms in (item.p50_ms, item.p95_ms, item.p99_ms, item.max_ms)),
            )
            for item in self.phases
        ]
        caption = (
            f"Writes of the workload, each rolled back, at {self.rate:g} per second; latency from "
            "the scheduled start"
        )
        columns = ("the build", "writes", "p50", "p95", "p99", "longest")
        shown = display.table(columns, rows, caption=caption, numeric=columns[1:])
        failed = f"{units.plural(self.late, 'write')} failed." if self.late else ""
        ended = f"The writers ended early: {self.trouble}" if self.trouble else ""
        told = " ".join(filter(None, (self.waits, failed, ended)))
        return f"{shown}<p>{display.escape(told)}</p>"


class Beside:
    """Writers that are at work, and what they saw once they have ended."""

    def __init__(self, rate: float):
        self._rate = rate
        self._began = self._over = 0.0
        self.result: Writers | None = None
        """Set at the end; None where the other thing raised."""

    def begin(self) -> None:
        """Note that the other thing begins now."""
        self._began = time.time()

    def end(self) -> None:
        """Note that it is over."""
        self._over = time.time()

    def read(self, place: Path, watch: _Watch, trouble: str) -> None:
        """Read what pgbench and the look-out have found."""
        points, late = _read(place)
        self.result = Writers(
            rate=self._rate,
            seconds=self._over - self._began,
            points=tuple(sorted((at - self._began, ms) for at, ms in points)),
            late=late,
            longest_wait=watch.longest,
            looks=watch.looks,
            trouble=trouble,
        )


def check(rate: float, sampled: Sequence[SampledQuery], *, disposable: bool) -> None:
    """Check what was asked for; pure.

    Raises:
        InputError: the target is not to be written to, or the workload writes nothing.
    """
    if not 0 < rate <= 1e6:
        raise InputError(f"the rate of the writers {rate!r} is not from 0 to 1,000,000 per second")
    if not disposable:
        raise InputError(
            "writers are put on a disposable target only: the demo, or one that --disposable calls so"
        )
    if not _writes(sampled):
        raise InputError("the workload has no writes that writers could send: write one in it")


@contextmanager
def beside(
    target: Target,
    sampled: Sequence[SampledQuery],
    *,
    rate: float,
    around: float = AROUND_SECONDS,
    seed: int = 0,
) -> Iterator[Beside]:
    """Write at a fixed rate, each transaction rolled back, while the body runs.

    Starts are scheduled as a Poisson process and a latency counts from the scheduled start, so
    that a server that stalls does not get the waiting of those behind for free. The body calls
    `begin` and `end` of what it gets around what it is about; `result` is there afterwards.

    Args:
        target: disposable; `check` has been asked.
        sampled: the workload's queries with their values; its writes are sent by their weights.
        rate: transactions per second, all together.
        around: seconds that they write before and after.
        seed: of the choice of queries.

    Raises:
        TargetError: pgbench cannot run, or a write fails before anything else has begun.
    """
    found = Beside(rate)
    with tempfile.TemporaryDirectory(prefix="indexlab-writers-") as private:
        place = Path(private)
        with (
            _pgbench(target, _writes(sampled), place, rate, seed) as process,
            _Watch(target) as watch,
        ):
            watch.await_writers(process)
            if process.poll() is None:
                time.sleep(around)  # part of the measurement: how it is without the build
            if process.poll() is not None:
                raise TargetError(f"the writers have stopped: {_said(process, target)}")
            yield found
            time.sleep(around)
            trouble = "" if process.poll() is None else _said(process, target)
            _finish(process)
        found.read(place, watch, trouble)


def _writes(sampled: Sequence[SampledQuery]) -> list[SampledQuery]:
    return [one for one in sampled if one.values and one.query.kind == "write"]


@contextmanager
def _pgbench(
    target: Target, writes: Sequence[SampledQuery], place: Path, rate: float, seed: int
) -> Iterator[subprocess.Popen[str]]:
    options = "-c statement_timeout=60000 -c lock_timeout=0"
    address, environment = load.access(target, options, application_name=APPLICATION)
    process = subprocess.Popen(
        [
            *(str(embedded.binary("pgbench")), "--no-vacuum", "--protocol=prepared", "--log"),
            *(f"--log-prefix={place / 'log'}", f"--client={CLIENTS}", f"--random-seed={seed}"),
            *(f"--rate={rate:g}", f"--time={LONGEST_SECONDS}"),
            *(f"--file={file}@{weight}" for file, weight in load.scripts_of(writes, place)),
            address,
        ],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the build, which cleans up first
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _finish(process: subprocess.Popen[str]) -> None:
    """Have pgbench end as if its time were over, so that it writes its log to the end."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGALRM)
    try:
        process.wait(ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()  # the end of its log is lost then, which is some hundred transactions


def _said(process: subprocess.Popen[str], target: Target) -> str:
    assert process.stderr is not None
    lines = process.stderr.read().strip().splitlines()
    reason = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "")
    for secret in target.secrets():
        reason = reason.replace(secret, "***")
    return reason


def _read(place: Path) -> tuple[list[tuple[float, float]], int]:
    """Read pgbench's log: when each transaction was scheduled (epoch), its latency in ms."""
    points, late = [], 0
    for file in place.glob("log.*"):
        for line in file.read_text().splitlines():
            fields = line.split()
            if len(fields) < 6:
                continue  # cut off, where it had to be killed
            if not fields[2].isdigit():
                late += 1
                continue
            took = int(fields[2]) / 1e6
            points.append((int(fields[4]) + int(fields[5]) / 1e6 - took, took * 1000))
    return points, late


# Who waits behind a request that queues is blocked by it, too.
LOOK = """
SELECT w.pid,
       w.wait_event_type IS NOT DISTINCT FROM 'Lock'
       AND pg_catalog.pg_blocking_pids(w.pid) && ARRAY(
               SELECT k.pid
                 FROM pg_catalog.pg_stat_activity AS k
                WHERE k.datname = pg_catalog.current_database()
                  AND k.application_name = 'indexlab apply'
                ORDER BY k.pid) AS waits
  FROM pg_catalog.pg_stat_activity AS w
 WHERE w.datname = pg_catalog.current_database()
   AND w.application_name = %s
 ORDER BY w.pid
"""


class _Watch:
    """Looks fifty times a second for writers that wait for a lock of the kit."""

    def __init__(self, target: Target):
        self._target = target
        self._stop = threading.Event()
        self._there = threading.Event()
        self._thread = threading.Thread(target=self._run, name="indexlab-writers", daemon=True)
        self.longest = 0.0
        self.looks = 0

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def await_writers(self, process: subprocess.Popen[str]) -> None:
        """Return when they are connected, or gone, or cannot be looked for."""
        deadline = time.monotonic() + ENDING_SECONDS
        while not self._there.wait(LOOK_SECONDS):
            if process.poll() is not None or time.monotonic() > deadline:
                return

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with targets.connect(self._target, read_only=True, purpose="look-out") as conn:
                    self._look(conn)
            except (psycopg.Error, TargetError):
                self._stop.wait(1.0)  # the server is away; the build has its own words for it

    def _look(self, conn: psycopg.Connection[Any]) -> None:
        since: dict[int, float] = {}
        while not self._stop.wait(LOOK_SECONDS):
            rows = conn.execute(LOOK, [APPLICATION]).fetchall()
            now = time.monotonic()
            if rows:
                self._there.set()
            since = {pid: since.get(pid, now) for pid, waits in rows if waits}
            self.longest = max([self.longest, *(now - began for began in since.values())])
            self.looks += 1
