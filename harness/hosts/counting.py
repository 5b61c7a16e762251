# SPDX-License-Identifier: GPL-2.0-only
"""A host that counts instructions exactly: each boot of it counts the same, to the last digit.

Only an emulated machine can be one, and only if nothing reaches it from outside and its clock is
the number of instructions that it executed (QEMU's -icount). So it has one CPU, no network, no
randomness from QEMU, and one program, which is in its initramfs, is told by the kernel's command
line what to do, answers on the console and switches the machine off.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import proc
from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, HostDied, InfraError
from harness.hosts import cpio, qemu
from harness.hosts.console import POLL, TRACE_SECONDS, Console
from harness.inventory import QemuHost, SshHost
from harness.observe import klog

GUEST_SECONDS = 20.0
"""Of the host's own clock, which counts instructions: a boot that takes more hangs, however slow
the controller is. On n1 with VHE, in two layouts, they took up to 3.5, and nobody looked at others;
the kernel's watchdogs tell of a soft lockup and of an RCU stall after 21 to 24, and of a task that
hangs after 120."""
# Bytes at the end of a console in which its last stamp is looked for.
_TAIL = 4096
# Any date will do, as long as it is the same one in every boot.
DATE = "2026-01-01T00:00:00"


def refusal(host: QemuHost | SshHost) -> str:
    """Why a host cannot count exactly, "" if it can."""
    if isinstance(host, QemuHost):
        return ""
    return f"kind {host.kind}: only an emulated host counts instructions exactly"


@dataclass(frozen=True)
class Counting:
    """One boot. `cpu` is a CPU model of QEMU, memory is in MiB, `padding` in bytes of initramfs."""

    cpu: str
    kernel: Path
    program: Path
    cmdline: tuple[str, ...]
    memory_mib: int = 2048
    padding: int = 0


def arguments(boot: Counting, initramfs: Path, console: Path) -> list[str]:
    """QEMU's argument vector. See "TCG Instruction Counting" in QEMU's documentation."""
    cmdline = ("console=ttyAMA0", "earlycon", "panic=-1", *boot.cmdline)
    return [
        qemu.PROGRAM,
        "-nodefaults",
        "-no-reboot",
        "-no-user-config",
        *("-display", "none"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny"),
        *("-machine", "virt,virtualization=on,gic-version=3,dtb-randomness=off"),
        *("-accel", "tcg"),
        *("-icount", "shift=0,sleep=off"),
        *("-rtc", f"clock=vm,base={DATE}"),
        *("-cpu", boot.cpu),
        *("-smp", "1"),
        *("-m", f"{boot.memory_mib}M"),
        *("-kernel", str(boot.kernel)),
        *("-initrd", str(initramfs)),
        *("-append", " ".join(cmdline)),
        *("-chardev", f"file,id=console,path={str(console).replace(',', ',,')}"),
        *("-serial", "chardev:console"),
    ]


def initramfs(boot: Counting) -> bytes:
    """The whole user space: the program, where it mounts things, and nothing for the rest."""
    return cpio.archive(
        [
            cpio.char_device("dev/console", 5, 1),
            cpio.file("init", boot.program.read_bytes(), 0o755),
            cpio.directory("proc"),
            cpio.directory("sys"),
            cpio.file("padding", b"\0" * boot.padding),
        ]
    )


def boot_all(
    boots: Sequence[tuple[Counting, Path]],
    *,
    at_once: int,
    seconds: float,
    finished: Callable[[int, str | InfraError], None],
) -> None:
    """Boot each in its folder, so many at once, and hand its console or its end to `finished`.

    That gets the boot's number. HostDied is for a kernel that panicked, or whose own clock went
    beyond GUEST_SECONDS: it is ended TRACE_SECONDS of the controller's clock later. One that is not
    off after `seconds` of the controller's clock may hang or be slow: DeadlineExceeded, which is no
    kernel's fault. So is whatever keeps a boot from its start, as a full disk: an InfraError.
    Leaving early ends every machine. A folder gets console.log, qemu.txt (the arguments), qemu.err.
    """
    waiting = list(enumerate(boots))
    running: list[tuple[int, _Machine]] = []
    with contextlib.ExitStack() as stack:
        while waiting or running:
            while waiting and len(running) < at_once:
                number, (boot, folder) = waiting.pop(0)
                try:
                    running.append((number, stack.enter_context(_start(boot, folder, seconds))))
                except InfraError as exc:
                    finished(number, exc)
                except OSError as exc:
                    finished(number, InfraError(f"cannot start a boot in {folder}: {exc}"))
            for number, machine in tuple(running):
                result = machine.result()
                if result is not None:
                    running.remove((number, machine))
                    machine.close()
                    finished(number, result)
            time.sleep(POLL)


@dataclass
class _Machine:
    console: Console
    initramfs: Path
    deadline: Deadline
    close: Callable[[], None]
    hang: HostDied | None = None
    """With what it said when its own clock was first seen to be beyond GUEST_SECONDS."""
    trace: Deadline | None = None
    """How long it then may go on: the registers and the call trace come after such a line."""

    def result(self) -> str | InfraError | None:
        """All of its console once it is off, how it died, or None while it runs."""
        if self.console.text():
            # Read by now. Gone this early, it is not left behind by a harness that is killed.
            self.initramfs.unlink(missing_ok=True)
        off = False
        try:
            self.console.check()
        except HostDied as exc:
            if exc.kind != "gone":
                return exc
            off = True
        except InfraError as exc:
            return exc
        clock = klog.clock(self.console.text()[-_TAIL:])
        if clock > GUEST_SECONDS and self.hang is None:
            self.hang = self.console.hung(f"not off at {clock:.0f} s of its own clock")
            self.trace = Deadline(TRACE_SECONDS)
        if self.trace is not None and (off or self.trace.expired()):
            return self.hang
        if off:
            return self.console.text()
        if self.deadline.expired():
            return DeadlineExceeded(
                f"not off within {self.deadline.budget:.0f} s of this machine's clock, and at "
                f"{clock:.1f} s of its own when it last said so: it hangs, or this machine is "
                f"slow ({self.console.path})"
            )
        return None


@contextlib.contextmanager
def _start(boot: Counting, folder: Path, seconds: float) -> Iterator[_Machine]:
    folder.mkdir(parents=True, exist_ok=True)
    archive = initramfs(boot)
    qemu.check_space(folder, len(archive) + qemu.LOGS)
    path, log = folder / "initramfs.cpio", folder / "console.log"
    with contextlib.ExitStack() as stack:
        # Before it is written: on a disk that is full, what there is of it is in the way.
        stack.callback(path.unlink, missing_ok=True)
        path.write_bytes(archive)
        log.write_bytes(b"")
        argv = arguments(boot, path, log)
        (folder / "qemu.txt").write_text(" ".join(argv) + "\n")
        errors = stack.enter_context((folder / "qemu.err").open("wb"))
        process = proc.spawn(argv, stdout=errors, stderr=errors)
        stack.callback(proc.end, process)
        console = stack.enter_context(Console(log, lambda: qemu.ended(process, folder)))
        yield _Machine(console, path, Deadline(seconds), stack.close)
