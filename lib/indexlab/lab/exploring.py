"""The verbs of an investigation: what is slow, why, what would help, and keeping what convinced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg.errors import QueryCanceled

from indexlab import audit as auditing
from indexlab import benchmark as benchmarking
from indexlab import display, records, sql, statements, units
from indexlab import explain as explaining
from indexlab import plan as plans
from indexlab import target as targets
from indexlab import workload as workloads
from indexlab.benchmark import Measurement
from indexlab.catalog import Catalog
from indexlab.display import Note
from indexlab.errors import InputError, SandboxError
from indexlab.explain import Explain
from indexlab.impact import Trial
from indexlab.lab.auditing import Auditing
from indexlab.lab.inputs import check_type
from indexlab.plan import Added, CreateIndex
from indexlab.records import Record
from indexlab.statements import Statements
from indexlab.workload import Query, SampledQuery

if TYPE_CHECKING:
    import pandas as pd

LIMIT = "SELECT pg_catalog.set_config('statement_timeout', %s, true)"
COLUMNS = ("query", "weight", "cost", "cost times weight", "share", "plan")


@dataclass(frozen=True, slots=True)
class Explained(Record):
    """A query and the plan that the target has for it."""

    query: str
    statement: str
    weight: float
    explain: Explain | None
    """None where the target refuses to plan it."""
    notes: tuple[str, ...] = ()
    """How it was asked, or why there is no plan."""

    @property
    def cost(self) -> float:
        """The planner's cost of one call; 0 where there is no plan."""
        return 0.0 if self.explain is None else self.explain.root.total_cost

    def frame(self) -> pd.DataFrame:
        """Return the steps of the plan, with the columns of `Explain.frame`.

        They are `depth`, `type`, `relation`, `index`, `total_cost`, `plan_rows`, `actual_rows`,
        `actual_loops`, `actual_ms`, `rows_removed`, `shared_hit` and `shared_read`; without a plan
        there are none.
        """
        import pandas as pd

        return pd.DataFrame() if self.explain is None else self.explain.frame()

    def __repr__(self) -> str:
        plan = [] if self.explain is None else [repr(self.explain)]
        return "\n".join([display.clean(self.query), *plan, *map(display.clean, self.notes)])

    def _repr_html_(self) -> str:
        plan = "" if self.explain is None else self.explain._repr_html_()
        notes = "".join(f"<p>{display.escape(note)}</p>" for note in self.notes)
        name = display.escape(self.query)
        return f"<p><strong>{name}</strong></p>{display.code(self.statement)}{plan}{notes}"


@dataclass(frozen=True, slots=True)
class Costs(Record):
    """What the planner thinks of the workload as it is, the costliest first."""

    queries: tuple[Explained, ...]
    reason: str = ""
    """Why these are costs and no times."""

    def frame(self) -> pd.DataFrame:
        """Return the queries as a pandas DataFrame, one row each, the costliest first.

        Columns: `query`; `weight`, calls per unit of time; `cost` of one call in the planner's
        units; `cost_times_weight`; `share` of the whole, from 0 to 1; `plan`, its topmost step.
        """
        import pandas as pd

        columns = ["query", "weight", "cost", "cost_times_weight", "share", "plan"]
        rows = [
            (one.query, one.weight, one.cost, one.cost * one.weight, self._share(one), _top(one))
            for one in self.queries
        ]
        return pd.DataFrame(rows, columns=columns)

    def _share(self, one: Explained) -> float:
        whole = sum(other.cost * other.weight for other in self.queries)
        return one.cost * one.weight / whole if whole else 0.0

    def _rows(self) -> Iterator[tuple[object, ...]]:
        for one in self.queries:
            costs = (units.cost(one.cost), units.cost(one.cost * one.weight))
            yield one.query, f"{one.weight:g}", *costs, f"{self._share(one):.0%}", _top(one)

    def __repr__(self) -> str:
        notes = [self.reason] if self.reason else []
        return records.text("the workload by cost", COLUMNS, self._rows(), notes=notes)

    def _repr_html_(self) -> str:
        table = display.table(
            COLUMNS, self._rows(), caption="the workload by cost", numeric=COLUMNS[1:5]
        )
        return f"{table}<p>{display.escape(self.reason)}</p>"


def _top(one: Explained) -> str:
    return "; ".join(one.notes) if one.explain is None else one.explain.root.title()


