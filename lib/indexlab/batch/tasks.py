"""What is sent to a worker, and what comes back: small, plain, and without a password."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from indexlab.runs import Json

if TYPE_CHECKING:
    from indexlab.batch.targets import BatchTarget

STAGES = ("audit", "benchmark", "apply", "run")
CHANGING = ("apply", "run")
RUNS = "runs"
RESULT = "target"
"""Name of the file in a run, without its ending, that says what came of it."""
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
HASH = 10
VARIABLE = "env:"
"""Before the name of an environment variable that holds a target's address."""


@dataclass(frozen=True, slots=True)
class Source:
    """A plan or a workload, as it was read."""

    path: str
    """Absolute; empty for the demo's own."""
    text: str

    @property
    def mark(self) -> str:
        """Tell texts apart."""
        return hashlib.sha256(self.text.encode()).hexdigest()


NOTHING = Source("", "")


@dataclass(frozen=True, slots=True)
class Work:
    """What a batch does on every target."""

    stage: str
    execute: bool = False
    report: bool = True
    max_slowdown: float | None = None
    timeout: float | None = None
    """Seconds for one target; None for no end."""

    @property
    def changes(self) -> bool:
        """Whether it changes targets."""
        return self.execute and self.stage in CHANGING


@dataclass(frozen=True, slots=True)
class Task:
    """One target's share of a batch."""

    name: str
    target: str
    stage: str
    execute: bool
    report: bool
    out: str
    """Where the batch is kept: a path or a URL."""
    run: str
    """Where this run goes, relative to `out`."""
    plan: Source
    workload: Source
    options: Json
    """Of the pipeline, by name."""
    settings: str
    """Of apply, in its words."""
    timeout: float | None
    mark: str
    """Of everything that decides what the run does: another mark is other work."""

    def message(self) -> str:
        """Write it for a worker."""
        return json.dumps(asdict(self))

    @classmethod
    def of_message(cls, text: str) -> Task:
        """Read what a worker was sent."""
        given = json.loads(text)
        given |= {name: Source(**given[name]) for name in ("plan", "workload")}
        return cls(**given)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one target."""

    name: str
    status: str
    """`ok`, `findings`, `failed` or `not_run`."""
    reason: str = ""
    exit: int | None = None
    """As the command would have left; None where nothing was run."""
    statements: dict[str, str] = field(default_factory=dict)
    """The verdict on each statement of the plan, or its outcome where apply came to it."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Why, for those statements of which there is something to say."""
    builds: dict[str, Json] = field(default_factory=dict)
    """`seconds` and `bytes` of each index that was built."""
    headline: Json | None = None
    """Of the benchmark: `before_ms`, `after_ms`, `ratio`, `queries`."""
    forecast: Json | None = None
    """Of the audit: the planner's cost of the workload, `before`, `after` and `ratio`."""
    regressions: tuple[str, ...] = ()
    """The queries that are slower than allowed beyond doubt."""
    run: str | None = None
    """Where the run is, relative to the batch; None where there is none."""
    page: str | None = None
    """The page to begin with, relative to the batch."""
    started: str | None = None
    seconds: float = 0.0
    mark: str = ""
    server: str = ""
    """Of which version the target's server is."""
    again: bool = False
    """Whether the target could not be reached for a reason that may pass."""

    @property
    def stands(self) -> bool:
        """Whether a resumed batch leaves it as it is."""
        return self.status in ("ok", "findings")

    def document(self) -> Json:
        """Write it as it stands in a run."""
        whole = asdict(self)
        del whole["again"]
        return whole

    @classmethod
    def of_document(cls, document: Json) -> Result:
        """Read it back.

        Raises:
            TypeError: it is not as this version writes it.
        """
        given = {name: value for name, value in document.items() if name in cls.__slots__}
        given["regressions"] = tuple(given.get("regressions", ()))
        return cls(**given)


def not_run(name: str, reason: str) -> Result:
    """Return the result of what was never begun."""
    return Result(name, "not_run", reason)


def folder(name: str) -> str:
    """Return a directory's name for a target: its own where that is plain, or with a hash."""
    if PLAIN.fullmatch(name):
        return name
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:60]
    return f"{plain or 'target'}~{hashlib.sha256(name.encode()).hexdigest()[:HASH]}"


def task(target: BatchTarget, work: Work, out: str) -> Task:
    """Say what is to be done on a target; `attempt` gives it its place. Pure."""
    options = target.parameters.options()
    if work.max_slowdown is not None:
        options["max_slowdown"] = work.max_slowdown
    settings = target.parameters.settings(target.window if work.changes else "")
    made = Task(
        name=target.name,
        target=target.target,
        stage=work.stage,
        execute=work.execute,
        report=work.report,
        out=out,
        run="",
        plan=target.plan,
        workload=target.workload,
        options=options,
        settings=settings,
        timeout=target.timeout or work.timeout,
        mark="",
    )
    return replace(made, mark=_mark(made))


def attempt(todo: Task, number: int) -> Task:
    """Return a task with a place of its own for its run; pure."""
    return replace(todo, run=f"{RUNS}/{folder(todo.name)}/{number}")


def _mark(todo: Task) -> str:
    """Tell work apart; with a report or without, it is the same."""
    said: list[Any] = [todo.target, todo.stage, todo.execute, todo.options]
    said += [todo.settings, todo.plan.mark, todo.workload.mark]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
