# SPDX-License-Identifier: GPL-2.0-only
"""What the machine lacks is found and named, and got by apt where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import doctor
from harness.doctor import Need
from harness.paths import PROJECT


class Programs:
    """A folder that is the whole PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.add("sh", 'exec /bin/sh "$@"')

    def add(self, name: str, script: str = "") -> None:
        """A program that logs its arguments and runs a script."""
        path = self.folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.log}\n{script}\n')
        path.chmod(0o755)

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    monkeypatch.setenv("PATH", str(tmp_path))
    return Programs(tmp_path)


@pytest.fixture
def hello(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hello is all that is needed."""
    needs = (
        Need("Hello", "greeting", "hello-package", doctor._program("hello")),
        Need("Goodbye", "leaving", "hello-package", doctor._program("hello")),
    )
    monkeypatch.setattr(doctor, "NEEDS", needs)


def problem(what: str) -> str | None:
    return next((words for need, words in doctor.lacking() if need.what == what), None)


def test_an_empty_machine_lacks_every_program(programs: Programs) -> None:
    for what, program in [
        ("git", "git"),
        ("ccache", "ccache"),
        ("bubblewrap", "bwrap"),
        ("QEMU", "qemu-system-aarch64"),
        ("setpriv", "setpriv"),
        ("arm64 compiler", f"{doctor.CROSS}gcc"),
    ]:
        assert problem(what) == f"no {program} on PATH"


def test_what_is_there_is_not_lacking(programs: Programs) -> None:
    programs.add("git")
    assert problem("git") is None
    assert problem("make") is not None


def test_a_file_that_is_there(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.touch()
    assert doctor._file(str(tmp_path / "absent"), str(there))() is None
    assert doctor._file(str(tmp_path / "absent"))() == f"no {tmp_path}/absent"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("QEMU emulator version 7.2.22 (Debian)", None),
        ("QEMU emulator version 10.0.0", None),
        ("QEMU emulator version 7.1.9", "version 7.1, which does not emulate FEAT_HAFDBS"),
        ("QEMU emulator version 5.2.0", "version 5.2"),
        ("no idea", "of no known version"),
    ],
)
def test_qemu(programs: Programs, answer: str, words: str | None) -> None:
    programs.add("qemu-system-aarch64", f"echo '{answer}'")
    found = problem("QEMU")
    assert found is None if words is None else words in str(found)


def test_programs_that_do_not_come_back(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs.add("qemu-system-aarch64")
    programs.add("bwrap")

    def never(argv: list[str], **options: object) -> None:
        raise subprocess.TimeoutExpired(argv, 20)

    monkeypatch.setattr(subprocess, "run", never)
    assert problem("QEMU") == "qemu-system-aarch64 --version does not come back"
    assert problem("bubblewrap") == "bwrap does not come back"


def test_bwrap_without_namespaces(programs: Programs) -> None:
    programs.add("bwrap", "echo 'No permissions to create new namespace' >&2; exit 1")
    assert "No permissions to create new namespace" in str(problem("bubblewrap"))
    programs.add("bwrap")
    assert problem("bubblewrap") is None


def test_tells_what_is_missing(
    programs: Programs, hello: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.examine() == 3
    out = capsys.readouterr().out
    assert "missing  Hello (for greeting): no hello on PATH; Debian package hello-package" in out
    assert out.count("hello-package\n") == 3, "the command names a package once"
    assert "apt-get install -y --no-install-recommends hello-package" in out


def test_nothing_is_missing(
    programs: Programs,
    hello: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    programs.add("hello")
    programs.add("apt-get")
    assert doctor.examine(install=True, quiet=True) == 0
    assert capsys.readouterr().out == ""
    assert programs.calls() == [], "nothing is installed without need"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "not yet there"))
    monkeypatch.setattr(doctor, "FREE_BYTES", 1 << 62)
    assert doctor.examine() == 0
    out = capsys.readouterr().out
    assert "ok       Hello (for greeting)" in out
    assert f"low      {out.split('low')[1].split()[0]} GiB free" in out
    assert str(tmp_path / "not yet there") in out


def test_installs_as_root(programs: Programs, hello: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    made = programs.folder / "hello"
    programs.add(
        "apt-get",
        f"[ $DEBIAN_FRONTEND = noninteractive ] || exit 9\n"
        f"[ $1 = update ] || {{ echo '#!/bin/sh' > {made}; /bin/chmod 755 {made}; }}",
    )
    assert doctor.examine(install=True, quiet=True) == 0
    assert programs.calls() == [
        "apt-get update",
        "apt-get install -y --no-install-recommends hello-package",
    ]


def test_installs_by_sudo(programs: Programs, hello: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """sudo drops the environment, so what apt needs of it goes another way."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    programs.add("sudo", f'exec /usr/bin/env -i PATH={programs.folder} "$@"')
    programs.add("env", 'exec /usr/bin/env "$@"')
    programs.add("apt-get", f"echo $DEBIAN_FRONTEND >> {programs.log}")
    assert doctor.examine(install=True, quiet=True) == 3
    assert programs.calls().count("noninteractive") == 2


def test_no_sudo(
    programs: Programs,
    hello: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    programs.add("apt-get")
    assert doctor.examine(install=True) == 3
    out = capsys.readouterr().out
    assert "needs root, and there is no sudo" in out
    assert "apt-get install -y --no-install-recommends hello-package" in out
    assert programs.calls() == []


def test_no_apt(programs: Programs, hello: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.examine(install=True) == 3
    assert "there is no apt-get" in capsys.readouterr().out


def test_apt_fails(
    programs: Programs,
    hello: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    programs.add("apt-get", "exit 100")
    assert doctor.examine(install=True) == 3
    assert "apt-get update failed (100)" in capsys.readouterr().out
    assert programs.calls() == ["apt-get update"]


def test_python_that_is_too_old(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "OLDEST_PYTHON", (99, 0))
    assert doctor.examine() == 3
    assert "3.11 is the oldest" in capsys.readouterr().out


def test_needs_nothing_but_the_standard_library() -> None:
    """It runs before there is a virtual environment; -I and -S keep that one out."""
    script = f"import sys; sys.path.insert(0, {str(PROJECT)!r}); import harness.doctor"
    subprocess.run([sys.executable, "-I", "-S", "-c", script], check=True, timeout=20)
