# SPDX-License-Identifier: GPL-2.0-only
"""README.md's table of commands has every command that there is."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from harness import cli

README = Path(__file__).parents[1] / "README.md"


def test_every_command_has_its_row() -> None:
    (commands,) = (
        action
        for action in cli._parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    rows = re.findall(r"^\| (`kvm-harness .*?`) \|", README.read_text(), re.MULTILINE)
    named = {word for row in rows for word in re.findall(r"`(?:kvm-harness )?([a-z]+)", row)}
    assert set(commands.choices) == named
