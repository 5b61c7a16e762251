# SPDX-License-Identifier: GPL-2.0-only
"""What hugetlb may take beyond its pool."""

from __future__ import annotations

from fake_shell import UnaskedShell

from harness.checks.hugetlb import OVERCOMMIT, overcommitted
from harness.deadline import Deadline


class Pool(UnaskedShell):
    """A host whose hugetlb may take 3 pages beyond its pool."""

    def __init__(self) -> None:
        self.pages = "3\n"

    def read(self, path: str, deadline: Deadline | None = None) -> str:
        assert path == OVERCOMMIT
        return self.pages

    def write(self, path: str, text: str, deadline: Deadline | None = None) -> None:
        assert path == OVERCOMMIT
        self.pages = text


def test_hugetlb_may_take_pages_while_a_test_needs_them() -> None:
    host = Pool()
    with overcommitted(host, 8):
        assert host.pages == "11\n"
    assert host.pages == "3\n"
    with overcommitted(UnaskedShell(), 0):
        pass
