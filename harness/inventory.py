# SPDX-License-Identifier: GPL-2.0-only
"""inventory.yaml: the hosts, and what is tested when the command line does not say.

Unknown keys are refused, and every error names file, line and key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from harness.errors import UsageError
from harness.paths import PROJECT
from harness.yamlpos import load_yaml_model

KvmMode = Literal["vhe", "nvhe", "protected"]
AfMode = Literal["hardware", "software"]

HostName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,30}$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class QemuHost(_Model):
    """A host that QEMU emulates on the controller."""

    kind: Literal["qemu"]
    cpu: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    """CPU model of `qemu-system-aarch64 -cpu help`."""
    af: AfMode
    """Who sets the stage-2 access flag on this CPU: hardware has FEAT_HAFDBS (Arm ARM D8.5)."""
    kvm_modes: Annotated[tuple[KvmMode, ...], Field(min_length=1)]
    """Modes of KVM that cells run in; vhe needs Armv8.1."""
    cpus: Annotated[int, Field(ge=2, le=16)] = 2
    """The last one is kept free of the tick (nohz_full) for a vCPU that never exits."""
    cmdline: tuple[str, ...] = ()
    """More boot arguments for every kernel on this host."""
    memory_mib: Annotated[int, Field(ge=1024, le=65536)] = 2048

    @field_validator("kvm_modes")
    @classmethod
    def _each_once(cls, modes: tuple[KvmMode, ...]) -> tuple[KvmMode, ...]:
        if len(set(modes)) != len(modes):
            raise ValueError("a mode is named twice")
        return modes


class Defaults(_Model):
    """What is tested unless the command line says otherwise."""

    source: Annotated[str, Field(min_length=1)]
    series: Annotated[str, Field(min_length=1)]


class Inventory(_Model):
    """The whole file."""

    schema_version: Literal[1] = Field(alias="schema")
    defaults: Defaults
    hosts: Annotated[dict[HostName, QemuHost], Field(min_length=1)]

    def host(self, name: str) -> QemuHost:
        """The host of that name; UsageError names those that exist."""
        if name not in self.hosts:
            raise UsageError(f"no host {name!r} in the inventory; it has: {', '.join(self.hosts)}")
        return self.hosts[name]


def load(path: Path | None = None) -> Inventory:
    """The inventory from `path`, by default the project's own; UsageError if it is wrong."""
    return load_yaml_model(path or PROJECT / "inventory.yaml", Inventory)
