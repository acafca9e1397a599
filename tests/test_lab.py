"""The lab as a notebook's cells use it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import indexlab
from indexlab import Lab
from indexlab.display import Note
from indexlab.errors import IncompleteError, InputError

DEMO = "demo:2000"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with indexlab.open_lab("audit", DEMO) as lab:
        yield lab


@pytest.mark.parametrize(
    ("name", "value"),
    [("budget", "fast"), ("seed", 1.5), ("label", 3), ("statement_timeout", True)],
)
def test_a_mistyped_parameter_is_refused_before_it_measures(
    lab: Lab, name: str, value: object
) -> None:
    with pytest.raises(InputError, match=f"parameter '{name}' must be"):
        lab.benchmark(**{name: value})


def test_a_word_for_execute_is_refused_and_not_taken_for_yes(lab: Lab) -> None:
    with pytest.raises(InputError, match="parameter 'execute' must be bool, not 'no'"):
        lab.apply(execute="no")


def test_a_dry_run_names_every_statement_and_changes_nothing(lab: Lab) -> None:
    applied = lab.apply()
    outcomes = {item.index: item.outcome for item in applied.outcomes}
    assert len(outcomes) == 10
    assert outcomes["core.idx_bookings_date"] == "dry_run"
    assert outcomes["core.idx_payments_booking_id"] == "skipped"
    assert lab.audit().counts == (("fix", 8), ("skip", 2))
    assert isinstance(lab.builds(applied), Note)


ASKING = """
CREATE INDEX of_mail ON core.customers (mail_address);
DROP INDEX core.bookings_customer;
"""
ANSWERS = "mail_address=email_encrypted, bookings_customer=core.ix_core_bookings_customer_id"


def test_answers_reach_the_apply(tmp_path) -> None:
    plan = tmp_path / "plan.sql"
    plan.write_text(ASKING)
    with indexlab.open_lab("apply", DEMO, str(plan)) as lab:
        assert lab.unresolved() != ()
        with pytest.raises(InputError, match="cannot be applied"):
            lab.apply()
    with indexlab.open_lab("apply", DEMO, str(plan), resolve=ANSWERS) as lab:
        applied = lab.apply()
    assert [(item.index, item.outcome) for item in applied.outcomes] == [
        ("core.of_mail", "dry_run"),
        ("core.ix_core_bookings_customer_id", "dry_run"),
    ]


def test_an_apply_that_was_cut_short_is_an_error(lab: Lab) -> None:
    from dataclasses import replace

    applied = replace(lab.apply(), interrupted=True)
    with pytest.raises(IncompleteError, match="did not complete: interrupted"):
        lab.require_complete(applied)


def test_a_plan_with_open_questions_is_not_applied(lab: Lab, tmp_path) -> None:
    plan = tmp_path / "plan.sql"
    plan.write_text("CREATE INDEX a ON core.bookings (nothing_like_it);\n")
    with (
        indexlab.open_lab("apply", DEMO, str(plan)) as other,
        pytest.raises(InputError, match=r"1 statement .* \(a\): mend them, or apply"),
    ):
        other.apply(execute=True)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"target": 5}, "parameter 'target' must be str"),
        ({"target": DEMO, "disposable": "yes"}, "parameter 'disposable' must be bool"),
        ({"target": "service=x"}, "needs a plan"),
    ],
)
def test_wrong_inputs_are_refused_when_the_lab_opens(inputs, message: str) -> None:
    with pytest.raises(InputError, match=message):
        indexlab.open_lab("audit", **inputs)


def test_a_lab_shows_its_inputs_without_places_of_this_machine(lab: Lab) -> None:
    page = lab._repr_html_()
    assert "plan.sql: 10 indexes" in page
    assert "/" not in page.partition("plan</td>")[2].partition("</tr>")[0].replace("</", "")
