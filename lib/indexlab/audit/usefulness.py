"""Whether a planned index is worth its price: what statistics say without running anything.

Nothing here is an error, and what enforces is not judged by how it serves queries. Where nothing is
known, nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from indexlab import sql, units
from indexlab.audit import uses
from indexlab.audit.drafts import Draft, Drafts, Scene
from indexlab.audit.uses import Asked, Update
from indexlab.audit.verdicts import Finding
from indexlab.catalog import Catalog, Column, Index, Relation
from indexlab.catalog.statistics import ColumnStatistics
from indexlab.errors import InputError
from indexlab.plan import IndexDef
from indexlab.sizes import PAGE, SizeEstimate, estimate
from indexlab.workload import Workload

LARGE_PART = 0.10
"""From this share of a table's rows on, scattered over its pages, reading all of it is cheaper: some
ten rows share a page, so that nearly every page is read anyway."""
IN_ORDER = 0.9
"""From this correlation on the rows of a value lie together, and a large part is read fast."""
COMMON_PART = 0.5
"""From this share on a value is asked for by reading the table."""
RARE_PART = 0.05
"""At most this share makes a value worth an index of its own rows."""
TINY_PAGES = 8
"""A table of so few pages is read at the cost of two or three random reads, as an index needs."""
MOSTLY_HOT = 0.5
"""From this share of HOT updates on, losing them is felt."""
WRITES_PER_READ = 10
ENOUGH_WRITES = 10_000
"""Below it, counts since the last reset of the statistics say little."""
LARGEST_KEY = 2704
"""BTMaxItemSize of a page of 8 kB: a third of it."""
WIDE_KEY = LARGEST_KEY // 4
"""An average of so many bytes makes single values beyond the limit likely."""


@dataclass(frozen=True, slots=True)
class Case:
    """A statement that is to be built, and what its rules look at."""

    scene: Scene
    label: str
    planned: IndexDef
    index: Index
    table: Relation
    updates: tuple[Update, ...]
    asked: tuple[Asked, ...]
    indexed: frozenset[str] | None
    """The columns that the table's indexes read; None where that is not known or not asked."""

    @property
    def catalog(self) -> Catalog:
        """The target."""
        return self.scene.catalog

    @property
    def known(self) -> bool:
        """Whether the table was analyzed and had rows."""
        return self.table.rows > 0

    def only_column(self) -> tuple[Column, ColumnStatistics] | None:
        """Return the one key of the index and its statistics, if it has one plain column."""
        if len(self.index.keys) != 1 or self.index.include or not self.index.keys[0].column:
            return None
        number = self.index.keys[0].column
        found = self.catalog.statistics.of(self.table.oid, number)
        columns = self.catalog.columns_of(self.table.oid)
        column = next((item for item in columns if item.number == number), None)
        return None if found is None or column is None else (column, found)


Rule = Callable[[Case], Iterator[Finding]]


def judge(scene: Scene, drafts: Drafts, workload: Workload | None = None) -> Drafts:
    """Add to each statement that is to be built what is known of its size and use; pure.

    Args:
        scene: the indexes, and what the plan drops.
        drafts: all statements; those with a verdict are left alone.
        workload: the queries that matter.
    """
    updated = tuple(uses.updates(scene.catalog, workload))
    asked = tuple(uses.asked(scene.catalog, workload))
    built = {d.relation.oid for d in drafts if d.verdict is None and d.relation is not None}
    tables = built & {item.table for item in updated}
    indexed = {table: _indexed_columns(scene, table) for table in tables}
    return tuple(
        _judged(scene, draft, updated, asked, indexed)
        if draft.verdict is None and draft.wanted is not None and draft.relation is not None
        else draft
        for draft in drafts
    )


def _judged(
    scene: Scene,
    draft: Draft,
    updates: tuple[Update, ...],
    asked: tuple[Asked, ...],
    indexed: Mapping[int, frozenset[str] | None],
) -> Draft:
    table = draft.table()
    case = Case(
        scene,
        draft.label,
        draft.index,
        draft.planned(),
        table,
        tuple(item for item in updates if item.table == table.oid),
        tuple(item for item in asked if item.table == table.oid),
        indexed.get(table.oid),
    )
    found = tuple(finding for rule in RULES for finding in rule(case))
    if any(finding.rule == "wide-key" for finding in draft.findings):  # by the rows themselves
        found = tuple(finding for finding in found if finding.rule != "wide-key")
    return replace(draft, findings=(*draft.findings, *found))


def estimated_size(case: Case) -> Iterator[Finding]:
    """Say how large the index becomes; an empty table makes an empty one."""
    if case.table.rows <= 0 and case.table.bytes == 0:
        return
    size = estimate(case.catalog, case.index)
    about = "very roughly" if size.rough else "about"
    yield Finding(
        "estimated-size",
        "info",
        f"{case.label} takes {about} {units.size(size.bytes)}",
        case.label,
        (("bytes", size.bytes), ("basis", size.basis), *_correlation(case)),
    )


