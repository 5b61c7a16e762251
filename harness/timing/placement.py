# SPDX-License-Identifier: GPL-2.0-only
"""Which CPUs of a host run what is timed, and how what else runs there is kept away from them.

Where the harness has booted the host, the last CPU runs nothing by itself: no tick, no load
balancing, no RCU callbacks (harness/hosts/bootargs.py). The vCPU gets that one.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.checks.undo import undone
from harness.deadline import Deadline
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import cpu_list
from harness.ranges import format_ranges

VCPU = 0
CPUS = "/sys/devices/system/cpu"
IRQS = "/proc/irq"
WORK = "/sys/devices/virtual/workqueue/cpumask"
LATENCY = "/dev/cpu_dma_latency"
_NODE = re.compile(r"/cpu([0-9]{1,5})/node([0-9]{1,5})$", re.ASCII | re.MULTILINE)
# Files of a machine with thousands of interrupts are written by one shell, without a program each.
# Those that the kernel binds itself (a timer's, a queue's) refuse it.
_KEEP = """
for file in {irqs}/[0-9]*/smp_affinity_list; do
  {{ read -r now <"$file"; }} 2>/dev/null && echo "$file $now"
done
{{ read -r now <{work}; }} 2>/dev/null && echo "{work} $now"
true
"""
_LINE = re.compile(r"^(/[\w/.-]{1,300}) ([0-9a-f,-]{1,9000})$", re.ASCII | re.MULTILINE)
# The kernel forgets it when the file is closed, so nothing is left if the host's shell dies.
_AWAKE = """\
{{ printf '\\0\\0\\0\\0' >&3 && echo told && {{ read -r end || :; }}; }} 3>{latency} || echo refused
"""
_AWAKE_SECONDS = 60.0
# It would bring interrupts back.
_BALANCER = "pkill -{signal} -x irqbalance || :"
# So that a command stays far below what a kernel takes as one argument (128 KiB).
_AT_ONCE = 500


@dataclass(frozen=True)
class Placement:
    """Numbers of CPUs; all are the same on a host that has one."""

    vcpu: int
    ager: int
    """Who ages, and drops pages. As the vCPU waits meanwhile, it may have the same CPU."""
    others: tuple[int, ...]
    """Where interrupts and the kernel's own work go; empty where they have no CPU left."""

    @property
    def quiet(self) -> str:
        """The others as a list, "" where there are none."""
        return format_ranges(self.others) if self.others else ""

    def __str__(self) -> str:
        return f"vCPU on CPU {self.vcpu}, who ages on CPU {self.ager}"


def choose(usable: Sequence[int], nodes: dict[int, int]) -> Placement:
    """The last CPU for the vCPU, the last but one of its NUMA node for who ages.

    `usable` rises; `nodes` tells the node by CPU, of those that say it.
    """
    vcpu = usable[-1]
    beside = [one for one in usable[:-1] if nodes.get(one) == nodes.get(vcpu)]
    ager = beside[-1] if beside else vcpu
    return Placement(vcpu, ager, tuple(one for one in usable if one not in (vcpu, ager)))


def of_host(shell: Shell) -> Placement:
    """The placement on a host."""
    listed = shell.run(f"ls -d {CPUS}/cpu[0-9]*/node[0-9]*", check=False).stdout
    nodes = {int(cpu): int(node) for cpu, node in _NODE.findall(listed)}
    return choose(cpu_list.usable(shell), nodes)


def put(vm: Guest, shell: Shell, where: Placement) -> Guest:
    """Bind all threads of a guest program; the guest itself is returned."""
    shell.run(f"taskset -apc {where.ager} {vm.greeting.pid}")
    vm.pin(VCPU, where.vcpu)
    return vm


@contextlib.contextmanager
def quiet(shell: Shell, where: Placement) -> Iterator[None]:
    """Keep interrupts, unbound work of the kernel and deep sleep away; undone afterwards.

    What the kernel refuses stays as it is; conditions.json tells how all of it is then.
    """
    before = dict(_LINE.findall(shell.run(_KEEP.format(irqs=IRQS, work=WORK)).stdout))
    moved = {file: _mask(where.others) if file == WORK else where.quiet for file in before}
    with contextlib.ExitStack() as stack:
        if where.others:
            stack.enter_context(undone(lambda: shell.run(_BALANCER.format(signal="CONT"))))
            shell.run(_BALANCER.format(signal="STOP"))
            stack.enter_context(undone(lambda: write(shell, before)))
            write(shell, moved)
        if shell.run(f"test -w {LATENCY}", check=False).status == 0:
            awake = shell.start(["sh", "-c", _AWAKE.format(latency=LATENCY)])
            stack.callback(awake.close)
            awake.receive(Deadline(_AWAKE_SECONDS))
        yield


def _mask(cpus: Sequence[int]) -> str:
    """CPUs as the kernel's bitmap: words of 32 in hexadecimal, the highest first."""
    bits = sum(1 << cpu for cpu in cpus)
    words = (f"{bits >> shift & 0xFFFFFFFF:08x}" for shift in range(0, bits.bit_length(), 32))
    return ",".join(reversed([*words]))


def write(shell: Shell, files: Mapping[str, str]) -> None:
    """Write values to files of a kernel. One that it does not take is refused: the file stays."""
    lines = [f"echo {shlex.quote(value)} > {file} 2>/dev/null" for file, value in files.items()]
    for first in range(0, len(lines), _AT_ONCE):
        shell.run("; ".join((*lines[first : first + _AT_ONCE], "true")))
