"""Reaching a target, the demo included."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from indexlab import statements
from indexlab import target as targets
from indexlab.demo import database
from indexlab.progress import Progress
from indexlab.target import Server, Target
from indexlab.workload import Workload


@contextmanager
def held(spec: str, progress: Progress, target: Target | None = None) -> Iterator[Target]:
    """Hold the demo while it is worked on, or find out what another --target means."""
    if database.is_demo(spec):
        with database.opened(spec, progress=progress.tell) as reached:
            yield reached
    else:
        yield targets.resolve(spec) if target is None else target


def server(target: Target) -> Server:
    """Ask a target what server it is on; reads only."""
    with targets.connect(target, read_only=True) as conn:
        return targets.server(conn)


def recorded(target: Target) -> Workload:
    """Make a workload of what a target has run, where somebody counted it; reads only."""
    with targets.connect(target, read_only=True, purpose="explore") as conn:
        found = statements.read(conn)
    return Workload(found.queries(), statements.SOURCE if found.recorded else "none")
