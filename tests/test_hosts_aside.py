# SPDX-License-Identifier: GPL-2.0-only
"""A sick host stays out of use, with the first reason, until somebody puts it back."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import InfraError, UsageError
from harness.hosts import aside


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_a_host_is_in_use_until_it_is_set_aside() -> None:
    assert aside.find("altra") is None
    aside.require_in_use("altra")
    made = aside.set_aside("altra", ("its disk is full", "it is tainted"))
    assert aside.find("altra") == made
    assert aside.find("altra-2") is None
    with pytest.raises(InfraError, match="its disk is full; it is tainted; once it is well"):
        aside.require_in_use("altra")


def test_the_first_reason_is_kept() -> None:
    first = aside.set_aside("altra", ("a",))
    assert aside.set_aside("altra", ("b",)) == first
    assert aside.find("altra") == first


def test_a_host_that_is_put_back_is_in_use() -> None:
    made = aside.set_aside("altra", ("a",))
    assert aside.put_back("altra") == made
    aside.require_in_use("altra")
    with pytest.raises(UsageError, match="not set aside"):
        aside.put_back("altra")


@pytest.mark.parametrize("text", [b"", b"{}", b"\xff", b'{"since": "x", "reasons": [], "x": 1}'])
def test_a_damaged_file_keeps_a_host_out_of_use(tmp_path: Path, text: bytes) -> None:
    aside.set_aside("altra", ("a",))
    (tmp_path / "kvm-harness/hosts/altra.json").write_bytes(text)
    with pytest.raises(InfraError, match=r"hosts/altra\.json is damaged"):
        aside.require_in_use("altra")
