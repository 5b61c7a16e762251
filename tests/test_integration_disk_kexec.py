# SPDX-License-Identifier: GPL-2.0-only
"""A cell on a machine that boots from its disk, by kexec: systemd shuts down and jumps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from disk_bed import disk_lab
from disk_lab import CELL, CHECK, at_home, console, diary, run, sums
from lab_bed import Lab

from harness.hosts.trip import AFTER

pytestmark = pytest.mark.lab

# Of the machine's own kernel, in this order, and the first words of the next one.
JUMP = (
    "ssh.service",
    "systemd-kexec.service",
    "systemd-shutdown[1]: Unmounting file systems",
    "systemd-shutdown[1]: All filesystems unmounted",
    "systemd-shutdown[1]: Rebooting with kexec",
    "kexec_core: Starting new kernel",
    "Booting Linux on physical CPU",
)
FIRMWARE = ("UEFI firmware", "Welcome to GRUB", "EFI stub:")
GRUBS = ("/boot/grub/grub.cfg", "/boot/grub/grubenv", "/etc/default/grub")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with disk_lab(tmp_path_factory.mktemp("lab"), boot="kexec") as made:
        yield made


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory, machine: Lab) -> Path:
    folder = tmp_path_factory.mktemp("state")
    machine.pin(folder)
    return folder


def test_systemd_jumps_into_the_kernel(machine: Lab, state: Path) -> None:
    before = at_home(machine)
    grubs = sums(machine, *GRUBS)
    done = run(machine.inventory, state)
    assert done.returncode == 0
    assert done.outcome(CELL, CHECK) == "pass"
    assert "kexec ordered" in diary(done)
    after = at_home(machine)
    assert after.same_build(before)
    (cell,) = done.summary["cells"]
    assert len({cell["boot_id"], before.boot_id, after.boot_id}) == 3
    said = console(done)
    assert re.search(".*".join(map(re.escape, JUMP)), said, re.DOTALL)
    # On the way home they are there, so they would have been seen.
    for words in FIRMWARE:
        assert words not in said
        assert words in console(done, AFTER)
    _, _, new = said.partition(JUMP[-1])
    assert "EXT4-fs (vda2): mounted filesystem" in new
    assert "EXT4-fs (vda2): recovery complete" not in new, "/ was not clean"
    assert "using reserved LPI pending table" in new
    assert sums(machine, *GRUBS) == grubs
