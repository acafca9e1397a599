"""The audit against the server's own word, on schemas and plans that nobody chose.

hypothesis makes schemas, rows and plans, right ones and wrong ones. Whatever the audit calls
buildable, the server must build: in one transaction, and for a part of the plans CONCURRENTLY, as
the revised plan says. What the audit refuses, the server must refuse, or a rule says why it would be
wrong to build it; what is left out must be covered by an index that is there. IF [NOT] EXISTS hides
a refusal, so there the indexes are counted.
"""

from __future__ import annotations

import itertools
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from indexlab import audit as auditing
from indexlab import embedded, plan
from indexlab.audit import Audit, StatementAudit
from indexlab.errors import InputError
from indexlab.plan import CreateIndex, DropIndex
from indexlab.sql import quote

STATEMENTS = int(os.environ.get("INDEXLAB_PROPERTY_STATEMENTS") or 150)
"""How many different planned statements at least, each on both servers."""
PLAN_SIZE = 16
WARNED = "too wide, as warned"
SEEN: Counter[str] = Counter()

Item = TypeVar("Item")

_numbers = itertools.count(1)

# Schemas

SCHEMA_NAMES = ("public", "s1", "Odd 'S'")
TABLE_NAMES = ("t", "select", "T", 'we"ird', "größe", "zeile\nzwei", "x" * 63, "😀")
COLUMN_NAMES = ("a", "b", "A", "order", 'q"x', "ü", "line\nbreak", "date", "c" * 63, "event_at")
TYPES = ("int", "text", "varchar(20)", "date", "timestamptz", "boolean") * 4 + (
    *("int", "bigint", "smallint", "numeric(8,2)", "boolean", "date", "timestamp", "timestamptz"),
    *("text", "varchar(20)", 'varchar(20) COLLATE "C"', 'text COLLATE "POSIX"', "char(5)", "name"),
    *("uuid", "jsonb", "json", "int[]", "text[]", "int4range", "tsrange", "inet", "point", "bytea"),
    *("feeling", "positive", "shortcode", "pair", "tsvector", "interval", "bit(4)", "oid", "box"),
    *("int4multirange", '"char"', "macaddr", "feeling[]", "positive[]", "time", "xid", "pg_lsn"),
)
UNORDERED = ("json", "point", "box", "xid")
"""Types without a btree operator class."""
WIDE = "repeat_of_random"
VALUES = {
    **dict.fromkeys(("int", "bigint", "oid", "positive", "xid"), ("1", "2", "3", "2147483647")),
    **dict.fromkeys(("smallint", "numeric(8,2)"), ("1", "2", "3")),
    **dict.fromkeys(("text", "bytea"), ("a", "b", "", "12", "2024-01-01", WIDE)),
    **dict.fromkeys(("varchar(20)", "name", "shortcode", "char(5)"), ("a", "b", "", "12")),
    **dict.fromkeys(("date", "timestamp", "timestamptz"), ("2024-01-01", "2024-02-03", "infinity")),
    "boolean": ("true", "false"),
    "uuid": ("0" * 32, "1" * 32),
    **dict.fromkeys(("jsonb", "json"), ('{"a": 1}', "[]", "7")),
    **dict.fromkeys(("int[]", "positive[]"), ("{1,2}", "{}")),
    "text[]": ("{a,b}", "{}"),
    "int4range": ("[1,3)", "empty"),
    "tsrange": ("[2024-01-01,2024-01-02)", "empty"),
    "int4multirange": ("{[1,3)}", "{}"),
    "inet": ("10.0.0.1", "::1"),
    "point": ("(1,2)", "(0,0)"),
    "box": ("(1,1),(0,0)", "(2,2),(0,0)"),
    "feeling": ("good", "bad"),
    "feeling[]": ("{good}", "{}"),
    "pair": ("(1,2)", "(,)"),
    "tsvector": ("a b", ""),
    "interval": ("1 day", "2 h"),
    "bit(4)": ("1010", "0000"),
    '"char"': ("a", ""),
    "macaddr": ("08:00:2b:01:02:03", "08:00:2b:01:02:04"),
    "time": ("10:00", "11:00"),
    "pg_lsn": ("0/1", "0/2"),
}
"""What the columns of each type hold, beside NULL."""
RANDOM = "(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 100) AS n)"
"""Some 3 kB that no compression makes small."""
BASIS = """
CREATE TYPE public.feeling AS ENUM ('good', 'bad');
CREATE DOMAIN public.positive AS int CHECK (VALUE > 0);
CREATE DOMAIN public.shortcode AS varchar(9);
CREATE TYPE public.pair AS (x int, y int);
CREATE FUNCTION public.twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE FUNCTION public.inlined(text) RETURNS text LANGUAGE sql STABLE AS 'SELECT lower($1)';
CREATE FUNCTION public.moving(int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT $1 + 1';
CREATE SCHEMA s1;
CREATE SCHEMA "Odd 'S'";
"""


