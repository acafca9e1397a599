"""The target: every form of its address, what is never shown, and real refusals of real servers."""

from __future__ import annotations

import pickle
import socket
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from indexlab import target
from indexlab.errors import InputError, TargetError, Unreachable
from indexlab.target import CONNINFO_VARIABLE, SECRETS, Target

SECRET = "hunter2/&=% '\\"
QUOTED = "hunter2%2F%26%3D%25%20%27%5C"

FORMS = [
    (f"postgresql://ann:{QUOTED}@db.example:5433/shop", "postgresql://ann@db.example:5433/shop"),
    (f"postgres://ann:{QUOTED}@db.example/shop", "postgresql://ann@db.example/shop"),
    (
        f"postgresql://ann@db.example/shop?password={QUOTED}&sslmode=require",
        "postgresql://ann@db.example/shop?sslmode=require",
    ),
    (
        f"postgresql://ann@db.example/shop?sslpassword={QUOTED}&sslkey=%2Fk",
        "postgresql://ann@db.example/shop?sslkey=%2Fk",
    ),
    (f"postgresql://:{QUOTED}@db.example/shop", "postgresql://db.example/shop"),
    (f"postgresql://a%40n:{QUOTED}@[::1]:5433/s%2Fp", "postgresql://a%40n@[::1]:5433/s%2Fp"),
    (f"postgresql://ann:{QUOTED}@[fe80::1%25eth0]/s", "postgresql://ann@[fe80::1%25eth0]/s"),
    (
        f"postgresql://ann:{QUOTED}@a:1,b:2/shop",
        "postgresql://ann@/shop?host=a%2Cb&port=1%2C2",
    ),
    (
        f"postgresql:///shop?host=/tmp&user=ann&password={QUOTED}",
        "postgresql://ann@/shop?host=%2Ftmp",
    ),
    (f"postgresql://ann:{QUOTED}@%2Ftmp/shop", "postgresql://ann@/shop?host=%2Ftmp"),
    (r"host=db user=ann password='hunter2/&=% \'\\'", "user=ann host=db"),
    (r"service=shop password='hunter2/&=% \'\\'", "service=shop"),
    (r"dbname='my shop' password='hunter2/&=% \'\\'", "dbname='my shop'"),
]


def refusal(spec: str) -> str:
    with pytest.raises(InputError) as refused:
        target.resolve(spec, {})
    return "".join(traceback.format_exception(refused.value))


def parts(address: str) -> dict[str, Any]:
    return {key: value for key, value in conninfo_to_dict(address).items() if key not in SECRETS}


# Addresses


@pytest.mark.parametrize(("spec", "shown"), FORMS)
def test_an_address_is_shown_without_its_password(spec: str, shown: str):
    resolved = target.resolve(spec, {})
    assert resolved.spec == shown
    assert resolved.conninfo == spec
    assert parts(shown) == parts(spec)
    assert resolved.secrets() == (SECRET,)


@pytest.mark.parametrize(("spec", "shown"), FORMS)
def test_what_is_shown_is_resolved_to_itself(spec: str, shown: str):
    again = target.resolve(shown, {})
    assert (again.spec, again.secrets()) == (shown, ())
    assert target.resolve(again.spec, {}) == again


@pytest.mark.parametrize(("spec", "shown"), FORMS)
def test_no_display_holds_the_password(spec: str, shown: str):
    resolved = target.resolve(spec, {})
    for shown_target in (resolved, pickle.loads(pickle.dumps(resolved))):
        for text in (repr(shown_target), str(shown_target), f"{[shown_target]}"):
            assert "hunter2" not in text
    assert pickle.loads(pickle.dumps(resolved)) == resolved


@pytest.mark.parametrize(("spec", "shown"), FORMS)
def test_a_child_process_gets_the_password_through_its_environment(spec: str, shown: str):
    parent = target.resolve(spec, {})
    assert list(parent.environment()) == [CONNINFO_VARIABLE]
    assert target.resolve(parent.spec, parent.environment()) == parent


def test_env_is_left_to_libpq():
    assert target.resolve("env", {CONNINFO_VARIABLE: "host=other"}) == Target("env", "")
    assert target.resolve("env", {}).environment() == {}


@pytest.mark.parametrize("spec", ["service=shop", "postgresql://ann@db.example/shop", "dbname=a"])
def test_an_address_without_a_password_needs_no_environment(spec: str):
    resolved = target.resolve(spec, {})
    assert (resolved.spec, resolved.conninfo, resolved.environment()) == (spec, spec, {})


@pytest.mark.parametrize(
    "spec",
    [
        "postgresql://ann@db.example/other",
        "postgresql://bob@db.example/shop",
        "postgresql://ann:own@db.example/shop",
        "service=shop",
    ],
)
def test_the_environment_of_another_target_is_not_used(spec: str):
    full = f"postgresql://ann:{QUOTED}@db.example/shop"
    assert target.resolve(spec, {CONNINFO_VARIABLE: full}).conninfo == spec


