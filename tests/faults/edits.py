# SPDX-License-Identifier: GPL-2.0-only
"""What faults do to the inventory and to the series."""

from __future__ import annotations

import re

from lab_bed import WATCHDOG
from test_integration_deaths import AGE

from faults.fault import Edit


def with_key(line: str) -> Edit:
    return lambda text: f"{text}    {line}\n"


def power(command: str, orders: str = "reset") -> Edit:
    """These orders of the power switch, "on|off|reset" for all, run this command instead."""
    return lambda text: re.sub(rf'("(?:{orders})": )\[.*\]', rf"\1{command}", text)


def console(command: str) -> Edit:
    return lambda text: re.sub(r"(    console: )\[.*\]", rf"\1{command}", text)


def no_power(text: str) -> str:
    return re.sub(r"    power:\n( {6}.*\n)+", "", text)


def short_boot(text: str) -> str:
    """A wait that is known to be vain."""
    return text.replace("boot_seconds: 120", "boot_seconds: 25")


def short_way_back(text: str) -> str:
    """As well."""
    return text.replace("back_seconds: 120", "back_seconds: 30")


def both(first: Edit, then: Edit) -> Edit:
    return lambda text: then(first(text))


def as_admin(text: str) -> str:
    """A login that becomes root by sudo."""
    return with_key("user: admin")(text)


def until_told(text: str) -> str:
    """A console that is there until a file says that it is gone."""
    found = re.search(r"    console: \[.* (/[^]]*)\]", text)
    assert found is not None
    gone = "$FAULTS_FOLDER/no-console"
    script = (
        f"[ ! -e {gone} ] || exit 1; tail -n 0 -F {found[1]} & "
        f"while [ ! -e {gone} ]; do sleep 0.2; done; kill $!; exit 1"
    )
    return console(f"[sh, -c, '{script}']")(text)


def watched(text: str) -> str:
    return with_key(f"watchdog: true\n    fragments: [{WATCHDOG}]")(no_power(text))


def patch(statement: str) -> str:
    """A series of one patch, with a statement in what ages a range of pages."""
    name = "arch/arm64/kvm/mmu.c"
    hunk = AGE.replace("STATEMENT", statement)
    return f"Subject: [PATCH] x\n\n---\n--- a/{name}\n+++ b/{name}\n{hunk}"
