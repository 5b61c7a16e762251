# SPDX-License-Identifier: GPL-2.0-only
"""From boots to figures and checks, with consoles that were saved in place of machines."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from cost_consoles import BASE, BUILD_ID, CONFIG_SHA256, LOCKLESS, LOCKLESS_BUILD_ID, edited
from rich.console import Console

from harness import inventory
from harness.contract import Contract
from harness.contract_file import CostPromise, Variant
from harness.contract_load import load
from harness.cost.measure import Found, Place, measure, places, refusals
from harness.cost.options import CostOptions
from harness.cost.promises import kept
from harness.errors import DeadlineExceeded, HostDied, InfraError
from harness.hosts import counting
from harness.hosts.counting import Counting
from harness.inventory import QemuHost, SshHost
from harness.kernel.built import Kernel
from harness.progress import Progress

HOST = QemuHost(kind="qemu", cpu="neoverse-n1", af="hardware", kvm_modes=("vhe",))
PLACE = Place("n1", HOST, "vhe")
WARNING = "[    0.500000] WARNING: CPU: 0 PID: 1 at arch/arm64/kvm/mmu.c:1 kvm_age_gfn+0x1/0x2\r\n"
End = str | InfraError


def kernel(name: str, build_id: str) -> Kernel:
    path = Path(name)
    return Kernel(
        key=name, image=path, vmlinux=path, system_map=path, config=path, log=path,
        build_dir=None, build_id=build_id, config_sha256=CONFIG_SHA256, image_sha256="",
        release="6.12.117", tree="", incremental=False, seconds=0, steps=0,
    )  # fmt: skip


KERNELS = {"base": kernel("base", BUILD_ID), "patched": kernel("patched", LOCKLESS_BUILD_ID)}


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Found]:
    """Measures with what each boot shall end with, by a part of its folder's name."""

    def measured(
        ends: Mapping[str, End] | None = None,
        kernels: Mapping[str, Kernel] = KERNELS,
        contract: Contract | None = None,
        neutral: Mapping[str, Kernel] | None = None,
        layouts: int = 2,
        repeat: int = 1,
    ) -> Found:
        def boot_all(
            boots: Sequence[tuple[Counting, Path]],
            *,
            at_once: int,
            seconds: float,
            finished: Callable[[int, End], None],
        ) -> None:
            # Backwards: which of them ends first must not matter.
            for number, (boot, folder) in reversed(list(enumerate(boots))):
                folder.mkdir(parents=True)
                named = (end for name, end in (ends or {}).items() if name in folder.name)
                usual = LOCKLESS if boot.kernel.name == "patched" else BASE
                finished(number, next(named, usual))

        monkeypatch.setattr(counting, "boot_all", boot_all)
        return measure(
            (PLACE,),
            kernels,
            tmp_path / "program",
            tmp_path,
            Progress(Console(quiet=True)),
            options=CostOptions(True, layouts, repeat),
            at_once=2,
            contract=contract,
            neutral=neutral,
        )

    return measured


def outcome(found: Found) -> tuple[str, str]:
    check = found.checks[0]
    assert check.name == "cost[n1-vhe]"
    return check.outcome, check.reason


def test_a_figure_for_each_metric(found: Callable[..., Found], tmp_path: Path) -> None:
    measured = found(layouts=3)
    assert outcome(measured) == ("pass", "")
    by_name = {figure.metric: figure for figure in measured.figures}
    one = by_name["cost-notifier"]
    assert one.verdict == "worse"
    assert len(one.base) == len(one.patched) == 3
    assert one.patched[0] - one.base[0] == pytest.approx(35)
    assert one.effect == one.low == one.high == pytest.approx(35 / one.base[0])
    assert "under TCG" in one.unit
    assert {figure.spread for figure in measured.figures} == {0.0}
    assert by_name["calls-idle"].verdict == by_name["faults-access"].verdict == "same"
    lines = "cost/n1-vhe/base-reference/lines.txt"
    assert lines in one.evidence
    assert "idle-bare      later   711.0000     0.0" in (tmp_path / lines).read_text()


