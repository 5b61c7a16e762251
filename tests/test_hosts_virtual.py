# SPDX-License-Identifier: GPL-2.0-only
"""Which machines say that they are none, by words of real ones."""

from __future__ import annotations

import pytest

from harness.hosts.virtual import FW_CFG, HYPERVISOR, MAX_WORDS, PRODUCT, TREE, VENDOR, emulator


def dmi(vendor: str, product: str) -> str:
    return emulator({VENDOR: f"{vendor} ", PRODUCT: f"{product} "})


@pytest.mark.parametrize(
    ("vendor", "product", "by"),
    [
        ("QEMU", "QEMU Virtual Machine", "QEMU"),
        ("QEMU", "KVM Virtual Machine", "QEMU"),
        ("QEMU", "", "QEMU"),
        ("Red Hat", "KVM", "KVM"),
        ("OpenStack Foundation", "OpenStack Nova", "OpenStack"),
        ("Amazon EC2", "c7g.large", "Amazon EC2"),
        ("Amazon EC2", "m8g.metalic", "Amazon EC2"),
        ("Microsoft Corporation", "Virtual Machine", "Hyper-V"),
        ("VMware, Inc.", "VMware20,1", "VMware"),
        ("Parallels International GmbH.", "Parallels ARM Virtual Machine", "Parallels"),
        ("Apple Inc.", "Apple Virtualization Generic Platform", "Apple's hypervisor"),
        ("Xen", "HVM domU", "Xen"),
        ("KubeVirt", "None", "KubeVirt"),
        ("Hetzner", "vServer", "Hetzner"),
    ],
)
def test_a_hypervisor_names_itself_by_dmi(vendor: str, product: str, by: str) -> None:
    assert dmi(vendor, product) == f"{by} (DMI: {' '.join(filter(None, (vendor, product)))})"


@pytest.mark.parametrize(
    ("vendor", "product"),
    [
        ("WIWYNN", "Mt.Jade Server System B81.030Z1.0007"),
        ("GIGABYTE", "R272-P30-JG"),
        ("HPE", "ProLiant RL300 Gen11"),
        ("ADLINK", "AVA Developer Platform"),
        ("Huawei", "TaiShan 200 (Model 2280)"),
        ("To Be Filled By O.E.M.", "To Be Filled By O.E.M."),
        ("Amazon EC2", "c7g.metal"),
        ("Amazon EC2", "c8g.metal-24xl"),
        # Its bare metal has the same words as its virtual machines (systemd's pull request 38125).
        ("Google", "Google Compute Engine"),
        ("Microsoft Corporation", "Surface Pro X"),
        # Words that do not tell which size it is.
        ("Amazon EC2", ""),
        ("", ""),
        # Names that only begin like one.
        ("QEMUlator", "KVMs"),
        ("Maker of QEMU", "no KVM"),
        ("\x1b[2JQEMU", "QEMU\n"),
    ],
)
def test_hardware_and_what_tells_nothing(vendor: str, product: str) -> None:
    assert dmi(vendor, product) == ""


@pytest.mark.parametrize(
    ("words", "by"),
    [
        ({TREE: "linux,dummy-virt "}, "a hypervisor (device tree: linux,dummy-virt)"),
        (
            {TREE: "arm,foundation-aarch64 arm,vexpress "},
            "a model of Arm's (device tree: arm,foundation-aarch64)",
        ),
        ({TREE: "arm,juno-r1 arm,juno arm,vexpress "}, ""),
        ({TREE: "raspberrypi,4-model-b brcm,bcm2711 "}, ""),
        ({TREE: "notlinux,dummy-virtual "}, ""),
        (
            {TREE: "xlnx,zynqmp ", HYPERVISOR: "xen,xen-4.17 xen,xen "},
            "a hypervisor (device tree, hypervisor: xen,xen-4.17 xen,xen)",
        ),
        ({HYPERVISOR: " "}, ""),
        ({"/etc/passwd": "QEMU"}, ""),
        ({}, ""),
    ],
)
def test_a_device_tree(words: dict[str, str], by: str) -> None:
    assert emulator(words) == by


def test_words_are_bounded_and_cannot_move_a_cursor() -> None:
    said = emulator({VENDOR: "VMware", PRODUCT: "\x1b[2J" + "x" * 10_000})
    assert said.startswith(r"VMware (DMI: VMware \x1b[2Jxxx")
    assert len(said) == len("VMware (DMI: )") + MAX_WORDS


def test_qemu_that_calls_itself_something_else_has_its_device() -> None:
    words = {VENDOR: "Maker", PRODUCT: "Server", FW_CFG: "QEMU0002 "}
    assert emulator(words) == "QEMU (ACPI: QEMU0002)"
