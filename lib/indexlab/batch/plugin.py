"""What makes a Dask worker ready for a batch, also one that comes later."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from distributed.diagnostics.plugin import WorkerPlugin

from indexlab.batch import workers


class Plugin(WorkerPlugin):  # type: ignore[misc]
    """Opens a ward on each worker, and closes it."""

    idempotent = True

    def __init__(self, batch: str, out: str, *, report: bool, own: bool):
        self.name = f"indexlab-{batch}"
        self.batch, self.out, self.report, self.own = batch, out, report, own

    def setup(self, worker: Any) -> None:
        """Open the ward."""
        del worker
        if self.own:
            with suppress(OSError):
                os.setpgid(0, 0)  # Ctrl-C is for the one who began the batch
        workers.open_ward(self.batch, self.out, report=self.report)

    def teardown(self, worker: Any) -> None:
        """Close it."""
        del worker
        workers.close_ward(self.batch)
