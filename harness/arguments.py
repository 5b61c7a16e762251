# SPDX-License-Identifier: GPL-2.0-only
"""The options of the commands that build and boot kernels."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from harness.cost.layouts import DEFAULT, LAYOUTS
from harness.inventory import KvmMode
from harness.mutants.table import TABLE
from harness.timing import options as timing_options

_Group = argparse._ArgumentGroup


def add_cost(parser: argparse.ArgumentParser) -> None:
    """Of `cost`."""
    _add_subject(parser.add_argument_group("what is counted"))
    _add_where(parser.add_argument_group("where"))
    how = parser.add_argument_group("how")
    how.add_argument(
        "--layouts",
        type=int,
        choices=range(1, len(LAYOUTS) + 1),
        default=DEFAULT,
        metavar="N",
        help=f"boots of each kernel that differ in layout alone (default: {DEFAULT}; "
        f"{len(LAYOUTS)} at most; with 1 no difference can be judged)",
    )
    how.add_argument(
        "--repeat",
        type=positive,
        default=1,
        metavar="N",
        help="boot each kernel so often in the same layout: all must be alike to the last byte",
    )
    how.add_argument(
        "--neutral",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="kernels of the neutral mutants tell as well what is no difference (four builds the "
        "first time, and a boot of each)",
    )
    _add_output(parser.add_argument_group("output"))
    wrong = parser.add_argument_group("instead of a series")
    wrong.add_argument(
        "--mutants",
        action="store_true",
        help="count the mutants that cost more than they should, each on the first host and mode "
        "where it can show",
    )
    wrong.add_argument(
        "-k", metavar="EXPRESSION", help="with --mutants: only those whose names match"
    )


def add_time(parser: argparse.ArgumentParser) -> None:
    """Of `time`."""
    _add_subject(
        parser.add_argument_group("what is timed"),
        base_only="time the kernel without a series against itself: the noise floor alone",
    )
    where = parser.add_argument_group("where: one host in one mode of KVM")
    _add_place(where)
    _add_wait(where)
    how = parser.add_argument_group("how")
    default, most = timing_options.DEFAULT, timing_options.MOST
    how.add_argument(
        "--rounds",
        type=int,
        choices=range(1, most + 1),
        default=default,
        metavar="N",
        help=f"boots of each kernel (default: {default}; {most} at most; fewer than "
        f"{timing_options.ENOUGH} show nothing)",
    )
    how.add_argument(
        "--no-aa",
        action="store_true",
        help="do not boot the base kernel twice in a round, which gives the noise floor",
    )
    how.add_argument("-k", metavar="EXPRESSION", help="only measurements whose names match")
    how.add_argument("--seed", type=int, default=1, help="of the order of boots (default: 1)")
    _add_output(parser.add_argument_group("output"))


def add_run(parser: argparse.ArgumentParser) -> None:
    """Of `run`, and of `repeat`, which runs the same many times."""
    what = parser.add_argument_group("what is tested")
    _add_subject(what)
    what.add_argument(
        "--debug",
        action="store_true",
        help="debug kernels: KASAN, lockdep, page poisoning and their like (slower)",
    )
    what.add_argument(
        "--no-lines",
        action="store_true",
        help="do not look up file and line of what a kernel reports (a build step is saved)",
    )
    where = parser.add_argument_group("where")
    _add_where(where)
    _add_wait(where)
    checks = parser.add_argument_group("which checks (as in pytest)")
    checks.add_argument("-k", metavar="EXPRESSION", help="only checks whose names match")
    checks.add_argument(
        "-m",
        metavar="MARK",
        help="only checks that are so marked (quick, deep, stress), and the kernel's log",
    )
    checks.add_argument("-x", action="store_true", help="end a cell at its first failure")
    checks.add_argument(
        "--checks",
        action="append",
        default=[],
        type=Path,
        metavar="PATH",
        help="check files of your own, instead of those that come with the harness",
    )
    checks.add_argument(
        "--selftests",
        action="store_true",
        help="the kernel's own KVM selftests as well (only them: with -m selftests)",
    )
    checks.add_argument(
        "--build-others",
        action="store_true",
        help="unless -k, -m or --checks is given: see whether x86-64 with KVM builds, too (the "
        "first time a whole build of it)",
    )
    checks.add_argument(
        "--linux-guest",
        action="store_true",
        help="checks with a Linux guest under QEMU as well (only them: with -m linux_guest)",
    )
    checks.add_argument("--seed", type=int, default=1, help="of every random choice (default: 1)")
    _add_output(parser.add_argument_group("output"))


def _add_subject(what: _Group, *, base_only: str = "test the kernel without a series") -> None:
    """`base_only` is what that option does."""
    what.add_argument(
        "--series",
        action="append",
        default=[],
        metavar="SERIES",
        help="name under series/, folder, mbox, patch files, or git:DIR#A..B",
    )
    what.add_argument(
        "--mbox",
        type=Path,
        metavar="FILE",
        help="the patches of a --series that is a contract without them",
    )
    what.add_argument(
        "--source", metavar="SOURCE", help="debian:PACKAGE, tar:FILE, tree:DIR or git:URL#REF"
    )
    what.add_argument("--base-only", action="store_true", help=base_only)
    what.add_argument(
        "--allow-other-base",
        action="store_true",
        help="test a series on another commit than its base-commit; the report says so",
    )


def _add_where(where: _Group) -> None:
    _add_place(where)
    where.add_argument(
        "--jobs", type=positive, default=0, help="emulated hosts at once (default: CPUs)"
    )


def _add_wait(where: _Group) -> None:
    where.add_argument(
        "--wait",
        type=positive,
        default=0,
        metavar="SECONDS",
        help="for a machine that another has (default: none, the cell is an error)",
    )


def _add_place(where: _Group) -> None:
    where.add_argument("--inventory", type=Path, metavar="FILE", help="default: inventory.yaml")
    where.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME",
        help="only this host, or group of machines",
    )
    where.add_argument(
        "--mode",
        action="append",
        default=[],
        choices=get_args(KvmMode),
        help="only this mode of KVM",
    )


def _add_output(output: _Group) -> None:
    output.add_argument("--output", type=Path, metavar="DIR", help="where run folders go")
    output.add_argument("--junitxml", type=Path, metavar="FILE", help="a copy of junit.xml")


def add_join(group: _Group) -> None:
    """Of `repeat` that runs nothing."""
    group.add_argument(
        "--join",
        nargs="+",
        type=Path,
        metavar="RECORD",
        help="run nothing: add up what these have, each a repeat.json, a mutants.json (what is "
        "sound of it), or the folder of one",
    )
    group.add_argument(
        "--markdown", type=Path, metavar="FILE", help="with --join: write docs/false-alarms.md anew"
    )


def add_mutants(parser: argparse.ArgumentParser) -> None:
    """Of `mutants`."""
    parser.add_argument(
        "--table",
        type=Path,
        default=TABLE,
        metavar="FILE",
        help="of mutants, with their patches beside it (default: tests/mutants/mutants.yaml)",
    )
    parser.add_argument("-k", metavar="EXPRESSION", help="only mutants whose names match")
    parser.add_argument(
        "--seeds",
        type=_seeds,
        default=(1,),
        metavar="N,N,...",
        help="of random choices (default: 1)",
    )
    parser.add_argument(
        "--named", action="store_true", help="only the checks that must catch them: no matrix"
    )
    parser.add_argument(
        "--all-cells", action="store_true", help="every cell where a mutant can show at all"
    )
    parser.add_argument(
        "--host", action="append", default=[], metavar="NAME", help="only this host"
    )
    parser.add_argument(
        "--mode", action="append", default=[], choices=get_args(KvmMode), help="only this KVM mode"
    )
    parser.add_argument("--jobs", type=positive, default=0, help="cells at once (default: CPUs)")
    parser.add_argument("--inventory", type=Path, metavar="FILE", help="default: inventory.yaml")
    parser.add_argument("--source", metavar="SOURCE", help="as for run")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where the folder goes")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write docs/mutants.md anew")
    parser.add_argument(
        "--join",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="run nothing: show what these runs found, each of a part of the table, as one; a run "
        "is its folder, or its mutants.json alone, under the name of the folder",
    )


def add_reproduce(parser: argparse.ArgumentParser) -> None:
    """Of `reproduce`."""
    parser.add_argument(
        "run", nargs="?", metavar="RUN", help="its folder or its name (default: newest)"
    )
    parser.add_argument(
        "--check", action="append", default=[], metavar="NAME", help="only this check"
    )
    parser.add_argument("--cell", action="append", default=[], metavar="ID", help="only this cell")
    parser.add_argument(
        "--tries", type=positive, default=2, help="boots of each kernel (default: 2)"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: RUN/reproducers")


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"numbers with commas between, not {text!r}") from None


def positive(text: str) -> int:
    """A number from 1 on."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"a number from 1 on, not {text!r}")
    return int(text)
