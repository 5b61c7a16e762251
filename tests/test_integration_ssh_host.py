# SPDX-License-Identifier: GPL-2.0-only
"""The emulated host reached as a machine of the lab: by its inventory entry of kind ssh alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Ended, in_process
from rich.console import Console

from harness import inventory, prepare
from harness.deadline import Deadline
from harness.hosts import pins, qemu
from harness.hosts.route import open_shell
from harness.progress import Progress

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[qemu.EmulatedHost]:
    progress = Progress(Console(quiet=True))
    ground = prepare.ground(inventory.load().defaults.source, progress)
    assert ground.image is not None
    kernel = prepare.kernel("base", ground.source, None, progress)
    with qemu.boot(
        qemu.Machine("n1", "neoverse-n1"),
        ground.image,
        kernel.image,
        (),
        tmp_path_factory.mktemp("host"),
        programs={},
        deadline=Deadline(60),
    ) as host:
        yield host


def stock(folder: Path, host: qemu.EmulatedHost) -> Path:
    """Its console is shown by a command as well, which must be this host's and no other's."""
    path = folder / "inventory.yaml"
    path.write_text(
        "schema: 1\n"
        "defaults: {source: debian:linux-source-6.12, series: stage2-sw-af}\n"
        "hosts:\n"
        "  lab:\n"
        "    kind: ssh\n"
        f"    address: {host.address.host}\n"
        f"    port: {host.address.port}\n"
        f"    key: {host.address.login_key}\n"
        "    kvm_modes: [vhe]\n"
        "    af: hardware\n"
        f"    console: [tail, -c, '+1', -f, {host.console.path}]\n"
    )
    return path


def test_machine_of_the_lab(
    host: qemu.EmulatedHost,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    where = stock(tmp_path, host)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    def command(*args: str) -> Ended:
        return in_process([*args, "--inventory", str(where)], capsys)

    fresh = command("hosts", "check", "lab")
    assert fresh.returncode == 2
    assert "`kvm-harness hosts trust lab`" in fresh.stderr
    key = pins.to_key(host.address.host_key)
    assert key is not None
    assert key.fingerprint in fresh.stderr
    assert command("hosts", "trust", "lab", "--yes", key.fingerprint).returncode == 0

    # Right CPU and KVM, and none of what a distribution has: all of that is told at once.
    checked = command("hosts", "check", "lab")
    assert checked.returncode == 3
    for line in ("architecture: aarch64", "root: by login", "EL2: ", "console command: tail shows"):
        assert f"ok       {line}" in checked.stdout
    for line in ("distribution: ", "kexec program: "):
        assert f"missing  {line}" in checked.stdout
    run = command("run", "--host", "lab", "--base-only")
    assert run.returncode == 3
    assert "distribution: " in run.stderr and "kexec program: " in run.stderr


def test_files_arrive_whole(host: qemu.EmulatedHost, tmp_path: Path) -> None:
    lab = inventory.load(stock(tmp_path, host)).ssh("lab")
    known = {pins.pin_name([lab]): host.address.host_key}
    local = tmp_path / "local"
    local.write_bytes(os.urandom(300000))
    with open_shell("lab", lab, known, Deadline(20)) as shell:
        shell.put(local, "/tmp/remote", mode=0o750)
        assert shell.run("stat -c '%s %a' /tmp/remote").stdout.split() == ["300000", "750"]
