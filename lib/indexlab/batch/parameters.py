"""The parameters of stages that `targets.yaml` may give, with their kinds and bounds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from indexlab.apply.settings import Settings, size
from indexlab.errors import InputError

Text = Annotated[str, Field(min_length=1)]
Seconds = Annotated[float, Field(ge=0)]


def _size(text: str) -> str:
    try:
        size(text)
    except InputError as error:
        raise ValueError(str(error)) from None
    return text.replace(" ", "")


Size = Annotated[str, AfterValidator(_size)]

SETTINGS = (
    *("lock_wait", "max_wait", "jobs", "memory", "max_lag", "min_free"),
    *("allow_blocking", "attach_constraint", "drop_replaced", "show_values"),
)
"""Those that go to apply as its settings; the others are options of the pipeline."""


class Parameters(BaseModel):
    """How the stages behave on a target; what is not given is as usual."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    resolve: dict[Text, Text] | None = None
    what_if: Literal["sandbox", "hypopg", "off"] | None = None
    disposable: bool | None = None
    baseline: Text | None = None
    label: str | None = None
    redact: bool | None = None
    mode: Literal["auto", "one side", "interleaved"] | None = None
    cache: Literal["warm", "cold"] | None = None
    clients: Annotated[int, Field(ge=0, le=1000)] | None = None
    rate: Annotated[float, Field(ge=0, le=1e6)] | None = None
    seconds: Annotated[float, Field(ge=1, le=86400)] | None = None
    budget: Annotated[float, Field(ge=0.5, le=86400)] | None = None
    precision: Annotated[float, Field(ge=0, le=0.99)] | None = None
    seed: int | None = None
    statement_timeout: Annotated[float, Field(ge=0.001)] | None = None
    max_slowdown: Annotated[float, Field(ge=1)] | None = None
    lock_wait: Seconds | None = None
    max_wait: Seconds | None = None
    jobs: Annotated[int, Field(ge=1)] | None = None
    memory: Size | None = None
    max_lag: Size | None = None
    min_free: Size | None = None
    allow_blocking: bool | None = None
    attach_constraint: bool | None = None
    drop_replaced: bool | None = None
    show_values: bool | None = None

    def over(self, other: Parameters) -> Parameters:
        """Return these, and the other's where these say nothing; pure."""
        return Parameters(**(other.given() | self.given()))

    def given(self) -> dict[str, Any]:
        """Return what was given, by name."""
        return self.model_dump(exclude_none=True)

    def options(self) -> dict[str, Any]:
        """Return what the pipeline takes as options."""
        found = {name: value for name, value in self.given().items() if name not in SETTINGS}
        if "resolve" in found:
            found["resolve"] = ",".join(f"{old}={new}" for old, new in found["resolve"].items())
        return found

    def settings(self, window: str = "") -> str:
        """Return what apply takes, in its words.

        Args:
            window: when steps may begin, such as `22:00-05:00`; empty for always.
        """
        chosen = {name: value for name, value in self.given().items() if name in SETTINGS}
        if window:
            chosen["window"] = window
        words = (
            f"{name}={str(value).lower() if isinstance(value, bool) else value}"
            for name, value in chosen.items()
        )
        return Settings.parse(" ".join(words)).words()
