# SPDX-License-Identifier: GPL-2.0-only
"""Callbacks of stage-2 walks that a series has renamed are found by what calls them back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from harness.checks import callbacks
from harness.checks.overlap import AGE_CALLBACK, SET_FLAGS, UNMAP_CALLBACK
from harness.observe import callbacks as observed

HEAD = "# tracer: nop\n#\n# entries-in-buffer/entries-written: 2/2   #P:2\n#\n"
EVENT = (
    "       kvm-guest-77      [000] .....     9.012345: walk: (kvm_pgtable_walk+0x0/0xb0) cb={}\n"
)
NAMES = (AGE_CALLBACK, SET_FLAGS, UNMAP_CALLBACK)


def traced(*symbols: str) -> str:
    return HEAD + "".join(EVENT.format(symbol) for symbol in symbols)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (traced("stage2_age_walker+0x0/0x88", "stage2_age_walker+0x0/0x88"), "stage2_age_walker"),
        (traced("other.cold+0x0/0x8"), "other.cold"),
        (traced("a+0x0/0x8", "b+0x0/0x8"), None),
        # An address within a function is no callback.
        (traced("a+0x10/0x88"), None),
        (traced("0x0"), None),
        (traced(), None),
    ],
)
def test_what_a_trace_names(text: str, found: str | None) -> None:
    assert observed.parse(text) == found


class Told:
    """In the place of observe.callbacks: a kernel with these functions, as acts would show them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, shows: Mapping[str, str | None]) -> None:
        self.remembered: dict[str, str] | None = None
        self._shows = iter(shows[name] for name in NAMES)
        listed = set(shows.values())
        names = [name for name in NAMES if name not in listed]
        monkeypatch.setattr(observed, "unlisted", lambda shell, asked: tuple(names))
        monkeypatch.setattr(observed, "called_back", self._called_back)
        monkeypatch.setattr(observed, "remember", self._remember)

    def _called_back(self, shell: object, act: Any) -> str | None:
        act()
        return next(self._shows)

    def _remember(self, shell: object, aliases: dict[str, str]) -> None:
        self.remembered = dict(aliases)


class Quiet:
    """A guest of which only is known what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *_: object) -> None:
        self.asked.append("close")

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: self.asked.append(name)


def learn(told: Told) -> tuple[dict[str, str], Quiet]:
    vm = Quiet()
    acts = {
        AGE_CALLBACK: lambda vm: vm.idle_mark(),
        SET_FLAGS: lambda vm: vm.dirty_log(on=True),
        UNMAP_CALLBACK: lambda vm: vm.advise("dontneed", range(callbacks.PAGES)),
    }
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(callbacks, "ACTS", acts)
        return dict(callbacks.learn(cast(Any, None), lambda **_: cast(Any, vm))), vm


def test_a_kernel_with_the_usual_names_is_asked_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, vm = learn(told := Told(monkeypatch, {name: name for name in NAMES}))
    assert (found, vm.asked, told.remembered) == ({}, [], None)


def test_a_name_that_is_another_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    shows = {AGE_CALLBACK: "age_cb", SET_FLAGS: SET_FLAGS, UNMAP_CALLBACK: UNMAP_CALLBACK}
    found, vm = learn(told := Told(monkeypatch, shows))
    assert found == told.remembered == {AGE_CALLBACK: "age_cb"}
    assert vm.asked == ["populate", "drain", "idle_mark", "dirty_log", "advise", "close"]


@pytest.mark.parametrize("shown", [None, SET_FLAGS])
def test_what_is_not_told_or_has_another_part_too_stays_unknown(
    monkeypatch: pytest.MonkeyPatch, shown: str | None
) -> None:
    """Linux 6.2 ages by the function that sets flags: a probe there would count both."""
    shows = {AGE_CALLBACK: shown, SET_FLAGS: SET_FLAGS, UNMAP_CALLBACK: UNMAP_CALLBACK}
    found, _ = learn(told := Told(monkeypatch, shows))
    assert found == told.remembered == {}
