# SPDX-License-Identifier: GPL-2.0-only
"""Kernel source: from what the user names to a pristine tree in the cache."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from harness import proc
from harness.deadline import Deadline
from harness.errors import InfraError, UsageError
from harness.kernel import cache, debian, git, unpack

NEED = 5 * cache.GIB // 2  # an unpacked 6.12 tree, its archive, and git's index or pack
FORMS = "debian:PACKAGE, tar:FILE, tree:FOLDER or git:URL#REF"


class Source(BaseModel):
    """An unpacked kernel tree.

    `dir` lies in the cache and is never written to. `digest` is the identity of its content,
    `version` that of its Makefile ("6.12.117"), `base_commit` the commit that it is at, if known.
    What may change under its name has a digest in `description`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dir: Path
    digest: str
    version: str
    description: str
    base_commit: str | None = None


def resolve(spec: str, deadline: Deadline) -> Source:
    """The source that `spec` names, fetched and unpacked unless the cache has it.

    Forms: `debian:linux-source-6.12`, `tar:FILE`, `tree:FOLDER`, `git:URL#REF`, or the path of a
    tarball or a tree. A tree on disk is copied as it stands (in git: without what git ignores),
    so that editing it during a run changes nothing. UsageError names what is wrong with the spec.
    """
    kind, colon, rest = spec.partition(":")
    if colon and kind in _RESOLVERS and rest:
        return _RESOLVERS[kind](rest, deadline)
    path = Path(spec).expanduser()
    if path.is_dir():
        return _tree(spec, deadline)
    if path.is_file():
        return _tar(spec, deadline)
    raise UsageError(f"no kernel source at {spec!r}: want {FORMS}")


def version_of(tree: Path) -> str:
    """The version in a kernel tree's Makefile; UsageError if this is no kernel tree."""
    try:
        text = (tree / "Makefile").read_text(errors="replace")
    except OSError:
        text = ""
    found: dict[str, str] = {
        k: v.strip() for k, v in re.findall(r"^([A-Z]+) *=([^\n#]*)$", text, re.MULTILINE)
    }
    complete = all((tree / name).exists() for name in ("Kbuild", "Kconfig", "scripts"))
    if not complete or not found.get("VERSION", "").isdigit():
        raise UsageError(f"{tree} is no Linux kernel tree (Makefile, Kbuild, Kconfig, scripts/)")
    numbers = [found["VERSION"], found.get("PATCHLEVEL", "0"), found.get("SUBLEVEL", "0")]
    return ".".join(numbers) + found.get("EXTRAVERSION", "")


def _publish(
    digest: str,
    fill: Callable[[Path], None],
    deadline: Deadline,
    description: str,
    base_commit: str | None = None,
) -> Source:
    """The cache's tree of that digest; `fill` writes it (or one folder that holds it) if absent."""

    def make(stage: Path) -> None:
        (stage / "tree").mkdir()
        fill(stage / "tree")
        _hoist(stage / "tree")
        version = version_of(stage / "tree")
        (stage / "version").write_text(version + "\n")

    what = f"unpacking {description}"
    entry = cache.get_or_make("sources", digest, make, deadline=deadline, what=what, need=NEED)
    return Source(
        dir=entry.path / "tree",
        digest=digest,
        version=(entry.path / "version").read_text().strip(),
        description=description,
        base_commit=base_commit,
    )


def _hoist(tree: Path) -> None:
    """Where a tree is one folder and nothing else, as in every tarball, lift its content."""
    inner = list(tree.iterdir())
    if len(inner) == 1 and inner[0].is_dir() and not inner[0].is_symlink():
        lifted = tree.with_name("lifted")
        inner[0].rename(lifted)
        tree.rmdir()
        lifted.rename(tree)


def _debian(package: str, deadline: Deadline) -> Source:
    candidate = debian.candidate(package, deadline)
    try:
        return _debian_candidate(candidate, deadline)
    except debian.DownloadFailed:
        fresh = debian.refreshed(package, deadline)
        if fresh.version == candidate.version:
            raise
        return _debian_candidate(fresh, deadline)


def _debian_candidate(candidate: debian.Candidate, deadline: Deadline) -> Source:
    def fill(tree: Path) -> None:
        scratch = tree.with_name("scratch")
        scratch.mkdir()
        archive = debian.extract(debian.download(candidate, scratch, deadline), scratch, deadline)
        unpack.untar(archive, tree, deadline)
        cache.remove(scratch)

    description = f"Debian {candidate.package} {candidate.version}"
    return _publish(f"deb-{candidate.sha256}", fill, deadline, description)


def _tar(name: str, deadline: Deadline) -> Source:
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise UsageError(f"kernel source tar:{name}: there is no such file")
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()

    def fill(tree: Path) -> None:
        unpack.untar(path, tree, deadline)

    return _publish(f"tar-{digest}", fill, deadline, f"tarball {path.name} ({digest[:12]})")


