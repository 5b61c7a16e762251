# SPDX-License-Identifier: GPL-2.0-only
"""Runs in one file: the same bytes each time, and nothing taken in that is not as it must be."""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up import a_cell, a_check, a_summary
from rich.console import Console

from harness import archive, archive_command, cli, runinput
from harness.archive import export, import_
from harness.errors import UsageError
from harness.paths import state_home
from harness.records import write_atomically
from harness.results import Cell, Figure, Summary
from harness.runfolder import find_run, imported_home, runs_home

NAME = "20260101-000000-abcd"
SUMMARY = a_summary(harness="1")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere" / NAME
    (folder / "cells" / "n1").mkdir(parents=True)
    (folder / "cells" / "n1" / "console.log").write_bytes(b"\x1b[2J" * 300)
    (folder / "empty.txt").touch()
    write_atomically(folder / "summary.json", SUMMARY)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def nothing_is_left() -> bool:
    left = [path for path in state_home().rglob("*") if path.is_file()]
    return not left and not any((state_home() / "incoming").iterdir())


def refused(file: Path, *words: str) -> None:
    with pytest.raises(UsageError) as found:
        import_(file)
    assert found.value.exit_code == 2
    for word in words:
        assert word in str(found.value)
    assert nothing_is_left()


# ---- there and back -------------------------------------------------------------------------


def test_a_run_comes_back_as_it_was(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "a.tar.gz")
    folder, new = import_(tmp_path / "a.tar.gz")
    assert (folder, new) == (imported_home() / NAME, True)
    assert files(folder) == files(run)
    assert not any((state_home() / "incoming").iterdir())


def test_an_archive_is_the_same_bytes_each_time(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "a.tar.gz")
    os.utime(run / "empty.txt", (1, 1))
    (run / "empty.txt").chmod(0o600)
    export(run, tmp_path / "b.tar.gz")
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()


def test_tar_itself_can_unpack_it(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "a.tar.gz")
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        members = tar.getmembers()
        manifest = json.loads(tar.extractfile(members[0]).read())  # type: ignore[union-attr]
    assert [member.name for member in members] == [
        f"{NAME}/{name}"
        for name in ("manifest.json", "cells/n1/console.log", "empty.txt", "summary.json")
    ]
    assert {(member.uid, member.uname, member.mtime) for member in members} == {(0, "", 0)}
    assert (manifest["schema"], manifest["run"], manifest["harness"]) == (1, NAME, "1")
    assert manifest["files"][1]["sha256"] == hashlib.sha256(b"").hexdigest()


def test_the_same_run_again_is_there_already(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "a.tar.gz")
    import_(tmp_path / "a.tar.gz")
    assert import_(tmp_path / "a.tar.gz") == (imported_home() / NAME, False)


def test_another_run_of_that_name_is_left_alone(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "a.tar.gz")
    import_(tmp_path / "a.tar.gz")
    (run / "empty.txt").write_text("not empty")
    export(run, tmp_path / "b.tar.gz")
    with pytest.raises(UsageError, match="another run of this name is there already"):
        import_(tmp_path / "b.tar.gz")
    assert files(imported_home() / NAME)["empty.txt"] == b""


def test_links_are_left_out_of_an_export(run: Path, tmp_path: Path) -> None:
    (run / "passwd").symlink_to("/etc/passwd")
    (run / "etc").symlink_to("/etc")
    os.mkfifo(run / "pipe")
    manifest = export(run, tmp_path / "a.tar.gz")
    assert "passwd" not in [entry.path for entry in manifest.files]
    assert len(manifest.files) == 3


