"""Which name was meant: candidates for a name that does not exist, and whether one is clear."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from indexlab import sql
from indexlab.audit.verdicts import Evidence

LISTED = 5
"""How many candidates a finding lists at most."""
SURE = 3
"""Up to this rank a candidate may be meant; beyond, it only looks alike."""
GENERIC = frozenset(
    [
        "id",
        "ids",
        "key",
        "uuid",
        "guid",
        "no",
        "nr",
        "num",
        "number",
        "code",
        "name",
        "type",
        "kind",
        "at",
        "on",
        "by",
        "in",
        "of",
        "to",
        "is",
        "has",
        "flag",
        "value",
        "val",
        "data",
        "info",
        "new",
        "old",
        "tmp",
        "min",
        "max",
    ]
)
"""Words that many names have and that so tell nothing by themselves."""
MOMENTS = frozenset(["date", "day", "time", "timestamp", "datetime", "at", "on"])
MOMENT_TYPES = ("date", "time", "timestamp", "interval", "tstzrange", "daterange", "tsrange")


@dataclass(frozen=True, slots=True)
class Name:
    """A name that exists."""

    name: str
    type: str = ""
    """The type of a column; empty for anything else."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A name that may have been meant."""

    name: str
    type: str
    rank: int
    """0 is nearest: letter case, 1 same words, 2 a typo, 3 a subset of the words, 4 alike."""
    distance: int
    why: str
    mentioned: bool
    """Whether the workload has the name."""

    def __str__(self) -> str:
        facts = [self.why, f"type {self.type}" if self.type else ""]
        facts.append("in the workload" if self.mentioned else "")
        return f"{sql.quote(self.name)} ({', '.join(filter(None, facts))})"


def candidates(
    written: str, known: Iterable[Name], mentioned: frozenset[str] = frozenset()
) -> tuple[Candidate, ...]:
    """Rank the known names by how likely `written` means them; the unlikely are left out."""
    found = [
        Candidate(item.name, item.type, *match, item.name in mentioned)
        for item in known
        if (match := _match(written, item)) is not None
    ]
    found.sort(key=lambda item: (item.rank, item.distance, not item.mentioned, item.name))
    return tuple(found[:LISTED])


def clearly_best(written: str, ranked: tuple[Candidate, ...]) -> Candidate | None:
    """Return the first candidate if no other one can be meant as well."""
    if not ranked or ranked[0].rank > SURE:
        return None
    ours = words(written)
    best, shared = ranked[0], set(words(ranked[0].name)) & set(ours)
    for rival in ranked[1:]:
        if (rival.rank, rival.distance) == (best.rank, best.distance):
            return None  # two subsets of the words, for one
        # created_date may be `date`, and may as well be `created_at`.
        own = set(words(rival.name)) & set(ours) - GENERIC - shared
        if best.rank == SURE and own and _fits(ours, rival.type):
            return None
    return best


@lru_cache(maxsize=65536)
def words(name: str) -> tuple[str, ...]:
    """Split a name at underscores, capitals and digits, without the plural's s.

    >>> words("event_date"), words("EventDates"), words("address2")
    (('event', 'date'), ('event', 'date'), ('addres', '2'))
    """
    found = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+", name)
    return tuple(
        word.lower().removesuffix("s") if len(word) > 3 else word.lower() for word in found
    )


def _match(written: str, item: Name) -> tuple[int, int, str] | None:
    ours, theirs = words(written), words(item.name)
    if written.lower() == item.name.lower():
        return 0, 0, "case mismatch, quote it"
    if not _fits(ours, item.type):
        return _alike(written, item.name)
    if sorted(ours) == sorted(theirs) or "".join(ours) == "".join(theirs):
        same = ours == theirs or "".join(ours) == "".join(theirs)
        return 1, 0, "same words" if same else "same words in another order"
    if (distance := _typo(ours, theirs)) is not None:
        return 2, distance, "a typo away"
    shared = set(ours) & set(theirs)
    if shared - GENERIC and (shared == set(ours) or shared == set(theirs)):
        return 3, 0, "subset of the words"
    return _alike(written, item.name)


def _alike(written: str, name: str) -> tuple[int, int, str] | None:
    shared = set(words(written)) & set(words(name))
    if shared - GENERIC:
        return 4, len(shared) * -1, "shares a word"
    most = max(len(written), len(name)) // 3
    if not _may_be_near(written.lower(), name.lower(), most):
        return None
    distance = edit_distance(written.lower(), name.lower())
    return (4, distance, "spelled alike") if distance <= most else None


def _may_be_near(one: str, other: str, most: int) -> bool:
    """Return whether the letters that two words share allow so few edits; cheaper than to count."""
    if abs(len(one) - len(other)) > most:
        return False
    return max(len(one), len(other)) - (_letters(one) & _letters(other)).total() <= most


@lru_cache(maxsize=65536)
def _letters(word: str) -> Counter[str]:
    return Counter(word)


def _fits(ours: tuple[str, ...], type_: str) -> bool:
    """Return whether a column of this type can be what the words ask for."""
    last = ours[-1:] and ours[-1]
    if not type_ or last not in MOMENTS:
        return True
    return type_.startswith(MOMENT_TYPES)


def _typo(ours: tuple[str, ...], theirs: tuple[str, ...]) -> int | None:
    """Return the number of slips if all but one word are equal and that one is misspelled."""
    if len(ours) != len(theirs):
        return None
    pairs = [(one, other) for one, other in zip(ours, theirs, strict=True) if one != other]
    if len(pairs) != 1:
        return None
    one, other = pairs[0]
    length = max(len(one), len(other))
    first_alike = one[0] == other[0] or one[:2] == other[1::-1]
    if length < 5 or not first_alike or one.isdigit() or other.isdigit():
        return None
    distance = edit_distance(one, other)
    return distance if distance <= (1 if length < 8 else 2) else None


def edit_distance(one: str, other: str) -> int:
    """Count the insertions, deletions, substitutions and swaps of neighbours between two words.

    The optimal string alignment distance.

    >>> edit_distance("emial", "email"), edit_distance("statu", "status"), edit_distance("a", "")
    (1, 1, 1)
    """
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        older, before, row = before, row, [i]
        for j, b in enumerate(other, 1):
            best = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                best = min(best, older[j - 2] + 1)
            row.append(best)
    return row[-1]


def nearest(ranked: Iterable[Candidate]) -> str:
    """Say which names are nearest, to end a message with."""
    shown = ", ".join(str(item) for item in ranked)
    return f"; nearest: {shown}" if shown else ""


def ranking(ranked: Iterable[Candidate]) -> Evidence:
    """Return the candidates as evidence."""
    return tuple((item.name, item.why) for item in ranked)
