# SPDX-License-Identifier: GPL-2.0-only
"""Contracts are merged into the nearest base, and refused unless they are complete."""

from __future__ import annotations

from pathlib import Path

import pytest
from contract_helpers import LOCKLESS, N1, PROTECTED, refusal, write

from harness.contract_load import BASE, base_for, load
from harness.errors import UsageError


def test_own_rules_replace_those_of_one_driver(tmp_path: Path) -> None:
    text = """\
kernel: "6.14"
paths:
  hypervisor:
    pages: each
    event: "kvm:kvm_age_hva"
    enters: [[pkvm_pgtable_stage2_test_clear_young]]
drivers:
  page_idle:
    - {path: idle_tracking, modes: [vhe, nvhe]}
    - {path: hypervisor, modes: [protected]}
"""
    contract = load(write(tmp_path, text))
    assert contract.expect("page_idle", PROTECTED).enters == (
        ("pkvm_pgtable_stage2_test_clear_young",),
    )
    assert contract.expect("page_idle", N1) == load(None).expect("page_idle", N1)
    assert contract.expect("eviction", PROTECTED) == load(None).expect("eviction", PROTECTED)


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("6.1.192", "base-6.2.yaml"),
        ("6.2.1", "base-6.2.yaml"),
        ("6.11.11", "base-6.2.yaml"),
        ("6.12.0-rc1", "base.yaml"),
        ("6.12.117", "base.yaml"),
        ("6.18.1", "base.yaml"),
        ("7.3.4", "base-7.3.yaml"),
        ("10.0.0", "base-7.3.yaml"),
    ],
)
def test_the_base_of_a_kernel_is_the_nearest_that_is_not_newer(version: str, name: str) -> None:
    assert base_for(version).name == name


def test_base_must_be_complete(tmp_path: Path) -> None:
    text = BASE.read_text(encoding="utf-8")
    path = write(tmp_path, text[: text.index("access_faults:")])
    with pytest.raises(UsageError, match="access_faults: missing"):
        load(None, base=path)
    path = write(tmp_path, text.replace("  eviction:\n    - path: reverse_map\n", ""))
    with pytest.raises(UsageError, match=r"drivers\.eviction: missing"):
        load(None, base=path)


def test_situation_without_a_rule(tmp_path: Path) -> None:
    text = 'kernel: "6.12"\ndrivers:\n  page_idle:\n    - {path: idle_tracking, modes: [vhe]}\n'
    assert refusal(tmp_path, text) == (
        "series.yaml:3: drivers.page_idle: 0 rules instead of one for mode nvhe, "
        "stage1_af hardware, stage2_af hardware"
    )


def test_situation_with_two_rules(tmp_path: Path) -> None:
    text = """\
kernel: "6.12"
drivers:
  mglru_walk:
    - path: page_tables
    - {path: nowhere, stage1_af: software}
"""
    assert "series.yaml:3: drivers.mglru_walk: 2 rules instead of one" in refusal(tmp_path, text)


def test_mmu_lock_without_a_rule_for_a_situation(tmp_path: Path) -> None:
    message = refusal(
        tmp_path, 'kernel: "6.12"\nmmu_lock:\n  aging: [{takes: none, modes: [vhe]}]\n'
    )
    assert "series.yaml:3: mmu_lock.aging: 0 rules instead of one for mode nvhe" in message


def test_flushes_without_a_rule_for_a_situation(tmp_path: Path) -> None:
    text = 'kernel: "6.12"\naging_flushes: [{flushes: none, modes: [vhe]}]\n'
    words = "series.yaml:2: aging_flushes: 0 rules instead of one for mode nvhe"
    assert words in refusal(tmp_path, text)


def test_path_that_is_not_described(tmp_path: Path) -> None:
    text = 'kernel: "6.12"\ndrivers:\n  eviction:\n    - path: elsewhere\n'
    assert refusal(tmp_path, text) == (
        "series.yaml:4: drivers.eviction[0].path: no path of the name 'elsewhere'"
    )


def test_path_into_the_fast_path_where_there_is_none(tmp_path: Path) -> None:
    text = LOCKLESS.replace("  modes: [vhe, nvhe]\n", "  modes: [vhe]\n")
    assert refusal(tmp_path, text) == (
        "series.yaml:11: fast_path: page_idle enters age_lockless by path 'lockless' in mode nvhe, "
        "stage2_af hardware, where nothing may"
    )


def test_variant_given_twice(tmp_path: Path) -> None:
    text = 'kernel: "6.12"\nvariants:\n  - {name: a, cmdline: [x=1]}\n  - {name: a, cmdline: [y]}\n'
    assert refusal(tmp_path, text) == "series.yaml:4: variants[1].name: a is given twice"


def test_counter_given_twice(tmp_path: Path) -> None:
    text = 'kernel: "6.12"\ncounters:\n  - {name: a}\n  - {name: a, modes: [vhe]}\n'
    assert refusal(tmp_path, text) == "series.yaml:4: counters[1].name: a is given twice"


def test_cost_promised_twice(tmp_path: Path) -> None:
    text = """\
kernel: "6.12"
cost:
  - {metric: calls-walk, promise: better}
  - {metric: calls-walk, promise: not-worse, modes: [nvhe]}
"""
    assert refusal(tmp_path, text) == (
        "series.yaml:2: cost: calls-walk is promised twice for mode nvhe"
    )


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('kernel: "6.12"\nkernel: "6.13"\n', "series.yaml:2: kernel: already given in line 1"),
        ("kernel: &a x\nvariants: *a\n", "series.yaml:1: anchors and aliases are not supported"),
        ("kernel: [1\n", "series.yaml:2: "),
        ("kernel: !!python/object:os.system x\n", "series.yaml:1: "),
        ("kernel: 2023-02-31\n", "series.yaml:1: "),
        ("a: 1\n---\nb: 2\n", "series.yaml:2: "),
        ("", "series.yaml:1: "),
        ("- a\n", "series.yaml:1: "),
        ("kernel: \x00\n", "series.yaml:1: "),
        ("a: " + "[" * 100_000, "series.yaml:1: nested deeper than 32 levels"),
        ("- " * 100_000, "series.yaml:1: nested deeper than 32 levels"),
        ("#" * 300_000, "series.yaml: longer than"),
    ],
)
def test_text_that_is_no_contract(tmp_path: Path, text: str, where: str) -> None:
    assert refusal(tmp_path, text).startswith(where)


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load(tmp_path / "absent.yaml")
    (tmp_path / "series.yaml").write_bytes(b"kernel: \xff\n")
    with pytest.raises(UsageError, match="not UTF-8"):
        load(tmp_path / "series.yaml")
