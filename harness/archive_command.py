# SPDX-License-Identifier: GPL-2.0-only
"""`kvm-harness export` and `kvm-harness import`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from harness.archive import SUFFIX, export, import_, missing
from harness.errors import EXIT_PASS
from harness.printable import printable
from harness.runfolder import find_run
from harness.runinput import alone

# Missing files that are told one by one.
MAX_TOLD = 20


def add_export(parser: argparse.ArgumentParser) -> None:
    """Options of `kvm-harness export`."""
    parser.add_argument(
        "run", nargs="?", metavar="RUN", help="a run's folder or its name (default: the newest)"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help=f"default: NAME{SUFFIX} in this folder"
    )
    parser.set_defaults(command=_export)


def add_import(parser: argparse.ArgumentParser) -> None:
    """Options of `kvm-harness import`."""
    parser.add_argument("file", type=Path, metavar="FILE", help="an archive of a run")
    parser.set_defaults(command=_import)


def _export(args: argparse.Namespace, console: Console) -> int:
    folder = find_run(args.run)
    target = args.output or Path(f"{folder.name}{SUFFIX}")
    with alone(folder):
        manifest = export(folder, target)
        lacks = missing(folder)
    print(printable(f"{target}: {len(manifest.files)} files of {folder}"))
    _tell_missing(lacks)
    return EXIT_PASS


def _import(args: argparse.Namespace, console: Console) -> int:
    folder, new = import_(args.file)
    print(printable(f"{folder}" if new else f"{folder}: that run is there already"))
    _tell_missing(missing(folder))
    return EXIT_PASS


def _tell_missing(lacks: Mapping[str, str]) -> None:
    """Name what a run's summary names and its folder does not have, each with what names it."""
    for path, by in list(lacks.items())[:MAX_TOLD]:
        print(printable(f"missing: {path}, which {by} names"))
    if len(lacks) > MAX_TOLD:
        print(f"missing: {len(lacks) - MAX_TOLD} files more")
