# SPDX-License-Identifier: GPL-2.0-only
"""What a host that counts said becomes typed values, or is refused."""

from __future__ import annotations

import pytest
from cost_consoles import BASE, BUILD_ID, CONFIG_SHA256, NAMES, edited, framed, saved

from harness.cost.framing import Garbled
from harness.cost.layouts import SIZES
from harness.cost.readings import Calls, Faults, Pass, parse
from harness.hosts.proof import KVM_MODE_LINES, Expected, WrongKernel, agree

START = ["begin 1", "release 6.12.1", "notes 00", "notes end 1", "config 00ff", "config end 2"]


def test_a_saved_console() -> None:
    found = parse(BASE)
    assert found.release == "6.12.117"
    assert found.has_kvm
    assert Pass("idle-bare", 128, 1, 128, 91008) in found.passes
    assert Faults(1024, 4, 0) in found.faults
    assert Calls("idle", 512, "kvm_mmu_notifier_clear_young", 512) in found.calls
    kinds = dict.fromkeys(one.metric for one in found.passes)
    assert list(kinds) == [
        *("idle-bare", "idle", "access", "walk", "reclaim"),
        *("damon", "damon-check", "khugepaged"),
    ]
    # In each of two ranges khugepaged gives up at a page that is absent.
    assert {one.pages - one.units for one in found.passes if one.metric == "khugepaged"} == {2}
    assert {one.number for one in found.passes} == set(range(5))


@pytest.mark.parametrize("name", NAMES)
def test_each_saved_console_has_all_passes_of_all_sizes_in_its_mode(name: str) -> None:
    console = saved(name)
    (mode,) = (mode for mode, line in KVM_MODE_LINES.items() if line.search(console))
    assert mode == name.split("-")[1]
    found = parse(console)
    assert found.has_kvm
    every = {(size, number) for size in SIZES for number in range(5)}
    for kind in {one.metric for one in found.passes}:
        assert {(one.pages, one.number) for one in found.passes if one.metric == kind} == every
    assert {(one.pages, one.number) for one in found.faults} == every


def test_it_proves_its_kernel() -> None:
    found = parse(BASE)
    agree(found.notes, found.config, found.release, Expected(BUILD_ID, CONFIG_SHA256))
    with pytest.raises(WrongKernel, match="the host runs the kernel 45896c99"):
        agree(found.notes, found.config, found.release, Expected("0" * 40, CONFIG_SHA256))
    with pytest.raises(WrongKernel, match="configuration is 83bdcf71"):
        agree(found.notes, found.config, found.release, Expected(BUILD_ID, "0" * 64))


def test_without_kvm() -> None:
    assert not parse(edited(BASE, "kvm yes", "kvm no")).has_kvm


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (["pass idle pages=1 pass=0 units=1"], "what nobody knows"),
        (["pass idle pages=1 pass=0 units=-1 instructions=1"], "what nobody knows"),
        (["calls idle pages=1 function=rm%20-rf hits=1"], "what nobody knows"),
        (["kvm yes", "notes 0", "kvm yes"], "notes: non-hexadecimal"),
        ([], "did not say which kernel"),
    ],
)
def test_refused(more: list[str], what: str) -> None:
    with pytest.raises(Garbled, match=what):
        parse(framed([*START, *more, "end"]))


def test_another_protocol() -> None:
    with pytest.raises(Garbled, match="begins with 'begin 2'"):
        parse(framed(["begin 2", "end"]))


@pytest.mark.parametrize("end", ["config end 3", "config end x"])
def test_bytes_that_do_not_add_up(end: str) -> None:
    with pytest.raises(Garbled, match="config: 2 bytes came"):
        parse(framed([*START[:-1], end, "kvm yes", "end"]))


@pytest.mark.parametrize("name", ["notes", "config"])
def test_bytes_that_never_came(name: str) -> None:
    rest = [text for text in START if not text.startswith(name)]
    with pytest.raises(Garbled, match=f"no {name}"):
        parse(framed([*rest, "kvm yes", "end"]))
