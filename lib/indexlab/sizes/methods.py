"""How many pages the indexes of other methods than btree have after their build."""

from __future__ import annotations

import math
from collections.abc import Sequence

from indexlab.catalog import Index
from indexlab.sizes.btree import LINE_POINTER, PAGE
from indexlab.sizes.values import Value, aligned, tuple_sizes


def pages(
    index: Index, values: Sequence[Value], entries: float, table_bytes: int
) -> tuple[int, bool]:
    """Return the pages of a hash, gin, gist, spgist or brin index, and whether that is close.

    hash: 16 bytes and a line pointer a row, three quarters of a page (hash.h). brin: a summary of two
    values a range of pages. gin: an element of eight bytes and three bytes of posting list. Trees of
    gist and others: tuples in pages that are two thirds full.
    """
    sizes = tuple_sizes(values)
    width = sum(sizes) / len(sizes)
    match index.method:
        case "hash":
            buckets = max(2, math.ceil(entries / (PAGE * 0.75 / (16 + LINE_POINTER))))
            return math.ceil(buckets * 1.15 + 2), False
        case "brin":
            written = [o[16:] for o in index.options if o.startswith("pages_per_range=")]
            ranges = math.ceil(table_bytes / PAGE / (int(written[0]) if written else 128))
            summaries = ranges * (aligned(2 * width) + LINE_POINTER)
            return 2 + math.ceil(summaries / PAGE) + math.ceil(ranges / 1360), False
        case "gin":
            elements = sum(max(1.0, value.widths[0] / 8) for value in values)
            return 2 + math.ceil(entries * elements * 3 / PAGE), False
        case _:
            return 1 + math.ceil(entries * (width + LINE_POINTER) / (PAGE * 0.67)), False
