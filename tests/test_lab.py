"""The lab as a notebook's cells use it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

import indexlab
from indexlab import Lab
from indexlab.display import Note
from indexlab.errors import IncompleteError, InputError
from indexlab.impact import Impact

DEMO = "demo:2000"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with indexlab.open_lab("audit", DEMO) as lab:
        yield lab


@pytest.mark.parametrize(
    ("name", "value"),
    [("budget", "fast"), ("settings", 1.5), ("label", 3), ("precision", True)],
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


BEGUN = """
CREATE UNIQUE INDEX begun ON core.customers (email_encrypted, id);
COMMENT ON INDEX begun IS 'the login';
CREATE INDEX not_begun ON core.customers (phone_encrypted);
COMMENT ON INDEX core.ix_core_bookings_customer_id IS 'there before the plan';
"""
STOOD = "CREATE UNIQUE INDEX begun ON core.customers (email_encrypted, id)"


def test_what_a_killed_run_has_built_gets_its_comment_and_becomes_a_constraint(tmp_path) -> None:
    plan = tmp_path / "plan.sql"
    plan.write_text(BEGUN)
    with indexlab.open_lab("apply", DEMO, str(plan)) as lab:
        with psycopg.connect(lab.target.conninfo) as conn:
            conn.execute(STOOD)
        first = lab.apply(execute=True)
        assert [(item.index, item.outcome) for item in first.outcomes] == [
            ("core.begun", "exists"),
            ("core.begun", "built"),
            ("core.ix_core_bookings_customer_id", "built"),
            ("core.not_begun", "built"),
        ]
        with indexlab.open_lab("apply", DEMO, str(plan)) as again:
            then = again.apply(execute=True, settings="attach_constraint")
        assert "is the constraint 'begun' now" in "".join(item.note for item in then.outcomes)
        assert [item.outcome for item in then.outcomes].count("built") == 1
        with psycopg.connect(lab.target.conninfo) as conn:
            found = conn.execute(
                "SELECT obj_description('core.begun'::regclass), count(*) FROM pg_constraint"
                " WHERE conname = 'begun' AND contype = 'u'"
            ).fetchone()
        assert found == ("the login", 1)


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


def test_the_lab_says_what_each_index_is_worth(lab: Lab) -> None:
    found = lab.impact()
    assert isinstance(found, Impact)
    used = {item.name: len(found.users(item.name)) for item in found.candidates}
    assert len(used) == 8
    assert all(used.values()), "every index that the demo builds earns its keep"
    assert "14 queries" in lab.worth().alt or "queries" in lab.worth().title
    assert "of the work with" in lab.bytes_against_worth().title
    assert len(found.frame()) == 14
    assert list(found.indexes_frame()["index"]) == list(found.matrix().columns)


def test_an_index_is_tried_on_a_query(lab: Lab) -> None:
    trial = lab.whatif("CREATE INDEX tried ON bookings (status, event_date)", "pending_badge")
    assert trial.used == ("core.tried",)
    assert trial.cost_after < trial.cost_before
    beside = lab.whatif("CREATE INDEX tried ON bookings (guests)", "pending_badge", with_plan=True)
    assert beside.used == ()
    assert "idx_bookings_status" in repr(beside)
    other = lab.whatif("CREATE INDEX c ON core.stations (city)", "SELECT * FROM core.stations")
    assert "the plan stays the same" in repr(other)


def test_a_lab_that_plans_nothing_says_so() -> None:
    with indexlab.open_lab("audit", DEMO, what_if="off") as lab:
        assert repr(lab.impact()) == "Nothing was planned: --what-if is off."
        assert isinstance(lab.worth(), Note)
        assert isinstance(lab.bytes_against_worth(), Note)
        with pytest.raises(InputError, match="--what-if is off"):
            lab.whatif("CREATE INDEX ON core.bookings (guests)", "pending_badge")
    with pytest.raises(InputError, match="no what-if planner 'guess'"):
        indexlab.open_lab("audit", DEMO, what_if="guess")
    with pytest.raises(InputError, match="parameter 'keep_sandbox' must be bool"):
        indexlab.open_lab("audit", DEMO, keep_sandbox="no")
