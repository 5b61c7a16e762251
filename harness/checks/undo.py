# SPDX-License-Identifier: GPL-2.0-only
"""Put a host back as it was, without hiding why a check failed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from harness.errors import DeadlineExceeded, HostDied, InfraError
from harness.hosts.protocols import Shell
from harness.observe.unproven import Unproven


def unmount(folder: str) -> str:
    """What has a shell unmount a folder, if anything is mounted there, and remove it."""
    return f"! grep -q ' {folder} ' /proc/mounts || umount {folder}; rmdir {folder}"


@contextlib.contextmanager
def undone(undo: Callable[[], object]) -> Iterator[None]:
    """Undo what the block did. Trouble with that must not hide why the block itself failed."""
    try:
        yield
    except BaseException:
        try:
            undo()
        except (HostDied, DeadlineExceeded):
            raise
        except (InfraError, Unproven):
            pass
        raise
    undo()


@contextlib.contextmanager
def written(shell: Shell, path: str, value: object, before: object) -> Iterator[None]:
    """A file of the kernel's has a value in this block, and the one before it afterwards."""
    with undone(lambda: shell.write(path, f"{before}\n")):
        shell.write(path, f"{value}\n")
        yield
