"""The demo's database on the embedded server: loaded once, then copied from a template."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import psycopg
from psycopg import sql as compose

from indexlab import demo, embedded
from indexlab.errors import InputError
from indexlab.progress import Tell
from indexlab.target import Target

ROWS_VARIABLE = "INDEXLAB_DEMO_ROWS"

PARTS = (0.0, 0.25, 0.3, 0.5, 0.85)
"""How much of a load is done when each of its steps begins, as it was measured."""

RENAME = compose.SQL("ALTER DATABASE {} RENAME TO {}")


def is_demo(spec: str) -> bool:
    """Return whether a --target means the demo: empty, `demo`, or `demo:ROWS`."""
    return spec in ("", "demo") or spec.startswith("demo:")


def rows_of(spec: str) -> int:
    """Return how many bookings the demo of this --target has.

    Raises:
        InputError: the number, or that of the environment variable, is not one.
    """
    _, colon, text = spec.partition(":")
    where = f"target {spec!r}" if colon else ROWS_VARIABLE
    text = text if colon else os.environ.get(ROWS_VARIABLE, str(demo.DEFAULT_ROWS))
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{where}: {text!r} is not a number of rows") from None


@contextmanager
def opened(spec: str, *, fresh: bool = False, progress: Tell) -> Iterator[Target]:
    """Start the embedded server and hold the demo's database on it.

    The first time the data is loaded into a template; later databases are copies of it. Processes
    that open the same size at the same time share one database.

    Args:
        spec: as for --target; see `is_demo`.
        fresh: throw away what was done to the database and copy the template again.
        progress: is told each step in a few words before it starts, and how much of a load is done.

    Raises:
        InputError: the number of rows is not one, or out of range.
        TargetError: another process uses the database that is to be thrown away.
    """
    rows = rows_of(spec)
    mark = demo.fingerprint(rows)
    name, template = f"demo_{rows}_{mark}", f"template_{rows}_{mark}"
    progress("starting the embedded server", None)
    with embedded.server() as server:
        with _one_at_a_time():
            present = server.databases()
            if template not in present:
                _load(server, template, rows, present, progress)
            if name in present and fresh:
                server.drop_database(name)
            if fresh or name not in present:
                progress("copying the demo database from its template", None)
                server.create_database(name, template=template)
        yield Target(f"demo:{rows}", server.conninfo(name))


def renew(spec: str, *, progress: Tell) -> None:
    """Throw away what was done to a demo's database: the next user finds it as it was loaded.

    Args:
        spec: as for --target; see `is_demo`.
        progress: is told each step in a few words before it starts.

    Raises:
        InputError: the number of rows is not one, or out of range.
        TargetError: another process uses the database.
    """
    with opened(spec, fresh=True, progress=progress):
        pass  # it is fresh when it is open, and nothing is to be done in it


@contextmanager
def copies(sizes: Mapping[str, int], *, progress: Tell) -> Iterator[dict[str, str]]:
    """Hold databases with demo data that nobody else uses, and drop them in the end.

    Args:
        sizes: the number of bookings by name.
        progress: is told each step in a few words before it starts.

    Yields:
        The address of each, by name.

    Raises:
        InputError: a number of rows is out of range.
    """
    with ExitStack() as stack:
        server = stack.enter_context(embedded.server())
        addresses = {}
        for number, (name, rows) in enumerate(sizes.items()):
            template = f"template_{rows}_{demo.fingerprint(rows)}"
            with _one_at_a_time():
                present = server.databases()
                if template not in present:
                    _load(server, template, rows, present, progress)
                database = f"copy_{os.getpid()}_{number}"
                server.drop_database(database)
                server.create_database(database, template=template)
            stack.callback(server.drop_database, database)
            addresses[name] = server.conninfo(database)
        yield addresses


def _load(
    server: embedded.Server,
    template: str,
    rows: int,
    present: tuple[str, ...],
    progress: Tell,
) -> None:
    """Fill a database under another name first: a template is whole or not there."""
    outdated = f"template_{rows}_"
    loading = f"loading_{rows}"
    for database in present:
        if database == loading or database.startswith(outdated):
            server.drop_database(database)
    server.create_database(loading)
    with psycopg.connect(server.conninfo(loading), autocommit=True) as conn:
        parts = iter(PARTS)
        demo.load(conn, rows, progress=lambda text: progress(text, next(parts, None)))
    with psycopg.connect(server.conninfo(), autocommit=True) as conn:
        conn.execute(RENAME.format(compose.Identifier(loading), compose.Identifier(template)))


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    with (embedded.home() / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
