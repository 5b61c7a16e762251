# SPDX-License-Identifier: GPL-2.0-only
"""A patch series: from what the user names to its patches, in order, complete and harmless."""

from __future__ import annotations

import gzip
import hashlib
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import UsageError
from harness.kernel import diff, git, mail
from harness.kernel.diff import FileDiff
from harness.kernel.source import Source
from harness.paths import PROJECT

CONTRACT = "series.yaml"
LOAD_SECONDS = 60.0
_BASE = re.compile(rb"^base-commit: ([0-9a-f]{7,64})\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Patch:
    """One patch. `text` is the whole mail's body, `diff` what is applied, `origin` its file."""

    subject: str
    author: str
    text: bytes
    diff: bytes
    origin: str
    files: tuple[FileDiff, ...]

    @property
    def touched(self) -> tuple[str, ...]:
        """The paths that it changes, old and new, in order."""
        return tuple(dict.fromkeys(path for file in self.files for path in file.paths))


@dataclass(frozen=True)
class Series:
    """Patches in the order in which they apply.

    `digest` is of their diffs in that order and of nothing else: not names, subjects or authors.
    `message_id` and `subject` are those of the cover letter, or of the first patch.
    """

    name: str
    patches: tuple[Patch, ...]
    digest: str
    base_commit: str | None = None
    message_id: str | None = None
    subject: str = ""
    contract: Path | None = None

    @property
    def touched(self) -> tuple[str, ...]:
        """The paths that any of its patches changes, in order of appearance."""
        return tuple(dict.fromkeys(path for patch in self.patches for path in patch.touched))


@dataclass(frozen=True)
class _Message:
    """A mail and the file that it came from."""

    mail: mail.Mail
    origin: str
    diff: bytes


def load(spec: str | Sequence[str], mbox: Path | None = None) -> Series:
    """The series that `spec` names.

    With `mbox`, `spec` is a folder that has a contract and no patches: the patches are those of
    the mbox.

    Forms: the name of a series of the project, a folder of patches, an mbox, a patch file,
    several of them (comma or list: then all of them, as given), or `git:FOLDER#A..B`. In an mbox
    and in a folder without a `series` file the newest revision counts and is sorted by n/m.
    UsageError names the file when one is missing, no patch, or reaches out of the tree.
    """
    names = [spec] if isinstance(spec, str) else list(spec)
    if mbox is not None:
        return _contracted(names, mbox)
    if len(names) == 1 and names[0].startswith("git:"):
        return _range(names[0].removeprefix("git:"))
    if len(names) == 1 and not Path(names[0]).exists() and "," in names[0]:
        names = names[0].split(",")
    paths = [_locate(name) for name in names]
    if len(paths) != 1:
        listed = [message for path in paths for message in _read(path)]
        return _series(paths[0].stem if paths else "series", _as_given(listed), listed)
    path = paths[0]
    if path.is_dir():
        return _folder(path)
    return _mbox(path)


def _mbox(path: Path) -> Series:
    messages = _read(path)
    chosen = _select(messages, str(path)) if len(messages) > 1 else _as_given(messages)
    return _series(path.name.split(".")[0], chosen, messages)


def prefix(series: Series, count: int) -> Series:
    """The first `count` patches of a series; all of them are the series itself."""
    if count == len(series.patches):
        return series
    patches = series.patches[:count]
    return replace(
        series,
        name=f"{series.name}, up to patch {count} of {len(series.patches)}",
        patches=patches,
        digest=digest_of([patch.diff for patch in patches]),
    )


def _contracted(names: Sequence[str], mbox: Path) -> Series:
    """The patches of an mbox under the contract of a folder, and under its name."""
    path = _locate(names[0]) if len(names) == 1 else None
    if path is None or not path.is_dir() or not (path / CONTRACT).is_file():
        raise UsageError(f"--mbox {mbox}: name the contract too, a folder with a {CONTRACT}")
    if _patch_files(path):
        raise UsageError(f"--mbox {mbox}: {path} has patches of its own; give one or the other")
    if not mbox.is_file():
        raise UsageError(f"--mbox {mbox}: no such file")
    return replace(_mbox(mbox), name=path.name, contract=path / CONTRACT)


def check_message_id(series: Series, wanted: str | None) -> str | None:
    """Whether these are the mails that the contract is about: None if so, or if it does not say.

    UsageError if they are others. Mails without a Message-Id give a sentence that a report must
    show.
    """
    if wanted is None:
        return None
    if series.message_id is None:
        return f"the patches have no Message-Id; the contract is that of {wanted}"
    if mail.thread(series.message_id) != mail.thread(wanted):
        raise UsageError(
            f"the contract of {series.name} is that of {wanted}, these patches are "
            f"{series.message_id}; `--series FILE` alone tests them without a contract"
        )
    return None


def check_base(series: Series, source: Source, *, allow_other_base: bool = False) -> str | None:
    """Whether the series is for this source: None if so, or if it does not say.

    UsageError if its `base-commit:` is another commit than the source's, unless that is allowed;
    then, and where the source's commit is not known, a sentence that a report must show.
    """
    wanted = series.base_commit
    if wanted is None:
        return None
    have = source.base_commit
    if have is None:
        return f"base-commit {wanted} cannot be verified against {source.description}"
    if have.startswith(wanted) or wanted.startswith(have):
        return None
    mismatch = f"{series.name} is based on commit {wanted}, {source.description} is at {have}"
    if not allow_other_base:
        raise UsageError(f"{mismatch}; give that commit as the source, or allow another base")
    return mismatch


def digest_of(diffs: Sequence[bytes]) -> str:
    """SHA-256 over diffs and their order."""
    total = hashlib.sha256()
    for text in diffs:
        total.update(b"%d\n" % len(text))
        total.update(text)
    return total.hexdigest()


def _locate(name: str) -> Path:
    path = Path(name).expanduser()
    if path.exists():
        return path.resolve()
    carried = PROJECT / "series" / name
    if name and "/" not in name and carried.is_dir():
        return carried
    raise UsageError(f"series {name!r}: no such file or folder, and no series of the project")


def _read(path: Path) -> list[_Message]:
    """The mails of one file; UsageError if it is empty or cannot be read."""
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    except (OSError, EOFError) as exc:
        raise UsageError(f"{path} cannot be read: {exc}") from exc
    if not data.strip():
        raise UsageError(f"{path} is empty")
    mails = [mail.parse(text) for text in mail.split(data)]
    return [_Message(m, str(path), diff.extract(m.body)) for m in mails]


def _folder(path: Path) -> Series:
    order = path / "series"
    contract = path / CONTRACT if (path / CONTRACT).is_file() else None
    if order.is_file():
        lines = [line.split("#")[0].strip() for line in order.read_text().splitlines()]
        files = [path / line.split()[0] for line in lines if line]
        for file in files:
            if not file.resolve().is_relative_to(path) or not file.is_file():
                raise UsageError(f"{order} names {file.name}, which is no file of {path}")
        messages = [message for file in files for message in _read(file)]
        return _series(path.name, _as_given(messages), messages, contract)
    files = _patch_files(path)
    if not files and contract is not None:
        raise UsageError(
            f"series {path.name} is a contract without patches: give them by --mbox FILE"
        )
    if not files:
        raise UsageError(f"series {path} is empty: it holds no *.patch file")
    messages = [message for file in files for message in _read(file)]
    for message in messages:
        if not message.diff and not _is_cover(message):
            raise UsageError(f"{message.origin} is no patch: there is no diff in it")
    chosen = _select(messages, str(path))
    for message in messages:
        place = mail.place(message.mail.subject)
        if message.diff and (place is None or (not place.numbered and message not in chosen)):
            raise UsageError(
                f"{message.origin} has no number n/m, its neighbours have; "
                f"give the order in {order}"
            )
    return _series(path.name, chosen, messages, contract)


def _patch_files(path: Path) -> list[Path]:
    order = path / "series"
    return sorted(path.glob("*.patch")) or ([order] if order.is_file() else [])


def _range(spec: str) -> Series:
    folder, mark, commits = spec.partition("#")
    first, dots, last = commits.partition("..")
    path = Path(folder).expanduser().resolve()
    if not mark or not dots or not first or not last or last.startswith(".") or "-" in first[:1]:
        raise UsageError(f"series git:{spec}: want git:FOLDER#A..B")
    if not path.is_dir():
        raise UsageError(f"series git:{spec}: there is no folder {path}")
    deadline = Deadline(LOAD_SECONDS)
    what = f"reading commits {commits} of {path}"

    def ask(*args: str) -> str:
        done = git.run(*args, deadline=deadline, what=what, cwd=path, check=False)
        if done.returncode != 0:
            raise UsageError(f"series git:{spec}: {done.tail(3)}")
        return done.stdout.strip()

    ends = [
        ask("rev-parse", "--verify", "--end-of-options", f"{c}^{{commit}}") for c in (first, last)
    ]
    if merges := ask("rev-list", "--merges", "--max-count=1", f"{ends[0]}..{ends[1]}"):
        raise UsageError(f"series git:{spec}: {merges[:12]} is a merge, which is no patch")
    args: tuple[str, ...] = (
        "format-patch",
        "--no-signature",
        "--full-index",
        "--binary",
        "--no-renames",
    )
    args += ("--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/")
    args += ("--always", "--numbered", "--no-attach", "--subject-prefix=PATCH", "--no-cover-letter")
    with tempfile.TemporaryDirectory(prefix="kvm-harness-series-") as scratch:
        # By way of files: a patch is bytes, and need not be UTF-8.
        ask(*args, f"--output-directory={scratch}", f"{ends[0]}..{ends[1]}")
        texts = [file.read_bytes() for file in sorted(Path(scratch).iterdir())]
    mails = [mail.parse(text.split(b"\n", 1)[1]) for text in texts]  # less its "From " line
    if not mails:
        raise UsageError(f"series git:{spec} is empty: no commit in {commits}")
    messages = [_Message(m, f"{path} {commits}", diff.extract(m.body)) for m in mails]
    base = ask("merge-base", ends[0], ends[1])
    return _series(f"{path.name}-{commits}", _as_given(messages), messages, base=base)


def _is_cover(message: _Message) -> bool:
    place = mail.place(message.mail.subject)
    named = re.match(r"(v\d+-)?0000-", Path(message.origin).name)
    return not message.diff and (named is not None or (place is not None and place.number == 0))


def _as_given(messages: Sequence[_Message]) -> list[_Message]:
    """Every message in its order but cover letters; UsageError for one that is no patch."""
    chosen = []
    for message in messages:
        if message.diff:
            chosen.append(message)
        elif not _is_cover(message):
            raise UsageError(f"{message.origin} is no patch: there is no diff in it")
    return chosen


def _select(messages: Sequence[_Message], origin: str) -> list[_Message]:
    """The patches of the newest revision among mails, sorted by number; replies are left out.

    UsageError if a number of it is missing, is there twice, or belongs to another series.
    """
    placed = [
        (place, message)
        for message in messages
        if message.diff and (place := mail.place(message.mail.subject)) and place.number > 0
    ]
    if not placed:
        raise UsageError(f"{origin} is empty: there is no patch in it")
    numbered = [(place, message) for place, message in placed if place.numbered] or placed
    newest = max(place.revision for place, _ in numbered)
    numbered = [(place, message) for place, message in numbered if place.revision == newest]
    if not numbered[0][0].numbered:
        return [message for _, message in numbered]
    totals = sorted({place.total for place, _ in numbered})
    if len(totals) != 1:
        raise UsageError(f"{origin} holds more than one series: of {totals} patches")
    by_number: dict[int, _Message] = {}
    for place, message in numbered:
        other = by_number.setdefault(place.number, message)
        if other.diff != message.diff:
            raise UsageError(
                f"{origin} holds two patches {place.number}/{place.total}: "
                f"{other.mail.subject!r} and {message.mail.subject!r}"
            )
    if missing := sorted(set(range(1, totals[0] + 1)) - by_number.keys()):
        which = ", ".join(f"{number}/{totals[0]}" for number in missing)
        raise UsageError(f"{origin}: patch {which} is missing from the series")
    return [by_number[number] for number in sorted(by_number)]


def _series(
    name: str,
    chosen: Sequence[_Message],
    messages: Sequence[_Message],
    contract: Path | None = None,
    base: str | None = None,
) -> Series:
    if not chosen:
        raise UsageError(f"series {name} is empty: there is no patch in it")
    patches = tuple(_patch(number, message) for number, message in enumerate(chosen, 1))
    related = [*chosen, *(m for m in messages if _is_cover(m))]
    bases = sorted({b.decode() for m in related for b in _BASE.findall(m.mail.body)})
    if len(bases) > 1:
        raise UsageError(f"series {name} names more than one base-commit: {', '.join(bases)}")
    sent = [m for m in related if m.mail.message_id]
    covers = [m for m in sent if _is_cover(m)]
    head = (covers[-1:] or sent[:1] or related[:1])[0].mail
    return Series(
        name=name,
        patches=patches,
        digest=digest_of([patch.diff for patch in patches]),
        base_commit=base or (bases[0] if bases else None),
        message_id=head.message_id,
        subject=head.subject,
        contract=contract,
    )


def _patch(number: int, message: _Message) -> Patch:
    subject = mail.title(message.mail.subject) or Path(message.origin).name
    try:
        files = diff.files(message.diff)
    except diff.DiffError as exc:
        raise UsageError(f"patch {number} ({subject}) in {message.origin}: {exc}") from exc
    if not files:
        raise UsageError(f"patch {number} ({subject}) in {message.origin} changes no file")
    return Patch(
        subject, message.mail.author, message.mail.body, message.diff, message.origin, files
    )
