# SPDX-License-Identifier: GPL-2.0-only
"""Faults of a machine of the lab, at each stage where one can strike: `make test-faults`.

After each the machine must be in its known-good kernel, without our lease and our files, and what
was recorded before must be there. Each process of pytest has a machine of its own; fault_table.py
writes the table of docs/faults.md from what was seen.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from command import Ended, kvm_harness
from fault_scene import Scene, wait_for
from fault_table import row
from faults import ON_ONE_MACHINE
from faults.edits import both, patch, watched
from faults.fault import Edit, Fault
from faults.watched import WATCHED
from lab_bed import Lab, lab, other_image
from lab_proxy import Proxy, nothing

from harness.hosts.leasing import LEASE_SECONDS, MACHINE, look
from harness.hosts.machine import Running
from harness.hosts.places import PROGRAMS
from harness.records import read
from harness.results import Check

pytestmark = pytest.mark.faults

CHECKS = Path(__file__).with_name("faults_on_host.py")
SEED_CHECK = "test_page_idle"
# For a lease whose holder was killed.
WAIT = ("--wait", str(2 * LEASE_SECONDS))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("lab")) as made:
        yield made


@pytest.fixture(scope="module")
def proxy(machine: Lab) -> Iterator[Proxy]:
    with Proxy(machine.host.port) as made:
        yield made


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return other_image(tmp_path_factory.mktemp("other"))


@pytest.fixture(scope="module")
def rehearsed(
    machine: Lab, proxy: Proxy, other: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The record of a rehearsal: the reset that it is would undo what was done to the machine.

    It is that of a run without any fault, before all of them; another passes after them.
    """
    scene = Scene(machine, proxy, tmp_path_factory.mktemp("rehearsal"), other)
    passes(scene)
    record = scene.folder / "kvm-harness/recovery/lab.json"
    yield record
    after = Scene(machine, proxy, tmp_path_factory.mktemp("after"), other)
    keep(record, after.folder)
    passes(after)


def keep(record: Path, folder: Path) -> None:
    """Have a user whose machine's recovery was rehearsed."""
    place = folder / "kvm-harness/recovery"
    place.mkdir(parents=True)
    shutil.copy(record, place)


def passes(scene: Scene, *args: str, edit: Edit = str) -> None:
    """A run without any fault."""
    scene.proxy.heal()
    inventory = scene.inventory(edit)
    done = scene.run([*start(inventory), *of_checks("test_before or test_zz"), *args])
    assert done.returncode == 0


def start(inventory: Path) -> list[str]:
    return ["run", "--inventory", str(inventory), "--host", "lab", "--mode", "vhe", "--no-lines"]


def of_checks(which: str) -> list[str]:
    return ["--base-only", "--checks", str(CHECKS), "-k", which]


def arguments(fault: Fault, inventory: Path, folder: Path) -> list[str]:
    if not fault.patch:
        return [*start(inventory), *of_checks(fault.check)]
    series = folder / "0001-x.patch"
    series.write_text(patch(fault.patch))
    return [*start(inventory), "--series", str(series), "-k", SEED_CHECK]


def at_home(scene: Scene, *, ours: bool = True) -> Running:
    """The known-good kernel that the machine is in, or comes to by itself.

    Where it is not ours any more nothing may be done to it, so files may be left.
    """
    wait_for(scene.in_its_own_kernel)
    with scene.up() as (shell, now):
        assert not ours or shell.run(f"ls {PROGRAMS}", check=False).status != 0, "files are left"
    return now


@pytest.fixture
def scene(
    fault: Fault, machine: Lab, proxy: Proxy, other: Path, rehearsed: Path, tmp_path: Path
) -> Iterator[Scene]:
    """The machine with the fault in it; whatever that was is gone afterwards."""
    made = Scene(machine, proxy, tmp_path, other, fault.strikes)
    proxy.heal()
    if fault.stage != "rehearsal":
        keep(rehearsed, tmp_path)
    yield made
    proxy.connecting = nothing
    proxy.heal()
    if not made.clean:
        made.reset()


Note = Callable[[str, object], None]


@pytest.mark.parametrize("fault", ON_ONE_MACHINE, ids=str)
def test_fault(fault: Fault, scene: Scene, record_property: Note) -> None:
    strike(fault, scene, record_property)


def test_a_watchdog_that_is_armed_before_the_jump(tmp_path: Path, record_property: Note) -> None:
    """It is fed while all is well; a kernel that hangs at once ends in the known-good one.

    It is stopped again if the machine did not jump.
    """
    # Its inventory has the name that the scene gives its own.
    folder = tmp_path / "machine"
    folder.mkdir()
    with lab(folder, watchdog=True) as made, Proxy(made.host.port) as proxy:
        scene = Scene(made, proxy, tmp_path, Path())
        passes(scene, edit=watched)
        assert "watchdog armed" in scene.diary()
        for fault in WATCHED:
            strike(replace(fault, edit=both(watched, fault.edit)), scene, record_property)