@dataclass(frozen=True, slots=True)
class Table:
    schema: str
    name: str
    columns: tuple[tuple[str, str], ...]
    kind: str
    rows: int = 0
    seed: int = 0

    @property
    def qualified(self) -> str:
        return f"{quote(self.schema)}.{quote(self.name)}"

    @property
    def takes_indexes(self) -> bool:
        return self.kind not in ("view", "partitioned")

    def filling(self) -> str:
        """Write the rows that it holds; as ever, some are NULL, and some are there twice."""
        if not self.rows or self.kind in ("view", "materialized"):
            return ""
        chance = random.Random(self.seed)
        wide = chance.random() < 0.08
        names = ", ".join(quote(name) for name, _ in self.columns)
        rows = (
            ", ".join(self._value(chance, type_, wide=wide) for _, type_ in self.columns)
            for _ in range(self.rows)
        )
        values = ", ".join(f"({row})" for row in rows)
        analyzed = f"; ANALYZE {self.qualified}" if chance.random() < 0.5 else ""
        return f"INSERT INTO {self.qualified} ({names}) VALUES {values}{analyzed}"

    def _value(self, chance: random.Random, type_: str, *, wide: bool) -> str:
        if chance.random() < 0.1:
            return "NULL"
        plain = type_.partition(" COLLATE ")[0]
        value = chance.choice(VALUES[plain])
        if value == WIDE:
            return f"{RANDOM}::{plain}" if wide else f"'c'::{plain}"
        literal = value.replace("'", "''")
        return f"'{literal}'::{plain}"

    def sql(self) -> str:
        columns = [f"{quote(name)} {type_}" for name, type_ in self.columns]
        first = quote(self.columns[0][0])
        listed = ", ".join(columns)
        made = f"CREATE TABLE {self.qualified} ({listed})"
        match self.kind:
            case "partitioned":
                schema = quote(self.schema)
                middle, leaf = (f"{schema}.{quote(self.name[:20] + end)}" for end in ("_p", "_q"))
                return (
                    f"{made} PARTITION BY LIST ({first});"
                    f"CREATE TABLE {middle} PARTITION OF {self.qualified} DEFAULT"
                    f" PARTITION BY LIST ({first});"
                    f"CREATE TABLE {leaf} PARTITION OF {middle} DEFAULT"
                )
            case "materialized":
                nulls = ", ".join(f"NULL::{t} AS {quote(n)}" for n, t in self.columns)
                return f"CREATE MATERIALIZED VIEW {self.qualified} AS SELECT {nulls}"
            case "view":
                return f"CREATE VIEW {self.qualified} AS SELECT 1 AS {first}"
            case "unlogged":
                return made.replace("CREATE TABLE", "CREATE UNLOGGED TABLE", 1)
            case "generated":
                return f"{made[:-1]}, g int GENERATED ALWAYS AS (1 + 1) STORED)"
            case "dropped":
                return f"{made[:-1]}, gone int); ALTER TABLE {self.qualified} DROP COLUMN gone"
        return made


KINDS = ("plain",) * 18 + (
    *("partitioned", "materialized", "view", "unlogged", "generated", "dropped"),
)


def some(chance: random.Random, items: Sequence[Item], least: int, most: int) -> list[Item]:
    """Choose some of the items, each once at most."""
    return chance.sample(items, min(len(items), chance.randint(least, most)))


