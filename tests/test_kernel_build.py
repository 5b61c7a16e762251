# SPDX-License-Identifier: GPL-2.0-only
"""Builds of the toy tree through the real sandbox, tuxmake and compiler: a second or two each."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command import INTERRUPTIBLE
from kernel_helpers import AGE, as_mail, create, edit, soon, toy_source, toy_tree

from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, InfraError
from harness.kernel import apply, build, buildlog, cache, config, series
from harness.kernel.built import Kernel
from harness.kernel.machine import MachineConfig
from harness.kernel.source import Source, resolve


def test_nothing_is_compiled_with_pages_that_checks_do_not_know(tmp_path: Path) -> None:
    text = "CONFIG_ARM64_16K_PAGES=y\n"
    bench: Any = SimpleNamespace(make=lambda *_: 0, read=lambda _: text)
    job: Any = SimpleNamespace(
        machine=None, fragments=config.Fragments("", {}), tree=SimpleNamespace(dir=tmp_path)
    )
    with pytest.raises(config.ConfigError, match="comes out with pages of 16 KiB"):
        build._configure(bench, job, tmp_path / "build.log")


def test_a_build_folder_of_another_source_is_not_built_upon(tmp_path: Path) -> None:
    here = tmp_path / "x"
    kernel = Kernel(
        key="k", image=here, vmlinux=here, system_map=here, config=here, log=here,
        build_dir=here, build_id="00", config_sha256="0", image_sha256="0", release="6.12",
        tree="one", incremental=False, seconds=1, steps=1,
    )  # fmt: skip
    tree = apply.PatchedTree(
        dir=here, digest="d", source_digest="one", version="6.12", description="it", touched=()
    )
    assert build._base_folder(tree, kernel) == here
    with pytest.raises(ValueError, match="not built from the source"):
        build._base_folder(tree.model_copy(update={"source_digest": "two"}), kernel)


@pytest.fixture
def fragment(tmp_path: Path) -> Path:
    path = tmp_path / "a.config"
    path.write_text("CONFIG_KVM=y\nCONFIG_NR_CPUS=4\n# CONFIG_SWAP is not set\n")
    return path


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/kvm-harness/kernel"


def with_series(
    tmp_path: Path, source: Source | apply.PatchedTree, *diffs: str
) -> apply.PatchedTree:
    mails = [as_mail(f"[PATCH {n}/{len(diffs)}] {n}", text) for n, text in enumerate(diffs, 1)]
    (tmp_path / "t.mbox").write_text("".join(mails))
    return apply.apply(series.load(str(tmp_path / "t.mbox")), source, soon())


def makefile(text: str) -> str:
    """A diff that lets the tree's Makefile run a line of shell when it links."""
    line = "\t@echo '  LD      vmlinux'\n"
    return edit("Makefile", {line: f"{line}\t@{text}\n"})


def nothing_half_made(own_cache: Path, store: str = "builds") -> bool:
    staged = list((own_cache / "staging").iterdir())
    built = [p for p in (own_cache / store).iterdir() if not (p / "kernel.json").exists()]
    return not staged and not built


