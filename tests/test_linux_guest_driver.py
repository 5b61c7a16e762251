# SPDX-License-Identifier: GPL-2.0-only
"""The driver of a Linux guest against what was said on a host, whole and cut; no host, no KVM."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from fake_shell import UnaskedShell

from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, GuestEnd, HostDied, InfraError, LinuxGuestDied
from harness.guest_errors import GuestDataLost
from harness.hosts.protocols import Process, Result
from harness.linux_guest import guest as module
from harness.linux_guest.guest import LinuxGuest
from harness.linux_guest.machine import GuestMachine
from harness.observe.klog import Kind

ASK_USABLE = "taskset -c $(cat /sys/devices/system/cpu/online) cat /proc/self/status"
MACHINE = GuestMachine(pages=16)
# Of a guest on an emulated Neoverse N1; QEMU's greeting is cut short here.
BOOT = (
    "ready protocol=1 pid=88",
    'qmp {"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "D"}}}',
    'qmp {"return": {}, "id": 1}',
    "console [    0.000000] Booting Linux on physical CPU 0x0000000000 [0x414fd0c1]",
    "console [    0.000000] Linux version 6.12.117 (kvm-harness@e328f7d4c902) (gcc) #1 SMP",
    "console @guest ready protocol=1 cpus=1 pages=16",
    "console @guest ok frames=10-40b43",
)
RAM = "Host virtual address for 0x40000000 (ram) is 0xffffa7fff000\\r\\n"
PANIC = (
    "console [    6.123456] Kernel panic - not syncing: VFS: Unable to mount root fs",
    "console [    6.123456] Call trace:",
    "console [    6.123456]  panic+0x360/0x3a8",
    "console [    6.123456] ---[ end Kernel panic - not syncing: VFS ]---",
)


class FakeVmm:
    """Says what it is told to, and keeps what it was sent; "@N" stands for the last number N."""

    def __init__(self, lines: Sequence[str | BaseException], end: Exception | None = None) -> None:
        self.lines = list(lines)
        self.end = end
        self.sent: list[str] = []
        self.waited = self.closed = 0
        self.gone = False

    def send(self, line: str) -> None:
        if self.gone:
            raise InfraError("connection broke before linux-guest-vmm took a line")
        self.sent.append(line)

    def receive(self, deadline: Deadline) -> str:
        if not self.lines:
            raise AssertionError(f"waits for more, after {self.sent[-2:]}")
        line = self.lines.pop(0)
        if isinstance(line, BaseException):
            raise line
        return line.replace("@alarm", self._last("alarm")).replace("@qmp", self._last("qmp"))

    def _last(self, word: str) -> str:
        """The number of the last alarm that was set, or of the last command to the monitor."""
        said = next((line for line in reversed(self.sent) if line.startswith(word)), "")
        if word == "qmp" and said:
            return str(json.loads(said.removeprefix("qmp "))["id"])
        return said.split()[1] if said else ""

    def stderr(self) -> str:
        return "linux-guest-vmm: fork: Cannot allocate memory\n"

    def wait(self, deadline: Deadline) -> int:
        self.waited += 1
        if self.end is not None:
            raise self.end
        return 0

    def close(self) -> None:
        self.closed += 1


class FakeShell(UnaskedShell):
    def __init__(self, vmm: FakeVmm) -> None:
        self.vmm = vmm
        self.argv: list[str] = []
        self.ran: list[str] = []

    def start(self, argv: Sequence[str]) -> Process:
        self.argv = list(argv)
        return self.vmm

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        self.ran.append(command)
        answers = {
            ASK_USABLE: "Cpus_allowed_list:\t0-1\n",
            "ls /sys/kernel/debug/kvm": "exits\n88-10\n88\n188-9\n",
        }
        return Result(command, 0, answers.get(command, ""), "")


def boot(
    folder: Path, *more: str | Exception, lines: Sequence[str | Exception] = BOOT
) -> tuple[LinuxGuest, FakeVmm, FakeShell]:
    ram = f'qmp {{"return": "{RAM}", "id": @qmp}}'
    vmm = FakeVmm([*lines, ram, *more])
    shell = FakeShell(vmm)
    return LinuxGuest.start(shell, MACHINE, folder, Deadline(600)), vmm, shell


def test_boots(tmp_path: Path) -> None:
    vm, vmm, shell = boot(tmp_path)
    assert (vm.pid, vm.vm_dir, vm.hva) == (88, "88-10", 0xFFFFA7FFF000)
    assert (vm.qemu, vm.kernel) == ("7.2.22 (D)", "6.12.117 (kvm-harness@e328f7d4c902)")
    assert vm.pages == tuple(range(0xB43, 0xB33, -1))
    # On the last CPU, where nothing else runs that could keep what reads its console waiting.
    assert shell.argv[:3] == ["taskset", "-c", "1"]
    assert (tmp_path / "guest-console.log").read_text().splitlines() == [
        line.removeprefix("console ") for line in BOOT if line.startswith("console")
    ]
    vm.close()
    vm.close()
    assert (vmm.waited, vmm.closed) == (1, 1)


def test_in_a_cgroup_from_its_first_page_on(tmp_path: Path) -> None:
    vmm = FakeVmm([*BOOT, f'qmp {{"return": "{RAM}", "id": @qmp}}'])
    shell = FakeShell(vmm)
    LinuxGuest.start(shell, MACHINE, tmp_path, Deadline(600), cgroup="/sys/fs/cgroup/x")
    assert shell.argv[:2] == ["sh", "-c"]
    assert shell.argv[2] == 'echo $$ > /sys/fs/cgroup/x/cgroup.procs && exec "$@"'


def test_touches(tmp_path: Path) -> None:
    vm, vmm, _ = boot(tmp_path, "console @guest ok cpu=0 touched=3")
    vm.touch({0, 1, 15}, write=True)
    assert "console touch write 0 3008" in vmm.sent


def test_a_message_of_the_kernel_between_question_and_answer(tmp_path: Path) -> None:
    warning = "console [   20.0] watchdog: something is slow"
    vm, _, _ = boot(tmp_path, warning, "console @guest ok cpu=0 touched=1")
    vm.touch({4}, write=False)
    assert warning.removeprefix("console ") in (tmp_path / "guest-console.log").read_text()


@pytest.mark.parametrize("said", ["ok cpu=0 touched=2", "ok cpu=1 touched=1", "ok", "error usage"])
def test_a_touch_that_was_not(said: str, tmp_path: Path) -> None:
    vm, _, _ = boot(tmp_path, f"console @guest {said}")
    with pytest.raises(InfraError, match="the guest"):
        vm.touch({4}, write=False)


def test_lost_data_is_the_kernels_fault(tmp_path: Path) -> None:
    vm, _, _ = boot(tmp_path, "console @guest error data page=4")
    with pytest.raises(GuestDataLost, match="page=4"):
        vm.touch({4}, write=False)


def test_a_guest_that_hangs(tmp_path: Path) -> None:
    """The host tells that its time is over; a late alarm of an earlier wait is none."""
    registers = 'qmp {"return": "CPU#0\\n PC=ffff800080000000", "id": @qmp}'
    vm, vmm, _ = boot(tmp_path, "alarm 1", "alarm @alarm", registers)
    with pytest.raises(
        LinuxGuestDied, match=r"gave up waiting for the Linux guest to .* 20 s"
    ) as e:
        vm.touch({4}, write=False)
    assert e.value.kind == "guest-hang"
    assert "PC=ffff8000" in (tmp_path / "guest-registers.txt").read_text()
    assert json.loads(vmm.sent[-2].removeprefix("qmp "))["execute"] == "human-monitor-command"


def test_a_monitor_that_hangs_with_its_guest(tmp_path: Path) -> None:
    vm, _, _ = boot(tmp_path, "alarm @alarm", "console Unable to handle", "alarm @alarm")
    with pytest.raises(LinuxGuestDied, match=r"on its console: .* / Unable to handle$"):
        vm.touch({4}, write=False)
    assert "does not answer" in (tmp_path / "guest-registers.txt").read_text()


def test_a_host_that_hangs_is_not_the_guest(tmp_path: Path) -> None:
    vm, _, _ = boot(tmp_path, DeadlineExceeded("gave up waiting for a line"))
    with pytest.raises(DeadlineExceeded):
        vm.touch({4}, write=False)


def test_panic_while_booting(tmp_path: Path) -> None:
    vmm = FakeVmm([*BOOT[:5], *PANIC, "end status=0"])
    with pytest.raises(
        LinuxGuestDied, match=r"guest panicked: Kernel panic - not sync.*status=0.* / .*end Kernel"
    ) as died:
        LinuxGuest.start(FakeShell(vmm), MACHINE, tmp_path, Deadline(600))
    assert died.value.kind == "guest-panic"
    assert (vmm.waited, vmm.closed) == (1, 1)
    assert "panic+0x360" in (tmp_path / "guest-console.log").read_text()


def test_qemu_ends(tmp_path: Path) -> None:
    vm, _, _ = boot(tmp_path, "stderr kvm run failed Bad address", "end signal=6")
    with pytest.raises(
        LinuxGuestDied, match=r"ended with signal=6 .*QEMU said: kvm run failed"
    ) as e:
        vm.touch({4}, write=False)
    assert e.value.kind == "guest-gone"


def test_qemu_ends_between_two_commands(tmp_path: Path) -> None:
    """What it said last waits to be read, and says more than a line that cannot be sent."""
    vm, vmm, _ = boot(tmp_path, *PANIC, "end status=0")
    vmm.gone = True
    with pytest.raises(LinuxGuestDied, match="the Linux guest panicked: Kernel panic"):
        vm.touch({4}, write=False)
    assert "panic+0x360" in (tmp_path / "guest-console.log").read_text()


def test_what_the_guests_kernel_reports_is_kept(tmp_path: Path) -> None:
    said = "[    5.012345] BUG: Bad page state in process init  pfn:4a1b2"
    vm, _, _ = boot(tmp_path, f"console {said}", "console @guest ok cpu=0 touched=1")
    vm.touch({4}, write=False)
    assert [one.kind for one in vm.reports] == [Kind.BAD_PAGE]


def test_a_report_that_begins_before_an_answer_has_its_end(tmp_path: Path) -> None:
    said = "[    5.012345] BUG: Bad page state in process init  pfn:4a1b2"
    vm, _, _ = boot(tmp_path, f"console @guest ok cpu=0 touched=1{said}")
    vm.touch({4}, write=False)
    assert [one.kind for one in vm.reports] == [Kind.BAD_PAGE]


def test_an_answer_that_a_message_cuts_is_none(tmp_path: Path) -> None:
    vm, _, _ = boot(tmp_path, "console @guest ok cpu=0 tou[    5.012345] slow", "console ched=1")
    with pytest.raises(InfraError, match="the guest said"):
        vm.touch({4}, write=False)


def test_the_guests_process_gives_up(tmp_path: Path) -> None:
    vmm = FakeVmm([*BOOT[:5], "console @guest fatal mlock: Cannot allocate memory"])
    with pytest.raises(LinuxGuestDied, match="gave up: fatal mlock") as died:
        LinuxGuest.start(FakeShell(vmm), MACHINE, tmp_path, Deadline(600))
    assert died.value.kind == "guest-gone"


def test_what_carries_the_lines_ends(tmp_path: Path) -> None:
    vm, _, _ = boot(tmp_path, EOFError("end of output"))
    with pytest.raises(InfraError, match="linux-guest-vmm ended: linux-guest-vmm: fork"):
        vm.touch({4}, write=False)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("error no memory", InfraError),
        (EOFError("end of output"), InfraError),
        (DeadlineExceeded("gave up waiting for a line"), DeadlineExceeded),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_start_that_fails_leaves_nothing(
    said: str | BaseException, error: type[BaseException], tmp_path: Path
) -> None:
    """QEMU is waited for: its memcg and its VM go only after it."""
    vmm = FakeVmm([*BOOT[:4], said])
    with pytest.raises(error):
        LinuxGuest.start(FakeShell(vmm), MACHINE, tmp_path, Deadline(600))
    assert (vmm.waited, vmm.closed) == (1, 1)


def test_nothing_is_asked_of_a_host_that_died_while_its_guest_started(tmp_path: Path) -> None:
    vmm = FakeVmm([*BOOT[:4], HostDied("panic", "Kernel panic")])
    with pytest.raises(HostDied):
        LinuxGuest.start(FakeShell(vmm), MACHINE, tmp_path, Deadline(600))
    assert (vmm.waited, vmm.closed) == (0, 1)


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (InfraError("the connection broke"), LinuxGuestDied),
        (DeadlineExceeded("gave up waiting for QEMU to end"), DeadlineExceeded),
    ],
)
def test_why_it_did_not_start_is_told_unless_its_end_hangs(
    end: Exception, told: type[Exception], tmp_path: Path
) -> None:
    vmm = FakeVmm([*BOOT[:4], "end signal=9"], end)
    with pytest.raises(told):
        LinuxGuest.start(FakeShell(vmm), MACHINE, tmp_path, Deadline(600))
    assert (vmm.waited, vmm.closed) == (1, 1)


def test_another_guest_than_was_asked_for(tmp_path: Path) -> None:
    lines = [line.replace("cpus=1", "cpus=2") for line in BOOT]
    with pytest.raises(InfraError, match="not the guest that was asked for"):
        boot(tmp_path, lines=lines)


def test_powers_off(tmp_path: Path) -> None:
    event = 'qmp {"timestamp": {"seconds": 49, "microseconds": 8}, "event": "SHUTDOWN"}'
    vm, vmm, _ = boot(tmp_path, "console [   17.5] reboot: Power down", event, "end status=0")
    vm.power_off()
    assert "console off" in vmm.sent


@pytest.mark.parametrize(
    ("end", "kind"),
    [(["end signal=11"], "guest-gone"), ([*PANIC, "end status=0"], "guest-panic")],
)
def test_does_not_power_off_as_it_should(end: list[str], kind: GuestEnd, tmp_path: Path) -> None:
    vm, _, _ = boot(tmp_path, *end)
    with pytest.raises(LinuxGuestDied) as died:
        vm.power_off()
    assert died.value.kind == kind


def measured(*statuses: str) -> Iterator[str]:
    for status in statuses:
        yield f'qmp {{"return": {{"status": "{status}", "mode": "dirty-bitmap"}}, "id": @qmp}}'


def test_flush_waits_until_the_dirty_log_was_read(tmp_path: Path) -> None:
    begun = 'qmp {"return": {}, "id": @qmp}'
    vm, vmm, shell = boot(tmp_path, begun, *measured("measuring", "measuring", "measured"))
    vm.flush()
    assert shell.ran.count("sleep 0.2") == 2
    (asked,) = [line for line in vmm.sent if "calc-dirty-rate" in line]
    assert json.loads(asked.removeprefix("qmp "))["arguments"]["mode"] == "dirty-bitmap"


def test_flush_waits_until_measuring_begins(tmp_path: Path) -> None:
    """QEMU's state between the answer to calc-dirty-rate and the first step of its thread."""
    begun = 'qmp {"return": {}, "id": @qmp}'
    vm, _, shell = boot(tmp_path, begun, *measured("unstarted", "measuring", "measured"))
    vm.flush()
    assert shell.ran.count("sleep 0.2") == 2


