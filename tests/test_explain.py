from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from indexlab import embedded, explain
from indexlab.explain import reading, trees

if TYPE_CHECKING:
    from conftest import Cluster

SETUP = """
CREATE SCHEMA core;
CREATE TABLE core.bookings (id int PRIMARY KEY, customer_id int, date date, notes text);
INSERT INTO core.bookings
SELECT g, g % 1000, DATE '2025-01-01' + g % 365, repeat('x', 80)
FROM generate_series(1, 20000) AS g;
CREATE TABLE core.payments (id int PRIMARY KEY, booking_id int REFERENCES core.bookings (id));
INSERT INTO core.payments SELECT g, g FROM generate_series(1, 5000) AS g;
ANALYZE core.bookings, core.payments;
"""

OF_CUSTOMER = "SELECT * FROM core.bookings WHERE customer_id = $1 ORDER BY date DESC LIMIT 5"


@pytest.fixture(scope="module")
def conn(embedded_server: embedded.Server) -> Iterator[psycopg.Connection[Any]]:
    embedded_server.create_database("explain")
    with psycopg.connect(embedded_server.conninfo("explain"), autocommit=True) as conn:
        conn.execute(SETUP)
        yield conn
    embedded_server.drop_database("explain")


@pytest.fixture(scope="module")
def conn15(pg15_server: Cluster) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(pg15_server.conninfo(), autocommit=True) as conn:
        conn.execute("CREATE DATABASE explain")
        with psycopg.connect(pg15_server.conninfo("explain"), autocommit=True) as own:
            own.execute(SETUP)
            yield own
        conn.execute("DROP DATABASE explain")


def plan(**node: Any) -> explain.Explain:
    return explain.parse(
        [
            {
                "Plan": {key.replace("_", " "): value for key, value in node.items()},
                "Execution Time": 1.0,
            }
        ]
    )


def scan(kind: str, pages: int = 6, index: str = "", relation: str = "bookings") -> dict[str, Any]:
    node: dict[str, Any] = {"Node Type": kind, "Shared Hit Blocks": pages}
    if not kind.startswith("Bitmap Index"):
        node |= {"Relation Name": relation, "Schema": "core", "Alias": relation}
    return node | ({"Index Name": index} if index else {})


def of(node: dict[str, Any]) -> explain.Explain:
    return explain.parse([{"Plan": {"Shared Hit Blocks": 0} | node, "Execution Time": 1.0}])


def test_parameters_are_bound_and_the_statement_is_executed(conn: psycopg.Connection[Any]) -> None:
    found = explain.run(conn, OF_CUSTOMER, ["7"], analyze=True)
    scans = [node for node in found.nodes() if node.relation]
    assert [node.relation for node in scans] == ["core.bookings"]
    assert scans[0].actual_rows == 20
    assert ("Filter", "(bookings.customer_id = 7)") in scans[0].conditions
    assert scans[0].rows_removed == 19_980
    assert scans[0].table == ("core", "bookings")
    assert found.execution_ms is not None
    assert found.buffers is not None
    assert found.root.pages > 0
    assert found.wal_records is not None


def test_without_analyze_nothing_is_executed(conn: psycopg.Connection[Any]) -> None:
    found = explain.run(conn, "DELETE FROM core.payments WHERE id = $1", ["1"], analyze=False)
    assert conn.execute("SELECT count(*) FROM core.payments").fetchone() == (5000,)
    assert found.execution_ms is None
    assert found.buffers is None
    assert found.root.actual_rows is None
    assert found.root.type == "Delete"


def test_a_percent_sign_and_quotes_in_statement_and_value_stay(
    conn: psycopg.Connection[Any],
) -> None:
    statement = "SELECT '%s {}' || $1 FROM core.payments WHERE id % 2 = 0"
    found = explain.run(conn, statement, ["o'%(x)s\\"], analyze=True)
    assert found.root.actual_rows == 2500