@pytest.mark.integration
def test_base_then_patched_then_cached(own_cache: Path, tmp_path: Path, fragment: Path) -> None:
    source = toy_source(tmp_path)
    # The series is applied first: its files are older than the base's objects.
    tree = with_series(tmp_path, source, edit("kvm/mmu.c", AGE))
    seen: list[buildlog.BuildProgress] = []
    base = build.build(source, fragments=[fragment], base=None, deadline=soon())
    patched = build.build(
        tree, fragments=[fragment], base=base, deadline=soon(), progress=seen.append
    )
    assert not base.cached and not patched.cached and patched.incremental
    assert re.fullmatch("[0-9a-f]{40}", base.build_id) and base.build_id != patched.build_id
    assert base.release == "6.12.1-toy"
    assert "CONFIG_NR_CPUS=4\n" in base.config.read_text()
    assert [p.current for p in seen] == ["CC kvm/mmu.o", "LD vmlinux"]
    assert seen[-1].done == 2 and patched.steps == 2
    assert "mmu_age" in patched.system_map.read_text()
    assert base.build_dir is not None and (base.build_dir / "vmlinux").exists()
    assert patched.build_dir is None and not (patched.image.parent / "build").exists()
    again = build.build(tree, fragments=[fragment], base=base, deadline=soon())
    assert again == patched.model_copy(update={"cached": True})
    assert nothing_half_made(own_cache)

    whole = build.build(
        tree.model_copy(update={"digest": "again"}),
        fragments=[fragment], base=None, deadline=soon(),
    )  # fmt: skip
    assert not whole.incremental and whole.steps > patched.steps
    # The same tree under another name: what is compiled is the same, the banner is not.
    assert whole.build_id != patched.build_id

    base.image.write_text("tampered")
    mended = build.build(source, fragments=[fragment], base=None, deadline=soon())
    assert not mended.cached
    assert (mended.build_id, mended.image_sha256) == (base.build_id, base.image_sha256)


@pytest.mark.integration
def test_a_kernel_of_a_machine_s_own_configuration(
    own_cache: Path, tmp_path: Path, fragment: Path
) -> None:
    source = toy_source(tmp_path)
    tree = with_series(tmp_path, source, edit("kvm/mmu.c", AGE))
    own = "CONFIG_KVM=m\nCONFIG_SWAP=y\nCONFIG_NR_CPUS=512\nCONFIG_EXT4_FS=m\nCONFIG_XFS_FS=m\n"

    def built(tree: Source | apply.PatchedTree, base: Kernel | None, *loaded: str) -> Kernel:
        machine = MachineConfig(own, loaded or None)
        return build.build(tree, fragments=[fragment], base=base, machine=machine, deadline=soon())

    base = built(source, None, "ext4_fs")
    text = base.config.read_text()
    # What fragments ask for, on top of what is loaded.
    assert "CONFIG_KVM=y\n" in text and "CONFIG_NR_CPUS=4\n" in text
    assert "CONFIG_EXT4_FS=m\n" in text and "CONFIG_XFS_FS=m\n" not in text
    assert base.release == f"6.12.1-toy-kvmharness-{base.key[:12]}"
    assert modules_of(base) == {f"{base.release}/config", f"{base.release}/kernel/EXT4_FS.ko"}
    assert base.build_dir is not None and not (base.build_dir / ".modules").exists()

    patched = built(tree, base, "ext4_fs")
    assert patched.incremental and patched.release != base.release
    assert patched.config_sha256 == base.config_sha256
    assert patched.build_id != base.build_id
    assert built(tree, base, "ext4_fs") == patched.model_copy(update={"cached": True})

    whole = built(source, None)
    assert len(modules_of(whole)) == 3 and whole.release != base.release

    assert base.modules is not None
    base.modules.write_bytes(b"tampered")
    mended = built(source, None, "ext4_fs")
    assert not mended.cached and mended.modules_sha256 == base.modules_sha256
    assert not (own_cache / "builds").exists() and nothing_half_made(own_cache, "machines")


def modules_of(kernel: Kernel) -> set[str]:
    assert kernel.modules is not None
    with tarfile.open(kernel.modules) as tar:
        return set(tar.getnames())


@pytest.mark.integration
def test_a_series_upon_a_series(own_cache: Path, tmp_path: Path, fragment: Path) -> None:
    source = toy_source(tmp_path)
    base = build.build(source, fragments=[fragment], base=None, deadline=soon())
    lower = with_series(tmp_path, source, edit("kvm/start.c", {"41": "42"}))
    under = build.build(lower, fragments=[fragment], base=base, deadline=soon(), keep=True)
    assert under.build_dir is not None and (under.build_dir / "vmlinux").exists()
    upper = with_series(tmp_path, lower, edit("kvm/mmu.c", AGE))
    assert upper.source_digest == lower.digest and upper.touched == ("kvm/mmu.c",)
    top = build.build(upper, fragments=[fragment], base=under, deadline=soon())
    # What the lower series touches was compiled for it, and is not compiled again.
    assert top.steps == 2
    # The kernel that nobody builds upon is another entry, which others may have in use.
    other = build.build(lower, fragments=[fragment], base=base, deadline=soon())
    assert (other.build_dir, other.build_id) == (None, under.build_id)
    assert other.key != under.key


