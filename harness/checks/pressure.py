# SPDX-License-Identifier: GPL-2.0-only
"""A guest under memory pressure: its regions, the LRU that it is under, and what is counted."""

from __future__ import annotations

import contextlib
import random
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from harness.checks.claim import Claim
from harness.checks.mglru import CGROUP, ROOT, Squeezed
from harness.checks.undo import written
from harness.guest_replies import PAGE_SIZE
from harness.hosts.protocols import Shell
from harness.observe import lru_gen, memcg, vmstat
from harness.observe.errors import ObserveError
from harness.observe.lru_gen import Enabled
from harness.observe.text import run_script, sections, unsigned
from harness.observe.unproven import Unproven

Lru = Literal["walk", "no_walk", "classic"]

# Reclaim for nobody's limit, and pages that were moved: of the host, and maybe of our memcg.
_HOST = ("pgscan_kswapd", "pgscan_direct", "pgscan_khugepaged", "pgmigrate_success")
# What moves a sum of the host's counters when another memcg does it. Not all kernels have all.
_OTHERS = (
    *("pgscan", "pgsteal", "workingset_refault_anon"),
    *("pswpin", "pswpout", "swpin_zero", "swpout_zero", "zswpin", "zswpout", "zswpwb"),
)
# The root's memory.stat may lag. Each two seconds the kernel gathers it (mm/memcontrol.c,
# FLUSH_TIME); nothing that we may read makes it.
LAG = 6

# How far eviction looks around a young page: MIN_LRU_BATCH of include/linux/mmzone.h.
AROUND = 64


# ---- the regions of a guest -----------------------------------------------------------------


@dataclass(frozen=True)
class Regions:
    """Pages that a guest touches all the time, now and then, and never again."""

    hot: frozenset[int]
    warm: frozenset[int]
    cold: frozenset[int]

    @property
    def all(self) -> frozenset[int]:
        """Every tested page."""
        return self.hot | self.warm | self.cold

    def apart(self) -> frozenset[int]:
        """The cold pages that eviction does not come by when it looks around a young page."""
        others = self.hot | self.warm
        near = {page + by for page in others for by in range(-AROUND, AROUND + 1)}
        return self.cold - near


def lay_out(rng: random.Random, *, hot: int, warm: int, cold: int) -> Regions:
    """Three regions of so many pages each, one behind the other.

    Cold is the last to be faulted in, so reclaim that goes by nothing else comes to it at the end.
    """
    warm_first = rng.random() < 0.5
    hot_at, warm_at = (warm, 0) if warm_first else (0, hot)
    return Regions(
        frozenset(range(hot_at, hot_at + hot)),
        frozenset(range(warm_at, warm_at + warm)),
        frozenset(range(hot + warm, hot + warm + cold)),
    )


# ---- which LRU ------------------------------------------------------------------------------


@contextlib.contextmanager
def lru(shell: Shell, wanted: Lru, keep: int = 0) -> Iterator[Enabled]:
    """Have the kernel use one LRU and yield the switches that are in force; undone afterwards.

    "walk" leaves the switches as they are; "no_walk" turns off the bits by which MGLRU walks page
    tables, its own and the guests', all but those of `keep`; "classic" turns MGLRU off. Asserts
    that what is turned off is.
    """
    before = lru_gen.parse_enabled(shell.read(lru_gen.ENABLED))
    value = Enabled(int(before) & ~_off(wanted, keep))
    with written(shell, lru_gen.ENABLED, f"{int(value):#x}", f"{int(before):#x}"):
        after = lru_gen.parse_enabled(shell.read(lru_gen.ENABLED))
        words = f"lru_gen/enabled is {int(after):#06x} after {int(value):#06x} was written"
        assert not after & ~value, words
        if after != value:
            raise Unproven(words)
        yield after


def clears(wanted: Lru, bit: int | None) -> bool:
    """Whether lru() has a bit of lru_gen/enabled clear, if there is one to tell of."""
    return bit is not None and bool(_off(wanted) & bit)


def _off(wanted: Lru, keep: int = 0) -> int:
    """The bits of lru_gen/enabled that are clear then."""
    walks = int(Enabled.MM_WALK | Enabled.SECONDARY_WALK) & ~keep
    off: dict[Lru, int] = {"walk": 0, "no_walk": walks, "classic": ~0}
    return off[wanted]


