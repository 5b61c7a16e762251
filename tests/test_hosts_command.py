# SPDX-License-Identifier: GPL-2.0-only
"""`kvm-harness hosts`, against an SSH server with a real shell."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest
from command import Ended
from hosts_helpers import Server, make_key
from test_hosts_probe import answer
from test_hosts_probe import parse as parse_survey

from harness import cli
from harness.hosts import command as hosts_command
from harness.hosts import health_command, kernel_command, machine_config, pins, virtual
from harness.hosts.examine import Examined
from harness.hosts.fitness import judge
from harness.hosts.health import Health
from harness.hosts.protocols import Shell
from harness.inventory import SshHost
from harness.kernel import source
from harness.kernel.built import Kernel
from harness.kernel.machine import MachineConfig


class Keyboard(io.StringIO):
    """A terminal where something is typed; none if that is None."""

    def __init__(self, typed: str | None) -> None:
        super().__init__(typed or "")
        self._there = typed is not None

    def isatty(self) -> bool:
        return self._there


class Command(Protocol):
    def __call__(self, *args: str, keyboard: str | None = None) -> Ended: ...


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with contextlib.closing(Server(tmp_path)) as one:
        yield one


@pytest.fixture
def stock(server: Server) -> Path:
    path = server.folder / "inventory.yaml"
    path.write_text(
        "schema: 1\ndefaults: {source: debian:linux-source-6.12, series: stage2-sw-af}\n"
        "hosts:\n  lab:\n    kind: ssh\n    af: hardware\n    address: 127.0.0.1\n"
        f"    port: {server.address.port}\n    key: {server.address.login_key}\n"
        "    kvm_modes: [vhe, nvhe]\n"
    )
    return path


@pytest.fixture
def command(
    stock: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    monkeypatch.setenv("XDG_STATE_HOME", str(stock.parent))

    def run(*args: str, keyboard: str | None = None) -> Ended:
        monkeypatch.setattr("sys.stdin", Keyboard(keyboard))
        with pytest.raises(SystemExit) as ended:
            cli.main([*args, "--inventory", str(stock)])
        said = capsys.readouterr()
        return Ended(int(ended.value.code or 0), said.out, said.err)

    return run


def known_hosts(stock: Path) -> Path:
    return stock.parent / "kvm-harness" / "known_hosts"


def test_a_list_says_what_never_ran_on_hardware(command: Command) -> None:
    done = command("hosts")
    assert done.returncode == 0
    (line,) = done.stdout.splitlines()[1:]
    assert line.split() == [
        *("lab", "SSH", "hardware", "vhe", "nvhe"),
        *("never", "run", "on", "hardware"),
    ]


def test_first_contact_then_pinned(command: Command, stock: Path, server: Server) -> None:
    fingerprint = server.host_key.fingerprint
    refused = command("run", "--host", "lab", "--base-only")
    assert refused.returncode == 2
    assert fingerprint in refused.stderr
    assert "`kvm-harness hosts trust lab`" in refused.stderr

    nobody = command("hosts", "trust", "lab")
    assert nobody.returncode == 2
    assert f"--yes {fingerprint}" in nobody.stderr
    other = command("hosts", "trust", "lab", "--yes", "SHA256:" + "A" * 43)
    assert other.returncode == 2
    assert fingerprint in other.stderr
    assert not known_hosts(stock).exists()

    pinned = command("hosts", "trust", "lab", "--yes", fingerprint)
    assert pinned.returncode == 0
    assert pins.load(known_hosts(stock)) == {
        f"[127.0.0.1]:{server.address.port}": server.address.host_key
    }


def test_what_is_missing_ends_check_and_run(command: Command, stock: Path, server: Server) -> None:
    pins.pin(known_hosts(stock), f"[127.0.0.1]:{server.address.port}", server.host_key)
    put = server.folder / "bin"
    put.mkdir()
    for name, words in (("uname", "riscv64"), ("kexec", "")):
        (put / name).write_text(f"#!/bin/sh\necho {words}\n")
        (put / name).chmod(0o755)
    checked = command("hosts", "check", "lab")
    assert checked.returncode == 3
    assert "missing  architecture: riscv64, needed is aarch64" in checked.stdout
    assert "note     console: " in checked.stdout
    run = command("run", "--host", "lab", "--base-only")
    assert run.returncode == 3
    assert "host 'lab' is not fit for test kernels" in run.stderr
    assert "architecture: riscv64" in run.stderr


@pytest.mark.parametrize(
    ("firmware", "options", "code", "said"),
    [
        (f"{virtual.TREE} linux,dummy-virt \n", (), 0, "note     hardware: emulated by a hyper"),
        (
            f"{virtual.TREE} linux,dummy-virt \n",
            ("--hardware",),
            3,
            "missing  hardware: emulated",
        ),
        (f"{virtual.TREE} some,board \n", ("--hardware",), 0, "ok       hardware: nothing names"),
        ("", ("--hardware",), 0, "ok       hardware: nothing names"),
    ],
)
def test_an_emulated_machine_is_missing_where_hardware_is_asked_for(
    firmware: str,
    options: tuple[str, ...],
    code: int,
    said: str,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The job of CI for machines asks for it."""

    def examined(name: str, host: SshHost) -> Examined:
        seen = parse_survey(answer(firmware=firmware))
        return Examined(seen, judge(seen, host))

    monkeypatch.setattr(hosts_command, "examine", examined)
    done = command("hosts", "check", "lab", *options)
    assert done.returncode == code
    assert said in done.stdout


