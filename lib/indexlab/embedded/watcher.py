"""Watch a server from a process of its own, which stops it when its last user has left.

The watcher's program is the source of `processes`, `stop` and `_wait`: they use nothing of this
package, and no module but those that `_IMPORTS` names.
"""

from __future__ import annotations

import fcntl
import inspect
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from indexlab.embedded.account import environment, keep

_IMPORTS = """\
from __future__ import annotations
import fcntl, os, signal, time
from contextlib import suppress
from pathlib import Path
"""


def watch(base: Path) -> None:
    """Start the watcher, unless there is one."""
    tag = tag_of(base / "data")
    watcher = os.open(base / "watcher.lock", os.O_RDWR | os.O_CREAT, 0o600)
    users = os.open(base / "users.lock", os.O_RDWR)
    try:
        # The watcher inherits the lock: there is no moment in which it runs without.
        fcntl.flock(watcher, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        sources = (inspect.getsource(function) for function in (processes, stop, _wait))
        program = "\n".join((_IMPORTS, *sources, f"_wait({watcher}, {users}, {tag!r})"))
        keep(
            subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", program],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=environment(),
                pass_fds=(watcher, users),
                start_new_session=True,
                text=True,
            )
        )
    finally:
        os.close(users)
        os.close(watcher)


def _wait(watcher: int, users: int, tag: str) -> None:
    """Wait for the last user to leave, stop the server, and let newcomers in by ending."""
    fcntl.flock(users, fcntl.LOCK_EX)
    os.close(watcher)  # a newcomer that comes after us shall start a watcher of its own
    stop(tag)


def stop(tag: str) -> None:
    """Stop a server fast, or its orphans if it was killed, and less gently when that hangs."""
    for number, patience in ((signal.SIGINT, 60), (signal.SIGQUIT, 10), (signal.SIGKILL, 2)):
        postmaster, orphans = processes(tag)
        for pid in postmaster or orphans:
            with suppress(OSError):
                os.kill(pid, number)
        deadline = time.monotonic() + (patience if postmaster else 1)
        while any(processes(tag)) and time.monotonic() < deadline:
            time.sleep(0.03)


def processes(tag: str) -> tuple[list[int], list[int]]:
    """Find the postmaster of a cluster, if any, and its other processes.

    A pid file may name a stranger after a reboot; what a process says of itself is its own.
    """
    postmaster, others = [], []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if words[0].startswith(f"postgres: {tag}: ".encode()):
                others.append(int(entry.name))
            elif words[0].endswith(b"/postgres") and f"cluster_name={tag}".encode() in words:
                postmaster.append(int(entry.name))
    return postmaster, others


def tag_of(data: Path) -> str:
    """Name a cluster by its inode: the same through every path, and of no other cluster."""
    facts = data.stat()
    return f"indexlab-{facts.st_dev:x}-{facts.st_ino:x}"
