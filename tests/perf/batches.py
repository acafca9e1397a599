"""Documents of batches as `indexlab batch` writes them, made up for sizes that no test waits for."""

from __future__ import annotations

import random
from typing import Any

REASONS = (
    'cannot connect to "10.0.{a}.{b}": connection refused',
    "service '{name}' is not in pg_service.conf",
    "no answer within 600 s; the last that was heard: building",
    "apply did not complete: core.idx_0: canceled by lock_timeout; 2 steps were not run",
)
WHY = {"failed": "canceled by lock_timeout", "ask": "which column?", "refuse": "it is a view"}


def document(targets: int, statements: int, *, own: bool = False, seed: int = 1) -> dict[str, Any]:
    """Make up a batch: three in ten failed, one in ten has findings, two in a hundred did not run.

    Args:
        targets: how many.
        statements: how many each plan has.
        own: whether each target has a plan of its own.
        seed: of everything that is drawn.
    """
    draw = random.Random(seed)
    return {
        "format": 1,
        "stage": "run",
        "execute": True,
        "started": "2026-06-30T22:00:00+00:00",
        "seconds": 0.7 * targets,
        "complete": True,
        "targets": [_target(n, statements, own=own, draw=draw) for n in range(targets)],
    }


def _target(number: int, statements: int, *, own: bool, draw: random.Random) -> dict[str, Any]:
    region = draw.choice(["eu", "us", "ap"])
    name = f"shop-{region}-{number:04d}"
    prefix = f"idx_{number}" if own else "idx_orders_customer"
    names = [f"{prefix}_{place}" for place in range(statements)]
    made: dict[str, Any] = {
        "name": name,
        "tags": [region, draw.choice(["small", "large"])],
        "group": f"server-{number % 12}",
        "server": draw.choice(["15.8", "16.4", "17.2"]),
        "seconds": draw.lognormvariate(3, 1),
        "attempts": 1,
        "wave": 1,
        "status": "ok",
        "reason": "",
        "exit": 0,
        "run": f"runs/{name}/1",
        "page": f"runs/{name}/1/index.html",
        "statements": {},
        "reasons": {},
        "builds": {},
        "headline": None,
        "forecast": None,
        "regressions": [],
    }
    dice = draw.random()
    if dice < 0.3:
        reason = draw.choice(REASONS).format(a=number % 7, b=number % 250, name=name)
        made |= {"status": "failed", "exit": 4 if "apply" in reason else 3, "reason": reason}
        if made["exit"] == 3:
            return made | {"run": None, "page": None}
    elif dice < 0.32:
        reason = "stopped: wave 2 had a failure"
        return made | {
            "status": "not_run",
            "exit": None,
            "reason": reason,
            "run": None,
            "page": None,
        }
    elif dice < 0.42:
        made |= {"status": "findings", "exit": 1, "reason": "2 statements need an answer"}
    for place, index in enumerate(names):
        word = _word(made["status"], place, statements // 2, draw)
        made["statements"][index] = word
        if word == "built":
            size = int(draw.lognormvariate(16, 1))
            made["builds"][index] = {"seconds": draw.lognormvariate(0.5, 1.2), "bytes": size}
        if word in WHY:
            made["reasons"][index] = WHY[word]
    if made["status"] == "ok":
        before = draw.lognormvariate(6, 0.7)
        after = before / draw.lognormvariate(2.4, 0.8)
        made["headline"] = {"before_ms": before, "after_ms": after, "ratio": before / after}
    return made


def _word(status: str, place: int, half: int, draw: random.Random) -> str:
    """Say what became of a statement: a target that failed did so in the middle of its plan."""
    if status == "findings":
        return draw.choices(["build", "fix", "ask", "refuse", "skip"], [6, 2, 1, 0.5, 1])[0]
    if status == "failed":
        return "built" if place < half else "failed" if place == half else "not_run"
    return draw.choices(["built", "exists", "skipped"], [8, 1, 1])[0]