def test_nonsense_is_named_as_such(command: Command, stock: Path, server: Server) -> None:
    pins.pin(known_hosts(stock), f"[127.0.0.1]:{server.address.port}", server.host_key)
    (server.folder / "bin").mkdir()
    for name in ("uname", "id"):
        (server.folder / "bin" / name).write_text("#!/bin/sh\nprintf '\\033[2Jhello\\n'\n")
        (server.folder / "bin" / name).chmod(0o755)
    done = command("hosts", "check", "lab")
    assert done.returncode == 3
    assert "the host's answer to what it is: no machine in" in done.stderr
    assert "\x1b" not in done.stderr + done.stdout


def test_set_up_anew(command: Command, stock: Path, server: Server) -> None:
    old = make_key(server.folder / "old")
    pins.pin(known_hosts(stock), f"[127.0.0.1]:{server.address.port}", old)
    fingerprint = server.host_key.fingerprint
    for args in (["hosts", "check", "lab"], ["hosts", "trust", "lab", "--yes", fingerprint]):
        refused = command(*args)
        assert refused.returncode == 3
        assert fingerprint in refused.stderr
        assert old.fingerprint in refused.stderr
        assert "`kvm-harness hosts retrust lab`" in refused.stderr
    assert command("hosts", "retrust", "lab", "--yes", fingerprint).returncode == 0
    (key,) = pins.load(known_hosts(stock)).values()
    assert key == server.address.host_key


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 2), ("\n", 2), ("", 2)])
def test_somebody_is_asked(
    command: Command, stock: Path, server: Server, answer: str, code: int
) -> None:
    done = command("hosts", "trust", "lab", keyboard=answer)
    assert done.returncode == code, done.stderr
    assert f"shows             ssh-ed25519 {server.host_key.fingerprint}" in done.stdout
    assert known_hosts(stock).exists() == (code == 0)


def test_a_sick_machine_is_shown_until_it_is_put_back(
    command: Command, stock: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What makes a machine sick is tested elsewhere; this one is the tests' own."""
    pins.pin(known_hosts(stock), f"[127.0.0.1]:{server.address.port}", server.host_key)
    well = Health(1 << 9, 1 << 40, 1 << 36, 1 << 36, 0.0, (0, 1), (), (), (), ())
    monkeypatch.setattr(health_command, "examine", lambda shell: well)
    done = command("hosts", "health", "lab")
    assert done.returncode == 0
    assert done.stdout.startswith("lease: ")
    assert done.stdout.endswith("note: its kernel is tainted: kernel issued warning\nlab is well\n")

    monkeypatch.setattr(health_command, "examine", lambda shell: replace(well, disk_free=0))
    sick = command("hosts", "health", "lab")
    assert sick.returncode == 3
    assert "not fit for tests: its disk has 0 MiB free" in sick.stderr
    assert "lab was set aside since 20" in command("hosts").stdout

    again = command("hosts", "health", "lab")
    assert "problem: its disk has 0 MiB free" in again.stdout
    assert "lab was set aside since 20" in again.stderr
    monkeypatch.setattr(health_command, "examine", lambda shell: well)
    assert "kvm-harness hosts put-back lab" in command("hosts", "health", "lab").stderr
    assert "disk has 0 MiB free" in command("hosts", "put-back", "lab").stdout
    assert command("hosts", "health", "lab").returncode == 0
    assert "set aside" not in command("hosts").stdout
    again = command("hosts", "put-back", "lab")
    assert (again.returncode, again.stdout) == (2, "")


def test_a_kernel_of_a_machine_s_own_configuration(
    command: Command, stock: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins.pin(known_hosts(stock), f"[127.0.0.1]:{server.address.port}", server.host_key)
    refused = command("hosts", "kernel", "lab")
    assert refused.returncode == 2
    assert "host 'lab' lacks `config: machine`" in refused.stderr

    stock.write_text(stock.read_text() + "    config: machine\n    trim: true\n")
    own = MachineConfig("CONFIG_ARM64=y\nCONFIG_EXT4_FS=m\nCONFIG_XFS_FS=m\n", ("ext4",))
    asked: list[object] = []

    def read(shell: Shell, *, trim: bool) -> MachineConfig:
        assert shell.run("echo it answers").stdout == "it answers\n"
        asked.append(trim)
        return own

    def build(tree: object, **how: object) -> Kernel:
        asked.extend((tree, how["machine"]))
        here = stock.parent / "x"
        return Kernel(
            key="k", image=here, vmlinux=here, system_map=here, config=here, log=here,
            build_dir=here, build_id="00", config_sha256="0", image_sha256="0", tree="one",
            release="6.12-kvmharness-0123456789ab", incremental=False, seconds=61.5, steps=9,
            modules=here / "modules.tar.gz",
        )  # fmt: skip

    monkeypatch.setattr(machine_config, "read", read)
    monkeypatch.setattr(source, "resolve", lambda spec, deadline: spec)
    monkeypatch.setattr(kernel_command, "build", build)
    done = command("hosts", "kernel", "lab", "--source", "tree:somewhere")
    assert done.returncode == 0
    assert asked == [True, "tree:somewhere", own]
    assert "3 settings, 2 of them modules, trimmed to 1 loaded" in done.stdout
    assert "release   6.12-kvmharness-0123456789ab" in done.stdout
    assert "modules.tar.gz" in done.stdout
