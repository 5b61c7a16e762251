# SPDX-License-Identifier: GPL-2.0-only
"""An inventory that is wrong in any way is refused, with file, line and key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness import inventory
from harness.errors import UsageError
from harness.inventory import QemuHost
from harness.paths import PROJECT

GOOD = """\
schema: 1
defaults:
  source: debian:linux-source-6.12
  series: stage2-sw-af
hosts:
  n1:
    kind: qemu
    cpu: neoverse-n1
    af: hardware
    kvm_modes: [vhe, nvhe]
  a57:
    kind: qemu
    cpu: cortex-a57
    af: software
    kvm_modes:
      - nvhe
    cpus: 4
    memory_mib: 1024
"""


def load(tmp_path: Path, text: str) -> inventory.Inventory:
    path = tmp_path / "inventory.yaml"
    path.write_text(text)
    return inventory.load(path)


def test_a_good_one(tmp_path: Path) -> None:
    stock = load(tmp_path, GOOD)
    assert list(stock.hosts) == ["n1", "a57"]
    n1, a57 = stock.host("n1"), stock.host("a57")
    assert isinstance(n1, QemuHost) and isinstance(a57, QemuHost)
    assert n1.kvm_modes == ("vhe", "nvhe")
    assert (n1.cpus, n1.memory_mib) == (2, 2048)
    assert (a57.cpus, a57.memory_mib) == (4, 1024)
    assert stock.defaults.series == "stage2-sw-af"


def test_the_projects_own() -> None:
    own = inventory.load()
    assert own == inventory.load(PROJECT / "inventory.yaml")
    assert {host.af for host in own.hosts.values()} == {"hardware", "software"}


def test_a_host_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no host 'n2' in the inventory; it has: n1, a57"):
        load(tmp_path, GOOD).host("n2")


@pytest.mark.parametrize(
    ("old", "new", "line", "key"),
    [
        ("    af: hardware", "    af: hardware\n    sped: 3", 10, "sped"),
        ("schema: 1", "schema: 1\nextra: 1", 2, "extra"),
        ("  series: stage2-sw-af", "  series: x\n  sorce: y", 5, "sorce"),
        ("    cpus: 4", "    cpus: four", 17, "cpus"),
        ("    cpus: 4", "    cpus: 1", 17, "cpus"),
        ("    cpus: 4", "    cpus: [4]", 17, "cpus"),
        ("    memory_mib: 1024", "    memory_mib: 8", 18, "memory_mib"),
        ("    af: software", "    af: maybe", 14, "af"),
        ("    kind: qemu\n    cpu: c", "    kind: ec2\n    cpu: c", 12, "kind"),
        ("    cpu: neoverse-n1\n", "", 6, "cpu"),
        ("    cpu: neoverse-n1", "    cpu: -device,evil", 8, "cpu"),
        ("[vhe, nvhe]", "[vhe, hvhe]", 10, "kvm_modes"),
        ("[vhe, nvhe]", "[nvhe, vhe, nvhe]", 10, "kvm_modes"),
        ("[vhe, nvhe]", "[]", 10, "kvm_modes"),
        ("[vhe, nvhe]", "vhe", 10, "kvm_modes"),
        ("  n1:", "  N 1:", 6, "N 1"),
        ("  n1:", "  ../n1:", 6, "../n1"),
        ("  a57:", "  n1:", 11, "n1"),
        ("schema: 1", "schema: 2", 1, "schema"),
        ("schema: 1\n", "", 1, "schema"),
        ("  series: stage2-sw-af", "  series: ''", 4, "series"),
        ("    af: hardware", "    af: hardware\n    af: software", 10, "af"),
    ],
)
def test_what_is_wrong_is_named_with_line_and_key(
    tmp_path: Path, old: str, new: str, line: int, key: str
) -> None:
    assert GOOD.count(old) == 1
    with pytest.raises(UsageError) as caught:
        load(tmp_path, GOOD.replace(old, new))
    (place,) = re.findall(
        rf"^{re.escape(str(tmp_path))}/inventory\.yaml:(\d+): (.*)$", str(caught.value), re.M
    )[:1]
    assert int(place[0]) == line
    assert key in place[1].split(": ")[0]


def test_a_mode_named_twice_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a mode is named twice"):
        load(tmp_path, GOOD.replace("[vhe, nvhe]", "[vhe, vhe]"))


@pytest.mark.parametrize("text", ["", "hosts", "- a\n", "a: [", "\t", "a: b: c", "schema: 1\n"])
def test_no_inventory_at_all(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"inventory\.yaml:\d+: "):
        load(tmp_path, text)


def test_no_hosts(tmp_path: Path) -> None:
    text = GOOD[: GOOD.index("hosts:")] + "hosts: {}\n"
    with pytest.raises(UsageError, match=r"inventory\.yaml:5: hosts"):
        load(tmp_path, text)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"/absent\.yaml"):
        inventory.load(tmp_path / "absent.yaml")


def test_nothing_can_be_changed_afterwards(tmp_path: Path) -> None:
    stock = load(tmp_path, GOOD)
    with pytest.raises(ValueError, match="frozen"):
        stock.host("n1").cpus = 3  # type: ignore[union-attr]


# ---- machines that answer SSH ---------------------------------------------------------------

SSH = """\
schema: 1
defaults:
  source: debian:linux-source-6.12
  series: stage2-sw-af
