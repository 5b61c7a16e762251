# SPDX-License-Identifier: GPL-2.0-only
"""The folder of a failure on a machine of a lab: it is not tried, and judges a console's log."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
from pathlib import Path

import pytest
from made_up import a_cell, a_check, a_summary
from rich.console import Console

from harness import proc
from harness.cell import CellSpec, KernelFiles
from harness.guests import PROGRAM
from harness.hosts import cpio
from harness.hosts.image import HostImage
from harness.inventory import SshHost
from harness.plan import PlannedCell
from harness.progress import Progress
from harness.reproduce import command
from harness.results import CpuAf, Splat

LAB = SshHost(kind="ssh", address="192.0.2.1", agent=True, kvm_modes=("vhe",), af="hardware")
WARN = Splat(kind="warn", title="WARNING: CPU: 7 PID: 9 at mmu.c:12 f+0x1/0x2", key="warn: f")
# What the check did; the guest's error is in the record of the patched kernel alone.
WORK = [
    {"check": "test_x"},
    {"program": 0, "start": [PROGRAM, "--pages", "8"]},
    {"program": 0, "received": "ready protocol=1 pid=7 pages=8"},
    {"program": 0, "send": "check"},
]
REPLIES = {"base": "ok checked=8", "patched": "error data stale page=3"}


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """User space for an initramfs, and nothing that could be booted."""
    initramfs = tmp_path / "initramfs.cpio.gz"
    initramfs.write_bytes(gzip.compress(cpio.archive([cpio.file("bin/busybox", b"b", 0o755)])))
    image = HostImage(initramfs, "", tmp_path / "key", "0")
    monkeypatch.setattr(command, "host_image", lambda deadline: image)
    monkeypatch.setattr(proc, "spawn", lambda *argv, **_: pytest.fail(f"{argv} was started"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def cell(run: Path, label: str, reply: str) -> None:
    """What a cell on the machine leaves."""
    built = run.parent / label
    built.mkdir()
    (built / "Image").write_text(label)
    (built / "config").write_text("CONFIG_KVM=y")
    (built / "guest").write_text("ELF")
    kernel = KernelFiles(
        image=built / "Image", vmlinux=built / "vmlinux", build_id="ab",
        config_sha256=hashlib.sha256(b"CONFIG_KVM=y").hexdigest(),
    )  # fmt: skip
    planned = PlannedCell("altra", label, "vhe", "hardware", cmdline=("kvm.x=1",))  # type: ignore[arg-type]
    folder = run / "cells" / planned.id
    folder.mkdir(parents=True)
    spec = CellSpec(
        run_folder=run, folder=folder, cell=planned, machine="altra-2", host=LAB, kernel=kernel,
        image=None, programs={PROGRAM.lstrip("/"): built / "guest"}, contract=None,
        base_contract=built, seed=7, pytest_args=(), boot_seconds=1, check_seconds=1,
        cell_seconds=1, end_seconds=1,
    )  # fmt: skip
    (folder / "spec.json").write_text(spec.model_dump_json())
    records = [*WORK, {"program": 0, "received": reply}]
    (folder / "commands.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in records))


def made(tmp_path: Path, *, base: str = REPLIES["base"], splats: tuple[Splat, ...] = ()) -> Path:
    """The folder of a check that failed on the patched kernel."""
    run = tmp_path / "run"
    cell(run, "base", base)
    cell(run, "patched", REPLIES["patched"])
    kind = CpuAf(cpus="0-79", midr="0x413fd0c1", model="Neoverse N1", expected="hardware", why="")
    failed = a_cell(
        id="altra-vhe-patched", host="altra", machine="altra-2", outcome="fail", af_cpus=(kind,)
    )
    check = a_check(cell=failed.id, outcome="fail", splats=splats)
    summary = a_summary(verdict="fail", cells=(failed,), checks=(check,))
    (run / "summary.json").write_text(summary.model_dump_json(by_alias=True))
    progress = Progress(Console(file=io.StringIO()))
    (folder,) = command.reproduce(command.Request(str(run)), progress)
    return folder


def judged(folder: Path, log: str, *args: str) -> subprocess.CompletedProcess[str]:
    path = folder.parent / "log"
    path.write_bytes(log.replace("\n", "\r\n").encode())
    return subprocess.run(
        ["sh", str(folder / "run.sh"), *(args or ("-l", str(path)))],
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_all_that_can_be_booted_there_is_in_it(tmp_path: Path) -> None:
    folder = made(tmp_path)
    assert {path.name for path in folder.iterdir()} == {
        *("README", "run.sh", "Image", "config", "cmdline", "initramfs.cpio.gz", "kvm-guest"),
        *("steps.sh", "observed.txt", "expected.txt", "seed"),
    }
    assert folder.with_name(f"{folder.name}.tar.gz").is_file()
    assert (folder / "Image").read_text() == "patched"
    assert (folder / "cmdline").read_text() == (
        "earlycon panic=15 nohz_full=79 isolcpus=domain,79 rcu_nocbs=79 kvm.x=1 "
        "kvm_harness.replay\n"
    )
    inside = gzip.decompress((folder / "initramfs.cpio.gz").read_bytes())
    assert cpio.contents(inside, "bin/busybox") == b"b"
    assert cpio.contents(inside, PROGRAM.lstrip("/")) == b"ELF"


def test_the_readme_says_that_nobody_tried_it_and_how(tmp_path: Path) -> None:
    folder = made(tmp_path)
    lines = (folder / "README").read_text().splitlines()
    assert len(lines) == 5
    assert "on an arm64 machine like altra-2 (the head of run.sh says how)" in lines[3]
    assert "QEMU" not in lines[3]
    assert "not tried when this was made: altra-2 is a machine of a lab." in lines[4]
    text = (folder / "run.sh").read_text()
    assert "kexec -l Image --initrd=initramfs.cpio.gz" in text
    assert "qemu-system" not in text and "@" not in text.replace("$@", "")


def test_a_log_of_the_machine_is_judged_by_what_the_run_saw(tmp_path: Path) -> None:
    folder = made(tmp_path)
    assert (folder / "observed.txt").read_text() == "1 error\n1 data\n1 stale\n"
    seen = "repro: 2 > send check\nrepro: 2 < 1 error\nrepro: 2 < 1 data\nrepro: 2 < 1 stale\n"
    assert judged(folder, f"{seen}repro: 2 .\nrepro: over\n").returncode == 0
    assert judged(folder, "repro: 2 < 1 ok\nrepro: 2 .\nrepro: over\n").returncode == 1
    assert judged(folder, "").returncode == 2


def test_an_error_that_the_base_kernel_gave_too_is_no_sign(tmp_path: Path) -> None:
    folder = made(tmp_path, base=REPLIES["patched"])
    assert (folder / "observed.txt").read_text() == ""
    assert judged(folder, "repro: over\n").returncode == 2
    assert "by nothing that is known" in (folder / "README").read_text()


def test_a_report_of_the_kernel_is_known_again(tmp_path: Path) -> None:
    folder = made(tmp_path, splats=(WARN,))
    log = "repro: log WARNING: CPU: 1 PID: 300 at mmu.c:12 f+0x1/0x2\nrepro: over\n"
    assert judged(folder, log).returncode == 0
    assert judged(folder, "repro: over\n").returncode == 1


def test_a_report_is_known_again_by_what_of_it_is_ascii(tmp_path: Path) -> None:
    odd = WARN.model_copy(update={"title": "WARNING: caf\xe9 at mmu.c:12"})
    nothing = WARN.model_copy(update={"title": "\u0416 \u0416"})
    folder = made(tmp_path, splats=(nothing, odd))
    assert (folder / "observed.txt").read_text() == "WARNING: caf at mmu.c:N\n"
    assert judged(folder, "WARNING: caf\xe9 at mmu.c:12\nrepro: over\n").returncode == 0
    assert judged(folder, "repro: over\n").returncode == 1


def test_qemu_is_not_that_machine(tmp_path: Path) -> None:
    done = judged(made(tmp_path), "", "Image")
    assert done.returncode == 2
    assert "usage: sh run.sh -l LOG" in done.stderr
