# SPDX-License-Identifier: GPL-2.0-only
"""What the controller needs, what it lacks, and how to get it.

Uses the standard library alone: `make` runs it before there is a virtual environment, and this
list is the only one there is.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

APT_SECONDS = 1800
QUIET_APT = "noninteractive"
NATIVE = platform.machine() == "aarch64"
CROSS = "" if NATIVE else "aarch64-linux-gnu-"
OLDEST_QEMU = (7, 2)
OLDEST_PYTHON = (3, 11)
FREE_BYTES = 8 << 30


@dataclass(frozen=True)
class Need:
    """Something that must be there; `probe` returns what is wrong with it, or None."""

    what: str
    why: str
    package: str
    probe: Callable[[], str | None]


def _program(name: str) -> Callable[[], str | None]:
    return lambda: None if shutil.which(name) else f"no {name} on PATH"


def _file(*paths: str) -> Callable[[], str | None]:
    return lambda: None if any(map(os.path.exists, paths)) else f"no {paths[0]}"


def _qemu() -> str | None:
    program = "qemu-system-aarch64"
    if shutil.which(program) is None:
        return f"no {program} on PATH"
    try:
        words = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return f"{program} --version does not come back"
    found = re.search(r"version (\d+)\.(\d+)", words.stdout)
    if found is None or (int(found[1]), int(found[2])) < OLDEST_QEMU:
        have = found[0] if found else "of no known version"
        return f"it is {have}, which does not emulate FEAT_HAFDBS: 7.2 is the first that does"
    return None


def _sandbox() -> str | None:
    if shutil.which("bwrap") is None:
        return "no bwrap on PATH"
    try:
        done = subprocess.run(
            ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"],
            capture_output=True,
            text=True,
            timeout=20,
        )
    except subprocess.TimeoutExpired:
        return "bwrap does not come back"
    return None if done.returncode == 0 else f"bwrap makes no namespaces: {done.stderr.strip()}"


def _venv() -> str | None:
    return None if importlib.util.find_spec("ensurepip") else "no module ensurepip"


_LIBC = "/usr/lib/aarch64-linux-gnu/libc.a" if NATIVE else "/usr/aarch64-linux-gnu/lib/libc.a"

NEEDS: tuple[Need, ...] = (
    Need("venv", "the virtual environment", "python3-venv", _venv),
    Need("git", "applying a series", "git", _program("git")),
    Need("make", "building kernels", "make", _program("make")),
    Need("gcc", "kbuild's own programs", "gcc", _program("gcc")),
    Need("libc headers", "kbuild's own programs", "libc6-dev", _file("/usr/include/stdio.h")),
    Need("flex", "kbuild's own programs", "flex", _program("flex")),
    Need("bison", "kbuild's own programs", "bison", _program("bison")),
    Need("bc", "building kernels", "bc", _program("bc")),
    Need("perl", "building kernels", "perl", _program("perl")),
    Need("xz", "unpacking kernel source", "xz-utils", _program("xz")),
    Need("OpenSSL", "building kernels", "libssl-dev", _file("/usr/include/openssl/ssl.h")),
    Need("libelf", "building kernels", "libelf-dev", _file("/usr/include/libelf.h")),
    Need(
        "arm64 compiler",
        "kernels and kvm-guest",
        "gcc" if NATIVE else "gcc-aarch64-linux-gnu",
        _program(f"{CROSS}gcc"),
    ),
    Need(
        "arm64 libc",
        "kvm-guest",
        "libc6-dev" if NATIVE else "libc6-dev-arm64-cross",
        _file(_LIBC),
    ),
    Need("ccache", "building kernels fast", "ccache", _program("ccache")),
    Need("bubblewrap", "building untrusted patches", "bubblewrap", _sandbox),
    Need("mmdebstrap", "the emulated host's user space", "mmdebstrap", _program("mmdebstrap")),
    Need("QEMU", "the emulated host", "qemu-system-arm", _qemu),
    Need("setpriv", "leaving no process behind", "util-linux", _program("setpriv")),
)


# Only `make test-lab` has these needs as well.
LAB: tuple[Need, ...] = (
    Need("mtools", "the disk of an emulated machine", "mtools", _program("mcopy")),
)

# Only `make test-look` has these needs as well.
LOOK: tuple[Need, ...] = (
    Need("Chromium", "looking at an HTML report", "chromium", _program("chromium")),
)


def lacking(more: Sequence[Need] = ()) -> list[tuple[Need, str]]:
    """The needs that are not met, each with what is wrong."""
    found = ((need, need.probe()) for need in (*NEEDS, *more))
    return [(need, problem) for need, problem in found if problem is not None]


def _install(packages: Sequence[str]) -> str | None:
    """Install Debian packages, by sudo if this is not root; returns what went wrong."""
    if shutil.which("apt-get") is None:
        return "this is no Debian: there is no apt-get; install the packages' counterparts by hand"
    become: list[str] = []
    if os.geteuid() != 0:
        if shutil.which("sudo") is None:
            return "apt-get needs root, and there is no sudo; run as root: " + _command(packages)
        # sudo would drop the variable, and a question of debconf's would wait for ever.
        become = ["sudo", "env", f"DEBIAN_FRONTEND={QUIET_APT}"]
    for argv in (["apt-get", "update"], _command(packages).split()):
        print("+", *become, *argv, flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": QUIET_APT}
        try:
            done = subprocess.run([*become, *argv], env=environment, timeout=APT_SECONDS)
        except subprocess.TimeoutExpired:
            return f"{argv[0]} {argv[1]} did not end within {APT_SECONDS} s"
        if done.returncode != 0:
            return f"{' '.join(argv[:2])} failed ({done.returncode})"
    return None


def _command(packages: Sequence[str]) -> str:
    return "apt-get install -y --no-install-recommends " + " ".join(packages)


def examine(*, install: bool = False, quiet: bool = False, more: Sequence[Need] = ()) -> int:
    """Print what is lacking, get it if `install` is set; 0 if nothing is lacking then, else 3.

    `more` are needs beyond those that everything has.
    """
    if sys.version_info < OLDEST_PYTHON:
        print(f"python3 is {platform.python_version()}; 3.11 is the oldest that works")
        return 3
    missing = lacking(more)
    if missing and install:
        problem = _install(sorted({need.package for need, _ in missing}))
        missing = lacking(more)
        if problem is not None:
            print(problem)
    for need, problem in missing:
        print(f"missing  {need.what} (for {need.why}): {problem}; Debian package {need.package}")
    if missing:
        packages = sorted({need.package for need, _ in missing})
        print(f"get it with `kvm-harness doctor --install`, or: {_command(packages)}")
        return 3
    if not quiet:
        for need in (*NEEDS, *more):
            print(f"ok       {need.what} (for {need.why})")
        _tell_space()
    return 0


def _tell_space() -> None:
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    home = place = base if base.is_absolute() else Path.home() / ".cache"
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    word = "ok      " if free >= FREE_BYTES else "low     "
    print(f"{word} {free >> 30} GiB free for the cache in {home} (a cold run takes about 4)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="doctor")
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--lab", action="store_true")
    parser.add_argument("--look", action="store_true")
    options = parser.parse_args()
    more = (*(LAB if options.lab else ()), *(LOOK if options.look else ()))
    sys.exit(examine(install=options.install, quiet=options.quiet, more=more))
