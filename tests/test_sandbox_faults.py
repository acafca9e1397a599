"""The sandbox where targets are odd, refuse something, or the process is killed."""

from __future__ import annotations

import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from indexlab import catalog, embedded, explain, plan, target, workload
from indexlab.embedded import Server
from indexlab.embedded.account import choose_account
from indexlab.embedded.watcher import processes, tag_of
from indexlab.errors import SandboxError
from indexlab.sandbox import Sandbox, databases, open_hypopg, open_sandbox
from indexlab.sandbox.files import Files
from indexlab.sql import RelationName
from indexlab.target import Target

_numbers = itertools.count(1)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[Server]:
    """The sandboxes' server, kept from test to test."""
    with databases.cluster() as server:
        yield server


@pytest.fixture
def conn(database: Target) -> Iterator[psycopg.Connection]:
    with target.connect(database) as session:
        yield session


@pytest.fixture
def old(pg15_server) -> Iterator[Target]:
    """A fresh database of PostgreSQL 15."""
    name = f"old_{next(_numbers)}"
    with psycopg.connect(pg15_server.conninfo(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        yield target.resolve(pg15_server.conninfo(name), {})
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def sandboxed(
    where: Target, plan_text: str = "", *queries: str, **options: bool
) -> Iterator[Sandbox]:
    wanted = plan.parse(plan_text) if plan_text else None
    text = "\n".join(f"-- name: q{i}\n{query};" for i, query in enumerate(queries))
    work = workload.parse(text) if queries else None
    with target.connect(where) as session:
        snapshot = catalog.read(session, wanted)
    with open_sandbox(where, snapshot, wanted, work, **options) as sandbox:
        yield sandbox


def agrees(sandbox: Sandbox, session: psycopg.Connection, query: str) -> bool:
    """Whether the plan is the target's, costs and all."""
    here, there = sandbox.explain(query, ()), explain.run(session, query, (), analyze=False)
    # The settings are told with the values that were never set.
    assert replace(here, settings=()).text() == replace(there, settings=()).text()
    return True


def lacking(sandbox: Sandbox) -> dict[str, str]:
    return {item.object: item.reason for item in sandbox.lacking}


# Tables of all kinds


@pytest.mark.parametrize(
    "then", ["", "DELETE FROM t; VACUUM t", "ANALYZE t", "VACUUM t", "TRUNCATE t"]
)
def test_tables_that_were_never_analyzed_or_are_empty(
    database: Target, conn: psycopg.Connection, then: str
):
    conn.execute("CREATE TABLE t (a int PRIMARY KEY, b text)")
    conn.execute("INSERT INTO t SELECT i, 'b' || i FROM generate_series(1, 30000) AS i")
    for statement in filter(None, then.split(";")):
        conn.execute(statement.encode())
    queries = ("SELECT * FROM t WHERE b = 'b7'", "SELECT * FROM t WHERE a < 100")
    with sandboxed(database, "CREATE INDEX t_b ON t (b)", *queries) as sandbox:
        assert all(agrees(sandbox, conn, query) for query in queries)
        added = sandbox.add(plan.parse("CREATE INDEX t_b ON t (b)").creates[0])
        assert added.pages >= 1
        conn.execute("CREATE INDEX t_b ON t (b)")
        assert sandbox.explain(queries[0], ()).root.type == (
            explain.run(conn, queries[0], (), analyze=False).root.type
        )


PARTITIONED = """
CREATE TABLE p (id int, at date NOT NULL, who int) PARTITION BY RANGE (at);
CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
CREATE TABLE p_3 PARTITION OF p FOR VALUES FROM ('2024-03-01') TO ('2025-01-01')
    PARTITION BY LIST (who);
CREATE TABLE p_3a PARTITION OF p_3 DEFAULT;
CREATE INDEX p_at ON p (at);
INSERT INTO p SELECT i, DATE '2024-01-01' + (i % 90), i % 3000 FROM generate_series(1, 60000) AS i;
VACUUM ANALYZE p;
"""


def test_partitions_with_the_statistics_of_the_whole(database: Target, conn: psycopg.Connection):
    for statement in filter(str.strip, PARTITIONED.split(";")):
        conn.execute(statement.encode())
    queries = (
        "SELECT * FROM p WHERE who = 5",
        "SELECT * FROM p WHERE at = '2024-01-05'",
        "SELECT count(*) FROM p WHERE at > '2024-02-20'",
        "SELECT * FROM p AS a JOIN p AS b ON a.who = b.id WHERE a.id = 9",
    )
    planned = "CREATE INDEX p_who ON p (who)"
    with sandboxed(database, planned, *queries) as sandbox:
        assert all(agrees(sandbox, conn, query) for query in queries)
        added = sandbox.add(plan.parse(planned).creates[0])
        conn.execute(planned)
        here = sandbox.explain(queries[0], ())
        there = explain.run(conn, queries[0], (), analyze=False)
        assert here.shape == there.shape
        assert here.root.total_cost == pytest.approx(there.root.total_cost, rel=0.02)
        sandbox.hide([added.index])
        assert not any("who" in name for name in sandbox.explain(queries[0], ()).indexes)
    assert added.bytes == pytest.approx(
        sum(
            conn.execute("SELECT pg_relation_size(%s)", [f"{leaf}_who_idx"]).fetchone()[0]
            for leaf in ("p_1", "p_2", "p_3a")
        ),
        rel=0.1,
    )


def test_inheritance_with_its_exclusion_by_constraints(database: Target, conn: psycopg.Connection):
    conn.execute(
        """
        CREATE TABLE log (id int, at date);
        CREATE TABLE log_1 (CHECK (at < '2024-02-01')) INHERITS (log);
        CREATE TABLE log_2 (CHECK (at >= '2024-02-01'), extra text DEFAULT 'x') INHERITS (log);
        INSERT INTO log_1 SELECT i, DATE '2024-01-01' FROM generate_series(1, 9000) AS i;
        INSERT INTO log_2 SELECT i, DATE '2024-03-01' FROM generate_series(1, 9000) AS i;
        ANALYZE log; ANALYZE log_1; ANALYZE log_2;
        """
    )
    query = "SELECT * FROM log WHERE at = '2024-03-01' AND id = 7"
    with sandboxed(database, "", query) as sandbox:
        assert agrees(sandbox, conn, query)
        assert "public.log_1" not in sandbox.explain(query, ()).text()


def test_a_foreign_table_is_said_to_be_lacking(database: Target, conn: psycopg.Connection):
    conn.execute(
        """
        CREATE EXTENSION postgres_fdw;
        CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'nowhere');
        CREATE FOREIGN TABLE away (id int) SERVER far;
        CREATE TABLE here (id int);
        """
    )
    with sandboxed(database, "", "SELECT * FROM away", "SELECT * FROM here") as sandbox:
        assert agrees(sandbox, conn, "SELECT * FROM here")
        assert "foreign table public.away" in lacking(sandbox)
        with pytest.raises(SandboxError, match=r"not simulated.*another server"):
            sandbox.explain("SELECT * FROM away JOIN here USING (id)", ())


def test_views_of_views_and_materialized_ones(database: Target, conn: psycopg.Connection):
    conn.execute(
        """
        CREATE TABLE t (a int PRIMARY KEY, b int);
        INSERT INTO t SELECT i, i % 10 FROM generate_series(1, 20000) AS i;
        CREATE VIEW one AS SELECT a, b FROM t WHERE b > 2;
        CREATE VIEW two WITH (security_barrier) AS SELECT a FROM one WHERE b < 9;
        CREATE MATERIALIZED VIEW kept AS SELECT b, count(*) AS n FROM two JOIN t USING (a) GROUP BY b;
        CREATE INDEX ON kept (n);
        ANALYZE;
        """
    )
    queries = ("SELECT * FROM two WHERE a = 5", "SELECT * FROM kept WHERE n = 2000")
    with sandboxed(database, "", *queries) as sandbox:
        assert all(agrees(sandbox, conn, query) for query in queries)
        assert sandbox.lacking == ()


def test_functions_of_other_schemas_in_expressions(database: Target, conn: psycopg.Connection):
    conn.execute(
        """
        CREATE SCHEMA "Ütil";
        CREATE FUNCTION "Ütil".deeper(text) RETURNS text LANGUAGE sql IMMUTABLE
            AS 'SELECT lower($1)';
        CREATE FUNCTION "Ütil".norm(text) RETURNS text LANGUAGE sql IMMUTABLE
            RETURN "Ütil".deeper($1);
        CREATE FUNCTION "Ütil".plain(text) RETURNS text LANGUAGE plpgsql IMMUTABLE
            AS 'BEGIN RETURN upper($1); END';
        CREATE TYPE "Ütil".mood AS ENUM ('good', 'bad');
        CREATE DOMAIN "Ütil".short AS text CHECK ("Ütil".norm(VALUE) <> '');
        CREATE TABLE t (a int, name text, m "Ütil".mood, s "Ütil".short,
                        big text GENERATED ALWAYS AS (upper(name)) STORED);
        CREATE FUNCTION of_row(t) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1.a + 1';
        INSERT INTO t SELECT i, 'N' || i, 'good', 's' || i FROM generate_series(1, 9000) AS i;
        CREATE INDEX t_norm ON t ("Ütil".norm(name));
        CREATE INDEX t_row ON t (of_row(t));
        ANALYZE t;
        """
    )
    queries = (
        "SELECT a FROM t WHERE \"Ütil\".norm(name) = 'n77'",
        "SELECT a FROM t WHERE of_row(t) = 5",
        "SELECT a FROM t WHERE m = 'bad' AND s > 's5' AND big = 'N5'",
    )
    planned = 'CREATE INDEX t_plain ON t ("Ütil".plain(name))'
    with sandboxed(database, planned, *queries) as sandbox:
        assert all(agrees(sandbox, conn, query) for query in queries)
        sandbox.add(plan.parse(planned).creates[0])
        found = sandbox.explain("SELECT a FROM t WHERE \"Ütil\".plain(name) = 'N77'", ())
        assert found.indexes == ("t_plain",)


def test_names_with_quotes_dots_stars_and_all_their_bytes(
    database: Target, conn: psycopg.Connection
):
    schema, name, index = 'a.b"c', 'Tä$b*|(x)?.\n"q"', "ü" * 31 + "x"
    table = sql.Identifier(schema, name)
    conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    conn.execute(sql.SQL('CREATE TABLE {} ("Id" int PRIMARY KEY, "sp ace" text)').format(table))
    conn.execute("CREATE TABLE left_out (id int)")
    conn.execute(
        sql.SQL("INSERT INTO {} SELECT i, 's' || i FROM generate_series(1, 9000) AS i").format(
            table
        )
    )
    conn.execute("ANALYZE")
    named = table.as_string(conn)
    planned = f'CREATE INDEX "{index}" ON {named} ("sp ace")'
    query = f"SELECT * FROM {named} WHERE \"sp ace\" = 's7'"
    with sandboxed(database, planned, query) as sandbox:
        assert agrees(sandbox, conn, query)
        added = sandbox.add(plan.parse(planned).creates[0])
        assert added.index == RelationName(schema, index)
        assert sandbox.explain(query, ()).indexes == (index,)
        sandbox.hide([added.index])
        assert sandbox.explain(query, ()).indexes == ()
        with pytest.raises(SandboxError, match="left_out"):
            sandbox.add(plan.parse("CREATE INDEX ON left_out (id)").creates[0])


def test_statistics_of_several_columns_come_along(database: Target, conn: psycopg.Connection):
    conn.execute(
        """
        CREATE TABLE t (a int, b int, c int);
        INSERT INTO t SELECT i % 100, i % 100, i % 50 FROM generate_series(1, 20000) AS i;
        CREATE STATISTICS both_ (ndistinct, dependencies) ON a, b, c FROM t;
        CREATE STATISTICS most (mcv) ON a, c FROM t;
        ANALYZE t;
        """
    )
    grouped = "SELECT a, b, count(*) FROM t GROUP BY a, b"
    with sandboxed(database, "", grouped) as sandbox:
        assert agrees(sandbox, conn, grouped)
        assert agrees(sandbox, conn, "SELECT * FROM t WHERE a = 1 AND b = 1")
        assert any("public.most" in note for note in sandbox.notes)
        assert not any("both_" in note for note in sandbox.notes)


# What the sandbox's server cannot have


@pytest.mark.pg15
def test_defaults_of_absent_extensions_do_not_lose_their_table(old: Target):
    with target.connect(old) as session:
        session.execute(
            """
            CREATE EXTENSION pgcrypto; CREATE EXTENSION "uuid-ossp";
            CREATE TABLE t (id uuid PRIMARY KEY DEFAULT uuid_generate_v4(), secret bytea
                            DEFAULT digest('x', 'md5'), a int CHECK (digest('y', 'md5') <> ''));
            INSERT INTO t (a) SELECT i FROM generate_series(1, 5000) AS i;
            CREATE VIEW hashed AS SELECT digest(a::text, 'md5') AS d FROM t;
            CREATE INDEX t_digest ON t (digest(a::text, 'md5'));
            ANALYZE t;
            """
        )
        query = "SELECT id FROM t WHERE a = 7"
        with sandboxed(old, "CREATE INDEX t_a ON t (a)", query, "SELECT * FROM hashed") as sandbox:
            there = explain.run(session, query, (), analyze=False)
            assert sandbox.explain(query, ()).root.total_cost == there.root.total_cost
            sandbox.add(plan.parse("CREATE INDEX t_a ON t (a)").creates[0])
            assert sandbox.explain(query, ()).indexes == ("t_a",)
            assert {"extension pgcrypto", 'extension "uuid-ossp"', "view public.hashed"} <= set(
                lacking(sandbox)
            )
            assert "digest" in lacking(sandbox)["index public.t_digest"]
            with pytest.raises(SandboxError, match=r"not simulated.*hashed.*pgcrypto"):
                sandbox.explain("SELECT * FROM hashed", ())
            with pytest.raises(SandboxError, match="digest"):
                sandbox.add(plan.parse("CREATE INDEX ON t (digest(id::text, 'md5'))").creates[0])


def test_a_type_that_only_its_library_knows_gets_a_stand_in(
    database: Target, conn: psycopg.Connection
):
    conn.execute(
        """
        CREATE SCHEMA gis; CREATE TYPE gis.geo;
        CREATE FUNCTION gis.geo_in(cstring) RETURNS gis.geo LANGUAGE internal IMMUTABLE STRICT
            AS 'textin';
        CREATE FUNCTION gis.geo_out(gis.geo) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT
            AS 'textout';
        CREATE FUNCTION gis.geo_mod(cstring[]) RETURNS int LANGUAGE internal IMMUTABLE STRICT
            AS 'numerictypmodin';
        CREATE TYPE gis.geo (INPUT = gis.geo_in, OUTPUT = gis.geo_out, TYPMOD_IN = gis.geo_mod);
        CREATE TABLE place (id int PRIMARY KEY, at gis.geo(4, 2), name text);
        INSERT INTO place SELECT i, ('POINT' || i)::gis.geo, 'n' FROM generate_series(1, 9000) AS i;
        ANALYZE place;
        """
    )
    query = "SELECT * FROM place WHERE id = 5"
    with sandboxed(database, "", query) as sandbox:
        assert agrees(sandbox, conn, query)
        assert "type gis.geo" in lacking(sandbox)


@pytest.mark.pg15
def test_collations_of_icu_get_stand_ins_and_a_word(old: Target):
    with target.connect(old) as session:
        session.execute(
            """
            CREATE COLLATION blind (provider = icu, locale = 'und', deterministic = false);
            CREATE TABLE t (a text COLLATE "de-x-icu", b text COLLATE blind, c text, d text);
            INSERT INTO t SELECT 'a' || i, 'b' || i, 'c' || i FROM generate_series(1, 9000) AS i;
            CREATE INDEX t_a ON t (a);
            CREATE INDEX t_b ON t (b);
            CREATE INDEX t_c ON t (c COLLATE "sv-x-icu");
            ANALYZE t;
            """
        )
        queries = (
            "SELECT c FROM t WHERE a = 'a7'",
            "SELECT c FROM t WHERE a LIKE 'a77%'",
            "SELECT c FROM t WHERE b = 'b7'",
            "SELECT a FROM t WHERE c = 'c7' COLLATE \"sv-x-icu\"",
        )
        with sandboxed(old, "", *queries) as sandbox:
            for query in queries:
                there = explain.run(session, query, (), analyze=False)
                assert sandbox.explain(query, ()).shape == there.shape, query
            told = " ".join(sandbox.notes)
            assert all(name in told for name in ("de-x-icu", "sv-x-icu", "public.blind"))
            assert sandbox.lacking == ()


@pytest.mark.pg15
@pytest.mark.parametrize(
    ("locale", "indexed"),
    [
        ("LOCALE 'C'", True),
        ("LOCALE 'C.UTF-8'", False),
        ("LOCALE_PROVIDER icu ICU_LOCALE 'de' LOCALE 'C'", False),
    ],
)
def test_like_uses_an_index_where_the_target_would(pg15_server, locale: str, indexed: bool):
    name = f"like_{next(_numbers)}"
    with psycopg.connect(pg15_server.conninfo(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 {locale}".encode())
    where = target.resolve(pg15_server.conninfo(name), {})
    with target.connect(where) as session:
        session.execute("CREATE TABLE t (a text)")
        session.execute("INSERT INTO t SELECT 'a' || i FROM generate_series(1, 20000) AS i")
        session.execute("CREATE INDEX t_a ON t (a)")
        session.execute("ANALYZE t")
        query = "SELECT a FROM t WHERE a LIKE 'a777%' ORDER BY random()"
        with sandboxed(where, "", query) as sandbox:
            here = sandbox.explain(query, ())
            there = explain.run(session, query, (), analyze=False)
        assert here.shape == there.shape
        assert any("Index Cond" in dict(node.conditions) for node in here.nodes()) == indexed


# What the role may not


@pytest.mark.parametrize(
    ("forbid", "reason"),
    [
        ("REVOKE SELECT ON closed FROM reader_{n}", "lacks SELECT on public.closed"),
        ("GRANT SELECT (a) ON closed TO reader_{n}; REVOKE SELECT ON closed FROM reader_{n}",
         "lacks SELECT on public.closed"),
        ("CREATE SCHEMA s; ALTER TABLE closed SET SCHEMA s", "lacks USAGE on schema s"),
    ],
)  # fmt: skip
def test_a_table_that_the_role_may_not_read_is_named(
    database: Target, conn: psycopg.Connection, forbid: str, reason: str
):
    n = next(_numbers)
    conn.execute(
        f"""
        CREATE ROLE reader_{n} LOGIN;
        CREATE TABLE closed (a int PRIMARY KEY); CREATE TABLE open_ (a int REFERENCES closed);
        INSERT INTO closed SELECT generate_series(1, 5000);
        INSERT INTO open_ SELECT generate_series(1, 5000);
        ANALYZE;
        GRANT SELECT ON closed, open_ TO reader_{n};
        {forbid.format(n=n)}
        """
    )
    where = target.resolve(database.conninfo.replace("user=postgres", f"user=reader_{n}"), {})
    closed = "s.closed" if "SCHEMA" in forbid else "closed"
    try:
        query = "SELECT * FROM open_ WHERE a = 7"
        with sandboxed(where, "", query, f"SELECT * FROM {closed}") as sandbox:
            assert agrees(sandbox, conn, query)
            assert any(reason in why for why in lacking(sandbox).values())
            with pytest.raises(SandboxError, match=f"not simulated.*{reason}"):
                sandbox.explain(f"SELECT * FROM {closed} JOIN open_ USING (a)", ())
            with pytest.raises(SandboxError, match=reason):
                sandbox.add(plan.parse(f"CREATE INDEX ON {closed} (a)").creates[0])
    finally:
        conn.execute(f"DROP OWNED BY reader_{n}; DROP ROLE reader_{n}")


def test_row_security_is_said_to_change_the_plan(database: Target, conn: psycopg.Connection):
    n = next(_numbers)
    conn.execute(
        f"""
        CREATE ROLE reader_{n} LOGIN;
        CREATE TABLE t (a int PRIMARY KEY, tenant text);
        INSERT INTO t SELECT i, 'x' FROM generate_series(1, 5000) AS i;
        ALTER TABLE t ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON t USING (tenant = current_user);
        GRANT SELECT ON t TO reader_{n}; ANALYZE t;
        """
    )
    where = target.resolve(database.conninfo.replace("user=postgres", f"user=reader_{n}"), {})
    try:
        with sandboxed(where, "", "SELECT * FROM t") as sandbox:
            assert sandbox.explain("SELECT * FROM t", ()).root.type == "Seq Scan"
            assert any("row security is active" in note for note in sandbox.notes)
        with sandboxed(database, "", "SELECT * FROM t") as sandbox:
            assert agrees(sandbox, conn, "SELECT * FROM t")
            assert not any("row security" in note for note in sandbox.notes)
    finally:
        conn.execute(f"DROP OWNED BY reader_{n}; DROP ROLE reader_{n}")


@pytest.mark.pg15
def test_a_password_goes_to_nobody(pg15_server, old: Target, monkeypatch: pytest.MonkeyPatch):
    name = old.conninfo.partition("dbname=")[2].split()[0]
    where = target.resolve(pg15_server.uri(pg15_server.password, name), {})
    seen: list[str] = []
    start = subprocess.run

    def run(argv, **options):
        seen.append(f"{argv} {options.get('env')}")
        return start(argv, **options)

    monkeypatch.setattr(subprocess, "run", run)
    with target.connect(old) as session:
        session.execute("CREATE TABLE t (a int)")
    with sandboxed(where, "", "SELECT * FROM t") as sandbox:
        assert sandbox.explain("SELECT * FROM t", ()).root.type == "Seq Scan"
        shown = f"{sandbox} {sandbox.name} {sandbox.notes}"
    core = pg15_server.password[:16]
    assert any("pg_dump" in words for words in seen)
    assert not any(core in words for words in [*seen, shown])


def test_functions_of_the_target_have_no_power(database: Target, conn: psycopg.Connection):
    conn.execute(
        """
        CREATE FUNCTION who() RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
        BEGIN
            RETURN session_user || current_setting('is_superuser');
        END $$;
        CREATE FUNCTION climb() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
        BEGIN
            PERFORM set_config('session_authorization', 'postgres', false); RETURN 1;
        END $$;
        CREATE TABLE t (a text);
        """
    )
    query = "SELECT * FROM t WHERE a = who()"
    with sandboxed(database, "", query) as sandbox:
        assert f"{databases.ROLE}off" in sandbox.explain(query, ()).text()
        with pytest.raises(SandboxError, match="permission denied"):
            sandbox.explain("SELECT * FROM t WHERE a = climb()::text", ())


# Sizes


def test_a_table_of_five_terabytes_takes_no_room(
    database: Target, conn: psycopg.Connection, embedded_server: Server, cluster: Server
):
    conn.execute("CREATE TABLE huge (a bigint, b text)")
    conn.execute("INSERT INTO huge SELECT i, 'x' || i FROM generate_series(1, 1000) AS i")
    conn.execute("CREATE INDEX huge_a ON huge (a)")
    conn.execute("ANALYZE huge")
    pages = 5 * 2**40 // 8192
    path = conn.execute("SELECT pg_relation_filepath('huge')").fetchone()[0]
    conn.execute("CHECKPOINT")
    Files.of(embedded_server).extend(path, pages)
    with target.connect(database) as fresh:
        assert fresh.execute("SELECT pg_relation_size('huge')").fetchone()[0] == pages * 8192
        query = "SELECT * FROM huge WHERE b = 'x5'"
        free = shutil.disk_usage(cluster.data_dir).free
        with sandboxed(database, "CREATE INDEX huge_b ON huge (b)", query) as sandbox:
            assert free - shutil.disk_usage(cluster.data_dir).free < 2**30
            assert agrees(sandbox, fresh, query)
            added = sandbox.add(plan.parse("CREATE INDEX huge_b ON huge (b)").creates[0])
            assert sandbox.explain(query, ()).indexes == ("huge_b",)
            assert agrees(sandbox, fresh, "SELECT count(*) FROM huge")
            assert added.pages > 0


@contextmanager
def no_sparse_files() -> Iterator[None]:
    """Limit the size of this process's files: refused is what a disk without holes refuses."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.parametrize(("rows", "fits"), [(20000, True), (200000, False)])
def test_without_sparse_files_sizes_are_real_where_they_fit_and_else_it_is_said(
    database: Target, conn: psycopg.Connection, rows: int, fits: bool
):
    conn.execute("CREATE TABLE t (a int)")
    conn.execute("INSERT INTO t SELECT generate_series(1, %s)", [rows])
    conn.execute("ANALYZE t")
    planned, query = "CREATE INDEX t_a ON t (a)", "SELECT * FROM t WHERE a = 1"
    with no_sparse_files(), sandboxed(database, planned, query) as sandbox:
        assert any("sparse" in note for note in sandbox.notes) == (not fits)
        assert sandbox.explain(query, ()).root.type == "Seq Scan"
        assert not fits or agrees(sandbox, conn, query)
        sandbox.add(plan.parse(planned).creates[0])
        assert sandbox.explain(query, ()).root.plan_rows >= 1


# Others at work, and killed ones


def left(cluster: Server) -> set[str]:
    return {name for name in cluster.databases() if name.startswith(databases.PREFIX)}


def test_two_sandboxes_at_once_do_not_meet(database: Target, conn: psycopg.Connection, cluster):
    conn.execute("CREATE TABLE t (a int)")
    conn.execute("INSERT INTO t SELECT generate_series(1, 9000)")
    conn.execute("ANALYZE t")
    planned, query = "CREATE INDEX t_a ON t (a)", "SELECT * FROM t WHERE a = 1"
    with sandboxed(database, planned, query) as one, sandboxed(database, planned, query) as two:
        one.add(plan.parse(planned).creates[0])
        assert one.explain(query, ()).indexes == ("t_a",)
        assert two.explain(query, ()).indexes == ()
        assert len(left(cluster)) == 2
    assert left(cluster) == set()


def names(cluster: Server, database: str) -> set[str]:
    """What the users of a database have made in it."""
    with psycopg.connect(cluster.conninfo(database)) as conn:
        rows = conn.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE oid >= 16384"
            " UNION SELECT oid::regprocedure::text FROM pg_proc WHERE oid >= 16384"
            " UNION SELECT nspname FROM pg_namespace WHERE oid >= 16384"
            " UNION SELECT extname FROM pg_extension WHERE oid >= 16384"
            " UNION SELECT starelid::text FROM pg_statistic WHERE starelid >= 16384"
        )
        return {name for (name,) in rows}


def test_sandboxes_in_a_series_use_one_database_and_leave_nothing_in_it(
    database: Target, conn: psycopg.Connection, cluster: Server
):
    conn.execute("CREATE EXTENSION citext; CREATE SCHEMA first")
    conn.execute("CREATE TABLE first.secrets (a int PRIMARY KEY, word citext)")
    conn.execute("INSERT INTO first.secrets SELECT n, 'w' || n FROM generate_series(1, 900) AS n")
    conn.execute("CREATE STATISTICS first.s ON a, word FROM first.secrets; ANALYZE")
    planned, query = "CREATE INDEX i ON first.secrets (word)", "SELECT * FROM first.secrets"
    with databases.in_series(cluster):
        with sandboxed(database, planned, query) as sandbox:
            sandbox.add(plan.parse(planned).creates[0])
            used = left(cluster)
            assert names(cluster, *used) >= {"first", "first.secrets", "first.i", "citext"}
        assert names(cluster, *used) == set()
        conn.execute("DROP SCHEMA first CASCADE; CREATE TABLE t (a int)")
        with sandboxed(database, "", "SELECT * FROM t") as sandbox:
            assert left(cluster) == used
            assert "first" not in names(cluster, *used)
            assert agrees(sandbox, conn, "SELECT * FROM t")
            with pytest.raises(SandboxError, match="does not exist"):
                sandbox.explain(query, ())
        with sandboxed(database, "", "SELECT * FROM pg_class, t"):
            assert len(left(cluster)) == 2  # its plans tell of the catalogs' sizes
        with psycopg.connect(cluster.conninfo()) as other:
            other.execute("SELECT 1")
            with sandboxed(database, "", "SELECT * FROM t"):
                assert left(cluster) == used  # nobody takes it for abandoned
    assert left(cluster) == set()


STAINS = [
    "CREATE TABLE public.stain (a int)",
    "CREATE FUNCTION pg_catalog.stain() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE CAST (bytea AS pg_ndistinct) WITHOUT FUNCTION",
    "GRANT CREATE ON SCHEMA public TO PUBLIC",
    "DROP SCHEMA public",
    "SELECT lo_create(0)",
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = 64', current_database()); END $$",
]


@pytest.mark.parametrize("stain", STAINS)
def test_a_database_that_is_not_as_new_is_not_used_again(
    database: Target, conn: psycopg.Connection, cluster: Server, stain: str
):
    """As after a kill in the midst, or where a function of the target did what it should not."""
    conn.execute("CREATE TABLE t (a int)")
    with databases.in_series(cluster):
        with sandboxed(database, "", "SELECT * FROM t") as sandbox:
            (name,) = left(cluster)
        with psycopg.connect(cluster.conninfo(name), autocommit=True) as admin:
            before = admin.execute("SELECT oid FROM pg_database WHERE datname = %s", [name])
            oid = before.fetchone()
            admin.execute(stain.encode())
        with sandboxed(database, "", "SELECT * FROM t") as sandbox:
            assert agrees(sandbox, conn, "SELECT * FROM t")
            with psycopg.connect(cluster.conninfo(name)) as admin:
                after = admin.execute("SELECT oid FROM pg_database WHERE datname = %s", [name])
                assert after.fetchone() != oid
    assert left(cluster) == set()


def test_two_at_once_in_a_series_do_not_meet(
    database: Target, conn: psycopg.Connection, cluster: Server
):
    conn.execute("CREATE TABLE t (a int)")
    with databases.in_series(cluster), sandboxed(database, "", "SELECT * FROM t") as one:
        with sandboxed(database, "", "SELECT * FROM t") as two:
            assert two.explain("SELECT * FROM t", ()).root.type == "Seq Scan"
            assert len(left(cluster)) == 2
        assert one.explain("SELECT * FROM t", ()).root.type == "Seq Scan"


KILLED = """
import sys
from indexlab import catalog, sandbox, target, workload
where = target.resolve(sys.argv[1])
with target.connect(where) as conn:
    snapshot = catalog.read(conn)
work = workload.parse("-- name: q\\nSELECT * FROM t")
with sandbox.open_sandbox(where, snapshot, None, work) as opened:
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("when", ["open", "made"])
def test_what_a_killed_process_left_is_dropped_but_nothing_in_use(
    database: Target, conn: psycopg.Connection, cluster: Server, when: str
):
    conn.execute("CREATE TABLE t (a int)")
    arguments = [sys.executable, "-c", KILLED, database.conninfo]
    source = str(Path(embedded.__file__).parents[2])
    child = subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": source},
    )
    assert child.stdout is not None
    if when == "open":
        assert child.stdout.readline() == b"open\n"
    else:
        deadline = time.monotonic() + 60
        while not left(cluster):
            assert time.monotonic() < deadline
            assert child.poll() is None
    abandoned = left(cluster)
    with sandboxed(database, "", "SELECT * FROM t") as living:
        if when == "open":
            assert abandoned <= left(cluster)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert living.explain("SELECT * FROM t", ()).root.type == "Seq Scan"
        deadline = time.monotonic() + 60
        while abandoned & left(cluster):  # its sessions end when the server notices
            assert time.monotonic() < deadline
            with sandboxed(database, "", "SELECT * FROM t"):
                pass
        assert living.explain("SELECT * FROM t", ()).root.type == "Seq Scan"
    assert left(cluster) == set()


def test_a_kept_sandbox_stays_until_it_is_dropped(
    database: Target, conn: psycopg.Connection, cluster: Server
):
    conn.execute("CREATE TABLE t (a int)")
    with sandboxed(database, "", "SELECT * FROM t", keep=True) as sandbox:
        address = sandbox.conninfo
    with sandboxed(database, "", "SELECT * FROM t"):
        pass
    with psycopg.connect(address) as kept:
        assert kept.execute("SELECT count(*) FROM t").fetchone() == (0,)
        name = kept.info.dbname
    cluster.drop_database(name)


def test_a_sandbox_that_cannot_be_made_leaves_nothing(
    database: Target, conn: psycopg.Connection, cluster: Server
):
    conn.execute("CREATE TABLE t (a int)")
    before = set(cluster.databases())
    snapshot = catalog.read(conn)
    work = workload.parse("-- name: q\nSELECT * FROM t")
    with psycopg.connect(database.conninfo) as other:
        other.execute("LOCK TABLE t")
        with (
            pytest.raises(SandboxError, match=BUDGET),
            open_sandbox(database, snapshot, None, work),
        ):
            pass
        waiting = conn.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        assert waiting.fetchone() == (0,)
    assert set(cluster.databases()) == before


BUDGET = r"another session keeps .* locked: waited 5 s .* try again"


def test_a_view_that_is_being_replaced_is_not_waited_for_either(
    database: Target, conn: psycopg.Connection
):
    """Only pg_dump comes by a view's lock, and by none that its own limit is for."""
    conn.execute("CREATE TABLE t (a int)")
    conn.execute("CREATE VIEW v AS SELECT * FROM t")
    snapshot = catalog.read(conn)
    work = workload.parse("-- name: q\nSELECT * FROM v")
    with psycopg.connect(database.conninfo) as other:
        other.execute("SET idle_in_transaction_session_timeout = '60s'")  # were there no end
        other.commit()
        other.execute("CREATE OR REPLACE VIEW v AS SELECT * FROM t WHERE a > 0")
        with (
            pytest.raises(SandboxError, match=r"another session keeps public\.v locked"),
            open_sandbox(database, snapshot, None, work),
        ):
            pass
        other.rollback()


def test_a_lock_on_another_table_is_not_waited_for(database: Target, conn: psycopg.Connection):
    conn.execute("CREATE TABLE t (a int PRIMARY KEY)")
    conn.execute("CREATE TABLE other (a int PRIMARY KEY)")
    snapshot = catalog.read(conn)
    work = workload.parse("-- name: q\nSELECT * FROM t")
    with psycopg.connect(database.conninfo) as session:
        session.execute("LOCK TABLE other")
        with open_sandbox(database, snapshot, None, work) as sandbox:
            assert agrees(sandbox, conn, "SELECT * FROM t")


def test_a_cluster_that_does_not_start_is_made_afresh_and_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("INDEXLAB_HOME", str(tmp_path))

    def stopped(tag: str) -> bool:
        deadline = time.monotonic() + 60
        while any(processes(tag)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return not any(processes(tag))

    with databases.cluster() as first:
        tag = tag_of(first.data_dir)
    assert stopped(tag)
    (first.data_dir / "global" / "pg_control").write_bytes(b"spoilt")
    with databases.cluster() as second:
        # By its tag whoever watched the broken one finds it.
        assert tag_of(second.data_dir) == tag
        assert second.databases() == ("postgres",)
        running, _ = processes(tag)
        assert len(running) == 1
    assert stopped(tag)
    assert not said_by(running[0])
    shutil.rmtree(second.data_dir / "base")  # as when its maker was killed
    (second.data_dir / "PG_VERSION").unlink()
    with databases.cluster() as third:
        assert third.databases() == ("postgres",)
    assert stopped(tag)


def said_by(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()  # empty for a zombie
    except OSError:
        return b""


def test_files_are_private(cluster: Server):
    assert cluster.data_dir.parent.stat().st_mode & 0o077 == 0


# Nothing on the target


READS = ("select", "begin", "start", "set", "lock", "prepare", "execute", "commit", "rollback",
         "deallocate", "show", "savepoint", "release", "with", "explain", "reset")  # fmt: skip


@pytest.mark.pg15
def test_the_target_sees_nothing_but_reads(pg15_server, old: Target):
    log = pg15_server.socket_dir / "log"
    with target.connect(old) as session:
        session.execute("CREATE TABLE t (a int PRIMARY KEY)")
        session.execute("CREATE VIEW v AS SELECT * FROM t")
        session.execute("CREATE TABLE unread (b int)")
        before = session.execute("SELECT count(*) FROM pg_class").fetchone()
        name = session.info.dbname
        session.execute(f"ALTER DATABASE {name} SET log_statement = 'all'".encode())
    start = log.stat().st_size
    with sandboxed(old, "CREATE INDEX t_a ON t (a)", "SELECT * FROM v") as sandbox:
        sandbox.add(plan.parse("CREATE INDEX t_a ON t (a)").creates[0])
        sandbox.explain("SELECT * FROM v", ())
    told = log.read_bytes()[start:].decode().split("LOG:  ")
    statements = [
        words
        for entry in told
        if entry.startswith(("statement: ", "execute "))
        for words in [entry.partition(": ")[2].split()]
    ]
    assert len(statements) > 20
    assert [words for words in statements if words[0].lower() not in READS] == []
    locks = [words for words in statements if words[0].lower() == "lock"]
    assert locks
    assert all("ACCESS SHARE" in " ".join(words) for words in locks)
    with target.connect(old) as session:
        assert session.execute("SELECT count(*) FROM pg_class").fetchone() == before
        assert session.execute("SELECT pg_my_temp_schema()").fetchone() == (0,)


@pytest.mark.pg15
def test_a_standby_is_a_target_like_any_other(pg15: Path, pg15_server):
    name = f"primary_{next(_numbers)}"
    with psycopg.connect(pg15_server.conninfo(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    with psycopg.connect(pg15_server.conninfo(name), autocommit=True) as session:
        session.execute("CREATE TABLE t (a int PRIMARY KEY, b int)")
        session.execute("INSERT INTO t SELECT i, i % 7 FROM generate_series(1, 9000) AS i")
        session.execute("ANALYZE t")
    with standby(pg15, pg15_server) as conninfo:
        where = target.resolve(conninfo.format(name), {})
        query = "SELECT * FROM t WHERE a = 5"
        with (
            target.connect(where) as session,
            sandboxed(where, "CREATE INDEX t_b ON t (b)", query) as sandbox,
        ):
            assert target.server(session).standby
            there = explain.run(session, query, (), analyze=False)
            assert sandbox.explain(query, ()).root.total_cost == there.root.total_cost


@contextmanager
def standby(pg15: Path, primary) -> Iterator[str]:
    """A copy of a server that replays its WAL; yields its address but for the database."""
    place = Path(tempfile.mkdtemp(prefix="standby-"))
    account = choose_account()
    account.own(place)

    def run(*argv: str | Path) -> None:
        assert account.popen(*argv, stdout=subprocess.DEVNULL).wait() == 0

    run(
        *(pg15 / "pg_basebackup", "-D", place / "data", "-R", "-X", "stream", "-c", "fast"),
        *("-d", primary.conninfo("postgres")),
    )
    options = f"-k {place} -p 5433 -c listen_addresses= -c fsync=off -c hot_standby=on"
    control = (pg15 / "pg_ctl", "-D", place / "data", "-w")
    run(*control, "-l", place / "log", "-o", options, "start")
    try:
        yield f"host={place} port=5433 user=postgres dbname={{}}"
    finally:
        run(*control, "-m", "immediate", "stop")
        shutil.rmtree(place)


# HypoPG


def test_hypopg_is_asked_for_where_it_is_not(database: Target):
    with (
        pytest.raises(SandboxError, match="does not have HypoPG: CREATE EXTENSION"),
        open_hypopg(database),
    ):
        pass


@pytest.mark.pg15
def test_hypopg_answers_as_the_sandbox_does(old: Target):
    with target.connect(old) as session:
        session.execute(
            """
            CREATE EXTENSION hypopg;
            CREATE TABLE t (a int PRIMARY KEY, b int, c text);
            INSERT INTO t SELECT i, i % 5000, 'c' || i FROM generate_series(1, 50000) AS i;
            CREATE INDEX t_c ON t (c);
            ANALYZE t;
            """
        )
        count = session.execute("SELECT count(*) FROM pg_class").fetchone()
    query = "SELECT * FROM t WHERE b = $1"
    with open_hypopg(old) as asked:
        assert asked.explain(query, ("7",)).indexes == ()
        added = asked.add(plan.parse("CREATE INDEX CONCURRENTLY t_b ON t (b)").creates[0])
        assert added.table == RelationName("public", "t")
        assert asked.explain(query, ("7",)).indexes == (added.index.name,)
        assert asked.explain(query, None).indexes == (added.index.name,)
        existing = "SELECT * FROM t WHERE c = 'c5'"
        assert asked.explain(existing, ()).indexes == ("t_c",)
        with pytest.raises(SandboxError, match="gin"):
            asked.add(plan.parse("CREATE INDEX ON t USING gin (c)").creates[0])
        with pytest.raises(SandboxError, match="not simulated"):
            asked.explain("SELECT * FROM nowhere", ())
        try:
            asked.hide([RelationName("public", "t_c"), added.index])
        except SandboxError as error:
            assert "cannot hide" in str(error)
        else:
            assert asked.explain(existing, ()).indexes == ()
            assert asked.explain(query, ("7",)).indexes == ()
            asked.hide([])
            assert asked.explain(existing, ()).indexes == ("t_c",)
    with target.connect(old) as session:
        assert session.execute("SELECT count(*) FROM pg_class").fetchone() == count
