"""Write the audit's result as SQL files: the revised plan, a migration for psql, its rollback."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePath

from indexlab import display, units
from indexlab.audit.verdicts import Audit, Finding, StatementAudit, statement_sql
from indexlab.plan import EMPTY, CommentOnIndex, CreateIndex, DropIndex
from indexlab.sql import RelationName, quote
from indexlab.workload import Query, Sampler, Workload

VERIFICATION = """\
SELECT n.nspname AS schema,
       c.relname AS index,
       i.indisvalid AS valid,
       i.indisready AS ready,
       pg_catalog.pg_size_pretty(pg_catalog.pg_relation_size(c.oid)) AS size,
       pg_catalog.pg_get_indexdef(c.oid) AS definition
  FROM pg_catalog.pg_index AS i
  JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE (n.nspname, c.relname) IN (
           {names}
       )
 ORDER BY n.nspname, c.relname;
"""

USAGE = """\
SELECT s.schemaname AS schema,
       s.relname AS table,
       s.indexrelname AS index,
       s.idx_scan AS scans,
       s.idx_tup_read AS entries_read,
       pg_catalog.pg_size_pretty(pg_catalog.pg_relation_size(s.indexrelid)) AS size
  FROM pg_catalog.pg_stat_user_indexes AS s
 WHERE (s.schemaname, s.relname) IN (
           {tables}
       )
 ORDER BY s.schemaname, s.relname, s.idx_scan, s.indexrelname;
"""

PROGRESS = """\
SELECT p.pid,
       p.relid::pg_catalog.regclass AS table,
       p.index_relid::pg_catalog.regclass AS index,
       p.phase,
       p.blocks_done,
       p.blocks_total,
       p.lockers_done,
       p.lockers_total
  FROM pg_catalog.pg_stat_progress_create_index AS p
 ORDER BY p.pid;
"""

# An index far larger than its share of the table is a candidate for REINDEX CONCURRENTLY.
SIZES = """\
SELECT s.schemaname AS schema,
       s.relname AS table,
       s.indexrelname AS index,
       pg_catalog.pg_size_pretty(pg_catalog.pg_relation_size(s.indexrelid)) AS index_size,
       pg_catalog.pg_size_pretty(pg_catalog.pg_relation_size(s.relid)) AS table_size,
       round(pg_catalog.pg_relation_size(s.indexrelid)::numeric
             / greatest(c.reltuples::numeric, 1), 1) AS bytes_per_row
  FROM pg_catalog.pg_stat_user_indexes AS s
  JOIN pg_catalog.pg_class AS c ON c.oid = s.relid
 WHERE (s.schemaname, s.relname) IN (
           {tables}
       )
 ORDER BY pg_catalog.pg_relation_size(s.indexrelid) DESC, s.indexrelname;
"""

IN_PARTS = """\
-- Part by part, since the table is partitioned. ON ONLY and ATTACH lock for a moment: they wait
-- behind long transactions, and others behind them.
"""
BY_THE_KIT = """\
-- The table is partitioned: apply builds this part by part, psql needs migration.sql.
"""

SAMPLE = """\
SELECT {columns}
  FROM (SELECT) AS always
  LEFT JOIN (SELECT *
               FROM (
                   {sampler}
               ) AS drawn ({names})
              WHERE ({names}) IS NOT NULL
              LIMIT 1) AS sample ON true \\gset indexlab_
