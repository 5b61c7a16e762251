# SPDX-License-Identifier: GPL-2.0-only
"""What a guest's memcg is charged for, exactly: what its VMs leave behind stays charged.

KVM charges tables, the pages that it keeps ready for them and its own objects to the memcg of the
VM's owner, and nobody else is in that. What else the host does moves nothing here, but for reclaim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from harness.checks import tables
from harness.checks.claim import Claim
from harness.checks.mglru import CGROUP, OTHER_CGROUP
from harness.deadline import Deadline
from harness.guest_replies import PAGE_SIZE
from harness.hosts.protocols import Shell
from harness.observe import memcg
from harness.observe.text import run_script, unsigned
from harness.observe.unproven import Unproven

_RECLAIM, _ALL = f"{CGROUP}/memory.reclaim", "1G"
# What a CPU has charged in advance, or counted and not told yet, it tells when it charges another
# memcg: a shell on it that forks there makes it. Linux 7.3 holds that for five (NR_OBJ_STOCK,
# mm/memcontrol.c), takes empty places first, and then each in turn: nine others fill all. To write
# memory.high does not reach isolated CPUs (drain_all_stock()). A CPU that we may not use was not
# the guest's either. To read cpu.stat gathers what is told, drop_caches the pages on their way to
# an LRU list.
_OTHERS = " ".join(f"{OTHER_CGROUP}-{number}" for number in range(9))
_SCRIPT = f"""{tables.SETTLE}
echo 1 > /proc/sys/vm/drop_caches
mkdir -p {_OTHERS}
for cpu in /sys/devices/system/cpu/cpu[0-9]*; do
	[ "$(cat $cpu/online 2>/dev/null)" = 0 ] || taskset -c ${{cpu##*cpu}} sh -c '
		for other; do
			echo $$ > $other/cgroup.procs
			(:)
		done' sh {_OTHERS} || :
done
rmdir {_OTHERS} 2>/dev/null || {{ sleep 1; rmdir {_OTHERS} || :; }}
cat {CGROUP}/cpu.stat > /dev/null
nproc --all
cat {CGROUP}/memory.stat
"""

# What is charged by bytes comes back as whole pages when a CPU begins to charge the same memcg
# anew (nr_charged_bytes in __refill_obj_stock(), mm/memcontrol.c): a shell that forks there makes
# it. Linux 7.3 gathers there what is freed while the CPU's own store is locked: 5 pages were seen
# of a memcg that nobody used any more. What was allocated as pages stays charged.
_USE = f"sh -c 'echo $$ > {CGROUP}/cgroup.procs; (:); :'"

# What is told of memory that stays charged.
_PARTS = (
    *("kernel", "kernel_stack", "pagetables", "sec_pagetables", "percpu", "vmalloc"),
    *("slab_reclaimable", "slab_unreclaimable"),
)
# The lists of pages of processes: without their files, which stay in the page cache.
_LISTS = ("active_anon", "inactive_anon", "unevictable")


@dataclass(frozen=True)
class Charged:
    """Pages of processes, pages of the kernel, and bytes of its smaller objects.

    Objects count to the byte, with what each CPU has its own of. Dentries and inodes are left out:
    the kernel keeps them as a cache, whoever ends. What is charged by bytes takes a page for each
    of `cpus` at most until the memcg is gone, so that the kernel's pages may be too many by one
    less (obj_cgroup_release(), mm/memcontrol.c).
    """

    user: int
    kernel: int
    objects: int
    cpus: int = 1
    tables: int | None = field(default=None, compare=False)
    """Pages of stage-2 tables, of those of the kernel; None where memory.stat does not tell."""
    parts: Mapping[str, int] = field(default_factory=dict, compare=False)

    def beyond(self, other: Charged) -> str:
        """What is charged here and was not there, in words; "" for nothing."""
        kernel = self.kernel - other.kernel
        found = (
            (self.user - other.user, "pages of processes"),
            (kernel if kernel >= self.cpus else 0, "pages of the kernel"),
            (self.objects - other.objects, "bytes of objects"),
        )
        return ", ".join(f"{count} {what}" for count, what in found if count > 0)

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {size}" for name, size in self.parts.items() if size)
        return f"charged in bytes: {parts or 'nothing'}"


NOTHING = Charged(0, 0, 0)


def parse(text: str) -> Charged:
    """What the script tells; not memory.current, in which is what CPUs have charged in advance."""
    cpus, _, stat = text.partition("\n")
    found = memcg.parse_stat(stat)
    if "kernel" not in found:
        raise Unproven("this kernel does not tell what it charges for itself (memory.stat, kernel)")
    objects = found.get("slab_unreclaimable", 0) + found.get("percpu", 0)
    # What is charged by bytes is charged as pages, all of it together.
    shared = -(-(objects + found.get("slab_reclaimable", 0)) // PAGE_SIZE)
    return Charged(
        user=sum(found.get(name, 0) for name in _LISTS) // PAGE_SIZE,
        kernel=found["kernel"] // PAGE_SIZE - shared,
        objects=objects,
        cpus=unsigned(cpus, "nproc", 1),
        tables=found["sec_pagetables"] // PAGE_SIZE if "sec_pagetables" in found else None,
        parts={name: found.get(name, 0) for name in (*_LISTS, *_PARTS)},
    )


def settled(shell: Shell, slowdown: float) -> Charged:
    """What the guest's memcg is charged for once it stays so, or in the end."""
    deadline = Deadline(tables.PATIENCE * slowdown)
    last = _read(shell)
    while (now := _read(shell)) != last and not deadline.expired():
        last = now
    return now


def falls_to(shell: Shell, claim: Claim, bound: Charged, slowdown: float) -> Charged:
    """What it is charged for when that must have fallen to `bound`, or below.

    Late is good enough here: of objects nothing asks for more, and tables are counted by tables.py.
    """
    return tables.judged(
        lambda: _read_used(shell, bound),
        lambda found: not found.beyond(bound),
        shell,
        claim,
        slowdown,
        late=True,
    )


def assert_nothing_left(shell: Shell, claim: Claim, slowdown: float) -> None:
    """Assert that nothing is charged any more to the memcg of a guest that has ended.

    A page that somebody looked at while it was let go may stay in the swap cache until it is
    reclaimed; one that is still referred to cannot be.
    """
    shell.run(f"[ ! -e {_RECLAIM} ] || echo {_ALL} > {_RECLAIM} || :")
    left = falls_to(shell, claim, NOTHING, slowdown)
    claim.observe(f"when the owner has ended, {left}")
    more = left.beyond(NOTHING)
    assert not more, f"still charged to the memcg of an owner that has ended: {more} ({left})"


def _read_used(shell: Shell, bound: Charged) -> Charged:
    """What it is charged for, without what only waits for somebody to charge more.

    Nobody does where nothing waits: what the shell leaves behind may go late.
    """
    found = _read(shell)
    if _pages_alone(found, bound):
        shell.run(_USE)
        found = _read(shell)
    return found


def _pages_alone(found: Charged, bound: Charged) -> bool:
    """Whether more of the kernel's pages are charged, and nothing else."""
    rest = replace(found, kernel=bound.kernel)
    return bool(found.beyond(bound)) and not rest.beyond(bound)


def _read(shell: Shell) -> Charged:
    return parse(run_script(shell, _SCRIPT, None))
