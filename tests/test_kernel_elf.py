# SPDX-License-Identifier: GPL-2.0-only
"""What is read from a vmlinux."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from harness.errors import InfraError
from harness.kernel import elf


def test_a_file_without_a_build_id(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_text("no ELF")
    with pytest.raises(InfraError, match="vmlinux is no ELF file"):
        elf.build_id(tmp_path / "vmlinux")


def test_the_configuration_inside_a_kernel(tmp_path: Path) -> None:
    vmlinux = tmp_path / "vmlinux"
    packed = gzip.compress(b"CONFIG_KVM=y\n")
    vmlinux.write_bytes(b"\x7fELF..IKCFG_ST" + packed + b"IKCFG_ED..")
    assert elf.embedded_config(vmlinux) == "CONFIG_KVM=y\n"
    vmlinux.write_bytes(b"\x7fELF")
    assert elf.embedded_config(vmlinux) is None
    vmlinux.write_bytes(b"IKCFG_ST" + packed[:-12] + b"xx" + packed[-10:] + b"IKCFG_ED")
    with pytest.raises(InfraError, match="damaged"):
        elf.embedded_config(vmlinux)