def test_a_prepared_statement_is_explained_with_its_values(conn: psycopg.Connection[Any]) -> None:
    conn.execute(
        "PREPARE by_id (int, text) AS SELECT * FROM core.bookings WHERE id = $1 AND notes <> $2"
    )
    found = explain.run(conn, "", ["5", "it's \\ %"], analyze=True, prepared="by_id")
    assert found.indexes == ("bookings_pkey",)
    assert found.root.actual_rows == 1
    found = explain.run(conn, "", [None, None], analyze=True, prepared="by_id")
    assert found.root.actual_rows == 0


def test_changed_settings_are_part_of_it(conn: psycopg.Connection[Any]) -> None:
    with conn.transaction(force_rollback=True):
        conn.execute("SET LOCAL enable_seqscan = off")
        found = explain.run(conn, OF_CUSTOMER, ["7"], analyze=False)
    assert ("enable_seqscan", "off") in found.settings
    assert any(node.disabled for node in found.nodes() if node.relation)
    assert "(disabled)" in found.text()


def test_the_text_reads_like_that_of_psql(conn: psycopg.Connection[Any]) -> None:
    lines = explain.run(conn, OF_CUSTOMER, ["7"], analyze=False).text().splitlines()
    assert lines[0].startswith("Limit  (cost=")
    assert any(line.startswith("  ->  Sort  (cost=") for line in lines)
    assert any(line.startswith("        ->  Seq Scan on core.bookings  (cost=") for line in lines)


@pytest.mark.pg15
def test_postgresql_15_is_understood(conn15: psycopg.Connection[Any]) -> None:
    found = explain.run(conn15, OF_CUSTOMER, ["7"], analyze=True)
    scans = [node for node in found.nodes() if node.relation]
    assert [(node.relation, node.actual_rows) for node in scans] == [("core.bookings", 20)]
    assert found.wal_bytes is not None
    with conn15.transaction(force_rollback=True):
        write = "UPDATE core.bookings SET notes = $1 WHERE id = $2"
        found = explain.run(conn15, write, ["y", "3"], analyze=True)
    assert found.root.type == "Update"
    assert found.wal_records


def test_every_version_gets_the_options_that_it_knows() -> None:
    assert (
        reading._options(120000, analyze=True)
        == "EXPLAIN (ANALYZE, BUFFERS, SETTINGS, VERBOSE, FORMAT JSON) "
    )
    assert reading._options(120000, analyze=False) == "EXPLAIN (SETTINGS, VERBOSE, FORMAT JSON) "
    assert "WAL" in reading._options(130000, analyze=True)
    assert "WAL" not in reading._options(180000, analyze=False)


def test_a_plan_that_became_an_index_scan_is_told_with_its_pages() -> None:
    before, after = of(scan("Seq Scan", 14279)), of(scan("Index Scan", 6, "idx_x"))
    assert explain.difference(before, after) == (
        "Seq Scan on core.bookings (14,279 pages) became Index Scan using idx_x (6 pages)"
    )


def test_plans_of_one_shape_are_the_same_plan() -> None:
    before, after = of(scan("Seq Scan", 14279)), of(scan("Seq Scan", 9))
    assert explain.difference(before, after) == "same plan"
    assert before.shape == after.shape


def test_a_bitmap_scan_names_the_indexes_below_it() -> None:
    bitmaps = [scan("Bitmap Index Scan", 2, "idx_b"), scan("Bitmap Index Scan", 2, "idx_a")]
    heap = scan("Bitmap Heap Scan", 42) | {"Plans": [{"Node Type": "BitmapAnd", "Plans": bitmaps}]}
    sorted_before = {"Node Type": "Sort", "Plans": [scan("Seq Scan", 100)]}
    assert explain.difference(of(sorted_before), of(heap)) == (
        "Seq Scan on core.bookings (100 pages) became Bitmap Heap Scan using idx_a, idx_b "
        "(42 pages); without Sort"
    )
    assert of(heap).indexes == ("idx_a", "idx_b")


