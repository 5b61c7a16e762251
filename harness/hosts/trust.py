# SPDX-License-Identifier: GPL-2.0-only
"""Pin the host keys on the way to a machine, each after somebody has agreed to it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import paramiko
from fabric import Connection

from harness.deadline import Deadline
from harness.errors import UsageError
from harness.hosts import pins, ssh
from harness.hosts.route import address_of, require_login_key, shown_key, way_to
from harness.hosts.ssh import HostKeyChanged
from harness.inventory import SshHost

SERVER_SECONDS = 30.0


@dataclass(frozen=True)
class Offer:
    """A host key that is to be pinned, and the one that it takes the place of."""

    place: str
    seen: paramiko.PKey
    pinned: paramiko.PKey | None = None

    def __str__(self) -> str:
        before = f"\n  pinned until now  {ssh.describe(self.pinned)}" if self.pinned else ""
        return f"{self.place}\n  shows             {ssh.describe(self.seen)}{before}"


def trust(
    name: str,
    host: SshHost,
    path: Path,
    accept: Callable[[Offer], bool],
    say: Callable[[str], None],
    *,
    replace: bool = False,
    seconds: float = SERVER_SECONDS,
) -> None:
    """Pin what `accept` agrees to, in the file `path`, from the controller's end of the way on.

    `replace` is for machines that were set up anew: without it, another key than the pinned one is
    HostKeyChanged. UsageError if `accept` does not agree; what is behind that server is not asked.
    Each server has `seconds` to show its key, and as many to let us through: however long a person
    thinks before is no fault of its.
    """
    way = way_to(host)
    with contextlib.ExitStack() as stack:
        via: Connection | None = None
        for at, server in enumerate(way, 1):
            label = pins.pin_name(way[:at])
            pinned = pins.load(path).get(label)
            seen = shown_key(server, Deadline(seconds), via=via, pinned=pinned)
            offer = Offer(f"{server.address}:{server.port}", seen, pins.to_key(pinned))
            if offer.pinned == seen:
                say(f"{offer.place}: {ssh.describe(seen)} is pinned already")
            elif offer.pinned is not None and not replace:
                raise HostKeyChanged(
                    f"another host key than the pinned one: {offer}\n"
                    "Somebody may be in between. If it was set up anew: "
                    f"`kvm-harness hosts retrust {name}`"
                )
            elif not accept(offer):
                raise UsageError(f"{offer.place}: not pinned")
            else:
                pins.pin(path, label, seen)
                say(f"{offer.place}: pinned {ssh.describe(seen)}")
            if server is not host:
                require_login_key(name, server)
                address = address_of(server, pins.text_of(seen))
                via = ssh.connect(address, Deadline(seconds), via=via)
                stack.callback(ssh.disconnect, via)