hosts:
  altra:
    kind: ssh
    address: 10.0.0.5
    user: admin
    key: ~/.ssh/lab
    kvm_modes: [vhe, protected]
    af: hardware
    jump:
      - address: gate.example
        port: 2222
        agent: true
    power:
      on: [ipmitool, power, "on"]
      off: [ipmitool, power, "off"]
      reset: [ipmitool, power, reset]
    console: [ipmitool, sol, activate]
  n1:
    kind: qemu
    cpu: neoverse-n1
    af: hardware
    kvm_modes: [vhe]
"""


def test_a_machine_of_the_lab(tmp_path: Path) -> None:
    altra = load(tmp_path, SSH).ssh("altra")
    assert (altra.address, altra.port, altra.user, altra.af) == (
        "10.0.0.5",
        22,
        "admin",
        "hardware",
    )
    assert altra.key == Path("~/.ssh/lab")
    assert [(one.address, one.port, one.user, one.agent) for one in altra.jump] == [
        ("gate.example", 2222, "root", True)
    ]
    assert altra.power is not None
    assert altra.power.on == ("ipmitool", "power", "on")
    assert altra.console == ("ipmitool", "sol", "activate")
    assert (altra.config, altra.trim, altra.build) == ("harness", False, "controller")


def test_a_machine_whose_own_configuration_is_built_from(tmp_path: Path) -> None:
    own = "    user: admin\n    config: machine\n    trim: true\n    build: on-host"
    altra = load(tmp_path, SSH.replace("    user: admin", own)).ssh("altra")
    assert (altra.config, altra.trim, altra.build) == ("machine", True, "on-host")


def test_what_only_a_machine_of_the_lab_has_is_asked_of_no_other(tmp_path: Path) -> None:
    stock = load(tmp_path, SSH)
    with pytest.raises(UsageError, match="host 'n1' is of kind qemu; this is for kind ssh"):
        stock.ssh("n1")


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "words"),
    [
        ("    address: 10.0.0.5\n", "", 6, "hosts.altra.address", "required"),
        ("10.0.0.5", "-oProxyCommand=x", 8, "hosts.altra.address", "pattern"),
        ("10.0.0.5", "a,b", 8, "hosts.altra.address", "pattern"),
        ("    user: admin", "    user: 'a b'", 9, "hosts.altra.user", "pattern"),
        ("    user: admin", "    sudo: true", 9, "hosts.altra.sudo", "not permitted"),
        ("~/.ssh/lab", "lab", 10, "hosts.altra.key", "absolute or begins with ~/"),
        ("~/.ssh/lab", "~lab/key", 10, "hosts.altra.key", "absolute or begins with ~/"),
        ("    key: ~/.ssh/lab", "    agent: false", 6, "hosts.altra", "one of them"),
        ("        agent: true", "        key: /a\n        agent: true", 14, ".jump[0]", "one of"),
        ("2222", "0", 15, "hosts.altra.jump[0].port", "greater"),
        ("gate.example", "{}", 14, "hosts.altra.jump[0].address", "string"),
        ("      off: ", "      of: ", 17, "hosts.altra.power.off", "required"),
        ("[ipmitool, power, reset]", "[]", 20, "hosts.altra.power.reset", "at least 1"),
        ("[ipmitool, power, reset]", "ipmitool", 20, "hosts.altra.power.reset", "tuple"),
        ("[ipmitool, sol, activate]", '["a\\0b"]', 21, "hosts.altra.console[0]", "pattern"),
        ("[ipmitool, sol, activate]", "[a]\n    initrd: b", 22, "hosts.altra.initrd", "pattern"),
        ("[ipmitool, sol, activate]", "[a]\n    fragments: [x]", 22, "fragments[0]", "begins with"),
        ("[ipmitool, sol, activate]", "[a]\n    back_seconds: 5", 22, "back_seconds", "greater"),
        ("    af: hardware\n    jump", "    jump", 6, "hosts.altra.af", "required"),
        ("    user: admin", "    config: distro", 9, "hosts.altra.config", "'machine'"),
        ("    user: admin", "    trim: true", 6, "hosts.altra", "goes with `config: machine`"),
        ("    user: admin", "    build: on-host", 6, "hosts.altra", "goes with `config: machine`"),
        ("    user: admin", "    build: there", 9, "hosts.altra.build", "'on-host'"),
        ("kind: ssh", "kind: bmc", 7, "hosts.altra.kind", "'bmc'"),
        ("    kind: ssh\n", "", 6, "hosts.altra.kind", "kind"),
    ],
)
def test_what_is_wrong_with_it_is_named(
    tmp_path: Path, old: str, new: str, line: int, key: str, words: str
) -> None:
    assert SSH.count(old) == 1
    with pytest.raises(UsageError) as caught:
        load(tmp_path, SSH.replace(old, new))
    assert re.search(
        rf"^\S+/inventory\.yaml:{line}: \S*{re.escape(key)}: .*{re.escape(words)}",
        str(caught.value),
        re.M,
    )


MEMBER = """
  {name}:
    kind: ssh
    address: 10.0.0.{number}
    agent: true
    group: altra
    kvm_modes: [{modes}]
    af: {af}
    cmdline: [{words}]
    boot_seconds: {number}0
