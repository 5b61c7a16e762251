# SPDX-License-Identifier: GPL-2.0-only
"""The mail: what a maintainer could send as it stands, and when it may say Tested-by."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage
from pathlib import Path

import pytest
from made_up import a_cell, a_check, a_summary
from report_runs import random_run
from rich.cells import cell_len

from harness.errors import UsageError
from harness.report import facts
from harness.report.html import html_report
from harness.report.mail import mail, withheld
from harness.report.mailbody import WIDTH
from harness.report.markdown import markdown
from harness.report.text import EMULATION
from harness.results import CpuAf, Figure, Host, Kernel, Splat, Summary

TESTER = "Jane Doe <jane@example.org>"
SUBJECT = "[PATCH mm-unstable v1 0/5] mm/kvm: lockless accessed bit harvest"
CELL = a_cell(
    af_observed="hardware",
    af_cpus=(
        CpuAf(cpus="0-1", midr="0x414fd0c1", model="Neoverse N1", expected="hardware", why=""),
    ),
)
KERNEL = Kernel(
    label="patched",
    source="a tree with 5 patches",
    version="6.12.117",
    build_id="4740094e13f979d9ac94a6ea2289440cd3af6dd0",
    config_sha256="83bdcf71970b03c8fc14c60d2e7f7a0e17b554eeba17fe1bd407852056453ca2",
    cached=True,
    build_seconds=1.0,
    compiler="aarch64-linux-gnu-gcc version 12.2.0",
)
CHECK = a_check("test_young")
PASSES = a_summary(
    harness="0.1.0",
    series="harvest",
    series_digest="ab" * 32,
    message_id="20230217041230.2417228-1-yuzhao@google.com",
    subject=SUBJECT,
    patches=("mm: add kvm_arch_test_clear_young()",),
    whole=True,
    series_base="same",
    emulator="QEMU 7.2.22",
    notes=("hosts are emulated by QEMU 7.2.22", "another base"),
    kernels=(KERNEL,),
    cells=(CELL,),
    checks=(CHECK,),
)
FIGURE = Figure(
    metric="age-page-idle",
    what="each page that page_idle ages",
    unit="instructions, under TCG",
    host="n1",
    kvm_mode="vhe",
    af_mode="hardware",
    base=(2311.0, 2311.0),
    patched=(1450.0, 1451.0),
    effect=-0.3725,
    low=-0.38,
    high=-0.36,
    smallest=0.012,
    verdict="better",
    reason="beyond the noise",
)


def nothing(path: str) -> None:
    """No run folder."""


def parsed(run: Summary, tested_by: str | None = None) -> EmailMessage:
    message = email.message_from_bytes(
        mail(run, nothing, tested_by).encode(), policy=email.policy.default
    )
    assert isinstance(message, EmailMessage)
    return message


def body(run: Summary, tested_by: str | None = None) -> str:
    return str(parsed(run, tested_by).get_content())


def but(**changes: object) -> Summary:
    return PASSES.model_copy(update=changes)


def failing(**changes: object) -> Summary:
    check = CHECK.model_copy(
        update={"outcome": "fail", "expected": "650 young", "observed": "649 young", **changes}
    )
    return but(verdict="fail", checks=(check,))


def test_it_is_a_reply_to_the_series() -> None:
    message = parsed(PASSES)
    assert message["Subject"] == f"Re: {SUBJECT}"
    assert message["In-Reply-To"] == message["References"] == f"<{PASSES.message_id}>"
    assert parsed(but(subject=f"Re: {SUBJECT}"))["Subject"] == f"Re: {SUBJECT}"


@pytest.mark.parametrize("length", [60, 150])
def test_a_long_message_id_is_neither_encoded_nor_broken(length: int) -> None:
    raw = mail(but(message_id=f"{'a' * length}@mail.example.org"), nothing)
    assert raw.count(f"<{'a' * length}@mail.example.org>\n") == 2


def test_a_subject_that_is_not_ascii() -> None:
    subject = "[PATCH] KVM: Größe " + "und noch ein Wort " * 8
    raw = mail(but(subject=subject), nothing)
    assert raw.split("\n\n")[0].isascii()
    assert max(map(len, raw.split("\n\n")[0].split("\n"))) <= 78
    assert parsed(but(subject=subject))["Subject"] == f"Re: {subject.strip()}"


def test_without_a_message_id_it_is_no_reply() -> None:
    message = parsed(but(message_id="", subject="", series=""))
    assert message["In-Reply-To"] is None
    assert message["Subject"] == "KVM/arm64 stage-2 page aging: base kernel: pass"


def test_what_was_tested_on_what() -> None:
    text = body(PASSES)
    for words in (
        "With the series 1 check passes.\n"
        "Verdict of kvm-harness 0.1.0 on stage-2 page aging: pass (1 cell;\npatched 1 pass).\n\n"
        "Limits of this run:\n  | another base\nEmulated hosts show",
        "  series    harvest, sha256 of its diffs abababababababab\n",
        "  | 1. mm: add kvm_arch_test_clear_young()\n",
        "  patched   Linux 6.12.117, a tree with 5 patches\n",
        f"build id {KERNEL.build_id}\n",
        "configuration 83bdcf71970b03c8 (sha256)\n",
        "  compiler  aarch64-linux-gnu-gcc version 12.2.0\n",
        "  host      n1, Neoverse N1, MIDR_EL1 0x414fd0c1, CPUs 0-1\n",
        "            emulated by QEMU 7.2.22\n",
        "  n1   vhe      patched hardware hardware pass\n",
    ):
        assert words in text
    assert "What was not as expected" not in text
    assert text.count("emulated by") == 1


def test_on_what_costs_were_counted_without_a_cell() -> None:
    host = Host(name="n1", cpu="neoverse-n1", cpus=4, memory_mib=2048)
    count = but(cells=(), checks=(), figures=(FIGURE,), hosts=(host,))
    text = body(count)
    assert "  host      n1, CPU model neoverse-n1\n            emulated by QEMU 7.2.22\n" in text
    assert text.count("emulated by") == 1
    assert "  host      n1, CPU not known\n" in body(count.model_copy(update={"hosts": ()}))
    page = markdown(count, nothing)
    assert "- host `n1`: `CPU model neoverse-n1`, emulated by `QEMU 7.2.22`\n" in page
    assert "<dt>host n1</dt><dd>vhe; CPU model neoverse-n1</dd>" in html_report(count, Path("none"))


def test_a_machine_of_a_group_stands_for_it_only_where_it_was_used() -> None:
    """A run's hosts are all that its cells might have run on."""
    machines = tuple(
        Host(name=name, cpu=f"{name}'s own", cpus=4, memory_mib=2048) for name in ("a", "b", "c")
    )
    cells = (a_cell(host="farm", machine="b"), a_cell("base", host="farm", machine="b"))
    run = but(cells=cells, checks=(), hosts=machines)
    assert facts.cpus(run) == {"farm": ("CPU model b's own",)}
    assert facts.kvm_modes(run) == {"farm": ("vhe",)}
    nowhere = tuple(one.model_copy(update={"machine": ""}) for one in cells)
    assert facts.cpus(run.model_copy(update={"cells": nowhere})) == {"farm": ()}


