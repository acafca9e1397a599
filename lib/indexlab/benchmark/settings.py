"""How a benchmark goes about it: what is rarely other than usual, in words that a notebook takes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import Any

from indexlab.errors import InputError
from indexlab.records import Record

CACHES = ("warm", "cold")
WORD = re.compile(r"(?P<name>[a-z_]+)=(?P<value>\S+)")


@dataclass(frozen=True, slots=True)
class Settings(Record):
    """How a benchmark goes about it; `parse` reads it from words, `words` writes what is not usual.

    Raises:
        InputError: a value is out of range.
    """

    cache: str = "warm"
    """`warm` as a busy server's, or `cold`: emptied before each execution, where that is permitted."""
    seed: int = 0
    """Of the parameter values, the order of queries, and the resamples of the intervals."""
    statement_timeout: float = 60.0
    """Seconds after which a statement is given up."""
    clients: int = 0
    """Sessions that send the workload at once, after the measurement; 0 puts no load on."""
    rate: float = 0.0
    """Transactions per second of that load; 0 is as fast as they can."""
    seconds: float = 10.0
    """How long that load lasts."""

    def __post_init__(self) -> None:
        if self.cache not in CACHES:
            raise InputError(f"cache {self.cache!r} is none of {', '.join(CACHES)}")
        if self.seed < 0:
            raise InputError(f"seed {self.seed!r} is negative: give 0 or more")
        for name in ("statement_timeout", "rate", "seconds"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} {getattr(self, name)!r} is not a number from 0 on")
        if self.clients < 0:
            raise InputError(f"clients {self.clients!r} is negative: 0 puts no load on")

    @classmethod
    def parse(cls, text: str) -> Settings:
        """Read settings from words, such as `cache=cold clients=8 rate=200`; pure.

        Raises:
            InputError: a word is not a setting, or its value is not of its kind.
        """
        usual: dict[str, Any] = {field.name: field.default for field in fields(cls)}
        given: dict[str, Any] = {}
        for word in text.split():
            match = WORD.fullmatch(word)
            if match is None or match["name"] not in usual:
                raise InputError(
                    f"{word!r} is no setting of a benchmark: there are "
                    f"{', '.join(f'{name}={value}' for name, value in usual.items())}"
                )
            name = match["name"]
            try:
                given[name] = type(usual[name])(match["value"])
            except ValueError:
                raise InputError(f"{name} is {match['value']!r}: it must be a number") from None
        return cls(**given)

    def words(self) -> str:
        """Write what is not usual, as `parse` reads it; pure."""
        return " ".join(
            f"{field.name}={value}"
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        )
