# SPDX-License-Identifier: GPL-2.0-only
"""Does a machine say that it is none, but that QEMU or another hypervisor makes it?

Its firmware says so, by DMI (the names of maker and product in SMBIOS) or by the root of the device
tree. One that is emulated is not told from one on a real CPU under KVM: the product that QEMU names
is another then ("KVM Virtual Machine"), but that is an option's, and the device tree is the same.
What takes time is the hypervisor's either way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from harness.printable import one_line

VENDOR = "/sys/class/dmi/id/sys_vendor"
PRODUCT = "/sys/class/dmi/id/product_name"
TREE = "/proc/device-tree/compatible"
HYPERVISOR = "/proc/device-tree/hypervisor/compatible"
# A device that QEMU's machines have whatever they call themselves (docs/specs/fw_cfg.rst there).
FW_CFG = "/sys/bus/acpi/devices/QEMU0002:00/hid"
FILES = (VENDOR, PRODUCT, TREE, HYPERVISOR, FW_CFG)
"""Where the words are; strings of the device tree one after another, with a space between."""
MAX_WORDS = 80

# Maker, product, and whose they are. Those of Google Compute Engine are the same on its bare metal,
# so they tell nothing; EC2's are the type of the instance, c7g.large or c8g.metal-24xl.
_DMI = (
    (r"QEMU", r".*", "QEMU"),
    (r".*", r"KVM\b.*", "KVM"),
    (r".*", r"OpenStack .*", "OpenStack"),
    (r"Amazon EC2", r"[^.]+\.(?!metal(-|$)).+", "Amazon EC2"),
    (r"Microsoft Corporation", r"Virtual Machine", "Hyper-V"),
    (r"VMware\b.*", r".*", "VMware"),
    (r"Parallels\b.*", r".*", "Parallels"),
    (r"Apple Inc\.", r"Apple Virtualization\b.*", "Apple's hypervisor"),
    (r"Xen", r".*", "Xen"),
    (r"KubeVirt", r".*", "KubeVirt"),
    (r"Nutanix", r".*", "Nutanix"),
    (r"oVirt", r".*", "oVirt"),
    (r"innotek GmbH", r".*", "VirtualBox"),
    (r"DigitalOcean", r"Droplet", "DigitalOcean"),
    (r"Hetzner", r"vServer", "Hetzner"),
)
# The machine `virt` of QEMU, and those of kvmtool and other users of KVM; Arm's models of machines.
_TREE = (
    (r"linux,dummy-virt", "a hypervisor"),
    (r"arm,(fvp-base|foundation-aarch64|rtsm_ve).*", "a model of Arm's"),
)


def emulator(words: Mapping[str, str]) -> str:
    """What makes a machine that has these words in FILES, and in which of them it says so.

    "" if they name nothing that does: it is hardware then, for all that it says.
    """
    dmi = [words.get(name, "").strip() for name in (VENDOR, PRODUCT)]
    for vendor, product, name in _DMI:
        if re.fullmatch(vendor, dmi[0]) and re.fullmatch(product, dmi[1]):
            return _by(name, "DMI", " ".join(dmi))
    for word in words.get(TREE, "").split():
        for pattern, name in _TREE:
            if re.fullmatch(pattern, word):
                return _by(name, "device tree", word)
    if (node := words.get(HYPERVISOR, "")).strip():
        return _by("a hypervisor", "device tree, hypervisor", node)
    if (hid := words.get(FW_CFG, "")).strip():
        return _by("QEMU", "ACPI", hid)
    return ""


def _by(name: str, where: str, words: str) -> str:
    return f"{name} ({where}: {one_line(words)[:MAX_WORDS]})"
