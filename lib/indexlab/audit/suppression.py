"""What a plan's comments accept: findings that are known, each with the reason why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from indexlab.audit.verdicts import KEPT, Finding, StatementAudit
from indexlab.plan import Ignore

UNUSED = "unused-ignore"
JUDGED_LATER = ("unused-by-workload", "query-cost-rises", "not-simulated")
"""What is found only where the workload is planned, too: whether it is there is not known here."""


def suppress(statements: tuple[StatementAudit, ...]) -> tuple[StatementAudit, ...]:
    """Mark the findings that a comment accepts, and find the comments that accept nothing.

    What a comment may decide, it has decided by now; otherwise the verdict stays, and the finding
    says so: no comment makes the server build what it refuses.
    """
    return tuple(_noting_unused(statements))


def _accepted(item: StatementAudit, finding: Finding, reason: str) -> Finding:
    if reason and finding.decides and item.verdict not in KEPT:
        message = f"{finding.message}; no comment can make it a statement to build"
        return replace(finding, suppressed=reason, message=message)
    return replace(finding, suppressed=reason)


def _noting_unused(statements: tuple[StatementAudit, ...]) -> Iterator[StatementAudit]:
    unused = _unused(statements)
    told: set[Ignore] = set()
    for item in statements:
        reasons = {ignore.rule: ignore.reason for ignore in item.statement.ignores}
        marked = tuple(_accepted(item, f, reasons.get(f.rule, "")) for f in item.findings)
        new = [i for i in item.statement.ignores if i in unused and i not in told]
        told.update(new)
        notes = tuple(_note(ignore, reasons.get(UNUSED, "")) for ignore in new)
        yield replace(item, findings=(*marked, *notes)) if reasons else item


def _unused(statements: tuple[StatementAudit, ...]) -> set[Ignore]:
    """Return the ignores without a finding; a DROP of many indexes is many, under one comment.

    Where a statement is given up early, the rules that were not reached may yet find something.
    """
    used: set[Ignore] = set()
    for item in statements:
        rules = {UNUSED, *JUDGED_LATER, *(finding.rule for finding in item.findings)}
        given_up = item.verdict in ("ask", "refuse")
        used.update(i for i in item.statement.ignores if given_up or i.rule in rules)
    return {i for item in statements for i in item.statement.ignores} - used


def _note(ignore: Ignore, suppressed: str) -> Finding:
    return Finding(
        UNUSED,
        "warning",
        f"nothing to ignore: the audit finds no {ignore.rule} here",
        ignore.rule,
        (("line", ignore.line),),
        "remove the comment",
        suppressed,
    )
