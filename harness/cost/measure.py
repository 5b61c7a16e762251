# SPDX-License-Identifier: GPL-2.0-only
"""Boot kernels on hosts that count instructions, compare what aging costs them, keep what shows it.

Every kernel is booted in the same layouts. A difference is judged by what other layouts of the same
two kernels make of it in the same invocation, so no number is stored anywhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from harness.contract import Contract
from harness.contract_file import Variant
from harness.cost import promises
from harness.cost.framing import Gave
from harness.cost.judge import judge
from harness.cost.layouts import LAYOUTS, Layout
from harness.cost.metrics import METRICS, Costs, costs
from harness.cost.options import CostOptions
from harness.cost.readings import Readings, parse
from harness.errors import HostDied, InfraError
from harness.hosts import counting, proof
from harness.hosts.counting import Counting
from harness.hosts.proof import Expected
from harness.inventory import AfMode, Inventory, KvmMode, QemuHost
from harness.kernel.built import Kernel
from harness.observe import klog
from harness.plan import MODE_CMDLINE
from harness.progress import Progress
from harness.results import SERIES, Check, Figure, Outcome
from harness.situation import Situation

BOOT_SECONDS = 600.0
"""Of the controller's clock: a boot takes 20 to 60 on two busy cores, and one that hangs as long
as its own watchdogs need to say so."""
FOLDER = "cost"
OTHER_AF = "told, not judged: in this boot variant another sets the access flag than on the base"


@dataclass(frozen=True)
class Place:
    """A host in one mode of KVM."""

    name: str
    host: QemuHost
    mode: KvmMode

    @property
    def id(self) -> str:
        """As cells are called, without the kernel."""
        return f"{self.name}-{self.mode}"


@dataclass(frozen=True)
class Boot:
    """One boot: which kernel ("base", "patched" or a mutant's name), where, how laid out."""

    place: Place
    kernel: str
    layout: Layout
    again: int = 0
    """0 for the first boot of this layout, then 1 ..."""
    variant: Variant | None = None
    """Of the patched kernel: a boot variant of the series' contract."""

    @property
    def id(self) -> str:
        """The path of its folder in that of all costs."""
        again = str(self.again) if self.again else ""
        parts = (self.kernel, _named(self.variant), self.layout.name, again)
        return f"{self.place.id}/{'-'.join(filter(None, parts))}"


@dataclass(frozen=True)
class Measured:
    """What came of one boot."""

    console: str
    costs: Costs
    release: str
    splats: tuple[str, ...]


Result = Measured | InfraError


def _named(variant: Variant | None) -> str:
    return variant.name if variant else ""


@dataclass(frozen=True)
class Found:
    """All that a run learned of costs."""

    figures: tuple[Figure, ...] = ()
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()
    """What a reader of the run must know of them."""


def places(stock: Inventory, pairs: Iterable[tuple[str, KvmMode]]) -> tuple[Place, ...]:
    """Where costs are counted, of the hosts and modes that cells run in, without `refusals`."""
    return tuple(
        Place(name, stock.emulated(name), mode)
        for name, mode in dict.fromkeys(pairs)
        if not _refusal(stock, name)
    )


def refusals(stock: Inventory, hosts: Sequence[str]) -> tuple[Check, ...]:
    """A skip for each host, of these or of all, that cannot count."""
    names = tuple(hosts) or tuple(stock.hosts)
    return tuple(
        _check(f"cost[{name}]", "skip", why, why)
        for name in names
        if (why := _refusal(stock, name))
    )


def _refusal(stock: Inventory, name: str) -> str:
    return next(filter(None, map(counting.refusal, stock.place(name).values())), "")


def measure(
    places: Sequence[Place],
    kernels: Mapping[str, Kernel],
    program: Path,
    folder: Path,
    progress: Progress,
    *,
    options: CostOptions,
    at_once: int,
    contract: Contract | None = None,
    neutral: Mapping[str, Kernel] | None = None,
) -> Found:
    """Boot `kernels` ("base", and "patched" if there is one) in each place and compare them.

    `neutral` are kernels that cost what the base costs. Evidence goes below `folder`, the run's.
    Never raises a HarnessError of a boot: that is its check's outcome.
    """
    started = time.monotonic()
    every = {**kernels, **(neutral or {})}
    variants = contract.variants if contract and "patched" in kernels else ()
    boots = tuple(_boots(places, tuple(kernels), variants, tuple(neutral or {}), options))
    results: dict[Boot, Result] = {}

    def finished(number: int, end: str | InfraError) -> None:
        boot = boots[number]
        results[boot] = result = _take(boot, end, every[boot.kernel], folder)
        words = str(result) if isinstance(result, InfraError) else "counted"
        progress.say(f"cost {len(results)}/{len(boots)} {boot.id}: {words}")

    with progress.stage(f"costs: {len(boots)} boots, {min(at_once, len(boots))} at a time"):
        machines = [(_machine(boot, every, program), _folder(folder, boot)) for boot in boots]
        counting.boot_all(machines, at_once=at_once, seconds=BOOT_SECONDS, finished=finished)
    # In the order that was asked for, whichever ended first.
    in_order = {boot: results[boot] for boot in boots}
    found = [_judge(place, in_order, contract, folder) for place in places]
    figures = tuple(figure for each in found for figure in each.figures)
    for figure in figures:
        progress.say(promises.told(figure))
    took = round(time.monotonic() - started, 3)
    checks = (check for each in found for check in each.checks)
    return Found(figures, tuple(one.model_copy(update={"seconds": took}) for one in checks))


def _boots(
    places: Iterable[Place],
    kernels: Sequence[str],
    variants: Sequence[Variant],
    neutral: Sequence[str],
    options: CostOptions,
) -> Iterable[Boot]:
    for place in places:
        tuned = (one for one in variants if one.differs_on(place.host.af))
        what = [*((kernel, None) for kernel in kernels), *(("patched", one) for one in tuned)]
        for layout in LAYOUTS[: options.layouts]:
            for kernel, variant in what:
                again = options.repeat if layout is LAYOUTS[0] else 1
                yield from (Boot(place, kernel, layout, number, variant) for number in range(again))
        yield from (Boot(place, kernel, LAYOUTS[0]) for kernel in neutral)


def _machine(boot: Boot, kernels: Mapping[str, Kernel], program: Path) -> Counting:
    place, layout = boot.place, boot.layout
    return Counting(
        cpu=place.host.cpu,
        kernel=kernels[boot.kernel].image,
        program=program,
        cmdline=(
            *MODE_CMDLINE[place.mode],
            *place.host.cmdline,
            *(boot.variant.cmdline if boot.variant else ()),
            *layout.cmdline,
        ),
        memory_mib=layout.memory_mib,
        padding=layout.padding,
    )


def _folder(run_folder: Path, boot: Boot) -> Path:
    return run_folder / FOLDER / boot.id


# ---- one boot -------------------------------------------------------------------------------


def _take(boot: Boot, end: str | InfraError, kernel: Kernel, run_folder: Path) -> Result:
    """What a boot measured, once its kernel is proven to be the right one."""
    if isinstance(end, InfraError):
        return end
    try:
        readings = parse(end)
        expected = Expected(kernel.build_id, kernel.config_sha256)
        proof.agree(readings.notes, readings.config, readings.release, expected)
        if not readings.has_kvm:
            raise HostDied("no-kvm", "the booted kernel has no KVM")
        proof.kvm_line(end, boot.place.mode)
        found = costs(readings)
    except InfraError as exc:
        return exc
    try:
        (_folder(run_folder, boot) / "lines.txt").write_text(_lines(readings, found))
    except OSError as exc:
        return InfraError(f"cannot write down what was counted: {exc}")
    splats = tuple(splat.headline for splat in klog.splats(end))
    return Measured(end, found, readings.release, splats)


def _lines(readings: Readings, found: Costs) -> str:
    """The lines through all points of a boot, for whoever looks."""
    rows = ["kind           passes  slope        intercept      residual"]
    for name, lines in (("later", found.lines), ("first", found.first)):
        rows += [
            f"{kind:14} {name:7} {float(one.slope):<12.4f} {float(one.intercept):<14.1f} "
            f"{float(one.residual):.1f}"
            for kind, one in lines.items()
        ]
    rows += ["", *(f"{name} = {float(value):.6f}" for name, value in found.values.items())]
    return "\n".join(rows) + "\n"


# ---- one place ------------------------------------------------------------------------------


def _judge(
    place: Place, results: Mapping[Boot, Result], contract: Contract | None, run_folder: Path
) -> Found:
    here = {boot: result for boot, result in results.items() if boot.place == place}
    name, evidence = f"cost[{place.id}]", tuple(_evidence(run_folder, tuple(here)))
    trouble = _trouble(here)
    if trouble is not None:
        outcome, why = trouble
        return Found((), (_check(name, outcome, why, why, evidence),))
    measured = {boot: result for boot, result in here.items() if isinstance(result, Measured)}
    neutral = len({boot.kernel for boot in measured} - {"base", "patched"})
    variants = tuple(dict.fromkeys(boot.variant for boot in measured))
    by_variant = {one: tuple(_figures(place, measured, one, run_folder)) for one in variants}
    figures = tuple(figure for some in by_variant.values() for figure in some)
    words = f"{len(here)} boots, {neutral} kernels with a neutral change, {len(figures)} figures"
    counted = _check(name, "pass", f"{words}{_alike(measured)}", "", evidence)
    kept: list[Check] = []
    for variant, some in by_variant.items() if contract else ():
        assert contract is not None
        situation = Situation(place.mode, place.host.af, _stage2_af(place, variant))
        where = "-".join(filter(None, (place.id, _named(variant))))
        kept += promises.kept(contract.expect_cost(situation), some, where, place.host.af)
    return Found(figures, (counted, *kept))


def _stage2_af(place: Place, variant: Variant | None) -> AfMode:
    return (variant.stage2_af if variant else None) or place.host.af


def _trouble(here: Mapping[Boot, Result]) -> tuple[Outcome, str] | None:
    """What keeps a place from having figures: a patched kernel alone that fails is to blame."""
    failed = {boot: one for boot, one in here.items() if isinstance(one, InfraError)}
    if failed:
        boot, error = next(iter(failed.items()))
        patched = all(each.kernel == "patched" for each in failed)
        kernels = any(isinstance(one, HostDied | Gave) for one in failed.values())
        if patched and kernels:
            boot, error = next((b, e) for b, e in failed.items() if isinstance(e, HostDied | Gave))
            return "fail", f"{boot.id}: {error} The base kernel lived."
        return "error", f"{boot.id}: {error}"
    for boot, result in here.items():
        twin = here[replace(boot, again=0)]
        assert isinstance(result, Measured) and isinstance(twin, Measured)
        if result.console != twin.console:
            return "error", f"{boot.id} is not as the first boot: {_differ(twin, result)}"
    said: dict[str, set[str]] = {}
    for boot, result in here.items():
        assert isinstance(result, Measured)
        said.setdefault(boot.kernel, set()).update(result.splats)
    new = said.get("patched", set()) - said["base"]
    if new:
        return "fail", f"the patched kernel alone reported: {'; '.join(sorted(new))}"
    return None


def _differ(one: Measured, other: Measured) -> str:
    """The first line of the console that two boots do not share."""
    pairs = zip(one.console.splitlines(), other.console.splitlines(), strict=False)
    return next((f"{a!r}, then {b!r}" for a, b in pairs if a != b), "one of them is longer")


def _alike(measured: Mapping[Boot, Measured]) -> str:
    again = max(boot.again for boot in measured) + 1
    return f"; {again} boots of each kernel alike in every byte of the console" * (again > 1)


def _figures(
    place: Place, measured: Mapping[Boot, Measured], variant: Variant | None, run_folder: Path
) -> Iterable[Figure]:
    """The patched kernel in a boot variant, or in none, beside the base kernel."""
    firsts = {
        boot: one.costs
        for boot, one in measured.items()
        if not boot.again and (boot.kernel != "patched" or boot.variant == variant)
    }
    for name, metric in METRICS.items():
        values: dict[str, tuple[Fraction, ...]] = {"base": (), "patched": ()}
        for boot, one in firsts.items():
            if name in one.values:
                values[boot.kernel] = (*values.get(boot.kernel, ()), one.values[name])
        base, patched = values.pop("base"), values.pop("patched")
        if not base and not patched:
            continue
        neutral = tuple(one for each in values.values() for one in each)
        doubt = next((one.doubts[name] for one in firsts.values() if name in one.doubts), "")
        figure = Figure(
            metric=name,
            what=metric.what,
            unit=metric.unit,
            host=place.name,
            kvm_mode=place.mode,
            af_mode=_stage2_af(place, variant),
            variant=_named(variant),
            base=tuple(map(float, base)),
            patched=tuple(map(float, patched)),
            verdict="inconclusive",
            doubt=doubt,
            # Consoles are evidence of the check of the whole place, not of each figure again.
            evidence=tuple(_evidence(run_folder, tuple(firsts), ("lines.txt",))),
        )
        judged = judge(base, patched, floor=metric.floor, neutral=neutral)
        if doubt:
            judged = replace(judged, verdict="inconclusive", reason=doubt)
        if metric.by_af and _stage2_af(place, variant) != place.host.af:
            judged = replace(judged, verdict="inconclusive", reason=OTHER_AF)
        yield judged.on(figure)


def _evidence(
    run_folder: Path,
    boots: Sequence[Boot],
    names: Sequence[str] = ("console.log", "lines.txt", "qemu.txt"),
) -> Iterable[str]:
    for boot in boots:
        for name in names:
            path = _folder(run_folder, boot) / name
            if path.exists():
                yield str(path.relative_to(run_folder))


def _check(
    name: str, outcome: Outcome, observed: str, reason: str, evidence: tuple[str, ...] = ()
) -> Check:
    return Check(
        cell=SERIES,
        name=name,
        outcome=outcome,
        expected="each kernel counts its instructions to the end, on a host that counts exactly",
        observed=observed,
        reason=reason,
        evidence=evidence,
    )
