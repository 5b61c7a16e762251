# SPDX-License-Identifier: GPL-2.0-only
"""`kvm-harness hosts kernel`: the base kernel of a machine's own configuration."""

from __future__ import annotations

import argparse
import contextlib
from functools import partial

from rich.console import Console

from harness import inventory, prepare
from harness.deadline import Deadline
from harness.errors import EXIT_PASS, UsageError
from harness.hosts import machine_config, pins
from harness.hosts.builder import builder_on
from harness.hosts.route import CONTACT_SECONDS, open_shell
from harness.kernel import source
from harness.kernel.build import build
from harness.kernel.buildlog import BuildProgress
from harness.kernel.built import Kernel
from harness.kernel.flavor import DEBUG, PLAIN, on_machine
from harness.printable import printable
from harness.progress import Progress

# In the lease of a machine that builds.
RUN = "hosts-kernel"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of `kvm-harness hosts kernel`."""
    parser.add_argument("--source", metavar="SOURCE", help="default: that of the inventory")
    parser.add_argument("--debug", action="store_true", help="with KASAN, lockdep and the like")


def kernel(args: argparse.Namespace, console: Console) -> int:
    """Read a machine's configuration, build the kernel from it, and say where it is."""
    stock = inventory.load(args.inventory)
    host = stock.ssh(args.host)
    if host.config != "machine":
        raise UsageError(f"host {args.host!r} lacks `config: machine` in the inventory")
    progress = Progress(console)
    with progress.stage(f"configuration of {args.host}"):
        known = pins.load(pins.pins_path())
        with open_shell(args.host, host, known, Deadline(CONTACT_SECONDS)) as shell:
            found = machine_config.read(shell, trim=host.trim)
    progress.say(f"configuration: {found}")
    with progress.stage("kernel source"):
        tree = source.resolve(
            args.source or stock.defaults.source, Deadline(prepare.SOURCE_SECONDS)
        )

    def at(now: BuildProgress) -> None:
        progress.now(f"kernel: {now.done} of about {now.expected} steps ({now.current})")

    with contextlib.ExitStack() as stack:
        builder = None
        if host.build == "on-host":
            told = partial(_say, progress, args.host)
            builder = stack.enter_context(builder_on(args.host, host, RUN, 0, told))
        stack.enter_context(progress.stage("kernel"))
        built = build(
            tree,
            fragments=on_machine(DEBUG if args.debug else PLAIN).fragments,
            base=None,
            machine=found,
            builder=builder,
            deadline=Deadline(prepare.MACHINE_BUILD_SECONDS),
            progress=at,
        )
    for line in report(built):
        print(line)
    return EXIT_PASS


def _say(progress: Progress, host: str, words: str) -> None:
    progress.say(f"{host}: {printable(words)}")


def report(built: Kernel) -> tuple[str, ...]:
    """What was built, one thing a line."""
    return (
        f"release   {built.release}",
        f"build id  {built.build_id}",
        f"built in  {built.seconds:.0f} s, {built.steps} steps"
        + (f" on {built.builder}" if built.builder else "")
        + (" (from the cache)" if built.cached else ""),
        f"image     {built.image}",
        f"modules   {built.modules}",
        f"config    {built.config}",
    )