def test_flush_that_was_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = 'qmp {"error": {"class": "GenericError", "desc": "still measuring"}, "id": @qmp}'
    vm, _, _ = boot(tmp_path, refused)
    with pytest.raises(InfraError, match=r"QEMU refused calc-dirty-rate: .*still measuring"):
        vm.flush()
    vm, _, _ = boot(tmp_path, 'qmp {"return": {}, "id": @qmp}', *measured("unknown"))
    with pytest.raises(InfraError, match="does not measure"):
        vm.flush()
    vm, _, _ = boot(tmp_path, 'qmp {"return": {}, "id": @qmp}', *measured("unstarted"))
    monkeypatch.setattr(module, "FLUSH_SECONDS", 0.0)
    with pytest.raises(InfraError, match="does not measure"):
        vm.flush()


def test_an_answer_that_belongs_to_an_earlier_command(tmp_path: Path) -> None:
    late = 'qmp {"return": "late", "id": 1}'
    vm, _, _ = boot(tmp_path, late, 'qmp {"return": "own", "id": @qmp}')
    assert vm.human("info status") == "own"


def test_vcpus_are_pinned_from_the_last_cpu_on(tmp_path: Path) -> None:
    threads = 'qmp {"return": [{"cpu-index": 0, "thread-id": 92}], "id": @qmp}'
    vm, _, shell = boot(tmp_path, threads)
    assert vm.pin((0, 1)) == (92,)
    assert "taskset -pc 1 92" in shell.ran


