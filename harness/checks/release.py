# SPDX-License-Identifier: GPL-2.0-only
"""Which Linux a host runs, where what is right depends on it."""

from __future__ import annotations

import re


def version(release: str) -> tuple[int, int] | None:
    """The first two numbers of what uname -r says ("6.12.117"); None if it has none."""
    found = re.match(r"(\d{1,4})\.(\d{1,4})", release, re.ASCII)
    return None if found is None else (int(found[1]), int(found[2]))
