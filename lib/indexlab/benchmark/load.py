"""Load: many clients at a given rate, by the pgbench of the embedded server's wheel."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from indexlab import display, embedded, units
from indexlab.benchmark.intervals import percentile
from indexlab.benchmark.rounds import Progress
from indexlab.errors import InputError, TargetError
from indexlab.records import Record
from indexlab.target import Target
from indexlab.workload import Query, SampledQuery

SCRIPTS_PER_QUERY = 20
"""Of so many sets of values a script is made: pgbench takes 128 scripts at most."""
MAX_SCRIPTS = 128
REACHED = 0.9
"""Of a rate: what chance may leave of it in a short load."""
TICK = 0.5
"""Seconds between two words about how far it is."""
VARIABLE = re.compile(r"(?<!:):[A-Za-z_\x80-\U0010ffff][^\s,;)]*")
PLACEHOLDER = re.compile(r"\$(\d+)")


@dataclass(frozen=True, slots=True)
class Load(Record):
    """What many clients saw."""

    clients: int
    rate: float
    """Transactions per second that were scheduled; 0: as many as were possible."""
    seconds: float
    done: int
    """Transactions that were done."""
    late: int
    """Transactions that were skipped or failed."""
    throughput: float
    """Transactions per second."""
    p50_ms: float
    """Latency from the scheduled start where there is a rate, else from the real one."""
    p95_ms: float
    p99_ms: float
    max_ms: float
    p99_low_ms: float
    p99_high_ms: float | None
    """None where there are too few transactions to bound it."""

    @property
    def fell_behind(self) -> bool:
        """Whether the rate was more than could be done: then a latency is a wait in the queue."""
        return self.throughput < REACHED * self.rate and self.p50_ms > self.seconds * 1000 / 10

    def __str__(self) -> str:
        """Say it in a sentence."""
        wanted = f"{self.rate:g}/s scheduled" if self.rate else "as fast as they can"
        return (
            f"{units.plural(self.clients, 'client')}, {wanted}: {self.throughput:,.1f} per second, "
            f"p50 {units.ms(self.p50_ms)}, p95 {units.ms(self.p95_ms)}, "
            f"p99 {units.ms(self.p99_ms)}, longest {units.ms(self.max_ms)}"
            + (f"; {units.plural(self.late, 'transaction')} skipped or failed" if self.late else "")
            + ("; the rate was not reached, so latencies grow with the queue" * self.fell_behind)
        )

    def __repr__(self) -> str:
        return f"<Load: {self}>"

    def _repr_html_(self) -> str:
        return f"<p>{display.escape(str(self))}</p>"


def check(clients: int, rate: float, seconds: float) -> None:
    """Check what was asked for; pure.

    Raises:
        InputError: a number is out of range.
    """
    if not 1 <= clients <= 1000:
        raise InputError(f"clients {clients!r} is not from 1 to 1,000")
    if not 0 <= rate <= 1e6:
        raise InputError(
            f"rate {rate!r} is not from 0 (as fast as possible) to 1,000,000 per second"
        )
    if not 1 <= seconds <= 86_400:
        raise InputError(f"seconds {seconds!r} is not from 1 to 86,400")


def check_workload(queries: Sequence[Query], *, disposable: bool) -> None:
    """Check that pgbench can send a workload, before anything is measured; pure.

    Raises:
        InputError: it has no query to send, too many, or one that pgbench would misread.
    """
    chosen = [one for one in queries if not one.generic and (disposable or one.kind == "read")]
    if not chosen:
        raise InputError("there is no query that load could be made of: the workload has no reads")
    if len(chosen) > MAX_SCRIPTS:
        raise InputError(
            f"pgbench takes {MAX_SCRIPTS} queries at most, the workload has {len(chosen)}"
        )
    for query in chosen:
        if found := VARIABLE.search(query.statement):
            raise InputError(
                f"query {query.name!r} cannot be sent by pgbench, which takes {found[0]!r} for a "
                "variable: take it out of the workload for --clients",
            )


def run(
    target: Target,
    sampled: Sequence[SampledQuery],
    *,
    clients: int,
    seconds: float,
    rate: float = 0.0,
    seed: int = 0,
    statement_timeout: float = 60.0,
    disposable: bool = False,
    progress: Progress | None = None,
) -> Load:
    """Send the workload from many clients at once; changes no row of the target.

    Queries are chosen at random by their weights. With a rate, starts are scheduled as a Poisson
    process and a latency counts from the scheduled start: a server that stalls does not get the
    waiting of those behind it for free (no coordinated omission). Reads run in READ ONLY sessions
    unless the target is disposable; then writes run, too, each rolled back.

    Args:
        target: where the queries run.
        sampled: the queries with their values.
        clients: concurrent sessions.
        seconds: how long.
        rate: transactions per second over all clients; 0 is as fast as they can.
        seed: of the choice of queries.
        statement_timeout: seconds that a statement may take.
        disposable: run the writes, too.
        progress: is told how far it is.

    Raises:
        InputError: a number is out of range, or there is nothing to run.
        TargetError: pgbench cannot run, or a statement fails.
    """
    check(clients, rate, seconds)
    check_workload([one.query for one in sampled if one.values], disposable=disposable)
    chosen = [one for one in sampled if one.values and (disposable or one.query.kind == "read")]
    with tempfile.TemporaryDirectory(prefix="indexlab-load-") as private:
        place = Path(private)
        scripts = scripts_of(chosen, place)
        command = [
            *(str(embedded.binary("pgbench")), "--no-vacuum", "--protocol=prepared", "--log"),
            *(f"--log-prefix={place / 'log'}", f"--client={clients}"),
            *(f"--jobs={min(clients, os.cpu_count() or 1)}", f"--time={round(seconds)}"),
            f"--random-seed={seed}",
            *([f"--rate={rate:g}"] if rate else []),
            *(f"--file={script}@{weight}" for script, weight in scripts),
        ]
        options = f"-c statement_timeout={round(statement_timeout * 1000)}"
        if not disposable:
            options += " -c default_transaction_read_only=on"
        _pgbench(command, target, options, seconds, progress or (lambda _words, _part: None))
        return _read(place, clients, rate, seconds)


def scripts_of(chosen: Sequence[SampledQuery], place: Path) -> list[tuple[Path, int]]:
    """Write a script for each set of values, with its share of the query's weight."""
    each = max(1, min(SCRIPTS_PER_QUERY, MAX_SCRIPTS // len(chosen)))
    shares = [
        one.query.weight / min(each, len(one.values)) for one in chosen for _ in one.values[:each]
    ]
    scale = 1000 / max(shares)
    found: list[tuple[Path, float]] = []
    for number, one in enumerate(chosen):
        for place_of, values in enumerate(one.values[:each]):
            script = place / f"q{number}-{place_of}.sql"
            statement = _literal(one, values)
            is_write = one.query.kind == "write"
            script.write_text(
                f"BEGIN;\n{statement};\nROLLBACK;\n" if is_write else f"{statement};\n",
                encoding="utf-8",
            )
            found.append((script, shares[len(found)]))
    return [(script, max(1, round(share * scale))) for script, share in found]


def _literal(one: SampledQuery, values: Sequence[str | None]) -> str:
    """Write values as literals of unknown type into a statement.

    pgbench takes a colon before a name for a variable of its own, within quotes, too: in values it
    is written as an escape, and a statement that has one was refused. `::` is none.
    """

    def text(match: re.Match[str]) -> str:
        value = values[int(match[1]) - 1]
        if value is None:
            return "NULL"
        quoted = value.replace("\\", "\\\\").replace("'", "''").replace(":", "\\x3A")
        return f"E'{quoted}'".replace("\n", "\\n")

    # Numbered placeholders stand in no string: the parser has put them where names were.
    return PLACEHOLDER.sub(text, one.query.statement.rstrip().rstrip(";"))


def _pgbench(
    command: list[str], target: Target, options: str, seconds: float, tell: Progress
) -> None:
    """Run pgbench; a password goes through its environment only."""
    import psycopg

    try:
        address, environment = access(target, options)
        with subprocess.Popen(
            [*command, address],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            said = _awaited(process, seconds, tell)
    except (OSError, subprocess.TimeoutExpired, psycopg.Error) as error:
        raise TargetError(f"pgbench did not come to its end: {error}") from None
    errors = [line for line in said.splitlines() if "error" in line.lower()]
    if process.returncode or errors:
        reason = errors[0] if errors else said.strip()[-200:]
        for secret in target.secrets():
            reason = reason.replace(secret, "***")
        raise TargetError(f"pgbench fails: {reason}")


def _awaited(process: subprocess.Popen[str], seconds: float, tell: Progress) -> str:
    """Wait for a program, telling how far it is by the clock; return what it said of errors.

    Raises:
        subprocess.TimeoutExpired: it is still there long after its time, and was ended.
    """
    began = time.monotonic()
    while True:
        spent = time.monotonic() - began
        tell(f"load for {units.duration(seconds)}", min(spent / seconds, 1.0))
        try:
            return process.communicate(timeout=TICK)[1]
        except subprocess.TimeoutExpired:
            if spent > seconds * 2 + 600:
                process.kill()
                raise
        except BaseException:
            process.kill()
            raise


def access(target: Target, options: str, **more: str) -> tuple[str, dict[str, str]]:
    """Return an address without a password for a program of libpq, and its environment with it.

    Args:
        target: the database.
        options: settings of the sessions, as for PGOPTIONS, behind those that the target has.
        more: further parts of the address, such as application_name.
    """
    from psycopg import conninfo as libpq

    given = libpq.conninfo_to_dict(target.conninfo)
    environment = dict(os.environ)
    if given.get("password"):
        environment["PGPASSWORD"] = str(given.pop("password"))
    before = str(given.get("options") or environment.get("PGOPTIONS") or "")
    given |= {"options": f"{before} {options}".strip(), **more}
    return libpq.make_conninfo("", **given), environment


def _read(place: Path, clients: int, rate: float, seconds: float) -> Load:
    """Read pgbench's log: client, number, latency in us or why there is none, script, end, lag."""
    times: list[float] = []
    ends: list[float] = []
    late = 0
    for file in place.glob("log.*"):
        for line in file.read_text().splitlines():
            _, _, latency, _, second, micros, *_ = line.split()
            if latency.isdigit():
                times.append(int(latency) / 1000)
                ends.append(int(second) + int(micros) / 1e6)
            else:
                late += 1
    if not times:
        raise TargetError(f"no transaction came to its end in {units.duration(seconds)}")
    import numpy as np

    p50, p95, p99 = (float(value) for value in np.percentile(times, [50, 95, 99]))
    low, high = percentile(times, 99)
    # What was begun in time is waited for, so that slow transactions end behind it.
    began = min(end - ms / 1000 for end, ms in zip(ends, times, strict=True))
    lasted = max(seconds, max(ends) - began)
    return Load(
        clients=clients,
        rate=rate,
        seconds=seconds,
        done=len(times),
        late=late,
        throughput=len(times) / lasted,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        max_ms=max(times),
        p99_low_ms=low,
        p99_high_ms=high,
    )
