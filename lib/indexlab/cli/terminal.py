"""Progress on a terminal, or as plain lines where there is none."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from indexlab.pipeline import Options, Pipeline

PLAIN_SECONDS = 1.0
PLAIN_WAIT_SECONDS = 5.0
PLAIN_GROWTH = 0.1
PLAIN_LONGEST_SECONDS = 300.0
"""A plain line that goes on the same is told again after a tenth of the time that it has lasted, so
that a log of a night holds hundreds of them at most."""
NUMBERS = re.compile(r"\d[\d.,:]*")
BAR = 12
"""Characters of a bar."""


class _Told(NamedTuple):
    """A plain line about a topic."""

    head: str
    at: float
    """When it was told."""
    since: float
    """When the first of its shape was."""


def _shape(line: str) -> str:
    """Take the numbers out of a line."""
    return NUMBERS.sub("", line)


class Terminal:
    """Progress on stderr: lines that change in place on a terminal, plain lines elsewhere.

    There is one line for each step of apply, and one for anything else.
    """

    def __init__(self) -> None:
        self._live: Any = None
        self._lines: Any = None
        self._told: dict[str, _Told] = {}

    def __enter__(self) -> Terminal:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            from indexlab.progress import Lines

            console = Console(stderr=True, highlight=False)
            self._lines = Lines()
            self._live = Live(console=console, refresh_per_second=8, transient=True)
            self._live.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)

    @property
    def live(self) -> bool:
        """Whether lines can change in place."""
        return self._live is not None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take the lines that change away, while the user is asked something."""
        if self._live is None:
            yield
            return
        self._live.stop()
        try:
            yield
        finally:
            self._live.start(refresh=True)

    def note(self, text: str) -> None:
        """Say something that stays, above the lines that change."""
        from indexlab.display import clean

        if self._live is None:
            click.echo(clean(text), err=True)
            return
        from rich.text import Text

        self._live.console.print(Text(clean(text)), soft_wrap=True)

    def tell(self, text: str, fraction: float | None = None) -> None:
        """Show what goes on."""
        from indexlab.display import clean
        from indexlab.progress import About

        if self._live is not None:
            self._live.update(self._drawn(self._lines.hear(text, fraction)))
            return
        if not text:
            return
        topic = text.topic if isinstance(text, About) else ""
        lasting = isinstance(text, About) and text.lasting
        shown, now = clean(text), time.monotonic()
        before = self._told.get(topic, _Told("", -PLAIN_WAIT_SECONDS, now))
        # A line about who is waited for differs from second to second in the age only.
        head = shown.partition(";")[0]
        since = before.since if _shape(head) == _shape(before.head) else now
        least = PLAIN_WAIT_SECONDS if lasting else PLAIN_SECONDS
        pause = max(least, min((now - since) * PLAIN_GROWTH, PLAIN_LONGEST_SECONDS))
        if (lasting and head != before.head) or now - before.at >= pause:
            click.echo(shown, err=True)
            self._told[topic] = _Told(head, now, since)

    def _drawn(self, lines: Iterable[tuple[str, float | None]]) -> Any:
        from rich.console import Group
        from rich.text import Text

        from indexlab.display import clean

        shown = (f"{_bar(fraction)}{clean(text)}" for text, fraction in lines)
        return Group(*(Text(line, overflow="ellipsis", no_wrap=True) for line in shown))


def _bar(fraction: float | None) -> str:
    """Draw how far it is, where that is known.

    >>> _bar(0.5), _bar(None), _bar(1.7)
    ('██████░░░░░░  50% ', '', '████████████ 100% ')
    """
    if fraction is None:
        return ""
    part = min(max(fraction, 0.0), 1.0)
    full = round(part * BAR)
    return f"{'█' * full}{'░' * (BAR - full)} {part:>4.0%} "


@contextmanager
def working(chosen: Options) -> Iterator[Pipeline]:
    """Check the options and hand out their stages, which tell this terminal what goes on.

    The run's directory is held meanwhile, and put in order at the end.
    """
    from indexlab import closing
    from indexlab.pipeline import Pipeline
    from indexlab.runs import Run

    with Terminal() as terminal:
        try:
            pipeline = Pipeline(chosen, terminal.tell)
        except BaseException:
            Run(chosen.out).remove_if_empty()  # where no --out was given, it was made already
            raise
        with closing.closed(chosen.out, terminal.tell):
            yield pipeline