# ---- what is counted ------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """What host, memcg and page tables tell at one moment, in pages of 4 KiB and events.

    `swapped` are the pages of the guest's owner that are in swap, tested or not. `first` and `last`
    are the root's memory.stat, in which is that of all memcgs, before and after the others. `raw`
    is what the host printed, to be kept as evidence.
    """

    uptime: float
    vmstat: Mapping[str, int]
    stat: Mapping[str, int]
    current: int
    swapped: int
    lruvec: lru_gen.Lruvec | None
    first: Mapping[str, int] = field(repr=False)
    last: Mapping[str, int] = field(repr=False)
    raw: str = field(repr=False)


def reading_script(nonce: str, pid: int) -> str:
    """Gathers what CPUs hold back (stat_refresh, cpu.stat), then prints all sources."""
    files = {
        "first": f"{ROOT}/memory.stat",
        "vmstat": "/proc/vmstat",
        "stat": f"{CGROUP}/memory.stat",
        "current": f"{CGROUP}/memory.current",
        "smaps": f"/proc/{pid}/smaps_rollup",
        "uptime": "/proc/uptime",
        "lru_gen": lru_gen.DEBUGFS,
        "last": f"{ROOT}/memory.stat",
    }
    gather = f"echo 1 > /proc/sys/vm/stat_refresh\ncat {CGROUP}/cpu.stat > /dev/null\n"
    parts = (f"echo '{nonce} {name}'\ncat {path}\n" for name, path in files.items())
    return f"{gather}{''.join(parts)}echo '{nonce} end'\n"


def parse_reading(text: str, nonce: str) -> Reading:
    """What reading_script() printed; `lruvec` is None if the guest's memcg is not in lru_gen."""
    raw = dict(sections(text, nonce, "reading"))
    parts = {"first", "vmstat", "stat", "current", "smaps", "uptime", "lru_gen", "last"}
    if set(raw) != parts:
        raise ObserveError("reading", 0, f"has the parts {sorted(raw)}")
    own = [one for one in lru_gen.parse(raw["lru_gen"]) if one.path == "/kvm-harness"]
    return Reading(
        uptime=float(raw["uptime"].split()[0]),
        vmstat=vmstat.parse_vmstat(raw["vmstat"]),
        stat=memcg.parse_stat(raw["stat"]),
        current=unsigned(raw["current"].strip(), "memory.current", 1) // PAGE_SIZE,
        swapped=memcg.parse_swapped(raw["smaps"]),
        # A memcg that was removed can be listed for a while, with nothing in it.
        lruvec=max(own, key=_anon, default=None),
        first=memcg.parse_stat(raw["first"], "the root's memory.stat"),
        last=memcg.parse_stat(raw["last"], "the root's memory.stat"),
        raw=text,
    )


def _anon(lruvec: lru_gen.Lruvec) -> int:
    return sum(one.anon for one in lruvec.generations)


def read(shell: Shell, pid: int) -> Reading:
    """The counters now, of the host, the guest's memcg and its owner."""
    nonce = secrets.token_hex(16)
    return parse_reading(run_script(shell, reading_script(nonce, pid), None), nonce)


def least_lost(done: Squeezed, now: Reading, pages: int) -> int:
    """How many of so many tested pages cannot be in memory after a squeeze.

    The kernel returns from the write to memory.high when no more is charged than that, whatever
    CPUs had charged in advance before (mm/memcontrol.c, memory_high_write()). Meanwhile one thread
    of the guest runs, and may charge a batch. What is charged has the tested pages in it that are
    there, and what the kernel allocated for the guest; other memory of its owner, and what other
    CPUs have charged in advance, only make it more.
    """
    return pages + now.stat["kernel"] // PAGE_SIZE - done.high - memcg.BATCH


def by_host(before: Reading, after: Reading) -> str:
    """Reclaim for no limit, and moved pages, that may have been ours; "" for none."""
    return _risen((name, _rise(before.vmstat, after.vmstat, name)) for name in _HOST)


def by_others(before: Reading, after: Reading) -> str:
    """What was done to other memcgs meanwhile and moves the host's counters; "" for nothing.

    The host's own pgscan_kswapd and pgscan_direct leave out what a limit of a memcg causes, but
    its pgscan_anon and pgsteal_anon do not (mm/vmscan.c, scan_folios()); and whoever reads back
    pages of his own from swap moves pswpin. Both are counted for his memcg: so by how much more
    the root's counters rose than ours tells of them, whatever the host's own say.
    """
    return _risen(
        (
            f"{name} of other memcgs",
            _rise(before.first, after.last, name) - _rise(before.stat, after.stat, name),
        )
        for name in _OTHERS
        if name in before.stat
    )


def _rise(before: Mapping[str, int], after: Mapping[str, int], name: str) -> int:
    return after.get(name, 0) - before.get(name, 0)


def _risen(rises: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} rose by {rise}" for name, rise in rises if rise > 0)


def read_late(shell: Shell, pid: int) -> Reading:
    """The counters when the root's memory.stat has in it whatever there is now."""
    shell.run(f"sleep {LAG}")
    return read(shell, pid)


