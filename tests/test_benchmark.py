from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psycopg
import pytest
from scipy import stats

from indexlab import benchmark, embedded, explain, target, workload
from indexlab.benchmark import Change, Comparison, Measurement, Sample, Series
from indexlab.errors import InputError, TargetError
from indexlab.target import Server, Target
from indexlab.workload import SampledQuery

SETUP = """
CREATE SCHEMA core;
CREATE TABLE core.bookings (id int PRIMARY KEY, customer_id int, status text, notes text);
INSERT INTO core.bookings
SELECT g, g % 500, 'done', repeat('x', 80) FROM generate_series(1, 10000) AS g;
CREATE TABLE core.log (line text);
CREATE SEQUENCE core.ticket;
CREATE FUNCTION core.count_up() RETURNS bigint LANGUAGE sql VOLATILE
AS $$ INSERT INTO core.log VALUES ('up'); SELECT count(*) FROM core.log $$;
CREATE FUNCTION core.shout(text) RETURNS boolean LANGUAGE plpgsql VOLATILE
AS $$ BEGIN RAISE EXCEPTION 'not so loud: %', $1; END $$;
ANALYZE core.bookings;
"""

READS = """
-- name: of_customer
-- weight: 30
-- param customer_id: SELECT 7 UNION SELECT 8 ORDER BY 1
SELECT * FROM core.bookings WHERE customer_id = :customer_id;

-- name: one_by_id
-- param id: SELECT id FROM core.bookings ORDER BY id LIMIT 3
SELECT notes FROM core.bookings WHERE id = :id;
"""

WRITES = """
-- name: book
INSERT INTO core.bookings SELECT max(id) + 1, 7, 'new', 'hello' FROM core.bookings;

-- name: cancel
-- param id: SELECT id FROM core.bookings ORDER BY id LIMIT 3
UPDATE core.bookings SET status = 'cancelled' WHERE id = :id;
"""

SERVER = Server(180006, "18.6", "shop", "app", "socket", 5432, superuser=False, standby=False)


@pytest.fixture(scope="module")
def at(embedded_server: embedded.Server) -> Iterator[Target]:
    embedded_server.create_database("benchmark")
    address = embedded_server.conninfo("benchmark")
    with psycopg.connect(address, autocommit=True) as conn:
        conn.execute(SETUP)
    yield target.resolve(address)
    embedded_server.drop_database("benchmark")


def sampled(at: Target, text: str) -> tuple[SampledQuery, ...]:
    with target.connect(at, read_only=True) as conn:
        return workload.sample(conn, workload.parse(text))


def ask(at: Target, statement: str) -> Any:
    with target.connect(at) as conn:
        row = conn.execute(statement).fetchone()  # type: ignore[arg-type]
    assert row is not None
    return row[0]


# --- measuring, on a real server ---


def test_reads_are_measured_with_their_parameters(at: Target) -> None:
    told: list[tuple[str, float]] = []
    found = benchmark.measure(
        at,
        sampled(at, READS),
        label="before",
        rounds=2,
        progress=lambda words, part: told.append((words, part)),
    )
    by_customer, by_id = found.series
    assert (by_customer.query, by_customer.weight, by_customer.rows) == ("of_customer", 30.0, 20)
    assert by_id.rows == 1
    assert by_id.indexes == ("bookings_pkey",)
    assert by_id.explain.execution_ms is not None
    assert {sample.values for sample in by_customer.samples} == {0, 1}
    assert [sample.values for sample in by_id.samples[:4]] == [0, 1, 2, 0]
    assert found.server.version >= 180000
    assert dict(found.settings)["work_mem"]
    assert found.overhead_ms > 0
    assert found.label == "before"
    assert found.skipped == ()
    assert told[-1] == ("measured", 1.0)
    assert [part for _, part in told] == sorted(part for _, part in told)
    assert list(found.frame()["query"]) == ["of_customer", "one_by_id"]
    assert "of_customer" in found._repr_html_()


