# SPDX-License-Identifier: GPL-2.0-only
"""The files of a reproducer. run.sh is run by a real sh, with a QEMU that only says its lines."""

from __future__ import annotations

import gzip
import os
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from harness.hosts import cpio, qemu
from harness.hosts.image import INIT
from harness.reproduce import folder as files
from harness.reproduce.folder import Told
from harness.reproduce.script import parse, without_numbers
from harness.reproduce.sign import Sign, shows

MACHINE = qemu.Machine("n1", "neoverse-n1")
LINES = Sign("lines", 2, ("1 idle=0-7",), ("1 idle=3",))
STEPS = "repro: 1 > a\nrepro: 1 < 1 ok\nrepro: 1 .\nrepro: 2 > b\n"
PANIC = "[    9.5] Kernel panic - not syncing: f+0x1a/0x2b at 17\n"
REPORT = Sign("report", seen=("Kernel panic - not syncing: f+N/N at N",))
CONSOLES = {
    "seen": (LINES, f"{STEPS}repro: 2 < 1 idle=0-7\nrepro: 2 .\nrepro: over\n", 0),
    "with more": (LINES, f"{STEPS}repro: 2 < 1 idle=0-7\nrepro: 2 < 1 x\nrepro: 2 .\n", 0),
    "both": (LINES, f"{STEPS}repro: 2 < 1 idle=0-7\nrepro: 2 < 1 idle=3\nrepro: 2 .\n", 1),
    "right": (LINES, f"{STEPS}repro: 2 < 1 idle=3\nrepro: 2 .\nrepro: over\n", 1),
    "else": (LINES, f"{STEPS}repro: 2 < 1 idle=0-77\nrepro: 2 .\nrepro: over\n", 1),
    "not so far": (LINES, STEPS, 2),
    "panic": (REPORT, f"{STEPS}{PANIC}", 0),
    "not ASCII": (
        Sign("report", seen=(without_numbers("WARNING: caf\xe9 12\xb5s"),)),
        "[    9.5] WARNING: caf\xe9 13\xb5s\n",
        0,
    ),
    "no panic": (REPORT, "repro: over\n", 1),
    "other death": (REPORT, STEPS, 2),
    "stops": (Sign("stop", 2), STEPS, 0),
    "goes on": (Sign("stop", 2), f"{STEPS}repro: 2 .\nrepro: over\n", 1),
    "stops elsewhere": (Sign("stop", 1), STEPS, 2),
    "stops after it": (Sign("stop", 2), f"{STEPS}repro: 2 .\n", 2),
    "boot stops": (Sign("stop", 0), "[    0.1] Linux\n", 0),
    "unknown": (Sign("none"), "repro: over\n", 2),
}


def made(folder: Path, sign: Sign) -> Path:
    """What run.sh needs beside it."""
    folder.mkdir()
    (folder / "observed.txt").write_text("".join(f"{line}\n" for line in sign.seen))
    (folder / "expected.txt").write_text("".join(f"{line}\n" for line in sign.absent))
    (folder / "run.sh").write_text(files.run_sh(sign, MACHINE, ["a=b"], 30))
    return folder


def run(
    folder: Path, *args: str, console: str = "", status: int = 0, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """run.sh with a QEMU that writes down its arguments and prints `console`."""
    tools = folder.parent / "tools"
    tools.mkdir(exist_ok=True)
    said = folder.parent / "said"
    said.write_text(console.replace("\n", "\r\n"))
    program = tools / "qemu-system-aarch64"
    arguments = shlex.quote(str(folder.parent / "argv"))
    program.write_text(
        f"#!/bin/sh\nprintf '%s\\n' \"$@\" >>{arguments}\n"
        f"cut -d ' ' -f 5 /proc/$$/stat >{shlex.quote(str(folder.parent / 'group'))}\n"
        f"cat {said}\nexit {status}\n"
    )
    program.chmod(0o755)
    env = {"PATH": f"{tools}:{os.environ['PATH']}", "TMPDIR": str(folder.parent)}
    return subprocess.run(
        ["sh", str(folder / "run.sh"), *args],
        capture_output=True,
        text=True,
        env=env,
        cwd=cwd,
        timeout=30,
    )


@pytest.mark.parametrize("name", CONSOLES)
def test_run_sh_decides_as_the_harness_does(tmp_path: Path, name: str) -> None:
    sign, console, code = CONSOLES[name]
    done = run(made(tmp_path / "it", sign), console=console)
    assert done.returncode == code, done.stdout + done.stderr
    assert shows(parse(console, sign.seen), sign) == (code == 0)


def test_a_log_of_another_machine_is_judged_as_well(tmp_path: Path) -> None:
    folder = made(tmp_path / "it", LINES)
    (tmp_path / "a log").write_text(CONSOLES["seen"][1])
    done = run(folder, "-l", "a log", cwd=tmp_path)
    assert done.returncode == 0
    assert not (tmp_path / "argv").exists()
    assert "observed when this was made: 1 idle=0-7" in done.stdout
    assert "now: 1 idle=0-7" in done.stdout


def test_what_qemu_is_given(tmp_path: Path) -> None:
    folder = made(tmp_path / "it", LINES)
    (tmp_path / "my Image").write_bytes(b"")
    assert run(folder, "my Image", console=STEPS, cwd=tmp_path).returncode == 2
    argv = (tmp_path / "argv").read_text().splitlines()
    assert argv[argv.index("-kernel") + 1] == str(tmp_path / "my Image")
    assert argv[argv.index("-sandbox") + 1].startswith("on,")
    assert argv[argv.index("-append") + 1] == "a=b"
    assert not {"-netdev", "-device"} & set(argv)


def test_a_failure_that_comes_by_chance_is_tried_often(tmp_path: Path) -> None:
    folder = made(tmp_path / "it", replace(LINES, rare=True))
    assert run(folder, console=CONSOLES["right"][1]).returncode == 1
    argv = (tmp_path / "argv").read_text().splitlines()
    assert argv.count("-kernel") == files.LOOPS


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["none"], "cannot read none"),
        (["-l", "none"], "cannot read none"),
        (["-x", "y"], "usage:"),
        (["a", "b", "c"], "usage:"),
    ],
)
def test_wrong_use(tmp_path: Path, args: list[str], words: str) -> None:
    done = run(made(tmp_path / "it", LINES), *args)
    assert done.returncode == 2
    assert words in done.stderr


