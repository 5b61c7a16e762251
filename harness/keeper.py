# SPDX-License-Identifier: GPL-2.0-only
"""Drive a keeper: a process on the host that keeps the fd of a guest's VM when its owner has gone.

docs/guest-protocol.md describes it. A keeper must be there before the guest that gives to it, so
that the two share no memory. It ends by itself after a while, so that no VM stays behind.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from harness.companion import Companion
from harness.guest_words import Holder
from harness.guests import Guest
from harness.hosts.protocols import Shell


@dataclass(frozen=True)
class Keeper:
    """A running keeper, by the name that guests give to."""

    process: Companion
    name: str

    def keep(self, vm: Guest, what: Holder = "vm") -> None:
        """Have a guest hand over its VM's fd, or another that holds the VM; the errors of both."""
        vm.give(self.name, what)
        self.process.ask("take", "ok kept=1")

    def drop(self) -> None:
        """Close what is kept: with it the VM ends, if its owner has gone."""
        self.process.ask("drop", "ok kept=0")


@contextlib.contextmanager
def keeper(shell: Shell, slowdown: float = 1.0) -> Iterator[Keeper]:
    """A keeper that ends, and with it every VM that it keeps, when it is left.

    Its name is its own. `slowdown` is how many times slower than usual the host is. Raises what
    harness.companion does.
    """
    name = secrets.token_hex(8)
    options = ("--keeper", name)
    with Companion.start(shell, options, "keeper", f"keeper={name}", slowdown) as process:
        yield Keeper(process, name)
