# SPDX-License-Identifier: GPL-2.0-only
"""The flow of `kvm-harness mutants`, with kernels and hosts that are only pretended."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from made_up import a_check
from rich.console import Console

from harness import prepare, selection
from harness.cell import CellSpec
from harness.errors import InfraError, UsageError
from harness.hosts import qemu
from harness.hosts.image import HostImage
from harness.kernel.apply import PatchedTree
from harness.kernel.built import Kernel
from harness.kernel.series import Series
from harness.kernel.source import Source
from harness.mutants import command
from harness.mutants.command import Mutants, Request, ran_on_series
from harness.mutants.results import Matrix, Ran, Result
from harness.progress import Progress
from harness.results import Cell, Check, Outcome

TABLE = """\
schema: 1
claims: {1: exactness}
mutants:
  dies:
    {breaks: all, claim: 1, stage2_af: [software], cells: [nvhe software], check: test_a,
     deaths: [livelock]}
  lies: {breaks: some, claim: 1, cells: [vhe hardware], check: test_b}
  same: {breaks: a name, kind: neutral, modes: [vhe]}
  slow: {breaks: time, claim: 1, kind: cost, metric: cost-idle, shown_by: a clock}
"""
HERE = Path("/nonesuch")


def of_series(**outcomes: Outcome) -> Ran:
    """What checks of the series with these outcomes come to."""
    checks = [a_check(name, outcome=one, reason=f"{one}!") for name, one in outcomes.items()]
    return ran_on_series(checks, 1, "series")


def test_the_worst_check_of_a_series_counts() -> None:
    ran = of_series(a="pass", b="fail", c="skip")
    assert (ran.outcome, ran.reason, ran.why) == ("fail", "fail!", {"b": "fail!"})
    assert ran.checks == {"a": "pass", "b": "fail", "c": "skip"}
    assert of_series(a="unproven", b="pass").outcome == "unproven"


def test_a_check_of_a_series_that_is_skipped_says_nothing() -> None:
    assert of_series(a="pass", b="skip").outcome == "pass"
    assert of_series(a="skip", b="skip").outcome == "skip"


def kernel(name: str) -> Kernel:
    return Kernel(
        key=name, image=HERE, vmlinux=HERE, system_map=HERE, config=HERE, log=HERE, build_dir=HERE,
        build_id=name, config_sha256="", image_sha256="", release="6.12", tree=name,
        incremental=False, seconds=30.0, steps=1, cached=False,
    )  # fmt: skip


def source() -> Source:
    return Source(
        dir=HERE, digest="base", version="6.12.117", description="Debian", base_commit=None
    )


def patched(series: Series, under: Source | PatchedTree, deadline: object) -> PatchedTree:
    return PatchedTree(
        dir=HERE,
        digest=series.digest,
        source_digest=under.digest,
        version="6.12.117",
        description="patched",
        touched=("arch/arm64/kvm/mmu.c",),
    )


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "mutants.yaml"
    path.write_text(TABLE)
    for name in ("dies", "lies", "same", "slow"):
        text = f"--- a/arch/arm64/kvm/mmu.c\n+++ b/arch/arm64/kvm/mmu.c\n@@ -1 +1 @@\n-a\n+{name}\n"
        (tmp_path / f"{name}.patch").write_text(text)
    return path


Behave = Callable[[CellSpec], tuple[Cell, tuple[Check, ...]]]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[Behave], list[CellSpec]]:
    """Replace everything that touches the machine; returns the specs that were run."""
    ran: list[CellSpec] = []

    def install(behave: Behave) -> list[CellSpec]:
        def run_cells(
            specs: Sequence[CellSpec], *, jobs: int, finished: Any, tick: Any, say: Any
        ) -> None:
            for spec in specs:
                ran.append(spec)
                finished(spec, *behave(spec))

        image = HostImage(initramfs=HERE, host_key="", login_key=HERE, digest="")
        ground = prepare.Ground(image, {}, source())
        monkeypatch.setattr(prepare, "ground", lambda spec, progress: ground)
        monkeypatch.setattr(
            prepare, "kernel", lambda name, tree, base, progress, flavor, keep: kernel(name)
        )
        monkeypatch.setattr(command, "apply", patched)
        monkeypatch.setattr(command, "run_cells", run_cells)
        monkeypatch.setattr(qemu, "check_qemu", lambda: "7.2")
        monkeypatch.setattr(selection, "checks", lambda *_: ("test_a", "test_b", "test_kernel_log"))
        return ran

    return install


def record(spec: CellSpec, **checks: Any) -> tuple[Cell, tuple[Check, ...]]:
    """A cell that lived, and its checks by outcome."""
    kept = tuple(
        Check(cell=spec.cell.id, name=f"test_{name}", outcome=o, expected="x", observed="y")
        for name, o in checks.items()
    )
    return spec.cell.record("pass").model_copy(update={"seconds": 5.0}), kept


def execute(table: Path, **options: Any) -> tuple[Matrix, str]:
    out = io.StringIO()
    console = Console(file=out, width=160)
    run = Mutants(Request(table=table, output=table.parent, **options), Progress(console))
    matrix = run.execute()
    assert Matrix.model_validate_json((run.folder / "mutants.json").read_text()) == matrix
    return matrix, out.getvalue()


def by_name(matrix: Matrix) -> dict[str, Result]:
    return {result.name: result for result in matrix.results}


def livelocked(spec: CellSpec) -> tuple[Cell, tuple[Check, ...]]:
    """The first check of "dies" livelocks; "lies" and "same" are as good as the base."""
    if spec.kernel.build_id != "dies":
        return record(spec, a="pass", b="pass")
    cell, (check,) = record(spec, a="error")
    death = {"death": "livelock", "reason": "the guest makes no progress."}
    return cell.model_copy(update={**death, "outcome": "error"}), (check.model_copy(update=death),)


def test_death_is_judged_by_the_base_kernel_and_a_miss_is_told(
    table: Path, pretend: Callable[[Behave], list[CellSpec]]
) -> None:
    ran = pretend(livelocked)
    matrix, text = execute(table, seeds=(1, 2))
    results = by_name(matrix)
    assert {name: result.found for name, result in results.items()} == {
        "base": "pass",
        "dies": "caught",
        "lies": "missed",
        "same": "pass",
        "slow": None,
    }
    assert results["dies"].ran[0].death == "livelock"
    assert results["dies"].ran[0].folder == "runs/dies-seed1/cells/a57-nvhe-patched"
    assert matrix.verdict == "fail"
    assert "MISS" in text
    # Each kernel in its own cells, the base in all of them, with either seed.
    where = {(s.kernel.build_id, s.cell.id, s.seed) for s in ran}
    assert where == {
        (name, f"{cell}-{'base' if name == 'base' else 'patched'}", seed)
        for name, cells in {
            "base": ("n1-vhe", "a57-nvhe"),
            "dies": ("a57-nvhe",),
            "lies": ("n1-vhe",),
            "same": ("n1-vhe",),
        }.items()
        for cell in cells
        for seed in (1, 2)
    }
    assert len({spec.folder for spec in ran}) == len(ran)


def test_a_record_tells_of_files_from_its_folder(
    table: Path, pretend: Callable[[Behave], list[CellSpec]]
) -> None:
    def lost(spec: CellSpec) -> tuple[Cell, tuple[Check, ...]]:
        cell, (check,) = record(spec, a="fail")
        where = {"reason": f"its last line was: x ({spec.folder}/console.log)"}
        update = {**where, "outcome": "error"}
        return cell.model_copy(update=update), (check.model_copy(update=where),)

    pretend(lost)
    matrix, _ = execute(table)
    (one,) = by_name(matrix)["dies"].ran
    told = "its last line was: x (runs/dies-seed1/cells/a57-nvhe-patched/console.log)"
    assert (one.reason, one.why) == (told, {"test_a": told})


def test_death_of_the_base_as_well_proves_nothing(
    table: Path, pretend: Callable[[Behave], list[CellSpec]]
) -> None:
    def both_die(spec: CellSpec) -> tuple[Cell, tuple[Check, ...]]:
        cell, (check,) = record(spec, a="error")
        death = {"death": "hang", "outcome": "error", "reason": "no answer"}
        return cell.model_copy(update=death), (check.model_copy(update=death),)

    pretend(both_die)
    matrix, _ = execute(table, expression="dies")
    assert {result.name: result.found for result in matrix.results} == {
        "base": "error",
        "dies": "error",
    }
    assert matrix.verdict == "error"


def test_all_caught_is_a_pass(table: Path, pretend: Callable[[Behave], list[CellSpec]]) -> None:
    def fails(spec: CellSpec) -> tuple[Cell, tuple[Check, ...]]:
        return record(spec, a="pass", b="fail" if spec.kernel.build_id == "lies" else "pass")

    pretend(fails)
    matrix, text = execute(table, expression="lies or same or slow")
    assert matrix.verdict == "pass"
    assert "listed only: slow (cost): time; shown by a clock" in text
    assert "1 of 1 mutants caught by the check named" in text


def test_mutant_runs_wherever_it_shows_if_asked(
    table: Path, pretend: Callable[[Behave], list[CellSpec]]
) -> None:
    ran = pretend(livelocked)
    execute(table, expression="dies", all_cells=True)
    cells = {spec.cell.id for spec in ran if spec.kernel.build_id == "dies"}
    assert cells == {"a57-nvhe-patched", "a57-protected-patched"}


def test_cells_that_leave_no_mutant_are_refused(
    table: Path, pretend: Callable[[Behave], list[CellSpec]]
) -> None:
    pretend(livelocked)
    with pytest.raises(UsageError, match="no selected mutant can show"):
        execute(table, expression="dies", hosts=("n1",))


def test_mutant_that_does_not_compile_is_named(
    table: Path,
    pretend: Callable[[Behave], list[CellSpec]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(livelocked)

    def build(name: str, *args: object, **kwargs: object) -> Kernel:
        if name == "lies":
            raise UsageError("mmu.c:1: 'x' undeclared")
        return kernel(name)

    monkeypatch.setattr(prepare, "kernel", build)
    with pytest.raises(UsageError, match=r"mutant lies: mmu\.c:1"):
        execute(table)
    (path,) = table.parent.glob("*/mutants.json")
    matrix = Matrix.model_validate_json(path.read_text())
    assert (matrix.verdict, "mutant lies" in matrix.reason) == ("error", True)


def ended_early(table: Path, pretend: Callable[[Behave], list[CellSpec]], *, at: str) -> Matrix:
    """What is left when the disk is full at the cells of one mutant."""

    def lost(spec: CellSpec) -> tuple[Cell, tuple[Check, ...]]:
        if spec.kernel.build_id == at:
            raise InfraError("no space left")
        return livelocked(spec)

    pretend(lost)
    with pytest.raises(InfraError):
        execute(table)
    (path,) = table.parent.glob("*/mutants.json")
    return Matrix.model_validate_json(path.read_text())


def test_what_ends_it_early_leaves_what_was_found(
    table: Path, pretend: Callable[[Behave], list[CellSpec]]
) -> None:
    matrix = ended_early(table, pretend, at="lies")
    assert (matrix.verdict, matrix.reason) == ("error", "no space left")
    assert by_name(matrix)["dies"].found == "caught"


def test_miss_stays_one_whatever_ends_it_early(
    table: Path, pretend: Callable[[Behave], list[CellSpec]]
) -> None:
    matrix = ended_early(table, pretend, at="same")
    assert by_name(matrix)["lies"].found == "missed"
    assert (matrix.verdict, matrix.reason) == ("fail", "no space left")


def test_folder_that_is_missing_is_told_before_anything_is_built(
    table: Path, pretend: Callable[[Behave], list[CellSpec]]
) -> None:
    ran = pretend(livelocked)
    with pytest.raises(UsageError, match="no such folder"):
        execute(table, markdown=table.parent / "none" / "mutants.md")
    assert not ran


def test_further_seeds_run_what_must_catch_it_alone(
    table: Path, pretend: Callable[[Behave], list[CellSpec]]
) -> None:
    log = "check: test_kernel_log, during: test_b, says: BUG"
    table.write_text(table.read_text().replace("check: test_b", log))
    ran = pretend(livelocked)
    execute(table, seeds=(7, 8))
    asked = {(s.kernel.build_id, s.seed): s.pytest_args[:-1] for s in ran}
    assert asked == {
        ("base", 7): prepare.EVERYDAY,
        ("base", 8): prepare.EVERYDAY,
        ("dies", 7): prepare.EVERYDAY,
        ("dies", 8): ("-k", "test_a"),
        ("lies", 7): prepare.EVERYDAY,
        ("lies", 8): ("-k", "test_b or test_kernel_log"),
        ("same", 7): prepare.EVERYDAY,
        ("same", 8): prepare.EVERYDAY,
    }


def test_a_stress_check_runs_where_it_is_needed(
    table: Path, pretend: Callable[[Behave], list[CellSpec]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = pretend(livelocked)
    everyday = {(): ("test_a", "test_b"), prepare.EVERYDAY: ("test_a",)}
    monkeypatch.setattr(selection, "checks", lambda args=(): everyday[args])
    execute(table)
    assert {s.kernel.build_id: s.pytest_args[:-1] for s in ran} == {
        "base": ("-k", "not stress or test_b"),
        "dies": prepare.EVERYDAY,
        "lies": ("-k", "not stress or test_b"),
        "same": ("-k", "not stress or test_b"),
    }


def test_named_checks_alone(table: Path, pretend: Callable[[Behave], list[CellSpec]]) -> None:
    ran = pretend(livelocked)
    matrix, _ = execute(table, named=True)
    assert {s.kernel.build_id: s.pytest_args[:-1] for s in ran} == {
        "base": ("-k", "test_a or test_b"),
        "dies": ("-k", "test_a"),
        "lies": ("-k", "test_b"),
        "same": ("-k", "test_a or test_b"),
    }
    assert "only the checks that are named" in matrix.notes


def test_a_neutral_mutant_meets_all_that_the_table_names(
    table: Path, pretend: Callable[[Behave], list[CellSpec]]
) -> None:
    """Alone as well: else it passes what nobody asked it."""
    ran = pretend(livelocked)
    execute(table, named=True, expression="same")
    assert {s.kernel.build_id: s.pytest_args[:-1] for s in ran}["same"] == (
        "-k",
        "test_a or test_b",
    )