def strike(fault: Fault, scene: Scene, record_property: Note) -> None:
    inventory = scene.inventory(fault.edit)
    before = at_home(scene)
    if fault.sabotage:
        scene.sh(fault.sabotage)
    if fault.setup is not None:
        fault.setup(scene)
    started = time.monotonic()
    done = scene.run(arguments(fault, inventory, scene.folder))
    seconds = time.monotonic() - started
    scene.assert_struck()
    scene.proxy.heal()
    diary = scene.diary()
    if fault.verdict == "killed":
        after = killed(fault, scene)
    else:
        told(fault, done, diary)
        assert (scene.folder / "kvm-harness/hosts/lab.json").exists() is fault.aside
        if fault.aside and not fault.home:
            # Somebody walks to it.
            scene.reset()
        ours = fault.lease != "another's"
        after = at_home(scene, ours=ours) if fault.home or fault.aside else None
    if after is not None:
        assert after.same_build(before)
        assert not fault.same_boot or after.boot_id == before.boot_id
    leased(fault, scene)
    next_run(fault, scene, done)
    stays = after is not None and after.boot_id == before.boot_id
    scene.clean = clean(fault, stays)
    record_property("fault", row(fault, "same boot" if stays else diary, seconds))


def clean(fault: Fault, stays: bool) -> bool:
    """Whether nothing of the fault can be left: all files of the machine go with each boot."""
    if fault.verdict == "killed" or (not fault.home and not fault.aside):
        return True
    if not fault.home:
        # It was reset for that.
        return True
    if fault.strikes:
        return False
    return not stays or not (fault.sabotage or fault.setup)


def told(fault: Fault, done: Ended, diary: str) -> None:
    """The verdict, its reason, and the results that were there before."""
    code = {"error": 3, "fail": 1, "pass": 0}[fault.verdict]
    assert done.returncode == code
    cells, checks = done.summary["cells"], done.summary["checks"]
    reasons = [done.summary["reason"], *(one["reason"] for one in (*cells, *checks))]
    words = "\n".join([done.stderr, *reasons])
    if fault.verdict == "pass":
        assert not "".join(reasons)
        words = diary
    assert re.search(fault.words, words, re.S), words
    assert re.search(fault.diary, diary)
    assert {one["death"] for one in (*cells, *checks)} - {None} == ({fault.death} - {None})
    for check in fault.passes:
        assert done.outcome("lab-vhe-base", check) == "pass"


def killed(fault: Fault, scene: Scene) -> Running | None:
    """After a SIGKILL: what was recorded is there, and the machine where it was left."""
    assert scene.killed
    found = scene.folder.glob("kvm-harness/runs/*/cells/*/records.jsonl")
    records = [one for path in found for one in read(path) if isinstance(one, Check)]
    assert {one.name for one in records if one.outcome == "pass"} >= set(fault.passes)
    if not fault.home:
        return None
    wait_for(scene.in_its_own_kernel)
    return scene.now()


def leased(fault: Fault, scene: Scene) -> None:
    if fault.verdict == "killed" or fault.lease == "damaged":
        return
    with scene.up() as (shell, _):
        seen = look(shell)
    if fault.lease == "free":
        assert seen.left == 0
        return
    assert seen.lease is not None
    assert (seen.lease.run == "another-run") is (fault.lease == "another's")
    if fault.lease == "runs out":
        assert seen.left <= LEASE_SECONDS
        scene.let_time_pass()
        with scene.up() as (shell, _):
            assert look(shell).left == 0


def next_run(fault: Fault, scene: Scene, done: Ended) -> None:
    """What the next run of all makes of a machine that is not home, or of a run that was killed."""
    if fault.verdict == "killed" and fault.resume:
        (folder,) = scene.folder.glob("kvm-harness/runs/*")
        ended = scene.run(["run", "--resume", folder.name])
        assert ended.returncode == 0
        assert [one["name"] for one in ended.summary["checks"]] == ["test_before", "test_wait"]
        at_home(scene)
    elif fault.verdict == "killed":
        passes(scene, *WAIT)
        at_home(scene)
    elif not fault.home and fault.lease == "another's":
        scene.sh(f"rm -r {MACHINE.folder}")
        passes(scene)
        at_home(scene)
    elif fault.aside:
        kvm_harness(["hosts", "put-back", "lab"], scene.folder)
