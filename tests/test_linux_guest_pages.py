# SPDX-License-Identifier: GPL-2.0-only
"""Page frames, their flags and page_idle of a process, from files in the kernel's form."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from fake_shell import UnaskedShell

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts.protocols import Result
from harness.linux_guest import host_pages
from harness.linux_guest.host_pages import IdlePages, frames, masks, on_lru
from harness.observe.unproven import Unproven

PRESENT = 1 << 63


class Here(UnaskedShell):
    """Runs what a host is asked to here, where the host's files are those of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        command = command.replace("/proc/", f"{self.folder}/")
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stderr
        return Result(command, done.returncode, done.stdout, done.stderr)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    monkeypatch.setattr(host_pages, "BITMAP", str(tmp_path / "bitmap"))
    monkeypatch.setattr(host_pages, "MASK", str(tmp_path / "mask"))
    (tmp_path / "88").mkdir()
    return Here(tmp_path)


def words(path: Path, size: int, values: dict[int, int]) -> None:
    path.write_bytes(b"".join(struct.pack("<Q", values.get(at, 0)) for at in range(size)))


def test_frames(shell: Here, tmp_path: Path) -> None:
    """Pages count from an address that is in the middle of a block of pagemap."""
    soft_dirty = 1 << 55
    entries = {700: PRESENT | soft_dirty | 5, 701: 1 << 62 | 9, 1300: PRESENT | 77}
    words(tmp_path / "88/pagemap", 1500, entries)
    assert frames(shell, 88, 690 * 4096, {10, 11, 12, 610}) == {10: 5, 610: 77}


def test_frames_that_are_hidden_or_not_there(shell: Here, tmp_path: Path) -> None:
    words(tmp_path / "88/pagemap", 600, {3: PRESENT})
    with pytest.raises(InfraError, match="hides the PFNs"):
        frames(shell, 88, 0, {3})
    with pytest.raises(InfraError, match="ends before"):
        frames(shell, 88, 0, {599, 600})


def test_on_lru(shell: Here, tmp_path: Path) -> None:
    words(tmp_path / "kpageflags", 3000, {2100: 1 << 5 | 1 << 12, 2101: 1 << 12, 2900: 1 << 5})
    assert on_lru(shell, {2100, 2101, 2900}) == {2100, 2900}


def test_a_kernel_without_page_idle(shell: Here, tmp_path: Path) -> None:
    with pytest.raises(Unproven, match="CONFIG_IDLE_PAGE_TRACKING"):
        IdlePages(shell, {5}).mark()
    assert not (tmp_path / "bitmap").exists()


def test_marks_these_pages_and_no_others(shell: Here, tmp_path: Path) -> None:
    bitmap = tmp_path / "bitmap"
    bitmap.write_bytes(bytes(12_000))
    pfns = {32_768 + 3, 32_768 + 64, 70_000}
    pages = IdlePages(shell, pfns)
    pages.mark()
    set_bits = [at for at in range(96_000) if bitmap.read_bytes()[at // 8] >> at % 8 & 1]
    assert set(set_bits) == pfns
    assert bitmap.stat().st_size == 12_000
    assert pages.idle() == pfns
    data = bytearray(bitmap.read_bytes())
    data[70_000 // 8] = 0
    bitmap.write_bytes(data)
    assert pages.idle() == pfns - {70_000}


def test_marks_pages_that_lie_far_apart(shell: Here, tmp_path: Path) -> None:
    """What lies between is neither read nor written, and the last block is not whole."""
    bitmap = tmp_path / "bitmap"
    far = 100 * 32_768
    bitmap.write_bytes(bytes(99 * 4096) + b"\xff" * 4096 + bytes(16))
    pages = IdlePages(shell, {5, far + 64})
    pages.mark()
    data = bitmap.read_bytes()
    assert len(data) == 100 * 4096 + 16
    assert data[0] == 1 << 5
    assert data[99 * 4096 : 100 * 4096] == b"\xff" * 4096
    assert data[100 * 4096 :] == bytes(8) + b"\1" + bytes(7)
    assert pages.idle() == {5, far + 64}


def test_mask_ends_with_its_last_word() -> None:
    assert masks([0]) == (b"\1" + bytes(7), [(0, 1)])
    assert masks([32_768 + 64]) == (bytes(8) + b"\1" + bytes(7), [(1, 1)])
    data, runs = masks([1, 40_000, 40 * 32_768])
    assert runs == [(0, 2), (40, 1)]
    assert len(data) == 2 * 4096 + 8
    assert {at: byte for at, byte in enumerate(data) if byte} == {
        0: 1 << 1,
        4096 + (40_000 - 32_768) // 8: 1,
        2 * 4096: 1,
    }


def test_pages_too_far_apart(shell: Here, tmp_path: Path) -> None:
    """A block of flags is for 512 pages; here are more blocks than are asked for."""
    with pytest.raises(Unproven, match="too far apart"):
        on_lru(shell, range(0, 512 * 20_000, 512))


def test_what_does_not_arrive_whole(
    shell: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words(tmp_path / "kpageflags", 1024, {5: 1 << 5})
    whole = shell.run

    def cut(command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        result = whole(command)
        return Result(command, 0, result.stdout[: len(result.stdout) // 8 * 4], "")

    monkeypatch.setattr(shell, "run", cut)
    with pytest.raises(InfraError, match="did not arrive"):
        on_lru(shell, {5, 600})
