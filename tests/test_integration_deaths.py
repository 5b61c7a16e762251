# SPDX-License-Identifier: GPL-2.0-only
"""A patched kernel that dies where the base lives is a failure, with the trace; else an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command import Ended, kvm_harness

from harness.kernel import cache
from harness.paths import PROJECT

pytestmark = pytest.mark.integration

CHECK = "test_page_idle"
# The same check, in less time where it hangs.
SOON = ("--checks", str(Path(__file__).with_name("hangs_soon.py")), "--no-lines")

# arch/arm64/kvm/mmu.c of Linux 6.12, with a statement put into what ages a range of pages ...
AGE = """\
@@ -1896,6 +1896,7 @@ bool kvm_age_gfn(struct kvm *kvm, struct kvm_gfn_range *range)
 {
 \tu64 size = (range->end - range->start) << PAGE_SHIFT;
\x20
+\tSTATEMENT;
 \tif (!kvm->arch.mmu.pgt)
 \t\treturn false;
\x20
"""
AGED = "bool kvm_age_gfn("
# ... and the access fault handler without what it is for.
NO_AF = """\
@@ -1640,7 +1640,7 @@ static void handle_access_fault(struct kvm_vcpu *vcpu, phys_addr_t fault_ipa)
\x20
 \tread_lock(&vcpu->kvm->mmu_lock);
 \tmmu = vcpu->arch.hw_mmu;
-\tpte = kvm_pgtable_stage2_mkyoung(mmu->pgt, fault_ipa);
+\tpte = mmu->pgt ? 0 : kvm_pgtable_stage2_mkyoung(mmu->pgt, fault_ipa);
 \tread_unlock(&vcpu->kvm->mmu_lock);
\x20
 \tif (kvm_pte_valid(pte))
"""


def run_with(hunk: str, host: str, mode: str, folder: Path, *more: str) -> Ended:
    name = "arch/arm64/kvm/mmu.c"
    patch = folder / "0001-x.patch"
    patch.write_text(f"Subject: [PATCH] x\n\n---\n--- a/{name}\n+++ b/{name}\n{hunk}")
    args = ["run", "--series", str(patch), "--host", host, "--mode", mode, "-k", CHECK]
    return kvm_harness([*args, *more], folder)


def line_of_statement(summary: dict[str, Any]) -> int:
    """Where AGE puts its statement in the source of this run."""
    tree = cache.folder("sources") / summary["kernels"][0]["source_digest"] / "tree"
    lines = (tree / "arch/arm64/kvm/mmu.c").read_text().splitlines()
    (begin,) = (number for number, line in enumerate(lines, 1) if line.startswith(AGED))
    return begin + 4


def assert_series_is_blamed(done: Ended, cell: str, death: str) -> None:
    assert done.returncode == 1
    assert done.outcome(f"{cell}-base", CHECK) == "pass"
    check = done.check(f"{cell}-patched", CHECK)
    assert (check["outcome"], check["death"]) == ("fail", death)
    assert "base kernel lived" in check["reason"]


def test_panic_is_the_fault_of_the_series(tmp_path: Path) -> None:
    hunk = AGE.replace("STATEMENT", 'panic("aging on purpose")')
    done = run_with(hunk, "n1", "vhe", tmp_path)
    assert_series_is_blamed(done, "n1-vhe", "panic")
    trace = (done.folder / "cells" / "n1-vhe-patched" / "console.log").read_text()
    assert "Kernel panic - not syncing: aging on purpose" in trace
    assert "kvm_age_gfn" in trace
    transcript = done.folder / "cells" / "n1-vhe-patched" / CHECK / "guest.txt"
    assert "no reply in time" not in transcript.read_text(), "seen by a deadline, not at once"
    assert "Memory Limit:" in trace, "the trace was not kept to its end"
    patched = next(cell for cell in done.summary["cells"] if cell["kernel"] == "patched")
    assert patched["build_id"]
    (splat,) = patched["splats"]
    assert splat["title"] == "Kernel panic - not syncing: aging on purpose"
    assert splat["key"].startswith("panic: kvm_age_gfn < ")
    assert (splat["complete"], splat["on_base"]) == (True, False)
    told = (done.folder / patched["splat_file"]).read_text()
    assert "Memory Limit:" in told
    # By the tree's own script. The call does not return: what follows it has its line still.
    place = f"kvm_age_gfn (arch/arm64/kvm/mmu.c:{line_of_statement(done.summary)})"
    assert splat["where"][0] == place
    assert f"] {place}\n" in told
    made = kvm_harness(["reproduce", str(done.folder), "--tries", "1"], tmp_path)
    assert "seen in 1 of 1 boots of this kernel and 0 of 1" in (made.folder / "README").read_text()
    observed = (made.folder / "observed.txt").read_text()
    assert observed == "Kernel panic - not syncing: aging on purpose\n"


def test_hang_is_the_fault_of_the_series(tmp_path: Path) -> None:
    hunk = AGE.replace("STATEMENT", "for (;;) cpu_relax()")
    done = run_with(hunk, "n1", "vhe", tmp_path, *SOON)
    assert_series_is_blamed(done, "n1-vhe", "hang")


def test_livelock_is_the_fault_of_the_series(tmp_path: Path) -> None:
    done = run_with(NO_AF, "a57", "nvhe", tmp_path, *SOON)
    assert_series_is_blamed(done, "a57-nvhe", "livelock")


def test_death_of_both_kernels_is_an_error(tmp_path: Path) -> None:
    text = (PROJECT / "inventory.yaml").read_text()
    path = tmp_path / "inventory.yaml"
    path.write_text(text.replace("hugepages=1]", "rdinit=/nonesuch]"))
    args = ["run", "--inventory", str(path), "--host", "n1", "--mode", "vhe", "-k", CHECK]
    done = kvm_harness([*args, "--no-lines"], tmp_path)
    assert done.returncode == 3
    assert {cell["outcome"] for cell in done.summary["cells"]} == {"error"}
    assert {cell["death"] for cell in done.summary["cells"]} == {"panic"}
    for cell in done.summary["cells"]:
        assert [splat["kind"] for splat in cell["splats"]] == ["panic"]
        assert cell["splats"][0]["on_base"] is (cell["kernel"] == "patched")
        told = (done.folder / cell["splat_file"]).read_text()
        assert "--no-lines" in told, "why it has no file and line"