def test_another_join_is_told_although_the_tables_are_read_alike() -> None:
    def joined(kind: str) -> explain.Explain:
        return of({"Node Type": kind, "Join Type": "Left", "Plans": [scan("Seq Scan")]})

    assert explain.difference(joined("Hash Join"), joined("Merge Join")) == (
        "Hash Left Join became Merge Left Join"
    )


def test_a_relation_that_is_no_longer_read_and_a_long_list() -> None:
    parts = [scan("Seq Scan", relation=f"p{number}") for number in range(9)]
    before, after = of({"Node Type": "Append", "Plans": parts}), of(scan("Seq Scan", relation="p0"))
    words = explain.difference(before, after)
    assert words.startswith("core.p1 is no longer read; core.p2")
    assert words.endswith("and 6 more changes")


def test_nodes_are_named_as_psql_names_them() -> None:
    def kind(**node: Any) -> str:
        return plan(**node).root.type

    assert kind(Node_Type="Aggregate", Strategy="Hashed", Partial_Mode="Partial") == (
        "Partial HashAggregate"
    )
    assert kind(Node_Type="Seq Scan", Parallel_Aware=True) == "Parallel Seq Scan"
    assert kind(Node_Type="Index Scan", Scan_Direction="Backward") == "Index Scan Backward"
    assert kind(Node_Type="Nested Loop", Join_Type="Anti") == "Nested Loop Anti Join"
    assert kind(Node_Type="ModifyTable", Operation="Merge") == "Merge"


def test_fractional_rows_of_version_18() -> None:
    found = plan(Node_Type="Seq Scan", Actual_Rows=0.33, Actual_Loops=3, Actual_Total_Time=0.1)
    assert found.root.actual_rows == 0.33
    assert "rows=0.33 loops=3" in found.text()


@pytest.mark.parametrize("value", ["[]", "{}", "[1]", [{"plan": 1}], '"Plan"'])
def test_other_json_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="not the output of EXPLAIN"):
        explain.parse(value)


def test_hostile_names_are_escaped() -> None:
    found = of(scan("Seq Scan", relation="<script>alert(1)</script>"))
    assert "<script>" not in found._repr_html_()
    assert "&lt;script&gt;" in found._repr_html_()


def test_the_frame_has_a_row_per_step() -> None:
    frame = of({"Node Type": "Sort", "Plans": [scan("Seq Scan")]}).frame()
    assert list(frame["type"]) == ["Sort", "Seq Scan"]
    assert list(frame["depth"]) == [0, 1]


# The tree, and the step that costs most


def timed(
    kind: str, ms: float, *below: dict[str, Any], loops: float = 1, **more: Any
) -> dict[str, Any]:
    known = {"Actual Total Time": ms, "Actual Loops": loops, "Actual Rows": 1, "Plan Rows": 1}
    return {"Node Type": kind, "Plans": list(below), **known, **more}


def shares(found: explain.Explain) -> dict[str, float]:
    return {branch.node.title(): round(branch.share, 3) for branch in trees.branches(found).walk()}


def costliest(found: explain.Explain) -> list[str]:
    return [b.node.title() for b in trees.branches(found).walk() if b.costliest]


def test_a_step_is_charged_for_what_it_takes_alone() -> None:
    found = of(timed("Sort", 10, timed("Seq Scan", 7)))
    assert shares(found) == {"Sort": 0.3, "Seq Scan": 0.7}
    assert costliest(found) == ["Seq Scan"]


def test_times_are_per_loop() -> None:
    found = of(timed("Nested Loop", 10, timed("Seq Scan", 1), timed("Index Scan", 0.08, loops=100)))
    assert shares(found) == {"Nested Loop": 0.1, "Seq Scan": 0.1, "Index Scan": 0.8}


