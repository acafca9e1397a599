"""Writing a migration beside what is there already, never over it."""

from __future__ import annotations

from pathlib import Path

from indexlab import export
from indexlab.errors import InputError
from indexlab.runs import Run


def check_export(tool: str, to: str) -> None:
    """Check an export's options; writes nothing.

    Raises:
        InputError: there is no such tool, or it cannot be written there.
    """
    if tool and tool not in export.TOOLS:
        raise InputError(f"no export for {tool!r}: there are {', '.join(export.TOOLS)}")
    if not to:
        return
    if not tool:
        raise InputError("--export-to needs --export, which says for which tool")
    path = Path(to)
    if path.is_file():
        raise InputError(f"{to!r} exists already, and an export never overwrites a file")
    if not path.is_dir() and not path.parent.is_dir():
        raise InputError(f"the directory {path.parent.as_posix()!r} does not exist")


def exported(files: tuple[export.File, ...], place: Path) -> tuple[Path, ...]:
    """Write files into a directory, or the first of them as `place` and the others beside it."""
    names = [file.name for file in files]
    folder = place
    if not place.is_dir():
        folder = place.parent
        stem = files[0].name
        names = [_beside(place.name, stem, name) for name in names]
    for name in names:
        if (folder / name).exists():
            raise InputError(
                f"{(folder / name).as_posix()!r} exists already, and an export never overwrites "
                "a file"
            )
    return tuple(
        Run(folder).write(name, file.text) for name, file in zip(names, files, strict=True)
    )


def _beside(given: str, first: str, name: str) -> str:
    """Name a file after the one that was given: what belongs to it begins with its name."""
    return given + name.removeprefix(first) if name.startswith(first) else name
