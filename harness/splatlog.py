# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel reported in a cell, from the files that the cell left."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness.hosts.console import LIMIT
from harness.observe import klog
from harness.observe.signatures import OF_THE_MACHINE
from harness.observe.splats import Finding, distinct, merge
from harness.results import Splat

# A kernel that warns at each of its steps: what is beyond is in the console.
MAX_FINDINGS = 32
MAX_TITLE = 300
# What the check of the kernel log keeps of dmesg(1), which has what the console does not show.
DMESG = "*/dmesg-whole.txt"
# Of a kernel for arm64 (arch/arm64/kernel/setup.c).
FIRST_LINE = "Booting Linux on physical CPU"
# Folders, one for each boot of the cell that was cut off by a kill (harness/resume.py).
CUT = "cut-*"


def findings(folder: Path) -> tuple[Finding, ...]:
    """The distinct reports in a cell's consoles and, where a check kept it, its dmesg."""
    consoles = (*earlier_consoles(folder).values(), whole_text(folder / "console.log"))
    texts = [whole_text(path) for path in sorted(folder.glob(DMESG))]
    found: tuple[Finding, ...] = ()
    for text in (*map(since_boot, consoles), *texts):
        found = merge(found, distinct(klog.splats(text)))
    # Whatever else there is, that its machine is sick must not be lost.
    first = [one for one in found if one.splat.kind in OF_THE_MACHINE]
    return (*first, *(one for one in found if one not in first))[:MAX_FINDINGS]


def illness(folder: Path) -> tuple[str, ...]:
    """What the kernel of a cell reported of its machine: hardware that is not what it should be."""
    found = findings(folder)
    return tuple(one.splat.title for one in found if one.splat.kind in OF_THE_MACHINE)


def since_boot(text: str) -> str:
    """A console from a kernel's first line on, if that is there; lines keep their numbers.

    On a machine of the lab another kernel shuts down before it: what that reports is its own.
    """
    at = max(0, text.find(FIRST_LINE))
    return "\n" * text.count("\n", 0, at) + text[at:]


def earlier_consoles(folder: Path) -> dict[str, str]:
    """The consoles of a cell's boots that were cut off, by the names of their folders."""
    paths = sorted(folder.glob(f"{CUT}/console.log"))
    return {path.parent.name: whole_text(path) for path in paths}


def records(found: Iterable[Finding]) -> tuple[Splat, ...]:
    """The same as it goes into a record, without the texts."""
    return tuple(
        Splat(
            kind=each.splat.kind.value,
            title=each.splat.title[:MAX_TITLE],
            key=each.key,
            site=each.site,
            count=each.count,
            complete=each.splat.complete,
        )
        for each in found
    )


def whole_text(path: Path) -> str:
    """A file's text, at most as much as a console may have; "" if there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as handle:
        return handle.read(LIMIT).decode(errors="replace")