def test_what_emulates_is_told_where_no_host_is() -> None:
    text = body(but(cells=(), checks=()))
    assert "  | hosts are emulated by QEMU 7.2.22\n" in text


def test_what_emulation_cannot_show() -> None:
    assert EMULATION in " ".join(body(PASSES).split())
    assert EMULATION not in " ".join(body(but(emulated=False)).split())


def test_a_failure_with_its_shortest_evidence() -> None:
    line = "ValueError: " + "x" * 100
    run = failing(evidence=("a/error.txt", "a/before.txt"))
    text = mail(run, {"a/error.txt": f"[    3.141593] {line}\n"}.get)
    assert "The files that are named are in the run's folder" in text
    assert "FAIL  test_young in n1-vhe-patched\n  | expected: 650 young\n" in text
    assert f"  | from a/error.txt:\n  |   {line[:64]}..\n" in text, "cut, not wrapped"


def test_evidence_that_cannot_be_shown_is_not_named() -> None:
    text = body(failing(evidence=("a/after.txt", "a/dump.txt")))
    assert "a/dump.txt" not in text and "see " not in text
    assert "The files that are named" not in text


def test_what_the_kernel_reported_is_told_once() -> None:
    splat = Splat(kind="warn", title="WARNING: at f", key="k", count=7, where=("f (a.c:1)",))
    run = failing(splats=(splat,))
    cell = CELL.model_copy(update={"splats": (splat,), "splat_file": "cells/c/splats.txt"})
    text = body(run.model_copy(update={"cells": (cell,)}))
    assert text.count("WARNING: at f") == 1
    assert "  | 7 times: WARNING: at f\n  |     f (a.c:1)\n  | see cells/c/splats.txt\n" in text


