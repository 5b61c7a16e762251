# SPDX-License-Identifier: GPL-2.0-only
"""Cells on a machine that boots from its disk: every kernel comes by SSH, GRUB starts it once."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from disk_bed import disk_lab
from disk_lab import CELL, CHECK, at_home, console, diary, reached, run, sums
from lab_bed import Lab

from harness.deadline import Deadline
from harness.hosts.grub_look import HEAD, NAME

pytestmark = pytest.mark.lab

CONFIG = ("/boot/grub/grub.cfg", "/etc/default/grub")
# What a run that was killed between its choice of the entry and the restart has left.
DEAD_RUN = f"""\
mkdir /boot/grub/{NAME}
echo MZ > /boot/grub/{NAME}/Image
echo {HEAD!r} > /boot/grub/custom.cfg
/usr/sbin/grub-reboot {NAME}"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with disk_lab(tmp_path_factory.mktemp("lab"), boot="grub") as made:
        yield made


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory, machine: Lab) -> Path:
    """Of one user, who trusts the machine: its recovery is rehearsed once."""
    folder = tmp_path_factory.mktemp("state")
    machine.pin(folder)
    return folder


def test_a_kernel_is_started_once(machine: Lab, state: Path) -> None:
    """After a rehearsal; what a run that was killed has left does no harm, and goes as well."""
    before = at_home(machine)
    config = sums(machine, *CONFIG)
    with reached(machine).shell(Deadline(60)) as shell:
        shell.run(DEAD_RUN)
    done = run(machine.inventory, state)
    assert done.returncode == 0
    assert done.outcome(CELL, CHECK) == "pass"
    after = at_home(machine)
    assert after.same_build(before)
    (cell,) = done.summary["cells"]
    assert len({cell["boot_id"], before.boot_id, after.boot_id}) == 3
    steps = diary(done)
    for words in ("GRUB reads custom.cfg and writes grubenv", "start by GRUB ordered"):
        assert words in steps
    said = console(done)
    assert "Welcome to GRUB" in said
    assert f"BOOT_IMAGE=(hd0,gpt2)/boot/grub/{NAME}/Image" in said
    assert "Machine model: linux,dummy-virt" in said
    assert sums(machine, *CONFIG) == config


def test_a_kernel_that_panics_at_boot_ends_in_the_default(
    machine: Lab, state: Path, tmp_path: Path
) -> None:
    """Nobody resets the machine: it has no power switch here."""
    before = at_home(machine)
    text, _, _ = machine.inventory.read_text().partition("    power:")
    command = next(
        line for line in machine.inventory.read_text().splitlines() if "console: [tail" in line
    )
    inventory = tmp_path / "inventory.yaml"
    # Debian's initramfs would go on with /sbin/init where there is no such init= alone.
    inventory.write_text(f"{text}{command}\n    cmdline: [rdinit=/nonesuch, init=/nonesuch]\n")
    started = time.monotonic()
    done = run(inventory, state)
    print(f"{time.monotonic() - started:.0f} s")
    assert done.returncode == 3
    (cell,) = done.summary["cells"]
    assert (cell["outcome"], cell["death"]) == ("error", "panic")
    assert re.search(
        r"Kernel panic - not syncing: (VFS: Unable to mount root|Requested init /nonesuch failed)",
        cell["reason"],
    )
    steps = diary(done)
    assert "reset" not in steps
    assert at_home(machine).same_build(before)
    (record, *_) = sorted((done.folder / "cells" / CELL / "pstore").iterdir())
    assert record.read_text()


def test_the_next_run_passes(machine: Lab, state: Path) -> None:
    done = run(machine.inventory, state)
    assert done.returncode == 0
    assert "GRUB reads custom.cfg" not in diary(done), "it was rehearsed once"
    at_home(machine)
