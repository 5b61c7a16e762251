# SPDX-License-Identifier: GPL-2.0-only
"""The power switch of a QEMU, as a command of a lab: `lab_power.py SOCKET on|off|reset`."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from typing import Any

from harness.deadline import Deadline
from harness.hosts.power import QmpPower
from harness.hosts.qmp import Monitor

SECONDS = 20.0


@contextlib.contextmanager
def monitor(path: str) -> Iterator[Monitor]:
    """That at a Unix socket, which serves one at a time."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        with contextlib.closing(Monitor(sock, Deadline(SECONDS))) as found:
            yield found


def ask(path: str, command: str, **arguments: str) -> Any:
    """Give a command to the monitor at a Unix socket; what it returned."""
    with monitor(path) as found:
        return found.execute(command, Deadline(SECONDS), **arguments)


if __name__ == "__main__":
    with monitor(sys.argv[1]) as made:
        switch = QmpPower(made)
        {"on": switch.on, "off": switch.off, "reset": switch.reset}[sys.argv[2]](Deadline(SECONDS))
