"""HypoPG, an extension inside the target, behind the what-if interface.

It knows neither GIN nor GiST, takes no statistics of two columns together for a size, and ignores
that equal keys are stored once. Its indexes live in one session and are gone with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
from psycopg import sql as compose

from indexlab import explain, sql
from indexlab import target as targets
from indexlab.errors import InputError, SandboxError
from indexlab.explain import Explain, Node
from indexlab.plan import CreateIndex
from indexlab.sandbox.loading import said
from indexlab.sandbox.whatif import Hypothetical, Lacking
from indexlab.sizes import PAGE
from indexlab.sql import RelationName
from indexlab.target import Target
from indexlab.workload import Values

INSTALLED = """
SELECT n.nspname,
       e.extversion,
       EXISTS (SELECT
                 FROM pg_catalog.pg_proc AS p
                WHERE p.pronamespace = n.oid
                  AND p.proname = 'hypopg_hide_index')
  FROM pg_catalog.pg_extension AS e
  JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
 WHERE e.extname = 'hypopg'
"""
CREATE = "SELECT c.indexrelid::bigint, c.indexname FROM {schema}.hypopg_create_index(%s) AS c"
SIZE = "SELECT {schema}.hypopg_relation_size(%s::oid)"
DROP = "SELECT {schema}.hypopg_drop_index(%s::oid)"
HIDE = "SELECT {schema}.hypopg_hide_index(%s::oid)"
UNHIDE_ALL = "SELECT {schema}.hypopg_unhide_all_indexes()"
RESET = "SELECT {schema}.hypopg_reset()"
EXISTING = """
SELECT c.oid::bigint
  FROM pg_catalog.pg_class AS c
 WHERE c.oid = pg_catalog.to_regclass(%s)
   AND c.relkind IN ('i', 'I')
