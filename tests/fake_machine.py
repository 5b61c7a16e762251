# SPDX-License-Identifier: GPL-2.0-only
"""A machine of a lab without any machine: what it runs is a list of boots, one after another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from fake_shell import UnaskedShell

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts.lease import Lease
from harness.hosts.leasing import LeaseLost
from harness.hosts.machine import _ASK, Machine, Running
from harness.hosts.power import CommandPower
from harness.hosts.protocols import Result
from harness.hosts.recovery import REBOOT
from harness.hosts.ssh import NoLogin, SshAddress
from harness.inventory import PowerCommands, SshHost

GOOD = Running(f"{1:036x}", "Linux 6.1 #1", "a" * 64, "root=/dev/sda2")
BACK = Running(f"{2:036x}", GOOD.release, GOOD.notes, GOOD.cmdline)
TEST = Running(f"{3:036x}", "Linux 6.12 #1", "b" * 64, "root=/dev/sda2 kvm_harness.cell=c1")

LEASE = Lease(
    token="0" * 32, owner="me@here", run="run-1", since=1, boot_id=GOOD.boot_id, up=9, seconds=60
)


@dataclass
class World:
    """What happens to the machine. None stands for one that does not answer."""

    boots: list[Running | None]
    """The first is running; each order takes it to the next."""
    done: list[str] = field(default_factory=list)
    """Orders, and what was said of them."""
    cut: bool = False
    """Whether a reboot takes the connection away before it is answered."""

    def order(self, what: str) -> None:
        self.done.append(what)
        if len(self.boots) > 1:
            self.boots.pop(0)

    def looked(self) -> None:
        """It was, in vain; for monkeypatch."""


class FakeShell(UnaskedShell):
    connected = True

    def __init__(self, world: World) -> None:
        self.world = world

    def other(self, command: str) -> Result:
        raise AssertionError(f"asked to run {command!r}")

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        if command == REBOOT:
            self.world.order("reboot")
            if self.world.cut:
                self.connected = False
                raise InfraError("the connection ended")
            return Result(command, 0, "", "")
        if command == "sync":
            self.world.done.append("sync")
            return Result(command, 0, "", "")
        if command != _ASK:
            return self.other(command)
        now = self.world.boots[0]
        if now is None:
            raise InfraError("no answer")
        text = f"{now.boot_id}\n{now.release}\n{now.notes}  -\n{now.cmdline}\n"
        return Result(command, 0, text, "")


class FakeMachine(Machine):
    """Its shell and power switch are those of a World."""

    world: World

    @contextlib.contextmanager
    def shell(self, *_: object, **__: object) -> Iterator[FakeShell]:  # type: ignore[override]
        if self.world.boots[0] is None:
            self.world.looked()
            raise NoLogin("no answer", SshAddress("lab", 22, "root", "", None), refused=False)
        yield FakeShell(self.world)


class Ours:
    """A lease that holds, or is lost."""

    def __init__(self, lost: InfraError | None = None) -> None:
        self.lost = lost
        self.renewed = 0
        self.ended = False
        self.lost_at = 0
        """The renewal that finds out, if not 0."""

    def check(self) -> None:
        if self.lost is not None:
            raise self.lost

    def paper(self) -> tuple[Lease, float]:
        return LEASE, 60.0

    def end(self) -> None:
        self.ended = True

    def hold(self, longer: float, slowdown: float = 1.0) -> None:
        pass

    def renew(self, shell: object, seconds: float = 0.0) -> None:
        self.renewed += 1
        if self.renewed == self.lost_at:
            raise LeaseLost("it is x's")

    @contextlib.contextmanager
    def away(self, shell: object, seconds: float) -> Iterator[None]:
        self.check()
        yield


def machine(world: World, *, power: bool = True, seconds: float = 0.05) -> FakeMachine:
    commands = PowerCommands(on=("p",), off=("p",), reset=("p",)) if power else None
    host = SshHost.model_construct(
        kind="ssh",
        address="lab",
        port=22,
        user="root",
        power=commands,
        boot_seconds=seconds,
        back_seconds=seconds,
        boot="kexec",
    )
    made = FakeMachine("lab", host, {"[lab]:22": "ssh-ed25519 AAAA"}, world.done.append)
    object.__setattr__(made, "world", world)
    return made


class Power(CommandPower):
    """For monkeypatch: each order takes the world to its next boot."""

    world: World

    def reset(self, deadline: Deadline) -> None:
        self.world.order("reset")

    def on(self, deadline: Deadline) -> None:
        self.world.order("on")

    def off(self, deadline: Deadline) -> None:
        self.world.order("off")
