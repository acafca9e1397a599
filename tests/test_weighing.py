"""What a matrix does to verdicts: small literal matrices and catalogs, no server."""

from __future__ import annotations

from dataclasses import replace

import pytest

from indexlab import audit as auditing
from indexlab import explain, plan
from indexlab.audit import Audit
from indexlab.audit.idle import ENOUGH_SCANS
from indexlab.catalog import AccessMethod, Catalog, Column, Index, Key, Relation
from indexlab.explain import Explain
from indexlab.impact import Candidate, Existing, Impact, QueryImpact, Situation, Variant
from indexlab.target import Server

SERVER = Server(180006, "18.6", "shop", "app", "socket", 5432, superuser=False, standby=False)
TABLE, OLD = 10, 20


def relation(oid: int, name: str, kind: str = "table", scans: int = 0) -> Relation:
    return Relation(
        oid=oid,
        schema="s",
        name=name,
        kind=kind,
        owner="app",
        owned=True,
        readable=True,
        unlogged=False,
        parent=None,
        is_partition=False,
        rows=1e6,
        bytes=100_000_000,
        inserted=0,
        updated=0,
        hot_updated=0,
        deleted=0,
        scans=scans,
    )


def existing(scans: int = 0, **facts: object) -> Index:
    key = Key(1, "a", 1976, 23, 0, descending=False, nulls_first=False)
    index = Index(
        oid=OLD,
        schema="s",
        name="old",
        table=TABLE,
        method="btree",
        unique=False,
        nulls_not_distinct=False,
        keys=(key,),
        include=(),
        predicate=None,
        definition="CREATE INDEX old ON s.t USING btree (a)",
        bytes=8192,
        scans=scans,
    )
    return replace(index, **facts)


def catalog(index: Index | None = None, *, scans: int = 0) -> Catalog:
    return Catalog(
        server=SERVER,
        search_path=("s",),
        relations=(relation(TABLE, "t", scans=scans), relation(OLD, "old", "index")),
        columns=tuple(
            Column(TABLE, n, name, "integer", 23, 0, not_null=True, generated="")
            for n, name in enumerate("abc", 1)
        ),
        indexes=(existing() if index is None else index,),
        schemas=("s",),
        methods=(
            AccessMethod(
                "btree", can_order=True, can_unique=True, can_multicolumn=True, can_include=True
            ),
        ),
    )


def at(cost: float) -> Explain:
    return explain.parse([{"Plan": {"Node Type": "Seq Scan", "Total Cost": cost}}])


def query(before: float, after: float, uses: tuple[str, ...] = (), **facts: object) -> QueryImpact:
    used: tuple[str, ...] = facts.pop("uses_before", ())  # type: ignore[assignment]
    dropped: tuple[Situation, ...] = facts.pop("dropped", ())  # type: ignore[assignment]
    variant = Variant(1, at(before), at(after), used, uses, dropped=dropped)
    return replace(QueryImpact("q", 2.0, "read", (variant,), (TABLE,)), **facts)


def impact(*queries: QueryImpact, **facts: object) -> Impact:
    candidate = Candidate("s.new", TABLE, 1, unique=False, bytes=8192)
    tried = (Existing("s.old", OLD, 8192),)
    return replace(Impact("sandbox", (), queries, (candidate,), tried), **facts)


def weigh(found: Impact, snapshot: Catalog | None = None) -> Audit:
    snapshot = snapshot or catalog()
    audit = auditing.audit(snapshot, plan.parse("CREATE INDEX new ON s.t (b)"))
    assert [item.verdict for item in audit.statements] == ["build"]
    return auditing.weigh(snapshot, audit, found)


def verdict(audit: Audit) -> str:
    (item,) = audit.statements
    return item.verdict


def test_unused_is_skipped_and_used_is_built() -> None:
    assert verdict(weigh(impact(query(10, 10)))) == "skip"
    assert verdict(weigh(impact(query(10, 1, ("s.new",))))) == "build"


def test_a_skipped_statement_has_neither_a_revision_nor_an_undo() -> None:
    audit = weigh(impact(query(10, 10)))
    (item,) = audit.statements
    assert (item.revised, item.undo, audit.revised.creates) == (None, "", ())
    assert audit.counts == (("skip", 1),)


def test_plans_that_move_when_all_unused_are_hidden_prove_nothing() -> None:
    audit = weigh(impact(query(10, 10), settled=False))
    assert verdict(audit) == "build"
    assert "plans change when all unused indexes" in audit.statements[0].findings[-1].message


