"""What a snapshot of a target consists of: relations, columns, keys, indexes."""

from __future__ import annotations

from dataclasses import dataclass

from indexlab.records import Record
from indexlab.sql import RelationName

KINDS = {
    "r": "table",
    "p": "partitioned table",
    "m": "materialized view",
    "v": "view",
    "f": "foreign table",
    "S": "sequence",
    "i": "index",
    "I": "partitioned index",
    "c": "composite type",
    "t": "TOAST table",
}
INDEXABLE = ("table", "partitioned table", "materialized view")


@dataclass(frozen=True, slots=True)
class Relation(Record):
    """Anything that has a name in pg_class, outside of the system's schemas."""

    oid: int
    schema: str
    name: str
    kind: str
    """One of the values of `KINDS`."""
    owner: str
    owned: bool
    """Whether the session's role may do what only the owner may."""
    readable: bool
    """Whether the session's role may SELECT from it."""
    unlogged: bool
    parent: int | None
    """The partitioned table or index that it is attached to, or the first table it inherits from."""
    is_partition: bool
    rows: float
    """Estimated rows; negative where it was never analyzed."""
    bytes: int
    inserted: int
    updated: int
    hot_updated: int
    deleted: int
    creatable: bool = True
    """Whether the session's role may create objects in its schema."""
    scans: int = 0
    """How often it was read from one end to the other."""
    partition_key: str = ""
    """Numbers of the columns that a table is partitioned by, 0 for an expression; with spaces."""

    @property
    def qualified(self) -> RelationName:
        """The name with its schema."""
        return RelationName(self.schema, self.name)


@dataclass(frozen=True, slots=True)
class Column(Record):
    """A column of a table; dropped ones are not read."""

    table: int
    number: int
    name: str
    type: str
    type_oid: int
    collation: int
    """Oid of its collation; 0 where the type has none."""
    not_null: bool
    generated: str
    """Empty, `s` for stored, `v` for virtual."""


@dataclass(frozen=True, slots=True)
class Key(Record):
    """One key of an index in terms that compare: by oid and by the server's own words."""

    column: int
    """Number of the column; 0 for an expression."""
    text: str
    """The server's words for the key."""
    family: int
    """Oid of the operator family; 0 where it is not known."""
    input_type: int
    collation: int
    descending: bool
    nulls_first: bool
    options: str = ""
    """Options of the operator class, such as `siglen=32`."""


@dataclass(frozen=True, slots=True)
class Index(Record):
    """An index: as it exists, or as a planned statement would make it."""

    oid: int
    """0 for a planned one."""
    schema: str
    name: str
    table: int
    method: str
    unique: bool
    nulls_not_distinct: bool
    keys: tuple[Key, ...]
    include: tuple[int, ...]
    """Numbers of the INCLUDE columns."""
    predicate: str | None
    """The server's words for the predicate."""
    definition: str
    options: tuple[str, ...] = ()
    tablespace: str = ""
    """Empty for the database's own."""
    valid: bool = True
    ready: bool = True
    building: bool = False
    """Another session is building it now."""
    primary: bool = False
    exclusion: bool = False
    deferrable: bool = False
    clustered: bool = False
    replica_identity: bool = False
    constraint: str | None = None
    referenced_by: tuple[str, ...] = ()
    """Foreign keys that need it as their target."""
    extension: str | None = None
    parent: int | None = None
    """The partitioned index that it is attached to."""
    bytes: int = 0
    scans: int = 0

    @property
    def qualified(self) -> RelationName:
        """The name with its schema."""
        return RelationName(self.schema, self.name)

    @property
    def usable(self) -> bool:
        """Whether queries may use it."""
        return self.valid and self.ready

    def equals(self, other: Index) -> bool:
        """Return whether both give queries and constraints the same; name and storage aside."""
        return (
            self.table == other.table
            and self.method == other.method
            and self.unique == other.unique
            and self.nulls_not_distinct == other.nulls_not_distinct
            and self.deferrable == other.deferrable
            and self.exclusion == other.exclusion
            and self.predicate == other.predicate
            and set(self.include) == set(other.include)
            and (self.method != "brin" or self.options == other.options)
            and len(self.keys) == len(other.keys)
            and all(map(same_key, self.keys, other.keys))
        )


def same_key(one: Key, other: Key) -> bool:
    """Return whether two keys order and compare rows alike."""
    if one.column != other.column or (not one.column and one.text != other.text):
        return False
    return (
        one.family == other.family
        and one.input_type == other.input_type
        and one.collation == other.collation
        and one.descending == other.descending
        and one.nulls_first == other.nulls_first
        and one.options == other.options
    )


@dataclass(frozen=True, slots=True)
class OperatorClass(Record):
    """An operator class of an index access method."""

    schema: str
    name: str
    method: str
    family: int
    input_type: int


@dataclass(frozen=True, slots=True)
class AccessMethod(Record):
    """An index access method and what it can do."""

    name: str
    can_order: bool
    can_unique: bool
    can_multicolumn: bool
    can_include: bool


@dataclass(frozen=True, slots=True)
class Tablespace(Record):
    """A tablespace of the cluster."""

    name: str
    creatable: bool
    """Whether the session's role may put indexes there."""


@dataclass(frozen=True, slots=True)
class Collation(Record):
    """A collation by name."""

    oid: int
    schema: str
    name: str


@dataclass(frozen=True, slots=True)
class ForeignKey(Record):
    """A foreign key: which columns refer to which table."""

    name: str
    table: int
    columns: tuple[int, ...]
    referenced: int


@dataclass(frozen=True, slots=True)
class Expression(Record):
    """What the server makes of an expression over one table's columns."""

    table: int
    written: str
    canonical: str
    """The server's own words; empty where it refuses the expression."""
    type_oid: int = 0
    error: str = ""
    """Why the server refuses it."""
    collation: int = 0
    """Oid of the collation that the expression names itself; 0 where it names none."""


@dataclass(frozen=True, slots=True)
class Unresolved(Record):
    """Why a planned index does not fit the catalog: the place to look and what was not found."""

    what: str
    """What kind of thing: `table`, `kind`, `column`, `collation`, `expression`, `opclass`;
    `collation type` where a key's type (the detail) has none; `type` where a key's type has no default operator class for the method (the detail), and
    `opclass type` where the operator class does not take the type of a key (the detail)."""
    name: str
    detail: str = ""