def tables(chance: random.Random) -> tuple[Table, ...]:
    places = tuple(itertools.product(SCHEMA_NAMES, TABLE_NAMES))
    made = []
    for schema, name in some(chance, places, 1, 3):
        names = some(chance, COLUMN_NAMES, 2, 6)
        types = [chance.choice(TYPES) for _ in names]
        kind = chance.choice(KINDS)
        columns = tuple(zip(names, types, strict=True))
        rows = chance.choice((0, 0, 1, 2, 7, 40))
        made.append(Table(schema, name, columns, kind, rows, chance.randint(0, 10**6)))
    return tuple(made)


# Statements

OPCLASSES = (
    *("text_pattern_ops", "varchar_ops", "varchar_pattern_ops", "bpchar_pattern_ops", "text_ops"),
    *("int4_ops", "int8_ops", "jsonb_path_ops", "array_ops", "inet_ops", "no_such_ops"),
    *("gin_trgm_ops", "enum_ops", "range_ops", "date_ops", "pg_catalog.int4_ops"),
    *("jsonb_ops", "record_ops", "tsvector_ops", "point_ops", "name_ops", "timestamptz_ops"),
)
METHODS = ("btree",) * 24 + ("hash", "gin", "gist", "brin", "spgist", "nosuch")
SOUND = (
    *("({c} IS NULL)", "(coalesce({c}, {c}))", "(CASE WHEN {c} IS NULL THEN 1 END)"),
    *("({c} IS NULL AND {d} IS NULL)", "(num_nulls({c}, {d}))", "(nullif({c}, {c}))"),
)
"""Fit columns of nearly all types."""
EXPRESSIONS = SOUND * 6 + (
    *("lower({c})", "({c} || 'x')", "({c} + 1)", "(coalesce({c}, {d}))", "md5(({c})::text)"),
    *("(({c})::date)", "(({c})::text)", "now()", "random()", "({c} IS NULL)", "({c} = {d})"),
    *("abs({c})", "date_trunc('day', {c})", "to_char({c}, 'YYYY')", "({c} ->> 'a')"),
    *("((SELECT 1))", "count({c})", "generate_series(1, {c})", "({c} AT TIME ZONE 'UTC')"),
    *("length({c})", '(upper({c}) COLLATE "C")', "({c}[1])", "to_tsvector({c})"),
    *("to_tsvector('english', {c})", "concat({c}, 'x')", "array_length({c}, 1)", "(({c})::int)"),
    *("({c} IN (1, 2))", "ctid", "tableoid", "(current_user)", "public.inlined({c})"),
    *("public.twice({c})", "public.moving({c})", "({c} = true)", "(CASE WHEN {c} THEN 1 END)"),
    *("({c})", "(ROW({c}, {d}))", "nosuch({c})", "extract(year FROM {c})", "age({c})", "(1)"),
    *(
        "(('a')::text)",
        "(NULL)",
        "('literal')",
        "greatest({c}, {d})",
        "(({c} AT TIME ZONE 'UTC')::date)",
    ),
)
PREDICATES = ("{c} IS NOT NULL", "{c} IS NULL OR {d} IS NULL") * 6 + (
    *("{c} IS NOT NULL", "{c} = {d}", "{c} > 0", "{c} = 'x'", "{c} IN (1, 2)", "now() > {c}"),
    *("{c}", "NOT {c}", "{c} = true", "true", "{c} LIKE 'a%'", "(SELECT true)", "random() < 0.5"),
    *("nosuch IS NULL", "{c} > current_date", "{c} IS TRUE", "{c} > 0 AND {c} < 9", "1", "'t'"),
    *("{c}::text = 'a'", "lower({c}) = 'a'", "count({c}) > 1", "{c} = 'good'"),
)
STORAGE = ("",) * 12 + (" WITH (fillfactor = 70)", " WITH (nosuch = 1)", " WITH (fastupdate)")


