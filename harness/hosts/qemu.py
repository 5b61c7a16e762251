# SPDX-License-Identifier: GPL-2.0-only
"""The emulated host: QEMU (TCG) with EL2, so that KVM runs in it without arm64 hardware.

QEMU is driven over QMP, its console goes to a file from the first byte, and SSH reaches it through
a loopback port that QEMU itself picks. It has no way out to any network.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import proc
from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, HostDied, InfraError
from harness.hosts import bootargs, cpio
from harness.hosts.console import Console
from harness.hosts.image import UP, HostImage
from harness.hosts.qmp import Monitor
from harness.hosts.ssh import SshAddress, SshShell, connect

PROGRAM = "qemu-system-aarch64"
# FEAT_HAFDBS came to TCG with QEMU 7.2 ("target/arm: Implement FEAT_HAFDBS").
OLDEST = (7, 2)
# Bytes for what a host's console, commands and checks leave.
LOGS = 64 << 20


@dataclass(frozen=True)
class Machine:
    """What is emulated: `cpu` is a CPU model of QEMU, memory is in MiB."""

    name: str
    cpu: str
    cpus: int = 2
    memory_mib: int = 2048
    tickless: bool = True
    """Whether the last CPU is kept free of the tick."""


def check_qemu() -> str:
    """The version of QEMU, e.g. "7.2.22"; InfraError if it is missing or knows no FEAT_HAFDBS."""
    done = proc.run([PROGRAM, "--version"], deadline=Deadline(20), what="QEMU to say its version")
    return parse_qemu_version(done.stdout)


def parse_qemu_version(text: str) -> str:
    """The version in what `qemu-system-aarch64 --version` prints; InfraError if it is too old."""
    found = re.search(r"version (\d+)\.(\d+)(\.\d+)?", text)
    if found is None:
        raise InfraError(f"{PROGRAM} --version does not name a version: {text[:80]!r}")
    if (int(found[1]), int(found[2])) < OLDEST:
        raise InfraError(
            f"{PROGRAM} is {found[0]}; the emulated host needs 7.2, the first version that "
            "emulates FEAT_HAFDBS"
        )
    return found[0].removeprefix("version ")


def arguments(
    machine: Machine, kernel: Path, initramfs: Path, cmdline: Sequence[str], console: Path
) -> list[str]:
    """QEMU's argument vector, less the monitor. See docs/system/arm/virt of QEMU."""
    return [
        *alone(machine, kernel, initramfs, cmdline, console),
        # restrict=on: the host sees its SSH forward and nothing else.
        *("-netdev", "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"),
        *("-device", "virtio-net-device,netdev=net"),
    ]


def alone(
    machine: Machine, kernel: Path, initramfs: Path, cmdline: Sequence[str], console: Path
) -> list[str]:
    """The same without a network."""
    return [
        PROGRAM,
        "-nodefaults",
        "-no-reboot",
        "-no-user-config",
        "-display",
        "none",
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny"),
        *("-machine", "virt,virtualization=on,gic-version=3"),
        *("-accel", "tcg,thread=multi"),
        *("-cpu", machine.cpu),
        *("-smp", str(machine.cpus)),
        *("-m", f"{machine.memory_mib}M"),
        *("-kernel", str(kernel)),
        *("-initrd", str(initramfs)),
        *("-append", " ".join(cmdline)),
        # A comma would end the value of an option of QEMU; two stand for one.
        *("-chardev", f"file,id=console,path={str(console).replace(',', ',,')}"),
        *("-serial", "chardev:console"),
    ]


@dataclass(frozen=True)
class EmulatedHost:
    """A booted emulated host: what it says, where it answers, and a shell on it."""

    console: Console
    address: SshAddress
    shell: SshShell
    boot_seconds: float


def first_cmdline(machine: Machine) -> list[str]:
    """Boot arguments that every emulated host gets.

    A panic restarts a machine of the lab; here it stops for good, so that QEMU's end shows it.
    """
    isolated = bootargs.tickless(machine.cpus - 1) if machine.tickless else ()
    return [
        "console=ttyAMA0",
        "earlycon",
        "panic=-1",
        f"kvm_harness.host={machine.name}",
        *isolated,
    ]


def overlay(base: Path, files: dict[str, Path], target: Path) -> None:
    """Append files to an initramfs as a second archive, which the kernel unpacks over the first.

    It must begin at a multiple of 4 bytes (init/initramfs.c:unpack_to_rootfs()).
    """
    entries = [
        cpio.file(path, source.read_bytes(), 0o755) for path, source in sorted(files.items())
    ]
    with target.open("wb") as out, base.open("rb") as image:
        shutil.copyfileobj(image, out)
        out.write(b"\0" * (-out.tell() % 4))
        out.write(cpio.archive(entries))


