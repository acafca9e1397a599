"""What an audit's document says, finding by finding, in the order in which it is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from indexlab.audit import Place
from indexlab.runs import Json

SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True, slots=True)
class Source:
    """The plan file that an audit is about."""

    path: str
    """Relative to the working directory, with forward slashes."""
    text: str

    @classmethod
    def of(cls, path: str, text: str) -> Source:
        """Name a file as a reader in the working directory would."""
        return cls(Path(os.path.relpath(path)).as_posix(), text)

    def line(self, number: int) -> str:
        """Return one line, counted from 1; empty where there is none."""
        lines = self.text.split("\n")  # as the grammar counts: a form feed ends no line
        return lines[number - 1].rstrip("\r") if number <= len(lines) else ""


@dataclass(frozen=True, slots=True)
class Remark:
    """One finding, and where in the plan it stands."""

    rule: str
    severity: str
    message: str
    about: str
    """The index, or `preconditions` and `advice`."""
    evidence: tuple[tuple[str, str], ...] = ()
    fix: str = ""
    suppressed: str = ""
    place: Place | None = None
    """None for what no statement of the plan says."""


def remarks(document: Json, *, verbose: bool = False) -> tuple[Remark, ...]:
    """Return the findings: by statement, the gravest first, then what is beside the plan.

    Args:
        document: of an audit, as `audit.json` holds it.
        verbose: whether notes of severity info are wanted, too.
    """
    return tuple(r for r in _all(document) if verbose or r.severity != "info")


def fails(document: Json, fail_on: str) -> bool:
    """Return whether a finding on the plan or against any build is as grave as `fail_on`.

    What the plan accepts does not count; neither do existing indexes, which no plan can excuse.
    """
    if fail_on == "never":
        return False
    grave = SEVERITIES[: SEVERITIES.index(fail_on) + 1]
    found = [finding for item in document["statements"] for finding in item["findings"]]
    found += document["preconditions"]
    return any(f["severity"] in grave and not f["suppressed"] for f in found)


def _all(document: Json) -> Iterator[Remark]:
    for item in document["statements"]:
        yield from _gravest_first(_remark(f, item["qualified"]) for f in item["findings"])
    for item in document["existing"]:
        yield from _gravest_first(_remark(f, item["index"]) for f in item["findings"])
    for part in ("advice", "preconditions"):
        yield from _gravest_first(_remark(f, part) for f in document[part])


def _gravest_first(found: Iterator[Remark]) -> list[Remark]:
    return sorted(found, key=lambda remark: SEVERITIES.index(remark.severity))


def _remark(finding: Json, about: str) -> Remark:
    return Remark(
        rule=finding["rule"],
        severity=finding["severity"],
        message=finding["message"],
        about=about,
        evidence=tuple((name, str(value)) for name, value in finding["evidence"].items()),
        fix=finding["fix"],
        suppressed=finding["suppressed"],
        place=Place(**finding["at"]) if "at" in finding else None,
    )