def test_figures_with_their_intervals() -> None:
    text = " ".join(body(but(figures=(FIGURE,))).replace("  | ", " ").split())
    assert "better age-page-idle on n1 vhe hardware AF" in text
    assert "base 2311 (n=2), patched 1450 (n=2)" in text
    assert "change -37.2 %, 95 % interval -38.0 % to -36.0 %" in text
    assert "could have shown 1.2 %" in text


@pytest.mark.parametrize("seed", range(10))
def test_no_line_is_wider(seed: int) -> None:
    raw = mail(random_run(seed), nothing, TESTER)
    assert max(map(len, raw.split("\n\n", 1)[1].split("\n"))) <= WIDTH


def test_wide_characters_take_two_columns() -> None:
    text = body(but(notes=("\N{CJK UNIFIED IDEOGRAPH-6D4B}" * 100,)))
    lines = [line for line in text.split("\n") if "\N{CJK UNIFIED IDEOGRAPH-6D4B}" in line]
    assert max(map(cell_len, lines)) == WIDTH


def test_tested_by_is_the_last_line_of_a_mail_that_earned_it() -> None:
    assert withheld(PASSES) == ""
    assert body(PASSES, TESTER).endswith(f"\n\nTested-by: {TESTER} # emulated arm64\n")
    assert body(but(emulated=False), TESTER).endswith(f"\n\nTested-by: {TESTER}\n")
    long = f"{'Jane ' * 10}Doe <jane@example.org>"
    assert body(PASSES, long).endswith(f"\n\nTested-by: {long} # emulated arm64\n")


def test_nobody_tested_it_without_a_name() -> None:
    assert "Tested-by" not in mail(PASSES, nothing)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"verdict": "fail"}, "its verdict is fail"),
        ({"verdict": "unproven"}, "its verdict is unproven"),
        ({"verdict": "error"}, "its verdict is error"),
        ({"reason": "interrupted"}, "it has not come to its end"),
        ({"whole": False}, "it was not a whole run"),
        ({"series_base": "doubtful"}, "not known to have tested the base"),
        ({"series_base": ""}, "not known to have tested the base"),
        ({"checks": (CHECK.model_copy(update={"outcome": "fail"}),)}, "is not a pass"),
        ({"cells": (CELL.model_copy(update={"outcome": "unproven"}),)}, "is not a pass"),
        ({"cells": (CELL.model_copy(update={"kernel": "base"}),)}, "no cell passed with"),
        ({"cells": ()}, "no cell passed with the series"),
        ({"series": ""}, "it tested no series"),
        ({"figures": (FIGURE.model_copy(update={"verdict": "worse"}),)}, "worse: age-page-idle"),
    ],
)
def test_tested_by_is_withheld(changes: dict[str, object], why: str) -> None:
    run = but(**changes)
    assert why in withheld(run)
    assert "Tested-by" not in mail(run, nothing, TESTER)


@pytest.mark.parametrize(
    "name",
    ["", "Jane", "jane@example.org", "<jane@example.org>", "J <a@b>\nBcc: x", "J <a@b> # x",
     "J\x1b <a@b>", "J <a b@c>", "J <a@b@c>", 'J" <a@b>', "J <K <a@b>"],
)  # fmt: skip
def test_a_tester_who_is_none(name: str) -> None:
    with pytest.raises(UsageError, match="--tested-by"):
        mail(PASSES, nothing, name)


def test_a_name_that_is_not_ascii() -> None:
    name = "Jürgen Groß <j@example.org>"
    assert f"Tested-by: {name}" in body(PASSES, name)


def test_a_run_that_was_interrupted_says_so() -> None:
    text = body(but(reason="interrupted", verdict="error"))
    assert text.startswith(
        "The run has not come to its end (patched 1 pass):\n  | interrupted\nVerdict of kvm-harness"
    )


def test_the_limits_stand_before_all_that_failed() -> None:
    text = body(failing())
    heads = ("Verdict of", "Limits of this run:", "What was not as expected", "What was tested:")
    assert sorted(heads, key=text.index) == list(heads)
