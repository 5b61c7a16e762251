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


def test_the_log_that_kdump_saved_is_copied(tmp_path: Path) -> None:
    """The memory beside it is not, and both stay where they are."""
    crash, kept = tmp_path / "crash", tmp_path / "kept"
    names = (
        "202611280900/dmesg.202611280900",
        "202611281000/dmesg.202611281000",
        "202611281000/dump.202611281000",
        "127.0.0.1-2026-11-28-10:00:00/vmcore-dmesg.txt",
        "a b/dmesg.202611281000",
        "202611281000/dmesg.txt; rm -rf x",
    )
    for name in names:
        (crash / name).parent.mkdir(parents=True, exist_ok=True)
        (crash / name).write_text(name)
    (crash / "kexec_cmd").write_text("x")
    shell, none = LocalShell(), (str(tmp_path / "absent"),)
    assert len(pstore.names(shell, none, str(crash))) == 3
    before = frozenset({str(crash / names[0])})
    taken = pstore.collect(shell, before, kept, none, str(crash))
    assert [path.name for path in taken] == [
        "127.0.0.1-2026-11-28-10:00:00_vmcore-dmesg.txt",
        "202611281000_dmesg.202611281000",
    ]
    assert taken[1].read_text() == names[1]
    assert all((crash / name).exists() for name in names)


def test_records_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    """systemd-pstore(8) makes a folder for each crash, and has dmesg.txt in each."""
    there, kept = tmp_path / "pstore", tmp_path / "kept"
    for name in ("1732", "1733/001"):
        (there / name).mkdir(parents=True)
        (there / name / "dmesg.txt").write_text(name)
    taken = pstore.collect(LocalShell(), frozenset(), kept, (str(there),), str(tmp_path / "none"))
    assert [path.name for path in taken] == ["1732_dmesg.txt", "1733_001_dmesg.txt"]
    assert [path.read_text() for path in taken] == ["1732", "1733/001"]
    assert not list(there.rglob("*.txt"))
