# SPDX-License-Identifier: GPL-2.0-only
"""The HTML report: all of a run, in one file that a browser can only show."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from made_up import a_summary

from harness.plan import PlannedCell
from harness.report.compared import Difference, differences, pairs
from harness.report.excerpts import TOTAL
from harness.report.html import html_report
from harness.results import (
    SERIES,
    Cell,
    Check,
    Figure,
    Kernel,
    KernelLabel,
    Outcome,
    Splat,
    Summary,
)
from harness.timing.options import TimingOptions
from harness.timing.rounds import boots

HOSTILE = (
    "\"'><script>alert(1)</script><img src=http://evil/x onerror=alert(1)></style></pre></svg>"
    "{{ 7 * 7 }}{% raw %}\x1b[2J\x00\x9b\u202e\u2066\u200f\ud800]]>--><!-- &lt;"
    "$\\frac{1}$\n\r\ttail"
)
VOID = {"meta", "link", "br", "img", "input", "base", "hr"}


class Page(HTMLParser):
    """A page as a browser sees it: tags with their attributes, and the text in each element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.path: list[str] = []
        self.seen: list[str] = []
        self.feed(text)
        self.close()
        assert not self.path, "elements that are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.path.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.path.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.path and self.path[-1] != "style":
            self.seen.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    @property
    def text(self) -> str:
        return "".join(self.seen)

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def values(self, key: str) -> list[str]:
        return [attrs[key] for _, attrs in self.tags if key in attrs]


def cell(
    kernel: KernelLabel = "base",
    outcome: Outcome = "pass",
    *,
    host: str = "n1",
    variant: str = "",
    reason: str = "",
    splats: tuple[Splat, ...] = (),
    splat_file: str = "",
) -> Cell:
    return Cell(
        id=f"{host}-vhe-{kernel}{variant}",
        host=host,
        kernel=kernel,
        kvm_mode="vhe",
        af_mode="hardware",
        variant=variant,
        outcome=outcome,
        reason=reason,
        build_id="45896c99",
        kvm_line="VHE mode initialized successfully",
        cmdline="panic=15 mitigations=off",
        splats=splats,
        splat_file=splat_file,
        boot_seconds=1.0,
        seconds=10.0,
    )


def check(of: str, name: str, outcome: Outcome, *evidence: str, text: str = "") -> Check:
    return Check(
        cell=of,
        name=name,
        outcome=outcome,
        expected=f"expected {text}",
        observed=f"observed {text}",
        reason="" if outcome == "pass" else f"reason {text}",
        evidence=evidence,
        seconds=1.5,
    )


def figure(**changes: object) -> Figure:
    values: dict[str, object] = {
        "metric": "cost",
        "what": "the cost of aging",
        "unit": "instructions per page, under TCG",
        "host": "n1",
        "kvm_mode": "vhe",
        "af_mode": "hardware",
        "base": (400.0, 402.0, 401.0),
        "patched": (300.0, 301.0, 299.5),
        "effect": -0.25,
        "low": -0.26,
        "high": -0.24,
        "verdict": "better",
    }
    return Figure.model_validate(values | changes)


def summary(
    cells: tuple[Cell, ...] = (),
    checks: tuple[Check, ...] = (),
    figures: tuple[Figure, ...] = (),
    text: str = "",
) -> Summary:
    return a_summary(
        harness="0.1.0",
        verdict="fail",
        reason=text,
        series=text or "stage2-sw-af",
        seed=7,
        seconds=634.2,
        notes=(f"a note {text}",),
        kernels=(
            Kernel(
                label="base",
                source=f"Debian {text}",
                version="6.12.117",
                build_id="45896c99",
                config_sha256="83bd",
                cached=True,
                build_seconds=525.4,
            ),
        ),
        cells=cells,
        checks=checks,
        figures=figures,
    )


