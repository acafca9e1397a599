"""The sandbox: opened, asked, and gone.

1. Find the tables that matter, and read from the target their schema, statistics, sizes and
   the planner's settings. The target is not changed.
2. In a database of the sandboxes' own server, make the schema as a role that may do nothing
   else, and restore the statistics.
3. Give the empty relations their sizes, and the indexes the pages that tell of their height.
4. Plan in a session with the target's settings; make planned indexes in another one.
5. Drop the database.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg

from indexlab import explain, sql
from indexlab import target as targets
from indexlab.catalog import Catalog, Unresolved
from indexlab.catalog import statistics as planner_statistics
from indexlab.catalog.statistics import Statistics
from indexlab.embedded import Server
from indexlab.errors import SandboxError
from indexlab.explain import Explain
from indexlab.plan import CreateIndex, IndexPlan
from indexlab.sandbox import databases, dump, restoring
from indexlab.sandbox.differences import Differences
from indexlab.sandbox.files import Files
from indexlab.sandbox.loading import load, said, stand_in_collations
from indexlab.sandbox.original import Original, read_original
from indexlab.sandbox.planting import Ground, Placed, plant, read_placed, settle
from indexlab.sandbox.rewrite import Step, steps
from indexlab.sandbox.scope import Scope, read_scope
from indexlab.sandbox.whatif import Hypothetical, Lacking
from indexlab.sizes import PAGE, SizeEstimate, estimate
from indexlab.sizes.selectivity import selectivity
from indexlab.sql import RelationName
from indexlab.target import Target
from indexlab.workload import Values, Workload

BUILDER = """
SELECT pg_catalog.set_config('max_parallel_maintenance_workers', '0', false),
       pg_catalog.set_config('client_min_messages', 'error', false),
       pg_catalog.set_config('statement_timeout', '60s', false)
"""
NEWEST = """
SELECT n.nspname,
       c.relname,
       c.oid
  FROM pg_catalog.pg_index AS i
  JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE i.indrelid = %s
 ORDER BY c.oid DESC
 LIMIT 1
"""
# A table without partitions, which is no partition either, has no such tree.
LEAVES = """
SELECT n.nspname,
       c.relname
  FROM pg_catalog.pg_partition_tree(%s) AS t
  JOIN pg_catalog.pg_class AS c ON c.oid = t.relid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 ORDER BY n.nspname, c.relname
"""
WITH_PARTS = """
WITH RECURSIVE parts AS (
    SELECT i.indexrelid
      FROM pg_catalog.pg_index AS i
     WHERE i.indexrelid = ANY (%s::oid[])
     UNION
    SELECT h.inhrelid
      FROM parts AS p
      JOIN pg_catalog.pg_inherits AS h ON h.inhparent = p.indexrelid
)
SELECT p.indexrelid::bigint
  FROM parts AS p
 ORDER BY p.indexrelid
"""
# A superuser may; whoever has the index open hears of it.
VALIDITY = """
UPDATE pg_catalog.pg_index
   SET indisvalid = NOT indisvalid
 WHERE indexrelid = ANY (%s::oid[])