def test_the_reference_layout_comes_first(found: Callable[..., Found]) -> None:
    dearer = edited(BASE, "units=1024 instructions=8", "units=1024 instructions=9")
    one = next(f for f in found({"base-down": dearer}).figures if f.metric == "cost-walk")
    assert one.base[0] < one.base[1]
    assert one.spread == pytest.approx(one.base[1] - one.base[0])


def test_one_layout_tells_nothing_of_a_difference(found: Callable[..., Found]) -> None:
    figures = found(layouts=1).figures
    verdicts = {figure.metric: figure.verdict for figure in figures}
    assert {figure.spread for figure in figures} == {0.0}
    assert verdicts["cost-notifier"] == "inconclusive"
    assert verdicts["calls-idle"] == "same"


def test_the_base_alone(found: Callable[..., Found]) -> None:
    measured = found(kernels={"base": KERNELS["base"]})
    assert {figure.verdict for figure in measured.figures} == {"inconclusive"}
    assert {figure.patched for figure in measured.figures} == {()}


def test_neutral_kernels_widen_what_is_no_difference(found: Callable[..., Found]) -> None:
    alike = {"neutral-x": kernel("neutral-x", LOCKLESS_BUILD_ID)}
    measured = found({"neutral-x": LOCKLESS}, neutral=alike)
    one = next(f for f in measured.figures if f.metric == "cost-notifier")
    assert one.verdict == "inconclusive"
    assert "neutral changes" in one.reason


def test_a_boot_variant_is_held_to_the_plain_base(found: Callable[..., Found]) -> None:
    """It has figures and promises of its own; the base kernel knows nothing of it."""
    variant = Variant(name="sw-af", cmdline=("kvm-arm.stage2_sw_af=1",), stage2_af="software")
    everywhere = CostPromise(metric="cost-walk", promise="not-worse")
    forced = CostPromise(metric="calls-idle", promise="better", stage2_af="software")
    contract = replace(promising(everywhere, forced), variants=(variant,))
    faults = edited(LOCKLESS, "pages=1024 pass=2 exits=1", "pages=1024 pass=2 exits=1025")
    measured = found({"patched-sw-af": faults}, contract=contract)
    plain, own = (
        {one.metric: one for one in measured.figures if one.variant == name}
        for name in ("", "sw-af")
    )
    assert plain.keys() == own.keys()
    assert (plain["faults-access"].verdict, own["faults-access"].verdict) == (
        *("same", "inconclusive"),
    )
    assert own["faults-access"].patched[0] > 1
    assert "another sets the access flag" in own["faults-access"].reason
    assert (plain["cost-walk"].verdict, own["cost-walk"].verdict) == ("worse", "worse")
    assert plain["cost-idle"].base == own["cost-idle"].base
    assert {one.af_mode for one in plain.values()} == {"hardware"}
    assert {one.af_mode for one in own.values()} == {"software"}
    assert any("patched-sw-af-down" in name for name in own["cost-idle"].evidence)
    assert not any("sw-af" in name for name in plain["cost-idle"].evidence)
    assert {one.name: one.outcome for one in measured.checks[1:]} == {
        "cost[n1-vhe-cost-walk]": "fail",
        "cost[n1-vhe-sw-af-cost-walk]": "fail",
        "cost[n1-vhe-sw-af-calls-idle]": "fail",
    }


# ---- what keeps figures from being there ----------------------------------------------------

PANIC = HostDied("panic", "Kernel panic - not syncing: Oops")


