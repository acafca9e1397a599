"""What the server and the session say against any build, before anything is built."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from indexlab import sql, units
from indexlab.audit.verdicts import Finding
from indexlab.catalog import Catalog
from indexlab.catalog.activity import Activity, Session, Setting
from indexlab.sizes import SizeEstimate

OLD = 60.0
"""Seconds from which on a transaction is taken for one that stays: a build may wait for it longer
than it works."""
YOUNG = 5.0
"""Seconds below which a transaction is gone before a reader of the report looks for it."""
LAGS = 60.0
"""Seconds of lag from which on a standby is behind already, before the build's WAL comes."""
LAGS_BYTES = 1024**3
SHOWN = 5
"""How many sessions a finding names."""


@dataclass(frozen=True, slots=True)
class Work:
    """What the plan is going to do to the server."""

    catalog: Catalog
    activity: Activity
    tables: frozenset[int]
    """Tables that indexes are to be built on."""
    sizes: tuple[SizeEstimate, ...]
    """Of the indexes that are to be built."""


Rule = Callable[[Work], Iterator[Finding]]


def preconditions(
    catalog: Catalog, tables: Iterable[int] = (), sizes: Iterable[SizeEstimate] = ()
) -> Iterator[Finding]:
    """Say what stands in the way of the plan as a whole; pure.

    Args:
        catalog: the target; what goes on in it is judged only where it was read.
        tables: oids of the tables that indexes are to be built on.
        sizes: estimates of the indexes that are to be built.
    """
    yield from standby(catalog)
    yield from corrupting_version(catalog)
    work = Work(catalog, catalog.activity or Activity(), frozenset(tables), tuple(sizes))
    if catalog.activity is not None and work.tables and not catalog.server.standby:
        for rule in RULES:
            yield from rule(work)


def standby(catalog: Catalog) -> Iterator[Finding]:
    """Rule 37: a standby refuses."""
    if catalog.server.standby:
        yield Finding(
            "standby",
            "error",
            f"{catalog.server.database} is a standby, which takes no changes",
            "server",
            (),
            "connect to the primary",
        )


def corrupting_version(catalog: Catalog) -> Iterator[Finding]:
    """Rule 37: 14.0 to 14.3 corrupt what they build CONCURRENTLY."""
    server = catalog.server
    if 140000 <= server.version < 140004:
        yield Finding(
            "corrupting-version",
            "error",
            f"PostgreSQL {server.version_text} corrupts indexes that are built CONCURRENTLY",
            "server",
            (("version", server.version_text),),
            "update the server to 14.4 or newer",
        )


def transaction_pooler(work: Work) -> Iterator[Finding]:
    """Rule 40: settings and locks of a session are lost between its statements."""
    if work.activity.pooled:
        yield Finding(
            "transaction-pooler",
            "warning",
            "two open connections share one backend: a pooler in transaction mode stands between, "
            "and loses SET and session locks from one statement to the next",
            "server",
            (),
            "connect to the server itself, past the pooler",
        )


def timeouts(work: Work) -> Iterator[Finding]:
    """Rule 38: a timeout of the role or the database ends a build and leaves an invalid index."""
    said: set[str] = set()
    for setting in work.activity.settings:  # the most specific one first
        if setting.name in said:
            continue
        said.add(setting.name)
        if re.fullmatch(r"\s*0*\s*[a-z]*\s*", setting.value):
            continue
        place = _place(setting)
        yield Finding(
            setting.name.replace("_", "-"),
            "warning",
            f"{setting.name} is {setting.value} for {place}, which {TIMEOUTS[setting.name]}, and "
            "leaves an invalid index; `indexlab apply` sets its own, other tools do not",
            "server",
            (("setting", setting.name), ("value", setting.value), ("set for", place)),
            f"run SET {setting.name} = 0 in the session that builds",
        )


TIMEOUTS = {
    "lock_timeout": "also cancels a concurrent build that waits so long for an old snapshot",
    "statement_timeout": "cancels a build that takes longer",
    "transaction_timeout": "ends the session of a build of which one phase takes longer",
}


def _place(setting: Setting) -> str:
    role = None if setting.role is None else f"role {sql.quote(setting.role)}"
    database = None if setting.database is None else f"database {sql.quote(setting.database)}"
    return " in ".join(filter(None, (role, database))) or "all roles"


