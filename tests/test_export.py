"""Exports: Alembic and Django run for real; the others are held to their documented form."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.engine import URL

from indexlab import audit, embedded, export, plan
from indexlab.audit import Audit
from indexlab.errors import InputError
from indexlab.export import File
from indexlab.target import Target

NOW = datetime(2026, 6, 30, 10, 15, tzinfo=UTC)
SCHEMA = """\
CREATE TABLE "we:ird %s" (a int, "b:c" text, "d%d" text);
CREATE INDEX old_one ON "we:ird %s" ("d%d") WHERE "d%d" <> E'50% \\\\:x ''q'' $$ :y';
"""
PLAN = (
    r"""
-- why: 100% */ of """
    r'''"""quotes""" \
CREATE INDEX IF NOT EXISTS "in:dex '%s' \ $1 ${x} #{y}" ON "we:ird %s" ("b:c", lower("d%d"))
    WHERE "b:c" <> E'a:b::c %% \\ \\:d $$' AND "b:c"::varchar <> '%(x)s {0}';
COMMENT ON INDEX "in:dex '%s' \ $1 ${x} #{y}" IS 'it''s 5% :off';
DROP INDEX old_one;
CREATE INDEX refused ON "we:ird %s" (nothing_like_it);
'''
)
HOSTILE = r"in:dex '%s' \ $1 ${x} #{y}"


@pytest.fixture
def audited(session: psycopg.Connection) -> Audit:
    session.execute(SCHEMA)
    _, judged = audit.read(session, plan.parse(PLAN))
    assert [item.verdict for item in judged.statements][:2] == ["build", "build"]
    return judged


def indexes(session: psycopg.Connection) -> list[tuple[str, bool, str, str | None]]:
    """Every valid or invalid index of the tables, with its definition and comment."""
    return session.execute(
        "SELECT c.relname, i.indisvalid, pg_get_indexdef(c.oid), obj_description(c.oid)"
        " FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid"
        " WHERE i.indrelid = '\"we:ird %s\"'::regclass ORDER BY 1"
    ).fetchall()


@pytest.fixture
def wanted(
    audited: Audit, session: psycopg.Connection
) -> Iterator[list[tuple[str, bool, str, str | None]]]:
    """What there is once the statements ran by hand; taken back before the tool runs."""
    before = indexes(session)
    for change in export.changes(audited):
        for text in change.up:
            session.execute(text)
    after = indexes(session)
    for change in reversed(export.changes(audited)):
        for text in change.down:
            session.execute(text)
    assert indexes(session) == before
    assert [row[0] for row in after] == [HOSTILE]
    assert after[0][1], "it is valid"
    assert after[0][3] == "it's 5% :off"
    return after


def url(database: Target) -> str:
    parts = conninfo_to_dict(database.conninfo)
    return URL.create(
        "postgresql+psycopg",
        username=parts.get("user"),
        database=parts["dbname"],
        query={"host": str(parts["host"]), "port": str(parts.get("port") or 5432)},
    ).render_as_string(hide_password=False)


ENV = """\
import os
from alembic import context
from sqlalchemy import create_engine

with create_engine(os.environ["URL"]).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""


def run(place: Path, *arguments: str, **variables: str) -> None:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=place,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def write(place: Path, files: tuple[File, ...]) -> None:
    place.mkdir(parents=True)
    for file in files:
        (place / file.name).write_text(file.text, encoding="utf-8")


