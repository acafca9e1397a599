"""The page of a batch: every target and every statement, what failed on top; and the same as files."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from indexlab import display, matrix, units
from indexlab.display import Markup, escape
from indexlab.matrix import Matrix, Reason, Row, Statement

TEMPLATES = Path(__file__).parents[1] / "templates"
PAGE = "index.html"
MOST_CELLS = 150_000
"""A browser lays out as many within a few seconds; the files have all."""
MOST_COLUMNS = 60
FULL = 0.5
"""A matrix with more columns must be filled at least by this share, or its cells become a list."""
MOST_STATEMENTS = 200
MOST_LINKS = 12
FILES = {
    "matrix.parquet": "one row for each target and statement, with exact names and types",
    "matrix.csv": "the same for spreadsheets; control characters are visible, formulas defused",
    "matrix_wide.csv": "one row for each target, one column for each statement",
    "batch.json": "all of it, for programs",
}


@dataclass(frozen=True, slots=True)
class Fact:
    """A number on top of the page."""

    value: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the bar over all targets."""

    word: str
    tone: str
    number: int
    share: float
    """Of all, in percent."""


@dataclass(frozen=True, slots=True)
class Group:
    """Targets that have a reason in common."""

    badge: Markup
    number: str
    reason: str
    links: Markup
    more: Markup


def batch_files(document: object) -> tuple[tuple[str, bytes], ...]:
    """Write the page of a batch and its tables, as names and contents; pure.

    Args:
        document: as `batch.json` has it; links on the page are relative to its place.

    Raises:
        InputError: the document is not as it must be.
    """
    return files_of(matrix.of_document(document))


def files_of(found: Matrix) -> tuple[tuple[str, bytes], ...]:
    """Write the page of a matrix and its tables, as names and contents; pure."""
    wide = matrix.wide_csv(found)
    tables = [("matrix.csv", matrix.csv(found)), ("matrix.parquet", matrix.parquet(found))]
    if wide is not None:
        tables.append(("matrix_wide.csv", wide))
    names = ("batch.json", *(name for name, _ in tables))
    return ((PAGE, matrix_page(found, names).encode()), *tables)


