# SPDX-License-Identifier: GPL-2.0-only
"""Read a host over a Shell: each function costs one command and keeps the raw text."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.deadline import Deadline
from harness.hosts.protocols import Shell
from harness.observe import af, kvmstats, lru_gen, stage2, vmstat
from harness.observe.errors import ObserveError, shown
from harness.observe.text import run_script, sections
from harness.observe.unproven import Unproven


class NoDump(Unproven):
    """This kernel cannot show a guest's stage 2."""


@dataclass(frozen=True)
class Dump:
    """A stage-2 dump: its ranges, and what the kernel printed."""

    ranges: tuple[stage2.Range, ...]
    raw: str = field(repr=False)


def dump_stage2(shell: Shell, vm: str, deadline: Deadline | None = None) -> Dump:
    """The stage 2 of the VM whose debugfs folder is `vm` ("<pid>-<fd>").

    Its owner must be alive (see stage2). NoDump if this kernel cannot show it; ObserveError if
    the dump cannot be believed.
    """
    script = f'{_why(vm)}[ "$why" ] || cat {_path(vm)}'
    why, _, raw = run_script(shell, script, deadline).partition("\n")
    refuse(why)
    return dump_by(vm, raw)


def dump_by(vm: str, raw: str) -> Dump:
    """The dump of that VM that somebody else has read; ObserveError if it cannot be believed."""
    return Dump(stage2.parse(raw, _path(vm)), raw)


def _path(vm: str) -> str:
    return f"{kvmstats.folder(vm)}/stage2_page_tables"


def refusal(shell: Shell, vm: str, deadline: Deadline | None = None) -> str:
    """Why the dump of that VM is no evidence, as a key of stage2.REASONS, or nothing."""
    return run_script(shell, _why(vm), deadline).removesuffix("\n")


def _why(vm: str) -> str:
    """The lines of a script that print one: why the dump of that VM is no evidence, or nothing."""
    return f'set -- {kvmstats.folder(vm)}\n{stage2.REFUSAL}echo "$why"\n'


def refuse(why: str) -> None:
    """Raise NoDump for what refusal() says, unless that is nothing."""
    if why in stage2.REASONS:
        raise NoDump(stage2.REASONS[why])
    if why:
        raise ObserveError("stage2_page_tables", 0, f"unexpected: {shown(why)}")


@dataclass(frozen=True)
class Snapshot:
    """What a host counts at one moment. `vm` is None if no VM was asked for.

    `raw` gives the text of each source by its name, to be kept as evidence.
    """

    vmstat: Mapping[str, int]
    meminfo: Mapping[str, int]
    kvm: kvmstats.Stats
    vm: kvmstats.Stats | None
    lru: tuple[lru_gen.Lruvec, ...]
    lru_enabled: lru_gen.Enabled
    raw: Mapping[str, str] = field(repr=False)


def snapshot_script(nonce: str, vm: str | None) -> str:
    """Flushes the per-CPU counters (stat_refresh), then prints all sources, each as a part."""
    parts = {
        "vmstat": "echo 1 > /proc/sys/vm/stat_refresh\ncat /proc/vmstat\n",
        "meminfo": "cat /proc/meminfo\n",
        "kvm": kvmstats.script(None),
        "vm": kvmstats.script(vm) if vm is not None else "",
        "lru_gen": f"cat {lru_gen.DEBUGFS}\n",
        "enabled": f'read -r v < {lru_gen.ENABLED}\necho "$v"\n',
    }
    marked = [f"echo '{nonce} {name}'\n{part}" for name, part in parts.items()]
    return "".join([*marked, f"echo '{nonce} end'\n"])


def parse_snapshot(text: str, nonce: str, vm: str | None) -> Snapshot:
    """What snapshot_script() printed."""
    raw = dict(sections(text, nonce, "snapshot"))
    if set(raw) != {"vmstat", "meminfo", "kvm", "vm", "lru_gen", "enabled"}:
        raise ObserveError("snapshot", 0, f"has the parts {sorted(raw)}")
    return Snapshot(
        vmstat=vmstat.parse_vmstat(raw["vmstat"]),
        meminfo=vmstat.parse_meminfo(raw["meminfo"]),
        kvm=kvmstats.parse(raw["kvm"]),
        vm=None if vm is None else kvmstats.parse(raw["vm"], kvmstats.folder(vm)),
        lru=lru_gen.parse(raw["lru_gen"]),
        lru_enabled=lru_gen.parse_enabled(raw["enabled"]),
        raw=raw,
    )


def snapshot(shell: Shell, vm: str | None = None, deadline: Deadline | None = None) -> Snapshot:
    """All counters of a host, and of one VM ("<pid>-<fd>") if it is named."""
    nonce = secrets.token_hex(16)
    text = run_script(shell, snapshot_script(nonce, vm), deadline)
    return parse_snapshot(text, nonce, vm)


def af_witnesses(shell: Shell, deadline: Deadline | None = None) -> af.Witnesses:
    """What a host shows of its CPUs and of who manages the access flag of its guests."""
    nonce = secrets.token_hex(16)
    return af.parse(run_script(shell, af.script(nonce), deadline), nonce)
