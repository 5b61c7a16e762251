# SPDX-License-Identifier: GPL-2.0-only
"""Modules and an initramfs on a machine: which steps, and what is left when one fails.

The scripts run in a real sh, on a folder in the place of the machine's root.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest
from local_shell import LocalShell

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts import deploy
from harness.hosts.protocols import Result

RELEASE = "6.12.9-kvmharness-0123456789ab"
WORK = "/var/lib/kvm-harness/work"


class Bed(LocalShell):
    """A machine that is a folder, with programs of the test's own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("lib/modules/6.1.0-1-arm64", "boot", "bin"):
            (root / name).mkdir(parents=True)
        self.program(
            "depmod",
            'test -d "$ROOT/lib/modules/$1" && echo dep > "$ROOT/lib/modules/$1/modules.dep"',
        )

    def program(self, name: str, text: str) -> None:
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\nROOT={self.root}\n{text}\n")
        path.chmod(0o755)

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        for path in ("/lib/modules", "/var/lib", "/boot/"):
            command = command.replace(path, f"{self.root}{path}")
        command = command.replace("$PATH:/usr/sbin:/sbin", f"{self.root}/bin:/usr/bin:/bin")
        return super().run(command, deadline, check=check)

    def put(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        shutil.copyfile(local, self.root / remote.lstrip("/"))

    def files(self) -> set[str]:
        kept = (path for path in self.root.rglob("*") if path.is_file())
        return {str(p.relative_to(self.root)) for p in kept} - {
            f"bin/{path.name}" for path in (self.root / "bin").iterdir()
        }


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path / "root")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "ext4.ko").write_text("module")
    (tmp_path / "config").write_text("CONFIG_RD_GZIP=y\n")
    with tarfile.open(tmp_path / "modules.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "ext4.ko", f"{RELEASE}/kernel/ext4.ko")
        tar.add(tmp_path / "config", f"{RELEASE}/config")
        # Nothing but what the release has is unpacked.
        tar.add(tmp_path / "ext4.ko", "6.1.0-1-arm64/kernel/ext4.ko")
    return tmp_path / "modules.tar.gz"


HERE = f"lib/modules/{RELEASE}"
MADE = {
    f"{HERE}/config",
    f"{HERE}/kernel/ext4.ko",
    f"{HERE}/modules.dep",
    f"{WORK}/initramfs.img".lstrip("/"),
}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "mkinitramfs",
            # As initramfs-tools 0.142 does.
            f'grep -q ^CONFIG_RD_GZIP=y "$ROOT/boot/config-{RELEASE}" || exit 1\n'
            f'test "$1 $3" = "-o {RELEASE}" && cp "$ROOT/{HERE}/modules.dep" "$2"',
        ),
        ("dracut", f'test "$1 $2 $3" = "--force --kver {RELEASE}" && echo image > "$4"'),
    ],
)
def test_what_each_distribution_has(bed: Bed, archive: Path, name: str, text: str) -> None:
    bed.program(name, text)
    assert deploy.maker(bed) == name
    assert deploy.deploy(bed, archive, RELEASE, WORK) == f"{WORK}/initramfs.img"
    assert bed.files() == MADE
    deploy.clear(bed, WORK)
    assert bed.files() == set()
    assert (bed.root / "lib/modules/6.1.0-1-arm64").is_dir()


def test_a_machine_that_starts_without_an_initramfs(bed: Bed, archive: Path) -> None:
    assert deploy.deploy(bed, archive, RELEASE, WORK) is None
    assert bed.files() == {path for path in MADE if path.startswith("lib")}


@pytest.mark.parametrize(
    ("program", "text", "problem"),
    [
        ("depmod", "echo no memory >&2; exit 1", r"depmod failed on the machine: [\s\S]*no memory"),
        (
            "mkinitramfs",
            'echo half > "$2"; echo disk full >&2; exit 1',
            r"mkinitramfs failed [\s\S]*disk full",
        ),
        ("mkinitramfs", ': > "$2"', "mkinitramfs failed"),
        ("tar", "exit 2", f"unpacking modules to {deploy.MODULES}/{RELEASE} failed"),
    ],
)
def test_a_step_that_fails_leaves_nothing(
    bed: Bed, archive: Path, program: str, text: str, problem: str
) -> None:
    bed.program(program, text)
    with pytest.raises(InfraError, match=problem):
        deploy.deploy(bed, archive, RELEASE, WORK)
    assert bed.files() == set()


def test_what_a_dead_run_has_left_is_found(bed: Bed) -> None:
    modules = bed.root / "lib/modules"
    for name in (RELEASE, "6.2-kvmharness-ffffffffffff", "6.2-kvmharness-mine", "6.2-arm64"):
        (modules / name).mkdir()
        (modules / name / "modules.dep").write_text("")
        (bed.root / f"boot/config-{name}").write_text("")
    (modules / "7-kvmharness-aaaaaaaaaaaa").symlink_to(modules / "6.2-arm64")
    deploy.clear(bed, WORK)
    assert {path.name for path in modules.iterdir()} == {
        "6.1.0-1-arm64",
        "6.2-arm64",
        "6.2-kvmharness-mine",
        "7-kvmharness-aaaaaaaaaaaa",
    }
    assert (modules / "6.2-arm64/modules.dep").is_file()
    assert {path.name for path in (bed.root / "boot").iterdir()} == {
        "config-6.2-arm64",
        "config-6.2-kvmharness-mine",
    }


@pytest.mark.parametrize("release", ["6.1.0-1-arm64", "x; reboot", f"../{RELEASE}", ""])
def test_no_release_but_one_of_the_harness(release: str) -> None:
    with pytest.raises(ValueError, match="no release of the harness"):
        deploy.steps(release, WORK, None)


def test_every_step_has_a_deadline_and_its_undoing() -> None:
    todo = deploy.steps(RELEASE, WORK, "dracut")
    assert [step.what.split()[0] for step in todo] == ["unpacking", "depmod", "dracut"]
    assert all(0 < step.seconds <= 600 for step in todo)
    assert f"rm -rf /lib/modules/{RELEASE}" in todo[0].undo