@pytest.mark.integration
def test_a_symbol_that_cannot_be_had(own_cache: Path, tmp_path: Path, fragment: Path) -> None:
    fragment.write_text("CONFIG_KVM=y\nCONFIG_NO_SUCH_THING=y\n")
    with pytest.raises(config.ConfigError, match=r"a\.config:2: CONFIG_NO_SUCH_THING: .*no such"):
        build.build(toy_source(tmp_path), fragments=[fragment], base=None, deadline=soon())
    assert nothing_half_made(own_cache)


@pytest.mark.integration
def test_a_series_that_does_not_compile(own_cache: Path, tmp_path: Path, fragment: Path) -> None:
    source = toy_source(tmp_path)
    base = build.build(source, fragments=[fragment], base=None, deadline=soon())
    tree = with_series(tmp_path, source, edit("kvm/mmu.c", {"page + 1": "pag + 1"}))
    with pytest.raises(build.KernelBuildError) as caught:
        build.build(tree, fragments=[fragment], base=base, deadline=soon())
    assert caught.value.first_error.startswith("kvm/mmu.c:14:16: 'pag' undeclared")
    assert caught.value.exit_code == 2
    assert str(caught.value.log) in str(caught.value)
    assert "'pag' undeclared" in caught.value.log.read_text()
    assert nothing_half_made(own_cache)


@pytest.mark.integration
def test_a_base_that_does_not_compile(own_cache: Path, tmp_path: Path, fragment: Path) -> None:
    tree = toy_tree(tmp_path / "toy")
    (tree / "kvm/start.c").write_text("int start(void) { return nowhere(); }\n")
    with pytest.raises(build.BaseBuildError, match=r"start\.c:.*undefined reference") as caught:
        build.build(toy_source(tmp_path), fragments=[fragment], base=None, deadline=soon())
    assert caught.value.exit_code == 3
    assert nothing_half_made(own_cache)


@pytest.mark.integration
def test_a_hostile_build_sees_neither_home_nor_network_and_poisons_nothing(
    own_cache: Path, tmp_path: Path, fragment: Path
) -> None:
    source = toy_source(tmp_path)
    base = build.build(source, fragments=[fragment], base=None, deadline=soon())
    before = {p: p.stat().st_mtime_ns for p in (own_cache / "ccache").rglob("*") if p.is_file()}
    home = Path.home()
    probe = f"""import os, pathlib, socket
home = {str(home)!r}
print("HOME", *(os.listdir(home) if os.path.isdir(home) else []))
def tried(name, what):
    try:
        what()
        print("DID", name)
    except OSError as exc:
        print("REFUSED", name, type(exc).__name__)
tried("caller", lambda: os.listdir({str(tmp_path)!r}))
tried("source", lambda: pathlib.Path("/src/kvm/x").write_text("x"))
tried("ccache", lambda: pathlib.Path("/ccache/x").write_text("x"))
tried("python", lambda: pathlib.Path({sys.prefix!r}, "x").write_text("x"))
tried("network", lambda: socket.create_connection(("127.0.0.1", PORT), 2))
"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        probe = probe.replace("PORT", str(server.getsockname()[1]))
        tree = with_series(
            tmp_path, source, create("probe.py", probe),
            makefile(f"{sys.executable} $(S)/probe.py"), edit("kvm/mmu.c", AGE),
        )  # fmt: skip
        patched = build.build(tree, fragments=[fragment], base=base, deadline=soon())
    log = patched.log.read_text()
    assert "DID" not in log
    assert len(re.findall("^REFUSED", log, re.MULTILINE)) == 5
    # Of the home folder at most the way to this Python's own folder is there.
    listed = re.search(r"^HOME *(.*)$", log, re.MULTILINE)
    prefixes = [Path(p) for p in (sys.prefix, sys.base_prefix)]
    ways = {p.relative_to(home).parts[0] for p in prefixes if p.is_relative_to(home)}
    assert listed is not None and set(listed[1].split()) == ways
    after = {p: p.stat().st_mtime_ns for p in (own_cache / "ccache").rglob("*") if p.is_file()}
    assert before == after


@pytest.mark.integration
def test_a_build_that_swaps_its_image_for_a_link(
    own_cache: Path, tmp_path: Path, fragment: Path
) -> None:
    swap = edit("Makefile", {"\t@cp $< $@\n": "\t@ln -sf /etc/hostname $@\n"})
    tree = with_series(tmp_path, toy_source(tmp_path), swap)
    with pytest.raises(InfraError, match="left no regular file arch/arm64/boot/Image"):
        build.build(tree, fragments=[fragment], base=None, deadline=soon())
    assert nothing_half_made(own_cache)


@pytest.mark.integration
def test_a_build_that_never_ends(own_cache: Path, tmp_path: Path, fragment: Path) -> None:
    tree = with_series(tmp_path, toy_source(tmp_path), makefile("sleep 1000"))
    with pytest.raises(DeadlineExceeded, match="waiting for building"):
        build.build(tree, fragments=[fragment], base=None, deadline=Deadline(4))
    assert nothing_half_made(own_cache)


KILLED = """
import sys
from pathlib import Path
from harness.deadline import Deadline
from harness.kernel import build, source
found = source.resolve(sys.argv[1], Deadline(60))
build.build(found, fragments=[Path(sys.argv[2])], base=None, deadline=Deadline(60),
            progress=lambda p: print(p.current, flush=True))
