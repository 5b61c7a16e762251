# SPDX-License-Identifier: GPL-2.0-only
"""What a run records: the types of records.jsonl and of summary.json (docs/summary.md)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.errors import Death, Lost
from harness.inventory import AfMode, KvmMode

SCHEMA = 1

SERIES = "series"
"""Stands for a cell where a check is of the series itself; no cell has this id."""
KERNEL_LOG = "test_kernel_log"
"""The check that judges what the kernel reported."""

NONE = "none"
"""The word for a condition of times that a host does not have."""

KernelLabel = Literal["base", "patched"]
Outcome = Literal["pass", "fail", "error", "skip", "unproven"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Splat(_Model):
    """Reports in a kernel's log that have one cause, as far as their traces tell."""

    kind: str
    """What it is: "warn", "oops", "lockdep" ... (harness/observe/signatures.py)."""
    title: str
    """The line that names it."""
    key: str
    """Kind and innermost functions: equal for one cause, in other kernels too."""
    site: str = ""
    """File and line of the WARN() or BUG(), where it says them."""
    count: int = 1
    complete: bool = True
    """Whether the log has it to its end."""
    on_base: bool = False
    """The base kernel printed it as well, on the same host in the same mode of this run."""
    where: tuple[str, ...] = ()
    """Its innermost functions with file and line, where they could be told."""


class CpuAf(_Model):
    """The CPUs of one kind in a cell, and who sets guests' access flag there (stage 2)."""

    cpus: str
    """Their numbers, "0-3,7"."""
    midr: str
    """MIDR_EL1, "0x414fd0c1"."""
    model: str
    """The name of the CPU, "" for one that harness/observe/cpu_models.py lacks."""
    expected: AfMode
    why: str
    """What that follows from, in words."""
    observed: AfMode | None = None
    """None if test_af_mode did not run or could not tell."""


class Check(_Model):
    """One check in one cell: what was expected and why, what was observed, what shows it."""

    cell: str
    name: str
    outcome: Outcome
    expected: str
    observed: str
    evidence: tuple[str, ...] = ()
    """Files in the run folder, relative to it."""
    reason: str = ""
    """Why it is not a pass, in a sentence."""
    death: Death | None = None
    """How the kernel stopped answering during this check, if it did."""
    also_on_base: bool = False
    """A failure that the base kernel shows as well, in the same place."""
    splats: tuple[Splat, ...] = ()
    """The kernel's reports that it fails by."""
    af_observed: AfMode | None = None
    """Who was seen to set the stage-2 access flag, None if this check cannot tell."""
    af_cpus: tuple[CpuAf, ...] = ()
    """The same for each kind of CPU, of the check that looks at each."""
    fast_path: bool | None = None
    """Whether the series' fast path was seen to be entered; None if this check cannot tell, or the
    contract has none."""
    seconds: float = 0.0


class Cell(_Model):
    """One kernel on one host in one KVM mode, and how all of its checks ended."""

    id: str
    host: str
    """In the inventory: a host, or a group of machines that are alike."""
    machine: str = ""
    """The host of the inventory that it ran on, "" if it began on none."""
    earlier: tuple[str, ...] = ()
    """The machines that were lost in it before it went on there, each with the reason."""
    lost: Lost | None = None
    """How the run lost the machine, if it did: that is why the cell has no better outcome."""
    kernel: KernelLabel
    kvm_mode: KvmMode
    af_mode: AfMode
    """Who must set the stage-2 access flag in this cell, by its CPU and boot variant."""
    af_observed: AfMode | None = None
    """Who was seen to set it, None if no check could tell."""
    af_cpus: tuple[CpuAf, ...] = ()
    """The same for each kind of CPU, by what CPU and kernel show of themselves."""
    variant: str = ""
    """The boot variant of the series' contract, "" for none."""
    outcome: Outcome
    reason: str = ""
    death: Death | None = None
    build_id: str = ""
    """Of the kernel that was proven to run (/sys/kernel/notes), "" if none was."""
    boot_id: str = ""
    kvm_line: str = ""
    """What KVM said of its mode in the kernel log."""
    cmdline: str = ""
    """Its boot arguments as it says them, less what names the boot, or disks and network of the
    machine (harness/hosts/bootargs.py); "" in a record from before there was this."""
    vmm: str = ""
    """What QEMU the host has for Linux guests, as it says, "" where they were not asked for."""
    splats: tuple[Splat, ...] = ()
    """Whatever the kernel reported from its first line to its last, whether or not a check judged
    it."""
    splat_file: str = ""
    """The whole text of each, with file and line; relative to the run folder, "" for none."""
    boot_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def boot(self) -> str:
        """Which boot it is, where `time` makes many ("r03", "r03-again"); "" for the only one.

        It is what its id has behind all else (harness/plan.py).
        """
        parts = filter(None, (self.host, self.kvm_mode, self.kernel, self.variant))
        before = f"{'-'.join(parts)}-"
        return self.id.removeprefix(before) if self.id.startswith(before) else ""


