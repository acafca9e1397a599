"""Executed notebooks as pages, through nbconvert and a template of our own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from indexlab import display
from indexlab.display import Markup
from indexlab.render.frame import TEMPLATES, Entry, macros, page

_TAG = re.compile(r"<[^>]*>")
_ID = re.compile(r'(\bid="|="#|url\(#)')
HEADING = re.compile(r"^(#{1,4}) +(.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of a run as part of a page."""

    id: str
    title: str
    body: Markup


def read(path: Path) -> Any:
    """Read an executed notebook of a run; reads only."""
    from nbformat import v4

    # Not validated: the kit wrote it, and checking takes longer than showing.
    return v4.reads(path.read_text(encoding="utf-8"))


def stage_page(document: Any, stage: str) -> str:
    """Render an executed notebook as one HTML file that loads nothing; pure."""
    found = part(document, stage, level=1)
    entries = tuple(entry for entry in headings(document, stage) if entry.id != stage)
    return page("stage.html.j2", title=f"indexlab {stage}", contents=entries, body=found.body)


def part(document: Any, stage: str, *, level: int, title: str = "") -> Stage:
    """Render an executed notebook as a part of a page; pure.

    Args:
        document: the notebook.
        stage: begins the ids of its headings.
        level: of its first heading; those below follow.
        title: of its first heading; empty leaves its own.
    """
    entries = headings(document, stage)
    own = next((entry for entry in entries if entry.id == stage), Entry(stage, stage))
    if title:
        own = Entry(stage, title)
    below = tuple(entry for entry in entries if entry.id != stage)
    exporter = _exporter()
    body, _ = exporter.from_notebook_node(
        merged(document),
        resources={
            "stage": stage,
            "title": own.title,
            "level": level,
            "contents": _list(below, own.title) if level > 1 else "",
        },
    )
    return Stage(stage, own.title, Markup(body))


def warm() -> None:
    """Load what pages are made with, so that the next one takes as long as its contents."""
    from nbformat import v4

    words, code = v4.new_markdown_cell("# Words"), v4.new_code_cell("code")
    stage_page(v4.new_notebook(cells=[words, code]), "warm")
    display.code("SELECT")


def headings(document: Any, stage: str) -> tuple[Entry, ...]:
    """List the headings of a notebook with their ids; the title's is the stage; pure."""
    return tuple(
        Entry(_id(stage, len(marks), title), title.strip())
        for cell in document.cells
        if cell.cell_type == "markdown"
        for marks, title in HEADING.findall(cell.source)
    )


def merged(document: Any) -> Any:
    """Return a notebook in which code without a result is shown with the code that follows; pure."""
    whole = deepcopy(document)
    cells: list[Any] = []
    for cell in whole.cells:
        last = cells[-1] if cells else cell
        is_code = last.cell_type == cell.cell_type == "code"
        if last is cell or not is_code or last.outputs:
            cells.append(cell)
            continue
        cell.source = f"{last.source}\n\n{cell.source}"
        cells[-1] = cell
    whole.cells = cells
    return whole


def _id(stage: str, level: int, title: str) -> str:
    if level == 1:
        return stage
    return f"{stage}-{'-'.join(re.findall(r'[a-z0-9]+', title.lower()))}"


def _list(entries: tuple[Entry, ...], of: str) -> str:
    return str(macros().parts(entries, of)) if entries else ""


@cache
def _exporter() -> Any:
    """Return the exporter: made once, since loading nbconvert takes longer than any page."""
    from nbconvert.exporters.templateexporter import TemplateExporter
    from traitlets.config import Config

    config = Config()
    config.TemplateExporter.extra_template_basedirs = [str(TEMPLATES)]
    config.TemplateExporter.template_name = "report"
    config.TemplateExporter.template_file = "index.html.j2"
    exporter = TemplateExporter(config=config)
    for filter_ in (_words, _text, _python, _drawn, _styled):
        exporter.register_filter(filter_.__name__.removeprefix("_"), filter_)
    return exporter


def _words(source: str, stage: str, own: str, level: int) -> str:
    """Render a markdown cell: its headings with ids, below those of the page."""
    from nbconvert.filters import markdown2html

    def pieces() -> Iterator[str]:
        place = 0
        for found in HEADING.finditer(source):
            yield markdown2html(source[place : found.start()])
            depth = len(found[1])
            title = own if depth == 1 else found[2].strip()
            tag = f"h{min(depth - 1 + level, 6)}"
            yield f'<{tag} id="{_id(stage, depth, title)}">{display.escape(title)}</{tag}>'
            place = found.end()
        yield markdown2html(source[place:])

    return "\n".join(piece for piece in pieces() if piece.strip())


def _text(text: str) -> str:
    return display.escape(text)


def _python(source: str) -> str:
    return display.coloured_python(source)


def _styled(output: str) -> str:
    """Leave out the style that tables bring along in a notebook: the page has it once."""
    return output.replace(display.STYLE, "")


def _drawn(svg: str, stage: str) -> str:
    """Give a chart's parts ids of this stage: the same chart may be on the page twice."""
    return _TAG.sub(lambda tag: _ID.sub(rf"\g<1>{stage}-", tag[0]), svg)