def test_a_query_has_the_same_values_on_both_sides(at: Target) -> None:
    before = benchmark.measure(at, sampled(at, READS), rounds=1)
    after = benchmark.measure(at, sampled(at, READS), rounds=1, seed=9)
    comparison = benchmark.compare(before, after, indexes=["bookings_pkey"])
    assert [change.difference for change in comparison.changes] == ["same plan", "same plan"]
    assert comparison.headline.queries == ("one_by_id",)
    assert comparison.controls == ("of_customer",)
    assert not [w for w in comparison.warnings if "servers" in w or "setting" in w or "rows" in w]


def test_samples_have_the_plan_of_a_long_lived_application(at: Target) -> None:
    (found,) = benchmark.measure(at, sampled(at, READS)[1:], rounds=1).series
    # After five custom plans the server turned to the generic one, which names its parameter.
    assert ("Index Cond", "(bookings.id = $1)") in found.explain.root.conditions


def test_an_index_that_only_some_values_use_is_found(at: Target) -> None:
    with target.connect(at) as conn:
        conn.execute(
            "CREATE TABLE core.skewed AS SELECT (g < 5)::int AS k FROM generate_series(1, 20000) g"
        )
        conn.execute("CREATE INDEX skewed_k ON core.skewed (k)")
        conn.execute("ANALYZE core.skewed")
    query = """
-- name: skewed
-- param k: SELECT '0'
SELECT count(*) FROM core.skewed WHERE k = :k AND random() >= 0
"""
    (one,) = sampled(at, query)
    (rare,) = benchmark.measure(at, (replace(one, values=(("0",), ("1",))),), rounds=1).series
    assert rare.explain.indexes == ()
    assert rare.indexes == ("skewed_k",)


def test_writes_are_skipped_unless_the_target_is_disposable(at: Target) -> None:
    found = benchmark.measure(at, sampled(at, READS + WRITES), rounds=1)
    assert found.skipped == ("book", "cancel")
    assert [series.query for series in found.series] == ["of_customer", "one_by_id"]
    assert "not run, as writes or for want of values: book, cancel" in found._repr_html_()


def test_writes_leave_no_row_behind(at: Target) -> None:
    checksum = "SELECT sum(hashtextextended(b::text, 0)) FROM core.bookings AS b"
    before = ask(at, checksum)
    found = benchmark.measure(at, sampled(at, READS + WRITES), rounds=2, disposable=True)
    assert ask(at, checksum) == before
    assert found.skipped == ()
    assert [(series.query, series.kind, series.rows) for series in found.series[2:]] == [
        ("book", "write", 1),
        ("cancel", "write", 1),
    ]
    assert found.series[2].explain.root.type == "Insert"


def test_a_write_without_values_is_skipped(at: Target) -> None:
    queries = tuple(
        replace(one, values=()) if one.query.kind == "write" else one
        for one in sampled(at, READS + WRITES)
    )
    assert benchmark.measure(at, queries, rounds=1, disposable=True).skipped == ("book", "cancel")


def test_a_write_that_fails_is_told_and_undone(at: Target) -> None:
    query = "-- name: twice\nINSERT INTO core.bookings (id) SELECT 1 FROM core.log RIGHT JOIN (SELECT 1) o ON true"
    with pytest.raises(InputError, match=r"w\.sql:1: query 'twice' fails: duplicate key"):
        benchmark.measure(at, sampled(at, query), disposable=True, source="w.sql")


def test_a_read_that_writes_through_a_function_is_refused(at: Target) -> None:
    query = "-- name: sly\nSELECT core.count_up()"
    with pytest.raises(InputError, match=r"query 'sly' fails: .*READ ONLY transaction"):
        benchmark.measure(at, sampled(at, query), disposable=True)
    assert ask(at, "SELECT count(*) FROM core.log") == 0
    with pytest.raises(InputError, match=r"cannot execute nextval\(\) in a read-only transaction"):
        benchmark.measure(at, sampled(at, "-- name: ticket\nSELECT nextval('core.ticket')"))


def test_a_query_that_fails_names_itself_and_its_line(at: Target) -> None:
    text = READS + "\n-- name: wrong\nSELECT event_date FROM core.bookings;\n"
    line = text.splitlines().index("-- name: wrong") + 1
    reason = f"shop.sql:{line}: query 'wrong' fails: column \"event_date\" does not exist"
    with pytest.raises(InputError, match=reason):
        benchmark.measure(at, sampled(at, text), source="shop.sql")


