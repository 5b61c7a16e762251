# SPDX-License-Identifier: GPL-2.0-only
"""A kernel that was built: what is known of it, its name in the cache, and its record there."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.kernel import toolchain
from harness.kernel.machine import MachineConfig

# Part of every key: raise it when the way of building changes what is built.
RECIPE = "1"
RECORD = "kernel.json"  # of a cache entry, written when all else is there


class Kernel(BaseModel):
    """A built kernel, its files in the cache.

    `tree` is the digest of the tree that it was built from.
    `build_id` is the GNU build id in hex, to be compared with /sys/kernel/notes; `release` what
    uname -r shows; `seconds` what the build took when it was made, `steps` how many commands
    kbuild ran. `build_dir` is kept for a base kernel, and for a patched one where it was asked for.
    `compiler` is what compiler and linker say of themselves; `builder` the machine that it was
    made on, "" for this one.
    Of one for a machine with a configuration of its own, `modules` is the archive of its modules,
    and `localversion` the end of its release, which no other kernel has.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    image: Path
    vmlinux: Path
    system_map: Path
    config: Path
    log: Path
    build_dir: Path | None
    build_id: str
    config_sha256: str
    image_sha256: str
    release: str
    tree: str
    incremental: bool
    seconds: float
    steps: int
    modules: Path | None = None
    modules_sha256: str = ""
    localversion: str = ""
    builder: str = ""
    cached: bool = True
    # Not in the cache's file: the key has it, and a cache may serve other versions of this.
    compiler: str = Field(default="", exclude=True)


def key_of(
    tree_digest: str,
    fragments: str,
    tools: toolchain.Toolchain,
    machine: MachineConfig | None = None,
) -> str:
    """The name of a kernel in the cache: equal only for what must give equal kernels.

    One for a machine may be built there as well as here, so its name says which compiler that is,
    and not where it runs.
    """
    parts = [RECIPE, tree_digest, fragments]
    if machine is None:
        parts += [tools.identity, tools.tuxmake]
    else:
        parts += [*tools.target, *machine.key]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def load(entry: Path) -> Kernel | None:
    """The kernel of a cache entry, None if its files are not those that were put there."""
    try:
        kernel = Kernel.model_validate_json((entry / RECORD).read_text())
        intact = sha256(kernel.image) == kernel.image_sha256 and kernel.vmlinux.is_file()
        intact = intact and (kernel.build_dir is None or kernel.build_dir.is_dir())
        if kernel.modules is not None:
            intact = intact and sha256(kernel.modules) == kernel.modules_sha256
    except (OSError, ValidationError):
        return None
    return kernel if intact else None


def sha256(path: Path) -> str:
    """The digest of a file, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
