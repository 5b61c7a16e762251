# SPDX-License-Identifier: GPL-2.0-only
"""From a boot's passes to a number for each metric."""

from __future__ import annotations

from fractions import Fraction

import pytest
from cost_consoles import BASE, LOCKLESS, NAMES, edited, saved

from harness import inventory
from harness.contract_file import CostMetric
from harness.cost.fit import Line
from harness.cost.framing import Garbled
from harness.cost.metrics import METRICS, costs
from harness.cost.promises import METRICS_OF_WALK
from harness.cost.readings import parse

THREADS = ("damon", "damon-check", "khugepaged")


def test_a_saved_console() -> None:
    found = costs(parse(BASE))
    assert list(found.values) == list(METRICS)
    bare = found.lines["idle-bare"]
    assert bare == Line(Fraction(711), Fraction(0), Fraction(0), 1024 * 711)
    assert found.first["idle-bare"].slope != bare.slope
    assert found.values["calls-idle"] == found.values["calls-walk"] == 1
    assert found.values["faults-access"] == 0
    assert found.values["cost-notifier"] == found.values["cost-idle"] - 711
    assert float(found.values["cost-idle"]) == pytest.approx(1340.2, abs=0.1)
    assert found.doubts == {}


@pytest.mark.parametrize("name", NAMES)
def test_each_saved_console_has_the_metrics_of_its_host(name: str) -> None:
    """Where software sets the access flag a touch of an old page is a fault, and nobody walks."""
    af = inventory.load().hosts[name.split("-")[0]].af
    found = costs(parse(saved(name)))
    absent = METRICS_OF_WALK if af == "software" else ()
    assert found.values.keys() == METRICS.keys() - set(absent)
    assert found.doubts == {}
    values = {metric: float(value) for metric, value in found.values.items()}
    calls = {value for metric, value in values.items() if metric.startswith("calls-")}
    assert all(value == pytest.approx(1, abs=0.01) for value in calls)
    # Under pKVM the guest's own loop is in a touch.
    faults, least, most = (1, 1000, 10_000) if af == "software" else (0, -1, 100)
    assert values["faults-access"] == pytest.approx(faults, abs=0.01)
    assert least < values["cost-access"] < most


def test_threads_of_the_kernel() -> None:
    """What a series adds to aging, and to the question, is the same whoever asks."""
    base, patched = (costs(parse(console)).values for console in (BASE, LOCKLESS))
    assert {base[f"calls-{name}"] for name in THREADS} == {1}
    assert float(base["cost-damon"]) == pytest.approx(1929, abs=1)
    assert float(base["cost-damon-check"]) == pytest.approx(1852, abs=1)
    assert float(base["cost-khugepaged"]) == pytest.approx(753, abs=1)
    aged, *asked = (patched[f"cost-{name}"] - base[f"cost-{name}"] for name in THREADS)
    # DAMON draws a random number for each page, and makes them by the dozen.
    assert float(aged) == pytest.approx(35, abs=0.5)
    assert asked == [16, 16]


def test_sizes_that_do_not_agree_are_doubted() -> None:
    """DAMON that aged half of 512 pages only, and half of the calls of khugepaged."""
    bent = BASE
    for number in range(2, 5):
        words = f"pass damon pages=512 pass={number} units="
        bent = edited(bent, f"{words}512", f"{words}256")
    words = "calls khugepaged pages=1024 function=kvm_mmu_notifier_test_young hits="
    bent = edited(bent, f"{words}1022", f"{words}511")
    found = costs(parse(bent))
    assert set(found.doubts) == {"cost-damon", "calls-khugepaged"}
    assert "beside the line" in found.doubts["cost-damon"]


def test_what_a_call_costs_is_doubted_with_the_calls() -> None:
    words = "calls idle pages=1024 function=kvm_mmu_notifier_clear_young hits="
    found = costs(parse(edited(BASE, f"{words}1024", f"{words}512")))
    assert set(found.doubts) == {"calls-idle", "cost-notifier"}


def test_aging_without_the_lock_takes_35_instructions_more() -> None:
    base, patched = (costs(parse(console)).values for console in (BASE, LOCKLESS))
    assert patched["cost-notifier"] - base["cost-notifier"] == 35
    assert patched["cost-idle"] - base["cost-idle"] == 35


def test_a_tick_in_one_pass_does_not_count() -> None:
    shown = "pages=1024 pass=4 units=1024 instructions="
    ticked = edited(BASE, f"pass idle-bare {shown}728064", f"pass idle-bare {shown}735109")
    assert ticked.count("735109") == 1
    assert costs(parse(ticked)).values == costs(parse(BASE)).values


def test_twice_the_calls_make_each_half_as_dear() -> None:
    consoles = (BASE, edited(BASE, "calls walk", "calls idle"))
    one, two = (costs(parse(console)).values for console in consoles)
    assert two["calls-idle"] == 2
    assert two["cost-notifier"] == one["cost-notifier"] / Fraction(2)


@pytest.mark.parametrize("kind", ["walk", *THREADS])
def test_without_a_driver(kind: str) -> None:
    lines = [line for line in BASE.splitlines() if f" {kind} " not in line]
    found = costs(parse(edited("\r\n".join(lines), "", "")))
    assert found.values.keys() == METRICS.keys() - {f"cost-{kind}", f"calls-{kind}"}


@pytest.mark.parametrize("kind", ["idle", "walk", "reclaim", *THREADS])
def test_what_is_not_called_has_no_line(kind: str) -> None:
    lines = [line for line in BASE.splitlines() if f" calls {kind} " not in line]
    found = costs(parse(edited("\r\n".join(lines), "", ""))).values
    assert found[f"calls-{kind}"] == 0
    assert ("cost-notifier" in found) == (kind != "idle")


@pytest.mark.parametrize("kind", ["pass idle-bare", "pass idle ", "calls ", "faults access"])
def test_a_part_is_missing(kind: str) -> None:
    lines = [line for line in BASE.splitlines() if f" {kind}" not in line]
    with pytest.raises(Garbled):
        costs(parse(edited("\r\n".join(lines), "", "")))


def test_contracts_know_the_same_metrics() -> None:
    assert CostMetric.__args__ == tuple(METRICS)  # type: ignore[attr-defined]