def steps(count: int = 3) -> str:
    lines = (
        {
            "step": f"pass-{number}",
            "uptime": 100 + number,
            "generations": [
                {"seq": number + age, "age_ms": 1, "anon": 100 * age, "file": 0} for age in range(4)
            ],
            "active_anon": 1,
            "inactive_anon": 2,
            "notices": None,
        }
        for number in range(count)
    )
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def a_run(folder: Path, text: str = "") -> Summary:
    """A run of every kind of thing, with its evidence; `text` is in whatever can have it."""
    (folder / "log.txt").write_text(f"a line of the log\n{text}", "utf-8", "backslashreplace")
    (folder / "generations.jsonl").write_text(steps())
    splat = Splat(kind="warn", title=f"WARNING {text}", key="k", site="mmu.c:1", where=(text,))
    cells = (
        cell(),
        cell("patched", "fail", splats=(splat,), splat_file="log.txt"),
        cell("patched", "error", variant="sw-af", reason=f"it panicked {text}"),
    )
    base, patched, _ = (one.id for one in cells)
    checks = (
        check(base, f"test_page_idle{text}", "pass", "log.txt", text=text),
        check(patched, f"test_page_idle{text}", "fail", "log.txt", "absent.txt", text, text=text),
        check(base, "test_race[a-b]", "pass"),
        check(base, "test_race[c-d]", "unproven", text=text),
        check(base, "test_protected", "skip", text=text),
        check(patched, "test_pressure[walk]", "pass", "generations.jsonl"),
        check(SERIES, "build_without_kvm", "pass", text=text),
    )
    figures = (
        figure(what=f"what {text}", host=f"n1{text}", evidence=("log.txt", text)),
        figure(what=f"what {text}", verdict="inconclusive", effect=None, low=None, high=None),
    )
    return summary(cells, checks, figures, text)


def check_harmless(page: Page, folder: Path) -> None:
    """Assert that a browser runs nothing, fetches nothing, and leads nowhere but to the folder."""
    known = {
        *("html", "head", "meta", "title", "style", "body", "header", "nav", "section", "h1", "h2"),
        *("h3", "p", "a", "b", "br", "i", "small", "code", "pre", "span", "div", "ul", "li", "dl"),
        *("dt", "dd", "details", "summary", "figure", "figcaption"),
        *("table", "thead", "tbody", "tr", "th", "td"),
        *("svg", "g", "defs", "clippath", "path", "rect", "text", "use"),
    }
    assert {tag for tag, _ in page.tags} <= known
    keys = {key for _, attrs in page.tags for key in attrs}
    assert not {key for key in keys if key.startswith("on") or key.startswith("xmlns")}
    assert not keys & {"src", "srcset", "action", "background", "ping", "xlink:href"}
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    for href in page.values("href"):
        if href.startswith("#"):
            assert href[1:] in ids
        else:
            assert re.fullmatch(r"\./[A-Za-z0-9._~/%-]+", href)
            assert (folder / unquote(href)).is_file()
    for value in [*page.values("style"), *page.values("clip-path")]:
        assert "url(" not in value or re.fullmatch(r"url\(#[a-z0-9-]+\)", value)
    policy = [one["content"] for one in page.of("meta") if "http-equiv" in one]
    assert len(policy) == 1
    assert policy[0].startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")


def test_a_hostile_run_is_shown_and_does_nothing(tmp_path: Path) -> None:
    text = html_report(a_run(tmp_path, HOSTILE), tmp_path)
    text.encode()
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]", text
    )
    page = Page(text)
    check_harmless(page, tmp_path)
    shown = "<script>alert(1)</script><img src=http://evil/x onerror=alert(1)></style></pre></svg>"
    for word in ("expected", "observed", "reason", "a note", "it panicked", "WARNING", "what"):
        assert f"{word} \"'>{shown}{{{{ 7 * 7 }}}}" in page.text
    assert "\\x1b[2J\\x00\\x9b\\u202e\\u2066\\u200f" in page.text


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Summary, Path, str]:
    """A run, its folder and its page; drawing takes a while."""
    folder = tmp_path_factory.mktemp("run")
    run = a_run(folder)
    return run, folder, html_report(run, folder)


def test_everything_of_a_run_is_there(report: tuple[Summary, Path, str]) -> None:
    _, folder, text = report
    page = Page(text)
    check_harmless(page, folder)
    words = " ".join(page.text.split())
    for word in (
        *("stage2-sw-af", "Debian", "6.12.117", "45896c99", "83bd", "0.1.0", "seed 7", "634 s"),
        *(
            "host n1vhe",
            "They cannot show TLB residency",
            "VHE mode initialized",
            "mitigations=off",
            "mmu.c:1",
        ),
        *(
            "a line of the log",
            "absent.txt no file of the run folder",
            "it panicked",
            "a kernel did not do",
        ),
        *("401", "400 to 402", "-25 %", "-26 % to -24 %", "95 %", "better"),
    ):
        assert word in words, word
    # Two distributions, the effects, and the generations.
    assert len([one for one in page.of("svg") if one["class"] == "plot"]) == 4