@pytest.mark.parametrize(
    ("ends", "expected", "why"),
    [
        ({"patched-down": PANIC}, "fail", "Oops The base kernel lived"),
        ({"base-down": PANIC}, "error", "base-down: Kernel panic"),
        ({"patched-down": HostDied("hang", "not off at 24 s")}, "fail", "not off at 24 s"),
        ({"patched-down": DeadlineExceeded("not off")}, "error", "patched-down: not off"),
        ({"patched-down": DeadlineExceeded("slow"), "patched": PANIC}, "fail", "Kernel panic"),
        ({"base-down": PANIC, "patched-down": PANIC}, "error", "Kernel panic"),
        ({"patched-down": BASE}, "error", "the host runs the kernel 45896c99"),
        ({"patched-down": LOCKLESS[:30000]}, "error", "garbled|checksum"),
        ({"patched-down": "[    0.1] Booting Linux\r\n"}, "fail", "was off before"),
        ({"patched-down": InfraError("QEMU ended with 1")}, "error", "QEMU ended"),
        ({"patched-down": LOCKLESS + "error fatal KVM_RUN\r\n"}, "fail", "KVM_RUN"),
        ({"patched-down": edited(LOCKLESS, "kvm yes", "kvm no")}, "fail", "no KVM"),
        ({"patched-down": LOCKLESS.replace("VHE mode", "Hyp nVHE mode")}, "fail", "not in vhe"),
        ({"patched-down": WARNING + LOCKLESS}, "fail", "alone reported: WARNING.*kvm_age_gfn"),
        ({"patched-down": WARNING + LOCKLESS, "base": WARNING + BASE}, "pass", ""),
    ],
)
def test_outcomes(
    found: Callable[..., Found], ends: Mapping[str, End], expected: str, why: str
) -> None:
    measured = found(ends)
    outcome_, reason = outcome(measured)
    assert outcome_ == expected
    assert bool(measured.figures) == (expected == "pass")
    assert re.search(why, reason), reason


def test_boots_that_are_alike(found: Callable[..., Found]) -> None:
    measured = found(layouts=1, repeat=3)
    assert measured.checks[0].observed.endswith(
        "3 boots of each kernel alike in every byte of the console"
    )


def test_boots_that_differ(found: Callable[..., Found]) -> None:
    other = BASE.replace("[    0.0", "[    0.1", 1)
    outcome_, reason = outcome(found({"base-reference-2": other}, layouts=1, repeat=3))
    assert outcome_ == "error"
    assert "base-reference-2 is not as the first boot: '[    0.0" in reason


# ---- promises -------------------------------------------------------------------------------


def promising(*promises: CostPromise) -> Contract:
    contract = load(None)
    return Contract(**{**vars(contract), "cost": promises})


@pytest.mark.parametrize(
    ("metric", "promise", "expected"),
    [
        ("cost-notifier", "not-worse", "fail"),
        ("cost-notifier", "better", "fail"),
        ("calls-idle", "not-worse", "pass"),
        ("calls-idle", "better", "fail"),
    ],
)
def test_promises(found: Callable[..., Found], metric: str, promise: str, expected: str) -> None:
    made = CostPromise.model_validate({"metric": metric, "promise": promise})
    elsewhere = CostPromise.model_validate(
        {"metric": "cost-walk", "promise": "better", "modes": ["protected"]}
    )
    measured = found(contract=promising(made, elsewhere))
    check = measured.checks[1]
    assert len(measured.checks) == 2
    assert (check.name, check.outcome) == (f"cost[n1-vhe-{metric}]", expected)
    assert metric in check.expected


def test_a_promise_of_what_is_inconclusive_is_unproven(found: Callable[..., Found]) -> None:
    made = CostPromise(metric="cost-notifier", promise="not-worse")
    assert found(contract=promising(made), layouts=1).checks[1].outcome == "unproven"


def without(console: str, words: str) -> str:
    return edited("\r\n".join(x for x in console.splitlines() if words not in x), "", "")


