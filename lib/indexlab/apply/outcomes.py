"""What became of each step, and of the whole run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from indexlab import display, records, units
from indexlab.apply.steps import NO_INDEX
from indexlab.records import Record

if TYPE_CHECKING:
    import pandas as pd

UNFINISHED = ("failed", "not_run")


@dataclass(frozen=True, slots=True)
class Outcome(Record):
    """What became of one step."""

    statement: str
    """The statement as it ran, or would run."""
    index: str
    """The index with its schema, quoted where it must be."""
    outcome: str
    """`built`, `exists`, `skipped`, `failed`, `not_run`, `dropped` or `dry_run`.

    A comment that was written is `built`, one that was there already `exists`.
    """
    seconds: float = 0.0
    """From the first attempt to the end of the step, with waits, retries and cleaning up."""
    bytes: int = 0
    """Size of the index that was built."""
    attempts: int = 0
    waited_for: tuple[str, ...] = ()
    """The sessions that were seen in the way, in words."""
    error: str = ""
    """Why it failed or was not run, in words that hold no value of any row."""
    definition: str = ""
    """The server's definition of the index: after it was built, or before it was dropped."""
    undo: str = ""
    """The SQL that takes the step back; empty where nothing was changed."""
    note: str = ""
    """Why the step was decided on as it was, such as the equal index that exists already."""
    restores: tuple[str, ...] = ()
    """The SQL that follows `undo`: a dropped index gets its comment back, its statistics targets
    and its place in CLUSTER."""
    purpose: str = ""
    """The comment above the statement in the plan."""
    action: str = "build"
    """What the step was for, as `Step.action` has it: a comment is no index."""
    part_of: str = ""
    """The planned index of a partitioned table that this is a part of; its bytes and seconds are
    among that one's, too."""


@dataclass(frozen=True, slots=True)
class Applied(Record):
    """The outcomes of a run, in the order of the plan."""

    outcomes: tuple[Outcome, ...]
    executed: bool
    """False for a dry run, which changes nothing."""
    interrupted: bool = False
    """Whether Ctrl-C or SIGTERM ended the run before its last step."""
    estimate: int = 0
    """Bytes that the builds were estimated to take, before they began."""
    analyzed: tuple[str, ...] = ()
    """The tables that have new statistics."""
    warnings: tuple[str, ...] = ()
    """What was left undone beside the steps, such as an ANALYZE that failed."""

    @property
    def complete(self) -> bool:
        """Whether everything that was asked for stands."""
        return not (
            self.interrupted
            or self.warnings
            or any(item.outcome in UNFINISHED for item in self.outcomes)
        )

    @property
    def built(self) -> tuple[Outcome, ...]:
        """The outcomes of the planned indexes that this run built; their parts are among them."""
        return tuple(
            item
            for item in self.outcomes
            if item.outcome == "built" and item.action not in NO_INDEX and not item.part_of
        )

    @property
    def headline(self) -> str:
        """Say how many steps ended how."""
        names = [item.outcome for item in self.outcomes]
        counts = [f"{names.count(name)} {name.replace('_', ' ')}" for name in dict.fromkeys(names)]
        mode = "" if self.executed else "dry run, nothing was changed: "
        ending = "; interrupted" if self.interrupted else ""
        return mode + (", ".join(counts) or "no steps") + ending

    def frame(self) -> pd.DataFrame:
        """Return the outcomes as a pandas DataFrame, one row for each step.

        Columns are the fields of `Outcome`: `statement`, `index`, `outcome`, `seconds` from the
        first attempt to the end of the step, `bytes` of the index, `attempts`, `waited_for`,
        `error`, `definition`, `undo`, `note`, `restores`, `purpose`, `action` and `part_of`.
        """
        import pandas as pd

        columns = list(Outcome.__dataclass_fields__)
        return pd.DataFrame([asdict(item) for item in self.outcomes], columns=columns)

    def __repr__(self) -> str:
        rows = [
            (
                item.index,
                item.outcome,
                units.duration(item.seconds) if item.attempts else "",
                units.size(item.bytes) if item.bytes else "",
                " ".join(filter(None, (item.error, item.note))),
            )
            for item in self.outcomes
        ]
        columns = ("index", "outcome", "time", "size", "why")
        return records.text(self.headline, columns, rows, notes=self.warnings)

    def _repr_html_(self) -> str:
        rows = [
            (
                display.inline_code(item.index),
                display.badge(item.outcome),
                units.duration(item.seconds) if item.attempts else "",
                units.size(item.bytes) if item.bytes else "",
                item.attempts or "",
                "\n".join(
                    filter(
                        None, (item.error, item.note, *(f"waited for {w}" for w in item.waited_for))
                    )
                ),
                display.sql(item.statement),
            )
            for item in self.outcomes
        ]
        columns = ("index", "outcome", "time", "size", "attempts", "why", "statement")
        shown = display.table(
            columns, rows, caption=self.headline, numeric=("time", "size", "attempts")
        )
        return shown + "".join(f"<p>{display.escape(text)}</p>" for text in self.warnings)
