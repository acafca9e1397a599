"""What the sizes of indexes rest on: the statistics of columns, as a sandbox has them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import psycopg

from indexlab.catalog import Catalog
from indexlab.catalog import statistics as planner_statistics
from indexlab.catalog.statistics import Statistics


def informed(admin: psycopg.Connection[Any], catalog: Catalog, tables: Iterable[int]) -> Catalog:
    """Add to a catalog the statistics of tables that it does not have; reads only.

    Args:
        admin: a session on the sandbox.
        catalog: of the target.
        tables: their oids on the target.
    """
    new = sorted(set(tables) - set(catalog.statistics.tables))
    if not new:
        return catalog
    found = planner_statistics.read(admin, catalog, new)
    return replace(catalog, statistics=merged(catalog.statistics, found))


def merged(one: Statistics, other: Statistics) -> Statistics:
    """Put the statistics of other tables to those that are known; pure."""
    return Statistics(
        (*one.tables, *other.tables),
        (*one.columns, *other.columns),
        (*one.groups, *other.groups),
        (*one.expressions, *other.expressions),
        denied=one.denied and other.denied,
    )