def matrix_page(found: Matrix, files: Sequence[str] = ()) -> str:
    """Write the page of a batch; pure.

    Args:
        found: what became of each statement on each target.
        files: names of those that lie beside the page.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    script = (TEMPLATES / "matrix.js").read_text(encoding="utf-8")
    wide = len(found.names) <= MOST_COLUMNS or found.filled >= FULL
    rows = found.rows[: max(1, MOST_CELLS // max(1, len(found.names) if wide else 1))]
    return environment.get_template("matrix.html.j2").render(
        title=_title(found),
        when=" · ".join(_about(found)),
        finding=display.clean(found.finding()),
        facts=tuple(_facts(found)),
        bar=tuple(_bar(found.statuses, len(found.rows))),
        notices=tuple(map(display.clean, _notices(found))),
        groups=tuple(_groups(found.reasons())),
        more_groups=max(0, len(found.reasons()) - MOST_STATEMENTS),
        shown=len(rows),
        total=len(found.rows),
        head=Markup("".join(_head(found, wide))),
        body=Markup("\n".join(_line(row, found.names if wide else None) for row in rows)),
        tags=tuple((display.clean(tag), number) for tag, number in found.tags.items()),
        statuses=tuple(found.statuses.items()),
        states=tuple(found.states.items()),
        names=tuple(map(display.clean, found.names[:MOST_STATEMENTS])),
        wide=wide,
        statements=tuple(_statements(found)),
        more_statements=max(0, len(found.names) - MOST_STATEMENTS),
        files=tuple((name, FILES[name]) for name in FILES if name in files),
        script=Markup(script),
        policy=f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'",
    )


def _title(found: Matrix) -> str:
    bad = sum(number for status, number in found.statuses.items() if status != "ok")
    total = units.plural(len(found.rows), "target")
    return f"{bad:,} of {total} need a look" if bad else f"{total}, nothing to look at"


def _about(found: Matrix) -> Iterator[str]:
    yield "indexlab batch"
    if found.stage:
        yield found.stage + (" --execute" if found.execute else "")
    if found.started:
        yield found.started.replace("T", " ").removesuffix("+00:00") + " UTC" * (
            found.started.endswith("+00:00")
        )


def _notices(found: Matrix) -> Iterator[str]:
    yield from found.notices
    open_ = {status: found.statuses.get(status, 0) for status in ("running", "waiting", "not_run")}
    if not found.complete and any(open_.values()):
        words = [f"{number:,} {matrix.WORDS[it]}" for it, number in open_.items() if number]
        yield f"This batch has not come to its end: {units.listed(words)}. Run it again to go on."


def _facts(found: Matrix) -> Iterator[Fact]:
    fine = found.statuses.get("ok", 0)
    yield Fact(f"{fine:,} of {len(found.rows):,}", "targets fine")
    typical = found.typical_gain()
    if typical is not None:
        median, best, worst = typical
        yield Fact(
            units.factor(median),
            f"the typical target, median of {len(found.gains):,}; nine of ten are between "
            f"{units.factor(worst)} and {units.factor(best)}",
        )
    built = found.built()
    if built:
        seconds = sorted(cell.seconds for _, cell in built if cell.seconds is not None)
        said = (
            f", the typical one in {units.duration(seconds[len(seconds) // 2])}" if seconds else ""
        )
        size = units.size(sum(cell.bytes or 0 for _, cell in built))
        yield Fact(f"{len(built):,}", f"indexes built: {size} of disk{said}")
    elif found.states:
        number, word = next((n, word) for word, n in found.states.items())
        cells = sum(found.states.values())
        yield Fact(
            f"{cells:,}", f"statements on all targets; {number:,} are to {word.replace('_', ' ')}"
        )
    if found.seconds:
        rate = len(found.rows) / found.seconds
        yield Fact(
            units.duration(found.seconds),
            f"the whole batch, {rate:.2g} targets a second"
            if rate >= 1
            else f"the whole batch, {60 * rate:.2g} targets a minute",
        )


def _bar(counts: dict[str, int], total: int) -> Iterator[Part]:
    for word, number in reversed(counts.items()):
        said = f"{display.symbol(word)} {number:,} {display.clean(word.replace('_', ' '))}"
        yield Part(said.strip(), display.tone(word), number, 100 * number / total)


def _groups(reasons: Sequence[Reason]) -> Iterator[Group]:
    for reason in reasons[:MOST_STATEMENTS]:
        links = [_link(row) for row in reason.rows]
        yield Group(
            display.badge(reason.rows[0].status),
            f"{len(links):,}",
            display.clean(reason.text),
            Markup(", ".join(links[:MOST_LINKS])),
            Markup(", ".join(links[MOST_LINKS:])),
        )


def _head(found: Matrix, wide: bool) -> Iterator[str]:
    """The heading of each statement may break at its underscores, so that columns stay narrow."""
    if not wide:
        yield '<th scope="col">statements</th>'
        return
    for name in found.names:
        words = escape(name).replace("_", "_<wbr>").replace(".", ".<wbr>")
        yield f'<th scope="col" class="s" title="{escape(name)}"><div>{words}</div></th>'


def _line(row: Row, names: Sequence[str] | None) -> str:
    cells = {cell.statement: cell for cell in row.cells}
    if names is None:
        chips = " ".join(
            f'<span class="chip" data-n="{escape(name)}"><code>{escape(name)}</code> '
            f"{display.badge(cell.state)}</span>"
            for name, cell in cells.items()
        )
        marks = f'<td class="chips">{chips}</td>'
    else:
        marks = "".join(_mark(cells.get(name)) for name in names)
    tags = escape(json.dumps([display.clean(tag) for tag in row.tags]))
    sub = " · ".join(filter(None, (" ".join(row.tags), row.group, row.server)))
    small = f'<span class="sub" title="{escape(sub)}">{escape(sub)}</span>' if sub else ""
    seconds = "" if row.seconds is None else units.duration(row.seconds)
    return (
        f'<tr data-s="{escape(row.status)}" data-t="{tags}"><th scope="row">{_link(row)}{small}</th>'
        f"<td>{display.badge(row.status)}</td>{_headline(row)}"
        f'<td class="num" data-v="{row.seconds or 0:.3f}">{seconds}</td>{marks}</tr>'
    )


def _headline(row: Row) -> str:
    value = row.gain.ratio if row.gain is not None else ""
    return f'<td class="head" data-v="{value}"><div>{escape(matrix.headline(row))}</div></td>'


def _mark(cell: matrix.Cell | None) -> str:
    if cell is None:
        return "<td></td>"
    why = f' title="{escape(cell.why)}"' if cell.why else ""
    word = escape(cell.state.replace("_", " "))
    return f'<td class="{cell.tone}"{why}>{display.symbol(cell.state)} {word}</td>'


def _link(row: Row) -> Markup:
    """Link to what the run left; a path never leads out of the batch's own directory by scheme."""
    place = row.page or row.run
    name = escape(row.name)
    if not place:
        return Markup(f"<span>{name}</span>")
    href = quote(place if row.page else f"{place.rstrip('/')}/", safe="/")
    href = f".{href}" if href.startswith("/") else href
    return Markup(f'<a href="{escape(href)}">{name}</a>')


def _statements(found: Matrix) -> Iterator[tuple[Markup, Markup, str, Markup]]:
    """Say what became of each statement: its name, states, build times and reasons."""
    for item in found.statements()[:MOST_STATEMENTS]:
        states = " ".join(
            f'<span class="count">{number:,}&nbsp;{display.badge(state)}</span>'
            for state, number in item.states
        )
        if item.missing:
            states += f' <span class="count quiet">{item.missing:,} without</span>'
        yield display.inline_code(item.name), Markup(states), _times(item), _why(item)


def _times(item: Statement) -> str:
    if not item.seconds:
        return ""
    typical = units.duration(item.seconds[len(item.seconds) // 2])
    longest = units.duration(item.seconds[-1])
    return f"{typical} (at most {longest}), {units.size(item.bytes)}"


def _why(item: Statement) -> Markup:
    told = [
        f"{escape(state.replace('_', ' '))} on {number:,}: {escape(reason)}"
        for state, reason, number in item.reasons
    ]
    rest = [f"and {len(told) - 3:,} other reasons"] if len(told) > 3 else []
    return Markup("<br>".join([*told[:3], *rest]))