@contextlib.contextmanager
def boot(
    machine: Machine,
    image: HostImage,
    kernel: Path,
    cmdline: Sequence[str],
    folder: Path,
    *,
    programs: dict[str, Path],
    deadline: Deadline,
    slowdown: float = 1.0,
) -> Iterator[EmulatedHost]:
    """Boot `kernel`, wait for its SSH server, and end it with everything it started afterwards.

    `folder` gets console.log and qemu.txt. `programs` are files of the controller by the path that
    they shall have on the host. HostDied if the kernel panics, DeadlineExceeded if it hangs.
    `slowdown` is a factor of the shell's own deadlines.
    """
    started = time.monotonic()
    files = image.vmm | programs
    check_space(folder, space_for(image.initramfs, files))
    initramfs = folder / "initramfs.cpio"
    with contextlib.ExitStack() as stack:
        # Before it is written: on a disk that is full, what there is of it is in the way.
        stack.callback(initramfs.unlink, missing_ok=True)
        overlay(image.initramfs, files, initramfs)
        log = folder / "console.log"
        log.touch()
        argv = arguments(machine, kernel, initramfs, [*first_cmdline(machine), *cmdline], log)
        ours, theirs = socket.socketpair()
        stack.callback(ours.close)
        monitor_of = f"socket,id=qmp,fd={theirs.fileno()}"
        argv += ["-chardev", monitor_of, "-mon", "chardev=qmp,mode=control"]
        (folder / "qemu.txt").write_text(" ".join(argv) + "\n")
        errors = stack.enter_context((folder / "qemu.err").open("wb"))
        with theirs:
            process = proc.spawn(argv, stdout=errors, stderr=errors, pass_fds=(theirs.fileno(),))
        stack.callback(proc.end, process)
        console = stack.enter_context(Console(log, lambda: ended(process, folder)))
        try:
            monitor = Monitor(ours, deadline.within(20))
        except InfraError:
            # A monitor that is not there is QEMU's end most often: its own words say more.
            console.check()
            raise
        stack.callback(monitor.close)
        # Read by now. Gone this early, it is not left behind by a harness that is killed.
        initramfs.unlink()
        port = _ssh_port(monitor, deadline)
        try:
            console.wait_for(UP, deadline)
        except InfraError as exc:
            _note_registers(monitor, folder)
            raise exc
        address = SshAddress("127.0.0.1", port, "root", image.host_key, image.login_key)
        try:
            connection = connect(address, deadline.within(30), console.check)
        except DeadlineExceeded as exc:
            # It said that its server runs: a host that then gives no login has hung.
            _note_registers(monitor, folder)
            raise console.hung(str(exc)) from exc
        shell = SshShell(connection, console.check, slowdown)
        stack.callback(shell.close)
        yield EmulatedHost(console, address, shell, round(time.monotonic() - started, 3))


def space_for(base: Path, files: dict[str, Path]) -> int:
    """Bytes that a host takes of the disk: an initramfs of these until it boots, and logs."""
    return sum(path.stat().st_size for path in (base, *files.values())) + LOGS


def check_space(folder: Path, needed: int) -> None:
    """InfraError if fewer than `needed` bytes are free where initramfs and logs go."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InfraError(f"disk full: {folder} has {free >> 20} MiB free, {needed >> 20} needed")


def ended(process: subprocess.Popen[bytes], folder: Path) -> HostDied | InfraError | None:
    """Why the machine is gone, if it is; `folder` has what QEMU itself said."""
    if process.poll() is None:
        return None
    words = (folder / "qemu.err").read_text(errors="replace").strip()
    # Somebody on the controller ended it: QEMU exits 0 then, but the kernel did nothing.
    if process.returncode != 0 or "terminating on signal" in words:
        return InfraError(f"QEMU ended with {process.returncode}: {words[-500:]}")
    return HostDied("gone", "the emulated host switched itself off")


def _ssh_port(monitor: Monitor, deadline: Deadline) -> int:
    """The loopback port that QEMU chose for SSH; there is no QMP command for it but HMP's."""
    arguments = {"command-line": "info usernet"}
    return forwarded_port(str(monitor.execute("human-monitor-command", deadline, **arguments)))


def forwarded_port(text: str) -> int:
    """The port of the controller in what `info usernet` says; InfraError if there is none."""
    found = re.search(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s", text)
    if found is None:
        raise InfraError(f"QEMU shows no forwarded port: {text!r}")
    return int(found[1])


def _note_registers(monitor: Monitor, folder: Path) -> None:
    """Keep the CPUs' registers of a machine that hangs: where each CPU is, is the evidence."""
    with contextlib.suppress(InfraError):
        arguments = {"command-line": "info registers -a"}
        text = monitor.execute("human-monitor-command", Deadline(5), **arguments)
        (folder / "registers.txt").write_text(str(text))
