# SPDX-License-Identifier: GPL-2.0-only
"""A selftest whose success says nothing of what KVM did: what is counted for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_shell import UnaskedShell

from harness.checks.claim import Claim
from harness.observe.trace import Counts, Probe, Wanted
from harness.selftests import entered
from harness.selftests.table import SELFTESTS, Shown

SHOWN = Shown("blocks were joined", ("new_name", "old_name"))
GONE = "not in available_filter_functions"


def told(tmp_path: Path, **probes: Probe) -> Claim:
    claim = Claim(tmp_path, "")
    absent = {name: GONE for name in SHOWN.functions if name not in probes}
    entered.tell(Counts(Wanted(functions=SHOWN.functions), absent, 0, probes, (), ""), SHOWN, claim)
    return claim


@pytest.mark.parametrize("name", SHOWN.functions)
def test_what_was_done_is_told(tmp_path: Path, name: str) -> None:
    claim = told(tmp_path, **{name: Probe(3, 0)})
    assert claim.observed == f"{name} entered 3 times"
    assert not claim.unjudged


@pytest.mark.parametrize(
    ("probes", "why"),
    [
        ({"new_name": Probe(0, 0)}, "new_name was never entered"),
        ({"new_name": Probe(3, 1)}, "missed 1 of 4"),
        ({}, "has none of"),
    ],
)
def test_what_was_not_seen_is_not_judged(
    tmp_path: Path, probes: dict[str, Probe], why: str
) -> None:
    (text,) = told(tmp_path, **probes).unjudged
    assert text.startswith("whether blocks were joined: ")
    assert why in text


def test_most_are_not_traced(tmp_path: Path) -> None:
    with entered.entered(UnaskedShell(), None, Claim(tmp_path, "")):
        pass
    assert [test.name for test in SELFTESTS if test.kvm] == ["kvm_page_table_test"]
