# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel that crashed left for the next one (Documentation/ABI/testing/pstore).

systemd moves it from the file system of the kernel's to a folder on disk (systemd-pstore(8)). Where
kdump is set up there is the log that it saved as well, beside the memory, which is left where it is
(Debian's kdump-config(8); kdump.conf(5) of Fedora and RHEL).
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from harness.hosts.protocols import Shell

FOLDERS = ("/sys/fs/pstore", "/var/lib/systemd/pstore")
# Each crash has a folder there.
KDUMP = "/var/crash"
_KDUMP_LOG = re.compile(r"[A-Za-z0-9_.:-]{1,100}/(dmesg\.[0-9]{8,14}|vmcore-dmesg\.txt)", re.ASCII)
# systemd has a folder for each crash, and one for each of its parts.
_RECORD = re.compile(r"[A-Za-z0-9_][\w.:-]{0,60}(/[A-Za-z0-9_][\w.:-]{0,60}){0,3}", re.ASCII)
MAX_FILES = 32
MAX_BYTES = 1 << 20


def names(shell: Shell, folders: tuple[str, ...] = FOLDERS, kdump: str = KDUMP) -> frozenset[str]:
    """The records that are there, each by its path."""
    where = " ".join(shlex.quote(folder) for folder in folders)
    logs = f"find {shlex.quote(kdump)} -mindepth 2 -maxdepth 2 -type f -name '*dmesg*'"
    found = shell.run(f"{{ find {where} -type f; {logs}; }} 2>/dev/null", check=False).stdout
    return frozenset(line for line in found.splitlines() if _name(line, folders, kdump))


def collect(
    shell: Shell,
    before: frozenset[str],
    folder: Path,
    folders: tuple[str, ...] = FOLDERS,
    kdump: str = KDUMP,
) -> tuple[Path, ...]:
    """Take what was not there `before` to `folder`.

    Records of pstore are removed from the machine: they would fill the little room that it has for
    them. Those of kdump are on its disk, and stay.
    """
    taken = []
    for path in sorted(names(shell, folders, kdump) - before)[:MAX_FILES]:
        quoted = shlex.quote(path)
        text = shell.run(f"head -c {MAX_BYTES} {quoted}").stdout
        folder.mkdir(exist_ok=True)
        target = folder / _name(path, folders, kdump)
        target.write_text(text)
        if _below(kdump, path) is None:
            shell.run(f"rm -f {quoted}")
        taken.append(target)
    return tuple(taken)


def _name(path: str, folders: tuple[str, ...], kdump: str) -> str:
    """The name of a file here, "" for what can be none of the machine's.

    It has the folders of the record in it: in each systemd calls the record dmesg.txt.
    """
    inside, pattern = _below(kdump, path), _KDUMP_LOG
    for folder in folders:
        if inside is None:
            inside, pattern = _below(folder, path), _RECORD
    return inside.replace("/", "_") if inside and pattern.fullmatch(inside) else ""


def _below(folder: str, path: str) -> str | None:
    """The path from the folder on, if it is below that."""
    return path.removeprefix(f"{folder}/") if path.startswith(f"{folder}/") else None
