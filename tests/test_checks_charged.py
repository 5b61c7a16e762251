# SPDX-License-Identifier: GPL-2.0-only
"""What a guest's memcg is charged for, and what has come to it since."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from harness.checks.charged import NOTHING, Charged, falls_to, parse, settled
from harness.checks.claim import Claim
from harness.hosts.protocols import Result
from harness.observe.errors import ObserveError
from harness.observe.unproven import Unproven


@pytest.fixture
def claim(tmp_path: Path) -> Claim:
    return Claim(tmp_path, "")


def stat(**values: int) -> str:
    """What the script prints on a machine of two CPUs."""
    lines = {"anon": 0, "pgscan": 0, "kernel": 0} | values
    return "2\n" + "".join(f"{name} {value}\n" for name, value in lines.items())


class Shell:
    """Prints one reading after another, the last one for ever."""

    def __init__(self, *texts: str) -> None:
        self._texts = list(texts)

    def run(self, command: str, deadline: object = None, *, check: bool = True) -> Result:
        text = self._texts.pop(0) if len(self._texts) > 1 else self._texts[0]
        return Result(command, 0, text, "")


def shell(*texts: str) -> Any:
    return cast(Any, Shell(*texts))


def test_pages_are_those_of_processes_and_the_kernels_own() -> None:
    found = parse(stat(kernel=5 * 4096, active_anon=2 * 4096, unevictable=4096, active_file=4096))
    assert (found.user, found.kernel, found.objects, found.cpus) == (3, 5, 0, 2)


def test_objects_are_told_to_the_byte_and_take_pages_all_together() -> None:
    found = parse(stat(kernel=2 * 4096, slab_unreclaimable=3000, percpu=8, slab_reclaimable=2000))
    assert (found.kernel, found.objects) == (0, 3008)


def test_dentries_that_stay_are_nothing_left_behind() -> None:
    assert not parse(stat(kernel=4096, slab_reclaimable=2424)).beyond(NOTHING)


def test_a_page_less_than_there_are_cpus_is_no_page() -> None:
    before = Charged(user=1, kernel=7, objects=184, cpus=2)
    assert not Charged(user=1, kernel=8, objects=184, cpus=2).beyond(before)
    assert Charged(user=1, kernel=9, objects=184, cpus=2).beyond(before) == "2 pages of the kernel"


def test_one_page_of_a_process_or_one_byte_is_more() -> None:
    before = Charged(user=1, kernel=7, objects=184)
    assert Charged(2, 7, 192).beyond(before) == "1 pages of processes, 8 bytes of objects"


def test_a_kernel_that_does_not_tell_proves_nothing() -> None:
    with pytest.raises(Unproven, match="does not tell what it charges"):
        parse("2\nanon 0\npgscan 0\n")


def test_a_text_without_the_cpus_is_refused() -> None:
    with pytest.raises(ObserveError):
        parse(stat().removeprefix("2\n"))


def test_what_is_given_back_by_the_second_barrier_is_given_back(claim: Claim) -> None:
    late = shell(stat(slab_unreclaimable=900), stat())
    assert falls_to(late, claim, NOTHING, 1.0) == Charged(0, 0, 0, cpus=2)
    assert claim.observed.startswith("gone at look 2, after ")


def test_what_is_given_back_later_is_told(claim: Claim) -> None:
    late = shell(*(stat(slab_unreclaimable=size) for size in (900, 800, 700)), stat())
    assert falls_to(late, claim, NOTHING, 1.0).objects == 0
    assert claim.observed.startswith("gone at look 4, after ")


def test_what_stays_is_told_when_time_is_up(claim: Claim) -> None:
    assert falls_to(shell(stat(active_anon=4096)), claim, NOTHING, 0.0).user == 1


def test_what_still_moves_is_read_again() -> None:
    texts = (stat(kernel=8192), stat(kernel=4096), stat(kernel=4096))
    assert settled(shell(*texts), 1.0).kernel == 1


def test_pages_charged_by_bytes_are_asked_for_once_before_they_are_judged(claim: Claim) -> None:
    """And not where more than pages is left, of which a shell would leave more."""
    pages, none = stat(kernel=5 * 4096), stat()
    assert falls_to(shell(pages, "", none), claim, NOTHING, 1.0) == Charged(0, 0, 0, cpus=2)
    assert claim.observed == ""
    more = stat(kernel=5 * 4096, slab_unreclaimable=8)
    assert falls_to(shell(more, none), claim, NOTHING, 1.0) == Charged(0, 0, 0, cpus=2)
