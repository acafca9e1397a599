"""The pages of an index that a planner reads: made so that it is empty, and looks as it would be.

All of it is for PostgreSQL 18 with pages of 8 kB and without checksums: the embedded server.
"""

from __future__ import annotations

import struct
import sys

PAGE = 8192
PAGE_HEADER = 24  # bufpage.h
LAYOUT_VERSION = 4
BTREE_MAGIC = 0x053162  # nbtree.h
BTREE_OPAQUE = 16
LEAF, ROOT = 1, 2  # BTP_LEAF, BTP_ROOT
PIVOT = 0x2000  # INDEX_ALT_TID_MASK
BRIN_MAGIC = 0xA8109CFA  # brin_page.h
REVMAP_ITEMS = (PAGE - PAGE_HEADER - 8) // 6  # REVMAP_PAGE_MAXITEMS
GIN_VERSION = 2
ORDER = "<" if sys.byteorder == "little" else ">"


def btree(meta: bytes, height: int) -> bytes:
    """Return the first pages of an empty btree of a given height; pure.

    The metapage says that the root is block 1, at level `height`. Each page below has one child:
    an inner page holds a single pivot, minus infinity, which points to the next block; the last
    block is an empty leaf. So a descent finds its way and nothing at its end (nbtree.h).

    Args:
        meta: the metapage that the server wrote.
        height: the level of the root; 0 where it is a leaf.

    Raises:
        ValueError: it is not the metapage of a btree.
    """
    fields = struct.Struct(ORDER + "6I")
    magic, version, *_ = fields.unpack_from(meta, PAGE_HEADER)
    if magic != BTREE_MAGIC:
        raise ValueError(f"not the first page of a btree: it begins with {magic:#x}")
    changed = bytearray(meta[:PAGE])
    fields.pack_into(changed, PAGE_HEADER, magic, version, 1, height, 1, height)
    pages = [bytes(changed)]
    for block in range(1, height + 2):
        level = height + 1 - block
        flags = (LEAF if level == 0 else 0) | (ROOT if block == 1 else 0)
        pages.append(_btree_page(level, flags, child=block + 1))
    return b"".join(pages)


def _btree_page(level: int, flags: int, *, child: int) -> bytes:
    page = bytearray(PAGE)
    special = PAGE - BTREE_OPAQUE
    lower, upper = PAGE_HEADER, special
    if level:
        upper -= 8
        # The child's block in two halves, no attribute, a size of eight bytes.
        struct.pack_into(ORDER + "4H", page, upper, child >> 16, child & 0xFFFF, 0, 8 | PIVOT)
        struct.pack_into(ORDER + "I", page, lower, upper | 1 << 15 | 8 << 17)  # LP_NORMAL
        lower += 4
    _header(page, lower, upper, special)
    # Neither a left nor a right neighbour.
    struct.pack_into(ORDER + "3I2H", page, special, 0, 0, level, flags, 0)
    return bytes(page)


def _header(page: bytearray, lower: int, upper: int, special: int) -> None:
    """Write a page's header (`PageInit` of bufpage.c)."""
    struct.pack_into(ORDER + "6HI", page, 8, 0, 0, lower, upper, special, PAGE | LAYOUT_VERSION, 0)


def brin(meta: bytes, table_pages: int) -> tuple[bytes, int]:
    """Return a BRIN metapage that covers a table, and how many pages the map takes; pure.

    Args:
        meta: the metapage that the server wrote.
        table_pages: of the table.

    Raises:
        ValueError: it is not the metapage of a BRIN index.
    """
    fields = struct.Struct(ORDER + "4I")
    magic, version, per_range, _ = fields.unpack_from(meta, PAGE_HEADER)
    if magic != BRIN_MAGIC:
        raise ValueError(f"not the first page of a BRIN index: it begins with {magic:#x}")
    ranges = -(-table_pages // max(per_range, 1))
    mapped = max(1, -(-ranges // REVMAP_ITEMS))
    changed = bytearray(meta[:PAGE])
    fields.pack_into(changed, PAGE_HEADER, magic, version, per_range, mapped)
    return bytes(changed), mapped


def gin(meta: bytes, pages: int, entry_pages: int, entries: int) -> bytes:
    """Return a GIN metapage that tells of entries; pure.

    Args:
        meta: the metapage that the server wrote.
        pages: of the whole index.
        entry_pages: pages that hold keys; the rest holds the rows of common keys.
        entries: how many keys there are.
    """
    # Before them stands the pending list: head, tail, free size, pages, tuples (ginblock.h).
    fields = struct.Struct(ORDER + "3I4xqi")
    changed = bytearray(meta[:PAGE])
    data_pages = max(0, pages - entry_pages - 1)
    fields.pack_into(
        changed, PAGE_HEADER + 24, pages, max(1, entry_pages), data_pages, entries, GIN_VERSION
    )
    return bytes(changed)
