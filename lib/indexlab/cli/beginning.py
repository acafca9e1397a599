"""Where one begins: a starter folder, and the notebooks in JupyterLab."""

from __future__ import annotations

import os
from pathlib import Path

import click

import indexlab
from indexlab.cli import options
from indexlab.cli.terminal import Terminal


@click.command()
@click.argument("folder", metavar="DIR")
@click.option(
    "--target",
    "-t",
    default="",
    metavar="T",
    help="Draft plan and workload from this database: env, service=NAME, a URI, or demo.",
)
def init(folder: str, target: str) -> int:
    """Write a folder to start from: plan, workload, CI files, README; never overwrites a file.

    With --target, the plan begins with the foreign keys that no index serves, and the workload
    with what pg_stat_statements counted, or else with a query for each foreign key.
    """
    from indexlab import lab
    from indexlab.display import clean

    with Terminal() as terminal:
        files, draft = lab.begin(
            Path(folder), target, version=indexlab.__version__, tell=terminal.tell
        )
    for path in files:
        click.echo(f"wrote {path.as_posix()}")
    if target:
        click.echo(
            f"\ndrafted {len(draft.indexes)} of the plan's statements and {len(draft.queries)} "
            "queries: read them, and write your own"
        )
        for note in draft.notes:
            click.echo(clean(note))
    click.echo(f"\nnext: read {(Path(folder) / 'README.md').as_posix()}")
    return 0


@click.command("lab")
@click.argument("folder", metavar="[DIR]", default="notebooks")
@options.target
@click.option("--plan", default="", metavar="FILE", help="The index plan (.sql).")
@click.option("--workload", default="", metavar="FILE", help="The workload (.sql).")
@click.option("--no-browser", is_flag=True, help="Print the address instead of opening a browser.")
@click.option("--port", type=click.IntRange(1, 65535), default=8888, help="Where it listens.")
def lab(folder: str, no_browser: bool, port: int, **given: str) -> None:
    """Open JupyterLab on the notebooks in DIR, on this machine alone.

    Those that are not there yet are copied, with target, plan and workload as their parameters; a
    password stays in the environment. A notebook that is there is never overwritten.
    """
    from indexlab import desk
    from indexlab import target as targets
    from indexlab.demo import database

    target = given["target"]
    known = None if database.is_demo(target) else targets.resolve(target)
    given["target"] = target if known is None else known.spec
    values = {
        name: os.path.relpath(value, folder) if name != "target" else value
        for name, value in given.items()
        if value
    }
    laid = desk.lay(Path(folder), values)
    for name in laid.copied:
        click.echo(f"copied {(laid.folder / name).as_posix()}.ipynb", err=True)
    desk.sit(
        laid.folder,
        {} if known is None else known.environment(),
        browser=not no_browser,
        port=port,
    )
