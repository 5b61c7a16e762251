# SPDX-License-Identifier: GPL-2.0-only
"""`kvm-harness report`: a run in the form that somebody else reads."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from harness.errors import EXIT_PASS, UsageError
from harness.printable import printable
from harness.records import write_text_atomically
from harness.report.annotations import github
from harness.report.evidence import reader
from harness.report.facts import ORIGIN
from harness.report.junit import junit
from harness.report.ktap import ktap
from harness.report.load import load
from harness.report.mail import mail, withheld
from harness.report.markdown import markdown
from harness.report.text import text_report
from harness.results import Summary
from harness.runfolder import find_run, refuse_imported

WIDTH = 120


@dataclass(frozen=True)
class Request:
    """A run, where it lies, and what the user says beside it."""

    run: Summary
    folder: Path
    origin: str
    tested_by: str | None


def _kcidb(given: Request) -> str:
    # Its schema takes a while to load, and no other command wants it.
    from harness.report.kcidb import kcidb

    return kcidb(given.run, given.folder.name, reader(given.folder), given.origin)


def _text(given: Request) -> str:
    out = io.StringIO()
    Console(file=out, width=WIDTH, highlight=False, color_system=None).print(text_report(given.run))
    return out.getvalue()


def _html(given: Request) -> str:
    # What draws its plots takes half a second to load, and no other command wants it.
    from harness.report.html import html_report

    return html_report(given.run, given.folder)


FORMATS: Mapping[str, Callable[[Request], str]] = {
    "text": _text,
    "markdown": lambda given: markdown(given.run, reader(given.folder)),
    "html": _html,
    "junit": lambda given: junit(given.run),
    "ktap": lambda given: ktap(given.run),
    "kcidb": _kcidb,
    "github": lambda given: github(junit(given.run)),
    "mail": lambda given: mail(given.run, reader(given.folder), given.tested_by),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of `kvm-harness report`."""
    parser.add_argument(
        "run", nargs="?", metavar="RUN", help="a run's folder or its name (default: the newest)"
    )
    parser.add_argument(
        "--format", choices=FORMATS, default="text", help="the form (default: text)"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="default: standard output"
    )
    parser.add_argument(
        "--origin",
        default=ORIGIN,
        metavar="NAME",
        help=f"who reports, as KCIDB knows them (kcidb; default: {ORIGIN})",
    )
    parser.add_argument(
        "--tested-by",
        metavar='"NAME <MAIL>"',
        help="say Tested-by, if the run is whole and passes (mail)",
    )
    parser.set_defaults(command=report)


def report(args: argparse.Namespace, console: Console) -> int:
    """Print the report, or write it to a file."""
    folder = find_run(args.run)
    run = load(folder)
    if args.tested_by is not None and args.format != "mail":
        raise UsageError("--tested-by is for --format mail")
    if args.tested_by is not None:
        refuse_imported(folder, "nobody here can say Tested-by of it")
    if args.format == "text" and args.output is None:
        console.print(text_report(run))
        return EXIT_PASS
    text = FORMATS[args.format](Request(run, folder, args.origin, args.tested_by))
    if args.tested_by is not None and (why := withheld(run)):
        print(printable(f"kvm-harness: no Tested-by: of this run, {why}"), file=sys.stderr)
    if args.output is None:
        sys.stdout.buffer.write(text.encode())
    else:
        _write(args.output, text)
    return EXIT_PASS


def _write(path: Path, text: str) -> None:
    try:
        write_text_atomically(path, text)
    except OSError as exc:
        raise UsageError(f"--output {path}: {exc.strerror}") from exc
