# SPDX-License-Identifier: GPL-2.0-only
"""Text in lines of a width that holds, whatever the text."""

from __future__ import annotations

from collections.abc import Iterator

from rich.cells import cell_len


def wrap(text: str, width: int, first: str = "", rest: str = "") -> Iterator[str]:
    """The words of a text in lines of at most `width` columns; a word that fits none is broken.

    `first` stands before the first line, `rest` before the others.
    """
    line, empty = first, True
    for word in text.split():
        if not empty and columns(f"{line} {word}") > width:
            yield line
            line, empty = rest, True
        while columns(joined := line + ("" if empty else " ") + word) > width:
            head = _fitting(word, width - columns(line))
            yield line + head
            line, word = rest, word[len(head) :]
        line, empty = joined, False
    yield line.rstrip()


def cut(line: str, width: int) -> str:
    """The line if it is no wider, else its beginning and ".."."""
    return line if columns(line) <= width else f"{_fitting(line, width - 2)}.."


def columns(text: str) -> int:
    """What a text takes on a terminal; a character that joins another counts as one."""
    return max(len(text), cell_len(text))


def _fitting(text: str, width: int) -> str:
    """As much of the beginning of a text as has this many columns."""
    length = len(text[:width])
    while columns(text[:length]) > width:
        length -= 1
    return text[:length]