"""
TABLE = """
SELECT n.nspname,
       c.relname
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.oid = pg_catalog.to_regclass(%s)
"""
SEARCH_PATH = "SELECT pg_catalog.set_config('search_path', %s, true)"


@dataclass(slots=True)
class _Made:
    """An index that HypoPG was told of."""

    statement: CreateIndex
    oid: int | None
    """None while it is hidden by not being there."""
    name: str
    """What HypoPG calls it now."""


@dataclass(slots=True)
class HypoPG:
    """HypoPG in a session on the target; a `WhatIf`."""

    name: str
    notes: tuple[str, ...]
    lacking: tuple[Lacking, ...]
    _conn: psycopg.Connection[Any] = field(repr=False)
    _schema: str = field(repr=False)
    _hides: bool = field(repr=False)
    """Whether this version of it hides indexes."""
    _added: dict[RelationName, _Made] = field(default_factory=dict, repr=False)

    def add(self, index: CreateIndex) -> Hypothetical:
        """Tell HypoPG of an index.

        Raises:
            SandboxError: it does not know the access method, or the server refuses the index.
        """
        oid, called, table = self._create(index)
        size = self._ask(SIZE, oid).fetchone()
        assert size is not None
        # HypoPG names it after its oid; a plan's reader knows it by the name that was planned.
        name = RelationName(table.schema, index.index.name or called)
        if name in self._added:
            name = RelationName(table.schema, called)
        self._added[name] = _Made(index, oid, called)
        return Hypothetical(
            name,
            table,
            bytes=int(size[0]),
            pages=int(size[0]) // PAGE,
            rough=True,
            basis="HypoPG's model, which knows no deduplication",
        )

    def _create(self, index: CreateIndex) -> tuple[int, str, RelationName]:
        try:
            plain = index.index.revise(concurrently=False, if_not_exists=False)
            with self._conn.transaction():
                if index.search_path is not None:
                    path = ", ".join(map(sql.quote, index.search_path))
                    self._conn.execute(SEARCH_PATH, [path])
                made = self._ask(CREATE, plain.sql).fetchone()
                table = self._conn.execute(TABLE, [str(plain.table)]).fetchone()
        except (psycopg.Error, InputError) as error:
            raise self._refused("HypoPG refuses the index", error) from error
        if made is None or table is None:
            raise SandboxError(f"HypoPG makes no index of {index.index.sql!r}")
        return int(made[0]), str(made[1]), RelationName(*table)

    def hide(self, indexes: Collection[RelationName]) -> None:
        """Hide exactly these indexes from the planner of the session.

        Raises:
            SandboxError: there is no such index, or this version of HypoPG cannot hide any.
        """
        existing = [name for name in indexes if name not in self._added]
        if existing and not self._hides:
            raise SandboxError(
                f"{self.name} cannot hide indexes that exist: HypoPG 1.4 or newer can, and so can "
                "the sandbox"
            )
        oids = [self._existing(name) for name in existing]
        if self._hides:
            self._ask(UNHIDE_ALL)
            for oid in (*oids, *(self._added[n].oid for n in indexes if n in self._added)):
                self._ask(HIDE, oid)
            return
        for name, made in self._added.items():
            if name in indexes and made.oid is not None:
                self._ask(DROP, made.oid)
                made.oid = None
            elif name not in indexes and made.oid is None:
                made.oid, made.name, _ = self._create(made.statement)

    def _existing(self, name: RelationName) -> int:
        row = self._conn.execute(EXISTING, [str(name)]).fetchone()
        if row is None:
            raise SandboxError(f"there is no index {name} on the target")
        return int(row[0])

    def explain(self, statement: str, values: Values | None) -> Explain:
        """Ask the target for the plan of one statement; it is not executed.

        Raises:
            SandboxError: the server refuses the statement.
        """
        generic = values is None
        try:
            if generic:
                found = explain.run_generic(self._conn, statement, _placeholders(statement))
            else:
                found = explain.run(self._conn, statement, values or (), analyze=False)
        except psycopg.Error as error:
            raise self._refused("not simulated", error) from error
        names = {made.name: name.name for name, made in self._added.items()}
        return replace(found, root=_renamed(found.root, names))

    def _ask(self, template: str, *values: object) -> psycopg.Cursor[Any]:
        text: Any = template
        query = compose.SQL(text).format(schema=compose.Identifier(self._schema))
        return self._conn.execute(query, values)

    def _refused(self, what: str, error: Exception) -> SandboxError:
        if self._conn.closed:
            return SandboxError("the target closed the connection: try again")
        why = said(error) if isinstance(error, psycopg.Error) else str(error)
        return SandboxError(f"{what}, because {why}")


def _renamed(node: Node, names: dict[str, str]) -> Node:
    """Call the indexes of a plan as they were planned."""
    return replace(
        node,
        index=None if node.index is None else names.get(node.index, node.index),
        children=tuple(_renamed(child, names) for child in node.children),
    )


def _placeholders(statement: str) -> int:
    numbers = [
        node.number
        for parsed in sql.parse(statement, "<query>")
        for node in sql.nodes(parsed.node, "ParamRef")
    ]
    return max(numbers, default=0)


@contextmanager
def open_hypopg(target: Target) -> Iterator[HypoPG]:
    """Use the target's HypoPG in a session of its own; changes nothing that others see.

    Args:
        target: where it is installed.

    Raises:
        SandboxError: it is not installed.
        TargetError: the target cannot be reached.
    """
    with targets.connect(target, read_only=True, purpose="hypopg") as conn:
        row = conn.execute(INSTALLED).fetchone()
        if row is None:
            raise SandboxError(
                "the target does not have HypoPG: CREATE EXTENSION hypopg there, or use the "
                "sandbox, which needs nothing"
            )
        schema, version, hides = row
        whatif = HypoPG(
            name=f"HypoPG {version} on the target",
            notes=(
                "HypoPG's sizes know no deduplication: indexes with many equal keys seem larger "
                "and dearer than they become",
            ),
            lacking=(),
            _conn=conn,
            _schema=schema,
            _hides=hides,
        )
        try:
            yield whatif
        finally:
            if not conn.closed and not conn.broken:
                whatif._ask(RESET)
