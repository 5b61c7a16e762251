# SPDX-License-Identifier: GPL-2.0-only
"""MGLRU: its switches and its generations (Documentation/admin-guide/mm/multigen_lru.rst)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntFlag

from harness.observe.errors import ObserveError, shown
from harness.observe.text import unsigned, whole_lines

ENABLED = "/sys/kernel/mm/lru_gen/enabled"
DEBUGFS = "/sys/kernel/debug/lru_gen"
# With what was counted for each generation; only with CONFIG_LRU_GEN_STATS.
DEBUGFS_FULL = f"{DEBUGFS}_full"
_MEMCG = re.compile(r"memcg {1,5}(?P<id>[0-9]{1,20}) (?P<path>.*)")
_NODE = re.compile(r" node {1,5}(?P<id>[0-9]{1,5})")


class Enabled(IntFlag):
    """The bits of `enabled`. A bit that hardware cannot serve reads as 0.

    MM_WALK and NONLEAF_YOUNG say what is in force on this machine: without hardware management of
    AF at stage 1 the first is 0. SECONDARY_WALK is added by "mm/kvm: lockless accessed bit
    harvest"; 6.12 does not know it.
    """

    CORE = 0x1
    MM_WALK = 0x2
    NONLEAF_YOUNG = 0x4
    SECONDARY_WALK = 0x8


@dataclass(frozen=True)
class Generation:
    """One generation: its number, age in milliseconds, and how many 4 KiB pages are in it."""

    seq: int
    age_ms: int
    anon: int
    file: int


@dataclass(frozen=True)
class Lruvec:
    """The generations of one memcg on one NUMA node, oldest first."""

    memcg: int
    path: str
    node: int
    generations: tuple[Generation, ...]


def parse_enabled(text: str, source: str = ENABLED) -> Enabled:
    """The switches: a hexadecimal number such as 0x0003."""
    lines = whole_lines(text, source)
    if len(lines) != 1 or not re.fullmatch(r"0x[0-9a-f]{4}", lines[0]):
        raise ObserveError(source, 1, f"not a set of switches: {shown(text)}")
    return Enabled(int(lines[0], 16))


def parse(text: str, source: str = DEBUGFS) -> tuple[Lruvec, ...]:
    """The generations of all memcgs and nodes, from `lru_gen` (not `lru_gen_full`)."""
    found: list[Lruvec] = []
    memcg: tuple[int, str] | None = None
    node: int | None = None
    generations: list[Generation] = []
    for number, line in enumerate(whole_lines(text, source, 16 << 20), 1):
        if is_memcg := _MEMCG.fullmatch(line):
            memcg, node = (int(is_memcg["id"]), is_memcg["path"]), None
        elif is_node := _NODE.fullmatch(line):
            if memcg is None:
                raise ObserveError(source, number, "a node before any memcg")
            node, generations = int(is_node["id"]), []
            found.append(Lruvec(*memcg, node, ()))
        else:
            words = line.split()
            if node is None or len(words) != 4:
                raise ObserveError(source, number, f"not a generation: {shown(line)}")
            generations.append(Generation(*(unsigned(word, source, number) for word in words)))
            last = found[-1]
            found[-1] = Lruvec(last.memcg, last.path, last.node, tuple(generations))
    for lruvec in found:
        numbers = [generation.seq for generation in lruvec.generations]
        if not numbers or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            problem = f"generations of memcg {lruvec.memcg}, node {lruvec.node}: {numbers}"
            raise ObserveError(source, 0, problem)
    return tuple(found)
