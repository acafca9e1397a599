"""The page of a batch: every target and every statement, what failed on top; and the same as files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from indexlab import charts, display, matrix, units
from indexlab.display import Markup, escape
from indexlab.matrix import Matrix, Reason, Row, Statement
from indexlab.render import frame
from indexlab.render.frame import Entry
from indexlab.render.story import Fact, Tone

PAGE = "index.html"
MOST_CELLS = 150_000
"""A browser lays out as many within a few seconds; the files have all."""
MOST_COLUMNS = 60
FULL = 0.5
"""A matrix with more columns must be filled at least by this share, or its cells become a list."""
ENDED = ("failed", "findings", "ok")
"""The states of targets that were worked on."""
MOST_STATEMENTS = 200
MOST_LINKS = 12
FILES = {
    "matrix.parquet": "one row for each target and statement, with exact names and types",
    "matrix.csv": "the same for spreadsheets; control characters are visible, formulas defused",
    "matrix_wide.csv": "one row for each target, one column for each statement",
    "batch.json": "all of it, for programs",
}


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
    columns = _columns(found)
    rows = found.rows[: max(1, MOST_CELLS // max(1, len(columns.statements or ())))]
    reasons, statements = found.reasons(), found.statements()[:MOST_STATEMENTS]
    contents = [("reasons", "What needs a look")] if reasons else []
    contents.append(("matrix", "Matrix"))
    chart = charts.gains(found).inline() if len(found.gains) > 1 else ""
    contents += [("gains", "Gains")] if chart else []
    contents += [("statements", "Statements")] if statements else []
    contents += [("files", "Files")] if files else []
    return frame.page(
        "matrix.html.j2",
        title=f"indexlab: {_title(found)}",
        contents=tuple(Entry(*entry) for entry in contents),
        own="matrix",
        about=" · ".join(_about(found)),
        finding=_title(found),
        lead=found.finding(),
        split=tuple(_split(found.statuses, len(found.rows))),
        facts=tuple(_facts(found)),
        chart=Markup(chart),
        notices=tuple(_notices(found)),
        groups=tuple(_groups(reasons)),
        more_groups=max(0, len(reasons) - MOST_STATEMENTS),
        shown=len(rows),
        total=len(found.rows),
        fixed=len(FIXED) + columns.gains,
        head=Markup("".join(_head(columns))),
        body=Markup("\n".join(_line(row, columns) for row in rows)),
        tags=tuple(found.tags.items()),
        statuses=tuple(found.statuses.items()),
        states=tuple((state.replace("_", " "), n) for state, n in found.states.items()),
        names=found.names[:MOST_STATEMENTS],
        listed=columns.statements is None,
        statements=tuple(map(_statement, statements)),
        more_statements=max(0, len(found.names) - MOST_STATEMENTS),
        files=tuple((name, FILES[name]) for name in FILES if name in files),
    )


@dataclass(frozen=True, slots=True)
class _Columns:
    """Which columns the matrix has."""

    gains: bool
    statements: tuple[str, ...] | None
    """None where each target has other ones: then they are a list in one column."""


def _columns(found: Matrix) -> _Columns:
    wide = len(found.names) <= MOST_COLUMNS or found.filled >= FULL
    return _Columns(bool(found.gains), found.names if wide else None)


def _title(found: Matrix) -> str:
    bad = sum(number for status, number in found.statuses.items() if status != "ok")
    total = units.plural(len(found.rows), "target")
    if not bad:
        return f"{total}, nothing to look at"
    return f"{bad:,} of {total} {'needs' if bad == 1 else 'need'} a look"


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
    fine, total = found.statuses.get("ok", 0), len(found.rows)
    if total:
        yield Fact("Targets fine", f"{fine:,} of {total:,}", (), "good" if fine == total else "bad")
    typical = found.typical_gain()
    if typical is not None:
        median, best, worst = typical
        lines = [f"median of the {units.plural(len(found.gains), 'target')} that were measured"]
        if len(found.gains) >= 20:
            lines.append(f"nine of ten are between {units.factor(worst)} and {units.factor(best)}")
        tone: Tone = "good" if median < 0.995 else "bad" if median > 1.005 else "plain"
        yield Fact("The typical target", units.factor(median), tuple(lines), tone)
    built = found.built()
    if built:
        seconds = sorted(cell.seconds for _, cell in built if cell.seconds is not None)
        size = units.size(sum(cell.bytes or 0 for _, cell in built))
        lines = [f"{size} of disk"]
        if seconds:
            lines.append(f"the typical one in {units.duration(seconds[len(seconds) // 2])}")
        yield Fact("Indexes built", f"{len(built):,}", tuple(lines), "price")
    elif found.states:
        told = (f"{number:,} {state.replace('_', ' ')}" for state, number in found.states.items())
        cells = sum(found.states.values())
        yield Fact("Statements", f"{cells:,}", (units.listed(told, 8),), "plain")
    if found.seconds:
        ended = sum(row.status in ENDED for row in found.rows)
        rate = ended / found.seconds
        said = f"{rate:.2g} targets a second" if rate >= 1 else f"{60 * rate:.2g} targets a minute"
        yield Fact("The whole batch", units.duration(found.seconds), (said,), "plain")


def _split(counts: dict[str, int], total: int) -> Iterator[Part]:
    for word, number in reversed(counts.items()):
        said = f"{display.symbol(word)} {number:,} {word.replace('_', ' ')}"
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


FIXED = ("target", "status", "what is to tell", "took")


def _head(columns: _Columns) -> Iterator[str]:
    """The heading of each statement may break at its underscores, so that columns stay narrow."""
    fixed = [*FIXED[:2], *(["gain"] if columns.gains else []), *FIXED[2:]]
    for name in fixed:
        kind = ' class="il-num"' if name in ("gain", "took") else ""
        yield f'<th scope="col"{kind}>{name}</th>'
    if columns.statements is None:
        yield '<th scope="col">statements</th>'
        return
    for name in columns.statements:
        words = escape(name).replace("_", "_<wbr>").replace(".", ".<wbr>")
        yield f'<th scope="col" class="s" title="{escape(name)}"><div>{words}</div></th>'


def _line(row: Row, columns: _Columns) -> str:
    cells = {cell.statement: cell for cell in row.cells}
    if columns.statements is None:
        chips = " ".join(
            f'<span class="chip" data-n="{escape(name)}"><code>{escape(name)}</code> '
            f"{display.badge(cell.state)}</span>"
            for name, cell in cells.items()
        )
        marks = f'<td class="chips">{chips}</td>'
    else:
        marks = "".join(_mark(cells.get(name)) for name in columns.statements)
    tags = escape(json.dumps([display.clean(tag) for tag in row.tags]))
    server = f"PostgreSQL {row.server}" if row.server[:1].isdigit() else row.server
    sub = escape(" · ".join(filter(None, (" ".join(row.tags), row.group, server))))
    small = f'<span class="sub" title="{sub}">{sub}</span>' if sub else ""
    gain = "" if row.gain is None else units.factor(row.gain.ratio)
    gains = f'<td class="il-num">{gain}</td>' if columns.gains else ""
    seconds = "" if row.seconds is None else units.duration(row.seconds)
    return (
        f'<tr data-s="{escape(row.status)}" data-t="{tags}"><th scope="row">{_link(row)}{small}</th>'
        f"<td>{display.badge(row.status)}</td>{gains}"
        f'<td class="told"><div>{escape(matrix.told(row))}</div></td>'
        f'<td class="il-num">{seconds}</td>{marks}</tr>'
    )


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
    whole = place if row.page else f"{place.rstrip('/')}/"
    href = quote(whole, safe="/", errors="backslashreplace")
    href = f".{href}" if href.startswith("/") else href
    return Markup(f'<a href="{escape(href)}">{name}</a>')


def _statement(item: Statement) -> tuple[Markup, Markup, str, Markup]:
    """Say what became of a statement over all targets: name, states, build times and reasons."""
    states = " ".join(
        f'<span class="number">{number:,}&nbsp;{display.badge(state)}</span>'
        for state, number in item.states
    )
    if item.missing:
        states += f' <span class="number quiet">{item.missing:,} without</span>'
    return display.inline_code(item.name), Markup(states), _times(item), _why(item)


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
