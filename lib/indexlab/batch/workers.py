"""The part of a Dask worker: hands tasks to a nursery, watches the clock, passes on what is told."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from indexlab.batch.tasks import CHANGING, Result, Task, not_run

GRACE, GRACE_OF_CHANGES = 15.0, 90.0
"""Seconds from an interrupt to the end of a task: apply drops what it has half built."""
START = 120.0
"""Seconds for a nursery to import everything."""
INTERRUPTED = "the batch was interrupted before it began"
INCOMPLETE = 4

Told = Callable[[str, float | None], None]


class NurseryLost(Exception):
    """The process that forks is gone."""


class Nursery:
    """A nursery process, seen from the worker."""

    def __init__(self, out: str, *, report: bool):
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "indexlab.batch.nursery"),
                *(out, "report" if report else "no report"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        self._rest = b""
        self._lines: list[bytes] = []
        deadline = time.monotonic() + START
        while "ready" not in (self.hear(deadline) or {}):
            if time.monotonic() > deadline:
                self.close()
                raise NurseryLost("it does not start")

    def send(self, order: dict[str, Any]) -> None:
        """Send an order."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise NurseryLost(self._last_words()) from None

    def hear(self, deadline: float | None) -> dict[str, Any] | None:
        """Wait for the next message; None when the deadline, by the monotonic clock, has passed."""
        while not self._lines:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._selector.select(left):
                return None
            assert self._process.stdout is not None
            read = os.read(self._process.stdout.fileno(), 1 << 16)
            if not read:
                raise NurseryLost(self._last_words())
            *self._lines, self._rest = (self._rest + read).split(b"\n")
        message: dict[str, Any] = json.loads(self._lines.pop(0))
        return message

    def _last_words(self) -> str:
        with suppress(OSError, ValueError):
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            return lines[-1][-300:] if lines else ""
        return ""

    def close(self) -> None:
        """Let it end, with its child; waits for neither."""
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        self._selector.close()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()


@dataclass(slots=True)
class _Running:
    nursery: Nursery
    interrupted: bool = False


class Ward:
    """The nurseries of one worker process for one batch, and whether it goes on."""

    def __init__(self, out: str, *, report: bool):
        self._out, self._report = out, report
        self._guard = threading.Lock()
        self._idle: list[Nursery] = []
        self._running: list[_Running] = []
        self._stopped = False

    def perform(self, task: Task, tell: Told) -> Result:
        """Have a task done, within its time."""
        with self._guard:
            if self._stopped:
                return not_run(task.name, INTERRUPTED)
            nursery = self._idle.pop() if self._idle else None
        try:
            running = _Running(nursery or Nursery(self._out, report=self._report))
        except NurseryLost as error:
            return _lost(task, str(error))
        with self._guard:
            self._running.append(running)
            if self._stopped:
                running.interrupted = True
        try:
            result = _watched(task, running, tell)
        except NurseryLost as error:
            with self._guard:
                self._running.remove(running)
            running.nursery.close()
            return _lost(task, str(error))
        with self._guard:
            self._running.remove(running)
            self._idle.append(running.nursery)
        return result

    def stop(self) -> None:
        """Begin nothing more, and interrupt what is being done."""
        with self._guard:
            self._stopped = True
            for running in self._running:
                running.interrupted = True
                with suppress(NurseryLost):
                    running.nursery.send({"signal": signal.SIGINT})

    def close(self) -> None:
        """Let the nurseries end."""
        with self._guard:
            for nursery in self._idle:
                nursery.close()
            self._idle.clear()


def _lost(task: Task, words: str) -> Result:
    said = f": {words}" if words else ""
    return Result(
        task.name,
        "failed",
        f"the process that worked on it was killed{said}",
        INCOMPLETE,
        mark=task.mark,
    )


def _watched(task: Task, running: _Running, tell: Told) -> Result:
    """Follow a task to its end: interrupted when its time is over, killed when that is no use."""
    grace = GRACE_OF_CHANGES if task.execute and task.stage in CHANGING else GRACE
    deadline = None if task.timeout is None else time.monotonic() + task.timeout
    nursery = running.nursery
    nursery.send({"task": json.loads(task.message())})
    if running.interrupted:
        nursery.send({"signal": signal.SIGINT})
    over = killed = False
    result: Result | None = None
    while True:
        if running.interrupted and not over:
            deadline, over = time.monotonic() + grace, True
        wake = time.monotonic() + 1
        message = nursery.hear(wake if deadline is None else min(deadline, wake))
        if message is None:
            if deadline is None or time.monotonic() < deadline:
                continue
            killed = over
            nursery.send({"signal": signal.SIGKILL if over else signal.SIGINT})
            deadline, over = time.monotonic() + grace, True
        elif "told" in message:
            tell(message["told"], message["fraction"])
        elif "result" in message:
            result = Result.of_document(message["result"])
        elif "ended" in message:
            return _ended(
                task, result, message["ended"], killed=killed, late=over and not running.interrupted
            )


def _ended(task: Task, result: Result | None, code: int, *, killed: bool, late: bool) -> Result:
    if result is None:
        how = f"by signal {-code}" if code < 0 else f"with {code}"
        why = "did not end when it was interrupted, and was killed" if killed else f"ended {how}"
        result = Result(
            task.name, "failed", f"its process {why}", INCOMPLETE, run=None, mark=task.mark
        )
    if late:
        reason = f"not done within {task.timeout:g} s: {result.reason or 'interrupted'}"
        return replace(result, status="failed", exit=INCOMPLETE, reason=reason, again=False)
    return result


# What Dask calls, by name, in the process of a worker

_wards: dict[str, Ward] = {}


def open_ward(batch: str, out: str, *, report: bool) -> None:
    """Get ready for the tasks of a batch on this worker."""
    _wards[batch] = Ward(out, report=report)


def close_ward(batch: str) -> None:
    """Let go of all that the tasks of a batch needed."""
    ward = _wards.pop(batch, None)
    if ward is not None:
        ward.close()


def perform(batch: str, message: str) -> str:
    """Do a task of a batch on this worker."""
    from distributed import get_worker

    worker, task = get_worker(), Task.of_message(message)

    def tell(text: str, fraction: float | None) -> None:
        worker.log_event(batch, {"name": task.name, "text": text, "fraction": fraction})

    tell("started", None)
    result = _wards[batch].perform(task, tell)
    return json.dumps(result.document() | {"again": result.again})


def stop(batch: str) -> None:
    """Begin nothing more of a batch on this worker, and interrupt what is being done."""
    ward = _wards.get(batch)
    if ward is not None:
        ward.stop()