def test_counts_are_those_of_the_run(report: tuple[Summary, Path, str]) -> None:
    run, _, text = report
    table = text.partition('<table id="counts">')[2].partition("</table>")[0]
    for of, ended in (("checks", run.checks), ("cells", run.cells)):
        row = table.partition(f'<tr data-of="{of}">')[2].partition("</tr>")[0]
        found = {kind: int(n) for kind, n in re.findall(r'data-outcome="(\w+)">(\d+)<', row)}
        outcomes = [one.outcome for one in ended]
        kinds: tuple[Outcome, ...] = ("pass", "fail", "error", "unproven", "skip")
        assert found == {kind: outcomes.count(kind) for kind in kinds} | {"all": len(outcomes)}
    boxes = [one for one in Page(text).of("details") if "check" in one.get("class", "").split()]
    assert sorted(one["data-outcome"] for one in boxes) == sorted(c.outcome for c in run.checks)


def test_the_matrix_has_the_worst_of_each_check(report: tuple[Summary, Path, str]) -> None:
    _, _, text = report
    rows = text.partition('<table id="matrix">')[2].partition("<tbody>")[2].split("</tr>")[:3]
    base, patched, variant = (
        dict(re.findall(r'title="(\w+) in .*?".*?>([^<>\s]+)<', row)) for row in rows
    )
    assert base["test_race"] == "?" and base["test_page_idle"] == "ok"
    assert base["test_protected"] == "-" and base["test_pressure"] == "."
    assert patched["test_page_idle"] == "FAIL" and set(variant.values()) == {"."}


def test_the_same_run_gives_the_same_bytes(report: tuple[Summary, Path, str]) -> None:
    run, folder, text = report
    assert html_report(run, folder) == text


def test_an_empty_run(tmp_path: Path) -> None:
    page = Page(html_report(summary(), tmp_path))
    check_harmless(page, tmp_path)
    assert "No cell ran." in page.text
    assert "figures" not in page.values("id") and not page.of("svg")


def test_a_run_whose_folder_is_gone(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    gone = tmp_path / "gone"
    page = Page(html_report(run, gone))
    check_harmless(page, gone)
    assert "log.txt no file of the run folder" in " ".join(page.text.split())
    assert "generations.jsonl: no file of the run folder" in page.text


def test_a_run_without_figures_has_no_section_of_them(tmp_path: Path) -> None:
    run = a_run(tmp_path).model_copy(update={"figures": ()})
    assert "figures" not in Page(html_report(run, tmp_path)).values("id")


def test_a_hundred_megabytes_of_log_make_no_large_page(tmp_path: Path) -> None:
    with (tmp_path / "log.txt").open("wb") as file:
        file.write(b"the first line\n" * 2000)
        file.seek(100 << 20)
        file.write(b"the last line\n" * 2000)
    checks = (check("n1-vhe-base", "test_a", "fail", "log.txt", text="y" * (1 << 20)),)
    text = html_report(summary((cell(),), checks), tmp_path)
    assert "the first line" in text and "the last line" in text and "100.0 MiB left out" in text
    assert len(text) < 200_000


def test_what_did_not_pass_has_the_first_claim_on_the_room(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("&\n" * 8000)
    (tmp_path / "last.txt").write_text("this failed\n")
    checks = (
        check("n1-vhe-base", "test_a", "pass", *["long.txt"] * 200),
        check("n1-vhe-base", "test_b", "fail", "last.txt"),
    )
    text = html_report(summary((cell(),), checks), tmp_path)
    assert "this failed" in text
    assert "not shown: this report is long enough" in text
    assert TOTAL / 2 < len(text) < TOTAL + 200_000


@pytest.mark.parametrize(
    "values", [(), (float("nan"), float("inf")), (1e308, -1e308), (5.0,), (0.0, 0.0), (1e-300,)]
)
def test_figures_of_any_numbers(tmp_path: Path, values: tuple[float, ...]) -> None:
    ends = {"effect": values[0] if values else None, "low": float("-inf"), "high": float("inf")}
    run = summary((), (), (figure(base=values, patched=values, **ends),))
    check_harmless(Page(html_report(run, tmp_path)), tmp_path)


def test_counts_have_layouts_where_measured_values_have_intervals(tmp_path: Path) -> None:
    counted = figure(base=(100.0, 100.0, 140.0), patched=(135.0, 137.0), spread=40.0)
    measured, layouts = (
        html_report(summary((), (), (one,)), tmp_path) for one in (figure(), counted)
    )
    assert "<small>(95" in measured and ">interval</th>" in measured
    assert "layouts differ by 40.0" in layouts and ">layouts differ by</th>" in layouts
    assert "<small>(95" not in layouts and "Effects with their intervals" not in layouts


def test_what_a_plot_leaves_out_is_told(tmp_path: Path) -> None:
    many = figure(base=(1.0, float("nan"), *range(300)), patched=(2.0,))
    page = Page(html_report(summary((), (), (many,)), tmp_path))
    assert "; 102 repetitions not drawn" in page.text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "has no step"),
        ("{}\n", "line 1 is not a step"),
        (steps(2) + "[" * 5000, "line 3 is not a step"),
        (steps(1).replace('"anon": 100', '"anon": -1'), "line 1 is not a step"),
        (steps(1).replace('"uptime": 100', '"uptime": 1e999'), "line 1 is not a step"),
        (steps(65), "has 65 steps, more than 64"),
        ("x" * (2 << 20), "has 2097152 bytes, more than 1048576"),
    ],
)
def test_why_generations_are_not_drawn(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "generations.jsonl").write_text(text)
    checks = (check("n1-vhe-base", "test_pressure[walk]", "pass", "generations.jsonl"),)
    page = Page(html_report(summary((cell(),), checks), tmp_path))
    assert f"not drawn: generations.jsonl{'' if why == 'has no step' else ':'} {why}" in page.text
    assert not page.of("svg")


