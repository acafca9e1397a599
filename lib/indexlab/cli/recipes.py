"""Recipes: files with which schedulers run the kit, to be copied and changed."""

from __future__ import annotations

from pathlib import Path

import click

from indexlab.errors import InputError

RECIPES = {
    "cron": ("crontab", "every night, the matrices of thirty nights kept"),
    "github": ("github-actions.yml", "a nightly workflow, the matrix as its artifact"),
    "gitlab": ("gitlab-ci.yml", "a scheduled pipeline, the matrix as its artifact"),
    "airflow": ("airflow_dag.py", "the stage notebooks as they are, by PapermillOperator"),
    "dagster": ("dagster_job.py", "an asset with the counts as metadata, and its schedule"),
}
"""File and purpose by name."""


@click.command()
@click.argument("name", required=False)
def recipe(name: str | None) -> None:
    """Print the recipe NAME for a scheduler, or list them."""
    if name is None:
        for known, (file, purpose) in RECIPES.items():
            click.echo(f"{known:<8} {file:<20} {purpose}")
        return
    if name not in RECIPES:
        raise InputError(f"there is no recipe {name!r}: there are {', '.join(RECIPES)}")
    path = Path(__file__).parents[1] / "recipes" / RECIPES[name][0]
    click.echo(path.read_text(encoding="utf-8"), nl=False)
