# SPDX-License-Identifier: GPL-2.0-only
"""The way to a machine: pinned keys, jump hosts, sudo, an agent; against real SSH servers."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest
from hosts_helpers import Server, make_key, put_sudo, silent_server

from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, InfraError, UsageError
from harness.hosts import pins, ssh
from harness.hosts import trust as trust_module
from harness.hosts.route import open_shell, way_to
from harness.hosts.ssh import HostKeyChanged
from harness.hosts.trust import Offer, trust
from harness.inventory import SshHost, SshServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with contextlib.closing(Server(tmp_path)) as one:
        yield one


@pytest.fixture
def jump(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "jump").mkdir()
    with contextlib.closing(Server(tmp_path / "jump", "guest")) as one:
        yield one


def place(server: Server) -> SshServer:
    at = server.address
    return SshServer(address=at.host, port=at.port, user=at.user, key=at.login_key)


def host_at(server: Server, *jumps: Server) -> SshHost:
    fields = place(server).model_dump()
    return SshHost(
        kind="ssh", kvm_modes=("vhe",), af="hardware", jump=tuple(map(place, jumps)), **fields
    )


def known(host: SshHost, *servers: Server) -> dict[str, str]:
    way = way_to(host)
    return {
        pins.pin_name(way[:at]): server.address.host_key for at, server in enumerate(servers, 1)
    }


# ---- the way --------------------------------------------------------------------------------


def test_a_shell(server: Server) -> None:
    host = host_at(server)
    with open_shell("lab", host, known(host, server), Deadline(20)) as shell:
        assert shell.run("echo there").stdout == "there\n"


def test_by_way_of_a_jump_host(server: Server, jump: Server) -> None:
    host = host_at(server, jump)
    local = server.folder / "local"
    local.write_bytes(b"content" * 100000)
    with open_shell("lab", host, known(host, jump, server), Deadline(20)) as shell:
        assert shell.run("pwd").stdout.strip() == str(server.folder)
        shell.put(local, str(server.folder / "remote"))
    assert jump.forwarded == [("127.0.0.1", server.address.port)]
    assert jump.processes == []
    assert (server.folder / "remote").read_bytes() == local.read_bytes()


def test_nobody_behind_the_jump_host(server: Server, jump: Server) -> None:
    host, pinned = host_at(server, jump), known(host_at(server, jump), jump, server)
    server.close()
    with (
        pytest.raises(DeadlineExceeded, match=f"no SSH login to 127.0.0.1:{host.port} .*Connect"),
        open_shell("lab", host, pinned, Deadline(8)),
    ):
        pass


def test_a_jump_host_that_leads_to_silence(jump: Server) -> None:
    with silent_server() as port:
        host = host_at(jump, jump).model_copy(update={"port": port})
        pinned = known(host, jump, jump)
        with pytest.raises(DeadlineExceeded), open_shell("lab", host, pinned, Deadline(0.5)):
            pass


def test_keep_alive(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "KEEPALIVE_SECONDS", 0.1)
    host = host_at(server)
    with open_shell("lab", host, known(host, server), Deadline(20)):
        assert server.kept_alive.wait(20)


def test_a_connection_does_not_wait_for_delayed_acks_nor_for_the_dead(server: Server) -> None:
    with contextlib.closing(
        ssh.open_stream("127.0.0.1", server.address.port, Deadline(5), ssh.nothing, None)
    ) as stream:
        assert isinstance(stream, socket.socket)
        assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        lost = stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert lost == ssh.LOST_SECONDS * 1000


def test_a_name_that_is_looked_up_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()

    def lookup(*args: object) -> list[object]:
        end.wait(20)
        raise OSError("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    try:
        with pytest.raises(TimeoutError):
            ssh.open_stream("lab.example", 22, Deadline(0.2), ssh.nothing, None)
    finally:
        end.set()


# ---- sudo -----------------------------------------------------------------------------------


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[Server]:
    with contextlib.closing(Server(tmp_path, "admin")) as one:
        yield one


def test_a_user_becomes_root_by_sudo(admin: Server) -> None:
    log, host = put_sudo(admin), host_at(admin)
    local = admin.folder / "local"
    local.write_bytes(b"content")
    with open_shell("lab", host, known(host, admin), Deadline(20)) as shell:
        shell.run("true")
        assert log.read_text() == "-n -- sh "
        shell.put(local, str(admin.folder / "remote"))
        assert shell.start(["echo", "it's"]).receive(Deadline(20)) == "it's"
    assert "-n -- sh -c" in log.read_text()
    assert log.read_text().endswith("-n -- echo it's ")
    assert (admin.folder / "remote").read_bytes() == b"content"


def test_sudo_that_wants_a_password(admin: Server) -> None:
    put_sudo(admin)
    (admin.folder / "sudo.refuses").touch()
    (admin.folder / "local").touch()
    host = host_at(admin)
    with open_shell("lab", host, known(host, admin), Deadline(20)) as shell:
        with pytest.raises(InfraError, match="sudo: a password is required"):
            shell.run("true")
        with pytest.raises(InfraError, match="sudo: a password is required"):
            shell.put(admin.folder / "local", "/nowhere")
    with open_shell("lab", host, known(host, admin), Deadline(20), root=False) as shell:
        assert shell.run("echo there").stdout == "there\n"


# ---- login keys -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file"),
        ("", "not a private key"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA x\n", "not a private key"),
    ],
)
def test_no_login_key(server: Server, tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "key"
    if text is not None:
        path.write_text(text)
    host = host_at(server).model_copy(update={"key": path})
    with (
        pytest.raises(UsageError, match=f"host 'lab': the login key {path}: {words}"),
        open_shell("lab", host, known(host, server), Deadline(20)),
    ):
        pass


def test_a_login_key_with_a_passphrase(server: Server, tmp_path: Path) -> None:
    make_key(tmp_path / "key", "secret")
    host = host_at(server).model_copy(update={"key": tmp_path / "key"})
    with (
        pytest.raises(UsageError, match="it has a passphrase: let an ssh-agent hold it"),
        open_shell("lab", host, known(host, server), Deadline(20)),
    ):
        pass


class Agent:
    """An ssh-agent (draft-miller-ssh-agent)."""

    def __init__(self, path: Path, *keys: paramiko.PKey) -> None:
        self._keys = keys
        self.asked: list[int] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError, struct.error):
            while True:
                sock, _ = self._socket.accept()
                threading.Thread(target=self._talk, args=(sock,), daemon=True).start()

    def _talk(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:
            while head := sock.recv(4, socket.MSG_WAITALL):
                request = paramiko.Message(sock.recv(struct.unpack(">I", head)[0]))
                kind = request.get_byte()[0]
                self.asked.append(kind)
                answer = paramiko.Message()
                if kind == 11:
                    answer.add_byte(b"\x0c")
                    answer.add_int(len(self._keys))
                    for key in self._keys:
                        answer.add_string(key.asbytes())
                        answer.add_string("a test's")
                else:
                    blob, data = request.get_binary(), request.get_binary()
                    (key,) = [one for one in self._keys if one.asbytes() == blob]
                    answer.add_byte(b"\x0e")
                    answer.add_string(key.sign_ssh_data(data).asbytes())
                reply = answer.asbytes()
                sock.sendall(struct.pack(">I", len(reply)) + reply)

    def close(self) -> None:
        self._socket.close()


def test_an_agent_is_asked_only_if_the_inventory_says_so(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    with contextlib.closing(Agent(tmp_path / "agent", server.login_key)) as agent:
        make_key(tmp_path / "other")
        host = host_at(server).model_copy(update={"key": tmp_path / "other"})
        with (
            pytest.raises(InfraError, match=f"refused the key {tmp_path}/other"),
            open_shell("lab", host, known(host, server), Deadline(20)),
        ):
            pass
        assert agent.asked == []
        by_agent = host.model_copy(update={"key": None, "agent": True})
        with open_shell("lab", by_agent, known(host, server), Deadline(20)) as shell:
            assert shell.run("echo there").stdout == "there\n"
        assert 13 in agent.asked


def test_an_agent_without_the_key(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = host_at(server).model_copy(update={"key": None, "agent": True})
    other = make_key(tmp_path / "other")
    for number, (keys, words) in enumerate(
        [((), "the ssh-agent holds no key"), ((other,), "refused every key of the agent")]
    ):
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / f"agent{number}"))
        with (
            contextlib.closing(Agent(tmp_path / f"agent{number}", *keys)),
            pytest.raises(InfraError, match=words),
            open_shell("lab", host, known(host, server), Deadline(20)),
        ):
            pass


def test_no_agent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    host = host_at(server).model_copy(update={"key": None, "agent": True})
    with (
        pytest.raises(UsageError, match="SSH_AUTH_SOCK names no agent"),
        open_shell("lab", host, known(host, server), Deadline(20)),
    ):
        pass


def test_an_agent_that_says_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does that was forwarded over a connection that is gone."""
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    host = host_at(server).model_copy(update={"key": None, "agent": True})
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(tmp_path / "agent"))
        agent.listen()
        with (
            pytest.raises(DeadlineExceeded, match="no SSH login"),
            open_shell("lab", host, known(host, server), Deadline(1)),
        ):
            pass