"""


def revised_plan_sql(audit: Audit) -> str:
    """Write the plan that the audit advises; `plan.parse` reads it back.

    What is left out stands there as a comment with the reason. A plan of which nothing is left
    is a file of comments only, one of which says so to `plan.parse`.
    """
    comments = [item for item in audit.revised.statements if isinstance(item, CommentOnIndex)]
    parts = [
        _comment(f"{PurePath(audit.source).name}, revised by indexlab audit. {audit.summary}.")
    ]
    if not audit.kept:
        parts.append(f"{EMPTY}\n")
    for item in audit.statements:
        # A blank line, as the comment directly above a statement is its reason.
        if item.revised is None:
            parts.append(_left_out(item))
            continue
        parts.append(_comment(_notes(item)) + "\n" if _notes(item) else "")
        parts[-1] += f"{BY_THE_KIT}\n" if item.parts else ""
        accepted = "".join(_comment(str(ignore)) for ignore in item.statement.ignores)
        parts[-1] += _comment(item.statement.reason) + accepted
        parts[-1] += _statement(statement_sql(item.revised))
        if isinstance(item.revised, CreateIndex):
            name = _name(item.revised)
            parts += [_statement(c.text) for c in comments if c.name == name]
    return "\n".join(parts)


def migration_sql(audit: Audit, workload: Workload | None = None) -> str:
    r"""Write a file for `psql -v ON_ERROR_STOP=1 -f`, to be run outside of a transaction.

    In it: the builds with their reasons, ANALYZE, queries that verify the indexes, the workload's
    reading queries under EXPLAIN (ANALYZE, BUFFERS), queries to watch the indexes by, and, as
    comments, what may be dropped afterwards and the way back.
    """
    creates = tuple(_creates(audit))
    tables = tuple(dict.fromkeys(item.index.table for item in creates))
    sections = [
        ("", _header(audit)),
        ("1. Changes: no statement blocks reading or writing", _changes(audit)),
        ("2. Statistics: an index on an expression has none before", _analyze(tables)),
        ("3. Verification: every index must be valid and ready", _verification(creates)),
        ("4. Performance: what the queries do now", _performance(workload)),
        ("5. Monitoring: usage, running builds, sizes", _monitoring(tables)),
        ("6. Superfluous once all of this has proved itself", _superfluous(audit)),
        ("7. The way back", _comment(_undo(audit))),
    ]
    return "\n".join(
        (f"-- {title}\n\n" if title else "") + body for title, body in sections if body
    )


def rollback_sql(audit: Audit) -> str:
    """Write the statements that undo the revised plan, the last first; outside of a transaction."""
    return _comment(f"Undo {PurePath(audit.source).name}, as revised by indexlab audit.") + _undo(
        audit
    )


def _undo(audit: Audit) -> str:
    return "".join(_statement(text) for item in reversed(audit.kept) for text in item.backwards)


def _header(audit: Audit) -> str:
    text = "\n".join(
        (
            f"{PurePath(audit.source).name}, as an indexlab audit revised it for {audit.server.database} "
            f"(PostgreSQL {audit.server.version_text}).",
            f"{audit.summary}.",
            "Run it with: psql -v ON_ERROR_STOP=1 -f migration.sql",
            "CREATE INDEX CONCURRENTLY fails in a transaction: do not add --single-transaction.",
            *(f"Before: {finding.message}; {finding.fix}." for finding in audit.preconditions),
        )
    )
    return _comment(text) + "\n\\set ON_ERROR_STOP on\n\\timing on\n"


def _changes(audit: Audit) -> str:
    comments = [item for item in audit.revised.statements if isinstance(item, CommentOnIndex)]
    parts: list[str] = []
    for item in audit.statements:
        if item.revised is None:
            parts.append(_left_out(item))
            continue
        text = _comment(item.statement.reason) + _comment(_notes(item))
        leftovers = [f.fix for f in item.findings if f.rule == "invalid-leftover"]
        text += "".join(_statement(leftover) for leftover in leftovers)
        text += IN_PARTS if item.parts else ""
        text += "".join(map(_statement, item.sequence))
        if isinstance(item.revised, CreateIndex):
            name = _name(item.revised)
            text += "".join(_statement(c.text) for c in comments if c.name == name)
        parts.append(text)
    return "\n".join(parts)


def _analyze(tables: Iterable[RelationName]) -> str:
    return "".join(f"ANALYZE {table};\n" for table in tables)


def _verification(creates: tuple[CreateIndex, ...]) -> str:
    return VERIFICATION.format(names=_pairs(map(_name, creates))) if creates else ""


def _performance(workload: Workload | None) -> str:
    reads = () if workload is None else [q for q in workload.reads if not q.generic]
    if not reads:
        return ""
    measured = "\n".join(_measured(n, query) for n, query in enumerate(reads, 1))
    return f"BEGIN READ ONLY;\n\n{measured}\nROLLBACK;\n"


def _measured(number: int, query: Query) -> str:
    """Write one query with values from its samplers, skipped if these give none.

    The server takes the values as parameters: no text of the query has to be replaced.
    """
    name = f"indexlab_query_{number}"
    arguments = ", ".join(f":'indexlab_{parameter}'" for parameter in query.parameters)
    run = (
        f"PREPARE {name} AS\n{_ended(query.statement)}"
        f"EXPLAIN (ANALYZE, BUFFERS) EXECUTE {name}{f' ({arguments})' if arguments else ''};\n"
        f"DEALLOCATE {name};\n"
    )
    title = _comment(f"{query.name}, weight {units.count(query.weight)}")
    if not query.parameters:
        return title + run
    samples = "".join(_sample(sampler) for sampler in query.samplers)
    known = [f"\\if :{{?indexlab_{parameter}}}\n" for parameter in query.parameters]
    return title + samples + "".join(known) + run + "\\endif\n" * len(known)


def _sample(sampler: Sampler) -> str:
    names = ", ".join(quote(name) for name in sampler.names)
    columns = ", ".join(f"sample.{quote(name)}::text AS {quote(name)}" for name in sampler.names)
    return SAMPLE.format(
        columns=columns, names=names, sampler=sampler.sql.rstrip().rstrip(";").rstrip()
    )


def _monitoring(tables: tuple[RelationName, ...]) -> str:
    if not tables:
        return PROGRESS
    pairs = _pairs(tables)
    return "\n".join((USAGE.format(tables=pairs), PROGRESS, SIZES.format(tables=pairs)))


def _superfluous(audit: Audit) -> str:
    text = "\n".join(
        f"{'; '.join(finding.message for finding in item.findings)}\n{item.drop};"
        for item in audit.existing
        if item.drop
    )
    return _comment(text)


def _left_out(item: StatementAudit) -> str:
    what = item.statement.text.rstrip().rstrip(";")
    return _comment(f"{item.verdict}, line {item.statement.line}: {item.why}\n{what};")


def _notes(item: StatementAudit) -> str:
    """Say what was corrected; what is merely done as always needs no words."""
    return "\n".join(_note(finding) for finding in item.findings if finding.severity != "info")


def _note(finding: Finding) -> str:
    return f"{finding.severity}: {finding.words}"


def _creates(audit: Audit) -> Iterator[CreateIndex]:
    return (item.revised for item in audit.kept if isinstance(item.revised, CreateIndex))


def _name(statement: CreateIndex | DropIndex) -> RelationName:
    if isinstance(statement, DropIndex):
        return statement.names[0]
    return RelationName(statement.index.table.schema, statement.index.name or "")


def _pairs(names: Iterable[RelationName]) -> str:
    rows = (f"({_literal(name.schema or '')}, {_literal(name.name)})" for name in names)
    return ",\n           ".join(rows)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _statement(text: str) -> str:
    return f"{text.rstrip().rstrip(';')};\n"


def _ended(text: str) -> str:
    """End a statement on a line of its own, as its last line may be a comment."""
    return f"{text.rstrip().rstrip(';')}\n;\n"


def _comment(text: str) -> str:
    """Write text as comment lines; none of it can leave them."""
    return "".join(f"-- {line}".rstrip() + "\n" for line in display.clean(text).splitlines())
