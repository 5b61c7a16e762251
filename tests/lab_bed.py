# SPDX-License-Identifier: GPL-2.0-only
"""A machine of a lab, emulated: reached by SSH alone, with QMP for a power switch and no more.

QEMU starts it into one kernel, whatever happens: its known-good one. Every other kernel has to come
by SSH and kexec. Like a machine that boots from the network it has no disk but a RAM disk, which
each kernel is given as its initramfs: what is put there is gone after the next boot. Its kernel has
no driver for a clock, so it asks its network for the time, as other machines ask NTP.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab_power import ask
from rich.console import Console as Terminal

from harness import inventory, prepare, proc
from harness.deadline import Deadline
from harness.hosts import packages, pins, qemu
from harness.hosts.console import Console
from harness.hosts.image import INIT, UP
from harness.inventory import SshHost
from harness.kernel import cache
from harness.kernel.flavor import PLAIN, with_fragments
from harness.options import Options
from harness.progress import Progress
from harness.run import load_series

KEXEC = ("kexec-tools",)
PROGRAM = "sbin/kexec"
MEMORY_MIB = 3072
BOOT_SECONDS = 120.0
# A PCI bus, and an Intel 6300ESB on it: QEMU has no other watchdog for the machine `virt`.
WATCHDOG = Path(__file__).with_name("data") / "machine" / "watchdog.config"

# Answered by QEMU itself, which starts date(1) for each that connects.
CLOCK = ("10.0.2.100", 37)
# The root file system of an initramfs tells df(1) nothing.
MORE_INIT = f"""\
mkdir -p /var /lib/modules && mount -t tmpfs tmpfs /var
date -s "@$(nc -w 5 {CLOCK[0]} {CLOCK[1]} < /dev/null)" > /dev/null"""
# Linux 6.12 leaves virtio devices at work across a kexec: a packet that came meanwhile could be
# written to where the next kernel's code lies by then. So the device goes before.
KEXEC_FIRST = """\
#!/bin/sh
[ "$1" != -e ] || for device in /sys/bus/virtio/drivers/virtio_net/virtio*; do
	echo "${device##*/}" > /sys/bus/virtio/drivers/virtio_net/unbind
done
exec /usr/lib/kexec "$@"
"""
# What it makes an initramfs with, called as Debian's: its user space, and a kernel's modules.
MKINITRAMFS = """\
#!/bin/sh
set -e
cd /
{ echo lib; echo lib/modules; find "lib/modules/$3"; } | cpio -o -H newc | gzip > "$2.modules"
cat boot/initrd "$2.modules" > "$2"
rm "$2.modules"
"""
# So that a kernel of its configuration, which has none, comes with a module.
FRAGMENT = Path(__file__).parent / "data/lab-module.config"
OS_RELEASE = 'ID=debian\nPRETTY_NAME="a test bed"\n'


@dataclass(frozen=True)
class Lab:
    """The machine, and how a lab's inventory has it."""

    inventory: Path
    own: Path
    """The inventory for kernels from its own configuration, with an initramfs that it makes."""
    host: SshHost
    host_key: str
    monitor: Path
    console: Path
    """All that the machine said since it was switched on first."""

    @property
    def pins(self) -> dict[str, str]:
        """Its host key, as known_hosts has it."""
        return {pins.pin_name([self.host]): self.host_key}

    def pin(self, state: Path) -> None:
        """Pin its key in the state folder of a user."""
        for name, text in self.pins.items():
            key = pins.to_key(text)
            assert key is not None
            pins.pin(state / "kvm-harness" / "known_hosts", name, key)

    def power(self, what: str) -> None:
        """Switch its power."""
        subprocess.run([*self._switch, what], check=True, timeout=30)

    @property
    def _switch(self) -> tuple[str, ...]:
        return switch(self.monitor)


def switch(monitor: Path) -> tuple[str, ...]:
    return (sys.executable, str(Path(__file__).with_name("lab_power.py")), str(monitor))


