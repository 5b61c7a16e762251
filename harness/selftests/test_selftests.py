# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own KVM selftests, each a check (--selftests).

On every kernel of a run the base tree's selftests run. Where the series has selftests of its own
(or changes the headers that they are built from), those run on the patched kernel as well.
"""

from __future__ import annotations

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.errors import Hung
from harness.hosts.protocols import Shell
from harness.observe.unproven import Unproven
from harness.selftests import judge, ktap
from harness.selftests.build import Selftests
from harness.selftests.entered import entered
from harness.selftests.execute import ModeMissing, Stuck, execute, lacks
from harness.selftests.faults import Faults, counted
from harness.selftests.faults import judge as judge_faults
from harness.selftests.table import SELFTESTS, Selftest


@pytest.mark.selftests
@pytest.mark.parametrize("test", SELFTESTS, ids=lambda test: test.name)
def test_selftest(test: Selftest, shell: Shell, claim: Claim, cell: CellSpec) -> None:
    """A KVM selftest of the kernel's own tree passes."""
    test = test.on(emulated=cell.emulated)
    claim.expect(f"{test.name} {' '.join(test.arguments)} passes: {test.claim}")
    if not cell.selftests:
        raise Unproven("no selftests were built for this cell")
    seen: list[Faults] = []
    points = [
        _run(test, built, number, shell, claim, cell, seen)
        for number, built in enumerate(cell.selftests)
    ]
    if test.emulated and any(point.directive == "XFAIL" for point in points):
        claim.expect(f"{test.name} passes but for {test.emulated.parts}: {test.claim}")
    document = ktap.render(points)
    claim.save("ktap.txt", document)
    results = ktap.parse(document)
    claim.observe(judge.summary(results.points))
    outcome, why = judge.outcome(results)
    if outcome == "skip":
        pytest.skip(why)
    if outcome == "unproven":
        raise Unproven(why)
    if outcome == "hung":
        raise Hung(f"it did not end in time: {why}.")
    assert outcome == "pass", why
    for faults in seen:
        judge_faults(faults, claim, cell)


def _run(
    test: Selftest,
    built: Selftests,
    number: int,
    shell: Shell,
    claim: Claim,
    cell: CellSpec,
    seen: list[Faults],
) -> ktap.Point:
    """The test point of one tree's build of a selftest; 0 is the base tree's."""
    name = f"{test.name} of the series" if number else test.name
    own = next((own for own in test.names if own in {*built.programs, *built.broken}), None)
    if own is None:
        return judge.skipped(name, f"{built.tree} has no {' or '.join(test.names)} for arm64")
    if own in built.broken:
        # Without the series it did compile: that is the series' fault.
        fault = judge.broken if number and own in cell.selftests[0].programs else judge.unbuilt
        return fault(name, built.broken[own])
    if lacking := lacks(shell, test):
        return judge.skipped(name, lacking)
    try:
        with counted(shell, test, claim, seen), entered(shell, test.kvm, claim):
            ended, threads = execute(shell, test, built.programs[own], cell.slowdown)
    except ModeMissing as exc:
        return judge.skipped(name, str(exc))
    except Stuck as exc:
        claim.save("threads.txt", exc.threads)
        raise
    if threads:
        claim.save(f"threads{number or ''}.txt", threads)
    return judge.point(test, name, ended, test.seconds * cell.slowdown, emulated=cell.emulated)