def keys(chance: random.Random, table: Table) -> str:
    names = [name for name, _ in table.columns]
    column, other = (quote(chance.choice(names)) for _ in range(2))
    shape = chance.randint(0, 23)
    if shape < 4:
        text = chance.choice(EXPRESSIONS).replace("{c}", column).replace("{d}", other)
    elif shape == 4:
        text = chance.choice(("nosuch", "event_date", "gone", "xmin", "a_b", '"C"', "g"))
    else:
        text = column
    if chance.randint(0, 17) == 0:
        text += chance.choice((' COLLATE "C"', ' COLLATE "POSIX"', ' COLLATE "nosuch"'))
    if chance.randint(0, 11) == 0:
        text += " " + chance.choice(OPCLASSES)
    if chance.randint(0, 5) == 0:
        text += chance.choice((" DESC", " ASC", " NULLS FIRST", " DESC NULLS LAST"))
    return text


def creates(chance: random.Random, known: tuple[Table, ...]) -> str:
    table = chance.choice(known)
    listed = ", ".join(keys(chance, table) for _ in range(chance.randint(1, 3)))
    name = chance.choice(NAMES + tuple(t.name for t in known))
    unique = chance.choice(("", "", "", "UNIQUE "))
    method = chance.choice(METHODS)
    exists = "IF NOT EXISTS " if name and chance.randint(0, 5) == 0 else ""
    on = table.qualified
    if chance.randint(0, 4) == 0:
        on = quote(table.name)  # by the search_path, or not at all
    text = f"CREATE {unique}INDEX {exists}{quote(name) if name else ''} ON {on}"
    text += f" USING {method} ({listed})"
    if chance.randint(0, 6) == 0:
        names = [quote(n) for n, _ in table.columns] + ["nosuch"]
        text += f" INCLUDE ({', '.join(chance.choices(names, k=chance.randint(1, 2)))})"
    if unique and chance.randint(0, 4) == 0:
        text += " NULLS NOT DISTINCT"
    text += chance.choice(STORAGE)
    if chance.randint(0, 4) == 0:
        column, other = (quote(chance.choice(table.columns)[0]) for _ in range(2))
        condition = chance.choice(PREDICATES)
        text += " WHERE " + condition.replace("{c}", column).replace("{d}", other)
    return text


def sound_creates(chance: random.Random, known: tuple[Table, ...]) -> str:
    """Write an index that the server builds, unless its name or the rows speak against it."""
    table = chance.choice([t for t in known if t.takes_indexes] or known)
    ordered = [name for name, type_ in table.columns if type_ not in UNORDERED]
    if not ordered:
        return creates(chance, known)
    chosen = some(chance, ordered, 1, 3)
    listed = []
    for name in chosen:
        text = quote(name)
        if chance.randint(0, 7) == 0:
            other = quote(chance.choice(ordered))
            text = chance.choice(SOUND).replace("{c}", text).replace("{d}", other)
        listed.append(text + chance.choice(("", "", "", " DESC", " NULLS FIRST")))
    name = chance.choice(("", *(f"n{number}" for number in range(40))))
    unique = chance.choice(("", "", "", "", "UNIQUE "))
    how = chance.choice(("", "", "CONCURRENTLY "))
    exists = "IF NOT EXISTS " if name and chance.randint(0, 4) == 0 else ""
    text = f"CREATE {unique}INDEX {how}{exists}{name} ON {table.qualified} ({', '.join(listed)})"
    left = [quote(name) for name, _ in table.columns if name not in chosen]
    if left and chance.randint(0, 6) == 0:
        text += f" INCLUDE ({chance.choice(left)})"
    if chance.randint(0, 5) == 0:
        column, other = (quote(chance.choice(table.columns)[0]) for _ in range(2))
        condition = chance.choice(PREDICATES[:12])
        text += " WHERE " + condition.replace("{c}", column).replace("{d}", other)
    return text


NAMES = (
    ("",) * 4 + tuple(f"i{number}" for number in range(1, 16)) + ("Idx", 'i"x', "i" * 70, "ü" * 40)
)


def existing(chance: random.Random, known: tuple[Table, ...]) -> str:
    """What is there beside the tables; what the server does not accept is not there."""
    if chance.randint(0, 3):
        return creates(chance, known)
    table = chance.choice(known)
    listed = ", ".join(some(chance, [quote(name) for name, _ in table.columns], 1, 2))
    form = chance.choice(
        (
            "ADD PRIMARY KEY ({})",
            "ADD UNIQUE ({})",
            "ADD UNIQUE ({}) DEFERRABLE",
            "ADD EXCLUDE USING btree ({} WITH =)",
            "ADD FOREIGN KEY ({0}) REFERENCES " + table.qualified + " ({0})",
        )
    )
    return f"ALTER TABLE {table.qualified} {form.format(listed)}"


