"""How a run behaves: its budgets, its care for the server, and what it may do."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from datetime import datetime, time, timedelta
from typing import Any

from indexlab.errors import InputError
from indexlab.records import Record

UNITS = {"": 1, "b": 1, "kb": 1024, "mb": 1024**2, "gb": 1024**3, "tb": 1024**4}
DURATIONS = {"ms": 0.001, "s": 1, "min": 60, "h": 3600}
WORD = re.compile(r"(?P<name>[a-z_]+)(?:=(?P<value>\S+))?")
SIZES = ("memory", "max_lag", "min_free")


@dataclass(frozen=True, slots=True)
class Window(Record):
    """The hours of the day in which steps may begin, by the clock of the machine of the kit."""

    opens: time
    closes: time

    @classmethod
    def parse(cls, text: str) -> Window:
        """Read `22:00-05:00`; a window may pass midnight.

        Raises:
            InputError: the text is not two times of the day.
        """
        try:
            opens, closes = (datetime.strptime(part, "%H:%M").time() for part in text.split("-"))
        except ValueError:
            raise InputError(f"window {text!r} is not two times such as 22:00-05:00") from None
        if opens == closes:
            raise InputError(f"window {text!r} has no length: leave it out for the whole day")
        return cls(opens, closes)

    def wait(self, now: datetime) -> timedelta:
        """Return how long it is until the window opens; nothing while it is open. Pure."""
        clock = now.time()
        passes_midnight = self.closes < self.opens
        inside = (
            clock >= self.opens or clock < self.closes
            if passes_midnight
            else self.opens <= clock < self.closes
        )
        if inside:
            return timedelta()
        opening = datetime.combine(now.date(), self.opens, now.tzinfo)
        return (opening if opening > now else opening + timedelta(days=1)) - now

    def __str__(self) -> str:
        return f"{self.opens:%H:%M}-{self.closes:%H:%M}"


@dataclass(frozen=True, slots=True)
class Settings(Record):
    """How a run behaves; `parse` reads them from words, `words` writes those that are not usual."""

    retries: int = 2
    """How often a step is tried again after a deadlock, a serialization failure or a lost
    connection."""
    lock_wait: float = 5.0
    """Seconds that a statement may wait for a table's lock before it is cancelled; it is tried
    again after a pause, until `max_wait` is used up."""
    max_wait: float = 3600.0
    """Seconds that a step may wait for other sessions, in all."""
    runner_wait: float = 60.0
    """Seconds to wait for another run on the same database."""
    cleanup_wait: float = 30.0
    """Seconds to wait for sessions that keep a leftover from being dropped."""
    jobs: int = 1
    """How many tables are worked on side by side."""
    memory: int = 0
    """Bytes of maintenance_work_mem of all jobs together; 0 for what the session has, for each."""
    max_lag: int = 0
    """Bytes of WAL that a standby may have left to replay when a build begins; 0 for any. As a word
    it may be a time, too: `max_lag=30s` is `max_lag_seconds=30`."""
    max_lag_seconds: float = 0.0
    """Seconds that a standby may be behind when a build begins; 0 for any."""
    min_free: int = 0
    """Bytes that must be free on the server's disks when a build begins; 0 for any."""
    window: str = ""
    """When steps may begin, such as `22:00-05:00`; empty for always."""
    analyze: bool = True
    """Whether to ANALYZE the tables; those with a new expression index always are."""
    allow_blocking: bool = False
    """Whether to build without CONCURRENTLY on a tiny table, or where nobody else is connected."""
    attach_constraint: bool = False
    """Whether a unique index becomes a constraint of its name."""
    drop_replaced: bool = False
    """Whether existing indexes that the plan's make superfluous are dropped, once those are valid;
    the audit says which."""
    show_values: bool = False
    """Whether duplicates are reported with their values, which are data of the target."""
    watch_writers: float = 0.0
    """Writes of the workload per second to put on beside the builds, each rolled back, so as to see
    what writers notice; 0 for none. On a disposable target only."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and value < 0:
                raise InputError(f"{field.name} is {value!r}: it must be 0 or more")
        if self.jobs < 1:
            raise InputError(f"jobs is {self.jobs!r}: it must be 1 or more")
        if self.window:
            Window.parse(self.window)

    @property
    def hours(self) -> Window | None:
        """The window, where there is one."""
        return Window.parse(self.window) if self.window else None

    @classmethod
    def parse(cls, text: str) -> Settings:
        """Read settings from words, such as `jobs=2 max_lag=64MB window=22:00-05:00`.

        Raises:
            InputError: a word is not a setting, or its value is not of its kind.
        """
        usual = {field.name: field.default for field in fields(cls)}
        given: dict[str, Any] = {}
        for word in text.split():
            match = WORD.fullmatch(word)
            if match is None or match["name"] not in usual:
                raise InputError(f"{word!r} is no setting of apply: there are {', '.join(usual)}")
            name = match["name"]
            if name == "max_lag" and (seconds := _seconds(match["value"] or "")) is not None:
                given["max_lag_seconds"] = seconds
                continue
            given[name] = _value(name, match["value"], usual[name])
        return cls(**given)

    def words(self) -> str:
        """Write what is not usual, as `parse` reads it."""
        return " ".join(
            f"{field.name}={str(value).lower() if isinstance(value, bool) else value}"
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        )


def size(text: str) -> int:
    """Read a number of bytes, such as `64MB`.

    Raises:
        InputError: it is not a number with a unit.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?b?)", text.strip(), re.IGNORECASE)
    unit = "" if match is None else match[2].lower()
    unit = unit if unit in UNITS else f"{unit}b"
    if match is None or unit not in UNITS:
        raise InputError(f"{text!r} is not a size such as 64MB or 2GB")
    return round(float(match[1]) * UNITS[unit])


def _seconds(text: str) -> float | None:
    """Read a time such as `30s` or `5min`; None where it is none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|min|h)", text)
    return None if match is None else float(match[1]) * DURATIONS[match[2]]


def _value(name: str, text: str | None, usual: object) -> Any:
    if isinstance(usual, bool):
        if text not in (None, "true", "false"):
            raise InputError(f"{name} is {text!r}: it must be true or false")
        return text != "false"
    if text is None:
        raise InputError(f"{name} needs a value: write {name}=VALUE")
    if name in SIZES:
        try:
            return size(text)
        except InputError as error:
            other = ", or a time such as 30s" if name == "max_lag" else ""
            raise InputError(f"{name} is {text!r}: {error}{other}") from None
    if isinstance(usual, str):
        return text
    try:
        return int(text) if isinstance(usual, int) else float(text)
    except ValueError:
        raise InputError(f"{name} is {text!r}: it must be a number") from None
