"""How many pages a btree has after its build, and how high it is.

The model follows nbtsort.c and nbtdedup.c: it fills pages with some hundred tuples as a build would,
equal keys merged into posting lists, and takes the other pages to be like them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from indexlab.sizes.frequencies import QUANTILES, Keys, buckets, rows_of

PAGE = 8192
FREE = PAGE - 24 - 16 - 4 - 4
"""What `PageGetFreeSpace` says of an empty page: without header, special space, the line pointer of
the high key and that of the next tuple (bufpage.h, nbtree.h)."""
LINE_POINTER = 4
TID = 6
TID_ALIGNED = 8
MINUS_INFINITY = 8
"""The first tuple of an inner page has no key (`_bt_sortaddtup`)."""
POSTING_LIMIT = 808
"""The largest posting list tuple of a build, MAXALIGNed: a tenth of a page without a line pointer
(`maxpostingsize` in `_bt_load`, nbtsort.c)."""
LARGEST_TUPLE = 2704
"""BTMaxItemSize: a third of a page."""
LEAF_FILL, INNER_FILL = 90, 70  # BTREE_DEFAULT_FILLFACTOR, BTREE_NONLEAF_FILLFACTOR
ENOUGH_TUPLES, ENOUGH_PAGES = 3000, 40
LEAST_SHARE = 0.08
MANY = 12
"""More groups than these are put together by their rows."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the tuples of a btree are like."""

    sizes: tuple[int, ...]
    """MAXALIGNed bytes of leaf tuples without row identifiers: equally likely ones, in no order."""
    pivots: tuple[float, ...]
    """Bytes of a tuple of an inner page that keeps one key column, two, and so on."""
    merging: bool
    """Whether equal keys become posting lists."""
    fill: int = LEAF_FILL


@dataclass(frozen=True, slots=True)
class Tree:
    """A btree after its build."""

    pages: int
    """All of them: the first one, which says where the root is, as well."""
    height: int
    """Level of the root, 0 where it is a leaf."""
    pivot: float
    """Average bytes of the tuples of inner pages."""


@dataclass(frozen=True, slots=True)
class _Filled:
    """Pages that have been filled with tuples."""

    leaves: float
    tuples_per_page: float
    same: float
    """The share of the borders of pages that have the same key on both sides."""


def build(shape: Shape, groups: Sequence[Keys], prefixes: Sequence[float] = ()) -> Tree:
    """Return the tree of some keys; pure.

    Args:
        shape: what its tuples are like.
        groups: the keys and how many rows they have.
        prefixes: how many different values the first key column has, the first two, and so on, the
            last one left out.
    """
    rows = sum(keys.number * keys.rows for keys in groups)
    if rows < 0.5:
        return Tree(1, 0, shape.pivots[-1])
    several = buckets(groups) if len(groups) > MANY else groups
    filled = [
        _fill(shape, keys, max(LEAST_SHARE, keys.number * keys.rows / rows))
        for keys in several
        if keys.number > 0 and keys.rows > 0
    ]
    exact = sum(item.leaves for item in filled)
    # A page is complete only when the tuple after its last one comes: one more fits on the last.
    densest = max(item.tuples_per_page for item in filled)
    leaves = max(1, math.ceil(exact - 1 / densest - 1e-9))
    same = sum(item.leaves * item.same for item in filled) / exact
    tuples = sum(item.leaves * item.tuples_per_page for item in filled)
    pivot = _pivot(shape, same, prefixes, tuples)
    levels = list(_levels(leaves, pivot))
    return Tree(1 + sum(levels), len(levels) - 1, pivot)


def height(pages: int, pivot: float) -> int:
    """Return the level of the root of a btree of so many pages; pure.

    Args:
        pages: all of them, the first one as well.
        pivot: average bytes of the tuples of its inner pages.
    """
    low, high = 1, max(pages - 1, 1)
    while low < high:  # the most leaves that make no more than these pages
        middle = (low + high + 1) // 2
        if 1 + sum(_levels(middle, pivot)) <= pages:
            low = middle
        else:
            high = middle - 1
    return len(list(_levels(low, pivot))) - 1