def drops(chance: random.Random) -> str:
    name = quote(chance.choice([*NAMES[4:], "nosuch", "t_pkey", "t_a_key", "t"]))
    return f"DROP INDEX {chance.choice(('', '', 'IF EXISTS '))}{name}"


@dataclass(frozen=True, slots=True)
class Case:
    tables: tuple[Table, ...]
    existing: tuple[str, ...]
    planned: tuple[str, ...]
    concurrently: bool
    """Whether the plan is run as it is revised, too."""


def cases(chance: random.Random) -> Case:
    known = tables(chance)
    there = [existing(chance, known) for _ in range(chance.randint(2, 8))]
    wanted = [creates if chance.random() < 0.1 else sound_creates for _ in range(PLAN_SIZE)]
    planned = [make_one(chance, known) for make_one in wanted]
    planned[chance.randrange(PLAN_SIZE)] = drops(chance)
    again = chance.choice(there)  # what exists is wanted again, under its name or another
    if again.startswith("CREATE"):
        planned.append(again)
    if chance.random() < 0.3:  # and so is what is planned, under a name that may be taken
        one, other = chance.sample(planned, 2)
        renamed = re.sub(r"(?<=INDEX )n\d+(?= ON)", f"n{chance.randrange(40)}", one)
        planned[planned.index(other)] = renamed
    return Case(known, tuple(there), tuple(planned), chance.random() < 0.25)


# What the server says


@dataclass(frozen=True, slots=True)
class Fact:
    """An index as the server's catalog has it, read apart from the kit's own queries."""

    table: int
    method: str
    unique: bool
    usable: bool
    immediate: bool
    exclusion: bool
    nulls_not_distinct: bool
    keys: tuple[str, ...]
    include: frozenset[str]
    predicate: str | None


FACT = """
SELECT i.indrelid::bigint,
       am.amname,
       i.indisunique,
       i.indisvalid AND i.indisready AND i.indislive,
       i.indimmediate,
       i.indisexclusion,
       pg_get_indexdef(i.indexrelid) LIKE '%% NULLS NOT DISTINCT%%',
       ARRAY(SELECT concat_ws(' ',
                              pg_get_indexdef(i.indexrelid, k, false),
                              o.opcfamily,
                              o.opcintype,
                              i.indcollation[k - 1],
                              i.indoption[k - 1],
                              a.attoptions::text)
               FROM generate_series(1, i.indnkeyatts) AS k
               JOIN pg_opclass AS o ON o.oid = i.indclass[k - 1]
               JOIN pg_attribute AS a ON a.attrelid = i.indexrelid AND a.attnum = k
              ORDER BY k),
       ARRAY(SELECT pg_get_indexdef(i.indexrelid, k, false)
               FROM generate_series(i.indnkeyatts + 1, i.indnatts) AS k),
       ARRAY(SELECT pg_get_indexdef(i.indexrelid, k, false)
               FROM generate_series(1, i.indnkeyatts) AS k),
       pg_get_expr(i.indpred, i.indrelid)
  FROM pg_index AS i
  JOIN pg_class AS c ON c.oid = i.indexrelid
  JOIN pg_am AS am ON am.oid = c.relam
 WHERE i.indexrelid = %s::regclass
"""


def fact(conn: psycopg.Connection, name: str) -> tuple[Fact, frozenset[str]]:
    """Read an index, and which columns it stores."""
    row = conn.execute(FACT, [name]).fetchone()
    assert row is not None, name
    found = Fact(*row[:7], tuple(row[7]), frozenset(row[8]), row[10])
    return found, found.include | frozenset(row[9])


