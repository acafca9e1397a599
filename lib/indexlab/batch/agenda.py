"""Which target comes next: one at a time of a group, in its hours, a retry after a pause. Pure."""

from __future__ import annotations

import heapq
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count

from indexlab.apply.settings import Window
from indexlab.batch.tasks import Task
from indexlab.errors import InputError

WAVE = re.compile(r"(\d+)(%?)")


@dataclass(frozen=True, slots=True)
class Item:
    """A task and what decides when it may begin."""

    task: Task
    group: str = ""
    window: str = ""
    tries: int = 0
    """How often it was tried before."""


class Agenda:
    """Tasks that wait; a lane for each group, and one for each task without."""

    def __init__(self, items: Iterable[Item] = ()):
        self._lanes: dict[str, deque[Item]] = {}
        self._ready: deque[str] = deque()
        self._later: list[tuple[datetime, int, str]] = []
        self._paused: dict[str, datetime] = {}
        self._busy: set[str] = set()
        self._numbers = count()
        self._waiting = 0
        for item in items:
            self.add(item)

    def __len__(self) -> int:
        """Return how many wait."""
        return self._waiting

    def add(self, item: Item, *, not_before: datetime | None = None) -> None:
        """Take an item in, behind those of its group."""
        lane = _lane(item)
        known = lane in self._lanes
        self._lanes.setdefault(lane, deque()).append(item)
        self._waiting += 1
        if not_before is not None:
            self._paused[item.task.name] = not_before
        if not known and lane not in self._busy:
            self._ready.append(lane)

    def next(self, now: datetime) -> Item | None:
        """Hand out an item that may begin; its group is busy until `done`.

        Args:
            now: with the zone by whose clock windows are meant.
        """
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])
        while self._ready:
            lane = self._ready.popleft()
            waiting = self._lanes.get(lane)
            if not waiting or lane in self._busy:
                continue
            opening = now + timedelta(days=2)
            for place, item in enumerate(waiting):
                moment = self._begins(item, now)
                if moment <= now:
                    del waiting[place]
                    self._waiting -= 1
                    self._paused.pop(item.task.name, None)
                    self._busy.add(lane)
                    return item
                opening = min(opening, moment)
            heapq.heappush(self._later, (opening, next(self._numbers), lane))
        return None

    def _begins(self, item: Item, now: datetime) -> datetime:
        moment = max(now, self._paused.get(item.task.name, now))
        return moment + Window.parse(item.window).wait(moment) if item.window else moment

    def done(self, item: Item) -> None:
        """Let the group of an item go on."""
        lane = _lane(item)
        self._busy.discard(lane)
        if self._lanes.get(lane):
            self._ready.append(lane)
        else:
            self._lanes.pop(lane, None)

    def opens(self) -> datetime | None:
        """Return when the next item may begin, where all wait for a moment."""
        return None if self._ready or not self._later else self._later[0][0]

    def drain(self) -> tuple[Item, ...]:
        """Take out all that wait."""
        left = tuple(item for waiting in self._lanes.values() for item in waiting)
        self._lanes.clear()
        self._ready.clear()
        self._later.clear()
        self._waiting = 0
        return left


def _lane(item: Item) -> str:
    return f"group {item.group}" if item.group else f"target {item.task.name}"


def waves(text: str, total: int) -> tuple[int, ...]:
    """Return how many targets are to be done at the end of each wave.

    Args:
        text: such as `1,10,100%`; each number counts all targets up to there. Empty is one wave.
        total: of the targets.

    Raises:
        InputError: a number is none, or not more than the one before it.
    """
    if not text.strip():
        return (total,)
    marks: list[int] = []
    before: tuple[int, bool] = (0, False)
    for part in map(str.strip, text.split(",")):
        match = WAVE.fullmatch(part)
        number = 0 if match is None else int(match[1])
        percent = match is not None and match[2] == "%"
        if match is None or number < 1 or (percent and number > 100):
            raise InputError(f"--waves {part!r} is no number of targets: write such as 1,10,100%")
        if percent == before[1] and number <= before[0]:
            raise InputError(
                f"--waves {text!r}: each counts all targets up to there, so it must grow, "
                "such as 1,10,100%"
            )
        before = number, percent
        reached = -(-total * number // 100) if percent else number
        marks.append(min(total, max(reached, marks[-1] if marks else 0)))
    return tuple(dict.fromkeys(marks))