def test_deadlines_are_those_of_a_slow_kernel(tmp_path: Path) -> None:
    vmm = FakeVmm([*BOOT, f'qmp {{"return": "{RAM}", "id": @qmp}}'])
    LinuxGuest.start(FakeShell(vmm), MACHINE, tmp_path, Deadline(6000), slowdown=4.0)
    alarms = [line.split()[2] for line in vmm.sent if line.startswith("alarm")]
    assert f"{module.BOOT_SECONDS * 4000:.0f}" in alarms


class Clock:
    """Seconds that pass by command only."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_no_wait_goes_beyond_the_checks_own_time(tmp_path: Path) -> None:
    """The guest gets what is left, less what its host may take to tell that it is over."""
    clock = Clock()
    ram = f'qmp {{"return": "{RAM}", "id": @qmp}}'
    vmm = FakeVmm([*BOOT, ram, "console @guest ok cpu=0 touched=1"])
    vm = LinuxGuest.start(FakeShell(vmm), MACHINE, tmp_path, Deadline(100, clock))
    alarms = [float(line.split()[2]) for line in vmm.sent if line.startswith("alarm")]
    assert max(alarms) == (100 - module.GRACE) * 1000 < module.BOOT_SECONDS * 1000
    clock.now = 78.0
    vm.touch({4}, write=False)
    assert vmm.sent[-1] == f"alarm {vmm._last('alarm')} 7000"


def test_a_guest_that_the_check_has_no_time_for_does_not_hang(tmp_path: Path) -> None:
    clock = Clock()
    ram = f'qmp {{"return": "{RAM}", "id": @qmp}}'
    registers = 'qmp {"return": "CPU#0\\n PC=ffff800080000000", "id": @qmp}'
    vmm = FakeVmm([*BOOT, ram, "alarm @alarm", registers])
    vm = LinuxGuest.start(FakeShell(vmm), MACHINE, tmp_path, Deadline(100, clock))
    clock.now = 78.0
    with pytest.raises(InfraError, match="after 7 s, when the check had no time left") as late:
        vm.touch({4}, write=False)
    assert not isinstance(late.value, LinuxGuestDied | DeadlineExceeded)
    clock.now = 90.0
    with pytest.raises(InfraError, match="the check has no time left to wait for the Linux guest"):
        vm.touch({4}, write=False)


def test_a_panic_is_one_whatever_time_the_check_has_left(tmp_path: Path) -> None:
    clock = Clock()
    ram = f'qmp {{"return": "{RAM}", "id": @qmp}}'
    vmm = FakeVmm([*BOOT, ram, *PANIC, "alarm @alarm", "alarm @alarm"])
    vm = LinuxGuest.start(FakeShell(vmm), MACHINE, tmp_path, Deadline(100, clock))
    clock.now = 78.0
    with pytest.raises(LinuxGuestDied, match=r"panicked: .*; gave up waiting .* 7 s") as died:
        vm.touch({4}, write=False)
    assert died.value.kind == "guest-panic"


def test_a_dirty_log_that_is_never_read_is_a_hang_of_the_guest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm, _, _ = boot(tmp_path, 'qmp {"return": {}, "id": @qmp}', *measured("measuring"))
    monkeypatch.setattr(module, "FLUSH_SECONDS", 0.0)
    with pytest.raises(LinuxGuestDied, match="gave up waiting for QEMU to read") as died:
        vm.flush()
    assert died.value.kind == "guest-hang"
