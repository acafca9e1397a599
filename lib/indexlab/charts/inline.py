"""A drawn chart as part of a page: its colours are the page's, its text is text."""

from __future__ import annotations

import hashlib
import re

from indexlab import display

ROLES = {
    "#e69f00": "before",
    "#0072b2": "after",
    "#d55e00": "worse",
    "#009e73": "third",
    "#cc79a7": "fourth",
    "#56b4e9": "fifth",
    "#222222": "ink",
    "#767676": "quiet",
    "#dddddd": "rule",
    "#ffffff": "paper",
}
"""What each colour is for; a page gives it its own by `--chart-before` and so on."""
TEXT = {"#d55e00": ("worse-ink", "#ad4300"), "#767676": ("quiet", "#666666")}
"""Thin letters need more contrast than marks do."""

_HEAD = re.compile(r"^.*?<svg\b[^>]*?viewBox=\"0 0 ([\d.]+) ([\d.]+)\"[^>]*>", re.DOTALL)
_LEFT_OUT = re.compile(
    r"<!--.*?-->|<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL
)
_TAG = re.compile(r"<[^>]*>")
_DIGITS = re.compile(r"(\d\.\d\d)\d+")
_LONG_DIGITS = re.compile(r"(\d\d\.\d)\d+")
_COLOUR = re.compile("|".join(ROLES))
_ID = re.compile(r'(\bid="|="#|url\(#)')
_GROUP = re.compile(r'<g id="[^"]*"')
_NO_TURN = re.compile(r' transform="rotate\(-0 [^"]*"')
_EMPTY = re.compile(r"<g>\s*</g>|<g/>")


def themed(svg: str, alt: str) -> str:
    """Turn what matplotlib wrote into a picture that belongs to a page; pure.

    By itself it looks as it was drawn. Nothing in it has an id that another picture has, too.

    Args:
        svg: with its text as text (`svg.fonttype` is `none`).
        alt: the chart in words.
    """
    head = _HEAD.match(svg)
    assert head is not None, "matplotlib writes a viewBox"
    mark = hashlib.sha256(svg.encode()).hexdigest()[:8]
    body = _TAG.sub(lambda tag: _tag(tag[0], mark), _LEFT_OUT.sub("", svg[head.end() :]))
    body = body.replace(" -&gt; ", " → ")
    body = _EMPTY.sub("", re.sub(r">\s*\n\s*<", "><", body)).strip()
    width, height = (float(part) for part in head.groups())
    return (
        f'<svg class="il-chart" role="img" aria-label="{display.escape(alt)}" '
        f'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width:g} {height:g}" width="{width / 0.75:g}" height="{height / 0.75:g}" '
        f'stroke-linejoin="round">{body}'
    )


def _tag(tag: str, mark: str) -> str:
    tag = " ".join(tag.split())
    if tag.startswith("<g"):
        tag = _GROUP.sub("<g", tag)
    tag = _NO_TURN.sub("", tag).replace("font-family: 'DejaVu Sans'", "font-family: inherit")
    tag = _ID.sub(rf"\g<1>{mark}", tag).replace("xlink:href", "href")
    tag = _LONG_DIGITS.sub(r"\1", _DIGITS.sub(r"\1", tag))
    special = TEXT if tag.startswith("<text") else {}
    return _COLOUR.sub(lambda found: _colour(found[0], special), tag)


def _colour(colour: str, special: dict[str, tuple[str, str]]) -> str:
    role, otherwise = special.get(colour, (ROLES[colour], colour))
    return f"var(--chart-{role}, {otherwise})"
