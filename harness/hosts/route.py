# SPDX-License-Identifier: GPL-2.0-only
"""The way to a machine of the lab: its SSH server, by way of others, each with its pinned key."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from fabric import Connection
from paramiko.pkey import UnknownKeyType

from harness.deadline import Deadline
from harness.errors import InfraError, UsageError
from harness.hosts import ssh
from harness.hosts.pins import pin_name, to_key
from harness.hosts.ssh import HostKeyChanged, SshAddress, SshShell
from harness.inventory import SshHost, SshServer

Alive = Callable[[], None]
# For a first look at a machine: to log in, and for what is asked then.
CONTACT_SECONDS = 30.0


def way_to(host: SshHost) -> tuple[SshServer, ...]:
    """The SSH servers from the controller to a host, the host itself the last."""
    return (*host.jump, host)


@contextlib.contextmanager
def open_shell(
    name: str,
    host: SshHost,
    pins: Mapping[str, str],
    deadline: Deadline,
    alive: Alive = ssh.nothing,
    *,
    root: bool = True,
    slowdown: float = 1.0,
) -> Iterator[SshShell]:
    """A shell on the host `name` of the inventory, by as many connections as its way has.

    It is root's, unless that of the login is wanted; `slowdown` is as that of SshShell. UsageError
    for a server whose key is not pinned, with the key that it shows; HostKeyChanged for one that
    shows another; InfraError and DeadlineExceeded if it lets nobody in.
    """
    with contextlib.ExitStack() as stack:
        via: Connection | None = None
        for server, pinned in _pinned(name, host, pins):
            if pinned is None:
                raise _first_contact(name, server, deadline, alive, via)
            try:
                via = ssh.connect(address_of(server, pinned), deadline, alive, via)
            except HostKeyChanged as exc:
                raise HostKeyChanged(
                    f"{exc}\nSomebody may be in between. If it was set up anew: "
                    f"`kvm-harness hosts retrust {name}`"
                ) from exc
            stack.callback(ssh.disconnect, via)
        assert via is not None, "a way has at least the host"
        yield SshShell(via, alive, slowdown, sudo=root and host.user != "root")


def _pinned(
    name: str, host: SshHost, pins: Mapping[str, str]
) -> Iterator[tuple[SshServer, str | None]]:
    """Each server on the way with its pinned key, after its login key has been looked at."""
    way = way_to(host)
    for server in way:
        require_login_key(name, server)
    for at, server in enumerate(way, 1):
        yield server, pins.get(pin_name(way[:at]))


def require_login_key(name: str, server: SshServer) -> None:
    """UsageError if there is no agent, or the key file holds none that needs no passphrase."""
    if server.key is None:
        if not os.environ.get("SSH_AUTH_SOCK"):
            raise UsageError(f"host {name!r} has `agent: true`, but $SSH_AUTH_SOCK names no agent")
        return
    path = server.key.expanduser()
    try:
        paramiko.PKey.from_path(path)
    except TypeError:
        problem = "it has a passphrase: let an ssh-agent hold it, and say `agent: true`"
    except OSError as exc:
        problem = str(exc.strerror)
    except (ValueError, paramiko.SSHException, UnknownKeyType, UnsupportedAlgorithm) as exc:
        problem = f"not a private key: {exc}"
    else:
        return
    raise UsageError(f"host {name!r}: the login key {path}: {problem}")


def address_of(server: SshServer, pinned: str) -> SshAddress:
    """What connect() needs for a server with this host key."""
    key = server.key.expanduser() if server.key is not None else None
    return SshAddress(server.address, server.port, server.user, pinned, key)


def _first_contact(
    name: str, server: SshServer, deadline: Deadline, alive: Alive, via: Connection | None
) -> UsageError:
    seen = shown_key(server, deadline, alive, via)
    return UsageError(
        f"the host key of {server.address}:{server.port} is not pinned; it shows "
        f"{ssh.describe(seen)}\nCompare that with the machine's own "
        "(ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub there), then type "
        f"`kvm-harness hosts trust {name}`"
    )


def shown_key(
    server: SshServer,
    deadline: Deadline,
    alive: Alive = ssh.nothing,
    via: Connection | None = None,
    pinned: str | None = None,
) -> paramiko.PKey:
    """The host key that a server shows now, without logging in.

    Where it has several, that of the type of the one that is pinned. InfraError, DeadlineExceeded.
    """
    place = f"{server.address}:{server.port}"
    try:
        stream = ssh.open_stream(server.address, server.port, deadline, alive, via)
        with (
            contextlib.closing(stream),
            contextlib.closing(paramiko.Transport(stream)) as transport,
        ):
            if (key := to_key(pinned)) is not None:
                _prefer(transport.get_security_options(), key.get_name())
            seconds = max(1.0, min(ssh.CONNECT_SECONDS, deadline.remaining()))
            transport.banner_timeout = seconds
            transport.start_client(timeout=seconds)
            return transport.get_remote_server_key()
    except (OSError, EOFError, paramiko.SSHException) as exc:
        deadline.check(f"{place} to show its host key")
        raise InfraError(f"{place} shows no host key: {exc or type(exc).__name__}") from exc


def _prefer(options: paramiko.SecurityOptions, kind: str) -> None:
    """Ask for a type of key first; one of RSA has other names as an algorithm (RFC 8332)."""
    names = {kind} if kind != "ssh-rsa" else {"rsa-sha2-512", "rsa-sha2-256"}
    options.key_types = sorted(options.key_types, key=lambda one: one not in names)
