# SPDX-License-Identifier: GPL-2.0-only
"""A check of the series itself, which no cell can make: the kernel must link without KVM as well.

Code outside of KVM that a series makes call into it needs a stub for CONFIG_KVM=n.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from harness.checks.claim import Claim
from harness.deadline import Deadline
from harness.errors import HarnessError
from harness.kernel.apply import PatchedTree
from harness.kernel.build import BaseBuildError, Kernel, KernelBuildError, build
from harness.kernel.buildlog import BuildProgress
from harness.kernel.config import ConfigError
from harness.kernel.flavor import WITHOUT_KVM
from harness.kernel.source import Source
from harness.results import SERIES, Check, Outcome

NAME = "build_without_kvm"
EXPECTED = "with CONFIG_KVM switched off the kernel with the series still compiles and links"
# Compiled with CONFIG_KVM alone, or never. A Kconfig file is read with any configuration.
_WITH_KVM_ALONE = re.compile(
    r"(?:arch/[a-z0-9]+/kvm|virt/kvm)/(?!(?:.*/)?Kconfig)|Documentation/|tools/"
)


def reaches_beyond(touched: tuple[str, ...]) -> tuple[str, ...]:
    """The paths, of those that a series touches, that a kernel without KVM is built from too."""
    return tuple(path for path in touched if not _WITH_KVM_ALONE.match(path))


def build_without_kvm(
    source: Source,
    patched: PatchedTree,
    run_folder: Path,
    *,
    deadline: Deadline,
    progress: Callable[[BuildProgress], None] = lambda _: None,
) -> Check:
    """Build the source and then, from its build folder, the patched tree without KVM.

    fail is the series' fault alone: where the source does not build so either, nothing can be
    said of the series. Never raises a HarnessError; the build's log and configuration go to
    `run_folder`.
    """
    started = time.monotonic()
    claim = Claim(run_folder / SERIES / NAME, EXPECTED)
    try:
        outcome, reason = _judge(source, patched, claim, deadline, progress)
    except HarnessError as exc:
        outcome, reason = "error", str(exc)
    return Check(
        cell=SERIES,
        name=NAME,
        outcome=outcome,
        expected=claim.expected,
        observed=claim.observed or reason,
        evidence=tuple(str(path.relative_to(run_folder)) for path in claim.evidence()),
        reason=reason,
        seconds=round(time.monotonic() - started, 3),
    )


def _judge(
    source: Source,
    patched: PatchedTree,
    claim: Claim,
    deadline: Deadline,
    progress: Callable[[BuildProgress], None],
) -> tuple[Outcome, str]:
    beyond = reaches_beyond(patched.touched)
    if not beyond:
        return "skip", "it touches nothing that a kernel without KVM is built from"

    def make(tree: Source | PatchedTree, base: Kernel | None) -> Kernel:
        return build(
            tree, fragments=WITHOUT_KVM.fragments, base=base, deadline=deadline, progress=progress
        )

    try:
        base = make(source, None)
    except (BaseBuildError, ConfigError) as exc:
        return "unproven", f"the kernel without the series does not build without KVM either: {exc}"
    try:
        kernel = make(patched, base)
    except KernelBuildError as exc:
        shutil.copyfile(exc.log, claim.path("build.log"))
        claim.observe(exc.first_error)
        return "fail", f"without KVM the series does not build: {exc.first_error}"
    except ConfigError as exc:
        claim.observe(str(exc))
        return "fail", f"with the series KVM can no longer be switched off: {exc}"
    shutil.copyfile(kernel.log, claim.path("build.log"))
    shutil.copyfile(kernel.config, claim.path("config"))
    claim.observe(f"vmlinux with build id {kernel.build_id[:12]}; the series touches {beyond[0]}")
    return "pass", ""
