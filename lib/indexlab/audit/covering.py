"""Which index makes another one superfluous, and which must stay whatever makes it so.

Indexes are compared by oid and by the server's own words. When in doubt they differ: a missed
duplicate costs disk space, a dropped index that was needed costs an outage.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Literal

from indexlab import sql
from indexlab.catalog import Catalog, ForeignKey, Index, Key, same_key
from indexlab.errors import InputError

How = Literal["duplicate", "unique", "prefix", "include"]


@dataclass(frozen=True, slots=True)
class Cover:
    """An index that does all that another one does."""

    keeper: Index
    how: How

    @property
    def words(self) -> str:
        """How it covers the other, to follow the keeper's name."""
        match self.how:
            case "duplicate":
                return "has the same definition"
            case "unique":
                return "has the same keys and is unique"
            case "prefix":
                return "begins with the same keys"
            case "include":
                return "has the same keys and more INCLUDE columns"


def cover(keeper: Index, index: Index) -> Cover | None:
    """Return how `keeper` does all that `index` does; None if it does not.

    Indexes that enforce something are covered only by what enforces the same. Left prefixes are
    for btree alone: the other methods search by any column, or by none.
    """
    if keeper.table != index.table or keeper.method != index.method or not keeper.usable:
        return None
    if keeper.exclusion or index.exclusion:  # their operators are not known here
        return None
    if keeper.equals(index):
        return Cover(keeper, "duplicate")
    stored = {*keeper.include, *(key.column for key in keeper.keys)}
    same_length = len(keeper.keys) == len(index.keys)
    covers = (
        index.method == "btree"
        and keeper.predicate == index.predicate
        and _begins_with(keeper.keys, index.keys)
        and set(index.include) <= stored
        and (not index.unique or (same_length and _enforces_the_same(keeper, index)))
    )
    if not covers:
        return None
    if not same_length:
        return Cover(keeper, "prefix")
    return Cover(keeper, "unique" if keeper.unique and not index.unique else "include")


def _begins_with(keys: tuple[Key, ...], beginning: tuple[Key, ...]) -> bool:
    return len(keys) >= len(beginning) and all(map(same_key, keys, beginning))


def _enforces_the_same(keeper: Index, index: Index) -> bool:
    return (
        keeper.unique
        and keeper.nulls_not_distinct == index.nulls_not_distinct
        and keeper.deferrable == index.deferrable
    )


def reversed_equal(one: Index, other: Index) -> bool:
    """Return whether each is the other read backwards: every key's order is turned."""
    if not one.keys or one.keys[0].descending == other.keys[0].descending:
        return False
    turned = tuple(
        replace(key, descending=not key.descending, nulls_first=not key.nulls_first)
        for key in one.keys
    )
    return one.method == "btree" and replace(one, keys=turned).equals(other)


KeyTerms = tuple[int, str, int, int, int, bool, bool, str]
Beginning = tuple[str, str | None, tuple[KeyTerms, ...]]
"""Method, predicate and some keys: what an index begins with, in terms that are equal or not."""


def _terms(key: Key) -> KeyTerms:
    """Return what `same_key` compares."""
    return (
        key.column,
        "" if key.column else key.text,
        key.family,
        key.input_type,
        key.collation,
        key.descending,
        key.nulls_first,
        key.options,
    )


def _turned(key: Key) -> KeyTerms:
    """Return the terms of the key that is read backwards."""
    return _terms(replace(key, descending=not key.descending, nulls_first=not key.nulls_first))


