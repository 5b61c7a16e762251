# SPDX-License-Identifier: GPL-2.0-only
"""The sandbox, tried with the real bubblewrap: each of these takes some tens of milliseconds."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kernel_helpers import soon

from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, InfraError
from harness.kernel import sandbox
from harness.kernel.sandbox import Sandbox


def sh(script: str, box: Sandbox | None = None) -> tuple[int, str]:
    done = sandbox.run(box or Sandbox(), ("sh", "-c", script), deadline=soon(), what="trying")
    return done.returncode, done.stdout + done.stderr


def test_the_home_folder_is_not_there(tmp_path: Path) -> None:
    for secret in (Path.home(), tmp_path, Path("/home"), Path("/etc/passwd")):
        status, output = sh(f"ls {secret}")
        assert status != 0 and "No such file" in output, output


def test_there_is_no_network_not_even_the_machines_loopback() -> None:
    connect = "import socket,sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 2)"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        subprocess.run([sys.executable, "-c", connect, port], check=True)
        box = Sandbox(read_only=sandbox.python_prefixes())
        argv = (sys.executable, "-c", connect, port)
        done = sandbox.run(box, argv, deadline=soon(), what="connecting")
    assert done.returncode != 0
    assert "Connection refused" in done.stderr
    status, output = sh("cat /proc/net/dev")
    assert status == 0
    assert [line.split(":")[0].strip() for line in output.splitlines()[2:]] == ["lo"]


def test_the_environment_is_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    monkeypatch.setenv("KCFLAGS", "-Os")
    _, output = sh("env", Sandbox(environment={"GIVEN": "1"}))
    names = {line.partition("=")[0] for line in output.splitlines()}
    assert names == {
        "PATH", "HOME", "TMPDIR", "LANG", "PYTHONDONTWRITEBYTECODE", "GIVEN", "PWD",
    }  # fmt: skip


def test_other_processes_are_not_seen() -> None:
    _, output = sh("ls -d /proc/[0-9]* | wc -l")
    assert int(output) <= 4


def test_no_capability_and_no_new_namespace() -> None:
    _, output = sh("grep CapEff /proc/self/status; unshare --user true && echo made")
    assert "CapEff:\t0000000000000000" in output
    assert "made" not in output


def test_only_what_is_bound_writable_is(tmp_path: Path) -> None:
    for name in ("ro", "rw"):
        (tmp_path / name).mkdir()
    box = Sandbox({tmp_path / "ro": sandbox.SOURCE}, {tmp_path / "rw": sandbox.BUILD})
    _, output = sh("touch /src/x /build/x /usr/x /etc/x /x /tmp/x; chmod 777 /src", box)
    assert (tmp_path / "rw/x").exists() and list((tmp_path / "ro").iterdir()) == []
    for path in ("/src/x", "/usr/x", "/etc/x", "/x"):
        assert f"cannot touch '{path}': Read-only file system" in output
    assert "/build/x" not in output and "/tmp/x" not in output
    assert "changing permissions of '/src': Read-only file system" in output


def test_lines_are_streamed_as_they_come() -> None:
    seen: list[tuple[bytes, float]] = []
    status = sandbox.stream(
        Sandbox(),
        ("sh", "-c", "echo one; echo two >&2; sleep 0.3; printf three; exit 7"),
        lambda line: seen.append((line, time.monotonic())),
        deadline=soon(),
        what="talking",
    )
    assert status == 7
    assert [line for line, _ in seen] == [b"one\n", b"two\n", b"three"]
    assert seen[2][1] - seen[0][1] > 0.2


def test_a_deadline_ends_everything_inside(tmp_path: Path) -> None:
    box = Sandbox(writable={tmp_path: sandbox.BUILD})
    script = "(while :; do date +%N > /build/beat; sleep 0.02; done) & echo on; wait"
    with pytest.raises(DeadlineExceeded, match="gave up waiting for the build"):
        sandbox.stream(
            box, ("sh", "-c", script), lambda _: None, deadline=Deadline(0.4), what="the build"
        )
    assert (tmp_path / "beat").exists()
    before = (tmp_path / "beat").read_text()
    time.sleep(0.1)
    assert (tmp_path / "beat").read_text() == before


def test_it_dies_with_a_harness_that_is_killed(tmp_path: Path) -> None:
    script = "while :; do date +%N > /build/beat; sleep 0.02; done"
    child = os.fork()
    if child == 0:
        box = Sandbox(writable={tmp_path: sandbox.BUILD})
        sandbox.stream(box, ("sh", "-c", script), lambda _: None, deadline=soon(), what="x")
    limit = soon()
    while not (tmp_path / "beat").exists():
        limit.check("the first beat")
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    limit = Deadline(5)
    while True:
        before = (tmp_path / "beat").stat().st_mtime_ns
        time.sleep(0.2)
        if (tmp_path / "beat").stat().st_mtime_ns == before:
            break
        limit.check("the end of the sandbox")


def test_without_namespaces_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text(
        "#!/bin/sh\necho 'bwrap: No permissions to create new namespace, likely' >&2\nexit 1\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(
        InfraError, match=r"nothing is built without one: .* new namespace.*AppArmor"
    ):
        sh("touch /tmp/ran")


def test_a_build_cannot_pass_for_a_missing_sandbox() -> None:
    assert sh("echo begin; echo 'bwrap: No permissions'; exit 1")[0] == 1
    status = sandbox.stream(
        Sandbox(),
        ("sh", "-c", "echo begin; echo 'bwrap: No permissions'; exit 1"),
        lambda _: None,
        deadline=soon(),
        what="x",
    )
    assert status == 1


def test_a_python_that_would_show_the_home_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InfraError, match="holds the home folder"):
        sandbox.python_prefixes((str(Path.home()), str(tmp_path)))
    assert sandbox.python_prefixes(("/usr", "/usr/local")) == {}
    assert sandbox.python_prefixes((str(tmp_path),)) == {tmp_path: tmp_path}