@pytest.mark.parametrize("empty", [0, 4])
def test_the_lists_of_the_classic_lru_are_drawn(tmp_path: Path, empty: int) -> None:
    none = [{"seq": seq, "age_ms": 1, "anon": 0, "file": 0} for seq in range(empty)]
    lines = (json.loads(line) | {"generations": none} for line in steps().splitlines())
    (tmp_path / "generations.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    checks = (check("n1-vhe-base", "test_pressure[classic]", "pass", "generations.jsonl"),)
    page = Page(html_report(summary((cell(),), checks), tmp_path))
    assert len(page.of("svg")) == 1 and "inactive list" in page.text


def test_patched_cells_are_held_to_the_base_of_their_host_and_variant() -> None:
    plain, tuned = cell(), cell(variant="sw-af")
    patched = (cell("patched"), cell("patched", variant="sw-af"), cell("patched", variant="other"))
    alone = cell("patched", host="a57")
    found = pairs(summary((plain, tuned, *patched, alone)))
    assert [pair.base for pair in found] == [plain, tuned, plain, None]
    assert [pair.patched for pair in found] == [*patched, alone]


def test_boots_of_a_round_stand_side_by_side(tmp_path: Path) -> None:
    """`time` boots both kernels again and again: a boot is held to the base's of its own round."""
    both: tuple[KernelLabel, ...] = ("base", "patched")
    planned = boots(
        [PlannedCell("n1", one, "vhe", "hardware") for one in both], 1, TimingOptions(3)
    )
    cells = {one.id: one.record("pass") for one in planned if one.id != "n1-vhe-base-r02"}
    run = summary(tuple(cells.values()))
    assert [(pair.patched.id, pair.base and pair.base.id) for pair in pairs(run)] == [
        ("n1-vhe-patched-r01", "n1-vhe-base-r01"),
        ("n1-vhe-patched-r02", None),
        ("n1-vhe-patched-r03", "n1-vhe-base-r03"),
    ]
    assert cells["n1-vhe-base-r03-again"].boot == "r03-again"
    text = Page(html_report(run, tmp_path)).text
    assert all(f"n1 vhe r0{number}" in text for number in (1, 2, 3))


def test_checks_that_end_differently() -> None:
    base, patched, other = cell(), cell("patched"), cell("patched", variant="sw-af")
    ended: dict[str, tuple[Outcome | None, Outcome | None]] = {
        "same": ("fail", "fail"),
        "late": ("pass", None),
        "file": ("skip", "pass"),
        "race": ("pass", "fail"),
    }
    checks = [
        check(of.id, name, outcome)
        for name, (before, after) in ended.items()
        for of, outcome in ((base, before), (patched, after), (other, after))
        if outcome is not None
    ]
    assert differences(summary((base, patched, other), tuple(checks))) == (
        Difference("race", "pass", "fail", (patched, other)),
        Difference("file", "skip", "pass", (patched, other)),
        Difference("late", "pass", None, (patched, other)),
    )