def covers(conn: psycopg.Connection, keeper_name: str, name: str) -> bool:
    """Decide from the server's catalog alone whether one index does all that another does."""
    (keeper, stored), (index, _) = fact(conn, keeper_name), fact(conn, name)
    alike = keeper.table == index.table and keeper.method == index.method
    ordered = index.method == "btree" and keeper.keys[: len(index.keys)] == index.keys
    enforces = keeper.unique and (keeper.keys, keeper.nulls_not_distinct, keeper.immediate) == (
        index.keys,
        index.nulls_not_distinct,
        index.immediate,
    )
    return (
        alike
        and keeper.usable
        and not index.exclusion
        and keeper.predicate == index.predicate
        and (keeper.keys == index.keys or ordered)
        and index.include <= stored
        and (not index.unique or enforces)
    )


# The property

UNWISE = {
    "partitioned-index",
    "protected-index",  # the server would drop it
    "drops-planned-index",
    "server-too-old",
}
"""Rules that refuse what the server would do, because it would be wrong to do it."""
NOTHING_TO_DO = {"exists", "nothing-to-drop", "missing-index"}
"""Rules that skip what the server refuses or, where the statement allows for it, passes over."""
PASSED_OVER = {"name-taken", "name-twice"}
"""Rules that refuse what IF NOT EXISTS passes over."""
COVERED = {"duplicate-index", "covered-by-existing", "duplicate-in-plan", "covered-by-planned"}


INDEXES = "SELECT indexrelid::bigint FROM pg_index WHERE indexrelid >= 16384"


def indexes(conn: psycopg.Connection) -> set[int]:
    return {oid for (oid,) in conn.execute(INDEXES)}


def refused(conn: psycopg.Connection, text: str) -> str:
    """Run a statement and take it back; return the server's refusal, or nothing."""
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(text)
    except psycopg.Error as error:
        return error.diag.message_primary or str(error)
    return ""


def now(item: StatementAudit) -> str:
    """Write a kept statement as it runs inside of a transaction, part by part if it must be."""
    assert item.revised is not None
    if isinstance(item.revised, CreateIndex) and not item.parts:
        return item.revised.index.revise(concurrently=False).sql
    return ";\n".join(t.replace(" INDEX CONCURRENTLY ", " INDEX ", 1) for t in item.sequence)


def rules(item: StatementAudit) -> set[str]:
    return {finding.rule for finding in item.findings}


def hold_to_the_server(conn: psycopg.Connection, audit: Audit) -> list[str]:
    """Run what the audit says and return where the server says otherwise."""
    wrong: list[str] = []
    with conn.transaction(force_rollback=True):
        wrong += _redundant_ones(conn, audit)
        for item in audit.statements:
            SEEN[item.verdict] += 1
            SEEN.update(f.rule for f in item.findings if f.severity == "error")
            warned = SEEN[WARNED]
            said = _said(conn, item)
            if SEEN[WARNED] > warned:  # the rest of the plan counts on an index that is not there
                return wrong
            if said:
                told = "; ".join(f"{f.rule}: {f.message}" for f in item.findings)
                wrong.append(f"{item.verdict}: {item.statement.text}\n   {said}\n   {told}")
        for item in audit.statements:
            wrong += _covered(conn, item)
    return wrong


def _said(conn: psycopg.Connection, item: StatementAudit) -> str:
    if item.revised is not None:
        before = indexes(conn)
        refusal = refused(conn, now(item))
        if refusal and said_beforehand(item, refusal):
            return ""
        if refusal:
            return f"but the server refuses it: {refusal}"
        conn.execute(now(item))
        if item.parts:
            SEEN["in parts"] += 1
            return _whole(conn, item)
        kinds = (CreateIndex, len(before) + 1), (DropIndex, len(before) - 1)
        [number] = [number for kind, number in kinds if isinstance(item.revised, kind)]
        made = len(indexes(conn))
        return "" if made == number else f"but there are {made} indexes, not {number}"
    text = item.statement.text.replace(" CONCURRENTLY", "")
    silent = "IF NOT EXISTS" in text or "IF EXISTS" in text
    SEEN["silent"] += silent
    if rules(item) & UNWISE or {"unnamed", "exists"} <= rules(item):
        return ""  # of the latter it would make a second one: `_covered` looks at the first
    if silent:
        return _in_silence(conn, item, text)
    if item.verdict == "skip" and not rules(item) & NOTHING_TO_DO:
        return ""
    return "" if refused(conn, text) else "but the server builds it"