class Exploring(Auditing):
    """Look for what is slow, and try what would help."""

    _slowest: Statements | Costs | None = None

    def slowest(self) -> Statements | Costs:
        """Say where the time goes: by pg_stat_statements, or else by the plans of the workload.

        Reads only. Where nobody counts statements, the workload's queries are planned, not run.
        """
        self._progress.tell("reading pg_stat_statements")
        found: Statements | Costs = self._statements()
        if isinstance(found, Statements) and not found.recorded and self._workload.queries:
            found = self._costs(found.reason)
        self._slowest = found
        return found

    def _costs(self, reason: str) -> Costs:
        explained = []
        sampled = self._planner.sampled()
        for number, one in enumerate(sampled):
            self._progress.tell(f"planning {one.query.name}", number / len(sampled))
            explained.append(self._planned(one))
        explained.sort(key=lambda one: -one.cost * one.weight)
        return Costs(tuple(explained), reason)

    def explain(
        self, query: str = "", *, analyze: bool = True, statement_timeout: float = 60.0
    ) -> Explained | Note:
        """Show the plan that the target has for one query.

        A read of which values are known is executed once, in a READ ONLY transaction, so that the
        plan has times and rows; anything else is planned only.

        Args:
            query: a name that `slowest` shows, or SQL; empty takes the costliest.
            analyze: whether to execute it.
            statement_timeout: seconds after which it is given up.

        Raises:
            InputError: there is no such query, or the SQL is not one query.
            TargetError: the target cannot be reached.
        """
        check_type("query", query, str)
        check_type("analyze", analyze, bool)
        one = self._subject(query)
        if one is None:
            return Note.words(NO_QUERY)
        runs = analyze and one.query.kind == "read" and bool(one.values)
        self._progress.tell(f"{'running' if runs else 'planning'} {one.query.name}")
        return self._planned(one, seconds=statement_timeout if runs else 0.0)

    def _planned(self, one: SampledQuery, *, seconds: float = 0.0) -> Explained:
        """Ask for the plan of a query; with seconds, execute it once."""
        query, values = one.query, one.values[0] if one.values else None
        notes: tuple[str, ...] = ()
        found: Explain | None = None
        with self._reader() as conn:
            try:
                if values is None:
                    found = explaining.run_generic(conn, query.statement, _count(query.statement))
                    notes = ("It was planned for any values, and not run, since none are known.",)
                else:
                    with conn.transaction(force_rollback=True):
                        conn.execute(LIMIT, [f"{round(seconds * 1000)}ms"])
                        found = explaining.run(conn, query.statement, values, analyze=seconds > 0)
                    notes = (_how(one, seconds),)
            except QueryCanceled:
                notes = (f"It was given up after {units.duration(seconds)}.",)
            except psycopg.Error as error:
                said = error.diag.message_primary or str(error)
                notes = (f"The target does not plan it: {said}.",)
        if found is None and seconds:
            planned = self._planned(one)
            return replace(planned, notes=(*notes, *planned.notes))
        return Explained(query.name, query.statement, query.weight, found, notes)

    def try_index(self, index: str = "", query: str = "") -> Trial | Note:
        """Plan a query with an index that is not there, or with those of the plan; reads only.

        Args:
            index: `CREATE INDEX ...`; empty tries the plan's on the tables of the query.
            query: a name that `slowest` shows, or SQL; empty takes the costliest.

        Raises:
            InputError: the statement or the query is not as it must be.
            TargetError: it cannot be simulated.
        """
        check_type("index", index, str)
        check_type("query", query, str)
        one = self._subject(query)
        if one is None:
            return Note.words(NO_QUERY)
        wanted = index or ";\n".join(self._of_its_tables(one.query))
        if not wanted:
            return Note.words(
                "No index was named, and the plan has none on the tables of this query: say one as "
                "CREATE INDEX ... ON ..."
            )
        known = any(one.query.name == other.name for other in self._workload.queries)
        catalog, audit = self._ruled()
        try:
            trial = self._planner.attempt(
                catalog,
                wanted,
                query=one.query.name if known else one.query.sql,
                values=None,
                with_plan=False,
                plan=audit.revised,
            )
        except SandboxError as error:
            return Note.words(f"It cannot be tried: {error}.")
        return trial if known else replace(trial, query=one.query.name)

    def _of_its_tables(self, query: Query) -> Iterator[str]:
        """Write the indexes of the plan that stand on tables that a query speaks of."""
        catalog, audit = self._ruled()
        names = {
            (node.schemaname or None, node.relname)
            for parsed in sql.parse(query.statement, "<query>")
            for node in sql.nodes(parsed.node, "RangeVar")
        }
        for item in audit.revised.creates:
            found = catalog.find(item.index.table)
            if found and {(found.schema, found.name), (None, found.name)} & names:
                yield item.index.sql

    def time(
        self, query: str = "", *, seconds: float = 3.0, statement_timeout: float = 60.0
    ) -> Measurement | Note:
        """Time one query on the target as it is; a write only on a disposable one, rolled back.

        Args:
            query: a name that `slowest` shows, or SQL; empty takes the costliest.
            seconds: of measuring.
            statement_timeout: seconds after which an execution is given up.

        Raises:
            InputError: there is no such query, or it fails.
            TargetError: the target cannot be reached.
        """
        check_type("query", query, str)
        check_type("seconds", seconds, float)
        one = self._subject(query)
        if one is None:
            return Note.words(NO_QUERY)
        if not one.values:
            return Note.words(
                f"{one.query.name} is known as normalized text only, so there are no values to "
                "time it with: write it into a workload, with :name and a sampler."
            )
        if one.query.kind == "write" and not self.disposable:
            return Note.words(f"{one.query.name} writes: it is timed on a disposable target only.")
        return benchmarking.measure(
            self.target,
            (one,),
            label=one.query.name,
            budget=seconds,
            precision=0.05,
            disposable=self.disposable,
            statement_timeout=statement_timeout,
            source=self._workload.source,
            progress=self._progress.tell,
        )

    def keep(self, found: Trial | Note | str, because: str = "", to: str = "") -> Added | Note:
        """Append what convinced to a plan file, with the reason as its comment; never twice.

        Args:
            found: a trial, of which the indexes are kept that its plan uses; or `CREATE INDEX ...`.
            because: the reason; by default, for a trial, what came of it.
            to: path of the plan; empty keeps nothing.

        Raises:
            InputError: the file is no plan, or the statement is not one that the target can have.
        """
        check_type("because", because, str)
        check_type("to", to, str)
        if isinstance(found, Note):
            return Note.words("Nothing was tried, so nothing is kept.")
        if isinstance(found, Trial) and not found.used:
            return Note.words("Nothing is kept: the query would not use what was tried.")
        if not to:
            return Note.words("Nothing is kept: say in which plan file.")
        catalog, _ = self._ruled()
        chosen = [found] if isinstance(found, str) else found.kept
        reason = because or ("" if isinstance(found, str) else found.title)

        def reading(item: CreateIndex) -> CreateIndex:
            return auditing.corrected(catalog, item)

        written = [
            plans.add(Path(to), _as_the_target_has_it(text, catalog), reason, reading=reading)
            for text in chosen
        ]
        if len(written) == 1:
            return written[0]
        return Note.words(" ".join(map(repr, written)))

    def _statements(self) -> Statements:
        with self._reader() as conn:
            found = statements.read(conn)
        if self._workload.source != statements.SOURCE:
            taken = [query.name for query in self._workload.queries]
            found = replace(found, recorded=statements.renamed(found.recorded, taken))
        return found

    def _subject(self, query: str) -> SampledQuery | None:
        """Return a query by its name, or of a text, with its values; None where there is none."""
        if not query:
            found = self._slowest or self.slowest()
            if isinstance(found, Statements):
                return SampledQuery(found.recorded[0].query(), ()) if found.recorded else None
            query = found.queries[0].query
        known = {one.query.name: one for one in self._planner.sampled()}
        if query in known:
            return known[query]
        recorded = {one.name: one for one in self._statements().recorded}
        if query in recorded:
            return SampledQuery(recorded[query].query(), ())
        if not any(character.isspace() for character in query.strip()):
            raise InputError(
                f"there is no query {query!r}: there are "
                f"{units.listed([*known, *recorded], most=30)}; or give SQL"
            )
        (own,) = workloads.parse(f"-- name: the query\n{query}", "<query>").queries
        with targets.connect(self.target, read_only=True, purpose="explore") as conn:
            return workloads.sample(conn, workloads.Workload((own,), "<query>"))[0]


NO_QUERY = (
    "There is no query to look at: nobody has counted statements here, and there is no workload. "
    "Give a query as SQL."
)


def _count(statement: str) -> int:
    """Return how many numbered placeholders a statement has; pure."""
    numbers = [
        node.number
        for parsed in sql.parse(statement, "<query>")
        for node in sql.nodes(parsed.node, "ParamRef")
    ]
    return max(numbers, default=0)


def _how(one: SampledQuery, seconds: float) -> str:
    names = one.query.parameters
    given = ", ".join(
        f"{name} = {value!r}" for name, value in zip(names, one.values[0], strict=True)
    )
    with_values = f" with {given}" if given else ""
    return f"It was {'executed once' if seconds else 'planned, not run,'}{with_values}."


def _as_the_target_has_it(text: str, catalog: Catalog) -> str:
    """Return a statement with its names as the target has them; pure.

    Raises:
        InputError: it is not one CREATE INDEX, or the target cannot have it.
    """
    parsed = plans.parse(text, "<index>")
    if len(parsed.statements) != 1 or not parsed.creates:
        raise InputError("give one CREATE INDEX statement", source="<index>")
    return auditing.corrected(catalog, parsed.creates[0]).index.sql
