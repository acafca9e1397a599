"""The notebooks in a folder of one's own, and JupyterLab over them: on this machine alone."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexlab import desk
from indexlab.errors import InputError
from indexlab.render import check_parameters

PATIENCE = 90.0


def test_the_notebooks_are_copied_as_they_are(tmp_path: Path) -> None:
    laid = desk.lay(tmp_path / "mine", {})
    assert laid.copied == desk.NOTEBOOKS
    for name in desk.NOTEBOOKS:
        check_parameters(tmp_path / "mine" / f"{name}.ipynb", {"target": "demo"})
    assert desk.lay(tmp_path / "mine", {}).copied == ()


def test_what_was_asked_for_is_the_default_of_each_copy(tmp_path: Path) -> None:
    values = {"target": 'service="x\\y"', "plan": "../plan.sql"}
    desk.lay(tmp_path, values)
    for name in desk.NOTEBOOKS:
        cells = json.loads((tmp_path / f"{name}.ipynb").read_text())["cells"]
        (cell,) = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
        space: dict[str, object] = {}
        exec("".join(cell["source"]), space)
        assert {key: space[key] for key in values} == values
        assert "  # database: empty is the embedded demo" in "".join(cell["source"])
    assert desk.lay(tmp_path, values).copied == ()


def test_a_notebook_that_is_there_is_left_alone(tmp_path: Path) -> None:
    desk.lay(tmp_path, {"target": "service=a"})
    path = tmp_path / "audit.ipynb"
    path.write_text(path.read_text().replace("# Audit an index plan", "# Mine"))
    (tmp_path / "apply.ipynb").unlink()
    with pytest.raises(InputError, match="is there already, with target = 'service=a'"):
        desk.lay(tmp_path, {"target": "service=b"})
    assert not (tmp_path / "apply.ipynb").exists()
    assert desk.lay(tmp_path, {"target": "service=a"}).copied == ("apply",)
    assert "# Mine" in path.read_text()


def test_a_file_that_is_no_notebook_is_told(tmp_path: Path) -> None:
    (tmp_path / "audit.ipynb").write_text("{")
    with pytest.raises(InputError, match="is not a notebook"):
        desk.lay(tmp_path, {"target": "demo"})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """A JupyterLab of the command."""

    def __init__(self, process: subprocess.Popen[str], port: int, token: str):
        self.process = process
        self.port = port
        self.token = token

    def get(self, path: str, *, token: str | None = None) -> tuple[int, bytes]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        if token is not None:
            request.add_header("Authorization", f"token {token}")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    place = tmp_path_factory.mktemp("desk")
    port, token = _free_port(), secrets.token_hex(16)
    variables = {
        "JUPYTER_TOKEN": token,
        "HOME": str(place),
        "JUPYTER_RUNTIME_DIR": str(place / "runtime"),
    }
    target = "postgresql://ada:geheim123@db.example/shop"
    command = [sys.executable, "-m", "indexlab", "lab", "desk", "--no-browser"]
    with (place / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--target", target, "--plan", "plan.sql", "--port", str(port)],
            cwd=place,
            env=os.environ | variables,
            stdout=log,
            stderr=log,
            text=True,
        )
    found = Running(process, port, token)
    deadline = time.monotonic() + PATIENCE
    while True:
        assert process.poll() is None, (place / "log").read_text()
        assert time.monotonic() < deadline, (place / "log").read_text()
        try:
            if found.get("/api")[0] == 200:
                break
        except OSError:
            time.sleep(0.1)
    yield found
    process.send_signal(signal.SIGTERM)
    process.wait(30)


def test_it_shows_the_notebooks(running: Running) -> None:
    status, body = running.get("/api/contents", token=running.token)
    assert status == 200
    assert {item["name"] for item in json.loads(body)["content"]} == {
        f"{name}.ipynb" for name in desk.NOTEBOOKS
    }


def test_it_answers_nobody_without_the_token(running: Running) -> None:
    assert running.get("/api/contents")[0] == 403


def test_it_listens_on_the_loopback_alone(running: Running) -> None:
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{running.process.pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == "0A" and int(local.partition(":")[2], 16) == running.port:
                listening.append(local.partition(":")[0])
    assert listening == ["0100007F"]


def test_a_password_is_in_the_environment_and_in_no_notebook(running: Running) -> None:
    variables = Path(f"/proc/{running.process.pid}/environ").read_bytes().split(b"\0")
    (given,) = [item for item in variables if item.startswith(b"INDEXLAB_CONNINFO=")]
    assert b"geheim123" in given
    for name in desk.NOTEBOOKS:
        _, body = running.get(f"/api/contents/{name}.ipynb", token=running.token)
        assert b"geheim123" not in body
        assert b"postgresql://ada@db.example/shop" in body
        assert b"../plan.sql" in body
