"""What results show of themselves is safe, whatever the database holds."""

from __future__ import annotations

import doctest
from html.parser import HTMLParser

import pytest

from indexlab import display
from indexlab.display import MARKS, Markup

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "</td></tr></table><b>",
    '" onmouseover="alert(1)" \'',
    "a & b &lt; c",
    "\x1b[31mred\x1b[0m",
    "user\u202egnp.exe\u2066",
    "a\x00b\x07\r\u200b\ufeff",
    "\ud800",
    "{{ 7 * 7 }} {% raw %}",
]


class Reader(HTMLParser):
    """Notes the elements and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert all(not name.startswith("on") for name, _ in attrs)
        self.elements.append(tag)
        if tag in ("td", "th", "caption"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    return reader


def test_the_examples_hold():
    assert doctest.testmod(display).failed == 0
    assert doctest.testmod(display).attempted > 0


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_becomes_an_element(text: str):
    table = display.table([text], [[text], [display.inline_code(text)]], caption=text)
    reader = read(table)
    assert set(reader.elements) == {
        *("style", "table", "caption", "thead", "tbody", "tr", "th", "td", "code"),
    }
    assert reader.cells == [display.clean(text)] * 4


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_invisible_is_left(text: str):
    for shown in (display.clean(text), display.escape(text), display.code(text)):
        assert shown.isprintable()
        assert shown.encode()
    assert read(display.code(text)).elements == ["pre", "code"]
    assert read(display.badge(text)).elements == ["span"]


def test_lines_and_tabs_stay_and_so_do_letters_of_the_world():
    text = "a\n\tb — é ñ ü Ж 中文 😀 שלום"
    assert display.clean(text) == text


def test_control_characters_are_told_apart():
    assert display.clean("\x1b\r\u202e") == r"\x1b\r\u202e"


def test_markup_is_left_alone_only_while_it_is_markup():
    badge = display.badge("built")
    assert display.escape(badge) is badge
    assert "<span" not in display.escape(badge + "<b>")
    assert display.escape(display.escape("<b>")) == "&lt;b&gt;"


def test_cells_are_not_only_text():
    assert read(display.table(["a", "b"], [[None, 1.5]])).cells == ["a", "b", "None", "1.5"]


def test_numbers_are_aligned_to_the_right():
    table = display.table(["query", "p50"], [["q", "16 ms"]], numeric=["p50"])
    assert '<th scope="col" class="il-num">p50' in table
    assert '<td class="il-num">16 ms' in table
    assert "<td>q" in table


def test_a_wide_and_long_table():
    columns = [f"column {number}" for number in range(200)]
    reader = read(display.table(columns, ([row] * 200 for row in range(100))))
    assert (reader.elements.count("td"), reader.elements.count("tr")) == (20_000, 101)


@pytest.mark.parametrize("rows", [[["a"]], [["a", "b", "c"]]])
def test_a_row_has_as_many_cells_as_there_are_headings(rows: list[list[object]]):
    with pytest.raises(ValueError, match="zip"):
        display.table(["a", "b"], rows)


def test_an_empty_table_has_its_headings():
    assert read(display.table(["a"], [])).cells == ["a"]


@pytest.mark.parametrize("word", MARKS)
def test_no_badge_says_it_by_colour_alone(word: str):
    symbol, tone = MARKS[word]
    assert symbol
    assert f".il-{tone}" in display.STYLE
    assert display.badge(word) == Markup(
        f'<span class="il-badge il-{tone}">{symbol} {word.replace("_", " ")}</span>'
    )


def test_an_unknown_word_has_a_calm_badge():
    assert read(display.badge("new word")).elements == ["span"]
    assert "il-calm" in display.badge("new word")