def test_processes_side_by_side_are_not_added_up() -> None:
    found = of(timed("Gather", 12, timed("Parallel Seq Scan", 10, loops=3)))
    assert shares(found) == {"Gather": 0.167, "Parallel Seq Scan": 0.833}


def test_a_with_query_is_charged_once() -> None:
    query = timed("Seq Scan", 9, **{"Subplan Name": "CTE q", "Parent Relationship": "InitPlan"})
    reading = timed("CTE Scan", 10, **{"CTE Name": "q", "Alias": "q"})
    found = of(timed("Aggregate", 11, query, reading))
    assert shares(found) == {"Aggregate": 0.091, "Seq Scan": 0.818, "CTE Scan q": 0.091}
    assert costliest(found) == ["Seq Scan"]


def costed(
    kind: str, cost: float, *below: dict[str, Any], rows: float = 1, **more: Any
) -> dict[str, Any]:
    return {"Node Type": kind, "Total Cost": cost, "Plan Rows": rows, "Plans": list(below), **more}


def planned(node: dict[str, Any]) -> explain.Explain:
    return explain.parse([{"Plan": node}])


def test_without_times_the_cost_is_shared_out() -> None:
    found = planned(costed("Sort", 100, costed("Seq Scan", 60)))
    assert trees.measure(found) == "cost"
    assert shares(found) == {"Sort": 0.4, "Seq Scan": 0.6}


def test_what_a_limit_does_not_fetch_is_not_counted() -> None:
    found = planned(costed("Limit", 5, costed("Sort", 1000, costed("Seq Scan", 900))))
    assert shares(found) == {"Limit": 0.0, "Sort": 0.1, "Seq Scan": 0.9}


def test_the_inner_side_of_a_loop_costs_as_often_as_it_runs() -> None:
    inner = costed("Index Scan", 2)
    found = planned(costed("Nested Loop", 120, costed("Seq Scan", 10, rows=50), inner))
    assert shares(found) == {"Nested Loop": 0.083, "Seq Scan": 0.083, "Index Scan": 0.833}


def test_where_no_time_was_taken_pages_tell() -> None:
    scanned = timed("Seq Scan", 0.0, **{"Shared Hit Blocks": 9})
    found = of(timed("Sort", 0.0, scanned, **{"Shared Hit Blocks": 10}))
    assert trees.measure(found) == "pages"
    assert shares(found) == {"Sort": 0.1, "Seq Scan": 0.9}


def test_a_single_step_is_not_called_costliest() -> None:
    assert costliest(of(timed("Seq Scan", 7))) == []
    assert costliest(planned(costed("Result", 0))) == []


@pytest.mark.parametrize("kind", ["conn", "conn15"])
def test_the_shares_of_a_real_plan_add_up(kind: str, request: pytest.FixtureRequest) -> None:
    conn = request.getfixturevalue(kind)
    statement = (
        "WITH few AS MATERIALIZED (SELECT * FROM core.bookings WHERE customer_id < 50) "
        "SELECT count(*) FROM few JOIN core.payments p ON p.booking_id = few.id "
        "WHERE p.id > (SELECT min(id) FROM core.payments)"
    )
    for analyze in (True, False):
        found = explain.run(conn, statement, analyze=analyze)
        whole = [branch.share for branch in trees.branches(found).walk()]
        assert sum(whole) == pytest.approx(1)
        assert len(costliest(found)) == 1
        assert "costliest: " in explain.tree(found)


def test_the_tree_points_at_what_is_odd() -> None:
    node = timed(
        "Seq Scan", 5, **{"Rows Removed by Filter": 900, "Filter": "(a < 1)", "Disabled": True}
    )
    never = timed("Index Scan", 0, loops=0)
    shown = explain.tree(of(node | {"Actual Rows": 5000, "Plan Rows": 5, "Plans": [never]}))
    assert "900 rows read and thrown away" in shown
    assert "1,000 times more rows than expected" in shown
    assert "disabled by a setting" in shown
    assert "never executed" in shown
    assert "(a &lt; 1)" in shown
