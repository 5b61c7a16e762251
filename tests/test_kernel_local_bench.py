# SPDX-License-Identifier: GPL-2.0-only
"""What tuxmake is told."""

from __future__ import annotations

from harness.kernel import toolchain
from harness.kernel.local_bench import tuxmake_argv


def test_two_trees_have_two_names_inside_the_kernel() -> None:
    one, two = tuxmake_argv("one"), tuxmake_argv("two")
    assert [a for a, b in zip(one, two, strict=True) if a != b] == [
        next(a for a in one if a.startswith("--environment=KBUILD_BUILD_HOST="))
    ]


def test_for_another_architecture_the_kernel_is_only_linked() -> None:
    argv = tuxmake_argv("digest", arch=toolchain.X86)
    assert {"--target-arch=x86_64", "--make-target=vmlinux"} < set(argv)
    assert "CROSS_COMPILE=x86_64-linux-gnu-" in argv
    assert not any("arm64" in word or "aarch64" in word for word in argv)
