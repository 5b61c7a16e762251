# SPDX-License-Identifier: GPL-2.0-only
"""The machine of a Linux guest: where its files lie on a host, and QEMU's argument vector."""

from __future__ import annotations

from dataclasses import dataclass

from harness.hosts.places import PROGRAMS

QEMU = "qemu-system-aarch64"
VMM = f"{PROGRAMS}/linux-guest-vmm"
KERNEL = f"{PROGRAMS}/linux-guest/Image"
INITRAMFS = f"{PROGRAMS}/linux-guest/initramfs.cpio"
# Where RAM of the machine type `virt` begins (QEMU, hw/arm/virt.c); in bytes.
RAM_BASE = 0x4000_0000
PAGE = 4096
# Of the kernel's messages those that are as urgent as a notice: each character that a guest writes
# is several exits to QEMU, so that under emulation all of them took longer than the boot itself.
LOG_LEVEL = 6


@dataclass(frozen=True)
class GuestMachine:
    """What the guest has: CPUs, memory in MiB, and tested pages of 4 KiB in its only process.

    Its RAM is a memfd: QEMU asks for huge pages wherever it uses anonymous memory.
    """

    vcpus: int = 1
    memory_mib: int = 128
    pages: int = 512

    @property
    def ram_pages(self) -> int:
        """The 4 KiB pages of its RAM, which begins at RAM_BASE."""
        return (self.memory_mib << 20) // PAGE


def arguments(machine: GuestMachine) -> list[str]:
    """What linux-guest-vmm is started with: itself, then QEMU's argument vector.

    File descriptors 3 and 4 are the console and the monitor; linux-guest-vmm hands them over.
    """
    return [
        VMM,
        QEMU,
        "-nodefaults",
        "-no-user-config",
        # A panic asks for a restart (panic=-1), which then ends QEMU.
        "-no-reboot",
        *("-display", "none"),
        *("-machine", "virt,accel=kvm,gic-version=host,memory-backend=ram"),
        *("-cpu", "host"),
        *("-smp", str(machine.vcpus)),
        *("-m", f"{machine.memory_mib}M"),
        *("-object", f"memory-backend-memfd,share=on,id=ram,size={machine.memory_mib}M"),
        *("-kernel", KERNEL),
        *("-initrd", INITRAMFS),
        *(
            "-append",
            f"console=ttyAMA0 earlycon loglevel={LOG_LEVEL} panic=-1 "
            f"kvm_harness.pages={machine.pages}",
        ),
        *("-chardev", "socket,id=console,fd=3"),
        *("-serial", "chardev:console"),
        *("-chardev", "socket,id=monitor,fd=4"),
        *("-mon", "chardev=monitor,mode=control"),
    ]
