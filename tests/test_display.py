"""What results show of themselves is safe, whatever the database holds."""

from __future__ import annotations

import doctest
from collections.abc import Callable
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
    assert set(read(display.code(text)).elements) <= {"pre", "code", "span"}
    assert set(read(display.sql(text)).elements) <= {"code", "span"}
    assert read(display.badge(text)).elements == ["span"]


class Text(HTMLParser):
    """Notes the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def handle_data(self, data: str) -> None:
        self.text += data


CODE = [
    *HOSTILE,
    "SELECT 'it''s', E'\\n', $1, $tag$ body $tag$ -- <b>\nFROM \"T\".x /* a /* b */ c */",
    "\n\n  SELECT 1 ;\n\n",
    "'never closed",
    "$a$ LANGUAGE plpython3u",
    "/* never closed",
    "",
    "x" * 30_000,
]


@pytest.mark.parametrize("text", CODE)
@pytest.mark.parametrize("coloured", [display.coloured, display.coloured_python])
def test_coloured_code_is_the_same_text(coloured: Callable[[str], Markup], text: str):
    reader = Text()
    reader.feed(coloured(text))
    reader.close()
    assert reader.text == display.clean(text)


def test_words_of_sql_are_told_apart():
    shown = display.sql("SELECT count(*), 'x' FROM core.\"Order\" WHERE id = 12 -- why")
    assert '<span class="il-k">SELECT</span>' in shown
    assert '<span class="il-s">&#x27;x&#x27;</span>' in shown
    assert '<span class="il-n">12</span>' in shown
    assert '<span class="il-c">-- why</span>' in shown
    assert "core.&quot;Order&quot;" in shown


def test_long_code_is_not_coloured():
    assert display.coloured("SELECT " * 3000).count("<span") == 0
    assert display.coloured("SELECT " * 300).count("<span") == 300


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
