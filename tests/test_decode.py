# SPDX-License-Identifier: GPL-2.0-only
"""What becomes of a report between the log and the file with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from kernel_helpers import soon

from harness import decode, splatlog
from harness.errors import InfraError
from harness.observe import klog
from harness.observe.splats import distinct
from harness.results import Cell, Check

DATA = Path(__file__).parent / "data/observe/klog"
WARN = (DATA / "warn.console").read_text().replace("\r", "")
(FINDING,) = distinct(klog.splats(WARN))
LINES = [
    "[    1.000000] Call trace:",
    "[    1.000000]  splat_do+0x28/0x78",
    "[    1.000000]  splat_write+0x1/0x2",
    "[    1.000000]  full_proxy_write+0x1/0x2",
    "[    1.000000] Code: d503201f (d4210000)",
    "[    1.000000] ---[ end trace 0000000000000000 ]---",
]
# As the script of 6.12 prints them.
SAID = """\
L0 [ 1.000000] Call trace:
L1 [ 1.000000] splat_do (arch/arm64/kvm/a.h:7 (discriminator 2) arch/arm64/kvm/splat.c:53)\x20
L2 [ 1.000000] splat_write (??:?)\x20
L4 [ 1.000000] Code: d503201f (d4210000)
All code
========
   0:\td503201f \tnop
L5 [ 1.000000] ---[ end trace 0000000000000000 ]---
"""


def test_lines_that_were_not_decoded_stay_as_they_were() -> None:
    text = decode.merged(LINES, SAID).split("\n")
    assert text[1].endswith(
        "splat_do (arch/arm64/kvm/a.h:7 (discriminator 2) arch/arm64/kvm/splat.c:53)"
    )
    assert [text[0], *text[2:5]] == [LINES[0], *LINES[2:5]]
    assert text[5:] == ["All code", "========", "   0:\td503201f \tnop", LINES[5]]


def test_a_script_that_says_nothing_takes_nothing_away() -> None:
    assert decode.merged(LINES, "") == "\n".join(LINES)


def test_where() -> None:
    assert decode.where(FINDING, SAID) == ("splat_do (arch/arm64/kvm/a.h:7)",)


def test_what_a_kernel_prints_makes_no_place_that_readers_refuse() -> None:
    said = f"splat_do ({'a/' * 600}a.c:1)\nsplat_do (a.c:{'1' * 1200})\nsplat_do (b.c:2)"
    assert decode.where(FINDING, said) == ("splat_do (b.c:2)",)


SCRIPT = r"""
[[ $1 == /vmlinux && $2 == /src && $CROSS_COMPILE == aarch64-linux-gnu- ]] || exit 7
touch /src/written /vmlinux 2>/dev/null && exit 8
while read line; do
    [[ $line == *" splat_do+"* ]] && line=${line/+*/ (a.c:1)}
    echo "$line"
done
"""


def source(folder: Path, script: str) -> tuple[Path, Path]:
    (folder / "src/scripts").mkdir(parents=True)
    (folder / "src" / decode.SCRIPT).write_text(script)
    (folder / "vmlinux").write_text("")
    return folder / "src", folder / "vmlinux"


def test_the_script_runs_where_it_can_write_nothing(tmp_path: Path) -> None:
    tree, vmlinux = source(tmp_path, SCRIPT)
    text = decode.decode("\n".join(LINES), vmlinux, tree, soon())
    assert text.split("\n")[1] == "[    1.000000]  splat_do (a.c:1)"
    assert text.split("\n")[2:] == LINES[2:]


def test_a_script_that_fails_or_is_not_there(tmp_path: Path) -> None:
    tree, vmlinux = source(tmp_path, "exit 3")
    with pytest.raises(InfraError, match="exit 3"):
        decode.decode("", vmlinux, tree, soon())
    (tree / decode.SCRIPT).unlink()
    with pytest.raises(InfraError, match=r"no scripts/decode_stacktrace\.sh"):
        decode.decode("", vmlinux, tree, soon())


def struck(folder: Path) -> Cell:
    there = folder / "cells/n1-vhe-patched"
    there.mkdir(parents=True)
    (there / "console.log").write_text(WARN + WARN)
    return Cell(
        id="n1-vhe-patched",
        host="n1",
        kernel="patched",
        kvm_mode="vhe",
        af_mode="hardware",
        outcome="fail",
        splats=splatlog.records(splatlog.findings(there)),
    )


def test_a_cell_gets_its_file_and_a_check_its_evidence(tmp_path: Path) -> None:
    tree, vmlinux = source(tmp_path, SCRIPT)
    cell = struck(tmp_path)
    asked: list[tuple[str, ...]] = []

    def vmlinux_of(label: str, functions: tuple[str, ...]) -> Path:
        assert label == "patched"
        asked.append(tuple(functions))
        return vmlinux

    told = decode.cells([cell], tmp_path, tree, vmlinux_of)  # type: ignore[arg-type]
    (splat,) = told[cell.id].splats
    assert asked[0][:2] == ("splat_do", "splat_write")
    assert (splat.count, splat.on_base, splat.where) == (2, False, ("splat_do (a.c:1)",))
    text = (tmp_path / told[cell.id].splat_file).read_text()
    assert "warn, 2 times" in text
    assert "splat_do (a.c:1)" in text
    assert "---[ end trace" in text
    failed = Check(
        cell=cell.id, name="c", outcome="fail", expected="", observed="", splats=cell.splats,
        evidence=("x",),
    )  # fmt: skip
    other = failed.model_copy(update={"splats": ()})
    with_lines, same = decode.checks([failed, other], told)
    assert with_lines.evidence == (told[cell.id].splat_file, "x")
    assert with_lines.splats[0].where == ("splat_do (a.c:1)",)
    assert same == other


def test_without_a_vmlinux_the_file_says_why_and_has_the_text(tmp_path: Path) -> None:
    cell = struck(tmp_path)

    def none(label: str, functions: object) -> Path:
        raise InfraError("the build folder is gone")

    told = decode.cells([cell], tmp_path, tmp_path, none)
    text = (tmp_path / told[cell.id].splat_file).read_text()
    assert "no file and line" in text
    assert "the build folder is gone" in text
    assert WARN.strip().split("\n")[-1] in text
    assert told[cell.id].splats[0].where == ()
