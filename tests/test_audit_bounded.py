"""Reading rows of the target: one round trip, READ ONLY, for some seconds at most."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql as compose

from indexlab.audit import bounded

SETTINGS = ("transaction_read_only", "jit", "max_parallel_workers_per_gather", "statement_timeout")
SHOWN = compose.SQL(", ").join(
    compose.SQL("current_setting({})").format(compose.Literal(name)) for name in SETTINGS
)


class Counted(psycopg.Connection[Any]):
    """A connection that counts how often it waits for the server's answer."""

    trips = 0

    def wait(self, *args: Any, **kwargs: Any) -> Any:
        self.trips += 1
        return super().wait(*args, **kwargs)


@pytest.fixture
def counted(address: str) -> Iterator[Counted]:
    with Counted.connect(address, autocommit=True) as session:
        yield session


def test_it_takes_one_round_trip_and_leaves_no_setting_behind(counted: Counted) -> None:
    query = compose.SQL("SELECT {}").format(SHOWN)
    before = counted.execute(query).fetchone()
    trips = counted.trips
    assert bounded.one_row(counted, query) == ("on", "off", "0", f"{bounded.TIMEOUT_MS // 1000}s")
    assert counted.trips == trips + 1
    assert counted.execute(query).fetchone() == before
    assert counted.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_it_writes_nothing_and_the_session_goes_on(counted: Counted) -> None:
    counted.execute("CREATE TABLE public.bounded_target (a int)")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        bounded.one_row(
            counted,
            compose.Composed(
                [
                    compose.SQL(
                        "WITH w AS (INSERT INTO public.bounded_target VALUES (1) RETURNING a)"
                    )
                ]
            )
            + compose.SQL(" SELECT a FROM w"),
        )
    assert counted.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert counted.execute("SELECT count(*) FROM public.bounded_target").fetchone() == (0,)


def test_it_ends_after_its_time(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "TIMEOUT_MS", 50)
    with pytest.raises(psycopg.errors.QueryCanceled):
        bounded.one_row(counted, compose.Composed([compose.SQL("SELECT pg_sleep(600)")]))
    assert counted.execute("SELECT 1").fetchone() == (1,)
