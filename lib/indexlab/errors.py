"""Errors that the kit raises on purpose, each with the exit code of the command."""

from __future__ import annotations

from pathlib import Path


class IndexlabError(Exception):
    """Something that the user can act on: what happened, the value, what to do next."""

    exit_code = 2


class InputError(IndexlabError):
    """A file, an option or a parameter is not as it must be; nothing was run.

    Args:
        message: what is wrong and what to do.
        source: the file (or the name of the text) that the error is in.
        line: line in `source`, counted from 1.
    """

    def __init__(self, message: str, *, source: str | Path | None = None, line: int | None = None):
        where = "" if source is None else f"{source}: " if line is None else f"{source}:{line}: "
        super().__init__(where + message)
        self.source = source
        self.line = line


class TargetError(IndexlabError):
    """The target cannot be reached, or does not allow what was asked."""

    exit_code = 3


class Unreachable(TargetError):
    """No session with the target can be had.

    Args:
        message: what is wrong and what to do.
        may_pass: whether it may be otherwise in a moment: nobody answers, or the server starts up
            or is full. A refused login, an unknown database or service stays as it is.
    """

    def __init__(self, message: str, *, may_pass: bool = False):
        super().__init__(message)
        self.may_pass = may_pass


class EmbeddedError(TargetError):
    """The embedded server cannot be made or started here; the message says what to set."""


class SandboxError(TargetError):
    """What was asked cannot be simulated, or the sandbox cannot be made; the message says why."""


class IncompleteError(IndexlabError):
    """A stage stopped before its end; the journal or the report says what stands."""

    exit_code = 4
