# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.kernel import config
from harness.paths import PROJECT

FINAL = """#
# Automatically generated file; DO NOT EDIT.
#
CONFIG_KVM=y
CONFIG_NR_CPUS=16
CONFIG_CMDLINE=""
# CONFIG_SWAP is not set
CONFIG_LTO_NONE=y
"""


def fragment(tmp_path: Path, text: str, name: str = "a.config") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def require(tmp_path: Path, *texts: str, kconfig: str = "config SWAP\n\tbool\n") -> None:
    paths = [fragment(tmp_path, text, f"{n}.config") for n, text in enumerate(texts)]
    _, wishes = config.read_fragments(paths)
    config.require(wishes, FINAL, [fragment(tmp_path, kconfig, "Kconfig")])


def test_what_is_asked_for_and_there_passes(tmp_path: Path) -> None:
    text = '# why\nCONFIG_KVM=y\nCONFIG_NR_CPUS=16\nCONFIG_CMDLINE=""\n\n# CONFIG_SWAP is not set\n'
    require(tmp_path, text, "CONFIG_ABSENT=n\n# CONFIG_OTHER is not set\n")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("CONFIG_SWAP=y", "CONFIG_SWAP: wanted y, got n (its dependencies"),
        ("CONFIG_NO_SUCH=y", "CONFIG_NO_SUCH: wanted y, got n (this kernel has no such symbol)"),
        ("CONFIG_NR_CPUS=8", "CONFIG_NR_CPUS: wanted 8, got 16"),
        ("CONFIG_KVM=m", "CONFIG_KVM: wanted m, got y"),
        ("# CONFIG_KVM is not set", "CONFIG_KVM: wanted n, got y"),
        ("CONFIG_LTO_NONE=n", "CONFIG_LTO_NONE: wanted n, got y"),
        ('CONFIG_CMDLINE="x"', 'CONFIG_CMDLINE: wanted "x", got ""'),
    ],
)
def test_a_symbol_that_is_not_as_asked_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    with pytest.raises(config.ConfigError) as caught:
        require(tmp_path, f"# a comment\n{line}\n")
    assert f"{tmp_path}/0.config:2: {complaint}" in str(caught.value)
    assert len(caught.value.mismatches) == 1
    assert caught.value.exit_code == 2


def test_an_unset_symbol_that_is_on_has_its_own_reason(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match="another symbol selects it"):
        require(tmp_path, "# CONFIG_KVM is not set\n", kconfig="menuconfig KVM\n")


def test_the_last_fragment_wins(tmp_path: Path) -> None:
    require(tmp_path, "CONFIG_KVM=n\n", "CONFIG_KVM=y\n")
    with pytest.raises(config.ConfigError, match=r"1\.config:1: CONFIG_KVM: wanted n"):
        require(tmp_path, "CONFIG_KVM=y\n", "CONFIG_KVM=n\n")


@pytest.mark.parametrize("line", ["CONFIG_KVM", "KVM=y", "config_kvm=y", "source x"])
def test_a_line_that_means_nothing_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(UsageError, match=r"a\.config:2: neither"):
        config.read_fragments([fragment(tmp_path, f"CONFIG_KVM=y\n{line}\n")])


def test_a_fragment_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.config cannot be read"):
        config.read_fragments([tmp_path / "none.config"])


def test_fragments_are_one_text_in_order(tmp_path: Path) -> None:
    one, two = fragment(tmp_path, "CONFIG_A=y", "1"), fragment(tmp_path, "CONFIG_B=y\n\n", "2")
    assert config.read_fragments([one, two])[0] == "CONFIG_A=y\nCONFIG_B=y\n"


def test_the_projects_own_fragments_are_understood() -> None:
    paths = sorted((PROJECT / "kernel-configs").glob("*.config"))
    _, wishes = config.read_fragments(paths)
    assert wishes["KVM"].value == "y" and wishes["JUMP_LABEL"].value == "y"
