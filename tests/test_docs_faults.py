# SPDX-License-Identifier: GPL-2.0-only
"""The table of faults: what it is written from, and that it has all of them."""

from __future__ import annotations

import re

import pytest
from fault_table import COLUMNS, row, table
from faults import FAULTS
from faults.edits import no_power, patch, until_told, with_key
from faults.fault import STAGES, Fault

from harness.inventory import load
from harness.paths import PROJECT

TAPE = """\
    0.10 lease taken
   20.00 kexec ordered
   40.00 the cell ended
   41.00 reboot ordered
   60.00 reset ordered
   70.00 runs Linux 6.12.1 #1, boot 1
"""


def test_there_are_enough_and_each_has_a_name() -> None:
    names = [str(fault) for fault in FAULTS]
    assert len(set(names)) == len(names) >= 40
    assert {fault.stage for fault in FAULTS} == set(STAGES)
    for fault in FAULTS:
        assert fault.verdict == "killed" or fault.words, str(fault)
        re.compile(fault.words)


@pytest.mark.parametrize(
    ("fault", "diary", "home", "then"),
    [
        (Fault("boot", "x", "y"), TAPE, "reboot, reset", ""),
        (Fault("boot", "x", "y"), "same boot", "-", ""),
        (Fault("boot", "x", "y"), "", "itself", ""),
        (Fault("home", "x", "y", aside=True, home=False), TAPE, "hand", "set aside"),
        (Fault("home", "x", "y", home=False, lease="another's"), TAPE, "the next run", "lease is"),
        (Fault("check", "x", verdict="killed"), TAPE, "reboot, reset", "the next run passed"),
        (Fault("check", "x", "y", lease="runs out"), TAPE, "reboot, reset", "lease runs out"),
    ],
)
def test_a_row(fault: Fault, diary: str, home: str, then: str) -> None:
    found = row(fault, diary, 12.3)
    assert set(found) == set(COLUMNS)
    assert (found["home by"], found["s"]) == (home, "12")
    assert found["then"].startswith(then) and bool(found["then"]) == bool(then)


def test_the_table_is_in_the_order_of_the_cases() -> None:
    rows = [row(fault, "same boot", 1) for fault in reversed(FAULTS)]
    text = table(rows, "head CASES COMMIT CONDITIONS\n", "abc", "QEMU")
    head, _, lines = text.partition("\n")
    assert head.startswith(f"head {len(FAULTS)} (") and head.endswith("`abc` QEMU")
    body = lines.splitlines()[2:]
    assert [line.split(" | ")[1] for line in body] == [fault.name for fault in FAULTS]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in body} == {len(COLUMNS) + 1}


def test_the_docs_have_a_row_of_each_as_it_is_now() -> None:
    text = (PROJECT / "docs/faults.md").read_text(encoding="utf-8")
    lines = [
        line for line in text.splitlines() if line.startswith(tuple(f"| {s} |" for s in STAGES))
    ]
    shown = ("stage", "fault", "verdict", "the reason says", "death")
    found = [dict(zip(COLUMNS, line[2:].split(" | "), strict=False)) for line in lines]
    for seen, fault in zip(found, FAULTS, strict=True):
        now = row(fault, "same boot", 0)
        assert [seen[name].strip() for name in shown] == [now[name] for name in shown]


def test_what_is_done_to_an_inventory(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("x")
    (folder / "key").touch()
    text = (
        "schema: 1\ndefaults: {source: debian:linux-source-6.12, series: stage2-sw-af}\nhosts:\n"
        f"  lab:\n    kind: ssh\n    address: 127.0.0.1\n    key: {folder}/key\n"
        "    kvm_modes: [vhe]\n    af: hardware\n    boot_seconds: 60\n    power:\n"
        '      "on": [x]\n      "off": [x]\n      "reset": [x, "reset"]\n'
        "    console: [tail, -n, '0', -F, /x/machine.log]\n"
    )
    path = folder / "inventory.yaml"
    path.write_text(with_key("user: admin")(until_told(no_power(text))))
    host = load(path).ssh("lab")
    assert host.power is None and host.user == "admin"
    assert host.console is not None and "tail -n 0 -F /x/machine.log &" in host.console[2]


def test_the_patch_is_a_series() -> None:
    assert '+\tpanic("x");\n' in patch('panic("x")')
