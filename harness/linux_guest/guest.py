# SPDX-License-Identifier: GPL-2.0-only
"""Drive a Linux guest on a host: QEMU, its monitor, and the guest's only process.

docs/linux-guest.md says what each command does. How long the guest may take for an answer is
watched on the host (`alarm`), so that a guest that hangs is told from a host that hangs. All of
that is within one deadline, the check's; if that ends a wait, nobody is said to hang.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, GuestEnd, HostDied, InfraError, LinuxGuestDied
from harness.guest_errors import GuestDataLost
from harness.hosts.protocols import Process, Shell
from harness.linux_guest.machine import RAM_BASE, GuestMachine, arguments
from harness.linux_guest.replies import (
    GUEST,
    Line,
    format_set,
    parse_fields,
    parse_frames,
    parse_greeting,
    parse_hva,
    parse_line,
    parse_qmp,
)
from harness.observe import cpu_list, kvmstats
from harness.observe.klog import Follower, Splat, splats

BOOT_SECONDS = 120.0
ANSWER_SECONDS = 20.0
# QEMU's dirty log is read twice, a second apart.
FLUSH_SECONDS = 20.0
# Beyond what the guest may take: the host tells that its time is over well before.
GRACE = 15.0
# To end QEMU, whatever of the check's deadline is left: see harness.linux_guest.ENDING.
END_SECONDS = 30.0
# For a monitor that may hang with its guest to say where the vCPUs are.
REGISTER_SECONDS = 5.0
# Lines of its console that are told with a guest's end.
LAST_LINES = 3
_STAMP = re.compile(r"\[ *[0-9]{1,10}\.[0-9]{6}\] ", re.ASCII)
_BANNER = re.compile(r"Linux version (\S{1,80}(?: \(\S{1,80}\))?)")


class LinuxGuest:
    """A running Linux guest; a context manager that ends it.

    Methods raise LinuxGuestDied when the guest panics, ends or does not answer in time, HostDied
    or DeadlineExceeded when its host does not answer, and InfraError for anything else.
    """

    def __init__(
        self,
        shell: Shell,
        process: Process,
        machine: GuestMachine,
        folder: Path,
        deadline: Deadline,
        slowdown: float,
    ) -> None:
        self._shell = shell
        self._process = process
        self._deadline = deadline
        self._slowdown = slowdown
        self._folder = folder
        self._follower = Follower()
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._errors: list[str] = []
        self._said: deque[str] = deque()
        self._answers: deque[Mapping[str, object]] = deque()
        self._numbers = itertools.count(1)
        self._closed = False
        self.machine = machine
        self.qemu = ""
        """The version of QEMU that runs it, as its monitor says."""
        self.kernel = ""
        """Release and builder of the guest's kernel, as it says itself."""
        self._boot()

    @classmethod
    def start(
        cls,
        shell: Shell,
        machine: GuestMachine,
        folder: Path,
        deadline: Deadline,
        *,
        cgroup: str | None = None,
        slowdown: float = 1.0,
    ) -> LinuxGuest:
        """Start QEMU and wait until the guest's process answers; if it does not, QEMU is ended.

        `folder` gets guest-console.log, as it comes. `deadline` is of all that the guest is waited
        for but its end. With `cgroup` all of QEMU's memory is charged to that one. `slowdown` is a
        factor of every other limit.
        """
        # The last CPU of the host, which has nothing else to do where it is isolated.
        argv = ["taskset", "-c", str(cpu_list.last(shell)), *arguments(machine)]
        if cgroup is not None:
            join = f'echo $$ > {shlex.quote(cgroup)}/cgroup.procs && exec "$@"'
            argv = ["sh", "-c", join, "sh", *argv]
        (folder / "guest-qemu.txt").write_text(shlex.join(argv) + "\n")
        process = shell.start(argv)
        try:
            return cls(shell, process, machine, folder, deadline, slowdown)
        except HostDied:
            process.close()
            raise
        except BaseException:
            # Nothing of the guest may stay on a host that lives.
            try:
                _end(process, slowdown)
            except (HostDied, DeadlineExceeded):
                raise
            except InfraError:
                # Why it did not start is what there is to tell.
                pass
            raise

    def _boot(self) -> None:
        ready = self._take(self._deadline.within(BOOT_SECONDS * self._slowdown))
        match = re.fullmatch("protocol=1 pid=([0-9]{1,10})", ready.text, re.ASCII)
        if ready.kind != "ready" or match is None:
            raise InfraError(f"linux-guest-vmm did not start: {ready}")
        self.pid = int(match[1])
        """QEMU's, on the host."""
        # The monitor's greeting needs no answer, but nothing else is taken before this command.
        self.monitor("qmp_capabilities", seconds=BOOT_SECONDS)
        said = self._wait_guest("to boot", BOOT_SECONDS)
        greeting = parse_fields(said.removeprefix("ready "), ("protocol", "cpus", "pages"))
        made = {"protocol": 1, "cpus": self.machine.vcpus, "pages": self.machine.pages}
        if greeting != made:
            raise InfraError(f"not the guest that was asked for: {said[:80]!r}")
        self.pages = self.frames()
        """For each tested page the index of its page in the guest's RAM."""
        found = self._shell.run(f"ls {kvmstats.KVM}").stdout.split()
        own = [name for name in found if name.startswith(f"{self.pid}-")]
        if len(own) != 1:
            raise InfraError(f"QEMU {self.pid} has not one VM in debugfs: {found}")
        self.vm_dir = own[0]
        """The name of the VM's folder in debugfs/kvm."""
        self.hva = parse_hva(self.human(f"gpa2hva {RAM_BASE:#x}"))
        """Where in QEMU's address space the guest's RAM begins."""

    @property
    def reports(self) -> tuple[Splat, ...]:
        """What the guest's kernel complained of on its console so far."""
        return splats((self._folder / "guest-console.log").read_text(encoding="utf-8"))

    # ---- commands ---------------------------------------------------------------------------

    def touch(self, pages: Iterable[int], *, write: bool, cpu: int = 0) -> None:
        """Have a CPU of the guest load from or store to each of the tested pages once.

        Raises GuestDataLost if a page does not hold what was written to it last.
        """
        asked = frozenset(pages)
        access = "write" if write else "read"
        said = self._ask(f"touch {access} {cpu} {format_set(asked, self.machine.pages)}")
        if parse_fields(said, ("cpu", "touched")) != {"cpu": cpu, "touched": len(asked)}:
            raise InfraError(f"the guest did not touch what it was asked to: {said[:80]!r}")

    def frames(self) -> tuple[int, ...]:
        """Where the tested pages are now, as `pages` says where they were after boot."""
        return parse_frames(self._ask("frames"), self.machine)

    def flush(self) -> None:
        """Force a stage-2 TLB invalidation of all of the guest's RAM.

        QEMU is asked to measure the dirty rate by KVM's dirty log, for which it takes write
        permission from all of stage 2. Access flags stay. No other way is open to user space: the
        ioctls of a VM are its owner's alone.
        """
        self.monitor(
            "calc-dirty-rate", {"calc-time": 1, "mode": "dirty-bitmap"}, seconds=ANSWER_SECONDS
        )
        what = "QEMU to read the dirty log"
        limit = self._time_for(what, FLUSH_SECONDS)
        deadline = Deadline(limit)
        while True:
            told = self.monitor("query-dirty-rate", seconds=ANSWER_SECONDS)
            status = told.get("status") if isinstance(told, dict) else None
            if status == "measured":
                return
            # On a busy host it is "unstarted" until the thread that measures runs.
            starts = status == "unstarted" and not deadline.expired()
            if status != "measuring" and not starts:
                raise InfraError(f"QEMU does not measure the dirty rate: {told}")
            if deadline.expired():
                raise self._late(what, limit, FLUSH_SECONDS)
            self._shell.run("sleep 0.2")

    def pin(self, host_cpus: Sequence[int]) -> tuple[int, ...]:
        """Bind each vCPU's thread to a CPU of the host, from the last on; returns the threads."""
        told = self.monitor("query-cpus-fast", seconds=ANSWER_SECONDS)
        if not isinstance(told, list) or len(told) != self.machine.vcpus:
            raise InfraError(f"QEMU has other vCPUs than it was asked for: {told}")
        threads = tuple(int(vcpu["thread-id"]) for vcpu in told)
        for number, thread in enumerate(threads):
            cpu = host_cpus[-1 - number % len(host_cpus)]
            self._shell.run(f"taskset -pc {cpu} {thread}")
        return threads

    def power_off(self) -> None:
        """Have the guest switch itself off, and wait until QEMU has ended by itself."""
        self._send("console off")
        line = self._until(("end",), "to switch itself off", ANSWER_SECONDS)
        if self._follower.panic_line is not None or line.text != "status=0":
            raise self._died("guest-gone", f"QEMU ended with {line.text}")

    def monitor(
        self, command: str, given: Mapping[str, object] | None = None, *, seconds: float
    ) -> object:
        """What QEMU's monitor returns to a command (QEMU QMP Reference Manual)."""
        number = next(self._numbers)
        message = {"execute": command, "id": number} | ({"arguments": given} if given else {})
        self._send(f"qmp {json.dumps(message)}")
        while True:
            while self._answers:
                answer = self._answers.popleft()
                if answer.get("id") != number:
                    continue
                if "return" not in answer:
                    raise InfraError(f"QEMU refused {command}: {answer.get('error')}")
                return answer["return"]
            self._until(("qmp",), f"QEMU's monitor to answer {command}", seconds, whose="")

    def human(self, command: str) -> str:
        """What a command of QEMU's monitor for people prints."""
        given = {"command-line": command}
        return str(self.monitor("human-monitor-command", given, seconds=ANSWER_SECONDS))

    # ---- lines ------------------------------------------------------------------------------

    def _ask(self, command: str) -> str:
        self._send(f"console {command}")
        said = self._wait_guest(f"to answer {command[:40]!r}", ANSWER_SECONDS)
        if said.startswith("error data "):
            raise GuestDataLost(f"in the Linux guest: {said}")
        if not said.startswith("ok "):
            raise InfraError(f"the guest answered {command[:40]!r} by {said[:80]!r}")
        return said.removeprefix("ok ")

    def _wait_guest(self, what: str, seconds: float) -> str:
        while not self._said:
            self._until(("console",), what, seconds)
        return self._said.popleft()

    def _until(
        self, kinds: tuple[str, ...], what: str, seconds: float, whose: str = "the Linux guest "
    ) -> Line:
        """The next line of one of those kinds that says something; LinuxGuestDied if time is up."""
        what = f"{whose}{what}"
        number = next(self._numbers)
        limit = self._time_for(what, seconds)
        self._send(f"alarm {number} {limit * 1000:.0f}")
        deadline = self._deadline.within(limit + GRACE * self._slowdown)
        while True:
            line = self._take(deadline)
            if line.kind in kinds and (line.kind == "end" or self._said or self._answers):
                return line
            if line.kind == "end":
                words = f"QEMU ended with {line.text} while waiting for {what}"
                raise self._died("guest-gone", words)
            if line == Line("alarm", str(number)):
                self._note_registers()
                raise self._late(what, limit, seconds)

    def _time_for(self, what: str, seconds: float) -> float:
        """Seconds that the guest gets: as many as it is due, or as the check has left for it.

        InfraError if it has none.
        """
        left = self._deadline.remaining() - GRACE * self._slowdown
        if left <= 0:
            raise InfraError(f"the check has no time left to wait for {what}")
        return min(seconds * self._slowdown, left)

    def _late(self, what: str, limit: float, seconds: float) -> InfraError:
        """The error for a guest that got so much time; it hangs only if that is all it was due."""
        words = f"gave up waiting for {what} after {limit:.0f} s"
        if limit < seconds * self._slowdown and self._follower.panic_line is None:
            return InfraError(f"{words}, when the check had no time left")
        return self._died("guest-hang", words)

    def _send(self, line: str) -> None:
        """Send a line; if QEMU has ended meanwhile, what it said last is worth more than that."""
        try:
            self._process.send(line)
        except (HostDied, DeadlineExceeded):
            raise
        except InfraError:
            deadline = Deadline(GRACE * self._slowdown)
            while (last := self._take(deadline)).kind != "end":
                pass
            raise self._died("guest-gone", f"QEMU ended with {last.text} unasked") from None

    def _take(self, deadline: Deadline) -> Line:
        """The next line, kept where it belongs."""
        try:
            line = parse_line(self._process.receive(deadline))
        except EOFError:
            words = self._process.stderr().strip()[-300:]
            raise InfraError(f"linux-guest-vmm ended: {words or 'without a word'}") from None
        if line.kind == "console":
            self._heard(line.text)
        elif line.kind == "qmp":
            message = parse_qmp(line.text)
            if "QMP" in message:
                self.qemu = parse_greeting(message)
            if "id" in message:
                self._answers.append(message)
        elif line.kind == "stderr":
            self._errors.append(line.text)
        elif line.kind == "error":
            raise InfraError(f"linux-guest-vmm: {line.text}")
        return line

    def _heard(self, text: str) -> None:
        if text.startswith(GUEST) and (begun := _STAMP.search(text)):
            # A message of the kernel came before the process's line had its end.
            self._heard(text[begun.start() :])
            text = text[: begun.start()]
        # In the file before anything is done about it.
        with (self._folder / "guest-console.log").open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")
        self._follower.feed(f"{text}\n".encode())
        self._last_lines += [text.strip()] if text.strip() else []
        if not self.kernel and (banner := _BANNER.search(text)):
            self.kernel = banner[1]
        if text.startswith(f"{GUEST}fatal "):
            why = f"its process gave up: {text.removeprefix(GUEST)}"
            raise self._died("guest-gone", why)
        if text.startswith(GUEST):
            self._said.append(text.removeprefix(GUEST))

    def _died(self, kind: GuestEnd, why: str) -> LinuxGuestDied:
        """The error for a guest that is of no use any more, with its last words and QEMU's."""
        if self._follower.panic_line is not None:
            kind = "guest-panic"
            why = f"the Linux guest panicked: {self._follower.panic_line}; {why}"
        lines = " / ".join(line[:200] for line in self._last_lines) or "nothing at all"
        words = f"; QEMU said: {' '.join(self._errors)[-300:]}" if self._errors else ""
        return LinuxGuestDied(kind, f"{why}; the last on its console: {lines}{words}")

    def _note_registers(self) -> None:
        """Keep the registers of a guest that hangs, if QEMU still tells them."""
        number = next(self._numbers)
        ask = {"command-line": "info registers -a"}
        message = {"execute": "human-monitor-command", "arguments": ask, "id": number}
        self._send(f"qmp {json.dumps(message)}")
        alarm = next(self._numbers)
        limit = REGISTER_SECONDS * self._slowdown
        self._send(f"alarm {alarm} {limit * 1000:.0f}")
        text = "QEMU's monitor does not answer"
        while (line := self._take(Deadline(limit + GRACE * self._slowdown))).kind != "end":
            if line == Line("alarm", str(alarm)):
                break
            found = [answer for answer in self._answers if answer.get("id") == number]
            if found:
                text = str(found[0].get("return"))
                break
        (self._folder / "guest-registers.txt").write_text(text)

    # ---- the end ----------------------------------------------------------------------------

    def close(self) -> None:
        """End QEMU, and wait until it and its VM are gone; closing twice does nothing.

        DeadlineExceeded if they do not go: what hangs in a VM's teardown must not pass.
        """
        if self._closed:
            return
        self._closed = True
        _end(self._process, self._slowdown)

    def __enter__(self) -> LinuxGuest:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _end(process: Process, slowdown: float) -> None:
    """End QEMU by way of what holds it, and wait until it and its VM are gone."""
    try:
        process.wait(Deadline(END_SECONDS * slowdown))
    finally:
        process.close()