def test_a_value_that_fails_later_is_told_as_well(at: Target) -> None:
    (one,) = sampled(at, "-- name: div\n-- param d: SELECT '1'\nSELECT 1 / (:d)::int")
    with pytest.raises(InputError, match="query 'div' fails: division by zero"):
        benchmark.measure(at, (replace(one, values=(("1",), ("0",))),))


def test_a_query_beyond_the_timeout_is_known_to_take_longer(at: Target) -> None:
    text = READS + "\n-- name: nap\nSELECT pg_sleep(600)"
    found = benchmark.measure(at, sampled(at, text), statement_timeout=0.2, rounds=1)
    nap = found.series[-1]
    assert (nap.query, nap.given_up, nap.limit_ms) == ("nap", True, 200.0)
    assert [sample.ms for sample in nap.samples] == [200.0]
    assert nap.explain.execution_ms is None
    assert not found.series[0].given_up
    assert "&gt;= 200 ms" in found._repr_html_()


def test_the_servers_own_words_reach_the_user(at: Target) -> None:
    query = sampled(at, "-- name: loud\n-- param t: SELECT 'hey'\nSELECT core.shout(:t)")
    with pytest.raises(InputError, match="query 'loud' fails: not so loud: hey"):
        benchmark.measure(at, query)


def test_a_lost_connection_is_an_error_of_the_target(at: Target) -> None:
    query = sampled(at, "-- name: suicide\nSELECT pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(TargetError, match="the connection was lost while query 'suicide' ran"):
        benchmark.measure(at, query)


def test_a_dba_sees_who_is_measuring(at: Target) -> None:
    query = sampled(
        at,
        "-- name: me\nSELECT 1 / (application_name = 'indexlab benchmark')::int "
        "FROM pg_stat_activity WHERE pid = pg_backend_pid()",
    )
    assert benchmark.measure(at, query, rounds=1).series[0].rows == 1


def test_reads_run_in_a_read_only_transaction_of_their_own(at: Target) -> None:
    query = sampled(
        at,
        "-- name: careful\nSELECT 1 / (current_setting('transaction_read_only') = 'on' "
        "AND current_setting('default_transaction_read_only') = 'on')::int",
    )
    assert benchmark.measure(at, query, rounds=1).series[0].rows == 1


def test_ctrl_c_cancels_the_statement_and_closes_the_connection(at: Target) -> None:
    script = (
        "import sys; from indexlab import benchmark, target, workload\n"
        "at = target.resolve(sys.argv[1])\n"
        "queries = workload.parse('-- name: nap\\nSELECT pg_sleep(600)').queries\n"
        "benchmark.measure(at, tuple(workload.SampledQuery(q, ((),)) for q in queries), statement_timeout=900)\n"
    )
    sources = str(Path(benchmark.__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", script, at.conninfo],
        env=os.environ | {"PYTHONPATH": sources},
        stderr=subprocess.PIPE,
        text=True,
    )
    running = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'indexlab benchmark'"
    with process:
        while not ask(at, running + " AND query LIKE '%pg_sleep%' AND state = 'active'"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, words = process.communicate(timeout=30)
    assert process.returncode != 0
    assert words.rstrip().endswith("KeyboardInterrupt")
    while ask(at, running):
        pass


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"rounds": -1}, "rounds -1 is negative"),
        ({"budget": 0.0}, "budget 0.0 is not a positive"),
        ({"budget": float("nan")}, "budget nan is not a positive"),
        ({"statement_timeout": 0.0}, "statement timeout 0.0 is not"),
    ],
)
def test_bad_arguments_are_refused_before_connecting(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        benchmark.measure(Target("nowhere", "host=/nowhere"), (), **given)


# --- samples and series ---


def plan(*indexes: str, relation: str = "bookings") -> explain.Explain:
    node: dict[str, Any] = {"Node Type": "Seq Scan", "Relation Name": relation, "Schema": "core"}
    for index in indexes:
        node |= {"Node Type": "Index Scan", "Index Name": index}
    return explain.parse([{"Plan": node, "Execution Time": 1.0}])


def series(
    query: str,
    times: Any,
    *,
    kind: Literal["read", "write"] = "read",
    weight: float = 1.0,
    indexes: tuple[str, ...] = (),
    sets: int = 1,
    rows: int = 1,
) -> Series:
    samples = tuple(Sample(float(ms), i % sets) for i, ms in enumerate(times))
    return Series(query, kind, weight, samples, rows, plan(*indexes), f"SELECT '{query}'", indexes)


def measured(*all_series: Series, label: str = "", **facts: Any) -> Measurement:
    whole = Measurement(label, all_series, (), SERVER, (("work_mem", "4MB"),), 0.02, "2025", 1.0)
    return replace(whole, **facts)


def change(before: Any, after: Any, **options: Any) -> Change:
    return benchmark.compare(
        measured(series("q", before)), measured(series("q", after)), **options
    ).changes[0]


def noise(seed: int, median: float, size: int = 100) -> Any:
    return median * np.random.default_rng(seed).lognormal(0, 0.25, size)


def test_percentiles_are_interpolated_linearly() -> None:
    found = series("q", range(1, 102))
    assert (found.p50_ms, found.p95_ms, found.p99_ms) == (51.0, 96.0, 100.0)
    assert series("q", [1, 2]).p50_ms == 1.5


@pytest.mark.parametrize("ms", [-1.0, 0.0, float("nan"), float("inf")])
def test_a_sample_must_be_a_positive_time(ms: float) -> None:
    with pytest.raises(ValueError, match="positive number of milliseconds"):
        Sample(ms, 0)


def test_a_series_needs_samples() -> None:
    with pytest.raises(ValueError, match="query 'q' has no samples"):
        series("q", [])


# --- comparing ---


def test_a_known_improvement_is_found_and_its_interval_covers_it() -> None:
    covered = 0
    for seed in range(60):
        found = change(noise(seed, 690), noise(1000 + seed, 16))
        assert found.verdict == "faster"
        covered += found.ratio_low <= 16 / 690 <= found.ratio_high
    assert covered >= 52


def test_a_known_slowdown_is_found() -> None:
    found = change(noise(1, 10), noise(2, 14))
    assert found.verdict == "slower"
    assert found.ratio_low < 1.4 < found.ratio_high


def test_equal_sides_are_hardly_ever_called_different() -> None:
    verdicts = [change(noise(seed, 10), noise(5000 + seed, 10)).verdict for seed in range(100)]
    assert sum(verdict in ("faster", "slower") for verdict in verdicts) <= 5


def test_a_slow_query_with_three_samples_can_still_be_seen_to_improve() -> None:
    found = change([690, 700, 710], noise(1, 16))
    assert found.verdict == "faster"


def test_a_narrow_interval_around_one_is_no_change_and_a_wide_one_says_nothing() -> None:
    assert change(np.linspace(9.9, 10.1, 50), np.linspace(9.9, 10.1, 50)).verdict == "no change"
    assert change([5, 10, 20], [5, 10, 20]).verdict == "not significant"


def test_the_minimum_effect_is_the_least_that_counts() -> None:
    before, after = np.linspace(9.9, 10.1, 50), np.linspace(11.9, 12.1, 50)
    assert change(before, after).verdict == "slower"
    assert change(before, after, minimum_effect=0.3).verdict == "no change"


def test_less_than_a_process_needs_to_wake_up_is_not_significant() -> None:
    found = change(np.linspace(0.020, 0.021, 50), np.linspace(0.060, 0.061, 50))
    assert found.ratio == pytest.approx(3, rel=0.05)
    assert found.ratio_low > 2.5
    assert found.verdict == "not significant"


def test_a_slower_network_is_not_called_a_slower_query() -> None:
    before = measured(series("q", np.linspace(1.0, 1.1, 50)), overhead_ms=0.5)
    after = measured(series("q", np.linspace(1.4, 1.5, 50)), overhead_ms=1.0)
    assert benchmark.compare(before, after).changes[0].verdict == "not significant"


def test_the_interval_agrees_with_that_of_scipy() -> None:
    before, after = noise(1, 10, 60), noise(2, 12, 80)
    found = change(before, after)

    def ratio(old: Any, new: Any, axis: int = -1) -> Any:
        return np.median(new, axis=axis) / np.median(old, axis=axis)

    other = stats.bootstrap(
        (before, after), ratio, method="percentile", n_resamples=9999, rng=np.random.default_rng(0)
    ).confidence_interval
    assert found.ratio_low == pytest.approx(other.low, rel=0.03)
    assert found.ratio_high == pytest.approx(other.high, rel=0.03)


def test_executions_in_a_row_are_not_taken_for_independent() -> None:
    def busy_machine(seed: int) -> Series:
        random = np.random.default_rng(seed)
        paces = random.lognormal(0, 0.15, 8)
        samples = tuple(
            Sample(float(10 * pace * random.lognormal(0, 0.03)), 0, number)
            for number, pace in enumerate(paces)
            for _ in range(20)
        )
        return replace(series("q", [1]), samples=samples)

    def moved(known: bool) -> int:
        sides = [(busy_machine(seed), busy_machine(7000 + seed)) for seed in range(100)]
        if not known:
            sides = [(_without_rounds(a), _without_rounds(b)) for a, b in sides]
        found = [benchmark.compare(measured(a), measured(b)).changes[0] for a, b in sides]
        return sum(change.verdict in ("faster", "slower") for change in found)

    assert moved(known=True) <= 5
    assert moved(known=False) > 15


def _without_rounds(one: Series) -> Series:
    return replace(one, samples=tuple(replace(sample, round=0) for sample in one.samples))


def test_three_samples_are_too_few_for_a_small_change() -> None:
    assert change([10.0, 10.5, 11.0], [12.0, 12.5, 13.0]).verdict == "not significant"


def test_a_single_sample_says_nothing() -> None:
    found = change([100.0], [1.0])
    assert (found.ratio, found.verdict) == (0.01, "not significant")


def test_differences_between_sets_of_values_are_no_noise() -> None:
    random = np.random.default_rng(3)
    levels = np.tile([1.0, 3.0, 9.0, 27.0, 81.0], 40)
    before = series("q", levels * random.lognormal(0, 0.05, 200), sets=5)
    after = series("q", levels * random.lognormal(0, 0.05, 200) / 1.5, sets=5)
    found = benchmark.compare(measured(before), measured(after)).changes[0]
    assert found.verdict == "faster"
    assert found.ratio_high - found.ratio_low < 0.1


def test_only_values_that_both_sides_have_run_are_compared() -> None:
    before = series("q", [100, 100, 100], sets=3)
    after = series("q", [100, 100, 100, 1, 1, 1, 1, 1, 1], sets=9)
    found = benchmark.compare(measured(before), measured(after)).changes[0]
    assert (found.before_ms, found.after_ms, found.verdict) == (100.0, 100.0, "no change")


def test_the_same_seed_gives_the_same_interval() -> None:
    before, after = noise(1, 10), noise(2, 11)
    assert change(before, after, seed=4) == change(before, after, seed=4)
    assert change(before, after, seed=4).ratio_low != change(before, after, seed=5).ratio_low


def story() -> Comparison:
    before = measured(
        series("history", [600, 600, 600, 600, 600, 600], weight=2),
        series("login", [90] * 6),
        series("by_id", [1.0] * 6),
        series("insert", [1.0] * 6, kind="write"),
        label="before",
    )
    after = measured(
        series("history", [12] * 6, weight=2, indexes=("idx_a",)),
        series("login", [6] * 6, indexes=("idx_b", "pk")),
        series("by_id", [1.0] * 6, indexes=("pk",)),
        series("insert", [1.5] * 6, kind="write", indexes=("idx_a",)),
        label="after",
    )
    return benchmark.compare(before, after, indexes=["idx_a", "idx_b"])


def test_the_headline_is_the_weighted_sum_over_reads_that_use_the_plan() -> None:
    found = story()
    assert found.headline.queries == ("history", "login")
    assert found.headline.before_ms == pytest.approx(2 * 600 + 90)
    assert found.headline.after_ms == pytest.approx(2 * 12 + 6)
    assert found.headline.ratio == pytest.approx(43)
    assert str(found.headline) == "1.29 s -> 30.0 ms (43.0x faster)"
    assert found.reads.queries == ("history", "login", "by_id")
    assert found.controls == ("by_id",)
    assert [change.indexes for change in found.changes[:2]] == [("idx_a",), ("idx_b",)]


def test_without_named_indexes_the_headline_is_about_all_reads() -> None:
    before, after = measured(series("q", [10] * 6)), measured(series("q", [5] * 6))
    found = benchmark.compare(before, after)
    assert found.headline == found.reads
    assert found.controls == ()


def test_a_plan_that_no_read_uses_has_an_empty_headline() -> None:
    both = measured(series("q", [10] * 6))
    found = benchmark.compare(both, both, indexes=["idx"])
    assert (found.headline.queries, found.headline.ratio) == ((), 1.0)
    assert str(found.headline) == "no query"


def test_regressions_are_the_slower_ones_beyond_what_is_allowed() -> None:
    found = story()
    assert [change.query for change in found.writes] == ["insert"]
    assert [change.query for change in found.regressions(1.2)] == ["insert"]
    assert found.regressions(1.6) == ()


def test_a_measurement_of_another_workload_is_refused() -> None:
    one, two = measured(series("a", [1] * 6)), measured(series("b", [1] * 6))
    with pytest.raises(
        InputError, match="the baseline is of another workload: only the baseline has the query 'a'"
    ):
        benchmark.compare(one, two)
    with pytest.raises(InputError, match="only this measurement has the query 'b'"):
        benchmark.compare(measured(), two)
    text = replace(one.series[0], sql="SELECT 2")
    with pytest.raises(InputError, match="its query 'a' has another text"):
        benchmark.compare(one, measured(text))


def test_writes_that_one_side_could_not_run_are_left_out() -> None:
    read, write = series("r", [1] * 6), series("w", [1] * 6, kind="write")
    found = benchmark.compare(measured(read, skipped=("w",)), measured(read, write))
    assert [change.query for change in found.changes] == ["r"]


@pytest.mark.parametrize(
    ("facts", "times", "words"),
    [
        ({"settings": (("work_mem", "64MB"),)}, [10] * 6, "the setting work_mem was '4MB' before"),
        ({"server": replace(SERVER, port=5433)}, [10] * 6, "the servers differ"),
        ({}, [10] * 5, "fewer than 6 samples: q; give a larger budget"),
        ({}, [5] * 6, "reads without a planned index moved too: q (2.00x faster)"),
    ],
)
def test_doubts_are_told_with_their_remedy(facts: dict[str, Any], times: Any, words: str) -> None:
    before, after = measured(series("q", [10] * 6)), measured(series("q", times), **facts)
    warnings = benchmark.compare(before, after, indexes=["idx"]).warnings
    assert [warning for warning in warnings if words in warning]


def test_row_counts_that_differ_stay_visible() -> None:
    before, after = measured(series("q", [9] * 6)), measured(series("q", [9] * 6, rows=4))
    found = benchmark.compare(before, after)
    assert (found.changes[0].rows_before, found.changes[0].rows_after) == (1, 4)
    assert "row counts differ: q" in found.warnings[0]
    assert "1 -&gt; 4" in found._repr_html_()


def test_hostile_names_are_escaped() -> None:
    both = measured(series("<img src=x>", [1] * 6), label="<u>")
    shown = benchmark.compare(both, both)._repr_html_() + both._repr_html_()
    assert "<img" not in shown
    assert "<u>" not in shown


def test_results_are_plain_data() -> None:
    found = story()
    frame = found.frame()
    assert list(frame["query"]) == ["history", "login", "by_id", "insert"]
    assert frame.loc[0, "verdict"] == "faster"
    json.dumps([found.headline.ratio, *(c.ratio_high for c in found.changes)], allow_nan=False)


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"confidence": 1.0}, "confidence 1.0"), ({"minimum_effect": -1.0}, "minimum effect -1.0")],
)
def test_bad_options_of_a_comparison_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        benchmark.compare(measured(), measured(), **options)


def test_normalized_text_is_not_run(at: Target) -> None:
    work = workload.parse("-- name: q\nSELECT $1::int\n-- name: r\nSELECT 1")
    with target.connect(at) as conn:
        sampled = workload.sample(conn, work)
    found = benchmark.measure(at, sampled, rounds=1)
    assert (found.skipped, [series.query for series in found.series]) == (("q",), ["r"])