@pytest.mark.parametrize(
    ("kernel", "console", "calls"), [("patched", LOCKLESS, "pass"), ("base", BASE, "fail")]
)
def test_a_promise_of_what_one_kernel_does_not_show_is_unproven(
    found: Callable[..., Found], kernel: str, console: str, calls: str
) -> None:
    """What a call costs is no number where there is none; that there is none is one."""
    made = tuple(
        CostPromise.model_validate({"metric": metric, "promise": "better"})
        for metric in ("calls-idle", "cost-notifier")
    )
    ends = {kernel: without(console, " calls idle ")}
    checks = found(ends, contract=promising(*made)).checks
    assert [check.outcome for check in checks] == ["pass", calls, "unproven"]


@pytest.mark.parametrize("layout", ["reference", "down"])
def test_a_promise_of_readings_that_do_not_agree_is_unproven(
    found: Callable[..., Found], layout: str
) -> None:
    """In one boot of one kernel: what all others say of it is not enough."""
    words = "calls damon pages=1024 function=kvm_mmu_notifier_clear_young hits="
    bent = edited(LOCKLESS, f"{words}1024", f"{words}512")
    made = CostPromise(metric="calls-damon", promise="not-worse")
    measured = found({f"patched-{layout}": bent}, contract=promising(made))
    check = measured.checks[1]
    assert (check.name, check.outcome) == ("cost[n1-vhe-calls-damon]", "unproven")
    assert "the numbers of pages do not agree" in check.reason
    doubted = {one.metric: one.doubt for one in measured.figures if one.doubt}
    assert doubted.keys() == {"calls-damon"}, "and `compare` must not judge it either"
    assert doubted["calls-damon"].startswith("the numbers of pages do not agree")


def test_a_promise_of_what_no_boot_shows_is_unproven(found: Callable[..., Found]) -> None:
    made = CostPromise(metric="cost-walk", promise="not-worse")
    ends = {"base": without(BASE, " walk "), "patched": without(LOCKLESS, " walk ")}
    measured = found(ends, contract=promising(made))
    check = measured.checks[1]
    assert (check.name, check.outcome) == ("cost[n1-vhe-cost-walk]", "unproven")
    assert "cost-walk" not in {figure.metric for figure in measured.figures}


def test_a_promise_of_what_does_not_exist_there_is_skipped() -> None:
    (check,) = kept({"cost-walk": "better"}, (), "a57-nvhe", "software")
    assert (check.name, check.outcome) == ("cost[a57-nvhe-cost-walk]", "skip")
    assert "without hardware AF" in check.reason
    (check,) = kept({"cost-idle": "better"}, (), "a57-nvhe", "software")
    assert check.outcome == "unproven"


def test_without_promises_nothing_is_judged(found: Callable[..., Found]) -> None:
    assert [check.outcome for check in found(contract=load(None)).checks] == ["pass"]


# ---- where ----------------------------------------------------------------------------------


def test_places_are_those_of_cells() -> None:
    stock = inventory.load()
    found = places(stock, [("n1", "vhe"), ("n1", "vhe"), ("a57", "nvhe")])
    assert [place.id for place in found] == ["n1-vhe", "a57-nvhe"]


def test_a_machine_of_the_lab_is_skipped_with_a_reason() -> None:
    stock = inventory.load()
    lab = SshHost(kind="ssh", address="192.0.2.1", agent=True, kvm_modes=("vhe",), af="hardware")
    both = stock.model_copy(update={"hosts": {**stock.hosts, "lab": lab}})
    (check,) = refusals(both, ())
    assert (check.name, check.outcome) == ("cost[lab]", "skip")
    assert "only an emulated host" in check.reason
    assert refusals(both, ["n1"]) == ()
    found = places(both, [("lab", "vhe"), ("n1", "vhe")])
    assert [place.id for place in found] == ["n1-vhe"]
    assert places(both, [("lab", "vhe")]) == ()


def test_nowhere_to_count_boots_nothing(tmp_path: Path) -> None:
    found = measure(
        (), KERNELS, tmp_path / "program", tmp_path, Progress(Console(quiet=True)),
        options=CostOptions(), at_once=1,
    )  # fmt: skip
    assert found == Found()
