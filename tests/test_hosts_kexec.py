# SPDX-License-Identifier: GPL-2.0-only
"""What a trip into another kernel does to a machine, step by step; no machine needed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from fake_machine import GOOD, Ours, World, machine
from fake_shell import UnaskedShell

from harness.errors import HostLost, InfraError
from harness.hosts import aside, at_home, deploy, gate, kexec
from harness.hosts.kexec import IMAGE, _deployed, _load, _require_el2, _to_be_had, boot
from harness.hosts.leasing import LeaseLost
from harness.hosts.machine import Running
from harness.hosts.places import PROGRAMS
from harness.hosts.protocols import Boot
from harness.hosts.recovery import NotBack
from harness.hosts.tenancy import Tenancy


class Copied(UnaskedShell):
    """Takes a file, and is asked to load no kernel."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def run(self, command: str, *_: Any, **__: Any) -> Any:
        assert command.startswith("mkdir ")

    def put(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        self.done.append(remote)


def test_no_kernel_is_loaded_on_what_is_anothers(tmp_path: Path) -> None:
    lost = cast(Tenancy, Ours(LeaseLost("it is x's")))
    shell, wanted = Copied(), Boot(tmp_path, (), {}, tmp_path, "run-1", 1.0)
    with pytest.raises(LeaseLost):
        _load(shell, lost, None, wanted, "")
    assert shell.done == [IMAGE]


def test_what_a_dead_run_left_is_removed_before_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a machine that is set aside, or not well, is lost to the cell before it is rehearsed."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    done: list[str] = []
    monkeypatch.setattr(kexec, "clear", lambda _: done.append("clear"))

    @contextlib.contextmanager
    def tenant(*_: object) -> Iterator[Ours]:
        done.append("lease")
        yield Ours()

    def admit(*_: object) -> None:
        done.append("admit")
        raise InfraError("it is sick")

    monkeypatch.setattr(at_home, "tenant", tenant)
    protected = Running(GOOD.boot_id, GOOD.release, GOOD.notes, "kvm-arm.mode=protected")
    world = World([protected])
    monkeypatch.setattr(at_home, "Machine", lambda *_: machine(world))
    monkeypatch.setattr(gate, "admit", admit)
    wanted = Boot(tmp_path, (), {}, tmp_path, "run-1", 1.0)
    host = machine(World([GOOD])).host
    with pytest.raises(HostLost, match="protected mode"), boot("lab", host, wanted):
        pass
    assert done == ["lease"]
    done.clear()
    world.boots = [GOOD]
    with pytest.raises(HostLost, match="it is sick"), boot("lab", host, wanted):
        pass
    assert done == ["lease", "clear", "admit"]
    aside.set_aside("lab", ("it lost a fan",))
    with pytest.raises(HostLost, match="it lost a fan"), boot("lab", host, wanted):
        pass
    assert done == ["lease", "clear", "admit"], "nobody went there"


@pytest.mark.parametrize(
    ("modules", "named", "made", "initrd"),
    [
        (False, None, "/w/initramfs.img", None),
        (False, "/boot/initrd.img", "/w/initramfs.img", "/boot/initrd.img"),
        (True, None, "/w/initramfs.img", "/w/initramfs.img"),
        (True, None, None, None),
        (True, "/boot/initrd.img", None, "/boot/initrd.img"),
    ],
)
def test_which_initramfs_a_kernel_starts_with(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    modules: bool,
    named: str | None,
    made: str | None,
    initrd: str | None,
) -> None:
    asked: list[object] = []

    def put(_: object, archive: Path, release: str, folder: str, *, make: bool) -> str | None:
        asked.append((archive, release, folder, make))
        return made if make else None

    monkeypatch.setattr(deploy, "deploy", put)
    reached = machine(World([GOOD]))
    object.__setattr__(reached, "host", reached.host.model_copy(update={"initrd": named}))
    archive = tmp_path / "modules.tar.gz" if modules else None
    release = "6.12-kvmharness-0123456789ab"
    wanted = Boot(tmp_path, (), {}, tmp_path, "run-1", 1.0, modules=archive, release=release)
    assert _deployed(cast(Any, None), reached, wanted) == initrd
    assert asked == ([(archive, release, PROGRAMS, named is None)] if modules else [])


def test_el2_is_not_to_be_had_from_a_kernel_in_protected_mode() -> None:
    """GRUB starts from the firmware."""
    host = machine(World([GOOD])).host
    good = Running(GOOD.boot_id, GOOD.release, GOOD.notes, "kvm-arm.mode=protected")
    with pytest.raises(InfraError, match="by kexec from there has no KVM"):
        _require_el2(host, good)
    _require_el2(host, GOOD)
    _require_el2(host.model_copy(update={"boot": "grub"}), good)


def test_a_machine_that_cannot_be_had_is_lost_by_no_doing_of_the_cell() -> None:
    for error in (InfraError("no answer"), LeaseLost("it is x's"), NotBack("it is gone")):
        with pytest.raises(HostLost) as caught, _to_be_had():
            raise error
        assert (str(caught.value), caught.value.kind) == (str(error), "unavailable")
    with pytest.raises(KeyboardInterrupt), _to_be_had():
        raise KeyboardInterrupt
