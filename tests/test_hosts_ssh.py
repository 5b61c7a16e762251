# SPDX-License-Identifier: GPL-2.0-only
"""The shell over SSH, against a real SSH server with real shells, and against bad ones."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import paramiko
import pytest
from hosts_helpers import Server, make_key, pump, silent_server

from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, HostDied, InfraError
from harness.hosts import ssh
from harness.hosts.ssh import NoLogin, SshShell, connect


class Host:
    """Stands for the console: `alive` raises from the moment that it is told of a panic."""

    def __init__(self) -> None:
        self.questions = 1 << 40
        """So often more it may be asked; then it has died."""

    def alive(self) -> None:
        self.questions -= 1
        if self.questions < 0:
            raise HostDied("panic", "Kernel panic - not syncing: a test")

    def dies(self) -> None:
        """Within moments: a wait of seconds asks often enough, several times in each."""
        self.questions = 10


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    one = Server(tmp_path)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def shell(server: Server, host: Host) -> Iterator[SshShell]:
    one = SshShell(connect(server.address, Deadline(20), host.alive), host.alive)
    try:
        yield one
    finally:
        one.close()


# ---- commands -------------------------------------------------------------------------------


def test_output_errors_and_status(shell: SshShell) -> None:
    result = shell.run("echo out; echo err >&2; exit 3", check=False)
    assert (result.stdout, result.stderr, result.status) == ("out\n", "err\n", 3)


@pytest.mark.parametrize("text", ["", "no newline", "one\n", "\n", "\n\n", "a\n\n\nb", " 0\n"])
def test_output_is_exact(shell: SshShell, text: str) -> None:
    for _ in range(2):
        both = shell.run(f"printf %s '{text}'; printf %s '{text}' >&2")
        assert (both.stdout, both.stderr, both.status) == (text, text, 0)


def test_a_failure_names_command_status_and_words(shell: SshShell) -> None:
    with pytest.raises(InfraError, match=r"`echo why >&2; false` exited 1: why"):
        shell.run("echo why >&2; false")
    with pytest.raises(InfraError) as caught:
        shell.run("head -c 100000 /dev/zero | tr '\\0' x >&2; false")
    assert len(str(caught.value)) < 2000


def test_exit_and_cd_do_not_reach_the_next_command(shell: SshShell) -> None:
    before = shell.run("pwd").stdout
    assert shell.run("cd /; exit 3", check=False).status == 3
    assert shell.run("pwd").stdout == before


def test_one_shell_serves_all_commands(shell: SshShell, server: Server) -> None:
    for number in range(20):
        assert shell.run(f"echo {number}").stdout == f"{number}\n"
    assert len(server.processes) == 1


def test_commands_do_not_read_each_other(shell: SshShell) -> None:
    assert shell.run("cat").stdout == ""
    assert shell.run('read x; echo "[$x]"', check=False).stdout == "[]\n"


def test_junk(shell: SshShell, server: Server) -> None:
    junk = bytes(range(256)) * 300
    (server.folder / "junk").write_bytes(junk)
    result = shell.run("cat junk; cat junk >&2")
    assert result.stdout == junk.decode(errors="replace") == result.stderr
    assert shell.run("echo well").stdout == "well\n"


def test_what_looks_like_an_end_mark_is_output(
    shell: SshShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the mark of an earlier command, which the host has seen."""
    sent: list[bytes] = []
    send_all = ssh._send_all

    def spy(channel: Any, data: bytes, *rest: Any) -> None:
        sent.append(data)
        send_all(channel, data, *rest)

    monkeypatch.setattr(ssh, "_send_all", spy)
    for _ in range(3):
        shell.run("true")
    marks = re.findall(r"--end-\S+?--", b"".join(sent).decode())
    assert len(marks) == 6
    fakes = "".join(f"\n{mark} 0\n" for mark in marks)
    assert shell.run(f"printf %s '{fakes}'; exit 4", check=False).stdout == fakes
    assert shell.run("printf '\\n--end'").stdout == "\n--end"


def test_5_mb(shell: SshShell) -> None:
    result = shell.run("yes 1234567 | head -c 5000000; echo done >&2", Deadline(30))
    assert len(result.stdout) == 5000000
    assert set(result.stdout.split("\n")[:-1]) == {"1234567"}
    assert result.stderr == "done\n"
    both = shell.run("(yes e | head -c 3000000 >&2) & yes o | head -c 3000000; wait", Deadline(30))
    assert (len(both.stdout), len(both.stderr)) == (3000000, 3000000)


