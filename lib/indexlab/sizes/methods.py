"""How many pages the indexes of other methods than btree have after their build."""

from __future__ import annotations

import math
from dataclasses import dataclass

from indexlab.catalog import Catalog, Index, Key
from indexlab.sizes.btree import LINE_POINTER, PAGE
from indexlab.sizes.frequencies import Keys
from indexlab.sizes.values import LENGTHS, Value, aligned, tuple_size, tuple_sizes

PLAIN_PAGE = PAGE - 24 - 16  # header and special space
# hash.h, hashpage.c
HASH_ITEM = 8 + 8 + LINE_POINTER
HASH_PER_BUCKET = PAGE * 75 // 100 // HASH_ITEM
HASH_PER_PAGE = PLAIN_PAGE // HASH_ITEM
HASH_DOUBLING = 512
"""Below it the number of buckets doubles; above it grows by quarters of that."""
# brin_page.h, brin_bloom.c, brin_minmax_multi.c
BRIN_PAGE = PAGE - 24 - 8
REVMAP_ITEMS = BRIN_PAGE // 6
PAGES_PER_RANGE = 128
TUPLES_PER_PAGE = 291  # MaxHeapTuplesPerPage
BLOOM_DISTINCT, BLOOM_FALSE = 0.1, 0.01  # its default options
MULTI_VALUES = 18
"""Of at most 32 values half are put together whenever there are too many."""
# ginblock.h
GIN_LARGEST = 2712
"""A longer list of rows gets pages of its own (GinMaxItemSize)."""
GIN_ENTRY_FILL = 0.5
"""Keys come in their order, and each full page is split in the middle."""
TRIGRAMS = 3000
"""Different trigrams of a column of text, for want of anything that tells their number."""
TRIGRAM_SKEW = ((0.05, 0.5), (0.25, 0.4), (0.7, 0.1))
"""Shares of the trigrams, and of the places where they are: some are much more common."""
LEXEME = 12
"""Bytes of a word in a tsvector, its position included."""
MEMBER = 12
"""Bytes of a key or a value in a jsonb."""
ANY_ARRAY, TSVECTOR, JSONB, POINT, ANY_RANGE = 2277, 3614, 3802, 600, 3831
TREE_FILL = 0.66
SORTED_FILL = 0.99
SORTED_RANGES = 180000
"""The first version that sorts numbers and ranges for a build of gist."""


@dataclass(frozen=True, slots=True)
class Content:
    """What an index is to hold."""

    index: Index
    values: tuple[Value, ...]
    entries: float
    """Rows of the index."""
    rows: float
    """Rows of the table."""
    table_pages: float
    groups: tuple[Keys, ...]
    """The different values of its first key; NULL, which a hash index leaves out, is none."""


def pages(catalog: Catalog, content: Content) -> tuple[int, bool]:
    """Return the pages of a hash, gin, gist, spgist or brin index, and whether that is close.

    Hash and brin are computed as their builds go. Of gin the lists of rows are, once the elements of
    an array are known; trigrams, lexemes and documents say little of how often each is there. What
    trees of gist and spgist look like depends on how their operator class splits.
    """
    match content.index.method:
        case "hash":
            return _hash(content), True
        case "brin":
            return _brin(catalog, content)
        case "gin":
            return _gin(catalog, content)
        case _:
            return _tree(catalog, content), False


def _opclass(catalog: Catalog, index: Index, key: Key) -> str:
    """Return the name of a key's operator class; empty where it is not known."""
    found = (
        item.name
        for item in catalog.opclasses
        if (item.method, item.family, item.input_type) == (index.method, key.family, key.input_type)
    )
    return next(found, "")


# hash


