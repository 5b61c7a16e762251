# SPDX-License-Identifier: GPL-2.0-only
"""The boots of a measurement: which there are, in what order, and what is refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from pydantic import TypeAdapter

from harness import cli
from harness.errors import UsageError
from harness.options import Options
from harness.plan import PlannedCell
from harness.timing import CHECKS
from harness.timing.options import MOST, TimingOptions
from harness.timing.rounds import boots, rounds

BASE = PlannedCell("n1", "base", "vhe", "hardware", cmdline=("quiet",))
PATCHED = PlannedCell("n1", "patched", "vhe", "hardware", cmdline=("quiet",))
PAIR = (BASE, PATCHED)
KINDS = {
    "n1-vhe-base-r01": "base",
    "n1-vhe-patched-r01": "patched",
    "n1-vhe-base-r01-again": "again",
}


def order(seed: int) -> tuple[str, ...]:
    return tuple(KINDS[cell.id] for cell in boots(PAIR, seed, TimingOptions(rounds=1)))


@pytest.mark.parametrize("number_of_rounds", [12, MOST])
def test_each_round_has_each_boot_once_and_rounds_follow_each_other(number_of_rounds: int) -> None:
    cells = boots(PAIR, 1, TimingOptions(rounds=number_of_rounds))
    assert len({cell.id for cell in cells}) == 3 * number_of_rounds
    assert all(cell.cmdline == ("quiet",) for cell in cells)
    for number, one in enumerate(rounds(cells)):
        assert one.number == number + 1
        assert set(one.cells) == {cell.id for cell in cells[3 * number : 3 * number + 3]}
        assert (one.base, one.patched) == (
            f"n1-vhe-base-r{one.number:02}",
            one.base.replace("base", "patched"),
        )


def test_without_a_second_base() -> None:
    cells = boots(PAIR, 1, TimingOptions(rounds=2, aa=False))
    assert Counter(cell.kernel for cell in cells) == {"base": 2, "patched": 2}
    assert [one.again for one in rounds(cells)] == ["", ""]


def test_the_seed_alone_decides_the_order_and_every_order_comes() -> None:
    assert order(7) == order(7)
    seen = Counter(order(seed) for seed in range(600))
    assert len(seen) == 6
    assert min(seen.values()) > 50


def test_boot_variants_are_not_timed() -> None:
    variant = replace(PATCHED, variant="sw-af")
    assert len(boots((*PAIR, variant), 1, TimingOptions(rounds=1))) == 3


@pytest.mark.parametrize("other", [{"host": "a57"}, {"kvm_mode": "nvhe"}])
def test_one_host_in_one_mode(other: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="--host and --mode among n1 vhe, "):
        boots((*PAIR, replace(BASE, **other)), 1, TimingOptions())  # type: ignore[arg-type]


def test_the_base_kernel_alone_is_booted_twice_in_a_round() -> None:
    cells = boots((BASE,), 1, TimingOptions(rounds=12))
    assert {cell.kernel for cell in cells} == {"base"}
    for number, one in enumerate(rounds(cells)):
        assert one.number == number + 1
        assert (one.patched, one.again) == ("", f"{one.base}-again")
        assert one.of("patched") == ()
        assert set(one.cells) == {cell.id for cell in cells[2 * number : 2 * number + 2]}
    first = [boots((BASE,), seed, TimingOptions(rounds=1))[0].boot for seed in range(100)]
    assert 30 < first.count("r01-again") < 70


@pytest.mark.parametrize(
    "args", [["--rounds", "0"], ["--rounds", "101"], ["--jobs", "2"], ["--base-only", "--no-aa"]]
)
def test_options_that_make_no_measurement(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["time", *args])
    assert ended.value.code == 2
    assert args[0] in capsys.readouterr().err


def test_the_base_kernel_alone_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Options] = []

    def run(options: Options, progress: object) -> None:
        asked.append(options)
        raise UsageError("not here")

    monkeypatch.setattr(cli, "Run", run)
    for given in ([], ["--base-only"]):
        with pytest.raises(SystemExit):
            cli.main(["time", *given])
    assert [one.base_only for one in asked] == [False, True]
    assert [one.timing for one in asked] == [TimingOptions()] * 2


def test_options_survive_in_run_json() -> None:
    adapter = TypeAdapter(Options)
    options = Options(timing=TimingOptions(7, False), checks=(CHECKS,), pytest_args=("-k", "walk"))
    assert adapter.validate_python(adapter.dump_python(options, mode="json")) == options
    assert options.narrowed
    assert options.narrowing(()) == ["only some checks: -k walk", "only times: no other check ran"]
    assert options.selection == ("-k", "walk")