# ---- host keys ------------------------------------------------------------------------------


def test_first_contact_is_refused_with_the_key_and_what_to_type(server: Server) -> None:
    host = host_at(server)
    with (
        pytest.raises(UsageError) as caught,
        open_shell("lab", host, {}, Deadline(20)),
    ):
        pass
    assert f"it shows ssh-ed25519 {server.host_key.fingerprint}" in str(caught.value)
    assert "`kvm-harness hosts trust lab`" in str(caught.value)


def test_a_jump_host_is_pinned_as_well(server: Server, jump: Server) -> None:
    host = host_at(server, jump)
    pinned = known(host, jump, server)
    del pinned[pins.pin_name([place(jump)])]
    with (
        pytest.raises(UsageError, match=jump.host_key.fingerprint.replace("+", r"\+")),
        open_shell("lab", host, pinned, Deadline(20)),
    ):
        pass
    assert jump.forwarded == []


def test_the_same_address_by_another_way_is_another_machine(server: Server, jump: Server) -> None:
    pinned = known(host_at(server), server) | known(host_at(server, jump), jump)
    with (
        pytest.raises(UsageError, match="is not pinned"),
        open_shell("lab", host_at(server, jump), pinned, Deadline(20)),
    ):
        pass


def test_a_changed_key_is_refused_with_both_and_what_to_type(
    server: Server, tmp_path: Path
) -> None:
    host, other = host_at(server), make_key(tmp_path / "other")
    pinned = {pins.pin_name([host]): pins.text_of(other)}
    with (
        pytest.raises(HostKeyChanged) as caught,
        open_shell("lab", host, pinned, Deadline(20)),
    ):
        pass
    assert server.host_key.fingerprint in str(caught.value)
    assert other.fingerprint in str(caught.value)
    assert "`kvm-harness hosts retrust lab`" in str(caught.value)


