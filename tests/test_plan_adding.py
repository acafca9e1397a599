"""Adding an index to a plan file: through the grammar, once, whole, and never over something else."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from indexlab import plan
from indexlab.errors import InputError

ONE = "CREATE INDEX of_day ON core.bookings (date)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "plan.sql"


def test_a_file_is_made_with_the_reason_above(path: Path) -> None:
    added = plan.add(path, ONE, "a day's bookings\n\nover all stations")
    assert path.read_text() == f"-- a day's bookings\n-- over all stations\n{ONE};\n"
    assert (added.new, added.line, added.index) == (True, 3, "of_day")
    read = plan.read(path)
    assert read.creates[0].reason == "a day's bookings\nover all stations"


@pytest.mark.parametrize(
    "again",
    [
        ONE,
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS under_another_name ON core.bookings USING btree (date);",
        "CREATE INDEX ON core.bookings (date)",
    ],
)
def test_the_same_index_is_never_added_twice(path: Path, again: str) -> None:
    plan.add(path, ONE)
    before = path.read_bytes()
    added = plan.add(path, again, "once more")
    assert (added.new, added.index, added.line) == (False, "of_day", 1)
    assert path.read_bytes() == before


def test_what_stands_in_the_file_stays_as_it_is(path: Path) -> None:
    text = "\ufeff-- ours\r\nBEGIN;\r\nCREATE  INDEX a ON t (x);\r\nCOMMIT;\r\n\r\n"
    path.write_bytes(text.encode())
    path.chmod(0o640)
    plan.add(path, "CREATE INDEX b\nON t (y)", "why")
    assert path.read_bytes().decode() == (
        "\ufeff-- ours\r\nBEGIN;\r\nCREATE  INDEX a ON t (x);\r\nCOMMIT;\r\n\r\n"
        "-- why\r\nCREATE INDEX b\r\nON t (y);\r\n"
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    "text",
    [
        "CREATE INDEX a ON t (x)",
        "CREATE INDEX a ON t (x) -- the last word",
        "CREATE INDEX a ON t (x);\n-- a thought",
        "CREATE INDEX a ON t (x) /* ; */",
    ],
)
def test_the_end_of_the_file_may_be_anything_that_the_grammar_takes(path: Path, text: str) -> None:
    path.write_text(text)
    plan.add(path, ONE, "why")
    read = plan.read(path)
    assert [item.index.name for item in read.creates] == ["a", "of_day"]
    assert read.creates[1].reason == "why"
    assert path.read_text().startswith(text)


@pytest.mark.parametrize("mark", [plan.EMPTY, plan.UNBEGUN])
def test_the_mark_of_an_empty_plan_goes_with_the_first_statement(path: Path, mark: str) -> None:
    path.write_text(f"-- the plan\n{mark}\n")
    assert plan.read(path).statements == ()
    plan.add(path, ONE)
    assert mark not in path.read_text()
    assert path.read_text().startswith("-- the plan\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT 1;\n", "a plan may not hold 'SELECT 1'"),
        ("-- only a thought\n", "holds no CREATE INDEX or DROP INDEX"),
        ("CREATE INDEX of_day ON core.bookings (status);\n", "holds another index named 'of_day'"),
        ("CREATE INDEX (;\n", "syntax error"),
    ],
)
def test_a_file_that_is_no_plan_or_has_the_name_is_left_alone(
    path: Path, text: str, message: str
) -> None:
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        plan.add(path, ONE)
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("statement", "reason", "message"),
    [
        ("DROP INDEX a", "", "give one CREATE INDEX statement"),
        (f"{ONE}; {ONE}", "", "give one CREATE INDEX statement"),
        ("DELETE FROM t", "", "a plan may not hold"),
        (ONE, "indexlab: ignore unnamed because of me", "would be read as an instruction"),
    ],
)
def test_what_is_no_index_or_no_reason_is_refused(
    path: Path, statement: str, reason: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        plan.add(path, statement, reason)
    assert not path.exists()


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        plan.add(tmp_path / "nowhere" / "plan.sql", ONE)


def test_a_full_disk_leaves_the_plan_as_it_was(small_disk: Path) -> None:
    path = small_disk / "plan.sql"
    text = f"{ONE};\n"
    path.write_text(text)
    with pytest.raises(OSError, match="No space"), (small_disk / "filler").open("wb", 0) as filler:
        while True:
            filler.write(b"\0" * 65536)
    with pytest.raises(InputError, match="No space left"):
        plan.add(path, "CREATE INDEX b ON t (x)", "why " * 2000)
    assert path.read_text() == text
    assert sorted(item.name for item in small_disk.iterdir()) == ["filler", "plan.sql"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.sql").write_text(f"{ONE};\n")
    link = tmp_path / "plan.sql"
    link.symlink_to("real.sql")
    plan.add(link, "CREATE INDEX b ON t (x)")
    assert link.is_symlink()
    assert len(plan.read(tmp_path / "real.sql").creates) == 2


def test_those_who_add_at_once_lose_nothing(path: Path) -> None:
    begin = threading.Barrier(8)

    def add(number: int) -> None:
        begin.wait()
        plan.add(path, f"CREATE INDEX i{number} ON t (c{number})")

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {item.index.name for item in plan.read(path).creates} == {f"i{n}" for n in range(8)}


def test_names_count_as_the_target_reads_them(path: Path) -> None:
    path.write_text("CREATE INDEX a ON bookings (event_date);\n")

    def reading(item: plan.CreateIndex) -> plan.CreateIndex:
        index = item.index.revise(columns={"event_date": "date"})
        index = index.revise(table=plan.IndexDef.parse(ONE).table)
        return plan.revised(item, index)

    assert not plan.add(path, ONE, reading=reading).new
    assert plan.add(path, ONE).new