@dataclass(frozen=True, slots=True)
class Beside:
    """The indexes of one table, found by their keys: few of them can mean anything to another one.

    What is found still has to be compared, and comes in the order of the indexes.
    """

    indexes: tuple[Index, ...]
    _by_keys: dict[Beginning, list[int]] = field(init=False, repr=False, compare=False)
    _by_beginning: dict[Beginning, list[int]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_keys: defaultdict[Beginning, list[int]] = defaultdict(list)
        by_beginning: defaultdict[Beginning, list[int]] = defaultdict(list)
        for place, index in enumerate(self.indexes):
            terms = tuple(map(_terms, index.keys))
            by_keys[index.method, index.predicate, terms].append(place)
            for length in range(len(terms) + 1):
                by_beginning[index.method, index.predicate, terms[:length]].append(place)
        object.__setattr__(self, "_by_keys", by_keys)
        object.__setattr__(self, "_by_beginning", by_beginning)

    def wider(self, index: Index) -> Sequence[int]:
        """Return the places of those that begin with all keys of an index and so may cover it."""
        terms = tuple(map(_terms, index.keys))
        return self._by_beginning.get((index.method, index.predicate, terms), ())

    def narrower(self, index: Index) -> tuple[Index, ...]:
        """Return those whose keys an index begins with and which it so may cover."""
        terms = tuple(map(_terms, index.keys))
        lengths = range(len(terms) + 1)
        found = (self._by_keys.get((index.method, index.predicate, terms[:n]), ()) for n in lengths)
        return tuple(self.indexes[place] for place in sorted(chain.from_iterable(found)))

    def turned(self, index: Index) -> tuple[Index, ...]:
        """Return those that may be an index read backwards."""
        terms = tuple(map(_turned, index.keys))
        found = self._by_keys.get((index.method, index.predicate, terms), ())
        return tuple(self.indexes[place] for place in found)


def superfluous(catalog: Catalog, indexes: Iterable[Index]) -> Iterator[tuple[Index, Cover]]:
    """Name each index of one table that a keeper covers which itself is not superfluous.

    Of equal ones, the one that is hardest to do without stays.
    """
    candidates = tuple(indexes)
    beside = Beside(candidates)
    covers = {
        index.oid: [
            found
            for keeper in (candidates[place] for place in beside.wider(index))
            if keeper.oid != index.oid
            and (found := cover(keeper, index)) is not None
            and (cover(index, keeper) is None or _rank(catalog, keeper) > _rank(catalog, index))
        ]
        for index in candidates
        if index.parent is None and index.extension is None and not obstacles(catalog, index)
    }
    for index in candidates:
        # "Covers" is a strict order here, so whatever covers the widest keeper covers all.
        stays = [found for found in covers.get(index.oid, ()) if not covers.get(found.keeper.oid)]
        if stays:
            yield index, max(stays, key=lambda found: _closeness(found, index))


def _closeness(found: Cover, index: Index) -> tuple[bool, int, int]:
    return (
        found.how == "duplicate",
        -abs(len(found.keeper.keys) - len(index.keys)),
        -found.keeper.oid,
    )


def _rank(catalog: Catalog, index: Index) -> tuple[int, bool, bool, int, int]:
    return (
        len(obstacles(catalog, index)),
        index.clustered,
        index.unique,
        index.scans,
        -index.oid,
    )


def obstacles(catalog: Catalog, index: Index) -> tuple[str, ...]:
    """Say what forbids to drop an index, as clauses that follow its name; empty if nothing does."""
    found: list[str] = []
    if index.constraint is not None:
        found.append(f"backs the constraint {sql.quote(index.constraint)}")
    elif index.primary or index.exclusion:
        found.append("backs a constraint")
    if index.referenced_by:
        names = ", ".join(sql.quote(name) for name in index.referenced_by)
        found.append(f"is the target of the foreign key {names}")
    if index.parent is not None:
        found.append(
            f"is a part of the partitioned index {catalog.relation(index.parent).qualified}"
        )
    if index.replica_identity:
        found.append("is the replica identity of its table, which replication needs")
    if index.extension is not None:
        found.append(f"belongs to the extension {sql.quote(index.extension)}")
    kind = catalog.relation(index.table).kind
    if index.unique and kind == "materialized view":
        found.append("is unique on a materialized view: REFRESH CONCURRENTLY needs it")
    return tuple(found)


def cautions(catalog: Catalog, index: Index, others: Iterable[Index]) -> tuple[str, ...]:
    """Say what would be lost with an index, as clauses that follow its name.

    Args:
        catalog: where both live.
        index: the one to be dropped.
        others: the indexes that stay.
    """
    found: list[str] = []
    if index.clustered:
        found.append("is what its table is CLUSTERed on")
    keys = foreign_keys(catalog, index)
    remaining = tuple(other for other in others if other.oid != index.oid) if keys else ()
    for key in keys:
        if not any(supports(catalog, other, key) for other in remaining):
            table = catalog.relation(key.referenced).qualified
            found.append(
                f"is the only one that serves deletes in {table} through the foreign key "
                f"{sql.quote(key.name)}"
            )
    return tuple(found)


def foreign_keys(catalog: Catalog, index: Index) -> tuple[ForeignKey, ...]:
    """Return the foreign keys of its table that an index supports."""
    return tuple(
        key for key in catalog.foreign_keys_of(index.table) if supports(catalog, index, key)
    )


def supports(catalog: Catalog, index: Index, key: ForeignKey) -> bool:
    """Return whether an index finds the rows of a foreign key: its columns lead, in any order."""
    width = len(key.columns)
    leading = index.keys[:width]
    fits = (
        index.table == key.table
        and index.usable
        and (index.method == "btree" or (index.method == "hash" and width == 1))
        and {item.column for item in leading} == set(key.columns)
    )
    if not fits:
        return False
    columns = {column.number: column for column in catalog.columns_of(key.table)}
    return all(item.collation == columns[item.column].collation for item in leading) and (
        index.predicate is None or index.predicate in _not_null(catalog, key)
    )


def _not_null(catalog: Catalog, key: ForeignKey) -> set[str]:
    """Write what a lookup by the foreign key implies, in both of the server's ways of writing."""
    names = [sql.quote(c.name) for c in catalog.columns_of(key.table) if c.number in key.columns]
    plain = [f"{name} IS NOT NULL" for name in names]
    return {*plain, *(f"({text})" for text in plain)}


def drop_sql(catalog: Catalog, index: Index) -> str:
    """Write the statement that removes an index, without blocking anyone where that is possible."""
    partitioned = catalog.relation(index.oid).kind == "partitioned index"
    return f"DROP INDEX {'' if partitioned else 'CONCURRENTLY '}{index.qualified}"


def restore_sql(catalog: Catalog, index: Index) -> str:
    """Write the statement that brings an index back, without blocking where that is possible."""
    partitioned = catalog.relation(index.oid).kind == "partitioned index"
    try:
        statements = sql.parse(index.definition, "<index>")
        if not statements:  # it was dropped while the catalog was read
            return index.definition
        node = statements[0].node
        node.index_stmt.concurrent = not partitioned
        node.index_stmt.table_space = index.tablespace  # the server's words leave it out
        return sql.deparse(node)
    except InputError:  # a newer server's word that the grammar here does not know
        return index.definition
