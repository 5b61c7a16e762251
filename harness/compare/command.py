# SPDX-License-Identifier: GPL-2.0-only
"""`kvm-harness compare`: what differs between two runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from harness.compare.changes import compare
from harness.compare.report import text_report
from harness.errors import UsageError
from harness.records import write_atomically
from harness.report.load import load
from harness.runfolder import find_run

_EPILOG = "exit codes: 0 no worse, 1 something got worse, 2 refused, 4 not all could be told"


def add_parser(parser: argparse.ArgumentParser) -> None:
    """Options of `kvm-harness compare`."""
    parser.epilog = _EPILOG
    parser.add_argument("one", metavar="A", help="a run's folder or its name: what was before")
    parser.add_argument("other", metavar="B", help="the run that is judged")
    parser.add_argument(
        "--force",
        action="store_true",
        help="compare runs of unlike things as well; the report says so",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write it for programs as well")
    parser.set_defaults(command=_compare)


def _compare(args: argparse.Namespace, console: Console) -> int:
    one, other = find_run(args.one), find_run(args.other)
    found = compare(load(one), load(other), (one.name, other.name))
    if found.unlike and not args.force:
        fields = "\n".join(map(str, found.unlike))
        raise UsageError(
            f"{one.name} and {other.name} are not of like things (--force goes on):\n{fields}"
        )
    if args.json is not None:
        try:
            write_atomically(args.json, found)
        except OSError as exc:
            raise UsageError(f"--json {args.json}: {exc.strerror}") from exc
    console.print(text_report(found))
    return found.exit_code
