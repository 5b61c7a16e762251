# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel that crashed left for the next one (Documentation/ABI/testing/pstore).

systemd moves it from the file system of the kernel's to a folder on disk (systemd-pstore(8)).
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from harness.hosts.protocols import Shell

FOLDERS = ("/sys/fs/pstore", "/var/lib/systemd/pstore")
MAX_FILES = 32
MAX_BYTES = 1 << 20


def names(shell: Shell, folders: tuple[str, ...] = FOLDERS) -> frozenset[str]:
    """The records that are there, each by its path."""
    where = " ".join(shlex.quote(folder) for folder in folders)
    found = shell.run(f"find {where} -type f 2>/dev/null", check=False).stdout.splitlines()
    return frozenset(line for line in found if _file_name(line) and line.startswith(folders))


def collect(
    shell: Shell, before: frozenset[str], folder: Path, folders: tuple[str, ...] = FOLDERS
) -> tuple[Path, ...]:
    """Take what was not there `before` to `folder`; it is removed from the machine.

    Otherwise it fills the few records that the machine has room for.
    """
    taken = []
    for path in sorted(names(shell, folders) - before)[:MAX_FILES]:
        quoted = shlex.quote(path)
        text = shell.run(f"head -c {MAX_BYTES} {quoted}").stdout
        folder.mkdir(exist_ok=True)
        target = folder / _file_name(path)
        target.write_text(text)
        shell.run(f"rm -f {quoted}")
        taken.append(target)
    return tuple(taken)


def _file_name(path: str) -> str:
    """A safe name for a file here, "" for what can be none of the machine's."""
    name = path.rpartition("/")[2]
    return name if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,100}", name, re.ASCII) else ""
