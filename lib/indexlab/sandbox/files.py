"""Relations of any size without a byte of disk: files that have an end and no content."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from indexlab.embedded import Account, Server
from indexlab.sandbox.pages import PAGE

SEGMENT = 131072
"""Pages in a file; what is beyond goes to the next one (RELSEG_SIZE)."""
WRITTEN_OUT = 2**30
"""Bytes that a sandbox takes at most where its files cannot be sparse."""
PROBE = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Files:
    """The data directory of the sandboxes' server."""

    root: Path
    account: Account

    @classmethod
    def of(cls, server: Server) -> Files:
        """Take the files of a server; reads only."""
        return cls(server.data_dir, server.account)

    def sparse(self) -> bool:
        """Tell whether the file system keeps files without content for nothing."""
        return is_sparse(self.root)

    def room(self, size: int) -> bool:
        """Tell whether files of so many bytes in all may be written out.

        Where the system limits the size of a file, none of them may reach it.
        """
        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        free = shutil.disk_usage(self.root).free
        return size <= min(WRITTEN_OUT, free // 10) and (limit < 0 or size < limit)

    def first(self, path: str, size: int = PAGE) -> bytes:
        """Read the first bytes of a relation; reads only."""
        with (self.root / path).open("rb") as file:
            return file.read(size)

    def put(self, path: str, data: bytes) -> None:
        """Write the first bytes of a relation."""
        descriptor = os.open(self.root / path, os.O_WRONLY)
        try:
            os.pwrite(descriptor, data, 0)
        finally:
            os.close(descriptor)

    def extend(self, path: str, pages: int) -> None:
        """Give a relation its size; it does not become smaller than it is in its first file.

        Args:
            path: of its main fork, below the data directory.
            pages: of 8 kB.
        """
        first = self.root / path
        for number in range(max(1, -(-pages // SEGMENT))):
            here = min(SEGMENT, pages - number * SEGMENT) * PAGE
            place = first if number == 0 else first.with_name(f"{first.name}.{number}")
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                if os.fstat(descriptor).st_size < here:
                    os.ftruncate(descriptor, here)
            finally:
                os.close(descriptor)
            if number:
                self.account.own(place)

    def empty(self, path: str) -> None:
        """Let a relation look empty, until it is extended again: a build then reads nothing."""
        os.truncate(self.root / path, 0)


def is_sparse(directory: Path) -> bool:
    """Tell whether the file system of a directory keeps files without content for nothing."""
    with tempfile.TemporaryFile(dir=directory) as file:
        try:
            os.ftruncate(file.fileno(), PROBE)
        except OSError:  # it wants to have all of it
            return False
        return os.fstat(file.fileno()).st_blocks * 512 < PROBE // 2