def test_the_environment_speaks_for_the_same_address_in_other_words():
    full = "host=db.example dbname=shop user=ann password=hunter2"
    resolved = target.resolve("postgresql://ann@db.example/shop", {CONNINFO_VARIABLE: full})
    assert resolved == Target("postgresql://ann@db.example/shop", full)


def test_an_environment_that_is_no_address_is_refused_without_showing_it():
    environ = {CONNINFO_VARIABLE: "hunter2"}
    with pytest.raises(InputError, match=CONNINFO_VARIABLE) as refused:
        target.resolve("service=shop", environ)
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    "spec",
    [
        "hunter2",
        "shop password hunter2",
        "passwrd=hunter2",
        "host=db password='hunter2",
        "postgresql://ann:hunter2@[db/shop",
        "postgresql://ann:hunter2%zz@db/shop",
        "postgresql://ann@db/shop?passwrd=hunter2",
        "mysql://ann:hunter2@db/shop",
    ],
)
def test_what_is_no_address_is_refused_without_showing_it(spec: str):
    said = refusal(spec)
    assert "hunter2" not in said
    assert "write env (libpq's PG* environment), service=NAME, or a URI" in said


@pytest.mark.parametrize("spec", ["", " ", "postgresql://"])
def test_an_empty_address_is_refused(spec: str):
    assert "the target is empty" in refusal(spec)


# Versions


@pytest.mark.parametrize(
    ("number", "text"), [(90624, "9.6.24"), (110022, "11.22"), (119999, "11.99 (Debian)")]
)
def test_a_server_older_than_12_is_refused(number: int, text: str):
    with pytest.raises(TargetError) as refused:
        target.check_version(number, text)
    assert str(refused.value) == f"the server is PostgreSQL {text}: indexlab needs 12 or newer"
    assert refused.value.exit_code == 3


@pytest.mark.parametrize(("number", "text"), [(120000, "12.0"), (180006, "18.6"), (990000, "99")])
def test_a_newer_server_is_welcome(number: int, text: str):
    target.check_version(number, text)


# Connecting


@pytest.fixture(autouse=True)
def no_user_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the tests from the tester's own PG* variables, services and passwords."""
    for name in ("PASSWORD", "SERVICE", "HOST", "PORT", "USER", "DATABASE", "CONNECT_TIMEOUT"):
        monkeypatch.delenv(f"PG{name}", raising=False)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))


def value(conn: psycopg.Connection[Any], query: str) -> Any:
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def unreachable(resolved: Target) -> str:
    with pytest.raises(TargetError) as refused, target.connect(resolved):
        pass
    assert refused.value.exit_code == 3
    said = "".join(traceback.format_exception(refused.value))
    for secret in resolved.secrets():
        assert secret not in said
    assert str(refused.value).startswith(f"cannot connect to {resolved.spec!r}: ")
    return str(refused.value)


def test_a_session_is_autocommit_named_and_closed(database: Target):
    with target.connect(database, purpose="audit") as conn:
        assert conn.autocommit
        assert value(conn, "SHOW application_name") == "indexlab audit"
        assert value(conn, "SHOW client_encoding") == "UTF8"
    assert conn.closed
    with target.connect(database) as conn:
        assert value(conn, "SHOW application_name") == "indexlab"


def test_the_name_of_the_user_s_address_gives_way(database: Target):
    named = Target(database.spec, f"{database.conninfo} application_name=other")
    with target.connect(named, purpose="apply") as conn:
        assert value(conn, "SHOW application_name") == "indexlab apply"


def pid(conn: psycopg.Connection) -> int:
    return conn.info.backend_pid


def told(conn: psycopg.Connection, name: str) -> Any:
    row = conn.execute("SELECT pg_catalog.current_setting(%s)", [name]).fetchone()
    return None if row is None else row[0]


def test_sessions_that_only_read_follow_each_other_on_one_connection(database: Target):
    with target.reused():
        with target.connect(database, read_only=True, purpose="first") as one:
            one.execute("SET statement_timeout = '7s'; SET search_path = ''")
            first = pid(one)
        with target.connect(database, read_only=True, purpose="second") as two:
            assert pid(two) == first
            assert told(two, "application_name") == "indexlab second"
            assert told(two, "default_transaction_read_only") == "on"
            assert told(two, "statement_timeout") == "0"
            assert told(two, "search_path") != ""
            with target.connect(database, read_only=True) as beside:
                assert pid(beside) != first
        with target.connect(database) as writing:  # it may leave anything behind
            assert pid(writing) != first
            assert told(writing, "default_transaction_read_only") == "off"
    assert one.closed
    with target.connect(database, read_only=True) as three:
        assert pid(three) != first


