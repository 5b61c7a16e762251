# SPDX-License-Identifier: GPL-2.0-only
"""Bad input, given to the real command: a clear error, an exit code of its own, nothing lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command import Ended, in_process, kvm_harness

from harness.paths import PROJECT

Command = Callable[..., Ended]

INVENTORY = (PROJECT / "inventory.yaml").read_text()


@pytest.fixture
def command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    """What refuses its input before it starts anything shows as much in this process."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return lambda *args: in_process(args, capsys)


def inventory(folder: Path, old: str, new: str) -> str:
    assert old in INVENTORY
    path = folder / "inventory.yaml"
    path.write_text(INVENTORY.replace(old, new, 1))
    return str(path)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("af: hardware", "flavour: hardware", "flavour"),
        ("kvm_modes: [vhe, nvhe, protected]", "kvm_modes: often", "kvm_modes"),
        ("cpu: neoverse-n1", "cpu: 7", "cpu"),
    ],
)
def test_inventory_error_names_file_line_and_key(
    old: str, new: str, key: str, command: Command, tmp_path: Path
) -> None:
    path = inventory(tmp_path, old, new)
    done = command("run", "--inventory", path)
    assert done.returncode == 2
    line = 1 + (tmp_path / "inventory.yaml").read_text().splitlines().index(
        next(line for line in Path(path).read_text().splitlines() if new in line)
    )
    assert f"{path}:{line}" in done.stderr
    assert key in done.stderr
    assert done.summary["verdict"] == "error"


def test_missing_host_is_named(command: Command) -> None:
    done = command("run", "--host", "altra")
    assert done.returncode == 2
    assert "altra" in done.stderr
    assert "n1, a57" in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("Subject: [PATCH] no change\n\nWords only.\n", "patch"),
        ("--- a/../../evil\n+++ b/../../evil\n@@ -0,0 +1 @@\n+x\n", "evil"),
    ],
)
def test_bad_series_is_refused(text: str, words: str, command: Command, tmp_path: Path) -> None:
    patch = tmp_path / "0001-x.patch"
    patch.write_text(text)
    done = command("run", "--series", str(patch))
    assert done.returncode == 2
    assert "0001-x.patch" in done.stderr
    assert words in done.stderr


