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
_KDUMP_LOG = re.compile(r"/[A-Za-z0-9_.:-]{1,100}/(dmesg\.[0-9]{8,14}|vmcore-dmesg\.txt)", re.ASCII)
MAX_FILES = 32
MAX_BYTES = 1 << 20


def names(shell: Shell, folders: tuple[str, ...] = FOLDERS, kdump: str = KDUMP) -> frozenset[str]:
    """The records that are there, each by its path."""
    where = " ".join(shlex.quote(folder) for folder in folders)
    logs = f"find {shlex.quote(kdump)} -mindepth 2 -maxdepth 2 -type f -name '*dmesg*'"
    found = shell.run(f"{{ find {where} -type f; {logs}; }} 2>/dev/null", check=False).stdout
    return frozenset(
        line
        for line in found.splitlines()
        if _kdump_log(line, kdump) or (_file_name(line) and line.startswith(folders))
    )


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
        target = folder / _file_name(path)
        target.write_text(text)
        if not _kdump_log(path, kdump):
            shell.run(f"rm -f {quoted}")
        taken.append(target)
    return tuple(taken)


def _kdump_log(path: str, kdump: str) -> bool:
    """Whether it is one: the folders of no other kind are below this one."""
    return path.startswith(kdump) and bool(_KDUMP_LOG.fullmatch(path.removeprefix(kdump)))


def _file_name(path: str) -> str:
    """A safe name for a file here, "" for what can be none of the machine's."""
    name = path.rpartition("/")[2]
    return name if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,100}", name, re.ASCII) else ""