@dataclass(frozen=True)
class Wrong:
    """What speaks against counters: against those of the memcg, and those of the whole host."""

    own: tuple[str, ...] = ()
    host: tuple[str, ...] = ()

    def also(self, *own: str) -> Wrong:
        """This, and more that speaks against what the memcg tells."""
        return replace(self, own=(*self.own, *own))


def judge(claim: Claim, wrong: Wrong, before: Reading, late: Callable[[], Reading]) -> bool:
    """Whether counters are right since a reading; asserts it, but where others had a hand in them.

    Who else was there is asked only if something is wrong: what agrees although others were there
    agrees. `late` reads as read_late() does.
    """
    if wrong == Wrong():
        return True
    words = "; ".join((*wrong.own, *wrong.host))
    after = late()
    claim.save("counters-late.txt", after.raw)
    host, others = by_host(before, after), by_others(before, after)
    assert host or (others and not wrong.own), words
    claim.not_judged(f"{words}; but {', '.join(filter(None, (host, others)))}")
    return False


@contextlib.contextmanager
def judged_alone(before: Reading, late: Callable[[], Reading]) -> Iterator[None]:
    """What is asserted in this block of pages is Unproven if the host may have had a hand in them.

    kswapd takes pages unasked and untraced. Compaction forgets who touched those that it moves
    (mm/rmap.c, try_to_migrate_one()), and where they were in an LRU list.
    """
    try:
        yield
    except AssertionError as exc:
        if host := by_host(before, late()):
            # Without what pytest adds.
            words = str(exc).partition("\n")[0]
            raise Unproven(f"{words}; but {host}") from exc
        raise


@dataclass(frozen=True)
class Sum:
    """Two counts of the same thing; `own` if both are of the guest's memcg alone."""

    left: str
    right: str
    values: tuple[int, int]
    own: bool = False

    def __str__(self) -> str:
        return f"{self.left} is {self.values[0]}, {self.right} is {self.values[1]}"


def sums(before: Reading, after: Reading, *, mglru: bool) -> tuple[Sum, ...]:
    """What must be the same between two readings, each told by two sources."""
    host = {name: after.vmstat[name] - before.vmstat.get(name, 0) for name in after.vmstat}
    group = {name: after.stat[name] - before.stat.get(name, 0) for name in after.stat}
    # Pages full of zeroes are not written to swap since Linux 6.12, and counted apart.
    out = host["pswpout"] + host.get("swpout_zero", 0)
    back = host["pswpin"] + host.get("swpin_zero", 0)
    swapped = after.swapped - before.swapped
    parts = ("kswapd", "direct", "khugepaged", "proactive")
    found = [
        Sum(
            f"{name}_anon + {name}_file of vmstat",
            f"{name} of memory.stat",
            (host[f"{name}_anon"] + host[f"{name}_file"], group[name]),
        )
        for name in ("pgscan", "pgsteal")
    ]
    found += [
        Sum(
            f"{name} of memory.stat",
            "the sum of its parts",
            (group[name], sum(group.get(f"{name}_{part}", 0) for part in parts)),
            own=True,
        )
        for name in ("pgscan", "pgsteal")
    ]
    refaults = "workingset_refault_anon"
    found += [
        Sum("pgsteal_anon", "pswpout + swpout_zero", (host["pgsteal_anon"], out)),
        Sum(
            "pages swapped out less pages swapped in",
            "swapped in page tables",
            (out - back, swapped),
        ),
        Sum(f"{refaults} of vmstat", "pswpin + swpin_zero", (host[refaults], back)),
        Sum(
            f"{refaults} of vmstat", f"{refaults} of memory.stat", (host[refaults], group[refaults])
        ),
    ]
    if mglru and after.lruvec is not None:
        listed = (after.stat["active_anon"] + after.stat["inactive_anon"]) // PAGE_SIZE
        in_all = _anon(after.lruvec)
        found.append(
            Sum(
                "pages of all generations",
                "the LRU lists of memory.stat",
                (in_all, listed),
                own=True,
            )
        )
    return tuple(found)


def contradictions(before: Reading, after: Reading, *, mglru: bool) -> Wrong:
    """Which counters contradict one another between two readings, in words."""
    differ = [one for one in sums(before, after, mglru=mglru) if one.values[0] != one.values[1]]
    wrong = Wrong(
        own=tuple(str(one) for one in differ if one.own),
        host=tuple(str(one) for one in differ if not one.own),
    )
    scanned, stolen = (_rise(before.stat, after.stat, name) for name in ("pgscan", "pgsteal"))
    if stolen > scanned:
        wrong = wrong.also(f"pgsteal of memory.stat is {stolen}, and pgscan only {scanned}")
    return wrong
