# SPDX-License-Identifier: GPL-2.0-only
"""Idle page tracking, which a kernel has or has not.

Documentation/admin-guide/mm/idle_page_tracking.rst: without CONFIG_IDLE_PAGE_TRACKING there is no
bitmap.
"""

from __future__ import annotations

import errno
import re

from harness.observe.unproven import Unproven

BITMAP = "/sys/kernel/mm/page_idle/bitmap"
MISSING = f"the kernel has no {BITMAP}: CONFIG_IDLE_PAGE_TRACKING is off"
_REPLY = re.compile(rf"error (system|fatal) {re.escape(BITMAP)}: .* \(errno {errno.ENOENT}\)")


def require(reply: str) -> None:
    """Unproven if kvm-guest, of whose replies this is one, found that there is no bitmap."""
    if _REPLY.fullmatch(reply):
        raise Unproven(MISSING)
