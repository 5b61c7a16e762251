# SPDX-License-Identifier: GPL-2.0-only
"""Bugs that the tested kernel is known for, by which it may fail with nothing else wrong in it.

docs/findings.md has them. One that strikes by chance would otherwise be a false alarm of the
checks in some runs and not in others. Nothing is taken for known but by its own report: every
report of the cell, and every check that failed in it, must be of such a bug.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from harness import splatlog
from harness.mutants.results import Ran
from harness.mutants.table import Known
from harness.observe import klog, splats


def applies(known: Known, version: str, *, debug: bool, af: str) -> bool:
    """Whether the bug can strike in a cell: by the kernel's version and flavor, and who sets AF."""
    release = any(version == one or version.startswith(f"{one}.") for one in known.versions)
    return release and debug == known.debug and af in known.stage2_af


def reports(folder: Path) -> tuple[klog.Splat, ...]:
    """All that the kernel reported in a cell, each report by itself, by its consoles and dmesg."""
    console = splatlog.whole_text(folder / "console.log")
    texts = [*splatlog.earlier_consoles(folder).values(), splatlog.since_boot(console)]
    texts += [splatlog.whole_text(path) for path in sorted(folder.glob(splatlog.DMESG))]
    return tuple(splat for text in texts for splat in klog.splats(text))


def explained(ran: Ran, found: Iterable[klog.Splat], known: Mapping[str, Known]) -> dict[str, int]:
    """By which of these bugs, and how many reports of each, a cell failed; {} if not by them alone.

    A death is never explained: nothing was seen of what would have come after it. Dmesg repeats
    what the console has, so a count is that of distinct lines.
    """
    found = tuple(found)
    if ran.outcome != "fail" or ran.death or ran.deaths or not ran.why:
        return {}
    names = [_of(splat, known) for splat in found]
    if not names or None in names:
        return {}
    said = [splat.headline for splat in found]
    if not all(any(line in why for line in said) for why in ran.why.values()):
        return {}
    distinct = {(name, splat.headline) for name, splat in zip(names, found, strict=True) if name}
    return dict(Counter(name for name, _ in distinct))


def _of(splat: klog.Splat, known: Mapping[str, Known]) -> str | None:
    """The bug that a report is of: by kind, innermost functions and words."""
    innermost = splats.frames(splat)
    for name, bug in known.items():
        same = splat.kind == bug.kind and innermost[: len(bug.innermost)] == bug.innermost
        if same and all(words in splat.text for words in bug.says):
            return name
    return None
