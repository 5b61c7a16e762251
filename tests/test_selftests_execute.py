# SPDX-License-Identifier: GPL-2.0-only
"""A selftest's run on a host: the script in a real shell, and what is read from it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fake_shell import UnaskedShell

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts.protocols import Result
from harness.observe.unproven import Unproven
from harness.selftests import execute
from harness.selftests.execute import ModeMissing, Stuck, ended, mode_id
from harness.selftests.table import MODE_4K, Needed, Selftest

HELP = """\
usage: dirty_log_test [-h] [-i iterations]
     Guest mode IDs:
         3:    PA-bits:48,  VA-bits:48,  4K pages
         6:    PA-bits:40,  VA-bits:48,  4K pages (supported)
         8:    PA-bits:40,  VA-bits:48, 64K pages (supported)
"""
TEST = Selftest("a_test", "it works", "ok", 5.0, ("-b", "4M"))


def test_guest_modes_are_asked_for_by_name() -> None:
    assert mode_id(HELP, MODE_4K) == "6"
    assert mode_id(HELP, "PA-bits:48, VA-bits:48, 4K pages") is None
    assert mode_id(HELP, "PA-bits:52, VA-bits:48, 4K pages") is None
    with pytest.raises(Unproven):
        mode_id("usage: a_test [-h]\n", MODE_4K)


def test_how_it_ended() -> None:
    said = "times 10.50 12.75\nstatus 254\nafter populated 0 vms 0\n"
    one = ended(said, "text", "")
    assert (one.status, one.seconds, one.left, one.output) == (254, 2.25, False, "text")
    late = ended("times 10.50 70.60\nafter populated 0 vms 0\n", "", "== 5 a_test\n")
    assert late.status is None
    assert ended(said.replace("after", "left\nafter"), "", "").left


@pytest.mark.parametrize("after", ["populated 1 vms 0", "populated 0 vms 1"])
def test_what_cannot_be_ended_is_the_death_of_the_host(after: str) -> None:
    with pytest.raises(Stuck) as caught:
        ended(f"times 10.50 70.60\nafter {after}\n", "", "== 5 a_test\nkvm_vm_release\n")
    assert caught.value.kind == "hang"
    assert "kvm_vm_release" in caught.value.threads


def test_a_host_that_says_nothing_is_our_trouble() -> None:
    with pytest.raises(InfraError, match="did not say"):
        ended("", "", "")


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The script's places on a host, in a folder; the cgroup is one of plain files."""
    places = {"FOLDER": "work", "GROUP": "group", "ITS_GROUP": "its", "VMS": "vms"}
    for name, where in places.items():
        (tmp_path / where).mkdir()
        monkeypatch.setattr(execute, name, str(tmp_path / where))
    monkeypatch.setattr(execute, "OUTPUT", str(tmp_path / "output"))
    (tmp_path / "group/cgroup.events").write_text("populated 0\nfrozen 0\n")
    (tmp_path / "group/cgroup.threads").write_text("")
    return tmp_path


def sh(text: str) -> str:
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, timeout=30)
    return done.stdout


def test_the_script_tells_status_and_output(local: Path) -> None:
    words = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"
    said = sh(execute.script((sys.executable, "-u", "-c", words), 20))
    output = (local / "output").read_text()
    one = ended(said, output, "")
    assert (one.status, one.left) == (7, False)
    assert output == "out\nerr\n"
    assert (local / "group/cgroup.procs").read_text() == "0\n"
    assert (local / "group/cgroup.kill").read_text() == "1\n"


def test_what_moved_to_a_group_of_its_own_is_killed_and_shown_as_well(local: Path) -> None:
    for group, thread in (("group", 1), ("its", 2)):
        (local / group / "cgroup.threads").write_text(f"{thread}\n")
    (local / "its/cgroup.kill").write_text("")
    sh(execute.script(("sleep", "5"), 1))
    assert (local / "its/cgroup.kill").read_text() == "1\n"
    threads = (local / "work/threads").read_text()
    assert [line.split()[1] for line in threads.splitlines() if line[:2] == "=="] == ["1", "2"]


def test_the_script_sees_a_process_that_stays(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "END_SECONDS", 0.3)
    (local / "group/cgroup.events").write_text("populated 1\nfrozen 0\n")
    said = sh(execute.script(("true",), 20))
    assert "\nleft\n" in said
    with pytest.raises(Stuck, match="cannot be killed"):
        ended(said, "", "")


def test_the_script_sees_a_vm_that_stays(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "END_SECONDS", 0.3)
    said = sh(execute.script(("mkdir", str(local / "vms/123-4")), 20))
    assert "after populated 0 vms 1" in said
    # One that was there before is not the test's.
    said = sh(execute.script(("true",), 20))
    assert "after populated 0 vms 0" in said


class Host(UnaskedShell):
    """Answers as a host does; `log` is what it was asked."""

    def __init__(self, helped: str = "", status: int = 0, *, anothers: bool = False) -> None:
        self._anothers = anothers
        self.log: list[str] = []
        self._helped = helped
        self._status = status

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        self.log.append(command)
        out = ""
        if command == "! test -e /sys/fs/cgroup/access_tracking_perf_test":
            return Result(command, int(self._anothers), "", "")
        if command.endswith(" -h"):
            out = self._helped
        elif "cgroup.procs" in command:
            out = "times 10.50 12.75\nstatus 0\nafter populated 0 vms 0\n"
        return Result(command, self._status, out, "")

    def read(self, path: str, deadline: Deadline | None = None) -> str:
        self.log.append(path)
        return "ok\n"

    def put(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        self.log.append(remote)


def test_all_of_it_is_removed() -> None:
    host = Host()
    one, threads = execute.execute(host, TEST, Path("a_test"), 1.0)
    assert (one.status, one.output, threads) == (0, "ok\n", "")
    assert any("./a_test -b 4M" in line for line in host.log)
    assert "umount /tmp/kvm-selftest/out\nrm -rf /tmp/kvm-selftest\n" in host.log[-1]
    assert "rmdir /sys/fs/cgroup/kvm-harness-selftest || exit\n" in host.log[-1]
    assert "rmdir /sys/fs/cgroup/access_tracking_perf_test\n" in host.log[-1]


def test_a_group_of_anothers_selftest_is_left_alone() -> None:
    host = Host(anothers=True)
    with pytest.raises(Unproven, match="access_tracking_perf_test is there already"):
        execute.execute(host, TEST, Path("a_test"), 1.0)
    assert len(host.log) == 1, "asked, and nothing done"


def test_a_mode_that_the_host_lacks_is_told_and_all_is_removed() -> None:
    test = Selftest("a_test", "it works", "ok", 5.0, mode="PA-bits:48, VA-bits:48, 4K pages")
    host = Host(HELP)
    with pytest.raises(ModeMissing, match="PA-bits:48"):
        execute.execute(host, test, Path("a_test"), 1.0)
    assert "rm -rf /tmp/kvm-selftest\n" in host.log[-1]
    host = Host(HELP)
    execute.execute(host, Selftest("a_test", "", "ok", 5.0, mode=MODE_4K), Path("a_test"), 1.0)
    assert any("./a_test -m 6" in line for line in host.log)


def test_what_a_host_lacks_is_named() -> None:
    test = Selftest("a_test", "it works", "ok", 5.0, needs=(Needed("/proc/x", "x (CONFIG_X)"),))
    assert execute.lacks(Host(), test) == ""
    assert execute.lacks(Host(status=1), test) == "the host has no x (CONFIG_X)"
