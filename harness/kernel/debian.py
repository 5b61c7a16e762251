# SPDX-License-Identifier: GPL-2.0-only
"""Debian's kernel source packages, fetched by apt without root.

The machine's own package lists are used where they exist. A fresh machine has none, and only
root may fetch them, so apt is then pointed at lists in our cache; sources and keys stay the
machine's.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from harness import proc
from harness.deadline import Deadline
from harness.errors import InfraError, UsageError
from harness.kernel import cache


class DownloadFailed(InfraError):
    """apt could not fetch a package that its lists name: no network, or lists that are old."""


@dataclass(frozen=True)
class Candidate:
    """The version of a package that apt would take, and the options that let apt see it."""

    package: str
    version: str
    sha256: str
    options: tuple[str, ...] = ()


def candidate(package: str, deadline: Deadline) -> Candidate:
    """What apt would take for `package`; its lists are fetched if they do not know it.

    UsageError if there is no such package, InfraError if the lists cannot be had.
    """
    if not re.fullmatch(r"linux-source(-[0-9.]+)?", package):
        raise UsageError(f"kernel source debian:{package}: want linux-source-VERSION")
    found = _show(package, (), deadline)
    if found is None:
        options = _own_lists()
        with cache.locked(cache.folder("locks") / "apt", deadline, "apt's package lists"):
            found = _show(package, options, deadline) or _update(package, options, deadline)
    return found


def refreshed(package: str, deadline: Deadline) -> Candidate:
    """The candidate by lists fetched now, for when the machine's own name a file that is gone."""
    with cache.locked(cache.folder("locks") / "apt", deadline, "apt's package lists"):
        return _update(package, _own_lists(), deadline)


def download(wanted: Candidate, folder: Path, deadline: Deadline) -> Path:
    """Fetch the package file into `folder` and check it against the signed lists' SHA-256."""
    argv = ("apt-get", *wanted.options, "download", f"{wanted.package}={wanted.version}")
    what = f"downloading {wanted.package} {wanted.version}"
    done = proc.run(argv, deadline=deadline, what=what, cwd=folder, env=_environment(), check=False)
    if done.returncode != 0:
        raise DownloadFailed(f"{what} failed:\n{done.tail(5)}")
    files = list(folder.glob("*.deb"))
    if len(files) != 1:
        raise InfraError(f"apt-get download {wanted.package} left {len(files)} files, not one")
    with files[0].open("rb") as handle:
        actual = hashlib.file_digest(handle, "sha256").hexdigest()
    if actual != wanted.sha256:
        raise InfraError(f"{files[0].name} has SHA-256 {actual}, the lists say {wanted.sha256}")
    return files[0]


def extract(package: Path, folder: Path, deadline: Deadline) -> Path:
    """Unpack a package file into `folder` and return the source tarball that it brings."""
    root = folder / "root"
    argv = ("dpkg-deb", "--extract", str(package), str(root))
    proc.run(argv, deadline=deadline, what=f"unpacking {package.name}")
    package.unlink()
    tarballs = sorted((root / "usr/src").glob("linux-source-*.tar.*"))
    if len(tarballs) != 1:
        raise InfraError(f"{package.name} holds {len(tarballs)} source tarballs, not one")
    return tarballs[0]


def parse_show(package: str, text: str, options: tuple[str, ...] = ()) -> Candidate | None:
    """The first record of `apt-cache show --no-all-versions`, or None if it names no file."""
    record = text.strip().split("\n\n")[0]
    fields = dict(re.findall(r"^(Package|Version|SHA256): (\S+)$", record, re.MULTILINE))
    if not {"Package", "Version", "SHA256"} <= fields.keys():
        return None
    return Candidate(fields["Package"], fields["Version"], fields["SHA256"], options)


def _show(package: str, options: tuple[str, ...], deadline: Deadline) -> Candidate | None:
    argv = ("apt-cache", *options, "show", "--no-all-versions", package)
    done = proc.run(argv, deadline=deadline, what="asking apt", env=_environment(), check=False)
    return parse_show(package, done.stdout, options) if done.returncode == 0 else None


def _own_lists() -> tuple[str, ...]:
    state = cache.folder("apt")
    (state / "lists/partial").mkdir(parents=True, exist_ok=True)
    (state / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
    pairs = {
        "Dir::State::Lists": state / "lists",
        "Dir::Cache": state / "cache",
        "APT::Sandbox::User": "",
        "APT::Update::Post-Invoke": "",
        "APT::Update::Post-Invoke-Success": "",
    }
    return tuple(arg for name, value in pairs.items() for arg in ("-o", f"{name}={value}"))


def _update(package: str, options: tuple[str, ...], deadline: Deadline) -> Candidate:
    argv = ("apt-get", *options, "update")
    proc.run(argv, deadline=deadline, what="fetching apt's package lists", env=_environment())
    found = _show(package, options, deadline)
    if found is None:
        raise UsageError(
            f"kernel source debian:{package}: no such package in the sources that this machine's "
            "apt is set up for; name another, or a tarball, tree or git URL"
        )
    return found


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}
