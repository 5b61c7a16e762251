# SPDX-License-Identifier: GPL-2.0-only
"""Runs for the tests of reports: random ones from a seed, and words that mean harm."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import get_args

from harness import verdict
from harness.inventory import AfMode, KvmMode
from harness.results import (
    SERIES,
    Cell,
    Check,
    CpuAf,
    Effect,
    Figure,
    Kernel,
    KernelLabel,
    Outcome,
    Splat,
    Summary,
)

# What each form could take for its own: the language of a terminal, HTML, Markdown, XML, mails and
# KTAP, text that runs backwards, and half of a character.
HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07\x9b31m\x00\x08 <script>alert(1)</script><img src=x onerror=1> "
    "]]> &amp; <pass/> `` ``` | \\| [x](http://evil.example) @maintainer #1 GH-1 **b** ~~s~~ "
    "\u202egnp.exe\u2066\u200f\u061c\u200b\ufeff\ufffe\ud800\xad\u3164\ufe0f\U000e0041 "
    "# SKIP all\r\n"
    "Bcc: evil@example.org\r\n\r\n"
    "ok 1 - pwned\n  ok 2 - pwned\nnot ok 3 - pwned\nKTAP version 1\n1..0\nBail out!\n"
    "Subtest: pwned\n  Subtest: pwned\n# Subtest: pwned\nTAP version 13\n"
    "List of all partitions:\nKernel panic - not syncing: VFS: x\nreboot: System halted\n"
    "Tested-by: Nobody <nobody@example.org>\n-- \n---\ndiff --git a/x b/x\nFrom x\n"
    "```\n# heading\n- item\nverdict: pass: all well\x85\u2028verdict: pass"
)
WORDS = ("2048 of 2048 young", "page_idle asks KVM", "no access fault", "a: b, c", "", "x" * 90)
# What a caller may put in place of harmless words, and what every form must survive.
NAMES = ("n1", "a57", "altra", "host_3")


def random_run(seed: int, *, hostile: bool = False) -> Summary:
    """A run that a harness could have written; with `hostile`, one that only an enemy could."""
    chance = random.Random(seed)

    def words() -> str:
        return HOSTILE if hostile else chance.choice(WORDS)

    cells = _cells(chance, words() if hostile else "")
    checks = tuple(_checks(chance, cells, words))
    reason = chance.choice(("", "", "", "interrupted", words()))
    labels: tuple[KernelLabel, ...] = ("base", "patched")
    found = verdict.of_run(cells, [check for check in checks if check.cell == SERIES])
    return Summary(
        schema=1,
        harness=words() or "0.1.0",
        verdict="error" if reason and found != "fail" else found,
        reason=reason,
        series=words() if hostile else chance.choice(("", "stage2-sw-af")),
        series_digest="ab" * 32,
        message_id=words() if hostile else chance.choice(("", "20230217041230.1-1-a@example.org")),
        subject=words() if hostile else chance.choice(("", "[PATCH v2 0/5] mm/kvm: harvest")),
        patches=tuple(words() for _ in range(chance.randrange(3))),
        whole=chance.random() < 0.5,
        seed=chance.randrange(1 << 32),
        started=words() if hostile else "2026-11-28T11:32:52+00:00",
        seconds=chance.random() * 1000,
        emulated=chance.random() < 0.5,
        emulator=words(),
        debug=chance.random() < 0.5,
        notes=tuple(words() for _ in range(chance.randrange(4))),
        kernels=tuple(_kernel(label, words) for label in labels[: chance.randrange(3)]),
        cells=cells,
        checks=checks,
        figures=tuple(_figure(chance, words) for _ in range(chance.randrange(3))),
    )


def _cells(chance: random.Random, hostile: str) -> tuple[Cell, ...]:
    places = [
        (host, mode, kernel, variant)
        for host in NAMES
        for mode in get_args(KvmMode)
        for kernel in get_args(KernelLabel)
        for variant in ("", "sw-af")
    ]
    return tuple(
        Cell(
            id=hostile + "-".join(part for part in place if part),
            host=hostile + place[0],
            kvm_mode=place[1],
            kernel=place[2],
            variant=hostile + place[3],
            af_mode=chance.choice(get_args(AfMode)),
            af_observed=chance.choice((None, *get_args(AfMode))),
            af_cpus=_cpus(chance, hostile),
            outcome=chance.choice(get_args(Outcome)),
            reason=hostile or chance.choice(("", "", "the host did not boot")),
            death=chance.choice((None, "panic", "hang")),
            build_id=hostile,
            cmdline=hostile or "console=ttyAMA0 panic=-1",
            splats=tuple(_splat(chance, hostile) for _ in range(chance.randrange(3))),
            splat_file=hostile or chance.choice(("", "cells/x/splats.txt")),
            seconds=chance.random() * 100,
        )
        for place in chance.sample(places, chance.randrange(4 if hostile else 12))
    )


def _checks(
    chance: random.Random, cells: tuple[Cell, ...], words: Callable[[], str]
) -> Iterator[Check]:
    names = ["test_page_idle", "test_split[thp]", "test_split[memfd]", "test_leaks", "test_young"]
    for cell in (SERIES, *(cell.id for cell in cells)):
        for name in chance.sample(names, chance.randrange(len(names) + 1)):
            yield Check(
                cell=cell,
                name=name + words() if words() == HOSTILE else name,
                outcome=chance.choice(get_args(Outcome)),
                expected=words(),
                observed=words(),
                evidence=tuple(words() or "cells/x/error.txt" for _ in range(chance.randrange(9))),
                reason=words(),
                also_on_base=chance.random() < 0.2,
                fast_path=chance.choice((None, True, False)),
                splats=(_splat(chance, words()),) if chance.random() < 0.2 else (),
                seconds=chance.random(),
            )


def _cpus(chance: random.Random, hostile: str) -> tuple[CpuAf, ...]:
    kind = CpuAf(
        cpus=f"0-1{hostile}",
        midr=f"0x414fd0c1{hostile}",
        model=chance.choice(("", f"Neoverse N1{hostile}")),
        expected="hardware",
        why=hostile,
    )
    return (kind,) * chance.randrange(2)


def _splat(chance: random.Random, words: str) -> Splat:
    return Splat(
        kind="warn",
        title=f"WARNING: CPU: 0{words}",
        key="warn: f",
        count=chance.randrange(1, 9),
        on_base=chance.random() < 0.5,
        where=(f"f (a.c:1){words}",),
    )


def _kernel(label: KernelLabel, words: Callable[[], str]) -> Kernel:
    return Kernel(
        label=label,
        source=words(),
        version=words() or "6.12.117",
        build_id=words() or "45896c99",
        config_sha256=words() or "83bd" * 16,
        cached=True,
        build_seconds=1.5,
        compiler=words(),
    )


def _figure(chance: random.Random, words: Callable[[], str]) -> Figure:
    told = chance.random() < 0.7
    return Figure(
        metric=words() or "age-page-idle",
        what=words(),
        unit=words() or "instructions per page, under TCG",
        host=words() or "n1",
        kvm_mode="vhe",
        af_mode="hardware",
        base=tuple(chance.random() for _ in range(chance.randrange(6))),
        patched=tuple(chance.random() for _ in range(chance.randrange(6))),
        effect=chance.uniform(-1, 1) if told else None,
        low=-0.2 if told else None,
        high=0.2 if told else None,
        smallest=chance.choice((None, 0.03)),
        verdict=chance.choice(get_args(Effect)),
        reason=words(),
        conditions={words() or "boost": words()} if told else {},
    )
