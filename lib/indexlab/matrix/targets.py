"""What became of each statement on each target, and what that says over all; pure."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING

from indexlab import display, units
from indexlab.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

WORST_FIRST = ("failed", "not_run", "findings", "running", "waiting", "ok")
"""The states of a target; one that this version does not know stands behind the failed ones."""
CONDITIONS = ("name", "tag", "group", "status")
TONES = ("bad", "warn", "calm", "good")
MOST_SHOWN = 30
VARIABLE = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")
"""What differs between reasons that are one: names in quotes, numbers."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What became of one statement on one target."""

    statement: str
    state: str
    """A verdict of the audit or an outcome of apply."""
    seconds: float | None = None
    """How long the build took."""
    bytes: int | None = None
    why: str = ""

    @property
    def tone(self) -> str:
        """Whether that is good, calm, a warning or bad."""
        return display.tone(self.state)


@dataclass(frozen=True, slots=True)
class Gain:
    """The headline of one target: median latency times weight, over the queries concerned."""

    before_ms: float
    after_ms: float

    @property
    def ratio(self) -> float:
        """Time after divided by time before."""
        return self.after_ms / self.before_ms

    def __str__(self) -> str:
        said = f"{units.ms(self.before_ms)} → {units.ms(self.after_ms)}"
        return f"{units.factor(self.ratio)} ({said})"


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the planner says of the workload: cost times weight, now and with the plan."""

    before: float
    after: float

    def __str__(self) -> str:
        times = self.before / self.after
        less = "as before" if 0.995 < times < 1.005 else f"{units.cost(times)} times less"
        if times < 0.995:
            less = units.increase(self.before, self.after)
        return f"planned cost {units.cost(self.before)} → {units.cost(self.after)}, {less}"


@dataclass(frozen=True, slots=True)
class Row:
    """One target."""

    name: str
    status: str
    """`ok`, `findings`, `failed` or `not_run`; in a batch that goes on `running` or `waiting`."""
    cells: tuple[Cell, ...] = ()
    reason: str = ""
    exit: int | None = None
    gain: Gain | None = None
    forecast: Forecast | None = None
    headline: str = ""
    """In words, where it is no gain."""
    regressions: tuple[str, ...] = ()
    """Queries that are slower than was allowed."""
    run: str = ""
    """Where the run is, relative to the batch; empty if there is none."""
    page: str = ""
    """The page to begin with, relative to the batch."""
    tags: tuple[str, ...] = ()
    group: str = ""
    stage: str = ""
    wave: int | None = None
    seconds: float | None = None
    attempts: int | None = None
    server: str = ""

    def rank(self) -> tuple[int, int, int, float, str]:
        """Return what to sort by, so that the worst target comes first."""
        tones = Counter(cell.tone for cell in self.cells)
        slow = 0.0 if self.gain is None else -self.gain.ratio
        worse = -tones["bad"] - len(self.regressions)
        return _place(self.status), worse, -tones["warn"], slow, self.name

    def fits(self, wanted: Mapping[str, Sequence[str]]) -> bool:
        """Return whether the target fits patterns by key, of each key one."""
        values = {
            "name": (self.name,),
            "tag": self.tags,
            "group": (self.group,),
            "status": (self.status,),
        }
        return all(
            any(fnmatchcase(value, pattern) for value in values[key] for pattern in patterns)
            for key, patterns in wanted.items()
        )


@dataclass(frozen=True, slots=True)
class Reason:
    """Targets that failed for the same reason, names and numbers apart."""

    text: str
    """As the first of them says it."""
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """What became of one statement over all targets."""

    name: str
    states: tuple[tuple[str, int], ...]
    """How many targets by state, the worst state first."""
    missing: int
    """Targets that have nothing to say of it."""
    reasons: tuple[tuple[str, str, int], ...]
    """State, reason and number of targets, the most frequent first."""
    seconds: tuple[float, ...]
    bytes: int


@dataclass(frozen=True)  # not slotted: what is counted over a hundred thousand rows is kept
class Matrix:
    """A batch: one row for each target, one column for each statement."""

    rows: tuple[Row, ...]
    """The worst first."""
    stage: str = ""
    execute: bool = False
    started: str = ""
    seconds: float | None = None
    complete: bool = True
    """Whether the batch came to its end."""
    notices: tuple[str, ...] = ()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Name the statements in the order in which the plans have them."""
        # Rows are sorted by how bad they are; the longest plan tells the order best.
        known: dict[str, None] = {}
        for row in sorted(self.rows, key=lambda row: (-len(row.cells), row.name)):
            known.update(dict.fromkeys(cell.statement for cell in row.cells))
        return tuple(known)

    @cached_property
    def filled(self) -> float:
        """The share of the cells that say something, from 0 to 1."""
        whole = len(self.names) * sum(bool(row.cells) for row in self.rows)
        return sum(len(row.cells) for row in self.rows) / whole if whole else 0.0

    @cached_property
    def statuses(self) -> dict[str, int]:
        """Count the targets by status, the worst first."""
        counts = Counter(row.status for row in self.rows)
        return dict(sorted(counts.items(), key=lambda it: (_place(it[0]), it[0])))

    @cached_property
    def states(self) -> dict[str, int]:
        """Count the cells by state, the worst first."""
        return dict(_by_tone(Counter(cell.state for row in self.rows for cell in row.cells)))

    @cached_property
    def tags(self) -> dict[str, int]:
        """Count the targets by tag, by name."""
        return dict(sorted(Counter(tag for row in self.rows for tag in row.tags).items()))

    @cached_property
    def gains(self) -> tuple[Row, ...]:
        """The targets that were measured before and after, the least gain first."""
        measured = [(row.gain.ratio, row.name, row) for row in self.rows if row.gain is not None]
        return tuple(row for _ratio, _name, row in sorted(measured, key=lambda it: (-it[0], it[1])))

    def typical_gain(self) -> tuple[float, float, float] | None:
        """Return the median of after / before over the targets, and its 5th and 95th percentile."""
        ratios = sorted(row.gain.ratio for row in self.gains if row.gain is not None)
        if not ratios:
            return None
        return statistics.median(ratios), _at(ratios, 0.05), _at(ratios, 0.95)

    def built(self) -> tuple[tuple[Row, Cell], ...]:
        """Return each build with the target that it was on."""
        return tuple(
            (row, cell) for row in self.rows for cell in row.cells if cell.state == "built"
        )

    def reasons(self) -> tuple[Reason, ...]:
        """Group what did not end well by its reason, the gravest and most frequent first."""
        groups: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            if row.status not in ("ok", "running", "waiting"):
                groups.setdefault((row.status, _kind(_reason(row), row.name)), []).append(row)
        found = [Reason(_reason(rows[0]), tuple(rows)) for rows in groups.values()]
        return tuple(
            sorted(found, key=lambda it: (it.rows[0].rank()[0], -len(it.rows), it.rows[0].name))
        )

    def statements(self) -> tuple[Statement, ...]:
        """Say what became of each statement over all targets, in the order of the plans."""
        cells: dict[str, list[Cell]] = {name: [] for name in self.names}
        for row in self.rows:
            for cell in row.cells:
                cells[cell.statement].append(cell)
        return tuple(_statement(name, found, len(self.rows)) for name, found in cells.items())

    def only(self, conditions: str) -> Matrix:
        """Return a part of the batch.

        Args:
            conditions: such as `tag=eu,name=shop-*,status=failed`: conditions on different keys
                must all hold, of several on one key any. Empty takes all.

        Raises:
            InputError: a condition is none, or no target is left.
        """
        wanted: dict[str, list[str]] = {}
        for condition in filter(None, map(str.strip, conditions.split(","))):
            key, equals, pattern = condition.partition("=")
            if not equals or not pattern or key not in CONDITIONS:
                raise InputError(
                    f"{condition!r} is no condition: write {units.listed(CONDITIONS)} and a "
                    "pattern, such as tag=eu,name=shop-*"
                )
            wanted.setdefault(key, []).append(pattern)
        rows = tuple(row for row in self.rows if row.fits(wanted))
        if wanted and not rows:
            raise InputError(f"{conditions!r} fits none of the {len(self.rows)} targets")
        return replace(self, rows=rows)

    def finding(self) -> str:
        """Say in a sentence how the batch went."""
        total = len(self.rows)
        if not total:
            return "There is no target in this batch."
        counts = {status: number for status, number in self.statuses.items() if status != "ok"}
        if not counts:
            said = f"All {total:,} are fine" if total > 1 else "The one target is fine"
        else:
            parts = [
                f"{number:,} {WORDS.get(status, display.clean(status))}"
                for status, number in counts.items()
            ]
            said = f"Of {units.plural(total, 'target')}, {units.listed(parts, 6)}"
            said += f"; {self.statuses.get('ok', 0):,} fine"
        typical = self.typical_gain()
        if typical is not None:
            said += f". The typical one became {units.factor(typical[0])}"
        return f"{said}."

    def frame(self) -> pd.DataFrame:
        """Return one row for each target and statement, with exact names.

        Columns: target, status, tags (tuple), group, stage, wave, statement, state, tone, seconds
        (of the build), bytes (of the index), why, reason, exit, before_ms, after_ms, ratio (after /
        before), cost_before, cost_after (the planner's), target_seconds, attempts, run. A target
        without statements has one row.
        """
        import pandas as pd

        kinds = {int: "Int64", float: "float64"}
        table = pd.DataFrame(list(self.records()), columns=list(COLUMNS))
        return table.astype({name: kinds[kind] for name, kind in COLUMNS.items() if kind in kinds})

    def wide(self) -> pd.DataFrame:
        """Return one row for each target and one column for each statement, states as values."""
        import pandas as pd

        states = [{cell.statement: cell.state for cell in row.cells} for row in self.rows]
        index = pd.Index([row.name for row in self.rows], name="target")
        return pd.DataFrame(states, index=index, columns=list(self.names))

    def records(self) -> Iterator[dict[str, object]]:
        """Yield the rows of the tidy table, keys as in `COLUMNS`."""
        for row in self.rows:
            for cell in row.cells or (None,):
                yield {
                    "target": row.name,
                    "status": row.status,
                    "tags": row.tags,
                    "group": row.group,
                    "stage": row.stage or self.stage,
                    "wave": row.wave,
                    "statement": cell and cell.statement,
                    "state": cell and cell.state,
                    "tone": cell and cell.tone,
                    "seconds": cell and cell.seconds,
                    "bytes": cell and cell.bytes,
                    "why": cell.why if cell else "",
                    "reason": row.reason,
                    "exit": row.exit,
                    "before_ms": row.gain and row.gain.before_ms,
                    "after_ms": row.gain and row.gain.after_ms,
                    "ratio": row.gain and row.gain.ratio,
                    "cost_before": row.forecast and row.forecast.before,
                    "cost_after": row.forecast and row.forecast.after,
                    "target_seconds": row.seconds,
                    "attempts": row.attempts,
                    "run": row.run,
                }

    def _repr_html_(self) -> str:
        shown = self.rows[:MOST_SHOWN]
        wide = len(self.names) <= MOST_SHOWN
        columns = ("target", "status", "headline", *(self.names if wide else ("statements",)))
        rows = [
            (row.name, display.badge(row.status), headline(row), *_marks(row, self.names, wide))
            for row in shown
        ]
        left = len(self.rows) - len(shown)
        more = f" The {len(shown)} worst are shown; .frame() has all." if left else ""
        return display.table(columns, rows, caption=self.finding() + more)

    def __repr__(self) -> str:
        return f"<Matrix: {self.finding()}>"