def _correlation(case: Case) -> tuple[tuple[str, str], ...]:
    """Say where the size counts on columns that know nothing of each other.

    Fewer combinations than that mean more equal keys, which a btree stores once.
    """
    columns = [key.column for key in case.index.keys if key.column]
    together = case.index.method == "btree" and len(columns) > 1 and not case.index.unique
    if not together or case.catalog.statistics.group(case.table.oid, columns) is not None:
        return ()
    names = {c.number: sql.quote(c.name) for c in case.catalog.columns_of(case.table.oid)}
    listed = ", ".join(names[number] for number in columns)
    return (
        (
            "assumes",
            f"that {listed} are independent: CREATE STATISTICS (ndistinct) on them and ANALYZE "
            "tell better; where they are correlated, it is an overestimate",
        ),
    )


def tiny_table(case: Case) -> Iterator[Finding]:
    """A table of a few pages is read whole, whatever indexes it has."""
    pages = case.table.bytes // PAGE
    if case.index.unique or not case.known or not 0 < pages <= TINY_PAGES:
        return
    name = str(case.table.qualified)
    yield Finding(
        "tiny-table",
        "info",
        f"{name} has only {units.plural(pages, 'page')}, which are read faster than {case.label}",
        name,
        (("pages", pages), ("rows", int(case.table.rows))),
        "leave the statement out unless the table is going to grow",
    )


def low_selectivity(case: Case) -> Iterator[Finding]:
    """Every value of the only key has a large part of the rows."""
    found = case.only_column()
    if found is None or not _serves_equality_alone(case):
        return
    column, known = found
    rarest = _rarest(known, case.table.rows)
    scattered = known.correlation is None or abs(known.correlation) < IN_ORDER
    if rarest is None or rarest < LARGE_PART or not scattered:
        return
    name = f"{case.table.qualified}.{sql.quote(column.name)}"
    number = round(_distinct(known, case.table.rows))
    yield Finding(
        "low-selectivity",
        "warning",
        f"{name} has only {units.plural(number, 'value')}, none with less than "
        f"{rarest:.0%} of the rows: reading the table is as fast as reading {case.label}",
        name,
        (("distinct", number), ("smallest share", round(rarest, 4)), *_common(known)),
        "leave the statement out, or put the column behind a selective one",
    )


def rare_value(case: Case) -> Iterator[Finding]:
    """The workload asks for rare values only, and the index would hold the common ones, too."""
    found = case.only_column()
    if found is None or not _serves_equality_alone(case):
        return
    column, known = found
    here = [item for item in case.asked if item.column == column.name]
    values = sorted({item.value for item in here if item.value is not None})
    shares = [_share(known, value, case.table.rows) for value in values]
    most = max(known.frequencies, default=0.0)
    rare = [share for share in shares if share is not None and share <= RARE_PART]
    common = len(rare) < len(shares) or any(item.value is None for item in here)
    if not rare or common or most < COMMON_PART or len(values) != 1:
        return
    name = f"{case.table.qualified}.{sql.quote(column.name)}"
    literal = "'" + values[0].replace("'", "''") + "'"
    yield Finding(
        "partial-index-suggested",
        "info",
        f"the workload asks {name} for {literal} only, which {rare[0]:.1%} of the rows have: "
        "an index of these rows alone is much smaller and costs the other writes nothing",
        name,
        (
            ("asked by", ", ".join(dict.fromkeys(item.query for item in here))),
            ("share", round(rare[0], 6)),
            *_common(known),
        ),
        f"CREATE INDEX CONCURRENTLY ON {case.table.qualified} ({sql.quote(column.name)}) "
        f"WHERE {sql.quote(column.name)} = {literal}",
    )


def loses_hot(case: Case) -> Iterator[Finding]:
    """Updates of columns that no index has are HOT: they touch no index and leave less to vacuum.

    A new index on such a column ends that for all indexes of the table. BRIN does not count from 16
    on, as it points to no row.
    """
    if case.index.method == "brin" and case.catalog.server.version >= 160000:
        return
    indexed = case.indexed
    if indexed is None or not case.updates:
        return
    new = frozenset(case.planned.columns) - indexed
    # One that sets another indexed column is not HOT now either.
    losing = [item for item in case.updates if item.columns & new and not item.columns & indexed]
    if not losing:
        return
    table = case.table
    hot = table.hot_updated / table.updated if table.updated else None
    columns = sorted(frozenset().union(*(item.columns & new for item in losing)))
    felt = hot is not None and hot >= MOSTLY_HOT and table.updated >= ENOUGH_WRITES
    names, queries = ", ".join(map(sql.quote, columns)), [item.query for item in losing]
    so_far = "" if hot is None else f"; {hot:.0%} of {units.count(table.updated)} updates were HOT"
    yield Finding(
        "loses-hot",
        "warning" if felt and not case.index.unique else "info",
        f"updates of {names} in {table.qualified} would stop being HOT: each then writes to "
        f"every index of the table ({', '.join(dict.fromkeys(queries))}){so_far}",
        str(table.qualified),
        (
            ("columns", names),
            ("queries", ", ".join(dict.fromkeys(queries))),
            ("updates", table.updated),
            ("HOT updates", table.hot_updated),
        ),
        "weigh the reads that it serves against these updates",
    )


