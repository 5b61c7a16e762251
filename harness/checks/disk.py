# SPDX-License-Identifier: GPL-2.0-only
"""A file system on a disk of its own, for guest memory that is a file's.

The disk is a zram device that is made for it and gone afterwards, so that nothing of the host's own
is written to.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from harness.checks.undo import undone, unmount
from harness.checks.zram import added
from harness.hosts.protocols import Shell
from harness.observe.unproven import Unproven

FOLDER = "/run/kvm-harness-disk"
# ext4 mounts it as well where there is no driver of its own for ext2.
MOUNT = "mount -t ext2 {device} {folder} 2>/dev/null || mount -t ext4 {device} {folder}"


@contextlib.contextmanager
def file_system(shell: Shell, mib: int) -> Iterator[str]:
    """An empty folder on such a disk of so many MiB. Unproven if the host cannot have one."""
    if shell.run("command -v mke2fs", check=False).status:
        raise Unproven("no file system on a disk can be made: it takes mke2fs")
    with added(shell, mib) as disk, undone(lambda: shell.run(unmount(FOLDER))):
        shell.run(
            # A harness that was killed leaves the folder.
            f"mkdir -p {FOLDER} && mke2fs -q -F -b 4096 {disk.device} && "
            f"{{ {MOUNT.format(device=disk.device, folder=FOLDER)}; }}"
        )
        yield FOLDER
