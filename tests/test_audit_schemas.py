"""The audit on schemas that others wrote: nothing false is said, and what is there is found."""

from __future__ import annotations

import itertools
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from indexlab import audit as auditing
from indexlab import catalog, embedded, plan
from indexlab.audit import Audit
from indexlab.catalog import Catalog

SCHEMAS = Path(__file__).parents[2] / "shared" / "schemas"
NOTHING = "DROP INDEX IF EXISTS no_such_index"

_numbers = itertools.count(1)

REDUNDANT = {
    "chinook_quoted.sql": {
        'public."IFK_PlaylistTrackPlaylistId"': 'public."PK_PlaylistTrack"',
    },
    "cratesio.sql": {
        "public.index_crates_categories_crate_id": "public.crates_categories_pkey",
        "public.index_crates_keywords_crate_id": "public.crates_keywords_pkey",
        "public.index_dependencies_crate_id": "public.dependencies_crate_id_version_id_idx",
        "public.index_keywords_keyword": "public.keywords_keyword_key",
    },
    "pagila.sql": {
        f"public.payment_p2022_0{month}_customer_id_idx": (
            f"public.idx_fk_payment_p2022_0{month}_customer_id"
        )
        for month in range(1, 7)
    },
    "supabase_auth.sql": {
        "auth.custom_oauth_providers_identifier_idx": "auth.custom_oauth_providers_identifier_key",
        "auth.mfa_factors_user_id_idx": "auth.unique_phone_factor_per_user",
        "auth.refresh_tokens_instance_id_idx": "auth.refresh_tokens_instance_id_user_id_idx",
        "auth.sessions_user_id_idx": "auth.user_id_created_at_idx",
        "auth.users_instance_id_idx": "auth.users_instance_id_email_idx",
    },
}
"""Which index is superfluous, and one that covers it."""


@pytest.fixture(scope="module", params=["embedded", pytest.param("15", marks=pytest.mark.pg15)])
def server(request: pytest.FixtureRequest) -> object:
    name = "embedded_server" if request.param == "embedded" else "pg15_server"
    return request.getfixturevalue(name)


@pytest.fixture(scope="module", params=list(REDUNDANT))
def file(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def conn(server: embedded.Server, file: str) -> Iterator[psycopg.Connection]:
    """A session on a database that holds one of the schemas."""
    path = SCHEMAS / file
    if not path.is_file():
        pytest.skip(f"no {path}: the schemas are not part of the repository")
    name = f"schema_{next(_numbers)}"
    with psycopg.connect(server.conninfo("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        # uuidv7 came with 18; it is a default, and no index cares.
        loaded = subprocess.run(
            [embedded.binary("psql"), "-X", "-q", "-d", server.conninfo(name)],
            input=path.read_text().replace("uuidv7()", "gen_random_uuid()"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert loaded.returncode == 0, loaded.stderr
        with psycopg.connect(server.conninfo(name), autocommit=True) as session:
            yield session
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def audited(conn: psycopg.Connection) -> tuple[Catalog, Audit]:
    return auditing.read(conn, plan.parse(NOTHING))


def redundant(audit: Audit) -> dict[str, str]:
    """Which existing index is called redundant, and by which keeper."""
    return {
        item.label: str(dict(finding.evidence)["keeper"])
        for item in audit.existing
        for finding in item.findings
        if finding.rule in ("duplicate-index", "redundant-index")
    }


def test_only_what_is_redundant_is_called_so(audited: tuple[Catalog, Audit], file: str) -> None:
    assert set(redundant(audited[1])) == set(REDUNDANT[file])


def test_every_keeper_is_a_real_one(audited: tuple[Catalog, Audit], file: str) -> None:
    """The keeper that was read from the definitions has the same keys as the one that is named."""
    cat, audit = audited
    indexes = {str(item.qualified): item for item in cat.indexes}
    for name, keeper in redundant(audit).items():
        first = indexes[name].keys
        for other in (indexes[keeper], indexes[REDUNDANT[file][name]]):
            assert other.keys[: len(first)] == first
            assert other.usable
        assert keeper not in REDUNDANT[file]


def test_what_is_called_redundant_can_be_dropped(
    conn: psycopg.Connection, audited: tuple[Catalog, Audit]
) -> None:
    with conn.transaction(force_rollback=True):
        for item in audited[1].existing:
            if item.drop:
                conn.execute(item.drop.replace(" CONCURRENTLY", ""))
                conn.execute(item.restore.replace(" CONCURRENTLY", ""))


def test_every_index_of_the_schema_exists_already(conn: psycopg.Connection) -> None:
    every = catalog.read(conn).indexes
    text = "\n".join(f"{item.definition};" for item in every)
    _, audit = auditing.read(conn, plan.parse(text))
    wrong = [
        (item.label, item.verdict, item.why)
        for item in audit.statements
        if item.verdict != "skip" or "exists" not in {f.rule for f in item.findings}
    ]
    assert not wrong
    assert len(audit.statements) == len(every)


def test_every_index_under_another_name_is_there_already(conn: psycopg.Connection) -> None:
    every = [i for i in catalog.read(conn).indexes if not i.exclusion]
    statements = [
        plan.IndexDef.parse(item.definition).revise(name=f"again_{number}").sql
        for number, item in enumerate(every)
    ]
    _, audit = auditing.read(conn, plan.parse(";\n".join(statements)))
    wrong = [
        (item.label, item.why)
        for item in audit.statements
        if item.verdict != "skip"
        or not {f.rule for f in item.findings} & {"duplicate-index", "duplicate-in-plan"}
    ]
    assert not wrong


def test_every_index_dropped_and_made_again_is_built(conn: psycopg.Connection) -> None:
    """What the plan drops keeps nothing; what may not be dropped says why."""
    every = catalog.read(conn).indexes
    text = ";\n".join(f"DROP INDEX {item.qualified}; {item.definition}" for item in every)
    _, audit = auditing.read(conn, plan.parse(text))
    verdicts = Counter(item.verdict for item in audit.statements)
    assert set(verdicts) <= {"build", "replace", "refuse", "skip"}
    for dropping, making in zip(audit.statements[::2], audit.statements[1::2], strict=True):
        kept = dropping.verdict == "build"
        assert kept or dropping.why
        assert making.verdict in (("build", "replace", "skip") if kept else ("skip",)), making.why


def test_counts_for_the_record(
    conn: psycopg.Connection, audited: tuple[Catalog, Audit], file: str
) -> None:
    cat, audit = audited
    found = Counter(finding.rule for item in audit.existing for finding in item.findings)
    advice = Counter(finding.rule for finding in audit.advice)
    tables = sum(relation.kind in catalog.INDEXABLE for relation in cat.relations)
    print(
        f"\n{file} on {conn.info.server_version // 10000}: {tables} tables, "
        f"{len(cat.indexes)} indexes, {dict(found)}, {dict(advice)}",
        end="",
    )
    assert audit._repr_html_()
    assert len(audit.findings_frame()) == len(audit.findings)