def _tree(name: str, deadline: Deadline) -> Source:
    path = Path(name).expanduser().resolve()
    if not path.is_dir():
        raise UsageError(f"kernel source tree:{name}: there is no such folder")
    version_of(path)
    if git.toplevel(path, deadline) == path:
        return _work_tree(path, deadline)
    if (path / ".config").exists() or (path / "include/config").exists():
        raise UsageError(f"{path} has been built in; run `make mrproper` there, or use git")
    digest = _digest_of_files(path, deadline)

    def fill(tree: Path) -> None:
        argv = ("cp", "-a", "--reflink=auto", f"{path}/.", str(tree))
        proc.run(argv, deadline=deadline, what=f"copying {path}")
        if _digest_of_files(tree, deadline) != digest:
            raise UsageError(f"{path} changed while it was copied; try again")

    return _publish(f"files-{digest}", fill, deadline, f"tree {path} ({digest[:12]})")


def _work_tree(path: Path, deadline: Deadline) -> Source:
    commit = git.head(path, deadline)
    with cache.staging("snapshot", path.name) as scratch:
        tree_id, extra = git.snapshot(path, scratch, deadline)

        def fill(tree: Path) -> None:
            git.export(path, tree_id, tree, scratch, deadline, extra)

        clean = commit is not None and _tree_of(path, commit, deadline) == tree_id
        state = f"at {commit[:12]}" if commit else "without a commit"
        changed = "" if clean else f", changed since ({tree_id[:12]})"
        description = f"tree {path} {state}{changed}"
        return _publish(f"git-{tree_id}", fill, deadline, description, commit)


def _git(spec: str, deadline: Deadline) -> Source:
    url, mark, ref = spec.partition("#")
    if not mark or not url or not ref:
        raise UsageError(f"kernel source git:{spec}: want git:URL#REF")
    if url.startswith("-") or ref.startswith("-"):
        raise UsageError(f"kernel source git:{spec}: neither URL nor REF may begin with '-'")
    if Path(url).expanduser().exists():
        url = str(Path(url).expanduser().resolve())
    name = hashlib.sha256(url.encode()).hexdigest()[:16]
    repository = cache.folder("git") / name
    with cache.locked(cache.folder("locks") / f"git-{name}", deadline, f"git {url}"):
        if not (repository / "HEAD").exists():
            git.run("init", "--quiet", "--bare", repository, deadline=deadline, what="git init")
        commit = _fetch(repository, url, ref, deadline)
        tree_id = _tree_of(repository, commit, deadline)

        def fill(tree: Path) -> None:
            with cache.staging("export", name) as scratch:
                git.export(repository, tree_id, tree, scratch, deadline)
            unpack.refuse_links_out(tree, f"{url} at {ref}")

        description = f"git {url} {ref} ({commit[:12]})"
        return _publish(f"git-{tree_id}", fill, deadline, description, commit)


def _fetch(repository: Path, url: str, ref: str, deadline: Deadline) -> str:
    """Fetch one commit without its history and return its id.

    This one git runs with the user's configuration, which knows proxies and credentials.
    """
    depth = () if Path(url).exists() else ("--depth=1",)
    argv = ("git", "-C", str(repository), "fetch", "--quiet", "--no-tags", *depth, "--", url, ref)
    env = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    done = proc.run(argv, deadline=deadline, what=f"fetching {ref} of {url}", env=env, check=False)
    if done.returncode != 0:
        if re.search(r"couldn't find remote ref|not our ref|does not appear to be", done.stderr):
            raise UsageError(f"kernel source git:{url}#{ref}: {done.tail(2)}")
        raise InfraError(f"fetching {ref} of {url} failed:\n{done.tail(5)}")
    args = ("rev-parse", "--verify", "FETCH_HEAD^{commit}")
    return git.run(*args, deadline=deadline, what=f"reading {ref}", cwd=repository).stdout.strip()


def _tree_of(repository: Path, commit: str, deadline: Deadline) -> str:
    args = ("rev-parse", "--verify", f"{commit}^{{tree}}")
    what = f"reading {commit[:12]}"
    return git.run(*args, deadline=deadline, what=what, cwd=repository).stdout.strip()


def _digest_of_files(root: Path, deadline: Deadline) -> str:
    """SHA-256 over paths, kinds, executable bits and contents of all files, in sorted order."""
    total = hashlib.sha256()
    for folder, subfolders, files in os.walk(root):
        deadline.check(f"reading {root}")
        subfolders.sort()
        links = [n for n in subfolders if (Path(folder) / n).is_symlink()]
        for name in sorted((*files, *links)):
            path = Path(folder) / name
            mode = path.lstat().st_mode
            where = os.fsencode(path.relative_to(root))
            if stat.S_ISLNK(mode):
                kind, content = b"l", os.fsencode(path.readlink())
            elif stat.S_ISREG(mode):
                kind = b"x" if mode & stat.S_IXUSR else b"f"
                content = hashlib.sha256(path.read_bytes()).digest()
            else:
                raise UsageError(f"{path} is neither file, folder nor link")
            total.update(b"%d %s%s%d %s" % (len(where), where, kind, len(content), content))
    return total.hexdigest()


_RESOLVERS: dict[str, Callable[[str, Deadline], Source]] = {
    "debian": _debian,
    "tar": _tar,
    "tree": _tree,
    "git": _git,
}
