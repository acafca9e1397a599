"""Servers for the tests: the embedded one, and a PostgreSQL 15 of the distribution with passwords."""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from indexlab import apply, catalog, embedded, plan, target, workload
from indexlab import audit as auditing
from indexlab.apply import Applied, Event, Settings
from indexlab.audit import Audit, StatementAudit
from indexlab.errors import EmbeddedError
from indexlab.target import Target

PG15_BIN = Path(os.environ.get("INDEXLAB_PG15_BIN") or "/usr/lib/postgresql/15/bin")
REQUIRED = bool(os.environ.get("INDEXLAB_REQUIRE_PG15"))
"""Whether a missing server fails its tests, as in CI, where it would hide that they do not run."""
CHROMIUM = os.environ.get("INDEXLAB_CHROMIUM") or shutil.which("chromium") or "chromium"
CHROMIUM_REQUIRED = bool(os.environ.get("INDEXLAB_REQUIRE_CHROMIUM"))
CHROMIUM_OPTIONS = (
    "--no-sandbox",  # the tests may be root's
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SUPERUSER = "postgres"

_numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    """Keep the embedded server of the tests apart from the user's; one home for each worker."""
    home = Path(tempfile.mkdtemp(prefix="indexlab-test-"))
    os.environ["INDEXLAB_HOME"] = str(home)
    os.environ.setdefault("INDEXLAB_DEMO_ROWS", "20000")
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    # A job in the background ignores Ctrl-C, and so would every program that a test interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> list[str]:
    return [f"PostgreSQL: {_version('embedded')}; {_version('15')}"]


def _version(which: str) -> str:
    try:
        program = embedded.binary("postgres") if which == "embedded" else PG15_BIN / "postgres"
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    except (EmbeddedError, OSError):
        return f"{which}: none"
    return f"{which}: {said.stdout.strip()}"


@pytest.fixture(scope="module", autouse=True)
def _demos_as_loaded() -> Iterator[None]:
    """Throw away what a module did to the demo's databases, which the next one of its worker reads."""
    yield
    opened = embedded.home() / "demo.lock"
    if not opened.exists():
        return
    with embedded.server() as server, psycopg.connect(server.conninfo(), autocommit=True) as conn:
        for name in server.databases():
            if name.startswith("demo_"):
                drop = sql.SQL("DROP DATABASE {} WITH (FORCE)")
                conn.execute(drop.format(sql.Identifier(name)))
    opened.unlink()


@pytest.fixture(scope="session")
def embedded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.Server]:
    """One for each worker, in a home of its own.

    A VACUUM or ANALYZE of the server's own accord would change plans between two looks at them.
    """
    with embedded.server(tmp_path_factory.mktemp("embedded")) as server:
        with psycopg.connect(server.conninfo(), autocommit=True) as conn:
            conn.execute("ALTER SYSTEM SET autovacuum = off")
            conn.execute("SELECT pg_reload_conf()")
        yield server