def write_heavy(case: Case) -> Iterator[Finding]:
    """A table that is written far more often than read pays for each index more than it gets."""
    table, indexes = case.table, case.catalog.indexes_of(case.table.oid)
    writes = table.inserted + table.deleted + table.updated - table.hot_updated
    reads = table.scans + sum(index.scans for index in indexes)
    if case.index.unique or writes < ENOUGH_WRITES or writes < WRITES_PER_READ * reads:
        return
    name = str(table.qualified)
    yield Finding(
        "write-heavy-table",
        "info",
        f"{name} had {units.count(writes)} writes that touch its indexes and "
        f"{units.count(reads)} scans since its statistics count: {case.label} costs each of "
        "these writes",
        name,
        (("writes", writes), ("scans", reads), ("indexes", len(indexes))),
    )


def wide_key(case: Case) -> Iterator[Finding]:
    """Rule 35: a key beyond a third of a page fails, at the build or at a later insert."""
    if case.index.method != "btree":
        return
    numbers = [key.column for key in case.index.keys if key.column] + [*case.index.include]
    known = [case.catalog.statistics.of(case.table.oid, number) for number in numbers]
    width = sum(item.width for item in known if item is not None)
    if width < WIDE_KEY:
        return
    yield Finding(
        "wide-key",
        "warning",
        f"the keys of {case.label} have {units.count(width)} bytes on average: a row whose keys "
        f"take more than {units.count(LARGEST_KEY)}, compressed, fails the build or its insert",
        case.label,
        (("average bytes", width), ("largest", LARGEST_KEY)),
        "index a hash of the long column, such as md5(column), where equality is all that is asked",
    )


RULES: tuple[Rule, ...] = (
    estimated_size,
    tiny_table,
    low_selectivity,
    rare_value,
    loses_hot,
    write_heavy,
    wide_key,
)


def sizes(catalog: Catalog, drafts: Iterable[Draft]) -> tuple[SizeEstimate, ...]:
    """Estimate the indexes that are to be built, in the order of the plan; pure."""
    return tuple(
        estimate(catalog, draft.wanted)
        for draft in drafts
        if draft.verdict is None and draft.wanted is not None
    )


# What the statistics say


def _serves_equality_alone(case: Case) -> bool:
    """Whether an index on one column has nothing to offer but finding its values."""
    plain = case.index.method in ("btree", "hash") and not case.index.unique
    return plain and case.known and case.index.predicate is None


def _distinct(known: ColumnStatistics, rows: float) -> float:
    return known.distinct if known.distinct >= 0 else -known.distinct * rows


def _rarest(known: ColumnStatistics, rows: float) -> float | None:
    """Return the share of the rarest value or, of those that are not common, of the average one.

    NULL is a value to `IS NULL`. None where the statistics do not tell.
    """
    others = _distinct(known, rows) - len(known.frequencies)
    rest = 1 - known.nulls - sum(known.frequencies)
    shares = [*known.frequencies]
    if known.nulls > 0:
        shares.append(known.nulls)
    if others >= 0.5:
        shares.append(max(rest, 0.0) / others)
    return min(shares, default=None)


def _share(known: ColumnStatistics, value: str, rows: float) -> float | None:
    """Return the share of a value; None where the statistics do not tell."""
    listed = dict(known.common)
    if value in listed:
        return listed[value]
    if len(known.common) < len(known.frequencies):
        return None  # it may be a common one whose value was not read
    others = _distinct(known, rows) - len(known.frequencies)
    rest = max(0.0, 1 - known.nulls - sum(known.frequencies))
    return rest / others if others >= 1 else rest


def _common(known: ColumnStatistics) -> tuple[tuple[str, str], ...]:
    if not known.common:
        return ()
    return (("most common", ", ".join(f"{v} {share:.1%}" for v, share in known.common[:5])),)


def _indexed_columns(scene: Scene, table: int) -> frozenset[str] | None:
    """Return the columns that a table's indexes read; None where that is not known."""
    summarizing = scene.catalog.server.version >= 160000
    found: set[str] = set()
    columns = {c.number: c.name for c in scene.catalog.columns_of(table)}
    for index in scene.staying(table):
        if index.method == "brin" and summarizing:
            continue
        if all(key.column for key in index.keys) and index.predicate is None:
            numbers = (*(key.column for key in index.keys), *index.include)
            found.update(columns[number] for number in numbers if number in columns)
            continue
        try:
            found.update(IndexDef.parse(index.definition).columns)
        except InputError:  # the grammar library cannot write it back
            return None
    return frozenset(found)
