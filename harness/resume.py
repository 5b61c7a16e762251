# SPDX-License-Identifier: GPL-2.0-only
"""What is left to do of a run that was killed: by its records, which are on disk before each step.

A cell with a record of its own is done. One without may have records of checks: those checks are
not run again, whatever their outcome, since a failure that shows once in ten boots must not get a
second chance. The others run in another boot of the same kernel, which is proven anew. That is
sound because a check makes what it needs and puts it back, so that any of them can run alone; the
one that judges the whole boot, the kernel's log, runs last and reads the consoles of the boots
that were cut off as well.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import get_args

from harness import splatlog
from harness.cell import BOOTED, Booted, CellSpec
from harness.checks.plugin import HUNG_LIMIT, check_folder
from harness.errors import GuestEnd
from harness.records import append, of_cell
from harness.results import Cell, Check, Summary, af_seen

RECORDS = "records.jsonl"
# A cell that has taken so many machines down goes to no other.
MAY_TAKE_DOWN = 2
SUMMARY = "summary.json"
# Deaths during a check after which the cell goes on: one hang of a part, the end of a Linux guest.
_GOES_ON = (None, "livelock", *get_args(GuestEnd))


def ended(folder: Path) -> Summary | None:
    """The summary of a run that came to its end, None for one that was cut off or had an error."""
    path = folder / SUMMARY
    if not path.exists():
        return None
    summary = Summary.model_validate_json(path.read_text(encoding="utf-8"))
    return None if summary.reason else summary


def recorded(folder: Path) -> tuple[Cell | None, tuple[Check, ...]]:
    """The record of a cell, None if it was cut off or never began, and those of its checks.

    One that only lost its machine, and may run on another, or later on the same, has not ended.
    """
    found = of_cell(folder / RECORDS, goes_on=may_go_on(folder))
    return found.cell, found.checks


def may_go_on(folder: Path) -> bool:
    """Whether a cell that lost its machine may be given another."""
    found = of_cell(folder / RECORDS, goes_on=True)
    return sum(one.lost == "down" for one in found.earlier) < MAY_TAKE_DOWN


def over(spec: CellSpec, checks: Sequence[Check], names: Collection[str]) -> Cell | None:
    """The record of a cell that had come to its end and was cut off before it said so.

    None if there is more to do in it. `names` are all of its checks.
    """
    booted = booted_of(spec.folder)
    # A check that was proven wrong before its host died has the failure, and its cell goes on.
    died = next((check for check in checks if check.death not in _GOES_ON), None)
    hung = sum(check.death == "livelock" for check in checks)
    failed = any(check.outcome in ("fail", "error") for check in checks)
    if died is not None:
        end: dict[str, object] = {"reason": died.reason, "death": died.death}
    elif hung >= HUNG_LIMIT:
        end = {"reason": f"{HUNG_LIMIT} checks hung.", "death": "livelock"}
    elif {check.name for check in checks} >= set(names) or (failed and "-x" in spec.pytest_args):
        end = {"outcome": "pass"}
    else:
        return None
    took = (booted.boot_seconds if booted else 0.0) + sum(check.seconds for check in checks)
    return spec.record().model_copy(
        update={
            # What a boot has not come to know is as in the record of none.
            **{name: value for name, value in booted or () if value},
            **end,
            **af_seen(checks),
            "splats": splatlog.records(splatlog.findings(spec.folder)),
            "seconds": round(took, 3),
        }
    )


def take_up(spec: CellSpec, names: Collection[str]) -> tuple[Cell | None, tuple[Check, ...]]:
    """End a cell that had only not said so, and record that; make any other ready to go on.

    Its record, None for one that is to run, and those of its checks so far.
    """
    _, checks = recorded(spec.folder)
    cell = over(spec, checks, names)
    if cell is None:
        set_aside(spec.folder, checks)
    else:
        append(spec.folder / RECORDS, cell)
    return cell, checks


def set_aside(folder: Path, checks: Sequence[Check]) -> None:
    """Move what a boot that was cut off left to cut-N: all but records and recorded evidence."""
    if not folder.is_dir():
        return
    kept = {RECORDS, *(check_folder(check.name) for check in checks)}
    cuts = list(folder.glob(splatlog.CUT))
    loose = [path for path in folder.iterdir() if path.name not in kept and path not in cuts]
    if not loose:
        return
    # Named by what comes next to be resumed again: a kill in here leaves a part for the next cut.
    aside = folder / splatlog.CUT.replace("*", str(len(cuts) + 1))
    aside.mkdir()
    for path in loose:
        path.rename(aside / path.name)


def boot_ids(folder: Path) -> frozenset[str]:
    """Of the boots that the cells of a run have shown, also of those that were cut off."""
    files = (folder / "cells").glob(f"*/**/{BOOTED}")
    return frozenset(Booted.model_validate_json(path.read_text()).boot_id for path in files)


def booted_of(folder: Path) -> Booted | None:
    """What the last boot of a cell has proven, None if it was not proven to be the right one."""
    path = folder / BOOTED
    return Booted.model_validate_json(path.read_text()) if path.exists() else None