"""


@dataclass(frozen=True, slots=True)
class _Sized:
    """The size of a planned index, or of one of its parts."""

    size: SizeEstimate
    entries: float
    """Rows in it; negative where the table was never analyzed."""


@dataclass(slots=True)
class Sandbox:
    """An empty copy of a target that plans as the target does; a `WhatIf`."""

    name: str
    notes: tuple[str, ...]
    lacking: tuple[Lacking, ...]
    conninfo: str = field(repr=False)
    """Of its database, as the role that owns it."""
    _catalog: Catalog = field(repr=False)
    _ground: Ground | None = field(repr=False)
    """None where sizes cannot be faked."""
    _admin: psycopg.Connection[Any] = field(repr=False)
    _builder: psycopg.Connection[Any] = field(repr=False)
    _planner: psycopg.Connection[Any] = field(repr=False)
    _placed: dict[tuple[str, str], Placed] = field(repr=False)
    _pages: dict[tuple[str, str], int] = field(repr=False)
    _hidden: frozenset[int] = frozenset()

    def add(self, index: CreateIndex) -> Hypothetical:
        """Create a planned index for real, on the empty table, and give it its size.

        Raises:
            SandboxError: its table or something else that it needs is not there, or the server
                refuses it.
        """
        wanted = index.index
        catalog_table = self._catalog.find(wanted.table, index.search_path)
        if catalog_table is None:
            raise SandboxError(f"there is no table {wanted.table} to make an index on")
        self._refuse_lacking(catalog_table.qualified)
        table = self._table(catalog_table.qualified)
        qualified = wanted.revise(
            table=catalog_table.qualified, concurrently=False, if_not_exists=False
        )
        heaps = self._heaps(table)
        self._build(_without_tablespace(qualified.sql), index.search_path, heaps)
        row = self._builder.execute(NEWEST, [table.oid]).fetchone()
        assert row is not None
        schema, name, oid = row
        made = read_placed(self._builder, oid)
        sizes = self._sizes(index, made)
        for item in made:
            self._placed[item.key] = item
            if item.path:
                self._pages[item.key] = sizes[item.key].size.bytes // PAGE
        self._plant(made, sizes, heaps)
        total = sum(item.size.bytes for item in sizes.values())
        bases = dict.fromkeys(item.size.basis for item in sizes.values())
        return Hypothetical(
            index=RelationName(schema, name),
            table=catalog_table.qualified,
            bytes=total,
            pages=total // PAGE,
            rough=any(item.size.rough for item in sizes.values()),
            basis="; ".join(list(bases)[:3]),
        )

    def _build(
        self, statement: str, path: tuple[str, ...] | None, heaps: Collection[Placed]
    ) -> None:
        """Run CREATE INDEX while the tables look empty; the planner's session is not asked now."""
        restoring.set_path(self._builder, self._catalog.search_path if path is None else path)
        emptied = [heap for heap in heaps if heap.path] if self._ground else []
        try:
            for heap in emptied:
                assert self._ground is not None
                self._ground.files.empty(heap.path)
            self._builder.execute(statement.encode())
        except psycopg.Error as error:
            if self._builder.closed:
                raise
            raise SandboxError(f"the server refuses the index: {said(error)}") from error
        finally:
            for heap in emptied:
                assert self._ground is not None
                self._ground.files.extend(heap.path, self._pages.get(heap.key, 0))

    def _plant(
        self,
        made: Iterable[Placed],
        sizes: dict[tuple[str, str], _Sized],
        heaps: Collection[Placed],
    ) -> None:
        """Give new indexes their size, their height and their statistics."""
        tables = {heap.key: self._pages.get(heap.key, 0) for heap in heaps}
        measured = [heap.measure for heap in heaps]  # the build has set them to what it saw
        for item in made:
            if not item.path:
                continue
            sized = sizes[item.key]
            size = sized.size
            if self._ground is not None:
                plant(
                    self._ground,
                    item,
                    pages=size.bytes // PAGE,
                    height=size.height or 0,
                    table_pages=tables.get(item.table, 0),
                )
            if sized.entries >= 0:
                measured.append(
                    replace(item.measure, relpages=size.bytes // PAGE, reltuples=sized.entries)
                )
        restoring.relation_statistics(self._admin, measured)

    def _sizes(self, index: CreateIndex, made: Iterable[Placed]) -> dict[tuple[str, str], _Sized]:
        """Estimate the size of an index, or of each part of a partitioned one."""
        sizes: dict[tuple[str, str], _Sized] = {}
        for item in made:
            if item.path:
                table = self._catalog.named(*item.table)
                assert table is not None
                self._learn(table.oid)
                planned = index.index.revise(table=table.qualified)
                wanted = self._catalog.wanted(planned)
                if isinstance(wanted, Unresolved):
                    raise SandboxError(
                        f"the index cannot be sized: {wanted.what} {wanted.name!r} is not known"
                    )
                share, _ = selectivity(self._catalog, wanted)
                sizes[item.key] = _Sized(
                    estimate(self._catalog, wanted), table.rows * share if table.rows >= 0 else -1.0
                )
        return sizes

    def _learn(self, table: int) -> None:
        """Read what is known of the columns of a table, from the sandbox."""
        self._catalog = _informed(self._admin, self._catalog, [table])

    def _heaps(self, table: Placed) -> tuple[Placed, ...]:
        """The table and all of its partitions."""
        if table.kind != "p":
            return (table,)
        rows = self._builder.execute(LEAVES, [table.oid]).fetchall()
        return tuple(self._placed[row] for row in rows if row in self._placed)

    def _table(self, name: RelationName) -> Placed:
        found = self._placed.get((name.schema or "", name.name))
        if found is None:
            raise SandboxError(
                f"table {name} is not in the sandbox: name it in the plan or in the workload"
            )
        return found

    def hide(self, indexes: Collection[RelationName]) -> None:
        """Keep the planner from exactly these indexes; it sees all others again.

        Raises:
            SandboxError: one of them is not in the sandbox.
        """
        oids = []
        for name in indexes:
            found = self._index(name)
            if found is None:
                raise SandboxError(f"there is no index {name} in the sandbox")
            oids.append(found.oid)
        parts = {row[0] for row in self._admin.execute(WITH_PARTS, [oids])}
        changed = self._hidden ^ parts
        if changed:
            self._admin.execute(VALIDITY, [sorted(changed)])
            self._hidden = frozenset(parts)

    def _index(self, name: RelationName) -> Placed | None:
        schemas = (name.schema,) if name.schema else self._catalog.search_path
        places = ((schema, sql.truncate(name.name)) for schema in schemas)
        found = (self._placed.get(place) for place in places)
        return next((item for item in found if item is not None and item.table[1]), None)

    def explain(self, statement: str, values: Values | None) -> Explain:
        """Ask for the plan of one statement; it is not executed.

        Raises:
            SandboxError: the statement needs what is lacking, or the server refuses it.
        """
        try:
            return explain.run(
                self._planner, statement, values or (), analyze=False, generic=values is None
            )
        except psycopg.Error as error:
            if self._planner.closed:
                raise
            why = "; ".join(f"{item.object}: {item.reason}" for item in self._blamed(statement))
            raise SandboxError(
                f"not simulated, because {said(error)}" + (f" ({why})" if why else "")
            ) from error

    def _blamed(self, statement: str) -> Iterable[Lacking]:
        """What is lacking that a statement names."""
        named = {
            name
            for parsed in sql.parse(statement, "<query>")
            for node in sql.nodes(parsed.node, "RangeVar", "FuncCall", "TypeName")
            for name in _words(node)
        }
        return [
            item
            for item in self.lacking
            if item.object.startswith("extension ")
            or item.object.rpartition(".")[2].rpartition(" ")[2].strip('"') in named
        ]

    def _refuse_lacking(self, table: RelationName) -> None:
        for item in self.lacking:
            if item.object.endswith(f"table {table}") or item.object.endswith(f"view {table}"):
                raise SandboxError(
                    f"not simulated, because {item.object} is lacking: {item.reason}"
                )


def _words(node: Any) -> Iterator[str]:
    match node.DESCRIPTOR.name:
        case "RangeVar":
            yield node.relname
        case "FuncCall":
            yield node.funcname[-1].string.sval
        case _:
            yield node.names[-1].string.sval if node.names else ""


def _informed(admin: psycopg.Connection[Any], catalog: Catalog, tables: Iterable[int]) -> Catalog:
    """Add to a catalog the statistics of tables that it does not have, from the sandbox."""
    new = sorted(set(tables) - set(catalog.statistics.tables))
    if not new:
        return catalog
    found = planner_statistics.read(admin, catalog, new)
    return replace(catalog, statistics=merged(catalog.statistics, found))


def merged(one: Statistics, other: Statistics) -> Statistics:
    """Put the statistics of other tables to those that are known; pure."""
    return Statistics(
        (*one.tables, *other.tables),
        (*one.columns, *other.columns),
        (*one.groups, *other.groups),
        (*one.expressions, *other.expressions),
        denied=one.denied and other.denied,
    )


def _without_tablespace(statement: str) -> str:
    parsed = sql.parse(statement, "<index>")[0]
    if not parsed.tree.table_space:
        return statement
    parsed.tree.table_space = ""
    return sql.deparse(parsed.node)


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
    with ExitStack() as stack:
        server = stack.enter_context(databases.cluster())
        read = _read(target, catalog, plan, workload, whole=whole)
        database, order = stack.enter_context(
            databases.made(server, read.original.locale, keep=keep)
        )
        differences = Differences(catalog.server, list(read.scope.lacking))
        differences.of_original(read.original, read.scope, order)
        try:
            yield _filled(stack, (server, database), catalog, read, differences)
        except psycopg.OperationalError as error:
            raise SandboxError(f"the sandbox's server does not answer: {said(error)}") from error


def _read(
    target: Target,
    catalog: Catalog,
    plan: IndexPlan | None,
    workload: Workload | None,
    *,
    whole: bool,
) -> _Read:
    """Read all that is needed from the target, on a few connections at once; reads only."""
    with (
        targets.connect(target, read_only=True, purpose="sandbox") as conn,
        ThreadPoolExecutor(2) as pool,
    ):
        try:
            scope = read_scope(conn, catalog, plan, workload, whole=whole)
            dumps = [pool.submit(dump.read_schema, target, part) for part in dump.parts(scope)]
            original = read_original(conn, scope)
        except psycopg.Error as error:
            raise SandboxError(f"the target's statistics cannot be read: {said(error)}") from error
        asked = [item.statement for item in workload.queries] if workload else []
        planned = [item.index.sql for item in plan.creates] if plan else []
        return _Read(
            scope,
            original,
            steps("\n".join(item.result() for item in dumps), "\n".join(asked)),
            asked=(*asked, *planned),
        )


def _filled(
    stack: ExitStack,
    place: tuple[Server, str],
    catalog: Catalog,
    read: _Read,
    differences: Differences,
) -> Sandbox:
    """Fill a sandbox's database, and open the sessions that plan and build in it."""
    server, database = place
    original = read.original
    admin = stack.enter_context(
        psycopg.connect(server.conninfo(database), autocommit=True, application_name="indexlab")
    )
    owner = server.conninfo(database, databases.ROLE)
    with psycopg.connect(owner, autocommit=True) as worker:
        loaded = load(admin, worker, read.steps)
        collations = {item.name for item in catalog.collations}
        stand_in_collations(admin, read.asked, collations, loaded)
        differences.of_load(loaded)
        restoring.column_statistics(worker, original.column_statistics, differences)
    restoring.group_statistics(admin, original.group_statistics, differences)
    placed = {item.key: item for item in read_placed(admin)}
    measures = {(item.schema, item.name): item for item in original.measures}
    known = {
        key: replace(item, measure=measures[key]) for key, item in placed.items() if key in measures
    }
    files = Files.of(server)
    catalog = _informed(admin, catalog, read.scope.planned)
    rough = Statistics(columns=restoring.widths(admin, catalog, catalog.statistics))
    heights = replace(catalog, statistics=merged(catalog.statistics, rough))
    sized = files.sparse() or files.room(sum(item.measure.bytes for item in known.values()))
    ground = Ground.prepared(files, admin) if sized else None
    if ground is not None:
        settle(ground, heights, known.values())
    else:
        differences.note(
            "sizes are not those of the target: the file system of the sandboxes has no sparse "
            "files; set INDEXLAB_HOME to another one, or use HypoPG"
        )
    restoring.relation_statistics(admin, [item.measure for item in known.values()])
    planner = stack.enter_context(psycopg.connect(owner, autocommit=True))
    restoring.settings(planner, original.settings, differences)
    restoring.set_path(planner, catalog.search_path)
    builder = stack.enter_context(psycopg.connect(owner, autocommit=True))
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
        _placed=known,
        _pages={key: item.measure.pages for key, item in known.items()},
    )
