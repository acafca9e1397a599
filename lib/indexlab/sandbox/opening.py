"""Open a sandbox, and drop it at the end.

1. Find the tables that matter, and read from the target their schema, statistics, sizes and
   the planner's settings. The target is not changed.
2. In a database of the sandboxes' own server, which is made meanwhile, make the schema as a role
   that may do nothing else, and restore the statistics.
3. Give the empty relations their sizes, and the indexes the pages that tell of their height.
4. Open a session with the target's settings, which plans, and another one, which makes planned
   indexes.
5. Drop the database.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import psycopg

from indexlab import target as targets
from indexlab.catalog import Catalog
from indexlab.catalog.statistics import Statistics
from indexlab.embedded import Server
from indexlab.errors import SandboxError
from indexlab.plan import IndexPlan
from indexlab.progress import Tell, silent
from indexlab.sandbox import databases, dump, restoring
from indexlab.sandbox.databases import Made
from indexlab.sandbox.differences import Differences
from indexlab.sandbox.engine import Sandbox
from indexlab.sandbox.files import Files
from indexlab.sandbox.knowledge import informed, merged
from indexlab.sandbox.loading import load, said, stand_in_collations
from indexlab.sandbox.locked import waited
from indexlab.sandbox.original import Original, read_locale, read_original
from indexlab.sandbox.planting import Ground, Placed, read_placed, settle
from indexlab.sandbox.rewrite import Step, steps
from indexlab.sandbox.scope import Scope, read_scope
from indexlab.target import Target
from indexlab.workload import Workload

BUILDER = """
SELECT pg_catalog.set_config('max_parallel_maintenance_workers', '0', false),
       pg_catalog.set_config('client_min_messages', 'error', false),
       pg_catalog.set_config('statement_timeout', '60s', false)