def old_transactions(work: Work) -> Iterator[Finding]:
    """A concurrent build waits for the transactions that began before it and may see its table."""
    waited_for = [
        item
        for item in work.activity.sessions
        if item.building is None
        and not item.wraparound
        and (item.snapshot or work.tables & {*item.locks})
        and (item.age is None or item.age >= YOUNG)
    ]
    if not waited_for:
        return
    ages = [item.age for item in waited_for if item.age is not None]
    oldest = max(ages, default=None)
    number = units.plural(len(waited_for), "session")
    age = "their age is not visible to this role" if oldest is None else units.duration(oldest)
    yield Finding(
        "open-transactions",
        "warning" if oldest is not None and oldest >= OLD else "info",
        f"a concurrent build would wait for {number} with an open transaction"
        + (f" ({age})" if oldest is None else f", the oldest of {age}"),
        "server",
        _named(waited_for),
        "let these transactions end before the build",
    )


def advisory_waiters(work: Work) -> Iterator[Finding]:
    """Rule 39: who waits for an advisory lock holds a snapshot, and may wait for the builder."""
    waiting = [item for item in work.activity.sessions if item.advisory]
    if waiting:
        yield Finding(
            "advisory-lock-waiters",
            "warning",
            f"{units.plural(len(waiting), 'session')} in pg_advisory_lock: a concurrent build "
            "waits for the snapshot that each of them holds, and deadlocks if its own session has "
            "the lock",
            "server",
            _named(waiting),
            "use pg_try_advisory_lock and poll",
        )


def prepared_transactions(work: Work) -> Iterator[Finding]:
    """A prepared transaction keeps its locks until somebody ends it, over restarts, too."""
    for item in work.activity.prepared:
        locked = work.tables & {*item.locks}
        if locked:
            tables = ", ".join(sorted(str(work.catalog.relation(t).qualified) for t in locked))
            name = "'" + item.name.replace("'", "''") + "'"
            yield Finding(
                "prepared-transaction",
                "warning",
                f"the prepared transaction {name} of {sql.quote(item.owner)} has locked {tables} "
                f"for {units.duration(item.age)}: a build waits until it is ended",
                tables,
                (("owner", item.owner), ("seconds", round(item.age))),
                f"COMMIT PREPARED {name} or ROLLBACK PREPARED {name}",
            )


def builds_in_progress(work: Work) -> Iterator[Finding]:
    """Rule 37: two builds on one table run one after the other."""
    for item in work.activity.sessions:
        if item.building in work.tables:
            table = str(work.catalog.relation(item.building).qualified)
            done = "" if item.progress is None else f", {item.progress:.0%} of its phase done"
            yield Finding(
                "build-in-progress",
                "warning",
                f"pid {item.pid} is building an index on {table}{done}: the next one has to wait",
                table,
                _named([item]),
                "wait until it is done",
            )


def wraparound_vacuums(work: Work) -> Iterator[Finding]:
    """An autovacuum makes way for a build, except for one that prevents wraparound."""
    for item in work.activity.sessions:
        for oid in sorted(work.tables & {*item.locks}) if item.wraparound else ():
            table = str(work.catalog.relation(oid).qualified)
            yield Finding(
                "wraparound-vacuum",
                "warning",
                f"autovacuum works on {table} to prevent wraparound and does not make way: "
                "a build waits until it is done",
                table,
                (("pid", item.pid),),
                "wait until it is done; do not cancel it",
            )


def no_statistics(work: Work) -> Iterator[Finding]:
    """Where nothing is known of a table, nothing is said about the use of its indexes."""
    tables = [work.catalog.relation(oid) for oid in sorted(work.tables)]
    plain = [table for table in tables if table.kind != "partitioned table"]
    empty = [str(t.qualified) for t in plain if t.rows <= 0 and t.bytes == 0]
    unknown = [str(t.qualified) for t in plain if t.rows < 0 and t.bytes > 0]
    if empty:
        yield Finding(
            "no-statistics",
            "info",
            f"nothing can be said about the size and the use of indexes on {_some(empty)}: "
            "there are no rows",
            empty[0],
            (("tables", ", ".join(empty)),),
        )
    if unknown:
        yield Finding(
            "no-statistics",
            "info",
            f"little is known about the size and the use of indexes on {_some(unknown)}: "
            "never analyzed",
            unknown[0],
            (("tables", ", ".join(unknown)),),
            "; ".join(f"ANALYZE {name}" for name in unknown[:SHOWN]),
        )


