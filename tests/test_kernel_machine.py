# SPDX-License-Identifier: GPL-2.0-only
"""A machine's configuration as the start of a kernel's: what is laid over it, what names it."""

from __future__ import annotations

from pathlib import Path

from harness.kernel import config, flavor
from harness.kernel.built import key_of
from harness.kernel.local_bench import tuxmake_argv
from harness.kernel.machine import MachineConfig, keep, kept, merged
from harness.kernel.toolchain import Toolchain

SAID = "gcc version 12 (Debian 12.2.0-14)\nGNU ld 2.40\n"
TOOLS = Toolchain(SAID, "1.45.0", "  -march=\t\tarmv8-a\n")
OWN = "CONFIG_ARM64=y\nCONFIG_KVM=m\n# CONFIG_SWAP is not set\nCONFIG_KVM_X=y\n"


def test_fragments_win_and_stand_last() -> None:
    text = merged(OWN, "CONFIG_KVM=y\n# why\nCONFIG_SWAP=y\n", {"KVM", "SWAP"})
    assert text == "CONFIG_ARM64=y\nCONFIG_KVM_X=y\nCONFIG_KVM=y\n# why\nCONFIG_SWAP=y\n"


def test_the_key_is_of_configuration_and_modules() -> None:
    starts = (
        None,
        MachineConfig(OWN),
        MachineConfig(OWN + "CONFIG_X=y\n"),
        MachineConfig(OWN, ()),
        MachineConfig(OWN, ("ext4",)),
        MachineConfig(OWN, ("ext4", "xfs")),
    )
    keys = {key_of("tree", "CONFIG_KVM=y\n", TOOLS, start) for start in starts}
    assert len(keys) == len(starts)
    # Kernels of the harness's own configuration keep the names that they had.
    assert key_of("tree", "CONFIG_KVM=y\n", TOOLS) in keys


def test_loaded_modules_as_lsmod_lists_them() -> None:
    assert MachineConfig(OWN, ("ext4", "xfs")).lsmod.splitlines()[1:] == ["ext4 0 0", "xfs 0 0"]


def test_an_empty_string_may_be_absent_as_well() -> None:
    wishes = {"KEYS": config.Wish("KEYS", '""', "f", 1), "KVM": config.Wish("KVM", "y", "f", 2)}
    assert config.compare(wishes, {"KVM": "y"}) == ()
    assert config.compare(wishes, {"KVM": "y", "KEYS": '""'}) == ()
    (wrong,) = config.compare(wishes, {"KVM": "y", "KEYS": '"a.pem"'})
    assert wrong.got == '"a.pem"'


def test_a_machine_keeps_its_own_number_of_cpus_and_its_drivers() -> None:
    asked = flavor.on_machine(flavor.DEBUG)
    names = [path.name for path in asked.fragments]
    assert "10-arm64-virt.config" not in names
    assert names[-1] == "60-machine.config" and "50-debug.config" in names
    assert asked.cmdline == flavor.DEBUG.cmdline and asked.slowdown == flavor.DEBUG.slowdown
    tree = config.Tree("6.12.1", lambda symbol: True)
    wishes = config.read_fragments(asked.fragments, tree).wishes
    assert "NR_CPUS" not in wishes
    assert {wishes[s].value for s in ("IKCONFIG", "IKCONFIG_PROC", "MODULES")} == {"y"}
    pages = {size: wishes[f"ARM64_{size}K_PAGES"].value for size in (4, 16, 64)}
    assert pages == {4: "y", 16: "n", 64: "n"}, "its own size of pages is the one thing it loses"
    assert {wishes[s].value for s in ("MODULE_SIG", "DEBUG_INFO_BTF", "GCC_PLUGINS")} == {"n"}


def test_only_a_machine_s_kernel_has_modules_and_a_release_of_its_own() -> None:
    plain, own = tuxmake_argv("d"), tuxmake_argv("d", "-kvmharness-1", modules=True)
    more = [word for word in own if word not in plain]
    assert [word for word in plain if word not in own] == []
    assert more == [
        "--environment=LOCALVERSION=-kvmharness-1",
        "--environment=INSTALL_MOD_PATH=/build/.modules",
        "--environment=INSTALL_MOD_STRIP=1",
        "--environment=DEPMOD=true",
        "--make-target=modules",
        "--make-target=modules_install",
    ]


def test_what_was_read_is_kept_with_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "machines"
    assert kept(folder, "a") is None
    found = {
        "a": MachineConfig(OWN),
        "b": MachineConfig(OWN, ()),
        "c.d": MachineConfig(OWN, ("ext4", "xfs")),
    }
    for name, own in found.items():
        keep(own, folder, name)
    assert {name: kept(folder, name) for name in found} == found
    assert len({own.digest for own in found.values()}) == 3
    assert (folder / "a.config").read_text() == OWN


def test_what_was_cut_off_while_it_was_kept_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.modules").write_text("ext4\n")
    assert kept(tmp_path, "a") is None


def test_it_says_what_it_is() -> None:
    own = "CONFIG_ARM64=y\nCONFIG_EXT4_FS=m\nCONFIG_XFS_FS=m\n"
    assert str(MachineConfig(own)) == "3 settings, 2 of them modules"
    assert str(MachineConfig(own, ("ext4",))).endswith("modules, trimmed to 1 loaded")
