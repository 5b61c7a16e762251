# SPDX-License-Identifier: GPL-2.0-only
"""inventory.yaml: the hosts, and what is tested when the command line does not say.

Unknown keys are refused, and every error names file, line and key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from harness.errors import UsageError
from harness.paths import PROJECT
from harness.yamlpos import load_yaml_model

KvmMode = Literal["vhe", "nvhe", "protected"]
AfMode = Literal["hardware", "software"]

HostName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,30}$")]
Address = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9:][A-Za-z0-9:._%-]{0,252}$")]
"""A name, or an IPv4 or IPv6 address, with nothing that has a meaning in known_hosts(5)."""
UserName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9._@-]{0,63}$")]
Word = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=4096)]
Argv = Annotated[tuple[Word, ...], Field(min_length=1, max_length=64)]
"""A command of the lab's own: a program and its arguments, run without a shell."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _each_mode_once(modes: tuple[KvmMode, ...]) -> tuple[KvmMode, ...]:
    if len(set(modes)) != len(modes):
        raise ValueError("a mode is named twice")
    return modes


def _whole_path(path: Path) -> Path:
    if not path.is_absolute() and path.parts[:1] != ("~",):
        raise ValueError("a path is absolute or begins with ~/")
    return path


FilePath = Annotated[Path, AfterValidator(_whole_path)]
"""A file of the controller, absolute or from ~/ on."""
KvmModes = Annotated[tuple[KvmMode, ...], Field(min_length=1), AfterValidator(_each_mode_once)]


class QemuHost(_Model):
    """A host that QEMU emulates on the controller."""

    kind: Literal["qemu"]
    cpu: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    """CPU model of `qemu-system-aarch64 -cpu help`."""
    af: AfMode
    """Who sets the stage-2 access flag on this CPU: hardware has FEAT_HAFDBS (Arm ARM D8.5)."""
    kvm_modes: KvmModes
    """Modes of KVM that cells run in; vhe needs Armv8.1."""
    cpus: Annotated[int, Field(ge=2, le=16)] = 2
    """The last one is kept free of the tick (nohz_full) for a vCPU that never exits."""
    cmdline: tuple[str, ...] = ()
    """More boot arguments for every kernel on this host."""
    memory_mib: Annotated[int, Field(ge=1024, le=65536)] = 2048


class SshServer(_Model):
    """Where an SSH server answers and how one logs in: by a key file, or by the user's agent."""

    address: Address
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    user: UserName = "root"
    key: FilePath | None = None
    """The private key, absolute or from ~/ on; one with a passphrase is the agent's to hold."""
    agent: bool = False
    """Ask the ssh-agent of $SSH_AUTH_SOCK instead."""

    @model_validator(mode="after")
    def _one_login(self) -> Self:
        if (self.key is None) != self.agent:
            raise ValueError("`key: FILE` or `agent: true`, one of them")
        return self


class PowerCommands(_Model):
    """What switches a machine's power, by commands of the lab's own; each ends when it is done."""

    on: Argv
    off: Argv
    reset: Argv

    @model_validator(mode="before")
    @classmethod
    def _yaml_booleans(cls, data: object) -> object:
        """YAML 1.1 takes the plain words on and off for true and false, as keys too."""
        if not isinstance(data, dict):
            return data
        return {{True: "on", False: "off"}.get(key, key): value for key, value in data.items()}


