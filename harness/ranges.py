# SPDX-License-Identifier: GPL-2.0-only
"""Sets of page indices as text: "0-3,7" is {0, 1, 2, 3, 7}; the empty set is "-"."""

from __future__ import annotations

from collections.abc import Iterable


def format_ranges(pages: Iterable[int]) -> str:
    """The shortest text for a set of page indices, in rising order.

    ValueError if one is negative.
    """
    parts: list[str] = []
    start = end = -1
    for page in sorted(set(pages)):
        if page < 0:
            raise ValueError(f"not a page index: {page}")
        if start >= 0 and page == end + 1:
            end = page
            continue
        if start >= 0:
            parts.append(f"{start}-{end}" if end > start else f"{start}")
        start = end = page
    if start >= 0:
        parts.append(f"{start}-{end}" if end > start else f"{start}")
    return ",".join(parts) or "-"


def parse_ranges(text: str) -> frozenset[int]:
    """The set that `text` names; ValueError if it is not of the form "0-3,7" or "-"."""
    text = text.strip()
    if text == "-":
        return frozenset()
    pages: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not _is_number(first) or (dash and not _is_number(last)):
            raise ValueError(f"not a range of pages: {part!r}")
        low, high = int(first), int(last or first)
        if high < low:
            raise ValueError(f"a range that ends before it starts: {part!r}")
        pages.update(range(low, high + 1))
    return frozenset(pages)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
