"""The audit: (catalog, plan, workload) -> findings, verdicts and a revised plan."""

from indexlab.audit.auditor import audit, corrected, read
from indexlab.audit.migration import migration_sql, revised_plan_sql, rollback_sql
from indexlab.audit.places import Place, place
from indexlab.audit.verdicts import (
    KEPT,
    VERDICTS,
    Audit,
    Evidence,
    ExistingAudit,
    Finding,
    Severity,
    StatementAudit,
    Verdict,
    statement_sql,
)
from indexlab.audit.weighing import not_weighed, weigh

__all__ = [
    "KEPT",
    "VERDICTS",
    "Audit",
    "Evidence",
    "ExistingAudit",
    "Finding",
    "Place",
    "Severity",
    "StatementAudit",
    "Verdict",
    "audit",
    "corrected",
    "migration_sql",
    "not_weighed",
    "place",
    "read",
    "revised_plan_sql",
    "rollback_sql",
    "statement_sql",
    "weigh",
]