def test_missing_qemu_is_named(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All programs but QEMU are on PATH."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "setpriv", "bwrap", "git", "make", "gcc", "aarch64-linux-gnu-gcc", "env"):
        found = shutil.which(name)
        if found:
            (programs / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(programs))
    done = command("run", "--base-only")
    assert done.returncode == 3
    assert "qemu-system-aarch64 is missing" in done.stderr


def test_old_qemu_is_refused(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    qemu = programs / "qemu-system-aarch64"
    qemu.write_text("#!/bin/sh\necho QEMU emulator version 6.2.0\n")
    qemu.chmod(0o755)
    path = f"{programs}:/usr/bin:/bin"
    monkeypatch.setenv("PATH", path)
    done = command("run", "--base-only")
    assert done.returncode == 3
    assert "6.2" in done.stderr
    assert "FEAT_HAFDBS" in done.stderr


@pytest.mark.integration
def test_series_that_does_not_apply(tmp_path: Path) -> None:
    patch = tmp_path / "0001-x.patch"
    patch.write_text(
        "Subject: [PATCH] elsewhere\n\n---\n"
        "--- a/arch/arm64/kvm/mmu.c\n+++ b/arch/arm64/kvm/mmu.c\n"
        "@@ -100,3 +100,3 @@\n no such line\n-of this file\n+here\n at all\n"
    )
    done = kvm_harness(["run", "--series", str(patch)], tmp_path)
    assert done.returncode == 2
    for word in ("elsewhere", "arch/arm64/kvm/mmu.c", "100"):
        assert word in done.stderr


@pytest.mark.integration
def test_series_that_does_not_compile(tmp_path: Path) -> None:
    patch = tmp_path / "0001-x.patch"
    patch.write_text(
        "Subject: [PATCH] typo\n\n---\n"
        "--- a/arch/arm64/kvm/pmu.c\n+++ b/arch/arm64/kvm/pmu.c\n"
        "@@ -1,3 +1,4 @@\n // SPDX-License-Identifier: GPL-2.0\n+int broken = ;\n /*\n"
        "  * Copyright 2019 Arm Limited\n"
    )
    done = kvm_harness(["run", "--series", str(patch)], tmp_path)
    assert done.returncode == 2
    assert "arch/arm64/kvm/pmu.c:2" in done.stderr
    assert "log" in done.stderr


@pytest.mark.integration
def test_no_kvm_in_the_booted_kernel(tmp_path: Path) -> None:
    path = inventory(tmp_path, "hugepages=1]", "kvm-arm.mode=none]")
    args = ["run", "--base-only", "--host", "n1", "--mode", "vhe", "--inventory", path]
    done = kvm_harness(args, tmp_path)
    assert done.returncode == 3
    (cell,) = done.summary["cells"]
    assert (cell["outcome"], cell["death"]) == ("error", "no-kvm")
    assert "no KVM" in cell["reason"]


@pytest.mark.integration
def test_inventory_that_is_wrong_about_the_cpu(tmp_path: Path) -> None:
    path = inventory(tmp_path, "af: hardware", "af: software")
    args = ["run", "--base-only", "--host", "n1", "--mode", "vhe", "--inventory", path]
    done = kvm_harness(args, tmp_path)
    assert done.returncode == 3
    assert "Neoverse N1" in done.summary["cells"][0]["reason"]


@pytest.mark.parametrize("expression", ["nonesuch", "(", "page_idle and"])
def test_selection_of_nothing_is_refused_at_once(expression: str, command: Command) -> None:
    done = command("run", "--base-only", "-k", expression)
    assert done.returncode == 2
    assert expression in done.stderr or "-k" in done.stderr


def test_checks_that_are_no_python_are_refused_at_once(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "test_mine.py"
    path.write_text("def test_a(:\n")
    done = command("run", "--base-only", "--checks", str(path))
    assert done.returncode == 2
    assert "test_mine.py" in done.stderr


def test_two_checks_of_one_name_are_refused(command: Command, tmp_path: Path) -> None:
    for name in ("test_a.py", "test_b.py"):
        (tmp_path / name).write_text("def test_same(claim): claim.observe('seen')\n")
    done = command("run", "--base-only", "--checks", str(tmp_path))
    assert done.returncode == 2
    assert "test_same" in done.stderr


OWN_CHECK = '''
def test_mine(guest, claim):
    """Page 7 of 64 is young after the guest has read it."""
    vm = guest(pages=64)
    vm.populate()
    vm.drain()
    vm.idle_mark()
    vm.touch({7}, write=False)
    young = frozenset(range(64)) - vm.idle_read()
    claim.observe(f"young: {sorted(young)}")
    assert young == {EXPECTED}

def test_later(claim):
    claim.observe("it ran")
'''


@pytest.mark.integration
@pytest.mark.parametrize(("page", "code"), [(7, 0), (8, 1)])
def test_checks_of_the_users_own(page: int, code: int, tmp_path: Path) -> None:
    path = tmp_path / "test_mine.py"
    path.write_text(OWN_CHECK.replace("EXPECTED", str(page)))
    junit = tmp_path / "junit.xml"
    args = ["run", "--base-only", "--host", "n1", "--mode", "vhe", "--checks", str(path), "-x"]
    done = kvm_harness([*args, "--junitxml", str(junit)], tmp_path)
    assert done.returncode == code
    assert done.check("n1-vhe-base", "test_mine")["observed"] == "young: [7]"
    names = [check["name"] for check in done.summary["checks"]]
    assert names == (["test_mine", "test_later"] if code == 0 else ["test_mine"])
    assert 'name="test_mine"' in junit.read_text()
