# SPDX-License-Identifier: GPL-2.0-only
"""Let memory of memfd_create() be of huge pages, which a kernel does not do by itself.

Documentation/admin-guide/mm/transhuge.rst, "Hugepages in tmpfs/shmem".
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from harness.checks.undo import written
from harness.errors import InfraError
from harness.hosts.protocols import Shell
from harness.observe.unproven import Unproven

ENABLED = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"


@contextlib.contextmanager
def huge_by_advice(shell: Shell) -> Iterator[None]:
    """Huge pages where madvise() asks for them; as it was before afterwards. Else Unproven."""
    before = chosen(shell.run(f"cat {ENABLED}", check=False).stdout)
    if before is None:
        raise Unproven("this kernel has no huge pages for shared memory (shmem_enabled)")
    with written(shell, ENABLED, "advise", before):
        yield


def chosen(text: str, path: str = ENABLED) -> str | None:
    """Which of the words of this file is in brackets; None for an empty text."""
    if not text.strip():
        return None
    found = re.findall(r"\[([a-z_]{1,20})\]", text)
    if len(found) != 1:
        raise InfraError(f"{path} has no one choice: {text[:80]!r}")
    return str(found[0])
