"""Decide on steps: from the catalog alone, nothing here reads or changes a target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from psycopg import sql as compose

from indexlab import sql, units
from indexlab.apply.outcomes import Outcome
from indexlab.catalog import Catalog, Index, Relation, Unresolved
from indexlab.errors import InputError, TargetError
from indexlab.plan import (
    CommentOnIndex,
    CreateIndex,
    DropIndex,
    IndexDef,
    IndexPlan,
    PlanStatement,
    revised,
)
from indexlab.sql import RelationName

Action = Literal["build", "rebuild", "exists", "drop", "skip", "comment", "wait", "refuse"]
CHANGES: tuple[Action, ...] = ("build", "rebuild", "drop", "comment")
CORRUPTING = range(140000, 140004)
"""Versions whose concurrent builds may miss rows (fixed by 14.4)."""


class ApplyRefused(InputError):
    """The plan asks for something that cannot be; nothing was run. Every refusal is listed."""


@dataclass(frozen=True, slots=True)
class Step:
    """One statement to run, or the reason why it need not or must not run."""

    name: RelationName
    """The index, with its schema where that is known."""
    on: RelationName | None
    """Its table; None where nothing of that name was found."""
    action: Action
    statement: str
    """As it will run, or as it was written where it will not."""
    planned: PlanStatement = field(repr=False)
    reason: str = ""
    """Why this action."""
    definition: str = ""
    """The server's definition of the index that exists."""
    undo: str = ""
    """The SQL that takes the step back."""
    oid: int = 0
    """Of the index to drop; 0 where an earlier step makes it."""
    forbidden: bool = False
    """Whether a refusal comes from the target (its role, its version) and not from the plan."""

    @property
    def index(self) -> str:
        """The index with its schema, quoted where it must be."""
        return str(self.name)

    @property
    def table(self) -> str:
        """The table with its schema, quoted where it must be."""
        return "" if self.on is None else str(self.on)

    @property
    def purpose(self) -> str:
        """The comment above the statement in the plan."""
        return self.planned.reason

    @property
    def line(self) -> int:
        """Line of the statement in the plan."""
        return self.planned.line


def pending(catalog: Catalog, plan: IndexPlan) -> tuple[Step, ...]:
    """Decide what each statement of a plan needs; pure, the catalog decides and no file.

    Later statements are judged by what the earlier ones will have done.

    Args:
        catalog: read with the plan, so that expressions are in the server's words.
        plan: any plan; statements around the indexes (BEGIN, SET, ANALYZE) make no step.

    Returns:
        Steps in the order of the plan. Those with the action `refuse` make `run` raise.
    """
    foreseen = _Foreseen(catalog, plan)
    return tuple(_steps(foreseen, plan))


def refuse(steps: tuple[Step, ...], source: str) -> None:
    """Raise if any step is impossible, with all refusals at once.

    Raises:
        ApplyRefused: a statement asks for what cannot be.
        TargetError: the role or the server does not allow any of what is refused.
    """
    refused = [step for step in steps if step.action == "refuse"]
    if not refused:
        return
    listed = "".join(f"\n  line {item.line}, {item.index}: {item.reason}" for item in refused)
    message = f"{units.plural(len(refused), 'statement')} refused, nothing was run:{listed}"
    if all(item.forbidden for item in refused):
        raise TargetError(f"{source}: {message}")
    raise ApplyRefused(message, source=source)


def reversal(catalog: Catalog, outcomes: tuple[Outcome, ...]) -> tuple[Step, ...]:
    """Decide how to take outcomes back, the last one first; pure.

    What was built is dropped if it still is what was built; what was dropped is built again; a
    comment gets its former words.

    Args:
        catalog: read with `rebuilt(outcomes)` as the plan.
        outcomes: of a run, or of several in their order.
    """
    foreseen = _Foreseen(catalog, rebuilt(outcomes))
    return tuple(
        step for outcome in reversed(outcomes) if (step := _reverse(foreseen, outcome)) is not None
    )


def rebuilt(outcomes: tuple[Outcome, ...]) -> IndexPlan:
    """Return the indexes of outcomes as a plan, in the server's own definitions; pure."""
    texts = [item.definition for item in outcomes if item.definition and item.undo]
    return IndexPlan(tuple(_create(text) for text in texts), "the outcomes")


def restoring(step: Step, definition: str) -> Step:
    """Have a drop remember how its index is built again."""
    index = IndexDef.parse(definition).revise(concurrently=True)
    return replace(step, definition=definition, undo=index.sql)


