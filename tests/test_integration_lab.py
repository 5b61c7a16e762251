# SPDX-License-Identifier: GPL-2.0-only
"""Cells on a machine of a lab: every kernel comes by SSH and kexec, QMP is its power switch."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Ended, kvm_harness
from lab_bed import Lab, lab
from test_integration_deaths import AGE, assert_series_is_blamed

from harness.deadline import Deadline
from harness.hosts.leasing import look
from harness.hosts.machine import Machine, Running, running
from harness.hosts.places import PROGRAMS

CHECK = "test_page_idle"
MODULES = Path(__file__).with_name("modules_on_host.py")
KEXEC = "/sbin/kexec"
BROKEN = '#!/bin/sh\n[ "$1" = -u ] || { echo no kernel today >&2; exit 1; }\n'


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("lab")) as made:
        yield made


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory, machine: Lab) -> Path:
    """Of one user, who trusts the machine: its recovery is rehearsed once."""
    folder = tmp_path_factory.mktemp("state")
    machine.pin(folder)
    return folder


def run(
    machine: Lab, state: Path, *args: str, stock: Path | None = None, checks: str = CHECK
) -> Ended:
    where = ["--inventory", str(stock or machine.inventory), "--host", "lab"]
    return kvm_harness(["run", *where, "-k", checks, *args], state)


def at_home(machine: Lab) -> Running:
    """The kernel that the machine runs, after it was looked at that nothing of ours is left."""
    reached = Machine("lab", machine.host, machine.pins)
    with reached.shell(Deadline(30)) as shell:
        now = running(shell)
        assert look(shell).left == 0, "the lease is not free"
        assert shell.run(f"ls {PROGRAMS}", check=False).status != 0, "files are left"
        assert shell.run("ls /lib/modules").stdout == "", "modules are left"
    assert now.cell == "", "it is in a kernel of ours"
    return now


@pytest.mark.integration
def test_the_machine_is_home_again_after_a_panic(machine: Lab, state: Path, tmp_path: Path) -> None:
    """A panic is the fault of the series, and ends by a reset."""
    before = at_home(machine)
    name = "arch/arm64/kvm/mmu.c"
    hunk = AGE.replace("STATEMENT", 'panic("aging on purpose")')
    patch = tmp_path / "0001-x.patch"
    patch.write_text(f"Subject: [PATCH] x\n\n---\n--- a/{name}\n+++ b/{name}\n{hunk}")
    done = run(machine, state, "--series", str(patch), "--mode", "vhe", "--no-lines")
    assert_series_is_blamed(done, "lab-vhe", "panic")
    folder = done.folder / "cells/lab-vhe-patched"
    assert "Kernel panic - not syncing: aging on purpose" in (folder / "console.log").read_text()
    assert "reset ordered" in (folder / "machine.txt").read_text()
    assert done.summary["emulated"] is True
    assert done.summary["emulator"] == "a hypervisor (device tree: linux,dummy-virt)"
    assert any("never run on arm64 hardware" in note for note in done.summary["notes"])
    assert at_home(machine).same_build(before)


@pytest.mark.lab
def test_the_machine_is_home_again_from_protected_mode(machine: Lab, state: Path) -> None:
    """It is left by a reset only: there is EL2 after it."""
    before = at_home(machine)
    done = run(machine, state, "--base-only", "--mode", "protected")
    assert done.returncode == 0
    assert done.outcome("lab-protected-base", CHECK) == "pass"
    after = at_home(machine)
    assert after.same_build(before)
    (cell,) = done.summary["cells"]
    assert len({cell["boot_id"], before.boot_id, after.boot_id}) == 3
    console = (done.folder / "cells/lab-protected-base/console.log").read_text()
    assert console.count("Booting Linux") == 1
    assert "kvm_harness.cell=" in console


# A kernel with modules is a build of its own, of ten minutes, which `make test` has no time for.
@pytest.mark.lab
def test_a_kernel_of_its_own_configuration_has_its_modules(machine: Lab, state: Path) -> None:
    """The initramfs that the machine made of them is what they are loaded from."""
    before = at_home(machine)
    with_module = ["--base-only", "--mode", "vhe", "--checks", str(MODULES)]
    done = run(machine, state, *with_module, stock=machine.own, checks=MODULES.stem)
    assert done.returncode == 0
    assert done.outcome("lab-vhe-base", "test_a_module_of_its_own") == "pass"
    (kernel,), (cell,) = done.summary["kernels"], done.summary["cells"]
    assert cell["build_id"] == kernel["build_id"]
    own = (done.folder / "machines/lab.config").read_text()
    assert "CONFIG_VIRTIO_NET=y\n" in own
    assert "initramfs made" in (done.folder / "cells/lab-vhe-base/machine.txt").read_text()
    after = at_home(machine)
    assert after.same_build(before) and after.boot_id != before.boot_id

    # Where it never jumps, it is still removed.
    with Machine("lab", machine.host, machine.pins).shell(Deadline(30)) as shell:
        shell.run(f"printf %s {shlex.quote(BROKEN)} > /tmp/kexec && chmod +x /tmp/kexec")
        shell.run(f"mount --bind /tmp/kexec {KEXEC}")
    try:
        done = run(machine, state, *with_module, stock=machine.own, checks=MODULES.stem)
    finally:
        with Machine("lab", machine.host, machine.pins).shell(Deadline(30)) as shell:
            shell.run(f"umount {KEXEC}")
    assert done.returncode == 3
    (cell,) = done.summary["cells"]
    assert "no kernel today" in cell["reason"]
    assert "deploying modules" in (done.folder / "cells/lab-vhe-base/machine.txt").read_text()
    assert at_home(machine).boot_id == after.boot_id
