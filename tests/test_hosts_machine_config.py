# SPDX-License-Identifier: GPL-2.0-only
"""The configuration that a machine has, read by a real sh and taken apart within bounds.

What is in data/machine has the shape of Debian's configuration for arm64 and of /proc/modules.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from local_shell import LocalShell

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts import machine_config
from harness.hosts.protocols import Result
from harness.observe.errors import ObserveError

DATA = Path(__file__).parent / "data" / "machine"
CONFIG = (DATA / "debian-arm64.config").read_text()
MODULES = (DATA / "modules.txt").read_text()
NONCE = "n0nce"


def answer(where: str = "/proc/config.gz", config: str = CONFIG, modules: str = MODULES) -> str:
    parts = {"from": f"{where}\n", "config": config, "modules": modules, "end": ""}
    return "".join(f"{NONCE} {name}\n{body}" for name, body in parts.items())


def test_settings_without_comments_and_compiler() -> None:
    lines = machine_config.normalised(CONFIG, "it").splitlines()
    assert lines[:3] == [
        'CONFIG_LOCALVERSION=""',
        "# CONFIG_LOCALVERSION_AUTO is not set",
        'CONFIG_BUILD_SALT="6.12.9-arm64"',
    ]
    assert lines[-1] == r'CONFIG_SYSTEM_TRUSTED_KEYS="debian/certs/\"new\".pem"'
    assert len(lines) == 15


def test_another_compiler_and_other_comments_make_no_other_configuration() -> None:
    other = CONFIG.replace("12.2.0", "13.1.0").replace("120200", "130100").replace("6.12.9 K", "K")
    assert other != CONFIG
    assert machine_config.normalised(other, "it") == machine_config.normalised(CONFIG, "it")
    salted = CONFIG.replace("6.12.9-arm64", "6.12.10-arm64")
    assert machine_config.normalised(salted, "it") != machine_config.normalised(CONFIG, "it")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("CONFIG_X=$(id)", "neither a setting nor a comment"),
        ("CONFIG_X=y; id", "neither a setting nor a comment"),
        ("CONFIG_X=", "neither a setting nor a comment"),
        ('CONFIG_X="a"b"', "neither a setting nor a comment"),
        ('CONFIG_X="\x1b[2J"', "neither a setting nor a comment"),
        ("source /etc/passwd", "neither a setting nor a comment"),
        ("CONFIG_ARM64=n", "CONFIG_ARM64 is there a second time"),
        ("# CONFIG_ARM64 is not set", "CONFIG_ARM64 is there a second time"),
        ("CONFIG_X=\0y", "a NUL"),
    ],
)
def test_a_line_that_is_no_setting_is_named(line: str, problem: str) -> None:
    with pytest.raises(ObserveError, match=rf"the file:3\d: {problem}"):
        machine_config.normalised(f"{CONFIG}{line}\n", "the file")


def test_a_configuration_that_is_cut_off_or_too_long_or_of_another_architecture() -> None:
    with pytest.raises(ObserveError, match="truncated line 'CONFIG_HA'"):
        machine_config.normalised(f"{CONFIG}CONFIG_HA", "it")
    with pytest.raises(ObserveError, match="longer than"):
        machine_config.normalised(CONFIG + "#\n" * machine_config.MAX_CONFIG, "it")
    with pytest.raises(InfraError, match="lacks CONFIG_ARM64=y"):
        machine_config.normalised(CONFIG.replace("CONFIG_ARM64=y", "CONFIG_X86=y"), "it")


def test_loaded_modules() -> None:
    assert machine_config.loaded(MODULES) == ("ext4", "jbd2", "nf_tables", "virtio_net", "zfs")
    assert machine_config.loaded("") == ()
    with pytest.raises(ObserveError, match=r"/proc/modules:6: not a module: '\.\./x 1 0 - Live 0'"):
        machine_config.loaded(f"{MODULES}../x 1 0 - Live 0\n")


def test_only_a_trimmed_kernel_depends_on_what_is_loaded() -> None:
    whole = machine_config.parse(answer(modules="nonsense\n"), NONCE, trim=False)
    trimmed = machine_config.parse(answer(), NONCE, trim=True)
    assert whole.loaded is None and trimmed.text == whole.text
    assert trimmed.loaded is not None and "jbd2" in trimmed.loaded


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (answer(where=""), "no configuration of its kernel to be read, neither /proc/config.gz"),
        (answer().removesuffix("n0nce end\n"), "end mark is missing"),
        (answer().replace("n0nce modules", "n0nce other"), "other parts"),
        (answer(where="/boot/config-x", config="oops\n"), r"'/boot/config-x':1: neither"),
    ],
)
def test_answers_that_cannot_be_used(text: str, problem: str) -> None:
    with pytest.raises(InfraError, match=problem):
        machine_config.parse(text, NONCE, trim=True)


class ElsewhereShell(LocalShell):
    """Runs scripts in a sh here, with files of a host that is a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        for path in ("/proc", "/boot", "/lib"):
            command = command.replace(f"{path}/", f"{self._root}{path}/")
        return super().run(command.replace("uname -r", "echo 6.12-x"), deadline, check=check)


@pytest.mark.parametrize(
    "where", ["proc/config.gz", "boot/config-6.12-x", "lib/modules/6.12-x/config"]
)
def test_every_place_that_a_configuration_may_be_in(tmp_path: Path, where: str) -> None:
    file = tmp_path / where
    file.parent.mkdir(parents=True)
    data = CONFIG.encode()
    file.write_bytes(gzip.compress(data) if where.endswith(".gz") else data)
    (tmp_path / "proc").mkdir(exist_ok=True)
    (tmp_path / "proc/modules").write_text(MODULES)
    found = machine_config.read(ElsewhereShell(tmp_path), trim=True, deadline=Deadline(30))
    assert found.text == machine_config.normalised(CONFIG, "it")
    assert found.loaded == machine_config.loaded(MODULES)


def test_a_machine_without_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(InfraError, match="no configuration of its kernel"):
        machine_config.read(ElsewhereShell(tmp_path), trim=True, deadline=Deadline(30))


def test_a_bomb_is_cut_off_on_the_machine(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    bomb = gzip.compress(b"#\n" * machine_config.MAX_CONFIG * 4)
    (tmp_path / "proc/config.gz").write_bytes(bomb)
    with pytest.raises(InfraError, match="longer than 1048576 characters"):
        machine_config.read(ElsewhereShell(tmp_path), trim=False, deadline=Deadline(30))
