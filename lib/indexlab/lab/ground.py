"""What every verb of the lab stands on: the target, the inputs, and what was read of them."""

from __future__ import annotations

import atexit
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from indexlab import audit as auditing
from indexlab import display, redaction, units
from indexlab import target as targets
from indexlab.audit import Audit
from indexlab.benchmark import Measurement, Writers
from indexlab.catalog import Catalog
from indexlab.errors import TargetError
from indexlab.lab.inputs import Resolutions
from indexlab.plan import IndexPlan
from indexlab.planning import Planner, Weighed
from indexlab.progress import Progress
from indexlab.redaction import Veil
from indexlab.runs import Json, Run
from indexlab.target import Server, Target
from indexlab.workload import Workload

LOCK_WAIT = "SET lock_timeout = '2s'"
LOCKED_SECONDS = 60.0
"""How long a locked table may keep the catalog from being read."""


class Ground:
    """Hold the target and the inputs, and read what the verbs of all stages rest on."""

    def __init__(
        self,
        target: Target,
        plan: IndexPlan,
        workload: Workload,
        *,
        resolve: Resolutions,
        run: Run | None,
        disposable: bool,
        server: Server,
        progress: Progress,
        planner: Planner,
        holding: ExitStack,
        veil: Veil = redaction.OFF,
    ):
        self.target = target
        self._plan = plan
        self._workload = workload
        self.resolve = resolve
        self.run = run
        self.disposable = disposable
        self.server = server
        self._progress = progress
        self._planner = planner
        self._holding = holding
        self._veil = veil
        self._busy = False
        self._read: tuple[Catalog, Audit] | None = None
        self._weighed: Weighed | None = None
        # A sandbox holds sampled values of the data: it goes with the process at the latest.
        atexit.register(planner.close)
        self._other: Measurement | None = None
        self._seen: Writers | None = None

    @property
    def plan(self) -> IndexPlan:
        """The plan that was handed in, as it may be seen."""
        return self._veil.result(self._plan)

    @property
    def workload(self) -> Workload:
        """The workload that was handed in, as it may be seen: the verbs work with the true one."""
        return self._veil.result(self._workload)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the sandbox and of the embedded server, if this lab holds them."""
        atexit.unregister(self._planner.close)
        self._planner.close()
        self._holding.close()

    def _reader(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        return targets.connect(self.target, read_only=True, purpose="audit")

    def _ruled(self) -> tuple[Catalog, Audit]:
        """The audit by the rules alone."""
        if self._read is None:
            self._read = self._read_unlocked()
            self._veil.learn_catalog(self._read[0])
        return self._read

    def _read_unlocked(self) -> tuple[Catalog, Audit]:
        """Read and audit, again while a lock of another session keeps the catalog from it.

        Raises:
            TargetError: it has been kept for too long.
        """
        deadline = time.monotonic() + LOCKED_SECONDS
        while True:
            try:
                with self._reader() as conn, self._reader() as other:
                    conn.execute(LOCK_WAIT)
                    return auditing.read(
                        conn,
                        self._plan,
                        self._workload,
                        resolve=self.resolve,
                        other=other,
                        tell=self._progress.tell,
                    )
            except psycopg.errors.LockNotAvailable:
                if time.monotonic() > deadline:
                    raise TargetError(
                        "another session keeps a table locked, so that the catalog cannot be read: "
                        "wait for its end and run again"
                    ) from None
                self._progress.tell("another session has locked a table: reading again")

    def _judged(self) -> tuple[Catalog, Weighed]:
        """The audit, after the workload has been planned."""
        catalog, audit = self._ruled()
        if self._weighed is None:
            self._weighed = self._planner.weigh(catalog, audit)
            self._veil.learn_samples(self._planner.drawn)
        return catalog, self._weighed

    def _write(self, stage: str, document: Json, run: Run | None = None) -> None:
        """Keep a result of this session in the run; a redacted one says so."""
        place = self.run if run is None else run
        if place is not None:
            place.write_json(stage, {**document, "redacted": True} if self._veil.worn else document)

    def _repr_html_(self) -> str:
        rows = [
            ("target", str(self.server)),
            (
                "plan",
                f"{_name(self._plan.source)}: {units.plural(len(self._plan.creates), 'index')}",
            ),
            ("workload", f"{_name(self._workload.source)}: {self._queries()}"),
            ("writes are", "run and rolled back" if self.disposable else "not run"),
            ("run directory", self.run.path.name if self.run else "none: nothing is kept"),
        ]
        return display.table(("", "in this lab"), rows)

    def __repr__(self) -> str:
        return f"<Lab on {self.server}, plan {self._plan.source}, workload {self._workload.source}>"

    def _queries(self) -> str:
        reads, writes = len(self._workload.reads), len(self._workload.writes)
        return f"{units.plural(reads, 'read')}, {units.plural(writes, 'write')}"


def _name(source: str) -> str:
    """A page is sent to others: it names files, not the places of this machine."""
    return Path(source).name
