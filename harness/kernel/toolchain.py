# SPDX-License-Identifier: GPL-2.0-only
"""The compilers of this controller: cross on x86-64, native on arm64.

Debian's native gcc on arm64 also goes by its triplet, so one prefix serves both (and tuxmake
looks for no other).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from harness import proc
from harness.deadline import Deadline
from harness.errors import InfraError
from harness.kernel.sandbox import python_prefixes

PREFIX = "aarch64-linux-gnu-"  # CROSS_COMPILE
_HOST_TOOLS = ("make", "flex", "bison", "bc", "perl", "ccache", "bwrap")


@dataclass(frozen=True)
class Toolchain:
    """`identity` is what gcc and ld say of themselves, `tuxmake` is its version."""

    identity: str
    tuxmake: str

    @property
    def compiler(self) -> str:
        """The versions of gcc and ld for arm64, in a line."""
        found = re.findall(r"^(?:gcc version|GNU ld) .*", self.identity, re.MULTILINE)
        return ", ".join([f"{PREFIX}{line.strip()}" for line in found[:1]] + found[1:2])


def find(deadline: Deadline) -> Toolchain:
    """The toolchain for arm64 on this machine; InfraError names every tool that is missing."""
    tools = (f"{PREFIX}gcc", f"{PREFIX}ld", "gcc", *_HOST_TOOLS)
    if missing := [tool for tool in dict.fromkeys(tools) if shutil.which(tool) is None]:
        raise InfraError(f"{', '.join(missing)}: not found; run `kvm-harness doctor`")
    asked = ((f"{PREFIX}gcc", "-v"), (f"{PREFIX}ld", "-v"), ("gcc", "-v"))
    said = [proc.run(argv, deadline=deadline, what=" ".join(argv)) for argv in asked]
    return Toolchain(
        identity="\n".join(done.stdout + done.stderr for done in said),
        tuxmake=_tuxmake(),
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
