"""How results show themselves: escaped tables, badges and code; every rich display uses these."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
.il-table th,.il-table td{padding:.25em .7em;text-align:left;vertical-align:top;
border-bottom:1px solid #8884;white-space:normal}
.il-table td.il-num,.il-table th.il-num{text-align:right;white-space:nowrap}
.il-table code,.il-code{white-space:pre-wrap;font-size:.92em}
.il-badge{white-space:nowrap;border-radius:.6em;padding:.05em .55em;font-weight:600;border:1px solid}
.il-good{color:#0b5394;background:#dbe9f6}.il-calm{color:#444;background:#eee}
.il-warn{color:#7a4b00;background:#fdf0d5}.il-bad{color:#9c1c1c;background:#fbe3e3}
</style>"""


class Markup(str):
    """HTML that is safe as it stands."""

    __slots__ = ()

    def __html__(self) -> str:
        """Tell template engines that it is safe."""
        return self


def clean(text: object) -> str:
    r"""Make control characters and bidirectional marks visible; newlines and tabs stay.

    >>> clean("a\x1b[31mb\u202ec")
    'a\\x1b[31mb\\u202ec'
    """
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co")
        else character.encode("unicode_escape", "surrogatepass").decode()
        for character in str(text)
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


def code(text: str) -> Markup:
    """Return SQL as a block."""
    return Markup(f'<pre class="il-code"><code>{escape(text)}</code></pre>')


def inline_code(text: str) -> Markup:
    """Return SQL within a line."""
    return Markup(f"<code>{escape(text)}</code>")


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
        return self.text

    def _repr_html_(self) -> str:
        return self.markup