def test_a_pinned_key_of_another_type_is_a_changed_one(server: Server) -> None:
    host, other = host_at(server), paramiko.RSAKey.generate(2048)
    pinned = {pins.pin_name([host]): pins.text_of(other)}
    with (
        pytest.raises(HostKeyChanged, match="pinned is ssh-rsa SHA256:"),
        open_shell("lab", host, pinned, Deadline(20)),
    ):
        pass


# ---- to pin ---------------------------------------------------------------------------------


class Person:
    """Somebody who is asked, and what was said to them."""

    def __init__(self, answer: bool = True) -> None:
        self.answer = answer
        self.offers: list[Offer] = []
        self.told: list[str] = []

    def accept(self, offer: Offer) -> bool:
        self.offers.append(offer)
        return self.answer

    def ask(self, host: SshHost, path: Path, *, replace: bool = False) -> None:
        say = self.told.append
        trust("lab", host, path, self.accept, say, replace=replace)


def test_what_is_agreed_to_is_pinned(server: Server, jump: Server, tmp_path: Path) -> None:
    host, path, person = host_at(server, jump), tmp_path / "state" / "known_hosts", Person()
    person.ask(host, path)
    assert [offer.seen for offer in person.offers] == [jump.host_key, server.host_key]
    assert pins.load(path) == known(host, jump, server)
    with open_shell("lab", host, pins.load(path), Deadline(20)) as shell:
        shell.run("true")
    again = Person()
    again.ask(host, path)
    assert again.offers == []
    assert [server.host_key.fingerprint in told for told in again.told] == [False, True]


