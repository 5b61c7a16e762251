# SPDX-License-Identifier: GPL-2.0-only
"""The compilers of this controller, for arm64 and x86-64: native for its own, cross for the other.

Debian's native gcc also goes by its triplet, so one prefix serves both (and tuxmake looks for no
other).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from harness import proc
from harness.deadline import Deadline
from harness.errors import InfraError
from harness.kernel.sandbox import python_prefixes

PREFIX = "aarch64-linux-gnu-"  # CROSS_COMPILE


@dataclass(frozen=True)
class Arch:
    """An architecture that kernels are built for.

    `name` is what make and tuxmake call it, `prefix` that of its tools, `image` what is made, and
    `path` where the build leaves that.
    """

    name: str
    prefix: str
    image: str
    path: str


ARM64 = Arch("arm64", PREFIX, "Image", "arch/arm64/boot/Image")
# Never booted, so linking is all that is asked for.
X86 = Arch("x86_64", "x86_64-linux-gnu-", "vmlinux", "vmlinux")
# Has gcc say which code it generates with the kernel's -O2.
DEFAULTS = ("-Q", "-O2", "--help=target", "--help=optimizers")
_HOST_TOOLS = ("make", "flex", "bison", "bc", "perl", "ccache", "bwrap")


@dataclass(frozen=True)
class Toolchain:
    """`identity` is what gcc and ld say of themselves, `tuxmake` is its version, "" without it.

    `defaults` is what gcc generates unless it is told otherwise (DEFAULTS).
    """

    identity: str
    tuxmake: str
    defaults: str = ""

    prefix: str = PREFIX

    @property
    def compiler(self) -> str:
        """The versions of gcc and ld that compile kernels, in a line."""
        found = self._versions
        return ", ".join([f"{self.prefix}{line}" for line in found[:1]] + found[1:2])

    @property
    def target(self) -> tuple[str, ...]:
        """What decides the code that comes out, wherever these tools run.

        The versions of gcc and ld as their distribution words them, and a digest of gcc's
        defaults; not for which machine they are built and where they are installed, in which a
        cross compiler differs from the same compiler at home. InfraError if it is not told.
        """
        settings = re.findall(r"^  -\S.*", self.defaults, re.MULTILINE)
        if len(self._versions) < 2 or not settings:
            raise InfraError(f"no GNU tools, or they do not say which: {self.identity[:200]!r}")
        text = "\n".join(" ".join(line.split()) for line in settings)
        return (*self._versions[:2], hashlib.sha256(text.encode()).hexdigest())

    @property
    def _versions(self) -> list[str]:
        found = re.findall(r"^(?:gcc version|GNU ld) .*", self.identity, re.MULTILINE)
        return [line.strip() for line in found]


def compiles_for(arch: Arch) -> bool:
    """Whether this machine has a compiler and a linker for it."""
    return all(shutil.which(f"{arch.prefix}{tool}") is not None for tool in ("gcc", "ld"))


def find(deadline: Deadline, arch: Arch = ARM64) -> Toolchain:
    """The toolchain for `arch` on this machine; InfraError names every tool that is missing."""
    gcc, ld = f"{arch.prefix}gcc", f"{arch.prefix}ld"
    if missing := [tool for tool in (gcc, ld, "gcc", *_HOST_TOOLS) if shutil.which(tool) is None]:
        raise InfraError(f"{', '.join(missing)}: not found; run `kvm-harness doctor`")
    asked = ((gcc, "-v"), (ld, "-v"), ("gcc", "-v"))
    # In their own words, not in the user's language.
    env = {**os.environ, "LC_ALL": "C"}
    said = [proc.run(argv, deadline=deadline, what=" ".join(argv), env=env) for argv in asked]
    defaults = (gcc, *DEFAULTS)
    return Toolchain(
        identity="\n".join(done.stdout + done.stderr for done in said),
        tuxmake=_tuxmake(),
        defaults=proc.run(defaults, deadline=deadline, what=" ".join(defaults), env=env).stdout,
        prefix=arch.prefix,
    )


def _tuxmake() -> str:
    """tuxmake's version; InfraError unless this Python's own prefix, bound into builds, has it."""
    found = importlib.util.find_spec("tuxmake")
    if found is None or found.origin is None:
        raise InfraError("tuxmake: not found; run `kvm-harness doctor`")
    visible = (Path("/usr"), *python_prefixes())
    if not any(Path(found.origin).is_relative_to(prefix) for prefix in visible):
        raise InfraError(
            f"tuxmake is at {found.origin}, outside this Python's own folders, where a build "
            "cannot see it; install kvm-harness into a virtual environment"
        )
    return importlib.metadata.version("tuxmake")