def test_nothing_is_claimed_where_no_query_could_be_simulated() -> None:
    lost = QueryImpact("q", 1.0, "read", (), (TABLE,), problem="no such extension")
    audit = weigh(impact(lost))
    assert verdict(audit) == "build"
    assert [finding.rule for finding in audit.advice] == ["not-simulated"]
    assert {finding.rule for finding in audit.statements[0].findings} == {
        finding.rule
        for finding in auditing.audit(catalog(), plan.parse("CREATE INDEX new ON s.t (b)"))
        .statements[0]
        .findings
    }


def test_an_index_that_could_not_be_made_is_told_of_and_stays() -> None:
    lost = Candidate("s.new", TABLE, 1, unique=False, problem="no operator class")
    audit = weigh(impact(query(10, 10), candidates=(lost,)))
    assert verdict(audit) == "build"
    assert audit.statements[0].findings[-1].rule == "not-simulated"


@pytest.mark.parametrize(("after", "told"), [(10.9, False), (11.0, True), (50.0, True)])
def test_a_query_is_warned_of_from_a_tenth_more_on(after: float, told: bool) -> None:
    audit = weigh(impact(query(10, after, ("s.new",))))
    risen = [f for f in audit.advice if f.rule == "query-cost-rises"]
    assert bool(risen) == told
    assert all(f.severity == "warning" and "query q would cost" in f.message for f in risen)


def idle(audit: Audit) -> tuple[set[str], str, set[str]]:
    """Return the rules told of the old index, its drop, and how grave the findings are."""
    items = [item for item in audit.existing if item.index.oid == OLD]
    if not items:
        return set(), "", set()
    (item,) = items
    return {f.rule for f in item.findings}, item.drop, {f.severity for f in item.findings}


@pytest.mark.parametrize(
    ("scans", "of_table", "may_go"),
    [(0, ENOUGH_SCANS, True), (0, ENOUGH_SCANS - 1, False), (1, ENOUGH_SCANS, False)],
)
def test_a_merely_idle_index_may_go_only_if_nobody_scans_it(
    scans: int, of_table: int, may_go: bool
) -> None:
    snapshot = catalog(existing(scans), scans=of_table)
    audit = weigh(impact(query(10, 1, ("s.new",), uses_before=("s.old",))), snapshot)
    rules, drop, severity = idle(audit)
    assert rules == {"idle-after-plan"}
    assert severity == ({"warning"} if may_go else {"info"})
    assert drop == ("DROP INDEX CONCURRENTLY s.old" if may_go else "")
    assert verdict(audit) == ("replace" if may_go else "build")


def test_what_must_not_be_dropped_is_never_advised_to_be() -> None:
    snapshot = catalog(existing(replica_identity=True), scans=ENOUGH_SCANS)
    audit = weigh(impact(query(10, 1, ("s.new",), uses_before=("s.old",))), snapshot)
    assert idle(audit) == ({"idle-after-plan"}, "", {"info"})
    assert verdict(audit) == "build"


def test_an_index_that_no_query_uses_is_told_of_as_a_note() -> None:
    assert idle(weigh(impact(query(10, 1, ("s.new",))))) == ({"idle-index"}, "", {"info"})


def test_a_query_that_hides_what_it_reads_keeps_existing_indexes_out_of_it() -> None:
    audit = weigh(impact(query(10, 10), query(1, 1, query="f", unseen="calls s.f")))
    assert idle(audit)[0] == set()
    assert verdict(audit) == "build"


@pytest.mark.parametrize(("without", "told"), [(1.0, True), (1.1, True), (1.2, False), (90, False)])
def test_an_index_in_use_is_dispensable_only_at_little_cost(without: float, told: bool) -> None:
    found = query(10, 1, ("s.new", "s.old"), dropped=(Situation("s.old", without, ("s.new",)),))
    rules, drop, _ = idle(weigh(impact(found)))
    assert rules == ({"dispensable-index"} if told else set())
    assert drop == ""


def test_means_are_weighted_by_the_sets_of_values() -> None:
    many = Variant(3, at(10), at(2), (), ("s.new",), without=(Situation("s.new", 10, ()),))
    few = Variant(1, at(50), at(50), (), ())
    both = QueryImpact("q", 2.0, "read", (many, few), (TABLE,))
    found = impact(both)
    assert (both.cost_before, both.cost_after) == (20, 14)
    assert both.cost_without("s.new") == 20
    assert found.worth("s.new") == 2.0 * 6
    assert found.cost_before == 40


def test_no_sandbox_is_a_finding_and_no_verdict_moves() -> None:
    audit = auditing.audit(catalog(), plan.parse("CREATE INDEX new ON s.t (b)"))
    told = auditing.not_weighed(audit, "the disk is full")
    assert told.statements == audit.statements
    (finding,) = [f for f in told.advice if f.rule == "not-simulated"]
    assert "the disk is full" in finding.message