def test_what_could_not_be_imported_is_not_exported(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.tar.gz"
    (run / ("x" * 200)).touch()
    with pytest.raises(UsageError, match="cannot be exported"):
        export(run, target)
    (run / ("x" * 200)).unlink()
    (run / "summary.json").unlink()
    with pytest.raises(UsageError, match=r"summary\.json"):
        export(run, target)
    assert not list(tmp_path.glob("*.tar.gz*")) and not list(tmp_path.glob(".*"))


def test_the_commands(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packing, unpacking = argparse.ArgumentParser(), argparse.ArgumentParser()
    archive_command.add_export(packing)
    archive_command.add_import(unpacking)
    target = str(tmp_path / "a.tar.gz")
    for parser, argv in (
        (packing, [str(run), "-o", target]),
        (unpacking, [target]),
        (unpacking, [target]),
    ):
        args = parser.parse_args(argv)
        assert args.command(args, Console()) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{target}: 3 files of {run}"
    there = imported_home() / NAME
    assert said[1:] == [f"{there}", f"{there}: that run is there already"]


# ---- what the summary names -----------------------------------------------------------------

CELL = a_cell(splats=(), splat_file="cells/n1/splats.txt")
CHECK = a_check("test_x[thp]", evidence=("cells/n1/console.log", "cells/n1", "cells/n1/dmesg.txt"))
FIGURE = Figure(
    metric="walk", what="time", unit="ns", host="n1", kvm_mode="vhe", af_mode="hardware",
    base=(1.0,), patched=(1.0,), verdict="same", evidence=("cells/n1/values.json",),
)  # fmt: skip
CUT = SUMMARY.model_copy(update={"cells": (CELL,), "checks": (CHECK,), "figures": (FIGURE,)})
LACKS = {
    "cells/n1/dmesg.txt": "check test_x[thp] of cell n1-vhe-patched",
    "cells/n1/splats.txt": "cell n1-vhe-patched",
    "cells/n1/values.json": "figure walk on n1 vhe hardware AF",
}


@pytest.fixture
def cut(run: Path) -> Path:
    """A run whose evidence is not all there, one of it because it is a link."""
    write_atomically(run / "summary.json", CUT)
    (run / "cells/n1/dmesg.txt").symlink_to(run / "empty.txt")
    return run


def test_what_is_missing_is_in_the_manifest(cut: Path, tmp_path: Path) -> None:
    assert export(cut, tmp_path / "a.tar.gz").missing == tuple(sorted(LACKS))
    folder, _ = import_(tmp_path / "a.tar.gz")
    assert archive.missing(folder) == LACKS


def test_the_manifest_of_a_whole_run_is_as_it_was(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "a.tar.gz")
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        first = json.loads(tar.extractfile(tar.getmembers()[0]).read())  # type: ignore[union-attr]
    assert "missing" not in first


def test_what_is_missing_is_told(
    cut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = str(tmp_path / "a.tar.gz")
    told = [f"missing: {path}, which {by} names" for path, by in LACKS.items()]
    for argv in (("export", str(cut), "-o", target), ("import", target)):
        assert asked(*argv) == 0
        assert sorted(capsys.readouterr().out.splitlines()[1:]) == told
    monkeypatch.setattr(archive_command, "MAX_TOLD", 1)
    assert asked("import", target) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "missing: 2 files more"


def of_summary(tmp_path: Path, summary: Summary, **changed: Any) -> Path:
    """An archive of a summary and a console, whatever else the summary names."""
    there = {
        "summary.json": summary.model_dump_json(by_alias=True).encode(),
        "cells/n1/console.log": b"x",
    }
    listed = manifest(files=[entry(path, body) for path, body in there.items()], **changed)
    first = member(f"{NAME}/manifest.json", listed)
    return packed(
        tmp_path, [first, *(member(f"{NAME}/{path}", body) for path, body in there.items())]
    )


@pytest.mark.parametrize("path", LACKS)
def test_evidence_that_nobody_says_is_missing_is_refused(tmp_path: Path, path: str) -> None:
    declared = [one for one in LACKS if one != path]
    refused(of_summary(tmp_path, CUT, missing=declared), f"{path}: {LACKS[path]} names it")


@pytest.mark.parametrize("path", ["cells/n1/console.log", "cells/n1", "nobody/names/it"])
def test_what_is_said_to_be_missing_is(tmp_path: Path, path: str) -> None:
    refused(of_summary(tmp_path, CUT, missing=[*LACKS, path]), f"{path}: is said to be missing")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/etc/passwd", "an absolute path"),
        ("../../evil", "leads out of the run"),
        ("cells/../../evil", "leads out of the run"),
        ("cells//n1", "not a plain path"),
        (".", "not a plain path"),
        ("", "not a plain path"),
        ("a\nb", "not a plain path"),
    ],
)
def test_no_path_of_the_summary_leads_elsewhere(tmp_path: Path, path: str, said: str) -> None:
    check = CHECK.model_copy(update={"evidence": (path,)})
    summary = CUT.model_copy(update={"checks": (check,)})
    words = f"check test_x[thp] of cell n1-vhe-patched names {path!r}"
    refused(of_summary(tmp_path, summary), words, said)
    refused(of_summary(tmp_path, CUT, missing=[*LACKS, path]), "manifest.json: missing.3")
    run = tmp_path / NAME
    run.mkdir()
    write_atomically(run / "summary.json", summary)
    with pytest.raises(UsageError, match="cannot be exported"):
        export(run, tmp_path / "b.tar.gz")


# ---- hostile archives -----------------------------------------------------------------------

BODY = SUMMARY.model_dump_json(by_alias=True).encode()
FILES = {"summary.json": BODY, "x/y.txt": b"evidence"}


def entry(path: str, body: bytes, **changed: Any) -> dict[str, Any]:
    found = {"path": path, "size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    return {**found, **changed}


def manifest(**changed: Any) -> bytes:
    sound = {
        "schema": 1,
        "run": NAME,
        "harness": "1",
        "summary_schema": 1,
        "files": [entry(path, body) for path, body in FILES.items()],
    }
    return json.dumps({**sound, **changed}).encode()


def member(name: str, body: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: Any) -> bytes:
    """One member, whatever it is: header, body, padding."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(body)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT) + body + b"\0" * (-len(body) % 512)


def sound() -> list[bytes]:
    """The members of an archive that nothing is wrong with."""
    first = member(f"{NAME}/manifest.json", manifest())
    return [first, *(member(f"{NAME}/{path}", body) for path, body in FILES.items())]


def packed(tmp_path: Path, members: list[bytes], end: bytes = b"\0" * 1024) -> Path:
    file = tmp_path / "hostile.tar.gz"
    file.write_bytes(gzip.compress(b"".join(members) + end, mtime=0))
    return file


def test_the_archive_that_hostile_ones_are_made_from_is_taken(tmp_path: Path) -> None:
    folder, new = import_(packed(tmp_path, sound()))
    assert new and files(folder) == FILES


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a FIFO"),
        (tarfile.DIRTYPE, ""),
        (tarfile.CONTTYPE, "of type"),
        (tarfile.XHDTYPE, "of type"),
        (tarfile.GNUTYPE_LONGNAME, "of type"),
        (tarfile.GNUTYPE_SPARSE, "of type"),
    ],
)
def test_only_regular_files_are_taken(tmp_path: Path, kind: bytes, said: str) -> None:
    first, _, last = sound()
    wrong = member(f"{NAME}/x/y.txt", kind=kind, linkname="/etc/passwd")
    refused(packed(tmp_path, [first, wrong, last]), f"{NAME}/x/y.txt", said)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/etc/passwd", "an absolute path"),
        (f"{NAME}/../../evil", "leads out of the run"),
        ("..", "leads out of the run"),
        (f"{NAME}//summary.json", "not a plain path"),
        (f"{NAME}/./summary.json", "not a plain path"),
        (f"{NAME}/a\x1b[2J", "not a plain path"),
        (f"{NAME}/a\\b", "not a plain path"),
        ("other/x/y.txt", "is not in the manifest"),
        (f"{NAME}/extra", "is not in the manifest"),
    ],
)
def test_no_member_leads_elsewhere(tmp_path: Path, name: str, said: str) -> None:
    first, *rest = sound()
    refused(packed(tmp_path, [first, member(name, b"evil"), *rest]), name, said)


@pytest.mark.parametrize("path", ["/etc/passwd", "../evil", "x/../../evil", "a//b", ".", "a\nb"])
def test_no_path_of_the_manifest_leads_elsewhere(tmp_path: Path, path: str) -> None:
    listed = manifest(files=[entry("summary.json", BODY), entry(path, b"evil")])
    first = member(f"{NAME}/manifest.json", listed)
    refused(packed(tmp_path, [first, *sound()[1:]]), "manifest.json: files.1.path")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"schema": 2}, "schema 2"),
        ({"run": "../evil"}, "run"),
        ({"run": ".hidden"}, "run"),
        ({"more": 1}, "more"),
        ({"files": [entry("a", b""), entry("a", b"")]}, "named twice"),
        ({"files": [entry("manifest.json", b"")]}, "named twice"),
        ({"files": [entry("a", b""), entry("a/b", b"")]}, "is a file and a folder"),
        ({"files": [entry("a", b"", size=2 << 30)]}, "size"),
        ({"files": [entry("a", b"", size=-1)]}, "size"),
        ({"files": [entry(f"f{n}", b"", size=1 << 30) for n in range(5)]}, "bytes; at most"),
        ({"files": [entry("a", b"", sha256="00")]}, "sha256"),
        ({"run": "other"}, "is the manifest of other"),
        ({"harness": "2"}, "not of the same run"),
    ],
)
def test_a_manifest_is_taken_strictly(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    first = member(f"{NAME}/manifest.json", manifest(**changed))
    refused(packed(tmp_path, [first, *sound()[1:]]), "manifest.json", said)


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    same = entry("", b"")
    many = [{**same, "path": f"f{n}"} for n in range(archive.MAX_FILES + 1)]
    first = member(f"{NAME}/manifest.json", manifest(files=many))
    refused(packed(tmp_path, [first]), "manifest.json: files")


@pytest.mark.parametrize(
    ("changing", "words"),
    [
        (lambda m: [m[1], m[0], m[2]], ("does not begin with the manifest",)),
        (lambda m: m[1:], ("does not begin with the manifest",)),
        (lambda m: [m[0], m[1], m[1], m[2]], (f"{NAME}/summary.json", "is there twice")),
        (lambda m: [m[0], m[0], *m[1:]], (f"{NAME}/manifest.json", "is there twice")),
        (lambda m: m[:2], (f"{NAME}/x/y.txt", "but not in the archive")),
        (
            lambda m: [*m[:2], member(f"{NAME}/x/y.txt", b"EVIDENCE")],
            (f"{NAME}/x/y.txt", "SHA-256"),
        ),
        (lambda m: [*m[:2], member(f"{NAME}/x/y.txt", b"e" * 9)], (f"{NAME}/x/y.txt", "size")),
        (lambda m: [*m, b"\0" * 1024, m[1]], ("goes on after its end",)),
        (lambda m: [*m, b"\0" * (2 << 20)], ("goes on after its end",)),
        (lambda m: [m[0], b"x" * 512], ("not a tar of a run",)),
        (lambda m: [m[0], m[1][:600]], ("not a whole archive",)),
    ],
)
def test_the_archive_is_what_its_manifest_says(
    tmp_path: Path, changing: Callable[[list[bytes]], list[bytes]], words: tuple[str, ...]
) -> None:
    changed = changing(sound())
    end = b"" if len(changed[-1]) == 600 else b"\0" * 1024
    refused(packed(tmp_path, changed, end), *words)


def test_a_member_that_says_it_is_huge_is_refused_before_it_is_read(tmp_path: Path) -> None:
    first, second, _ = sound()
    info = tarfile.TarInfo(f"{NAME}/x/y.txt")
    info.size = 1 << 40
    huge = info.tobuf(tarfile.GNU_FORMAT)
    refused(packed(tmp_path, [first, second, huge]), f"{NAME}/x/y.txt", "bytes; at most")


def test_a_bomb_is_no_longer_than_the_manifest_says(tmp_path: Path) -> None:
    """16 MiB of zeros in a few KiB, as a member that is to have 8 bytes."""
    first, second, _ = sound()
    bomb = member(f"{NAME}/x/y.txt", bytes(16 << 20))
    refused(packed(tmp_path, [first, second, bomb]), f"{NAME}/x/y.txt", "has not the size")


def test_a_manifest_may_be_only_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MANIFEST", 10)
    refused(packed(tmp_path, sound()), "does not begin with the manifest")


@pytest.mark.parametrize("body", [b"{}", b"no json", b'{"schema": 1}'])
def test_a_summary_that_is_none_is_refused(tmp_path: Path, body: bytes) -> None:
    listed = manifest(files=[entry("summary.json", body)])
    members = [member(f"{NAME}/manifest.json", listed), member(f"{NAME}/summary.json", body)]
    refused(packed(tmp_path, members), f"{NAME}/summary.json")


def test_an_archive_without_a_summary_is_refused(tmp_path: Path) -> None:
    members = [member(f"{NAME}/manifest.json", manifest(files=[]))]
    refused(packed(tmp_path, members), f"{NAME}/summary.json")


@pytest.mark.parametrize("data", [b"", b"no gzip at all", gzip.compress(b"x" * 5000, mtime=0)[:20]])
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "a.tar.gz"
    file.write_bytes(data)
    refused(file, "not a whole archive")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "absent", "no such file")
    refused(tmp_path, "no such file")


def test_a_link_in_the_place_of_a_run_is_not_followed(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "a.tar.gz")
    imported_home().mkdir(parents=True)
    (imported_home() / NAME).symlink_to(run)
    with pytest.raises(UsageError, match="another run of this name"):
        import_(tmp_path / "a.tar.gz")


def test_an_imported_run_takes_no_name_of_a_run_made_here(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "a.tar.gz")
    own = runs_home() / NAME
    shutil.copytree(run, own)
    assert import_(tmp_path / "a.tar.gz") == (own, False)
    (own / "empty.txt").write_text("not empty")
    with pytest.raises(UsageError, match="another run of this name is there already"):
        import_(tmp_path / "a.tar.gz")
    assert not imported_home().exists()


# ---- a stranger's run -----------------------------------------------------------------------


def asked(*argv: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(argv))
    return ended.value.code


@pytest.fixture
def imported(run: Path, tmp_path: Path) -> Path:
    # All that an own run has that never ended, and a failure to reproduce.
    cell = Cell(
        id="n1-vhe-patched", host="n1", kernel="patched", kvm_mode="vhe", af_mode="hardware",
        outcome="fail",
    )  # fmt: skip
    write_atomically(run / "summary.json", SUMMARY.model_copy(update={"cells": (cell,)}))
    runinput.save(run, runinput.begin({}))
    export(run, tmp_path / "a.tar.gz")
    return import_(tmp_path / "a.tar.gz")[0]


def test_an_imported_run_is_never_the_newest(imported: Path) -> None:
    with pytest.raises(UsageError, match="there is no run in"):
        find_run(None)
    assert find_run(NAME) == find_run(str(imported)) == imported.resolve()


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("run", "--resume"), "it is not resumed"),
        (("reproduce",), "what it says is not booted here"),
        (("report", "--format", "mail", "--tested-by", "J <j@example.org>"), "nobody here can say"),
    ],
)
def test_nothing_is_done_on_the_word_of_an_imported_run(
    imported: Path,
    tmp_path: Path,
    argv: tuple[str, ...],
    why: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = files(imported)
    (tmp_path / "link").symlink_to(imported)
    for name in (NAME, str(imported), str(tmp_path / "link")):
        assert asked(*argv, name) == 2
        said = capsys.readouterr()
        assert "was imported" in said.err and why in said.err
        assert said.out == ""
    assert files(imported) == before


def test_an_imported_run_is_shown(imported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked("report", NAME, "--format", "mail") == 0
    assert "n1" in capsys.readouterr().out


def test_a_damaged_copy_is_refused(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "a.tar.gz")
    whole = (tmp_path / "a.tar.gz").read_bytes()
    for cut in range(0, len(whole), 37):
        (tmp_path / "cut.tar.gz").write_bytes(whole[:cut])
        refused(tmp_path / "cut.tar.gz")
    out = io.BytesIO(whole)
    out.seek(-8, os.SEEK_END)
    out.write(b"\0\0\0\0")
    (tmp_path / "cut.tar.gz").write_bytes(out.getvalue())
    refused(tmp_path / "cut.tar.gz", "not a whole archive")