class SshHost(SshServer):
    """A machine that answers SSH. A user other than root becomes root by `sudo -n`."""

    kind: Literal["ssh"]
    kvm_modes: KvmModes
    af: AfMode
    """Who sets the stage-2 access flag on its CPUs, as of an emulated host."""
    jump: tuple[SshServer, ...] = ()
    """SSH servers on the way to it, the one next to the controller first."""
    power: PowerCommands | None = None
    console: Argv | None = None
    """Shows the machine's console on its output for as long as it runs."""
    initrd: Annotated[str, Field(pattern=r"^/[^\x00-\x1f\x7f]*$", max_length=1024)] | None = None
    """The initramfs that test kernels get, a file of the machine."""
    cmdline: tuple[str, ...] = ()
    """More boot arguments for every test kernel, after the machine's own."""
    fragments: tuple[FilePath, ...] = ()
    """Files with more Kconfig options: the drivers of its hardware."""
    watchdog: bool = False
    """Whether its watchdog runs on across a kexec, and is armed before each jump."""
    boot_seconds: Annotated[int, Field(ge=10, le=3600)] = 300
    """At most from the jump into a test kernel to its SSH login."""
    back_seconds: Annotated[int, Field(ge=10, le=3600)] = 900
    """At most from a reset to an SSH login in the known-good kernel."""
    config: Literal["harness", "machine"] = "harness"
    """What its kernels start from: allnoconfig, or the configuration that its own one has."""
    boot: Literal["kexec", "grub"] = "kexec"
    """How test kernels are started: out of its own one, or by GRUB's choice for one start."""
    trim: bool = False
    """Leave out the modules that it has not loaded."""
    build: Literal["controller", "on-host"] = "controller"
    """Where kernels from its own configuration are built."""
    group: HostName | None = None
    """What it shares with machines like it: a run on the group has its cells spread over them."""

    @model_validator(mode="after")
    def _watches_a_kexec(self) -> Self:
        # The way by the firmware takes longer than most devices wait.
        if self.watchdog and self.boot != "kexec":
            raise ValueError("`watchdog: true` goes with `boot: kexec`")
        return self

    @model_validator(mode="after")
    def _for_its_own(self) -> Self:
        if self.config != "machine":
            if self.trim:
                raise ValueError("`trim: true` goes with `config: machine`")
            if self.build == "on-host":
                raise ValueError("`build: on-host` goes with `config: machine`")
        return self


Host = Annotated[QemuHost | SshHost, Field(discriminator="kind")]


class Defaults(_Model):
    """What is tested unless the command line says otherwise."""

    source: Annotated[str, Field(min_length=1)]
    series: Annotated[str, Field(min_length=1)]


# What machines of one group must have in common: what decides which cells there are, what kernels
# they boot, and what is expected of them.
_ALIKE = ("kvm_modes", "af", "cmdline", "fragments", "config", "trim", "build")


class Inventory(_Model):
    """The whole file."""

    schema_version: Literal[1] = Field(alias="schema")
    defaults: Defaults
    hosts: Annotated[dict[HostName, Host], Field(min_length=1)]

    @model_validator(mode="after")
    def _groups_are_alike(self) -> Self:
        for group, members in self.groups.items():
            if group in self.hosts:
                raise ValueError(f"`group: {group}` has the name of a host")
            first, *others = members
            for name in others:
                for key in _ALIKE:
                    one, other = (getattr(self.hosts[each], key) for each in (first, name))
                    if one != other:
                        raise ValueError(
                            f"{first} and {name} are in the group {group}, "
                            f"and their `{key}` is not the same"
                        )
        return self

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The groups of machines that are alike, each with its members in the file's order."""
        found: dict[str, tuple[str, ...]] = {}
        for name, host in self.hosts.items():
            if isinstance(host, SshHost) and host.group is not None:
                found[host.group] = (*found.get(host.group, ()), name)
        return found

    def host(self, name: str) -> QemuHost | SshHost:
        """The host of that name; UsageError names those that exist."""
        if name not in self.hosts:
            raise UsageError(f"no host {name!r} in the inventory; it has: {', '.join(self.hosts)}")
        return self.hosts[name]

    def place(self, name: str) -> dict[str, QemuHost | SshHost]:
        """Where the cells of `name` may run: the host of that name, or all of that group.

        The first of them stands for all in what decides which cells there are. UsageError for none.
        """
        return {one: self.host(one) for one in self.groups.get(name, (name,))}

    def ssh(self, name: str) -> SshHost:
        """The host of that name, which must be of kind ssh; UsageError for another one."""
        host = self.host(name)
        if not isinstance(host, SshHost):
            raise UsageError(f"host {name!r} is of kind {host.kind}; this is for kind ssh")
        return host

    def emulated(self, name: str) -> QemuHost:
        """The host of that name, which must be of kind qemu; UsageError for another one."""
        host = self.host(name)
        if not isinstance(host, QemuHost):
            raise UsageError(f"host {name!r} is of kind {host.kind}; this is for kind qemu")
        return host


def load(path: Path | None = None) -> Inventory:
    """The inventory from `path`, by default the project's own; UsageError if it is wrong."""
    return load_yaml_model(path or PROJECT / "inventory.yaml", Inventory)
