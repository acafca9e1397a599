"""The file of targets: what it may say, and how it is told what it may not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import yaml
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from indexlab import embedded, target
from indexlab.batch import listing, targets
from indexlab.batch.targets import Targets
from indexlab.batch.tasks import Task, Work, attempt, folder, task
from indexlab.errors import InputError

PLAN = "CREATE INDEX a ON t (x);\n"
WORKLOAD = "-- name: q\nSELECT 1;\n"
SECRET = "s3cr3t-Pa55"

Read = Callable[[str], Targets]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    (tmp_path / "plan.sql").write_text(PLAN)
    (tmp_path / "us").mkdir()
    (tmp_path / "us" / "plan.sql").write_text("CREATE INDEX b ON t (y);\n")
    (tmp_path / "workload.sql").write_text(WORKLOAD)

    def read(text: str) -> Targets:
        path = tmp_path / "targets.yaml"
        path.write_text(text)
        return targets.read(path)

    return read


def test_the_file_of_the_design_is_understood(read: Read) -> None:
    found = read(
        "defaults: {plan: plan.sql, workload: workload.sql}\n"
        "targets:\n"
        "  - {name: shop-eu, target: service=shop_eu, tags: [eu], group: server-1}\n"
        "  - {name: shop-us, target: service=shop_us, plan: us/plan.sql}\n"
    )
    eu, us = found.targets
    assert (eu.name, eu.target, eu.tags, eu.group) == (
        *("shop-eu", "service=shop_eu", ("eu",)),
        "server-1",
    )
    assert (eu.plan.text, us.plan.text) == (PLAN, "CREATE INDEX b ON t (y);\n")
    assert us.workload.text == WORKLOAD


def test_what_a_target_says_goes_over_the_defaults(read: Read) -> None:
    found = read(
        "defaults:\n"
        "  plan: plan.sql\n"
        "  tags: [all]\n"
        "  window: 22:00-05:00\n"
        "  timeout: 60\n"
        "  parameters: {budget: 5, jobs: 2, what_if: 'off'}\n"
        "targets:\n"
        "  - {name: a, target: env}\n"
        "  - {name: b, target: env, tags: [], parameters: {jobs: 3, memory: 1 GB}, timeout: 5}\n"
    )
    a, b = found.targets
    assert (a.tags, a.window, a.timeout) == (("all",), "22:00-05:00", 60)
    assert (b.tags, b.window, b.timeout) == ((), "22:00-05:00", 5)
    assert a.parameters.settings(a.window) == "jobs=2 window=22:00-05:00"
    assert b.parameters.options() == {"budget": 5, "what_if": "off"}
    assert b.parameters.settings() == f"jobs=3 memory={1024**3}"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("targets:\n  - {name: a, target: env, plam: x.sql}\n", 2, "unknown key 'plam'"),
        ("targets:\n  - name: a\n    target: env\n    tag: [x]\n", 4, "unknown key 'tag'"),
        ("target: []\n", 1, "unknown key 'target'"),
        ("defaults: {plan: plan.sql, name: a}\ntargets: []\n", 1, "unknown key 'name'"),
        (
            "targets:\n  - name: a\n    target: env\n    plan: plan.sql\n    parameters:\n"
            "      budgets: 5\n",
            6,
            "unknown key 'budgets': there are resolve, what_if",
        ),
        (
            "targets:\n  - name: a\n    target: env\n    plan: plan.sql\n    parameters:\n"
            "      budget: much\n",
            6,
            "'targets.parameters.budget'",
        ),
        ("targets:\n  - target: env\n", 2, "the key 'name' is missing"),
        ("targets:\n  - {name: 7, target: env}\n", 2, "must be a text: put it into quotes"),
        ("targets:\n  - {name: a, target: env, tags: [no]}\n", 2, "must be a text"),
        ("targets: []\n", 1, "'targets' is empty"),
        ("targets: {a: b}\n", 1, "'targets' must be a list"),
        ("targets:\n  - env\n", 2, "'targets' must be a mapping of keys"),
        ("targets:\n  - {name: '', target: env}\n", 2, "'targets.name' must not be empty"),
        ("targets:\n  - {name: a, target: env, tags: eu}\n", 2, "'targets.tags' must be a list"),
        ("- a\n", 1, "is not a mapping"),
        (
            "defaults: {plan: plan.sql}\ntargets:\n  - {name: a, target: env}\n"
            "  - {name: b, target: env}\n  - {name: a, target: env}\n",
            5,
            "two targets are named 'a': the other one is in line 3",
        ),
        ("targets:\n  - name: a\n    name: b\n    target: env\n", 3, "'name' is given twice"),
        ("targets:\n  - {name: a, target: env}\n", 2, "'a' has no plan"),
        (
            "targets:\n  - {name: a, target: env, plan: plans.sql}\n",
            2,
            "the plan 'plans.sql' does not exist",
        ),
        (
            "targets:\n  - {name: a, target: env, window: 25:00-26:00}\n",
            2,
            "is not two times such as 22:00-05:00",
        ),
        ("targets:\n  - {name: a, target: 'env:1X'}\n", 2, "the name of an environment variable"),
        ("targets:\n  - {name: a, target: shop}\n", 2, "is not an address that libpq understands"),
        ("targets:\n  - {name: a, target: env, timeout: 0}\n", 2, "greater than 0"),
        ("targets:\n  - {name: a\n", 3, "is not YAML"),
        ("targets:\n  - {name: a, target: !!python/object:os.system {}}\n", 2, "is not YAML"),
        ("", None, "is empty"),
    ],
)
def test_a_mistake_is_told_with_its_line(read: Read, text: str, line: int, words: str) -> None:
    with pytest.raises(InputError) as caught:
        read(text)
    assert words in str(caught.value)
    place = "targets.yaml: " if line is None else f"targets.yaml:{line}: "
    assert place in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://me:{SECRET}@host/db",
        f"host=h user=me password={SECRET}",
        f"postgresql://me@host/db?sslpassword={SECRET}",
        f"postgresql://me:{SECRET}@host:not-a-port/db?x",
    ],
)
def test_a_password_is_refused_and_never_shown(read: Read, address: str) -> None:
    with pytest.raises(InputError) as caught:
        read(f"defaults: {{plan: plan.sql}}\ntargets:\n  - name: a\n    target: {address!r}\n")
    assert "targets.yaml:4: " in str(caught.value)
    assert "password" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_password_in_broken_yaml_is_not_shown(read: Read) -> None:
    with pytest.raises(InputError) as caught:
        read(f"targets:\n  - {{name: a, target: postgresql://me:{SECRET}@h/db, b: [}}\n")
    assert SECRET not in str(caught.value)


def test_a_mistake_in_a_plan_is_told_with_the_line_of_the_plan(read: Read, tmp_path: Path) -> None:
    (tmp_path / "bad.sql").write_text("\nDROP TABLE t;\n")
    with pytest.raises(InputError, match=r"bad\.sql:2: a plan may not hold 'DROP TABLE"):
        read("targets:\n  - {name: a, target: env, plan: bad.sql}\n")


@pytest.mark.parametrize(
    ("only", "names"),
    [
        ("", ["shop-a", "shop-b", "bank-a"]),
        ("tag=eu", ["shop-a", "bank-a"]),
        ("tag=eu,name=shop-*", ["shop-a"]),
        ("tag=eu,tag=us", ["shop-a", "shop-b", "bank-a"]),
        ("group=g*", ["shop-b"]),
    ],
)
def test_targets_are_chosen_by_tag_and_name(read: Read, only: str, names: list[str]) -> None:
    found = read(
        "defaults: {plan: plan.sql}\n"
        "targets:\n"
        "  - {name: shop-a, target: env, tags: [eu]}\n"
        "  - {name: shop-b, target: env, tags: [us], group: g1}\n"
        "  - {name: bank-a, target: env, tags: [eu]}\n"
    )
    assert [one.name for one in targets.select(found, only)] == names


@pytest.mark.parametrize(
    ("only", "words"),
    [("eu", "no condition"), ("tags=eu", "no condition"), ("tag=asia", "fits none of the 1")],
)
def test_a_condition_that_is_none_is_refused(read: Read, only: str, words: str) -> None:
    found = read("defaults: {plan: plan.sql}\ntargets:\n  - {name: a, target: env}\n")
    with pytest.raises(InputError, match=words):
        targets.select(found, only)


def test_a_hundred_thousand_targets_have_folders_of_their_own() -> None:
    names = [f"shop {n}" for n in range(1000)] + ["shop-1", "..", ".", "a/b", "a-b", "ü" * 63, ""]
    folders = [folder(name) for name in names]
    assert len(set(folders)) == len(names)
    assert all("/" not in one and not one.startswith(".") for one in folders)


def test_a_task_comes_over_the_wire_as_it_was(read: Read) -> None:
    found = read(
        "targets:\n  - {name: 'é\"', target: 'env:SHOP', plan: plan.sql,"
        " parameters: {resolve: {a: b}, drop_replaced: true}, window: 22:00-05:00}\n"
    )
    made = attempt(task(found.targets[0], Work("apply", execute=True), "s3://b/x"), 2)
    assert Task.of_message(made.message()) == made
    assert made.settings == "window=22:00-05:00 drop_replaced=true"
    assert made.options == {"resolve": "a=b"}
    other = task(found.targets[0], Work("apply", execute=False), "s3://b/x")
    assert other.mark != made.mark


def test_the_databases_of_a_server_become_a_file(
    embedded_server: embedded.Server, tmp_path: Path
) -> None:
    names = ['Über "quoted" db', "null", "a: b", "x" * 63]
    with psycopg.connect(embedded_server.conninfo(), autocommit=True) as conn:
        for name in names:
            conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        address = make_conninfo(embedded_server.conninfo(), password=SECRET)
        text = listing.listed(target.resolve(address))
        (tmp_path / "targets.yaml").write_text(text)
        (tmp_path / "plan.sql").write_text(PLAN)
        found = targets.read(tmp_path / "targets.yaml")
        assert SECRET not in text
        assert set(names) <= {one.name for one in found.targets}
        for one in found.targets:
            assert conninfo_to_dict(one.target)["dbname"] == one.name
            with target.connect(target.resolve(one.target)) as session:
                assert target.server(session).database == one.name
        assert len({one.group for one in found.targets}) == 1
    finally:
        for name in names:
            embedded_server.drop_database(name)


def test_a_listing_of_a_service_keeps_the_service() -> None:
    server = target.Server(
        180000, "18.0", "shop", "me", "db1", 5432, superuser=False, standby=False
    )
    text = listing.written(target.resolve("service=shop"), server, ("shop", "other one"))
    entries = yaml.safe_load(text)["targets"]
    assert entries[1] == {
        "name": "other one",
        "target": "service=shop dbname='other one'",
        "group": "db1:5432",
    }
