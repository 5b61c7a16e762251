# SPDX-License-Identifier: GPL-2.0-only
"""The counters of /sys/kernel/debug/kvm, of all VMs or in <pid>-<fd> of one.

Source: virt/kvm/kvm_main.c, kvm_create_vm_debugfs(). `remote_tlb_flush*` do not count flushes of a
range or of one IPA.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from harness.observe.errors import ObserveError, shown
from harness.observe.text import signed, whole_lines

KVM = "/sys/kernel/debug/kvm"
_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")
_NUMBER = re.compile(r" *-?[0-9]{1,20}")
_VM = re.compile(r"[0-9]{1,10}-[0-9]{1,10}")


@dataclass(frozen=True)
class Stats:
    """First lines of the files of one folder: numbers, and the texts of files that hold none."""

    counters: Mapping[str, int]
    texts: Mapping[str, str]


def folder(vm: str | None) -> str:
    """The folder of a VM ("<pid>-<fd>"), or that of all; ValueError for another name."""
    if vm is None:
        return KVM
    if not _VM.fullmatch(vm):
        raise ValueError(f"not the name of a VM's debugfs folder: {vm!r}")
    return f"{KVM}/{vm}"


def script(vm: str | None) -> str:
    """Prints "NAME VALUE" for each file. It forks nothing, and never opens the stage-2 dump."""
    return (
        f"cd {folder(vm)}\nfor f in *; do\n"
        '[ -f "$f" ] || continue\n'
        'case "$f" in stage2_page_tables|idregs) continue;; esac\n'
        'IFS= read -r v < "$f" || continue\nprintf \'%s %s\\n\' "$f" "$v"\ndone\n'
    )


def parse(text: str, source: str = KVM) -> Stats:
    """What script() printed; ObserveError if there is not a single counter."""
    counters: dict[str, int] = {}
    texts: dict[str, str] = {}
    for number, line in enumerate(whole_lines(text, source), 1):
        name, space, value = line.partition(" ")
        if not space or not _NAME.fullmatch(name) or name in counters or name in texts:
            raise ObserveError(source, number, f"not a statistic: {shown(line)}")
        if _NUMBER.fullmatch(value):
            counters[name] = signed(value.strip(), source, number)
        else:
            texts[name] = value
    if not counters:
        raise ObserveError(source, 0, "has no counters: no KVM, or the VM is gone")
    return Stats(counters, texts)
