"""The runs that are kept: their index, and making room."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from indexlab.cli import options
from indexlab.cli.results import as_json, say

if TYPE_CHECKING:
    from indexlab.runs.shelf import Fate, Place, Shelf


@click.command()
@click.argument("directory", default="reports")
@click.option("--open", "show", is_flag=True, help="Show the index in a browser.")
@click.option(
    "--prune",
    type=click.IntRange(min=0),
    default=None,
    metavar="N",
    help="Delete all runs but the last N; never one in progress.",
)
@click.option(
    "--applied",
    is_flag=True,
    help="With --prune: also those that a rollback needs, as they changed their target.",
)
@click.option("--dry-run", is_flag=True, help="With --prune: only say what would go.")
@options.output
def reports(
    directory: str, *, show: bool, prune: int | None, applied: bool, dry_run: bool, form: str
) -> int:
    """Make the index over all runs of DIRECTORY anew, from their JSON; say what is there."""
    import webbrowser

    from indexlab import render
    from indexlab.errors import InputError
    from indexlab.runs import shelf

    place = Path(directory)
    if (applied or dry_run) and prune is None:
        raise InputError("--applied and --dry-run say how to prune: give --prune N")
    if not place.is_dir():
        raise InputError(f"there is no directory {directory!r}: name the one that holds your runs")
    render.require_own(place)
    fates: tuple[Fate, ...] = ()
    gone: tuple[Place, ...] = ()
    if prune is not None:
        found = shelf.read(place)
        fates = shelf.outdated(found, prune, applied=applied)
        gone = () if dry_run else shelf.remove(found, fates)
    page = render.index(place)
    found = shelf.read(place)
    if form == "json":
        say([as_json(_document(found, fates, gone))])
    else:
        say([*_pruned(fates, gone, dry_run=dry_run), *_lines(found), f"index: {page.as_posix()}"])
    if show and not webbrowser.open(page.absolute().as_uri()):
        click.echo(f"no browser can be opened here: open {page.as_posix()} in one", err=True)
    return 0


def _lines(found: Shelf) -> list[str]:
    from indexlab.display import clean

    lines = [
        f"{place.card.started[:16].replace('T', ' ')}  {clean(place.name):<32} "
        f"{'running' if place.working else clean(place.card.verdict):<10} "
        f"{clean(place.card.headline)}"
        for place in found.places
    ]
    lines += [f"not a run: {clean(one.name)}: {clean(one.reason)}" for one in found.strangers]
    return [*lines, ""] if lines else []


def _pruned(fates: tuple[Fate, ...], gone: tuple[Place, ...], *, dry_run: bool) -> list[str]:
    from indexlab.display import clean

    names = {place.name for place in gone}
    lines = []
    for fate in fates:
        name = clean(fate.place.name)
        if fate.reason:
            lines.append(f"stays: {name}: {clean(fate.reason)}")
        elif dry_run:
            lines.append(f"would go: {name}")
        elif fate.place.name in names:
            lines.append(f"gone: {name}")
        else:
            lines.append(f"stays: {name}: a run began in it")
    return [*lines, ""] if lines else []


def _document(found: Shelf, fates: tuple[Fate, ...], gone: tuple[Place, ...]) -> dict[str, object]:
    from dataclasses import asdict

    names = {place.name for place in gone}
    return {
        "format": 1,
        "runs": [asdict(place) for place in found.places],
        "not_shown": [asdict(stranger) for stranger in found.strangers],
        "pruned": [
            {"name": fate.place.name, "gone": fate.place.name in names, "reason": fate.reason}
            for fate in fates
        ],
    }
