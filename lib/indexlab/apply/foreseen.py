"""Decide on steps: from the catalog alone, nothing here reads or changes a target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from indexlab import sql
from indexlab.apply.statements import (
    comment_sql,
    constraint_sql,
    drop_constraint_sql,
    drop_sql,
)
from indexlab.apply.steps import BUILDS, CHANGES, CORRUPTING, Step
from indexlab.catalog import Catalog, Index, Relation, Unresolved, foreign_partitions
from indexlab.plan import CommentOnIndex, CreateIndex, DropIndex, IndexDef, IndexPlan, revised
from indexlab.sql import RelationName


def pending(catalog: Catalog, plan: IndexPlan, *, constraints: bool = False) -> tuple[Step, ...]:
    """Decide what each statement of a plan needs; pure, the catalog decides and no file.

    Later statements are judged by what the earlier ones will have done.

    Args:
        catalog: read with the plan, so that expressions are in the server's words.
        plan: any plan; statements around the indexes (BEGIN, SET, ANALYZE) make no step.
        constraints: whether unique indexes become constraints of their names.

    Returns:
        Steps in the order of the plan. Those with the action `refuse` make `run` raise.
    """
    foreseen = Foreseen(catalog, plan, constraints=constraints)
    return tuple(_steps(foreseen, plan))


def _steps(foreseen: Foreseen, plan: IndexPlan) -> Iterator[Step]:
    for statement in plan.statements:
        match statement:
            case CreateIndex():
                yield foreseen.create(statement)
            case DropIndex():
                for name in statement.names:
                    yield foreseen.drop(statement, name)
            case CommentOnIndex():
                yield foreseen.comment(statement)


def restoring(step: Step, definition: str) -> Step:
    """Have a drop remember how its index is built again."""
    index = IndexDef.parse(definition).revise(concurrently=True)
    return replace(step, definition=definition, undo=index.sql)


class Foreseen:
    """The target as it will be when the steps above have run."""

    def __init__(
        self,
        catalog: Catalog,
        plan: IndexPlan,
        *,
        constraints: bool = False,
        dropping: tuple[RelationName, ...] = (),
    ):
        """Begin with what is there.

        Args:
            catalog: read with the plan.
            plan: whose statements will be asked about.
            constraints: whether unique indexes become constraints of their names.
            dropping: indexes that will go, beside those that the plan drops.
        """
        self.catalog = catalog
        self._constraints = constraints
        self._made: list[Index] = []
        self._planned: dict[str, RelationName] = {}
        self._gone: set[RelationName] = set()
        found = (catalog.find(name, drop.search_path) for drop in plan.drops for name in drop.names)
        self._doomed = {item.qualified for item in found if item is not None}
        for name in dropping:
            index = self.index(name)
            parts = () if index is None else _attached(catalog, index)
            self._doomed |= {name, *parts}

    def index(self, name: RelationName) -> Index | None:
        """Return the index with this qualified name."""
        for index in reversed(self._made):
            if index.qualified == name:
                return index
        if name in self._gone or name.schema is None:
            return None
        return self.catalog.index(name.schema, name.name)

    def _relation(self, name: RelationName) -> Relation | None:
        if name in self._gone or name.schema is None:
            return None
        return self.catalog.named(name.schema, name.name)

    def _find(self, written: RelationName, search_path: tuple[str, ...] | None) -> RelationName:
        """Qualify a name as the server would; one that is not found stays as written."""
        name = sql.truncate(written.name)
        path = self.catalog.search_path if search_path is None else search_path
        for schema in (written.schema,) if written.schema is not None else path:
            qualified = RelationName(schema, name)
            if self.index(qualified) is not None or self._relation(qualified) is not None:
                return qualified
        return RelationName(written.schema, name)

    def create(self, statement: CreateIndex, *, again: bool = False) -> Step:
        """Decide on a CREATE INDEX.

        Args:
            statement: that says so.
            again: whether it brings back what was there, be it the equal of another one.
        """
        wanted = self.catalog.wanted(statement.index, statement.search_path)
        if isinstance(wanted, Unresolved):
            name = RelationName(statement.index.table.schema, statement.index.name or "(unnamed)")
            return Step(name, None, "refuse", statement.text, statement, _unresolved(wanted))
        relation = self.catalog.relation(wanted.table)
        if not wanted.name:
            wanted = replace(wanted, name=self._free_name(relation, wanted, statement.index))
        index = statement.index.revise(
            name=wanted.name, table=relation.qualified, concurrently=True, if_not_exists=False
        )
        step = Step(
            name=wanted.qualified,
            on=relation.qualified,
            action="build",
            statement=index.sql,
            planned=revised(statement, index),
            undo=drop_sql(wanted.qualified, if_exists=True),
            family=_family(self.catalog, relation),
        )
        if relation.kind == "partitioned table":
            undo = drop_sql(wanted.qualified, if_exists=True, concurrently=False)
            alone = index.revise(concurrently=False, only=True)
            step = replace(step, undo=undo, statement=alone.sql)
        self._planned[wanted.name] = wanted.qualified
        step = self._constrained(self._named(step, wanted, relation, again=again), wanted, relation)
        step = self._permitted(step, relation)
        if step.action in BUILDS:
            self._made.append(replace(wanted, definition=index.sql))
        return step

    def _named(self, step: Step, wanted: Index, relation: Relation, *, again: bool) -> Step:
        """Compare with what has the name, then with what has the definition."""
        same = self.index(wanted.qualified)
        if same is not None and not same.equals(wanted):
            return _refused(
                step,
                "the name is taken by another definition. "
                f"Wanted: {wanted.definition}. There: {same.definition}. "
                "Give the index another name, or drop the other one first",
            )
        if same is not None and same.usable:
            return replace(step, action="exists", definition=same.definition)
        other = self._relation(wanted.qualified)
        if same is None and other is not None:
            return _refused(step, f"the name is taken by a {other.kind}: give the index another")
        if relation.kind == "partitioned table":
            return self._in_parts(step, wanted, same)
        if same is not None:
            return _unusable(step, same)
        return step if again else self._absent(step, wanted)

    def _in_parts(self, step: Step, wanted: Index, same: Index | None) -> Step:
        """Have an index on a partitioned table made part by part."""
        lacking = _lacking(self.catalog, self.catalog.relation(wanted.table), wanted)
        if lacking:
            return _refused(step, f"{PARTITION_KEY}: {lacking} is not among its keys")
        foreign = foreign_partitions(self.catalog, self.catalog.relation(wanted.table))
        if foreign:
            names = tuple(str(item.qualified) for item in foreign)
            return _refused(step, _foreign(names, unique=wanted.unique))
        if same is None and (absent := self._absent(step, wanted)).action != "build":
            return absent
        reason = "" if same is None else "it is there, but not on every partition yet"
        return replace(
            step, action="parts", reason=reason, doomed=tuple(sorted(self._doomed, key=str))
        )

    def _constrained(self, step: Step, wanted: Index, relation: Relation) -> Step:
        """Have a unique index become a constraint, where that is asked for."""
        if not self._constraints or not wanted.unique or step.action not in (*BUILDS, "exists"):
            return step
        reason = _unconstrainable(wanted, relation)
        if reason:
            return _refused(step, f"it cannot become a constraint: {reason}")
        same = self.index(wanted.qualified)
        if step.action == "exists" and same is not None and same.constraint is None:
            statement = constraint_sql(relation.qualified, wanted.qualified)
            undo = drop_constraint_sql(relation.qualified, wanted.qualified)
            return replace(step, action="constraint", statement=statement, undo=undo)
        return step

    def _absent(self, step: Step, wanted: Index) -> Step:
        twin = self._twin(wanted)
        if twin is None:
            return step
        reason = f"{twin.qualified} is the same index under another name"
        return replace(step, action="exists", reason=reason, definition=twin.definition)

    def _twin(self, wanted: Index) -> Index | None:
        """Return an equal index that will stay, whatever its name."""
        there = [
            index
            for index in self.catalog.indexes_of(wanted.table)
            if index.qualified not in self._doomed and index.qualified not in self._gone
        ]
        made = [index for index in self._made if index.qualified not in self._doomed]
        return next((i for i in (*there, *made) if i.usable and i.equals(wanted)), None)

    def drop(self, statement: DropIndex, written: RelationName, *, own: bool = False) -> Step:
        """Decide on one name of a DROP INDEX.

        Args:
            statement: that says so.
            written: the name in it.
            own: whether a run of the kit made it: then it may be partitioned, or the constraint
                that the run made of it.
        """
        name = self._find(written, statement.search_path)
        index, relation = self.index(name), self._relation(name)
        step = Step(name, None, "drop", drop_sql(name), statement)
        if index is None and relation is not None:
            return _refused(step, f"it is a {relation.kind}, not an index")
        if index is None:
            if statement.if_exists:
                return replace(step, action="skip", reason="there is no such index")
            elsewhere = [str(item.qualified) for item in self.catalog.elsewhere(name.name)]
            hint = f"write {' or '.join(elsewhere)}" if elsewhere else "take the statement out"
            return _refused(step, f"there is no such index: {hint}, or add IF EXISTS")
        table = self.catalog.relation(index.table)
        family = _family(self.catalog, table)
        step = replace(step, on=table.qualified, oid=index.oid, family=family)
        step = restoring(step, index.definition)
        if own:
            step = _own_drop(step, index, table)
        protection = next(_protections(self.catalog, index, own=own), None)
        if protection is not None:
            return _refused(step, f"it must stay: {protection}")
        if index.building:
            reason = "another session is building it: wait for its end and run again"
            return _refused(step, reason)
        step = self._permitted(step, table)
        if step.action == "drop":
            self._gone |= {name, *_attached(self.catalog, index)}
            self._made = [made for made in self._made if made.qualified not in self._gone]
        return step

    def comment(self, statement: CommentOnIndex) -> Step:
        """Decide on a COMMENT ON INDEX, which follows its index into its schema."""
        name = self._find(statement.name, None)
        if statement.name.schema is None:
            name = self._planned.get(name.name, name)
        step = Step(name, None, "comment", comment_sql(name, statement.comment), statement)
        index = self.index(name)
        if index is None:
            reason = "there is no index of this name to comment on"
            return replace(step, action="skip", reason=reason)
        table = self.catalog.relation(index.table)
        family = _family(self.catalog, table)
        step = replace(step, on=table.qualified, family=family, reason="its comment")
        return self._permitted(step, table)

    def _permitted(self, step: Step, table: Relation) -> Step:
        """Refuse a change that the role or the server does not allow."""
        server = self.catalog.server
        if step.action not in CHANGES:
            return step
        if server.standby:
            reason = "the server is a standby: give the address of the primary"
        elif not table.owned:
            reason = (
                f"{table.qualified} belongs to {table.owner!r} and not to {server.user!r}: "
                f"connect as {table.owner!r} or as a member of it"
            )
        elif step.action in BUILDS and server.version in CORRUPTING:
            reason = (
                f"PostgreSQL {server.version_text} may corrupt indexes built CONCURRENTLY: "
                "update the server to 14.4 or newer"
            )
        else:
            return step
        return _refused(step, reason, forbidden=True)

    def _free_name(self, relation: Relation, wanted: Index, planned: IndexDef) -> str:
        """Choose a name as the server does, or that of the leftover of an earlier attempt."""
        columns = [*(key.column or "expr" for key in planned.keys), *planned.include]
        number = 0
        while True:
            label = f"_idx{number or ''}"
            name = _object_name(relation.name, "_".join(columns), label)
            qualified = RelationName(relation.schema, name)
            index = self.index(qualified)
            if index is not None and index.equals(wanted):
                return name
            if index is None and self._relation(qualified) is None:
                return name
            number += 1


def _foreign(names: tuple[str, ...], *, unique: bool) -> str:
    """Say why there is no index on a table with these foreign partitions."""
    which = f"its {'partition' if len(names) == 1 else 'partitions'} {', '.join(names)}"
    if unique:
        return f"{which} cannot enforce it: a foreign table has no index"
    return (
        f"{which} cannot have an index, being foreign, and so the parent's never becomes valid part "
        "by part: plan it on each of the other partitions instead; when all have theirs, a plain "
        "CREATE INDEX on the parent takes them over, with writers locked out for a moment"
    )


PARTITION_KEY = "a unique index on a partitioned table must contain its partition key"


def _lacking(catalog: Catalog, table: Relation, wanted: Index) -> str:
    """Name the parts of the partition key that a unique index lacks."""
    if not wanted.unique:
        return ""
    keys = {key.column for key in wanted.keys} - {0}
    columns = {column.number: sql.quote(column.name) for column in catalog.columns_of(table.oid)}
    numbers = map(int, table.partition_key.split())
    return ", ".join(columns.get(item, "an expression") for item in numbers if item not in keys)


def _family(catalog: Catalog, table: Relation) -> int:
    """Return the oid of the topmost table that this one is a partition of, or its own."""
    while table.is_partition and table.parent is not None:
        table = catalog.relation(table.parent)
    return table.oid


def _unconstrainable(wanted: Index, relation: Relation) -> str:
    if relation.kind == "partitioned table":
        return "the server takes no index of a partitioned table for one"
    if relation.kind == "materialized view":
        return "a materialized view has none"
    if wanted.predicate is not None:
        return "it is partial"
    if not all(key.column for key in wanted.keys):
        return "it has an expression among its keys"
    if any(key.descending or key.nulls_first for key in wanted.keys):
        return "it does not sort as usual"
    return ""


def _unusable(step: Step, same: Index) -> Step:
    if same.building:
        return replace(step, action="wait", reason="another session is building it")
    return replace(step, action="rebuild", reason="an invalid leftover is dropped first")


def _refused(step: Step, reason: str, *, forbidden: bool = False) -> Step:
    return replace(step, action="refuse", reason=reason, forbidden=forbidden)


def _unresolved(missing: Unresolved) -> str:
    if missing.what == "kind":
        return f"{missing.name} is a {missing.detail}: only tables and materialized views have any"
    if missing.what == "expression":
        return f"the server refuses {missing.name!r}: {missing.detail}"
    what = {"opclass": "operator class"}.get(missing.what, missing.what)
    return f"{what} {missing.name!r} does not exist: audit the plan and apply the revised one"


def _own_drop(step: Step, index: Index, table: Relation) -> Step:
    """Write the drop of what the kit made, where it is not a plain index."""
    if table.kind == "partitioned table":
        statement = drop_sql(step.name, concurrently=False)
        undo = IndexDef.parse(index.definition).sql
        return replace(step, statement=statement, undo=undo, brief=True)
    if index.constraint == index.name:
        statement = drop_constraint_sql(table.qualified, step.name)
        return replace(step, statement=statement, brief=True)
    return step


def _attached(catalog: Catalog, index: Index) -> Iterator[RelationName]:
    """Find what goes with a partitioned index: those that are attached to it, at every depth."""
    if not index.oid:
        return
    for item in catalog.indexes:
        if item.parent == index.oid:
            yield item.qualified
            yield from _attached(catalog, item)


def _protections(catalog: Catalog, index: Index, *, own: bool = False) -> Iterator[str]:
    """Say why an index must not be dropped; nothing where it may."""
    if index.constraint is not None and not (own and index.constraint == index.name):
        yield f"it backs the constraint {index.constraint!r}"
    if index.referenced_by:
        keys = ", ".join(map(repr, index.referenced_by))
        yield f"the foreign key {keys} refers to its table through it"
    if index.parent is not None:
        yield f"it is attached to {catalog.relation(index.parent).qualified}, drop that one"
    if index.replica_identity:
        yield "it is the replica identity of its table, replication needs it"
    if index.extension is not None:
        yield f"it belongs to the extension {index.extension!r}"
    if index.oid and not own and catalog.relation(index.oid).kind == "partitioned index":
        yield "it is partitioned and cannot be dropped CONCURRENTLY, drop it by hand"
    if not own and _refreshes(catalog, index):
        yield "REFRESH MATERIALIZED VIEW CONCURRENTLY needs it, no other unique index would do"


def _refreshes(catalog: Catalog, index: Index) -> bool:
    """Return whether it is the only index that lets a materialized view refresh concurrently."""
    if catalog.relation(index.table).kind != "materialized view":
        return False
    serving = [
        item
        for item in catalog.indexes_of(index.table)
        if item.unique
        and item.usable
        and item.predicate is None
        and all(k.column for k in item.keys)
    ]
    return serving == [index]


def _object_name(table: str, columns: str, label: str) -> str:
    """Join the parts of a name, the longer one cut first, as makeObjectName of the server does."""
    while len(f"{table}_{columns}{label}".encode()) > sql.MAX_IDENTIFIER_BYTES:
        if len(table.encode()) > len(columns.encode()):
            table = table[:-1]
        else:
            columns = columns[:-1]
    return f"{table}_{columns}{label}"
