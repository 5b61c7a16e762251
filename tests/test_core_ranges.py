# SPDX-License-Identifier: GPL-2.0-only
"""Sets of pages survive the way to text and back; what is no such text is refused."""

from __future__ import annotations

import itertools
import random

import pytest

from harness.ranges import format_ranges, parse_ranges


@pytest.mark.parametrize(
    ("pages", "text"),
    [
        ((), "-"),
        ((0,), "0"),
        ((0, 1), "0-1"),
        ((7, 0, 1, 2, 3), "0-3,7"),
        ((5, 5, 5), "5"),
        ((1, 3, 5), "1,3,5"),
        ((4094, 4095), "4094-4095"),
    ],
)
def test_text(pages: tuple[int, ...], text: str) -> None:
    assert format_ranges(pages) == text
    assert parse_ranges(text) == frozenset(pages)


def test_round_trips() -> None:
    rng = random.Random(1)
    for _ in range(500):
        size = rng.randrange(1, 200)
        pages = frozenset(rng.sample(range(size), rng.randrange(size + 1)))
        text = format_ranges(pages)
        assert parse_ranges(text) == pages
        assert format_ranges(parse_ranges(text)) == text
        # Shortest: two neighbouring parts are never one range.
        bounds = [part.split("-") for part in text.split(",")] if pages else []
        for left, right in itertools.pairwise(bounds):
            assert int(left[-1]) + 1 < int(right[0])


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "1,",
        "1-",
        "-1",
        "3-1",
        "1--2",
        "a",
        "0x10",
        "1 2",
        "1.5",
        "\u00b2",
        "\u0663",
        "-,1",
    ],
)
def test_no_ranges(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a range of pages|ends before it starts"):
        parse_ranges(text)


def test_a_negative_page_does_not_vanish() -> None:
    with pytest.raises(ValueError, match="-1"):
        format_ranges([-1, 3])
