# SPDX-License-Identifier: GPL-2.0-only
"""The conditions of a host: read strictly, fixed where they can be, put back afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from local_shell import LocalShell

from harness.observe.errors import ObserveError
from harness.timing import conditions
from harness.timing.conditions import fixed, parse

CPU = "/sys/devices/system/cpu/cpu"
TEXT = f"""\
N scaling_governor
{CPU}0/cpufreq/scaling_governor schedutil
{CPU}12/cpufreq/scaling_governor performance
N scaling_cur_freq
{CPU}0/cpufreq/scaling_cur_freq 2400000
N scaling_min_freq
N scaling_max_freq
{CPU}0/cpufreq/scaling_max_freq 3000000
N /proc/cmdline
console=ttyAMA0 isolcpus=nohz,domain,1 nohz_full=1 quiet
N /proc/loadavg
0.01 0.02 0.00 1/70 99
N online
0-1
N smt/active
N /sys/kernel/mm/transparent_hugepage/enabled
always [madvise] never
N /sys/kernel/mm/lru_gen/enabled
0x0007
N end
"""


def test_what_a_host_says() -> None:
    found = parse(TEXT, "N")
    assert found.governors == {"0": "schedutil", "12": "performance"}
    assert found.khz == {"0": "2400000"}
    assert found.min_khz == {}
    assert found.isolation == ("isolcpus=nohz,domain,1", "nohz_full=1")
    assert (found.online, found.smt, found.lru_gen) == ("0-1", "", "0x0007")
    assert "loadavg" not in found.steady()


@pytest.mark.parametrize("gone", ["N online\n0-1\n", "N end\n", "N scaling_min_freq\n"])
def test_a_part_is_missing(gone: str) -> None:
    with pytest.raises(ObserveError):
        parse(TEXT.replace(gone, ""), "N")


def test_what_would_move_a_cursor_is_made_harmless() -> None:
    assert "\x1b" not in parse(TEXT.replace("0x0007", "\x1b[2J"), "N").lru_gen


@pytest.fixture
def governors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files of a machine's cpufreq."""
    cpus = tmp_path / "cpu"
    script = conditions._SCRIPT.replace(conditions.CPUFREQ, str(cpus))
    monkeypatch.setattr(conditions, "_SCRIPT", script)
    monkeypatch.setattr(conditions, "CPUFREQ", str(cpus))
    files = [cpus / f"cpu{number}" / "cpufreq" / "scaling_governor" for number in (0, 12)]
    for file, governor in zip(files, ("schedutil", "powersave"), strict=True):
        file.parent.mkdir(parents=True)
        file.write_text(f"{governor}\n")
    return files


def test_the_governor_is_fixed_and_put_back(governors: list[Path]) -> None:
    before = [file.read_text() for file in governors]
    with fixed(LocalShell()) as found:
        assert found.governors == {"0": "performance", "12": "performance"}
        assert {file.read_text() for file in governors} == {"performance\n"}
    assert [file.read_text() for file in governors] == before


def test_the_governor_is_put_back_whatever_happens(governors: list[Path]) -> None:
    before = [file.read_text() for file in governors]
    with pytest.raises(ZeroDivisionError), fixed(LocalShell()):
        raise ZeroDivisionError
    assert [file.read_text() for file in governors] == before


def test_a_machine_without_cpufreq_has_nothing_to_fix(governors: list[Path]) -> None:
    for file in governors:
        file.unlink()
    with fixed(LocalShell()) as found:
        assert found.governors == {}
