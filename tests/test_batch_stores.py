"""Where a batch is kept: a directory, and an object store that runs on the loopback interface."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from indexlab import embedded
from indexlab.batch import cluster, engine, stores, targets
from indexlab.batch.tasks import Result, Work, folder
from indexlab.errors import InputError
from indexlab.runs import Run

BUCKET = "batches"


@pytest.fixture(scope="module")
def object_store() -> Iterator[Any]:
    """An S3 of our own, named by the variables that its clients read."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test-key-of-the-store")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        import s3fs

        fs = s3fs.S3FileSystem()
        fs.mkdir(BUCKET)
        yield fs
    server.stop()


@pytest.fixture(params=["directory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "directory":
        return (tmp_path / "out").as_posix()
    request.getfixturevalue("object_store")
    return f"s3://{BUCKET}/{tmp_path.name}/out"


def test_a_store_keeps_a_batch_and_its_runs(place: str) -> None:
    store = stores.opened(place)
    store.prepare()
    assert store.read() is None
    assert store.runs() == {}
    store.write({"targets": [{"name": "ü"}]})
    document = stores.opened(place).read()
    assert document == {"format": 1, "targets": [{"name": "ü"}]}
    for number, status in ((1, "failed"), (2, "ok")):
        run = f"runs/{folder('a/b')}/{number}"
        path = store.place(run)
        path.mkdir(parents=True)
        Run(path).write_json("target", Result("a/b", status, run=run).document())
        Run(path).write("revised_plan.sql", "-- ü\n")
        store.keep(run)
    cut_off = store.place("runs/c/1")
    cut_off.mkdir(parents=True)
    Run(cut_off).write("plan.sql", "")
    store.keep("runs/c/1")
    again = stores.opened(place)
    assert again.runs() == {folder("a/b"): 2, "c": 1}
    found = again.results(again.runs())
    assert list(found) == [folder("a/b")]
    assert found[folder("a/b")]["status"] == "ok"


def test_a_result_that_is_no_json_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    store = stores.opened(tmp_path.as_posix())
    place = tmp_path / "runs" / "a" / "1"
    place.mkdir(parents=True)
    (place / "target.json").write_text("{")
    assert store.results(store.runs()) == {}


def test_a_bucket_that_is_not_there_is_told_at_once(object_store: Any) -> None:
    with pytest.raises(InputError, match="cannot write to 's3://no-such-bucket/x'"):
        stores.opened("s3://no-such-bucket/x").prepare()


def test_a_batch_into_an_object_store_and_its_resumption(
    object_store: Any, embedded_server: embedded.Server, tmp_path: Path
) -> None:
    (tmp_path / "plan.sql").write_text("CREATE INDEX idx_x ON t (x);\n")
    names = ["batch_s3_a", "batch_s3_b"]
    for name in names:
        embedded_server.create_database(name)
        with psycopg.connect(embedded_server.conninfo(name)) as conn:
            conn.execute("CREATE TABLE t (x int)")
    path = tmp_path / "targets.yaml"
    entries = [{"name": n, "target": embedded_server.conninfo(n)} for n in names]
    broken = [entries[0], {"name": names[1], "target": "service=there_is_none"}]
    out = f"s3://{BUCKET}/nightly"
    try:
        for said, resume, wanted in (
            (broken, False, ["ok", "failed"]),
            (entries, True, ["ok", "ok"]),
        ):
            path.write_text(yaml.safe_dump({"defaults": {"plan": "plan.sql"}, "targets": said}))
            planned = engine.planned(
                targets.read(path), Work("audit", report=True), out, resume=resume
            )
            with cluster.opened(planned.book.store, jobs=1, scheduler="", report=True) as crew:
                book = engine.run(planned, crew, retries=0)
            assert [e.result.status for e in book.entries.values()] == wanted
    finally:
        for name in names:
            embedded_server.drop_database(name)
    object_store.invalidate_cache()
    document = json.loads(object_store.cat_file(f"{BUCKET}/nightly/batch.json"))
    assert document["counts"] == {"ok": 2, "findings": 0, "failed": 0, "not_run": 0}
    for entry in document["targets"]:
        kept = {
            key.rpartition("/")[2] for key in object_store.find(f"{BUCKET}/nightly/{entry['run']}")
        }
        assert {"audit.html", "audit.ipynb", "audit.json", "target.json"} <= kept
        page = object_store.cat_file(f"{BUCKET}/nightly/{entry['page']}").decode()
        assert "idx_x" in page
    assert not list((embedded.home() / stores.SPOOL).rglob("*.json"))  # nothing is left here
