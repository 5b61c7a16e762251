# SPDX-License-Identifier: GPL-2.0-only
"""Where a kernel is made, here or on another machine, and what every such place is told."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.deadline import Deadline
from harness.kernel import toolchain

# What is needed of a build folder.
FILES = {"Image": toolchain.ARM64.path, "vmlinux": "vmlinux", "System.map": "System.map"}
# The folder of a build folder that has the modules.
MODULES = ".modules"
# What is made of a machine's kernel, in this order; of others the image alone.
TARGETS = (toolchain.ARM64.image, "modules", "modules_install")

OnLine = Callable[[bytes], None]


class Bench(Protocol):
    """Where one kernel is made: a source, a build folder, and make."""

    @property
    def folder(self) -> str:
        """The path of the build folder, as make has it."""

    def make(self, target: str, variables: Mapping[str, str]) -> int:
        """Make one target of the configuration; returns the exit status."""

    def compile(self) -> int:
        """Make Image, and modules if there are any, and leave them in the `work` of the order."""

    def put(self, name: str, text: str) -> None:
        """Write a file of the build folder."""

    def read(self, name: str) -> str:
        """The text of a file of the build folder."""


@dataclass(frozen=True)
class Order:
    """What a bench is for."""

    tree: Path
    digest: str
    localversion: str
    stage: Path
    """A folder of the controller for what lies between."""
    work: Path
    """The build folder, or the one that gets what is needed of it."""
    on_line: OnLine
    """Gets each line that make says."""
    deadline: Deadline


class Builder(Protocol):
    """Another machine that makes kernels, in the same steps."""

    @property
    def name(self) -> str:
        """In the inventory."""

    def tools(self, deadline: Deadline) -> toolchain.Toolchain:
        """Its compiler and linker."""

    def bench(self, order: Order) -> AbstractContextManager[Bench]:
        """A bench there, of which nothing is left after the block."""


def compile_variables(digest: str, localversion: str, modules_to: str | None) -> dict[str, str]:
    """What a build has in its environment, so that the same tree gives the same kernel.

    User, host, time and version are fixed: a rebuild is bit-identical, and the host names the
    tree, so two trees never share a build id. `modules_to` is where modules are put, None without
    any; what depmod(8) makes of them is the machine's own to make.
    """
    found = {
        "KBUILD_BUILD_USER": "kvm-harness",
        "KBUILD_BUILD_HOST": hashlib.sha256(digest.encode()).hexdigest()[:12],
        "KBUILD_BUILD_TIMESTAMP": "1970-01-01 00:00:00 UTC",
        "KBUILD_BUILD_VERSION": "1",
    }
    if localversion:
        found["LOCALVERSION"] = localversion
    if modules_to is not None:
        found |= {
            "INSTALL_MOD_PATH": modules_to,
            "INSTALL_MOD_STRIP": "1",
            "DEPMOD": "true",
        }
    return found