def af_seen(checks: Iterable[Check]) -> dict[str, object]:
    """What a cell's record has of who was seen to set the access flag: the last that was seen.

    Without `af_cpus` where no check looked at each kind of CPU: what is expected stays then.
    """
    seen: dict[str, object] = {"af_observed": None}
    for check in checks:
        seen |= {"af_observed": check.af_observed} if check.af_observed else {}
        seen |= {"af_cpus": check.af_cpus} if check.af_cpus else {}
    return seen


class Kernel(_Model):
    """A kernel that was built for the run."""

    label: KernelLabel
    source: str
    version: str
    build_id: str
    config_sha256: str
    cached: bool
    build_seconds: float
    compiler: str = ""
    """What compiler and linker say of themselves, "" in a record from before there was this."""
    page_kib: int | None = None
    """The size of its pages, in KiB; None in a record from before there was this."""
    source_digest: str = ""
    """Of the content of the base's source, by whatever name it came; "" in a record from before
    there was this."""
    hosts: tuple[str, ...] = ()
    """Those that run it, where a run has several kernels of one label; else it is for all."""
    builder: str = ""
    """The machine that it was built on, "" for the controller."""


class Host(_Model):
    """A machine that cells ran on, or that was emulated for them."""

    name: str
    """In the inventory."""
    cpu: str
    """Its model, as QEMU names it; of a machine of a lab each kind of CPU, "Neoverse N1 0x414fd0c1
    (CPU 0-79)": its name, if it is known, MIDR_EL1, and the numbers of those that are online."""
    cpus: int
    memory_mib: int
    """Of a machine of a lab all that its own kernel knows of."""


Effect = Literal["better", "worse", "same", "inconclusive"]


class Figure(_Model):
    """One quantity, measured on the base kernel and on the patched one in like conditions."""

    metric: str
    """Its name: letters, digits, `-`."""
    what: str
    """What was measured, in words."""
    unit: str
    """Such as "instructions per page, under TCG"."""
    host: str
    kvm_mode: KvmMode
    af_mode: AfMode
    variant: str = ""
    """The boot variant of both kernels, "" for none."""
    more_is_better: bool = False
    base: tuple[float, ...]
    """One value for each repetition, in their order."""
    patched: tuple[float, ...]
    effect: float | None = None
    """Patched against base, relative: -0.12 is 12 % less. None if it could not be told."""
    low: float | None = None
    high: float | None = None
    """The confidence interval of `effect`."""
    confidence: float = 0.95
    smallest: float | None = None
    """The smallest relative effect that this many repetitions could have shown."""
    floor: float | None = None
    """What the base kernel shows against itself, relative; nothing smaller is an effect."""
    spread: float | None = Field(default=None, ge=0)
    """Of what is counted, in its unit: by how much values differ that should not, as those of other
    layouts of memory. None for what is measured, which a test judges."""
    verdict: Effect
    reason: str = ""
    """Why it is inconclusive, or what the verdict rests on."""
    doubt: str = ""
    """Why its values say nothing, whatever they are held against; "" if they do, and in a record
    from before there was this."""
    conditions: dict[str, str] = Field(default_factory=dict)
    """In what conditions a time was measured, by their names in docs/timing.md; "" for one that was
    not the same all the time. {} for what is counted, and in a record from before this."""
    evidence: tuple[str, ...] = ()
    """Files in the run folder, relative to it."""

    @property
    def place(self) -> str:
        """Where it was measured, but for who sets the access flag: "n1 vhe +sw-af"."""
        variant = f" +{self.variant}" if self.variant else ""
        return f"{self.host} {self.kvm_mode}{variant}"

    @property
    def where(self) -> str:
        """The host, KVM mode, boot variant and access flag: "n1 vhe +sw-af software AF"."""
        return f"{self.place} {self.af_mode} AF"


