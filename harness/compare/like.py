# SPDX-License-Identifier: GPL-2.0-only
"""Whether two runs are of like things: what else would make their results differ.

What a run does not know of itself is like nothing: a summary of an older harness lacks what later
ones record.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import get_args

from pydantic import BaseModel, ConfigDict

from harness.report import facts
from harness.results import Cell, Kernel, KernelLabel, Summary

UNKNOWN = "not recorded"


class Unlike(BaseModel):
    """A field that differs, and what either run has there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    field: str
    one: str
    other: str

    def __str__(self) -> str:
        return f"{self.field}: {self.one or UNKNOWN} / {self.other or UNKNOWN}"


def unlike(one: Summary, other: Summary) -> tuple[Unlike, ...]:
    """All that must be the same and is not, in the order of a run's making."""
    pairs = (*_of_run(one, other), *_of_kernels(one, other), *_of_cells(one, other))
    return tuple(pair for pair in pairs if pair.one != pair.other or not pair.one)


def _pair(field: str, one: object, other: object) -> Unlike:
    """None is what is not known."""
    left, right = ("" if value is None else str(value) for value in (one, other))
    return Unlike(field=field, one=left, other=right)


def _of_run(one: Summary, other: Summary) -> Iterator[Unlike]:
    yield _pair("harness version", one.harness, other.harness)
    yield _pair("harness digest", one.harness_digest, other.harness_digest)
    yield _pair("debug kernels", one.debug, other.debug)
    yield _pair("emulated hosts", one.emulated, other.emulated)
    if one.emulated and other.emulated:
        yield _pair("emulator", one.emulator, other.emulator)


def _of_kernels(one: Summary, other: Summary) -> Iterator[Unlike]:
    """Of those that both have: a run of the base kernel alone is like the base of another."""
    hosts = sorted({cell.machine for cell in one.cells} & {cell.machine for cell in other.cells})
    compared: set[tuple[Kernel, Kernel]] = set()
    for label, host in itertools.product(get_args(KernelLabel), hosts or [""]):
        first, second = (facts.kernel_of(run, label, host) for run in (one, other))
        if first is None or second is None or (first, second) in compared:
            continue
        compared.add((first, second))
        of = f"of the {label} kernel" + (f" of {host}" if first.hosts or second.hosts else "")
        yield _pair(f"configuration {of}", first.config_sha256, second.config_sha256)
        yield _pair(f"toolchain {of}", first.compiler, second.compiler)
        yield _pair(f"page size {of} (KiB)", first.page_kib, second.page_kib)


def _of_cells(one: Summary, other: Summary) -> Iterator[Unlike]:
    """Of the machines and cells that both have, and of machines that share no KVM mode."""
    left, right = _modes(one), _modes(other)
    names = sorted(left.keys() & right.keys())
    if not names:
        yield _pair("hosts", " ".join(sorted(left)), " ".join(sorted(right)))
    for name in names:
        if not left[name] & right[name]:
            yield _pair(
                f"KVM modes of {name}", *(" ".join(sorted(of[name])) for of in (left, right))
            )
        yield from _of_machine(name, one, other)
    first, second = ({cell.id: cell for cell in run.cells} for run in (one, other))
    for key in sorted(first.keys() & second.keys()):
        # A cell that never came so far shows no mode; that it did not is what its outcome says.
        if first[key].kvm_line and second[key].kvm_line:
            yield _pair(f"KVM mode in {key}", _mode(first[key]), _mode(second[key]))
            yield _pair(f"MIDR in {key}", _midr(first[key]), _midr(second[key]))


def _of_machine(name: str, one: Summary, other: Summary) -> Iterator[Unlike]:
    left, right = (
        next((host for host in run.hosts if host.name == name), None) for run in (one, other)
    )
    yield _pair(f"CPU model of {name}", left and left.cpu, right and right.cpu)
    yield _pair(f"CPUs of {name}", left and left.cpus, right and right.cpus)
    yield _pair(f"memory of {name} (MiB)", left and left.memory_mib, right and right.memory_mib)


def _modes(run: Summary) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for cell in run.cells:
        found.setdefault(cell.host, set()).add(cell.kvm_mode)
    return found


def _mode(cell: Cell) -> str:
    """The mode that was asked for and KVM's own word on it."""
    return f"{cell.kvm_mode}, {cell.kvm_line}"


def _midr(cell: Cell) -> str:
    return ", ".join(f"{one.midr} (CPU {one.cpus})" for one in cell.af_cpus)
