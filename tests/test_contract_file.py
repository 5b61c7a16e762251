# SPDX-License-Identifier: GPL-2.0-only
"""What a series.yaml may hold: all else is refused, with file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest
from contract_helpers import FAST, refusal


@pytest.mark.parametrize(
    "body",
    [
        'pages: each, event: "kvm:kvm_age_hva"',
        'pages: none, event: "kvm:kvm_age_hva", enters: [[a]], never: [b]',
        'pages: none, event: "kvm:kvm_age_hva"',
        'pages: each, event: "kvm:kvm_age_hva", enters: [[a]], never: [a]',
        'pages: each, event: "kvm:kvm_age_hva", enters: [[]]',
    ],
)
def test_path_that_cannot_be_checked(tmp_path: Path, body: str) -> None:
    assert "series.yaml:3: paths.p" in refusal(
        tmp_path, f'kernel: "6.12"\npaths:\n  p: {{{body}}}\n'
    )


def test_no_lock_cannot_always_be_taken(tmp_path: Path) -> None:
    message = refusal(
        tmp_path, 'kernel: "6.12"\nmmu_lock:\n  aging: [{takes: none, always: true}]\n'
    )
    assert "what takes no lock cannot take it always" in message


def test_a_bit_switches_what_drivers_enter(tmp_path: Path) -> None:
    """A path says who enters what, and knows of no bit."""
    text = FAST.replace("  drivers: [mglru_walk]\n", "")
    assert text != FAST
    assert "lru_gen_bit goes with drivers" in refusal(tmp_path, text)


def test_a_cost_that_is_not_counted(tmp_path: Path) -> None:
    text = 'kernel: "6.12"\ncost:\n  - {metric: seconds, promise: better}\n'
    assert "series.yaml:3: cost[0].metric" in refusal(tmp_path, text)


@pytest.mark.parametrize(
    "line",
    [
        "cmdline: ['panic=1 init=/bin/sh']",
        "cmdline: ['a=\"b\"']",
        "cmdline: []",
        'cmdline: ["a=1\\nb"]',
    ],
)
def test_parameter_that_is_more_than_one_word(tmp_path: Path, line: str) -> None:
    text = f'kernel: "6.12"\nvariants:\n  - name: a\n    {line}\n'
    assert "series.yaml:4: variants[0].cmdline" in refusal(tmp_path, text)


@pytest.mark.parametrize("name", ["../../etc/shadow", "a b", "A/b", ""])
def test_debugfs_file_must_be_a_plain_name(tmp_path: Path, name: str) -> None:
    text = f'kernel: "6.12"\nstage2_af_file: {{name: "{name}", hardware: h, software: s}}\n'
    assert "series.yaml:2: stage2_af_file.name" in refusal(tmp_path, text)


@pytest.mark.parametrize("symbol", ["a b", "*", "a;b", "$x"])
def test_symbol_must_be_one_word(tmp_path: Path, symbol: str) -> None:
    text = FAST.replace("kvm_arch_test_clear_young", f'"{symbol}"')
    assert "series.yaml:3: fast_path.functions[0]" in refusal(tmp_path, text)


def test_a_message_id_has_no_brackets(tmp_path: Path) -> None:
    text = 'kernel: "6.2"\nmessage_id: <1@example.org>\n'
    assert "series.yaml:2: message_id" in refusal(tmp_path, text)


def test_unquoted_version_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "kernel: 6.12\n").startswith("series.yaml:1: kernel: ")


def test_unknown_key_and_every_other_problem_with_its_line(tmp_path: Path) -> None:
    message = refusal(tmp_path, 'kernel: "6.12"\n\nvariant: []\naccess_faults: {hardware: some}\n')
    lines = message.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        ["series.yaml:4", "access_faults.hardware"],
        ["series.yaml:4", "access_faults.software"],
        ["series.yaml:3", "variant"],
    ]
