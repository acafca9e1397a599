"""The sandbox that is open: planned indexes are added, indexes hidden, and plans asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg

from indexlab import explain, sql
from indexlab.catalog import Catalog, Unresolved
from indexlab.errors import SandboxError
from indexlab.explain import Explain
from indexlab.plan import CreateIndex
from indexlab.sandbox import restoring
from indexlab.sandbox.knowledge import informed
from indexlab.sandbox.loading import said
from indexlab.sandbox.planting import Ground, Placed, put, read_placed
from indexlab.sandbox.whatif import Hypothetical, Lacking
from indexlab.sizes import PAGE, SizeEstimate, estimate
from indexlab.sizes.selectivity import selectivity
from indexlab.sql import RelationName
from indexlab.workload import Values

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
    _path: tuple[str, ...] | None = field(default=None, repr=False)
    """Where the session that makes indexes looks for names."""

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
        made = read_placed(self._builder, newest_of=table.oid)
        whole = next(item for item in made if item.table == table.key)
        sizes = self._sizes(index, made)
        for item in made:
            self._placed[item.key] = item
            if item.path:
                self._pages[item.key] = sizes[item.key].size.bytes // PAGE
        self._plant(made, sizes, heaps)
        total = sum(item.size.bytes for item in sizes.values())
        bases = dict.fromkeys(item.size.basis for item in sizes.values())
        return Hypothetical(
            index=RelationName(whole.schema, whole.name),
            table=catalog_table.qualified,
            bytes=total,
            pages=total // PAGE,
            rough=any(item.size.rough for item in sizes.values()),
            basis="; ".join(list(bases)[:3]),
            parts=tuple(RelationName(*item.key) for item in made if item is not whole),
        )

    def _build(
        self, statement: str, path: tuple[str, ...] | None, heaps: Collection[Placed]
    ) -> None:
        """Run CREATE INDEX while the tables look empty; the planner's session is not asked now."""
        wanted = self._catalog.search_path if path is None else path
        if wanted != self._path:
            restoring.set_path(self._builder, wanted)
            self._path = wanted
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
        measured = [heap.measure for heap in heaps]  # the build has set them to what it saw
        stored = [item for item in made if item.path]
        for item in stored:
            pages, entries = self._pages[item.key], sizes[item.key].entries
            if entries >= 0:
                measured.append(replace(item.measure, relpages=pages, reltuples=entries))
        with self._admin.pipeline():
            if self._ground is not None:
                self._ground.evict(item.oid for item in stored)
            restoring.relation_statistics(self._admin, measured)
        if self._ground is not None:
            for item in stored:
                pages, height = self._pages[item.key], sizes[item.key].size.height or 0
                put(self._ground.files, item, pages, height, self._pages.get(item.table, 0))

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
        self._catalog = informed(self._admin, self._catalog, [table])

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


def _without_tablespace(statement: str) -> str:
    parsed = sql.parse(statement, "<index>")[0]
    if not parsed.tree.table_space:
        return statement
    parsed.tree.table_space = ""
    return sql.deparse(parsed.node)
