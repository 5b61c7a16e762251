# SPDX-License-Identifier: GPL-2.0-only
"""What a crash left is taken from a folder, by a real sh."""

from __future__ import annotations

from pathlib import Path

from local_shell import LocalShell

from harness.hosts import pstore


def test_what_is_new_is_taken(tmp_path: Path) -> None:
    there, kept = tmp_path / "pstore", tmp_path / "cell"
    there.mkdir()
    (there / "dmesg-old-1").write_text("of somebody else")
    folders = (str(there), str(tmp_path / "absent"))
    shell = LocalShell()
    before = pstore.names(shell, folders)
    assert before == {str(there / "dmesg-old-1")}
    assert pstore.collect(shell, before, kept, folders) == ()
    assert not kept.exists()
    (there / "dmesg-efi-2").write_text("Kernel panic\n")
    (there / "bad name").write_text("x")
    assert pstore.collect(shell, before, kept, folders) == (kept / "dmesg-efi-2",)
    assert (kept / "dmesg-efi-2").read_text() == "Kernel panic\n"
    assert sorted(path.name for path in there.iterdir()) == ["bad name", "dmesg-old-1"]


def test_no_more_than_so_much_is_taken(tmp_path: Path) -> None:
    for number in range(pstore.MAX_FILES + 3):
        (tmp_path / f"dmesg-{number}").write_text("x")
    (tmp_path / "dmesg-0").write_bytes(b"y" * (pstore.MAX_BYTES + 10))
    kept = tmp_path / "kept"
    taken = pstore.collect(LocalShell(), frozenset(), kept, (str(tmp_path),))
    assert len(taken) == pstore.MAX_FILES
    assert (kept / "dmesg-0").stat().st_size == pstore.MAX_BYTES
