# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's log over the whole boot, from the console's first byte to the last check."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import splatlog
from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.hosts.protocols import Shell
from harness.observe import klog, lockdep
from harness.observe.splats import Finding, counted, distinct, merge
from harness.observe.unproven import Unproven


@pytest.mark.quick
@pytest.mark.last
def test_kernel_log(shell: Shell, console: Callable[[], str], claim: Claim, cell: CellSpec) -> None:
    """No WARN, BUG, Oops, stall, EL2 panic or other splat in console and dmesg.

    Lockdep, KASAN and their like report only in debug kernels.
    """
    texts = {"console.txt": console(), "dmesg-whole.txt": shell.run("dmesg").stdout}
    claim.save_all(texts)
    lines = {name: klog.kernel_lines(text) for name, text in texts.items()}
    if not all(lines.values()):
        raise Unproven(f"a log without a line of the kernel's: {lines}")
    # A cell that was cut off has had other boots, and nothing else judges what they said.
    earlier = splatlog.earlier_consoles(cell.folder)
    claim.save_all({f"console-{name}.txt": text for name, text in earlier.items()})
    found: tuple[Finding, ...] = ()
    for text in (*earlier.values(), *texts.values()):
        found = merge(found, distinct(klog.splats(text)))
    claim.splats = found
    if found:
        claim.save("splats.txt", "\n\n".join(each.splat.text for each in found) + "\n")
    titles = [each.splat.title for each in found]
    claim.observe(f"{'; '.join(titles[:3]) or 'none'} in {lines['dmesg-whole.txt']} lines")
    if mended := max(map(klog.corrected_errors, texts.values())):
        claim.observe(f"errors of the hardware that were corrected: {mended}")
    watching = True
    if cell.debug:
        stats = shell.read(lockdep.STATS)
        claim.save("lockdep_stats.txt", stats)
        watching = lockdep.armed(stats)
        claim.observe(f"lockdep {'watched' if watching else 'did not watch'} to the end")
    assert not found, f"{counted(len(titles))}: {'; '.join(titles[:3])}"
    if not watching:
        raise Unproven("lockdep has switched itself off, and did not say why")
