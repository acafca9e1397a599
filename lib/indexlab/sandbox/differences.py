"""How a sandbox differs from its target, in words, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import psycopg

from indexlab.sandbox.loading import Loaded
from indexlab.sandbox.original import PAGE, Original
from indexlab.sandbox.scope import Scope
from indexlab.sandbox.whatif import Lacking
from indexlab.target import Server


@dataclass(slots=True)
class Differences:
    """Collects them while a sandbox is made."""

    server: Server
    """The target."""
    lacks: list[Lacking] = field(default_factory=list)
    off: tuple[str, ...] = ()
    """Planner features of the sandbox that the target's version does not have."""
    _notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Say something once."""
        if text and text not in self._notes:
            self._notes.append(text)

    @property
    def lacking(self) -> tuple[Lacking, ...]:
        """What is not there, each thing once."""
        return tuple(dict.fromkeys(self.lacks))

    @property
    def notes(self) -> tuple[str, ...]:
        """All of them, the most general ones first."""
        return tuple(self._notes)

    def of_original(self, original: Original, scope: Scope, order: str) -> None:
        """Compare what was read from the target with what a sandbox can have.

        Args:
            original: from the target.
            scope: the relations.
            order: how the sandbox's order of text differs; empty where it does not.
        """
        self.note(order)
        if scope.guarded:
            names = ", ".join(str(item.qualified) for item in scope.guarded)
            self.note(
                f"row security is active for the role on {names}: its conditions are not part of "
                "the plans here, and the statistics of these tables are hidden from it; a role "
                "with BYPASSRLS sees them"
            )
        if original.denied:
            self.note(
                "the role may not read pg_stats: rows are estimated without statistics of columns"
            )
        if original.unmatched:
            self.note(
                f"the most common values of extended statistics {', '.join(original.unmatched)} "
                "are not copied: conditions on these columns together are estimated as if they "
                "had none"
            )
        if original.tablespaces:
            self.note(
                f"tablespace {', '.join(original.tablespaces)} has page costs of its own, which "
                "are not copied: the session's are used"
            )
        if original.block_size != PAGE:
            self.note(
                f"the target's pages have {original.block_size} bytes and the sandbox's {PAGE}: "
                "sizes are the same, but there are more or fewer pages to read"
            )

    def of_load(self, loaded: Loaded) -> None:
        """Take over what was lost and replaced while the schema was loaded."""
        self.lacks += loaded.lacking
        for text in loaded.notes:
            self.note(text)

    def name(self, conn: psycopg.Connection[Any]) -> str:
        """Say what is asked; notes how the versions differ."""
        own = conn.info.parameter_status("server_version") or ""
        own_major = conn.info.server_version // 10000
        if self.server.version // 10000 != own_major:
            off = f"; turned off, as the target does not have it: {', '.join(self.off)}"
            self._notes.insert(
                0,
                f"the target is PostgreSQL {self.server.version_text}, the planner asked is that "
                f"of {own}" + (off if self.off else ""),
            )
        self.note(
            "the statistics hold sampled values of the data: the sandbox's files are private to "
            "the user, and its database is dropped at the end"
        )
        return f"sandbox on PostgreSQL {own}, statistics of {self.server.version_text}"
