"""The frame of every page: its head, policy, style and behaviour; whatever is filled in is escaped."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from indexlab import display
from indexlab.display import Markup

TEMPLATES = Path(__file__).parents[1] / "templates"
POLICY = (
    "default-src 'none'",
    "img-src data:",
    "style-src 'unsafe-inline'",
    "script-src '{script}'",
    "base-uri 'none'",
    "form-action 'none'",
)
"""Nothing is fetched and nothing is sent; of scripts, only the page's own runs."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a list of contents."""

    id: str
    title: str


def page(
    template: str,
    *,
    title: str,
    contents: tuple[Entry, ...] = (),
    own: str = "",
    **values: Any,
) -> str:
    """Fill the template of a page; pure.

    Args:
        template: a file beside `frame.html.j2` that extends it.
        title: of the window.
        contents: the sections that the bar on top links to.
        own: name of a style and a script beside the template that only this page has.
        values: what the template names; text is escaped, `Markup` is not.
    """
    return str(
        _environment()
        .get_template(template)
        .render(title=title, contents=contents, **_frame(own), **values)
    )


@cache
def _environment() -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        # Jinja would leave control characters and bidirectional marks as they are.
        finalize=lambda value: value if hasattr(value, "__html__") else display.escape(value),
    )


@cache
def _frame(own: str) -> dict[str, Markup]:
    names = ("page", own) if own else ("page",)
    script = "\n".join((TEMPLATES / f"{name}.js").read_text(encoding="utf-8") for name in names)
    style = "\n".join((TEMPLATES / f"{name}.css").read_text(encoding="utf-8") for name in names)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = "; ".join(POLICY).format(script=f"sha256-{digest}")
    dark = (TEMPLATES / "dark.css").read_text(encoding="utf-8")
    style = style.replace("/* dark */", dark)
    of_results = display.STYLE.removeprefix("<style>").removesuffix("</style>")
    return {
        "policy": Markup(policy),
        "script": Markup(script),
        "style": Markup(of_results + style),
    }


def macros() -> Any:
    """Return the pieces of `macros.html.j2`, for pages that are put together elsewhere."""
    return _environment().get_template("macros.html.j2").module
