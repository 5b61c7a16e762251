# SPDX-License-Identifier: GPL-2.0-only
"""A cell records who must set the access flag on its CPUs before anything can refuse its host."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_observe_af import NONCE, SavedHost

from harness import cell as cell_module
from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts import proof
from harness.hosts.proof import Proof
from harness.hosts.recorder import Journal, RecordedShell
from harness.inventory import AfMode, QemuHost
from harness.observe.af import Expected
from harness.plan import PlannedCell
from harness.results import CpuAf, KernelLabel


class N1(SavedHost):
    """Neoverse N1 with MGLRU's walk, if it may be asked."""

    def __init__(self, asked: bool) -> None:
        super().__init__("neoverse-n1")
        self._asked = asked

    def read(self, path: str, deadline: Deadline | None = None) -> str:
        assert self._asked, f"asked to read {path}"
        return "0x0003\n"


BOOTED = cell_module.Booted(
    build_id="ab", boot_id="cd", kvm_line="kvm", cmdline="panic=15", boot_seconds=1.0
)


def run(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    kernel: KernelLabel,
    inventory: AfMode = "hardware",
    af_mode: AfMode = "hardware",
    variant: str = "",
    shell: SavedHost | None = None,
) -> tuple[dict[str, Any], list[tuple[Expected, ...]]]:
    """What became known of the cell, and what its checks were told; without checks."""
    told: list[tuple[Expected, ...]] = []
    monkeypatch.setattr(cell_module, "quiet", lambda shell: contextlib.nullcontext())
    monkeypatch.setattr(cell_module, "CellPlugin", lambda *args: told.append(args[4]))
    monkeypatch.setattr(cell_module, "_check", lambda *args: None)
    spec: Any = SimpleNamespace(
        host=QemuHost(kind="qemu", cpu="some", af=inventory, kvm_modes=("vhe",)),
        cell=PlannedCell("n1", kernel, "vhe", af_mode, variant),
        linux_guest=False,
        folder=folder,
    )
    host: Any = SimpleNamespace(console=None, shell=None)
    asked: Any = shell or N1(asked=kernel == "base")
    facts: dict[str, Any] = {}
    with contextlib.closing(Journal(folder / "commands.jsonl")) as journal:
        try:
            recorded = RecordedShell(asked, journal)
            cell_module._prepare_and_check(spec, facts, BOOTED, recorded, host)
        except InfraError as exc:
            facts["refused"] = str(exc)
    return facts, told


@pytest.mark.parametrize("kernel", ["base", "patched"])
def test_what_is_expected_is_recorded_and_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kernel: KernelLabel
) -> None:
    facts, ((kind,),) = run(monkeypatch, tmp_path, kernel)
    (record,) = facts["af_cpus"]
    assert record == CpuAf(
        cpus="0-1", midr="0x414fd0c1", model="Neoverse N1", expected="hardware", why=kind.why
    )
    assert "cpu1 0x00000000414fd0c1\n" in (tmp_path / "cpus.txt").read_text()
    # Before the first check begins, so a kill in the last one loses nothing of it.
    kept = cell_module.Booted.model_validate_json((tmp_path / "booted.json").read_text())
    assert kept.af_cpus == (record,)
    assert facts["cmdline"] == kept.cmdline == "panic=15"


@pytest.mark.parametrize("kernel", ["base", "patched"])
def test_an_inventory_that_is_wrong_about_the_cpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kernel: KernelLabel
) -> None:
    """No series is to be blamed for it, so neither kernel's checks run; the record is there."""
    facts, told = run(monkeypatch, tmp_path, kernel, inventory="software", af_mode="software")
    assert "says af: software, but CPU 0-1 (Neoverse N1) has FEAT_HAFDBS" in facts["refused"]
    assert not told
    assert [kind.expected for kind in facts["af_cpus"]] == ["hardware"]


def test_a_boot_variant_by_which_software_sets_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    facts, _ = run(monkeypatch, tmp_path, "patched", af_mode="software", variant="sw-af")
    (record,) = facts["af_cpus"]
    assert record.expected == "software"
    assert "by the boot variant sw-af" in record.why


def test_a_boot_variant_that_leaves_it_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    facts, _ = run(monkeypatch, tmp_path, "patched", variant="other")
    assert [kind.expected for kind in facts["af_cpus"]] == ["hardware"]


def test_what_was_proven_of_a_boot_is_recorded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shown = Proof("ab", "cc", "cd", "6.12", "kvm", "panic=15")
    monkeypatch.setattr(proof, "prove", lambda *args: shown)
    kernel = SimpleNamespace(build_id="ab", config_sha256="cc")
    spec: Any = SimpleNamespace(
        kernel=kernel, cell=PlannedCell("n1", "base", "vhe", "hardware"), seen_boot_ids=(),
        machine="",
    )  # fmt: skip
    shell: Any = None
    assert cell_module._prove(spec, shell, 1.0) == BOOTED


class Boaster(SavedHost):
    """Cortex-A57 under a kernel that says that these CPUs manage dirty state, as none can."""

    def __init__(self) -> None:
        super().__init__("cortex-a57")
        line = "[    0.100000] CPU features: detected: Hardware dirty bit management on CPU0-1"
        self._text = self._text.replace(f"{NONCE} log\n", f"{NONCE} log\n{line}\n")

    def read(self, path: str, deadline: Deadline | None = None) -> str:
        return "0x0001\n"


@pytest.mark.parametrize(("kernel", "refused"), [("base", True), ("patched", False)])
def test_what_a_patched_kernel_says_of_its_cpus_is_no_witness(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kernel: KernelLabel, refused: bool
) -> None:
    """A series that breaks the detection must not have the inventory blamed for it."""
    words: dict[str, AfMode] = {"inventory": "software", "af_mode": "software"}
    facts, _ = run(monkeypatch, tmp_path, kernel, **words, shell=Boaster())
    assert ("refused" in facts) == refused