def _hash(content: Content) -> int:
    """Return the pages of a hash index: buckets for all rows of the table, and what overflows.

    The first page, a bitmap of free pages, and as many buckets as `_hash_init` makes.
    """
    buckets = _buckets(int(content.rows / HASH_PER_BUCKET))
    stored = sum(keys.number * keys.rows for keys in content.groups)
    if stored > HASH_PER_BUCKET * buckets:  # it grows by a step, all of which is made room for
        buckets = _buckets(buckets + 1)
    overflowing = 0.0
    light_rows = light_squares = 0.0
    for keys in content.groups:
        if keys.rows > HASH_PER_PAGE:  # it fills a bucket of its own, and more
            overflowing += keys.number * (math.ceil(keys.rows / HASH_PER_PAGE) - 1)
        else:
            light_rows += keys.number * keys.rows
            light_squares += keys.number * keys.rows**2
    # Of the others each bucket gets a random number: its variance grows with the rows per key.
    # Those that wait for their other half, until there is a power of two of them, get twice that.
    slots = 1 << math.ceil(math.log2(buckets))
    for number, parts in ((2 * buckets - slots, 1), (slots - buckets, 2)):
        mean, spread = parts * light_rows / slots, math.sqrt(parts * light_squares / slots)
        overflowing += number * _overflow(mean, spread)
    return 2 + buckets + round(overflowing)