def test_a_session_that_was_ended_or_is_in_a_transaction_is_not_used_again(database: Target):
    with target.reused():
        with target.connect(database, read_only=True) as one:
            first = pid(one)
        with psycopg.connect(database.conninfo, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 10000)", [first])
        with target.connect(database, read_only=True) as two:
            assert pid(two) != first
            second = pid(two)
            two.execute("BEGIN")
        assert two.closed
        with target.connect(database, read_only=True) as three:
            assert pid(three) != second


def test_an_error_within_closes_the_session(database: Target):
    with pytest.raises(psycopg.errors.DivisionByZero), target.connect(database) as conn:
        conn.execute("SELECT 1 / 0")
    assert conn.closed


@pytest.mark.parametrize("statement", ["CREATE TABLE t (a int)", "CREATE INDEX ON u (a)"])
def test_a_read_only_session_refuses_to_write(database: Target, statement: str):
    with target.connect(database) as conn:
        conn.execute("CREATE TABLE u (a int)")
    with target.connect(database, read_only=True) as conn:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            conn.execute(statement.encode())
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), conn.transaction():
            conn.execute(statement.encode())
        assert value(conn, "SELECT count(*) FROM u") == 0


def of_the_role(conninfo: str, *settings: str) -> Target:
    """Make a role with settings, and return how it connects; the superuser's role stays as it is."""
    name = f"strict_{conninfo_to_dict(conninfo)['dbname']}"
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute(f"CREATE ROLE {name} LOGIN SUPERUSER".encode())
        for setting in settings:
            conn.execute(f"ALTER ROLE {name} SET {setting}".encode())
    return target.resolve(make_conninfo(conninfo, user=name), {})


def test_no_timeout_of_the_role_ends_a_session_that_reads(database: Target):
    names = (
        *("statement_timeout", "lock_timeout", "idle_session_timeout", "transaction_timeout"),
        "idle_in_transaction_session_timeout",
    )
    strict = of_the_role(database.conninfo, *(f"{name} = '30s'" for name in names))
    with target.connect(strict, read_only=True) as conn:
        assert [value(conn, f"SHOW {name}") for name in names] == ["0"] * 5
    with target.connect(strict) as conn:
        assert [value(conn, f"SHOW {name}") for name in names] == ["30s"] * 5


def test_moments_are_read_whatever_the_style_of_the_role(database: Target):
    strict = of_the_role(database.conninfo, "DateStyle = 'German, DMY'", "IntervalStyle = iso_8601")
    with target.connect(strict) as conn:
        assert value(conn, "SELECT '01.02.2026 10:00+00'::timestamptz").month == 2
        assert value(conn, "SELECT '1 day 2 seconds'::interval").total_seconds() == 86402


def test_the_server_says_who_it_is(database: Target):
    with target.connect(database) as conn:
        server = target.server(conn)
    given = parts(database.conninfo)
    assert (server.database, server.user) == (given["dbname"], "postgres")
    assert (server.host, server.superuser, server.standby) == ("socket", True, False)
    assert server.version // 10000 == 18
    assert server.version_text.startswith("18.")
    assert str(server) == (
        f"{given['dbname']} as postgres on socket:{given['port']} "
        f"(PostgreSQL {server.version_text})"
    )


def test_the_right_password_connects(pg15_server: Any):
    resolved = target.resolve(uri(pg15_server, pg15_server.password), {})
    assert pg15_server.password in resolved.secrets()
    with target.connect(resolved) as conn:
        server = target.server(conn)
    assert (server.host, server.port) == ("127.0.0.1", pg15_server.port)
    assert server.version // 10000 == 15


def test_a_child_process_connects_with_what_it_was_given(pg15_server: Any):
    parent = target.resolve(uri(pg15_server, pg15_server.password), {})
    child = target.resolve(parent.spec, parent.environment())
    with target.connect(child) as conn:
        assert value(conn, "SELECT 1") == 1
    assert "no password supplied" in unreachable(target.resolve(parent.spec, {}))


def test_the_wrong_password_is_refused_and_not_shown(pg15_server: Any):
    said = unreachable(target.resolve(uri(pg15_server, "not-the-password"), {}))
    assert 'password authentication failed for user "postgres"' in said
    assert "check --target, the server, and the password (PGPASSWORD or ~/.pgpass)" in said


def test_the_password_of_the_environment_connects_and_is_not_shown(
    pg15_server: Any, monkeypatch: pytest.MonkeyPatch
):
    resolved = target.resolve(uri(pg15_server), {})
    monkeypatch.setenv("PGPASSWORD", pg15_server.password)
    assert resolved.secrets() == (pg15_server.password,)
    with target.connect(resolved) as conn:
        assert value(conn, "SELECT 1") == 1
    monkeypatch.setenv("PGPASSWORD", "not-the-password")
    assert "password authentication failed" in unreachable(resolved)