VALID = """
SELECT i.indisvalid
  FROM pg_index AS i
  JOIN pg_class AS c ON c.oid = i.indexrelid
 WHERE c.relname = %s
   AND c.relkind = 'I'
   AND i.indrelid = %s::regclass
"""


def _whole(conn: psycopg.Connection, item: StatementAudit) -> str:
    """Say what is wrong with the index of a partitioned table, which must be valid in the end."""
    assert isinstance(item.revised, CreateIndex)
    index = item.revised.index
    found = conn.execute(VALID, [index.name, str(index.table)]).fetchall()
    return "" if found == [(True,)] else f"but it is not valid on every partition: {found}"


def _in_silence(conn: psycopg.Connection, item: StatementAudit, text: str) -> str:
    """Judge a statement that may do nothing without a word: if it does, a rule has the word."""
    with conn.transaction(force_rollback=True):
        before = indexes(conn)
        refusal = refused(conn, text)
        if not refusal:
            conn.execute(text)
        changed = indexes(conn) != before
    if item.verdict == "skip" and rules(item) & NOTHING_TO_DO:
        return f"but the server refuses: {refusal}" if refusal else "but it acts" * changed
    if item.verdict == "skip" or refusal:
        return ""
    if changed:
        return "but the server does it"
    if rules(item) & PASSED_OVER or not isinstance(item.statement, CreateIndex):
        return ""
    # The name is taken, so that the server did not look further; under a free one it has to.
    named = {"name": "probe_of_the_test", "if_not_exists": False, "concurrently": False}
    free = refused(conn, item.statement.index.revise(**named).sql)
    return "" if free else "but the server passes over it in silence, and would build it"


def said_beforehand(item: StatementAudit, refusal: str) -> bool:
    """Return whether the audit warned of just this: how far keys compress only the build tells."""
    said = "wide-key" in rules(item) and refusal.startswith("index row")
    SEEN[WARNED] += said
    return said


def run_as_revised(conn: psycopg.Connection, audit: Audit) -> Iterator[str]:
    """Run the revised plan as it is written, CONCURRENTLY and each statement by itself."""
    for item in audit.kept:
        assert item.revised is not None
        text = ";\n".join(item.sequence)
        SEEN["concurrently"] += "CONCURRENTLY" in text
        try:
            for statement in item.sequence:
                conn.execute(statement)
        except psycopg.Error as error:
            if said_beforehand(item, str(error)):
                for statement in item.backwards:
                    conn.execute(statement)
                continue
            yield f"{item.verdict}: {text}\n   but the server refuses it: {error}"
    broken = conn.execute(BROKEN).fetchall()
    if broken:
        yield f"the revised plan leaves invalid indexes: {broken}"


BROKEN = """
SELECT i.indexrelid::regclass::text
  FROM pg_index AS i
 WHERE NOT i.indisvalid
   AND i.indrelid NOT IN (SELECT partrelid FROM pg_partitioned_table)
"""


def _covered(conn: psycopg.Connection, item: StatementAudit) -> Iterator[str]:
    """What is skipped has a keeper, once the plan is run, that does all that it would do."""
    found = [finding for finding in item.findings if finding.rule in (*COVERED, "exists")]
    unlike = rules(item) & {"missing-column", "missing-table", "wrong-schema"}
    if item.verdict != "skip" or not found or unlike or not isinstance(item.statement, CreateIndex):
        return
    finding = found[-1]
    keeper = dict(finding.evidence).get("index", finding.subject)
    if finding.rule.endswith(("in-plan", "planned")):
        keeper = f"{quote(item.table.schema or '')}.{dict(finding.evidence).get('index', keeper)}"
        if finding.rule == "duplicate-in-plan" and finding.subject == item.label:
            keeper = f"{quote(item.table.schema or '')}.{item.label}"
    probe = item.statement.index.revise(
        name="probe_of_the_test", concurrently=False, if_not_exists=False, table=item.table
    )
    with conn.transaction(force_rollback=True):
        conn.execute(probe.sql)
        name = f"{quote(item.table.schema or '')}.probe_of_the_test"
        row = conn.execute("SELECT to_regclass(%s)", [str(keeper)]).fetchone()
        if row == (None,):
            yield f"skip: {item.statement.text}\n   but there is no {keeper}"
        elif (finding.rule != "exists" or "unnamed" in rules(item)) and not covers(
            conn, str(keeper), name
        ):
            yield f"skip: {item.statement.text}\n   but {keeper} does not cover it"


