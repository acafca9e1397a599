"""The engine: Dask distributed, of this machine or of many, and what it tells of its tasks."""

from __future__ import annotations

import logging
import os
import queue
import re
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from indexlab.batch import workers
from indexlab.batch.stores import Store
from indexlab.batch.tasks import Result, Task, folder
from indexlab.errors import InputError, TargetError
from indexlab.runs import Json

INCOMPLETE = 4
PATIENCE = 60.0
"""Seconds for workers to come, and for a scheduler to answer."""
AHEAD = 2
"""Tasks that are sent before a worker is free, so that none waits for the next."""
RECOUNT = 5.0
"""Seconds between two looks at how many workers there are."""
QUIET = "distributed"
ADDRESS = re.compile(
    r"([a-z][a-z0-9+.-]*://)?[^\s/:@]+:\d{1,5}|[a-z]+://\[[0-9a-fA-F:.%]+\]:\d{1,5}"
)
LOST = "the scheduler was lost while this was being done: resume the batch"


@dataclass(frozen=True, slots=True)
class Told:
    """What a task tells."""

    name: str
    text: str
    fraction: float | None


@dataclass(frozen=True, slots=True)
class Ended:
    """A task that has come to its end."""

    task: Task
    result: Result


Event = Told | Ended


class Crew:
    """The workers of a batch; `opened` makes one."""

    def __init__(self, client: Any, batch: str, dashboard: str):
        self._client = client
        self._batch = batch
        self.dashboard = dashboard
        self._heard: queue.Queue[Any] = queue.Queue()
        self._futures: dict[str, tuple[Any, Task]] = {}
        self._slots = 0
        self._counted = 0.0
        client.subscribe_topic(batch, self._heard.put)

    @property
    def lost(self) -> bool:
        """Whether the scheduler does not answer any more."""
        return str(self._client.status) != "running"

    @property
    def slots(self) -> int:
        """How many tasks are done at once."""
        now = time.monotonic()
        if now - self._counted > RECOUNT and not self.lost:
            self._slots = sum(
                worker["nthreads"]
                for worker in self._client.scheduler_info(n_workers=-1)["workers"].values()
            )
            self._counted = now
        return self._slots

    @property
    def room(self) -> int:
        """How many tasks may be sent now."""
        return self.slots + min(AHEAD, self.slots) - len(self._futures)

    def send(self, task: Task) -> None:
        """Have a task done by some worker."""
        if self.lost:
            self._heard.put((task.run, "lost"))
            self._futures[task.run] = (None, task)
            return
        key = f"{task.stage}-{folder(task.name)}-{task.run.rpartition('/')[2]}-{self._batch}"
        future = self._client.submit(
            workers.perform, self._batch, task.message(), key=key, pure=False, retries=0
        )
        self._futures[task.run] = (future, task)
        future.add_done_callback(lambda _: self._heard.put((task.run, "done")))

    def wait(self, seconds: float) -> tuple[Event, ...]:
        """Return what has happened, after waiting for it at most so long."""
        heard: list[Any] = []
        with suppress(queue.Empty):
            heard.append(self._heard.get(timeout=seconds))
            while True:
                heard.append(self._heard.get_nowait())
        events: list[Event] = []
        for item in heard:
            if isinstance(item, tuple) and isinstance(item[0], str):
                known = self._futures.pop(item[0], None)
                if known is not None:
                    events.append(Ended(known[1], self._result(*known)))
            else:
                message: Json = item[1]
                events.append(Told(message["name"], message["text"], message["fraction"]))
        return tuple(events)

    def _result(self, future: Any, task: Task) -> Result:
        import json

        from distributed import KilledWorker
        from distributed.client import FutureCancelledError

        failed = Result(task.name, "failed", LOST, INCOMPLETE, mark=task.mark)
        if future is None or future.status == "cancelled":
            return failed
        try:
            document = json.loads(future.result(timeout=PATIENCE))
        except KilledWorker:
            reason = "the worker that it ran on died: resume the batch"
            return replace(failed, reason=reason)
        except (FutureCancelledError, TimeoutError, OSError):
            return failed
        except Exception as error:  # noqa: BLE001 - whatever the worker raised is of its process
            return replace(failed, reason=f"the worker failed: {type(error).__name__}: {error}")
        finally:
            with suppress(Exception):
                future.release()
        return replace(Result.of_document(document), again=bool(document["again"]))

    def stop(self) -> None:
        """Have the workers begin nothing more, and interrupt what they do; returns at once."""
        if not self.lost:
            threading.Thread(target=self._tell_to_stop, daemon=True).start()

    def _tell_to_stop(self) -> None:
        with suppress(Exception):  # a worker that is gone has stopped
            self._client.run(workers.stop, self._batch, on_error="ignore")

    def give_up(self) -> tuple[Task, ...]:
        """Wait no longer for what is being done, and return what it is."""
        left = tuple(task for _, task in self._futures.values())
        self._futures.clear()
        return left