WORDS = {
    "failed": "failed",
    "findings": "with findings",
    "not_run": "not run",
    "running": "running",
    "waiting": "waiting",
}

COLUMNS = {
    "target": str,
    "status": str,
    "tags": tuple,
    "group": str,
    "stage": str,
    "wave": int,
    "statement": str,
    "state": str,
    "tone": str,
    "seconds": float,
    "bytes": int,
    "why": str,
    "reason": str,
    "exit": int,
    "before_ms": float,
    "after_ms": float,
    "ratio": float,
    "cost_before": float,
    "cost_after": float,
    "target_seconds": float,
    "attempts": int,
    "run": str,
}
"""Of the tidy table; any but the target, its status and its tags may be null."""


def headline(row: Row) -> str:
    """Say what a target has to tell in a few words, its gain first."""
    gain = "" if row.gain is None else units.factor(row.gain.ratio)
    return ": ".join(filter(None, (gain, told(row))))


def told(row: Row) -> str:
    """Say what a target has to tell beside its gain: what it was, what is slower, or the reason."""
    said = [row.headline]
    if row.gain is not None:
        said.append(f"{units.ms(row.gain.before_ms)} → {units.ms(row.gain.after_ms)}")
    elif row.forecast is not None:
        said.append(str(row.forecast))
    if row.regressions:
        said.append(f"slower: {units.listed(row.regressions)}")
    if row.status != "ok":
        said.insert(0, row.reason)
    return "; ".join(filter(None, said))


