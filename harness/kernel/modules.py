# SPDX-License-Identifier: GPL-2.0-only
"""The modules of a kernel as one archive, to be unpacked in /lib/modules of a machine.

What a series builds decides what `make modules_install` leaves, and root unpacks it elsewhere: so
there is nothing in it but plain files below RELEASE, with names of a known shape.
"""

from __future__ import annotations

import gzip
import re
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

from harness.errors import InfraError

# Between the kernel's version and twelve digits of its key: no installed kernel has it in its
# release, so none of their modules is ever overwritten.
LOCALVERSION = "-kvmharness-"
ARCHIVE = "modules.tar.gz"
MAX_FILES = 20_000
MAX_BYTES = 2 << 30
_RELEASE = re.compile(rf"[0-9][0-9A-Za-z.+~-]{{0,40}}{LOCALVERSION}[0-9a-f]{{12}}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_+,@-][A-Za-z0-9_.+,@-]{0,127}", re.ASCII)
# The configuration, where dracut looks for it as well (Debian has it in /boot).
CONFIG = "config"
# Links to folders of the controller; and the configuration is not the build's to give.
_LEFT_OUT = ("build", "source", CONFIG)


def is_ours(release: str) -> bool:
    """Whether a release is one of the harness's own, and fit to be a part of a path."""
    return _RELEASE.fullmatch(release) is not None


def archive(
    work: Path, installed: str, release: str, localversion: str, config: Path, target: Path
) -> None:
    """Pack what `make modules_install` put below the folder `installed` of a build folder.

    The kernel's configuration goes with them.
    The same modules give the same archive. InfraError if the release is not the one that was
    asked for, or there is anything but plain files.
    """
    if not (is_ours(release) and release.endswith(localversion)):
        raise InfraError(f"the build calls its kernel {release!r}, which has to end {localversion}")
    top = work / installed / "lib/modules" / release
    if not top.is_dir() or top.resolve() != work.resolve() / installed / "lib/modules" / release:
        raise InfraError(f"the build passed, but installed no modules for {release}")
    size = 0
    with (
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for count, path in enumerate((config, *_files(top, top)), 1):
            name = CONFIG if path == config else path.relative_to(top)
            info = tarfile.TarInfo(f"{release}/{name}")
            info.mode = 0o644
            with path.open("rb") as content:
                info.size = path.stat().st_size
                size += info.size
                if count > MAX_FILES or size > MAX_BYTES:
                    raise InfraError(f"more than {MAX_FILES} files or {MAX_BYTES} bytes of modules")
                tar.addfile(info, content)


def _files(folder: Path, top: Path) -> Iterator[Path]:
    """Every file below a folder, in sorted order."""
    for path in sorted(folder.iterdir()):
        mode = path.lstat().st_mode
        if folder == top and path.name in _LEFT_OUT:
            continue
        if _NAME.fullmatch(path.name) and stat.S_ISDIR(mode):
            yield from _files(path, top)
        elif _NAME.fullmatch(path.name) and stat.S_ISREG(mode):
            yield path
        else:
            raise InfraError(f"{str(path.relative_to(top))!r} among the modules is no plain file")