def test_output_beyond_all_bounds(shell: SshShell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "MAX_OUTPUT", 1 << 20)
    with pytest.raises(InfraError, match="wrote more than 1 MiB"):
        shell.run("yes")
    assert shell.run("echo next").stdout == "next\n"


def test_a_long_command(shell: SshShell) -> None:
    text = "x" * 300000
    assert shell.run(f": {text}; echo ok").stdout == "ok\n"


@pytest.mark.parametrize(
    "command",
    [
        "sleep 60",
        # Output in time is no end: the deadline counts all the same.
        "while :; do echo x; sleep 0.05; done",
        "while :; do echo x >&2; sleep 0.05; done",
        "echo 'no end of the quotation",
    ],
)
def test_a_command_without_end(shell: SshShell, command: str) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        shell.run(command, Deadline(0.5))
    assert f"`{command}` on the host" in str(caught.value)
    assert shell.run("echo next").stdout == "next\n"


def test_a_program_in_the_background_does_not_spoil_the_status(shell: SshShell) -> None:
    for _ in range(3):
        assert shell.run("(while :; do echo noise; done) & true", check=False).status == 0
    assert shell.run("exit 5", check=False).status == 5


def test_broken_syntax_says_so_and_the_next_command_works(shell: SshShell) -> None:
    with pytest.raises(InfraError, match=r"ended during `if; then` on the host: .*yntax error"):
        shell.run("if; then")
    assert shell.run("echo next").stdout == "next\n"


# ---- files ----------------------------------------------------------------------------------


def test_read_and_write(shell: SshShell, server: Server) -> None:
    path = str(server.folder / "a file's name")
    for text in ("plain\n", 'it\'s\\n 100% $HOME `x` "q"', "", "-n"):
        shell.write(path, text)
        assert Path(path).read_text() == text
        assert shell.read(path) == text
    with pytest.raises(InfraError, match="cat -- /no/such"):
        shell.read("/no/such")
    with pytest.raises(InfraError, match="/dev/full"):
        shell.write("/dev/full", "x")


def test_put(shell: SshShell, server: Server) -> None:
    local, remote = server.folder / "local", server.folder / "the remote"
    local.write_bytes(os.urandom(300000))
    shell.put(local, str(remote), mode=0o750)
    assert remote.read_bytes() == local.read_bytes()
    assert remote.stat().st_mode & 0o777 == 0o750


def test_put_damaged(shell: SshShell, server: Server) -> None:
    local, remote = server.folder / "local", server.folder / "remote"
    local.write_bytes(b"content" * 1000)
    server.troubles.damage = True
    with pytest.raises(InfraError, match="remote arrived damaged: SHA-256"):
        shell.put(local, str(remote))


def test_put_cut_short(shell: SshShell, server: Server) -> None:
    local, remote = server.folder / "local", server.folder / "remote"
    local.write_bytes(b"content" * 1000)
    server.troubles.truncate = True
    with pytest.raises(InfraError, match="remote arrived damaged: SHA-256"):
        shell.put(local, str(remote))
    assert not remote.exists()


def test_put_keeps_the_file_from_before_unless_all_arrives(shell: SshShell, server: Server) -> None:
    local, remote = server.folder / "local", server.folder / "remote"
    local.write_bytes(b"new")
    remote.write_bytes(b"old")
    server.troubles.damage = True
    with pytest.raises(InfraError, match="damaged"):
        shell.put(local, str(remote))
    server.troubles.damage = False
    assert remote.read_bytes() == b"old"
    shell.put(local, str(remote))
    assert remote.read_bytes() == b"new"
    assert not list(server.folder.glob("*.part"))


def test_put_cut_in_the_middle(shell: SshShell, server: Server) -> None:
    """More than the window of a channel, so that the cut comes while data is sent."""
    local, remote = server.folder / "local", server.folder / "remote"
    local.write_bytes(os.urandom(8 << 20))
    server.troubles.stall_input = True

    def cut() -> None:
        if server.troubles.stalled.wait(20):
            server.cut()

    threading.Thread(target=cut, daemon=True).start()
    with pytest.raises(InfraError, match="copying local to the host failed"):
        shell.put(local, str(remote))
    assert not remote.exists()


def test_put_where_nothing_can_be_put(shell: SshShell, server: Server) -> None:
    local = server.folder / "local"
    local.write_bytes(b"content")
    with pytest.raises(InfraError, match="copying local to the host failed"):
        shell.put(local, "/no/such/folder/x")