"""


def member(number: int, *, name: str = "", modes: str = "vhe, nvhe", **more: str) -> str:
    values = {"af": "hardware", "words": "", **more}
    return MEMBER.format(name=name or f"altra{number}", number=number, modes=modes, **values)


def test_a_group_is_all_of_its_machines(tmp_path: Path) -> None:
    stock = load(tmp_path, GOOD + member(1) + member(2) + member(3))
    assert stock.groups == {"altra": ("altra1", "altra2", "altra3")}
    assert list(stock.place("altra")) == ["altra1", "altra2", "altra3"]
    assert stock.place("altra2") == {"altra2": stock.host("altra2")}
    assert stock.place("n1") == {"n1": stock.host("n1")}
    with pytest.raises(UsageError, match="no host 'graviton'"):
        stock.place("graviton")
    with pytest.raises(UsageError, match="no host 'altra'"):
        stock.host("altra")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"modes": "vhe"}, "`kvm_modes` is not the same"),
        ({"af": "software"}, "`af` is not the same"),
        ({"words": "a=b"}, "altra1 and altra2 are in the group altra, and their `cmdline`"),
        ({"name": "altra"}, "`group: altra` has the name of a host"),
    ],
)
def test_machines_of_a_group_are_alike(tmp_path: Path, more: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load(tmp_path, GOOD + member(1) + member(2, **more))


def test_an_emulated_host_has_no_group(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="group"):
        load(tmp_path, GOOD.replace("    af: hardware", "    af: hardware\n    group: x"))