def test_alembic_upgrades_and_downgrades(
    audited: Audit,
    wanted: list[tuple[str, bool, str, str | None]],
    session: psycopg.Connection,
    database: Target,
    tmp_path: Path,
) -> None:
    before = indexes(session)
    write(tmp_path / "scripts" / "versions", export.migration("alembic", audited, now=NOW))
    (tmp_path / "scripts" / "env.py").write_text(ENV)
    (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = scripts\n")
    run(tmp_path, "-m", "alembic", "upgrade", "head", URL=url(database))
    assert indexes(session) == wanted
    run(tmp_path, "-m", "alembic", "downgrade", "base", URL=url(database))
    assert indexes(session) == before


DJANGO = """\
import os, sys
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["shop"],
    DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql",
        **{name: os.environ[name] for name in ("HOST", "PORT", "USER", "NAME")},
    }},
)
import django
from django.core.management import execute_from_command_line

django.setup()
execute_from_command_line(sys.argv)
"""


def test_django_migrates_and_back(
    audited: Audit,
    wanted: list[tuple[str, bool, str, str | None]],
    session: psycopg.Connection,
    database: Target,
    tmp_path: Path,
) -> None:
    before = indexes(session)
    migrations = tmp_path / "shop" / "migrations"
    write(migrations, export.migration("django", audited, now=NOW))
    for package in (migrations.parent, migrations):
        (package / "__init__.py").touch()
    (tmp_path / "manage.py").write_text(DJANGO)
    parts = conninfo_to_dict(database.conninfo)
    server = {
        "HOST": str(parts["host"]),
        "PORT": str(parts.get("port") or 5432),
        "USER": str(parts.get("user") or ""),
        "NAME": str(parts["dbname"]),
    }
    run(tmp_path, "manage.py", "migrate", "shop", **server)
    assert indexes(session) == wanted
    run(tmp_path, "manage.py", "migrate", "shop", "zero", **server)
    assert indexes(session) == before


def test_plain_scripts_run_statement_by_statement(
    audited: Audit, session: psycopg.Connection
) -> None:
    before = indexes(session)
    up, down = export.migration("sql", audited, now=NOW)
    for script in (up, down):
        for statement in plan.parse(script.text).statements:
            session.execute(statement.text)
        assert (indexes(session) == before) is (script is down)


def test_rails_is_a_class_named_as_its_file_without_a_transaction(audited: Audit) -> None:
    (file,) = export.migration("rails", audited, now=NOW)
    number = re.fullmatch(r"20260630101500_indexlab(\d{8})\.rb", file.name)
    assert number is not None
    assert f"class Indexlab{number[1]} < ActiveRecord::Migration[7.0]" in file.text
    assert "\n  disable_ddl_transaction!\n" in file.text
    # What Ruby would make of the strings between single quotes.
    strings = re.findall(r"^    execute '((?:[^'\\]|\\.)*)'$", file.text, re.MULTILINE)
    read = [re.sub(r"\\([\\'])", r"\1", text) for text in strings]
    changes = export.changes(audited)
    ups = [text for change in changes for text in change.up]
    assert read == ups + [text for change in reversed(changes) for text in change.down]


def test_flyway_switches_transaction_and_placeholders_off(audited: Audit) -> None:
    files = export.migration("flyway", audited, now=NOW)
    names = [file.name for file in files]
    stem = "20260630101500__planned_indexes.sql"
    assert names == [f"V{stem}", f"V{stem}.conf", f"U{stem}", f"U{stem}.conf"]
    assert files[1].text == files[3].text
    assert files[1].text.splitlines() == [
        "executeInTransaction=false",
        "placeholderReplacement=false",
    ]
    assert "flyway.postgresql.transactional.lock=false" in files[0].text


def test_liquibase_has_a_changeset_for_each_statement(audited: Audit) -> None:
    (file,) = export.migration("liquibase", audited, now=NOW)
    lines = file.text.splitlines()
    assert lines[0] == "--liquibase formatted sql"
    heads = [line for line in lines if line.startswith("--changeset ")]
    assert len(heads) == len({head.split()[1] for head in heads}) == 3
    assert all(" runInTransaction:false splitStatements:false " in head for head in heads)
    assert sum(line.startswith("--rollback ") for line in lines) == 3


def test_liquibase_refuses_a_line_break_that_could_begin_a_changeset(
    session: psycopg.Connection,
) -> None:
    session.execute("CREATE TABLE t (a int)")
    _, judged = audit.read(session, plan.parse('CREATE INDEX "x\n--changeset y:z" ON t (a);'))
    with pytest.raises(InputError, match="line break"):
        export.migration("liquibase", judged, now=NOW)


@pytest.mark.parametrize("tool", export.TOOLS)
def test_every_export_says_why_it_has_no_if_not_exists(tool: str, audited: Audit) -> None:
    text = export.migration(tool, audited, now=NOW)[0].text
    assert "skip over that leftover" in text
    assert "Left out, " in text
    assert "INDEX CONCURRENTLY IF NOT EXISTS" not in text
    assert export.migration(tool, audited, now=NOW)[0].text == text


def test_an_empty_plan_makes_no_migration(session: psycopg.Connection) -> None:
    session.execute("CREATE TABLE t (a int)")
    _, judged = audit.read(session, plan.parse("CREATE INDEX i ON t (nothing_like_it);"))
    assert export.migration("alembic", judged, now=NOW) == ()
    with pytest.raises(InputError, match="no export for 'ant'"):
        export.migration("ant", judged, now=NOW)


PARTED = """
CREATE TABLE parted (a int, b int) PARTITION BY LIST (a);
CREATE TABLE "part 1" PARTITION OF parted FOR VALUES IN (1);
CREATE TABLE part_2 PARTITION OF parted FOR VALUES IN (2) PARTITION BY LIST (b);
CREATE TABLE part_21 PARTITION OF part_2 DEFAULT;
CREATE INDEX there ON "part 1" (b);
"""
VALID = """
SELECT c.relname
  FROM pg_index AS i
  JOIN pg_class AS c ON c.oid = i.indexrelid
 WHERE i.indisvalid
   AND c.relnamespace = 'public'::regnamespace
 ORDER BY c.relname
"""


def test_the_parts_of_a_partitioned_table_are_exported_and_taken_back(
    session: psycopg.Connection, database: Target, tmp_path: Path
) -> None:
    session.execute(PARTED)
    planned = "CREATE INDEX CONCURRENTLY whole ON parted (b);"
    _, judged = audit.read(session, plan.parse(planned))
    whole = ["part_21_whole", "part_2_whole", "there", "whole"]

    def there() -> list[str]:
        return [name for (name,) in session.execute(VALID)]

    [change] = export.changes(judged)
    assert [text.split(" INDEX ")[0] for text in change.up] == [
        *("CREATE", "ALTER", "CREATE", "CREATE", "ALTER", "ALTER")
    ]
    for text in change.up:
        session.execute(text)
    assert there() == whole
    for text in change.down:
        session.execute(text)
    assert there() == ["there"]
    files = (audit.migration_sql(judged), whole), (audit.rollback_sql(judged), ["there"])
    for text, expected in files:
        (tmp_path / "file.sql").write_text(text)
        psql = [embedded.binary("psql"), "-X", "-v", "ON_ERROR_STOP=1", "-f", "file.sql"]
        done = subprocess.run(
            [*psql, database.conninfo], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.returncode, there()) == (0, expected), done.stderr
