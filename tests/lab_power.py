# SPDX-License-Identifier: GPL-2.0-only
"""The power switch of a QEMU, as a command of a lab: `lab_power.py SOCKET on|off|reset`."""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

SECONDS = 20.0
# One that ended could not be switched on again, so one that is off stands still (hosts/power.py).
# One whose CPUs stand still runs again after a reset.
ORDERS = {"on": ("cont",), "off": ("stop", "system_reset"), "reset": ("system_reset", "cont")}


def ask(path: str, *commands: str, **arguments: str) -> list[Any]:
    """Give commands to the monitor at a Unix socket, one after another; what each returned."""
    answers = []
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(SECONDS)
        sock.connect(path)
        lines = sock.makefile("rw")
        json.loads(lines.readline())
        for command in ("qmp_capabilities", *commands):
            given = {"arguments": arguments} if arguments and command in commands else {}
            lines.write(json.dumps({"execute": command, **given}) + "\n")
            lines.flush()
            while "return" not in (answer := json.loads(lines.readline())):
                if "error" in answer:
                    raise SystemExit(f"{command}: {answer['error']['desc']}")
            answers.append(answer["return"])
    return answers[1:]


if __name__ == "__main__":
    ask(sys.argv[1], *ORDERS[sys.argv[2]])
