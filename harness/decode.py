# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's reports with file and line, by the source's own scripts/decode_stacktrace.sh.

The script is the base's, never the patched tree's. It puts words of the log into shell arithmetic
and awk programs, and the log is what a patched kernel printed: so it runs in the sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from harness import splatlog
from harness.deadline import Deadline
from harness.errors import HarnessError, InfraError
from harness.kernel import sandbox, toolchain
from harness.observe.splats import Finding, counted, modules, suspects, taint
from harness.results import Cell, Check, KernelLabel, Splat

FILE = "splats.txt"
SCRIPT = "scripts/decode_stacktrace.sh"
# Seconds for one cell's reports.
DECODE_SECONDS = 120.0
_VMLINUX = Path("/vmlinux")
# What stands before each line while the script has it: it may change, join or split lines.
_NUMBERED = re.compile(r"L(?P<number>[0-9]{1,7}) ?(?P<text>.*)", re.DOTALL)
_UNKNOWN = "??:"
# "f (mm/a.c:1 mm/b.h:2)", innermost first; addr2line may add "(discriminator 3)" to each.
# A kernel may print whatever it likes: it is no longer than readers of a run take (MAX_NAME).
_AT = re.compile(r"(?P<name>[A-Za-z_][\w.$]{0,200}) \((?P<at>[^()\s]{1,400}:[0-9]{1,9})\b")

VmlinuxOf = Callable[[KernelLabel, Sequence[str]], Path]
"""The vmlinux with line numbers for a kernel's label and these functions; HarnessError if none."""


def decode(text: str, vmlinux: Path, source: Path, deadline: Deadline) -> str:
    """A log with file and line beside every function that `vmlinux` has line numbers for.

    All other lines stay as they are. InfraError if the source has no such script or it fails,
    DeadlineExceeded when time runs out.
    """
    if not (source / SCRIPT).is_file():
        raise InfraError(f"the source has no {SCRIPT}")
    box = sandbox.Sandbox(
        {source: sandbox.SOURCE, vmlinux: _VMLINUX},
        environment={"ARCH": "arm64", "CROSS_COMPILE": toolchain.PREFIX},
    )
    lines = text.split("\n")
    given = "".join(f"L{number} {line}\n" for number, line in enumerate(lines))
    argv = ["bash", str(sandbox.SOURCE / SCRIPT), str(_VMLINUX), str(sandbox.SOURCE)]
    done = sandbox.run(box, argv, deadline=deadline, what=SCRIPT, stdin=given.encode())
    if done.returncode != 0:
        raise InfraError(f"{SCRIPT} failed (exit {done.returncode}): {done.tail(3)}")
    return merged(lines, done.stdout)


def merged(lines: Sequence[str], output: str) -> str:
    """A log's lines, each replaced by what the script made of it where it found something.

    It prints "Code:" as several lines, and for a function without line numbers it drops the offset.
    """
    found: dict[int, list[str]] = {}
    number = -1
    for line in output.split("\n"):
        match = _NUMBERED.match(line)
        if match is not None:
            number = int(match["number"])
            line = match["text"]
        found.setdefault(number, []).append(line.rstrip())
    out: list[str] = []
    for at, line in enumerate(lines):
        made = found.get(at, [])
        decoded = len(made) == 1 and _AT.search(made[0]) and _UNKNOWN not in made[0]
        out += made if decoded else [line]
        if "Code: " in line:
            out += [more for more in made[1:] if more]
    return "\n".join(out)


def where(finding: Finding, decoded: str) -> tuple[str, ...]:
    """The innermost functions of a report with file and line, from its decoded text."""
    found: dict[str, str] = {}
    for match in _AT.finditer(decoded):
        found.setdefault(match["name"].split(".")[0], f"{match['name']} ({match['at']})")
    return tuple(found[name] for name in finding.frames if name in found)


def render(
    cell: str, findings: Sequence[Finding], told: Sequence[Splat], texts: Sequence[str], how: str
) -> str:
    """The file that has every report of a cell, whole."""
    parts = [f"kernel log of {cell}: {counted(len(findings))}", how, ""]
    for number, (finding, splat, text) in enumerate(zip(findings, told, texts, strict=True), 1):
        parts.append(f"======== {number} of {len(findings)}: {splat.kind}, {splat.count} times")
        parts.append(f"as the base kernel compares it: {splat.key}")
        parts += ["the base kernel printed it as well"] if splat.on_base else []
        if not splat.complete:
            parts.append("cut: the log ended, or another report came between, before its end")
        letters, loaded = taint(finding.splat), modules(finding.splat)
        parts += [f"taint: {letters}"] if letters else []
        parts += [f"modules: {' '.join(loaded)}"] if loaded else []
        parts += ["", text, ""]
    return "\n".join(parts)


def cells(
    struck: Sequence[Cell], folder: Path, source: Path, vmlinux_of: VmlinuxOf
) -> dict[str, Cell]:
    """Write what the kernel reported in each of these cells, decoded, and return their records.

    What cannot be decoded is written as it is, and the file says why.
    """
    found = {cell.id: splatlog.findings(folder / "cells" / cell.id) for cell in struck}
    told: dict[str, Cell] = {}
    for label in dict.fromkeys(cell.kernel for cell in struck):
        own = [cell for cell in struck if cell.kernel == label]
        functions = [
            name for cell in own for each in found[cell.id] for name in suspects(each.splat)
        ]
        vmlinux: Path | None = None
        how = f"file and line: {SCRIPT} of the base's source"
        try:
            vmlinux = vmlinux_of(label, tuple(dict.fromkeys(functions)))
        except HarnessError as exc:
            how = f"no file and line, for the kernel has no debugging information: {exc}"
        for cell in own:
            told[cell.id] = _write(cell, found[cell.id], folder, source, vmlinux, how)
    return told


def _write(
    cell: Cell,
    findings: Sequence[Finding],
    folder: Path,
    source: Path,
    vmlinux: Path | None,
    how: str,
) -> Cell:
    texts = [each.splat.text for each in findings]
    if vmlinux is not None:
        deadline = Deadline(DECODE_SECONDS)
        try:
            texts = [decode(text, vmlinux, source, deadline) for text in texts]
        except HarnessError as exc:
            how = f"no file and line: {exc}"
    new = {(splat.key, splat.site) for splat in cell.splats if not splat.on_base}
    splats = tuple(
        splat.model_copy(
            update={
                "where": where(each, text),
                "on_base": (splat.key, splat.site) not in new,
            }
        )
        for splat, each, text in zip(splatlog.records(findings), findings, texts, strict=True)
    )
    name = f"cells/{cell.id}/{FILE}"
    (folder / name).write_text(render(cell.id, findings, splats, texts, how) + "\n")
    return cell.model_copy(update={"splats": splats, "splat_file": name})


def checks(given: Iterable[Check], told: dict[str, Cell]) -> tuple[Check, ...]:
    """Checks that fail by the kernel's reports, with file and line of those and the file."""
    return tuple(_with_lines(check, told[check.cell]) if _struck(check, told) else check
                 for check in given)  # fmt: skip


def _struck(check: Check, told: dict[str, Cell]) -> bool:
    return check.cell in told and bool(check.splats)


def _with_lines(check: Check, cell: Cell) -> Check:
    known = {(splat.key, splat.site): splat.where for splat in cell.splats}
    splats = tuple(
        splat.model_copy(update={"where": known.get((splat.key, splat.site), ())})
        for splat in check.splats
    )
    evidence = (cell.splat_file, *check.evidence)
    return check.model_copy(update={"splats": splats, "evidence": evidence})