def test_what_ends_the_script_by_ctrl_c_ends_qemu(tmp_path: Path) -> None:
    """A terminal signals a process group."""
    run(made(tmp_path / "it", LINES), console=CONSOLES["right"][1])
    assert int((tmp_path / "group").read_text()) == os.getpgrp()


def test_qemu_that_fails_is_no_verdict(tmp_path: Path) -> None:
    done = run(made(tmp_path / "it", LINES), console=CONSOLES["right"][1], status=1)
    assert done.returncode == 2
    assert "QEMU ended with 1" in done.stderr


def test_no_qemu(tmp_path: Path) -> None:
    folder = made(tmp_path / "it", LINES)
    tools = tmp_path / "few"
    tools.mkdir()
    for name in ("dirname", "mktemp", "timeout", "sh"):
        (tools / name).symlink_to(shutil.which(name) or "")
    done = subprocess.run(
        [str(tools / "sh"), str(folder / "run.sh")],
        capture_output=True,
        text=True,
        env={"PATH": str(tools), "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 2
    assert "qemu-system-aarch64 is missing" in done.stderr


def test_a_readme_has_five_lines_whatever_the_run_says() -> None:
    hostile = "\x1b[2J\n\nRun: `rm -rf /`\r\n\u202e" + "x" * 5000
    told = Told(hostile, hostile, hostile, hostile, hostile, hostile, 7, "seen in 2 of 2")
    text = files.readme(told, LINES)
    lines = text.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        *("Broken", "Expected", "Observed", "Run", "Read")
    ]
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert all(len(line) <= files.LONGEST for line in lines)


def test_a_readme_says_how_to_tell() -> None:
    told = Told("test_x", "n1-vhe-patched", "Linux 6.12", "old", "young", "why", 7, "2 of 2")
    for sign in (LINES, REPORT, Sign("stop", 3), Sign("none")):
        assert files.readme(told, sign).count("\n") == 5
    assert "by step 2" in files.readme(told, LINES)
    assert "2 of 2" in files.readme(told, LINES)


@pytest.mark.parametrize("name", ["../../x", "test_a[b/c]", "-rf", "a b;c", "\x1b"])
def test_names_of_folders_are_plain(name: str) -> None:
    found = files.folder_name("n1-vhe-patched", name)
    assert found.startswith("n1-vhe-patched--")
    assert "/" not in found
    assert shlex.quote(found) == found


def test_the_same_bytes_each_time(tmp_path: Path) -> None:
    one = files.initramfs(b"busybox", {"usr/bin/kvm-guest": b"guest"}, "echo\n")
    assert one == files.initramfs(b"busybox", {"usr/bin/kvm-guest": b"guest"}, "echo\n")
    data = gzip.decompress(one)
    assert cpio.contents(data, "bin/busybox") == b"busybox"
    assert cpio.contents(data, "replay/run.sh") == b"echo\n"
    assert b"dropbear/host_key" not in data.replace(INIT.read_bytes(), b""), "no key in it"
    with pytest.raises(KeyError):
        cpio.contents(data, "usr/bin/none")
    archives = []
    for parent, when in (("a", 1), ("b", 2)):
        folder = tmp_path / parent / "it"
        folder.mkdir(parents=True)
        (folder / "run.sh").write_text("x")
        (folder / "run.sh").chmod(0o755)
        (folder / "README").write_text("y")
        os.utime(folder / "README", (when, when))
        archives.append(files.tarball(folder))
    assert archives[0] == archives[1]
    target = tmp_path / "it.tar.gz"
    target.write_bytes(archives[0])
    shutil.unpack_archive(target, tmp_path / "out", filter="data")
    assert (tmp_path / "out/it/README").read_text() == "y"
    assert os.access(tmp_path / "out/it/run.sh", os.X_OK)
