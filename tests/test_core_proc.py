# SPDX-License-Identifier: GPL-2.0-only
"""Programs end in time, with all of their children, also when the harness is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from harness import proc
from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, InfraError
from harness.paths import PROJECT

SPAWN_AND_WAIT = """
import sys, time
from harness import proc
proc.spawn(["sh", "-c", sys.argv[1]], contained=sys.argv[2] == "contained")
time.sleep(60)
"""


def running(token: str) -> list[int]:
    """The processes that have `token` in their command line, zombies left out."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if token.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return [pid for pid in found if pid != os.getpid()]


def wait_until_gone(token: str, seconds: float = 20.0) -> None:
    deadline = Deadline(seconds)
    while running(token):
        deadline.check(f"processes {running(token)} to be gone")
        time.sleep(0.02)


def wait_until_there(token: str, count: int) -> None:
    deadline = Deadline(20)
    while len(running(token)) < count:
        deadline.check(f"{count} processes of {token}")
        time.sleep(0.02)


@pytest.fixture
def token() -> str:
    """A word that no other process has in its command line."""
    return f"token-{uuid.uuid4()}"


def soon() -> Deadline:
    return Deadline(20)


def test_collects_what_a_program_leaves() -> None:
    done = proc.run(
        ["sh", "-c", "cat; echo oops >&2; printf '\\377'; exit 3"],
        deadline=soon(),
        what="a test",
        stdin=b"in\n",
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "in\n\ufffd", "oops\n")
    assert done.tail() == "oops"


def test_a_failure_names_step_program_status_and_last_words() -> None:
    script = "echo first >&2; for i in $(seq 50); do echo line $i >&2; done; exit 7"
    with pytest.raises(InfraError, match=r"the step failed \(sh exited 7\)") as caught:
        proc.run(["sh", "-c", script], deadline=soon(), what="the step")
    assert "line 50" in str(caught.value)
    assert "first" not in str(caught.value)


def test_a_signal_is_told_by_its_number() -> None:
    done = proc.run(["sh", "-c", "kill -9 $$"], deadline=soon(), what="x", check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("contained", [False, True])
def test_a_missing_program_is_named(contained: bool) -> None:
    with pytest.raises(InfraError, match=r"^no-such-program is missing; .*doctor"):
        proc.run(["no-such-program"], deadline=soon(), what="x", contained=contained)


def test_a_missing_helper_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InfraError, match=r"^setpriv is missing"):
        proc.spawn(["sh", "-c", "true"])


@pytest.mark.parametrize("contained", [False, True])
def test_deadline_ends_the_whole_tree(token: str, contained: bool) -> None:
    script = f"sh -c 'sleep 60; : {token}' & sh -c 'sleep 60; : {token}'; : {token}"
    soon = Deadline(30)
    with pytest.raises(DeadlineExceeded, match="waiting for the tree"):
        proc.run(["sh", "-c", script], deadline=Deadline(0.5), what="the tree", contained=contained)
    assert not soon.expired(), "it was waited for until it ended by itself"
    wait_until_gone(token)


def test_a_contained_program_takes_children_of_other_sessions_along(token: str) -> None:
    script = f"setsid sh -c 'sleep 60; : {token}' & sleep 0.2"
    proc.run(["sh", "-c", script], deadline=soon(), what="x", contained=True)
    wait_until_gone(token)


def test_children_left_behind_by_a_program_that_ended_are_killed(token: str) -> None:
    script = f"sh -c 'sleep 60; : {token}' >/dev/null 2>&1 & sleep 0.1"
    proc.run(["sh", "-c", script], deadline=soon(), what="x")
    wait_until_gone(token)


@pytest.mark.parametrize("contained", ["contained", "alone"])
def test_dies_with_a_harness_that_is_killed(token: str, contained: str) -> None:
    """SIGKILL leaves the harness no chance to tidy up."""
    # A contained tree goes as a whole, a program alone does.
    tree = f"sh -c 'sleep 60; : {token}' & " if contained == "contained" else ""
    harness = subprocess.Popen(
        [
            sys.executable,
            "-c",
            SPAWN_AND_WAIT,
            f"{tree}while :; do read x; done; : {token}",
            contained,
        ],
        cwd=PROJECT,
    )
    try:
        wait_until_there(token, 3 if tree else 2)
        assert harness.poll() is None
    finally:
        harness.kill()
        harness.wait()
    wait_until_gone(token)


def test_does_not_start_for_a_harness_that_is_dead_already(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before setpriv(1) was at work, the harness cannot have its death told."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    process = proc.spawn(["sh", "-c", f"sleep 60; : {token}"])
    monkeypatch.undo()
    assert process.wait(10) == 125
    assert not running(token)


def test_what_is_contained_ends_with_the_lifeline(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever bwrap has asked for by then: the harness has the other end, and is dead."""
    end, other = os.pipe()
    os.close(other)
    monkeypatch.setattr(proc, "_LIFELINE", end)
    process = proc.spawn(["sh", "-c", f"sleep 60; : {token}"], contained=True)
    os.close(end)
    assert process.wait(10) == -signal.SIGKILL
    wait_until_gone(token)


def test_end_leaves_no_zombie() -> None:
    process = proc.spawn(["sleep", "60"])
    proc.end(process)
    assert process.returncode == -signal.SIGTERM
    assert not Path(f"/proc/{process.pid}").exists()


def test_end_uses_force_on_what_ignores_sigterm() -> None:
    process = proc.spawn(
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    proc.end(process, grace=0.2)
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL


def test_ending_again_harms_no_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process id is free for others once its process is reaped."""
    process = proc.spawn(["true"])
    proc.end(process)
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "killpg", lambda pid, signum: killed.append((pid, signum)))
    proc.end(process)
    assert killed == []


@pytest.mark.parametrize("contained", [False, True])
def test_environment_is_exactly_what_is_given(contained: bool) -> None:
    env = {"PATH": os.environ["PATH"], "ONLY": "this"}
    done = proc.run(["env"], deadline=soon(), what="x", env=env, contained=contained)
    given = [f"{k}={v}" for k, v in env.items()]
    if contained:
        given.append(f"PWD={Path.cwd()}")  # bwrap's own
    assert sorted(done.stdout.splitlines()) == sorted(given)


def test_what_is_contained_holds_no_lifeline() -> None:
    done = proc.run(["ls", "/proc/self/fd"], deadline=soon(), what="x", contained=True)
    assert done.stdout.split() == ["0", "1", "2", "3"]  # ls has the folder open
