# SPDX-License-Identifier: GPL-2.0-only
"""Drive MGLRU over one guest alone: a memcg of its own, walks and eviction on command.

Documentation/admin-guide/mm/multigen_lru.rst describes the commands of debugfs/lru_gen:
"+ memcg node max_seq can_swap force_scan" ages, "- memcg node seq swappiness nr" evicts.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness.checks.pages import populated
from harness.checks.undo import undone, written
from harness.checks.zram import added
from harness.guest_replies import PAGE_SIZE
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import lru_gen
from harness.observe.unproven import Unproven

ROOT = "/sys/fs/cgroup"
CGROUP = f"{ROOT}/kvm-harness"
# For who goes there from the first, and for shells that make a CPU tell what it holds back.
OTHER_CGROUP = f"{CGROUP}-other"
SWAP_MIB = 256
SWAPS = "/proc/swaps"
ZSWAP = "/sys/module/zswap/parameters/enabled"
# As many as there can be (MAX_NR_GENS).
GENERATIONS = 4
# One moves young pages to the youngest generation, two more leave them behind.
WALKS = 3
# The name of the shell that ages or evicts, as traces tell it: TASK_COMM_LEN bounds it.
AGER = "kvmh-ager"
# In the subshell that a command gets, so the next one has its old name. What is redirected here is
# the subshell's own, and printf is built in. A newline would be part of the name.
AS_AGER = f"printf %s {AGER} > /proc/self/comm"


@dataclass(frozen=True)
class Squeezed:
    """A limit that was set to a memcg, and what it used when the kernel had done its part.

    Both are pages of 4 KiB.
    """

    high: int
    used: int


class Memcg:
    """The memcg that holds one guest. Its generations are those of the guest's memory.

    `files` says that this is a file's, apart from pages that are the guest's own copies.
    """

    def __init__(self, shell: Shell, *, files: bool, path: str = CGROUP) -> None:
        self._shell = shell
        self._files = files
        self._path = path

    def lruvec(self) -> lru_gen.Lruvec:
        """Its generations; Unproven if MGLRU shows none, or pages on more than one NUMA node."""
        found = [
            lruvec
            for lruvec in lru_gen.parse(self._shell.read(lru_gen.DEBUGFS))
            if lruvec.path == self._path.removeprefix(ROOT)
        ]
        populated = [one for one in found if any(self._pages(gen) for gen in one.generations)]
        if len(populated) > 1:
            raise Unproven(f"the guest's memory lies on {len(populated)} NUMA nodes")
        if not found:
            raise Unproven("lru_gen does not show the guest's memcg")
        return (populated or found)[0]

    def walk(self, *, force: bool = True) -> None:
        """Age once: the walk of page tables, where this machine has one.

        can_swap, or anonymous memory is passed over; force_scan, or a Bloom filter is asked
        first, as when the kernel ages by itself. An old max_seq is ignored in silence, so it is
        read just before, and its rise proves that the command was obeyed.
        """
        lruvec = self.lruvec()
        newest = lruvec.generations[-1].seq
        if not force and len(lruvec.generations) >= GENERATIONS:
            raise Unproven(f"of {len(lruvec.generations)} generations there can be no one more")
        self._command(f"+ {lruvec.memcg} {lruvec.node} {newest} 1 {int(force)}")
        risen = self.lruvec().generations[-1].seq
        if risen != newest + 1:
            raise Unproven(f"MGLRU did not age: max_seq was {newest} and is {risen}")

    def leave_behind(self) -> None:
        """Age until what is not used is in none of the two youngest generations."""
        for _ in range(WALKS):
            self.walk()

    def evict(self, pages: int) -> None:
        """Evict pages from all generations but the two youngest, of files only those not dirty.

        Swappiness 200 takes anonymous pages alone, 0 those of files.
        """
        lruvec = self.lruvec()
        newest = lruvec.generations[-1].seq
        self._command(
            f"- {lruvec.memcg} {lruvec.node} {newest - 2} {0 if self._files else 200} {pages}"
        )

    def _pages(self, generation: lru_gen.Generation) -> int:
        return generation.anon + (generation.file if self._files else 0)

    def squeeze(self, pages: int) -> Squeezed:
        """Reclaim so many pages at once, by a memory.high that is that far below what is in use.

        The limit is lifted again, so that nothing goes later, when nobody looks.
        """
        high = int(self._shell.read(f"{self._path}/memory.current")) // PAGE_SIZE - pages
        reclaim = (
            f"echo {high * PAGE_SIZE} > memory.high; cat memory.current; echo max > memory.high"
        )
        script = f"{AS_AGER}; cd {self._path} && {reclaim}"
        used = int(self._shell.run(script).stdout) // PAGE_SIZE
        return Squeezed(high, used)

    def _command(self, text: str) -> None:
        self._shell.run(f"{AS_AGER}; printf '%s\\n' {shlex.quote(text)} > {lru_gen.DEBUGFS}")


@contextlib.contextmanager
def memcg_of(vm: Guest, shell: Shell, path: str = CGROUP) -> Iterator[Memcg]:
    """Put a guest into a memcg before it has any memory; both are gone afterwards.

    What a process allocates is charged to, and its page tables are walked for, the memcg that it
    is in at that moment; so this comes before Guest.populate().
    """
    with undone(lambda: _leave(vm, shell, path)):
        shell.run(f"mkdir -p {path} && echo {vm.greeting.pid} > {path}/cgroup.procs")
        yield Memcg(shell, files=vm.greeting.backing.startswith("file"), path=path)


@contextlib.contextmanager
def born_in_memcg(guest: Callable[..., Guest], shell: Shell, **options: object) -> Iterator[Guest]:
    """A guest that is in its memcg before it makes its VM; both are gone afterwards.

    So what KVM allocates with a VM is charged there as well. `options` are those of Guest.start().
    """
    with undone(lambda: shell.run(f"rmdir {CGROUP}")):
        shell.run(f"mkdir -p {CGROUP}")
        vm = guest(cgroup=CGROUP, **options)
        with undone(vm.close):
            yield vm


@contextlib.contextmanager
def moved_to(vm: Guest, shell: Shell) -> Iterator[Memcg]:
    """Populate a guest in its memcg, then move its process to another, which is yielded.

    What is charged stays where it was (Documentation/admin-guide/cgroup-v2.rst, memory ownership).
    """
    populated(vm)
    with memcg_of(vm, shell, OTHER_CGROUP) as other:
        yield other


def _leave(vm: Guest, shell: Shell, path: str) -> None:
    """End the guest and remove its memcg, which can go once its last process is gone."""
    vm.close()
    shell.run(f"rmdir {path}")


@contextlib.contextmanager
def zram_swap(shell: Shell) -> Iterator[None]:
    """Swap on zram: without swap no anonymous page is ever evicted. Unproven without zram.

    Swap that the host has itself stays on, and is left alone: ours is filled first. Nothing is kept
    in zswap meanwhile, where a page is out but not written to swap (mm/page_io.c,
    swap_writepage()), so that nobody counts it.
    """
    with no_zswap(shell), added(shell, SWAP_MIB) as swap:
        # On a machine before all that it has of its own, on disks that take their time. Emulated
        # hosts have none, and a busybox that knows no priorities.
        on = f"{{ swapon -p 32767 {swap.device} 2>/dev/null || swapon {swap.device}; }}"
        off = f"! grep -q '^{swap.device} ' {SWAPS} || swapoff {swap.device}"
        with undone(lambda: shell.run(off)):
            shell.run(f"mkswap {swap.device} > /dev/null && {on}")
            if not comes_first(shell.read(SWAPS), swap.device):
                raise Unproven("the host has swap of its own that is filled before that of ours")
            yield


def comes_first(text: str, device: str) -> bool:
    """Whether /proc/swaps has a device that is filled before all the others in it."""
    priorities = {
        name: int(priority)
        for name, *_, priority in (line.split() for line in text.splitlines()[1:])
    }
    ours = priorities.pop(device, None)
    return ours is not None and all(ours > other for other in priorities.values())


@contextlib.contextmanager
def no_zswap(shell: Shell) -> Iterator[None]:
    """Nothing goes to zswap in this block, which some distributions have on; as it was afterwards.

    What is there already stays there, and is read from there.
    """
    before = shell.run(f"cat {ZSWAP}", check=False).stdout.strip()
    if before != "Y":
        yield
        return
    with written(shell, ZSWAP, "N", before):
        yield
