"""How long the impact matrix takes: 14, 28 and 56 queries, ten planned indexes, five values each.

All queries read the one table that all the indexes are on, so that nothing is left out: this is
the dearest case of its size.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import pytest

from indexlab import audit as auditing
from indexlab import embedded, impact, plan, target, units, workload
from indexlab.audit import Audit
from indexlab.catalog import Catalog
from indexlab.explain import Explain
from indexlab.impact import Impact
from indexlab.sandbox import WhatIf, open_sandbox
from indexlab.target import Target
from indexlab.workload import Values, Workload

QUERIES = (14, 28, 56)
INDEXES, VALUES = 10, 5
LIMIT = 2.0
"""Seconds for the smallest size, the sandbox being there."""
GROWTH = 1.5
"""How much longer a query may take at four times as many."""
TRIES, TRIAL_LIMIT = 15, 0.1
"""Seconds for one what-if in a notebook: felt as at once."""


class Counted:
    """A planner that counts what it is asked."""

    def __init__(self, whatif: WhatIf):
        self.whatif, self.asked = whatif, 0
        self.name, self.notes, self.lacking = whatif.name, whatif.notes, whatif.lacking
        self.add, self.hide = whatif.add, whatif.hide

    def explain(self, statement: str, values: Values | None) -> Explain:
        self.asked += 1
        return self.whatif.explain(statement, values)


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    columns = ", ".join(f"(n * {k + 7}) % {10 ** (k % 5 + 1)} AS c{k}" for k in range(INDEXES))
    with embedded.server(tmp_path_factory.mktemp("impact")) as server:
        server.create_database("impact")
        found = target.resolve(server.conninfo("impact"), {})
        with target.connect(found) as conn:
            conn.execute(
                f"CREATE TABLE t AS SELECT n AS id, {columns} "
                "FROM generate_series(1, 200000) AS n".encode()
            )
            conn.execute("VACUUM ANALYZE t")
        yield found


def queries(count: int) -> Workload:
    return workload.parse(
        "\n".join(
            f"-- name: q{n}\n-- param v: SELECT n FROM generate_series(1, {VALUES}) AS n\n"
            f"SELECT * FROM t WHERE c{n % INDEXES} = :v AND c{(n // INDEXES + n) % INDEXES} >= 0;"
            for n in range(count)
        )
    )


def audited(at: Target, work: Workload) -> tuple[Catalog, Audit]:
    text = "".join(f"CREATE INDEX i{k} ON t (c{k});\n" for k in range(INDEXES))
    with target.connect(at) as conn:
        return auditing.read(conn, plan.parse(text), work)


def read(at: Target, count: int) -> tuple[float, int, Impact]:
    work = queries(count)
    catalog, audit = audited(at, work)
    with target.connect(at) as conn:
        sampled = workload.sample(conn, work, size=VALUES)
    with open_sandbox(at, catalog, audit.revised, work) as sandbox:
        asked = Counted(sandbox)
        began = time.perf_counter()
        found = impact.read(asked, audit.revised, sampled, catalog)
        return time.perf_counter() - began, asked.asked, found


def test_the_matrix_is_read_while_one_waits(at: Target) -> None:
    read(at, QUERIES[0])  # the sandboxes' cluster is made
    taken: dict[int, float] = {}
    print("\n| queries | indexes | values | plans asked for | matrix | per plan |")
    print("|---|---|---|---|---|---|")
    for count in QUERIES:
        seconds, asked, found = read(at, count)
        assert len(found.simulated) == count
        assert len(found.candidates) == INDEXES
        taken[count] = seconds
        print(
            f"| {count} | {INDEXES} | {VALUES} | {asked:,} | {units.duration(seconds)} "
            f"| {units.ms(1000 * seconds / asked)} |"
        )
    assert taken[QUERIES[0]] <= LIMIT
    assert taken[QUERIES[-1]] / taken[QUERIES[0]] <= GROWTH * QUERIES[-1] / QUERIES[0]


def test_a_trial_is_felt_as_at_once(at: Target) -> None:
    work = queries(1)
    catalog, audit = audited(at, work)
    statement = work.queries[0].statement
    with open_sandbox(at, catalog, audit.revised, work) as sandbox:
        spent = []
        for number in range(TRIES):
            began = time.perf_counter()
            (create,) = plan.parse(f"CREATE INDEX n{number} ON t (c0, c{number % 9 + 1})").creates
            made = sandbox.add(auditing.corrected(catalog, create))
            assert impact.attempt(sandbox, (made,), statement, ("1",), query="q0")._repr_html_()
            spent.append(time.perf_counter() - began)
    middle = statistics.median(spent)
    print(f"\na what-if of a new index, both plans shown: {units.ms(1000 * middle)}", end="")
    assert middle <= TRIAL_LIMIT