def _some(names: list[str]) -> str:
    more = "" if len(names) <= SHOWN else f" and {len(names) - SHOWN} more"
    return ", ".join(names[:SHOWN]) + more


def disk_space(work: Work) -> Iterator[Finding]:
    """Say how much the plan needs; how much is free SQL cannot tell.

    A concurrent build writes the index, at most as much again into temporary files while it sorts,
    and every page once to the WAL unless wal_level is minimal.
    """
    total = sum(size.bytes for size in work.sizes)
    if not total:
        return
    activity = work.activity
    share = "" if not activity.database_bytes else f" ({total / activity.database_bytes:.0%} of it)"
    logged = activity.wal_level != "minimal"
    many = f", more than max_wal_size ({units.size(activity.max_wal_bytes)})"
    checkpoints = many if logged and 0 < activity.max_wal_bytes < total else ""
    known = "not known" if not activity.database_bytes else units.size(activity.database_bytes)
    yield Finding(
        "disk-space",
        "info",
        f"the planned indexes take about {units.size(total)} in a database of {known}{share}"
        + (f", with about as much WAL{checkpoints}" if logged else "")
        + "; how much space is free is not known to SQL",
        "server",
        (
            ("bytes", total),
            ("database bytes", activity.database_bytes or "not known"),
            ("rough estimates", sum(size.rough for size in work.sizes)),
            ("free bytes", "not known"),
            ("wal_level", activity.wal_level),
        ),
        f"look for {units.size(2 * total)} of free space on the server: the largest sort may need "
        "as much as its index again for a while",
    )


def replicas(work: Work) -> Iterator[Finding]:
    """Standbys have to write the indexes, too; one that lags falls further behind."""
    total = sum(size.bytes for size in work.sizes)
    for item in work.activity.replicas:
        behind = item.lag_bytes or 0.0
        if behind < LAGS_BYTES and (item.lag or 0.0) < LAGS:
            continue
        lag = "" if item.lag is None else f" and {units.duration(item.lag)}"
        yield Finding(
            "replication-lag",
            "warning",
            f"{item.application!r} is {units.size(behind)}{lag} behind, and the builds add "
            f"about {units.size(total)} of WAL",
            "server",
            (("application", item.application), ("bytes", behind), ("state", item.state)),
            "let it catch up before the build",
        )


def hidden(work: Work) -> Iterator[Finding]:
    """Say what the role was not shown, so that silence is not taken for calm."""
    sessions = [s for s in work.activity.sessions if not s.kind]
    standbys = [r for r in work.activity.replicas if not r.state]
    unseen = [*work.activity.denied]
    unseen += ["statistics of columns"] if work.catalog.statistics.denied else []
    unseen += [
        f"what {units.plural(len(items), noun)} of other roles do"
        for items, noun in ((sessions, "session"), (standbys, "standby"))
        if items
    ]
    if unseen:
        yield Finding(
            "not-visible",
            "info",
            f"{sql.quote(work.catalog.server.user)} may not see {', '.join(unseen)}: "
            "what these would say against a build is not known",
            "server",
            (("sessions", len(sessions)), ("standbys", len(standbys))),
            f"GRANT pg_monitor TO {sql.quote(work.catalog.server.user)}",
        )


RULES: tuple[Rule, ...] = (
    transaction_pooler,
    timeouts,
    old_transactions,
    advisory_waiters,
    prepared_transactions,
    builds_in_progress,
    wraparound_vacuums,
    no_statistics,
    disk_space,
    replicas,
    hidden,
)


def _named(sessions: list[Session]) -> tuple[tuple[str, str], ...]:
    """Return who the sessions are; what they ask is nobody's business."""
    return tuple(
        (
            f"pid {item.pid}",
            ", ".join(
                (
                    item.application or "no application name",
                    item.user or "no role",
                    item.state or item.kind or "state not visible",
                    "age not visible" if item.age is None else units.duration(item.age),
                )
            ),
        )
        for item in sessions[:SHOWN]
    )
