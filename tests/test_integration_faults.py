# SPDX-License-Identifier: GPL-2.0-only
"""Faults of a machine of the lab, at each stage where one can strike: `make test-faults`.

After each the machine must be in its known-good kernel, without our lease and our files, and what
was recorded before must be there. The table of docs/faults.md is written from what was seen, if
$FAULTS_TABLE names a file.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from command import Ended, kvm_harness
from hosts_helpers import make_key
from lab_bed import Lab, lab

from harness.deadline import Deadline
from harness.hosts import pins
from harness.hosts.leasing import look, take
from harness.hosts.machine import Machine, Running, running
from harness.hosts.places import PROGRAMS
from harness.hosts.protocols import Shell

pytestmark = pytest.mark.faults

CHECKS = Path(__file__).with_name("faults_on_host.py")
# Stands before kexec and does something else instead of jumping.
INSTEAD = """\
mv /sbin/kexec /sbin/kexec.real
printf '%s\\n' '#!/bin/sh' '[ "$1" != -e ] || {{ {what}; exit; }}' \
	'exec /sbin/kexec.real "$@"' > /sbin/kexec
chmod 755 /sbin/kexec"""

# Comes up to its end, and nobody hears of it.
NO_NETWORK = "initcall_blacklist=virtio_net_driver_init"

Edit = Callable[[str], str]


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and what must be told of it."""

    name: str
    stage: str
    words: str
    """A pattern that the reason, or the error that ended the run, matches."""
    sabotage: str = ""
    """A script that is run on the machine before the run."""
    edit: Edit = str
    """What becomes of the inventory."""
    check: str = "test_before"
    """Which of CHECKS run (pytest -k)."""
    death: str | None = None
    aside: bool = False
    """The machine must be set aside."""
    same_boot: bool = False
    """Nothing may have started it again."""
    passes: tuple[str, ...] = ()
    """Checks that must have passed all the same."""
    setup: Callable[[Shell, Path], None] | None = None


def held_by_another(shell: Shell, state: Path) -> None:
    take(shell, "another-run")


def other_key(shell: Shell, state: Path) -> None:
    path = state / "kvm-harness/known_hosts"
    (name,) = pins.load(path)
    path.write_text(f"{name} {pins.text_of(make_key(state / 'other'))}\n")


def with_key(line: str) -> Edit:
    return lambda text: f"{text}    {line}\n"


def power(reset: str) -> Edit:
    return lambda text: re.sub(r'("reset": )\[.*\]', rf"\1{reset}", text)


def console(command: str) -> Edit:
    return lambda text: re.sub(r"(    console: )\[.*\]", rf"\1{command}", text)


def short_boot(text: str) -> str:
    """A wait that is known to be vain."""
    return text.replace("boot_seconds: 60", "boot_seconds: 25")


def short_way_back(text: str) -> str:
    """As well."""
    return text.replace("back_seconds: 60", "back_seconds: 10")


FAULTS = (
    Fault(
        "another's lease",
        "look",
        "is in use: .* for the run another-run",
        setup=held_by_another,
        same_boot=True,
    ),
    Fault(
        "changed host key",
        "look",
        "shows the host key .*pinned is",
        setup=other_key,
        same_boot=True,
    ),
    Fault(
        "disk full",
        "look",
        r"disk: \d+ MiB free, 1024 needed",
        "mount -o remount,size=64m /var",
        same_boot=True,
    ),
    Fault(
        "wall clock jumps back",
        "look",
        "clock: .* behind the controller",
        "date -s @86400",
        same_boot=True,
    ),
    Fault("no kexec", "look", "kexec program: no kexec on PATH", "rm /sbin/kexec", same_boot=True),
    Fault(
        "console shows nothing",
        "look",
        "does not show what the kernel logs",
        edit=console("[sleep, '600']"),
        same_boot=True,
    ),
    Fault(
        "console is gone",
        "look",
        "does not show what the kernel logs",
        edit=console("['false']"),
        same_boot=True,
    ),
    Fault(
        "nonsense for an answer",
        "health",
        "nonsense when asked for its health",
        "echo banana > /tmp/x; mount --bind /tmp/x /proc/sys/kernel/tainted",
        same_boot=True,
    ),
    Fault(
        "kernel is tainted by an oops",
        "health",
        "kernel is tainted: kernel died recently",
        "echo 128 > /tmp/x; mount --bind /tmp/x /proc/sys/kernel/tainted",
        aside=True,
        same_boot=True,
    ),
    Fault(
        "power switch fails",
        "rehearsal",
        "did not come back .*reset: power reset of lab failed",
        edit=power("['false']"),
        aside=True,
        same_boot=True,
    ),
    Fault(
        "power switch does nothing",
        "rehearsal",
        "did not come back .*it is in the boot",
        edit=lambda text: short_way_back(power("['true']")(text)),
        aside=True,
        same_boot=True,
    ),
    Fault(
        "no such initramfs",
        "deploy",
        "/nonesuch",
        edit=lambda text: text.replace("/boot/initrd", "/nonesuch"),
    ),
    Fault(
        "kexec fails",
        "deploy",
        r"kexec -a -l .* exited 1",
        "printf '#!/bin/sh\\nexit 1\\n' > /sbin/kexec",
        edit=str,
    ),
    Fault(
        "the jump does not happen",
        "boot",
        "the jump into the kernel did not happen",
        INSTEAD.format(what=":"),
        edit=short_boot,
    ),
    Fault(
        "another kernel comes up",
        "boot",
        "is in another boot already",
        INSTEAD.format(what="reboot -f"),
        death="gone",
    ),
    Fault(
        "kernel panics at boot",
        "boot",
        "Kernel panic - not syncing",
        edit=with_key("cmdline: [rdinit=/nonesuch]"),
        death="panic",
    ),
    Fault(
        "kernel never answers",
        "boot",
        "was not booted within 25 s",
        edit=lambda text: short_boot(with_key(f"cmdline: [{NO_NETWORK}]")(text)),
        death="hang",
    ),
    Fault(
        "SSH dies",
        "check",
        "can be reached again, and runs the same kernel",
        check="test_before or test_ssh_dies or test_zz",
        passes=("test_before", "test_zz_after"),
    ),
    Fault(
        "kernel panics",
        "check",
        "Kernel panic - not syncing: sysrq triggered crash",
        check="test_before or test_panic",
        death="panic",
        passes=("test_before",),
    ),
    Fault(
        "machine starts again",
        "check",
        "in another boot by now",
        check="test_before or test_restart",
        death="gone",
        passes=("test_before",),
    ),
)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("lab")) as made:
        yield made


