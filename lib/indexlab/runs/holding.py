"""Holding a directory: while one process works in it, no other one does."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from indexlab.errors import InputError

LOCK = ".lock"
"""It is there while a process works in the directory; after a crash nobody holds it."""


@contextmanager
def held(place: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes out of a directory, which is made if it is not there.

    The kernel lets go of it with the process, so that no crash leaves a directory locked.

    Args:
        place: the directory.
        wait: whether to wait for whoever holds it, instead of refusing.

    Raises:
        InputError: somebody else works in it, or it cannot be written.
    """
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = _taken(place / LOCK, wait=wait)
    except OSError as error:
        raise InputError(
            f"cannot write to {place.as_posix()!r}: {error.strerror}: give another --out"
        ) from None
    if handle is None:
        raise InputError(
            f"another run works in {place.as_posix()!r}, and a run never overwrites another: "
            "give another --out"
        )
    try:
        yield
    finally:
        with suppress(OSError):
            (place / LOCK).unlink()
        os.close(handle)


def is_held(place: Path) -> bool:
    """Return whether a process works in a directory now; reads only."""
    try:
        handle = os.open(place / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _taken(path: Path, *, wait: bool) -> int | None:
    """Lock a file and return its handle; None where somebody else has it."""
    how = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, how)
        except BlockingIOError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        if _is_at(path, handle):
            return handle
        os.close(handle)  # who held it has removed it meanwhile


def _is_at(path: Path, handle: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(handle).st_ino
    except FileNotFoundError:
        return False
