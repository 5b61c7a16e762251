# SPDX-License-Identifier: GPL-2.0-only
"""A host that counts exactly, as far as it needs no QEMU."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import pytest
from cost_consoles import NAMES, saved

from harness.errors import DeadlineExceeded, HostDied, InfraError
from harness.hosts import counting, qemu
from harness.hosts.counting import (
    GUEST_SECONDS,
    Counting,
    arguments,
    boot_all,
    initramfs,
    refusal,
)
from harness.inventory import QemuHost, SshHost
from harness.observe import klog

PANIC = """\
[    0.900000] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b
[    0.900000] CPU: 0 PID: 1 Comm: init Not tainted 6.12.117 #1
[    0.900000] ---[ end Kernel panic - not syncing: Attempted to kill init! ]---
"""


@pytest.fixture
def boot(tmp_path: Path) -> Counting:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    return Counting("cortex-a57", tmp_path / "Image", program, ("kvm_cost.sizes=1,2",), padding=9)


@pytest.fixture
def plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a QEMU that is a shell script; it finds its console in its arguments."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def play(folder: Path, script: str) -> None:
    program = folder / qemu.PROGRAM
    find = "for a; do case $a in file,*) log=${a##*path=};; esac; done"
    program.write_text(f"#!{shutil.which('sh')}\n{find}\n{script}\n")
    program.chmod(0o755)


def ends(boots: list[tuple[Counting, Path]], seconds: float = 20) -> dict[int, str | InfraError]:
    found: dict[int, str | InfraError] = {}
    boot_all(boots, at_once=2, seconds=seconds, finished=found.__setitem__)
    return found


# ---- what it is -----------------------------------------------------------------------------


def test_nothing_reaches_it_and_its_clock_counts_instructions(boot: Counting) -> None:
    argv = arguments(boot, Path("x.cpio"), Path("a,b/console.log"))
    options = dict(itertools.pairwise(argv))
    assert options["-icount"] == "shift=0,sleep=off"
    assert options["-rtc"].startswith("clock=vm,base=2")
    assert options["-smp"] == "1"
    assert options["-machine"].endswith("dtb-randomness=off")
    assert not {"-netdev", "-device", "-nic", "-mon", "-qmp", "-monitor"} & set(argv)
    assert options["-append"].endswith("panic=-1 kvm_cost.sizes=1,2")
    assert options["-chardev"].endswith("path=a,,b/console.log")


def test_its_program_is_all_that_it_has(boot: Counting) -> None:
    archive = initramfs(boot)
    names = [part.split(b"\0")[0] for part in archive.split(b"070701")[1:]]
    found = {name[104:].decode() for name in names}
    assert found == {"dev", "dev/console", "init", "proc", "sys", "padding", "TRAILER!!!"}


def test_only_an_emulated_host_counts() -> None:
    assert (
        refusal(QemuHost(kind="qemu", cpu="cortex-a57", af="software", kvm_modes=("nvhe",))) == ""
    )
    lab = SshHost(kind="ssh", address="192.0.2.1", agent=True, kvm_modes=("vhe",), af="hardware")
    assert "only an emulated host" in refusal(lab)


# ---- boots ----------------------------------------------------------------------------------


def test_its_console_is_what_comes_of_it(boot: Counting, plays: Path, tmp_path: Path) -> None:
    play(plays, 'echo "I am off" > "$log"')
    found = ends([(boot, tmp_path / "a"), (boot, tmp_path / "b"), (boot, tmp_path / "c")])
    assert found == dict.fromkeys(range(3), "I am off\n")
    assert "-icount" in (tmp_path / "c/qemu.txt").read_text()
    assert not list(tmp_path.glob("*/initramfs.cpio"))


def test_a_panic(boot: Counting, plays: Path, tmp_path: Path) -> None:
    play(plays, f"cat > $log <<'X'\n{PANIC}X")
    (end,) = ends([(boot, tmp_path / "a")]).values()
    assert isinstance(end, HostDied)
    assert end.kind == "panic"
    assert "Attempted to kill init" in str(end)


LOCKUP = "[   24.100000] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [init:1]"


def test_a_hang_by_the_clock_that_counts(
    boot: Counting, plays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before the controller's own deadline."""
    monkeypatch.setattr(counting, "TRACE_SECONDS", 0.1)
    play(plays, f'echo "{LOCKUP}" > "$log"; exec sleep 1000')
    (end,) = ends([(boot, tmp_path / "a")], seconds=600).values()
    assert isinstance(end, HostDied)
    assert end.kind == "hang"
    assert "not off at 24 s of its own clock; its last line was: [   24.1" in str(end)