def test_put_that_stalls(shell: SshShell, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "PUT_SECONDS", 0.5)
    local = server.folder / "local"
    local.write_bytes(b"content" * 1000)
    server.troubles.stall_input = True
    with pytest.raises(DeadlineExceeded, match="the copy of local on the host to end"):
        shell.put(local, str(server.folder / "remote"))


def test_put_while_the_host_dies(shell: SshShell, server: Server, host: Host) -> None:
    local = server.folder / "local"
    local.write_bytes(b"content" * 1000)
    server.troubles.stall_input = True
    host.dies()
    with pytest.raises(HostDied):
        shell.put(local, str(server.folder / "remote"))


class Relay:
    """Passes a connection on to a server, and in the end takes nothing more of the client."""

    def __init__(self, server: Server) -> None:
        self.takes = 1 << 40
        """So many bytes more it passes on to the server."""
        self._listening = socket.create_server(("127.0.0.1", 0))
        # Inherited by what is accepted.
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        self.address = replace(server.address, port=self._listening.getsockname()[1])
        self._place = ("127.0.0.1", server.address.port)
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        client, _ = self._listening.accept()
        server = socket.create_connection(self._place)
        self._ends += [client, server]
        threading.Thread(target=pump, args=(server, client), daemon=True).start()
        with contextlib.suppress(OSError):
            while self.takes > 0 and (data := client.recv(1 << 12)):
                server.sendall(data)
                self.takes -= len(data)

    def close(self) -> None:
        for end in (self._listening, *self._ends):
            end.close()


@pytest.fixture
def relay(server: Server) -> Iterator[Relay]:
    with contextlib.closing(Relay(server)) as one:
        yield one


@pytest.fixture
def relayed(relay: Relay, host: Host) -> Iterator[SshShell]:
    connection = connect(relay.address, Deadline(20), host.alive)
    connection.transport.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 12)
    with contextlib.closing(SshShell(connection, host.alive)) as one:
        yield one


def threads_that_send() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name == "ssh-call"}


