# SPDX-License-Identifier: GPL-2.0-only
"""Who must set the access flag of guests' pages, on each kind of CPU of a host, and why.

What KVM does was read in Linux 6.2, 6.12 and 7.3. kvm_get_vtcr() (arch/arm64/kvm/hyp/pgtable.c)
sets VTCR_EL2.HA for all CPUs alike, in every mode; a CPU without FEAT_HAFDBS ignores the bit. So it
is each CPU's own affair at stage 2. (Stage 1 is not: TCR_EL1.HA is each CPU's own as well, but
cpu_has_hw_af(), by which MGLRU walks or does not, reads the sanitised register, the least of all
CPUs.) HA stays clear

- where CONFIG_ARM64_HW_AFDBM is off. Linux 6.2 sets it even then, and does not know the workaround
  below; so where the configuration does not name that one, an option that is off leaves it open.
- where one CPU has erratum AC03_CPU_38 or AC04_CPU_10 and the kernel its workaround: then on all.
  It is ARM64_CPUCAP_LOCAL_CPU_ERRATUM, and is logged when it is detected.

The log of 6.12 (not of 6.2) also names each CPU that manages dirty state, by its own
ID_AA64MMFR1_EL1 (arch/arm64/kernel/cpufeature.c, cpu_enable_hw_dbm()). Dirty state needs the access
flag, so such a CPU has it. One that is not named may have it all the same: Cortex-A55 does, and is
left out for an erratum in its dirty state.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.inventory import AfMode, KvmMode
from harness.observe import cpu
from harness.observe.errors import ObserveError, shown
from harness.observe.klog import stamped
from harness.observe.text import sections, whole_lines
from harness.ranges import format_ranges, parse_ranges

HW_AFDBM = "CONFIG_ARM64_HW_AFDBM"
WORKAROUND = "CONFIG_AMPERE_ERRATUM_AC03_CPU_38"

_BEGINS = "Booting Linux on physical CPU "
_DETECTED = "CPU features: detected: "
_ERRATUM = f"{_DETECTED}AmpereOne erratum AC03_CPU_38"
_DIRTY = f"{_DETECTED}Hardware dirty bit management on CPU"
_SYMBOL = re.compile(
    rf"(?:(?P<on>{HW_AFDBM}|{WORKAROUND})=y|# (?P<off>{HW_AFDBM}|{WORKAROUND}) is not set)"
)


@dataclass(frozen=True)
class Witnesses:
    """What a host shows of its CPUs and of what its kernel does about the access flag.

    `config` says of each of the two symbols that the kernel knows whether it is on. `log_whole` is
    false where the log's beginning is lost, `workaround` whether the log says that the erratum was
    detected, `dirty` which CPUs it says to manage dirty state. `raw` is what the host printed.
    """

    cpus: Mapping[int, cpu.Midr]
    config: Mapping[str, bool]
    log_whole: bool
    workaround: bool
    dirty: frozenset[int]
    raw: str = field(default="", repr=False)


@dataclass(frozen=True)
class Expected:
    """The CPUs of one kind: who must set the access flag at stage 2 there, and why.

    `hafdbs` is whether they have FEAT_HAFDBS, None where nothing tells.
    """

    midr: cpu.Midr
    cpus: tuple[int, ...]
    hafdbs: bool | None
    af: AfMode
    why: str

    @property
    def name(self) -> str:
        """The CPUs in words: "CPU 0-3 (Neoverse N1)"."""
        return f"CPU {format_ranges(self.cpus)} ({_model(self.midr)})"


def script(nonce: str) -> str:
    """Prints the MIDRs, the two symbols and the lines of the log that count, each as a part."""
    return (
        f"echo '{nonce} cpus'\n{cpu.SCRIPT}"
        f"echo '{nonce} config'\n"
        f"zcat /proc/config.gz | grep -e {HW_AFDBM} -e {WORKAROUND} || true\n"
        f"echo '{nonce} log'\n"
        f"dmesg | grep -F -e '{_BEGINS}' -e '{_ERRATUM}' -e '{_DIRTY}' || true\n"
        f"echo '{nonce} end'\n"
    )


def parse(text: str, nonce: str) -> Witnesses:
    """What script() printed."""
    parts = dict(sections(text, nonce, "witnesses of the access flag"))
    if set(parts) != {"cpus", "config", "log"}:
        raise ObserveError("witnesses of the access flag", 0, f"has the parts {sorted(parts)}")
    lines = [stamped(line) or "" for line in whole_lines(parts["log"], "dmesg")]
    return Witnesses(
        cpus=cpu.parse(parts["cpus"]),
        config=_config(parts["config"]),
        log_whole=any(line.startswith(_BEGINS) for line in lines),
        workaround=any(line.startswith(_ERRATUM) for line in lines),
        dirty=_dirty(lines),
        raw="".join(f"{name}:\n{body}" for name, body in parts.items()),
    )


def _config(text: str) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for number, line in enumerate(whole_lines(text, "/proc/config.gz"), 1):
        match = _SYMBOL.fullmatch(line)
        if match is None:
            raise ObserveError("/proc/config.gz", number, f"not a symbol's line: {shown(line)}")
        found[match["on"] or match["off"]] = match["on"] is not None
    return found


def _dirty(lines: list[str]) -> frozenset[int]:
    found: set[int] = set()
    for number, line in enumerate(lines, 1):
        if line.startswith(_DIRTY):
            try:
                found |= parse_ranges(line.removeprefix(_DIRTY))
            except ValueError as exc:
                raise ObserveError("dmesg", number, str(exc)) from None
    return frozenset(found)


@dataclass(frozen=True)
class _Fact:
    """Whether something holds, None where nothing tells, and why."""

    holds: bool | None
    why: str


def expect(
    seen: Witnesses, *, inventory: AfMode, mode: KvmMode, cleared_by: str = ""
) -> tuple[Expected, ...]:
    """Who must set the access flag at stage 2 on each kind of CPU, in the order of their numbers.

    `inventory` is what the inventory says of the host: that counts where nothing else tells.
    `cleared_by` names the boot variant of the contract by which software must set it, if any.
    """
    ha = _ha(seen, cleared_by)
    return tuple(
        _of_kind(midr, cpus, _hafdbs(midr, cpus[0] in seen.dirty), ha, inventory, mode)
        for midr, cpus in _kinds(seen)
    )


def _kinds(seen: Witnesses) -> list[tuple[cpu.Midr, tuple[int, ...]]]:
    """CPUs that nothing tells apart: one MIDR, and the log says the same of them."""
    kinds: dict[tuple[cpu.Midr, bool], list[int]] = {}
    for number, midr in sorted(seen.cpus.items()):
        kinds.setdefault((midr, number in seen.dirty), []).append(number)
    return [(midr, tuple(cpus)) for (midr, _), cpus in kinds.items()]


def _of_kind(
    midr: cpu.Midr,
    cpus: tuple[int, ...],
    hafdbs: _Fact,
    ha: _Fact,
    inventory: AfMode,
    mode: KvmMode,
) -> Expected:
    why = [hafdbs.why, ha.why, f"KVM in {mode} mode, which makes no difference to it"]
    acts = hafdbs.holds
    if acts is False and midr.model is not None and midr.model.erratum and ha.holds is not False:
        acts = True
        why.append(f"it acts on VTCR_EL2.HA all the same (erratum {midr.model.erratum})")
    af: AfMode = inventory
    if ha.holds is False or acts is False:
        af = "software"
    elif ha.holds and acts:
        af = "hardware"
    else:
        why.append(f"so the inventory's word counts: {inventory}")
    return Expected(midr, cpus, hafdbs.holds, af, "; ".join(why))


def _model(midr: cpu.Midr) -> str:
    return midr.model.name if midr.model else f"MIDR {midr}"


def _hafdbs(midr: cpu.Midr, logged: bool) -> _Fact:
    """Whether such a CPU has FEAT_HAFDBS: by the table, but for what its kernel read from it."""
    model = midr.model
    log = "the kernel's log has it among those that manage dirty state"
    if model is not None and (model.hafdbs or not logged):
        has = "has" if model.hafdbs else "lacks"
        return _Fact(model.hafdbs, f"{_model(midr)} {has} FEAT_HAFDBS ({model.source})")
    if model is not None:
        return _Fact(True, f"{_model(midr)} lacks FEAT_HAFDBS ({model.source}), but {log}")
    if logged:
        return _Fact(True, f"{_model(midr)} is in no table, but {log}, so it has FEAT_HAFDBS")
    return _Fact(None, f"{_model(midr)} is in no table")


def _ha(seen: Witnesses, cleared_by: str) -> _Fact:
    """Whether KVM sets VTCR_EL2.HA."""
    if cleared_by:
        return _Fact(False, f"KVM leaves VTCR_EL2.HA clear by the boot variant {cleared_by}")
    if HW_AFDBM not in seen.config:
        return _Fact(None, f"nothing tells whether {HW_AFDBM} is on")
    if not seen.config[HW_AFDBM]:
        if WORKAROUND not in seen.config:
            return _Fact(None, f"{HW_AFDBM} is off, which older kernels pass over")
        return _Fact(False, f"KVM leaves VTCR_EL2.HA clear, as {HW_AFDBM} is off")
    if seen.workaround:
        return _Fact(False, "KVM leaves VTCR_EL2.HA clear for erratum AC03_CPU_38, says its log")
    models = [midr.model for midr in seen.cpus.values()]
    prone = any(model is None or model.erratum for model in models)
    if prone and seen.config.get(WORKAROUND) and not seen.log_whole:
        return _Fact(None, "the log's beginning is lost, and with it a word on erratum AC03_CPU_38")
    return _Fact(True, f"KVM sets VTCR_EL2.HA, as {HW_AFDBM} is on")
