"""What stands against a verdict: drift, other answers, chance, bounds, and what happened between."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import psycopg
import pytest

from indexlab import benchmark, explain, workload
from indexlab.benchmark import (
    Failure,
    Measurement,
    Sample,
    Series,
    Table,
    answers,
    intervals,
    sessions,
)
from indexlab.benchmark.rounds import Unit
from indexlab.cli import results
from indexlab.errors import InputError
from indexlab.runs import documents
from indexlab.target import Server, Target
from indexlab.workload import SampledQuery

SERVER = Server(180006, "18.6", "shop", "app", "socket", 5432, superuser=False, standby=False)


def plan(**facts: Any) -> explain.Explain:
    node = {"Node Type": "Seq Scan", "Relation Name": "bookings", "Schema": "core", **facts}
    return explain.parse([{"Plan": node, "Execution Time": 1.0}])


def series(query: str, times: Any, **facts: Any) -> Series:
    samples = tuple(Sample(float(ms), 0, number // 5) for number, ms in enumerate(times))
    return replace(Series(query, "read", 1.0, samples, 1, plan(), f"SELECT '{query}'"), **facts)


def noisy(seed: int, median: float, spread: float = 0.02, size: int = 100) -> Any:
    return median * np.random.default_rng(seed).lognormal(0, spread, size)


def measured(*given: Series, control: float = 1.0, **conditions: Any) -> Measurement:
    own = tuple(series(f"control {n}", noisy(50 + n, control)) for n in range(2))
    whole = Measurement("", given, (), SERVER, (), 0.02, "2026", 1.0, controls=own)
    return replace(whole, conditions=replace(whole.conditions, **conditions))


def compared(before: Measurement, after: Measurement, **options: Any) -> benchmark.Comparison:
    return benchmark.compare(before, after, **options)


# Drift


def test_controls_that_moved_a_little_correct_the_ratios() -> None:
    before = measured(series("same", noisy(1, 10)), series("slower", noisy(2, 10)))
    after = measured(series("same", noisy(3, 11.2)), series("slower", noisy(4, 15)), control=1.12)
    found = compared(before, after)
    assert found.drift.verdict == "corrected"
    same, slower = found.changes
    assert same.ratio == pytest.approx(1.0, abs=0.02)
    assert same.verdict not in ("faster", "slower")
    assert slower.ratio == pytest.approx(15 / 11.2, rel=0.02)
    assert slower.verdict == "slower"
    assert "divided by theirs" in found._repr_html_()


def test_controls_that_moved_much_forbid_what_is_less_than_that() -> None:
    before = measured(series("little", noisy(1, 10)), series("much", noisy(2, 10)))
    after = measured(series("little", noisy(3, 14)), series("much", noisy(4, 60)), control=1.5)
    found = compared(before, after)
    assert found.drift.verdict == "refused"
    assert [change.verdict for change in found.changes] == ["not significant", "slower"]
    assert "quiet server" in str(found.drift)


def test_steady_controls_correct_nothing() -> None:
    found = compared(measured(series("q", noisy(1, 10))), measured(series("q", noisy(2, 10))))
    assert found.drift.verdict == "steady"
    assert found.changes[0].ratio == found.changes[0].after_ms / found.changes[0].before_ms


def test_controls_that_scatter_are_not_called_steady() -> None:
    """They moved by more than the threshold, and their interval holds that they did not."""
    moved = replace(compared(measured(series("q", noisy(1, 10))), measured(series("q", noisy(2, 10)))).drift,
                    ratio=1.08, low=0.99, high=1.17)  # fmt: skip
    assert moved.verdict == "steady"
    assert "the controls scatter: 0.99 to 1.17" in str(moved)


def test_reads_of_other_tables_are_controls_as_well() -> None:
    before, after = measured(series("q", noisy(1, 10))), measured(series("q", noisy(2, 10)))
    elsewhere = compared(before, after, tables=["core.payments"])
    assert elsewhere.drift.controls == ("control 0", "control 1", "q")
    assert compared(before, after, tables=["core.bookings"]).drift.controls == (
        "control 0",
        "control 1",
    )


def test_measurements_of_an_earlier_version_have_no_controls_and_say_so() -> None:
    bare = replace(measured(series("q", noisy(1, 10))), controls=())
    found = compared(bare, bare)
    assert found.drift.verdict == "unknown"
    assert "is not seen" in str(found.drift)


def test_the_headline_is_made_of_the_ratios_of_its_queries() -> None:
    """Also where a drift was corrected: what the machine did is no gain of the whole either."""
    before = measured(series("a", noisy(1, 10)), series("b", noisy(2, 100)))
    after = measured(series("a", noisy(3, 5.6)), series("b", noisy(4, 28)), control=1.12)
    found = compared(before, after)
    assert found.drift.verdict == "corrected"
    headline, gain = found.headline, benchmark.gain(found, found.headline)
    assert headline.ratio == pytest.approx(headline.before_ms / headline.after_ms)
    assert headline.ratio == pytest.approx(110 / (10 * 0.5 + 100 * 0.25), rel=0.02)
    left = sum(one.before_ms * one.ratio for one in found.changes) / headline.before_ms
    assert gain.times == pytest.approx(1 / left)
    assert gain.low < gain.times < gain.high


# Chance


def test_one_of_many_that_barely_moved_is_put_down_to_chance() -> None:
    alone = compared(
        measured(series("q", noisy(1, 10, 0.1, 40))), measured(series("q", noisy(2, 11.3, 0.1, 40)))
    )
    assert alone.changes[0].verdict == "slower"
    others = [series(f"n{n}", noisy(10 + n, 10)) for n in range(60)]
    again = [series(f"n{n}", noisy(100 + n, 10)) for n in range(60)]
    among = compared(
        measured(series("q", noisy(1, 10, 0.1, 40)), *others),
        measured(series("q", noisy(2, 11.3, 0.1, 40)), *again),
    )
    assert among.changes[0].verdict == "not significant"
    assert "among 61 queries" in among.changes[0].why


@pytest.mark.parametrize(
    ("values", "stands"),
    [
        ([0.01, 0.04, 0.03, 0.005], [True, True, True, True]),
        ([0.01, 0.2, 0.3, 0.5], [True, False, False, False]),
        ([0.02, 0.2, 0.3, 0.5], [False, False, False, False]),
        ([0.04, 0.05, 0.5], [False, False, False]),
    ],
)
def test_false_discoveries_are_controlled_as_the_paper_has_it(
    values: list[float], stands: list[bool]
) -> None:
    assert list(intervals.kept_by_benjamini_hochberg(values, 0.05)) == stands


# Answers


@pytest.mark.parametrize(
    ("old", "new", "facts", "wanted"),
    [
        (("2:aa",), ("2:aa",), {}, ("same", "faster")),
        (("2:aa",), ("1:bb",), {}, ("rows differ", "not significant")),
        (("2:aa",), ("2:bb",), {}, ("values differ", "not significant")),
        (("2:aa",), ("2:bb",), {"volatile": True}, ("volatile", "faster")),
        (("2:aa",), ("1:bb",), {"volatile": True}, ("volatile", "faster")),
        (("2:aa",), ("2:aa",), {"volatile": True}, ("same", "faster")),
        (("200000:",), ("200000:",), {}, ("not compared", "faster")),
        ((), (), {}, ("not compared", "faster")),
    ],
)
def test_a_wrong_answer_never_looks_fast(
    old: tuple[str, ...], new: tuple[str, ...], facts: Any, wanted: tuple[str, str]
) -> None:
    before = measured(series("q", noisy(1, 100), answers=old))
    after = measured(series("q", noisy(2, 1), answers=new, **facts))
    found = compared(before, after)
    assert (found.changes[0].answers, found.changes[0].verdict) == wanted


def test_a_limit_may_choose_among_rows_that_tie() -> None:
    limit = plan(**{"Node Type": "Limit"})
    before = measured(series("q", noisy(1, 100), answers=("2:aa",), explain=limit))
    after = measured(series("q", noisy(2, 1), answers=("2:bb",), explain=limit))
    found = compared(before, after)
    assert found.changes[0].verdict == "faster"
    assert any("a LIMIT cuts among rows that tie: q" in words for words in found.warnings)


def digest(conn: psycopg.Connection, statement: str) -> str:
    return answers.digest(conn.pgconn.exec_(statement.encode()))


def test_the_order_of_rows_makes_no_other_answer_but_a_doubled_row_does(
    session: psycopg.Connection,
) -> None:
    forth = digest(session, "SELECT g, NULL, 'é' FROM generate_series(1, 9) AS g")
    back = digest(session, "SELECT g, NULL, 'é' FROM generate_series(1, 9) AS g ORDER BY g DESC")
    assert forth == back
    assert forth != digest(session, "SELECT g, '', 'é' FROM generate_series(1, 9) AS g")
    twice = digest(session, "VALUES (1), (1), (2), (2)")
    assert twice != digest(session, "VALUES (1), (1), (1), (2)")
    assert digest(session, "SELECT 'ab', 'c'") != digest(session, "SELECT 'a', 'bc'")


def test_a_volatile_query_is_known_by_its_two_answers(database: Target) -> None:
    queries = workload.parse("-- name: dice\nSELECT random();\n-- name: one\nSELECT 1;").queries
    sampled = tuple(SampledQuery(query, ((),)) for query in queries)
    dice, one = benchmark.measure(database, sampled, rounds=1).series
    assert (dice.volatile, one.volatile) == (True, False)


@pytest.mark.parametrize(
    ("statement", "depends"),
    [
        ("SELECT 1 FROM t WHERE at > now() - interval '1 day'", True),
        ("SELECT 1 FROM t WHERE day = CURRENT_DATE", True),
        ("SELECT LOCALTIMESTAMP(3)", True),
        ("SELECT 1 FROM t WHERE id IN (SELECT id FROM u WHERE day > 'yesterday'::date)", True),
        ("SELECT pg_catalog.clock_timestamp()", True),
        ("SELECT 'now', now FROM t WHERE at > $1 AND who = current_user", False),
        ("SELECT '2026-01-01'::date, count(*) FROM t", False),
    ],
)
def test_a_query_that_asks_for_the_time_is_known_by_its_text(statement: str, depends: bool) -> None:
    assert answers.depends_on_the_moment(statement) is depends


def test_what_a_query_of_the_last_hour_answers_later_is_no_wrong_answer(
    database: Target, session: psycopg.Connection
) -> None:
    session.execute("CREATE TABLE t AS SELECT now() AS at")
    query = workload.parse(
        "-- name: recent\nSELECT at FROM t WHERE at > now() - interval '1 hour';"
    ).queries[0]
    sampled = (SampledQuery(query, ((),)),)
    before = benchmark.measure(database, sampled, rounds=5)
    session.execute("UPDATE t SET at = at - interval '2 hours'")  # as if they had passed
    after = benchmark.measure(database, sampled, rounds=5)
    found = compared(before, after)
    assert (before.series[0].rows, after.series[0].rows) == (1, 0)
    assert found.changes[0].answers == "volatile"
    assert any("volatile results" in words for words in found.warnings)
    assert not any("row counts differ" in words for words in found.warnings)
    assert compared(before, before).changes[0].answers == "same"


def test_data_that_changed_between_the_sides_is_found(
    database: Target, session: psycopg.Connection
) -> None:
    session.execute("CREATE TABLE t AS SELECT g FROM generate_series(1, 100) AS g")
    query = workload.parse("-- name: all\nSELECT g FROM t;").queries[0]
    sampled = (SampledQuery(query, ((),)),)
    before = benchmark.measure(database, sampled, rounds=5)
    session.execute("UPDATE t SET g = 1000 WHERE g = 7")
    after = benchmark.measure(database, sampled, rounds=5)
    found = compared(before, after)
    assert found.changes[0].answers == "values differ"
    assert any("different answers: all" in words for words in found.warnings)


# Bounds and failures


def bounded(query: str) -> Series:
    return series(query, [1000.0], limit_ms=1000.0, rows=0)


def test_a_side_that_was_given_up_bounds_the_ratio() -> None:
    found = compared(measured(bounded("q")), measured(series("q", noisy(1, 10))))
    change = found.changes[0]
    assert (change.verdict, change.bound, change.before_words) == ("faster", "before", ">= 1.00 s")
    assert change.ratio_low < change.ratio_high == pytest.approx(0.01, rel=0.02)
    back = compared(measured(series("q", noisy(1, 10))), measured(bounded("q")))
    assert (back.changes[0].verdict, back.changes[0].bound) == ("slower", "after")
    assert back.regressions(50)[0].query == "q"
    both = compared(measured(bounded("q")), measured(bounded("q"))).changes[0]
    assert both.verdict == "not significant"
    assert any("lower bound" in words for words in found.warnings)
    assert not any("row counts differ" in words for words in found.warnings)


def test_a_query_that_fails_on_one_side_is_told_and_breaks_the_run() -> None:
    one, two = series("q", noisy(1, 10)), series("r", noisy(2, 10))
    after = replace(measured(two), failed=(Failure("q", "query 'q' fails: no"),))
    found = compared(measured(one, two), after)
    assert [change.query for change in found.changes] == ["r"]
    assert [failure.query for failure in found.broken()] == ["q"]
    assert "q fails" in after._repr_html_()


def test_a_query_of_the_baseline_that_fails_now_is_a_result_and_no_end(
    database: Target, session: psycopg.Connection
) -> None:
    session.execute("CREATE TABLE t (x int)")
    queries = workload.parse("-- name: q\nSELECT x FROM t;\n-- name: one\nSELECT 1;").queries
    sampled = tuple(SampledQuery(query, ((),)) for query in queries)
    before = benchmark.measure(database, sampled, rounds=1)
    session.execute("DROP TABLE t")
    after = benchmark.measure(
        database, sampled, rounds=1, tolerated=frozenset(s.query for s in before.series)
    )
    assert [failure.query for failure in after.failed] == ["q"]
    assert "does not exist" in after.failed[0].reason
    assert [change.query for change in compared(before, after).changes] == ["one"]


def test_a_parameter_without_a_type_is_named_with_what_to_do(database: Target) -> None:
    text = "-- name: q\n-- param who: SELECT 1\nSELECT 1 WHERE :who IS NULL;"
    query = workload.parse(text).queries[0]
    with pytest.raises(InputError, match=r"type of parameter :who; say what type .* :name::bigint"):
        benchmark.measure(database, (SampledQuery(query, (("1",),)),))


def test_what_can_be_said_where_every_query_fails_on_one_side(
    database: Target, session: psycopg.Connection
) -> None:
    session.execute("CREATE TABLE t (x int)")
    query = workload.parse("-- name: q\nSELECT x FROM t;").queries[0]
    session.execute("DROP TABLE t")
    found = benchmark.measure(
        database, (SampledQuery(query, ((),)),), rounds=1, tolerated=frozenset(["q"])
    )
    assert [failure.query for failure in found.failed] == ["q"]
    assert (found.series, found.controls) == ((), ())


def test_writes_alone_are_nothing_to_measure_where_they_may_not_run(
    database: Target, session: psycopg.Connection
) -> None:
    session.execute("CREATE TABLE t (x int)")
    query = workload.parse("-- name: w\nINSERT INTO t VALUES (1);").queries[0]
    with pytest.raises(
        InputError, match="there is no query to run: writes are run on a disposable"
    ):
        benchmark.measure(database, (SampledQuery(query, ((),)),))


def test_the_limit_of_a_query_is_not_that_of_the_kit(
    database: Target, session: psycopg.Connection
) -> None:
    """A thousandth of a second is too short for the catalog, for a plan, and to hide an index."""
    session.execute("CREATE TABLE t AS SELECT g FROM generate_series(1, 200000) AS g")
    session.execute("CREATE INDEX t_g ON t (g)")
    text = "-- name: slow\nSELECT count(*), pg_sleep(1) FROM t;"
    sampled = tuple(SampledQuery(query, ((),)) for query in workload.parse(text).queries)
    alone = benchmark.measure(database, sampled, statement_timeout=0.001)
    sides = benchmark.interleave(database, sampled, [("public", "t_g")], statement_timeout=0.001)
    for found in (alone, *sides):
        assert found.series[0].given_up
        assert found.series[0].explain.root.type == "Aggregate"
        assert found.settings


# What happened in between


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({"server_started": "a"}, {"server_started": "b"}, "the server was restarted"),
        ({"cache": "warm"}, {"cache": "cold"}, "the cache was warm before and cold after"),
        ({}, {"clock_jump_s": -3600.0}, "the wall clock jumped by 1 h 0 min"),
        ({}, {"client_cpus": 2, "client_load": 3.0}, "the machine was busy: load 3.0 on 2"),
        (
            {"tables": (Table("core.bookings", 1.0, 1, 1, "yesterday"),)},
            {"tables": (Table("core.bookings", 1.0, 1, 1, "today"),)},
            "statistics were renewed between the sides: core.bookings",
        ),
    ],
)
def test_what_happened_in_between_is_told(old: Any, new: Any, words: str) -> None:
    one, two = series("q", noisy(1, 10)), series("q", noisy(2, 10))
    quiet = compared(measured(one), measured(two)).warnings
    assert not [warning for warning in quiet if words in warning]
    told = compared(measured(one, **old), measured(two, **new)).warnings
    assert [warning for warning in told if words in warning]


def test_facts_of_the_moment_come_from_the_server(
    database: Target, session: psycopg.Connection
) -> None:
    session.execute("CREATE TABLE t AS SELECT g FROM generate_series(1, 100) AS g")
    session.execute("ANALYZE t")
    query = workload.parse("-- name: all\nSELECT g FROM t;").queries[0]
    found = benchmark.measure(database, (SampledQuery(query, ((),)),), rounds=1).conditions
    (table,) = found.tables
    assert (table.name, table.rows, table.bytes) == ("public.t", 100.0, 8192)
    assert found.server_started < table.analyzed.replace(" ", "T")
    assert abs(found.clock_jump_s) < 1
    assert found.queries_s > 0
    assert found.client_cpus > 0


def test_a_latency_that_moves_while_it_is_measured_is_told() -> None:
    rising = series("q", np.linspace(10, 15, 90))
    found = compared(measured(rising), measured(series("q", noisy(1, 12))))
    assert any("latency moved by more than 15%" in words for words in found.warnings)


def test_a_terminal_tells_reasons_and_doubts() -> None:
    dearer = plan(**{"Shared Hit Blocks": 900})
    before = measured(series("q", noisy(1, 10), explain=plan(**{"Shared Hit Blocks": 9})))
    after = measured(series("q", noisy(2, 20), explain=dearer), client_load=8.0, client_cpus=2)
    lines = results.benchmark_lines(documents.of_comparison(compared(before, after)))
    assert lines[0].endswith("slower")
    assert lines[1] == "    it touches 900 pages in place of 9"
    assert any(line.startswith("warning: the machine was busy: load 8.0") for line in lines)
    alone = {"headline": None, "queries": [], "warnings": after.warnings()}
    assert results.benchmark_lines(alone)[0].startswith("warning: the machine was busy: load 8.0")


def test_a_measurement_alone_tells_its_doubts() -> None:
    rising = measured(series("<b>", np.linspace(10, 15, 90)))
    assert any("while it was measured: <b>; caches" in words for words in rising.warnings())
    assert "&lt;b&gt;; caches were filling" in rising._repr_html_()
    assert "caches were filling" in repr(rising)
    assert measured(series("q", noisy(1, 12))).warnings() == ()


# Precision and percentiles


class _Done:
    """Enough of a runner for the rule that stops: it only looks at samples."""

    def __init__(self, samples: list[Sample]):
        self.samples = samples
        self.is_given_up = False


def test_rounds_end_when_the_interval_is_narrow_enough() -> None:
    def unit(spread: float) -> Unit:
        sides = tuple(
            _Done(list(series("q", noisy(seed, 10, spread, 100)).samples)) for seed in (1, 2)
        )
        return Unit(sides, rounds=20)  # type: ignore[arg-type]

    narrow, wide = unit(0.02), unit(0.5)
    for one in (narrow, wide):
        one.check(0.05, 0)
    assert (narrow.is_precise, wide.is_precise) == (True, False)


@dataclass
class _Visited:
    """Enough of a runner to see which side is visited, and with which set of values."""

    label: str
    cost_ms: float
    visits: list[tuple[str, int, int]]
    turn: int = 0
    settling: int = 0
    is_given_up: bool = False
    evictor: None = None
    samples: tuple[Sample, ...] = ()

    def measure(self, count: int, number: int, _repeats: int) -> None:
        self.visits.append((self.label, number, self.turn))
        self.turn += count


def visited(slow_ms: float, fast_ms: float, rounds: int = 2) -> list[tuple[str, int, int]]:
    """Return side, round and first set of values of each visit."""
    visits: list[tuple[str, int, int]] = []
    sides = _Visited("slow", slow_ms, visits), _Visited("fast", fast_ms, visits)
    unit = Unit(sides)  # type: ignore[arg-type]
    for number in range(rounds):
        for _ in range(1 + unit.returns()):
            unit.visit(number)
    return visits


def test_a_round_comes_back_to_a_much_faster_side_with_the_same_values() -> None:
    visits = visited(100, 5)
    assert visits[:2] == [("slow", 0, 0), ("fast", 0, 0)]  # costs are known from here on
    assert visits[2:4] == [("fast", 1, 1), ("slow", 1, 1)]
    assert visits[4:] == [("fast", 1, 1)] * 4  # half of 100 ms holds four of 2 * 5 + 1


def test_a_round_does_not_come_back_where_both_sides_are_slow() -> None:
    assert visited(100, 90) == [("slow", 0, 0), ("fast", 0, 0), ("fast", 1, 1), ("slow", 1, 1)]


def test_percentiles_have_intervals_that_cover_them() -> None:
    random = np.random.default_rng(1)
    covered = {50: 0, 95: 0}
    for _ in range(200):
        times = random.lognormal(0, 1, 300)
        for percent, truth in ((50, 1.0), (95, float(np.exp(1.6448536)))):
            low, high = intervals.percentile(times, percent)
            assert high is not None
            covered[percent] += low <= truth <= high
    assert min(covered.values()) >= 186
    assert intervals.percentile([1.0, 2.0, 3.0], 99) == (2.0, None)


# Why it became slower


def test_a_slower_query_is_explained_by_its_plans() -> None:
    scan = {"Total Cost": 5000.0, "Shared Hit Blocks": 100}
    index = {
        "Node Type": "Index Scan",
        "Index Name": "l_partkey",
        "Total Cost": 800.0,
        "Plan Rows": 30,
        "Actual Rows": 6000,
        "Actual Loops": 1,
        "Shared Hit Blocks": 80000,
        "Temp Written Blocks": 12,
    }
    before = measured(series("q5", noisy(1, 10), explain=plan(**scan)))
    after = measured(series("q5", noisy(2, 30), explain=plan(**index)))
    change = compared(before, after).changes[0]
    assert change.verdict == "slower"
    assert "took the new plan for cheaper (cost 800 in place of 5,000)" in change.reason
    assert "expected 30 rows of Index Scan using l_partkey on core.bookings" in change.reason
    assert "80,000 pages in place of 100" in change.reason
    assert "12 more pages to temporary files" in change.reason
    same = compared(before, measured(series("q5", noisy(2, 30), explain=plan(**scan))))
    assert "do not tell why" in same.changes[0].reason


def test_a_step_that_a_limit_stopped_is_no_error_of_the_planner() -> None:
    def limited(**facts: Any) -> explain.Explain:
        step = {"Node Type": "Sort", "Actual Loops": 1, **facts}
        return plan(**{"Node Type": "Limit", "Shared Hit Blocks": 900, "Plans": [step]})

    before = measured(series("q", noisy(1, 10), explain=plan()))
    stopped = limited(**{"Plan Rows": 316_089, "Actual Rows": 10})
    surprised = limited(**{"Plan Rows": 10, "Actual Rows": 316_089})
    reasons = [
        compared(before, measured(series("q", noisy(2, 30), explain=one))).changes[0].reason
        for one in (stopped, surprised)
    ]
    assert "it expected" not in reasons[0]
    assert "it expected 10 rows of Sort" in reasons[1]


# The price


def test_reads_pay_for_writes_from_a_number_on() -> None:
    read = [series("r", noisy(seed, ms)) for seed, ms in ((1, 10.0), (2, 1.0))]
    write = [
        series("w", noisy(seed, ms), kind="write", hot_share=hot, wal_bytes=wal)
        for seed, ms, hot, wal in ((3, 1.0, 0.9, 100.0), (4, 4.0, 0.0, 400.0))
    ]
    before, after = measured(read[0], write[0]), measured(read[1], write[1])
    found = compared(before, after)
    price = benchmark.price(found, before, after, bytes=8192, build_seconds=9.0)
    assert price.reads_per_write == pytest.approx(3 / 9, rel=0.03)
    assert price.reads_for_the_build == pytest.approx(1000, rel=0.03)
    assert "90% -&gt; 0%" in price._repr_html_()
    assert "90% of its updates were heap-only (HOT), now 0%" in found.writes[0].reason
    assert price.per_write is not None
    assert price.for_the_build is not None
    assert price.per_write[0] < 3 / 9 < price.per_write[1]
    assert price.for_the_build[0] < 1000 < price.for_the_build[1]
    assert "reads per write on (95% interval: 0.3" in str(price)
    back = benchmark.price(compared(after, before), after, before)
    assert back.reads_per_write == 0.0
    assert "No read became faster" in str(back)


def test_a_price_within_the_noise_may_be_nothing_and_a_gain_may_never_pay() -> None:
    same = measured(series("r", noisy(1, 10.0, 0.3)), series("w", noisy(2, 1.0, 0.3), kind="write"))
    price = benchmark.price(compared(same, same), same, same, build_seconds=1.0)
    assert price.per_write == (0.0, float("inf"))
    assert price.for_the_build is not None
    assert price.for_the_build[1] == float("inf")


def test_the_same_measurement_on_a_server_that_was_replaced(database: Target) -> None:
    query = workload.parse("-- name: one\nSELECT 1;").queries[0]
    found = benchmark.measure(database, (SampledQuery(query, ((),)),), rounds=1)
    other = replace(found, server=replace(found.server, port=1))
    assert any("the servers differ" in words for words in compared(found, other).warnings)


def test_an_interrupt_before_the_wait_leaves_nothing_running(
    session: psycopg.Connection, database: Target
) -> None:
    with sessions.opened(database, read_only=True) as conn:
        pid = conn.info.backend_pid
        with pytest.raises(KeyboardInterrupt), conn.transaction(), sessions._settled(conn):
            conn.pgconn.send_query(b"SELECT pg_sleep(60)")
            raise KeyboardInterrupt
        assert conn.closed
    deadline = time.monotonic() + 30
    running = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active'"
    while session.execute(running, [pid]).fetchone() != (0,):
        assert time.monotonic() < deadline
