"""Cards: what an index of runs says of one of them, small enough that hundreds are read at once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from indexlab import units
from indexlab.errors import InputError
from indexlab.runs.directory import FORMAT, Json, Run

CARD = "card"
RESULTS = ("run", "audit", "benchmark", "apply", "scale", "load", "batch", "rollback")
"""The results of which any makes a directory a run."""
PAGES = ("index.html", "benchmark.html", "apply.html", "audit.html")
OPEN = ("ask", "refuse")


@dataclass(frozen=True, slots=True)
class Timing:
    """The median latency of one query in one run."""

    query: str
    before_ms: float | None
    """None where the run measured one side only."""
    after_ms: float
    verdict: str
    """Of the comparison; empty where there was none."""


@dataclass(frozen=True, slots=True)
class Card:
    """What one run was about and what came of it."""

    started: str
    """UTC, ISO 8601."""
    target: str
    """What the user calls it, or its database and host."""
    server: str
    stages: tuple[str, ...]
    """The results that it holds."""
    verdict: str
    """`faster`, `slower`, `no change`, `built`, `dry_run`, `ask`, `failed`, `audited`, ..."""
    headline: str
    """What came of it, in a sentence."""
    verdicts: tuple[tuple[str, int], ...] = ()
    """How many statements of the plan have which verdict."""
    timings: tuple[Timing, ...] = ()


def read(run: Run) -> Card:
    """Read what there is to say of a run, from its card where that is up to date; reads only.

    Raises:
        InputError: the run holds no result, or one that is not as it must be.
    """
    made_of = _made_of(run)
    if not made_of:
        raise InputError("holds no result of a run", source=run.path)
    return _kept(run, made_of) or _thought(run, made_of)


def keep(run: Run) -> Card:
    """Write `card.json` of a run from its results, unless it is up to date, and return it.

    Raises:
        InputError: as `read`.
        IncompleteError: the card cannot be written.
    """
    made_of = _made_of(run)
    if not made_of:
        raise InputError("holds no result of a run", source=run.path)
    known = _kept(run, made_of)
    if known is not None:
        return known
    card = _thought(run, made_of)
    run.write_json(CARD, {"made_of": made_of, **asdict(card)}, sync=False)
    return card


def page_of(run: Run) -> str:
    """Return the name of the page that tells of the whole run; empty where it has none."""
    return next((name for name in PAGES if (run.path / name).is_file()), "")


def _made_of(run: Run) -> dict[str, int]:
    """Return the results that are there, with their sizes: a card is of just these."""
    found = {}
    for stage in RESULTS:
        try:
            found[f"{stage}.json"] = (run.path / f"{stage}.json").stat().st_size
        except OSError:
            continue
    return found


def _kept(run: Run, made_of: dict[str, int]) -> Card | None:
    """Return the card in the run; None where there is none, or not of these results."""
    try:
        fields = json.loads((run.path / f"{CARD}.json").read_text(encoding="utf-8"))
        if fields["format"] != FORMAT or fields["made_of"] != made_of:
            return None
        return Card(
            started=_iso(str(fields["started"])),
            target=str(fields["target"]),
            server=str(fields["server"]),
            stages=tuple(map(str, fields["stages"])),
            verdict=str(fields["verdict"]),
            headline=str(fields["headline"]),
            verdicts=tuple((str(word), int(number)) for word, number in fields["verdicts"]),
            timings=tuple(_timing(**timing) for timing in fields["timings"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None  # it is made again from what it was made of


def _timing(query: object, before_ms: Any, after_ms: Any, verdict: object) -> Timing:
    before = None if before_ms is None else float(before_ms)
    return Timing(str(query), before, float(after_ms), str(verdict))


def _thought(run: Run, made_of: dict[str, int]) -> Card:
    """Make a card of a run's results.

    Raises:
        InputError: a result is not as it must be.
    """
    stages = tuple(name.removesuffix(".json") for name in made_of)
    documents = {stage: run.read_json(stage) for stage in stages}
    try:
        found = _Results(documents)
        return Card(
            started=_iso(found.started() or _oldest(run, made_of)),
            target=found.target(),
            server=found.server(),
            stages=stages,
            verdict=found.verdict(),
            headline=found.headline(),
            verdicts=tuple(found.verdicts().items()),
            timings=tuple(found.timings()),
        )
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise InputError(
            f"holds a result that is not as this version writes it ({error!r})", source=run.path
        ) from None


def _oldest(run: Run, made_of: dict[str, int]) -> str:
    oldest = min((run.path / name).stat().st_mtime for name in made_of)
    return datetime.fromtimestamp(oldest, UTC).isoformat(timespec="seconds")


def _iso(text: str) -> str:
    """Check a time and write it in UTC."""
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).isoformat(timespec="seconds")


class _Results:
    """The documents of a run, and what they say together; pure."""

    def __init__(self, documents: dict[str, Json]):
        self.run = documents.get("run")
        self.audit = documents.get("audit")
        self.apply = documents.get("apply")
        self.benchmark = documents.get("benchmark")
        self.batch = documents.get("batch")
        self.scale = documents.get("scale")
        self.rollback = documents.get("rollback")

    def started(self) -> str:
        document = self.run or self.benchmark or {}
        return str(document.get("started", ""))

    def _target(self) -> Json:
        known = (self.audit, self.benchmark, self.apply, self.rollback)
        return next((document["target"] for document in known if document), {})

    def target(self) -> str:
        """Name it as the user does, unless that name may mean another database tomorrow."""
        target = self._target()
        if not target:
            return "many targets" if self.batch else "demo" if self.scale else "unknown"
        spec = str(target["spec"])
        if spec in ("", "demo") or spec.startswith(("demo:", "service=")):
            return spec or "demo"
        return f"{target['database']} on {target['host']}:{target['port']}"

    def server(self) -> str:
        target = self._target()
        return f"PostgreSQL {target['version_text']}" if target else ""

    def verdicts(self) -> Counter[str]:
        statements = self.audit["statements"] if self.audit else ()
        return Counter(str(item["verdict"]) for item in statements)

    def timings(self) -> Iterator[Timing]:
        if self.benchmark is None:
            return
        changes = {change["query"]: change for change in self.benchmark["changes"]}
        for series in self.benchmark["queries"]:
            change = changes.get(series["query"], {})
            yield _timing(
                series["query"],
                change.get("before_ms"),
                change.get("after_ms", series["p50_ms"]),
                change.get("verdict", ""),
            )

    def verdict(self) -> str:
        """Say the gravest that came of it in one word."""
        counts = Counter(timing.verdict for timing in self.timings())
        headline = (self.benchmark or {}).get("headline")
        words = (
            ("failed", self._failed()),
            ("ask", any(self.verdicts()[word] for word in OPEN)),
            ("rolled back", bool(self.rollback and self.rollback["complete"])),
            ("slower", bool(headline and headline["ratio"] < 1 and counts["slower"])),
            ("faster", bool(headline and headline["queries"] and counts["faster"])),
            ("no change", headline is not None),
            ("dry_run", bool(self.apply and not self.apply["executed"])),
            ("built", bool(self.apply and self._built())),
            ("exists", bool(self.apply)),
            ("measured", bool(self.benchmark or self.scale)),
            ("audited", bool(self.audit)),
        )
        return next((word for word, true in words if true), "done")

    def _failed(self) -> bool:
        stages = self.run["stages"] if self.run else ()
        targets = self.batch["targets"] if self.batch else ()
        return bool(
            any(stage["status"] == "failed" for stage in stages)
            or any(target["status"] in ("failed", "not_run") for target in targets)
            or (self.apply and not self.apply["complete"])
        )

    def _built(self) -> int:
        from indexlab.runs import documents

        return len(documents.built(self.apply)) if self.apply else 0

    def headline(self) -> str:
        parts = (self._of_batch(), self._of_benchmark(), self._of_apply(), self._of_audit())
        return "; ".join(filter(None, parts))

    def _of_batch(self) -> str:
        if self.batch is None:
            return ""
        counts = Counter(str(target["status"]) for target in self.batch["targets"])
        told = ", ".join(f"{number} {word.replace('_', ' ')}" for word, number in counts.items())
        return f"{units.plural(len(self.batch['targets']), 'target')}: {told}"

    def _of_benchmark(self) -> str:
        if self.benchmark is None:
            return ""
        headline = self.benchmark["headline"]
        if headline is None:
            return f"{units.plural(len(self.benchmark['queries']), 'query')} measured"
        if not headline["queries"]:
            return "no query uses a planned index"
        return (
            f"{units.ms(headline['before_ms'])} → {units.ms(headline['after_ms'])} "
            f"({units.gained(headline['ratio'], decided=headline.get('decided', True))}) over "
            f"{units.plural(len(headline['queries']), 'query')}"
        )

    def _of_apply(self) -> str:
        if self.apply is None:
            return ""
        if not self.apply["executed"]:
            return "a dry run"
        taken = ", rolled back" if self.rollback and self.rollback["complete"] else ""
        return f"{units.plural(self._built(), 'index')} built{taken}"

    def _of_audit(self) -> str:
        if self.audit is None or self.benchmark is not None:
            return ""
        return ", ".join(f"{number} to {word}" for word, number in self.verdicts().items())
