# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel's log says of FEAT_S2FWB."""

from __future__ import annotations

from harness.checks.test_reset import forces_write_back

BOOT = "[    0.000000] Booting Linux on physical CPU 0x0000000000 [0x414fd0c1]\n"
FORCED = "[    0.084117] CPU features: detected: Stage-2 Force Write-Back\n"
OTHER = "[    0.084119] CPU features: detected: Hardware dirty bit management on CPU0-1\n"


def test_the_log_says_whether_write_back_is_forced() -> None:
    assert forces_write_back(BOOT + FORCED + OTHER) is True
    assert forces_write_back(BOOT + OTHER) is False


def test_a_log_without_its_beginning_says_it_only_if_it_is_there() -> None:
    assert forces_write_back(OTHER) is None
    assert forces_write_back(FORCED) is True


def test_what_a_program_wrote_is_not_the_kernels_word() -> None:
    assert forces_write_back(BOOT + "[    5.000000] " + "init: " + FORCED) is False
