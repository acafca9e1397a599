"""A snapshot of a target: how names and planned indexes are found in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from indexlab import display, records, sql, units
from indexlab.catalog.activity import Activity
from indexlab.catalog.objects import (
    INDEXABLE,
    AccessMethod,
    Collation,
    Column,
    Expression,
    ForeignKey,
    Index,
    Key,
    OperatorClass,
    Relation,
    Tablespace,
    Unresolved,
)
from indexlab.catalog.statistics import Statistics
from indexlab.plan import IndexDef, IndexKey
from indexlab.records import Record
from indexlab.sql import RelationName
from indexlab.target import Server

if TYPE_CHECKING:
    import pandas as pd

Item = TypeVar("Item")
Group = TypeVar("Group")

COLUMNS = ("table", "kind", "rows", "size", "indexes", "size of indexes")
BOOLEAN, NAME = 16, 19
DEFAULT_COLLATION, C_COLLATION = 100, 950
"""Of a text that an expression makes of columns without a collation, and of a name."""
UNCOLLATABLE = (16, 20, 21, 23, 700, 701, 1082, 1114, 1184, 1700, 2950, 3802)
"""Oids of bool, the numbers, the moments, uuid and jsonb: expressions are often of these types."""


def _grouped(
    items: Iterable[Item], group: Callable[[Item], Group]
) -> dict[Group, tuple[Item, ...]]:
    grouped: defaultdict[Group, list[Item]] = defaultdict(list)
    for item in items:
        grouped[group(item)].append(item)
    return {key: tuple(found) for key, found in grouped.items()}


@dataclass(frozen=True, slots=True)
class _Relations:
    """Where relations are found."""

    source: tuple[Relation, ...]
    by_oid: dict[int, Relation]
    by_name: dict[tuple[str, str], Relation]
    named: dict[str, tuple[Relation, ...]]
    indexable: dict[str, tuple[Relation, ...]]
    """Those that take indexes, by schema."""

    @classmethod
    def of(cls, source: tuple[Relation, ...]) -> _Relations:
        return cls(
            source,
            by_oid={item.oid: item for item in source},
            by_name={(item.schema, item.name): item for item in source},
            named=_grouped(source, lambda item: item.name),
            indexable=_grouped(
                (item for item in source if item.kind in INDEXABLE), lambda item: item.schema
            ),
        )


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where columns are found."""

    source: tuple[Column, ...]
    by_name: dict[tuple[int, str], Column]
    by_table: dict[int, tuple[Column, ...]]
    collatable: frozenset[int]
    uncollatable: frozenset[int]

    @classmethod
    def of(cls, source: tuple[Column, ...]) -> _Columns:
        return cls(
            source,
            by_name={(item.table, item.name): item for item in source},
            by_table=_grouped(source, lambda item: item.table),
            collatable=frozenset(
                {25, 19, 1042, 1043, *(item.type_oid for item in source if item.collation)}
            ),
            uncollatable=frozenset(
                {*UNCOLLATABLE, *(item.type_oid for item in source if not item.collation)}
            ),
        )


@dataclass(frozen=True, slots=True)
class _Indexes:
    """Where indexes are found."""

    source: tuple[Index, ...]
    by_oid: dict[int, Index]
    by_table: dict[int, tuple[Index, ...]]

    @classmethod
    def of(cls, source: tuple[Index, ...]) -> _Indexes:
        return cls(
            source,
            by_oid={item.oid: item for item in source},
            by_table=_grouped(source, lambda item: item.table),
        )


@dataclass(frozen=True, slots=True)
class _Lookup:
    relations: _Relations
    columns: _Columns
    indexes: _Indexes
    foreign_keys: dict[int, tuple[ForeignKey, ...]]
    expressions: dict[tuple[int, str], Expression]
    defaults: dict[tuple[str, int], tuple[int, int]]
    accepted: frozenset[tuple[int, int]]

    @classmethod
    def of(cls, catalog: Catalog, before: _Lookup | None) -> _Lookup:
        """Return how things are found; what is the same object as before is not gone through."""
        relations, columns, indexes = catalog.relations, catalog.columns, catalog.indexes
        return cls(
            relations=before.relations
            if before is not None and before.relations.source is relations
            else _Relations.of(relations),
            columns=before.columns
            if before is not None and before.columns.source is columns
            else _Columns.of(columns),
            indexes=before.indexes
            if before is not None and before.indexes.source is indexes
            else _Indexes.of(indexes),
            foreign_keys=_grouped(catalog.foreign_keys, lambda item: item.table),
            expressions={(item.table, item.written): item for item in catalog.expressions},
            defaults={(row[0], row[1]): (row[2], row[3]) for row in catalog.defaults},
            accepted=frozenset(catalog.accepted),
        )


