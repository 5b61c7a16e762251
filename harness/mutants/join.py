# SPDX-License-Identifier: GPL-2.0-only
"""One matrix of several runs of `kvm-harness mutants`, each of which ran a part of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from harness.errors import UsageError
from harness.mutants import judge, missing
from harness.mutants.results import NAMED, NAMED_IN_PARTS, Matrix, Ran, Result, listed
from harness.mutants.table import Mutant

NAME = "mutants.json"


def read(run: Path) -> Matrix:
    """What a run recorded; UsageError if it is none, or is damaged. Evidence is told from there.

    `run` is its folder, or its mutants.json alone, kept under the folder's name.
    """
    alone = run.suffix == ".json"
    path = run if alone else run / NAME
    try:
        matrix = Matrix.model_validate_json(path.read_bytes())
    except OSError as exc:
        raise UsageError(f"{path}: {exc.strerror}") from exc
    except ValidationError as exc:
        raise UsageError(f"{path}: not what `kvm-harness mutants` writes: {exc}") from exc
    results = tuple(_placed(result, run.stem if alone else run.name) for result in matrix.results)
    return matrix.model_copy(update={"results": results})


def join(parts: Sequence[Matrix], mutants: Mapping[str, Mutant]) -> Matrix:
    """All that the parts ran, in the order of `mutants`, which are those of the table.

    Parts may have other mutants, or other seeds. Of a break that several ran in the same cell with
    the same seed the last one counts, and a note says what those before found; but what the same
    harness missed once it did not catch. Of what must pass each
    cell of each part counts, so no false alarm is lost; but one that ended in an error, or in which
    something could not be proven, and that came to its end in a later part with the same seed, is
    told by a note as well. So is what no part ran of what the table asks for, which is an error.
    A mutant that ran for another check than the table has now, and in a later part for that one,
    counts in those cells alone in which that one ran, and a note says what was found before.
    UsageError if it ran for the other alone, for parts of different kernels, and for a mutant that
    the table lacks. Parts that different harnesses ran may be of
    different checks: `harnesses` says so.
    """
    first = parts[0]
    seeds = tuple(sorted({seed for part in parts for seed in part.seeds}))
    for part in parts[1:]:
        for name in ("source", "version"):
            one, other = getattr(first, name), getattr(part, name)
            if one != other:
                raise UsageError(f"these runs do not belong together: {name} {one} and {other}")
    for result in (one for part in parts for one in part.results):
        if result.kind != "control" and result.ran and result.name not in mutants:
            raise UsageError(f"{result.name} was run, and is not in the table (any more)")
    notes = [*_named(parts), *(note for part in parts for note in _notes(part))]
    ran_by = tuple(dict.fromkeys(by for part in parts for by in part.harnesses or (part.harness,)))
    results: dict[str, Result] = {}
    by = {
        one.folder: part.harness for part in parts for result in part.results for one in result.ran
    }
    for part in parts:
        for result in part.results:
            if not result.ran and result.name in results:
                continue
            before = results.get(result.name)
            if before and before.ran and _named_since(before, result, mutants):
                before, told = _without_its_check(before, result.check)
                notes.append(told)
            results[result.name], note = _newer(before, result, by)
            notes += note
    controls = [one for one in results.values() if one.kind == "control"]
    table = [
        _listed_anew(results[one.name], one) if one.name in results else one
        for one in (listed(name, mutant) for name, mutant in mutants.items())
    ]
    if absent := missing.sentence((*controls, *table), mutants, seeds):
        notes.append(absent)
    joined = tuple(judge.judge(one) if one.ran else one for one in (*controls, *table))
    found = judge.verdict(joined)
    return first.model_copy(
        update={
            "harnesses": ran_by if len(ran_by) > 1 else (),
            "verdict": "error" if absent and found == "pass" else found,
            "reason": "",
            "seeds": seeds,
            "seconds": sum(part.seconds for part in parts),
            "jobs": max(part.jobs for part in parts),
            "notes": tuple(dict.fromkeys(notes)),
            "results": joined,
        }
    )


def _named(parts: Sequence[Matrix]) -> list[str]:
    """Whether in all parts, or in some, only the checks ran that mutants name."""
    if all(NAMED in part.notes for part in parts):
        return [NAMED]
    some = any({NAMED, NAMED_IN_PARTS} & set(part.notes) for part in parts)
    return [NAMED_IN_PARTS] if some else []


def _notes(part: Matrix) -> list[str]:
    """What a part says of itself; what it left out is not told, since others may have it."""
    told = (NAMED, NAMED_IN_PARTS)
    notes = [note for note in part.notes if note not in told]
    own = [note for note in notes if not note.startswith("only some mutants: ")]
    count = sum(one.kind == "break" and bool(one.ran) for one in part.results)
    words = f"a part with {count} mutants, begun at {part.started}, by kvm-harness {part.harness}"
    words += f", {NAMED}" if NAMED in part.notes else ""
    return [*own, words + (f", ended early: {part.reason}" if part.reason else "")]


def _listed_anew(result: Result, anew: Result) -> Result:
    """What was found, under the words that the table has now."""
    for name in ("check", "kind", "series", "debug"):
        was, is_now = getattr(result, name), getattr(anew, name)
        if result.ran and was != is_now:
            raise UsageError(f"{result.name} was run with {name} {was}, and the table has {is_now}")
    return anew.model_copy(update={"ran": result.ran, "build": result.build})


def _named_since(before: Result, result: Result, mutants: Mapping[str, Mutant]) -> bool:
    """Whether another check was to catch it than the table has now, and that one since."""
    if result.name not in mutants:
        return False
    check = mutants[result.name].check
    return before.check != check and result.check == check


def _without_its_check(before: Result, check: str | None) -> tuple[Result, str]:
    """The cells of it in which `check` ran, and a note of what was found for the other one."""
    was = judge.judge(before)
    note = (
        f"{before.name}: an earlier part found: {was.found} ({was.why or was.check}). "
        f"The table names {check} now"
    )
    ran = tuple(one for one in before.ran if check in one.checks)
    return before.model_copy(update={"check": check, "ran": ran}), note


def _newer(
    before: Result | None, result: Result, by: Mapping[str, str]
) -> tuple[Result, list[str]]:
    """Both as one, and a note of what was found before where it counts no more.

    `by` is the harness that ran a cell, by its folder.
    """
    if before is None or not before.ran:
        return result, []
    earlier = before

    def is_outdone(one: Ran) -> bool:
        again = [it for it in result.ran if (it.cell, it.seed) == (one.cell, one.seed)]
        if result.kind == "break":
            return _counts_later(earlier, one, again, by)
        return _told_later(one, again)

    outdone = [one for one in before.ran if is_outdone(one)]
    kept = tuple(one for one in before.ran if one not in outdone)
    both = result.model_copy(update={"ran": (*kept, *result.ran)})
    if len(kept) == len(before.ran):
        return both, []
    then = judge.judge(before.model_copy(update={"ran": tuple(outdone)}))
    why = f" ({then.why})" if then.why else ""
    return both, [f"{result.name}: an earlier part found: {then.found}{why}. The later one counts"]


def _counts_later(result: Result, one: Ran, again: Sequence[Ran], by: Mapping[str, str]) -> bool:
    """Whether a later part counts for a break's cell: not where the same harness had missed it."""
    if judge.judge(result.model_copy(update={"ran": (one,)})).found in ("caught", "error"):
        return bool(again)
    return any(by[other.folder] != by[one.folder] for other in again)


def _told_later(one: Ran, again: Sequence[Ran]) -> bool:
    """Whether what kept a cell of a sound kernel from being judged was not met another time."""
    if one.outcome == "error":
        # All that the cell was asked for, whatever came of it.
        whole = [other for other in again if other.outcome != "error"]
        return any(one.checks.keys() <= other.checks.keys() for other in whole)
    unproven = [name for name, outcome in one.checks.items() if outcome == "unproven"]
    # A reason of the cell itself is that checks are missing, which another run says nothing of.
    if one.outcome != "unproven" or one.reason or not unproven:
        return False
    return any(all(other.checks.get(name) == "pass" for name in unproven) for other in again)


def _placed(result: Result, run: str) -> Result:
    ran = tuple(_of(one, run) for one in result.ran)
    return result.model_copy(update={"ran": ran})


def _of(ran: Ran, run: str) -> Ran:
    return ran.model_copy(update={"folder": f"{run}/{ran.folder}"})
