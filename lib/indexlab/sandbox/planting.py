"""Give the empty relations of a sandbox the sizes and heights that the planner shall see."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql as compose

from indexlab.catalog import Catalog
from indexlab.sandbox import pages as forms
from indexlab.sandbox.files import Files
from indexlab.sandbox.original import Measure
from indexlab.sizes import height as height_of

OWN_SCHEMA = "indexlab_sandbox"
MAKE_SCHEMA = "CREATE SCHEMA {schema}"
MAKE_EXTENSION = "CREATE EXTENSION pg_buffercache WITH SCHEMA {schema}"
EXTENSION = """
SELECT n.nspname
  FROM pg_catalog.pg_extension AS e
  JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
 WHERE e.extname = 'pg_buffercache'
"""
EVICT = """
SELECT {schema}.pg_buffercache_evict_relation(o.oid::pg_catalog.regclass)
  FROM pg_catalog.unnest(%s::oid[]) AS o (oid)
"""
PLACED = """
SELECT c.oid::bigint AS oid,
       n.nspname,
       c.relname,
       c.relkind::text,
       COALESCE(pg_catalog.pg_relation_filepath(c.oid), '') AS path,
       COALESCE(am.amname, '') AS method,
       COALESCE(tn.nspname, '') AS table_schema,
       COALESCE(t.relname, '') AS table_name
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_am AS am ON am.oid = c.relam
  LEFT JOIN pg_catalog.pg_index AS i ON i.indexrelid = c.oid
  LEFT JOIN pg_catalog.pg_class AS t ON t.oid = i.indrelid
  LEFT JOIN pg_catalog.pg_namespace AS tn ON tn.oid = t.relnamespace
 WHERE c.relkind IN ('r', 'p', 'm', 'i', 'I')
   AND c.oid >= 16384
   AND n.nspname !~ '^pg_toast'
   AND {chosen}
 ORDER BY n.nspname, c.relname
"""
ALL = "true"
# An array, so that the relations are looked up and not searched for.
NEWEST = """c.oid = ANY (ARRAY(
       SELECT m.oid
         FROM (SELECT pg_catalog.max(i.indexrelid) AS oid
                 FROM pg_catalog.pg_index AS i
                WHERE i.indrelid = %(table)s) AS m
        UNION
       SELECT t.relid
         FROM (SELECT pg_catalog.max(i.indexrelid) AS oid
                 FROM pg_catalog.pg_index AS i
                WHERE i.indrelid = %(table)s) AS m,
              pg_catalog.pg_partition_tree(m.oid) AS t))"""


@dataclass(frozen=True, slots=True)
class Placed:
    """A relation of the sandbox: where its file is, and what it is to look like."""

    oid: int
    schema: str
    name: str
    kind: str
    """As in pg_class.relkind."""
    path: str
    """Of its main fork, below the data directory; empty for a partitioned one."""
    method: str
    table: tuple[str, str]
    """Schema and name of an index's table; empty words for a table."""
    measure: Measure

    @property
    def key(self) -> tuple[str, str]:
        """Schema and name, by which the target and the sandbox agree."""
        return self.schema, self.name


def read_placed(conn: psycopg.Connection[Any], newest_of: int | None = None) -> tuple[Placed, ...]:
    """Read where the relations are; reads only.

    Args:
        conn: a session on the sandbox.
        newest_of: only the newest index of this table, and the index's parts.
    """
    template: Any = PLACED
    chosen: Any = ALL if newest_of is None else NEWEST
    query = compose.SQL(template).format(chosen=compose.SQL(chosen))
    rows = conn.execute(query, None if newest_of is None else {"table": newest_of}).fetchall()
    return tuple(
        Placed(
            oid,
            schema,
            name,
            kind,
            path,
            method,
            (table_schema, table_name),
            Measure(schema, name, kind, 0, 0, -1.0, 0),
        )
        for oid, schema, name, kind, path, method, table_schema, table_name in rows
    )


@dataclass(frozen=True, slots=True)
class Ground:
    """Where relations get their looks: the files, and the cache before them."""

    files: Files
    admin: psycopg.Connection[Any]
    """A superuser's session on the sandbox; its search_path is empty, and stays so."""
    schema: str
    """Where pg_buffercache is."""

    @classmethod
    def prepared(cls, files: Files, admin: psycopg.Connection[Any]) -> Ground:
        """Make sure that cached pages can be thrown away."""
        row = admin.execute(EXTENSION).fetchone()
        if row is None:
            schema = compose.Identifier(OWN_SCHEMA)
            admin.execute(compose.SQL(MAKE_SCHEMA).format(schema=schema))
            admin.execute(compose.SQL(MAKE_EXTENSION).format(schema=schema))
        return cls(files, admin, OWN_SCHEMA if row is None else row[0])

    def evict(self, oids: Iterable[int]) -> None:
        """Write cached pages to the files and forget them, so that files may be changed."""
        query = compose.SQL(EVICT).format(schema=compose.Identifier(self.schema))
        self.admin.execute(query, [list(oids)])


def settle(ground: Ground, catalog: Catalog, relations: Iterable[Placed]) -> None:
    """Give all relations their sizes; nobody else may be at work on the sandbox.

    Args:
        ground: of the sandbox.
        catalog: the target, with what is known of the widths of columns.
        relations: with the target's measures.
    """
    stored = [item for item in relations if item.path]
    measured = {item.key: item.measure for item in stored}
    ground.admin.execute("CHECKPOINT")
    ground.evict(item.oid for item in stored if item.kind == "i")
    for item in stored:
        pages = item.measure.pages
        level = 0
        if item.method == "btree" and pages > 2:  # else the root is a leaf
            index = catalog.index(item.schema, item.name)
            level = 0 if index is None else height_of(catalog, index, pages)
        table = measured.get(item.table)
        put(ground.files, item, pages, level, 0 if table is None else table.pages)


def put(files: Files, item: Placed, pages: int, height: int, table_pages: int) -> None:
    """Write the pages that the planner reads, and give the file its end."""
    match item.method:
        case "btree":
            data = forms.btree(files.first(item.path), height)
            files.put(item.path, data)
        case "brin":
            data, _ = forms.brin(files.first(item.path), table_pages)
            files.put(item.path, data)
        case "gin":
            # Of the pages most hold keys, as the planner takes it where it knows nothing
            # (gincostestimate in selfuncs.c).
            entry_pages = round(0.9 * pages)
            data = forms.gin(files.first(item.path), pages, entry_pages, entry_pages * 100)
            files.put(item.path, data)
    files.extend(item.path, pages)
