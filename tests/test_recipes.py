# SPDX-License-Identifier: GPL-2.0-only
"""Hosts share kernels where these are made alike, and have their own where not."""

from __future__ import annotations

from pathlib import Path

from harness.inventory import QemuHost, SshHost
from harness.kernel.flavor import DEBUG, PLAIN, on_machine, with_fragments
from harness.kernel.machine import MachineConfig
from harness.recipes import Recipe, recipes

N1 = QemuHost(kind="qemu", cpu="neoverse-n1", af="hardware", kvm_modes=("vhe",))
ONE, OTHER = (MachineConfig(f"CONFIG_ARM64=y\nCONFIG_{one}=m\n") for one in ("MLX5_CORE", "ENA"))


def lab(**more: object) -> SshHost:
    about = {"kind": "ssh", "address": "a", "agent": True, "af": "hardware", "kvm_modes": ["vhe"]}
    return SshHost.model_validate({**about, **more})


def test_hosts_that_are_alike_share_a_recipe() -> None:
    assert recipes({"a": N1, "b": lab(), "c": N1}, DEBUG, {}) == (Recipe(("a", "b", "c"), DEBUG),)


def test_drivers_of_its_own_are_kernels_of_its_own() -> None:
    found = recipes({"a": N1, "b": lab(fragments=["~/b.config"]), "c": lab()}, PLAIN, {})
    drivers = with_fragments(PLAIN, [Path("~/b.config").expanduser()])
    assert found == (Recipe(("a", "c"), PLAIN), Recipe(("b",), drivers))


def test_machines_share_kernels_where_they_have_one_configuration() -> None:
    own = lab(config="machine")
    hosts: dict[str, QemuHost | SshHost] = {"a": N1, "b": own, "c": own, "d": own}
    found = recipes(hosts, PLAIN, {"b": ONE, "c": OTHER, "d": MachineConfig(ONE.text)})
    flavor = on_machine(PLAIN)
    assert found == (
        Recipe(("a",), PLAIN),
        Recipe(("b", "d"), flavor, ONE),
        Recipe(("c",), flavor, OTHER),
    )


def test_a_machine_that_builds_does_so_for_itself() -> None:
    hosts = {"a": lab(config="machine", build="on-host"), "b": lab(config="machine")}
    found = recipes(hosts, PLAIN, {"a": ONE, "b": ONE})
    assert [(recipe.hosts, recipe.builder) for recipe in found] == [(("a",), "a"), (("b",), "")]
