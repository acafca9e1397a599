"""The sandbox: opened, asked, and gone."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from indexlab.catalog import Catalog
from indexlab.explain import Explain
from indexlab.plan import CreateIndex, IndexPlan
from indexlab.sandbox.whatif import Hypothetical, Lacking
from indexlab.sql import RelationName
from indexlab.target import Target
from indexlab.workload import Values, Workload


@dataclass(frozen=True, slots=True)
class Sandbox:
    """An empty copy of a target that plans as the target does; a `WhatIf`."""

    name: str
    notes: tuple[str, ...]
    lacking: tuple[Lacking, ...]

    def add(self, index: CreateIndex) -> Hypothetical:
        raise NotImplementedError

    def hide(self, indexes: Collection[RelationName]) -> None:
        raise NotImplementedError

    def explain(self, statement: str, values: Values | None) -> Explain:
        raise NotImplementedError


@contextmanager
def open_sandbox(
    target: Target,
    catalog: Catalog,
    plan: IndexPlan | None,
    workload: Workload | None,
    *,
    whole: bool = False,
    keep: bool = False,
) -> Iterator[Sandbox]:
    """Make a sandbox of a target, and drop it at the end; reads only from the target.

    Args:
        target: where the schema and the statistics come from.
        catalog: a snapshot of it.
        plan: its tables are copied.
        workload: the tables of its queries are copied, through views, partitions and foreign keys.
        whole: copy every table.
        keep: leave the sandbox's database where it is, with the statistics' sampled values.

    Raises:
        SandboxError: the sandbox cannot be made; nothing of it is left.
        EmbeddedError: there is no embedded server.
        TargetError: the target cannot be reached.
    """
    raise NotImplementedError
    yield
