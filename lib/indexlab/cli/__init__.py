"""The `indexlab` command; what it imports at the top is what `--help` waits for."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import click

import indexlab
from indexlab.cli import batches, beginning, recipes, reports, stages, story
from indexlab.errors import IndexlabError

INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(indexlab.__version__, prog_name="indexlab")
def cli() -> None:
    """Audit, apply and benchmark PostgreSQL index plans.

    Exit codes: 0 fine; 1 the audit found errors (see --fail-on), or a query slowed down beyond --max-slowdown;
    2 bad input; 3 the target cannot be reached or does not allow it; 4 apply or a batch did not complete;
    130 interrupted.
    """


for _command in (
    *(stages.audit, stages.explain_rule, stages.benchmark, stages.apply),
    *(story.run, story.demo, story.compare, story.rollback, reports.reports),
    *(batches.batch, batches.targets, recipes.recipe),
    *(beginning.init, beginning.lab),
):
    cli.add_command(_command)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command and leave with its exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("indexlab: interrupted", err=True)
        code = INTERRUPTED
    except IndexlabError as error:
        click.echo(f"indexlab: error: {error}", err=True)
        code = error.exit_code
    sys.exit(code or 0)
