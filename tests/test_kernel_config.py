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

TREE = config.Tree("6.12.117", {"KVM", "SWAP"}.__contains__)


def fragment(tmp_path: Path, text: str, name: str = "a.config") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def require(tmp_path: Path, *texts: str, kconfig: str = "config SWAP\n\tbool\n") -> None:
    paths = [fragment(tmp_path, text, f"{n}.config") for n, text in enumerate(texts)]
    asked = config.read_fragments(paths, TREE)
    config.require(asked.wishes, FINAL, [fragment(tmp_path, kconfig, "Kconfig")])


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
        config.read_fragments([fragment(tmp_path, f"CONFIG_KVM=y\n{line}\n")], TREE)


def test_a_fragment_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.config cannot be read"):
        config.read_fragments([tmp_path / "none.config"], TREE)


def test_fragments_are_one_text_in_order(tmp_path: Path) -> None:
    one, two = fragment(tmp_path, "CONFIG_A=y", "1"), fragment(tmp_path, "CONFIG_B=y\n\n", "2")
    assert config.read_fragments([one, two], TREE).text == "CONFIG_A=y\nCONFIG_B=y\n"


def test_the_projects_own_fragments_are_understood() -> None:
    paths = sorted((PROJECT / "kernel-configs").glob("*.config"))
    asked = config.read_fragments(
        paths, config.Tree("6.2.1", lambda symbol: "PTDUMP" not in symbol)
    )
    assert asked.wishes["KVM"].value == "y" and asked.wishes["MODULES"].value == "y"
    assert "PTDUMP_STAGE2_DEBUGFS" not in asked.wishes
    asked = config.read_fragments(paths, config.Tree("6.12.117", lambda symbol: True))
    assert asked.wishes["PTDUMP_STAGE2_DEBUGFS"].value == "y" and "MODULES" not in asked.wishes


CONDITIONS = """# why
CONFIG_A=y
#: where known -- from 6.12 on
CONFIG_B=y
#: before 6.10
CONFIG_C=y
CONFIG_D=y
#: from 6.10 -- why
CONFIG_E=y
"""


@pytest.mark.parametrize(
    ("version", "known", "left"),
    [
        ("6.12.117", "B", "ABDE"),
        ("6.9.12", "B", "ABCD"),
        ("6.10.0-rc1", "", "ADE"),
        ("5.19.0", "E", "ACD"),
        ("10.1.0", "CD", "ADE"),
    ],
)
def test_a_condition_is_for_the_next_setting(
    tmp_path: Path, version: str, known: str, left: str
) -> None:
    tree = config.Tree(version, known.__contains__)
    asked = config.read_fragments([fragment(tmp_path, CONDITIONS)], tree)
    assert "".join(asked.wishes) == left
    assert asked.text == "# why\n" + "".join(f"CONFIG_{symbol}=y\n" for symbol in left)


def test_a_kernel_is_named_by_what_is_asked_of_it_alone(tmp_path: Path) -> None:
    """Or a condition for another version would rebuild every kernel."""
    plain = fragment(tmp_path, "# why\nCONFIG_A=y\nCONFIG_D=y\nCONFIG_E=y\n", "plain")
    tree = config.Tree("6.12.117", lambda _: False)
    asked = config.read_fragments([fragment(tmp_path, CONDITIONS)], tree)
    assert asked.text == config.read_fragments([plain], tree).text


def test_the_tree_is_looked_at_only_for_a_condition(tmp_path: Path) -> None:
    def never(symbol: str) -> bool:
        raise AssertionError(symbol)

    text = "CONFIG_A=y\n#: before 6.10\nCONFIG_B=y\n"
    asked = config.read_fragments([fragment(tmp_path, text)], config.Tree("6.2.1", never))
    assert "".join(asked.wishes) == "AB"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("#: where knwon\nCONFIG_A=y\n", r"a\.config:1: want '#: where known'"),
        ("#: before 6\nCONFIG_A=y\n", r"a\.config:1: want"),
        ("#: where known\n# why\nCONFIG_A=y\n", r"a\.config:2: no setting after the condition"),
        ("#: where known\n#: before 6.1\nCONFIG_A=y\n", r"a\.config:2: no setting"),
        ("CONFIG_A=y\n#: where known\n", r"a\.config: no setting after the condition on its last"),
    ],
)
def test_a_condition_that_says_nothing_is_refused(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        config.read_fragments([fragment(tmp_path, text)], TREE)


def test_what_a_tree_declares(tmp_path: Path) -> None:
    text = "menuconfig KVM\n\tbool\n  config KVM_ARM\n\tdepends on KVM\n# config OLD\nconfig A B\n"
    assert config.declared([fragment(tmp_path, text, "Kconfig")]) == {"KVM", "KVM_ARM"}


def test_the_page_size_is_the_one_that_the_configuration_asks_for() -> None:
    asked = "# CONFIG_ARM64_4K_PAGES is not set\nCONFIG_ARM64_16K_PAGES=y\n"
    assert config.page_kib(asked) == 16
    assert config.page_kib("CONFIG_ARM64_4K_PAGES=y\n") == 4
    assert config.page_kib("CONFIG_KVM=y\n") is None


@pytest.mark.parametrize("size", ["16", "64"])
def test_pages_that_checks_do_not_know_are_refused_where_they_are_asked_for(
    size: str, tmp_path: Path
) -> None:
    asked = fragment(tmp_path, f"CONFIG_KVM=y\nCONFIG_ARM64_{size}K_PAGES=y\n")
    words = (
        rf"a\.config:2: CONFIG_ARM64_{size}K_PAGES=y: the checks and their guests know pages of 4"
    )
    with pytest.raises(UsageError, match=words):
        config.read_fragments([asked, fragment(tmp_path, "CONFIG_ARM64_4K_PAGES=y\n", "b")], TREE)
    fragment(tmp_path, f"# CONFIG_ARM64_{size}K_PAGES is not set\nCONFIG_ARM64_4K_PAGES=y\n")
    config.read_fragments([asked], TREE)


def test_pages_that_come_out_otherwise_are_refused_before_anything_is_compiled() -> None:
    config.require_page_size("CONFIG_KVM=y\n")
    config.require_page_size("CONFIG_ARM64_4K_PAGES=y\n")
    words = "comes out with pages of 64 KiB .*: say CONFIG_ARM64_4K_PAGES=y in a fragment"
    with pytest.raises(config.ConfigError, match=words):
        config.require_page_size("CONFIG_ARM64_64K_PAGES=y\n")
