# SPDX-License-Identifier: GPL-2.0-only
"""Checks of the series itself, which no cell can make: what else is built from the code it changes?

A kernel without KVM is, and one for another architecture with KVM. Code outside of KVM that a
series makes call into it needs a stub for CONFIG_KVM=n; code of KVM that all architectures share
must not need what arm64 alone has.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.checks.claim import Claim
from harness.deadline import Deadline
from harness.errors import HarnessError
from harness.kernel import toolchain
from harness.kernel.apply import PatchedTree
from harness.kernel.build import BaseBuildError, KernelBuildError, build
from harness.kernel.buildlog import BuildProgress
from harness.kernel.built import Kernel
from harness.kernel.config import ConfigError
from harness.kernel.flavor import WITHOUT_KVM, X86_KVM, Flavor
from harness.kernel.source import Source
from harness.kernel.toolchain import ARM64, X86, Arch
from harness.results import SERIES, Check, Outcome

# A Kconfig file is read with any configuration of its architecture.
_WITH_KVM_ALONE = r"(?:arch/[a-z0-9]+/kvm|virt/kvm)/(?!(?:.*/)?Kconfig)"
_OF_OTHERS = r"arch/(?!x86/)[a-z0-9]+/"
_NEVER = r"Documentation/|tools/"


@dataclass(frozen=True)
class SeriesBuild:
    """A kernel that must link with the series as it does without it.

    `kernel` is what it is, in words; `not_from` matches paths that it is not built from; `why` is
    what a configuration that cannot be made says of the series. One that is dear is `on_demand`.
    """

    name: str
    expected: str
    kernel: str
    not_from: re.Pattern[str]
    why: str
    flavor: Flavor
    arch: Arch = ARM64
    on_demand: bool = False

    def built_from(self, touched: tuple[str, ...]) -> tuple[str, ...]:
        """The paths, of those that a series touches, that this kernel may be built from."""
        return tuple(path for path in touched if not self.not_from.match(path))


SERIES_BUILDS = (
    SeriesBuild(
        "build_without_kvm",
        "with CONFIG_KVM switched off the kernel with the series still compiles and links",
        "a kernel without KVM",
        re.compile(f"{_WITH_KVM_ALONE}|{_NEVER}"),
        "KVM can no longer be switched off",
        WITHOUT_KVM,
    ),
    SeriesBuild(
        "build_others",
        "for x86-64 with KVM the kernel with the series still compiles and links",
        "a kernel for x86-64 with KVM",
        re.compile(f"{_OF_OTHERS}|{_NEVER}"),
        "KVM can no longer be had on x86-64",
        X86_KVM,
        X86,
        # Without ccache the first build has 1,270 steps.
        on_demand=True,
    ),
)
NAMES = tuple(one.name for one in SERIES_BUILDS)


def build_of_series(
    which: SeriesBuild,
    source: Source,
    patched: PatchedTree,
    run_folder: Path,
    *,
    deadline: Deadline,
    progress: Callable[[BuildProgress], None] = lambda _: None,
) -> Check:
    """Build the source and then, from its build folder, the patched tree in that way.

    fail is the series' fault alone: where the source does not build so either, nothing can be
    said of the series, nor where there is no compiler for the architecture. Never raises a
    HarnessError; the build's log and configuration go to `run_folder`.
    """
    started = time.monotonic()
    claim = Claim(run_folder / SERIES / which.name, which.expected)
    try:
        outcome, reason = _judge(which, source, patched, claim, deadline, progress)
    except HarnessError as exc:
        outcome, reason = "error", str(exc)
    return Check(
        cell=SERIES,
        name=which.name,
        outcome=outcome,
        expected=claim.expected,
        observed=claim.observed or reason,
        evidence=tuple(str(path.relative_to(run_folder)) for path in claim.evidence()),
        reason=reason,
        seconds=round(time.monotonic() - started, 3),
    )


def _judge(
    which: SeriesBuild,
    source: Source,
    patched: PatchedTree,
    claim: Claim,
    deadline: Deadline,
    progress: Callable[[BuildProgress], None],
) -> tuple[Outcome, str]:
    concerned = which.built_from(patched.touched)
    if not concerned:
        return "skip", f"it touches nothing that {which.kernel} is built from"
    if not toolchain.compiles_for(which.arch):
        return "unproven", f"there is no {which.arch.prefix}gcc on this machine"

    def make(tree: Source | PatchedTree, base: Kernel | None) -> Kernel:
        return build(
            tree,
            fragments=which.flavor.fragments,
            base=base,
            deadline=deadline,
            progress=progress,
            arch=which.arch,
        )

    try:
        base = make(source, None)
    except (BaseBuildError, ConfigError) as exc:
        return "unproven", f"without the series {which.kernel} does not build either: {exc}"
    try:
        kernel = make(patched, base)
    except KernelBuildError as exc:
        shutil.copyfile(exc.log, claim.path("build.log"))
        claim.observe(exc.first_error)
        return "fail", f"with the series {which.kernel} does not build: {exc.first_error}"
    except ConfigError as exc:
        claim.observe(str(exc))
        return "fail", f"with the series {which.why}: {exc}"
    shutil.copyfile(kernel.log, claim.path("build.log"))
    shutil.copyfile(kernel.config, claim.path("config"))
    claim.observe(
        f"vmlinux with build id {kernel.build_id[:12]}; the series touches {concerned[0]}"
    )
    return "pass", ""
