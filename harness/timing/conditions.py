# SPDX-License-Identifier: GPL-2.0-only
"""In what conditions a host is when time is measured on it, and the one that can be fixed."""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
from collections.abc import Iterator, Mapping

from pydantic import BaseModel, ConfigDict

from harness.checks.undo import undone
from harness.hosts.protocols import Shell
from harness.observe.errors import ObserveError
from harness.observe.text import run_script, sections
from harness.printable import printable

FILE = "conditions.json"
WANTED = "performance"
CPUFREQ = "/sys/devices/system/cpu"
_ISOLATING = ("isolcpus", "nohz_full", "rcu_nocbs", "irqaffinity")
# CPU number and what its cpufreq says; a machine with thousands of CPUs says less than this.
_LIMIT = 1 << 20
_PER_CPU = re.compile(r"/cpu([0-9]{1,5})/cpufreq/\w+ ([ -~]{1,60})", re.ASCII)
_SCRIPT = f"""
for name in scaling_governor scaling_cur_freq scaling_min_freq scaling_max_freq; do
  echo "NONCE $name"
  for file in {CPUFREQ}/cpu[0-9]*/cpufreq/$name; do
    [ -r "$file" ] && echo "$file $(cat "$file" 2>/dev/null)"
  done
done
for file in /proc/cmdline /proc/loadavg {CPUFREQ}/online {CPUFREQ}/smt/active \\
    /sys/kernel/mm/transparent_hugepage/enabled /sys/kernel/mm/lru_gen/enabled; do
  echo "NONCE ${{file##*/cpu/}}"
  [ -r "$file" ] && cat "$file"
done
echo "NONCE end"
"""


class Conditions(BaseModel):
    """conditions.json. By CPU, its governor and frequencies in kHz; {} without cpufreq."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    governors: dict[str, str]
    khz: dict[str, str]
    min_khz: dict[str, str]
    max_khz: dict[str, str]
    isolation: tuple[str, ...]
    """What the kernel's command line says of isolated CPUs."""
    online: str
    smt: str
    """"1" if CPUs share cores, "" where the kernel does not say."""
    loadavg: str
    thp: str
    lru_gen: str

    def steady(self) -> Mapping[str, object]:
        """What must be alike in the boots that are compared: neither load nor clock at a moment."""
        return self.model_dump(exclude={"khz", "loadavg"})


def parse(text: str, nonce: str) -> Conditions:
    """What the script printed; ObserveError if a part is missing."""
    raw = dict(sections(text, nonce, "conditions"))
    if len(text) > _LIMIT:
        raise ObserveError("conditions", 0, f"longer than {_LIMIT} characters")
    try:
        return Conditions(
            governors=_per_cpu(raw["scaling_governor"]),
            khz=_per_cpu(raw["scaling_cur_freq"]),
            min_khz=_per_cpu(raw["scaling_min_freq"]),
            max_khz=_per_cpu(raw["scaling_max_freq"]),
            isolation=tuple(
                printable(word)
                for word in raw["/proc/cmdline"].split()
                if word.partition("=")[0] in _ISOLATING
            ),
            online=_line(raw["online"]),
            smt=_line(raw["smt/active"]),
            loadavg=_line(raw["/proc/loadavg"]),
            thp=_line(raw["/sys/kernel/mm/transparent_hugepage/enabled"]),
            lru_gen=_line(raw["/sys/kernel/mm/lru_gen/enabled"]),
        )
    except KeyError as exc:
        raise ObserveError("conditions", 0, f"has no part {exc}") from exc


def _per_cpu(text: str) -> dict[str, str]:
    return {match[1]: match[2] for match in _PER_CPU.finditer(text)}


def _line(text: str) -> str:
    return printable(text.strip()[:200])


def read(shell: Shell) -> Conditions:
    """The conditions now."""
    nonce = secrets.token_hex(16)
    return parse(run_script(shell, _SCRIPT.replace("NONCE", nonce), None), nonce)


@contextlib.contextmanager
def fixed(shell: Shell) -> Iterator[Conditions]:
    """Have each CPU's governor be `performance` where it can be; put back what was afterwards.

    Yields the conditions that are in force then.
    """
    before = read(shell).governors
    with undone(lambda: _govern(shell, before)):
        _govern(shell, dict.fromkeys(before, WANTED))
        yield read(shell)


def _govern(shell: Shell, governors: Mapping[str, str]) -> None:
    """A governor that a kernel does not have is refused by it: then it stays as it is."""
    lines = (
        f"echo {shlex.quote(governor)} > {CPUFREQ}/cpu{cpu}/cpufreq/scaling_governor 2>/dev/null"
        for cpu, governor in governors.items()
    )
    if governors:
        shell.run("; ".join((*lines, "true")))
