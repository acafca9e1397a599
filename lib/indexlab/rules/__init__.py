"""The documentation of the audit's rules: one page in Markdown for each, named as the rule."""

from __future__ import annotations

import difflib
import functools
from importlib import resources

from indexlab.errors import InputError


@functools.cache
def names() -> tuple[str, ...]:
    """Return the names of all rules, in alphabetical order."""
    files = (entry.name for entry in resources.files(__name__).iterdir())
    return tuple(sorted(name.removesuffix(".md") for name in files if name.endswith(".md")))


def page(name: str) -> str:
    """Return the page of a rule, in Markdown.

    Raises:
        InputError: there is no such rule.
    """
    if name not in names():
        near = nearest(name)
        hint = f"did you mean {near!r}?" if near else "`indexlab explain-rule` lists them"
        raise InputError(f"there is no rule {name!r}: {hint}")
    return resources.files(__name__).joinpath(f"{name}.md").read_text(encoding="utf-8")


def severity(name: str) -> str:
    """Return how grave the findings of a rule are, such as `error or warning`."""
    return _line(name, 2).removeprefix("Severity: ").rstrip(".")


def summary(name: str) -> str:
    """Return the first sentence of a rule's page: what it means."""
    return _line(name, 4)


def nearest(name: str) -> str:
    """Return the rule whose name is nearest to this one; empty when none is near."""
    return next(iter(difflib.get_close_matches(name, names(), n=1)), "")


def _line(name: str, number: int) -> str:
    return page(name).splitlines()[number]