@contextlib.contextmanager
def lab(
    folder: Path, *, cpu: str = "neoverse-n1", af: str = "hardware", watchdog: bool = False
) -> Iterator[Lab]:
    """Switch the machine on, and off for good at the end of the block.

    With a watchdog its kernels have a driver for it; its own one leaves it running over a kexec.
    """
    progress = Progress(Terminal(quiet=True))
    ground = prepare.ground(inventory.load().defaults.source, progress)
    flavor = with_fragments(PLAIN, [WATCHDOG] if watchdog else [])
    kernel = prepare.kernel("base", ground.source, None, progress, flavor)
    assert ground.image is not None
    initramfs = _initramfs(ground.image.initramfs, folder)
    log, monitor = folder / "machine.log", folder / "qmp"
    log.touch()
    machine = qemu.Machine("lab", cpu, memory_mib=MEMORY_MIB)
    cmdline = ["console=ttyAMA0", "panic=5", "kvm_harness.host=lab"]
    cmdline += ["watchdog.stop_on_reboot=0"] if watchdog else []
    argv = qemu.arguments(machine, kernel.image, initramfs, cmdline, log)
    argv += ["-device", "i6300esb", "-action", "watchdog=reset"] if watchdog else []
    argv.remove("-no-reboot")
    # So that it may start date(1).
    argv[argv.index("-sandbox") + 1] = "on"
    net = argv.index("-netdev") + 1
    argv[net] += ",guestfwd=tcp:{}:{}-cmd:date +%s".format(*CLOCK)
    # The tables of an interrupt translation service stay where they are across a kexec. With EFI
    # that memory is kept for them (irq-gic-v3-its.c, gic_reserve_range()); here is none.
    argv[argv.index("-machine") + 1] += ",its=off"
    argv += ["-qmp", f"unix:{monitor},server=on,wait=off"]
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context((folder / "qemu.err").open("wb"))
        process = proc.spawn(argv, stdout=errors, stderr=errors)
        stack.callback(proc.end, process)
        console = stack.enter_context(Console(log, lambda: None))
        console.wait_for(UP, Deadline(BOOT_SECONDS))
        text = ask(str(monitor), "human-monitor-command", **{"command-line": "info usernet"})
        port = qemu.forwarded_port(text)
        lines = ("initrd: /boot/initrd", "boot_seconds: 120", "back_seconds: 120")
        path = write_inventory(folder, port, ground.image.login_key, monitor, log, af, lines)
        own = folder / "own.yaml"
        more = f"    config: machine\n    fragments: [{FRAGMENT}]\n"
        own.write_text(path.read_text().replace("    initrd: /boot/initrd\n", more))
        host = inventory.load(path).ssh("lab")
        yield Lab(path, own, host, ground.image.host_key, monitor, log)


def other_image(folder: Path) -> Path:
    """The image of another kernel than the machine's own, that of the default series."""
    progress = Progress(Terminal(quiet=True))
    stock = inventory.load()
    source = prepare.ground(stock.defaults.source, progress).source
    tree = prepare.patched_tree(load_series(Options(), stock), source, progress)
    base = prepare.kernel("base", source, None, progress)
    # Of the cache, which may be swept.
    image = prepare.kernel("patched", tree, base, progress).image
    return Path(shutil.copy(image, folder))


def write_inventory(
    folder: Path, port: int, key: Path, monitor: Path, log: Path, af: str, more: Sequence[str]
) -> Path:
    """An inventory with the machine as `lab`; `more` are lines of its own."""
    words = ", ".join(f'"{word}"' for word in switch(monitor))
    orders = "".join(f'      "{what}": [{words}, "{what}"]\n' for what in ("on", "off", "reset"))
    path = folder / "inventory.yaml"
    path.write_text(
        "schema: 1\n"
        "defaults: {source: debian:linux-source-6.12, series: stage2-sw-af}\n"
        "hosts:\n"
        "  lab:\n"
        "    kind: ssh\n"
        "    address: 127.0.0.1\n"
        f"    port: {port}\n"
        f"    key: {key}\n"
        "    kvm_modes: [protected, vhe, nvhe]\n"
        f"    af: {af}\n"
        f"{''.join(f'    {line}{chr(10)}' for line in more)}"
        f"    power:\n{orders}"
        f"    console: [tail, -n, '0', -F, {log}]\n"
    )
    return path


def _initramfs(base: Path, folder: Path) -> Path:
    """What QEMU gives the machine: user space, and within it what other kernels are given."""
    init, release, first, maker = (
        folder / name for name in ("init", "os-release", "kexec", "mkinitramfs")
    )
    first.write_text(KEXEC_FIRST)
    maker.write_text(MKINITRAMFS)
    text = INIT.read_text()
    at = "# Only the key"
    assert text.count(at) == 1
    init.write_text(text.replace(at, f"{MORE_INIT}\n{at}"))
    release.write_text(OS_RELEASE)
    inner, outer = folder / "initrd", folder / "initramfs"
    files = {"init": init, "etc/os-release": release, **_kexec()}
    files |= {"usr/lib/kexec": files[PROGRAM], PROGRAM: first, "sbin/mkinitramfs": maker}
    qemu.overlay(base, files, inner)
    qemu.overlay(inner, {"boot/initrd": inner}, outer)
    return outer


def _kexec() -> dict[str, Path]:
    """kexec and its libraries, by the path that each has on the machine, unpacked unless cached."""
    recipe = "\n".join([packages.suite(), *KEXEC, PROGRAM, Path(__file__).read_text()])
    entry = cache.get_or_make(
        "images",
        f"kexec-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}",
        _unpack,
        deadline=Deadline(600),
        what="kexec for the test bed",
        need=256 << 20,
    )
    files = (path for path in entry.path.rglob("*") if path.is_file())
    return {str(path.relative_to(entry.path)): path for path in sorted(files)}


def _unpack(folder: Path) -> None:
    with packages.unpack(KEXEC, folder, Deadline(600), "unpacking kexec") as root:
        found = packages.with_libraries(root, (PROGRAM,), KEXEC)
    for path, body in found.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(body)