"""


@dataclass(frozen=True, slots=True)
class _Read:
    """All that a sandbox takes from its target."""

    scope: Scope
    original: Original
    steps: tuple[Step, ...]
    asked: tuple[str, ...]
    """The statements of the workload and of the plan."""


@contextmanager
def open_sandbox(
    target: Target,
    catalog: Catalog,
    plan: IndexPlan | None,
    workload: Workload | None,
    *,
    whole: bool = False,
    keep: bool = False,
    tell: Tell = silent,
) -> Iterator[Sandbox]:
    """Make a sandbox of a target, and drop it at the end; reads only from the target.

    Args:
        target: where the schema and the statistics come from.
        catalog: a snapshot of it.
        plan: its tables are copied.
        workload: the tables of its queries are copied, through views, partitions and foreign keys.
        whole: copy every table.
        keep: leave the sandbox's database where it is, with the statistics' sampled values.
        tell: is told what goes on.

    Raises:
        SandboxError: the sandbox cannot be made; nothing of it is left.
        EmbeddedError: there is no embedded server.
        TargetError: the target cannot be reached.
    """
    with ExitStack() as stack:
        tell("making a sandbox: its server", 0.0)
        server = stack.enter_context(databases.cluster())
        tell("making a sandbox: reading schema and statistics", 0.2)
        with (
            targets.connect(target, read_only=True, purpose="sandbox") as conn,
            ThreadPoolExecutor(1) as pool,
        ):
            try:
                made = databases.made(
                    server, read_locale(conn), keep=keep, alone=_asks_the_system(workload)
                )
                # At the end of this block it is there, to be dropped, whatever the reading does.
                making = pool.submit(stack.enter_context, made)
                read = _read(conn, target, (catalog, plan, workload), whole=whole)
            except psycopg.errors.LockNotAvailable as error:
                raise SandboxError(waited(conn)) from error
            except psycopg.Error as error:
                raise SandboxError(
                    f"the target's statistics cannot be read: {said(error)}"
                ) from error
        database = making.result()
        differences = Differences(catalog.server, list(read.scope.lacking))
        differences.of_original(read.original, read.scope, database.order)
        try:
            yield _filled(stack, (server, database), catalog, read, differences, tell=tell)
        except psycopg.OperationalError as error:
            raise SandboxError(f"the sandbox's server does not answer: {said(error)}") from error


def _asks_the_system(workload: Workload | None) -> bool:
    """Return whether queries may read catalogs, whose sizes are those of the sandbox; pure."""
    words = ("pg_", "information_schema")
    queries = () if workload is None else workload.queries
    return any(word in query.statement.lower() for query in queries for word in words)


def _read(
    conn: psycopg.Connection[Any],
    target: Target,
    wanted: tuple[Catalog, IndexPlan | None, Workload | None],
    *,
    whole: bool,
) -> _Read:
    """Read all that is needed from the target, on a few connections at once; reads only."""
    _, plan, workload = wanted
    with ThreadPoolExecutor(2) as pool:
        scope = read_scope(conn, *wanted, whole=whole)
        dumps = [pool.submit(dump.read_schema, target, part) for part in dump.parts(scope)]
        original = read_original(conn, scope)
        text = "\n".join(item.result() for item in dumps)
    asked = [item.statement for item in workload.queries] if workload else []
    planned = [item.index.sql for item in plan.creates] if plan else []
    return _Read(scope, original, steps(text, "\n".join(asked)), asked=(*asked, *planned))


def _filled(
    stack: ExitStack,
    place: tuple[Server, Made],
    catalog: Catalog,
    read: _Read,
    differences: Differences,
    *,
    tell: Tell,
) -> Sandbox:
    """Fill a sandbox's database, and open the sessions that plan and build in it."""
    server, database = place
    admin = database.session
    owner = server.conninfo(database.name, databases.ROLE)
    builder = stack.enter_context(psycopg.connect(owner, autocommit=True))
    loaded = load(admin, builder, read.steps, tell)
    collations = {item.name for item in catalog.collations}
    stand_in_collations(admin, read.asked, collations, loaded)
    differences.of_load(loaded)
    tell("making a sandbox: restoring statistics", 0.8)
    restoring.column_statistics(builder, read.original.column_statistics, differences)
    builder.execute("RESET ALL")
    restoring.group_statistics(admin, read.original.group_statistics, differences)
    catalog = informed(admin, catalog, read.scope.planned)
    tell("making a sandbox: giving tables and indexes their sizes", 0.9)
    placed = _placed(admin, read.original)
    ground = _settled(server, admin, catalog, placed, differences)
    planner = stack.enter_context(psycopg.connect(owner, autocommit=True))
    restoring.settings(planner, read.original.settings, differences)
    restoring.set_path(planner, catalog.search_path)
    builder.execute(BUILDER)
    return Sandbox(
        name=differences.name(planner),
        notes=differences.notes,
        lacking=differences.lacking,
        conninfo=owner,
        _catalog=catalog,
        _ground=ground,
        _admin=admin,
        _builder=builder,
        _planner=planner,
        _placed=placed,
        _pages={key: item.measure.pages for key, item in placed.items()},
    )


def _placed(admin: psycopg.Connection[Any], original: Original) -> dict[tuple[str, str], Placed]:
    """Find the relations of the sandbox that are copies, with what was measured; reads only."""
    measures = {(item.schema, item.name): item for item in original.measures}
    return {
        item.key: replace(item, measure=measures[item.key])
        for item in read_placed(admin)
        if item.key in measures
    }


def _settled(
    server: Server,
    admin: psycopg.Connection[Any],
    catalog: Catalog,
    placed: dict[tuple[str, str], Placed],
    differences: Differences,
) -> Ground | None:
    """Give all relations their sizes, where that can be, and their statistics."""
    files = Files.of(server)
    ground = None
    if files.sparse() or files.room(sum(item.measure.bytes for item in placed.values())):
        ground = Ground.prepared(files, admin)
        rough = Statistics(columns=restoring.widths(admin, catalog, catalog.statistics))
        heights = replace(catalog, statistics=merged(catalog.statistics, rough))
        settle(ground, heights, placed.values())
    else:
        differences.note(
            "sizes are not those of the target: the file system of the sandboxes has no sparse "
            "files; set INDEXLAB_HOME to another one, or use HypoPG"
        )
    restoring.relation_statistics(admin, [item.measure for item in placed.values()])
    return ground