SeriesBase = Literal["same", "unnamed", "doubtful", ""]
"""Whether the series was tested on the base that it is for: on that commit; it names none; it was
posted against another, or nothing tells. "" without a series, and in a record from before this."""


class Summary(_Model):
    """summary.json: one run, whole."""

    schema_version: int = Field(default=SCHEMA, alias="schema", serialization_alias="schema")
    harness: str
    """Version of the harness."""
    harness_digest: str = ""
    """Of its program, checks, programs for hosts (their sources) and base contracts; "" in a record
    from before there was this."""
    verdict: Literal["pass", "fail", "error", "unproven"]
    reason: str = ""
    """Why there is no better verdict, in a sentence."""
    series: str
    series_digest: str = ""
    message_id: str = ""
    """Of the series' cover letter or first patch, without <>; "" if these mails have none."""
    subject: str = ""
    """Of that mail, with its tags."""
    patches: tuple[str, ...] = ()
    """The subjects of the patches, without tags, in their order."""
    whole: bool = False
    """Whether nothing was left out: all patches, hosts, KVM modes and everyday checks."""
    only: tuple[str, ...] = ()
    """To what the run was narrowed, as it was asked for: "-m quick", "n1, VHE only"."""
    series_base: SeriesBase = ""
    seed: int
    started: str
    """UTC, ISO 8601."""
    resumed: tuple[str, ...] = ()
    """When the run went on after a kill, each time; UTC, ISO 8601."""
    seconds: float
    emulated: bool
    emulator: str = ""
    """What emulates hosts: QEMU with its version, or what a machine of a lab says of itself."""
    debug: bool = False
    """Whether the kernels are debug kernels: KASAN, lockdep and their like."""
    notes: tuple[str, ...] = ()
    kernels: tuple[Kernel, ...] = ()
    hosts: tuple[Host, ...] = ()
    """Those of the cells; none in a record from before there was this."""
    cells: tuple[Cell, ...] = ()
    checks: tuple[Check, ...] = ()
    figures: tuple[Figure, ...] = ()


Finding = Literal["good", "bad", "unknown"]
"""Of a patch: with it and those before it the kernel is right, is wrong, or that is not known."""


class PatchRecord(_Model):
    """One step of a walk along a series: the kernel with the patches up to this one."""

    number: int
    subject: str
    origin: str
    """The file that it came from."""
    folder: str
    """Its run folder beside each-patch.json."""
    finding: Finding
    reason: str = ""
    seconds: float = 0.0


class EachPatch(_Model):
    """each-patch.json: a walk along a series (docs/summary.md)."""

    schema_version: int = Field(default=SCHEMA, alias="schema", serialization_alias="schema")
    series: str
    series_digest: str
    seed: int
    count: int
    """Patches that the series has."""
    base_folder: str = ""
    base_verdict: Literal["pass", "fail", "error", "unproven", ""] = ""
    patches: tuple[PatchRecord, ...] = ()
    """Those that were looked at: the walk ends at the first bad one."""
    first_bad: int | None = None
    verdict: Finding = "unknown"
    reason: str = ""
    """Why the walk ended early, "" if it did not."""
