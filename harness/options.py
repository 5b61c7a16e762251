# SPDX-License-Identifier: GPL-2.0-only
"""What a run is asked for, by the command line or by whatever makes runs of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import prepare
from harness.contract import Contract
from harness.cost.options import CostOptions
from harness.inventory import KvmMode
from harness.timing import CHECKS as TIMING_CHECKS
from harness.timing.options import TimingOptions

PLAIN_NOTE = (
    "not looked at on the fast path: use after free, order of locks, RCU sections, sleeps; plain "
    "kernels survive them in silence (--debug)"
)
STRESS_NOTE = "not run: further kinds of memory, and races of other agers and opponents (-m stress)"
_MODES: Mapping[KvmMode, str] = {"vhe": "VHE", "nvhe": "nVHE", "protected": "protected mode"}


@dataclass(frozen=True)
class Options:
    """What the command line asked for; None and () mean the inventory's or the whole."""

    inventory: Path | None = None
    source: str | None = None
    series: tuple[str, ...] = ()
    mbox: Path | None = None
    hosts: tuple[str, ...] = ()
    kvm_modes: tuple[KvmMode, ...] = ()
    base_only: bool = False
    debug: bool = False
    lines: bool = True
    allow_other_base: bool = False
    selftests: bool = False
    linux_guest: bool = False
    build_others: bool = False
    cost: CostOptions | None = None
    """None where nothing is counted."""
    timing: TimingOptions | None = None
    """None unless time is measured, and nothing else: then `checks` are those that do so."""
    checks: tuple[Path, ...] = ()
    pytest_args: tuple[str, ...] = ()
    junitxml: Path | None = None
    seed: int = 1
    jobs: int = 0
    wait: int = 0
    """Seconds for a machine that another has."""
    output: Path | None = None

    @property
    def costs_only(self) -> bool:
        """Whether no cell runs."""
        return self.cost is not None and self.cost.only

    @property
    def narrowed(self) -> bool:
        """Whether only some checks were asked for, or others than those of the harness."""
        return bool({"-k", "-m"} & set(self.pytest_args) or self.checks or self.costs_only)

    @property
    def selection(self) -> tuple[str, ...]:
        """What pytest is told: without -k and --checks, a stress check runs only if -m names it.

        The kernel's log (mark `last`) is judged whatever else -m selects, or what the kernel
        reports in those checks would decide nothing.
        """
        given = self.pytest_args
        if "-m" not in given:
            return given if self.narrowed else (*given, *prepare.EVERYDAY)
        at = given.index("-m") + 1
        wanted = given[at] if "stress" in given[at] else f"({given[at]}) and not stress"
        if "last" not in given[at]:
            wanted = f"({wanted}) or last"
        return (*given[:at], wanted, *given[at + 1 :])

    def only(self, left_out: Sequence[str]) -> tuple[str, ...]:
        """To what the run is narrowed, for the sentence that a report begins with.

        Short, and as it was asked for. `left_out` are the hosts of the inventory that it is not
        for; to name all of them narrows nothing.
        """
        hosts = self.hosts if left_out else ()
        places = ", ".join([*hosts, *(_MODES[mode] for mode in self.kvm_modes)])
        parts = (
            " ".join([*self.pytest_args, *map(str, self.checks)]),
            f"{places} only" if places else "",
            f"without {' '.join(left_out)}" if left_out and not hosts else "",
            "only costs" if self.costs_only else "",
        )
        return tuple(filter(None, parts))

    def narrowing(self, left_out: Sequence[str]) -> list[str]:
        """What makes this less than a whole run, for whoever reads its verdict.

        `left_out` as above; those that nobody asked for have notes of their own (plan.not_used()).
        """
        parts = {
            "hosts": " ".join(self.hosts if left_out else ()),
            "KVM modes": " ".join(self.kvm_modes),
            "checks": " ".join(
                [*self.pytest_args, *(str(one) for one in self.checks if one != TIMING_CHECKS)]
            ),
        }
        notes = [f"only some {name}: {text}" for name, text in parts.items() if text]
        notes += ["only costs: no check ran"] if self.costs_only else []
        return [*notes, *(["only times: no other check ran"] if self.timing else [])]

    def not_looked_at(self, contract: Contract) -> list[str]:
        """What even a whole run says nothing of, where a series has a fast path, and what would.

        Nothing for a run without a series, whose contract has none, or without checks of its own.
        """
        if contract.fast_path is None or self.costs_only or self.timing is not None:
            return []
        debug = [] if self.debug else [PLAIN_NOTE]
        return debug if self.narrowed else [*debug, STRESS_NOTE]
