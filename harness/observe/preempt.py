# SPDX-License-Identifier: GPL-2.0-only
"""Is the kernel one with PREEMPT_RT, whose locks are others?"""

from __future__ import annotations

import re

from harness.hosts.protocols import Shell

# In the version of all that are (UTS_VERSION, init/Makefile), but cut off behind 64 characters; a
# file of the PREEMPT_RT patches; and the configuration, where the kernel has it with it.
_COMMAND = (
    "uname -v; cat /sys/kernel/realtime 2> /dev/null; "
    "zcat /proc/config.gz 2> /dev/null | grep '^CONFIG_PREEMPT_RT='; :"
)
_SAYS = re.compile(r"^#.*\bPREEMPT_RT\b|^1$|^CONFIG_PREEMPT_RT=y$", re.MULTILINE)


def says_realtime(text: str) -> bool:
    """Whether one of these does: `uname -v`, /sys/kernel/realtime, the line of the config."""
    return _SAYS.search(text) is not None


def is_realtime(shell: Shell) -> bool:
    """Whether the host's kernel has PREEMPT_RT."""
    return says_realtime(shell.run(_COMMAND).stdout)
