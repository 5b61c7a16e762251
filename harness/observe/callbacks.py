# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel calls the functions that walks of a guest's stage 2 call back.

They are static, so a series may rename them, and nothing else of it need change. Which one it is
stands in the first field of struct kvm_pgtable_walker, the fourth argument of kvm_pgtable_walk()
(arch/arm64/include/asm/kvm_pgtable.h; Procedure Call Standard for the Arm 64-bit Architecture: x3),
and a probe can tell its symbol (Documentation/trace/kprobetrace.rst).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from harness.hosts.protocols import Shell
from harness.observe.text import run_script
from harness.observe.tracefs import ALIASES, FUNCTIONS, GROUP, INSTANCE, LIST, REMOVE

WALK = "kvm_pgtable_walk"
_START = f"""{REMOVE}mkdir $I
echo 0 > $I/tracing_on
if echo 'p:{GROUP}/walk {WALK} cb=+0(%x3):symbol' 2>/dev/null >> $T/kprobe_events; then
  echo 1 > $I/events/{GROUP}/walk/enable
  echo 1 > $I/tracing_on
fi
"""
_STOP = f"echo 0 > {INSTANCE}/tracing_on\ncat {INSTANCE}/trace\n{REMOVE}"
_CALLED_BACK = re.compile(r" cb=([A-Za-z_][A-Za-z0-9_.]{0,126})\+0x0/")


def unlisted(shell: Shell, names: Iterable[str]) -> tuple[str, ...]:
    """Those of the names that no function of this kernel has, or one that cannot be traced."""
    found = run_script(shell, f"{LIST}grep -Fx {_patterns(names)} {FUNCTIONS} || true\n", None)
    return tuple(name for name in names if name not in found.split())


def _patterns(names: Iterable[str]) -> str:
    return " ".join(f"-e {name}" for name in names)


def called_back(shell: Shell, act: Callable[[], object]) -> str | None:
    """The function that walks of stage 2 call back meanwhile; None for none, and for several."""
    run_script(shell, _START, None)
    try:
        act()
    finally:
        text = run_script(shell, _STOP, None)
    return parse(text)


def parse(text: str) -> str | None:
    """The only function that the events of a trace name."""
    found = set(_CALLED_BACK.findall(text))
    return found.pop() if len(found) == 1 else None


def remember(shell: Shell, aliases: Mapping[str, str]) -> None:
    """Have probes on the one name be put on the function of the other, until the host boots."""
    lines = "".join(f"echo {asked} {found}\n" for asked, found in aliases.items())
    run_script(shell, f"{{\n{lines}:; }} > {ALIASES}", None)
