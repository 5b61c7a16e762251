# SPDX-License-Identifier: GPL-2.0-only
"""Random choices of checks have in them what the check is about, whatever the seed."""

from __future__ import annotations

import itertools
import random

import pytest

from harness.checks import test_clear_log, test_dirty_ring, test_large_slot, test_second


@pytest.mark.parametrize("unit", [1, 512])
@pytest.mark.parametrize("seed", range(10))
def test_some_are_touched_by_each_way_alone_by_both_and_by_none(seed: int, unit: int) -> None:
    pages = 8 * 512
    both = test_second.by_each_way(random.Random(seed), pages, unit)
    first, second = ({page // unit for page in way} for way in both)
    assert all(len(way) == len({page // unit for page in way}) for way in both)
    assert first - second and second - first and first & second
    assert len(first | second) == 3 * (pages // unit) // 4


@pytest.mark.parametrize("seed", range(10))
def test_a_large_slot_is_used_from_end_to_end(seed: int) -> None:
    used = test_large_slot.used_pages(random.Random(seed))
    assert {0, test_large_slot.PAGES - 1} <= used
    by_gib = [sum(page // test_large_slot.GIB == gib for page in used) for gib in range(4)]
    assert min(by_gib) >= 2 and len(used) <= 32


@pytest.mark.parametrize("seed", range(10))
def test_a_word_of_the_log_lies_in_one_block(seed: int) -> None:
    word = test_clear_log.some_word(random.Random(seed))
    assert len(word) == 64 and word[0] % 64 == 0
    assert word[0] // 512 == word[-1] // 512 < test_clear_log.BLOCK_PAGES // 512


@pytest.mark.parametrize("order", test_dirty_ring.ORDERS)
@pytest.mark.parametrize("seed", range(10))
def test_an_order_has_each_page_once(seed: int, order: test_dirty_ring.Order) -> None:
    rng = random.Random(seed)
    pages = frozenset(rng.sample(range(test_dirty_ring.PAGES), 150))
    for these in (pages, test_dirty_ring.EVERYTHING):
        assert sorted(order(these, rng)) == sorted(these)


@pytest.mark.parametrize("seed", range(10))
def test_orders_step_as_far_as_a_word_to_either_side(seed: int) -> None:
    order = test_dirty_ring.leaping(test_dirty_ring.EVERYTHING, random.Random(seed))
    steps = {b - a for a, b in itertools.pairwise(order)}
    assert {63, 64, 65, -63, -64, -65} <= steps
