# SPDX-License-Identifier: GPL-2.0-only
"""Arm64 programs out of Debian packages, with the libraries that they need.

mmdebstrap unpacks the packages without running anything of them, so any user on any architecture
can do it.
"""

from __future__ import annotations

import io
import platform
import posixpath
import tarfile
from collections.abc import Sequence
from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

from harness import proc
from harness.deadline import Deadline
from harness.errors import InfraError

LIBRARY_FOLDERS = ("lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu")
LOADER = "lib/ld-linux-aarch64.so.1"


def suite() -> str:
    """The Debian release that packages are of: the controller's own, else Debian 12."""
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    own = release.get("VERSION_CODENAME", "") if release.get("ID") == "debian" else ""
    return own or "bookworm"


def extract(
    packages: Sequence[str], target: Path, deadline: Deadline, what: str, *options: str
) -> None:
    """Put the files of packages and of all that they depend on into a folder, or a `.tar`.

    They are of this machine's architecture unless `options`, mmdebstrap's, say otherwise.
    InfraError with its words if a package does not exist or cannot be fetched.
    """
    argv = ["mmdebstrap", "--mode=chrootless", "--variant=extract", *options]
    argv += [f"--include={','.join(packages)}", suite(), str(target)]
    proc.run(argv, deadline=deadline, what=what, contained=True)


def unpack(packages: Sequence[str], folder: Path, deadline: Deadline, what: str) -> tarfile.TarFile:
    """The files of packages for arm64, by extract(); `folder` is for what lies between."""
    tarball = folder / "packages.tar"
    extract(packages, tarball, deadline, what, "--architectures=arm64")
    data = tarball.read_bytes()
    tarball.unlink()
    return tarfile.open(fileobj=io.BytesIO(data))


def with_libraries(
    root: tarfile.TarFile, programs: Sequence[str], packages: Sequence[str]
) -> dict[str, bytes]:
    """The programs and every library that they need, at the paths the loader looks in.

    Libraries are found by following ELF's DT_NEEDED. `packages` are named in errors.
    """
    members = {posixpath.normpath(member.name): member for member in root.getmembers()}

    def data(path: str) -> bytes:
        """The content behind a path, through its symbolic links.

        From Debian 13 on the packages themselves have /usr/bin/X where they had /bin/X.
        """
        for _ in range(8):
            member = members.get(path) or members.get(f"usr/{path}")
            if member is None:
                break
            if member.issym() or member.islnk():
                base = "" if member.islnk() else posixpath.dirname(path)
                path = posixpath.normpath(posixpath.join("/", base, member.linkname)).lstrip("/")
                continue
            content = root.extractfile(member)
            if content is not None:
                return content.read()
            break
        raise InfraError(f"host image: {path} is in none of the packages {', '.join(packages)}")

    taken: dict[str, bytes] = {}
    todo = [*programs]
    while todo:
        path = todo.pop()
        if path in taken:
            continue
        taken[path] = data(path)
        for library in _needed(taken[path]):
            if library == posixpath.basename(LOADER):
                todo.append(LOADER)
                continue
            found = [f"{place}/{library}" for place in LIBRARY_FOLDERS]
            todo += [path for path in found if path in members][:1]
            if not any(path in members for path in found):
                raise InfraError(f"host image: {path} needs {library}, which no package brought")
    return taken


def _needed(binary: bytes) -> list[str]:
    section = ELFFile(io.BytesIO(binary)).get_section_by_name(".dynamic")
    if not isinstance(section, DynamicSection):
        return []
    return [tag.needed for tag in section.iter_tags() if tag.entry.d_tag == "DT_NEEDED"]  # type: ignore[attr-defined]
