# SPDX-License-Identifier: GPL-2.0-only
"""A file system on a disk of its own, for guest memory that is a file's.

The disk is a zram device that is made for it and gone afterwards, so that nothing of the host's own
is written to. Documentation/admin-guide/blockdev/zram.rst describes how to add and remove one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from harness.checks.undo import undone, unmount
from harness.hosts.protocols import Shell
from harness.observe.unproven import Unproven

CONTROL = "/sys/class/zram-control"
FOLDER = "/run/kvm-harness-disk"
# ext4 mounts it as well where there is no driver of its own for ext2.
MOUNT = "mount -t ext2 {device} {folder} 2>/dev/null || mount -t ext4 {device} {folder}"


@contextlib.contextmanager
def file_system(shell: Shell, mib: int) -> Iterator[str]:
    """An empty folder on such a disk of so many MiB. Unproven if the host cannot have one."""
    tools = (
        f"[ -e {CONTROL}/hot_add ] || modprobe zram; command -v mke2fs && [ -e {CONTROL}/hot_add ]"
    )
    if shell.run(tools, check=False).status:
        raise Unproven("no file system on a disk can be made: it takes zram and mke2fs")
    # To read that file is to make a device.
    number = int(shell.read(f"{CONTROL}/hot_add"))
    device, sysfs = f"/dev/zram{number}", f"/sys/block/zram{number}"

    def remove() -> None:
        shell.run(f"{unmount(FOLDER)}; echo {number} > {CONTROL}/hot_remove")

    with undone(remove):
        shell.run(
            # A harness that was killed leaves the folder.
            f"mkdir -p {FOLDER} && echo {mib}M > {sysfs}/disksize && "
            f"mke2fs -q -F -b 4096 {device} && "
            f"{{ {MOUNT.format(device=device, folder=FOLDER)}; }}"
        )
        yield FOLDER