def _reason(row: Row) -> str:
    slower = f"slower: {units.listed(row.regressions)}" if row.regressions else ""
    return row.reason or slower or "no reason was given"


def _marks(row: Row, names: Sequence[str], wide: bool) -> Iterator[display.Markup]:
    states = {cell.statement: cell.state for cell in row.cells}
    if wide:
        yield from (
            display.badge(states[name]) if name in states else display.Markup("") for name in names
        )
        return
    counts = _by_tone(Counter(states.values()))
    yield display.Markup(" ".join(f"{number}&nbsp;{display.badge(it)}" for it, number in counts))


def _statement(name: str, cells: Sequence[Cell], targets: int) -> Statement:
    reasons: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        if cell.why and cell.tone in ("bad", "warn"):
            reasons.setdefault((cell.state, _kind(cell.why, name)), []).append(cell.why)
    told = [(state, texts[0], len(texts)) for (state, _kind), texts in reasons.items()]
    return Statement(
        name,
        tuple(_by_tone(Counter(cell.state for cell in cells))),
        targets - len(cells),
        tuple(sorted(told, key=lambda it: (-it[2], it[1]))),
        tuple(sorted(c.seconds for c in cells if c.seconds is not None and c.state == "built")),
        sum(c.bytes or 0 for c in cells if c.state == "built"),
    )


def _by_tone(counts: Counter[str]) -> Iterator[tuple[str, int]]:
    """Order states from bad to good, and the frequent ones first."""
    yield from sorted(
        counts.items(), key=lambda it: (TONES.index(display.tone(it[0])), -it[1], it[0])
    )


def _kind(reason: str, name: str) -> str:
    """Take out of a reason what is of this target only."""
    if name:
        reason = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "…", reason)
    return VARIABLE.sub("…", reason)


def _place(status: str) -> int:
    return 2 * WORST_FIRST.index(status) if status in WORST_FIRST else 1


def _at(ordered: Sequence[float], share: float) -> float:
    """Interpolate a quantile of sorted numbers, as numpy does by default."""
    place = (len(ordered) - 1) * share
    low, high = math.floor(place), math.ceil(place)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def worst_first(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Sort targets: what failed, what has findings, what did not run; the slower before the rest."""
    return tuple(sorted(rows, key=Row.rank))
