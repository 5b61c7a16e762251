# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from kernel_helpers import GIT_ENV, TOY, soon, toy_tree

from harness.errors import InfraError, UsageError
from harness.kernel import cache, debian, source

# A plain `git status` rewrites .git/index when it finds a file's time refreshed: the test would
# see what it did itself.
STATUS = "git --no-optional-locks status --porcelain"
# Of objects only that they are there: git dates one anew that it is about to write and has already.
CONTENT = (
    f"{STATUS}; find .git -path .git/objects -prune -o -print | sort | xargs stat -c '%n %Y %s';"
    " find .git/objects | sort | xargs stat -c '%n %s'"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, value in GIT_ENV.items():
        monkeypatch.setenv(name, value)


def names(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def git(tree: Path, script: str) -> str:
    return subprocess.run(
        script, shell=True, check=True, cwd=tree, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    tree = toy_tree(tmp_path / "toy")
    (tree / ".gitignore").write_text("*.o\n")
    git(tree, "git init -q -b main && git add -A && git commit -qm base")
    return tree


def tarball(tmp_path: Path, *evil: tarfile.TarInfo) -> Path:
    path = tmp_path / "linux.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(TOY, "linux-6.12.1")
        for member in evil:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def test_a_tarball_is_unpacked_once(tmp_path: Path) -> None:
    path = tarball(tmp_path)
    first = source.resolve(f"tar:{path}", soon())
    assert names(first.dir) == names(TOY)
    assert (first.version, first.base_commit) == ("6.12.1-toy", None)
    assert source.resolve(str(path), soon()) == first
    again = source.resolve(f"tar:{tarball(tmp_path, member('linux-6.12.1/more'))}", soon())
    assert again.description != first.description
    assert list(cache.folder("staging").iterdir()) == []


def member(name: str, link: str = "", kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, 1 if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize(
    "evil",
    [
        member("linux-6.12.1/../../evil"),
        member("/evil"),
        member("linux-6.12.1/evil", "/etc", tarfile.SYMTYPE),
        member("linux-6.12.1/evil", "../../..", tarfile.SYMTYPE),
        member("linux-6.12.1/evil", "../../../etc/passwd", tarfile.LNKTYPE),
    ],
    ids=["dots", "absolute", "link", "link-dots", "hard-link"],
)
def test_a_tarball_that_climbs_out_is_refused(tmp_path: Path, evil: tarfile.TarInfo) -> None:
    with pytest.raises(UsageError, match=r"linux\.tar\.gz.*(climb out|link out)"):
        source.resolve(f"tar:{tarball(tmp_path, evil)}", soon())
    assert not (tmp_path / "evil").exists() and not Path("/evil").exists()
    assert list(cache.folder("sources").iterdir()) == []
    assert list(cache.folder("staging").iterdir()) == []


def test_a_tarball_that_writes_through_its_own_link_is_refused(tmp_path: Path) -> None:
    evil = (member("linux-6.12.1/d", str(tmp_path), tarfile.SYMTYPE), member("linux-6.12.1/d/evil"))
    with pytest.raises(UsageError):
        source.resolve(f"tar:{tarball(tmp_path, *evil)}", soon())
    assert not (tmp_path / "evil").exists()


def test_what_is_no_archive_or_no_kernel(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_text("no archive")
    with pytest.raises(UsageError, match=r"x\.tar is no archive"):
        source.resolve(f"tar:{tmp_path / 'x.tar'}", soon())
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="empty is no Linux kernel tree"):
        source.resolve(f"tree:{tmp_path / 'empty'}", soon())


@pytest.mark.parametrize(
    "spec",
    ["nothing-here", "tar:nothing", "tree:nothing", "git:x", "git:#y", "git:--evil#x", "svn:x",
     "debian:bash", "tar:"],
)  # fmt: skip
def test_a_spec_that_names_no_source(spec: str) -> None:
    with pytest.raises(UsageError, match="source"):
        source.resolve(spec, soon())


def test_a_plain_tree_is_known_by_its_content(tmp_path: Path) -> None:
    tree = toy_tree(tmp_path / "toy")
    first = source.resolve(f"tree:{tree}", soon())
    assert names(first.dir) == names(TOY)
    os.utime(tree / "Kbuild", (1, 1))
    assert source.resolve(str(tree), soon()).digest == first.digest
    (tree / "Kbuild").write_text("# other\n")
    other = source.resolve(str(tree), soon())
    assert other.digest != first.digest
    assert other.description != first.description
    assert (first.dir / "Kbuild").read_text() == (TOY / "Kbuild").read_text()


def test_a_plain_tree_that_was_built_in_is_refused(tmp_path: Path) -> None:
    tree = toy_tree(tmp_path / "toy")
    (tree / ".config").write_text("")
    with pytest.raises(UsageError, match="make mrproper"):
        source.resolve(f"tree:{tree}", soon())


def test_a_work_tree_counts_as_it_stands_and_is_not_written_to(repository: Path) -> None:
    head = git(repository, "git rev-parse HEAD")
    clean = source.resolve(f"tree:{repository}", soon())
    assert clean.base_commit == head
    assert "changed" not in clean.description
    (repository / "kvm/new.c").write_text("int x;\n")
    (repository / "kvm/mmu.o").write_text("ignored")
    (repository / "Kbuild").write_text("# other\n")
    before = git(repository, CONTENT)
    dirty = source.resolve(f"tree:{repository}", soon())
    after = git(repository, CONTENT)
    assert before == after
    assert dirty.digest != clean.digest
    assert "changed since" in dirty.description
    (repository / "Kbuild").write_text("# another\n")
    assert source.resolve(f"tree:{repository}", soon()).description != dirty.description
    (repository / "Kbuild").write_text("# other\n")
    assert (dirty.dir / "kvm/new.c").exists() and (dirty.dir / "Kbuild").read_text() == "# other\n"
    assert not (dirty.dir / "kvm/mmu.o").exists() and not (dirty.dir / ".git").exists()


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_commit_of_a_repository(repository: Path, prefix: str) -> None:
    head = git(repository, "git tag v1 && git rev-parse HEAD")
    (repository / "Kbuild").write_text("# not committed\n")
    found = source.resolve(f"git:{prefix}{repository}#v1", soon())
    assert found.base_commit == head
    assert (found.dir / "Kbuild").read_text() == (TOY / "Kbuild").read_text()
    assert source.resolve(f"git:{prefix}{repository}#{head}", soon()) == found.model_copy(
        update={"description": f"git {prefix}{repository} {head} ({head[:12]})"}
    )


def test_a_ref_that_is_not_there(repository: Path) -> None:
    with pytest.raises(UsageError, match=r"git:.*#nowhere: .*nowhere"):
        source.resolve(f"git:{repository}#nowhere", soon())


def test_a_commit_with_a_link_out_is_refused(repository: Path) -> None:
    git(repository, "ln -s /etc out && git add out && git commit -qm out")
    with pytest.raises(UsageError, match="out is a link out of the tree"):
        source.resolve(f"git:{repository}#main", soon())
    assert list(cache.folder("sources").iterdir()) == []


SHOWN = """Package: linux-source-6.12
Source: linux-6.12
Version: 6.12.117-1~deb12u1
Filename: pool/x.deb
SHA256: e849faf31ca3
Description: source
 SHA256: of something else

Package: linux-source-6.12
Version: 6.12.115-2
SHA256: 00
"""


def test_apts_first_record_is_the_candidate() -> None:
    found = debian.parse_show("linux-source-6.12", SHOWN, ("-o", "x=y"))
    assert found == debian.Candidate(
        "linux-source-6.12", "6.12.117-1~deb12u1", "e849faf31ca3", ("-o", "x=y")
    )
    assert debian.parse_show("linux-source-6.12", "Package: linux-source-6.12\n") is None


def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **programs: str) -> Path:
    """Put programs of our own before apt's, and return the log of their arguments."""
    (tmp_path / "bin").mkdir()
    for name, script in programs.items():
        path = tmp_path / "bin" / name.replace("_", "-")
        path.write_text(f'#!/bin/sh\necho "$0 $*" >> {tmp_path}/log\n{script}\n')
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path / "log"


def test_without_lists_apt_gets_lists_of_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shown").write_text(SHOWN)
    log = apt(
        tmp_path,
        monkeypatch,
        apt_cache=f"test -e {tmp_path}/updated || exit 100; cat {tmp_path}/shown",
        apt_get=f"touch {tmp_path}/updated",
    )
    found = debian.candidate("linux-source-6.12", soon())
    assert f"Dir::State::Lists={cache.folder('apt') / 'lists'}" in found.options
    assert [line.split()[-1] for line in log.read_text().splitlines()] == [
        "linux-source-6.12", "linux-source-6.12", "update", "linux-source-6.12",
    ]  # fmt: skip


def test_a_package_that_apt_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apt(tmp_path, monkeypatch, apt_cache="exit 100", apt_get="exit 0")
    with pytest.raises(UsageError, match=r"debian:linux-source-9\.9: no such package"):
        debian.candidate("linux-source-9.9", soon())


def test_a_download_that_is_not_what_the_lists_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apt(tmp_path, monkeypatch, apt_get="echo other > linux-source.deb")
    (tmp_path / "into").mkdir()
    wanted = debian.Candidate("linux-source-6.12", "6.12.117-1", "e849")
    with pytest.raises(InfraError, match=r"linux-source\.deb has SHA-256 .*, the lists say e849"):
        debian.download(wanted, tmp_path / "into", soon())


def test_lists_that_name_a_file_that_is_gone_are_fetched_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = tarball(tmp_path).rename(tmp_path / "linux-source-6.12.tar.gz")
    package = tmp_path / "pkg"
    (package / "usr/src").mkdir(parents=True)
    packed.rename(package / "usr/src" / packed.name)
    (package / "DEBIAN").mkdir()
    (package / "DEBIAN/control").write_text(
        "Package: linux-source-6.12\nVersion: 6.12.118-1\nArchitecture: all\n"
        "Maintainer: A Person <a@example.org>\nDescription: toy\n"
    )
    subprocess.run(["dpkg-deb", "-b", package, tmp_path / "new.deb"], check=True)
    digest = hashlib.sha256((tmp_path / "new.deb").read_bytes()).hexdigest()
    (tmp_path / "old").write_text(SHOWN)
    (tmp_path / "new").write_text(
        f"Package: linux-source-6.12\nVersion: 6.12.118-1\nSHA256: {digest}\n"
    )
    log = apt(
        tmp_path,
        monkeypatch,
        apt_cache=f"cat {tmp_path}/$(test -e {tmp_path}/updated && echo new || echo old)",
        apt_get=(
            f'case "$*" in *update) touch {tmp_path}/updated;; '
            f"*=6.12.118-1) cp {tmp_path}/new.deb .;; *) exit 100;; esac"
        ),
    )
    found = source.resolve("debian:linux-source-6.12", soon())
    assert found.description == "Debian linux-source-6.12 6.12.118-1"
    assert found.digest == f"deb-{digest}" and names(found.dir) == names(TOY)
    # The next time nothing is fetched.
    assert source.resolve("debian:linux-source-6.12", soon()) == found
    assert log.read_text().count(" download ") == 2


def test_a_download_that_fails_otherwise_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shown").write_text(SHOWN)
    script = 'case "$*" in *update) ;; *) echo "E: no route" >&2; exit 100;; esac'
    apt(tmp_path, monkeypatch, apt_cache=f"cat {tmp_path}/shown", apt_get=script)
    with pytest.raises(InfraError, match=r"downloading linux-source-6\.12 .*\n.*no route"):
        source.resolve("debian:linux-source-6.12", soon())
    assert list(cache.folder("sources").iterdir()) == []
