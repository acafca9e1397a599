"""A process that has imported everything, and forks one child for each task.

So a task begins at once, with nothing left over from another one, in the main thread of a process
that a signal reaches: an interrupt ends an apply as Ctrl-C does, and a task that hangs is killed.

Lines of JSON come in: `{"task": ...}` begins one, `{"signal": number}` goes to it. Lines go out:
`{"told": text, "fraction": f}` and `{"result": ...}` from the child, `{"ended": status}` when it is
gone. At the end of the input the child is told to end, and may put things in order.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from contextlib import ExitStack, suppress
from types import FrameType
from typing import Any, NoReturn

from indexlab.batch.tasks import Result, Task

PATIENCE = 90.0
"""Seconds that a child may take to put things in order when its worker is gone."""
TELLING = 0.25
"""Seconds between two things that a task tells."""
PARENT_DIED = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
PRELOADED = ("numpy", "numpy.random")
"""What the stages import on demand: once here, instead of in every child."""
PRELOADED_FOR_REPORTS = ("papermill", "nbformat", "nbconvert", "jupyter_client", "nbclient")
NEEDS_SERVERS = ("audit", "apply", "run")


class Nursery:
    """Forks children, one at a time."""

    def __init__(self, channel: int):
        self._channel = channel
        self._child: int | None = None
        self._servers: ExitStack | None = None
        self._input = b""
        self._wake, wake = socket.socketpair()
        for end in (self._wake, wake):
            end.settimeout(0)
        self._waking = wake
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def serve(self) -> None:
        """Work until the input ends."""
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._wake:
                        with suppress(BlockingIOError):
                            self._wake.recv(4096)
                        self._reap()
                    elif not self._hear():
                        self._end()
                        if self._servers is not None:
                            self._servers.close()
                        return

    def _hear(self) -> bool:
        """Take orders; return False at the end of the input."""
        read = os.read(0, 1 << 16)
        *lines, self._input = (self._input + read).split(b"\n")
        for line in lines:
            order = json.loads(line)
            if "task" in order:
                self._begin(Task.of_message(json.dumps(order["task"])))
            elif self._child is not None:
                self._signal(order["signal"])
        return bool(read)

    def _signal(self, number: int) -> None:
        assert self._child is not None
        with suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self._child, number)
            else:
                os.kill(self._child, number)

    def _begin(self, task: Task) -> None:
        if self._servers is None and task.stage in NEEDS_SERVERS:
            self._servers = _held_servers()
        child = os.fork()
        if child == 0:
            self._be_child(task)
        with suppress(OSError):  # the child does it, too; whoever is first
            os.setpgid(child, child)
        self._child = child

    def _be_child(self, task: Task) -> NoReturn:
        """Do a task in the child, which never returns."""
        code = 1
        try:
            _settle()
            self._wake.close()
            self._waking.close()
            _work(task, self._channel)
            code = 0
        finally:
            os._exit(code)

    def _reap(self) -> None:
        if self._child is None:
            return
        found, status = os.waitpid(self._child, os.WNOHANG)
        if found:
            self._child = None
            _send(self._channel, {"ended": os.waitstatus_to_exitcode(status)})

    def _end(self) -> None:
        if self._child is None:
            return
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        with suppress(BrokenPipeError):
            while self._child is not None and time.monotonic() < deadline:
                with selectors.DefaultSelector() as selector:
                    selector.register(self._wake, selectors.EVENT_READ)
                    selector.select(1)
                self._reap()
        if self._child is not None:
            self._signal(signal.SIGKILL)


def _settle() -> None:
    """Make a fork a process of its own, that hears of interrupts and of its parent's end."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _terminate)
    os.setpgid(0, 0)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PARENT_DIED, signal.SIGTERM)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    random.seed()


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _work(task: Task, channel: int) -> None:
    from indexlab.batch import work

    guard = threading.Lock()
    told = [0.0]

    def tell(text: str, fraction: float | None = None) -> None:
        now = time.monotonic()
        with guard:
            if not text or now - told[0] < TELLING:
                return
            told[0] = now
            with suppress(BrokenPipeError):
                _send(channel, {"told": str(text)[:500], "fraction": fraction})

    try:
        result = work.perform(task, tell)
    except BaseException as error:  # noqa: BLE001 - a fault of one target ends no other's work
        traceback.print_exc()
        reason = "interrupted" if isinstance(error, KeyboardInterrupt) else _fault(error)
        result = Result(task.name, "failed", reason, work.INCOMPLETE, mark=task.mark)
    with guard, suppress(BrokenPipeError):
        _send(channel, {"result": result.document() | {"again": result.again}})


def _fault(error: BaseException) -> str:
    """Say where the kit is at fault; not what the error says, which may hold anything."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""  # noqa: PTH119
    return f"indexlab itself failed: {type(error).__name__}{place}"


def _send(channel: int, message: dict[str, Any]) -> None:
    line = json.dumps(message).encode() + b"\n"
    while line:
        line = line[os.write(channel, line) :]


def _held_servers() -> ExitStack:
    """Hold the embedded servers that audits ask, so that they need not start for each.

    What a task makes on them is its own, and is gone with it: a transaction that is rolled back,
    a database in which everything is dropped.
    """
    from indexlab import embedded
    from indexlab.errors import EmbeddedError
    from indexlab.sandbox import databases

    stack = ExitStack()
    with suppress(EmbeddedError):  # the audit says what that means
        stack.enter_context(embedded.server())
        sandboxes = stack.enter_context(databases.cluster())
        stack.enter_context(databases.in_series(sandboxes))
    return stack


def main(out: str, report: str) -> None:
    """Be the nursery of one worker.

    Args:
        out: where the batch is kept.
        report: `report` if there will be notebooks.
    """
    channel = os.dup(1)
    os.dup2(2, 1)  # what anybody prints is no message
    import importlib

    from indexlab.batch import stores

    importlib.import_module("indexlab.batch.work")
    stores.preload(out)
    for name in (*PRELOADED, *(PRELOADED_FOR_REPORTS if report == "report" else ())):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a child would look at all that was loaded, and so copy its pages
    _send(channel, {"ready": os.getpid()})
    Nursery(channel).serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