@dataclass(frozen=True, slots=True)
class Catalog(Record):
    """A snapshot of a target's tables, columns, indexes and what else decides about indexes."""

    server: Server
    search_path: tuple[str, ...]
    """The schemas that unqualified names are looked up in, in order."""
    relations: tuple[Relation, ...]
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...]
    foreign_keys: tuple[ForeignKey, ...] = ()
    opclasses: tuple[OperatorClass, ...] = ()
    defaults: tuple[tuple[str, int, int, int], ...] = ()
    """Default operator classes: method, type, family, input type."""
    collations: tuple[Collation, ...] = ()
    expressions: tuple[Expression, ...] = ()
    schemas: tuple[str, ...] = ()
    """Every schema of the user, with relations or without."""
    methods: tuple[AccessMethod, ...] = ()
    tablespaces: tuple[Tablespace, ...] = ()
    accepted: tuple[tuple[int, int], ...] = ()
    """Which type fits an operator class of which input type, without a conversion."""
    statistics: Statistics = field(default_factory=Statistics)
    """The planner's statistics of the tables of the plan; `audit.read` asks for them."""
    activity: Activity | None = None
    """What goes on in the server; None where nobody asked."""
    _found: _Lookup | None = field(default=None, repr=False, compare=False)
    """How things are found; `replace` hands it on, and what it replaces is gone through again."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_found", _Lookup.of(self, self._found))

    def frame(self) -> pd.DataFrame:
        """Return the tables as a pandas DataFrame, one row each, the largest first.

        Columns: `schema`; `table`; `kind`; `rows`, as the planner believes, negative where it was
        never told; `bytes` without indexes; `indexes`, how many; `index_bytes`; `scans` from one
        end to the other; `inserted`, `updated` and `deleted`, rows since the statistics were reset.
        """
        import pandas as pd

        columns = [
            *("schema", "table", "kind", "rows", "bytes", "indexes", "index_bytes"),
            *("scans", "inserted", "updated", "deleted"),
        ]
        rows = [
            (
                *(item.schema, item.name, item.kind, item.rows, item.bytes),
                *(len(indexes), sum(index.bytes for index in indexes)),
                *(item.scans, item.inserted, item.updated, item.deleted),
            )
            for item, indexes in self._tables()
        ]
        return pd.DataFrame(rows, columns=columns)

    def indexes_frame(self) -> pd.DataFrame:
        """Return the indexes as a pandas DataFrame, one row each, the largest first.

        Columns: `schema`; `index`; `table`; `bytes`; `scans` since the statistics were reset;
        `unique`; `valid`; `definition`, in the server's words.
        """
        import pandas as pd

        columns = ["schema", "index", "table", "bytes", "scans", "unique", "valid", "definition"]
        rows = [
            (
                *(item.schema, item.name, str(self.relation(item.table).qualified), item.bytes),
                *(item.scans, item.unique, item.valid, item.definition),
            )
            for item in sorted(self.indexes, key=lambda item: (-item.bytes, item.name))
        ]
        return pd.DataFrame(rows, columns=columns)

    def _tables(self) -> list[tuple[Relation, tuple[Index, ...]]]:
        """Return what takes indexes, the largest first, each with its indexes."""
        found = [item for item in self.relations if item.kind in INDEXABLE]
        found.sort(key=lambda item: (-item.bytes, item.schema, item.name))
        return [(item, self.indexes_of(item.oid)) for item in found]

    def _title(self) -> str:
        tables = units.plural(len(self._tables()), "table")
        return f"{self.server}: {tables}, {units.plural(len(self.indexes), 'index')}"

    def _rows(self) -> list[tuple[object, ...]]:
        return [
            (
                item.qualified,
                item.kind,
                units.count(item.rows) if item.rows >= 0 else "never analyzed",
                units.size(item.bytes),
                len(indexes),
                units.size(sum(index.bytes for index in indexes)),
            )
            for item, indexes in self._tables()
        ]

    def __repr__(self) -> str:
        return records.text(self._title(), COLUMNS, self._rows())

    def _repr_html_(self) -> str:
        rows, most = self._rows(), 200
        left = f"; the {most} largest are shown" if len(rows) > most else ""
        return display.table(
            COLUMNS, rows[:most], caption=self._title() + left, numeric=COLUMNS[2:]
        )

    @property
    def _lookup(self) -> _Lookup:
        assert self._found is not None  # since __post_init__
        return self._found

    def relation(self, oid: int) -> Relation:
        """Return the relation with this oid."""
        return self._lookup.relations.by_oid[oid]

    def named(self, schema: str, name: str) -> Relation | None:
        """Return the relation of any kind with this name."""
        return self._lookup.relations.by_name.get((schema, name))

    def find(
        self, name: RelationName, search_path: tuple[str, ...] | None = None
    ) -> Relation | None:
        """Look a name up as the server would: its schema, or the first match on the search_path."""
        if name.schema is not None:
            return self.named(name.schema, sql.truncate(name.name))
        for schema in self.search_path if search_path is None else search_path:
            if (found := self.named(schema, sql.truncate(name.name))) is not None:
                return found
        return None

    def elsewhere(self, name: str) -> tuple[Relation, ...]:
        """Return the relations of any schema with this name."""
        return self._lookup.relations.named.get(name, ())

    def indexable(self, schema: str) -> tuple[Relation, ...]:
        """Return the relations of a schema that take indexes, by name."""
        return self._lookup.relations.indexable.get(schema, ())

    def columns_of(self, table: int) -> tuple[Column, ...]:
        """Return a table's columns by number."""
        return self._lookup.columns.by_table.get(table, ())

    def column(self, table: int, name: str) -> Column | None:
        """Return a table's column by name."""
        return self._lookup.columns.by_name.get((table, name))

    def indexes_of(self, table: int) -> tuple[Index, ...]:
        """Return a table's indexes by name."""
        return self._lookup.indexes.by_table.get(table, ())

    def foreign_keys_of(self, table: int) -> tuple[ForeignKey, ...]:
        """Return the foreign keys that a table has."""
        return self._lookup.foreign_keys.get(table, ())

    def index(self, schema: str, name: str) -> Index | None:
        """Return the index with this name."""
        found = self.named(schema, sql.truncate(name))
        return None if found is None else self._lookup.indexes.by_oid.get(found.oid)

    def method(self, name: str) -> AccessMethod | None:
        """Return the index access method with this name."""
        return next((item for item in self.methods if item.name == name), None)

    def expression(self, table: int, written: str) -> Expression | None:
        """Return what the server made of an expression, if it was asked."""
        return self._lookup.expressions.get((table, written))

    def wanted(
        self, planned: IndexDef, search_path: tuple[str, ...] | None = None
    ) -> Index | Unresolved:
        """Put a planned index into the terms of the catalog, so that it compares with existing ones.

        Args:
            planned: the index as written.
            search_path: the schemas to look its table up in, where the plan says so.

        Returns:
            The index as the server would make it, or what of it the target does not have.
        """
        relation = self.find(planned.table, search_path)
        if relation is None:
            return Unresolved("table", str(planned.table))
        if relation.kind not in INDEXABLE:
            return Unresolved("kind", str(relation.qualified), relation.kind)
        for name in self.unknown_columns(relation, planned):
            return Unresolved("column", name)
        keys = tuple(self._key(relation, planned.method, key) for key in planned.keys)
        for key in keys:
            if isinstance(key, Unresolved):
                return key
        predicate = self._predicate(relation, planned)
        if isinstance(predicate, Unresolved):
            return predicate
        return Index(
            oid=0,
            schema=relation.schema,
            name=sql.truncate(planned.name or ""),
            table=relation.oid,
            method=planned.method,
            unique=planned.unique,
            nulls_not_distinct=planned.nulls_not_distinct,
            keys=tuple(key for key in keys if isinstance(key, Key)),
            include=tuple(
                column.number
                for name in planned.include
                if (column := self.column(relation.oid, name)) is not None
            ),
            predicate=predicate,
            definition=planned.sql,
            options=tuple(f"{name}={value}" for name, value in planned.options),
            tablespace=planned.tablespace or "",
        )

    def unknown_columns(self, relation: Relation, planned: IndexDef) -> tuple[str, ...]:
        """Return the names that a planned index reads as columns and the relation does not have.

        The relation's own name is its whole row, where an expression has it.
        """
        plain = {key.column for key in planned.keys} | {*planned.include}
        return tuple(
            name
            for name in planned.columns
            if self.column(relation.oid, name) is None and (name != relation.name or name in plain)
        )

    def _canonical(self, relation: Relation, written: str) -> Expression | Unresolved:
        found = self.expression(relation.oid, written)
        if found is None:
            return Expression(relation.oid, written, written)
        if found.error:
            return Unresolved("expression", written, found.error)
        return found

    def _predicate(self, relation: Relation, planned: IndexDef) -> str | Unresolved | None:
        if planned.predicate is None:
            return None
        found = self._canonical(relation, planned.predicate)
        if isinstance(found, Unresolved):
            return found
        constant = found.canonical.startswith(("'", "NULL"))  # it becomes what is asked for
        if found.type_oid not in (0, BOOLEAN) and not constant:
            return Unresolved("expression", planned.predicate, "it is not true or false")
        return found.canonical

    def _key(self, relation: Relation, method: str, key: IndexKey) -> Key | Unresolved:
        plain = self._plain_key(relation, key)
        if isinstance(plain, Unresolved):
            return plain
        collation, type_oid = plain.collation, plain.type_oid
        if key.collation:
            found = self._collation(key.collation)
            if found is None:
                return Unresolved("collation", ".".join(key.collation))
            if type_oid in self._lookup.columns.uncollatable:
                return Unresolved("collation type", ".".join(key.collation), plain.text)
            collation = found.oid
        family = self._family(method, key.opclass, plain)
        if isinstance(family, Unresolved):
            return family
        ordered = method == "btree"
        return Key(
            column=plain.column,
            text=plain.text,
            family=family[0],
            input_type=family[1],
            collation=collation,
            descending=key.descending and ordered,
            nulls_first=key.nulls_first and ordered,
            options=", ".join(f"{name}={value}" for name, value in key.opclass_options),
        )

    def _plain_key(self, relation: Relation, key: IndexKey) -> _PlainKey | Unresolved:
        alone = len(key.columns) == 1 and key.expression == sql.quote(key.columns[0])
        # A column in brackets is a column to the server, too.
        column = self.column(relation.oid, key.columns[0]) if alone else None
        if column is not None:
            return _PlainKey(column.number, key.expression, column.type_oid, column.collation)
        expression = self._canonical(relation, key.expression)
        if isinstance(expression, Unresolved):
            return expression
        type_oid = expression.type_oid
        read = {c.collation for name in key.columns if (c := self.column(relation.oid, name))}
        usual = C_COLLATION if type_oid == NAME else DEFAULT_COLLATION
        derived = (
            max(read - {0}, default=usual) if type_oid in self._lookup.columns.collatable else 0
        )
        return _PlainKey(0, expression.canonical, type_oid, expression.collation or derived)

    def _family(
        self, method: str, written: tuple[str, ...], key: _PlainKey
    ) -> tuple[int, int] | Unresolved:
        """Return the operator family and input type of a key."""
        if not written:
            default = self._lookup.defaults.get((method, key.type_oid))
            if default is None and key.type_oid and self.defaults:
                return Unresolved("type", key.text, method)
            return default or (0, 0)
        opclass = self._opclass(method, written)
        if opclass is None:
            return Unresolved("opclass", ".".join(written), method)
        known = key.type_oid and self.accepted
        if known and (key.type_oid, opclass.input_type) not in self._lookup.accepted:
            return Unresolved("opclass type", ".".join(written), key.text)
        return opclass.family, opclass.input_type

    def _collation(self, written: tuple[str, ...]) -> Collation | None:
        schemas = written[:-1] or ("pg_catalog", *self.search_path)
        found = {item.schema: item for item in self.collations if item.name == written[-1]}
        return next((found[schema] for schema in schemas if schema in found), None)

    def _opclass(self, method: str, written: tuple[str, ...]) -> OperatorClass | None:
        schemas = written[:-1] or ("pg_catalog", *self.search_path)
        found = {
            item.schema: item
            for item in self.opclasses
            if item.name == written[-1] and item.method == method
        }
        return next((found[schema] for schema in schemas if schema in found), None)


@dataclass(frozen=True, slots=True)
class _PlainKey:
    """A key before collation and operator class as written are looked at."""

    column: int
    text: str
    type_oid: int
    """0 where the server was not asked."""
    collation: int
