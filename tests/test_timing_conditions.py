# SPDX-License-Identifier: GPL-2.0-only
"""The conditions of a host: read strictly, fixed where they can be, put back afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from local_shell import LocalShell

from harness.checks.claim import Claim
from harness.deadline import Deadline
from harness.hosts.protocols import Result
from harness.observe.errors import ObserveError
from harness.timing import conditions, placement
from harness.timing.conditions import fixed, parse
from harness.timing.placement import Placement
from harness.timing.test_timing import look_again

CPU = "/sys/devices/system/cpu/cpu"
TEXT = f"""\
N scaling_driver
{CPU}0/cpufreq/scaling_driver cppc_cpufreq
N scaling_governor
{CPU}0/cpufreq/scaling_governor schedutil
{CPU}12/cpufreq/scaling_governor performance
N scaling_cur_freq
{CPU}0/cpufreq/scaling_cur_freq 2400000
N scaling_min_freq
N scaling_max_freq
{CPU}0/cpufreq/scaling_max_freq 3000000
N cpuinfo_min_freq
N cpuinfo_max_freq
{CPU}0/cpufreq/cpuinfo_max_freq 3300000
N boost
{CPU}0/cpufreq/boost 1
N /proc/cmdline
console=ttyAMA0 isolcpus=nohz,domain,1 nohz_full=1 quiet
N /proc/loadavg
0.01 0.02 0.00 1/70 99
N cpufreq/boost
1
N isolated
1
N online
0-1
N smt/active
N cpuidle/current_governor
menu
N /proc/sys/kernel/numa_balancing
1
N /sys/devices/virtual/workqueue/cpumask
f
N /sys/kernel/mm/transparent_hugepage/enabled
always [madvise] never
N /sys/kernel/mm/lru_gen/enabled
0x0007
N interrupts
0-1
0-2
N latency
  2000000000
N end
"""


def test_what_a_host_says() -> None:
    found = parse(TEXT, "N")
    assert found.governors == {"0": "schedutil", "12": "performance"}
    assert found.khz == {"0": "2400000"}
    assert found.min_khz == {}
    assert (found.max_khz, found.cpuinfo_max_khz) == ({"0": "3000000"}, {"0": "3300000"})
    assert (found.drivers, found.boost, found.cpu_boost) == (
        {"0": "cppc_cpufreq"},
        "1",
        {"0": "1"},
    )
    assert found.isolated == "1"
    assert found.isolation == ("isolcpus=nohz,domain,1", "nohz_full=1")
    assert (found.online, found.smt, found.lru_gen) == ("0-1", "", "0x0007")
    assert (found.idle, found.numa_balancing) == ("menu", "1")
    assert (found.workqueues, found.interrupts) == ("f", "")
    assert parse(TEXT, "N", kept="0-2").interrupts == "0-2"
    assert parse(TEXT, "N", kept="0").interrupts == ""
    assert found.latency_us == "2000000000"
    assert "loadavg" not in found.steady()


def test_what_could_not_be_fixed() -> None:
    found = parse(TEXT, "N")
    assert found.loose() == (
        "governor schedutil (CPU 0)",
        "boost on",
        "pages moved between nodes",
        "CPUs that sleep",
        "no CPU left for interrupts",
    )
    still = {
        "governors": {"0": "performance"},
        "boost": "0",
        "cpu_boost": {"0": "0"},
        "numa_balancing": "0",
        "latency_us": "0",
        "interrupts": "0",
    }
    assert found.model_copy(update=still).loose() == ()
    assert found.model_copy(update={**still, "cpu_boost": {"0": "1"}}).loose() == ("boost on",)


@pytest.mark.parametrize("gone", ["N online\n0-1\n", "N end\n", "N scaling_min_freq\n"])
def test_a_part_is_missing(gone: str) -> None:
    with pytest.raises(ObserveError):
        parse(TEXT.replace(gone, ""), "N")


def test_what_would_move_a_cursor_is_made_harmless() -> None:
    assert "\x1b" not in parse(TEXT.replace("0x0007", "\x1b[2J"), "N").lru_gen


# Nobody is left to take interrupts, so they stay where they are.
WHERE = Placement(vcpu=12, ager=0, others=())


@pytest.fixture
def governors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files of a machine's cpufreq."""
    cpus = tmp_path / "cpu"
    balancing = str(tmp_path / "numa_balancing")
    script = conditions._SCRIPT.replace(conditions.CPUFREQ, str(cpus))
    script = script.replace(conditions._BALANCING, balancing)
    for name in ("IRQS", "WORK", "LATENCY"):
        there = str(tmp_path / name)
        script = script.replace(getattr(placement, name), there)
        monkeypatch.setattr(placement, name, there)
    monkeypatch.setattr(conditions, "_SCRIPT", script)
    monkeypatch.setattr(conditions, "CPUFREQ", str(cpus))
    monkeypatch.setattr(conditions, "_BALANCING", balancing)
    files = [cpus / f"cpu{number}" / "cpufreq" / "scaling_governor" for number in (0, 12)]
    for file, governor in zip(files, ("schedutil", "powersave"), strict=True):
        file.parent.mkdir(parents=True)
        file.write_text(f"{governor}\n")
    return files


