"""Answers of the user to what an audit asks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from indexlab.audit import StatementAudit
from indexlab.errors import InputError

Told = Callable[..., StatementAudit]

SCENE = """
CREATE SCHEMA x; CREATE TABLE x.orders (id int, email_a text, email_b text, "Total" int);
CREATE SCHEMA y; CREATE TABLE y.orders (id int);
"""


def rules(item: StatementAudit) -> set[str]:
    return {finding.rule for finding in item.findings}


@pytest.mark.parametrize(
    ("planned", "resolve", "built"),
    [
        ("x.orders (email)", (("email", "email_b"),), "(email_b)"),
        ("x.orders (email)", (("orders.email", "email_b"),), "(email_b)"),
        ("x.orders (email)", (("x.orders.email", "email_b"),), "(email_b)"),
        ("x.orders (lower(email))", (("email", "email_a"),), "lower(email_a)"),
        ("x.orders (amount)", (("amount", '"Total"'),), '("Total")'),
        ("x.orders (total)", (("total", "id"),), "(id)"),
        ("orders (id)", (("orders", "y.orders"),), "ON y.orders USING btree (id)"),
        (
            "orders (email)",
            (("orders", "x.orders"), ("email", "email_a")),
            "ON x.orders USING btree (email_a)",
        ),
        ("nonsense (id)", (("nonsense", "y.orders"),), "ON y.orders"),
    ],
)
def test_an_answer_makes_a_fix(
    told: Told, planned: str, resolve: tuple[tuple[str, str], ...], built: str
) -> None:
    item = told(SCENE, f"CREATE INDEX i ON {planned}", resolve=resolve)
    assert (item.verdict, "resolved" in rules(item)) == ("fix", True)
    assert built in item.revised.text


@pytest.mark.parametrize(
    ("planned", "resolve", "reason"),
    [
        ("x.orders (email)", ("email", "email_c"), r"x.orders.email \(email_a, email_b\)"),
        ("x.orders (email)", ("mail", "email_a"), r"x.orders.email \(email_a, email_b\)"),
        ("x.orders (email)", ("y.orders.email", "email_a"), "to resolve: x.orders.email"),
        ("orders (id)", ("orders", "z.orders"), "to resolve: orders"),
        ("x.orders (id)", ("id", "email_a"), "to resolve: nothing"),
        ("x.orders (id)", ("id", ""), "write column=column"),
        ("x.orders (id)", ("a..b", "id"), "write column=column"),
    ],
)
def test_an_answer_without_use_lists_what_is_open(
    told: Told, planned: str, resolve: tuple[str, str], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        told(SCENE, f"CREATE INDEX i ON {planned}", resolve=(resolve,))


DROPS = (
    SCENE
    + """
CREATE INDEX orders_mail ON x.orders (email_a);
CREATE INDEX twin ON x.orders (id); CREATE INDEX twin ON y.orders (id);
CREATE INDEX "Odd ""i" ON x.orders (email_b);
"""
)


@pytest.mark.parametrize(
    ("dropped", "resolve", "built"),
    [
        ("twin", ("twin", "y.twin"), "DROP INDEX CONCURRENTLY y.twin"),
        ("order_mail", ("order_mail", "x.orders_mail"), "DROP INDEX CONCURRENTLY x.orders_mail"),
        ("z.twin", ("z.twin", "x.twin"), "DROP INDEX CONCURRENTLY x.twin"),
        ("nonsense", ("nonsense", 'x."Odd ""i"'), 'DROP INDEX CONCURRENTLY x."Odd ""i"'),
    ],
)
def test_an_answer_says_which_index_is_dropped(
    told: Told, dropped: str, resolve: tuple[str, str], built: str
) -> None:
    item = told(DROPS, f"DROP INDEX {dropped}", resolve=(resolve,))
    assert (item.verdict, "resolved" in rules(item)) == ("fix", True)
    assert item.revised.text == built


def test_without_an_answer_no_index_is_dropped_by_a_near_name(told: Told) -> None:
    assert told(DROPS, "DROP INDEX twin").verdict == "ask"
    assert told(DROPS, "DROP INDEX x.order_mail").verdict == "ask"


def test_what_is_meant_may_be_gone_already_as_after_a_first_run(told: Told) -> None:
    item = told(SCENE, "DROP INDEX twin", resolve=(("twin", "y.twin"),))
    assert (item.verdict, rules(item)) == ("skip", {"resolved", "missing-index"})
    assert "there is no index y.twin" in item.why


def test_what_is_meant_must_be_an_index(told: Told) -> None:
    item = told(DROPS, "DROP INDEX nonsense", resolve=(("nonsense", "y.orders"),))
    assert (item.verdict, "not-an-index" in rules(item)) == ("refuse", True)


@pytest.mark.parametrize(
    ("resolve", "reason"),
    [
        (("bothh", "x.twin"), r"to resolve: twin \(x.twin, y.twin\)"),
        (("twin", "a.b.c"), r"to resolve: twin \(x.twin, y.twin\)"),
    ],
)
def test_an_answer_without_use_lists_the_indexes_that_are_open(
    told: Told, resolve: tuple[str, str], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        told(DROPS, "DROP INDEX twin", resolve=(resolve,))


def test_without_an_answer_it_is_asked(told: Told) -> None:
    assert told(SCENE, "CREATE INDEX i ON x.orders (email)").verdict == "ask"
    assert told(SCENE, "CREATE INDEX i ON orders (id)").verdict == "ask"