def fan_out(pivot: float) -> float:
    """Return how many tuples an inner page holds, the last page of a level aside."""
    item = pivot + LINE_POINTER
    room = FREE - (PAGE * (100 - INNER_FILL) // 100) - MINUS_INFINITY - LINE_POINTER
    return max(2.0, (math.floor(room / item) if pivot % 8 == 0 else room / item - 0.5) + 1)


def _levels(leaves: int, pivot: float) -> Iterator[int]:
    """Yield the pages of each level, leaves first."""
    yield leaves
    children = fan_out(pivot)
    while leaves > 1:
        leaves = max(1, math.ceil((leaves - 1) / children))
        yield leaves


def _pivot(shape: Shape, same: float, prefixes: Sequence[float], tuples: float) -> float:
    """Return the average size of pivots: as few columns as tell two pages apart, or a row's TID."""
    kept = [1.0]  # the share of pivots that keep more than no column, one, two ...
    for distinct in prefixes:
        kept.append(min(kept[-1], max(same, 1 - (distinct - 1) / max(1.0, tuples - 1))))
    kept.append(min(kept[-1], same))
    total = 0.0
    for place, size in enumerate(shape.pivots):
        total += (kept[place] - kept[place + 1]) * size
    total += kept[-1] * (shape.pivots[-1] + TID_ALIGNED)
    nearest = round(total / 8) * 8
    return nearest if abs(total - nearest) < 0.05 else total


@lru_cache(maxsize=1024)  # an audit sizes an index once to judge it and again to plant it
def _fill(shape: Shape, keys: Keys, share: float) -> _Filled:
    """Fill pages with the tuples of such keys as `_bt_buildadd` does.

    Args:
        shape: what the tuples are like.
        keys: the keys and their rows.
        share: how much the result matters, 0 to 1; with it grows the number of pages.
    """
    if len(shape.sizes) == 1 and (not shape.merging or keys.rows <= 1):
        per_page = _plain_per_page(shape.sizes[0], shape.fill)
        same = max(0.0, 1 - 1 / keys.rows)
        return _Filled(keys.number * keys.rows / per_page, per_page, same)
    full = PAGE * (100 - shape.fill) // 100
    used = last = extra = number = 0
    owner = before = -1
    pages = tuples = same = kept = seen = seen_tuples = 0
    for owner_now, size, more in _tuples(shape, keys):
        free = FREE - used
        if number > 1 and (free < size + 8 or free + extra < full):
            pages += 1
            tuples += number - 1
            kept += used - last
            same += before == owner
            used, number = last, 1
        before, owner = owner, owner_now
        last, extra = size + LINE_POINTER, more
        used += last
        number += 1
        seen += last
        seen_tuples += 1
        if pages and (seen_tuples >= ENOUGH_TUPLES * share or pages >= ENOUGH_PAGES * share + 2):
            break
    total = keys.number * _bytes_of_a_key(shape, keys)
    if not pages:
        return _Filled(total / (FREE - full), FREE / (seen / seen_tuples), 0.0)
    return _Filled(total / (kept / pages), tuples / pages, same / pages)


def _bytes_of_a_key(shape: Shape, keys: Keys) -> float:
    """Return the average bytes that all tuples of a key take, line pointers included."""
    rows = rows_of(keys)
    pairs = [
        (rows[i % len(rows)], shape.sizes[i * 23 % len(shape.sizes)]) for i in range(QUANTILES)
    ]
    total = 0
    for number, base in pairs if len(rows) > 1 or len(shape.sizes) > 1 else pairs[:1]:
        if not shape.merging:
            total += number * (base + LINE_POINTER)
            continue
        most = max(1, (POSTING_LIMIT - base) // TID)
        full, rest = divmod(number, most)
        total += full * (_posting(base, most) + LINE_POINTER)
        total += _posting(base, rest) + LINE_POINTER if rest else 0
    average = total / (QUANTILES if len(rows) > 1 or len(shape.sizes) > 1 else 1)
    # Few quantiles meet the mean only nearly.
    return average * keys.rows / (sum(rows) / len(rows))


def _posting(base: int, rows: int) -> int:
    return base if rows == 1 else math.ceil((base + rows * TID) / 8) * 8


def _tuples(shape: Shape, keys: Keys) -> Iterator[tuple[int, int, int]]:
    """Yield the owner, the size and the row identifiers' bytes of each tuple of the leaves."""
    rows = rows_of(keys)
    for key in range(max(1, round(keys.number))):
        base = shape.sizes[key * 23 % len(shape.sizes)]
        left = rows[(key + key // len(rows)) % len(rows)]
        most = max(1, (POSTING_LIMIT - base) // TID) if shape.merging else 1
        while left > 0:
            here = min(left, most)
            size = _posting(base, here)
            yield key, size, size - base
            left -= here


def _plain_per_page(size: int, fill: int) -> int:
    """Return how many tuples of one size a page keeps."""
    item = size + LINE_POINTER
    room = FREE - PAGE * (100 - fill) // 100
    # The page is full after the tuple that leaves too little free; that one moves on.
    by_fill = max(1, math.floor(room / item))
    by_room = max(1, (FREE - size - 8) // item)
    return min(by_fill, by_room)
