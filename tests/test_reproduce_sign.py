# SPDX-License-Identifier: GPL-2.0-only
"""By what a failure is known again: what only, and always, the failing kernel shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.reproduce.script import Boot
from harness.reproduce.sign import Sign, shows
from harness.reproduce.sign import choose as choose_


def boot(*shown: str, over: bool = True, titles: tuple[str, ...] = ()) -> Boot:
    """A boot whose steps, from 1 on, showed these words, each as a line."""
    steps = {at: frozenset(words.split()) for at, words in enumerate(shown, 1)}
    return Boot(len(shown) + (not over), over, steps, frozenset(titles))


def choose(
    bad: Sequence[Boot],
    good: Sequence[Boot],
    *,
    alike: int,
    errors: Mapping[int, Sequence[str]],
    recorded: Mapping[int, frozenset[str]] | None = None,
    titles: Sequence[str] = (),
) -> Sign:
    """As if the run had seen in each step what the first boot of the failing kernel showed."""
    shown = bad[0].shown if recorded is None else recorded
    return choose_(bad, good, alike=alike, titles=titles, errors=errors, recorded=shown)


def test_the_last_step_that_both_were_asked_for_decides() -> None:
    bad = [boot("ok path=b", "ok old=1", "gone"), boot("ok path=b", "ok old=1", "gone")]
    good = [boot("ok path=a", "ok old=0", "here")]
    sign = choose(bad, good, alike=2, errors={})
    assert sign == Sign("lines", 2, ("old=1",), ("old=0",))
    assert all(shows(one, sign) for one in bad)
    assert not any(shows(one, sign) for one in good)
    assert not shows(boot("ok path=b", "ok old=0"), sign), "the series without its fault"
    assert not shows(boot("ok path=b"), sign), "it did not come so far"


def test_what_varies_decides_nothing() -> None:
    bad = [boot("n=1", "ok wrong=1 n=2"), boot("n=1", "ok wrong=1 n=3")]
    good = [boot("n=1", "ok wrong=0 n=4"), boot("n=1", "ok wrong=0 n=5")]
    assert choose(bad, good, alike=9, errors={}) == Sign("lines", 2, ("wrong=1",), ("wrong=0",))


def test_a_counter_without_a_partner_tells_less_than_one_with() -> None:
    bad = [Boot(1, True, {1: frozenset({"1 Tables: 12 kB", "1 Anon: 5 kB", "1 idle=0-7"})})]
    good = [Boot(1, True, {1: frozenset({"1 Tables: 0 kB", "1 Other: 7 kB", "2 idle=3,5"})})]
    assert choose(bad, good, alike=1, errors={}) == Sign(
        "lines", 1, ("1 Tables: 12 kB", "1 idle=0-7"), ("1 Tables: 0 kB", "2 idle=3,5")
    )


def test_something_that_is_only_missing() -> None:
    sign = choose([boot("ok")], [boot("ok dirty=3")], alike=1, errors={})
    assert sign == Sign("lines", 1, (), ("dirty=3",), sure=False)
    assert shows(boot("ok dirty=4"), sign)


def test_a_report_of_the_kernel_outranks_the_rest() -> None:
    bad = [boot("a", over=False, titles=("panic: N", "WARN"))]
    good = [boot("b", titles=("WARN",))]
    sign = choose(bad, good, alike=1, errors={})
    assert sign == Sign("report", seen=("panic: N",))
    assert shows(bad[0], sign)
    assert not shows(good[0], sign)


def test_a_host_that_stops_in_the_same_step() -> None:
    bad = [boot("a", over=False), boot("a", over=False)]
    sign = choose(bad, [boot("a", "b")], alike=2, errors={})
    assert sign == Sign("stop", 2)
    assert shows(bad[0], sign)
    assert not shows(boot("a", "b"), sign)
    assert not shows(boot(over=False), sign), "it stops elsewhere"
    assert choose(bad, [], alike=2, errors={}).kind == "none", "no kernel that does not stop"


def test_an_error_that_was_seen_in_the_run_alone() -> None:
    same = [boot("1 ok".replace(" ", "_"))]
    sign = choose(same, same, alike=1, errors={1: ("error", "data")})
    assert sign == Sign("lines", 1, ("1 error", "1 data"), rare=True)
    hit = Boot(1, True, {1: frozenset({"1 error", "1 data", "1 page=9"})})
    assert shows(hit, sign)


def test_a_report_that_a_race_brings_now_and_then() -> None:
    """The run saw it, and no kernel without the fault prints it: it is waited for."""
    calm, hit = boot("ok"), boot("ok", titles=("WARN b",))

    def chosen(
        bad: Sequence[Boot], good: Boot, *titles: str, errors: Mapping[int, Sequence[str]] = {}
    ) -> Sign:
        return choose(bad, [good], alike=1, errors=errors, titles=titles)

    two = ("WARN a", "WARN b")
    assert chosen([calm, hit], calm, *two) == Sign("report", seen=("WARN b",), rare=True)
    assert chosen([calm, calm], calm, *two) == Sign("report", seen=("WARN a",), rare=True)
    assert chosen([calm], hit, "WARN b") == Sign("none")
    both = chosen([calm, hit], calm, *two, errors={1: ("error", "data")})
    assert both.kind == "report", "what came again outranks what did not"


CALM = [boot("1_ok", "path=b"), boot("1_ok", "path=b")]
GOOD = [boot("1_ok", "path=a")]
HIT = Boot(2, True, {1: frozenset({"1 error", "1 data"}), 2: frozenset({"path=b"})})


def test_what_a_series_changes_on_purpose_is_not_an_error_that_did_not_come_again() -> None:
    sign = choose(CALM, GOOD, alike=2, errors={1: ("error", "data")})
    assert sign == Sign("lines", 1, ("1 error", "1 data"), rare=True)
    assert not any(shows(one, sign) for one in (*CALM, *GOOD))
    sign = choose([*CALM, HIT], GOOD, alike=2, errors={1: ("error", "data")})
    assert (sign.step, sign.rare) == (1, True), "one boot of three"
    sign = choose([HIT], GOOD, alike=2, errors={1: ("error", "data")})
    assert (sign.step, sign.rare) == (1, False)
    sign = choose([HIT], [HIT], alike=2, errors={1: ("error", "data")})
    assert sign == Sign("none"), "the kernel that is right shows it too"


def test_a_difference_that_the_run_did_not_show_may_be_another_one() -> None:
    for recorded in ({}, {2: frozenset({"path=c"})}, {1: frozenset({"path=b"})}):
        sign = choose(CALM, GOOD, alike=2, errors={}, recorded=recorded)
        assert sign == Sign("lines", 2, ("path=b",), ("path=a",), sure=False)
    sign = choose(CALM, GOOD, alike=2, errors={}, recorded={2: frozenset({"path=b", "ok"})})
    assert sign.sure


def test_nothing_to_tell_it_by() -> None:
    same = [boot("ok")]
    assert choose(same, same, alike=1, errors={}) == Sign("none")
    assert choose(same, [], alike=1, errors={}) == Sign("none")
    assert not shows(same[0], Sign("none"))
