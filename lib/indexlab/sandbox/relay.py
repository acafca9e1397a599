"""Let a program of the wheel talk to the target over the kit's own connection.

The wheel's libpq knows neither TLS nor Kerberos, and a password is nobody's business but libpq's
that already has it. So pg_dump connects to a socket in a private directory and each query that it
sends goes to the target over a connection of psycopg; the answers come back as they are.

The messages are those of PostgreSQL's protocol 3.0 ("Message Formats" of its manual).
"""

from __future__ import annotations

import shutil
import socket
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from indexlab.errors import SandboxError
from indexlab.sandbox.locked import SECONDS

PORT = 5432  # a part of the socket's name
TOLD = (
    "server_version",
    "server_encoding",
    "client_encoding",
    "standard_conforming_strings",
    "integer_datetimes",
    "is_superuser",
    "session_authorization",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
)
"""Parameters that a server tells each client at its start."""
ENCRYPTION_ASKED = (80877103, 80877104)  # SSLRequest, GSSENCRequest
STATUS = {
    pq.TransactionStatus.IDLE: b"I",
    pq.TransactionStatus.INTRANS: b"T",
    pq.TransactionStatus.INERROR: b"E",
}
ERROR_FIELDS = (
    (b"S", pq.DiagnosticField.SEVERITY),
    (b"V", pq.DiagnosticField.SEVERITY_NONLOCALIZED),
    (b"C", pq.DiagnosticField.SQLSTATE),
    (b"M", pq.DiagnosticField.MESSAGE_PRIMARY),
    (b"D", pq.DiagnosticField.MESSAGE_DETAIL),
    (b"H", pq.DiagnosticField.MESSAGE_HINT),
)


INSTEAD = {b"SET lock_timeout = 0": b"SET lock_timeout = '%ds'" % SECONDS}
"""What pg_dump says, and what the target hears: definitions of views are locks, too."""


@contextmanager
def relay(conn: psycopg.Connection[Any], refused: list[str]) -> Iterator[str]:
    """Serve one client after the other on a private socket; yields how it connects.

    Args:
        conn: a connection that nobody else uses meanwhile.
        refused: gets the SQLSTATE of each error of the target.

    Raises:
        SandboxError: there is no place for the socket.
    """
    directory = Path(tempfile.mkdtemp(prefix="indexlab-"))  # made with mode 0700
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            try:
                listener.bind(str(directory / f".s.PGSQL.{PORT}"))
            except OSError as error:
                raise SandboxError(
                    f"no socket can be made in {str(directory)!r} ({error}): "
                    "set TMPDIR to a directory with a short path"
                ) from error
            listener.listen()
            thread = Thread(target=_serve, args=(listener, (conn.pgconn, refused)), daemon=True)
            thread.start()
            try:
                yield make_conninfo(
                    host=str(directory),
                    port=PORT,
                    user="relayed",
                    dbname="relayed",
                    sslmode="disable",
                    gssencmode="disable",
                )
            finally:
                with suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)  # accept() returns
                thread.join()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _serve(listener: socket.socket, server: tuple[Any, list[str]]) -> None:
    with suppress(OSError):  # the end
        while True:
            client, _ = listener.accept()
            with client, suppress(OSError, EOFError):
                _talk(client, *server)


def _talk(client: socket.socket, server: Any, refused: list[str]) -> None:
    stream = client.makefile("rwb")
    while True:
        (length,) = struct.unpack("!i", _exactly(stream, 4))
        start = _exactly(stream, length - 4)
        if struct.unpack("!i", start[:4])[0] not in ENCRYPTION_ASKED:
            break
        stream.write(b"N")
        stream.flush()
    stream.write(_message(b"R", struct.pack("!i", 0)))
    for name in TOLD:
        value = server.parameter_status(name.encode())
        if value is not None:
            stream.write(_message(b"S", name.encode() + b"\0" + value + b"\0"))
    stream.write(_message(b"K", struct.pack("!ii", 0, 0)))
    stream.write(_ready(server))
    stream.flush()
    while True:
        kind = stream.read(1)
        if kind in (b"", b"X"):
            return
        (length,) = struct.unpack("!i", _exactly(stream, 4))
        body = _exactly(stream, length - 4)
        if kind == b"Q":
            _ask(stream, server, body[:-1], refused)
        else:
            stream.write(_refusal(f"the relay passes on plain queries only, not {kind!r}"))
        stream.write(_ready(server))
        stream.flush()


def _exactly(stream: Any, size: int) -> bytes:
    data: bytes = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _ask(stream: Any, server: Any, query: bytes, refused: list[str]) -> None:
    try:
        server.send_query(INSTEAD.get(query, query))
        while (result := server.get_result()) is not None:
            _answer(stream, result)
            if result.status == pq.ExecStatus.FATAL_ERROR:
                state = result.error_field(pq.DiagnosticField.SQLSTATE) or b""
                refused.append(state.decode())
    except psycopg.Error as error:
        stream.write(_refusal(str(error)))


def _answer(stream: Any, result: Any) -> None:
    match result.status:
        case pq.ExecStatus.TUPLES_OK:
            _rows(stream, result)
            stream.write(_message(b"C", (result.command_status or b"") + b"\0"))
        case pq.ExecStatus.COMMAND_OK:
            stream.write(_message(b"C", (result.command_status or b"") + b"\0"))
        case pq.ExecStatus.EMPTY_QUERY:
            stream.write(_message(b"I", b""))
        case pq.ExecStatus.FATAL_ERROR:
            said = [(code, result.error_field(field)) for code, field in ERROR_FIELDS]
            fields = b"".join(code + text + b"\0" for code, text in said if text)
            stream.write(_message(b"E", fields + b"\0"))
        case status:
            stream.write(_refusal(f"the relay does not pass on {status!r}"))


def _rows(stream: Any, result: Any) -> None:
    columns = range(result.nfields)
    head = struct.pack("!h", result.nfields)
    for column in columns:
        head += (result.fname(column) or b"") + b"\0"
        head += struct.pack(
            "!IhIhih",
            result.ftable(column),
            result.ftablecol(column),
            result.ftype(column),
            result.fsize(column),
            result.fmod(column),
            0,
        )
    stream.write(_message(b"T", head))
    value_of = result.get_value
    count = struct.pack("!h", result.nfields)
    for row in range(result.ntuples):
        parts = [count]
        for column in columns:
            value = value_of(row, column)
            parts += (
                (b"\xff\xff\xff\xff",) if value is None else (len(value).to_bytes(4, "big"), value)
            )
        stream.write(_message(b"D", b"".join(parts)))


def _ready(server: Any) -> bytes:
    return _message(b"Z", STATUS.get(server.transaction_status, b"E"))


def _refusal(text: str) -> bytes:
    return _message(b"E", b"SERROR\0C08P01\0M" + text.encode(errors="replace") + b"\0\0")


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body
