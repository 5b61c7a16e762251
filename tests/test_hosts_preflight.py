# SPDX-License-Identifier: GPL-2.0-only
"""A host whose CPUs or kernel are not what the inventory says is refused, in words."""

from __future__ import annotations

import pytest
from fake_shell import UnaskedShell

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts.preflight import require_af, require_cpus
from harness.inventory import AfMode, QemuHost
from harness.observe.af import Expected
from harness.observe.cpu import parse_midr

N1, A57, UNKNOWN = (
    parse_midr(f"{value:#018x}\n") for value in (0x414FD0C1, 0x411FD070, 0x511F0011)
)


class Enabled(UnaskedShell):
    """Shows lru_gen/enabled."""

    def __init__(self, text: str) -> None:
        self._text = text

    def read(self, path: str, deadline: Deadline | None = None) -> str:
        assert path == "/sys/kernel/mm/lru_gen/enabled"
        return self._text


def host(af: AfMode) -> QemuHost:
    return QemuHost(kind="qemu", cpu="some", af=af, kvm_modes=("nvhe",))


HARDWARE = Expected(N1, (0, 1), True, "hardware", "it has")
SOFTWARE = Expected(A57, (2, 3), False, "software", "it lacks")
CLEARED = Expected(N1, (0, 1), True, "software", "the option is off")
NOT_KNOWN = Expected(UNKNOWN, (0,), None, "software", "they say so")


@pytest.mark.parametrize(
    ("af", "kinds"),
    [
        ("hardware", [HARDWARE]),
        ("software", [SOFTWARE, NOT_KNOWN]),
        # What the kernel makes of it is no word against the inventory's on the CPU.
        ("hardware", [CLEARED]),
        ("hardware", [NOT_KNOWN]),
    ],
)
def test_cpus_that_the_inventory_knows(af: AfMode, kinds: list[Expected]) -> None:
    require_cpus(host(af), kinds)


@pytest.mark.parametrize(
    ("af", "kinds", "words"),
    [
        (
            "software",
            [HARDWARE],
            r"inventory says af: software, but CPU 0-1 \(Neoverse N1\) has FEAT_HAFDBS: it has$",
        ),
        ("hardware", [SOFTWARE], r"but CPU 2-3 \(Cortex-A57\) lacks FEAT_HAFDBS: it lacks$"),
        ("software", [CLEARED], r"CPU 0-1 \(Neoverse N1\) has FEAT_HAFDBS: the option is off$"),
        ("hardware", [HARDWARE, SOFTWARE], "CPU 2-3 .*; CPUs that differ in it cannot be tested"),
        ("software", [HARDWARE, SOFTWARE], "CPU 0-1 .*; CPUs that differ in it cannot be tested"),
    ],
)
def test_cpus_that_the_inventory_is_wrong_about(
    af: AfMode, kinds: list[Expected], words: str
) -> None:
    with pytest.raises(InfraError, match=words):
        require_cpus(host(af), kinds)


@pytest.mark.parametrize(
    ("af", "kind", "enabled"),
    [
        ("hardware", HARDWARE, "0x0003\n"),
        ("hardware", HARDWARE, "0x0007\n"),
        ("software", SOFTWARE, "0x0001\n"),
    ],
)
def test_a_base_kernel_that_agrees(af: AfMode, kind: Expected, enabled: str) -> None:
    require_af(host(af), [kind], Enabled(enabled))


@pytest.mark.parametrize(
    ("af", "kind", "enabled", "words"),
    [
        (
            "hardware",
            CLEARED,
            "0x0003\n",
            r"on CPU 0-1 .* leaves the access flag to software, .*: the option is off$",
        ),
        ("hardware", HARDWARE, "0x0001\n", "but lru_gen/enabled is 0x0001"),
        ("software", SOFTWARE, "0x0003\n", "but lru_gen/enabled is 0x0003"),
    ],
)
def test_a_base_kernel_that_does_not(af: AfMode, kind: Expected, enabled: str, words: str) -> None:
    with pytest.raises(InfraError, match=words):
        require_af(host(af), [kind], Enabled(enabled))
