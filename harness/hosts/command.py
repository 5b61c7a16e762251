# SPDX-License-Identifier: GPL-2.0-only
"""`kvm-harness hosts`: list them, pin their keys, say whether they are fit."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from harness import inventory
from harness.errors import EXIT_ERROR, EXIT_PASS, UsageError
from harness.hosts import aside, health_command, kernel_command, pins
from harness.hosts.examine import examine
from harness.hosts.fitness import HARDWARE, insisting, lacking
from harness.hosts.trust import Offer, trust
from harness.inventory import QemuHost, SshHost
from harness.printable import printable


def add_parser(parser: argparse.ArgumentParser) -> None:
    """Options and commands of `kvm-harness hosts`."""
    parser.add_argument("--inventory", type=Path, metavar="FILE", help="default: inventory.yaml")
    parser.set_defaults(command=show)
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, function, words in (
        ("check", check, "say what a machine lacks for test kernels"),
        ("trust", _trust, "show the host key of a machine and pin it"),
        ("retrust", _retrust, "as trust, for a machine that was set up anew"),
        ("health", health_command.health, "say whose a machine is, and whether it is well"),
        ("put-back", health_command.put_back, "use a machine again that was set aside"),
        ("kernel", kernel_command.kernel, "build a kernel from a machine's own configuration"),
    ):
        one = commands.add_parser(name, help=words, description=words)
        one.add_argument("host", metavar="NAME", help="of the inventory, of kind ssh")
        # SUPPRESS: the option's default here would undo what stands before the command.
        one.add_argument("--inventory", type=Path, metavar="FILE", default=argparse.SUPPRESS)
        if function in (_trust, _retrust):
            one.add_argument(
                "--yes",
                action="append",
                default=[],
                metavar="FINGERPRINT",
                help="pin the key with this fingerprint (SHA256:...), no other, and ask nobody",
            )
        if function is check:
            one.add_argument(
                "--hardware",
                action="store_true",
                help="hardware is missing where the machine says that it is emulated",
            )
        if function is kernel_command.kernel:
            kernel_command.add_options(one)
        one.set_defaults(command=function)


def show(args: argparse.Namespace, console: Console) -> int:
    """List the hosts, and why any are set aside."""
    hosts = inventory.load(args.inventory).hosts
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("host", "kind", "CPU", "AF set by", "KVM modes", "CPUs", "memory", "note"):
        table.add_column(head)
    for name, host in hosts.items():
        table.add_row(name, *_row(host))
    console.print(table)
    for name in hosts:
        if out := aside.find(name):
            print(printable(f"{name} was {out}"))
    return EXIT_PASS


def _row(host: QemuHost | SshHost) -> Sequence[str]:
    modes = " ".join(host.kvm_modes)
    if isinstance(host, SshHost):
        group = f"group {host.group}; " if host.group else ""
        return ("SSH", "", host.af, modes, "", "", f"{group}never run on hardware")
    return (
        "emulated (QEMU)",
        host.cpu,
        host.af,
        modes,
        str(host.cpus),
        f"{host.memory_mib} MiB",
        "",
    )


def check(args: argparse.Namespace, console: Console) -> int:
    """Say what the host lacks."""
    findings = examine(args.host, inventory.load(args.inventory).ssh(args.host)).findings
    if args.hardware:
        findings = insisting(findings, HARDWARE)
    for one in findings:
        print(one)
    return EXIT_ERROR if lacking(findings) else EXIT_PASS


def _trust(args: argparse.Namespace, console: Console) -> int:
    return _pin(args, replace=False)


def _retrust(args: argparse.Namespace, console: Console) -> int:
    return _pin(args, replace=True)


def _pin(args: argparse.Namespace, *, replace: bool) -> int:
    host = inventory.load(args.inventory).ssh(args.host)
    accept = _only(args.yes) if args.yes else _ask
    trust(args.host, host, pins.pins_path(), accept, print, replace=replace)
    return EXIT_PASS


def _only(fingerprints: Sequence[str]) -> Callable[[Offer], bool]:
    def accept(offer: Offer) -> bool:
        if offer.seen.fingerprint not in fingerprints:
            raise UsageError(f"--yes names another key: {offer}")
        return True

    return accept


def _ask(offer: Offer) -> bool:
    if not sys.stdin.isatty():
        raise UsageError(
            f"nobody to ask: {offer}\nCompare that with the machine's own, then say "
            f"--yes {offer.seen.fingerprint}"
        )
    print(offer)
    print("Pin this key? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
