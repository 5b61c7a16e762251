# SPDX-License-Identifier: GPL-2.0-only
"""Kernels built on another machine: here a real sh behind an SSH server, and a toy tree.

util-linux' unshare and setpriv stand aside unless a test is about them: they need root.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hosts_helpers import Server
from kernel_helpers import AGE, as_mail, edit, soon, toy_source

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts import builder, ssh
from harness.hosts import gate as gate_module
from harness.hosts import userspace as userspace_module
from harness.hosts.builder import MachineBuilder, compiler, unpack
from harness.hosts.ssh import SshShell
from harness.kernel import apply, build, series, toolchain
from harness.kernel.bench import Order
from harness.kernel.build import KernelBuildError
from harness.kernel.built import Kernel
from harness.kernel.machine import MachineConfig
from harness.kernel.source import Source

OWN = MachineConfig(
    "CONFIG_KVM=m\nCONFIG_SWAP=y\nCONFIG_NR_CPUS=512\nCONFIG_EXT4_FS=m\nCONFIG_XFS_FS=m\n",
    ("ext4_fs",),
)
# Takes their options and no more.
ASIDE = '#!/bin/sh\nwhile [ "$1" != {next} ]; do shift; done\nexec "$@"\n'
CONFINES = subprocess.run(
    ["unshare", "--net", "--pid", "--fork", "--mount-proc", "true"], capture_output=True
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "server/bin").mkdir(parents=True)
    with contextlib.closing(Server(tmp_path / "server")) as one:
        yield one


@pytest.fixture
def shell(server: Server) -> Iterator[SshShell]:
    one = SshShell(ssh.connect(server.address, Deadline(20)))
    yield one
    one.close()


@pytest.fixture
def aside(server: Server) -> None:
    """Nobody is confined."""
    for name, following in (("unshare", "setpriv"), ("setpriv", "env")):
        program(server, name, ASIDE.format(next=following))
    program(server, "chown", "#!/bin/sh\n")


@pytest.fixture
def there(server: Server, shell: SshShell, tmp_path: Path, aside: None) -> MachineBuilder:
    return machine(shell, tmp_path)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/kvm-harness/kernel"


@pytest.fixture
def fragment(tmp_path: Path) -> Path:
    path = tmp_path / "a.config"
    path.write_text("CONFIG_KVM=y\nCONFIG_NR_CPUS=4\n# CONFIG_SWAP is not set\n")
    return path


def program(server: Server, name: str, text: str) -> None:
    path = server.folder / "bin" / name
    path.write_text(text)
    path.chmod(0o755)


def machine(shell: SshShell, folder: Path) -> MachineBuilder:
    (folder / "work").mkdir()
    found = compiler(shell, Deadline(60))
    return MachineBuilder("lab", shell, lambda: None, found, str(folder / "work"))


def patched(tmp_path: Path, source: Source, diff: str) -> apply.PatchedTree:
    (tmp_path / "t.mbox").write_text(as_mail("[PATCH] x", diff))
    return apply.apply(series.load(str(tmp_path / "t.mbox")), source, soon())


@pytest.mark.integration
def test_a_kernel_is_the_same_wherever_it_was_built(
    there: MachineBuilder,
    own_cache: Path,
    tmp_path: Path,
    fragment: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = toy_source(tmp_path)
    tree = patched(tmp_path, source, edit("kvm/mmu.c", AGE))

    def built(
        tree: Source | apply.PatchedTree, base: Kernel | None, on: MachineBuilder | None
    ) -> Kernel:
        return build.build(
            tree, fragments=[fragment], base=base, machine=OWN, builder=on, deadline=soon()
        )

    # All options, and not those alone that are of two kinds at once.
    assert there.found.tools.defaults.count("\n") > 200
    base = built(source, None, there)
    assert (base.builder, base.build_dir, base.cached) == ("lab", None, False)
    assert base.modules is not None
    with tarfile.open(base.modules) as tar:
        assert {one.name for one in tar} == {
            f"{base.release}/{name}" for name in ("config", "kernel/EXT4_FS.ko")
        }
    assert "LD      vmlinux" in base.log.read_text()
    series = built(tree, base, there)
    assert series.config_sha256 == base.config_sha256 and series.build_id != base.build_id
    assert list((tmp_path / "work").iterdir()) == [], "nothing is left there"
    # The controller finds both under the name that its own would have.
    assert built(source, None, None) == base.model_copy(update={"cached": True})
    assert built(tree, base, None).build_id == series.build_id

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    cross = built(toy_source(tmp_path), None, None)
    assert (cross.builder, cross.cached) == ("", False)
    assert (cross.key, cross.build_id, cross.image_sha256, cross.modules_sha256) == (
        (base.key, base.build_id, base.image_sha256, base.modules_sha256)
    )


@pytest.mark.integration
def test_a_series_that_does_not_compile_there(
    there: MachineBuilder, own_cache: Path, tmp_path: Path, fragment: Path
) -> None:
    tree = patched(tmp_path, toy_source(tmp_path), edit("kvm/mmu.c", {"page + 1": "nonsense"}))
    with pytest.raises(KernelBuildError, match="nonsense"):
        build.build(
            tree, fragments=[fragment], base=None, machine=OWN, builder=there, deadline=soon()
        )
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.integration
@pytest.mark.skipif(CONFINES.returncode != 0, reason="unshare(1) needs root, and may not")
def test_what_is_built_there_reaches_nothing_else(
    server: Server, shell: SshShell, tmp_path: Path, own_cache: Path
) -> None:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        # As many as pytest has made, which are more with several workers.
        if parent.name.startswith(("pytest-", "popen-")):
            parent.chmod(0o755)
    one = machine(shell, tmp_path)
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0o600)
    tries = {
        "reads what is root's": f"cat {tmp_path}/secret",
        "writes where files are given": f"touch {one.given}/x",
        "sees another process": "ls /proc | grep -qx '[0-9][0-9][0-9]*' && test -e /proc/300",
        "has a network": "test -n \"$(sed 1,2d /proc/net/dev | grep -v ' lo:')\"",
        "has a capability": "grep -q '^CapEff:.*[1-9a-f]' /proc/self/status",
    }
    order = order_for(toy_source(tmp_path), tmp_path)
    with one.bench(order) as bench:
        assert isinstance(bench, builder._There)
        for what, script in tries.items():
            with pytest.raises(InfraError, match="failed"):
                bench.do(script, what)
        bench.do(f"touch {bench.folder}/mine && id -u | grep -qx {builder.USER}", "itself")
        bench.do(f"ln -s {tmp_path}/secret {bench.folder}/.config", "a link")
        with pytest.raises(InfraError, match=r"no \.config on the host"):
            bench.read(".config")
        bench.put(".config", "CONFIG_KVM=y\n")
        assert bench.read(".config") == "CONFIG_KVM=y\n"
        assert (tmp_path / "secret").read_text() == "x"


def order_for(source: Source, tmp_path: Path) -> Order:
    for name in ("stage", "out"):
        (tmp_path / name).mkdir()
    return Order(
        source.dir, source.digest, "", tmp_path / "stage", tmp_path / "out", lambda _: None, soon()
    )


@pytest.mark.integration
def test_what_was_started_there_ends_with_the_connection(
    server: Server, there: MachineBuilder, own_cache: Path, tmp_path: Path
) -> None:
    stamp = f"1{os.getpid()}.3"
    with (
        pytest.raises(InfraError),
        there.bench(order_for(toy_source(tmp_path), tmp_path)) as bench,
    ):
        assert isinstance(bench, builder._There)
        process = there.shell.start(
            ["sh", "-c", builder._CONFINED, "sh", f"echo on; exec sleep {stamp}", "m", "/tmp"]
        )
        assert process.receive(Deadline(20)) == "on"
        process.close()
        limit = Deadline(20)
        while any(stamp in text for text in commands()):
            limit.check("the end of what was started")
            time.sleep(0.05)
        server.cut()
        bench.read(".config")


def commands() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_text().replace("\0", " ")


def test_the_compiler_is_asked_for_in_a_line(shell: SshShell, server: Server) -> None:
    """A machine whose tools have no prefix."""
    for name in ("gcc", "ld"):
        program(
            server,
            name,
            '#!/bin/sh\ncase "$1 $LC_ALL" in\n"-v C") echo "VERSION 14.2 (Fedora)" >&2 ;;\n'
            "*) printf '  -march=\\t\\tarmv8-a\\n' ;;\nesac\n".replace(
                "VERSION", {"gcc": "gcc version", "ld": "GNU ld"}[name]
            ),
        )
    program(server, "nproc", "#!/bin/sh\necho 80\n")
    found = compiler_without_prefix(shell)
    assert (found.prefix, found.cpus) == ("", 80)
    assert found.tools.target[0] == "gcc version 14.2 (Fedora)"


def compiler_without_prefix(shell: SshShell) -> builder.Compiler:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toolchain, "PREFIX", "no-such-")
        return compiler(shell, Deadline(20))


def packed(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size) if member.isreg() else None)
    return path


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 1
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = size if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (member("../x"), "cannot be unpacked"),
        (member("/etc/x"), None),
        (member("a", tarfile.LNKTYPE, "/etc/passwd"), "neither a file nor a folder"),
        (member("a", tarfile.CHRTYPE), "neither a file nor a folder"),
        (member("a", tarfile.FIFOTYPE), "neither a file nor a folder"),
        (member("a", tarfile.SYMTYPE, "/etc"), None),
    ],
)
def test_what_a_machine_sends_is_files_below_a_folder(
    tmp_path: Path, what: tarfile.TarInfo, words: str | None
) -> None:
    (tmp_path / "out").mkdir()
    archive = packed(tmp_path / "a.tar.gz", what)
    if words is None:
        unpack(archive, tmp_path / "out")
    else:
        with pytest.raises(InfraError, match=words):
            unpack(archive, tmp_path / "out")
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path != archive}
    assert found <= {"out", "out/etc", "out/etc/x"}


def test_what_is_cut_off_is_no_kernel(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.tar.gz", tarfile.TarInfo("a"))
    archive.write_bytes(archive.read_bytes()[:-12])
    with pytest.raises(InfraError, match="cannot be unpacked"):
        unpack(archive, tmp_path)


def test_base64_that_is_none_is_shown() -> None:
    with pytest.raises(InfraError, match="sent no kernel, but 'tar: no space'"):
        builder._unarmoured("tar: no space", io.BytesIO())


def test_a_machine_builds_at_home_under_a_lease_and_is_left_without_its_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []

    def note(words: str, answer: object = None) -> Callable[..., object]:
        def stand_in(*_: object, **__: object) -> object:
            done.append(words)
            return answer

        return stand_in

    @contextlib.contextmanager
    def at_home(name: str, _: object, run: str, *__: object) -> Iterator[tuple[object, ...]]:
        done.append(f"{name} at home for {run}")
        reached = SimpleNamespace(shell=lambda _: contextlib.nullcontext("a shell"))
        yield reached, SimpleNamespace(check=note("still ours")), None
        done.append("given back")

    found = builder.Compiler("", toolchain.Toolchain("", ""), 80)
    for name, stand_in in {
        "at_home": at_home,
        "compiler": note("asked for its compiler", found),
        "examine": note("examined"),
    }.items():
        monkeypatch.setattr(builder, name, stand_in)
    monkeypatch.setattr(userspace_module, "clear", note("cleared"))
    monkeypatch.setattr(gate_module, "admit", note("well"))
    monkeypatch.setattr(gate_module, "settled", note("settled"))
    with builder.builder_on("lab", cast(Any, None), "run-1", 5, print) as made:
        assert (made.name, made.found) == ("lab", found)
        done.append("built")
    assert done == [
        *("lab at home for run-1", "still ours", "cleared", "well"),
        *("asked for its compiler", "built", "examined", "settled", "given back"),
    ]
