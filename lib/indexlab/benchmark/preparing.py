"""What is done before the first sample counts: controls, a first run of each query, clean tables."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import psycopg
from psycopg import sql

from indexlab.benchmark import cache, controls, sessions
from indexlab.benchmark.rounds import Progress, Unit
from indexlab.benchmark.runners import GivenUp, Runner, Side
from indexlab.benchmark.series import Failure
from indexlab.errors import InputError, TargetError
from indexlab.target import Target, connect
from indexlab.target import server as server_of
from indexlab.workload import SampledQuery

WRITING = ("Insert", "Update", "Delete", "Merge")

LOCK_TIMEOUT = "SELECT pg_catalog.set_config('lock_timeout', %s, false)"


def check_hiding(conn: psycopg.Connection[Any], side: Side) -> None:
    """Hide the indexes once, so that what stands against it is told before anything is measured.

    From here on the session waits only so long for other users of the tables.

    Raises:
        InputError: an index cannot be hidden.
        TargetError: somebody else uses a table.
    """
    conn.execute(LOCK_TIMEOUT, [f"{sessions.OTHERS_MS}ms"])
    words = ", ".join(f"{schema}.{name}" for schema, name in side.hidden)
    try:
        with side.opened(conn, "write"):
            pass
    except psycopg.errors.LockNotAvailable:
        raise TargetError(
            f"cannot hide {words}: somebody else uses the table; interleaving needs a disposable "
            "clone of one's own"
        ) from None
    except psycopg.Error as error:
        reason = error.diag.message_primary or str(error)
        raise InputError(
            f"cannot hide {words}: {reason}; measure one side after the other"
        ) from None


def evictor(stack: ExitStack, address: Target, conn: psycopg.Connection[Any]) -> cache.Evictor:
    """Open a session for emptying caches."""
    other = stack.enter_context(connect(address, purpose="benchmark cache"))
    return stack.enter_context(cache.evictor(other, server_of(conn)))


def control_units(runners: Callable[[SampledQuery, str], tuple[Runner, ...]]) -> list[Unit]:
    """Make units of the controls; their cache stays warm: they watch over the machine."""
    units = []
    for number, one in enumerate(controls.queries()):
        unit = Unit(runners(one, f"indexlab_control_{number}"), is_control=True)
        for runner in unit.runners:
            runner.evictor = None
        units.append(unit)
    return units


def check(
    units: Sequence[Unit], tolerated: frozenset[str], tell: Progress
) -> tuple[dict[str, Failure], dict[str, Failure]]:
    """Run every query once on each side; a query that fails on all of them ends it all."""
    failures: tuple[dict[str, Failure], dict[str, Failure]] = ({}, {})
    for number, unit in enumerate(units):
        tell(f"check {unit.name}", 0.1 * number / len(units))
        errors: list[InputError] = []
        for place, runner in enumerate(unit.runners):
            try:
                runner.check()
            except InputError as error:
                errors.append(error)
                failures[place][unit.name] = Failure(unit.name, str(error))
            except GivenUp:
                runner.is_given_up = True
        both = len(unit.runners) > 1 and len(errors) == len(unit.runners)
        if errors and (both or unit.name not in tolerated):
            raise errors[0]
    return failures


def vacuum(units: Sequence[Unit]) -> None:
    """Remove the dead rows of rolled back writes from the tables that the writes touch."""
    writes = [unit.runners[-1] for unit in units if unit.kind == "write"]
    tables: set[tuple[str, ...]] = set()
    for runner in writes:
        with runner.transaction(sessions.OWN_SECONDS):
            plan = runner.explain(runner.sampled.values[0], analyze=False)
        tables.update(node.table for node in plan.nodes() if node.type in WRITING)
    for table in sorted(tables):
        # Without the right to it the server only warns; a foreign table has nothing to remove.
        with contextlib.suppress(psycopg.errors.QueryCanceled, psycopg.errors.WrongObjectType):
            writes[0].conn.execute(sql.SQL("VACUUM {}").format(sql.Identifier(*table)))