@pytest.fixture(scope="module")
def rehearsed(machine: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record of a rehearsal: the reset that it is would undo what was done to the machine."""
    state = tmp_path_factory.mktemp("rehearsal")
    passes(machine, state)
    return state / "kvm-harness/recovery/lab.json"


@pytest.fixture(scope="module")
def rows() -> Iterator[list[str]]:
    found: list[str] = []
    yield found
    if target := os.environ.get("FAULTS_TABLE"):
        head = Path(__file__).with_name("data") / "faults-head.md"
        Path(target).write_text(head.read_text() + "".join(found))


def reached(machine: Lab) -> Machine:
    return Machine("lab", machine.host, machine.pins)


def run(machine: Lab, inventory: Path, state: Path, check: str) -> Ended:
    args = ["--inventory", str(inventory), "--host", "lab", "--base-only", "--mode", "vhe"]
    return kvm_harness(["run", *args, "--checks", str(CHECKS), "-k", check, "--no-lines"], state)


def passes(machine: Lab, state: Path) -> None:
    """A run without any fault."""
    machine.pin(state)
    with reached(machine).shell(Deadline(60)) as shell:
        shell.run(f"date -s @{int(time.time())}")
    assert run(machine, machine.inventory, state, "test_before or test_zz").returncode == 0


def at_home(machine: Lab) -> Running:
    with reached(machine).shell(Deadline(60)) as shell:
        now = running(shell)
        assert shell.run(f"ls {PROGRAMS}", check=False).status != 0, "files are left"
    assert now.cell == "", "it is in a kernel of ours"
    return now


@contextlib.contextmanager
def sabotaged(fault: Fault, machine: Lab, state: Path) -> Iterator[Running]:
    """The machine with the fault in it; whatever that was is gone with its next start."""
    before = at_home(machine)
    try:
        with reached(machine).shell(Deadline(60)) as shell:
            shell.run(f"date -s @{int(time.time())}")
            if fault.sabotage:
                shell.run(fault.sabotage)
            if fault.setup is not None:
                fault.setup(shell, state)
        yield before
    finally:
        with reached(machine).shell(Deadline(60)) as shell:
            last = running(shell)
        machine.power("reset")
        with reached(machine).booted(lambda now: now.boot_id != last.boot_id, Deadline(120)):
            pass


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.stage}: {fault.name}")
def test_fault(
    fault: Fault, machine: Lab, rehearsed: Path, rows: list[str], tmp_path: Path
) -> None:
    machine.pin(tmp_path)
    if fault.stage != "rehearsal":
        folder = tmp_path / "kvm-harness/recovery"
        folder.mkdir()
        shutil.copy(rehearsed, folder)
    inventory = tmp_path / "inventory.yaml"
    inventory.write_text(fault.edit(machine.inventory.read_text()))
    with sabotaged(fault, machine, tmp_path) as before:
        started = time.monotonic()
        done = run(machine, inventory, tmp_path, fault.check)
        seconds = time.monotonic() - started
        assert done.returncode == 3, "an error, and no failure of the kernel's"
        cells, checks = done.summary["cells"], done.summary["checks"]
        reasons = [done.summary["reason"], *(one["reason"] for one in (*cells, *checks))]
        told = "\n".join([done.stderr, *reasons])
        assert re.search(fault.words, told, re.S), told
        assert {one["death"] for one in cells} - {None} == ({fault.death} - {None})
        for check in fault.passes:
            assert done.outcome("lab-vhe-base", check) == "pass"
        out = tmp_path / "kvm-harness/hosts/lab.json"
        assert out.exists() is fault.aside
        after = at_home(machine)
        assert after.same_build(before)
        assert not fault.same_boot or after.boot_id == before.boot_id
        with reached(machine).shell(Deadline(60)) as shell:
            seen = look(shell)
        assert seen.left == 0 or (seen.lease is not None and seen.lease.run == "another-run")
    aside = "set aside" if fault.aside else ""
    rows.append(
        f"| {fault.stage} | {fault.name} | error | `{fault.words}` | {fault.death or ''} | "
        f"{aside} | {seconds:.0f} |\n"
    )


def test_the_next_run_passes(machine: Lab, tmp_path: Path) -> None:
    passes(machine, tmp_path)