def test_what_follows_the_first_word_of_a_hang_is_kept(
    boot: Counting, plays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registers and the call trace; a kernel that is off by then was late all the same."""
    monkeypatch.setattr(counting, "TRACE_SECONDS", 600)
    trace = "[   24.200000] Call trace:"
    play(plays, f'echo "{LOCKUP}" > "$log"; sleep 0.5; echo "{trace}" >> "$log"')
    (end,) = ends([(boot, tmp_path / "a")], seconds=600).values()
    assert isinstance(end, HostDied)
    assert end.kind == "hang"
    assert trace in (tmp_path / "a/console.log").read_text()


def test_a_slow_controller_is_no_hang(boot: Counting, plays: Path, tmp_path: Path) -> None:
    play(plays, 'echo "[    0.100000] last words" > "$log"; exec sleep 1000')
    (end,) = ends([(boot, tmp_path / "a")], seconds=0.5).values()
    assert isinstance(end, DeadlineExceeded)
    assert "not off within" in str(end)
    assert "it hangs, or this machine is slow" in str(end)


@pytest.mark.parametrize("name", NAMES)
def test_a_boot_that_was_saved_is_far_from_a_hang(name: str) -> None:
    assert 0 < 2 * klog.clock(saved(name)) < GUEST_SECONDS


def test_qemu_itself_fails(boot: Counting, plays: Path, tmp_path: Path) -> None:
    play(plays, "echo 'no such CPU' >&2; exit 1")
    (end,) = ends([(boot, tmp_path / "a")]).values()
    assert not isinstance(end, HostDied)
    assert "QEMU ended with 1: no such CPU" in str(end)


def test_one_that_dies_leaves_the_others_alone(boot: Counting, plays: Path, tmp_path: Path) -> None:
    play(plays, 'case $log in */bad/*) exit 1;; esac; echo fine > "$log"')
    found = ends([(boot, tmp_path / "bad"), (boot, tmp_path / "good")])
    assert isinstance(found[0], InfraError)
    assert found[1] == "fine\n"


def test_to_leave_early_ends_it(boot: Counting, plays: Path, tmp_path: Path) -> None:
    play(plays, f"case $log in */quick/*) exit 0;; esac; echo $$ > {tmp_path}/pid; exec sleep 1000")

    def stop(number: int, end: str | InfraError) -> None:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            pass
        raise KeyboardInterrupt

    boots = [(boot, tmp_path / "slow"), (boot, tmp_path / "quick")]
    with pytest.raises(KeyboardInterrupt):
        boot_all(boots, at_once=2, seconds=60, finished=stop)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert not list(tmp_path.glob("*/initramfs.cpio"))


@pytest.mark.parametrize("error", [InfraError("disk full"), OSError(28, "disk full")])
def test_no_room_for_one_leaves_the_others_alone(
    boot: Counting, plays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(folder: Path, needed: int) -> None:
        if folder.name == "a":
            raise error

    play(plays, 'echo fine > "$log"')
    monkeypatch.setattr(qemu, "check_space", full)
    found = ends([(boot, tmp_path / "a"), (boot, tmp_path / "b")])
    assert isinstance(found[0], InfraError)
    assert "disk full" in str(found[0])
    assert found[1] == "fine\n"


def test_no_part_of_an_initramfs_stays_on_a_disk_that_is_full(
    boot: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    (end,) = ends([(boot, tmp_path / "a")]).values()
    assert isinstance(end, InfraError)
    assert "No space left" in str(end)
    assert list((tmp_path / "a").iterdir()) == []
