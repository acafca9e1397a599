"""Write the folder: all of its files, or none where one is there already."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from indexlab import plan as plans
from indexlab import workload as workloads
from indexlab.errors import InputError
from indexlab.starter.drafting import Draft, joined

TEMPLATES = Path(__file__).with_name("files")
NAMES = {
    "plan.sql": "plan.sql.j2",
    "workload.sql": "workload.sql.j2",
    "README.md": "README.md.j2",
    ".github/workflows/indexlab.yml": "github.yml.j2",
    ".gitlab-ci.yml": "gitlab.yml.j2",
    ".gitignore": "gitignore.j2",
}
"""The files, in the order in which a newcomer meets them, and their templates."""


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    text: str


def write(folder: Path, draft: Draft, *, target: str, version: str) -> tuple[Path, ...]:
    """Write the starter folder; nothing is overwritten.

    Args:
        folder: is made if it is not there.
        draft: what plan and workload begin with.
        target: as for --target, without a password; empty for the environment.
        version: of the kit, for the CI files.

    Returns:
        The files, in the order in which a newcomer meets them.

    Raises:
        InputError: a file is there already, or cannot be written; where one is there, none is
            written.
    """
    files = tuple(_files(draft, target=target, version=version, prefix=_prefix(folder)))
    there = [file.name for file in files if (folder / file.name).exists()]
    if there:
        raise InputError(
            f"{folder.as_posix()!r} holds {', '.join(there)} already, and init never overwrites a "
            "file: give another folder"
        )
    written = []
    for file in files:
        path = folder / file.name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as new:
                new.write(file.text)
        except OSError as error:
            raise InputError(f"cannot be written: {error.strerror}", source=path) from None
        written.append(path)
    return tuple(written)


def _prefix(folder: Path) -> str:
    """Return where the folder is in its repository; empty for the root, or without a repository."""
    place = folder.resolve()
    for parent in place.parents:
        if (place / ".git").exists():
            return ""
        if (parent / ".git").exists():
            return place.relative_to(parent).as_posix()
    return ""


def _quoted(prefix: str, name: str) -> str:
    """Write a path from the root of the repository, where CI works, for its shell."""
    return shlex.quote((PurePosixPath(prefix) / name).as_posix())


def _files(draft: Draft, *, target: str, version: str, prefix: str) -> list[_File]:
    """Render all files; pure but for the templates.

    Raises:
        InputError: the kit's own grammar does not take the plan or the workload.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        # Workflows have curly brackets of their own; nothing here is HTML.
        variable_start_string="[[",
        variable_end_string="]]",
        block_start_string="[%",
        block_end_string="%]",
        comment_start_string="[#",
        comment_end_string="#]",
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,
    )
    common = {
        "target": target,
        "quoted": shlex.quote(target or "env"),
        "version": version,
        "prefix": prefix,
        "plan": _quoted(prefix, "plan.sql"),
        "workload": _quoted(prefix, "workload.sql"),
    }
    own: Mapping[str, Mapping[str, object]] = {
        "plan.sql": {
            "blocks": joined(draft.indexes),
            "left": draft.left,
            "unbegun": plans.UNBEGUN,
        },
        "workload.sql": {
            "blocks": joined(draft.queries),
            "origin": draft.origin,
            "unbegun": workloads.UNBEGUN,
        },
    }
    files = [
        _File(name, environment.get_template(template).render(**common, **own.get(name, {})))
        for name, template in NAMES.items()
    ]
    texts = {file.name: file.text for file in files}
    plans.parse(texts["plan.sql"], "plan.sql")
    workloads.parse(texts["workload.sql"], "workload.sql")
    return files
