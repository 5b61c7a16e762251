# SPDX-License-Identifier: GPL-2.0-only
"""What identifies a vmlinux: its GNU build id, its configuration, and what of it is loaded."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import NoteSection

from harness.errors import InfraError

# kernel/configs.c puts the compressed .config between these two marks (CONFIG_IKCONFIG).
_BEGIN, _END = b"IKCFG_ST", b"IKCFG_ED"


def build_id(vmlinux: Path) -> str:
    """The GNU build id (NT_GNU_BUILD_ID) in hex; InfraError if the file has none."""
    try:
        with vmlinux.open("rb") as handle:
            for section in ELFFile(handle).iter_sections():
                if isinstance(section, NoteSection):
                    for note in section.iter_notes():
                        if note["n_type"] == "NT_GNU_BUILD_ID" and note["n_name"] == "GNU":
                            return str(note["n_desc"])
    except Exception as exc:  # a series decides what its vmlinux holds; elftools trusts it
        raise InfraError(f"{vmlinux} is no ELF file that can be read: {exc!r}") from exc
    raise InfraError(f"{vmlinux} has no GNU build id")


def embedded_config(vmlinux: Path, limit: int = 1 << 24) -> str | None:
    """The .config inside a kernel built with CONFIG_IKCONFIG, None for one built without.

    At most `limit` bytes are unpacked; InfraError if what is there cannot be.
    """
    data = vmlinux.read_bytes()
    start = data.find(_BEGIN)
    end = data.find(_END, start + len(_BEGIN))
    if start < 0 or end < 0:
        return None
    try:
        unpacker = zlib.decompressobj(wbits=31)
        text = unpacker.decompress(data[start + len(_BEGIN) : end], limit)
    except zlib.error as exc:
        raise InfraError(f"{vmlinux} carries a damaged configuration: {exc}") from exc
    return text.decode(errors="replace")


def has_lines(vmlinux: Path) -> bool:
    """Whether a file says from which lines of the source its code comes (.debug_line)."""
    return ".debug_line" in _sections(vmlinux)


def loaded(vmlinux: Path) -> dict[str, tuple[int, str]]:
    """Name -> address and digest of every section that is loaded, but for notes.

    Equal for two kernels that run alike. The notes hold the build id, which is also of what is
    not loaded.
    """
    return {name: where for name, where in _sections(vmlinux).items() if where is not None}


def _sections(vmlinux: Path) -> dict[str, tuple[int, str] | None]:
    found: dict[str, tuple[int, str] | None] = {}
    try:
        with vmlinux.open("rb") as handle:
            for section in ELFFile(handle).iter_sections():
                counts = section["sh_flags"] & SH_FLAGS.SHF_ALLOC
                counts = counts and section["sh_type"] not in ("SHT_NOBITS", "SHT_NOTE")
                digest = hashlib.sha256(section.data()).hexdigest() if counts else ""
                found[section.name] = (section["sh_addr"], digest) if counts else None
    except Exception as exc:  # a series decides what its vmlinux holds; elftools trusts it
        raise InfraError(f"{vmlinux} is no ELF file that can be read: {exc!r}") from exc
    return found
