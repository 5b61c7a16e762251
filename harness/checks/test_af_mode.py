# SPDX-License-Identifier: GPL-2.0-only
"""Which access flag this machine has: what its CPUs and its kernel say, and what a guest sees.

docs/which-af.md says what is expected from what, and why a difference is an error on the base
kernel and a failure on the patched one.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.af_mode import differences, observe, one, probed, record
from harness.checks.claim import Claim
from harness.checks.driver import FAULTS
from harness.checks.pages import populated
from harness.errors import InfraError
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.af import Expected
from harness.observe.cpu_list import usable
from harness.observe.tracefs import tracing

PAGES = 512


@pytest.mark.quick
def test_af_mode(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    cell: CellSpec,
    expected_af: tuple[Expected, ...],
) -> None:
    """On each kind of CPU, whoever must set the access flag at stage 2 does set it."""
    must = "; ".join(f"{kind.name}: {kind.af}, since {kind.why}" for kind in expected_af)
    claim.expect(f"{must}; a guest's read of an old page faults where software must")
    vm = populated(guest(pages=PAGES))
    places = [(kind, probed(kind, usable(shell))) for kind in expected_af]
    with tracing(shell, FAULTS) as session:
        seen = {cpu: observe(vm, shell, claim, session, cpu) for _, cpus in places for cpu in cpus}
    claim.af_cpus = tuple(record(kind, one([seen[cpu] for cpu in cpus])) for kind, cpus in places)
    claim.af_observed = one(list(seen.values()))
    wrong = differences(expected_af, seen, cell.cell.af_mode)
    # Without the series it is not the kernel that differs from what is known of the machine.
    if wrong and cell.cell.kernel == "base":
        raise InfraError("; ".join(wrong))
    assert not wrong, "; ".join(wrong)