def _redundant_ones(conn: psycopg.Connection, audit: Audit) -> Iterator[str]:
    called = [
        (item, finding)
        for item in audit.existing
        for finding in item.findings
        if finding.rule in ("duplicate-index", "redundant-index")
    ]
    gone = {item.label for item, _ in called}
    for item, finding in called:
        keeper = str(dict(finding.evidence)["keeper"])
        if keeper in gone:
            yield f"{item.label} is redundant by {keeper}, which is redundant as well"
        if not covers(conn, keeper, item.label):
            yield f"{item.label} is called redundant, but {keeper} does not cover it"
        SEEN["redundant"] += 1
    with conn.transaction(force_rollback=True):
        for name in gone:
            refusal = refused(conn, f"DROP INDEX {name}")
            if refusal:
                yield f"{name} is redundant, but cannot be dropped: {refusal}"


# Servers


@pytest.fixture(scope="module", params=["embedded", pytest.param("15", marks=pytest.mark.pg15)])
def conn(request: pytest.FixtureRequest) -> Iterator[psycopg.Connection]:
    """A session on a database of the module's own."""
    which = "embedded_server" if request.param == "embedded" else "pg15_server"
    conninfo: Callable[[str], str] = request.getfixturevalue(which).conninfo
    name = f"property_{next(_numbers)}"
    # The audit asks the user's own embedded server, which is kept from plan to plan.
    with embedded.server(), psycopg.connect(conninfo("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        with psycopg.connect(conninfo(name), autocommit=True) as session:
            session.execute("SET client_min_messages = warning")
            session.execute("SET search_path = public, s1")
            yield session
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


EMPTY = """
DROP SCHEMA IF EXISTS public, s1, "Odd 'S'" CASCADE;
CREATE SCHEMA public;
"""


def make(conn: psycopg.Connection, case: Case) -> None:
    conn.execute(EMPTY + BASIS)
    for table in case.tables:
        if table.kind != "plain" and refused(conn, table.sql()):
            conn.execute(Table(table.schema, table.name, table.columns, "plain").sql())
        else:
            conn.execute(table.sql())
        if table.rows and not refused(conn, table.filling() or "SELECT 1"):
            conn.execute(table.filling() or "SELECT 1")
    for text in case.existing:
        if not refused(conn, text):
            conn.execute(text)


def readable(text: str) -> bool:
    """Return whether the kit reads the statement at all; what it cannot write back it refuses."""
    try:
        plan.parse(text)
    except InputError:
        return False
    return True


def test_the_audit_says_what_the_server_does(conn: psycopg.Connection) -> None:
    """Each drawn number is a case: drawn piece by piece, most cases would repeat others."""
    done: set[tuple[tuple[Table, ...], str]] = set()
    numbers: set[int] = set()
    found: list[str] = []
    SEEN.clear()

    @settings(
        max_examples=50,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**62))
    def holds(number: int) -> None:
        if number in numbers:
            return
        numbers.add(number)
        case = cases(random.Random(number))
        planned = [text for text in case.planned if readable(text)]
        if not planned:
            return
        make(conn, case)
        _, audit = auditing.read(conn, plan.parse(";\n".join(planned)))
        done.update((case.tables, text) for text in planned)
        wrong = hold_to_the_server(conn, audit)
        if case.concurrently and not wrong:
            wrong += run_as_revised(conn, audit)
        found.extend(wrong)

    for number in itertools.count():  # what hypothesis makes comes twice now and then
        seed(number)(holds)()
        if len(done) >= STATEMENTS or len(found) > 9:
            break
    server = conn.info.parameter_status("server_version")
    print(
        f"\n{server}: {len(done)} different statements, {len(found)} counterexamples; "
        + ", ".join(f"{number} {what}" for what, number in sorted(SEEN.items())),
        end="",
    )
    assert not found, "\n".join(dict.fromkeys(found))
