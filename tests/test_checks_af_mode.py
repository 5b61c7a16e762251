# SPDX-License-Identifier: GPL-2.0-only
"""Who is seen to set the access flag on each kind of CPU, and what a difference is worth."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.checks import test_af_mode as check_module
from harness.checks.af_mode import differences, observe, one, probed, record, who
from harness.checks.claim import Claim
from harness.errors import InfraError
from harness.inventory import AfMode
from harness.observe.af import Expected
from harness.observe.cpu import parse_midr
from harness.observe.trace import ACCESS_FAULT, Counts, Event, Wanted
from harness.observe.unproven import Unproven
from harness.results import CpuAf, KernelLabel

IPA, PAGES = 0x8000_0000, 4
ALL = frozenset(range(PAGES))
LITTLE = Expected(parse_midr("0x00000000410fd034\n"), (0, 1, 2, 3), False, "software", "it is A53")
BIG = Expected(parse_midr("0x00000000414fd0b0\n"), (4, 5), True, "hardware", "it is A76")
UNKNOWN = Expected(parse_midr("0x00000000511f0011\n"), (0,), None, "hardware", "they say so")


@pytest.mark.parametrize(
    ("faulted", "exits", "found"),
    [
        (set(), 0, "hardware"),
        (set(), 3, "hardware"),
        # A fault is an exit, so a silent tracepoint shows here.
        (set(), 4, None),
        ({0, 1, 2, 3}, 4, "software"),
        ({0, 1, 2, 3}, 9, "software"),
        ({0, 1, 2, 3}, 3, None),
        ({0, 1, 2}, 4, None),
        ({0, 1, 2, 3, 4}, 5, None),
    ],
)
def test_two_witnesses(faulted: set[int], exits: int, found: AfMode | None) -> None:
    assert who(frozenset(faulted), ALL, exits) == found


def test_the_first_and_the_last_cpu_of_a_kind() -> None:
    cpus = range(6)
    assert [probed(kind, cpus) for kind in (LITTLE, BIG, UNKNOWN)] == [(0, 3), (4, 5), (0,)]


def test_of_a_kind_those_cpus_that_a_guest_can_be_put_on() -> None:
    assert probed(LITTLE, (1, 2, 4)) == (1, 2)
    assert probed(BIG, (1, 2, 4)) == (4,)
    with pytest.raises(Unproven, match=r"no guest can be put on CPU 4-5 \(Cortex-A76\)"):
        probed(BIG, (1, 2))


def test_what_several_cpus_showed() -> None:
    assert one(["software", "software"]) == "software"
    assert one([None]) is None
    assert one(["software", "hardware"]) is None
    assert one(["software", None]) is None


def test_the_record_of_a_kind() -> None:
    assert record(LITTLE, "software") == CpuAf(
        cpus="0-3",
        midr="0x410fd034",
        model="Cortex-A53",
        expected="software",
        why="it is A53",
        observed="software",
    )
    unknown = record(UNKNOWN)
    assert (unknown.cpus, unknown.model, unknown.observed) == ("0", "", None)


AS_EXPECTED: Mapping[int, AfMode | None] = {
    0: "software",
    3: "software",
    4: "hardware",
    5: "hardware",
}


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({}, []),
        (
            {3: "hardware"},
            ["hardware sets the access flag on CPU 3, where software must: it is A53"],
        ),
        (
            {4: "software", 5: None},
            [
                "software sets the access flag on CPU 4, where hardware must: it is A76",
                "neither hardware nor software sets the access flag on CPU 5, where hardware must: "
                "it is A76",
            ],
        ),
    ],
)
def test_each_cpu_is_held_to_its_own_kind(
    seen: Mapping[int, AfMode | None], words: list[str]
) -> None:
    alone = differences([LITTLE], {**AS_EXPECTED, **seen}, "software")
    alone += differences([BIG], {**AS_EXPECTED, **seen}, "hardware")
    assert alone == words


def test_a_kernel_that_has_another_mode_than_the_cell_is_about() -> None:
    (words,) = differences([LITTLE], AS_EXPECTED, "hardware")
    assert words == ("CPU 0-3 (Cortex-A53): software (it is A53), in a cell that is about hardware")


class Machine:
    """A guest, its host's trace and its stage 2: `faulting` CPUs have software set the flag."""

    def __init__(self, faulting: set[int], exits_too_many: int = 0, absent: bool = False) -> None:
        self._faulting = faulting
        self._too_many = exits_too_many
        self._absent = {ACCESS_FAULT: "no such event"} if absent else {}
        self._cpu = -1
        self._touched: frozenset[int] = frozenset()
        self.slot = SimpleNamespace(ipa=IPA, pages=PAGES)
        self.steps: list[str] = []

    def pin(self, vcpu: int, cpu: int) -> None:
        assert vcpu == 0
        self._cpu = cpu
        self.steps.append(f"pin {cpu}")

    def flush(self) -> None:
        self.steps.append("flush")

    def touch(self, pages: frozenset[int], *, write: bool) -> Any:
        assert not write
        self.steps.append("touch")
        self._touched = pages if self._cpu in self._faulting else frozenset()
        return SimpleNamespace(exits=SimpleNamespace(exits=len(self._touched) + self._too_many))

    def start(self) -> None:
        self.steps.append("start")

    def stop(self) -> Counts:
        self.steps.append("stop")
        events = tuple(
            Event(0, self._cpu, "kvm-guest", 1, ACCESS_FAULT, "", {"ipa": IPA + 4096 * page})
            for page in sorted(self._touched)
        )
        return Counts(Wanted((ACCESS_FAULT,)), self._absent, 0, {}, events, "the trace")


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces what looks at pages; returns what it was asked."""
    asked: list[str] = []

    def note(words: str) -> Any:
        return lambda *args: asked.append(" ".join([words, *(str(arg) for arg in args[3:])]))

    module = "harness.checks.af_mode"
    monkeypatch.setattr(f"{module}.mark_idle", lambda vm: vm.steps.append("age"))
    monkeypatch.setattr(f"{module}.old_pages", note("old"))
    monkeypatch.setattr(f"{module}.young_pages", note("young"))
    return asked


@pytest.mark.parametrize(
    ("faulting", "cpu", "found"),
    [(set(), 1, "hardware"), ({1}, 1, "software"), ({1}, 0, "hardware")],
)
def test_one_cpu(
    faulting: set[int], cpu: int, found: AfMode, pages: list[str], tmp_path: Path
) -> None:
    vm: Any = Machine(faulting)
    claim = Claim(tmp_path, "")
    assert observe(vm, vm, claim, vm, cpu) == found
    # It is on that CPU when it touches, no translation is cached, and nothing else is recorded.
    assert vm.steps == [f"pin {cpu}", "age", "flush", "start", "touch", "stop"]
    assert pages == [f"old cpu{cpu}-aged", f"young {ALL} cpu{cpu}-touched"]
    assert (tmp_path / f"trace-cpu{cpu}.txt").read_text() == "the trace"
    assert claim.observed.startswith(f"CPU {cpu}: access faults for ")
    assert claim.observed.endswith(found)


def test_witnesses_that_disagree_tell_nothing(pages: list[str], tmp_path: Path) -> None:
    vm: Any = Machine(set(), exits_too_many=PAGES)
    claim = Claim(tmp_path, "")
    assert observe(vm, vm, claim, vm, 0) is None
    assert claim.observed.endswith("neither hardware nor software")


def test_a_kernel_without_the_tracepoint_proves_nothing(pages: list[str], tmp_path: Path) -> None:
    vm: Any = Machine(set(), absent=True)
    with pytest.raises(Unproven, match="no such event"):
        observe(vm, vm, Claim(tmp_path, ""), vm, 0)


def run_check(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    faulting: set[int],
    kernel: KernelLabel,
    kinds: tuple[Expected, ...] = (BIG,),
    planned: AfMode = "hardware",
) -> Claim:
    vm: Any = Machine(faulting)

    @contextlib.contextmanager
    def tracing(shell: object, wanted: Wanted) -> Iterator[Any]:
        assert wanted.events == (ACCESS_FAULT,)
        yield vm

    monkeypatch.setattr(check_module, "tracing", tracing)
    monkeypatch.setattr(check_module, "populated", lambda guest: guest)
    monkeypatch.setattr(check_module, "usable", lambda shell: range(6))
    claim = Claim(folder, "")
    cell: Any = SimpleNamespace(cell=SimpleNamespace(kernel=kernel, af_mode=planned))
    try:
        check_module.test_af_mode(lambda **options: vm, vm, claim, cell, kinds)
    finally:
        claim.observe(f"recorded: {[one.observed for one in claim.af_cpus]}")
    return claim


@pytest.mark.parametrize("kernel", ["base", "patched"])
def test_all_as_expected(
    monkeypatch: pytest.MonkeyPatch, pages: list[str], tmp_path: Path, kernel: KernelLabel
) -> None:
    claim = run_check(monkeypatch, tmp_path, set(), kernel)
    assert claim.af_cpus == (record(BIG, "hardware"),)
    assert claim.af_observed == "hardware"
    assert "CPU 4-5 (Cortex-A76): hardware, since it is A76" in claim.expected


WRONG = "software sets the access flag on CPU 5, where hardware must: it is A76"


def test_a_difference_on_the_base_kernel_is_the_labs(
    monkeypatch: pytest.MonkeyPatch, pages: list[str], tmp_path: Path
) -> None:
    with pytest.raises(InfraError) as told:
        run_check(monkeypatch, tmp_path, {5}, "base")
    assert str(told.value) == WRONG


def test_a_difference_on_the_patched_kernel_is_its_failure(
    monkeypatch: pytest.MonkeyPatch, pages: list[str], tmp_path: Path
) -> None:
    with pytest.raises(AssertionError) as told:
        run_check(monkeypatch, tmp_path, {5}, "patched")
    assert str(told.value).split("\nassert ")[0] == WRONG


def test_an_asymmetric_machine_is_recorded_by_kind(
    monkeypatch: pytest.MonkeyPatch, pages: list[str], tmp_path: Path
) -> None:
    """The cell is about one of the two, so the other kind is told whatever it does."""
    with pytest.raises(AssertionError) as told:
        run_check(monkeypatch, tmp_path, {0, 3}, "patched", (LITTLE, BIG))
    words = str(told.value).split("\nassert ")[0]
    assert words.startswith("CPU 0-3 (Cortex-A53): software")
    assert "; " not in words