def test_put_to_a_peer_that_takes_nothing(
    relayed: SshShell, relay: Relay, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket is full long before the window of the channel, of which alone paramiko knows."""
    monkeypatch.setattr(ssh, "PUT_SECONDS", 1.0)
    before = threads_that_send()
    local = server.folder / "local"
    local.write_bytes(os.urandom(1 << 20))
    relay.takes = 1 << 15
    with pytest.raises(DeadlineExceeded, match="the copy of local on the host"):
        relayed.put(local, str(server.folder / "remote"))
    for thread in threads_that_send() - before:
        thread.join(20)
        assert not thread.is_alive()


def test_a_panic_ends_a_write_to_a_peer_that_takes_nothing(
    relayed: SshShell, relay: Relay, host: Host
) -> None:
    program = relayed.start(["cat"])
    relay.takes = 1 << 15
    host.dies()
    with pytest.raises(HostDied):
        program.send("x" * (1 << 20))
    program.close()


def test_input_ends_although_the_peer_takes_nothing(relayed: SshShell, relay: Relay) -> None:
    program = relayed.start(["cat"])
    transport = program._channel.get_transport()
    relay.takes = 0
    flood = threading.Thread(target=fill, args=(transport,), daemon=True)
    flood.start()
    flood.join(0.5)
    assert flood.is_alive(), "a full socket is what this is about"
    program.close()
    assert not transport.is_active()
    flood.join(20)
    assert not flood.is_alive()


def fill(transport: paramiko.Transport) -> None:
    """Write to the connection beside its channels until it is closed."""
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        while transport.is_active():
            transport.send_ignore(1 << 14)


# ---- login ----------------------------------------------------------------------------------


def test_another_host_key(server: Server, host: Host, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other")
    wrong = replace(server.address, host_key=f"ssh-ed25519 {other.get_base64()}")
    with pytest.raises(InfraError) as caught:
        connect(wrong, Deadline(20), host.alive)
    assert f"pinned is ssh-ed25519 {other.fingerprint}" in str(caught.value)
    assert f"shows the host key ssh-ed25519 {server.host_key.fingerprint}" in str(caught.value)
    assert server.accepted == 1, "it was tried again"


def test_another_login_key(server: Server, host: Host, tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    with pytest.raises(InfraError, match=r"root@127\.0\.0\.1:\d+ refused the key .*/other"):
        connect(replace(server.address, login_key=tmp_path / "other"), Deadline(20), host.alive)
    assert server.accepted == 1, "it was tried again"


def test_no_key_of_the_users_is_tried(
    server: Server, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the right one."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (server.folder / "login_key").rename(home / ".ssh/id_ed25519")
    (home / ".ssh/config").write_text(f"Host *\n  IdentityFile {home}/.ssh/id_ed25519\n")
    monkeypatch.setenv("HOME", str(home))
    make_key(tmp_path / "other")
    with pytest.raises(InfraError, match="refused the key"):
        connect(replace(server.address, login_key=tmp_path / "other"), Deadline(20), host.alive)


def test_a_server_that_says_nothing(server: Server, host: Host) -> None:
    with (
        silent_server() as port,
        pytest.raises(NoLogin, match=f"no SSH login to 127.0.0.1:{port} within 1 s") as told,
    ):
        connect(replace(server.address, port=port), Deadline(0.6), host.alive)
    assert (told.value.host, told.value.port, told.value.refused) == ("127.0.0.1", port, False)


def test_a_panic_ends_a_login(server: Server, host: Host) -> None:
    with silent_server() as port:
        host.dies()
        deadline = Deadline(20)
        with pytest.raises(HostDied, match="a test"):
            connect(replace(server.address, port=port), deadline, host.alive)
        assert not deadline.expired()


def test_the_last_try_had_no_time_left(
    server: Server, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is told is why those before it failed."""
    said = iter([OSError("no route"), TimeoutError("timed out")])
    _tries(monkeypatch, said)
    with pytest.raises(NoLogin, match="within 1 s: no route"):
        connect(server.address, Deadline(1), host.alive)
    assert not list(said)


def test_a_try_that_had_its_time_tells_why(
    server: Server, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that refused at first, and is silent since."""
    said = iter([OSError("refused"), TimeoutError("timed out")])
    monkeypatch.setattr(ssh, "CONNECT_SECONDS", 0.1)
    _tries(monkeypatch, said)
    with pytest.raises(NoLogin, match="within 1 s: timed out") as told:
        connect(server.address, Deadline(1), host.alive)
    assert told.value.refused
    assert not list(said)


def _tries(monkeypatch: pytest.MonkeyPatch, said: Iterator[Exception]) -> None:
    """Have each try to log in fail with the next of these; a time-out takes until the deadline."""

    def fail(_: object, deadline: Deadline, *rest: object) -> None:
        what = next(said)
        while isinstance(what, TimeoutError) and not deadline.expired():
            time.sleep(0.01)
        raise what

    monkeypatch.setattr(ssh, "_connect_once", fail)


def test_nobody_listens_yet(server: Server, host: Host) -> None:
    with silent_server() as port:
        pass
    with pytest.raises(NoLogin, match="no SSH login") as told:
        connect(replace(server.address, port=port), Deadline(0.3), host.alive)
    assert told.value.refused, "there is a kernel that says so"


# ---- a host that goes away ------------------------------------------------------------------


def test_the_connection_is_cut_during_a_command(shell: SshShell, server: Server) -> None:
    threading.Timer(0.3, server.cut).start()
    deadline = Deadline(20)
    with pytest.raises(InfraError, match=r"connection (ended|broke) during `sleep 60`"):
        shell.run("sleep 60", deadline)
    assert not deadline.expired()
    with pytest.raises(InfraError, match="did not start"):
        shell.run("true")


def test_a_channel_that_cannot_be_closed_hides_no_deadline(
    shell: SshShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.run("true")
    close = paramiko.Channel.close

    def broken(channel: paramiko.Channel) -> None:
        close(channel)
        raise EOFError

    monkeypatch.setattr(paramiko.Channel, "close", broken)
    with pytest.raises(DeadlineExceeded):
        shell.run("sleep 60", Deadline(0.2))
    monkeypatch.undo()


def test_the_connection_is_cut_between_the_two_end_marks(shell: SshShell, server: Server) -> None:
    server.troubles.instead = (
        "while read -r line; do case $line in *--end-*) "
        "mark=${line#*--}; printf '\\n--%s 0\\n' \"${mark%% *}\"; exit;; esac; done"
    )
    deadline = Deadline(20)
    with pytest.raises(InfraError, match="connection ended during `true`"):
        shell.run("true", deadline)
    assert not deadline.expired()


def test_nonsense_for_a_status(shell: SshShell, server: Server) -> None:
    server.troubles.instead = (
        "while read -r line; do case $line in *--end-*) mark=${line#*--}; mark=${mark%% *}; "
        "printf '\\n--%s \\377x\\n' \"$mark\"; printf '\\n--%s\\n' \"$mark\" >&2;; esac; done"
    )
    with pytest.raises(InfraError, match="for an exit status"):
        shell.run("true", Deadline(5))


def test_a_panic_ends_a_wait(shell: SshShell, host: Host) -> None:
    host.dies()
    deadline = Deadline(20)
    with pytest.raises(HostDied, match="a test"):
        shell.run("sleep 60", deadline)
    assert not deadline.expired()


def test_a_panic_ends_a_wait_although_output_comes(shell: SshShell, host: Host) -> None:
    host.dies()
    deadline = Deadline(20)
    with pytest.raises(HostDied):
        shell.run("while :; do echo x; sleep 0.02; done", deadline)
    assert not deadline.expired()


def test_a_dead_host_is_not_asked(shell: SshShell, host: Host) -> None:
    host.questions = 0
    with pytest.raises(HostDied):
        shell.run("true")
    with pytest.raises(HostDied):
        shell.start(["cat"])


def test_a_shell_that_does_not_start(shell: SshShell, server: Server) -> None:
    server.troubles.stall_exec = True
    with pytest.raises(DeadlineExceeded, match="`exec sh`"):
        shell.run("true", Deadline(0.5))


# ---- programs that stay ---------------------------------------------------------------------


def test_a_program_is_talked_to(shell: SshShell) -> None:
    program = shell.start(["cat"])
    for line in ("hello", "", "it's $HOME", "\N{SNOWMAN}" * 50000):
        program.send(line)
        assert program.receive(Deadline(10)) == line
    program.close()
    program.close()


def test_lines_that_come_at_once(shell: SshShell) -> None:
    program = shell.start(["sh", "-c", "printf 'a\\nb\\n\\n'; printf c; sleep 0.1; printf 'd\\ne'"])
    assert [program.receive(Deadline(5)) for _ in range(4)] == ["a", "b", "", "cd"]
    with pytest.raises(EOFError):
        program.receive(Deadline(5))


def test_arguments_arrive_as_they_are(shell: SshShell) -> None:
    argv = ["printf", "%s\\n", "a b", "$HOME", "it's", "*", ""]
    program = shell.start(argv)
    assert [program.receive(Deadline(5)) for _ in argv[2:]] == argv[2:]


def test_the_end_of_a_program_tells_its_errors(shell: SshShell) -> None:
    program = shell.start(["sh", "-c", "echo why >&2; exit 1"])
    with pytest.raises(EOFError, match="sh ended: why"):
        program.receive(Deadline(5))
    assert program.stderr() == "why\n"
    with pytest.raises(InfraError, match="sh to take a line"):
        for _ in range(10):
            program.send("hello")
            time.sleep(0.05)


@pytest.mark.parametrize(
    "script", ["sleep 60", "while :; do printf x; sleep 0.05; done", "while :; do echo e >&2; done"]
)
def test_a_program_that_sends_no_line(shell: SshShell, script: str) -> None:
    program = shell.start(["sh", "-c", script])
    with pytest.raises(DeadlineExceeded, match="a line from sh"):
        program.receive(Deadline(0.5))
    program.close()
    assert shell.run("echo next").stdout == "next\n"


def test_errors_of_a_program_do_not_stop_its_lines(shell: SshShell) -> None:
    """SSH has one window for both: 2 MiB that nobody takes would block the program."""
    program = shell.start(["sh", "-c", "yes e | head -c 4000000 >&2; echo line"])
    assert program.receive(Deadline(20)) == "line"
    with pytest.raises(EOFError) as caught:
        program.receive(Deadline(5))
    assert len(str(caught.value)) < 2000
    assert len(program.stderr()) == 4000000


def test_a_line_beyond_all_bounds(shell: SshShell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "MAX_OUTPUT", 1 << 20)
    program = shell.start(["sh", "-c", "while :; do printf '%01000d' 0; done"])
    with pytest.raises(InfraError, match="a line of more than 1 MiB"):
        program.receive(Deadline(20))
    program.close()


def test_a_panic_ends_the_wait_for_a_line(shell: SshShell, host: Host) -> None:
    program = shell.start(["cat"])
    host.dies()
    deadline = Deadline(20)
    with pytest.raises(HostDied):
        program.receive(deadline)
    assert not deadline.expired()


def test_closing_ends_a_program_that_reads(shell: SshShell, server: Server) -> None:
    program = shell.start(["cat"])
    program.send("x")
    assert program.receive(Deadline(5)) == "x"
    program.close()
    assert server.processes[-1].wait(5) == 0
    with pytest.raises(InfraError):
        program.send("y")
    with pytest.raises(EOFError):
        program.receive(Deadline(5))
