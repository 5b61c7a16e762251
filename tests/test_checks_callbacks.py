# SPDX-License-Identifier: GPL-2.0-only
"""Callbacks of stage-2 walks that a series has renamed are found by what calls them back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.checks import callbacks
from harness.checks.overlap import AGE_CALLBACK, SET_FLAGS, UNMAP_CALLBACK
from harness.errors import HostDied, InfraError
from harness.observe import callbacks as observed
from harness.observe.unproven import Unproven

PID = 77
HEAD = "# tracer: nop\n#\n# entries-in-buffer/entries-written: {}/{}   #P:2\n#\n"
EVENT = (
    "       kvm-guest-{}      [000] .....     9.012345: kvmh_walk: (kvm_pgtable_walk+0x{}/0xb0)"
    " cb={}\n"
)
NAMES = (AGE_CALLBACK, SET_FLAGS, UNMAP_CALLBACK)
USUAL = {name: name for name in NAMES}


def traced(*symbols: str, pid: int = PID, offset: str = "0", lost: int = 0) -> str:
    events = "".join(EVENT.format(pid, offset, symbol) for symbol in symbols)
    return HEAD.format(len(symbols), len(symbols) + lost) + events


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (traced("stage2_age_walker+0x0/0x88", "stage2_age_walker+0x0/0x88"), "stage2_age_walker"),
        # With BTI the probe is behind the landing pad.
        (traced("other.cold+0x0/0x8", offset="4"), "other.cold"),
        (traced("a+0x0/0x8", "b+0x0/0x8"), None),
        # An address within a function is no callback.
        (traced("a+0x10/0x88"), None),
        (traced("0x0"), None),
        (traced("a+0x0/0x8", "0x0"), None),
        (traced("a+0x0/0x8", pid=PID + 1), None),
        (traced("a+0x0/0x8", lost=1), None),
        (traced(), None),
    ],
)
def test_what_a_trace_names(text: str, found: str | None) -> None:
    assert observed.parse(text, PID) == found


class Kernel:
    """In the place of observe.callbacks: what acts show of a kernel that has these functions."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, shows: Mapping[str, str | None], has: set[str]
    ) -> None:
        self._shows = iter(shows[name] for name in NAMES)
        missing = tuple(name for name in NAMES if name not in has)
        monkeypatch.setattr(observed, "unlisted", lambda shell, asked: missing)
        monkeypatch.setattr(observed, "called_back", self._called_back)

    def _called_back(self, shell: object, pid: int, act: Callable[[], object]) -> str | None:
        assert pid == PID
        act()
        return next(self._shows)


class Quiet:
    """A guest of which only is known what it was asked for."""

    greeting = SimpleNamespace(pid=PID)

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *_: object) -> None:
        self.asked.append("close")

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: self.asked.append(name)


def learn(vm: Quiet) -> Mapping[str, str]:
    return callbacks.learn(cast(Any, None), lambda **_: cast(Any, vm))


def test_a_kernel_with_the_usual_names_is_asked_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Kernel(monkeypatch, USUAL, set(NAMES))
    vm = Quiet()
    assert (learn(vm), vm.asked) == ({}, [])


def test_a_name_that_is_another_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    Kernel(monkeypatch, USUAL | {AGE_CALLBACK: "age_cb"}, {SET_FLAGS, UNMAP_CALLBACK})
    vm = Quiet()
    assert learn(vm) == {AGE_CALLBACK: "age_cb"}
    assert vm.asked == ["populate", "drain", "idle_mark", "dirty_log", "advise", "close"]


@pytest.mark.parametrize(
    ("shows", "has"),
    [
        # Linux 6.2 ages by the function that sets flags: a probe there would count both.
        ({AGE_CALLBACK: SET_FLAGS}, {SET_FLAGS, UNMAP_CALLBACK}),
        # The same where it does not show what else it is for, and where it has another name too.
        ({AGE_CALLBACK: SET_FLAGS, SET_FLAGS: None}, {SET_FLAGS, UNMAP_CALLBACK}),
        ({AGE_CALLBACK: "x", SET_FLAGS: "x"}, {UNMAP_CALLBACK}),
        ({AGE_CALLBACK: None}, {SET_FLAGS, UNMAP_CALLBACK}),
    ],
)
def test_what_is_not_told_or_has_another_part_too_stays_unknown(
    monkeypatch: pytest.MonkeyPatch, shows: dict[str, str | None], has: set[str]
) -> None:
    Kernel(monkeypatch, USUAL | shows, has)
    assert learn(Quiet()) == {}


@pytest.mark.parametrize("error", [InfraError("no page_idle"), Unproven("kept off the lists")])
def test_a_check_has_its_own_word_on_what_keeps_them_from_being_found(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object, **__: object) -> Any:
        raise error

    Kernel(monkeypatch, USUAL, set())
    assert callbacks.learn(cast(Any, None), fails) == {}
    monkeypatch.setattr(observed, "unlisted", fails)
    assert learn(Quiet()) == {}


def test_a_host_that_dies_of_it_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object) -> Any:
        raise HostDied("panic", "it panicked")

    monkeypatch.setattr(observed, "unlisted", dies)
    with pytest.raises(HostDied):
        learn(Quiet())