def test_time_to_think_is_no_servers(
    server: Server, jump: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thought = [0.0]

    class Slow(Person):
        def accept(self, offer: Offer) -> bool:
            thought[0] += 3600
            return super().accept(offer)

    def clock() -> float:
        return time.monotonic() + thought[0]

    monkeypatch.setattr(trust_module, "Deadline", lambda seconds: Deadline(seconds, clock))
    host, path = host_at(server, jump), tmp_path / "known_hosts"
    Slow().ask(host, path)
    assert pins.load(path) == known(host, jump, server)


def test_what_is_not_agreed_to_is_not_pinned_nor_gone_beyond(
    server: Server, jump: Server, tmp_path: Path
) -> None:
    person = Person(answer=False)
    with pytest.raises(UsageError, match="not pinned"):
        person.ask(host_at(server, jump), tmp_path / "known_hosts")
    assert len(person.offers) == 1
    assert jump.forwarded == []
    assert not (tmp_path / "known_hosts").exists()


def test_a_changed_key_needs_retrust(server: Server, tmp_path: Path) -> None:
    host, path, other = host_at(server), tmp_path / "known_hosts", make_key(tmp_path / "other")
    pins.pin(path, pins.pin_name([host]), other)
    pins.pin(path, "[elsewhere]:22", other)
    person = Person()
    with pytest.raises(HostKeyChanged) as caught:
        person.ask(host, path)
    assert person.offers == []
    assert server.host_key.fingerprint in str(caught.value)
    assert other.fingerprint in str(caught.value)
    assert pins.load(path)[pins.pin_name([host])] == pins.text_of(other)
    person.ask(host, path, replace=True)
    assert str(person.offers[0]).count("SHA256:") == 2
    assert pins.load(path) == known(host, server) | {"[elsewhere]:22": pins.text_of(other)}


def test_a_pinned_key_is_asked_for_by_its_type(server: Server, tmp_path: Path) -> None:
    """A server that has got one of a better liked type since then has not changed."""
    host, path, rsa = host_at(server), tmp_path / "known_hosts", paramiko.RSAKey.generate(2048)
    server.more_keys.append(rsa)
    pins.pin(path, pins.pin_name([host]), rsa)
    person = Person()
    person.ask(host, path)
    assert person.offers == []
    with open_shell("lab", host, pins.load(path), Deadline(20)) as shell:
        shell.run("true")


def test_nobody_shows_a_key(tmp_path: Path) -> None:
    with silent_server() as port:
        nobody = SshHost(
            kind="ssh",
            kvm_modes=("vhe",),
            af="hardware",
            address="127.0.0.1",
            port=port,
            agent=True,
        )
        with pytest.raises(DeadlineExceeded, match="to show its host key"):
            trust("lab", nobody, tmp_path / "x", Person().accept, print, seconds=0.3)