def drop_sql(name: RelationName, *, if_exists: bool = False) -> str:
    """Write the DROP INDEX that blocks no reader and no writer."""
    text = "DROP INDEX CONCURRENTLY IF EXISTS {}" if if_exists else "DROP INDEX CONCURRENTLY {}"
    return compose.SQL(text).format(identifier(name)).as_string(None)


def comment_sql(name: RelationName, comment: str | None) -> str:
    """Write the COMMENT ON INDEX that sets or removes a comment."""
    words = compose.SQL("COMMENT ON INDEX {} IS {}")
    return words.format(identifier(name), compose.Literal(comment)).as_string(None)


def identifier(name: RelationName) -> compose.Identifier:
    """Return a name for psycopg to quote."""
    return compose.Identifier(*filter(None, (name.schema, name.name)))


def _steps(foreseen: _Foreseen, plan: IndexPlan) -> Iterator[Step]:
    for statement in plan.statements:
        match statement:
            case CreateIndex():
                yield foreseen.create(statement)
            case DropIndex():
                for name in statement.names:
                    yield foreseen.drop(statement, name)
            case CommentOnIndex():
                yield foreseen.comment(statement)


def _reverse(foreseen: _Foreseen, outcome: Outcome) -> Step | None:
    if not outcome.undo:
        return None
    if not outcome.definition:
        statement = sql.parse(outcome.undo, "the outcomes")[0]
        name = RelationName(*(item.string.sval for item in statement.tree.object.list.items))
        text = statement.tree.comment or None
        return foreseen.comment(CommentOnIndex(name, text, outcome.undo, 1))
    created = _create(outcome.definition)
    if outcome.outcome == "dropped":
        return foreseen.create(created)
    name = RelationName(created.index.table.schema, created.index.name or "")
    statement_ = DropIndex((name,), outcome.undo, 1, concurrently=True, if_exists=True)
    index, wanted = foreseen.index(name), foreseen.catalog.wanted(created.index)
    if index is not None and (isinstance(wanted, Unresolved) or not index.equals(wanted)):
        why = f"left alone, it is no longer what was built: {index.definition}"
        return Step(name, created.index.table, "skip", outcome.undo, statement_, why)
    step = foreseen.drop(statement_, name)
    return replace(step, action="skip") if step.action == "refuse" and not step.forbidden else step


def _create(definition: str) -> CreateIndex:
    return CreateIndex(IndexDef.parse(definition), definition, 1)


class _Foreseen:
    """The target as it will be when the steps above have run."""

    def __init__(self, catalog: Catalog, plan: IndexPlan):
        self.catalog = catalog
        self._made: list[Index] = []
        self._planned: dict[str, RelationName] = {}
        self._gone: set[RelationName] = set()
        found = (catalog.find(name, drop.search_path) for drop in plan.drops for name in drop.names)
        self._doomed = {item.qualified for item in found if item is not None}

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

    def create(self, statement: CreateIndex) -> Step:
        """Decide on a CREATE INDEX."""
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
        )
        self._planned[wanted.name] = wanted.qualified
        step = self._permitted(self._named(step, wanted, relation), relation)
        if step.action in ("build", "rebuild"):
            self._made.append(replace(wanted, definition=index.sql))
        return step

    def _named(self, step: Step, wanted: Index, relation: Relation) -> Step:
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
            return _refused(step, PARTITIONED)
        return self._absent(step, wanted) if same is None else _unusable(step, same)

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

    def drop(self, statement: DropIndex, written: RelationName) -> Step:
        """Decide on one name of a DROP INDEX."""
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
        step = restoring(replace(step, on=table.qualified, oid=index.oid), index.definition)
        protection = next(_protections(self.catalog, index), None)
        if protection is not None:
            return _refused(step, f"it must stay: {protection}")
        if index.building:
            return replace(step, action="wait", reason="another session is building it")
        step = self._permitted(step, table)
        if step.action == "drop":
            self._gone.add(name)
            self._made = [made for made in self._made if made.qualified != name]
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
        return self._permitted(replace(step, on=table.qualified), table)

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
        elif step.action in ("build", "rebuild") and server.version in CORRUPTING:
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


PARTITIONED = (
    "an index on a partitioned table cannot be built CONCURRENTLY: create it ON ONLY the parent, "
    "build one CONCURRENTLY on each partition, and attach them with ALTER INDEX ATTACH PARTITION"
)


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


def _protections(catalog: Catalog, index: Index) -> Iterator[str]:
    """Say why an index must not be dropped; nothing where it may."""
    if index.constraint is not None:
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
    if index.oid and catalog.relation(index.oid).kind == "partitioned index":
        yield "it is partitioned and cannot be dropped CONCURRENTLY, drop it by hand"
    if _refreshes(catalog, index):
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
