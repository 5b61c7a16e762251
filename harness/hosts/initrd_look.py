# SPDX-License-Identifier: GPL-2.0-only
"""Is the initramfs that the inventory names there, and can test kernels unpack it?

Distributions compress theirs in ways that a kernel may lack: Debian and Ubuntu by zstd. Such a
kernel panics for want of a root, after all that was built for it.
"""

from __future__ import annotations

import shlex

from harness.errors import UsageError
from harness.hosts.fitness import Finding
from harness.hosts.machine import MARK
from harness.hosts.protocols import Shell
from harness.inventory import SshHost
from harness.kernel.config import parse_config
from harness.kernel.flavor import PLAIN
from harness.printable import printable

WHAT = "initrd"
# By the first bytes, as lib/decompress.c knows them: the end of CONFIG_RD_'s name. A cpio archive
# without compression needs none, and may have one with it behind.
_COMPRESSED = {
    "1f8b": "GZIP",
    "425a": "BZIP2",
    "5d00": "LZMA",
    "fd37": "XZ",
    "894c": "LZO",
    "0221": "LZ4",
    "28b5": "ZSTD",
}


def findings(shell: Shell, host: SshHost, cmdline: str) -> tuple[Finding, ...]:
    """What was found of it, with a shell of root's; nothing where the inventory names none.

    `cmdline` is of the kernel that runs. One of ours, which a run that was killed has left, may
    have another root than the kernel that the machine is brought home to first.
    """
    if host.initrd is None:
        return ()
    if MARK in cmdline:
        return (Finding("note", WHAT, "not looked at, since a test kernel runs just now"),)
    path = shlex.quote(host.initrd)
    ask = f"test -s {path} && echo there && od -An -tx1 -N2 {path} 2>/dev/null"
    return (judge(host, shell.run(ask, check=False).stdout),)


def judge(host: SshHost, told: str) -> Finding:
    """What it means that the file is there, and its first two bytes, as od(1) prints them.

    A host without od(1) does not tell these: then all is taken to be well.
    """
    there, *first = told.split() or [""]
    head = "".join(first)
    if there != "there":
        words = (
            f"{host.initrd} is not there or empty; Debian has the link /initrd.img, Ubuntu "
            "/boot/initrd.img, Fedora and its like have /boot/initramfs-RELEASE.img alone"
        )
        return Finding("missing", WHAT, words)
    symbol = f"RD_{_COMPRESSED.get(head, '')}"
    # A machine's own configuration is that of a kernel which has unpacked it.
    if head in _COMPRESSED and host.config == "harness" and symbol not in _set(host):
        words = (
            f"{host.initrd} is compressed in a way that test kernels do not know: have "
            f"CONFIG_{symbol}=y in `fragments`"
        )
        return Finding("missing", WHAT, words)
    return Finding("ok", WHAT, printable(f"{host.initrd}"))


def _set(host: SshHost) -> set[str]:
    """What the fragments of its kernels set to y."""
    found: set[str] = set()
    for path in (*PLAIN.fragments, *(one.expanduser() for one in host.fragments)):
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as exc:
            raise UsageError(f"kernel fragment {path} cannot be read: {exc}") from exc
        found |= {symbol for symbol, value in parse_config(text).items() if value == "y"}
    return found
