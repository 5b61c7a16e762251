# SPDX-License-Identifier: GPL-2.0-only
"""A kernel's modules, and an initramfs with those that its root needs, on a machine of the lab.

The release is the harness's own (harness/kernel/modules.py), so nothing of an installed kernel is
overwritten, and the boot loader finds no other kernel than before. clear() takes all of it away
and asks nobody what was done: so it also finds what a run that was killed has left.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, HostDied, InfraError
from harness.hosts.protocols import Shell
from harness.hosts.ssh import PUT_SECONDS
from harness.kernel.modules import LOCALVERSION, is_ours
from harness.observe.text import run_script

MODULES = "/lib/modules"
# Here mkinitramfs looks whether a kernel can unpack what it makes, and gives up without.
CONFIG = "/boot/config-"
CLEAR_SECONDS = 120.0
# At most, all of deploy(): the archive's way to the machine, and the steps there.
DEPLOY_SECONDS = PUT_SECONDS + 300 + 120 + 600

Maker = Literal["mkinitramfs", "dracut"]

# Programs of root's are in sbin, which the PATH of a shell over SSH may lack.
_HEAD = "umask 022\nPATH=$PATH:/usr/sbin:/sbin\n"
_WHICH = "for p in mkinitramfs dracut; do if command -v $p; then exit; fi; done"
_OURS = f"*{LOCALVERSION}{'[0-9a-f]' * 12}"
_CLEAR = f"""\
for d in {MODULES}/{_OURS}; do
	if [ -d "$d" ] && [ ! -L "$d" ]; then rm -rf -- "$d"; fi
done
rm -f {CONFIG}{_OURS}"""


@dataclass(frozen=True)
class Step:
    """A script of POSIX sh, and the one that takes it back, whether it was done or not.

    `undo` is empty where that of a step before it does for both.
    """

    what: str
    do: str
    undo: str
    seconds: float


def steps(release: str, folder: str, maker: Maker | None) -> tuple[Step, ...]:
    """What is done once the archive is in `folder`, which is the harness's own on the machine.

    ValueError for a release that is none of the harness's.
    """
    if not is_ours(release):
        raise ValueError(f"no release of the harness: {release!r}")
    packed, made = shlex.quote(archive(folder)), shlex.quote(initramfs(folder))
    here = f"{MODULES}/{release}"
    found = [
        Step(
            f"unpacking modules to {here}",
            # Below that folder whatever names are in it; busybox finds no folder by name.
            f"rm -rf {here}\nmkdir -p {here}\n"
            f"tar -xzf {packed} -C {here} --strip-components=1 --no-same-owner",
            f"rm -rf {here} {packed}",
            300,
        ),
        Step("depmod", f"depmod {release}", "", 120),
    ]
    if maker is not None:
        how = {
            "mkinitramfs": (
                f"trap 'rm -f {CONFIG}{release}' EXIT\n"
                f"cp {here}/config {CONFIG}{release}\n"
                f"mkinitramfs -o {made} {release}"
            ),
            "dracut": f"dracut --force --kver {release} {made}",
        }
        undo = f"rm -f {made} {CONFIG}{release}"
        found.append(Step(maker, f"{how[maker]}\ntest -s {made}", undo, 600))
    return tuple(found)


def archive(folder: str) -> str:
    """Where the archive of modules is put."""
    return f"{folder}/modules.tar.gz"


def initramfs(folder: str) -> str:
    """Where the initramfs is made."""
    return f"{folder}/initramfs.img"


def deploy(
    shell: Shell, modules: Path, release: str, folder: str, *, make: bool = True
) -> str | None:
    """Put a kernel's modules on a machine, and make an initramfs with what the machine has for it.

    Returns the path of the initramfs there, None without `make`, and where neither initramfs-tools
    nor dracut is: such a machine starts without one. What was done is undone if a step fails;
    InfraError says which.
    """
    todo = steps(release, folder, maker(shell) if make else None)
    packed = shlex.quote(archive(folder))
    try:
        shell.run(f"mkdir -p {shlex.quote(folder)}")
        shell.put(modules, archive(folder))
        for step in todo:
            _run(shell, step.what, step.do, step.seconds)
        shell.run(f"rm -f {packed}")
    except InfraError:
        _undo(shell, todo)
        raise
    return initramfs(folder) if len(todo) > 2 else None


def clear(shell: Shell, folder: str) -> None:
    """Remove every module of the harness's kernels and the initramfs, whatever run put them there.

    For the known-good kernel, before and after a cell; InfraError if it fails.
    """
    files = f"{shlex.quote(archive(folder))} {shlex.quote(initramfs(folder))}"
    _run(shell, "removing modules", f"{_CLEAR}\nrm -f {files}", CLEAR_SECONDS)


def maker(shell: Shell) -> Maker | None:
    """What the machine makes an initramfs with, as its own kernels have it."""
    found = shell.run(f"sh -c {shlex.quote(_HEAD + _WHICH)}", check=False).stdout.strip()
    for name in ("mkinitramfs", "dracut"):
        if found.rpartition("/")[2] == name:
            return name
    return None


def _run(shell: Shell, what: str, script: str, seconds: float) -> None:
    try:
        run_script(shell, _HEAD + script, Deadline(seconds))
    except (HostDied, DeadlineExceeded):
        raise
    except InfraError as exc:
        raise InfraError(f"{what} failed on the machine: {exc}") from exc


def _undo(shell: Shell, todo: Sequence[Step]) -> None:
    """Take back what can be; a machine that no longer answers is cleared by the next run."""
    with contextlib.suppress(InfraError):
        for step in reversed(todo):
            if step.undo:
                _run(shell, step.what, step.undo, CLEAR_SECONDS)
