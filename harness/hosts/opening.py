# SPDX-License-Identifier: GPL-2.0-only
"""The one place that knows in which way each kind of host boots a kernel."""

from __future__ import annotations

from contextlib import AbstractContextManager

from harness.deadline import Deadline
from harness.hosts import qemu
from harness.hosts.image import HostImage
from harness.hosts.protocols import Boot, BootedHost
from harness.inventory import QemuHost


def booted(
    name: str, host: QemuHost, image: HostImage, boot: Boot
) -> AbstractContextManager[BootedHost]:
    """The host `name` of the inventory while it runs `boot.kernel`; given back afterwards.

    HostDied if the kernel panics or hangs, InfraError and DeadlineExceeded for all else.
    """
    return qemu.boot(
        qemu.Machine(name, host.cpu, host.cpus, host.memory_mib, tickless=boot.tickless),
        image,
        boot.kernel,
        boot.cmdline,
        boot.folder,
        programs=boot.programs,
        deadline=Deadline(boot.seconds),
        slowdown=boot.slowdown,
    )
