"""Make a database of many tables and indexes, and a plan for it, to measure the audit with.

`many_tables.py fill CONNINFO TABLES` fills a database, each table with five indexes;
`many_tables.py measure CONNINFO TABLES` prints how long the audit of as many statements takes.
`fill-one CONNINFO 1` and `measure-one CONNINFO STATEMENTS` do the same with one table that all
statements are on.
"""

from __future__ import annotations

import itertools
import json
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

import psycopg

from indexlab import audit, catalog, embedded
from indexlab.plan import parse

INDEXES = (
    "CREATE INDEX {name}_customer ON {table} (customer_id)",
    "CREATE INDEX {name}_recent ON {table} (customer_id, created_at DESC) INCLUDE (total)",
    "CREATE INDEX {name}_open ON {table} (created_at) WHERE status = 'open'",
    "CREATE INDEX {name}_mail ON {table} (lower(email))",
)
"""Beside the primary key of each table; the first is a prefix of the second."""
PLANNED = (
    "CREATE INDEX ON {table} (customer_id)",
    "CREATE INDEX {name}_date ON {table} (date)",
    "CREATE INDEX {name}_status_total ON {table} (status, total)",
    "CREATE INDEX {name}_lower ON {table} (lower(status)) WHERE total > 10",
    "CREATE INDEX {name}_created ON {bare} (event_created_at)",
    "CREATE INDEX {name}_tags ON {table} USING gin (tags)",
    "CREATE UNIQUE INDEX {name}_hash ON {table} USING hash (email)",
    "CREATE INDEX {name}_parent ON {table} (parent_id, created_at)",
    "CREATE INDEX {name}_misspelled ON {table}x (email)",
    "DROP INDEX {table}_customer",
)
"""What a team writes: sound, there already, misspelled, impossible."""


def schema(tables: int) -> Iterator[str]:
    """Write the statements that make the tables in ten schemas, with their indexes."""
    yield from (f"CREATE SCHEMA s{number}" for number in range(10))
    for number in range(tables):
        name, table = f"t{number}", f"s{number % 10}.t{number}"
        parent = f"s{(number - 10) % 10}.t{number - 10}" if number >= 10 else table
        yield (
            f"CREATE TABLE {table} (id bigint PRIMARY KEY, parent_id bigint REFERENCES {parent},"
            ' customer_id int NOT NULL, status varchar(20), email text COLLATE "C",'
            " total numeric(10, 2), tags text[], details jsonb, date date, created_at timestamptz)"
        )
        yield from (text.format(name=name, table=table) for text in INDEXES)


def plan(statements: int, tables: int) -> str:
    """Write a plan of so many statements, spread over the tables."""
    texts = []
    for number in range(statements):
        table = number * tables // statements
        texts.append(
            PLANNED[number % len(PLANNED)].format(
                name=f"p{number}_t{table}", table=f"s{table % 10}.t{table}", bare=f"t{table}"
            )
        )
    return ";\n".join(texts)


def fill(conn: psycopg.Connection, tables: int) -> None:
    """Make the tables and indexes, in portions that the lock table can hold."""
    texts = list(schema(tables))
    for start in range(0, len(texts), 500):
        conn.execute("; ".join(texts[start : start + 500]))
    conn.execute("ANALYZE")


class Counted(psycopg.Connection):
    """A connection that counts how often it waits for the server's answer."""

    trips = 0

    def wait(self, *args: Any, **kwargs: Any) -> Any:
        """Count each exchange with the server."""
        self.trips += 1
        return super().wait(*args, **kwargs)


def measure(conninfo: str, tables: int) -> dict[str, float]:
    """Time what the kit does in process, once: a new process and new sessions, as a user has."""
    planned = parse(plan(tables, tables))
    with Counted.connect(conninfo, autocommit=True) as conn:
        began = time.perf_counter()
        before = conn.trips
        snapshot = catalog.read(conn)
        read = time.perf_counter() - began
        trips = conn.trips - before
        worded = catalog.with_expressions(conn, snapshot, planned)
        began = time.perf_counter()
        audit.audit(worded, planned)
        audited = time.perf_counter() - began
    # The server that is asked about expressions runs already; starting it is not the audit's work.
    with embedded.server(), psycopg.connect(conninfo, autocommit=True) as conn:
        began = time.perf_counter()
        audit.read(conn, planned)
        whole = time.perf_counter() - began
    return {
        "trips": trips,
        "read": read,
        "audit": audited,
        "whole": whole,
        "indexes": len(snapshot.indexes),
        "items": len(snapshot.relations) + len(planned.statements),
        "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


ONE_TABLE = 40
"""How many columns the one table has, each with an index."""


def fill_one(conn: psycopg.Connection) -> None:
    """Make one table with an index on each of its columns."""
    columns = ", ".join(f"c{number} int" for number in range(ONE_TABLE))
    conn.execute(f"CREATE TABLE one (id bigint PRIMARY KEY, {columns})")
    conn.execute("; ".join(f"CREATE INDEX ON one (c{number})" for number in range(ONE_TABLE)))


def measure_one(conninfo: str, statements: int) -> dict[str, float]:
    """Time the audit of a plan whose statements are all on one table: nothing tells them apart."""
    pairs = itertools.permutations(range(ONE_TABLE), 2)
    texts = [f"CREATE INDEX ON one (c{a}, c{b})" for a, b in itertools.islice(pairs, statements)]
    planned = parse(";\n".join(texts))
    assert len(planned.creates) == statements
    with psycopg.connect(conninfo, autocommit=True) as conn:
        snapshot = catalog.read(conn)
    began = time.perf_counter()
    audit.audit(snapshot, planned)
    return {"audit": time.perf_counter() - began}


if __name__ == "__main__":
    what, address, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if what == "measure":
        print(json.dumps(measure(address, number)))
    elif what == "measure-one":
        print(json.dumps(measure_one(address, number)))
    else:
        with psycopg.connect(address, autocommit=True) as connection:
            fill_one(connection) if what == "fill-one" else fill(connection, number)
