"""Failures of a statement: whether to try again, and how to tell them."""

from __future__ import annotations

import psycopg
from psycopg import errors

from indexlab.errors import TargetError

RAISED = "P0"
SECRETIVE_CLASSES = ("22", "38", "39", RAISED)
"""Classes of SQLSTATE whose message may quote a value of a row."""


class Stopped(Exception):
    """Ctrl-C came before the statement was sent."""


def lost(failure: Exception) -> bool:
    """Return whether the session is gone: by the network, the server or an administrator."""
    if isinstance(failure, TargetError):
        return True
    if not isinstance(failure, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    state = failure.sqlstate
    return state is None or state.startswith("08") or state in ("57P01", "57P02", "57P03")


def passing(failure: Exception) -> bool:
    """Return whether the same statement may succeed if it is tried again."""
    return lost(failure) or isinstance(
        failure, errors.DeadlockDetected | errors.LockNotAvailable | errors.SerializationFailure
    )


def told(failure: Exception) -> str:
    """Say what went wrong, without the DETAIL, which quotes values of rows."""
    if not isinstance(failure, psycopg.Error):
        return str(failure)
    state = failure.sqlstate or ""
    if state.startswith(SECRETIVE_CLASSES):
        why = "a row does not fit the index"
        if state.startswith(RAISED):
            why = "a function has refused a row, or an event trigger the statement"
        return (
            f"{type(failure).__name__} (SQLSTATE {state}): {why}; "
            "the server's message is not repeated here, it may quote the row"
        )
    if isinstance(failure, errors.QueryCanceled):
        return "the statement was cancelled"
    return failure.diag.message_primary or str(failure).partition("\n")[0]
