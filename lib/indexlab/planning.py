"""The what-if planner of a lab: opened when it is first asked, kept for the next question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from indexlab import audit as auditing
from indexlab import display, impact, sql
from indexlab import plan as plans
from indexlab import target as targets
from indexlab import workload as workloads
from indexlab.audit import Audit
from indexlab.catalog import Catalog
from indexlab.errors import InputError, SandboxError, TargetError
from indexlab.impact import Impact, Trial
from indexlab.plan import CreateIndex, IndexPlan
from indexlab.progress import Tell
from indexlab.records import Record
from indexlab.sandbox import Hypothetical, Sandbox, WhatIf, open_hypopg, open_sandbox
from indexlab.target import Target
from indexlab.workload import Query, SampledQuery, Values, Workload

if TYPE_CHECKING:
    import pandas as pd

MODES = ("sandbox", "hypopg", "off")
SETS = 10
"""So many sets of values of each query are planned."""
SAMPLER_SECONDS = 5
"""A sampler that needs longer is given up: its query is planned for any values."""
LIMIT = "SELECT pg_catalog.set_config('statement_timeout', %s, false)"

Given = Mapping[str, str | None] | Sequence[str | None] | None
"""Values for the placeholders of a statement: by name, or in order of number."""


def check_mode(mode: str) -> None:
    """Refuse a way to ask that there is not.

    Raises:
        InputError: it is none of `MODES`.
    """
    if mode not in MODES:
        raise InputError(f"no what-if planner {mode!r}: there are {', '.join(MODES)}")


@dataclass(frozen=True, slots=True)
class Weighed(Record):
    """An audit on which the matrix has spoken."""

    audit: Audit
    impact: Impact | None
    reason: str = ""
    """Why there is no impact."""

    def frame(self) -> pd.DataFrame:
        """Return the verdicts as a pandas DataFrame, as `Audit.frame` does.

        Columns: `line`, `index`, `table`, `verdict`, `revised`, `why`.
        """
        return self.audit.frame()

    def __repr__(self) -> str:
        return f"{self.audit!r}\n\n{self.impact or self.reason!s}"

    def _repr_html_(self) -> str:
        found = self.impact
        worth = f"<p>{display.escape(self.reason)}</p>" if found is None else found._repr_html_()
        return self.audit._repr_html_() + worth


class Planner:
    """Asks one planner what it would do; the target is only read."""

    def __init__(self, target: Target, workload: Workload, *, mode: str, keep: bool, tell: Tell):
        self.target = target
        self.workload = workload
        self.mode = mode
        self.keep = keep
        self.tell = tell
        self._holding = ExitStack()
        self._whatif: WhatIf | None = None
        self._scope: tuple[CreateIndex, ...] = ()
        self._sampled: tuple[SampledQuery, ...] | None = None
        self._notes: dict[str, str] = {}
        self._planned: tuple[Hypothetical, ...] = ()
        self._tried: dict[str, Hypothetical] = {}
        self._asked: tuple[Query, ...] = ()
        """What was asked beside the workload."""

    @property
    def drawn(self) -> tuple[SampledQuery, ...]:
        """The queries with the values that were drawn so far."""
        return self._sampled or ()

    def close(self) -> None:
        """Let go of the planner: a sandbox is deleted, unless it is to be kept."""
        self._whatif, self._tried, self._planned = None, {}, ()
        self._holding.close()

    def weigh(self, catalog: Catalog, audit: Audit) -> Weighed:
        """Read what the revised plan does to the workload, and let it speak on the verdicts.

        Reads only. Where no planner can be had, the audit says so and stays as it is.

        Args:
            catalog: a snapshot of the target.
            audit: of the plan, as the rules have judged it.
        """
        self.close()  # it is a copy of what the target was
        if self.mode == "off":
            return Weighed(audit, None, "Nothing was planned: --what-if is off.")
        if not self.workload.queries:
            return Weighed(audit, None, "There is no workload to plan.")
        if not (audit.revised.creates or audit.revised.drops or catalog.indexes):
            return Weighed(audit, None, "There is no index to weigh.")
        try:
            found = self._read(catalog, audit.revised)
        except (TargetError, psycopg.Error, OSError) as error:
            self.close()
            reason = self._without_secrets(str(error))
            return Weighed(
                auditing.not_weighed(audit, reason), None, f"Nothing was planned: {reason}."
            )
        return Weighed(auditing.weigh(catalog, audit, found), found)

    def _without_secrets(self, text: str) -> str:
        for secret in self.target.secrets():
            text = text.replace(secret, "***")
        return text.strip().rstrip(".")

    def _read(self, catalog: Catalog, plan: IndexPlan) -> Impact:
        sampled = self.sampled()
        with targets.connect(self.target, read_only=True, purpose="audit") as conn:
            unseen = impact.opaque(conn, self.workload)
        whatif = self._opened(catalog, plan.creates)
        recorded = _Recorded(whatif)
        found = impact.read(
            recorded, plan, sampled, catalog, unseen=unseen, notes=self._notes, tell=self.tell
        )
        self._planned = tuple(recorded.made)
        return replace(found, notes=(*found.notes, *self._kept(whatif)))

    def _kept(self, whatif: WhatIf) -> tuple[str, ...]:
        if not (self.keep and isinstance(whatif, Sandbox)):
            return ()
        name = conninfo_to_dict(whatif.conninfo)["dbname"]
        return (
            f"the sandbox was to be kept: it stays as database {name} of the sandboxes' server",
        )

    def sampled(self) -> tuple[SampledQuery, ...]:
        """Return the queries with values, drawn once; one without is planned for any values."""
        if self._sampled is None:
            with targets.connect(self.target, read_only=True, purpose="audit") as conn:
                conn.execute(LIMIT, [f"{SAMPLER_SECONDS}s"])
                self._sampled = tuple(self._draw(conn))
        return self._sampled

    def _draw(self, conn: psycopg.Connection[Any]) -> Iterator[SampledQuery]:
        queries = self.workload.queries
        for number, query in enumerate(queries):
            self.tell(f"sampling parameter values of {query.name}", number / len(queries))
            yield self._drawn(conn, query)

    def _drawn(self, conn: psycopg.Connection[Any], query: Query) -> SampledQuery:
        one = Workload((query,), self.workload.source)
        try:
            return workloads.sample(conn, one, size=SETS)[0]
        except InputError as error:
            self._notes[query.name] = str(error)
            return SampledQuery(query, ())

    def _opened(self, catalog: Catalog, scope: tuple[CreateIndex, ...]) -> WhatIf:
        """Return the planner; one that knows other tables is made again."""
        if self._whatif is not None:
            return self._whatif
        self._scope = scope
        if self.mode == "hypopg":
            self.tell("asking HypoPG on the target", None)
            self._whatif = self._holding.enter_context(open_hypopg(self.target))
        else:
            everything = replace(self.workload, queries=(*self.workload.queries, *self._asked))
            self._whatif = self._holding.enter_context(
                open_sandbox(
                    self.target,
                    catalog,
                    IndexPlan(scope),
                    everything,
                    keep=self.keep,
                    tell=self.tell,
                )
            )
        return self._whatif

    # Playing

    def attempt(
        self,
        catalog: Catalog,
        text: str,
        *,
        query: str,
        values: Given,
        with_plan: bool,
        plan: IndexPlan,
    ) -> Trial:
        """Plan one statement without and with the indexes of a text; reads only.

        Args:
            catalog: a snapshot of the target.
            text: one CREATE INDEX statement, or several.
            query: the name of a query of the workload, or SQL; empty takes the query of the
                workload that gains most.
            values: for its placeholders; None takes a sampled set, or plans for any values.
            with_plan: whether the planned indexes are there, too, in both plans.
            plan: the revised plan of the audit.

        Raises:
            InputError: the text or the query is not as it must be.
            SandboxError: it cannot be simulated.
            TargetError: no planner can be had.
        """
        if self.mode == "off":
            raise InputError("--what-if is off: open the lab with what_if='sandbox'")
        creates = self._corrected(catalog, text)
        self._take_in(query)
        subjects = [self._subject(query, values)] if query else self._all_queries(values)
        whatif = self._opened(catalog, (*plan.creates, *creates))
        if with_plan and not self._planned:
            self._planned = tuple(whatif.add(item) for item in plan.creates)
        made = self._made(catalog, creates, plan)
        whatif = self._opened(catalog, ())
        hidden = [item.index for item in self._tried.values() if item not in made]
        hidden += [] if with_plan else [item.index for item in self._planned]
        trials: list[Trial] = []
        refused: SandboxError | None = None
        for name, statement, bound in subjects:
            try:
                trials.append(
                    impact.attempt(whatif, made, statement, bound, query=name, hidden=hidden)
                )
            except SandboxError as error:
                refused = error
        if not trials:
            raise refused or SandboxError("no query of the workload can be simulated")
        written = tuple(item.index.sql for item in creates)
        return replace(_most_changed(trials, asked=bool(query)), statements=written)

    def _take_in(self, query: str) -> None:
        """See to it that the sandbox has the tables of a query that is not of the workload."""
        if self.mode == "hypopg" or not any(character.isspace() for character in query.strip()):
            return
        block = f"-- name: asked {len(self._asked) + 1}\n{query}"
        if any(one.sql == query for one in self._asked):
            return
        try:
            own = workloads.parse(block, "<query>").queries
        except InputError:
            return  # it is told by whoever reads it next
        self._asked = (*self._asked, *(replace(one, sql=query) for one in own))
        self.close()

    def _corrected(self, catalog: Catalog, text: str) -> tuple[CreateIndex, ...]:
        """Read the statements, with names as the target has them."""
        parsed = plans.parse(text, "<index>")
        if parsed.drops:
            raise InputError("a trial holds CREATE INDEX statements only", source="<index>")
        return tuple(auditing.corrected(catalog, item) for item in parsed.creates)

    def _made(
        self, catalog: Catalog, creates: tuple[CreateIndex, ...], plan: IndexPlan
    ) -> tuple[Hypothetical, ...]:
        try:
            return tuple(self._make(self._opened(catalog, ()), item) for item in creates)
        except SandboxError:
            known = {item.index.table for item in self._scope}
            if all(item.index.table in known for item in creates):
                raise
        # Its table is in no sandbox that was made before anybody spoke of it.
        self.close()
        whatif = self._opened(catalog, (*plan.creates, *creates))
        return tuple(self._make(whatif, item) for item in creates)

    def _make(self, whatif: WhatIf, statement: CreateIndex) -> Hypothetical:
        """Make an index once; under a name that is free, as a play may use a name again."""
        key = statement.index.sql
        if key not in self._tried:
            taken = {item.index.name for item in (*self._tried.values(), *self._planned)}
            name = sql.truncate(statement.index.name or "")
            if name in taken:
                free = next(
                    other
                    for number in range(2, len(taken) + 3)
                    if (other := f"{name[:48]} ({number})") not in taken
                )
                index = statement.index.revise(name=free)
                statement = replace(statement, index=index)
            self._tried[key] = whatif.add(statement)
        return self._tried[key]

    def _subject(self, query: str, values: Given) -> tuple[str, str, Values | None]:
        """Return what a statement is called, its text for the server, and its values."""
        known = {item.query.name: item for item in self.sampled()}
        if query in known:
            one = known[query]
            sampled = one.values[0] if one.values else None
            parameters = one.query.parameters
            bound = sampled if values is None else _bound(parameters, values)
            return query, one.query.statement, bound
        if not any(character.isspace() for character in query.strip()):
            raise InputError(
                f"the workload has no query {query!r}: there are "
                f"{', '.join(known) or 'none'}; or give SQL"
            )
        statement, names = sql.bind_names(query, "<query>", 1)
        parsed = sql.parse(statement, "<query>")
        if len(parsed) != 1 or parsed[0].kind not in workloads.READABLE + workloads.WRITING:
            raise InputError("give one SELECT, INSERT, UPDATE, DELETE or MERGE", source="<query>")
        numbered = any(True for _ in sql.nodes(parsed[0].node, "ParamRef"))
        bound = () if not numbered else None if values is None else _bound(names, values)
        return "the query", parsed[0].text, bound

    def _all_queries(self, values: Given) -> list[tuple[str, str, Values | None]]:
        if values is not None:
            raise InputError("values are for one query: say which one, query='...'")
        if not self.workload.queries:
            raise InputError("there is no workload: say on which query, query='SELECT ...'")
        return [
            (one.query.name, one.query.statement, one.values[0] if one.values else None)
            for one in self.sampled()
        ]


def _bound(names: tuple[str, ...], values: Given) -> Values:
    if isinstance(values, Mapping):
        missing = [name for name in names if name not in values]
        extra = [name for name in values if name not in names]
        if missing or extra:
            raise InputError(
                f"values for {', '.join(missing or extra)!r} are "
                f"{'missing' if missing else 'for nothing'}: the query has {', '.join(names)!r}"
            )
        return tuple(None if values[name] is None else str(values[name]) for name in names)
    given = tuple(None if value is None else str(value) for value in values or ())
    if names and len(given) != len(names):
        raise InputError(f"{len(given)} values for {len(names)} parameters: {', '.join(names)}")
    return given


def _most_changed(trials: list[Trial], *, asked: bool) -> Trial:
    """Return the trial that gains most, and name the others that change with it."""
    best = min(trials, key=lambda one: one.cost_after / one.cost_before if one.cost_before else 1)
    others = [one.title for one in trials if one is not best and one.used]
    note = "it changes no other query of the workload"
    if others:
        note = "it would change, too: " + "; ".join(others)
    return best if asked else replace(best, notes=(*best.notes, note))


class _Recorded:
    """A planner that remembers what was made in it."""

    def __init__(self, whatif: WhatIf):
        self.whatif = whatif
        self.made: list[Hypothetical] = []
        self.name, self.notes, self.lacking = whatif.name, whatif.notes, whatif.lacking
        self.hide, self.explain = whatif.hide, whatif.explain

    def add(self, index: CreateIndex) -> Hypothetical:
        made = self.whatif.add(index)
        self.made.append(made)
        return made