def _buckets(needed: int) -> int:
    """Return the number of buckets that there is room for (`_hash_get_totalbuckets`)."""
    buckets = 1 << max(1, math.ceil(math.log2(max(needed, 2))))
    if buckets <= HASH_DOUBLING:
        return buckets
    quarter = buckets // 8
    return next(n for n in range(buckets // 2, buckets + 1, quarter) if n >= needed)


def _overflow(mean: float, spread: float) -> float:
    """Return the average number of further pages of a bucket with a normal number of rows."""
    total = 0.0
    for further in range(8):
        beyond = (HASH_PER_PAGE * (further + 1) - mean) / max(spread, 1e-9)
        total += math.erfc(beyond / math.sqrt(2)) / 2
    return total


# brin


def _brin(catalog: Catalog, content: Content) -> tuple[int, bool]:
    """Return the pages of a brin index: a first page, the map, and a summary for each range."""
    index = content.index
    written = [o[16:] for o in index.options if o.startswith("pages_per_range=")]
    per_range = int(written[0]) if written else PAGES_PER_RANGE
    ranges = math.ceil(content.table_pages / per_range)
    summary: list[tuple[float, int]] = []
    close = True
    for key, value in zip(index.keys, content.values, strict=False):
        width = sum(value.widths) / len(value.widths)
        name = _opclass(catalog, index, key)
        if "bloom" in name:
            distinct = max(16.0, BLOOM_DISTINCT * TUPLES_PER_PAGE * per_range)
            bits = -distinct * math.log(BLOOM_FALSE) / math.log(2) ** 2
            summary.append((20 + math.ceil(bits / 8), 4))
            close = False
        elif "multi" in name:
            summary.append((20 + MULTI_VALUES * width, 4))
            close = False
        elif "inclusion" in name or key.input_type == ANY_RANGE:
            summary += [(width, value.align), (1, 1), (1, 1)]
        else:
            summary += [(width, value.align)] * 2
    per_page = max(1, BRIN_PAGE // (tuple_size(summary, nulls=False) + LINE_POINTER))
    mapped = max(1, math.ceil(ranges / REVMAP_ITEMS))
    return 1 + mapped + math.ceil(ranges / per_page), close


# gin


def _gin(catalog: Catalog, content: Content) -> tuple[int, bool]:
    """Return the pages of a gin index: keys with short lists of rows, and pages of long lists."""
    close = True
    entry_bytes, data_pages = 0.0, 0.0
    for key, value in zip(content.index.keys, content.values, strict=False):
        elements, known = _elements(catalog, content, key, value)
        close = close and known
        width = 4.0 if value.type_oid not in LENGTHS else LENGTHS[value.type_oid][0]
        for item in elements:
            size, own = _postings(item, content.table_pages, width)
            entry_bytes += item.number * size
            data_pages += item.number * own
    entries = math.ceil(entry_bytes / PLAIN_PAGE / GIN_ENTRY_FILL)
    return 1 + max(1, entries) + round(data_pages), close


def _elements(
    catalog: Catalog, content: Content, key: Key, value: Value
) -> tuple[tuple[Keys, ...], bool]:
    """Return the keys that a column gives, and whether they are known."""
    rows, found = content.entries, value.statistics
    if rows <= 0:  # an empty table, or a condition that no row meets
        return (), True
    width = sum(value.widths) / len(value.widths)
    if key.input_type in (ANY_ARRAY, TSVECTOR) and found is not None:
        counted = found.elements or max(width / LEXEME, sum(found.element_frequencies))
        common = tuple(Keys(1, share * rows) for share in found.element_frequencies if share > 0)
        rest = max(0.0, counted - sum(found.element_frequencies))
        least = min((item.rows for item in common), default=2.0)
        others = max(1.0, least / 2)
        tail = (Keys(rest * rows / others, others),) if rest * rows >= 1 else ()
        return (*common, *tail), found.elements is not None and rest < 0.1 * counted
    if key.input_type == JSONB:
        # A document that is there once has a value that is there once.
        once = min(rows, value.distinct or rows)
        many = max(1.0, width / MEMBER - 1)
        return (Keys(once, max(1.0, rows / once)), Keys(200.0, many * rows / 200)), False
    if "trgm" in _opclass(catalog, content.index, key):
        total = rows * max(1.0, width)
        number = min(float(TRIGRAMS), total)
        parts = tuple(
            Keys(keys * number, max(1.0, share * total / (keys * number)))
            for keys, share in TRIGRAM_SKEW
        )
        return parts, False
    return (Keys(rows * max(1.0, width / 8), 1.0),), False


def _postings(keys: Keys, table_pages: float, width: float) -> tuple[float, float]:
    """Return the bytes that a key takes among the keys, and the pages of its own.

    Rows follow each other as the difference in 7 bits a byte: 11 bits are the place in a page
    (ginpostinglist.c).
    """
    per_page = keys.rows / max(1.0, table_pages)
    each = (per_page + 1) / per_page if per_page >= 1 else math.log2(2048 / per_page) / 7 + 0.5
    size = 8 + (keys.rows - 1) * each
    if size + width > GIN_LARGEST:
        leaves = math.ceil(size / PLAIN_PAGE)
        return aligned(8 + width) + LINE_POINTER, leaves + (leaves > 1)
    return aligned(8 + width + size) + LINE_POINTER, 0.0


# gist, spgist


def _tree(catalog: Catalog, content: Content) -> int:
    """Return the pages of a gist or spgist index: tuples in pages that are two thirds full."""
    sizes: list[float] = list(tuple_sizes(content.values))
    fill = TREE_FILL
    if content.index.method == "gist":
        key, value = content.index.keys[0], content.values[0]
        width = sum(value.widths) / len(value.widths)
        name = _opclass(catalog, content.index, key)
        if "trgm" in name:
            sizes = [8 + 5 + 3 * width]
        elif key.input_type == TSVECTOR:
            sizes = [8 + 5 + 4 * width / LEXEME]
        elif key.input_type == POINT:
            sizes = [8 + 2.0 * LENGTHS[POINT][0]]  # as a box
        elif value.type_oid in LENGTHS and name.startswith("gist_"):
            sizes = [8 + 2.0 * LENGTHS[value.type_oid][0]]  # of btree_gist: from and to
        simple = name.startswith("gist_") and value.type_oid in LENGTHS
        if len(content.values) == 1 and catalog.server.version >= SORTED_RANGES:
            fill = SORTED_FILL if simple or key.input_type == ANY_RANGE else fill
    width = sum(map(aligned, sizes)) / len(sizes)
    # Of spgist the first page and two roots, one of them for NULLs, are always there.
    least = 3 if content.index.method == "spgist" else 1
    return max(least, 1 + math.ceil(content.entries * (width + LINE_POINTER) / (PLAIN_PAGE * fill)))
