"""Beginning: a folder to start from, drafted from a database where one is named."""

from __future__ import annotations

from pathlib import Path

from indexlab import starter
from indexlab import target as targets
from indexlab.lab.reaching import held
from indexlab.progress import Progress, Tell
from indexlab.starter import Draft


def begin(
    folder: Path, target: str = "", *, version: str, tell: Tell | None = None
) -> tuple[tuple[Path, ...], Draft]:
    """Write a starter folder; reads only on the target.

    Args:
        folder: is made if it is not there.
        target: as for --target; empty drafts nothing, and the files hold examples.
        version: of the kit, for the CI files.
        tell: is told what goes on.

    Returns:
        The files that were written, and what was drafted for them.

    Raises:
        InputError: a file is there already, or cannot be written.
        TargetError: the target cannot be reached.
    """
    if not target:
        draft = starter.examples()
        return starter.write(folder, draft, target="", version=version), draft
    progress = Progress(tell)
    with held(target, progress) as reached:
        progress.tell("reading the catalog")
        with (
            targets.connect(reached, read_only=True, purpose="init") as conn,
            targets.connect(reached, read_only=True, purpose="init") as other,
        ):
            draft = starter.draft(conn, other)
        progress.done()
        spec = reached.spec
    return starter.write(folder, draft, target=spec, version=version), draft
