# SPDX-License-Identifier: GPL-2.0-only
"""Cells on a machine of a lab: every kernel comes by SSH and kexec, QMP is its power switch."""

from __future__ import annotations

import time
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

pytestmark = pytest.mark.integration

CHECK = "test_page_idle"


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


def run(machine: Lab, state: Path, *args: str) -> Ended:
    with Machine("lab", machine.host, machine.pins).shell(Deadline(60)) as shell:
        # It has no clock of its own, and asks nobody for the time.
        shell.run(f"date -s @{int(time.time())}")
    where = ["--inventory", str(machine.inventory), "--host", "lab"]
    return kvm_harness(["run", *where, "-k", CHECK, *args], state)


def at_home(machine: Lab) -> Running:
    """The kernel that the machine runs, after it was looked at that nothing of ours is left."""
    reached = Machine("lab", machine.host, machine.pins)
    with reached.shell(Deadline(30)) as shell:
        now = running(shell)
        assert look(shell).left == 0, "the lease is not free"
        assert shell.run(f"ls {PROGRAMS}", check=False).status != 0, "files are left"
    assert now.cell == "", "it is in a kernel of ours"
    return now


def test_the_machine_is_home_again_whatever_its_kernels_did(
    machine: Lab, state: Path, tmp_path: Path
) -> None:
    """A panic is the fault of the series, and the next run passes."""
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
    assert at_home(machine).same_build(before)

    # A kernel in protected mode is left by a reset: there is EL2 after it.
    done = run(machine, state, "--base-only", "--mode", "protected")
    assert done.returncode == 0
    assert done.outcome("lab-protected-base", CHECK) == "pass"
    assert done.summary["emulated"] is False
    assert any("never run on arm64 hardware" in note for note in done.summary["notes"])
    after = at_home(machine)
    assert after.same_build(before)
    (cell,) = done.summary["cells"]
    assert len({cell["boot_id"], before.boot_id, after.boot_id}) == 3
    console = (done.folder / "cells/lab-protected-base/console.log").read_text()
    assert console.count("Booting Linux") == 1
    assert "kvm_harness.cell=" in console
