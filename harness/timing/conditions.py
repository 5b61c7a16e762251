# SPDX-License-Identifier: GPL-2.0-only
"""In what conditions a host is when time is measured on it, and those that can be fixed."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from harness.checks.undo import undone
from harness.hosts.protocols import Shell
from harness.observe.errors import ObserveError
from harness.observe.text import run_script, sections
from harness.printable import printable
from harness.ranges import format_ranges
from harness.results import NONE
from harness.timing import placement
from harness.timing.placement import Placement

FILE = "conditions.json"
"""What was in force when a check began to measure."""
AFTER = "conditions-after.json"
"""The same when it had measured all."""
OF_KERNEL = frozenset({"thp", "lru_gen"})
"""What a series may change, so that it must be alike in all boots of a kernel, not of both."""
WANTED = "performance"
CPUFREQ = "/sys/devices/system/cpu"
_BOOST = "cpufreq/boost"
_IDLE = "cpuidle/current_governor"
_BALANCING = "/proc/sys/kernel/numa_balancing"
_ISOLATING = ("isolcpus", "nohz_full", "rcu_nocbs", "irqaffinity")
# CPU number and what its cpufreq says; a machine with thousands of CPUs says less than this.
_LIMIT = 1 << 21
_PER_CPU = re.compile(r"/cpu([0-9]{1,5})/cpufreq/\w+ ([ -~]{1,60})", re.ASCII)
_SCRIPT = f"""
for name in scaling_driver scaling_governor scaling_cur_freq scaling_min_freq scaling_max_freq \\
    cpuinfo_min_freq cpuinfo_max_freq boost; do
  echo "NONCE $name"
  for file in {CPUFREQ}/cpu[0-9]*/cpufreq/$name; do
    # No cat: on a large machine it would be a thousand programs.
    {{ read -r value <"$file"; }} 2>/dev/null && echo "$file $value"
  done
done
for file in /proc/cmdline /proc/loadavg {CPUFREQ}/{_BOOST} {CPUFREQ}/isolated \\
    {CPUFREQ}/online {CPUFREQ}/smt/active {CPUFREQ}/{_IDLE} {_BALANCING} {placement.WORK} \\
    /sys/kernel/mm/transparent_hugepage/enabled /sys/kernel/mm/lru_gen/enabled; do
  echo "NONCE ${{file##*/cpu/}}"
  [ -r "$file" ] && cat "$file"
done
echo "NONCE interrupts"
for file in {placement.IRQS}/[0-9]*/smp_affinity_list; do
  {{ read -r value <"$file"; }} 2>/dev/null && echo "$value"
done | sort -u
echo "NONCE latency"
od -An -td4 -N4 {placement.LATENCY} 2>/dev/null || :
echo "NONCE end"
"""


Value = str | tuple[str, ...] | dict[str, str]
"""Of all CPUs, or by CPU."""


class Conditions(BaseModel):
    """conditions.json. By CPU, its governor and frequencies in kHz; {} without cpufreq."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    drivers: dict[str, str]
    governors: dict[str, str]
    khz: dict[str, str]
    min_khz: dict[str, str]
    """The limits that are in force, whoever set them: scaling_min_freq and scaling_max_freq."""
    max_khz: dict[str, str]
    cpuinfo_min_khz: dict[str, str]
    """What the CPU can, the most of it with boost only where that is on."""
    cpuinfo_max_khz: dict[str, str]
    boost: str
    """"1" if any CPU may go above its nominal frequency, "" where the kernel does not say."""
    cpu_boost: dict[str, str]
    """The same by CPU, of kernels that have it so; `boost` switches all of them."""
    isolation: tuple[str, ...]
    """What the kernel's command line says of isolated CPUs."""
    isolated: str
    """The CPUs that the kernel says are isolated from the scheduler; "" if none is."""
    online: str
    smt: str
    """"1" if CPUs share cores, "" where the kernel does not say."""
    idle: str = ""
    """The governor of cpuidle, "" where the kernel has none."""
    numa_balancing: str = ""
    """"0" if the kernel lets pages be where they are, "" where it can do no other."""
    interrupts: str = ""
    """The CPUs to which interrupts were moved, those that can be; "" where none is there alone."""
    workqueues: str = ""
    """The bitmap of CPUs that do the kernel's unbound work."""
    latency_us: str = ""
    """How late a CPU may wake up from sleep, as cpuidle is told; "" where nobody can tell it."""
    loadavg: str
    thp: str
    lru_gen: str

    def steady(self) -> Mapping[str, Value]:
        """What must be alike in the boots that are compared: neither load nor clock at a moment."""
        return self.model_dump(exclude={"khz", "loadavg"})

    def words(self) -> dict[str, str]:
        """The same, each in a line: "performance (CPU 0-3)"; "none" where the kernel says none."""
        return {name: _words(value) or NONE for name, value in self.steady().items()}

    def loose(self) -> tuple[str, ...]:
        """What fixed() could not fix, in words."""
        others = {cpu: one for cpu, one in self.governors.items() if one != WANTED}
        boosts = self.boost == "1" or "1" in self.cpu_boost.values()
        found = (
            f"governor {_words(others)}" if others else "",
            "boost on" if boosts else "",
            "pages moved between nodes" if self.numa_balancing not in ("", "0") else "",
            "CPUs that sleep" if self.latency_us not in ("", "0") else "",
            "" if self.interrupts else "no CPU left for interrupts",
        )
        return tuple(filter(None, found))