def test_a_password_file_connects(
    pg15_server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    file = tmp_path / "my-pgpass"
    escaped = pg15_server.password.replace("\\", "\\\\").replace(":", "\\:")
    file.write_text(f"127.0.0.1:*:*:postgres:{escaped}\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    with target.connect(target.resolve(uri(pg15_server), {})) as conn:
        assert value(conn, "SELECT 1") == 1


def test_a_missing_database_is_refused(pg15_server: Any):
    address = uri(pg15_server, pg15_server.password, "nowhere")
    assert 'database "nowhere" does not exist' in unreachable(target.resolve(address, {}))


def test_env_is_the_environment_of_libpq(pg15_server: Any, monkeypatch: pytest.MonkeyPatch):
    for name, setting in (
        ("PGHOST", "127.0.0.1"),
        ("PGPORT", str(pg15_server.port)),
        ("PGUSER", "postgres"),
        ("PGDATABASE", "template1"),
        ("PGPASSWORD", pg15_server.password),
    ):
        monkeypatch.setenv(name, setting)
    with target.connect(target.resolve("env", {})) as conn:
        assert target.server(conn).database == "template1"
    monkeypatch.setenv("PGPASSWORD", "not-the-password")
    assert "password authentication failed" in unreachable(target.resolve("env", {}))


def test_a_service_is_looked_up(pg15_server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    file = tmp_path / "my-services"
    file.write_text(
        f"[shop]\nhost=127.0.0.1\nport={pg15_server.port}\nuser=postgres\ndbname=template1\n"
        f"password={pg15_server.password}\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    resolved = target.resolve("service=shop", {})
    assert pg15_server.password not in repr(resolved)
    with target.connect(resolved) as conn:
        assert target.server(conn).database == "template1"
    said = unreachable(target.resolve("service=nowhere", {}))
    assert 'definition of service "nowhere" not found' in said


def test_a_server_that_is_not_there_is_refused():
    with socket.socket() as closed:  # bound, but it does not listen
        closed.bind(("127.0.0.1", 0))
        address = f"postgresql://ann:not-the-password@127.0.0.1:{closed.getsockname()[1]}/shop"
        assert "Connection refused" in unreachable(target.resolve(address, {}))


def test_a_missing_socket_is_refused(tmp_path: Path):
    assert "No such file or directory" in unreachable(target.resolve(f"host={tmp_path}", {}))


@pytest.mark.parametrize("setting", ["port=x", "connect_timeout=x", "sslmode=x", "hostaddr=x"])
def test_a_setting_that_libpq_does_not_take_is_refused(setting: str):
    said = unreachable(target.resolve(f"host=127.0.0.1 password=hunter2 {setting}", {}))
    assert "x" in said.removeprefix("cannot connect to ")


# Patience


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where nobody ever answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


def test_ten_seconds_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch):
    def patience(spec: str) -> str:
        return target._timeout(target.resolve(spec, {}))

    assert patience("postgresql://db/shop") == "10"
    assert patience("env") == "10"
    assert patience("postgresql://db/shop?connect_timeout=3") == "3"
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "4")
    assert patience("postgresql://db/shop") == "4"
    assert patience("postgresql://db/shop?connect_timeout=3") == "3"


def test_a_server_that_does_not_answer_is_refused(silent: int):
    address = f"postgresql://ann:not-the-password@127.0.0.1:{silent}/shop?connect_timeout=2"
    assert "timeout" in unreachable(target.resolve(address, {}))


def uri(cluster: Any, password: str | None = None, database: str = "postgres") -> str:
    return str(cluster.uri(password, database))


def test_only_silence_may_pass(pg15_server: Any, tmp_path: Path) -> None:
    """Who asks again after a refusal locks an account; who does not, gives a restart up."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        silent = f"host=127.0.0.1 port={closed.getsockname()[1]} dbname=x user=x"
    refusals = {
        silent: True,
        f"host={tmp_path} dbname=x user=x": True,
        "service=there_is_no_such_service": False,
        pg15_server.uri("not-the-password"): False,
        pg15_server.uri(pg15_server.password, "nowhere"): False,
    }
    found = {}
    for address in refusals:
        with (
            pytest.raises(Unreachable) as refused,
            target.connect(target.resolve(address, {})),
        ):
            pass
        found[address] = refused.value.may_pass
        assert pickle.loads(pickle.dumps(refused.value)).may_pass == refused.value.may_pass
    assert found == refusals


@pytest.mark.parametrize("words", ["the database system is starting up", "sorry, too many clients"])
def test_a_server_that_is_not_ready_may_be_in_a_moment(words: str) -> None:
    said = f'connection to server at "h" (::1), port 5432 failed: FATAL:  {words} already'
    assert target._may_pass(said)
