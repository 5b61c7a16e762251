# SPDX-License-Identifier: GPL-2.0-only
"""`kvm-harness figures simulate`: how often verdicts on figures are wrong."""

from __future__ import annotations

import argparse

from rich.console import Console

TRIALS = 400
_ORDER = "base first in each round: a measurement must not do so, and drift looks like an effect"


def add_parser(parser: argparse.ArgumentParser) -> None:
    """Options and commands of `kvm-harness figures`."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    words = "say how often verdicts on figures are wrong, on data with known effects"
    one = commands.add_parser("simulate", help=words, description=words)
    one.add_argument("--trials", type=_trials, default=TRIALS, help=f"of each (default: {TRIALS})")
    one.add_argument("--seed", type=int, default=1, help="of all random numbers (default: 1)")
    one.add_argument("--fixed-order", action="store_true", help=_ORDER)
    one.set_defaults(command=_simulate)


def _trials(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def _simulate(args: argparse.Namespace, console: Console) -> int:
    # Its numerics take a quarter of a second to load, and no other command wants them.
    from harness.figures.simulate import Setting
    from harness.figures.tables import show

    return show(Setting(args.trials, abs(args.seed), args.fixed_order), console)