def _words(value: Value) -> str:
    if not isinstance(value, dict):
        return value if isinstance(value, str) else " ".join(value)
    cpus: dict[str, list[int]] = {}
    for cpu, what in value.items():
        cpus.setdefault(what, []).append(int(cpu))
    return ", ".join(f"{what} (CPU {format_ranges(those)})" for what, those in cpus.items())


def parse(text: str, nonce: str, kept: str = "") -> Conditions:
    """What the script printed; ObserveError if a part is missing.

    `kept` is where interrupts are to be (placement.quiet()), "" where nobody moved any.
    """
    raw = dict(sections(text, nonce, "conditions"))
    if len(text) > _LIMIT:
        raise ObserveError("conditions", 0, f"longer than {_LIMIT} characters")
    try:
        return Conditions(
            drivers=_per_cpu(raw["scaling_driver"]),
            governors=_per_cpu(raw["scaling_governor"]),
            khz=_per_cpu(raw["scaling_cur_freq"]),
            min_khz=_per_cpu(raw["scaling_min_freq"]),
            max_khz=_per_cpu(raw["scaling_max_freq"]),
            cpuinfo_min_khz=_per_cpu(raw["cpuinfo_min_freq"]),
            cpuinfo_max_khz=_per_cpu(raw["cpuinfo_max_freq"]),
            boost=_line(raw[_BOOST]),
            cpu_boost=_per_cpu(raw["boost"]),
            isolation=tuple(
                printable(word)
                for word in raw["/proc/cmdline"].split()
                if word.partition("=")[0] in _ISOLATING
            ),
            isolated=_line(raw["isolated"]),
            online=_line(raw["online"]),
            smt=_line(raw["smt/active"]),
            idle=_line(raw[_IDLE]),
            numa_balancing=_line(raw[_BALANCING]),
            interrupts=kept if kept in raw["interrupts"].splitlines() else "",
            workqueues=_line(raw[placement.WORK]),
            latency_us=_line(raw["latency"]),
            loadavg=_line(raw["/proc/loadavg"]),
            thp=_line(raw["/sys/kernel/mm/transparent_hugepage/enabled"]),
            lru_gen=_line(raw["/sys/kernel/mm/lru_gen/enabled"]),
        )
    except KeyError as exc:
        raise ObserveError("conditions", 0, f"has no part {exc}") from exc


def _per_cpu(text: str) -> dict[str, str]:
    return {match[1]: match[2] for match in _PER_CPU.finditer(text)}


def _line(text: str) -> str:
    return printable(text.strip()[:1000])


def read(shell: Shell, where: Placement) -> Conditions:
    """The conditions now."""
    nonce = secrets.token_hex(16)
    return parse(run_script(shell, _SCRIPT.replace("NONCE", nonce), None), nonce, where.quiet)


def differing(states: Sequence[Conditions]) -> tuple[str, ...]:
    """The names of what must be alike in all of these and is not."""
    found = [state.steady() for state in states]
    names = found[0] if found else ()
    return tuple(name for name in names if any(one[name] != found[0][name] for one in found))


@contextlib.contextmanager
def fixed(shell: Shell, where: Placement) -> Iterator[Conditions]:
    """Have CPUs be as even and as undisturbed as they can; put back what was afterwards.

    The governor is `performance`, and boost is off: for how long a CPU runs above its nominal
    frequency depends on its heat. The balancing of NUMA nodes is off as well: it takes pages out
    of stage 2 to see who touches them, when it sees fit. What else a host does is kept from the
    CPUs that are timed (placement.quiet()). Yields the conditions in force then.
    """
    before = read(shell, where)
    boosts, limits = _boosts(before), _limits(before)
    governors = _files("scaling_governor", before.governors)
    balancing = {_BALANCING: before.numa_balancing} if before.numa_balancing else {}
    off = dict.fromkeys((*boosts, *balancing), "0")
    still = off | limits | dict.fromkeys(governors, WANTED)
    with (
        undone(lambda: placement.write(shell, boosts | balancing | limits | governors)),
        placement.quiet(shell, where),
    ):
        placement.write(shell, still)
        yield read(shell, where)


def _boosts(found: Conditions) -> dict[str, str]:
    """What says that a CPU may boost, if any does: first the file that switches all others."""
    if found.boost != "1":
        return {}
    return {f"{CPUFREQ}/{_BOOST}": found.boost} | _files("boost", found.cpu_boost)


def _limits(found: Conditions) -> dict[str, str]:
    """The limits below what the CPU can, where boost is about to be switched.

    Kernels forget them then: both cpufreq_boost_set_sw() and cppc_cpufreq_set_boost() of Linux 6.12
    make the most that the CPU can the new limit.
    """
    lower = {
        cpu: khz for cpu, khz in found.max_khz.items() if khz != found.cpuinfo_max_khz.get(cpu, khz)
    }
    return _files("scaling_max_freq", lower) if found.boost == "1" else {}


def _files(name: str, values: Mapping[str, str]) -> dict[str, str]:
    return {f"{CPUFREQ}/cpu{cpu}/cpufreq/{name}": value for cpu, value in values.items()}
