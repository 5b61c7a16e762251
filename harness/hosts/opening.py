# SPDX-License-Identifier: GPL-2.0-only
"""The one place that knows in which way each kind of host boots a kernel."""

from __future__ import annotations

from contextlib import AbstractContextManager

from harness.deadline import Deadline
from harness.hosts import kexec, qemu
from harness.hosts.image import HostImage
from harness.hosts.protocols import Boot, BootedHost
from harness.inventory import QemuHost, SshHost


def booted(
    name: str, host: QemuHost | SshHost, image: HostImage | None, boot: Boot
) -> AbstractContextManager[BootedHost]:
    """The host `name` of the inventory while it runs `boot.kernel`; given back afterwards.

    `image` is the user space of an emulated host. HostDied if the kernel panics or hangs,
    InfraError and DeadlineExceeded for all else.
    """
    if isinstance(host, SshHost):
        return kexec.boot(name, host, boot)
    assert image is not None, "made for every run with an emulated host"
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
