"""Which target comes next, and how large the waves are; nothing here connects to anything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from indexlab.batch.agenda import Agenda, Item, waves
from indexlab.batch.tasks import NOTHING, Task
from indexlab.errors import InputError
from indexlab.progress import About, Lines

NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


def item(name: str, group: str = "", window: str = "") -> Item:
    todo = Task(
        name=name,
        target="env",
        stage="audit",
        execute=False,
        report=False,
        out="",
        run="",
        plan=NOTHING,
        workload=NOTHING,
        options={},
        settings="",
        timeout=None,
        mark="",
    )
    return Item(todo, group, window)


def names(agenda: Agenda, now: datetime = NOON) -> list[str]:
    found = []
    while (one := agenda.next(now)) is not None:
        found.append(one.task.name)
    return found


def test_targets_without_a_group_begin_in_the_order_of_the_file() -> None:
    assert names(Agenda(map(item, "abc"))) == ["a", "b", "c"]


def test_a_group_is_worked_on_one_at_a_time_and_holds_nobody_else_up() -> None:
    agenda = Agenda([item("a1", "a"), item("a2", "a"), item("b1", "b"), item("c")])
    assert names(agenda) == ["a1", "b1", "c"]
    agenda.done(item("b1", "b"))
    assert names(agenda) == []
    agenda.done(item("a1", "a"))
    assert names(agenda) == ["a2"]
    assert len(agenda) == 0


def test_a_group_of_the_name_of_a_target_is_another_thing() -> None:
    assert names(Agenda([item("a"), item("b", "a")])) == ["a", "b"]


def test_a_target_waits_for_its_hours() -> None:
    agenda = Agenda([item("night", window="22:00-05:00"), item("day", window="08:00-18:00")])
    assert names(agenda) == ["day"]
    assert agenda.opens() == NOON.replace(hour=22)
    assert names(agenda, NOON.replace(hour=21, minute=59)) == []
    assert names(agenda, NOON.replace(hour=22)) == ["night"]


def test_another_of_the_group_goes_first_while_one_waits_for_its_hours() -> None:
    agenda = Agenda([item("night", "g", "22:00-05:00"), item("any", "g")])
    assert names(agenda) == ["any"]
    agenda.done(item("any", "g"))
    assert names(agenda) == []
    assert names(agenda, NOON.replace(hour=23)) == ["night"]


def test_a_retry_waits_and_lets_its_group_go_on() -> None:
    agenda = Agenda([item("a", "g"), item("b", "g")])
    first = agenda.next(NOON)
    assert first is not None
    agenda.done(first)
    agenda.add(first, not_before=NOON + timedelta(seconds=4))
    assert names(agenda) == ["b"]
    agenda.done(item("b", "g"))
    assert names(agenda, NOON + timedelta(seconds=3)) == []
    assert names(agenda, NOON + timedelta(seconds=4)) == ["a"]


def test_a_retry_of_a_single_target_waits() -> None:
    agenda = Agenda([item("a")])
    first = agenda.next(NOON)
    assert first is not None
    agenda.done(first)
    agenda.add(first, not_before=NOON + timedelta(seconds=4))
    assert names(agenda) == []
    assert agenda.opens() == NOON + timedelta(seconds=4)
    assert names(agenda, NOON + timedelta(seconds=5)) == ["a"]


def test_what_waits_can_be_taken_out() -> None:
    agenda = Agenda([item("a", "g"), item("b", "g"), item("c")])
    assert agenda.next(NOON) is not None
    assert sorted(one.task.name for one in agenda.drain()) == ["b", "c"]
    assert agenda.next(NOON) is None
    assert len(agenda) == 0


def test_ten_thousand_targets_of_one_group_are_no_trouble() -> None:
    agenda = Agenda(item(str(n), "one") for n in range(10_000))
    for number in range(10_000):
        one = agenda.next(NOON)
        assert one is not None
        assert one.task.name == str(number)
        agenda.done(one)


@pytest.mark.parametrize(
    ("text", "total", "marks"),
    [
        ("", 7, (7,)),
        ("1,10,100%", 50, (1, 10, 50)),
        ("1,10,100%", 5, (1, 5)),
        ("10%,50%,100%", 30, (3, 15, 30)),
        ("1%,100%", 3, (1, 3)),
        ("1,10%,100%", 5, (1, 5)),
        ("2", 9, (2,)),
    ],
)
def test_waves_count_the_targets_up_to_their_end(
    text: str, total: int, marks: tuple[int, ...]
) -> None:
    assert waves(text, total) == marks


@pytest.mark.parametrize("text", ["0", "x", "1,,2", "10,1", "101%", "-1", "50%,50%", "1.5"])
def test_waves_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--waves"):
        waves(text, 100)


def test_the_line_of_a_target_goes_with_it() -> None:
    lines = Lines()
    lines.hear(About("a", "a: started"), None)
    lines.hear(About("batch", "1 running"), None)
    assert lines.hear(About("a", ""), None) == (("1 running", None),)
    assert lines.hear("", None) == ()
