"""How results show themselves: escaped tables, badges and code; every rich display uses these."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any

MARKS = {
    "build": ("✔", "good"),
    "built": ("✔", "good"),
    "faster": ("▲", "good"),
    "exists": ("=", "calm"),
    "no change": ("=", "calm"),
    "not significant": ("≈", "calm"),
    "skip": ("–", "calm"),
    "skipped": ("–", "calm"),
    "dry_run": ("○", "calm"),
    "not_run": ("○", "warn"),
    "dropped": ("−", "calm"),
    "info": ("i", "calm"),
    "fix": ("✎", "warn"),
    "replace": ("⇄", "warn"),
    "ask": ("?", "warn"),
    "warning": ("!", "warn"),
    "refuse": ("✖", "bad"),
    "error": ("✖", "bad"),
    "failed": ("✖", "bad"),
    "slower": ("▼", "bad"),
    # targets of a batch
    "ok": ("✔", "good"),
    "findings": ("!", "warn"),
    "running": ("▶", "calm"),
    "waiting": ("…", "calm"),
}
"""Symbol and tone by word: never colour alone."""

STYLE = """<style>
.il-table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.4em 0}
.il-table caption{caption-side:top;text-align:left;font-weight:600;padding:.2em 0}
.il-table th,.il-table td{padding:.3em .7em;text-align:left;vertical-align:top;
border-bottom:1px solid var(--il-rule,#8884);white-space:normal}
.il-table td.il-num,.il-table th.il-num{text-align:right;white-space:nowrap}
.il-table code,.il-code{white-space:pre-wrap;overflow-wrap:break-word;font-size:.92em}
.il-sub{display:block;font-size:.86em;opacity:.8}
.il-badge{display:inline-block;white-space:nowrap;border-radius:1em;padding:0 .6em;font-weight:600;
line-height:1.6;border:1px solid}
.il-good{color:var(--il-good,#0b5394);background:var(--il-good-soft,#dbe9f6)}
.il-calm{color:var(--il-calm,#444);background:var(--il-calm-soft,#eee)}
.il-warn{color:var(--il-warn,#7a4b00);background:var(--il-warn-soft,#fdf0d5)}
.il-bad{color:var(--il-bad,#9c1c1c);background:var(--il-bad-soft,#fbe3e3)}
.il-k{color:var(--il-keyword,var(--jp-mirror-editor-keyword-color,#0b5394));font-weight:600}
.il-s{color:var(--il-string,var(--jp-mirror-editor-string-color,#93411b))}
.il-n{color:var(--il-number,var(--jp-mirror-editor-number-color,#14663b))}
.il-c{color:var(--il-comment,var(--jp-mirror-editor-comment-color,#5b6570));font-style:italic}
.il-plan ul{list-style:none;margin:0;padding:0}
.il-plan ul ul{margin-left:.45em;padding-left:1.1em;border-left:1px solid var(--il-rule,#8884)}
.il-plan li{margin:.15em 0;padding:0}
.il-plan summary,.il-fold summary{cursor:pointer}
.il-plan .il-leaf{padding-left:1em}
.il-plan .il-facts,.il-plan .il-cond,.il-plan p{font-size:.88em;color:var(--il-quiet,inherit)}
.il-plan .il-cond{padding-left:1.15em;overflow-wrap:anywhere}
.il-plan .il-share{display:inline-block;width:3.4em;margin-right:.3em;font-size:.78em;line-height:1.35;
text-align:right;padding-right:.25em;border-radius:2px;color:var(--il-ink,inherit);
background:linear-gradient(90deg,var(--il-share,#e69f0066) var(--share),var(--il-share-rest,#8882) 0)}
.il-costly{display:inline-block;font-size:.82em;font-weight:600;border:1px solid;border-radius:1em;
padding:0 .55em;color:var(--il-warn,#7a4b00);background:var(--il-warn-soft,#fdf0d5)}
</style>"""
"""What tables, badges, SQL and plans look like, in a notebook and on a page, which sets the colours."""

MAX_COLOURED = 20_000
"""Characters of code from which on its words are not coloured."""
HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
"""Categories of characters that nobody sees, or that end a line where nobody looks for it."""
COLOURS = {"Keyword": "k", "String": "s", "Number": "n", "Comment": "c"}
"""Classes by the kind of a word, as Pygments names it."""


class Markup(str):
    """HTML that is safe as it stands."""

    __slots__ = ()

    def __html__(self) -> str:
        """Tell template engines that it is safe."""
        return self


def clean(text: object) -> str:
    r"""Make control characters, bidirectional marks and the like visible; newlines and tabs stay.

    >>> clean("a\x1b[31mb\u202ec")
    'a\\x1b[31mb\\u202ec'
    """
    shown = str(text)
    if shown.isprintable():  # which holds for none of the characters below
        return shown
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in HIDDEN
        else character.encode("unicode_escape", "surrogatepass").decode()
        for character in shown
    )


def escape(value: object) -> Markup:
    """Return text that is safe in HTML; `Markup` is left as it is.

    >>> escape("<img onerror=x>"), escape(badge("built")).startswith("<span")
    ('&lt;img onerror=x&gt;', True)
    """
    return value if isinstance(value, Markup) else Markup(html.escape(clean(value)))


def symbol(word: str) -> str:
    """Return the symbol of a verdict or outcome; empty for a word that has none."""
    return MARKS.get(word, ("", ""))[0]


def tone(word: str) -> str:
    """Return whether a verdict or outcome is `good`, `calm`, `warn` or `bad`."""
    return MARKS.get(word, ("", "calm"))[1]


def badge(word: str) -> Markup:
    """Return a verdict or outcome with its symbol and tone."""
    said = f"{symbol(word)} {escape(word.replace('_', ' '))}"
    return Markup(f'<span class="il-badge il-{tone(word)}">{said}</span>')


def warning(text: str) -> Markup:
    """Return what is doubtful, marked as that."""
    return Markup(f"{badge('warning')} {escape(text)}")


def code(text: str) -> Markup:
    """Return SQL as a block, its words coloured."""
    return Markup(f'<pre class="il-code"><code>{coloured(text)}</code></pre>')


def sql(text: str) -> Markup:
    """Return SQL within a line, its words coloured."""
    return Markup(f'<code class="il-sql">{coloured(text)}</code>')


def inline_code(text: str) -> Markup:
    """Return a name, or anything else that is code, within a line."""
    return Markup(f"<code>{escape(text)}</code>")


def coloured(text: str) -> Markup:
    """Return SQL with its keywords, texts, numbers and comments told apart; escaped.

    >>> coloured("SELECT '<b>'")
    '<span class="il-k">SELECT</span> <span class="il-s">&#x27;&lt;b&gt;&#x27;</span>'
    """
    return _coloured(text, "postgres")


def coloured_python(text: str) -> Markup:
    """Return Python with its keywords, texts, numbers and comments told apart; escaped."""
    return _coloured(text, "python")


def _coloured(text: str, language: str) -> Markup:
    shown = clean(text)
    if len(shown) > MAX_COLOURED:
        return escape(shown)
    return Markup("".join(_spans(shown, language)))


def _spans(text: str, language: str) -> Iterator[str]:
    """Give runs of words of one colour; text between them as it is."""
    tokens = _lexer(language).get_tokens(text)
    for colour, words in groupby(tokens, key=lambda token: _colour(*token)):
        shown = html.escape("".join(word for _, word in words))
        yield f'<span class="il-{colour}">{shown}</span>' if colour else shown


def _colour(kind: Any, word: str) -> str:
    parts = tuple(kind)  # whose own `in` asks something else
    if "Name" in parts or word == ".":  # a name in quotes, and the dot in a qualified one
        return ""
    return next((COLOURS[part] for part in parts if part in COLOURS), "")


@cache
def _lexer(language: str) -> Any:
    """Return a lexer that takes a text as it is."""
    from pygments.lexers import get_lexer_by_name

    return get_lexer_by_name(language, stripnl=False, ensurenl=False)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    caption: str = "",
    numeric: Sequence[str] = (),
) -> Markup:
    """Return an HTML table; every cell is escaped unless it is `Markup`.

    Args:
        columns: headings, in order.
        rows: cells, as many as headings.
        caption: what the table shows.
        numeric: headings whose cells are aligned to the right.
    """
    kinds = [' class="il-num"' if column in numeric else "" for column in columns]
    head = "".join(
        f'<th scope="col"{kind}>{escape(column)}</th>'
        for column, kind in zip(columns, kinds, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{escape(c)}</td>" for c, kind in zip(row, kinds, strict=True))
        + "</tr>"
        for row in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return Markup(
        f'{STYLE}<table class="il-table">{title}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


@dataclass(frozen=True, slots=True)
class Note:
    """A few words, or SQL, where there is no table or chart to show."""

    text: str
    markup: Markup

    @classmethod
    def words(cls, text: str) -> Note:
        """Say a sentence."""
        return cls(text, Markup(f"<p>{escape(text)}</p>"))

    def __repr__(self) -> str:
        return clean(self.text)

    def _repr_html_(self) -> str:
        return self.markup