"""


@pytest.mark.integration
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_in_mid_build_nothing_is_left(
    own_cache: Path, tmp_path: Path, fragment: Path, signum: signal.Signals
) -> None:
    tree = toy_tree(tmp_path / "toy")
    text = (tree / "Makefile").read_text()
    line = "\t@echo '  LD      vmlinux'\n"
    stamp = f"sleep 1{os.getpid()}.7"
    (tree / "Makefile").write_text(text.replace(line, f"{line}\t@{stamp}\n"))
    argv = [*INTERRUPTIBLE, sys.executable, "-c", KILLED, f"tree:{tree}", str(fragment)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("LD vmlinux" in line for line in process.stdout)
        process.send_signal(signum)
        process.wait(20)
    limit = Deadline(10)
    while any(stamp.split()[1] in command for command in commands()):
        limit.check("the end of the build's processes")
        time.sleep(0.05)
    assert list((own_cache / "builds").iterdir()) == []
    cache.sweep()
    assert nothing_half_made(own_cache)
    (tree / "Makefile").write_text(text)
    found = resolve(f"tree:{tree}", soon())
    assert build.build(found, fragments=[fragment], base=None, deadline=soon()).release


def commands() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_text().replace("\0", " ")
        except OSError:  # it ended in between
            continue


@pytest.mark.integration
@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is made by mount(8), which needs root")
def test_disk_full_during_a_build(
    tmp_path: Path, fragment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(tmp_path / "cache")]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this container may not mount a tmpfs")
    try:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(build, "NEED", 1 << 20)
        monkeypatch.setattr("harness.kernel.source.NEED", 1 << 20)
        tree = toy_tree(tmp_path / "toy")
        text = (tree / "Makefile").read_text()
        line = "\t@echo '  LD      vmlinux'\n"
        fill = "\t@head -c 64M /dev/zero > $(O)/big\n"
        (tree / "Makefile").write_text(text.replace(line, line + fill))
        with pytest.raises(InfraError, match=r"disk full at .*cache.* during building tree"):
            build.build(toy_source(tmp_path), fragments=[fragment], base=None, deadline=soon())
        assert nothing_half_made(tmp_path / "cache/kvm-harness/kernel")
    finally:
        # Lazily: this process still holds its locks there.
        subprocess.run(["umount", "--lazy", str(tmp_path / "cache")], check=True)
