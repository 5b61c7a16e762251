# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel calls the functions that walks of a guest's stage 2 call back.

They are static, so a series may rename them, and nothing else of it need change. Which one it is
stands in the first field of struct kvm_pgtable_walker, the fourth argument of kvm_pgtable_walk()
(arch/arm64/include/asm/kvm_pgtable.h; Procedure Call Standard for the Arm 64-bit Architecture: x3),
and a probe can tell its symbol (Documentation/trace/kprobetrace.rst).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from harness.hosts.protocols import Shell
from harness.observe.text import run_script
from harness.observe.trace_text import parse_trace
from harness.observe.tracefs import FUNCTIONS, GROUP, INSTANCE, LIST, REMOVE, new_instance

WALK = "kvm_pgtable_walk"
_EVENT = "kvmh_walk"
_START = f"""{new_instance(256)}\
if echo 'p:{GROUP}/{_EVENT} {WALK} cb=+0(%x3):symbol' 2>/dev/null >> $T/kprobe_events; then
  echo 1 > $I/events/{GROUP}/{_EVENT}/enable
  echo 1 > $I/tracing_on
fi
"""
_STOP = f"echo 0 > {INSTANCE}/tracing_on\ncat {INSTANCE}/trace\n{REMOVE}"
_CALLED_BACK = re.compile(
    rf"\({WALK}\+0x[0-9a-f]+/0x[0-9a-f]+\) cb=([A-Za-z_][A-Za-z0-9_.]{{0,126}})\+0x0/0x[0-9a-f]+"
)


def unlisted(shell: Shell, names: Iterable[str]) -> tuple[str, ...]:
    """Those of the names that no function of this kernel has, or one that cannot be traced."""
    patterns = " ".join(f"-e {name}" for name in names)
    found = run_script(shell, f"{LIST}grep -Fx {patterns} {FUNCTIONS} || true\n", None).split()
    return tuple(name for name in names if name not in found)


def called_back(shell: Shell, pid: int, act: Callable[[], object]) -> str | None:
    """The function that walks of stage 2 by a task call back meanwhile; None if not just one."""
    run_script(shell, _START, None)
    try:
        act()
    finally:
        text = run_script(shell, _STOP, None)
    return parse(text, pid)


def parse(text: str, pid: int) -> str | None:
    """The only function that the events of a task name; None for several, and if some were lost."""
    events, written = parse_trace(text, {_EVENT: WALK})
    told = [_CALLED_BACK.fullmatch(event.text) for event in events if event.pid == pid]
    found = {one[1] if one else None for one in told}
    return found.pop() if len(found) == 1 and len(events) == written else None
