# SPDX-License-Identifier: GPL-2.0-only
"""Make a kernel on this machine: tuxmake and make, in the sandbox.

Source and build folder stand at fixed paths inside the sandbox (/src, /build). So kbuild's
dependency files and ccache's entries hold for any tree, and a patched kernel is built in a copy
of the base's build folder, where only what the series touches is compiled.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.kernel import build_folder, cache, sandbox, toolchain
from harness.kernel.bench import MODULES, TARGETS, Order, compile_variables

# The configuration that is asked for: a file of an order's stage, and where the sandbox has it.
FRAGMENTS = "fragments.config"
FRAGMENTS_INSIDE = Path("/fragments.config")
# A folder of the build folder, of no use once the kernel is made.
OUTPUT = ".tuxmake"
_CCACHE = Path("/ccache")


@dataclass(frozen=True)
class LocalBench:
    """A Bench on this machine, in the sandbox.

    `modules` says whether the kernel has any, `trusted` that no series has changed its tree: a
    series may read the compiler cache, but what it compiles must not enter it. `what` is done here,
    in words.
    """

    order: Order
    arch: toolchain.Arch
    modules: bool
    trusted: bool
    what: str

    @property
    def folder(self) -> str:
        """See Bench.folder."""
        return str(sandbox.BUILD)

    def make(self, target: str, variables: Mapping[str, str]) -> int:
        """See Bench.make."""
        arch = self.arch
        argv = [
            "make", f"--directory={sandbox.SOURCE}", f"O={sandbox.BUILD}", f"ARCH={arch.name}",
            f"CROSS_COMPILE={arch.prefix}", "CROSS_COMPILE_COMPAT=",
            f"CC=ccache {arch.prefix}gcc", "HOSTCC=ccache gcc", target,
        ]  # fmt: skip
        return self._stream(argv, dict(variables))

    def compile(self) -> int:
        """See Bench.compile."""
        order = self.order
        argv = tuxmake_argv(order.digest, order.localversion, modules=self.modules, arch=self.arch)
        return self._stream(argv, {})

    def put(self, name: str, text: str) -> None:
        """See Bench.put. By rename: what a series left there may be a link."""
        new = self.order.stage / "new"
        new.write_text(text)
        new.replace(self.order.work / name)

    def read(self, name: str) -> str:
        """See Bench.read."""
        return build_folder.read(self.order.work, name)

    def _stream(self, argv: Sequence[str], variables: dict[str, str]) -> int:
        box = self._sandbox(variables)
        order = self.order
        return sandbox.stream(box, argv, order.on_line, deadline=order.deadline, what=self.what)

    def _sandbox(self, extra: dict[str, str]) -> sandbox.Sandbox:
        """What a build sees. A series writes /build alone; a source the compiler cache as well."""
        store = cache.folder("ccache")
        read_only = {
            self.order.tree: sandbox.SOURCE,
            self.order.stage / FRAGMENTS: FRAGMENTS_INSIDE,
            **sandbox.python_prefixes(),
        }
        writable = {self.order.work: sandbox.BUILD}
        environment = {"CCACHE_DIR": str(_CCACHE), "CCACHE_MAXSIZE": "2G", **extra}
        if self.trusted:
            writable[store] = _CCACHE
        else:
            read_only[store] = _CCACHE
            environment |= {"CCACHE_READONLY": "1", "CCACHE_TEMPDIR": "/tmp"}
        return sandbox.Sandbox(read_only, writable, environment, sandbox.SOURCE)


def tuxmake_argv(
    digest: str,
    localversion: str = "",
    *,
    modules: bool = False,
    arch: toolchain.Arch = toolchain.ARM64,
) -> list[str]:
    """The tuxmake command that builds the image from the .config that is in /build.

    The target "config" is named since without a target tuxmake builds all of them; with a .config
    in the build folder it makes none itself. With `modules` these are built and put into the build
    folder as well.
    """
    modules_to = str(sandbox.BUILD / MODULES) if modules else None
    environment = compile_variables(digest, localversion, modules_to)
    targets = TARGETS if modules else (arch.image,)
    return [
        sys.executable, "-I", "-u", "-m", "tuxmake",
        f"--directory={sandbox.SOURCE}",
        f"--build-dir={sandbox.BUILD}",
        f"--output-dir={sandbox.BUILD / OUTPUT}",
        f"--kconfig={sandbox.BUILD}/.config",
        f"--target-arch={arch.name}",
        "--toolchain=gcc", "--wrapper=ccache", "--compression-type=none",
        "--fail-fast", "--verbose", f"--jobs={len(os.sched_getaffinity(0))}",
        *(f"--environment={name}={value}" for name, value in environment.items()),
        *(f"--make-target={target}" for target in targets),
        "config", f"CROSS_COMPILE={arch.prefix}", "CROSS_COMPILE_COMPAT=",
    ]  # fmt: skip
