# SPDX-License-Identifier: GPL-2.0-only
"""Run as checks on the emulated host: a lease and a look at its health by that machine's own sh."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest

from harness.checks.claim import Claim
from harness.guests import Guest
from harness.hosts.health import examine, left_behind
from harness.hosts.lease import Lease, Place, replace_command
from harness.hosts.leasing import Busy, look, take
from harness.hosts.protocols import Shell

TAKERS = 16


def test_one_holder(shell: Shell, claim: Claim) -> None:
    """A second taker is told who has the machine, and gets it once it is given back."""
    held = take(shell, "run-1")
    shown = shell.read(Place().motd)
    with pytest.raises(Busy, match="run-1"):
        take(shell, "run-2")
    held.renew(shell)
    held.check()
    held.release(shell)
    take(shell, "run-2").release(shell)
    left = shell.run(f"ls {Place().motd}", check=False).status
    claim.observe(f"people saw: {shown.strip()}")
    assert held.took_over is None
    assert "run-1" in shown
    assert left != 0, "the words for people are still there"


def test_many_takers(shell: Shell, claim: Claim) -> None:
    """Of many processes that take a free machine at once, exactly one gets it."""
    place = Place(folder="/tmp/many", motd="/tmp/motd/many")
    seen = look(shell, place)
    start = "/tmp/many-start"
    commands = []
    for number in range(TAKERS):
        lease = Lease(
            token=secrets.token_hex(16),
            owner="a@b",
            run=f"run-{number}",
            since=seen.clock.wall,
            boot_id=seen.clock.boot_id,
            up=seen.clock.up,
            seconds=100,
        )
        # They spin until all are there.
        wait = f"while [ ! -e {start} ]; do :; done"
        commands.append(f"( {wait}\n{replace_command(place, seen, lease)} ) >/tmp/many.{number} &")
    shell.run("\n".join([*commands, f"touch {start}", "wait"]))
    answers = shell.run("cat /tmp/many.*").stdout.split()
    claim.observe(f"{answers.count('won')} of {len(answers)} got it")
    assert sorted(answers) == ["lost"] * (TAKERS - 1) + ["won"]
    assert look(shell, place).left > 0


def test_health(shell: Shell, claim: Claim, guest: Callable[..., Guest]) -> None:
    """A VM is seen while a process holds it, and with the name of that process."""
    before = examine(shell)
    vm = guest()
    during = examine(shell)
    vm.close()
    after = examine(shell)
    claim.observe(f"VMs: {[str(vm) for vm in during.vms]}; {before}")
    assert [vm.name for vm in during.vms] == ["kvm-guest"]
    assert before.vms == after.vms == ()
    (told,) = left_behind(before, during)
    assert told == f"VMs run: {during.vms[0]}"
    assert before.tainted == int(shell.read("/proc/sys/kernel/tainted"))