def test_the_governor_is_fixed_and_put_back(governors: list[Path]) -> None:
    before = [file.read_text() for file in governors]
    with fixed(LocalShell(), WHERE) as found:
        assert found.governors == {"0": "performance", "12": "performance"}
        assert {file.read_text() for file in governors} == {"performance\n"}
    assert [file.read_text() for file in governors] == before


def test_the_governor_is_put_back_whatever_happens(governors: list[Path]) -> None:
    before = [file.read_text() for file in governors]
    with pytest.raises(ZeroDivisionError), fixed(LocalShell(), WHERE):
        raise ZeroDivisionError
    assert [file.read_text() for file in governors] == before


class Kernel(LocalShell):
    """Makes of a switch of boost what Linux 6.12 does: the most that CPU 0 can is its limit."""

    def __init__(self, cpus: Path) -> None:
        self.cpus = cpus
        self.own, self.boost = cpus / "cpu0" / "cpufreq", cpus / "cpufreq" / "boost"
        self.boost.parent.mkdir()
        self.boost.write_text("1\n")
        self.say("cpuinfo_max_freq", "3300000")
        self.say("scaling_max_freq", "2800000")
        self.say("boost", "1")

    def say(self, name: str, value: str) -> None:
        (self.own / name).write_text(f"{value}\n")

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        before = self.boost.read_text()
        switches = f"> {self.boost} " in command
        first, *rest = command.split("; ") if switches else (command,)
        done = super().run(first, deadline, check=check)
        if before != self.boost.read_text():
            most = "3300000" if before == "0\n" else "3000000"
            self.say("cpuinfo_max_freq", most)
            self.say("scaling_max_freq", most)
            self.say("boost", self.boost.read_text().strip())
        return super().run("; ".join(rest), deadline, check=check) if rest else done


def _state(folder: Path) -> dict[str, str]:
    return {str(file): file.read_text() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("cpu_boost", ["0", "1"])
def test_boost_is_off_meanwhile(governors: list[Path], cpu_boost: str) -> None:
    kernel = Kernel(governors[0].parents[2])
    kernel.say("boost", cpu_boost)
    before = _state(kernel.cpus)
    with pytest.raises(ZeroDivisionError), fixed(kernel, WHERE) as found:
        assert (found.boost, found.cpu_boost) == ("0", {"0": "0"})
        # Somebody's limit is in force, not the most that the CPU can.
        assert (found.max_khz, found.cpuinfo_max_khz) == ({"0": "2800000"}, {"0": "3000000"})
        raise ZeroDivisionError
    assert _state(kernel.cpus) == before


def test_a_limit_is_left_alone_where_boost_is_off_anyway(governors: list[Path]) -> None:
    """It may be one that the machine's heat made, for a while."""
    kernel = Kernel(governors[0].parents[2])
    kernel.boost.write_text("0\n")
    with fixed(kernel, WHERE):
        kernel.say("scaling_max_freq", "2500000")
    assert (kernel.own / "scaling_max_freq").read_text() == "2500000\n"
    assert kernel.boost.read_text() == "0\n"


def test_what_changed_while_it_was_measured_is_kept_and_told(
    governors: list[Path], tmp_path: Path
) -> None:
    claim = Claim(tmp_path / "evidence", "")
    shell = LocalShell()
    with fixed(shell, WHERE) as before:
        look_again(shell, claim, before, WHERE)
        assert claim.observed == ""
        governors[0].write_text("powersave\n")
        look_again(shell, claim, before, WHERE)
    assert claim.observed == "governors changed meanwhile"
    (kept,) = claim.evidence()
    assert kept.name == conditions.AFTER
    after = conditions.Conditions.model_validate_json(kept.read_text())
    assert after.governors == {"0": "powersave", "12": "performance"}


def test_a_machine_without_cpufreq_has_nothing_to_fix(governors: list[Path]) -> None:
    for file in governors:
        file.unlink()
    with fixed(LocalShell(), WHERE) as found:
        assert found.governors == {}


def test_pages_stay_on_their_nodes_meanwhile(governors: list[Path]) -> None:
    balancing = Path(conditions._BALANCING)
    with fixed(LocalShell(), WHERE) as found:
        # A kernel that cannot move them has no such file, and gets none.
        assert (found.numa_balancing, balancing.exists()) == ("", False)
    balancing.write_text("1\n")
    with pytest.raises(ZeroDivisionError), fixed(LocalShell(), WHERE) as found:
        assert (found.numa_balancing, balancing.read_text()) == ("0", "0\n")
        raise ZeroDivisionError
    assert balancing.read_text() == "1\n"


def test_interrupts_are_elsewhere_meanwhile(governors: list[Path]) -> None:
    interrupt = Path(placement.IRQS) / "7" / "smp_affinity_list"
    interrupt.parent.mkdir(parents=True)
    interrupt.write_text("0-3\n")
    with fixed(LocalShell(), Placement(vcpu=3, ager=2, others=(0, 1))) as found:
        assert (found.interrupts, interrupt.read_text()) == ("0-1", "0-1\n")
    assert interrupt.read_text() == "0-3\n"