def check_address(scheduler: str) -> None:
    """Refuse what cannot be the address of a scheduler; asks nobody.

    Raises:
        InputError: it is none.
    """
    if scheduler and not ADDRESS.fullmatch(scheduler):
        shown = "" if "@" in scheduler else f" {scheduler!r}"
        raise InputError(
            f"--scheduler{shown} is no address: write such as tcp://scheduler.example:8786"
        )


@contextmanager
def opened(
    store: Store, *, jobs: int, scheduler: str, report: bool, dashboard: str = "127.0.0.1:0"
) -> Iterator[Crew]:
    """Hold the workers of a batch: processes of this machine, or those of a scheduler.

    Args:
        store: where the batch is kept.
        jobs: how many processes, on this machine.
        scheduler: address of one that runs; empty makes workers here, on the loopback interface.
        report: whether the tasks run notebooks.
        dashboard: where the workers' web page goes, on this machine.

    Raises:
        TargetError: the scheduler does not answer, has no workers, or they lack the kit.
    """
    batch = secrets.token_hex(4)
    with ExitStack() as stack:
        client = stack.enter_context(
            _connected(scheduler) if scheduler else _local(jobs, dashboard, stack)
        )
        from indexlab.batch.plugin import Plugin

        plugin = Plugin(batch, store.url, report=report, own=not scheduler)
        try:
            client.register_plugin(plugin)
        except Exception as error:  # noqa: BLE001 - an import on another machine fails in many ways
            raise TargetError(
                f"the workers of {scheduler or 'this machine'} cannot do this work "
                f"({type(error).__name__}: {error}): install the same indexlab there"
            ) from None
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError:
            raise TargetError(
                f"the scheduler {scheduler!r} has no workers: start some with `dask worker`"
            ) from None
        crew = Crew(client, batch, client.dashboard_link)
        try:
            yield crew
        finally:
            if scheduler and not crew.lost:
                with suppress(Exception):  # it is only tidying up
                    client.unregister_worker_plugin(plugin.name)


@contextmanager
def _connected(scheduler: str) -> Iterator[Any]:
    from distributed import Client

    try:
        client = Client(scheduler, timeout=PATIENCE / 4, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise TargetError(
            f"the scheduler {scheduler!r} does not answer: {' '.join(str(error).split())}"
        ) from None
    logging.getLogger(QUIET).setLevel(logging.CRITICAL)
    try:
        yield client
    finally:
        client.close(timeout=10)


@contextmanager
def _local(jobs: int, dashboard: str, stack: ExitStack) -> Iterator[Any]:
    """Make workers on the loopback interface; TLS keeps other users of the machine out."""
    import dask
    from distributed import Client, LocalCluster, Security

    logging.getLogger(QUIET).setLevel(logging.CRITICAL)
    private = stack.enter_context(
        tempfile.TemporaryDirectory(prefix="indexlab-batch-", ignore_cleanup_errors=True)
    )
    stack.enter_context(
        dask.config.set(
            {
                "distributed.scheduler.allowed-failures": 0,  # who failed is told, not tried again
                "distributed.worker.memory.terminate": False,
                # Watching themselves a hundred times a second is most of what idle workers do.
                "distributed.worker.profile.enabled": False,
                "distributed.admin.tick.interval": "1s",
                "distributed.admin.system-monitor.interval": "10s",
            }
        )
    )
    cluster = stack.enter_context(
        LocalCluster(
            n_workers=jobs,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=dashboard,
            worker_dashboard_address=None,
            security=Security.temporary(),
            silence_logs=logging.CRITICAL,
            local_directory=private,
            memory_limit=0,
        )
    )
    with Client(cluster, set_as_default=False, timeout=PATIENCE) as client:
        yield client


def processors() -> int:
    """Return how many processes this machine can run at once."""
    return len(os.sched_getaffinity(0))
