# SPDX-License-Identifier: GPL-2.0-only
"""Recovery is rehearsed before the first test kernel: a machine that is not back after that could
be lost by one.

What was rehearsed is remembered in $XDG_STATE_HOME/kvm-harness/recovery, for one machine (its
pinned host key) and one known-good kernel of it: with another of either it is rehearsed again.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts import grub
from harness.hosts.machine import Machine, Running
from harness.hosts.recovery import NotBack, bring_back, give_up
from harness.hosts.route import CONTACT_SECONDS
from harness.hosts.tenancy import Tenancy
from harness.hosts.undisturbed import undisturbed
from harness.paths import state_home
from harness.records import write_atomically
from harness.runinput import now

SYNC_SECONDS = 120.0


class Rehearsed(BaseModel):
    """The file of one machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host_key: str
    release: str
    notes: str
    """SHA-256 of the ELF notes of its known-good kernel."""
    when: str
    """UTC, ISO 8601."""
    way: str
    seconds: float
    """From the order to a login in the known-good kernel."""
    boot: Literal["kexec", "grub"] = "kexec"
    """How test kernels are started from then on; GRUB has something to rehearse as well."""


@undisturbed()
def rehearse(machine: Machine, ours: Tenancy, good: Running) -> Running:
    """Start the machine anew in the way that a lost one is, unless that was shown already.

    Returns the boot that it is in then. A machine that does not come back is set aside.
    """
    if find(machine, good) is not None:
        return good
    if machine.host.power is not None:
        _sync(machine)
    started = time.monotonic()
    try:
        # A switch that does not obey is what this is to find out.
        answers = machine.host.power is None
        back = bring_back(machine, ours, good, answers=answers, by_itself=False)
        require_same(machine, good, back)
        seconds = round(time.monotonic() - started, 1)
        if machine.host.boot == "grub":
            back = grub.rehearse(machine, ours, back)
            require_same(machine, good, back)
    except NotBack as exc:
        give_up(machine, "in the rehearsal of its recovery", exc)
    path = _path(machine.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(
        path,
        Rehearsed(
            host_key=machine.host_key,
            release=good.release,
            notes=good.notes,
            when=now(),
            way="reset" if machine.host.power is not None else "reboot",
            seconds=seconds,
            boot=machine.host.boot,
        ),
    )
    return back


def _sync(machine: Machine) -> None:
    """A machine that is well loses nothing that was written to it by a reset."""
    with machine.shell(Deadline(CONTACT_SECONDS)) as shell:
        shell.run("sync", Deadline(SYNC_SECONDS))


def require_same(machine: Machine, good: Running, back: Running) -> None:
    """NotBack if what the firmware started is another kernel than the known-good one."""
    if not back.same_build(good):
        other = ", of another build" if back.release == good.release else ""
        raise NotBack(
            f"{machine.name} came back with {back.release}{other}; "
            f"its known-good kernel is {good.release}"
        )


def find(machine: Machine, good: Running) -> Rehearsed | None:
    """What was rehearsed with this machine and this kernel, None for nothing."""
    path = _path(machine.name)
    try:
        found = Rehearsed.model_validate_json(path.read_text())
    except FileNotFoundError:
        return None
    except (ValidationError, UnicodeDecodeError) as exc:
        raise InfraError(f"{path} is damaged; remove it to rehearse again") from exc
    of = (found.host_key, found.release, found.notes, found.boot)
    wanted = (machine.host_key, good.release, good.notes, machine.host.boot)
    return found if of == wanted else None


def _path(host: str) -> Path:
    return state_home() / "recovery" / f"{host}.json"
