# SPDX-License-Identifier: GPL-2.0-only
"""`kvm-harness hosts health` and `hosts put-back`."""

from __future__ import annotations

import argparse

from rich.console import Console

from harness import inventory
from harness.deadline import Deadline
from harness.errors import EXIT_PASS
from harness.hosts import aside, gate, pins
from harness.hosts.health import examine, in_use, remarks, sick
from harness.hosts.leasing import look
from harness.hosts.route import CONTACT_SECONDS, open_shell
from harness.printable import printable


def health(args: argparse.Namespace, console: Console) -> int:
    """Say whose the machine is and whether tests may run on it; InfraError if they may not.

    Also one that was set aside is looked at: whether it is well by now is what is asked then.
    """
    host = inventory.load(args.inventory).ssh(args.host)
    known = pins.load(pins.pins_path())
    with open_shell(args.host, host, known, Deadline(CONTACT_SECONDS)) as shell:
        print(f"lease: {look(shell).words()}", flush=True)
        found = examine(shell)
    for reason in (*sick(found), *in_use(found)):
        print(f"problem: {printable(reason)}", flush=True)
    for remark in remarks(found):
        print(f"note: {printable(remark)}", flush=True)
    aside.require_in_use(args.host)
    gate.require_fit(args.host, found)
    print(f"{args.host} is well")
    return EXIT_PASS


def put_back(args: argparse.Namespace, console: Console) -> int:
    """Let a machine that was set aside be used again."""
    inventory.load(args.inventory).ssh(args.host)
    print(f"{args.host} is in use again; it was {printable(str(aside.put_back(args.host)))}")
    return EXIT_PASS
