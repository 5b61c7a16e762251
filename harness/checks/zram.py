# SPDX-License-Identifier: GPL-2.0-only
"""A zram device of a check's own, which leaves alone those that a machine has already.

Documentation/admin-guide/blockdev/zram.rst describes how to add and remove one. Where there is
zram-generator, as in Fedora, the machine's own swap is on zram0.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from harness.checks.undo import undone
from harness.hosts.protocols import Shell
from harness.observe.unproven import Unproven

CONTROL = "/sys/class/zram-control"
# A device whose last user has gone is opened once more by udev, which looks what is on it now; it
# cannot be removed meanwhile.
TRIES, PAUSE = 20, 0.5


@dataclass(frozen=True)
class Zram:
    """A device that was added."""

    number: int

    @property
    def device(self) -> str:
        """Its file in /dev."""
        return f"/dev/zram{self.number}"

    @property
    def folder(self) -> str:
        """Its folder in sysfs, which goes when it does."""
        return f"/sys/block/zram{self.number}"

    def remove(self) -> str:
        """What has a shell remove it, once nobody uses it any more."""
        gone = f"echo {self.number} > {CONTROL}/hot_remove"
        return (
            f"n=0; while [ $n -lt {TRIES} ] && ! {gone} 2>/dev/null; do "
            f"n=$((n + 1)); sleep {PAUSE}; done; [ ! -e {self.folder} ]"
        )


@contextlib.contextmanager
def added(shell: Shell, mib: int) -> Iterator[Zram]:
    """A device of so many MiB; gone afterwards, so use of it must end before. Else Unproven."""
    there = f"[ -e {CONTROL}/hot_add ] || modprobe zram; [ -e {CONTROL}/hot_add ]"
    if shell.run(there, check=False).status:
        raise Unproven(f"no zram device can be made: there is no {CONTROL}/hot_add")
    # To read that file is to make a device.
    zram = Zram(int(shell.read(f"{CONTROL}/hot_add")))
    with undone(lambda: shell.run(zram.remove())):
        shell.run(f"echo {mib}M > {zram.folder}/disksize")
        yield zram