@pytest.fixture
def database(embedded_server: embedded.Server) -> Iterator[Target]:
    """A fresh database of the embedded server."""
    name = f"test_{next(_numbers)}"
    embedded_server.create_database(name)
    yield target.resolve(embedded_server.conninfo(name), {})
    embedded_server.drop_database(name)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A throw-away server: its socket trusts everyone, TCP asks for a password."""

    socket_dir: Path
    port: int
    password: str

    def conninfo(self, database: str = "postgres") -> str:
        return make_conninfo(
            host=str(self.socket_dir), port=self.port, user=SUPERUSER, dbname=database
        )

    def uri(self, password: str | None = None, database: str = "postgres") -> str:
        secret = "" if password is None else f":{quote(password, safe='')}"
        return f"postgresql://{SUPERUSER}{secret}@127.0.0.1:{self.port}/{database}"


@pytest.fixture(scope="session")
def pg15() -> Path:
    """Where the programs of PostgreSQL 15 are."""
    if not (PG15_BIN / "initdb").is_file():
        _missing(f"no PostgreSQL 15 in {PG15_BIN}: install postgresql-15 or set INDEXLAB_PG15_BIN")
    return PG15_BIN


def _missing(what: str, *, required: bool = REQUIRED) -> None:
    """Skip a test that lacks a program; in CI, fail it."""
    if required:
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def pg15_server(pg15: Path) -> Iterator[Cluster]:
    """A PostgreSQL 15 on a socket and on 127.0.0.1, with a password that SCRAM checks."""
    place = Path(tempfile.mkdtemp(prefix="pg15-"))  # short, as a socket's path must be
    run = _server_account(place)
    password = f"{secrets.token_hex(8)}/&=%: '\\é"  # what addresses must quote
    (place / "password").write_text(password)
    (place / "password").chmod(0o644)
    run(
        *(pg15 / "initdb", "-D", place / "data", "-U", SUPERUSER, "-E", "UTF8", "--locale=C", "-N"),
        *("--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={place / 'password'}"),
    )
    cluster = Cluster(place, _free_port(), password)
    options = (
        f"-k {place} -p {cluster.port} -c listen_addresses=127.0.0.1 -c fsync=off -c autovacuum=off"
    )
    control = (pg15 / "pg_ctl", "-D", place / "data", "-w")
    run(*control, "-l", place / "log", "-o", options, "start")
    yield cluster
    run(*control, "-m", "immediate", "stop")
    shutil.rmtree(place)


@pytest.fixture(scope="session")
def pg15_cluster(pg15: Path) -> Iterator[Callable[..., Cluster]]:
    """Make throw-away servers of PostgreSQL 15: `pg15_cluster(max_prepared_transactions="10")`.

    The settings go into postgresql.conf, which a standby of it takes over. Every server is stopped at the session's end.
    """
    made: list[Cluster] = []

    def make(**settings: str) -> Cluster:
        place = Path(tempfile.mkdtemp(prefix="pg15-"))
        run = _server_account(place)
        options = ("-U", SUPERUSER, "-E", "UTF8", "--locale=C", "-N", "--auth=trust")
        run(pg15 / "initdb", "-D", place / "data", *options)
        with (place / "data" / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        made.append(_started(pg15, run, place))
        return made[-1]

    yield make
    _stop(made)


@pytest.fixture(scope="session")
def pg15_standby(pg15: Path) -> Iterator[Callable[..., Cluster]]:
    """Make a hot standby of a server: `pg15_standby(primary, application="eu")`.

    It is copied by pg_basebackup and follows by streaming, under the given application_name;
    `SELECT pg_wal_replay_pause()` lets it lag.
    """
    made: list[Cluster] = []

    def make(primary: Cluster, *, application: str = "standby") -> Cluster:
        place = Path(tempfile.mkdtemp(prefix="pg15-"))
        run = _server_account(place)
        source = make_conninfo(primary.conninfo(), dbname="", application_name=application)
        copying = ("--write-recovery-conf", "--checkpoint=fast", "--no-sync")
        run(pg15 / "pg_basebackup", "-D", place / "data", "-d", source, *copying)
        made.append(_started(pg15, run, place))
        return made[-1]

    yield make
    _stop(made)


def _started(programs: Path, run: _Runner, place: Path) -> Cluster:
    port = _free_port()
    fixed = {
        "unix_socket_directories": str(place),
        "port": str(port),
        "listen_addresses": "127.0.0.1",
        "fsync": "off",
    }
    options = " ".join(f"-c {name}={value}" for name, value in fixed.items())
    control = (programs / "pg_ctl", "-D", place / "data", "-w", "-l", place / "log", "-o", options)
    run(*control, "start")
    return Cluster(place, port, "")


def _stop(made: Iterable[Cluster]) -> None:
    for cluster in made:
        run = _server_account(cluster.socket_dir)
        data = cluster.socket_dir / "data"
        run(PG15_BIN / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
        shutil.rmtree(cluster.socket_dir)


@pytest.fixture
def pgbouncer(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Put a pgbouncer in front of a server: `pgbouncer(cluster, "transaction")`.

    Its socket trusts everyone, as that of the server behind does; `pool_size` is how many backends
    it may open for each database.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        _missing("no pgbouncer: install the package of this name")
    running: list[tuple[subprocess.Popen[bytes], Path]] = []

    def start(behind: Cluster, mode: str, pool_size: int = 5) -> Cluster:
        place = Path(tempfile.mkdtemp(prefix="pool-"))
        port = _free_port()
        (place / "users").write_text(f'"{SUPERUSER}" ""\n')
        (place / "pool.ini").write_text(
            f"[databases]\n* = host={behind.socket_dir} port={behind.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
            f"unix_socket_dir = {place}\nauth_type = trust\nauth_file = {place}/users\n"
            f"pool_mode = {mode}\ndefault_pool_size = {pool_size}\n"
            "ignore_startup_parameters = extra_float_digits,options\n"
        )
        account = _server_account(place)
        process = subprocess.Popen(
            [*account.prefix, program, str(place / "pool.ini")],
            user=account.user,
            extra_groups=None if account.user is None else (),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(place / "log").open("wb"),
        )
        running.append((process, place))
        pool = Cluster(place, port, "")
        _until_it_answers(pool, process)
        return pool

    yield start
    for process, place in running:
        process.terminate()
        process.wait(timeout=30)
        shutil.rmtree(place)


def _until_it_answers(pool: Cluster, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(pool.conninfo()).close()
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"pgbouncer does not answer: {error}")
            time.sleep(0.02)
        else:
            return


class _Runner:
    """Runs PostgreSQL's programs, which refuse root, as somebody else."""

    def __init__(self, prefix: tuple[str, ...] = (), user: str | None = None):
        self.prefix = prefix
        self.user = user

    def __call__(self, *argv: str | Path) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        done = subprocess.run(
            [*self.prefix, *argv],
            user=self.user,
            extra_groups=None if self.user is None else (),
            cwd="/",
            env=environment | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # a pipe would stay open in the server
            stderr=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode != 0:
            pytest.fail(f"{' '.join(map(str, argv))} failed: run it by hand")


def _server_account(place: Path) -> _Runner:
    if os.geteuid() != 0:
        return _Runner()
    prefix = ("unshare", "--user", "--map-user=65534", "--map-group=65534")
    if shutil.which("unshare") and not subprocess.run([*prefix, "true"], check=False).returncode:
        return _Runner(prefix)
    shutil.chown(place, "nobody")
    return _Runner(user="nobody")


@pytest.fixture(scope="session")
def server_account() -> Callable[[Path], _Runner]:
    """How to run a server's programs for a place, also where the tests are root."""
    return _server_account


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def session(database: Target) -> Iterator[psycopg.Connection]:
    """An autocommit session on a fresh database."""
    with target.connect(database) as conn:
        yield conn


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


# Pages, in a browser


@dataclass(frozen=True, slots=True)
class Opened:
    """A page in a browser, with what it complained of and what it asked of a network."""

    page: Any
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def problems(self) -> str:
        """What axe finds that keeps people out; empty if nothing does."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        return "\n".join(
            f"{one['impact']}: {one['id']}: {one['help']}: {node['target']}: {node['html'][:200]}"
            for one in found
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"][:3]
        )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The distribution's Chromium, headless.

    It ends with the module: while it runs, nothing else in this process can run an event loop, as
    notebooks do.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("no playwright: install indexlab[test]", required=CHROMIUM_REQUIRED)
    if not Path(CHROMIUM).is_file():
        _missing(
            f"no Chromium at {CHROMIUM!r}: install chromium or set INDEXLAB_CHROMIUM",
            required=CHROMIUM_REQUIRED,
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=list(CHROMIUM_OPTIONS), headless=True
        )
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Opened]]:
    """Open a file in a browser of its own: `opened(path, dark=True, width=390)`."""
    with ExitStack() as stack:

        def look(
            path: Path,
            *,
            dark: bool = False,
            width: int = 1280,
            height: int = 900,
            script: bool = True,
        ) -> Opened:
            context = browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme="dark" if dark else "light",
                reduced_motion="reduce",
                java_script_enabled=script,
            )
            stack.callback(context.close)
            found = Opened(context.new_page())
            found.page.on("console", lambda message: found.console.append(message.text))
            found.page.on("pageerror", lambda error: found.console.append(str(error)))
            found.page.on("dialog", lambda dialog: found.console.append(dialog.message))
            found.page.on("request", lambda request: found.requests.append(request.url))
            found.page.goto(path.resolve().as_uri())
            if script:
                found.page.locator("html[data-ready]").wait_for(state="attached")
            return found

        yield look


# The audit, on 18 and on 15


@pytest.fixture(scope="module", params=["embedded", pytest.param("15", marks=pytest.mark.pg15)])
def conninfo(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """How to connect to a database of the server that the test is for."""
    name = "embedded_server" if request.param == "embedded" else "pg15_server"
    server = request.getfixturevalue(name)
    return server.conninfo


@pytest.fixture(scope="module")
def address(conninfo: Callable[[str], str]) -> Iterator[str]:
    """A database of the module's own, for the tests of the audit."""
    name = f"audit_{next(_numbers)}"
    # The audit asks the user's own embedded server, which is kept from test to test.
    with (
        embedded.server(),
        psycopg.connect(conninfo("postgres"), autocommit=True) as admin,
    ):
        admin.execute(f"CREATE DATABASE {name}")
        yield conninfo(name)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


EMPTY = """
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_|^information_schema$' LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', name);
    END LOOP;
END $$;
DROP FOREIGN DATA WRAPPER IF EXISTS w CASCADE;
CREATE SCHEMA public;
GRANT USAGE ON SCHEMA public TO public;
"""


@pytest.fixture
def conn(address: str) -> Iterator[psycopg.Connection]:
    """A session on an empty database."""
    with psycopg.connect(address, autocommit=True) as session:
        session.execute("SET client_min_messages = warning")
        session.execute(EMPTY)
        session.execute("RESET client_min_messages")
        yield session


@pytest.fixture
def audited(conn: psycopg.Connection) -> Callable[..., Audit]:
    """Audit a plan against a schema."""

    def run(schema: str, text: str = "CREATE INDEX unrelated ON other (x)", queries: str = ""):
        conn.execute("CREATE TABLE other (x int)")
        conn.execute(schema)
        work = workload.parse(queries) if queries else None
        return auditing.read(conn, plan.parse(text), work)[1]

    return run


@pytest.fixture
def judged(
    audited: Callable[..., Audit], conn: psycopg.Connection
) -> Callable[..., StatementAudit]:
    """Audit a plan and return its last statement, after the server has had its say.

    Whatever the audit calls buildable, the server builds.
    """

    def run(schema: str, text: str, queries: str = "") -> StatementAudit:
        audit = audited(schema, text, queries)
        for item in audit.kept:
            for finding in item.findings:
                if finding.rule == "invalid-leftover":
                    conn.execute(finding.fix)
            for statement in item.sequence:
                conn.execute(statement)
        return audit.statements[-1]

    return run


@pytest.fixture
def told(conn: psycopg.Connection) -> Callable[..., StatementAudit]:
    """Audit a plan in a scene, each time in an empty database, as `judged` does."""

    def run(schema: str, text: str, **options: object) -> StatementAudit:
        conn.execute("SET client_min_messages = warning")
        conn.execute(EMPTY)
        conn.execute(schema)
        audit = auditing.read(conn, plan.parse(text), **options)[1]
        for item in audit.kept:
            for statement in item.sequence:
                conn.execute(statement)
        return audit.statements[-1]

    return run


@pytest.fixture
def surveyed(conn: psycopg.Connection) -> Callable[[str], Audit]:
    """Audit the indexes of a scene, each time in an empty database."""

    def run(schema: str) -> Audit:
        conn.execute("SET client_min_messages = warning")
        conn.execute(EMPTY)
        conn.execute(schema)
        return auditing.read(conn, plan.parse("DROP INDEX IF EXISTS gone"))[1]

    return run


# The apply stage: scenes told in SQL

APPLY_SCHEMA = """
CREATE SCHEMA core;
CREATE TABLE core.bookings (id int PRIMARY KEY, customer_id int, date date, status text, note text);
INSERT INTO core.bookings
SELECT n, n % 50, date '2026-01-01' + n % 90, 'open', 'note ' || n FROM generate_series(1, 2000) AS n;
CREATE TABLE core.other (id int);
INSERT INTO core.other VALUES (1);
"""


class Scene:
    """A database of its own, and the sessions that act in it."""

    def __init__(self, conninfo: str, stack: ExitStack):
        self.conninfo = conninfo
        self.target: Target = target.resolve(conninfo)
        self._stack = stack
        self.db = self.session()

    def session(self, **options: Any) -> psycopg.Connection[Any]:
        autocommit = options.pop("autocommit", True)
        conn = psycopg.connect(self.conninfo, autocommit=autocommit, **options)
        self._stack.callback(conn.close)
        return conn

    def indexes(self) -> dict[str, bool]:
        """Every index of the user and whether it is valid."""
        rows = self.db.execute(
            """
            SELECT c.relname, i.indisvalid
              FROM pg_index AS i
              JOIN pg_class AS c ON c.oid = i.indexrelid
              JOIN pg_namespace AS n ON n.oid = c.relnamespace
             WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
               AND NOT i.indisprimary
             ORDER BY c.relname
            """
        )
        return dict(rows.fetchall())

    def run(self, text: str, **options: Any) -> Applied:
        options.setdefault("execute", True)
        outside = ("execute", "journal", "on_event")
        settings = Settings(**{k: v for k, v in options.items() if k not in outside})
        kept = {name: value for name, value in options.items() if name in outside}
        return apply.run(self.target, plan.parse(text), settings, **kept)

    def pending(self, text: str) -> tuple[apply.Step, ...]:
        wanted = plan.parse(text)
        return apply.pending(catalog.read(self.db, wanted), wanted)

    def leftover(self, text: str) -> None:
        """Make an invalid index as it happens: duplicates are found when it is half done."""
        with pytest.raises(psycopg.errors.UniqueViolation):
            self.db.execute(text.encode())

    def building(self) -> int | None:
        """The process of the build that waits for another session."""
        row = self.db.execute(
            "SELECT pid FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%'"
        ).fetchone()
        return None if row is None else row[0]

    def start(self, text: str, **options: Any) -> InBackground:
        """Run a plan in another thread."""
        return InBackground(self, text, options)

    @staticmethod
    def eventually(true: Callable[[], object], *, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, f"not within {seconds} s: {true}"
            time.sleep(0.02)


class InBackground:
    """A run in another thread, and the events that it told."""

    def __init__(self, scene: Scene, text: str, options: dict[str, Any]):
        self.events: list[Event] = []
        self.applied: Applied | None = None
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(scene, text, options))
        self._thread.start()

    def _run(self, scene: Scene, text: str, options: dict[str, Any]) -> None:
        try:
            self.applied = scene.run(text, on_event=self.events.append, **options)
        except Exception as error:  # noqa: BLE001 - shown by result()
            self.error = error

    def result(self) -> Applied:
        self._thread.join(60)
        assert self.error is None, self.error
        assert self.applied is not None
        return self.applied

    def waits_for(self, pid: int) -> bool:
        return any(pid == session.pid for e in self.events for session in e.waiting_for)


@pytest.fixture
def apply_address(request: pytest.FixtureRequest) -> str:
    """A running server, as a conninfo."""
    server = request.getfixturevalue(getattr(request, "param", "embedded_server"))
    return str(server.conninfo("postgres"))


@pytest.fixture
def scene(apply_address: str) -> Iterator[Scene]:
    name = f"apply_{next(_numbers)}"
    with psycopg.connect(apply_address, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        with ExitStack() as stack:
            made = Scene(make_conninfo(apply_address, dbname=name), stack)
            made.db.execute(APPLY_SCHEMA)
            yield made
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
