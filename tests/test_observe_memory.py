# SPDX-License-Identifier: GPL-2.0-only
"""Readers of memory that nothing admits to have, on texts as Linux 6.12 prints them."""

from __future__ import annotations

import pytest

from harness.observe import memory, slab, vmstat
from harness.observe.errors import ObserveError

ZONES = """\
Node 0, zone      DMA
  pages free     504610
  pagesets
    cpu: 0
              count: 2667
              high:  4001
              batch: 63
  vm stats threshold: 20
    cpu: 1
              count: 177
              high:  3520
              batch: 63
"""
MEMINFO = """\
MemTotal:        2049060 kB
MemFree:         2018440 kB
MemAvailable:    1985756 kB
Buffers:               0 kB
Cached:             6916 kB
SwapCached:            0 kB
AnonPages:           516 kB
Shmem:              6916 kB
Slab:               5728 kB
SReclaimable:       2212 kB
KernelStack:         736 kB
PageTables:          240 kB
SecPageTables:         0 kB
VmallocUsed:          24 kB
Percpu:              248 kB
"""
HEAD = """\
slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit>
"""


def line(name: str, active: int, per_slab: int = 64) -> str:
    tail = ": tunables    0    0    0 : slabdata      1      1      0"
    return f"{name:<17} {active:6d} {active:6d} {64:6d} {per_slab:4d} {1:4d} {tail}\n"


def caches(**active: int) -> dict[str, slab.Cache]:
    text = HEAD + "".join(line(name.replace("_", "-"), count) for name, count in active.items())
    return dict(slab.parse(text))


def lost(meminfo: str, zones: str = ZONES) -> int:
    return memory.unaccounted(vmstat.parse_meminfo(meminfo), memory.parse_pcp(zones))


def test_free_pages_on_the_lists_of_cpus_are_no_loss() -> None:
    assert memory.parse_pcp(ZONES) == 2667 + 177
    fewer = ZONES.replace("2667", "2567")
    assert lost(MEMINFO.replace("2018440", str(2018440 + 400)), fewer) == lost(MEMINFO)


def test_a_page_that_moves_between_known_users_is_no_loss() -> None:
    moved = MEMINFO.replace("2018440", str(2018440 - 40)).replace(
        "SecPageTables:         0", "SecPageTables:        40"
    )
    assert lost(moved) == lost(MEMINFO)


def test_a_page_that_left_every_count_is_a_loss() -> None:
    assert lost(MEMINFO.replace("2018440", str(2018440 - 40))) == lost(MEMINFO) + 10


def test_a_text_without_lists_of_cpus_is_refused() -> None:
    with pytest.raises(ObserveError):
        memory.parse_pcp("Node 0, zone      DMA\n")


def test_slabs_are_read() -> None:
    assert caches(kmalloc_cg_64=192) == {"kmalloc-cg-64": slab.Cache(192, 64, 64)}


@pytest.mark.parametrize(
    "text",
    [
        HEAD,
        HEAD + "kmalloc-64 1 2\n",
        HEAD + line("kmalloc-64", 1) + line("kmalloc-64", 2),
        HEAD + line("kmalloc-64", 1)[:-1],
    ],
)
def test_a_spoiled_slabinfo_is_refused(text: str) -> None:
    with pytest.raises(ObserveError):
        slab.parse(text)


def test_what_grows_with_every_event_is_found() -> None:
    readings = tuple(
        caches(kmalloc_64=at * 192 + 7, kmalloc_96=500 + at, vmap_area=at * 200) for at in range(3)
    )
    assert slab.grown(readings, 192, 2) == {"kmalloc-64": (192, 192)}


def test_a_cache_that_grew_once_is_not_blamed() -> None:
    readings = (caches(kmalloc_64=64), caches(kmalloc_64=264), caches(kmalloc_64=264))
    assert not slab.grown(readings, 192, 2)


def test_a_cache_that_moves_at_rest_by_half_of_what_is_asked_for_cannot_be_judged() -> None:
    names = ("kmalloc-64", "kmalloc-96")
    quiet = tuple(caches(kmalloc_64=at, kmalloc_96=9) for at in (500, 564, 500))
    assert not slab.restless(quiet, names, 192)
    falls = tuple(caches(kmalloc_64=at, kmalloc_96=9) for at in (565, 500, 500))
    assert slab.restless(falls, names, 192) == {"kmalloc-64": 65}
    assert not slab.restless(falls, names, 1024)


def test_a_cache_that_may_grow_by_a_slab_for_each_cpu_says_nothing() -> None:
    readings = tuple(caches(kmalloc_64=at * 1024) for at in range(2))
    assert slab.grown(readings, 1024, 15)
    assert not slab.grown(readings, 1024, 16)


def test_a_cache_of_large_slabs_says_nothing() -> None:
    readings = tuple(caches(kmalloc_64=at * 100) for at in range(3))
    assert not slab.grown(readings, 100, 2)
